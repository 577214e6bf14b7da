//! Findings about a node from its answer to a trial, as far as they are the same for all formats.

use std::borrow::Cow;

use crate::NodeAnswer;
use crate::report::{members, text};

/// Most shown characters of an answer.
const SHOWN_CHARS_MAX: usize = 300;

/// The finding about a node from the status of its answer, for people.
///
/// # Errors
///
/// The problem, and what to do about it.
pub fn diagnose_status(answer: &NodeAnswer<'_>) -> Result<String, String> {
    let status = answer.status;
    let advice = match status {
        200..=299 => return Ok(format!("answers {status}")),
        300..=399 => {
            let place = answer.headers.get("location").and_then(|place| place.to_str().ok());
            let place =
                place.map_or_else(|| "elsewhere".to_owned(), |place| format!("to {}", excerpt(place)));
            return Err(format!(
                "sends {place} ({status}): set the address in cluster.nodes that takes batches"
            ));
        }
        401 => "refuses the credentials, or wants some; see cluster.headers",
        403 => "refuses these credentials; see cluster.headers",
        404 => "knows no such path; is the address in cluster.nodes complete?",
        405 => "takes no batches at this path; is the address in cluster.nodes complete?",
        415 => "does not take this format or compression; see cluster.format and cluster.compression",
        408 | 425 | 429 | 503 => "is busy or not ready; try again later",
        500..=599 => "fails; its log says more",
        _ => "does not take batches",
    };
    Err(format!("{advice} ({status}){}", said(answer)))
}

/// The finding about a node that may be any program, from its answer to a batch without readings.
///
/// # Errors
///
/// The problem, and what to do about it.
pub(super) fn diagnose_empty_batch(answer: &NodeAnswer<'_>) -> Result<String, String> {
    let status = answer.status;
    match status {
        200..=299 => Ok(format!("takes connections, and a batch without readings ({status})")),
        // The node examines the body, so the path is right. It need not accept a batch without readings.
        400 | 411 | 422 if !is_unknown_path(answer) => {
            Ok(format!("takes connections, and refuses a batch without readings, as it may ({status})"))
        }
        _ => diagnose_status(answer),
    }
}

/// Whether VictoriaMetrics does not know the path: it answers 400 instead of 404.
pub(super) fn is_unknown_path(answer: &NodeAnswer<'_>) -> bool {
    // The 400 of another store may repeat words of devices, but not at its beginning.
    let is_its_own = answer.body.starts_with("remoteAddr: ");
    answer.status == 400 && is_its_own && answer.body.contains("unsupported path requested")
}

/// The error that a node names: the member `error`, or else `message`, of a JSON object, which may have been cut off; or else
/// the whole body.
pub(super) fn error_text(body: &str) -> Cow<'_, str> {
    let member = |wanted: &str| {
        let found = members(body.as_bytes()).find(|(name, _)| *name == wanted.as_bytes());
        found.and_then(|(_, value)| text(value))
    };
    member("error").or_else(|| member("message")).unwrap_or_else(|| body.trim().into())
}

/// Whether the words of an answer with this status can blame the readings. The statuses 400 and 422 blame them anyway; the other
/// excluded statuses concern the whole request (credentials, size), or ask the gateway to wait.
pub(super) fn may_blame_readings(status: u16) -> bool {
    !matches!(status, 200..=400 | 401 | 408 | 413 | 422 | 425 | 429 | 503)
}

/// The words of a node, to be appended to other words; empty if the body is empty.
pub(super) fn said(answer: &NodeAnswer<'_>) -> String {
    let text = excerpt(answer.body);
    if text.is_empty() { text } else { format!("; it says: {text}") }
}

/// The beginning of a text from outside, on one line.
pub(super) fn excerpt(text: &str) -> String {
    let is_space = |character: char| character.is_whitespace() || character.is_control();
    let mut shown = String::new();
    let mut chars = 0;
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if chars > 0 {
            shown.push(' ');
            chars += 1;
        }
        for character in word.chars() {
            if chars >= SHOWN_CHARS_MAX {
                shown.push('…');
                return shown;
            }
            shown.push(character);
            chars += 1;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn each_status_has_words_that_say_what_to_do() {
        let check = |status: u16, body: &str, expected: Result<&str, &str>| {
            let place = http::HeaderValue::from_static("https://other/");
            let headers = HeaderMap::from_iter([(http::header::LOCATION, place)]);
            let words = diagnose_status(&NodeAnswer { status, headers: &headers, body });
            assert_eq!(words, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check(204, "", Ok("answers 204"));
        check(
            301,
            "moved",
            Err("sends to https://other/ (301): set the address in cluster.nodes that takes batches"),
        );
        check(
            401,
            " who\nare you? ",
            Err("refuses the credentials, or wants some; see cluster.headers (401); it says: who are you?"),
        );
        check(403, "", Err("refuses these credentials; see cluster.headers (403)"));
        check(404, "", Err("knows no such path; is the address in cluster.nodes complete? (404)"));
        check(405, "", Err("takes no batches at this path; is the address in cluster.nodes complete? (405)"));
        check(429, "", Err("is busy or not ready; try again later (429)"));
        check(500, "", Err("fails; its log says more (500)"));
        check(400, "no", Err("does not take batches (400); it says: no"));
    }

    #[test]
    fn a_node_that_examines_a_batch_without_readings_has_the_right_path() {
        let headers = HeaderMap::new();
        let check = |status: u16, expected: Result<&str, &str>| {
            let words = diagnose_empty_batch(&NodeAnswer { status, headers: &headers, body: "" });
            assert_eq!(words, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check(204, Ok("takes connections, and a batch without readings (204)"));
        for status in [400, 411, 422] {
            let words =
                format!("takes connections, and refuses a batch without readings, as it may ({status})");
            check(status, Ok(&words));
        }
        check(404, Err("knows no such path; is the address in cluster.nodes complete? (404)"));
        check(405, Err("takes no batches at this path; is the address in cluster.nodes complete? (405)"));
        check(
            415,
            Err("does not take this format or compression; see cluster.format and cluster.compression (415)"),
        );
        check(401, Err("refuses the credentials, or wants some; see cluster.headers (401)"));
        check(503, Err("is busy or not ready; try again later (503)"));
    }

    #[test]
    fn the_words_of_a_node_are_shown_as_one_line_of_bounded_length() {
        assert_eq!(excerpt("\u{1b}[2J a\r\n\r\nb\u{0}c\t"), "[2J a b c");
        for long in ["x".repeat(10_000), "é ".repeat(10_000)] {
            let shown = excerpt(&long);
            assert!(shown.ends_with('…') && shown.chars().count() == SHOWN_CHARS_MAX + 1, "{shown}");
        }
    }
}
