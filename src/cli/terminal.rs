//! What goes to a terminal: nothing from outside makes it do anything ([`forebay_reading::text::is_obeyed`]).

use std::fmt::Display;
use std::io::{self, Write};
use std::str;

use forebay_reading::text::escape;

/// Writes text and JSON with everything escaped that a terminal would obey, but for line ends and tabs. JSON stays what it
/// is: such characters stand in strings, and a string with an escape is the same string.
#[derive(Debug)]
pub(super) struct Escaping<W> {
    to: W,
    /// The beginning of a character of which the rest is still to come.
    begun: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    pub(super) fn new(to: W) -> Escaping<W> {
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

/// A line of the log, which was formatted as a whole.
///
/// Nothing but its end breaks it. Colours pass where the log has some: what came from outside has no escape characters
/// any more when the formatter adds them.
#[derive(Debug)]
pub(super) struct LogLine<W> {
    to: W,
    colours: Colours,
}

/// Whether the log is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    Some,
    None,
}

impl<W: Write> LogLine<W> {
    pub(super) fn new(to: W, colours: Colours) -> LogLine<W> {
        LogLine { to, colours }
    }
}

impl<W: Write> Write for LogLine<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (line, end) = bytes.strip_suffix(b"\n").map_or((bytes, &b""[..]), |line| (line, b"\n"));
        let mut escaped = Vec::with_capacity(bytes.len());
        let mut rest = line;
        while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
            let colour = colour_bytes(&rest[at..]).filter(|_| self.colours == Colours::Some);
            escape(&rest[..at], |_| false, &mut escaped);
            let (shown, after) = rest[at..].split_at(colour.unwrap_or(1));
            match colour {
                Some(_) => escaped.extend_from_slice(shown),
                None => escape(shown, |_| false, &mut escaped),
            }
            rest = after;
        }
        escape(rest, |_| false, &mut escaped);
        escaped.extend_from_slice(end);
        self.to.write_all(&escaped)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The length of a sequence that sets a colour and does nothing else, if one begins here.
fn colour_bytes(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\x1b[")?;
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    (inside.get(digits) == Some(&b'm')).then_some(digits + 3)
}

/// Tells on standard error what went wrong, a line for each of its lines.
pub(super) fn complain(what: impl Display) {
    let mut text = Vec::new();
    escape(format!("forebay: {what}").as_bytes(), |letter| letter == '\n', &mut text);
    eprintln!("{}", String::from_utf8_lossy(&text));
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

    #[test]
    fn a_line_of_the_log_stays_one_line_and_only_colours_pass() {
        let check = |line: &str, colours, expected: &str| {
            let mut out = LogLine::new(Vec::new(), colours);
            out.write_all(line.as_bytes()).expect("memory");
            assert_eq!(String::from_utf8(out.to).expect("UTF-8"), expected);
        };
        let line = "\u{1b}[31mWARN\u{1b}[0m no\n\u{1b}[2J\u{9b}\u{2028}\u{1b}\n";
        check(line, Colours::None, "\\u001b[31mWARN\\u001b[0m no\\u000a\\u001b[2J\\u009b\\u2028\\u001b\n");
        check(line, Colours::Some, "\u{1b}[31mWARN\u{1b}[0m no\\u000a\\u001b[2J\\u009b\\u2028\\u001b\n");
        check("no end", Colours::None, "no end");
    }
}
