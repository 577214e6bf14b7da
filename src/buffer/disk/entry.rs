//! What the records of the log hold: readings, what batches were made of, and what is settled.
//!
//! The first byte of a payload says which; all numbers are little-endian.
//!
//! | 1: readings of a request | |
//! |---|---|
//! | 8 | number of the request: one more than that of the last one |
//! | 8 | when they were accepted, nanoseconds since the Unix epoch |
//! | 4 | how many readings |
//! | 4 | length of the memo |
//! | … | memo, then the encoded readings ([`forebay_reading`]) |
//!
//! | 2: a batch | |
//! |---|---|
//! | 2 | length of the key |
//! | … | key, then spans of places up to the end |
//!
//! | 3: what is settled | |
//! |---|---|
//! | 4 | how many batches |
//! | 8 each | sequence numbers of the records of these batches |
//! | … | spans of places up to the end |
//!
//! | 4: readings that a transform made of others, which are settled with this record | |
//! |---|---|
//! | 8, 8, 4 | number, time and count, as with those of a request |
//! | 2 | length of the transform's name |
//! | 4 | length of the places of the others |
//! | … | name, places, then the encoded readings |
//!
//! Those places are spans in their order, in the variable-length integers of Protocol Buffers: from the end of the span
//! before to the start of this one, and from there to its end, each as the number of requests between and, if that is 0,
//! the number of readings between, or else the index.
//!
//! Any other span is the number of a request and an index in it (8, 4), and the same for the first place behind (8, 4).

use std::ops::RangeInclusive;

use bytes::Buf as _;
use prost::encoding::{decode_varint, encode_varint};
use thiserror::Error;

use crate::buffer::span::{Place, Span};

const READINGS: u8 = 1;
const BATCH: u8 = 2;
const SETTLED: u8 = 3;
const DERIVED: u8 = 4;

/// The kinds that this version knows.
pub const KINDS: RangeInclusive<u8> = READINGS..=DERIVED;

/// Bytes before the memo.
const ACCEPTED_HEAD_BYTES: usize = 25;
/// Bytes before the transform's name.
const DERIVED_HEAD_BYTES: usize = 27;

/// A payload that this version did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the record is none that this version of the buffer writes")]
pub struct UnknownEntry;

/// What one record of the log holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The readings of an accepted request.
    Accepted(Accepted<'a>),
    /// Readings that a transform made, and those that it made them of.
    Derived(Accepted<'a>, Vec<Span>),
    /// A batch that is about to be sent for the first time.
    Batch(Note),
    /// What is settled.
    Settled(Settlement),
}

/// The readings of an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The number of the request.
    pub number: u64,
    /// When they were accepted, nanoseconds since the Unix epoch.
    pub accepted_at: i64,
    /// How many readings.
    pub count: u32,
    /// The transform that made them; empty if they came from outside.
    pub made_by: &'a str,
    /// What the front wants to be kept with them; those that a transform made have none.
    pub memo: &'a [u8],
    /// The encoded readings.
    pub readings: &'a [u8],
}

/// Which readings go under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The `Idempotency-Key`.
    pub key: String,
    /// The readings, in their order.
    pub spans: Vec<Span>,
}

/// What is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// The sequence numbers of the records of settled batches.
    pub notes: Vec<u64>,
    /// Settled readings beside those.
    pub spans: Vec<Span>,
}

impl<'a> Accepted<'a> {
    /// For readings of a request, the bytes before the memo; the payload is these, the memo and the readings.
    ///
    /// # Panics
    ///
    /// If the memo has 4 GiB and more.
    pub fn head(&self) -> [u8; ACCEPTED_HEAD_BYTES] {
        let mut head = [READINGS; ACCEPTED_HEAD_BYTES];
        head[1..9].copy_from_slice(&self.number.to_le_bytes());
        head[9..17].copy_from_slice(&self.accepted_at.to_le_bytes());
        head[17..21].copy_from_slice(&self.count.to_le_bytes());
        let memo_bytes = u32::try_from(self.memo.len()).expect("a memo is small");
        head[21..25].copy_from_slice(&memo_bytes.to_le_bytes());
        head
    }

    /// For readings that a transform made, the bytes before them.
    ///
    /// # Panics
    ///
    /// If the transform's name has 64 KiB and more, or the places take 4 GiB.
    pub fn derived_head(&self, merged: &[Span]) -> Vec<u8> {
        let mut places = Vec::new();
        put_places(&mut places, merged);
        let mut head = Vec::with_capacity(DERIVED_HEAD_BYTES + self.made_by.len() + places.len());
        head.push(DERIVED);
        head.extend_from_slice(&self.number.to_le_bytes());
        head.extend_from_slice(&self.accepted_at.to_le_bytes());
        head.extend_from_slice(&self.count.to_le_bytes());
        let name_bytes = u16::try_from(self.made_by.len()).expect("a name is short");
        head.extend_from_slice(&name_bytes.to_le_bytes());
        let places_bytes = u32::try_from(places.len()).expect("few windows are closed at once");
        head.extend_from_slice(&places_bytes.to_le_bytes());
        head.extend_from_slice(self.made_by.as_bytes());
        head.extend_from_slice(&places);
        head
    }

    /// Bytes of the log that a record with so many bytes of memo and readings takes.
    pub fn record_bytes(memo_bytes: usize, readings_bytes: usize) -> u64 {
        forebay_wal::record_bytes(ACCEPTED_HEAD_BYTES + memo_bytes + readings_bytes)
    }

    fn read(mut rest: &'a [u8]) -> Option<Accepted<'a>> {
        let number = rest.try_get_u64_le().ok()?;
        let accepted_at = rest.try_get_i64_le().ok()?;
        let count = rest.try_get_u32_le().ok()?;
        let memo_bytes = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        let (memo, readings) = rest.split_at_checked(memo_bytes)?;
        let accepted = Accepted { number, accepted_at, count, made_by: "", memo, readings };
        accepted.is_sound().then_some(accepted)
    }

    fn read_derived(mut rest: &'a [u8]) -> Option<(Accepted<'a>, Vec<Span>)> {
        let number = rest.try_get_u64_le().ok()?;
        let accepted_at = rest.try_get_i64_le().ok()?;
        let count = rest.try_get_u32_le().ok()?;
        let name_bytes = usize::from(rest.try_get_u16_le().ok()?);
        let places_bytes = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
        let (name, rest) = rest.split_at_checked(name_bytes)?;
        let (places, readings) = rest.split_at_checked(places_bytes)?;
        let made_by = std::str::from_utf8(name).ok()?;
        let accepted = Accepted { number, accepted_at, count, made_by, memo: &[], readings };
        let merged = take_places(places)?;
        (accepted.is_sound() && !made_by.is_empty()).then_some((accepted, merged))
    }

    fn is_sound(&self) -> bool {
        self.number < u64::MAX && self.count > 0
    }
}

impl Note {
    /// The payload.
    ///
    /// # Panics
    ///
    /// If the key has 64 KiB and more.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![BATCH];
        let length = u16::try_from(self.key.len()).expect("a key is short");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        put_spans(&mut bytes, &self.spans);
        bytes
    }

    fn read(rest: &[u8]) -> Option<Note> {
        let (length, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let key = std::str::from_utf8(key).ok()?;
        // It becomes the value of a header.
        let is_visible = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        let spans = take_spans(rest)?;
        (is_visible && !spans.is_empty()).then(|| Note { key: key.to_owned(), spans })
    }
}

impl Settlement {
    /// The payload.
    ///
    /// # Panics
    ///
    /// If there are 2^32 batches and more.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![SETTLED];
        let count = u32::try_from(self.notes.len()).expect("few batches are settled at once");
        bytes.extend_from_slice(&count.to_le_bytes());
        self.notes.iter().for_each(|note| bytes.extend_from_slice(&note.to_le_bytes()));
        put_spans(&mut bytes, &self.spans);
        bytes
    }

    fn read(mut rest: &[u8]) -> Option<Settlement> {
        let count = rest.try_get_u32_le().ok()?;
        let notes = (0..count).map(|_| rest.try_get_u64_le().ok()).collect::<Option<_>>()?;
        Some(Settlement { notes, spans: take_spans(rest)? })
    }
}

impl<'a> Entry<'a> {
    /// What a payload holds.
    ///
    /// # Errors
    ///
    /// [`UnknownEntry`] for what no payload looks like.
    pub fn read(payload: &'a [u8]) -> Result<Entry<'a>, UnknownEntry> {
        let (kind, rest) = payload.split_first().ok_or(UnknownEntry)?;
        let entry = match *kind {
            READINGS => Accepted::read(rest).map(Entry::Accepted),
            BATCH => Note::read(rest).map(Entry::Batch),
            SETTLED => Settlement::read(rest).map(Entry::Settled),
            DERIVED => {
                Accepted::read_derived(rest).map(|(accepted, merged)| Entry::Derived(accepted, merged))
            }
            _ => None,
        };
        entry.ok_or(UnknownEntry)
    }

    /// The kind of a payload, if it is none that this version knows: a later one has written it.
    pub fn foreign_kind(payload: &[u8]) -> Option<u8> {
        payload.first().copied().filter(|kind| !KINDS.contains(kind))
    }

    /// The readings in a payload, wherever they come from; `None` if it holds none.
    pub fn readings(payload: &'a [u8]) -> Option<Accepted<'a>> {
        match Entry::read(payload).ok()? {
            Entry::Accepted(accepted) | Entry::Derived(accepted, _) => Some(accepted),
            Entry::Batch(_) | Entry::Settled(_) => None,
        }
    }
}

/// Appends spans.
pub fn put_spans(bytes: &mut Vec<u8>, spans: &[Span]) {
    for Span { from, to } in spans {
        for place in [from, to] {
            bytes.extend_from_slice(&place.seq.to_le_bytes());
            bytes.extend_from_slice(&place.index.to_le_bytes());
        }
    }
}

/// Reads spans up to the end; `None` if there is something else.
pub fn take_spans(mut rest: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    while !rest.is_empty() {
        let mut place =
            || Some(Place { seq: rest.try_get_u64_le().ok()?, index: rest.try_get_u32_le().ok()? });
        let span = Span { from: place()?, to: place()? };
        if span.is_empty() {
            return None;
        }
        spans.push(span);
    }
    Some(spans)
}

/// Appends spans that are in their order and do not overlap, as short as may be.
fn put_places(bytes: &mut Vec<u8>, spans: &[Span]) {
    let mut at = Place::start_of(0);
    for Span { from, to } in spans {
        for next in [*from, *to] {
            let requests = next.seq - at.seq;
            encode_varint(requests, bytes);
            let index = if requests == 0 { next.index - at.index } else { next.index };
            encode_varint(u64::from(index), bytes);
            at = next;
        }
    }
}

/// Reads what [`put_places`] wrote, up to the end; `None` if there is something else.
fn take_places(mut rest: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let mut at = Place::start_of(0);
    while !rest.is_empty() {
        let mut next = || {
            let requests = decode_varint(&mut rest).ok()?;
            let index = u32::try_from(decode_varint(&mut rest).ok()?).ok()?;
            at = match requests {
                0 => Place { seq: at.seq, index: at.index.checked_add(index)? },
                requests => Place { seq: at.seq.checked_add(requests)?, index },
            };
            Some(at)
        };
        let span = Span { from: next()?, to: next()? };
        if span.is_empty() {
            return None;
        }
        spans.push(span);
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from: Place { seq: from, index: 3 }, to: Place::start_of(to) }
    }

    fn merged() -> Vec<Span> {
        let within = |seq, from, to| Span { from: Place { seq, index: from }, to: Place { seq, index: to } };
        vec![within(3, 0, 1), within(3, 5, 9), Span::of_record(4), span(9, 400), within(400, 7, 8)]
    }

    fn samples() -> Vec<Vec<u8>> {
        let accepted = Accepted {
            number: 7,
            accepted_at: -5,
            count: 2,
            made_by: "",
            memo: b"memo",
            readings: b"readings",
        };
        let derived = Accepted { made_by: "mean", memo: b"", ..accepted };
        let note = Note { key: "abc-1".to_owned(), spans: vec![span(1, 4), span(9, 12)] };
        let settlement = Settlement { notes: vec![5, 6], spans: vec![span(2, 3)] };
        vec![
            [&accepted.head()[..], accepted.memo, accepted.readings].concat(),
            note.encode(),
            settlement.encode(),
            Settlement::default().encode(),
            [&derived.derived_head(&merged())[..], derived.readings].concat(),
        ]
    }

    #[test]
    fn entries_read_back_as_they_were_written() {
        let payloads = samples();
        let entries: Vec<_> =
            payloads.iter().map(|payload| Entry::read(payload).expect("an entry")).collect();
        let [Entry::Accepted(accepted), Entry::Batch(note), Entry::Settled(settlement), _, derived] =
            &entries[..]
        else {
            panic!("{entries:?}")
        };
        assert_eq!((accepted.number, accepted.accepted_at, accepted.count), (7, -5, 2));
        assert_eq!((accepted.memo, accepted.readings), (&b"memo"[..], &b"readings"[..]));
        assert_eq!((note.key.as_str(), note.spans.len()), ("abc-1", 2));
        assert_eq!(settlement.spans, [span(2, 3)]);
        let Entry::Derived(derived, of) = derived else { panic!("{derived:?}") };
        assert_eq!((derived.number, derived.accepted_at, derived.count), (7, -5, 2));
        assert_eq!((derived.made_by, derived.readings), ("mean", &b"readings"[..]));
        assert_eq!(*of, merged());
        let bytes = Accepted::record_bytes(4, 8);
        assert_eq!(bytes, forebay_wal::record_bytes(payloads[0].len()));
    }

    #[test]
    fn no_payload_makes_it_panic() {
        for payload in samples() {
            for length in 0..payload.len() {
                let _ = Entry::read(&payload[..length]);
                for byte in [0, 1, 127, 255] {
                    let mut payload = payload.clone();
                    payload[length] = byte;
                    let _ = Entry::read(&payload);
                }
            }
        }
        for payload in [&b""[..], b"\x00", b"\x09abc", b"\x02\x00\x00", b"\x02\x01\x00\""] {
            assert_eq!(Entry::read(payload), Err(UnknownEntry), "{payload:?}");
        }
    }
}
