//! The tags of an encoded reading: for each the length of the name (2), length of the value (2), name, value.

use crate::error::ReadingError;
use crate::layout::{number, small};
use crate::limits::{TAG_BYTES_MAX, TAGS_MAX};
use crate::parts::Tag;
use crate::text::Text as _;

/// The name and the value of a tag, as UTF-8.
pub type TagBytes<'a> = (&'a [u8], &'a [u8]);

/// Iterates over encoded tags.
pub fn tags_of(encoded: &[u8]) -> impl Iterator<Item = TagBytes<'_>> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (lengths, after) = rest.split_at_checked(4)?;
        let (name, after) = after.split_at(number(&lengths[..2]));
        let (value, after) = after.split_at(number(&lengths[2..]));
        rest = after;
        Some((name, value))
    })
}

/// Appends an encoded tag. Its name and value must come from a reading, whose limits they keep.
pub fn append_tag((name, value): TagBytes<'_>, encoded: &mut Vec<u8>) {
    encoded.extend_from_slice(&small::<u16>(name.len()).to_le_bytes());
    encoded.extend_from_slice(&small::<u16>(value.len()).to_le_bytes());
    encoded.extend_from_slice(name);
    encoded.extend_from_slice(value);
}

/// Checks tags. Returns whether JSON needs to escape one.
pub(super) fn check(tags: &[Tag<'_>]) -> Result<bool, ReadingError> {
    if tags.len() > TAGS_MAX {
        return Err(ReadingError::TagCount { got: tags.len() });
    }
    let mut escape = false;
    for (name, value) in tags {
        if name.len() > TAG_BYTES_MAX || value.len() > TAG_BYTES_MAX {
            return Err(ReadingError::TagLength { name: name.len(), value: value.len() });
        }
        escape |= !(&**name).is_plain() | !(&**value).is_plain();
    }
    Ok(escape)
}
