//! The findings at the opening of a log.

use crate::number::{SegmentNumber, Seq};
use crate::reader::{Damage, LogRecord};
use crate::segment::Segment;

/// A finding of [`crate::Log::open`].
#[derive(Debug)]
pub enum Event<'a> {
    /// The last checkpoint; the records after it have changed its state since.
    Checkpoint {
        /// The state that [`crate::Log::checkpoint`] was given.
        state: &'a [u8],
    },
    /// The last checkpoint is unreadable. Nobody knows which segments were released since the one before it; if that one
    /// is unreadable, too, every record in the directory follows.
    CheckpointDamaged,
    /// A sound record.
    Record(LogRecord<'a>),
    /// Records that cannot be read. Without sequence numbers it is a segment with two damaged headers and unknown
    /// content: it stays where it is, and is not reported again after the next checkpoint.
    Damage(Damage),
    /// A needed segment whose file does not exist.
    Missing(Segment),
    /// The youngest segment is shorter than it was made.
    Truncation(Truncation),
    /// An unfinished record behind the last one. Nothing shows that it was ever synced, so it does not count.
    TornTail {
        /// The segment.
        segment: SegmentNumber,
        /// The byte of the file at which the unfinished record begins.
        offset: u64,
    },
}

/// The youngest segment is shorter than it was made: its end is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The segment.
    pub segment: SegmentNumber,
    /// The size of the file now.
    pub bytes: u64,
    /// The size at which the file was made, at least.
    pub made_bytes: u64,
    /// The sequence number of the first record that may be lost.
    pub seq: Seq,
}
