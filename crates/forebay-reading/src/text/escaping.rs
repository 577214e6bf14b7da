//! A writer for terminals that escapes every character that a terminal would obey ([`super::is_obeyed`]).

use std::io::{self, Write};
use std::str;

use super::escape;

/// Writes text and JSON, and escapes every character that a terminal would obey, except line ends and tabs. JSON keeps its
/// meaning: these characters occur only in strings, where an escape means the same character.
#[derive(Debug)]
pub struct EscapingWriter<W> {
    to: W,
    /// The first bytes of a character whose rest has not arrived yet.
    begun: Vec<u8>,
}

impl<W: Write> EscapingWriter<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> EscapingWriter<W> {
        EscapingWriter { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = std::mem::take(&mut self.begun);
        text.extend_from_slice(bytes);
        self.begun = text.split_off(text.len() - begun_bytes(&text));
        let mut escaped = Vec::with_capacity(text.len());
        escape(&text, |letter| matches!(letter, '\n' | '\t'), &mut escaped);
        self.to.write_all(&escaped)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The number of bytes at the end that belong to an incomplete character.
fn begun_bytes(text: &[u8]) -> usize {
    let tail = |count: &usize| text.len().checked_sub(*count).map_or(&[][..], |at| &text[at..]);
    let is_begun = |count: &usize| {
        str::from_utf8(tail(count)).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
    };
    (1..4).find(is_begun).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_out_escaped_and_complete_for_every_split_into_writes() {
        let text = "a\u{9b}ä\u{202e}温🌡\t{\"x\":\"\u{7f}\"}\n".as_bytes();
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let mut out = EscapingWriter::new(Vec::new());
                for part in [&text[..cut], &text[cut..second], &text[second..]] {
                    out.write_all(part).expect("memory");
                }
                let written = String::from_utf8(out.to).expect("UTF-8");
                assert_eq!(written, "a\\u009bä\\u202e温🌡\t{\"x\":\"\\u007f\"}\n", "{cut}, {second}");
            }
        }
    }
}
