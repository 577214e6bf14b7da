//! A writer for terminals: nothing from outside makes them do anything ([`super::is_obeyed`]).

use std::io::{self, Write};
use std::str;

use super::escape;

/// Writes text and JSON with everything escaped that a terminal would obey, but for line ends and tabs. JSON stays what it
/// is: such characters stand in strings, and a string with an escape is the same string.
#[derive(Debug)]
pub struct Escaping<W> {
    to: W,
    /// The beginning of a character of which the rest is still to come.
    begun: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> Escaping<W> {
        Escaping { to, begun: Vec::new() }
    }
}

impl<W: Write> Write for Escaping<W> {
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

/// How many bytes at the end begin a character that is not whole.
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
    fn however_a_text_is_cut_it_comes_out_escaped_and_whole() {
        let text = "a\u{9b}ä\u{202e}温🌡\t{\"x\":\"\u{7f}\"}\n".as_bytes();
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let mut out = Escaping::new(Vec::new());
                for part in [&text[..cut], &text[cut..second], &text[second..]] {
                    out.write_all(part).expect("memory");
                }
                let written = String::from_utf8(out.to).expect("UTF-8");
                assert_eq!(written, "a\\u009bä\\u202e温🌡\t{\"x\":\"\\u007f\"}\n", "{cut}, {second}");
            }
        }
    }
}
