//! Where in a body a reading stands that was turned away, and whose it is: for showing it to people.
//!
//! The body is looked through once more, without judging anything in it: what stands at the place that a rejection names
//! is cut out as it was sent, and the device is read from it if one is there. Only bodies with rejections come here.

use std::borrow::Cow;

use super::DeviceTags;
use super::body::BYTE_ORDER_MARK;

/// No more than the beginning of a body is looked through, in bytes.
const SEARCH_BYTES_MAX: usize = 1 << 20;
/// Longest piece in which a device is looked for, in bytes.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Where the readings of a body stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One object, or an array of them.
    Array,
    /// The same, of SenML records, whose device may stand in an earlier one.
    SenmlArray,
    /// One object on each line that is not blank.
    NonBlankLines,
    /// Line protocol: every line counts.
    EveryLine,
}

/// A piece of a body: what was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt<'a> {
    /// It, as it was sent.
    pub text: &'a [u8],
    /// The device that it names, if it names one.
    pub device: Option<Cow<'a, str>>,
}

impl Layout {
    /// The pieces of `body` at these places, which go up; `None` for one that is not found. In line protocol one of
    /// `device_tags` names the device.
    pub fn excerpts<'a>(
        self,
        body: &'a [u8],
        places: impl IntoIterator<Item = usize>,
        device_tags: &DeviceTags,
    ) -> Vec<Option<Excerpt<'a>>> {
        let mut pieces = Pieces::new(self, body);
        let mut base = None;
        let mut current: Option<(usize, Excerpt<'a>)> = None;
        let mut next = 0;
        let mut excerpts = Vec::new();
        for place in places {
            while next <= place
                && let Some(text) = pieces.next()
            {
                if self == Layout::SenmlArray {
                    base = text_member(text, "bn").or(base);
                }
                if next == place {
                    let device = self.device(text, base.as_deref(), device_tags);
                    current = Some((place, Excerpt { text, device }));
                }
                next += 1;
            }
            excerpts
                .push(current.as_ref().filter(|(at, _)| *at == place).map(|(_, excerpt)| excerpt.clone()));
        }
        excerpts
    }

    /// The device of a piece.
    fn device<'a>(self, piece: &'a [u8], base: Option<&str>, tags: &DeviceTags) -> Option<Cow<'a, str>> {
        match self {
            Layout::Array | Layout::NonBlankLines => text_member(piece, "device"),
            Layout::SenmlArray => senml_device(piece, base),
            Layout::EveryLine => line_device(piece, tags),
        }
    }
}

/// The pieces of a body, one after the other.
struct Pieces<'a> {
    layout: Layout,
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    fn new(layout: Layout, body: &'a [u8]) -> Pieces<'a> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let body = &body[..body.len().min(SEARCH_BYTES_MAX)];
        match (layout, body.trim_ascii_start()) {
            (Layout::Array | Layout::SenmlArray, [b'[', rest @ ..]) => Pieces { layout, rest },
            (Layout::Array | Layout::SenmlArray, alone) => Pieces { layout, rest: alone },
            (Layout::NonBlankLines | Layout::EveryLine, _) => Pieces { layout, rest: body },
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self.layout {
            Layout::Array | Layout::SenmlArray => {
                let rest = self.rest.trim_ascii_start();
                let end = value_end(rest);
                let piece = rest[..end].trim_ascii_end();
                // Behind the comma, or nowhere.
                self.rest = rest.get(end + 1..).unwrap_or_default();
                (!piece.is_empty()).then_some(piece)
            }
            Layout::EveryLine => self.line(),
            Layout::NonBlankLines => loop {
                let line = self.line()?;
                if !line.trim_ascii().is_empty() {
                    return Some(line.trim_ascii());
                }
            },
        }
    }
}

impl<'a> Pieces<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(line.trim_ascii_end())
    }
}

/// Where a JSON value ends, whatever is wrong inside it: before the comma or bracket that follows, or at the end.
fn value_end(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return at,
            _ => at += 1,
        }
    }
    text.len()
}

/// Where a string ends whose opening quotation mark is at `start`: behind the closing one, or at the end.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// The text that an object has as its member `name`.
fn text_member<'a>(object: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let object = &object[..object.len().min(PIECE_BYTES_MAX)];
    let mut rest = object.trim_ascii_start().strip_prefix(b"{")?;
    loop {
        rest = rest.trim_ascii_start();
        if rest.first() != Some(&b'"') {
            return None;
        }
        let (key, after) = rest.split_at(string_end(rest, 0));
        let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, after) = value.split_at(value_end(value));
        if key.len() > 2 && &key[1..key.len() - 1] == name.as_bytes() {
            return text(value.trim_ascii_end());
        }
        rest = after.strip_prefix(b",")?;
    }
}

/// A JSON string without its escapes, or as it stands there if they are wrong.
fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inner.contains(&b'\\') {
        return Some(String::from_utf8_lossy(inner)).filter(|text| !text.is_empty());
    }
    let unescaped = serde_json::from_slice::<String>(value).map(Cow::Owned);
    Some(unescaped.unwrap_or_else(|_| String::from_utf8_lossy(inner)))
}

fn senml_device<'a>(record: &'a [u8], base: Option<&str>) -> Option<Cow<'a, str>> {
    let name = text_member(record, "n").unwrap_or_default();
    let source = super::senml::device(base.unwrap_or_default(), &name)?;
    Some(Cow::Owned(source.to_owned()))
}

/// The device of a line: the first of the tags that it has.
fn line_device<'a>(line: &'a [u8], tags: &DeviceTags) -> Option<Cow<'a, str>> {
    let line = &line[..line.len().min(PIECE_BYTES_MAX)];
    let mut found: Vec<(&[u8], &'a [u8])> = Vec::new();
    let mut rest = line.trim_ascii_start();
    rest = &rest[unescaped(rest, b", ")..];
    while let Some(tag) = rest.strip_prefix(b",") {
        let (tag, after) = tag.split_at(unescaped(tag, b", "));
        let equals = unescaped(tag, b"=");
        if let Some(value) = tag.get(equals + 1..) {
            found.push((&tag[..equals], value));
        }
        rest = after;
    }
    let value = tags.names().find_map(|name| found.iter().find(|(tag, _)| *tag == name.as_bytes()))?.1;
    let value = String::from_utf8_lossy(value);
    match value.contains('\\') {
        true => Some(value.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=").into()),
        false => Some(value),
    }
}

/// Where the first of these bytes stands that no backslash stands before, or the end.
fn unescaped(text: &[u8], bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if bytes.contains(byte) => return at,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(layout: Layout, body: &str, places: &[usize], expected: &[Option<(&str, Option<&str>)>]) {
        let found = layout.excerpts(body.as_bytes(), places.iter().copied(), &DeviceTags::default());
        let found: Vec<_> = found
            .iter()
            .map(|excerpt| {
                let excerpt = excerpt.as_ref()?;
                Some((std::str::from_utf8(excerpt.text).unwrap(), excerpt.device.as_deref()))
            })
            .collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn an_element_of_an_array_is_found_whatever_is_wrong_in_it() {
        let array = Layout::Array;
        check(
            array,
            r#"{"device":"d","value":1}"#,
            &[0],
            &[Some((r#"{"device":"d","value":1}"#, Some("d")))],
        );
        check(
            array,
            r#" [ {"a":[1,"],{"]} , {"device":"d"} ]"#,
            &[1],
            &[Some((r#"{"device":"d"}"#, Some("d")))],
        );
        check(
            array,
            r#"[1,{"value":"\q]","device" : "d\u0041"},{"value":1e999,"tags":{"device":"no"}}]"#,
            &[0, 1, 1, 2, 3],
            &[
                Some(("1", None)),
                Some((r#"{"value":"\q]","device" : "d\u0041"}"#, Some("dA"))),
                Some((r#"{"value":"\q]","device" : "d\u0041"}"#, Some("dA"))),
                Some((r#"{"value":1e999,"tags":{"device":"no"}}"#, None)),
                None,
            ],
        );
        let quoted = r#"{"value":"\"]},","device":"d"}"#;
        check(array, &format!("[{quoted},1]"), &[0, 1], &[Some((quoted, Some("d"))), Some(("1", None))]);
        check(array, "\u{feff}[{\"device\":7}]", &[0], &[Some((r#"{"device":7}"#, None))]);
        check(array, "", &[0], &[None]);
        check(array, "[]", &[0], &[None]);
    }

    #[test]
    fn a_line_is_found_as_the_format_counts_lines() {
        let text = "\n{\"device\":\"a\"}\r\n  \n{\"device\":\"b\", nonsense}\n";
        let second = Some((r#"{"device":"b", nonsense}"#, Some("b")));
        check(Layout::NonBlankLines, text, &[0, 1], &[Some((r#"{"device":"a"}"#, Some("a"))), second]);
        let lines = "# comment\nm,host=h,device=a\\ b value=x\nm value=1\nm,host=h value=";
        check(
            Layout::EveryLine,
            lines,
            &[1, 2, 3],
            &[
                Some(("m,host=h,device=a\\ b value=x", Some("a b"))),
                Some(("m value=1", None)),
                Some(("m,host=h value=", Some("h"))),
            ],
        );
    }

    #[test]
    fn the_device_of_a_senml_record_may_stand_in_an_earlier_one() {
        let pack = r#"[{"bn":"urn:dev:mac:1:","n":"t","v":1},{"n":"t","v":"x"},{"bn":"other/","v":1}]"#;
        check(
            Layout::SenmlArray,
            pack,
            &[1, 2],
            &[
                Some((r#"{"n":"t","v":"x"}"#, Some("urn:dev:mac:1"))),
                Some((r#"{"bn":"other/","v":1}"#, Some("other"))),
            ],
        );
    }

    #[test]
    fn what_stands_far_behind_is_not_looked_for() {
        let body = format!("[{}1]", "0,".repeat(SEARCH_BYTES_MAX));
        check(Layout::Array, &body, &[SEARCH_BYTES_MAX], &[None]);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in r#"([\[\]{}",:\\ =\nmé]|"device"|"bn"|device=){0,60}"#) {
            for layout in [Layout::Array, Layout::SenmlArray, Layout::NonBlankLines, Layout::EveryLine] {
                layout.excerpts(body.as_bytes(), 0..8, &DeviceTags::default());
            }
        }
    }
}
