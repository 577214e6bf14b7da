//! The body of `POST /v1/batches`: from received bytes to readings, with a limit at every step.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use forebay_codec::{DECODERS, Decoder, DeviceTags, Rules, UnknownFields};
use forebay_reading::Readings;
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::{Precision, Timestamp};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::refusal::NodeRefusal;
use crate::door::{NO_LENGTH, has_length};
use crate::zstd_contexts;

/// Longest body, as sent and after decompression.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of its encoded readings: each member of `values` becomes a reading with its own device and tags.
const ENCODED_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest `Idempotency-Key`.
const KEY_BYTES_MAX: usize = 256;
/// A zstd frame may ask for a window of at most 2^26 bytes, which is as long as a body.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

const ENCODINGS: &str = "gzip, zstd, identity";
/// The format of batches, by its name in the settings.
pub const FORMAT: &str = "ndjson";
const MEDIA_TYPES: &str = "application/x-ndjson, application/jsonl";

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchEncoding {
    Identity,
    Gzip,
    Zstd,
}

/// The header fields of a batch.
#[derive(Debug)]
pub(super) struct BatchHead {
    pub(super) key: Option<String>,
    pub(super) encoding: BatchEncoding,
}

impl BatchHead {
    /// Reads the header fields, before the body is read.
    pub(super) fn read(headers: &HeaderMap) -> Result<BatchHead, NodeRefusal> {
        check_length(headers)?;
        check_media_type(headers)?;
        let encoding = encoding(headers)?;
        Ok(BatchHead { key: key(headers)?, encoding })
    }
}

/// HTTP takes a body without a length for an empty one, whose readings would be lost with a 2xx.
fn check_length(headers: &HeaderMap) -> Result<(), NodeRefusal> {
    if has_length(headers) {
        return Ok(());
    }
    let refusal = NodeRefusal::new(StatusCode::LENGTH_REQUIRED, NO_LENGTH);
    Err(refusal.with_header("connection", "close"))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), NodeRefusal> {
    let Some(given) = value(headers, &header::CONTENT_TYPE) else { return Ok(()) };
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if ndjson().media_types().contains(&media_type) {
        return Ok(());
    }
    let detail = format!("the media type `{media_type}` is not known here; known: {MEDIA_TYPES}");
    Err(NodeRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with_header("accept", MEDIA_TYPES))
}

fn encoding(headers: &HeaderMap) -> Result<BatchEncoding, NodeRefusal> {
    let Some(given) = value(headers, &header::CONTENT_ENCODING) else { return Ok(BatchEncoding::Identity) };
    match given.trim() {
        "identity" | "" => Ok(BatchEncoding::Identity),
        "gzip" | "x-gzip" => Ok(BatchEncoding::Gzip),
        "zstd" => Ok(BatchEncoding::Zstd),
        other => {
            let detail = format!("the content encoding `{other}` is not known here; known: {ENCODINGS}");
            Err(NodeRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
                .with_header("accept-encoding", ENCODINGS))
        }
    }
}

/// The value of a header in lower case; several lines are one list (RFC 9110, section 5.3).
fn value(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines.map(|line| line.to_ascii_lowercase()).reduce(|all, line| format!("{all}, {line}"))
}

/// Reads the `Idempotency-Key`; `"a"` as the IETF draft writes it and a bare `a` are the same key.
fn key(headers: &HeaderMap) -> Result<Option<String>, NodeRefusal> {
    let Some(given) = headers.get(HeaderName::from_static("idempotency-key")) else { return Ok(None) };
    let key = given.to_str().ok().and_then(|text| unquote(text.trim()));
    match key {
        Some(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key)),
        _ => Err(NodeRefusal::new(
            StatusCode::BAD_REQUEST,
            format!(
                "`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible ASCII characters, quoted or bare"
            ),
        )),
    }
}

/// The text of an sf-string (RFC 8941, section 3.3.3), or the text itself if it is not quoted.
fn unquote(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let mut key = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => key.push(character),
        }
    }
}

/// Receives the body, within the limits of bytes and time.
pub(super) async fn receive(body: Body) -> Result<Bytes, NodeRefusal> {
    // A client that announces too many bytes is refused before it sends them.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let received = timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let Ok(received) = received else {
        let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        return Err(NodeRefusal::new(StatusCode::REQUEST_TIMEOUT, detail));
    };
    match received {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            Err(NodeRefusal::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}")))
        }
    }
}

fn too_large() -> NodeRefusal {
    let detail = format!("a batch may have {BODY_BYTES_MAX} bytes, before and after decompression");
    NodeRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Decompresses and decodes a body, in which every reading must keep to the rules. It blocks for a while.
pub(super) fn decode(body: &Bytes, encoding: BatchEncoding) -> Result<Readings, NodeRefusal> {
    let decompressed;
    let plain = match encoding {
        BatchEncoding::Identity => body,
        BatchEncoding::Gzip | BatchEncoding::Zstd => {
            decompressed = decompress(body, encoding)?;
            decompressed.as_slice()
        }
    };
    let decoded = ndjson().decode(plain, &rules());
    // A batch is stored whole: one broken line makes the batch invalid.
    let decoded = decoded.and_then(|mut decoded| match decoded.malformed.take() {
        Some(error) => Err(error),
        None => Ok(decoded),
    });
    let decoded = decoded.map_err(|error| NodeRefusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if decoded.overflowed {
        return Err(too_large());
    }
    if decoded.rejections.count() > 0 {
        return Err(NodeRefusal::rejected(decoded.rejections));
    }
    Ok(decoded.readings)
}

fn decompress(body: &[u8], encoding: BatchEncoding) -> Result<Vec<u8>, NodeRefusal> {
    match encoding {
        BatchEncoding::Identity => read(body, body.len()),
        BatchEncoding::Gzip => read(flate2::read::MultiGzDecoder::new(body), body.len()),
        BatchEncoding::Zstd => {
            zstd_contexts::decompress(body, ZSTD_WINDOW_LOG_MAX, |decoder| read(decoder, body.len()))
                .map_err(broken)?
        }
    }
}

/// Reads the decompressed body, which came in `compressed_bytes`.
fn read(mut reader: impl Read, compressed_bytes: usize) -> Result<Vec<u8>, NodeRefusal> {
    // Readings compress about tenfold; the buffer grows if they compressed better.
    let mut plain = Vec::with_capacity(BODY_BYTES_MAX.min(8 * compressed_bytes));
    let limit = BODY_BYTES_MAX as u64 + 1;
    reader.by_ref().take(limit).read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > BODY_BYTES_MAX { Err(too_large()) } else { Ok(plain) }
}

fn broken(error: io::Error) -> NodeRefusal {
    NodeRefusal::new(StatusCode::BAD_REQUEST, format!("the body cannot be decompressed: {error}"))
}

fn ndjson() -> &'static dyn Decoder {
    *DECODERS.find(FORMAT).expect("NDJSON is in the table of formats")
}

/// Only the rules that always hold: a node accepts every reading that its gateway has accepted.
fn rules() -> Rules {
    Rules {
        unknown_fields: UnknownFields::Reject,
        precision: Precision::Millis,
        received_at: Timestamp::from_system(wall_time()),
        earliest: Timestamp::MIN,
        latest: Timestamp::MAX,
        encoded_bytes_max: ENCODED_BYTES_MAX,
        device_tags: DeviceTags::default(),
        grant: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_key(given: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", given.parse().expect("a header value"));
        assert_eq!(key(&headers).ok().flatten().as_deref(), expected, "{given}");
    }

    #[test]
    fn a_key_is_the_same_quoted_and_bare() {
        check_key("abc-1", Some("abc-1"));
        check_key("\"abc-1\"", Some("abc-1"));
        check_key(" \"a b\" ", Some("a b"));
        check_key(r#""a\"b\\""#, Some(r#"a"b\"#));
        check_key(&"k".repeat(KEY_BYTES_MAX), Some(&"k".repeat(KEY_BYTES_MAX)));
    }

    #[test]
    fn an_invalid_key_is_refused() {
        for given in ["", "\"\"", "\"abc", "\"abc\"d", r#""a\b""#, r#""a\"#, &"k".repeat(KEY_BYTES_MAX + 1)] {
            check_key(given, None);
        }
    }

    #[test]
    fn the_message_names_the_media_types_of_the_format() {
        assert_eq!(ndjson().media_types().join(", "), MEDIA_TYPES);
    }
}
