//! Output to a terminal: text from outside cannot control it ([`forebay_reading::text::is_obeyed`]).

use std::fmt::Display;
use std::io::{self, Write};

use forebay_reading::text::escape;

/// Writes one formatted line of the log.
///
/// The line is broken at its end alone. Colours pass if the log has any: the formatter escapes text from outside before it
/// adds them.
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

/// The length of an escape sequence that only sets a colour, if one begins here.
fn colour_bytes(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\x1b[")?;
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    (inside.get(digits) == Some(&b'm')).then_some(digits + 3)
}

/// Prints one line of what a command gives, on standard output.
pub(super) fn show_line(what: impl Display) {
    // That nobody reads it any more is no fault of the command.
    let _ = writeln!(io::stdout(), "{what}");
}

/// Prints an error on standard error, keeping its line breaks.
pub(super) fn complain(what: impl Display) {
    let mut text = Vec::new();
    escape(format!("forebay: {what}").as_bytes(), |letter| letter == '\n', &mut text);
    // The exit status tells it, too, where standard error takes nothing (a full disk).
    let _ = writeln!(io::stderr(), "{}", String::from_utf8_lossy(&text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_stays_one_line_and_only_its_colours_pass() {
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
