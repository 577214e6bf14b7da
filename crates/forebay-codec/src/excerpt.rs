//! Finds rejected readings in a body, and the devices that they name, for showing them to people.
//!
//! The body is searched once more, without judging it: the piece at the place of a rejection is cut out as it was sent, and
//! its device is read if it names one. Only bodies with rejections come here.

use std::borrow::Cow;

use crate::DeviceTags;
use crate::body::BYTE_ORDER_MARK;
use crate::layout::Layout;
use crate::tokens::string_end;

/// Only this much of the beginning of a body is searched, in bytes.
const SEARCH_BYTES_MAX: usize = 1 << 20;
/// Longest piece in which a device is looked for, in bytes.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Shortest line that may have been cut off, in bytes: shorter lines are complete.
const CUT_BYTES_MIN: usize = 200;

/// The piece of a body that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt<'a> {
    /// The piece as it was sent.
    pub text: &'a [u8],
    /// The device that the piece names.
    pub device: Option<Cow<'a, str>>,
}

impl Layout {
    /// The pieces of `body` at these places, in ascending order; `None` for a piece that is not found. In line protocol one
    /// of `device_tags` names the device.
    pub fn excerpts<'a>(
        self,
        body: &'a [u8],
        places: impl IntoIterator<Item = usize>,
        device_tags: &DeviceTags,
    ) -> Vec<Option<Excerpt<'a>>> {
        let mut pieces = BodyPieces::new(self, body);
        let mut base = Member::Absent;
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
                    let device = self.device(text, &base, device_tags);
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
    fn device<'a>(self, piece: &'a [u8], base: &Member<'_>, tags: &DeviceTags) -> Option<Cow<'a, str>> {
        match self {
            Layout::Array | Layout::NonBlankLines => {
                text_member(piece, "device").text().filter(|device| !device.is_empty())
            }
            Layout::SenmlArray => senml_device(piece, base),
            Layout::EveryLine => line_device(piece, tags),
        }
    }
}

/// The pieces of a body, one after the other.
struct BodyPieces<'a> {
    layout: Layout,
    rest: &'a [u8],
}

impl<'a> BodyPieces<'a> {
    fn new(layout: Layout, body: &'a [u8]) -> BodyPieces<'a> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let body = &body[..body.len().min(SEARCH_BYTES_MAX)];
        match (layout, body.trim_ascii_start()) {
            (Layout::Array | Layout::SenmlArray, [b'[', rest @ ..]) => BodyPieces { layout, rest },
            (Layout::Array | Layout::SenmlArray, alone) => BodyPieces { layout, rest: alone },
            (Layout::NonBlankLines | Layout::EveryLine, _) => BodyPieces { layout, rest: body },
        }
    }
}

impl<'a> Iterator for BodyPieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self.layout {
            Layout::Array | Layout::SenmlArray => {
                let rest = self.rest.trim_ascii_start();
                let end = value_end(rest);
                let piece = rest[..end].trim_ascii_end();
                // After the comma; nothing is left behind a bracket.
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

impl<'a> BodyPieces<'a> {
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

/// The end of a JSON value, whatever its faults: before the next comma or closing bracket at its level, or at the end.
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

/// The text of a member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member<'a> {
    Absent,
    Text(Cow<'a, str>),
    /// It is not a text, is there twice, or may be in an unreadable part of the object.
    Unknown,
}

impl<'a> Member<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Member::Text(text) => Some(text),
            Member::Absent | Member::Unknown => None,
        }
    }

    /// This member, or `other` if this one is absent.
    fn or(self, other: Member<'a>) -> Member<'a> {
        if self == Member::Absent { other } else { self }
    }
}

/// The text that an object has as its member `name`.
fn text_member<'a>(object: &'a [u8], name: &str) -> Member<'a> {
    let object = &object[..object.len().min(PIECE_BYTES_MAX)];
    let Some(mut rest) = object.trim_ascii_start().strip_prefix(b"{") else { return Member::Absent };
    let mut found = Member::Absent;
    loop {
        rest = rest.trim_ascii_start();
        let Some((key, value, after)) = first_member(rest) else {
            // The unreadable rest may name it.
            let is_end = rest.first() == Some(&b'}');
            return if is_end || found != Member::Absent { found } else { Member::Unknown };
        };
        if text(key).is_some_and(|key| key == name) {
            if found != Member::Absent {
                return Member::Unknown;
            }
            found = text(value).map_or(Member::Unknown, Member::Text);
        }
        rest = after.strip_prefix(b",").unwrap_or(after);
    }
}

/// The name and the value of the member that `rest` begins with, and what follows.
fn first_member(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    rest.first().filter(|first| **first == b'"')?;
    let (key, after) = rest.split_at(string_end(rest, 0).min(rest.len()));
    let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let (value, after) = value.split_at(value_end(value));
    Some((key, value.trim_ascii_end(), after))
}

/// The text of a JSON string; `None` if it is not a valid one.
fn text(string: &[u8]) -> Option<Cow<'_, str>> {
    let inner = string.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if string_end(string, 0) != string.len() {
        return None;
    }
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(string).ok().map(Cow::Owned)
}

fn senml_device<'a>(record: &'a [u8], base: &Member<'_>) -> Option<Cow<'a, str>> {
    let known = |member: Member<'_>| match member {
        Member::Absent => Some(String::new()),
        Member::Text(text) => Some(text.into_owned()),
        Member::Unknown => None,
    };
    let (base, name) = (known(base.clone())?, known(text_member(record, "n"))?);
    super::senml::device(&base, &name)
        .filter(|device| !device.is_empty())
        .map(|device| Cow::Owned(device.to_owned()))
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
    if rest.is_empty() && line.len() >= CUT_BYTES_MIN {
        // The last value may have been cut off.
        found.pop();
    }
    let value = tags.names().find_map(|name| found.iter().find(|(tag, _)| *tag == name.as_bytes()))?.1;
    let value = String::from_utf8_lossy(value);
    match value.contains('\\') {
        true => Some(value.replace("\\,", ",").replace("\\ ", " ").replace("\\=", "=").into()),
        false => Some(value),
    }
}

/// The place of the first of these bytes without a backslash before it, or the end.
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
    fn an_element_of_an_array_is_found_whatever_its_faults() {
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
    fn the_device_of_a_senml_record_may_come_from_an_earlier_record() {
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
    fn a_base_name_replaces_the_one_before_even_if_it_is_empty_escaped_or_not_a_text() {
        let device = |pack: &str, place: usize| {
            let found = Layout::SenmlArray.excerpts(pack.as_bytes(), [place], &DeviceTags::default());
            found.into_iter().flatten().next().expect(pack).device.map(Cow::into_owned)
        };
        let check = |record: &str, expected: Option<&str>| {
            let pack = format!(r#"[{{"bn":"A/","n":"t","v":1}},{record},{{"n":"u/t"}}]"#);
            assert_eq!(device(&pack, 1).as_deref(), expected, "{record}");
        };
        check(r#"{"bn":"","n":"B/t"}"#, Some("B"));
        check(r#"{"b\u006e":"C/","n":"t"}"#, Some("C"));
        check(r#"{"bn":"\u0043/","\u006e":"t"}"#, Some("C"));
        check(r#"{"n":"t"}"#, Some("A"));
        check(r#"{"bn":7,"n":"t"}"#, None);
        check(r#"{"bn":"B\q/","n":"t"}"#, None);
        check(r#"{"bn":"B/","bn":"C/","n":"t"}"#, None);
        check(r#"{"n":7}"#, None);
        assert_eq!(device(r#"[{"bn":"A/"},{"bn":7},{"n":"u/t"}]"#, 2), None);
        assert_eq!(device(r#"[{"bn":"A/"},{"bn":""},{"n":"u/t"}]"#, 2).as_deref(), Some("u"));
        let long =
            format!(r#"[{{"bn":"A/"}},{{"x":"{}","bn":"B/"}},{{"n":"t"}}]"#, "x".repeat(PIECE_BYTES_MAX));
        assert_eq!(device(&long, 2), None);
    }

    #[test]
    fn where_the_device_is_in_doubt_none_is_named() {
        let check = |layout, piece: &str, expected| {
            super::tests::check(layout, piece, &[0], &[Some((piece, expected))])
        };
        check(Layout::Array, r#"{"d\u0065vice":"E","value":"x"}"#, Some("E"));
        check(Layout::NonBlankLines, r#"{"\u0064evice":"\u0045"}"#, Some("E"));
        check(Layout::Array, r#"{"\q":1,"device":"d"}"#, Some("d"));
        check(Layout::Array, r#"{"device":"a","device":"b"}"#, None);
        check(Layout::Array, r#"{"device":"a","d\u0065vice":"b"}"#, None);
        check(Layout::Array, r#"{"device":"a\q"}"#, None);
        check(Layout::Array, r#"{"device":"a"x"b"}"#, None);
        check(Layout::Array, r#"{"device":""}"#, None);
        check(Layout::Array, r#"{"device":"cut of"#, None);
        check(Layout::EveryLine, "m,device=whole", Some("whole"));
        check(Layout::EveryLine, &format!("m,device={}", "x".repeat(CUT_BYTES_MIN)), None);
        check(Layout::EveryLine, &format!("m,host=h,device=d v={}", "x".repeat(CUT_BYTES_MIN)), Some("d"));
    }

    #[test]
    fn pieces_beyond_the_searched_beginning_are_not_found() {
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
