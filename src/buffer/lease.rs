//! What the buffer hands out: the readings of one request, lent until they are settled.

use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_reading::{Iter, Position, READING_BYTES_MIN, Readings};
use tokio::time::Instant;

use super::Amount;
use super::hold::Hold;
use super::span::Span;
use super::tally::{Tally, TallyParts};
use super::waiters::Waiters;

/// Bytes of memory that a record takes beside its encoded readings: itself, its reference counts, and its places
/// in the queue and in a batch.
const RECORD_BYTES: usize = size_of::<Record>()
    + size_of::<Tally>()
    + 4 * size_of::<usize>()
    + size_of::<Part>()
    + size_of::<usize>();

/// The readings of one accepted request, or those that a transform made at once.
#[derive(Debug)]
pub struct Record {
    readings: Readings,
    tally: Arc<Tally>,
}

/// What a [`Record`] is made from.
#[derive(Debug)]
pub struct RecordParts {
    /// The readings of the request.
    pub readings: Readings,
    /// Its sequence number; `None` where no log has the record.
    pub seq: Option<u64>,
    /// The transform that made the readings; `None` if they came from outside.
    pub made_by: Option<Arc<str>>,
    /// Bytes that count for it in the accounts; given back when its last reading is settled.
    pub held_bytes: u64,
    /// When the readings were accepted.
    pub accepted_at: Instant,
    /// Told when all readings are settled.
    pub waiters: Waiters,
}

impl Record {
    /// Keeps readings of which none is settled.
    pub fn new(parts: RecordParts) -> Record {
        let unsettled = parts.readings.len() as u64;
        Record::with_unsettled(parts, unsettled)
    }

    /// Keeps readings of which so many are still to be settled: a log has noted what became of the others. Only
    /// those may be lent.
    pub fn with_unsettled(parts: RecordParts, unsettled: u64) -> Record {
        let RecordParts { readings, seq, made_by, held_bytes, accepted_at, waiters } = parts;
        let tally = Tally::new(TallyParts {
            readings: readings.len(),
            seq,
            made_by,
            accepted_at,
            held_bytes,
            unsettled,
            waiters,
        });
        Record { readings, tally: Arc::new(tally) }
    }

    /// The least room that any record takes in memory.
    pub const AMOUNT_MIN: Amount = Amount { readings: 1, bytes: (READING_BYTES_MIN + RECORD_BYTES) as u64 };

    /// The room that a record of these readings takes in memory.
    pub fn amount(readings: &Readings) -> Amount {
        Amount { readings: readings.len() as u64, bytes: (readings.bytes_held() + RECORD_BYTES) as u64 }
    }
}

/// Some readings of one record, in their order, lent until [`super::settle`] says what became of them.
#[derive(Debug)]
pub struct Part {
    record: Arc<Record>,
    range: Range<Position>,
    /// What goes on in the place of these readings, one for each.
    changed: Option<Box<Changed>>,
    /// The windows that these readings are in beside going on.
    windows: Option<Arc<OpenWindows>>,
}

#[derive(Debug)]
struct Changed {
    readings: Arc<Readings>,
    range: Range<Position>,
}

impl Changed {
    fn split_to(&mut self, position: Position) -> Changed {
        let front = Changed { readings: Arc::clone(&self.readings), range: self.range.start..position };
        self.range.start = position;
        front
    }
}

/// How many open windows some readings are in that go on as well. Until it is none, they must not be settled: after a
/// crash, the windows are made again from readings that are not.
#[derive(Debug, Default)]
pub struct OpenWindows(AtomicU64);

impl OpenWindows {
    /// One more.
    pub fn open(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is one.
    pub fn are_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// One less: its result is in the buffer.
    pub fn close(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Part {
    /// Lends readings of a record. Whoever calls it answers for lending each one once.
    pub fn of(record: Arc<Record>, range: Range<Position>) -> Part {
        Part { record, range, changed: None, windows: None }
    }

    /// Lends all readings of a record.
    pub fn whole(record: impl Into<Arc<Record>>) -> Part {
        let record = record.into();
        let range = Position::default()..record.readings.end();
        Part::of(record, range)
    }

    /// Lends the readings of a record with these indexes, as far as it has them. It takes time in the number of
    /// readings up to the last of them.
    pub fn range(record: &Arc<Record>, indexes: Range<usize>) -> Part {
        let mut part = Part::whole(Arc::clone(record));
        part.split_first(indexes.start);
        part.split_first(indexes.len())
    }

    /// The position before the first reading, as it was accepted.
    pub fn start(&self) -> Position {
        self.range.start
    }

    /// Some of these readings, as they were accepted, as a part of their own. Whoever calls it answers for lending each
    /// one once.
    #[must_use]
    pub fn piece(&self, range: Range<Position>) -> Part {
        Part::of(Arc::clone(&self.record), range)
    }

    /// The same, without what they say.
    #[must_use]
    pub fn hold(&self, range: Range<Position>) -> Hold {
        Hold::of(Arc::clone(&self.record.tally), range.start.index..range.end.index)
    }

    /// The same readings, with others in their place on their further way: one for each, in their order.
    ///
    /// # Panics
    ///
    /// If there are more or fewer of them.
    #[must_use]
    pub fn changed_to(mut self, readings: Arc<Readings>, range: Range<Position>) -> Part {
        assert_eq!(range.end.index - range.start.index, self.len(), "one for each");
        self.changed = Some(Box::new(Changed { readings, range }));
        self
    }

    /// The same readings, which are in windows as well.
    #[must_use]
    pub fn kept_for(mut self, windows: Option<Arc<OpenWindows>>) -> Part {
        self.windows = windows;
        self
    }

    /// The windows that these readings are in beside going on, as long as one of them is open.
    pub fn open_windows(&self) -> Option<&Arc<OpenWindows>> {
        self.windows.as_ref().filter(|windows| windows.are_open())
    }

    /// The places of the readings in the log; `None` if none is lent, or no log has their record.
    ///
    /// # Panics
    ///
    /// If the record has more than `u32::MAX` readings; the bounds on a request's body allow no such thing.
    pub fn span(&self) -> Option<Span> {
        self.record.tally.span(self.range.start.index..self.range.end.index)
    }

    /// The transform that made the readings; `None` if they came from outside.
    pub fn made_by(&self) -> Option<&str> {
        self.record.tally.made_by()
    }

    /// How many readings are lent.
    pub fn len(&self) -> usize {
        self.range.end.index - self.range.start.index
    }

    /// Whether none is lent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The readings, as they are to go on.
    pub fn iter(&self) -> Iter<'_> {
        match &self.changed {
            Some(changed) => changed.readings.range(changed.range.clone()),
            None => self.iter_as_accepted(),
        }
    }

    /// The readings, as they were accepted.
    pub fn iter_as_accepted(&self) -> Iter<'_> {
        self.record.readings.range(self.range.clone())
    }

    /// Takes out whoever waits for the record; the readings are read again from elsewhere.
    pub fn take_waiters(&self) -> Waiters {
        self.record.tally.take_waiters()
    }

    /// When the readings were accepted.
    pub fn accepted_at(&self) -> Instant {
        self.record.tally.accepted_at()
    }

    /// Notes that this part goes to a node. Returns what cannot be given up from now on: its readings, and with the
    /// first part of a record also the record's bytes, which come back only with its last reading.
    pub fn depart(&self) -> Amount {
        self.record.tally.depart(self.len())
    }

    /// Notes that the node answered, or did not in time. Returns what can be given up again.
    pub fn come_back(&self) -> Amount {
        self.record.tally.come_back(self.len())
    }

    /// Notes that this part waits in memory. Returns the record's bytes if it is the first part of it that does.
    pub fn park(&self) -> u64 {
        self.record.tally.park()
    }

    /// Notes that it waits no more. Returns the record's bytes if it was the last one.
    pub fn unpark(&self) -> u64 {
        self.record.tally.unpark()
    }

    /// Whether this or another part of the record is on its way to a node, or in a window.
    pub fn is_record_in_flight(&self) -> bool {
        self.record.tally.is_in_flight()
    }

    /// Takes the readings before `position`, which [`Part::iter`] gave, off this part, as a part of their own.
    pub fn split_to(&mut self, position: Position) -> Part {
        let (at, changed) = match &mut self.changed {
            None => (position, None),
            Some(changed) => {
                let count = position.index - changed.range.start.index;
                let mut iter = self.record.readings.range(self.range.clone());
                for _ in iter.by_ref().take(count) {}
                (iter.position(), Some(Box::new(changed.split_to(position))))
            }
        };
        let range = self.range.start..at;
        self.range.start = at;
        Part { record: Arc::clone(&self.record), range, changed, windows: self.windows.clone() }
    }

    /// Takes the first `count` readings off this part, or all if there are fewer.
    pub fn split_first(&mut self, count: usize) -> Part {
        let mut iter = self.iter();
        for _ in iter.by_ref().take(count) {}
        let position = iter.position();
        self.split_to(position)
    }
}

impl From<Part> for Hold {
    fn from(part: Part) -> Hold {
        Hold::of(Arc::clone(&part.record.tally), part.range.start.index..part.range.end.index)
    }
}

#[cfg(test)]
mod tests;
