//! The two numbers that a log gives out: one for each record, one for each segment.

use std::fmt;

/// The sequence number of a record. The first record of a log is number 1, and each next one is one higher.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The first record of a log.
    pub const FIRST: Seq = Seq(1);
    /// Above every record.
    pub const MAX: Seq = Seq(u64::MAX);

    /// The record of this number.
    pub const fn new(number: u64) -> Seq {
        Seq(number)
    }

    /// The bare number, for files and messages.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The record after this one.
    #[must_use]
    pub const fn next(self) -> Seq {
        self.saturating_add(1)
    }

    /// The record that comes `records` later.
    #[must_use]
    pub const fn saturating_add(self, records: u64) -> Seq {
        Seq(self.0.saturating_add(records))
    }
}

/// The number of a segment; a higher one is younger.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// The segment of this number.
    pub const fn new(number: u64) -> SegmentNumber {
        SegmentNumber(number)
    }

    /// The bare number, for files and messages.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The segment after this one.
    #[must_use]
    pub const fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for SegmentNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}
