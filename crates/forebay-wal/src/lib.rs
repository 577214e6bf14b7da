//! A log of byte records on disk. It knows neither the contents of its records nor async code.
//!
//! One thread owns a [`Log`]: it appends the records of all waiting callers, commits once, and answers all of them. The
//! log promises:
//!
//! - A record that was committed with [`Durability::Synced`] survives a crash of the process or of the machine, once
//!   and in its place, unless the disk itself damages it.
//! - A record whose commit failed does not count: the next record gets its sequence number, in a new segment. Until
//!   that segment is on disk, a crash may still bring the failed record back.
//! - Damage is found by the checksum of each record, told apart from a torn tail and from an I/O error, and set aside;
//!   every sound record around it is read. Nothing is repaired by deletion.
//!
//! # Files
//!
//! - `NUMBER.segment`: records. The file is filled with zeros before it gets its name, and reused once its records are
//!   settled: a sync that has to allocate blocks costs twice as much. The directory is synced before anything in the
//!   file counts.
//! - `checkpoint-a`, `checkpoint-b`: the caller's state, and which segments it still needs ([`checkpoint`]).
//! - `quarantine/SEGMENT-OFFSET`: bytes that could not be read. They stay until somebody removes them.
//! - `spare-NUMBER`: the next segment, not used yet.
//!
//! # Format, version 1
//!
//! All numbers are little-endian. A segment has its header twice, at 0 and at 2048:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `FBYLOG`, 0, version 1 |
//! | 8 | number of the segment |
//! | 8 | sequence number of its first record |
//! | 4 | salt |
//! | 4 | CRC32C over the above |
//! | 8 | size at which the file was made; older versions wrote zeros here and after it |
//! | 4 | CRC32C over all of the above but the other CRC32C, starting from the salt |
//!
//! From 4096 on it has records, each at a multiple of 8:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | CRC32C over the rest, without padding, starting from the salt |
//! | 4 | length of the payload, at least 1 |
//! | 8 | sequence number |
//! | 8 | the first sequence number that was not on stable storage when this was written |
//! | … | payload, then zeros up to a multiple of 8 |
//!
//! # Torn tail or damage?
//!
//! Where a sound record is missing, the reader looks for the next sound one. If anything (a later record, a later
//! segment, the checkpoint) shows that the missing record had been synced, it is damage. Otherwise the record was never
//! acknowledged, and the log ends there. A segment ends where the first of all later segments begins, so that records
//! of a failed commit do not come back.
//!
//! A file has its full size from the moment it gets its name. A youngest segment that is shorter than that has lost its
//! end; this is reported, but nobody can tell how many records were there. A record that was begun and not finished,
//! or zeros in place of records, cannot be told from a write that a crash interrupted.
//!
//! # After a failed sync
//!
//! The system may mark pages as clean that never reached the disk: they read well until the next crash, and a second
//! sync proves nothing. So the log writes once more, before it syncs, whatever has to be durable after all: records
//! committed as [`Durability::Written`] before the failed commit and, when a log is opened, the checkpoint and the
//! records of the last segment. No commit succeeds until that has worked. `tests/log/model.rs` checks all this against a
//! model.
//!
//! # Limits
//!
//! A record is smaller than 4 GiB. A segment has the size that [`LogOptions`] gives, or the size that its one larger
//! record needs. The quarantine has no limit of its own: its bytes were in the log before.

mod active;
pub mod checkpoint;
mod checksum;
mod compatibility;
mod directory;
mod error;
mod event;
#[cfg(feature = "faulty-fs")]
pub mod faulty_fs;
mod frame;
mod fs;
mod log;
mod number;
mod open;
mod options;
pub mod private_files;
pub mod quarantine;
mod reader;
mod segment;
mod spare;
mod version;

pub use checkpoint::LogPosition;
pub use directory::LogDirectory;
pub use error::{LogError, refusal};
pub use event::{Event, Truncation};
pub use fs::{Fs, LogFile, OsFs, ReadOnlyFs, is_no_room};
pub use log::{Durability, Log};
pub use number::{SegmentNumber, Seq};
pub use options::LogOptions;
pub use reader::{Damage, LogRecord, RecordStart, SegmentEnd, SegmentItem, SegmentReader, record_bytes};
pub use segment::Segment;
pub use spare::{Spare, SpareJob};

#[cfg(test)]
mod tests;
