//! Readings in the internal encoding: written once when a request is decoded, then only read.
//!
//! [`Readings`] holds the readings of one accepted request in one buffer of bytes. The same bytes wait in memory,
//! and routing and the encoders read them through a borrowed [`ReadingRef`] without allocating.
//!
//! The layout of a reading, with all numbers little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the rest |
//! | 8 | time, nanoseconds since the Unix epoch, `i64` |
//! | 1 | kind of the value: 0 integer, 1 double, 2 false, 3 true, 4 string |
//! | 1 | flags; bit 0: a string needs escaping in JSON |
//! | 1 | length of the unit, 0 without a unit |
//! | 1 | number of tags |
//! | 2 | length of the device |
//! | 2 | length of the sensor |
//! | 2 | length of the value as text; 0 for true and false |
//! | … | device, sensor, unit, value |
//! | … | for each tag: length of the name (2), length of the value (2), name, value |
//!
//! A number is stored as its canonical text: mostly shorter than its bits, exact, and ready to be written.
//!
//! The other modules are independent of readings: [`timestamp`], [`text`] and [`clock`], and for settings [`quantity`],
//! [`registry`] and [`setting`].

pub mod clock;
mod error;
mod field;
pub mod globs;
mod layout;
mod limits;
mod number;
mod parts;
pub mod quantity;
mod reading_ref;
mod readings;
pub mod registry;
pub mod setting;
mod stored;
mod tags;
pub mod text;
pub mod timestamp;
mod value;

pub use error::ReadingError;
pub use field::Field;
pub use layout::READING_BYTES_MIN;
pub use limits::{NAME_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX, TEXT_VALUE_BYTES_MAX, UNIT_BYTES_MAX};
pub use number::{NumberText, is_beyond_doubles, number_at_start_of};
pub use parts::{Parts, ReadingParts, Tag};
pub use reading_ref::ReadingRef;
pub use readings::{Iter, Position, Readings};
pub use tags::{TagBytes, append_tag, tags_of};
pub use value::{NewValue, Token, Value};

#[cfg(test)]
mod tests;
