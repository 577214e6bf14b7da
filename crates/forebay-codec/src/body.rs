//! Rules for bodies of every format: a byte order mark is skipped, an encoding other than UTF-8 is an error, and the error
//! of a body that looks like another format says which.

use serde::de::IgnoredAny;

use crate::{DecodeError, Decoded};

/// U+FEFF in UTF-8, as some editors and spreadsheets put it before a text.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The body without the byte order mark at its beginning.
///
/// # Errors
///
/// The body is UTF-16 or UTF-32, by its mark or by the zeros that ASCII has there.
pub(super) fn unmarked(body: &[u8]) -> Result<&[u8], DecodeError> {
    let is_other = match body {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff, ..] => true,
        [first, 0, third, 0, ..] => *first != 0 && *third != 0,
        [0, second, 0, fourth, ..] => *second != 0 && *fourth != 0,
        _ => false,
    };
    if is_other {
        return Err(DecodeError::at(body, 0, "the body is UTF-16 or UTF-32; it must be UTF-8"));
    }
    Ok(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

/// Appends advice to the first error of a body that gave no readings and looks like another format.
pub(super) fn advise(
    outcome: Result<Decoded, DecodeError>,
    body: &[u8],
    advice: impl FnOnce(Looks) -> Option<&'static str>,
) -> Result<Decoded, DecodeError> {
    match outcome {
        Err(mut error) => {
            // A body that is not text gets no advice.
            if std::str::from_utf8(body).is_ok() {
                append(&mut error.detail, advice(Looks::of(body)));
            }
            Err(error)
        }
        Ok(mut decoded) => {
            // The last line of an array that is read as NDJSON may be a reading.
            let is_suspect = decoded.readings.is_empty() || body.trim_ascii_start().starts_with(b"[");
            if is_suspect && let Some(first) = decoded.rejections.listed.first_mut() {
                append(&mut first.detail, advice(Looks::of(body)));
            }
            Ok(decoded)
        }
    }
}

fn append(detail: &mut String, advice: Option<&'static str>) {
    if let Some(advice) = advice {
        detail.push_str("; ");
        detail.push_str(advice);
    }
}

/// The format that a body seems to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// No bytes, or only white space.
    Empty,
    /// One JSON object on one line, or the beginning of one.
    Object,
    /// One JSON object over several lines.
    SpreadObject,
    /// Several JSON objects in a row.
    Objects,
    /// A JSON array, or the beginning of one.
    Array,
    /// XML or HTML.
    Markup,
    /// A form, as browsers and `curl -d` send it.
    Form,
    /// InfluxDB's line protocol.
    Lines,
    /// No known format.
    Unknown,
}

impl Looks {
    /// How to send such a body, for a sender who sent it as another format; `None` for an unknown format.
    pub(super) fn advice(self) -> Option<&'static str> {
        Some(match self {
            Looks::Empty => "the body is empty",
            Looks::Object | Looks::SpreadObject => {
                "this looks like JSON: post it to `/v1/readings`, and set `Content-Type: application/json`"
            }
            Looks::Objects => {
                "this looks like NDJSON, one object a line: post it to `/v1/readings`, and set `Content-Type: application/x-ndjson`"
            }
            Looks::Array => {
                "this looks like a JSON array: post it to `/v1/readings`, and set `Content-Type: application/json`"
            }
            Looks::Markup => "this looks like XML or HTML, which is not taken: send JSON",
            Looks::Form => "this looks like a form, which is not taken: send JSON",
            Looks::Lines => "this looks like line protocol: post it to `/api/v2/write` or `/write`",
            Looks::Unknown => return None,
        })
    }

    fn of(body: &[u8]) -> Looks {
        let body = body.trim_ascii();
        match body.first() {
            None => Looks::Empty,
            Some(b'{') => objects(body),
            Some(b'[') => Looks::Array,
            Some(b'<') => Looks::Markup,
            Some(_) => assignments(body.split(|byte| *byte == b'\n').next().unwrap_or_default()),
        }
    }
}

/// Tells one object from several.
fn objects(body: &[u8]) -> Looks {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    let first = values.next();
    let rest = body.get(values.byte_offset()..).unwrap_or_default();
    match rest.trim_ascii_start().first() {
        Some(b'{') if matches!(first, Some(Ok(_))) => Looks::Objects,
        // The body is one object over several lines, or begins like one.
        None if body.contains(&b'\n') => Looks::SpreadObject,
        _ if body.split(|byte| *byte == b'\n').next().is_some_and(|line| line.trim_ascii() == b"{") => {
            Looks::SpreadObject
        }
        _ => Looks::Object,
    }
}

/// Tells line protocol from a form: in line protocol a space comes before the first `name=value` pair of the fields.
fn assignments(line: &[u8]) -> Looks {
    let mut words = line.split(|byte| *byte == b' ');
    let first = words.next().unwrap_or_default();
    if words.any(|word| word.contains(&b'=')) {
        Looks::Lines
    } else if first.contains(&b'=') {
        Looks::Form
    } else {
        Looks::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rules;
    use crate::{DECODERS, Decoder};

    const JSON: &str = r#"{"device":"d","sensor":"s","value":1}"#;

    fn good(format: &str) -> String {
        match format {
            "json" => format!("[{JSON}]"),
            "ndjson" => format!("{JSON}\n"),
            "senml" => r#"[{"n":"d/s","v":1}]"#.to_owned(),
            _ => "s,device=d value=1i\n".to_owned(),
        }
    }

    fn decode(format: &str, body: &[u8]) -> Result<Decoded, String> {
        let decoder: &dyn Decoder = *DECODERS.find(format).expect("a format");
        decoder.decode(body, &rules()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_format_skips_one_byte_order_mark_at_the_beginning() {
        for format in DECODERS.names() {
            let plain = good(format);
            let expected = decode(format, plain.as_bytes()).expect("well-formed");
            let marked = decode(format, format!("\u{feff}{plain}").as_bytes()).expect("well-formed");
            assert_eq!(marked.rejections.count(), 0, "{format}");
            assert_eq!(marked.readings, expected.readings, "{format}");
            // A second mark, or one in the middle, is part of the text.
            let twice = decode(format, format!("\u{feff}\u{feff}{plain}").as_bytes());
            assert!(twice.is_err() || twice.is_ok_and(|decoded| decoded.readings != expected.readings));
            let both = decode(format, format!("{plain}\u{feff}{plain}").as_bytes());
            assert!(
                both.is_err()
                    || both.is_ok_and(
                        |decoded| decoded.readings != expected.readings || decoded.rejections.count() > 0
                    ),
                "{format}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_alone_is_an_empty_body_and_columns_count_after_the_mark() {
        assert!(decode("ndjson", b"\xef\xbb\xbf").is_ok_and(|decoded| decoded.readings.is_empty()));
        assert!(decode("json", b"\xef\xbb\xbf").is_err_and(|error| error.contains("the body is empty")));
        assert!(
            decode("json", b"\xef\xbb\xbf[x").is_err_and(|error| error.starts_with("line 1, column 2: "))
        );
    }

    #[test]
    fn every_format_names_utf_16_and_utf_32_as_the_fault() {
        for format in DECODERS.names() {
            let plain = good(format);
            let little: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = plain.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let wide: Vec<u8> =
                plain.chars().flat_map(|character| u32::from(character).to_le_bytes()).collect();
            for body in [
                [&b"\xff\xfe"[..], &little].concat(),
                [&b"\xfe\xff"[..], &big].concat(),
                little,
                big,
                [&b"\xff\xfe\0\0"[..], &wide].concat(),
            ] {
                let error = decode(format, &body).expect_err("no UTF-8");
                assert_eq!(
                    error, "line 1, column 1: the body is UTF-16 or UTF-32; it must be UTF-8",
                    "{format}"
                );
            }
        }
    }

    #[test]
    fn the_format_of_a_body_is_guessed_from_its_beginning() {
        for (body, expected) in [
            ("", Looks::Empty),
            (" \r\n\t", Looks::Empty),
            (JSON, Looks::Object),
            ("{\n\"device\": \"d\"}\n", Looks::SpreadObject),
            ("{ \n\"device\": \"d\",", Looks::SpreadObject),
            ("{\"device\": \"d\",\n", Looks::Object),
            (&format!("{JSON}\n{JSON}\n"), Looks::Objects),
            (&format!("{JSON}\r\n\r\n{{\"device\":"), Looks::Objects),
            (&format!("{JSON} x"), Looks::Object),
            (&format!("\n [{JSON}"), Looks::Array),
            ("<?xml version=\"1.0\"?><a/>", Looks::Markup),
            ("device=d&sensor=s&value=1", Looks::Form),
            ("cpu,host=h idle=1 17\ncpu", Looks::Lines),
            ("cpu idle=1", Looks::Lines),
            ("temperature 21.5", Looks::Unknown),
            ("\u{0}\u{1}", Looks::Unknown),
        ] {
            assert_eq!(Looks::of(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(Looks::of(&b"{\"a\":".repeat(100_000)), Looks::Object);
    }

    #[test]
    fn the_error_of_a_body_in_another_format_names_that_format() {
        let told = |format: &str, body: &str| match decode(format, body.as_bytes()) {
            Err(error) => error,
            Ok(decoded) => {
                decoded.rejections.listed.first().map(|first| first.detail.clone()).unwrap_or_default()
            }
        };
        let lines = format!("{JSON}\n{JSON}\n");
        let pretty = "[\n  {\n    \"device\": \"d\"\n  }\n]";
        for (format, body, expected) in [
            ("json", "", "the body is empty; send a reading as a JSON object"),
            ("json", " \n", "the body is empty; send a reading as a JSON object"),
            ("json", &lines, "set `Content-Type: application/x-ndjson`"),
            ("json", "<html>", "XML or HTML"),
            ("json", "device=d&value=1", "a form"),
            ("json", "cpu,host=h idle=1", "`/api/v2/write`"),
            ("ndjson", &format!("[{JSON},{JSON}]"), "set `Content-Type: application/json`"),
            ("ndjson", pretty, "set `Content-Type: application/json`"),
            ("ndjson", "{\n\"device\": \"d\",\n\"sensor\":\"s\"}", "`Content-Type: application/json`"),
            ("ndjson", "cpu,host=h idle=1", "`/api/v2/write`"),
            ("senml", "", "the body is empty; send a SenML pack"),
            ("senml", &lines, "set `Content-Type: application/x-ndjson`"),
            ("influx", JSON, "`/v1/readings`"),
            ("influx", &format!("[{JSON}]"), "`/v1/readings`"),
            ("influx", &lines, "`/v1/readings`"),
        ] {
            let told = told(format, body);
            assert!(told.contains(expected), "{format} {body}: {told}");
        }
        // A fault within the right format gets no advice about formats.
        for (format, body) in [
            ("json", r#"{"device":"d"}"#),
            ("json", "[{]"),
            ("ndjson", "{}\n{}"),
            ("senml", "[{}]"),
            ("influx", "cpu idle=1"),
        ] {
            let told = told(format, body);
            assert!(!told.contains("looks like"), "{format} {body}: {told}");
        }
    }
}
