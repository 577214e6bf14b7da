//! A place in the text of a body, and reading names from there.

use std::borrow::Cow;

/// Ends a measurement, or begins an escape in it.
const IN_MEASUREMENT: u8 = 1;
/// Ends the key or the value of a tag, or the key of a field, or begins an escape in it.
const IN_KEY: u8 = 2;
/// Ends the time, or a value that is not a text.
const IN_TOKEN: u8 = 4;

/// For each byte, the places in which it is special.
static MEANS: [u8; 256] = {
    let mut means = [0; 256];
    means[b',' as usize] = IN_MEASUREMENT | IN_KEY | IN_TOKEN;
    means[b' ' as usize] = IN_MEASUREMENT | IN_KEY | IN_TOKEN;
    means[b'\n' as usize] = IN_MEASUREMENT | IN_KEY | IN_TOKEN;
    means[b'\r' as usize] = IN_TOKEN;
    means[b'\t' as usize] = IN_TOKEN;
    means[b'=' as usize] = IN_KEY;
    means[b'\\' as usize] = IN_MEASUREMENT | IN_KEY;
    means
};

/// A place in a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineCursor<'a> {
    text: &'a str,
    pub(super) at: usize,
}

impl<'a> LineCursor<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> LineCursor<'a> {
        LineCursor { text, at }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The text from the cursor on.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The text from the byte `start` to the cursor.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Skips `byte` if it comes next. Returns whether it did.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Skips spaces and tabs.
    pub(super) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips the end of a line if it comes next. Returns whether it did.
    pub(super) fn take_line_end(&mut self) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let length = match rest {
            [] => 0,
            [b'\n', ..] | [b'\r'] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return false,
        };
        self.at += length;
        true
    }

    /// Skips the rest of the line.
    pub(super) fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |length| length + 1);
    }

    /// Reads the measurement; its escapes are `\,` and `\ `.
    pub(super) fn measurement(&mut self) -> Cow<'a, str> {
        self.name(IN_MEASUREMENT)
    }

    /// Reads the key or the value of a tag, or the key of a field; its escapes are `\,`, `\ ` and `\=`.
    pub(super) fn key(&mut self) -> Cow<'a, str> {
        self.name(IN_KEY)
    }

    /// Reads the time, or a value that is not a text.
    pub(super) fn token(&mut self) -> &'a str {
        let start = self.at;
        self.at = self.end_of(IN_TOKEN);
        &self.text[start..self.at]
    }

    fn name(&mut self, within: u8) -> Cow<'a, str> {
        let start = self.at;
        self.at = self.end_of(within);
        if self.peek() == Some(b'\\') {
            return Cow::Owned(self.unescaped(start, within));
        }
        // ASCII is next to both ends, so they lie between characters.
        Cow::Borrowed(&self.text[start..self.at])
    }

    /// Whether the time, or a value that is not a text, ends after the next `length` bytes, which are ASCII.
    pub(super) fn is_token(&self, length: usize) -> bool {
        let after = self.text.as_bytes().get(self.at + length);
        after.is_none_or(|byte| MEANS[usize::from(*byte)] & IN_TOKEN != 0)
    }

    /// The place of the next byte that is special in such a place, or the end of the text.
    fn end_of(&self, within: u8) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        // Eight bytes at a time; bytes that may be special, and the last few, one by one.
        while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let plain = plain_length(u64::from_le_bytes(*word));
            at += plain;
            if plain < 8 {
                if MEANS[usize::from(bytes[at])] & within != 0 {
                    return at;
                }
                at += 1;
            }
        }
        let rest = bytes.get(at..).unwrap_or_default();
        at + rest.iter().position(|byte| MEANS[usize::from(*byte)] & within != 0).unwrap_or(rest.len())
    }

    /// Reads on in a name, from a backslash. A backslash before a character that needs no escape stays.
    #[cold]
    fn unescaped(&mut self, start: usize, within: u8) -> String {
        let (mut name, mut kept) = (String::new(), start);
        while self.take(b'\\') {
            if let Some(b',' | b' ' | b'=') =
                self.peek().filter(|next| MEANS[usize::from(*next)] & within != 0)
            {
                name.push_str(&self.text[kept..self.at - 1]);
                kept = self.at;
                self.at += 1;
            }
            self.at = self.end_of(within);
        }
        name.push_str(&self.text[kept..self.at]);
        name
    }
}

/// The number of bytes at the low end of a word before the first comma, equals sign, backslash, space or control character.
/// The tests come from Sean Anderson's *Bit Twiddling Hacks*.
fn plain_length(word: u64) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let found = below(word, b' ' + 1) | equals(b',') | equals(b'=') | equals(b'\\');
    (found & (ONES * 0x80)).trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn searching_by_words_finds_what_searching_by_bytes_finds(text in "[a-z]{0,12}([ -~\n\r\té\u{0}]{0,6}[a-z]{0,9}){0,3}", within in prop::sample::select(vec![IN_MEASUREMENT, IN_KEY, IN_TOKEN])) {
            for (at, _) in text.char_indices() {
                let by_one = text.as_bytes()[at..].iter().position(|byte| MEANS[usize::from(*byte)] & within != 0);
                let expected = by_one.map_or(text.len(), |length| at + length);
                prop_assert_eq!(LineCursor::new(&text, at).end_of(within), expected);
            }
        }

        #[test]
        fn a_byte_that_is_special_in_any_place_ends_the_plain_length(bytes: [u8; 8]) {
            let plain = plain_length(u64::from_le_bytes(bytes));
            let means = |byte: &u8| MEANS[usize::from(*byte)] != 0 || *byte < b' ';
            prop_assert_eq!(plain, bytes.iter().position(means).unwrap_or(8));
        }
    }
}
