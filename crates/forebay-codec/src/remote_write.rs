//! Writes Prometheus remote write 1.0: <https://prometheus.io/docs/specs/prw/remote_write_spec/>.
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
//! A series is named after the sensor (label `__name__`), and has the label `device` and one for each tag. In names, `_`
//! replaces each character that Prometheus does not allow, and precedes a digit at the beginning. A tag that is then called
//! `device`, or begins with `__`, gets the prefix `exported_`; a reading with two tags of the same final name cannot be
//! written. Empty tags are left out: to Prometheus they are the same as no tag. The unit is not sent.
//!
//! Numbers are doubles, true is 1 and false is 0; texts cannot be written. Times are cut to the millisecond, and a series has
//! one value per millisecond: a second value in the same batch cannot be written, because Prometheus (2.42) would keep the
//! first and lose the second without an error.
//!
//! Readings are appended one by one, each with the labels of its series ([`SampleEntry`]). When the batch is full, the
//! entries are sorted: each series appears once, with its samples in the order of their times.

use std::borrow::Cow;

use forebay_reading::ReadingRef;
use hashbrown::hash_table::{Entry, HashTable};
use prost::encoding::{encode_varint, encoded_len_varint};
use snap::raw::{Encoder as Snappy, max_compress_len};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::device_tag::{DEVICE, EXPORTED, beside_device};
use crate::encoder::{Encoder, Unwritable};

/// Label with the name of the series.
const NAME: &str = "__name__";
/// Prefix of the names that Prometheus reserves for itself.
const RESERVED: &str = "__";
/// Room for the head of an entry and the frames of its first labels.
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
pub struct RemoteWriteEncoder {
    /// Seed of the label hashes: no sender can choose labels that collide. The body does not depend on it.
    seed: u64,
}

impl Default for RemoteWriteEncoder {
    /// Draws a seed.
    fn default() -> RemoteWriteEncoder {
        RemoteWriteEncoder { seed: fastrand::u64(..) }
    }
}

impl Encoder for RemoteWriteEncoder {
    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn content_encoding(&self) -> Option<&'static str> {
        Some("snappy")
    }

    fn write(&self, _index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        let Some(value) = reading.value_as_double() else { return Err(Unwritable::NotNumeric) };
        let before = body.len();
        body.reserve(reading.encoded_len() + FRAME_BYTES);
        body.extend_from_slice(&[0; HEAD_BYTES]);
        write_labels(reading, body).inspect_err(|_| body.truncate(before))?;
        let millis = reading.time().nanos() / 1_000_000;
        let (head, labels) = body[before..].split_at_mut(HEAD_BYTES);
        head.copy_from_slice(&SampleEntry { labels, millis, value, index: 0, series: 0 }.head());
        Ok(())
    }

    fn arrange(&self, body: &mut Vec<u8>) -> Vec<(usize, Unwritable)> {
        let mut entries = SampleEntry::all_of(body);
        number_series(&mut entries, self.seed);
        // The sort is stable: of several values of one millisecond, the first stays first.
        entries.sort_by_key(|entry| (entry.series, entry.millis));
        let mut request = Vec::with_capacity(body.len());
        let mut clashes = Vec::new();
        for series in entries.chunk_by(|one, other| one.series == other.series) {
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
}

/// One appended reading.
///
/// | bytes | what |
/// |---|---|
/// | 8 | length of the labels |
/// | 8 | milliseconds |
/// | 8 | value |
/// | … | the labels, encoded as in a `TimeSeries` |
///
/// **Invariant**: an entry is at least as long as its part of the request, so that the bound of a batch holds
/// (`a_request_keeps_the_rules_and_is_never_longer_than_the_appended_entries`).
#[derive(Clone, Copy, Debug)]
struct SampleEntry<'a> {
    labels: &'a [u8],
    millis: i64,
    value: f64,
    /// The number of entries before it in the batch.
    index: usize,
    /// The number of its series, in order of first appearance.
    series: usize,
}

const HEAD_BYTES: usize = 24;

impl<'a> SampleEntry<'a> {
    fn head(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&(self.labels.len() as u64).to_le_bytes());
        head[8..16].copy_from_slice(&self.millis.to_le_bytes());
        head[16..].copy_from_slice(&self.value.to_le_bytes());
        head
    }

    /// All appended entries.
    fn all_of(mut appended: &'a [u8]) -> Vec<SampleEntry<'a>> {
        let mut entries = Vec::with_capacity(appended.len() / (2 * HEAD_BYTES));
        while let Some((head, rest)) = appended.split_first_chunk::<HEAD_BYTES>() {
            let word = |at: usize| <[u8; 8]>::try_from(&head[at..at + 8]).expect("eight bytes");
            let length = usize::try_from(u64::from_le_bytes(word(0))).expect("what was a length before");
            let (labels, rest) = rest.split_at(length);
            let (millis, value) = (i64::from_le_bytes(word(8)), f64::from_le_bytes(word(16)));
            entries.push(SampleEntry { labels, millis, value, index: entries.len(), series: 0 });
            appended = rest;
        }
        entries
    }
}

/// Numbers the series in order of first appearance.
fn number_series(entries: &mut [SampleEntry<'_>], seed: u64) {
    let hash = |labels: &[u8]| xxh3_64_with_seed(labels, seed);
    // The first entry of each series.
    let mut firsts = HashTable::with_capacity(entries.len());
    for index in 0..entries.len() {
        let labels = entries[index].labels;
        let is_same = |first: &usize| entries[*first].labels == labels;
        let next = firsts.len();
        entries[index].series =
            match firsts.entry(hash(labels), is_same, |first| hash(entries[*first].labels)) {
                Entry::Occupied(first) => entries[*first.get()].series,
                Entry::Vacant(place) => {
                    place.insert(index);
                    next
                }
            };
    }
}

/// Appends one `TimeSeries`, and to `clashes` the places of the readings whose millisecond has another value.
fn write_series(series: &[SampleEntry<'_>], request: &mut Vec<u8>, clashes: &mut Vec<usize>) {
    let labels = series.first().map_or(&[][..], |first| first.labels);
    let same_time = |one: &SampleEntry<'_>, other: &SampleEntry<'_>| one.millis == other.millis;
    let times = || series.chunk_by(same_time);
    let samples_bytes: usize = times().map(|same| 2 + sample_bytes(&same[0])).sum();
    request.push(TIMESERIES);
    encode_varint((labels.len() + samples_bytes) as u64, request);
    request.extend_from_slice(labels);
    for same in times() {
        let (first, others) = same.split_first().expect("chunks have something in them");
        write_sample(first, request);
        // A repetition of the same value is not lost.
        let others = others.iter().filter(|other| other.value.to_bits() != first.value.to_bits());
        clashes.extend(others.map(|other| other.index));
    }
}

/// Length of a `Sample`.
fn sample_bytes(entry: &SampleEntry<'_>) -> usize {
    1 + 8 + 1 + encoded_len_varint(entry.millis.cast_unsigned())
}

fn write_sample(entry: &SampleEntry<'_>, request: &mut Vec<u8>) {
    let mut head = [SAMPLES, 0, SAMPLE_VALUE, 0, 0, 0, 0, 0, 0, 0, 0, SAMPLE_TIME];
    head[1] = u8::try_from(sample_bytes(entry)).expect("a few bytes");
    head[3..11].copy_from_slice(&entry.value.to_le_bytes());
    request.extend_from_slice(&head);
    encode_varint(entry.millis.cast_unsigned(), request);
}

/// Appends the labels of a reading's series, in the order of their names.
fn write_labels(reading: ReadingRef<'_>, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let metric = match is_valid_name(reading.sensor_bytes(), Colons::Allowed) {
        true => Cow::Borrowed(reading.sensor_bytes()),
        false => Cow::Owned(valid_name(reading.sensor(), Colons::Allowed).into_bytes()),
    };
    let mut tags = reading.tags().filter(|(_, value)| !value.is_empty()).peekable();
    if tags.peek().is_none() {
        write_label(NAME, &metric, out);
        write_label(DEVICE, reading.device_bytes(), out);
        return Ok(());
    }
    let mut sorted: Vec<(Cow<'_, str>, &[u8])> =
        vec![(NAME.into(), &metric), (DEVICE.into(), reading.device_bytes())];
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

#[inline]
fn write_label(name: &str, value: &[u8], out: &mut Vec<u8>) {
    let name = name.as_bytes();
    if name.len() + value.len() < 0x80 - 4 {
        // Almost all lengths are one byte.
        let [name_bytes, value_bytes] =
            [name, value].map(|text| u8::try_from(text.len()).expect("below 128"));
        out.extend_from_slice(&[LABELS, 4 + name_bytes + value_bytes, LABEL_NAME, name_bytes]);
        out.extend_from_slice(name);
        out.extend_from_slice(&[LABEL_VALUE, value_bytes]);
        out.extend_from_slice(value);
        return;
    }
    let field_bytes = |text: &[u8]| 1 + encoded_len_varint(text.len() as u64) + text.len();
    out.push(LABELS);
    encode_varint((field_bytes(name) + field_bytes(value)) as u64, out);
    for (field, text) in [(LABEL_NAME, name), (LABEL_VALUE, value)] {
        out.push(field);
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    }
}

/// The label name of a tag.
fn label_name(tag: &str) -> Result<Cow<'_, str>, Unwritable> {
    if tag.is_empty() {
        return Err(NAMELESS);
    }
    let name = match is_valid_name(tag.as_bytes(), Colons::Replaced) {
        true => tag.into(),
        false => Cow::Owned(valid_name(tag, Colons::Replaced)),
    };
    match name.starts_with(RESERVED) {
        true => Ok(format!("{EXPORTED}{name}").into()),
        false => Ok(beside_device(name)),
    }
}

/// How a name treats colons.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colons {
    /// They stay, in names of metrics.
    Allowed,
    /// They become `_`, in names of labels.
    Replaced,
}

/// Whether a byte is allowed in names.
const fn is_valid(byte: u8, colons: Colons) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b':' && matches!(colons, Colons::Allowed))
}

/// [`is_valid`] for every byte, as a table.
const fn validity(colons: Colons) -> [bool; 256] {
    let mut valid = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        valid[byte as usize] = is_valid(byte, colons);
        byte += 1;
    }
    valid
}

fn begins_with_digit(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_digit)
}

fn is_valid_name(name: &[u8], colons: Colons) -> bool {
    const WITH_COLONS: [bool; 256] = validity(Colons::Allowed);
    const WITHOUT: [bool; 256] = validity(Colons::Replaced);
    let valid = if colons == Colons::Allowed { &WITH_COLONS } else { &WITHOUT };
    // No early return: without a branch per byte the loop is faster.
    name.iter().fold(!begins_with_digit(name), |is_so, byte| is_so & valid[usize::from(*byte)])
}

/// Replaces each character that Prometheus does not allow in names by `_`, and puts `_` before a digit at the beginning.
fn valid_name(name: &str, colons: Colons) -> String {
    let valid = |character: char| match u8::try_from(character) {
        Ok(byte) if is_valid(byte, colons) => character,
        _ => '_',
    };
    let before = begins_with_digit(name.as_bytes()).then_some('_');
    before.into_iter().chain(name.chars().map(valid)).collect()
}

#[cfg(test)]
mod tests;
