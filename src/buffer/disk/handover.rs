//! From the log's thread to the delivery: what is young in memory, the rest by its place in the log.
//!
//! What is committed is handed on from memory as long as the delivery keeps up. Once more than
//! [`YOUNG_BYTES_MAX`] wait, everything that follows is only on disk, and is read from there. When the reader has
//! come near the end of the log, what follows is kept in memory again, and handed on once the reader has come to
//! its first request: so the order holds, and memory stays flat whatever the backlog.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_wal::{Log, RecordStart, Segment, SegmentNumber};
use tokio::sync::Notify;

use super::state::State;
use crate::buffer::lease::{Part, Record};
use crate::buffer::waiters::Waiters;
use crate::buffer::{Amount, Settled};

/// Most bytes of readings that wait for the delivery in memory.
const YOUNG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// With no more than this to be read from disk, what comes is kept in memory again.
const REJOIN_BYTES: u64 = 256 * 1024;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// The number of the segment.
    pub segment: SegmentNumber,
    /// Where in it; its first record if that is not known.
    pub start: Option<RecordStart>,
    /// The number of the first request that is to be handed out.
    pub number: u64,
}

/// What may be read at present.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The segments, the oldest first, with the records that are committed, and the numbers of their requests.
    pub segments: Vec<(Segment, Range<u64>)>,
}

impl View {
    /// Everything that is committed at present.
    pub fn of(log: &Log, state: &State) -> View {
        let numbers = |segment: &Segment| {
            let content = state.contents.get(&segment.number);
            content.map_or(0..0, |content| content.numbers.clone())
        };
        View { segments: log.segments().iter().map(|segment| (segment.clone(), numbers(segment))).collect() }
    }
}

/// What comes next for the delivery.
#[derive(Debug)]
pub enum Next {
    /// So many requests were handed out.
    HandedOut(usize),
    /// What comes next is on disk.
    Read {
        /// From here on.
        from: ReadFrom,
        /// Up to this number; up to the end of what may be read if there is none.
        to: Option<u64>,
        /// What may be read.
        view: Arc<View>,
    },
    /// Nothing now.
    Nothing,
    /// Nothing more will come.
    Closed,
}

/// A request that is in memory.
#[derive(Debug)]
struct Young {
    part: Part,
    stands: Stands,
    amount: Amount,
}

/// What is handed from the log's thread to the delivery.
#[derive(Debug, Default)]
pub struct Handover {
    /// Held for putting in and taking out.
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// What could not be written although it was acknowledged; it comes first.
    unwritten: VecDeque<Part>,
    /// What is handed on from memory. It comes before what is spilled, or, if there is an end of that, after it.
    young: VecDeque<Young>,
    young_bytes: u64,
    /// From where on everything is only on disk.
    spilled: Option<ReadFrom>,
    /// The first number that is in memory again.
    spilled_to: Option<u64>,
    /// What is on disk only and was not read yet, by segment.
    unread: BTreeMap<SegmentNumber, Amount>,
    /// Bytes of all that.
    unread_bytes: u64,
    /// Who waits for the delivery of requests that are on disk only, by their numbers.
    waiters: HashMap<u64, Waiters>,
    view: Arc<View>,
    closed: bool,
}

impl Handover {
    /// Begins with what was found on disk.
    pub fn new(spilled: Option<ReadFrom>, unread: BTreeMap<SegmentNumber, Amount>, view: View) -> Handover {
        let unread_bytes = unread.values().map(|unread| unread.bytes).sum();
        let queue = Queue { spilled, unread, unread_bytes, view: Arc::new(view), ..Queue::default() };
        Handover { queue: Mutex::new(queue), filled: Notify::new() }
    }

    /// Opens the queue for the requests of one commit.
    pub fn begin(&self) -> Putting<'_> {
        Putting { queue: self.lock(), filled: &self.filled }
    }

    /// Hands out the oldest that wait in memory, up to `most`, or says where to go on reading.
    pub fn next(&self, parts: &mut Vec<Part>, most: usize) -> Next {
        let mut queue = self.lock();
        if !queue.unwritten.is_empty() {
            let count = queue.unwritten.len().min(most);
            parts.extend(queue.unwritten.drain(..count));
            return Next::HandedOut(count);
        }
        if let Some(from) = queue.spilled.filter(|_| queue.spilled_to.is_some() || queue.young.is_empty()) {
            return Next::Read { from, to: queue.spilled_to, view: Arc::clone(&queue.view) };
        }
        let count = queue.young.len().min(most);
        for _ in 0..count {
            let Some(young) = queue.young.pop_front() else { break };
            queue.young_bytes -= young.amount.bytes;
            parts.push(young.part);
        }
        match count {
            0 if queue.closed => Next::Closed,
            0 => Next::Nothing,
            count => Next::HandedOut(count),
        }
    }

    /// Notes what was read of the segment, and who waits for it.
    pub fn on_read(&self, segment: SegmentNumber, number: u64, amount: Amount) -> Waiters {
        let mut queue = self.lock();
        if let Some(unread) = queue.unread.get_mut(&segment) {
            unread.readings = unread.readings.saturating_sub(amount.readings);
            unread.bytes = unread.bytes.saturating_sub(amount.bytes);
        }
        queue.unread_bytes = queue.unread_bytes.saturating_sub(amount.bytes);
        queue.waiters.remove(&number).unwrap_or_default()
    }

    /// Nothing more will be read of a segment. Returns what should have been there, and tells those who wait for
    /// requests before `number` that they cannot be read.
    pub fn on_left(&self, segment: SegmentNumber, number: u64) -> Amount {
        let mut queue = self.lock();
        queue.tell_damaged(number);
        let missing = queue.unread.remove(&segment).unwrap_or_default();
        queue.unread_bytes = queue.unread_bytes.saturating_sub(missing.bytes);
        missing
    }

    /// Everything of `view` was read, and everything before `number`. If that is all there is on disk only, what
    /// comes next is in memory.
    ///
    /// Returns what should have been there and was not read; `None` if there is more to be read.
    pub fn on_caught_up(&self, view: &Arc<View>, number: u64) -> Option<Amount> {
        let mut queue = self.lock();
        let joined = queue.spilled_to.is_some_and(|to| number >= to);
        if joined || (queue.spilled_to.is_none() && Arc::ptr_eq(&queue.view, view)) {
            queue.spilled = None;
            queue.spilled_to = None;
            queue.unread_bytes = 0;
            queue.tell_damaged(number);
            let unread = std::mem::take(&mut queue.unread);
            return Some(unread.into_values().fold(Amount::default(), |sum, amount| sum + amount));
        }
        None
    }

    /// Returns when something came since [`Next::Nothing`]. It can be dropped without loss.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add_unread(&mut self, segment: SegmentNumber, amount: Amount) {
        *self.unread.entry(segment).or_default() += amount;
        self.unread_bytes += amount.bytes;
    }

    /// Whoever still waits for a request before `number` waits in vain.
    fn tell_damaged(&mut self, number: u64) {
        for (_, waiters) in self.waiters.extract_if(|waiting, _| *waiting < number) {
            waiters.settle(Settled::Damaged).tell();
        }
    }

    fn wait(&mut self, number: u64, waiters: Waiters) {
        if !waiters.is_empty() {
            self.waiters.insert(number, waiters);
        }
    }

    /// What was kept in memory behind the end of what is on disk only is too much: it is on disk, too.
    fn forget_young(&mut self) {
        self.spilled_to = None;
        self.young_bytes = 0;
        for Young { part, stands, amount } in std::mem::take(&mut self.young) {
            self.add_unread(stands.segment, amount);
            self.wait(stands.number, part.take_waiters());
        }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Stands {
    /// The number of the segment.
    pub segment: SegmentNumber,
    /// Where in it.
    pub start: RecordStart,
    /// The number of the request.
    pub number: u64,
}

/// The queue, open for the requests of one commit.
#[derive(Debug)]
pub struct Putting<'a> {
    queue: MutexGuard<'a, Queue>,
    filled: &'a Notify,
}

impl Putting<'_> {
    /// Whether the record of the request with this number is handed on from memory.
    pub fn is_young(&mut self, number: u64, bytes: u64) -> bool {
        let queue = &mut *self.queue;
        let fits = queue.young.is_empty() || queue.young_bytes + bytes <= YOUNG_BYTES_MAX;
        if queue.spilled.is_none() {
            return fits;
        }
        if queue.spilled_to.is_none() && queue.young.is_empty() && queue.unread_bytes <= REJOIN_BYTES {
            queue.spilled_to = Some(number);
        }
        if queue.spilled_to.is_some() && !fits {
            queue.forget_young();
        }
        queue.spilled_to.is_some()
    }

    /// Hands a record on from memory.
    pub fn hand_on(&mut self, record: Record, stands: Stands, amount: Amount) {
        self.queue.young.push_back(Young { part: Part::whole(record), stands, amount });
        self.queue.young_bytes += amount.bytes;
    }

    /// Hands a record on that is not on disk: before all others that wait, because nowhere else can it be had.
    pub fn hand_on_unwritten(&mut self, record: Record) {
        self.queue.unwritten.push_back(Part::whole(record));
    }

    /// Leaves a record to be read from disk.
    pub fn leave(&mut self, stands: Stands, amount: Amount, waiters: Waiters) {
        let Stands { segment, start, number } = stands;
        let from = ReadFrom { segment, start: Some(start), number };
        self.queue.spilled.get_or_insert(from);
        self.queue.add_unread(segment, amount);
        self.queue.wait(number, waiters);
    }

    /// Whether the reader needs to see what was committed.
    pub fn is_spilled(&self) -> bool {
        self.queue.spilled.is_some()
    }

    /// Shows the reader what was committed.
    pub fn show(&mut self, view: View) {
        self.queue.view = Arc::new(view);
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use forebay_wal::Seq;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn who_waits_for_a_request_that_cannot_be_read_is_told_and_others_wait_on() {
        let forget: [fn(&Handover); 2] = [
            |handover| assert_eq!(handover.on_left(SegmentNumber::new(1), 2).readings, 2),
            |handover| {
                let view = Arc::clone(&handover.lock().view);
                assert!(handover.on_caught_up(&view, 2).is_some());
            },
        ];
        for forget in forget {
            let handover = Handover::default();
            let mut heard = [1, 2].map(|number| {
                let (waiter, heard) = oneshot::channel();
                let (segment, seq) = (SegmentNumber::new(1), Seq::new(number));
                let stands = Stands { segment, start: RecordStart { offset: 4096, seq }, number };
                handover.begin().leave(stands, Amount { readings: 1, bytes: 100 }, waiter.into());
                heard
            });
            forget(&handover);
            assert_eq!(heard[0].try_recv(), Ok(Settled::Damaged));
            assert_eq!(heard[1].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
    }
}
