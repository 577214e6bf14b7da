//! Places of readings in a log, and sets of them.
//!
//! A log numbers its records; a reading's place is the number of its record and its index in it. What is settled,
//! and what a batch is made of, are stretches of places: few, whatever the number of readings.

use std::collections::BTreeMap;
use std::ops::Range;

/// A reading's place in the log. Places are ordered as the readings were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Sequence number of its record.
    pub seq: u64,
    /// Its index in the record.
    pub index: u32,
}

impl Place {
    /// Behind all places.
    pub const END: Place = Place { seq: u64::MAX, index: u32::MAX };

    /// The place of a record's first reading.
    pub fn start_of(seq: u64) -> Place {
        Place { seq, index: 0 }
    }
}

/// The places from one to another, without the last.
///
/// A span that ends with the last reading of a record ends at the start of the next record: only so do spans that
/// follow each other touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first place.
    pub from: Place,
    /// The first place behind it.
    pub to: Place,
}

impl Span {
    /// All places of a record.
    pub fn of_record(seq: u64) -> Span {
        Span::of_records(seq..seq + 1)
    }

    /// All places of some records.
    pub fn of_records(seqs: Range<u64>) -> Span {
        Span { from: Place::start_of(seqs.start), to: Place::start_of(seqs.end) }
    }

    /// The records that have a place in it, if it is not empty.
    pub fn records(self) -> Range<u64> {
        let end = if self.to.index > 0 { self.to.seq + 1 } else { self.to.seq };
        self.from.seq..end
    }

    /// Whether there is no place in it.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Whether some place is in both.
    pub fn overlaps(self, other: Span) -> bool {
        self.from.max(other.from) < self.to.min(other.to)
    }
}

impl FromIterator<Span> for SpanSet {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> SpanSet {
        let mut set = SpanSet::default();
        spans.into_iter().for_each(|span| set.insert(span));
        set
    }
}

/// A set of places, kept as the fewest spans. Adding, removing and asking take logarithmic time in their number,
/// beside the spans that go away.
///
/// **Invariant**: the spans are not empty, and between two of them is a place that is not in the set
/// (`a_set_of_spans_is_the_set_of_their_places`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanSet {
    /// Where each span starts, and where it ends.
    spans: BTreeMap<Place, Place>,
}

impl SpanSet {
    /// Adds all places of a span.
    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let mut merged = span;
        // From the end: all that overlap the span or touch it start at its end at the latest.
        while let Some((&from, &to)) = self.spans.range(..=merged.to).next_back() {
            if to < merged.from {
                break;
            }
            self.spans.remove(&from);
            merged = Span { from: from.min(merged.from), to: to.max(merged.to) };
        }
        self.spans.insert(merged.from, merged.to);
    }

    /// Takes all places of a span out, as far as they are in.
    pub fn remove(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        while let Some((&from, &to)) = self.spans.range(..span.to).next_back() {
            if to <= span.from {
                return;
            }
            self.spans.remove(&from);
            if to > span.to {
                self.spans.insert(span.to, to);
            }
            if from < span.from {
                self.spans.insert(from, span.from);
            }
        }
    }

    /// Whether every place of a span is in.
    pub fn contains_all(&self, span: Span) -> bool {
        let around = self.spans.range(..=span.from).next_back();
        span.is_empty() || around.is_some_and(|(_, to)| span.to <= *to)
    }

    /// Whether some place of a span is in.
    pub fn intersects(&self, span: Span) -> bool {
        let last = self.spans.range(..span.to).next_back();
        !span.is_empty() && last.is_some_and(|(_, to)| span.from < *to)
    }

    /// The spans, in the order of their places.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> {
        self.spans.iter().map(|(&from, &to)| Span { from, to })
    }

    /// The first span; `None` if the set is empty.
    pub fn first(&self) -> Option<Span> {
        self.iter().next()
    }

    /// The parts of a span that are not in the set, in their order.
    pub fn gaps(&self, span: Span) -> Vec<Span> {
        let mut gaps = Vec::new();
        let mut at = span.from;
        let before = self.spans.range(..=span.from).next_back().map(|(_, to)| *to);
        at = before.map_or(at, |to| to.max(at));
        for (&from, &to) in self.spans.range(span.from..span.to.max(span.from)) {
            if from > at {
                gaps.push(Span { from: at, to: from });
            }
            at = at.max(to);
        }
        if at < span.to {
            gaps.push(Span { from: at, to: span.to });
        }
        gaps
    }

    /// How many of some records have a place that is not in the set.
    pub fn open_records(&self, seqs: Range<u64>) -> u64 {
        let mut next = seqs.start;
        let mut count = 0;
        for Range { start, end } in self.gaps(Span::of_records(seqs)).into_iter().map(Span::records) {
            // A record that has several gaps counts once.
            count += end.saturating_sub(start.max(next));
            next = next.max(end);
        }
        count
    }

    /// Whether no place is in.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The records of these tests have so many readings.
    const READINGS: u32 = 3;
    const RECORDS: u64 = 5;

    fn place(number: u32) -> Place {
        Place { seq: u64::from(number / READINGS), index: number % READINGS }
    }

    /// The places from one number to another.
    fn span(from: u32, to: u32) -> Span {
        Span { from: place(from), to: place(to) }
    }

    fn every_place() -> impl Iterator<Item = Place> {
        (0..RECORDS).flat_map(|seq| (0..READINGS).map(move |index| Place { seq, index }))
    }

    fn places(span: Span) -> BTreeSet<Place> {
        every_place().filter(|place| (span.from..span.to).contains(place)).collect()
    }

    #[test]
    fn spans_that_touch_become_one_also_from_record_to_record() {
        let mut set = SpanSet::default();
        set.insert(Span::of_record(7));
        set.insert(Span::of_record(9));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Span::of_record(7), Span::of_record(9)]);
        set.insert(Span::of_record(8));
        let all = Span { from: Place::start_of(7), to: Place::start_of(10) };
        assert_eq!((set.iter().count(), set.first()), (1, Some(all)));
        let middle = Span { from: Place { seq: 8, index: 1 }, to: Place { seq: 8, index: 2 } };
        set.remove(middle);
        assert!(!set.contains_all(Span::of_record(8)) && set.intersects(Span::of_record(8)));
        assert!(!set.intersects(middle));
        set.remove(all);
        assert!(set.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn a_set_of_spans_is_the_set_of_their_places(
            steps in prop::collection::vec((any::<bool>(), 0..15u32, 0..=15u32), 0..30),
            asked in prop::collection::vec((0..15u32, 0..=15u32), 10),
        ) {
            let mut set = SpanSet::default();
            let mut naive = BTreeSet::new();
            for (is_insert, from, to) in steps {
                let span = span(from, to);
                if is_insert {
                    set.insert(span);
                    naive.extend(places(span));
                } else {
                    set.remove(span);
                    naive.retain(|place| !places(span).contains(place));
                }
                let held: Vec<Span> = set.iter().collect();
                prop_assert!(held.iter().all(|span| !span.is_empty()), "{held:?}");
                prop_assert!(held.windows(2).all(|pair| pair[0].to < pair[1].from), "{held:?}");
                prop_assert_eq!(held.iter().copied().flat_map(places).collect::<BTreeSet<_>>(), naive.clone());
                prop_assert_eq!(set.first().map(|span| span.from), naive.first().copied());
                prop_assert_eq!(set.is_empty(), naive.is_empty());
            }
            for &(from, to) in &asked {
                let asked = places(span(from, to));
                prop_assert_eq!(set.contains_all(span(from, to)), asked.is_subset(&naive));
                prop_assert_eq!(set.intersects(span(from, to)), !asked.is_disjoint(&naive));
                let gaps = set.gaps(span(from, to));
                prop_assert!(gaps.iter().all(|gap| !gap.is_empty()), "{gaps:?}");
                let open: BTreeSet<_> = asked.difference(&naive).copied().collect();
                prop_assert_eq!(gaps.iter().copied().flat_map(places).collect::<BTreeSet<_>>(), open);
            }
            for (from, to) in asked {
                let seqs = u64::from(from) % RECORDS..u64::from(to) % (RECORDS + 1);
                let asked = places(Span::of_records(seqs.clone()));
                let open: BTreeSet<_> = asked.difference(&naive).map(|place| place.seq).collect();
                prop_assert_eq!(set.open_records(seqs), open.len() as u64);
            }
        }
    }
}
