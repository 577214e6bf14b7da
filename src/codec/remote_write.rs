//! Prometheus remote write 1.0 out: <https://prometheus.io/docs/specs/prw/remote_write_spec/>.
//!
//! A body is a `WriteRequest` of Protocol Buffers, compressed as one block of Snappy:
//!
//! ```text
//! WriteRequest  timeseries = 1, repeated
//! TimeSeries    labels = 1, repeated; samples = 2, repeated
//! Label         name = 1, value = 2, strings
//! Sample        value = 1, double; timestamp = 2, int64, milliseconds
//! ```
//!
//! A series is named after the sensor (label `__name__`), and has the label `device` and one for each tag. Names get
//! `_` for what Prometheus does not allow in them, and before a digit at their beginning. A tag that is called `device`
//! then, or begins with `__`, gets `exported_` before it; two tags of a reading that are called the same then cannot be
//! written. Empty tags are left out, which is what Prometheus means by them. The unit is not sent.
//!
//! Numbers are doubles, true is 1 and false is 0; texts cannot be written. Times are cut to the millisecond, of which a
//! series has one value: another one of the same batch cannot be written, because Prometheus would take the first, say
//! nothing and lose it (2.42).
//!
//! Readings are appended one by one, each with the labels of its series ([`Entry`]). When the batch is full they are put
//! in order, so that each series is there once with its samples in the order of their times.

use std::borrow::Cow;

use prost::encoding::{encode_varint, encoded_len_varint};
use snap::raw::{Encoder as Snappy, max_compress_len};
use xxhash_rust::xxh64::xxh64;

use super::device_tag::{DEVICE, EXPORTED, beside_device};
use super::diagnosis::{diagnose_status, is_unknown_path, said};
use super::encoder::{Blame, Encoder, NodeAnswer, Trial, Unwritable};
use crate::reading::{ReadingRef, Value};

/// Label that has the name of the series.
const NAME: &str = "__name__";
/// How names begin that Prometheus keeps for itself.
const RESERVED: &str = "__";
/// Room for the frames of a reading's name and device.
const FRAME_BYTES: usize = HEAD_BYTES + 32;

const NAMELESS: Unwritable = Unwritable::NoSuchText("tag: it has no name");
const TWICE: Unwritable = Unwritable::NoSuchText(
    "tag: another one is called the same when what Prometheus does not allow in names is `_`",
);

// The first byte of each field: its number, and how it is encoded.
const TIMESERIES: u8 = 1 << 3 | LENGTH_DELIMITED;
const LABELS: u8 = 1 << 3 | LENGTH_DELIMITED;
const SAMPLES: u8 = 2 << 3 | LENGTH_DELIMITED;
const LABEL_NAME: u8 = 1 << 3 | LENGTH_DELIMITED;
const LABEL_VALUE: u8 = 2 << 3 | LENGTH_DELIMITED;
const SAMPLE_VALUE: u8 = 1 << 3 | SIXTY_FOUR_BITS;
const SAMPLE_TIME: u8 = 2 << 3 | VARINT;
const VARINT: u8 = 0;
const SIXTY_FOUR_BITS: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

/// The format `remote-write`.
#[derive(Debug)]
pub struct RemoteWrite;

impl Encoder for RemoteWrite {
    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn content_encoding(&self) -> Option<&'static str> {
        Some("snappy")
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("x-prometheus-remote-write-version", "0.1.0")]
    }

    fn write(&self, _index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        let value = match reading.value() {
            // To the nearest double: beyond 2^53 digits are lost.
            #[allow(clippy::cast_precision_loss, reason = "all numbers are doubles there")]
            Value::Integer(number) => number as f64,
            Value::Double(number) => number,
            Value::Boolean(truth) => f64::from(u8::from(truth)),
            Value::Text(_) => return Err(Unwritable::NotNumeric),
        };
        let before = body.len();
        body.reserve(reading.encoded_len() + FRAME_BYTES);
        body.extend_from_slice(&[0; HEAD_BYTES]);
        write_labels(reading, body).inspect_err(|_| body.truncate(before))?;
        let millis = reading.time().nanos() / 1_000_000;
        let (head, labels) = body[before..].split_at_mut(HEAD_BYTES);
        head.copy_from_slice(&Entry { hash: xxh64(labels, 0), millis, value, labels, index: 0 }.head());
        Ok(())
    }

    fn arrange(&self, body: &mut Vec<u8>) -> Vec<(usize, Unwritable)> {
        let mut entries = Entry::all_of(body);
        entries.sort_unstable_by(|one, other| one.order(other));
        let mut request = Vec::with_capacity(body.len());
        let mut clashes = Vec::new();
        for series in entries.chunk_by(Entry::is_of_series_of) {
            write_series(series, &mut request, &mut clashes);
        }
        *body = request;
        clashes.sort_unstable();
        clashes.into_iter().map(|index| (index, Unwritable::SameTime)).collect()
    }

    fn finish(&self, _key: &str, body: &mut Vec<u8>) {
        let request = std::mem::take(body);
        body.resize(max_compress_len(request.len()), 0);
        let length = Snappy::new().compress(&request, body);
        body.truncate(length.expect("a batch is far smaller than Snappy's 4 GiB"));
        body.shrink_to_fit();
    }

    fn compressions(&self) -> &'static [&'static str] {
        &[]
    }

    fn blame(&self, answer: &NodeAnswer<'_>) -> Option<Blame> {
        match answer.status {
            // The specification has a sender try again after 429 and 5xx only; Thanos answers 409 to samples that it has.
            409 => Some(Blame::Readings),
            // Prometheus before 2.43; later ones answer 400.
            500 if answer.body.starts_with("too old sample") => Some(Blame::Readings),
            400 if is_unknown_path(answer) => Some(Blame::Setup),
            // It came otherwise than it was sent, or the node takes something else there.
            400 if is_not_understood(answer) => Some(Blame::Node),
            _ => None,
        }
    }

    fn trial(&self) -> Option<Trial> {
        let mut body = Vec::new();
        self.finish("", &mut body);
        Some(Trial { query: None, body })
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        let advice = match answer.status {
            200..=299 => return Ok("takes remote write".to_owned()),
            404 if answer.body.starts_with("remote write receiver needs to be enabled") => {
                "takes no remote write: start Prometheus with --web.enable-remote-write-receiver"
            }
            404 | 405 => WRONG_PATH,
            400 if is_unknown_path(answer) => WRONG_PATH,
            400 if is_not_understood(answer) => "takes something else than remote write at this path",
            415 => "does not know remote write 1.0",
            _ => return diagnose_status(answer),
        };
        Err(format!("{advice} ({}){}", answer.status, said(answer)))
    }
}

const WRONG_PATH: &str = "takes no remote write at this path: that is /api/v1/write (Prometheus with \
    --web.enable-remote-write-receiver, VictoriaMetrics), /api/v1/push (Mimir, Cortex) or /api/v1/receive (Thanos)";

/// What Prometheus says of a body that is no Snappy, or no `WriteRequest`.
fn is_not_understood(answer: &NodeAnswer<'_>) -> bool {
    ["snappy: ", "proto: ", "unexpected EOF"].iter().any(|beginning| answer.body.starts_with(beginning))
}

/// One reading as it is appended.
///
/// | bytes | what |
/// |---|---|
/// | 4 | length of the labels |
/// | 8 | hash of the labels |
/// | 8 | milliseconds |
/// | 8 | value |
/// | … | the labels, as they stand in a `TimeSeries` |
///
/// **Invariant**: that is never shorter than what becomes of it, so that the bound of a batch holds
/// (`a_request_is_never_longer_than_what_was_appended_and_keeps_the_rules`).
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    hash: u64,
    millis: i64,
    value: f64,
    labels: &'a [u8],
    /// How many were appended before it.
    index: usize,
}

const HEAD_BYTES: usize = 28;

impl<'a> Entry<'a> {
    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        let length = u32::try_from(self.labels.len()).expect("names and tags are bounded");
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..12].copy_from_slice(&self.hash.to_le_bytes());
        head[12..20].copy_from_slice(&self.millis.to_le_bytes());
        head[20..28].copy_from_slice(&self.value.to_le_bytes());
        head
    }

    /// All that were appended.
    fn all_of(mut appended: &'a [u8]) -> Vec<Entry<'a>> {
        let mut entries = Vec::with_capacity(appended.len() / (2 * HEAD_BYTES));
        while let Some((head, rest)) = appended.split_first_chunk::<HEAD_BYTES>() {
            let word = |at: usize| <[u8; 8]>::try_from(&head[at..at + 8]).expect("eight bytes");
            let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
            let (labels, rest) = rest.split_at(length as usize);
            entries.push(Entry {
                hash: u64::from_le_bytes(word(4)),
                millis: i64::from_le_bytes(word(12)),
                value: f64::from_le_bytes(word(20)),
                labels,
                index: entries.len(),
            });
            appended = rest;
        }
        entries
    }

    fn is_of_series_of(&self, other: &Entry<'_>) -> bool {
        self.hash == other.hash && self.labels == other.labels
    }

    /// By series, time, and the order in which they came.
    fn order(&self, other: &Entry<'_>) -> std::cmp::Ordering {
        let series = self.hash.cmp(&other.hash).then_with(|| self.labels.cmp(other.labels));
        series.then(self.millis.cmp(&other.millis)).then(self.index.cmp(&other.index))
    }

    /// Length of its `Sample`.
    fn sample_bytes(&self) -> usize {
        1 + 8 + 1 + encoded_len_varint(self.varint())
    }

    /// Its time, as Protocol Buffers encode an `int64`.
    fn varint(&self) -> u64 {
        self.millis.cast_unsigned()
    }
}

/// Appends one `TimeSeries`, and to `clashes` the places of the readings that it has no room for.
fn write_series(series: &[Entry<'_>], request: &mut Vec<u8>, clashes: &mut Vec<usize>) {
    let Some(first) = series.first() else { return };
    // The first of each millisecond.
    let samples = || series.chunk_by(|one, other| one.millis == other.millis).map(|same| &same[0]);
    let samples_bytes: usize = samples().map(|sample| 2 + sample.sample_bytes()).sum();
    request.push(TIMESERIES);
    encode_varint((first.labels.len() + samples_bytes) as u64, request);
    request.extend_from_slice(first.labels);
    for sample in samples() {
        request.push(SAMPLES);
        encode_varint(sample.sample_bytes() as u64, request);
        request.push(SAMPLE_VALUE);
        request.extend_from_slice(&sample.value.to_le_bytes());
        request.push(SAMPLE_TIME);
        encode_varint(sample.varint(), request);
    }
    for same in series.chunk_by(|one, other| one.millis == other.millis).filter(|same| same.len() > 1) {
        // The same value again is there already.
        let others = same.iter().filter(|entry| entry.value.to_bits() != same[0].value.to_bits());
        clashes.extend(others.map(|entry| entry.index));
    }
}

/// Appends the labels of a reading's series, in the order of their names.
fn write_labels(reading: ReadingRef<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let metric = valid_name(reading.sensor(), Colons::Allowed);
    let mut tags = reading.tags().filter(|(_, value)| !value.is_empty()).peekable();
    if tags.peek().is_none() {
        write_label(NAME, metric.as_bytes(), out);
        write_label(DEVICE, reading.device_bytes(), out);
        return Ok(());
    }
    let mut sorted: Vec<(Cow<'_, str>, &[u8])> =
        vec![(NAME.into(), metric.as_bytes()), (DEVICE.into(), reading.device_bytes())];
    for (name, value) in tags {
        sorted.push((label_name(name)?, value.as_bytes()));
    }
    sorted.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(TWICE);
    }
    for (name, value) in sorted {
        write_label(&name, value, out);
    }
    Ok(())
}

fn write_label(name: &str, value: &[u8], out: &mut Vec<u8>) {
    let field_bytes = |text: &[u8]| 1 + encoded_len_varint(text.len() as u64) + text.len();
    out.push(LABELS);
    encode_varint((field_bytes(name.as_bytes()) + field_bytes(value)) as u64, out);
    for (field, text) in [(LABEL_NAME, name.as_bytes()), (LABEL_VALUE, value)] {
        out.push(field);
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    }
}

/// What a tag is called.
fn label_name(tag: &str) -> Result<Cow<'_, str>, Unwritable> {
    if tag.is_empty() {
        return Err(NAMELESS);
    }
    let name = valid_name(tag, Colons::Replaced);
    match name.starts_with(RESERVED) {
        true => Ok(format!("{EXPORTED}{name}").into()),
        false => Ok(beside_device(name)),
    }
}

/// Whether a name may have colons in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colons {
    /// In names of metrics.
    Allowed,
    /// In names of labels they become `_`.
    Replaced,
}

/// Puts `_` in the place of each character that Prometheus does not allow in names, and before a digit at the beginning.
fn valid_name(name: &str, colons: Colons) -> Cow<'_, str> {
    let is_valid = |byte: u8| {
        byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b':' && colons == Colons::Allowed)
    };
    let begins_with_digit = name.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if name.bytes().all(is_valid) && !begins_with_digit {
        return name.into();
    }
    let valid = |character: char| match u8::try_from(character) {
        Ok(byte) if is_valid(byte) => character,
        _ => '_',
    };
    begins_with_digit.then_some('_').into_iter().chain(name.chars().map(valid)).collect::<String>().into()
}

#[cfg(test)]
mod tests;
