//! A place in the text of a body, and how names are read there.

use std::borrow::Cow;

/// Ends a measurement, or begins an escape in it.
const IN_MEASUREMENT: u8 = 1;
/// Ends the key or the value of a tag, or the key of a field, or begins an escape in it.
const IN_KEY: u8 = 2;
/// Ends a value that is no text, or the time.
const IN_TOKEN: u8 = 4;

/// For each byte, where it means something.
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
pub(super) struct Cursor<'a> {
    text: &'a str,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Cursor<'a> {
        Cursor { text, at }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The text from here on.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Passes `byte` if it comes next, and says whether it did.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Passes spaces and tabs.
    pub(super) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes the end of a line if it comes next, and says whether it did.
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

    /// Passes everything up to the next line.
    pub(super) fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |length| length + 1);
    }

    /// The measurement; `\,` and `\ ` in it are a comma and a space.
    pub(super) fn measurement(&mut self) -> Cow<'a, str> {
        self.name(IN_MEASUREMENT)
    }

    /// The key or the value of a tag, or the key of a field; `\,`, `\ ` and `\=` in it are escapes.
    pub(super) fn key(&mut self) -> Cow<'a, str> {
        self.name(IN_KEY)
    }

    /// A value that is no text, or the time.
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
        // Both ends stand beside ASCII.
        Cow::Borrowed(&self.text[start..self.at])
    }

    /// The next byte that means something in such a place; the end of the text if there is none.
    fn end_of(&self, within: u8) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        self.at + rest.iter().position(|byte| MEANS[usize::from(*byte)] & within != 0).unwrap_or(rest.len())
    }

    /// A name with a backslash in it, where the cursor stands. One before anything that needs none is just that.
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
