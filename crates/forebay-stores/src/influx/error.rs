//! Errors of InfluxDB and of other stores that accept line protocol, and whose fault they are.
//!
//! The status of the same error differs between versions: readings beyond the retention policy get 400 from version 1, 422 from
//! version 2, and 500 from its first releases. So the words decide. Errors repeat contents of readings; only words before these
//! are examined.

use std::borrow::Cow;

use crate::diagnosis::{error_text, may_blame_readings};
use crate::report::{is_word, members, text};
use crate::{Blame, NodeAnswer};

/// Prefixes of the words that matter; each may occur any number of times.
const BEFORE: [&str; 6] = [
    "failure writing points to database: ",
    "unexpected error writing points to database: ",
    "engine: ",
    "write failed: ",
    "internal error: ",
    "partial write: ",
];
/// Prefixes with the number of a shard after them.
const BEFORE_NUMBERED: [(&str, &str); 3] =
    [("[shard ", "] "), ("write failed for shard ", ": "), ("write shard ", ": ")];
/// Beginnings of errors for readings that the store will never accept.
const OF_READINGS: [&str; 13] = [
    "points beyond retention policy",
    "field type conflict",
    "input field ",
    "max-values-per-tag limit exceeded",
    "max-series-per-database limit exceeded",
    "max key length exceeded",
    "max field length exceeded",
    "unable to parse",
    "time outside range",
    "missing measurement",
    "missing fields",
    "duplicate tags",
    "partial write of line protocol occurred",
];
/// Mark of a partial write that dropped points for their contents, before their number.
const DROPPED: &str = " dropped=";

/// The error in an answer.
#[derive(Debug)]
pub(super) struct InfluxError<'a> {
    status: u16,
    body: &'a str,
    text: Cow<'a, str>,
}

impl<'a> InfluxError<'a> {
    pub(super) fn of(answer: &NodeAnswer<'a>) -> InfluxError<'a> {
        InfluxError { status: answer.status, body: answer.body, text: error_text(answer.body) }
    }

    /// Whether the error begins with these words.
    pub(super) fn says(&self, beginning: &str) -> bool {
        self.text.starts_with(beginning)
    }

    /// Whose fault it is, where the status does not say.
    pub(super) fn blame(&self) -> Option<Blame> {
        match self.status {
            200..=299 => reports_error(self.body).then_some(Blame::Node),
            _ if self.is_of_setup() => Some(Blame::Setup),
            status if may_blame_readings(status) => self.is_of_readings().then_some(Blame::Readings),
            _ => None,
        }
    }

    /// Whether every batch would get this answer, although its status blames the readings or the node.
    fn is_of_setup(&self) -> bool {
        match self.status {
            400 => {
                let beginnings = ["database is required", "invalid precision", "invalid consistency"];
                beginnings.iter().any(|beginning| self.says(beginning))
            }
            500 => self.says("retention policy not found"),
            _ => false,
        }
    }

    fn is_of_readings(&self) -> bool {
        let words = without_before(&self.text);
        let is_partial = self.text.len() > words.len()
            && self.text[..self.text.len() - words.len()].ends_with("partial write: ");
        OF_READINGS.iter().any(|beginning| words.starts_with(beginning))
            || is_partial && tells_of_dropped(words)
    }
}

/// Whether the error of a partial write counts dropped points.
fn tells_of_dropped(words: &str) -> bool {
    let count = words.rsplit_once(DROPPED).and_then(|(_, rest)| rest.bytes().next());
    count.is_some_and(|digit| matches!(digit, b'1'..=b'9'))
}

/// The words of an error without their prefixes.
fn without_before(mut text: &str) -> &str {
    let numbered = |text: &'_ str, (before, after): (&str, &str)| {
        let rest = text.strip_prefix(before)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[digits..].strip_prefix(after).map(str::len)
    };
    loop {
        let plain = BEFORE.iter().find_map(|before| text.strip_prefix(before).map(str::len));
        let left = plain.or_else(|| BEFORE_NUMBERED.into_iter().find_map(|around| numbered(text, around)));
        let Some(left) = left else { return text };
        text = &text[text.len() - left..];
    }
}

/// Whether the body of a success reports an error as InfluxDB 2 does, with `code` and `message`. The form of version 1 is
/// recognised for every format.
fn reports_error(body: &str) -> bool {
    let member =
        |wanted: &[u8]| members(body.as_bytes()).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let is_code = |code: &[u8]| match text(code) {
        Some(code) => !code.is_empty() && !is_word(format!("\"{code}\"").as_bytes(), &["ok", "success"]),
        None => matches!(code.first(), Some(b'4' | b'5')),
    };
    member(b"message").is_some() && member(b"code").is_some_and(is_code)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn blame(status: u16, body: &str) -> Option<Blame> {
        InfluxError::of(&NodeAnswer { status, headers: &HeaderMap::new(), body }).blame()
    }

    #[test]
    fn an_error_about_readings_blames_them_under_any_status() {
        for words in [
            "partial write: points beyond retention policy dropped=1",
            "points beyond retention policy",
            "unexpected error writing points to database: partial write: points beyond retention policy dropped=1",
            "failure writing points to database: partial write: field type conflict: input field \\\"value\\\" on measurement \\\"s\\\" is type integer, already exists as type float dropped=1",
            "engine: field type conflict: input field x",
            "write failed: field type conflict: x",
            "write failed for shard 12: field type conflict: x",
            "[shard 3] max key length exceeded: 70000 > 65535",
            "partial write: dropped 550 points outside retention policy of duration 8760h0m0s - oldest point x dropped=550 for database: a",
            "partial write: max-values-per-tag limit exceeded (100000/100000): measurement=\\\"s\\\" dropped=2",
            "partial write: some words of a later release dropped=2",
            "unable to parse 'x': missing fields",
            "partial write: unable to parse 'x': time outside range",
            "time outside range -9223372036854775806 - 9223372036854775806",
        ] {
            for status in [403, 404, 409, 500, 502, 504] {
                assert_eq!(
                    blame(status, &format!("{{\"error\":\"{words}\"}}\n")),
                    Some(Blame::Readings),
                    "{words}"
                );
                let v2 = format!("{{\"code\":\"internal error\",\"message\":\"{words}\"}}");
                assert_eq!(blame(status, &v2), Some(Blame::Readings), "{words}");
            }
            let plain = words.replace("\\\"", "\"");
            assert_eq!(blame(500, &plain), Some(Blame::Readings), "{words}");
            assert_eq!(
                blame(500, &format!("{{\"error\":\"{words} and it was cut")),
                Some(Blame::Readings),
                "{words}"
            );
            for status in [400, 401, 408, 413, 422, 425, 429, 503] {
                assert_eq!(
                    blame(status, &format!("{{\"error\":\"{words}\"}}")),
                    None,
                    "{status} says it, or asks for something else"
                );
            }
        }
    }

    #[test]
    fn temporary_errors_and_words_of_devices_blame_no_reading() {
        for words in [
            "timeout",
            "partial write",
            "partial write: timeout",
            "partial write: hinted handoff queue not empty",
            "write failed: hinted handoff queue not empty",
            "unexpected error writing points to database: timeout",
            "[shard 3] engine is closed",
            "[shard x] field type conflict",
            "engine: cache-max-memory-size exceeded: (1/1)",
            "no space left on device while writing 'field type conflict'",
            "cannot write `points beyond retention policy`",
            "timeout: m,t=partial\\\\ write: dropped=1",
            "",
        ] {
            for status in [500, 502, 503, 504, 404] {
                assert_eq!(blame(status, &format!("{{\"error\":\"{words}\"}}")), None, "{words}");
            }
        }
    }

    #[test]
    fn a_success_that_reports_an_error_blames_the_node() {
        for error in [r#"{"code":"internal error","message":"timeout"}"#, r#"{"message":"x","code":500}"#] {
            assert_eq!(blame(200, error), Some(Blame::Node), "{error}");
        }
        for fine in [
            "",
            "{}",
            r#"{"results":[{"statement_id":0}]}"#,
            r#"{"results":[]}"#,
            r#"{"code":"ok","message":"done"}"#,
            r#"{"code":0,"message":"done"}"#,
            r#"{"code":"invalid"}"#,
            r#"{"message":"done"}"#,
        ] {
            assert_eq!(blame(204, fine), None, "{fine}");
        }
    }

    proptest! {
        #[test]
        fn no_text_can_cause_a_panic(text in "(\\[shard |write shard |partial write: | dropped=|[0-9é\\]: ]){0,12}", status in 200..600_u16) {
            let _ = blame(status, &text);
            let _ = blame(status, &format!("{{\"error\":\"{text}"));
        }
    }
}
