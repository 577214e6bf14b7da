//! NDJSON: one reading a line, as an object; blank lines do not count.

use super::object::{Care, Draft, Place, decode_error, is_beyond};
use super::scan::{Scanner, Uncommon};
use super::{DecodeError, Decoded, Decoder, Encoder, Rules, utf8, write_reading};
use crate::reading::{ReadingRef, Readings};

/// The format `ndjson`.
#[derive(Debug)]
pub struct Ndjson;

impl Decoder for Ndjson {
    fn media_types(&self) -> &'static [&'static str] {
        &["application/x-ndjson", "application/jsonl"]
    }

    fn decode(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let text = utf8(body)?;
        let mut decoded = Decoded { readings: Readings::with_capacity(text.len()), ..Decoded::default() };
        let mut draft = Draft::default();
        let mut index = 0;
        for (line_index, line) in lines(text).enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let place = Place::Among(index);
            index += 1;
            let before = decoded.readings.end();
            if scan(line, rules, &mut decoded.readings).is_ok() {
                continue;
            }
            decoded.readings.truncate(before);
            match read(line, &mut draft, place, Care::Fast, rules, &mut decoded) {
                Err(error) if is_beyond(&error) => {
                    read(line, &mut draft, place, Care::Slow, rules, &mut decoded)
                }
                done => done,
            }
            .map_err(|error| decode_error(&error, line_index))?;
        }
        Ok(decoded)
    }
}

impl Encoder for Ndjson {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn write(&self, _index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) {
        write_reading(reading, body);
        body.push(b'\n');
    }

    fn finish(&self, _body: &mut Vec<u8>) {}

    fn finish_bytes(&self) -> usize {
        0
    }
}

/// The lines of `text`, without their line feeds.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]).map(move |end| {
        let line = &text[start..end];
        start = end + 1;
        line
    })
}

/// Reads one line of the common form. If it fails, some of its readings may have been pushed.
fn scan(line: &str, rules: &Rules, readings: &mut Readings) -> Result<(), Uncommon> {
    let mut scanner = Scanner::new(line);
    scanner.object(rules, readings)?;
    if scanner.is_at_end() { Ok(()) } else { Err(Uncommon) }
}

/// Reads one line. Nothing is added to `decoded` if it fails.
fn read<'de>(
    line: &'de str,
    draft: &mut Draft<'de>,
    place: Place,
    care: Care,
    rules: &Rules,
    decoded: &mut Decoded,
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    draft.read(&mut deserializer, place, care, rules, decoded)?;
    deserializer.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests;

    const LINE: &str = r#"{"device":"d","sensor":"s","value":1}"#;

    #[test]
    fn each_line_is_a_reading_and_blank_lines_are_skipped() {
        let body =
            format!("\n{LINE}\r\n  \n\n{LINE}\nnull\n{{\"device\":\"d\",\"sensor\":\"s\",\"value\":1e999}}");
        let decoded = Ndjson.decode(body.as_bytes(), &tests::rules()).expect("NDJSON");
        assert_eq!(decoded.readings.len(), 2);
        let told: Vec<_> = decoded
            .rejections
            .listed
            .iter()
            .map(|r| format!("{} {}: {}", r.index, r.pointer, r.detail))
            .collect();
        assert_eq!(
            told,
            [
                "2 /2: a reading must be an object, got null",
                "3 /3/value: a value must be a finite number, got a number that no double can hold",
            ]
        );
    }

    #[test]
    fn an_empty_body_holds_no_readings() {
        let decoded = Ndjson.decode(b"", &tests::rules()).expect("NDJSON");
        assert_eq!((decoded.readings.len(), decoded.rejections.count()), (0, 0));
    }

    #[test]
    fn a_line_that_is_no_json_is_told_with_line_and_column() {
        for (line, expected) in [
            (r#"{"device":"d","#, "line 3, column 14: EOF while parsing a value"),
            ("{} {}", "line 3, column 4: trailing characters"),
            (&"[".repeat(100_000), "line 3, column 128: recursion limit exceeded"),
        ] {
            let error = Ndjson
                .decode(format!("{LINE}\n\n{line}\n{LINE}").as_bytes(), &tests::rules())
                .expect_err(line);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_batch_is_one_line_a_reading() {
        let decoded = Ndjson.decode(format!("{LINE}\n{LINE}").as_bytes(), &tests::rules()).expect("NDJSON");
        let body = String::from_utf8(tests::encode(&Ndjson, &decoded.readings)).expect("UTF-8");
        let line = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;
        assert_eq!(body, format!("{line}\n{line}\n"));
    }
}
