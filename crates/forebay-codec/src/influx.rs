//! Line protocol: `measurement,tag=value field=value,field=value time`, one point a line, as InfluxDB takes it.
//!
//! | of a line | becomes |
//! |---|---|
//! | measurement and field key | the sensor: `MEASUREMENT_FIELD`, or the measurement alone where the key is `value` |
//! | each field | a reading of its own |
//! | the first of [`Rules::device_tags`] that the line has | the device, and no tag |
//! | the other tags | the tags |
//! | time | the time, in the unit of [`Rules::precision`]; the time of receipt if there is none |
//!
//! `1i` and `1u` are kept as whole numbers, `1` and `1.5` are doubles. An unsigned number beyond 64 bits signed becomes a
//! double if the double is exactly that number, and is a fault otherwise.
//!
//! A field with an invalid value costs only itself; any other fault costs its line, and no other line. Only a text may have
//! line feeds in it: a text that is not closed ends at the next quotation mark, and its fault names the last line that it
//! covers. Blank lines and comments (`#`) hold nothing, but they count: a fault names the line as an editor does.
//!
//! - `line` reads one line, `value` the value of a field, `cursor` names with their escapes, `digits` the time; `fault` has
//!   the faults and their words.
//!
//! Lines are read as InfluxDB 1 and 2 read them, except where a reading has stricter rules: an unescaped `=` in the value of
//! a tag, an empty value, and a tag or field that is there twice are faults; `\=` is not an escape in a measurement. Other
//! differences: a line feed ends a name even after a backslash, a comment always ends with its line, a tab separates like a
//! space, and a text must be followed by a comma, white space or the end of the line.

mod cursor;
mod digits;
mod encode;
mod fault;
mod line;
mod value;

use std::ops::Range;
use std::sync::Arc;

use forebay_reading::Readings;

use crate::{DecodeError, Decoded, Decoder, Looks, Reason, Rules};
pub use encode::InfluxEncoder;
use fault::{FaultScope, LineFault};
use line::{FieldFaults, LineError, Parser};

/// The format `influx`.
#[derive(Debug)]
pub struct Influx;

/// The tags that name the device of a line; the first of them that the line has counts.
///
/// `device`, or else `host`, unless others are set.
#[derive(Clone, Debug, Default)]
pub struct DeviceTags {
    set: Option<Arc<[String]>>,
}

impl DeviceTags {
    /// The names unless others are set.
    const DEFAULT: [&str; 2] = ["device", "host"];

    /// Uses these names, in order of precedence.
    pub fn new(names: Vec<String>) -> DeviceTags {
        let is_default = names.iter().eq(Self::DEFAULT.iter());
        DeviceTags { set: (!is_default).then(|| names.into()) }
    }

    /// The names, in order of precedence.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let set = self.set.iter().flat_map(|names| names.iter().map(String::as_str));
        set.chain(Self::DEFAULT.into_iter().take(if self.set.is_none() { 2 } else { 0 }))
    }

    /// The precedence of `name`; 0 comes first.
    fn rank(&self, name: &str) -> Option<usize> {
        match &self.set {
            None => Self::DEFAULT.iter().position(|known| *known == name),
            Some(names) => names.iter().position(|known| known == name),
        }
    }
}

impl Decoder for Influx {
    fn media_types(&self) -> &'static [&'static str] {
        &[]
    }

    fn advice(&self, looks: Looks) -> Option<&'static str> {
        match looks {
            Looks::Object | Looks::SpreadObject | Looks::Objects | Looks::Array | Looks::Markup => {
                looks.advice()
            }
            Looks::Empty | Looks::Form | Looks::Lines | Looks::Unknown => None,
        }
    }

    /// Never fails: a broken line costs no other line.
    fn read(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let mut decoded = Decoded { readings: Readings::with_capacity(body.len()), ..Decoded::default() };
        let (mut parser, mut numbers) = (Parser::new(rules), LineNumbers::default());
        let text = std::str::from_utf8(body).ok();
        let mut at = 0;
        while at < body.len() {
            let before = decoded.readings.end();
            let next = match text {
                Some(text) => parser.line(text, at, &mut decoded.readings),
                None => alone(&mut parser, body, at, &mut decoded.readings),
            };
            match next {
                Ok(next) => {
                    if let Some(faults) = parser.take_faults() {
                        // Places in a line that was read alone count from its beginning.
                        let start = if text.is_some() { 0 } else { at };
                        reject_fields(faults, start, body, at..next, &mut numbers, &mut decoded);
                    }
                    at = next;
                }
                Err(LineError::Overflow) => {
                    decoded.overflowed = true;
                    break;
                }
                Err(LineError::Fault(fault)) => {
                    decoded.readings.truncate(before);
                    let end = line_end(body, at);
                    reject(&fault, body, at..end, &mut numbers, &mut decoded);
                    at = end;
                }
            }
        }
        Ok(decoded)
    }

    fn layout(&self) -> super::Layout {
        super::Layout::EveryLine
    }
}

/// Reads one line of a body that is not UTF-8 as a whole.
fn alone<'a>(
    parser: &mut Parser<'a, '_>,
    body: &'a [u8],
    start: usize,
    readings: &mut Readings,
) -> Result<usize, LineError> {
    let line = &body[start..line_end(body, start)];
    match std::str::from_utf8(line) {
        Ok(text) => match parser.line(text, 0, readings) {
            Ok(next) => Ok(start + next),
            Err(LineError::Fault(fault)) => Err(LineFault { at: start + fault.at, ..fault }.into()),
            Err(LineError::Overflow) => Err(LineError::Overflow),
        },
        Err(error) => {
            let at = start + error.valid_up_to();
            Err(LineFault::new(at, Reason::Type, "the line is not UTF-8").into())
        }
    }
}

/// Rejects single fields of a line; the places of their faults count from the byte `start`.
fn reject_fields(
    faults: FieldFaults,
    start: usize,
    body: &[u8],
    line: Range<usize>,
    numbers: &mut LineNumbers,
    decoded: &mut Decoded,
) {
    for fault in faults.listed {
        let fault = LineFault { at: start + fault.at, ..fault };
        reject(&fault, body, line.clone(), numbers, decoded);
    }
    for ((_, reason), count) in Reason::NAMES.iter().zip(faults.unlisted) {
        decoded.rejections.count_unlisted(*reason, count);
    }
}

fn reject(
    fault: &LineFault,
    body: &[u8],
    line: Range<usize>,
    numbers: &mut LineNumbers,
    decoded: &mut Decoded,
) {
    let index = numbers.before(body, line.start);
    decoded.rejections.add(index, fault.reason, 1, || {
        let field = match &fault.scope {
            FaultScope::Line => String::new(),
            FaultScope::Field(key) => format!("/{key}"),
        };
        (format!("/{index}{field}"), describe(fault, body, line, index + 1))
    });
}

/// The place and the words of a fault in the line with this number. A text may extend the line over several lines.
fn describe(fault: &LineFault, body: &[u8], line: Range<usize>, number: usize) -> String {
    let feeds_before = |end: usize| memchr::memchr_iter(b'\n', &body[line.start..end]).count();
    let row_start =
        memchr::memrchr(b'\n', &body[line.start..fault.at]).map_or(line.start, |at| line.start + at + 1);
    let mut place = format!("column {}", fault.at - row_start + 1);
    let row = number + feeds_before(fault.at);
    if row != number {
        place += &format!(" of line {row}");
    }
    let last = number + feeds_before(line.end - usize::from(body[..line.end].ends_with(b"\n")));
    if last != number && fault.scope == FaultScope::Line {
        place += &format!(", up to line {last}");
    }
    format!("{place}: {}", fault.detail)
}

/// Counts the lines of a body in one pass.
#[derive(Default)]
struct LineNumbers {
    at: usize,
    lines: usize,
}

impl LineNumbers {
    /// The number of lines that end before `position`, which must not decrease between calls.
    fn before(&mut self, body: &[u8], position: usize) -> usize {
        self.lines += memchr::memchr_iter(b'\n', &body[self.at..position]).count();
        self.at = position;
        self.lines
    }
}

/// The start of the line after the one that begins at `start`, whatever its faults. For a line without faults,
/// [`Parser::line`] finds the same end.
fn line_end(body: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(b' ' | b'\t') = body.get(at) {
        at += 1;
    }
    if body.get(at) == Some(&b'#') {
        return memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |length| at + length + 1);
    }
    let mut in_fields = false;
    while let Some(byte) = body.get(at) {
        at += 1;
        match (byte, body.get(at)) {
            (b'\n', _) => break,
            (b'\\', Some(b' ' | b',' | b'=')) => at += 1,
            (b' ', _) => in_fields = true,
            (b'=', Some(b'"')) if in_fields => at = text_end(body, at + 1).map_or(body.len(), |end| end + 1),
            _ => {}
        }
    }
    at
}

/// The place of the quotation mark that closes the text whose first byte is at `start`.
fn text_end(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        match (body[at], body.get(at + 1)) {
            (b'"', _) => return Some(at),
            (_, Some(b'"' | b'\\')) => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests;
