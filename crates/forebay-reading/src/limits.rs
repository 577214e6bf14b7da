//! The limits of a reading.

/// Longest name of a device or sensor, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest string value, in bytes.
pub const TEXT_VALUE_BYTES_MAX: usize = 4096;
/// Longest unit, in bytes.
pub const UNIT_BYTES_MAX: usize = 64;
/// Most tags on a reading.
pub const TAGS_MAX: usize = 32;
/// Longest name or value of a tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;
