//! The tokens of JSON, in texts that need not be JSON.

use forebay_reading::text::plain_length;

/// Whether a byte is part of a word: neither structure nor white space.
pub(super) fn is_of_word(byte: u8) -> bool {
    !matches!(byte, b'"' | b'[' | b']' | b'{' | b'}' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n')
}

/// The end of the string that begins at `start`: after its closing quotation mark, or at the end of the text.
pub(super) fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(rest) = text.get(at..) {
        at += plain_length(rest);
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => break,
        }
    }
    text.len()
}
