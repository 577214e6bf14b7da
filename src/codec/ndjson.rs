//! NDJSON: one reading a line, as an object; blank lines do not count.

use super::diagnosis::diagnose_empty_batch;
use super::object::{Care, Draft, Place, decode_error, is_beyond};
use super::scan::Scanner;
use super::{
    DecodeError, Decoded, Decoder, Encoder, NodeAnswer, Rules, Silence, Trial, Unwritable, utf8,
    write_reading,
};
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
        let mut scanner = Scanner::new(text);
        let mut index = 0;
        while !scanner.is_at_end() {
            let (position, before) = (scanner.position(), decoded.readings.end());
            if scanner.line(rules, &mut decoded.readings).is_err() {
                decoded.readings.truncate(before);
                let start = line_start(text, position);
                let line = line_at(text, start);
                scanner.go_to(start + line.len());
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let place = Place::Among(index);
                read(line, &mut draft, place, rules, &mut decoded)
                    .map_err(|error| decode_error(&error, line_number(text, start)))?;
            }
            index += 1;
        }
        Ok(decoded)
    }

    fn layout(&self) -> super::Layout {
        super::Layout::NonBlankLines
    }
}

impl Encoder for Ndjson {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn write(&self, _index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        write_reading(reading, body);
        body.push(b'\n');
        Ok(())
    }

    fn finish(&self, _key: &str, _body: &mut Vec<u8>) {}

    fn trials(&self) -> Vec<Trial> {
        // A batch without a line.
        vec![Trial { silence: Silence::Allowed, ..Trial::default() }]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnose_empty_batch(answer)
    }
}

/// Where the line begins that has the byte at `position`.
fn line_start(text: &str, position: usize) -> usize {
    memchr::memrchr(b'\n', &text.as_bytes()[..position]).map_or(0, |line_feed| line_feed + 1)
}

/// The line that begins at `start`, without its line feed.
fn line_at(text: &str, start: usize) -> &str {
    let rest = &text[start..];
    &rest[..memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len())]
}

/// How many lines there are before the one that begins at `start`.
fn line_number(text: &str, start: usize) -> usize {
    memchr::memchr_iter(b'\n', &text.as_bytes()[..start]).count()
}

/// Reads one line with serde_json, with care if that is what it takes. Nothing is added to `decoded` if it fails.
fn read<'de>(
    line: &'de str,
    draft: &mut Draft<'de>,
    place: Place,
    rules: &Rules,
    decoded: &mut Decoded,
) -> Result<(), serde_json::Error> {
    let mut read = |care| {
        let mut deserializer = serde_json::Deserializer::from_str(line);
        draft.read(&mut deserializer, place, care, rules, decoded)?;
        deserializer.end()
    };
    match read(Care::Fast) {
        Err(error) if is_beyond(&error) => read(Care::Slow),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json::tests::{fragment, same};
    use crate::codec::tests;
    use proptest::prelude::*;

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

    /// Every line by itself, and by serde_json.
    fn read_line_by_line(body: &str) -> Result<Decoded, DecodeError> {
        let mut decoded = Decoded::default();
        let lines = body.split('\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        for (index, (number, line)) in lines.enumerate() {
            let place = Place::Among(index);
            read(line, &mut Draft::default(), place, &tests::rules(), &mut decoded)
                .map_err(|error| decode_error(&error, number))?;
        }
        Ok(decoded)
    }

    #[test]
    fn an_object_has_a_line_to_itself() {
        for (body, expected) in [
            (format!("{LINE}\n{{\"device\":\n\"d\"}}"), "line 2, column 10: EOF while parsing a value"),
            (format!("{LINE}{LINE}\n"), "line 1, column 38: trailing characters"),
            (format!("\n {LINE} \t{LINE}\n"), "line 2, column 41: trailing characters"),
        ] {
            let error = Ndjson.decode(body.as_bytes(), &tests::rules()).expect_err(&body);
            assert_eq!(error.to_string(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_body_is_read_as_its_lines_are(
            pieces in prop::collection::vec(
                (
                    prop_oneof![fragment(), Just(LINE.to_owned()), Just("null".to_owned())],
                    prop::sample::select(vec!["\n", "\n", "\n", "\r\n", " \n\n\t", "\u{c}\n\u{c}\n", " ", ""]),
                ),
                0..6,
            )
        ) {
            let body: String = pieces.iter().flat_map(|(object, after)| [object.as_str(), after]).collect();
            match (Ndjson.decode(body.as_bytes(), &tests::rules()), read_line_by_line(&body)) {
                (Ok(decoded), Ok(expected)) => prop_assert!(same(&decoded, &expected), "{body:?} {decoded:?}"),
                (decoded, expected) => prop_assert_eq!(decoded.err(), expected.err(), "{:?}", body),
            }
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
