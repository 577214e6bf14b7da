//! What the buffer hands out: the readings of one request, lent until they are settled.

use std::mem::size_of;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::accounts::Accounts;
use super::ledger::{DeadLetterReason, DropReason, Outcome};
use super::span::{Place, Span};
use super::{Amount, Settled};
use crate::reading::{Iter, Position, READING_BYTES_MIN, Readings};

/// Bytes of memory that a record takes beside its encoded readings: itself, its reference counts, and its places
/// in the queue and in a batch.
const RECORD_BYTES: usize =
    size_of::<Record>() + 2 * size_of::<usize>() + size_of::<Part>() + size_of::<usize>();

/// The readings of one accepted request.
#[derive(Debug)]
pub struct Record {
    readings: Readings,
    /// Its number in the log, if one has it.
    seq: Option<u64>,
    accepted_at: Instant,
    /// Bytes that are given back when the last reading is settled.
    held_bytes: u64,
    unsettled: AtomicU64,
    /// Parts that are on their way to a node.
    in_flight: AtomicU64,
    /// Parts that wait in memory for their turn.
    parked: AtomicU64,
    /// Whether some reading was given up.
    dropped: AtomicBool,
    /// Whether some reading could not be read.
    damaged: AtomicBool,
    /// Whether some reading was refused by a node.
    refused: AtomicBool,
    /// Told when all are settled. The lock is held for taking it out.
    waiter: Mutex<Option<oneshot::Sender<Settled>>>,
}

/// What a [`Record`] is made from.
#[derive(Debug)]
pub struct RecordParts {
    /// The readings of the request.
    pub readings: Readings,
    /// Its sequence number; `None` where no log has the record.
    pub seq: Option<u64>,
    /// Bytes that count for it in the accounts; given back when its last reading is settled.
    pub held_bytes: u64,
    /// When the readings were accepted.
    pub accepted_at: Instant,
    /// Told when all readings are settled.
    pub waiter: Option<oneshot::Sender<Settled>>,
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
        let RecordParts { readings, seq, held_bytes, accepted_at, waiter } = parts;
        Record {
            readings,
            seq,
            accepted_at,
            held_bytes,
            unsettled: AtomicU64::new(unsettled),
            in_flight: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            waiter: Mutex::new(waiter),
        }
    }

    /// The least room that any record takes in memory.
    pub const AMOUNT_MIN: Amount = Amount { readings: 1, bytes: (READING_BYTES_MIN + RECORD_BYTES) as u64 };

    /// The room that a record of these readings takes in memory.
    pub fn amount(readings: &Readings) -> Amount {
        Amount { readings: readings.len() as u64, bytes: (readings.bytes_held() + RECORD_BYTES) as u64 }
    }

    /// Takes `readings` off those that are not settled. With the last of them the record is [`Done`].
    fn settle(&self, readings: u64, outcome: Outcome) -> Option<Done> {
        match outcome {
            Outcome::Delivered { .. } => {}
            Outcome::Dropped(DropReason::Full) => self.dropped.store(true, Ordering::Relaxed),
            Outcome::DeadLettered(DeadLetterReason::Damaged) => self.damaged.store(true, Ordering::Relaxed),
            Outcome::DeadLettered(
                DeadLetterReason::Refused
                | DeadLetterReason::TooLarge
                | DeadLetterReason::NotNumeric
                | DeadLetterReason::Unwritable,
            ) => self.refused.store(true, Ordering::Relaxed),
        }
        let before = self.unsettled.fetch_sub(readings, Ordering::AcqRel);
        assert!(before >= readings, "each reading is settled once");
        (before == readings).then(|| Done {
            bytes: self.held_bytes,
            waiter: self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take(),
            settled: self.settled(),
        })
    }

    fn settled(&self) -> Settled {
        if self.damaged.load(Ordering::Relaxed) {
            Settled::Damaged
        } else if self.refused.load(Ordering::Relaxed) {
            Settled::Refused
        } else if self.dropped.load(Ordering::Relaxed) {
            Settled::Dropped
        } else {
            Settled::Delivered
        }
    }
}

/// A record whose readings are all settled.
struct Done {
    bytes: u64,
    waiter: Option<oneshot::Sender<Settled>>,
    settled: Settled,
}

/// Some readings of one record, in their order, lent until [`settle`] says what became of them.
#[derive(Debug)]
pub struct Part {
    record: Arc<Record>,
    range: Range<Position>,
}

impl Part {
    /// Lends readings of a record. Whoever calls it answers for lending each one once.
    pub fn of(record: Arc<Record>, range: Range<Position>) -> Part {
        Part { record, range }
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

    /// The places of the readings in the log; `None` if none is lent, or no log has their record.
    ///
    /// # Panics
    ///
    /// If the record has more than `u32::MAX` readings; the bounds on a request's body allow no such thing.
    pub fn span(&self) -> Option<Span> {
        let seq = self.record.seq.filter(|_| !self.is_empty())?;
        let place = |index| {
            let index = u32::try_from(index).expect("a request has fewer readings");
            Place { seq, index }
        };
        let is_last = self.range.end.index == self.record.readings.len();
        let to = if is_last { Place::start_of(seq + 1) } else { place(self.range.end.index) };
        Some(Span { from: place(self.range.start.index), to })
    }

    /// How many readings are lent.
    pub fn len(&self) -> usize {
        self.range.end.index - self.range.start.index
    }

    /// Whether none is lent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The readings.
    pub fn iter(&self) -> Iter<'_> {
        self.record.readings.range(self.range.clone())
    }

    /// Takes out whoever waits for the record; the readings are read again from elsewhere.
    pub fn take_waiter(&self) -> Option<oneshot::Sender<Settled>> {
        self.record.waiter.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// When the readings were accepted.
    pub fn accepted_at(&self) -> Instant {
        self.record.accepted_at
    }

    /// Notes that this part goes to a node. Returns what cannot be given up from now on: its readings, and with the
    /// first part of a record also the record's bytes, which come back only with its last reading.
    pub fn depart(&self) -> Amount {
        let others = self.record.in_flight.fetch_add(1, Ordering::Relaxed);
        self.amount_beside(others)
    }

    /// Notes that the node answered, or did not in time. Returns what can be given up again.
    pub fn come_back(&self) -> Amount {
        let others = self.record.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.amount_beside(others)
    }

    /// Notes that this part waits in memory. Returns the record's bytes if it is the first part of it that does.
    pub fn park(&self) -> u64 {
        if self.record.parked.fetch_add(1, Ordering::Relaxed) == 0 { self.record.held_bytes } else { 0 }
    }

    /// Notes that it waits no more. Returns the record's bytes if it was the last one.
    pub fn unpark(&self) -> u64 {
        if self.record.parked.fetch_sub(1, Ordering::Relaxed) == 1 { self.record.held_bytes } else { 0 }
    }

    /// What this part keeps in flight when so many other parts of its record are.
    fn amount_beside(&self, others: u64) -> Amount {
        let bytes = if others == 0 { self.record.held_bytes } else { 0 };
        Amount { readings: self.len() as u64, bytes }
    }

    /// Whether this or another part of the record is on its way to a node.
    pub fn is_record_in_flight(&self) -> bool {
        self.record.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Takes the readings before `position` off this part, as a part of their own.
    pub fn split_to(&mut self, position: Position) -> Part {
        let front = Part { record: Arc::clone(&self.record), range: self.range.start..position };
        self.range.start = position;
        front
    }

    /// Takes the first `count` readings off this part, or all if there are fewer.
    pub fn split_first(&mut self, count: usize) -> Part {
        let mut iter = self.iter();
        for _ in iter.by_ref().take(count) {}
        let position = iter.position();
        self.split_to(position)
    }
}

/// Says what became of the readings of `parts`.
pub fn settle(parts: Vec<Part>, accounts: &Arc<Accounts>, outcome: Outcome, now: Instant) {
    let mut amount = Amount::default();
    let mut waiters = Vec::new();
    for part in &parts {
        amount.readings += part.len() as u64;
        let Some(done) = part.record.settle(part.len() as u64, outcome) else { continue };
        amount.bytes += done.bytes;
        waiters.extend(done.waiter.map(|waiter| (waiter, done.settled)));
    }
    accounts.settle(amount, outcome, now);
    // Told last: who hears that readings were delivered finds them in the ledger.
    for (waiter, settled) in waiters {
        // Whoever hung up does not want to know.
        let _ = waiter.send(settled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::accounts::Bounds;
    use crate::buffer::tests::{numbered, numbers};

    const DELIVERED: Outcome = Outcome::Delivered { node: 0 };
    const DROPPED: Outcome = Outcome::Dropped(DropReason::Full);
    const DAMAGED: Outcome = Outcome::DeadLettered(DeadLetterReason::Damaged);
    const REFUSED: Outcome = Outcome::DeadLettered(DeadLetterReason::Refused);
    const TOO_LARGE: Outcome = Outcome::DeadLettered(DeadLetterReason::TooLarge);

    /// A record of numbered readings, in the books, and what its waiter hears.
    async fn lend(count: i64) -> (Part, Arc<Accounts>, oneshot::Receiver<Settled>) {
        let limit = Amount { readings: 1 << 20, bytes: 1 << 20 };
        let accounts = Accounts::new(Bounds { limit, least: Record::AMOUNT_MIN }, 1, Instant::now());
        let readings = numbered(0..count);
        let need = Record::amount(&readings);
        accounts.reserve(need, crate::buffer::OnFull::Reject).await.expect("room").accept(0);
        let (waiter, settled) = oneshot::channel();
        let record = Record::new(RecordParts { waiter: Some(waiter), ..parts(readings) });
        (Part::whole(record), accounts, settled)
    }

    /// The record with the number 7, as long as none is settled.
    fn parts(readings: Readings) -> RecordParts {
        let held_bytes = Record::amount(&readings).bytes;
        RecordParts { readings, seq: Some(7), held_bytes, accepted_at: Instant::now(), waiter: None }
    }

    #[tokio::test]
    async fn a_part_is_split_without_loss_at_any_place() {
        for first in 0..7 {
            let (mut part, ..) = lend(5).await;
            let front = part.split_first(first);
            let taken = first.min(5);
            assert_eq!((front.len(), part.len()), (taken, 5 - taken));
            assert_eq!((front.is_empty(), part.is_empty()), (taken == 0, taken == 5));
            assert_eq!([numbers(&front), numbers(&part)].concat(), [0, 1, 2, 3, 4]);
            assert_eq!(front.accepted_at(), part.accepted_at());
        }
        let (mut part, ..) = lend(5).await;
        let mut iter = part.iter();
        iter.next();
        let position = iter.position();
        assert_eq!(numbers(&part.split_to(position)), [0]);
        // Of what is left, again from its front.
        assert_eq!(numbers(&part.split_first(2)), [1, 2]);
        assert_eq!(numbers(&part), [3, 4]);
    }

    #[tokio::test]
    async fn a_part_knows_its_places_in_the_log_whichever_way_it_was_cut() {
        let record = Arc::new(Record::new(parts(numbered(0..5))));
        let place = |index| Place { seq: 7, index };
        let check = |indexes: Range<usize>, expected: Option<Span>| {
            let part = Part::range(&record, indexes.clone());
            assert_eq!(part.span(), expected, "{indexes:?}");
            let from = indexes.start.min(5);
            assert_eq!(part.len(), indexes.end.min(5).saturating_sub(from), "{indexes:?}");
            assert_eq!(numbers(&part), (0..5).skip(from).take(part.len()).collect::<Vec<_>>(), "{indexes:?}");
        };
        check(0..2, Some(Span { from: place(0), to: place(2) }));
        check(2..4, Some(Span { from: place(2), to: place(4) }));
        check(0..5, Some(Span::of_record(7)));
        check(3..5, Some(Span { from: place(3), to: Place::start_of(8) }));
        check(3..9, Some(Span { from: place(3), to: Place::start_of(8) }));
        check(2..2, None);
        check(7..9, None);

        let mut rest = Part::whole(Arc::clone(&record));
        let front = rest.split_first(3);
        assert_eq!(front.span(), Some(Span { from: place(0), to: place(3) }));
        assert_eq!(rest.span(), Some(Span { from: place(3), to: Place::start_of(8) }));
        let in_memory = Record::new(RecordParts { seq: None, ..parts(numbered(0..5)) });
        assert_eq!(Part::whole(in_memory).span(), None);
    }

    #[tokio::test]
    async fn a_record_of_which_some_are_settled_is_done_with_the_rest() {
        let (_, accounts, _) = lend(5).await;
        let (waiter, mut settled) = oneshot::channel();
        let parts = RecordParts { waiter: Some(waiter), ..parts(numbered(0..5)) };
        let record = Arc::new(Record::with_unsettled(parts, 3));
        settle(vec![Part::range(&record, 1..3)], &accounts, DELIVERED, Instant::now());
        assert!(settled.try_recv().is_err() && accounts.snapshot().held_bytes > 0);
        settle(vec![Part::range(&record, 4..5)], &accounts, DELIVERED, Instant::now());
        assert_eq!((settled.await, accounts.snapshot().held_bytes), (Ok(Settled::Delivered), 0));
    }

    #[tokio::test]
    async fn room_in_bytes_comes_back_with_the_last_part_whichever_it_is() {
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let (mut part, accounts, mut settled) = lend(5).await;
            let mut parts = [Some(part.split_first(2)), Some(part.split_first(1)), Some(part)];
            let mut left = 5;
            for (step, index) in order.into_iter().enumerate() {
                assert!(settled.try_recv().is_err(), "some are not settled");
                assert!(accounts.snapshot().held_bytes > 0);
                let part = parts[index].take().expect("each once");
                left -= part.len() as u64;
                settle(vec![part], &accounts, DELIVERED, Instant::now());
                assert_eq!(accounts.buffered(), left, "step {step}");
            }
            assert_eq!(accounts.snapshot().held_bytes, 0);
            assert_eq!(settled.await, Ok(Settled::Delivered));
        }
    }

    #[tokio::test]
    async fn the_bytes_of_a_record_are_in_flight_from_its_first_part_to_its_last() {
        let (mut part, accounts, _settled) = lend(5).await;
        let bytes = accounts.snapshot().held_bytes;
        let front = part.split_first(2);
        assert_eq!(front.depart(), Amount { readings: 2, bytes });
        assert!(part.is_record_in_flight());
        assert_eq!(part.depart(), Amount { readings: 3, bytes: 0 });
        assert_eq!(front.come_back(), Amount { readings: 2, bytes: 0 });
        assert!(front.is_record_in_flight());
        assert_eq!(part.come_back(), Amount { readings: 3, bytes });
        assert!(!part.is_record_in_flight());
    }

    #[tokio::test]
    async fn one_reading_that_is_given_up_or_set_aside_decides_what_the_request_hears() {
        for (outcomes, expected) in [
            ([DROPPED, DELIVERED], Settled::Dropped),
            ([DELIVERED, DROPPED], Settled::Dropped),
            ([DROPPED, DROPPED], Settled::Dropped),
            ([DAMAGED, DELIVERED], Settled::Damaged),
            ([DELIVERED, DAMAGED], Settled::Damaged),
            ([DAMAGED, DROPPED], Settled::Damaged),
            ([DROPPED, DAMAGED], Settled::Damaged),
            ([REFUSED, DELIVERED], Settled::Refused),
            ([DELIVERED, TOO_LARGE], Settled::Refused),
            ([TOO_LARGE, DROPPED], Settled::Refused),
            ([DROPPED, REFUSED], Settled::Refused),
            ([REFUSED, DAMAGED], Settled::Damaged),
            ([DAMAGED, TOO_LARGE], Settled::Damaged),
        ] {
            let (mut part, accounts, settled) = lend(5).await;
            let front = part.split_first(1);
            settle(vec![front], &accounts, outcomes[0], Instant::now());
            settle(vec![part], &accounts, outcomes[1], Instant::now());
            assert_eq!(settled.await, Ok(expected));
            assert!(accounts.snapshot().ledger.balances());
        }
    }

    #[tokio::test]
    async fn a_waiter_that_hears_of_the_delivery_finds_it_in_the_ledger() {
        let (part, accounts, settled) = lend(5).await;
        let heard = tokio::spawn({
            let accounts = Arc::clone(&accounts);
            async move { settled.await.map(|_| accounts.snapshot().ledger.delivered[0]) }
        });
        settle(vec![part], &accounts, DELIVERED, Instant::now());
        assert_eq!(heard.await.expect("no panic"), Ok(5));
    }

    #[tokio::test]
    #[should_panic(expected = "each reading is settled once")]
    async fn settling_a_reading_twice_is_found() {
        let (mut part, accounts, _settled) = lend(2).await;
        let again = Part { record: Arc::clone(&part.record), range: part.range.clone() };
        let front = part.split_first(1);
        settle(vec![front, again], &accounts, DELIVERED, Instant::now());
    }
}
