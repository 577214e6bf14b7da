//! Bulk requests of Elasticsearch and OpenSearch; each reading becomes a document.
//!
//! A reading is two lines: the action, `{"create":{"_index":"readings","_id":"KEY-PLACE"}}`, and the document, which is the
//! canonical reading. The identifier is made of the batch's key and the reading's place in the body: when a batch is sent
//! again, a document that exists already is a version conflict, and counts as stored.
//!
//! The key is known last. Each action line has room for it, which [`Encoder::finish`] fills from the right; the rest of the
//! room stays white space, which JSON allows between a name and its value.

use std::io::Write as _;
use std::ops::Range;

use forebay_reading::ReadingRef;
use sha2::{Digest as _, Sha256};

use crate::{ElasticsearchConfig, Encoder, Unwritable, write_reading};

/// Longest key that becomes part of identifiers as it is, in bytes: as long as those of batches can be.
const KEY_BYTES_MAX: usize = 32 + 1 + 20;
/// Room for the key and the quotation mark before it.
const ROOM_BYTES: usize = KEY_BYTES_MAX + 1;
/// Bytes of a key's digest that stand for it if it does not fit.
const DIGEST_BYTES: usize = 16;

/// The format `elasticsearch`.
#[derive(Debug)]
pub struct ElasticsearchEncoder {
    /// An action line up to the place of the reading, with room for the key.
    head: Vec<u8>,
    /// Where in the line the room is.
    room: Range<usize>,
}

impl ElasticsearchEncoder {
    /// Creates documents in the index that the settings name.
    pub fn new(config: &ElasticsearchConfig) -> ElasticsearchEncoder {
        let index = serde_json::Value::from(config.index.as_str());
        let mut head = format!("{{\"create\":{{\"_index\":{index},\"_id\":").into_bytes();
        let room = head.len()..head.len() + ROOM_BYTES;
        head.resize(room.end, b' ');
        head.push(b'-');
        ElasticsearchEncoder { head, room }
    }
}

impl Encoder for ElasticsearchEncoder {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn write(&self, index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        body.extend_from_slice(&self.head);
        body.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        body.extend_from_slice(b"\"}}\n");
        write_reading(reading, body);
        body.push(b'\n');
        Ok(())
    }

    fn finish(&self, key: &str, body: &mut Vec<u8>) {
        let room = room_with(key);
        let mut action = 0;
        while let Some(line) = body.get_mut(action..).filter(|rest| rest.len() > self.room.end) {
            line[self.room.clone()].copy_from_slice(&room);
            // The next action comes after the end of this line, and the end of the document's.
            let after = &line[self.room.end..];
            let Some(end) = memchr::memchr_iter(b'\n', after).nth(1) else { return };
            action += self.room.end + end + 1;
        }
    }
}

/// The content of the room for a key: a quotation mark, then the key, or its digest if it does not fit.
fn room_with(key: &str) -> [u8; ROOM_BYTES] {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut text = Vec::with_capacity(ROOM_BYTES);
    text.push(b'"');
    if key.len() <= KEY_BYTES_MAX && key.bytes().all(is_plain) {
        text.extend_from_slice(key.as_bytes());
    } else {
        for byte in &Sha256::digest(key)[..DIGEST_BYTES] {
            write!(text, "{byte:02x}").expect("writing to memory does not fail");
        }
    }
    let mut room = [b' '; ROOM_BYTES];
    room[ROOM_BYTES - text.len()..].copy_from_slice(&text);
    room
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::DECODERS;
    use crate::tests::rules;
    use forebay_reading::Readings;

    const KEY: &str = "0123456789abcdef0123456789abcdef-7";

    fn readings(count: usize) -> Readings {
        let line =
            |n| format!("{{\"device\":\"d\",\"sensor\":\"s\\\"\",\"value\":\"a\\nb{n}\",\"time\":{n}}}\n");
        let lines: String = (0..count).map(line).collect();
        DECODERS.find("ndjson").expect("a format").decode(lines.as_bytes(), &rules()).expect("good").readings
    }

    fn body(index: &str, key: &str, count: usize) -> String {
        let encoder = ElasticsearchEncoder::new(&ElasticsearchConfig { index: index.to_owned() });
        let mut body = Vec::new();
        for (index, reading) in readings(count).iter().enumerate() {
            encoder.write(index, reading, &mut body).expect("it holds every reading");
        }
        encoder.finish(key, &mut body);
        String::from_utf8(body).expect("UTF-8")
    }

    /// The identifiers of all actions; checks the rest of each action.
    fn ids(index: &str, body: &str) -> Vec<String> {
        let actions = body.lines().step_by(2).map(|line| serde_json::from_str::<Value>(line).expect(line));
        let id = |action: Value| {
            let id = action["create"]["_id"].as_str().expect("an identifier").to_owned();
            assert_eq!(action, json!({"create": {"_index": index, "_id": id}}));
            assert!(id.len() <= 512, "Elasticsearch takes no longer ones");
            id
        };
        actions.map(id).collect()
    }

    #[test]
    fn a_reading_is_an_action_with_its_identifier_and_a_canonical_document() {
        let body = body("readings", KEY, 2);
        let spaces = " ".repeat(KEY_BYTES_MAX - KEY.len());
        let expected = [0, 1].map(|n| {
            format!(
                "{{\"create\":{{\"_index\":\"readings\",\"_id\":{spaces}\"{KEY}-{n}\"}}}}\n\
                 {{\"device\":\"d\",\"sensor\":\"s\\\"\",\"value\":\"a\\nb{n}\",\"time\":\"1970-01-01T00:00:00{}Z\"}}\n",
                ["", ".001"][n]
            )
        });
        assert_eq!(body, expected.concat());
    }

    #[test]
    fn identifiers_differ_between_readings_and_between_keys_of_any_length() {
        let long = |last: &str| format!("{}{last}", "k".repeat(KEY_BYTES_MAX));
        let (longest, plain) = ("k".repeat(KEY_BYTES_MAX), "k".to_owned());
        let keys =
            [String::new(), plain, longest, long("1"), long("2"), long(&long("")), "a\"\n\\é".to_owned()];
        let all = keys.iter().flat_map(|key| ids("i", &body("i", key, 12)));
        assert_eq!(all.collect::<BTreeSet<_>>().len(), keys.len() * 12);
        for key in keys {
            assert_eq!(body("i", &key, 3), body("i", &key, 3), "the same key, the same identifiers");
        }
    }

    #[test]
    fn a_place_keeps_its_identifier_and_the_body_its_length() {
        let ids_of = |count| ids("böse\"", &body("böse\"", KEY, count));
        assert_eq!(ids_of(100)[..11], ids_of(11));
        assert_eq!(ids_of(11)[10], format!("{KEY}-10"));
        assert_eq!(ids_of(0).len(), 0);
        assert_eq!(body("i", "k", 9).len(), body("i", &"k".repeat(10_000), 9).len());
    }
}
