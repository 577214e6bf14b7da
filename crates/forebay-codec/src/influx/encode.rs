//! Writes InfluxDB line protocol: one reading per line.
//!
//! `SENSOR,device=DEVICE,TAG=VALUE… value=VALUE NANOSECONDS`, the tags sorted by the bytes of their names, which is
//! fastest for InfluxDB. A tag called `device` becomes `exported_device`. An empty tag is left out: to InfluxDB it is the same
//! as no tag. The unit is not sent.
//!
//! Line protocol escapes commas, spaces and equals signs with a backslash, and has no escape for the backslash: InfluxDB 1 and
//! 2 read it as itself, and at the end of a tag it escapes the next separator. VictoriaMetrics and InfluxDB 3 read two of them
//! as one, and lose lines with one before a comma or space. So a name or tag can be written only if an ordinary character
//! follows each of its backslashes. A line feed cannot be written in them either, nor a tab, which InfluxDB 3 reads as a
//! separator. All stores take other control characters as ordinary ones.

use std::borrow::Cow;

use forebay_reading::{ReadingRef, Token};

use crate::device_tag::{DEVICE, beside_device};
use crate::encoder::{Encoder, InfluxConfig, Integers, Unwritable};

/// Room for the punctuation and the time of a reading's line.
const FRAME_BYTES: usize = 64;

/// Names that tags cannot have, because InfluxDB uses them itself. A single NUL is the name of the measurement inside
/// InfluxDB 2.
const RESERVED: [&str; 4] = ["time", "_measurement", "_field", "\0"];

const COMMENT: Unwritable = Unwritable::NoSuchText("sensor: a line that begins with # is a comment");
const BACKSLASH: Unwritable = Unwritable::NoSuchText(
    "name or tag: a backslash stands at its end, or before a backslash, comma, space or equals sign",
);
const LINE_FEED: Unwritable = Unwritable::NoSuchText("name or tag: there is a line feed in it");
const TAB: Unwritable = Unwritable::NoSuchText("name or tag: there is a tab in it");
const NAMELESS: Unwritable = Unwritable::NoSuchText("tag: it has no name");
const KEPT: Unwritable =
    Unwritable::NoSuchText("tag: the stores keep the names time, _measurement and _field for themselves");
const TWICE: Unwritable = Unwritable::NoSuchText("tag: its name is there twice");

/// Writes the format `influx`.
#[derive(Debug)]
pub struct InfluxEncoder {
    integers: Integers,
}

impl InfluxEncoder {
    /// An encoder with these settings.
    pub fn new(config: InfluxConfig) -> InfluxEncoder {
        InfluxEncoder { integers: config.integers }
    }

    fn write_line(&self, reading: ReadingRef<'_>, line: &mut Vec<u8>) -> Result<(), Unwritable> {
        let sensor = reading.sensor_bytes();
        if sensor.first() == Some(&b'#') {
            return Err(COMMENT);
        }
        write_escaped(sensor, LinePart::Measurement, line)?;
        write_tags(reading, line)?;
        line.extend_from_slice(b" value=");
        match reading.value_token() {
            Token::Literal(literal) => line.extend_from_slice(literal),
            Token::Text(text) => write_text(text, line),
        }
        if reading.is_integer() && self.integers == Integers::Integer {
            line.push(b'i');
        }
        line.push(b' ');
        line.extend_from_slice(itoa::Buffer::new().format(reading.time().nanos()).as_bytes());
        line.push(b'\n');
        Ok(())
    }
}

impl Encoder for InfluxEncoder {
    fn content_type(&self) -> &'static str {
        "text/plain; charset=utf-8"
    }

    fn write(&self, _index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        let before = body.len();
        body.reserve(reading.encoded_len() + FRAME_BYTES);
        self.write_line(reading, body).inspect_err(|_| body.truncate(before))
    }

    fn finish(&self, _key: &str, _body: &mut Vec<u8>) {}
}

/// Parts of a line with different escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinePart {
    /// The sensor.
    Measurement,
    /// The name or the value of a tag.
    Tag,
}

fn write_tags(reading: ReadingRef<'_>, line: &mut Vec<u8>) -> Result<(), Unwritable> {
    let device = reading.device_bytes();
    let mut tags = reading.tags().filter(|(_, value)| !value.is_empty()).peekable();
    if tags.peek().is_none() {
        line.extend_from_slice(b",device=");
        return write_escaped(device, LinePart::Tag, line);
    }
    let mut sorted: Vec<(Cow<'_, str>, &[u8])> = vec![(DEVICE.into(), device)];
    sorted.extend(tags.map(|(name, value)| (beside_device(name.into()), value.as_bytes())));
    sorted.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(TWICE);
    }
    for (name, value) in &sorted {
        if name.is_empty() {
            return Err(NAMELESS);
        }
        if RESERVED.contains(&&**name) {
            return Err(KEPT);
        }
        line.push(b',');
        write_escaped(name.as_bytes(), LinePart::Tag, line)?;
        line.push(b'=');
        write_escaped(value, LinePart::Tag, line)?;
    }
    Ok(())
}

fn write_escaped(text: &[u8], part: LinePart, line: &mut Vec<u8>) -> Result<(), Unwritable> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| is_special(*byte)) {
        line.extend_from_slice(&rest[..at]);
        match (rest[at], rest.get(at + 1)) {
            (b'\n', _) => return Err(LINE_FEED),
            (b'\t', _) => return Err(TAB),
            (b'\\', None | Some(b'\\' | b',' | b' ' | b'=')) => return Err(BACKSLASH),
            (b'\\', Some(_)) => {}
            (b'=', _) if part == LinePart::Measurement => {}
            _ => line.push(b'\\'),
        }
        line.push(rest[at]);
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
    Ok(())
}

/// Whether a byte needs an escape or a check in a name or tag.
fn is_special(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'=' | b'\\' | b'\n' | b'\t')
}

/// Writes a value that is a text. It may have any character, including line feeds.
fn write_text(text: &[u8], line: &mut Vec<u8>) {
    line.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_reading::timestamp::Timestamp;
    use forebay_reading::{ReadingParts, Readings, Tag, Value};

    fn encoder(integers: Integers) -> InfluxEncoder {
        InfluxEncoder::new(InfluxConfig { integers })
    }

    fn write(
        [device, sensor]: [&str; 2],
        value: Value<'_>,
        tags: &[(&str, &str)],
        integers: Integers,
    ) -> Result<String, Unwritable> {
        let tags: Vec<Tag<'_>> = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let time = Timestamp::from_nanos(1_170_288_000_000_000_001).expect("2007");
        let value = value.into();
        let mut readings = Readings::default();
        let parts = ReadingParts { device, sensor, value, time, unit: Some("V"), tags: &tags };
        readings.push(&parts).expect("good parts");
        let mut body = b"before\n".to_vec();
        let done = encoder(integers).write(1, readings.iter().next().expect("one"), &mut body);
        let body = String::from_utf8(body).expect("UTF-8");
        let line = body.strip_prefix("before\n").expect("what stands before stays").to_owned();
        assert!(done.is_ok() || line.is_empty(), "nothing is appended of what cannot be held: {line}");
        done.map(|()| line)
    }

    #[test]
    fn values_keep_their_type_and_every_digit() {
        let check = |value: Value<'_>, expected: &str| {
            let line = write(["d", "s"], value, &[], Integers::Integer);
            assert_eq!(line, Ok(format!("s,device=d value={expected} 1170288000000000001\n")));
        };
        check(Value::Integer(i64::MIN), "-9223372036854775808i");
        check(Value::Integer(230), "230i");
        check(Value::Double(230.0), "230.0");
        check(Value::Double(-0.0), "-0.0");
        check(Value::Double(0.1 + 0.2), "0.30000000000000004");
        check(Value::Double(5e-324), "5e-324");
        check(Value::Double(f64::MAX), "1.7976931348623157e+308");
        check(Value::Boolean(true), "true");
        check(Value::Boolean(false), "false");
        check(Value::Text(""), "\"\"");
        check(Value::Text("a \"b\", c=\\d\n\\\u{1}é"), "\"a \\\"b\\\", c=\\\\d\n\\\\\u{1}é\"");
    }

    #[test]
    fn whole_numbers_are_written_as_floats_on_request() {
        let check = |value: i64, expected: &str| {
            let line = write(["d", "s"], Value::Integer(value), &[], Integers::Float);
            assert_eq!(line, Ok(format!("s,device=d value={expected} 1170288000000000001\n")));
        };
        check(230, "230");
        check(i64::MAX, "9223372036854775807");
    }

    #[test]
    fn names_and_tags_are_escaped_and_tags_sorted() {
        let check = |device: &str, sensor: &str, tags: &[(&str, &str)], expected: &str| {
            let line = write([device, sensor], Value::Double(1.5), tags, Integers::Integer);
            assert_eq!(line, Ok(format!("{expected} value=1.5 1170288000000000001\n")));
        };
        check("d", "s", &[("site", "x"), ("area", "y")], "s,area=y,device=d,site=x");
        check("a,b c=d", "e,f g=h", &[], "e\\,f\\ g=h,device=a\\,b\\ c\\=d");
        check(" ", ",", &[(" ", ","), ("=", "=")], "\\,,\\ =\\,,\\==\\=,device=\\ ");
        check("d\"", "\"s", &[("\"", "5\" x")], "\"s,\"=5\"\\ x,device=d\"");
        check("d", "s", &[("empty", ""), ("time", ""), ("", "")], "s,device=d");
        check("d", "s\\x", &[("a\\b", "\\n\\\"\\é")], "s\\x,a\\b=\\n\\\"\\é,device=d");
        check(
            "d",
            "s",
            &[("t", "a\rb\0\u{1}\u{b}\u{c}\u{7f}\u{85}")],
            "s,device=d,t=a\rb\0\u{1}\u{b}\u{c}\u{7f}\u{85}",
        );
        check("d", "s", &[("device", "x")], "s,device=d,exported_device=x");
        check(
            "d",
            "s",
            &[("exported_device", "x"), ("device", "y")],
            "s,device=d,exported_device=y,exported_exported_device=x",
        );
    }

    #[test]
    fn a_reading_that_line_protocol_cannot_hold_is_refused_with_the_reason() {
        let check = |device: &str, sensor: &str, tags: &[(&str, &str)], expected: Unwritable| {
            let line = write([device, sensor], Value::Integer(1), tags, Integers::Integer);
            assert_eq!(line, Err(expected), "{device} {sensor} {tags:?}");
        };
        check("d", "#s", &[], COMMENT);
        for name in ["\\", "a\\", "a\\\\b", "a\\,b", "a\\ b", "a\\=b"] {
            check("d", name, &[], BACKSLASH);
            check(name, "s", &[], BACKSLASH);
            check("d", "s", &[(name, "x")], BACKSLASH);
            check("d", "s", &[("x", name)], BACKSLASH);
        }
        check("d", "s", &[("a", "x\ny")], LINE_FEED);
        check("d", "s", &[("a\n", "x")], LINE_FEED);
        check("d", "s", &[("a", "x\\\n")], LINE_FEED);
        for tab in ["\t", "x\ty", "\tx", "x\t", "x\\\ty"] {
            check("d", "s", &[("a", tab)], TAB);
            check("d", "s", &[(tab, "a")], TAB);
            check("d", "s", &[("site", "x"), ("a", tab)], TAB);
        }
        check("d", "s", &[("", "x")], NAMELESS);
        for name in RESERVED {
            check("d", "s", &[(name, "x")], KEPT);
        }
        check("d", "s", &[("a", "x"), ("b", "y"), ("a", "z")], TWICE);
    }
}
