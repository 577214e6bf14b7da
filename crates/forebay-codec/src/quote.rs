//! Pieces of a request as errors repeat them.

use std::borrow::Cow;

/// Longest piece of a request that an error repeats, in bytes.
const QUOTE_BYTES_MAX: usize = 64;

/// Cuts a piece of a request to a length that an error may repeat.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= QUOTE_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(QUOTE_BYTES_MAX)]))
}

/// Writes a name as a token of a JSON pointer (RFC 6901, section 3).
pub(super) fn pointer_token(name: &str) -> String {
    shorten(name).replace('~', "~0").replace('/', "~1")
}
