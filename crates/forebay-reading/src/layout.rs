//! The bytes of an encoded reading: sizes, flags, and how lengths and strings are read and written.

/// Smallest size of an encoded reading, in bytes: its head and two names of one byte each.
pub const READING_BYTES_MIN: usize = HEAD_BYTES + 2;

pub(super) const LENGTH_BYTES: usize = 4;
pub(super) const HEAD_BYTES: usize = LENGTH_BYTES + 18;
pub(super) const FLAG_ESCAPE: u8 = 1;

pub(super) fn small<T: TryFrom<usize>>(length: usize) -> T {
    T::try_from(length).ok().expect("lengths are checked before they are encoded")
}

pub(super) fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only UTF-8 is encoded")
}
