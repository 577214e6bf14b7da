//! What is known of the readings in the log: which are settled, which batches were noted, and what each segment
//! holds. The same records give the same state, when they are written and when they are read again.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Buf as _;
use forebay_wal::SegmentNumber;

use super::entry::{Note, Settlement, put_spans, take_spans};
use crate::buffer::Amount;
use crate::buffer::span::{Span, SpanSet};

/// Stands at the end of a state, so that version 0.1, which ends its states before it, does not start on a directory
/// whose keys it could not compare: it would take again what a client sends again.
const FORMAT: u8 = 2;

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The numbers of its requests.
    pub numbers: Range<u64>,
    /// All readings in it, settled or not, and the bytes of their records.
    pub amount: Amount,
}

/// The state of a log of readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The number of the next request.
    pub next_number: u64,
    /// The readings whose fate is decided, also those of requests that are gone.
    pub settled: SpanSet,
    /// The batches that may have been sent and are not settled, by the sequence number of their record.
    pub notes: BTreeMap<u64, Note>,
    /// What each segment holds; one without requests is not here.
    pub contents: BTreeMap<SegmentNumber, Content>,
}

impl State {
    /// Counts a request in a segment. Numbers that are left out are those of requests that nobody has any more.
    ///
    /// Returns how many are missing since the last one.
    pub fn accept(&mut self, segment: SegmentNumber, number: u64, amount: Amount) -> u64 {
        let missing = self.next_number..number;
        if !missing.is_empty() {
            self.settled.insert(Span::of_records(missing.clone()));
        }
        self.next_number = self.next_number.max(number.saturating_add(1));
        let content = self
            .contents
            .entry(segment)
            .or_insert_with(|| Content { numbers: number..number, amount: Amount::default() });
        content.numbers.end = content.numbers.end.max(number.saturating_add(1));
        content.amount += amount;
        missing.end.saturating_sub(missing.start)
    }

    /// Remembers a batch. One that has readings of it is none any more: its key will not be used again.
    pub fn note(&mut self, seq: u64, note: Note) {
        self.notes.retain(|_, other| !overlap(&note.spans, &other.spans));
        self.notes.insert(seq, note);
    }

    /// Counts readings as settled. A batch that loses some of its readings otherwise than as a whole is none any
    /// more.
    pub fn settle(&mut self, settlement: &Settlement) {
        for seq in &settlement.notes {
            if let Some(note) = self.notes.remove(seq) {
                note.spans.iter().for_each(|span| self.settled.insert(*span));
            }
        }
        let gone: SpanSet = settlement.spans.iter().copied().collect();
        if !gone.is_empty() {
            self.notes.retain(|_, note| !note.spans.iter().any(|span| gone.intersects(*span)));
            settlement.spans.iter().for_each(|span| self.settled.insert(*span));
        }
    }

    /// Whether a start that does not know of a settlement would send its readings under keys that they have here.
    pub fn has_keys_of(&self, settlement: &Settlement) -> bool {
        if settlement.spans.is_empty() {
            return settlement.notes.iter().all(|seq| self.notes.contains_key(seq));
        }
        let noted: SpanSet = self.notes.values().flat_map(|note| note.spans.iter().copied()).collect();
        settlement.spans.iter().all(|span| noted.contains_all(*span))
    }

    /// Whether no reading in a segment is needed any more.
    pub fn is_settled(&self, segment: SegmentNumber) -> bool {
        let content = self.contents.get(&segment);
        content.is_none_or(|content| self.settled.contains_all(Span::of_records(content.numbers.clone())))
    }

    /// Whether every reading in a segment is still needed.
    pub fn is_untouched(&self, segment: SegmentNumber) -> bool {
        self.contents.get(&segment).is_some_and(|content| {
            let span = Span::of_records(content.numbers.clone());
            let noted = self.notes.values().flat_map(|note| &note.spans);
            !self.settled.intersects(span) && noted.into_iter().all(|other| !other.overlaps(span))
        })
    }

    /// The state as bytes, without the segments of `gone`.
    ///
    /// # Panics
    ///
    /// If there are 2^32 batches or segments.
    pub fn encode(&self, gone: &[SegmentNumber]) -> Vec<u8> {
        let count = |length: usize| u32::try_from(length).expect("there are few").to_le_bytes();
        let mut bytes = self.next_number.to_le_bytes().to_vec();
        let spans: Vec<_> = self.settled.iter().collect();
        bytes.extend_from_slice(&count(spans.len()));
        put_spans(&mut bytes, &spans);
        let kept = || self.contents.iter().filter(|(segment, _)| !gone.contains(segment));
        bytes.extend_from_slice(&count(kept().count()));
        for (segment, Content { numbers, amount }) in kept() {
            for number in [segment.get(), numbers.start, numbers.end, amount.readings, amount.bytes] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&count(self.notes.len()));
        for (seq, note) in &self.notes {
            let note = note.encode();
            bytes.extend_from_slice(&seq.to_le_bytes());
            bytes.extend_from_slice(&count(note.len()));
            bytes.extend_from_slice(&note);
        }
        bytes.push(FORMAT);
        bytes
    }

    /// The state that [`State::encode`] gave, of this version or of 0.1; `None` if these bytes are no such state.
    pub fn decode(mut rest: &[u8]) -> Option<State> {
        let mut state = State { next_number: rest.try_get_u64_le().ok()?, ..State::default() };
        let spans = usize::try_from(rest.try_get_u32_le().ok()?).ok()?.checked_mul(SPAN_BYTES)?;
        let (spans, mut rest) = rest.split_at_checked(spans)?;
        state.settled = take_spans(spans)?.into_iter().collect();
        for _ in 0..rest.try_get_u32_le().ok()? {
            let segment = SegmentNumber::new(rest.try_get_u64_le().ok()?);
            let numbers = rest.try_get_u64_le().ok()?..rest.try_get_u64_le().ok()?;
            let amount = Amount { readings: rest.try_get_u64_le().ok()?, bytes: rest.try_get_u64_le().ok()? };
            state.contents.insert(segment, Content { numbers, amount });
        }
        for _ in 0..rest.try_get_u32_le().ok()? {
            let seq = rest.try_get_u64_le().ok()?;
            let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            let (note, after) = rest.split_at_checked(length)?;
            rest = after;
            let super::entry::Entry::Batch(note) = super::entry::Entry::read(note).ok()? else { return None };
            state.notes.insert(seq, note);
        }
        matches!(rest, [] | [FORMAT]).then_some(state)
    }
}

/// Bytes of an encoded span.
const SPAN_BYTES: usize = 24;

/// Whether some reading is in both. Spans are mostly in the order of their places: then one look at each is enough.
fn overlap(spans: &[Span], others: &[Span]) -> bool {
    if !spans.is_sorted() || !others.is_sorted() {
        let set: SpanSet = spans.iter().copied().collect();
        return others.iter().any(|span| set.intersects(*span));
    }
    let (mut spans, mut others) = (spans.iter().peekable(), others.iter().peekable());
    while let (Some(span), Some(other)) = (spans.peek(), others.peek()) {
        if span.overlaps(**other) {
            return true;
        }
        if span.to <= other.to {
            spans.next()
        } else {
            others.next()
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::span::Place;

    const AMOUNT: Amount = Amount { readings: 10, bytes: 1000 };

    fn segment(number: u64) -> SegmentNumber {
        SegmentNumber::new(number)
    }

    fn span(from: u64, to: u64) -> Span {
        Span::of_records(from..to)
    }

    fn note(from: u64, to: u64) -> Note {
        Note { key: format!("key-{from}"), spans: vec![span(from, to)] }
    }

    fn settle(state: &mut State, notes: &[u64], spans: &[Span]) {
        state.settle(&Settlement { notes: notes.to_vec(), spans: spans.to_vec() });
    }

    /// Ten requests of ten readings, five a segment.
    fn ten() -> State {
        let mut state = State { next_number: 1, ..State::default() };
        for number in 1..=10 {
            assert_eq!(state.accept(segment(1 + (number - 1) / 5), number, AMOUNT), 0);
        }
        state
    }

    #[test]
    fn a_segment_is_settled_when_all_its_readings_are() {
        let mut state = ten();
        assert!(
            state.is_untouched(segment(1)) && state.is_untouched(segment(2)) && !state.is_settled(segment(1))
        );
        state.note(20, note(1, 4));
        assert!(!state.is_untouched(segment(1)));
        state.note(21, Note { key: "b".to_owned(), spans: vec![span(4, 7)] });
        settle(&mut state, &[21], &[]);
        assert!(!state.is_settled(segment(1)) && !state.is_untouched(segment(2)));
        settle(&mut state, &[20], &[]);
        assert!(state.is_settled(segment(1)) && !state.is_settled(segment(2)));
        let half = Span { from: Place::start_of(7), to: Place { seq: 10, index: 9 } };
        settle(&mut state, &[], &[half]);
        assert!(!state.is_settled(segment(2)), "one reading is left");
        settle(&mut state, &[], &[Span { from: half.to, to: Place::start_of(11) }]);
        assert!(state.is_settled(segment(2)) && state.notes.is_empty());
    }

    #[test]
    fn a_batch_that_loses_readings_or_is_made_anew_is_none_any_more() {
        let mut state = ten();
        state.note(20, note(1, 4));
        settle(&mut state, &[], &[span(2, 3)]);
        assert!(state.notes.is_empty() && !state.is_settled(segment(1)));
        state.note(21, note(3, 5));
        state.note(22, Note { key: "anew".to_owned(), spans: vec![span(1, 2), span(4, 5)] });
        assert_eq!(state.notes.keys().collect::<Vec<_>>(), [&22]);
        // The answer for the one that was replaced comes too late to mean anything.
        settle(&mut state, &[21], &[]);
        assert!(!state.settled.intersects(span(3, 5)));
    }

    #[test]
    fn requests_that_nobody_has_are_settled_and_counted() {
        let mut state = ten();
        assert_eq!(state.accept(segment(3), 14, AMOUNT), 3);
        assert!(state.settled.contains_all(span(11, 14)) && !state.settled.intersects(span(14, 15)));
    }

    #[test]
    fn a_state_reads_back_and_no_bytes_make_it_panic() {
        let mut state = ten();
        state.note(20, note(3, 5));
        settle(&mut state, &[], &[span(1, 2)]);
        let bytes = state.encode(&[]);
        assert_eq!(State::decode(&bytes), Some(state.clone()));
        let without = State::decode(&state.encode(&[segment(1)])).expect("a state");
        assert_eq!(without.contents.keys().collect::<Vec<_>>(), [&segment(2)]);
        let of_0_1 = &bytes[..bytes.len() - 1];
        assert_eq!(State::decode(of_0_1), Some(state));
        assert_eq!(State::decode(&[of_0_1, &[FORMAT + 1]].concat()), None, "a later version has written it");
        for at in 0..of_0_1.len() {
            assert_eq!(State::decode(&bytes[..at]), None);
            for byte in [0, 255] {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                let _ = State::decode(&bytes);
            }
        }
    }
}
