//! Line protocol: `measurement,tag=value field=value,field=value time`, one point a line, as InfluxDB takes it.
//!
//! | of a line | becomes |
//! |---|---|
//! | measurement and field key | the sensor: `MEASUREMENT_FIELD`, or the measurement alone where the key is `value` |
//! | each field | a reading of its own |
//! | the first of [`Rules::device_tags`] that the line has | the device; it is no tag any more |
//! | the other tags | the tags |
//! | time | the time, in the unit of [`Rules::precision`]; the time of receipt if there is none |
//!
//! `1i` and `1u` are kept as whole numbers, `1` and `1.5` are doubles. An unsigned number that 64 bits signed do not
//! hold becomes a double if that is exactly the same number, and is a fault if not: nothing is altered.
//!
//! A field that is no value costs itself alone, and anything else that is wrong with a line the whole line; a bad line
//! costs no other. Only a text may have line feeds in it; one that is
//! not closed takes all that follows with it, up to the next quotation mark, and the fault says how far that was. Blank
//! lines and those that begin with `#` hold nothing, but they are counted: a fault names the line as an editor would.
//!
//! - `line` reads one line; `value` the value of a field, `cursor` names with their escapes, `digits` the time; `fault`
//!   says what is wrong.
//!
//! What InfluxDB 1 and 2 do is done here, where it does not contradict the rules of a reading: an unescaped `=` in the
//! value of a tag, an empty value and a tag that is twice there are faults, and so is a field; `\=` is no escape in a measurement. Some
//! things differ: a line feed ends a name also after a backslash, a comment ends with its line whatever is in it, a tab
//! separates like a space, and nothing may stand between a text and the comma or space that follows.

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
use fault::{Fault, Scope};
use line::{FieldFaults, LineError, Parser};

/// The format `influx`.
#[derive(Debug)]
pub struct Influx;

/// The tags that name the device of a line: the first one counts that a line has.
///
/// `device`, or else `host`, unless others are set.
#[derive(Clone, Debug, Default)]
pub struct DeviceTags {
    set: Option<Arc<[String]>>,
}

impl DeviceTags {
    /// What they are unless others are set.
    const DEFAULT: [&str; 2] = ["device", "host"];

    /// Takes these names, the first one first.
    pub fn new(names: Vec<String>) -> DeviceTags {
        let is_default = names.iter().eq(Self::DEFAULT.iter());
        DeviceTags { set: (!is_default).then(|| names.into()) }
    }

    /// The names, the first one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let set = self.set.iter().flat_map(|names| names.iter().map(String::as_str));
        set.chain(Self::DEFAULT.into_iter().take(if self.set.is_none() { 2 } else { 0 }))
    }

    /// The place of `name` among them.
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

    /// Never fails: what is no line costs no other line.
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
                        // The places of a line that was read alone count from its beginning.
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

/// Reads a line of a body that is not UTF-8 as a whole. The line may be.
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
            Err(LineError::Fault(fault)) => Err(Fault { at: start + fault.at, ..fault }.into()),
            Err(LineError::Overflow) => Err(LineError::Overflow),
        },
        Err(error) => {
            let at = start + error.valid_up_to();
            Err(Fault::new(at, Reason::Type, "the line is not UTF-8").into())
        }
    }
}

/// Turns single fields of a line away, whose faults count their places from the byte `start`.
fn reject_fields(
    faults: FieldFaults,
    start: usize,
    body: &[u8],
    line: Range<usize>,
    numbers: &mut LineNumbers,
    decoded: &mut Decoded,
) {
    for fault in faults.listed {
        let fault = Fault { at: start + fault.at, ..fault };
        reject(&fault, body, line.clone(), numbers, decoded);
    }
    for ((_, reason), count) in Reason::NAMES.iter().zip(faults.unlisted) {
        decoded.rejections.count_unlisted(*reason, count);
    }
}

fn reject(fault: &Fault, body: &[u8], line: Range<usize>, numbers: &mut LineNumbers, decoded: &mut Decoded) {
    let index = numbers.before(body, line.start);
    decoded.rejections.add(index, fault.reason, 1, || {
        let field = match &fault.scope {
            Scope::Line => String::new(),
            Scope::Field(key) => format!("/{key}"),
        };
        (format!("/{index}{field}"), describe(fault, body, line, index + 1))
    });
}

/// What is wrong with a line that has this number, and where. A text may make it run over several lines.
fn describe(fault: &Fault, body: &[u8], line: Range<usize>, number: usize) -> String {
    let feeds_before = |end: usize| memchr::memchr_iter(b'\n', &body[line.start..end]).count();
    let row_start =
        memchr::memrchr(b'\n', &body[line.start..fault.at]).map_or(line.start, |at| line.start + at + 1);
    let mut place = format!("column {}", fault.at - row_start + 1);
    let row = number + feeds_before(fault.at);
    if row != number {
        place += &format!(" of line {row}");
    }
    let last = number + feeds_before(line.end - usize::from(body[..line.end].ends_with(b"\n")));
    if last != number && fault.scope == Scope::Line {
        place += &format!(", up to line {last}");
    }
    format!("{place}: {}", fault.detail)
}

/// Counts lines, each once.
#[derive(Default)]
struct LineNumbers {
    at: usize,
    lines: usize,
}

impl LineNumbers {
    /// How many lines end before `position`, which is not before the last one that was asked for.
    fn before(&mut self, body: &[u8], position: usize) -> usize {
        self.lines += memchr::memchr_iter(b'\n', &body[self.at..position]).count();
        self.at = position;
        self.lines
    }
}

/// Where the next line begins after the one that begins at `start`, whatever is wrong with that. A line without fault
/// ends here for [`Parser::line`], too.
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

/// Where the quotation mark stands that closes the text whose first byte is at `start`.
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
