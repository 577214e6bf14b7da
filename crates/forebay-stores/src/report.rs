//! Recognises bodies that report an error in a way common to many servers: as a member of a JSON object.
//!
//! The body may have been cut off anywhere, so no JSON parser would accept it. The members before the cut are read in one pass
//! and without allocating.

use std::borrow::Cow;

/// Most members and elements that are examined.
const PLACES_MAX: usize = 256;

/// Whether the JSON object that a body begins with reports an error:
///
/// - `"error"` with any value but `null`, `false`, 0, an empty text, object or array, or a word that denies an error;
/// - `"errors": true`;
/// - `"status"` with an HTTP status from 400, or with `"error"`, `"fail"`, `"failed"` or `"failure"`;
/// - `"success": false` or `"ok": false`;
/// - `"results"` with an object that has such an `"error"`, as InfluxDB and its imitators answer.
pub(super) fn reports_error(body: &[u8]) -> bool {
    members(body).any(|(name, value)| match name {
        b"error" => says_something(value),
        b"errors" => value.starts_with(b"true"),
        b"status" => is_error_status(value) || is_word(value, &["error", "fail", "failed", "failure"]),
        b"success" | b"ok" => value.starts_with(b"false"),
        b"results" => elements(value).any(has_error),
        _ => false,
    })
}

fn has_error(value: &[u8]) -> bool {
    members(value).any(|(name, value)| name == b"error" && says_something(value))
}

/// Whether a value is an HTTP status of an error, as a number.
pub(super) fn is_error_status(value: &[u8]) -> bool {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A number that was cut off would be another number.
    let is_whole = value.get(digits).is_some_and(|byte| b",}] \t\r\n".contains(byte));
    digits == 3 && is_whole && matches!(value[0], b'4' | b'5')
}

/// Whether a value is one of these words, in any case.
pub(super) fn is_word(value: &[u8], words: &[&str]) -> bool {
    text(value).is_some_and(|text| words.iter().any(|word| text.eq_ignore_ascii_case(word)))
}

/// Whether a value, which may have been cut off, reports an error.
fn says_something(value: &[u8]) -> bool {
    let denials = ["none", "null", "false", "ok", "success", "no error", "0"];
    match value {
        [b'"', rest @ ..] => !rest.is_empty() && rest[0] != b'"' && !is_word(value, &denials),
        [b'{', rest @ ..] => !matches!(skip_blanks(rest).first(), None | Some(b'}')),
        [b'[', rest @ ..] => !matches!(skip_blanks(rest).first(), None | Some(b']')),
        [first, ..] => !matches!(first, b'n' | b'f' | b'0'),
        [] => false,
    }
}

/// The text of a value, up to the cut; `None` if the value is not a text.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix(b"\"")?;
    let Some(end) = end_of_string(value) else { return Some(String::from_utf8_lossy(inside)) };
    match serde_json::from_slice::<String>(&value[..end]) {
        Ok(text) => Some(Cow::Owned(text)),
        Err(_) => Some(String::from_utf8_lossy(&value[1..end - 1])),
    }
}

/// The members of the object at the beginning of a text, after white space: each name with its escapes, and its value with
/// the rest of the text.
pub(super) fn members(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut rest = skip_blanks(text).strip_prefix(b"{");
    std::iter::from_fn(move || {
        let at = rest.take()?;
        let at = skip_separators(at);
        let name_end = end_of_string(at)?;
        let value = skip_blanks(skip_blanks(&at[name_end..]).strip_prefix(b":")?);
        rest = end_of_value(value).map(|end| &value[end..]);
        Some((&at[1..name_end - 1], value))
    })
    .take(PLACES_MAX)
}

/// The elements of an array, each with the rest of the text.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value.strip_prefix(b"[");
    std::iter::from_fn(move || {
        let at = skip_separators(rest.take()?);
        rest = end_of_value(at).map(|end| &at[end..]);
        (!at.is_empty() && at[0] != b']').then_some(at)
    })
    .take(PLACES_MAX)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let text = skip_blanks(text);
    skip_blanks(text.strip_prefix(b",").unwrap_or(text))
}

/// The end of the string at the beginning of `text`, after its closing quotation mark; `None` without one, or beyond the cut.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\"")?;
    let mut escaped = false;
    let end = inside.iter().position(|byte| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    });
    end.map(|end| end + 2)
}

/// The end of the value at the beginning of `text`; `None` without one, or beyond the cut.
fn end_of_value(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match *text.get(at)? {
            b'"' => at += end_of_string(&text[at..])?,
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' => (at, depth) = (at + 1, depth.checked_sub(1)?),
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => at += 1,
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => return None,
            _ => at += text[at..].iter().position(|byte| b",:{}[]\" \t\r\n".contains(byte))?,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_found_up_to_the_cut_and_inner_members_are_left_out() {
        let names = |text: &str| -> Vec<String> {
            members(text.as_bytes()).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(
            names("\u{feff} {\"a\":1, \"b\" : {\"error\":[\"}\",2]},\"c\\\"\":\"x\"}"),
            ["a", "b", "c\\\""]
        );
        assert_eq!(names(r#"{"a":{"b":"#), ["a"]);
        assert_eq!(names(r#"{"a":1,"error":"cut he"#), ["a", "error"]);
        for none in ["", "{", "[1]", "x", "{}", "{\"a", "{\"a\"", "{a:1}", "null", "{,}"] {
            assert!(names(none).is_empty(), "{none}");
        }
        let values: Vec<_> = elements(br#"[1,{"x":[2]},"z"]"#).map(|value| value[0]).collect();
        assert_eq!(values, *b"1{\"");
    }

    #[test]
    fn an_error_differs_from_its_denial_even_in_a_body_that_was_cut_off() {
        let check =
            |body: &str, expected: bool| assert_eq!(reports_error(body.as_bytes()), expected, "{body}");
        for error in [
            r#"{"error":"timeout"}"#,
            r#" { "took" : 3 , "error" : { "type" : "x" } }"#,
            r#"{"error":"cut in the midd"#,
            r#"{"error":["a"]}"#,
            r#"{"error":true}"#,
            r#"{"error":{"ty"#,
            r#"{"errors":true,"items":[]}"#,
            r#"{"status":"error","errorType":"bad_data"}"#,
            r#"{"status":"Failed"}"#,
            r#"{"title":"x","status":500}"#,
            r#"{"success":false}"#,
            r#"{"ok":false,"x":1}"#,
            r#"{"results":[{"statement_id":0,"error":"database not found: x"}]}"#,
            r#"{"results":[{"statement_id":0},{"error":"x"}]}"#,
            r#"{"results":[{"error":"cut of"#,
            r#"{"took":1,"results":[{"status":"x","error":{"type":"y"}}]}"#,
        ] {
            check(error, true);
        }
        for fine in [
            "",
            "ok",
            "{}",
            r#"{"error":null}"#,
            r#"{"error":""}"#,
            r#"{"error":false}"#,
            r#"{"error":{}}"#,
            r#"{"error":[ ]}"#,
            r#"{"error":0,"x":1}"#,
            r#"{"error":"None"}"#,
            r#"{"error":"#,
            r#"{"error":""#,
            r#"{"errors":[]}"#,
            r#"{"errors":[{"index":3}],"accepted":98}"#,
            r#"{"status":"success","data":{"error":"x"}}"#,
            r#"{"status":204}"#,
            r#"{"status":4000}"#,
            r#"{"status":50"#,
            r#"{"success":true}"#,
            r#"[{"error":"x"}]"#,
            r#""error":"x""#,
            r#"{"results":[{"statement_id":0}]}"#,
            r#"{"results":[]}"#,
            r#"{"results":[{"error":null},{"error":""}]}"#,
            r#"{"results":"error"}"#,
            r#"{"results":{"error":"x"}}"#,
        ] {
            check(fine, false);
        }
    }

    proptest! {
        #[test]
        fn no_text_can_cause_a_panic(text in r#"[ \t{}\[\]":,\\a-e0-9u]{0,64}"#) {
            let _ = reports_error(text.as_bytes());
            let _ = reports_error(format!("{{\"error\":{text}").as_bytes());
            members(text.as_bytes()).for_each(|(_, value)| {
                let _ = (elements(value).count(), super::text(value));
            });
        }
    }
}
