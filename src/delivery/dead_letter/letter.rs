//! Writes and reads a dead letter as a line of JSON.
//!
//! ```json
//! {"reading":{…},"reason":"refused","status":400,"node":"…","body":"…","at":"2026-02-01T12:00:00Z","batch":"…","place":7}
//! ```
//!
//! The reading is canonical JSON, `at` is RFC 3339 in UTC. Unknown members are ignored, so that later versions may add some.

use forebay_reading::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{BODY_BYTES_MAX, DeadLetter, LetterOrigin};

/// A letter that was read from a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The whole line, without its end.
    pub line: Vec<u8>,
    /// The reading, as JSON.
    pub reading: String,
    /// The reading's device.
    pub device: String,
    /// The reading's sensor.
    pub sensor: String,
    /// The reason of the refusal.
    pub reason: String,
    /// The status of the node's answer.
    pub status: u16,
    /// The name of the node.
    pub node: String,
    /// The start of the node's answer.
    pub body: String,
    /// The time of the refusal.
    pub at: Timestamp,
    /// The reading's batch and place; `None` in lines of earlier versions.
    pub origin: Option<LetterOrigin>,
}

/// Appends a letter as a line, with its end.
pub fn write(letter: &DeadLetter, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"reading\":");
    out.extend_from_slice(&letter.reading);
    write_member("reason", letter.reason, out);
    write_member("status", &letter.status, out);
    write_member("node", &letter.node, out);
    write_member("body", prefix(&letter.body), out);
    write_member("at", &letter.at.to_string(), out);
    if let Some(LetterOrigin { batch, place }) = &letter.origin {
        write_member("batch", batch, out);
        write_member("place", place, out);
    }
    out.extend_from_slice(b"}\n");
}

fn write_member(name: &str, value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(out, value).expect("texts and numbers are JSON, and memory takes them");
}

/// The part of an answer that a letter has.
fn prefix(body: &str) -> &str {
    &body[..body.floor_char_boundary(BODY_BYTES_MAX)]
}

/// Reads a line, without its end.
///
/// # Errors
///
/// A description for people of why the line is not a dead letter.
pub fn read(line: &[u8]) -> Result<Letter, String> {
    let members: LetterMembers = serde_json::from_slice(line).map_err(|error| {
        // There is only one line.
        format!("no dead letter at column {}: {}", error.column(), without_place(&error.to_string()))
    })?;
    let named: DeviceAndSensor = serde_json::from_str(members.reading.get())
        .map_err(|error| format!("no reading in `reading`: {}", without_place(&error.to_string())))?;
    Ok(Letter {
        line: line.to_owned(),
        reading: members.reading.get().to_owned(),
        device: named.device,
        sensor: named.sensor,
        reason: members.reason,
        status: members.status,
        node: members.node,
        body: members.body,
        at: Timestamp::parse(&members.at).map_err(|error| format!("`at`: {error}"))?,
        origin: members.batch.zip(members.place).map(|(batch, place)| LetterOrigin { batch, place }),
    })
}

/// An error of the parser without its position, which is relative to the line.
fn without_place(error: &str) -> &str {
    error.rsplit_once(" at line ").map_or(error, |(what, _)| what)
}

#[derive(Deserialize)]
struct LetterMembers<'a> {
    #[serde(borrow)]
    reading: &'a RawValue,
    reason: String,
    status: u16,
    node: String,
    body: String,
    at: String,
    #[serde(default)]
    batch: Option<String>,
    #[serde(default)]
    place: Option<u64>,
}

#[derive(Deserialize)]
struct DeviceAndSensor {
    device: String,
    sensor: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            reading: br#"{"device":"a","sensor":"b\n","value":1.5,"time":"2007-02-01T00:00:00Z"}"#.to_vec(),
            reason: "refused",
            status: 422,
            node: "127.0.0.1:9000".to_owned(),
            body: "no \"b\"\n\u{1b}[31m".to_owned(),
            at: Timestamp::parse("2026-02-01T12:00:00.5Z").expect("an instant"),
            origin: Some(LetterOrigin { batch: "a-1".to_owned(), place: 7 }),
        }
    }

    #[test]
    fn a_line_has_the_format_of_the_contract() {
        let mut line = Vec::new();
        write(&letter(), &mut line);
        assert_eq!(
            String::from_utf8(line).expect("UTF-8"),
            concat!(
                r#"{"reading":{"device":"a","sensor":"b\n","value":1.5,"time":"2007-02-01T00:00:00Z"},"#,
                r#""reason":"refused","status":422,"node":"127.0.0.1:9000","#,
                r#""body":"no \"b\"\n\u001b[31m","at":"2026-02-01T12:00:00.500Z","batch":"a-1","place":7}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_written_letter_can_be_read_back() {
        let mut line = Vec::new();
        write(&letter(), &mut line);
        let read = read(line.strip_suffix(b"\n").expect("a line end")).expect("a letter");
        let DeadLetter { reading, reason, status, node, body, at, origin } = letter();
        assert_eq!((read.reading.as_bytes(), read.reason.as_str()), (&reading[..], reason));
        assert_eq!((read.status, read.node, read.body, read.at), (status, node, body, at));
        assert_eq!(read.origin, origin);
        assert_eq!((read.device.as_str(), read.sensor.as_str()), ("a", "b\n"));
    }

    #[test]
    fn an_answer_is_cut_at_one_kibibyte_between_characters() {
        for (body, kept) in [("ä".repeat(600), 1024), (format!("x{}", "ä".repeat(600)), 1023)] {
            let mut line = Vec::new();
            write(&DeadLetter { body: body.clone(), ..letter() }, &mut line);
            let read = read(line.strip_suffix(b"\n").expect("a line end")).expect("a letter");
            assert_eq!(read.body, body[..kept]);
        }
    }

    #[test]
    fn an_invalid_line_is_an_error_and_unknown_members_are_ignored() {
        let check = |line: &str, expected: &str| {
            let error = read(line.as_bytes()).expect_err("no letter");
            assert!(error.contains(expected), "{error}");
        };
        check("{\"reading\":{\"dev", "no dead letter at column 16");
        check("\0\0\0", "no dead letter");
        check("{}", "missing field `reading`");
        let rest = r#","reason":"r","status":400,"node":"n","body":"b""#;
        check(&format!(r#"{{"reading":5{rest},"at":"2026-02-01T12:00:00Z"}}"#), "no reading in `reading`");
        let reading = r#"{"device":"d","sensor":"s","value":1}"#;
        check(&format!(r#"{{"reading":{reading}{rest},"at":"yesterday"}}"#), "`at`: time must be");
        let later = format!(r#"{{"reading":{reading}{rest},"at":"2026-02-01T12:00:00Z","tries":3}}"#);
        let read = read(later.as_bytes()).expect("a letter");
        assert_eq!((&read.line[..], read.origin), (later.as_bytes(), None));
    }
}
