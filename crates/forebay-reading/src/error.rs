//! The rules that a reading can break.

use thiserror::Error;

use crate::field::Field;
use crate::limits::{NAME_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX, TEXT_VALUE_BYTES_MAX, UNIT_BYTES_MAX};
use crate::timestamp::TimeError;

/// The rule that a reading breaks. Each variant knows the field at fault.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ReadingError {
    /// An empty or too long name.
    #[error("`{}` must be 1 to {NAME_BYTES_MAX} bytes long, got {got}", field.name())]
    NameLength {
        /// `device` or `sensor`.
        field: Field,
        /// Its length in bytes.
        got: usize,
    },
    /// A control character in a name.
    #[error("`{}` must not contain control characters, found U+{:04X} at byte {at}", field.name(), u32::from(*found))]
    ControlCharacter {
        /// `device` or `sensor`.
        field: Field,
        /// The character.
        found: char,
        /// Its place in the name, in bytes.
        at: usize,
    },
    /// NaN or an infinity.
    #[error("`value` must be a finite number")]
    NotFinite,
    /// A string value that is too long.
    #[error("`value` must be at most {TEXT_VALUE_BYTES_MAX} bytes long as a string, got {got}")]
    TextLength {
        /// Its length in bytes.
        got: usize,
    },
    /// A unit that is too long.
    #[error("`unit` must be at most {UNIT_BYTES_MAX} bytes long, got {got}")]
    UnitLength {
        /// Its length in bytes.
        got: usize,
    },
    /// Too many tags.
    #[error("`tags` must be at most {TAGS_MAX}, got {got}")]
    TagCount {
        /// The number of tags.
        got: usize,
    },
    /// A tag whose name or value is too long.
    #[error("a tag's name and value must be at most {TAG_BYTES_MAX} bytes long, got {name} and {value}")]
    TagLength {
        /// Length of the name in bytes.
        name: usize,
        /// Length of the value in bytes.
        value: usize,
    },
    /// An invalid time.
    #[error(transparent)]
    Time(#[from] TimeError),
}

impl ReadingError {
    /// The field at fault.
    pub fn field(&self) -> Field {
        match self {
            ReadingError::NameLength { field, .. } | ReadingError::ControlCharacter { field, .. } => *field,
            ReadingError::NotFinite | ReadingError::TextLength { .. } => Field::Value,
            ReadingError::UnitLength { .. } => Field::Unit,
            ReadingError::TagCount { .. } | ReadingError::TagLength { .. } => Field::Tags,
            ReadingError::Time(_) => Field::Time,
        }
    }
}
