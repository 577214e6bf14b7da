//! Bodies with faults that leave their structure whole: invalid escapes, such as `\q` or half of a surrogate pair, and in
//! arrays the faults that `elements.rs` finds.
//!
//! No general parser continues after such a fault. So the body is copied with harmless bytes in the place of each fault (a
//! question mark for a backslash), which keeps its structure and all places in it. The copy is parsed; an element that differs
//! from the body is at fault.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::elements::{self, OF_ELEMENT, OF_VALUE};
use crate::parse::{self, DEPTH_BEYOND, check_depth};
use crate::quote::{pointer_token, shorten};
use crate::tokens::is_of_word;
use crate::value::unquote;
use crate::{DecodeError, escape};

/// Reads a body with `read`: first as it is, then with its invalid escapes mended, then with all faults within its elements
/// mended.
///
/// # Errors
///
/// The body is not JSON, apart from invalid escapes.
pub(super) fn read<T>(
    body: &str,
    read: impl Fn(&MendedBody<'_>) -> serde_json::Result<T>,
) -> Result<T, DecodeError> {
    let with_escapes_mended = |error| {
        let mended = MendedBody::of(body);
        if mended.is_changed() { read(&mended) } else { Err(error) }
    };
    let result = check_depth(body, 0).and_then(|()| {
        let result = read(&MendedBody::plain(body)).or_else(with_escapes_mended);
        result.map_err(|error| DecodeError::of_parser(&error))
    });
    result.or_else(|error| match MendedBody::elements_of(body) {
        Some(mended) => read(&mended).map_err(|_| error),
        None => Err(error),
    })
}

/// A body, and the text that is parsed in its place.
#[derive(Debug)]
pub(super) struct MendedBody<'a> {
    body: &'a str,
    text: Cow<'a, str>,
}

impl<'a> MendedBody<'a> {
    /// The body as it is.
    pub(super) fn plain(body: &'a str) -> MendedBody<'a> {
        MendedBody { body, text: Cow::Borrowed(body) }
    }

    /// The body with its invalid escapes mended.
    pub(super) fn of(body: &'a str) -> MendedBody<'a> {
        let mut copy: Option<Vec<u8>> = None;
        for at in escape::faulty(body.as_bytes()) {
            copy.get_or_insert_with(|| body.as_bytes().to_vec())[at] = b'?';
        }
        let copy = copy.map(|bytes| String::from_utf8(bytes).expect("only ASCII was replaced, by ASCII"));
        MendedBody { body, text: copy.map_or(Cow::Borrowed(body), Cow::Owned) }
    }

    /// An array with all faults within its elements mended; `None` if its structure is broken, or if no element is JSON.
    pub(super) fn elements_of(body: &'a str) -> Option<MendedBody<'a>> {
        let text = String::from_utf8(elements::mended(body)?).ok()?;
        Some(MendedBody { body, text: Cow::Owned(text) })
    }

    /// The text to parse.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the body had a fault.
    pub(super) fn is_changed(&self) -> bool {
        matches!(self.text, Cow::Owned(_))
    }

    /// The fault in a part of [`MendedBody::text`], for people.
    pub(super) fn fault_in(&self, part: &str) -> Option<String> {
        let at = self.first_in(part)?;
        Some(match self.text.as_bytes()[at] {
            OF_VALUE => self.fault_of_value(at),
            OF_ELEMENT => {
                let start = part.as_ptr().addr() - self.text.as_ptr().addr();
                fault_of_element(&self.body[start..start + part.len()])
            }
            _ => fault_of_string(&self.body[at..]),
        })
    }

    /// The fault of a word, or of a value that is nested too deeply.
    fn fault_of_value(&self, at: usize) -> String {
        let bytes = self.body.as_bytes();
        if !is_of_word(bytes[at]) {
            return format!(
                "the nesting goes too deep; at most {} arrays and objects, the outermost one among them, may stand in one another",
                DEPTH_BEYOND - 1
            );
        }
        let ends_word = |byte: &u8| !is_of_word(*byte);
        let start = bytes[..at].iter().rposition(ends_word).map_or(0, |before| before + 1);
        let end = bytes[at..].iter().position(ends_word).map_or(bytes.len(), |length| at + length);
        let word = shorten(&self.body[start..end]);
        match bytes[start] {
            b'0'..=b'9' | b'+' | b'-' | b'.' => format!("`{word}` is no number of JSON"),
            _ => format!(
                "`{word}` is no JSON; a value is a number, true, false, null, a string in double quotes, an array or an object"
            ),
        }
    }

    /// The pointer to the faulty member of an object; empty if the fault is in a name, or if `object` is not an object.
    pub(super) fn pointer_in(&self, object: &str) -> String {
        let mut pointer = None;
        let read = parse::members(object, |name, json| {
            if pointer.is_none() && self.first_in(json).is_some() {
                pointer = Some(format!("/{}", pointer_token(&unquote(name)?)));
            }
            Ok(())
        });
        read.ok().and(pointer).unwrap_or_default()
    }

    fn first_in(&self, part: &str) -> Option<usize> {
        let Cow::Owned(text) = &self.text else { return None };
        let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        let (part, body) = (part.as_bytes(), self.body.as_bytes().get(start..start + part.len())?);
        (part != body)
            .then(|| part.iter().zip(body).position(|(one, other)| one != other))
            .flatten()
            .map(|at| start + at)
    }
}

/// The fault of a string, at whose beginning `rest` starts.
fn fault_of_string(rest: &str) -> String {
    if let Some(control) = rest.chars().next().filter(|first| *first < ' ') {
        let code = u32::from(control);
        return format!(
            "a string has the control character U+{code:04X} in it; JSON writes it as `\\u{code:04x}`"
        );
    }
    let shown: String = rest.chars().take(if rest.starts_with("\\u") { 6 } else { 2 }).collect();
    format!("a string has the escape `{shown}`, which stands for no character")
}

/// The fault of an element with broken syntax.
fn fault_of_element(element: &str) -> String {
    let error = serde_json::from_str::<IgnoredAny>(element).err();
    let detail =
        error.map_or_else(String::new, |error| format!(": {}", DecodeError::of_parser(&error).detail));
    format!("the element is no JSON{detail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    #[test]
    fn only_invalid_escapes_are_mended_and_only_in_strings() {
        for (body, expected) in [
            (r#"["\q","a\x41","\'"]"#, r#"["?q","a?x41","?'"]"#),
            (r#"["\u12","\uzzzz","\u"]"#, r#"["?u12","?uzzzz","?u"]"#),
            (r#"["\ud800","\udc00","\ud800x","\ud800\n"]"#, r#"["?ud800","?udc00","?ud800x","?ud800\n"]"#),
            (r#"["\ud800\ud83d\ude00","\ud83d\u0041"]"#, r#"["?ud800\ud83d\ude00","?ud83d\u0041"]"#),
            (r#"["é\é"]"#, r#"["é?é"]"#),
        ] {
            let mended = MendedBody::of(body);
            assert_eq!(mended.text(), expected);
            assert!(mended.is_changed());
        }
        for body in [r#"["\"\\\/\b\f\n\r\t\u0041\ud83d\ude00","\\q"]"#, r#"[\q]"#, "", "{}"] {
            let mended = MendedBody::of(body);
            assert_eq!((mended.text(), mended.is_changed()), (body, false));
        }
        // A string that is cut off stays broken.
        assert_eq!(MendedBody::of("\"\\").text(), "\"?");
    }

    #[test]
    fn a_fault_is_found_in_its_part_and_its_member() {
        let body = r#"[{"a":"x","b":1},{"a":"x","b/c":{"d":"\ud800"}},{"\q":1}]"#;
        let mended = MendedBody::of(body);
        let parts: Vec<&RawValue> = serde_json::from_str(mended.text()).expect("JSON");
        let told: Vec<_> =
            parts.iter().map(|part| (mended.fault_in(part.get()), mended.pointer_in(part.get()))).collect();
        let fault =
            |escape: &str| Some(format!("a string has the escape `{escape}`, which stands for no character"));
        assert_eq!(
            told,
            [(None, String::new()), (fault("\\ud800"), "/b~1c".to_owned()), (fault("\\q"), String::new())]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_broken_string_becomes_a_valid_one_and_a_valid_one_stays(
            text in "([a-zé]|\\\\[\"\\\\/bfnrtuqé]|\\\\u[0-9a-f]{4}|\\\\ud8[0-9a-f]{2}|\\\\ude[0-9a-f]{2}){0,8}"
        ) {
            let body = format!("\"{text}\"");
            let mended = MendedBody::of(&body);
            let is_string = serde_json::from_str::<String>(&body).is_ok();
            prop_assert_eq!(mended.is_changed(), !is_string, "{}", body);
            prop_assert!(serde_json::from_str::<String>(mended.text()).is_ok(), "{} {}", body, mended.text());
        }
    }
}
