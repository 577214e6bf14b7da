//! NDJSON: one reading a line, as an object; blank lines do not count.
//!
//! A line that is not JSON, not UTF-8 or nested too deeply is rejected like any other faulty reading, and costs no other
//! line. A body without one line of JSON is not NDJSON.

use forebay_reading::{ReadingRef, Readings};

use crate::object::{Draft, PointerBase};
use crate::parse::check_depth;
use crate::scan::Scanner;
use crate::{
    DecodeError, Decoded, Decoder, Encoder, Looks, REJECTIONS_LISTED_MAX, Reason, Rules, Unwritable, escape,
    write_reading,
};

/// The format `ndjson`.
#[derive(Debug)]
pub struct Ndjson;

impl Decoder for Ndjson {
    fn media_types(&self) -> &'static [&'static str] {
        &["application/x-ndjson", "application/jsonl"]
    }

    fn advice(&self, looks: Looks) -> Option<&'static str> {
        match looks {
            Looks::Array | Looks::SpreadObject | Looks::Markup | Looks::Form | Looks::Lines => looks.advice(),
            Looks::Empty | Looks::Object | Looks::Objects | Looks::Unknown => None,
        }
    }

    fn read(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let mut lines = NdjsonLines::new(body, rules);
        match std::str::from_utf8(body) {
            Ok(text) => lines.read(text, 0),
            Err(_) => lines.read_each(),
        }
        lines.finish()
    }

    fn layout(&self) -> super::Layout {
        super::Layout::NonBlankLines
    }
}

/// The state of reading a body.
struct NdjsonLines<'a> {
    body: &'a [u8],
    rules: &'a Rules,
    decoded: Decoded,
    draft: Draft<'a>,
    /// The index of the next line; blank lines do not count.
    index: usize,
    /// Whether a line was JSON.
    has_json: bool,
    /// The error of the first line that was not JSON.
    first_error: Option<DecodeError>,
    /// A byte, and the number of line feeds before it.
    counted: (usize, usize),
}

impl<'a> NdjsonLines<'a> {
    fn new(body: &'a [u8], rules: &'a Rules) -> NdjsonLines<'a> {
        NdjsonLines {
            body,
            rules,
            decoded: Decoded { readings: Readings::with_capacity(body.len()), ..Decoded::default() },
            draft: Draft::default(),
            index: 0,
            has_json: false,
            first_error: None,
            counted: (0, 0),
        }
    }

    /// Reads the lines of a part of the body, which begins at the byte `offset`.
    fn read(&mut self, text: &'a str, offset: usize) {
        let mut scanner = Scanner::new(text);
        while !scanner.is_at_end() {
            let (position, before) = (scanner.position(), self.decoded.readings.end());
            if scanner.line(self.rules, &mut self.decoded.readings).is_ok() {
                self.has_json = true;
            } else {
                self.decoded.readings.truncate(before);
                let start = line_start(text, position);
                let line = line_at(text, start);
                scanner.go_to(start + line.len());
                if line.trim_ascii().is_empty() {
                    continue;
                }
                self.read_uncommon(line, offset + start);
            }
            self.index += 1;
        }
    }

    /// Reads a body that is not UTF-8 as a whole; most of its lines may be.
    fn read_each(&mut self) {
        let mut start = 0;
        for line in self.body.split(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(text) => self.read(text, start),
                Err(error) => {
                    self.refuse(start, 1, error.valid_up_to() + 1, "the line is not UTF-8".to_owned());
                    self.index += 1;
                }
            }
            start += line.len() + 1;
        }
    }

    /// Reads a line that is not of the common form; it begins at the byte `start`.
    fn read_uncommon(&mut self, line: &'a str, start: usize) {
        let before = self.decoded.readings.end();
        let copy = escape::replaced(line);
        let is_common = |copy: &str| Scanner::new(copy).line(self.rules, &mut self.decoded.readings).is_ok();
        if copy.as_deref().is_some_and(is_common) {
            self.has_json = true;
        } else {
            self.decoded.readings.truncate(before);
            self.read_with_care(line, start);
        }
    }

    fn read_with_care(&mut self, line: &'a str, start: usize) {
        let read = |draft: &mut Draft<'a>| {
            check_depth(line, 0)?;
            draft.read(line, self.rules).map_err(|error| DecodeError::of_parser(&error))
        };
        match read(&mut self.draft) {
            Ok(()) => {
                self.has_json = true;
                self.draft.finish(PointerBase::Element(self.index), self.rules, &mut self.decoded);
            }
            Err(DecodeError { line, column, detail }) => self.refuse(start, line, column, detail),
        }
    }

    /// Rejects a line that begins at the byte `start` and is not JSON.
    fn refuse(&mut self, start: usize, line: usize, column: usize, detail: String) {
        let (index, is_listed) = (self.index, self.decoded.rejections.listed.len() < REJECTIONS_LISTED_MAX);
        if !is_listed && self.first_error.is_some() {
            return self.decoded.rejections.count_unlisted(Reason::Type, 1);
        }
        let error = DecodeError { line: self.lines_before(start) + line, column, detail };
        self.decoded.rejections.add(index, Reason::Type, 1, || (format!("/{index}"), error.to_string()));
        self.first_error.get_or_insert(error);
    }

    /// The number of lines that end before the byte `at`, which must not decrease between calls.
    fn lines_before(&mut self, at: usize) -> usize {
        let (counted, lines) = self.counted;
        self.counted = (at, lines + memchr::memchr_iter(b'\n', &self.body[counted..at]).count());
        self.counted.1
    }

    fn finish(self) -> Result<Decoded, DecodeError> {
        match self.first_error {
            Some(error) if !self.has_json => Err(error),
            malformed => Ok(Decoded { malformed, ..self.decoded }),
        }
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
}

/// The start of the line with the byte at `position`.
fn line_start(text: &str, position: usize) -> usize {
    memchr::memrchr(b'\n', &text.as_bytes()[..position]).map_or(0, |line_feed| line_feed + 1)
}

/// The line that begins at `start`, without its line feed.
fn line_at(text: &str, start: usize) -> &str {
    let rest = &text[start..];
    &rest[..memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::{fragment, same};
    use crate::tests;
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

    /// The number of readings, and the rejections for people.
    fn show(body: impl AsRef<[u8]>) -> Result<(usize, Vec<String>), String> {
        let decoded = Ndjson.decode(body.as_ref(), &tests::rules()).map_err(|error| error.to_string())?;
        let rejections = decoded.rejections.listed.iter();
        let told = rejections.map(|r| format!("{} {}: {}", r.index, r.pointer, r.detail)).collect();
        Ok((decoded.readings.len(), told))
    }

    #[test]
    fn a_line_that_is_not_json_costs_no_other_line_and_its_error_has_line_and_column() {
        for (line, expected) in [
            (r#"{"device":"d","#, "line 3, column 14: EOF while parsing a value"),
            ("{} {}", "line 3, column 4: trailing characters"),
            (r#"{"device":"d","sensor":"s","value":-nan}"#, "line 3, column 37: invalid number"),
            (r#"{"device":"d","sensor":"s","value":NaN}"#, "line 3, column 36: expected value"),
            (r#"{"device":"\q","sensor":"s","value":1}"#, "line 3, column 13: invalid escape"),
            (
                r#"{"device":"\ud800","sensor":"s","value":1}"#,
                "line 3, column 18: unexpected end of hex escape",
            ),
            ("{'device':1}", "line 3, column 2: key must be a string"),
            ("cpu,host=h idle=1", "line 3, column 1: expected value"),
            ("]", "line 3, column 1: expected value"),
            ("\u{feff}{}", "line 3, column 1: expected value"),
            (&"[".repeat(100_000), "line 3, column 128: recursion limit exceeded"),
            (
                &format!(r#"{{"device":"d","sensor":"s","value":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
                "line 3, column 162: recursion limit exceeded",
            ),
        ] {
            let body = format!("{LINE}\n\n{line}\n{LINE}\r\n");
            assert_eq!(show(&body), Ok((2, vec![format!("1 /1: {expected}")])), "{line:.60}");
            // A body of this line alone is not NDJSON.
            let alone = show(format!("\n\n{line}\n")).expect_err(line);
            assert!(alone.starts_with(expected), "{alone}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_costs_no_other_line() {
        let body = [LINE.as_bytes(), b"\n{\"device\":\"\xff\"}\n\n", LINE.as_bytes(), b"\r\n \xc3"].concat();
        let told = [
            "1 /1: line 2, column 12: the line is not UTF-8",
            "3 /3: line 5, column 2: the line is not UTF-8",
        ];
        assert_eq!(show(body), Ok((2, told.map(str::to_owned).to_vec())));
        assert_eq!(show(b"\xff\n\n"), Err("line 1, column 1: the line is not UTF-8".to_owned()));
    }

    #[test]
    fn a_body_with_one_line_of_json_is_ndjson_even_if_that_line_is_not_a_reading() {
        let (readings, told) = show("{x\n{}\n").expect("one is JSON");
        assert_eq!(readings, 0);
        assert_eq!(
            told,
            ["0 /0: line 1, column 2: key must be a string", "1 /1/device: `device` is missing"]
        );
        assert_eq!(show("x\ny\n"), Err("line 1, column 1: expected value".to_owned()));
    }

    #[test]
    fn all_faulty_lines_are_counted_and_the_first_hundred_listed() {
        let body = format!("{LINE}\n{}{{}}\n", "x\n".repeat(150));
        let decoded = Ndjson.decode(body.as_bytes(), &tests::rules()).expect("NDJSON");
        assert_eq!((decoded.rejections.count(), decoded.rejections.listed.len()), (151, 100));
        assert_eq!(decoded.rejections.listed[99].index, 100);
        assert!(decoded.rejections.listed[99].detail.starts_with("line 101, "));
    }

    /// Reads each line by itself, with care.
    fn read_line_by_line(body: &str) -> Result<Decoded, DecodeError> {
        let rules = tests::rules();
        let mut lines = NdjsonLines::new(body.as_bytes(), &rules);
        let mut start = 0;
        for line in body.split('\n') {
            if !line.trim_ascii().is_empty() {
                lines.read_with_care(line, start);
                lines.index += 1;
            }
            start += line.len() + 1;
        }
        lines.finish()
    }

    #[test]
    fn an_object_has_its_own_line() {
        for (body, expected) in [
            (format!("{{\"device\":\n\"d\"}}\n{LINE}"), "line 1, column 10: EOF while parsing a value"),
            (format!("{LINE}{LINE}\n{LINE}"), "line 1, column 38: trailing characters"),
            (format!("\n {LINE} \t{LINE}\n{LINE}"), "line 2, column 41: trailing characters"),
        ] {
            let (readings, told) = show(&body).expect("one is JSON");
            assert_eq!(
                (readings, told.first().map(String::as_str)),
                (1, Some(format!("0 /0: {expected}").as_str()))
            );
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
            match (Ndjson.read(body.as_bytes(), &tests::rules()), read_line_by_line(&body)) {
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
