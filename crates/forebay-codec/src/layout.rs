//! The places of the readings in a body.

/// The places of the readings in a body of one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One object, or an array of them.
    Array,
    /// An array of SenML records. The device of a record may be named by an earlier record.
    SenmlArray,
    /// One object per line; blank lines do not count.
    NonBlankLines,
    /// Line protocol: every line counts.
    EveryLine,
}
