//! A log of records of bytes, on disk. It knows neither what is in them nor anything asynchronous.
//!
//! One thread owns a [`Log`]: it appends the records of all who wait, commits once, and answers all. What it promises:
//!
//! - A record that was committed with [`Durability::Synced`] is there after a crash of the process or of the
//!   machine, once, in its place, unless the disk itself damages it.
//! - A record whose commit failed does not count: the next one gets its sequence number, in a new segment. Until
//!   that segment is on disk, a crash may still bring the failed one back.
//! - Damage is found (each record has a checksum), told apart from a torn tail and from an I/O error, and set
//!   aside; everything around it is read. Nothing is repaired by deletion.
//!
//! # Files
//!
//! - `NUMBER.segment`: records. Filled with zeros before it gets its name, and used again when it is not needed any
//!   more: a sync that has to find room costs twice as much. The directory is synced before anything in it counts.
//! - `checkpoint-a`, `checkpoint-b`: the state of whoever uses the log, and which segments it needs ([`checkpoint`]).
//! - `quarantine/SEGMENT-OFFSET`: bytes that could not be read. They stay until somebody removes them.
//! - `spare-NUMBER`: the next segment, not used yet.
//!
//! # Format, version 1
//!
//! All numbers are little-endian. A segment has its header twice, at 0 and at 2048:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FBYLOG`, 0, version 1 |
//! | 8 | number of the segment |
//! | 8 | sequence number of its first record |
//! | 4 | salt |
//! | 4 | CRC32C over the above |
//! | 8 | bytes of the file as it was made; zeros here and in what follows are of an older version, which did not say |
//! | 4 | CRC32C over all of the above but the other CRC32C, starting from the salt |
//!
//! From 4096 on it has records, each at a multiple of 8:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC32C over the rest, without padding, starting from the salt |
//! | 4 | length of the payload, at least 1 |
//! | 8 | sequence number |
//! | 8 | the first sequence number that was not on stable storage when this was written |
//! | … | payload, then zeros up to a multiple of 8 |
//!
//! # Torn tail or damage?
//!
//! Where no sound record stands, the reader looks for the next one. If anything (a later record, a later segment,
//! the checkpoint) says that the missing one had been synced, it is damage. If nothing does, it was never
//! acknowledged: the log ends there. A segment ends where the first of all later ones begins, so that records whose
//! commit failed do not come back.
//!
//! A file is as large as it was made from the moment on at which it has its name. If the youngest is shorter, what stood
//! at its end is gone, and that is told: nobody knows how many records it was. A record that is begun and not whole, or
//! zeros where some stood, cannot be told from what was being written at the end.
//!
//! # After a sync that failed
//!
//! The system may think clean what never reached the disk: it reads well until the next crash, and a second sync
//! proves nothing. So what has to be durable after all is written once more before it is synced: records committed as
//! [`Durability::Written`] before a commit that failed, and, when a log is opened, the checkpoint and the records of
//! the last segment, whatever happened before. Until that works no commit does. `tests/log/model.rs` holds this to a model.
//!
//! # Limits
//!
//! A record is smaller than 4 GiB. A segment has the size that [`LogOptions`] says, or that of its one larger record.
//! What is kept of damage is not limited; it was in the log before.

pub mod checkpoint;
mod checksum;
#[cfg(feature = "faulty-fs")]
pub mod faulty_fs;
mod frame;
mod fs;
mod log;
mod open;
pub mod private_files;
pub mod quarantine;
mod reader;
mod segment;
mod spare;
mod version;

pub use checkpoint::LogPosition;
pub use fs::{Fs, LogFile, OsFs, ReadOnlyFs, is_no_room};
pub use log::{Durability, Log, LogDirectory, LogError, LogOptions};
pub use open::{Event, Truncation};
pub use reader::{Damage, LogRecord, RecordStart, SegmentEnd, SegmentItem, SegmentReader, record_bytes};
pub use segment::Segment;
pub use spare::{Spare, SpareJob};
pub use version::refusal;

#[cfg(test)]
mod tests;
