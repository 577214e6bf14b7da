//! The canonical JSON of a reading: how it looks in everything that is sent as JSON.
//!
//! One object, the fields in the order `device`, `sensor`, `value`, `time`, `unit`, `tags`, absent ones left
//! out, `time` as RFC 3339 in UTC. Doubles are the shortest text that reads back as the same double.

use std::io::Write as _;

use forebay_reading::{ReadingRef, Token};

/// Room for the punctuation, the field names and the numbers of a reading's JSON.
const FRAME_BYTES: usize = 160;

/// Appends `reading` as one JSON object, without a line feed.
pub fn write_reading(reading: ReadingRef<'_>, out: &mut Vec<u8>) {
    out.reserve(reading.encoded_len() + FRAME_BYTES);
    if reading.needs_escape() {
        write_object(reading, write_escaped, out);
    } else {
        write_object(reading, write_plain, out);
    }
}

fn write_object(reading: ReadingRef<'_>, write_text: impl Fn(&[u8], &mut Vec<u8>) + Copy, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"device\":\"");
    write_text(reading.device_bytes(), out);
    out.extend_from_slice(b"\",\"sensor\":\"");
    write_text(reading.sensor_bytes(), out);
    out.extend_from_slice(b"\",\"value\":");
    match reading.value_token() {
        Token::Literal(literal) => out.extend_from_slice(literal),
        Token::Text(text) => {
            out.push(b'"');
            write_text(text, out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b",\"time\":\"");
    reading.time().write(out);
    out.push(b'"');
    if let Some(unit) = reading.unit_bytes() {
        out.extend_from_slice(b",\"unit\":\"");
        write_text(unit, out);
        out.push(b'"');
    }
    write_tags(reading, write_text, out);
    out.push(b'}');
}

fn write_tags(reading: ReadingRef<'_>, write_text: impl Fn(&[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
    let mut separator: &[u8] = b",\"tags\":{\"";
    let mut any = false;
    for (name, value) in reading.tags_bytes() {
        out.extend_from_slice(separator);
        write_text(name, out);
        out.extend_from_slice(b"\":\"");
        write_text(value, out);
        out.push(b'"');
        separator = b",\"";
        any = true;
    }
    if any {
        out.push(b'}');
    }
}

fn write_plain(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
}

/// Escapes only the characters that RFC 8259, section 7, requires to be escaped.
fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => write!(out, "\\u{byte:04x}").expect("writing to memory does not fail"),
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_reading::timestamp::Timestamp;
    use forebay_reading::{ReadingParts, Readings, Tag, Value};

    #[track_caller]
    fn check(value: Value<'_>, unit: Option<&str>, tags: &[Tag<'_>], expected: &str) {
        let mut readings = Readings::default();
        let time = Timestamp::from_nanos(1_170_288_000_500_000_000).expect("2007");
        readings
            .push(&ReadingParts { device: "m\"7", sensor: "v", value: value.into(), time, unit, tags })
            .expect("good parts");
        let mut out = Vec::new();
        write_reading(readings.iter().next().expect("one"), &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn a_reading_is_one_object_with_its_fields_in_order_and_absent_ones_left_out() {
        check(
            Value::Integer(i64::MAX),
            None,
            &[],
            r#"{"device":"m\"7","sensor":"v","value":9223372036854775807,"time":"2007-02-01T00:00:00.500Z"}"#,
        );
        check(
            Value::Text("a\\\n\u{1}é"),
            Some("V"),
            &[("b".into(), "1".into()), ("a".into(), "\t\r".into())],
            r#"{"device":"m\"7","sensor":"v","value":"a\\\n\u0001é","time":"2007-02-01T00:00:00.500Z","unit":"V","tags":{"b":"1","a":"\t\r"}}"#,
        );
        check(
            Value::Double(0.1),
            None,
            &[],
            r#"{"device":"m\"7","sensor":"v","value":0.1,"time":"2007-02-01T00:00:00.500Z"}"#,
        );
        check(
            Value::Boolean(true),
            None,
            &[],
            r#"{"device":"m\"7","sensor":"v","value":true,"time":"2007-02-01T00:00:00.500Z"}"#,
        );
    }
}
