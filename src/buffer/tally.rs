//! What is counted of a record: it outlives the readings themselves.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::ledger::{DeadLetterReason, DropReason, Outcome};
use super::span::{Place, Span};
use super::waiters::{Told, Waiters};
use super::{Amount, Settled};

/// What is known of the readings of a record beside what they say. It outlives them.
#[derive(Debug)]
pub struct Tally {
    /// How many there are.
    readings: usize,
    /// Its number in the log, if one has it.
    seq: Option<u64>,
    /// The transform that made them.
    made_by: Option<Arc<str>>,
    accepted_at: Instant,
    /// Bytes that are given back when the last reading is settled.
    held_bytes: u64,
    unsettled: AtomicU64,
    /// Parts that are on their way to a node, or in a window.
    in_flight: AtomicU64,
    /// Parts that wait in memory for their turn.
    parked: AtomicU64,
    /// Whether some reading was given up.
    dropped: AtomicBool,
    /// Whether some reading could not be read.
    damaged: AtomicBool,
    /// Whether some reading was refused by a node.
    refused: AtomicBool,
    /// Told when all are settled. The lock is held for taking them out.
    waiters: Mutex<Waiters>,
}

/// What a [`Tally`] is made from.
#[derive(Debug)]
pub struct TallyParts {
    /// How many readings the record has.
    pub readings: usize,
    /// Its number in the log, if one has it.
    pub seq: Option<u64>,
    /// The transform that made them.
    pub made_by: Option<Arc<str>>,
    /// When they were accepted.
    pub accepted_at: Instant,
    /// Bytes that are given back when the last one is settled.
    pub held_bytes: u64,
    /// How many are still to be settled.
    pub unsettled: u64,
    /// Told when all are.
    pub waiters: Waiters,
}

impl Tally {
    /// Begins to count.
    pub fn new(parts: TallyParts) -> Tally {
        let TallyParts { readings, seq, made_by, accepted_at, held_bytes, unsettled, waiters } = parts;
        Tally {
            readings,
            seq,
            made_by,
            accepted_at,
            held_bytes,
            unsettled: AtomicU64::new(unsettled),
            in_flight: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            waiters: Mutex::new(waiters),
        }
    }

    /// The transform that made the readings.
    pub fn made_by(&self) -> Option<&str> {
        self.made_by.as_deref()
    }

    /// When they were accepted.
    pub fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    /// Takes `readings` off those that are not settled. With the last of them the record is [`Done`].
    pub fn settle(&self, readings: u64, outcome: Outcome) -> Option<Done> {
        match outcome {
            Outcome::Delivered { .. } | Outcome::Filtered { .. } | Outcome::Merged { .. } => {}
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
        (before == readings)
            .then(|| Done { bytes: self.held_bytes, told: self.take_waiters().settle(self.settled()) })
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

    /// Takes out whoever waits.
    pub fn take_waiters(&self) -> Waiters {
        std::mem::take(&mut *self.waiters.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The places in the log of readings with these indexes.
    ///
    /// # Panics
    ///
    /// If the record has more than `u32::MAX` readings; the bounds on a request's body allow no such thing.
    pub fn span(&self, indexes: Range<usize>) -> Option<Span> {
        let seq = self.seq.filter(|_| !indexes.is_empty())?;
        let place = |index| {
            let index = u32::try_from(index).expect("a request has fewer readings");
            Place { seq, index }
        };
        let is_last = indexes.end == self.readings;
        let to = if is_last { Place::start_of(seq + 1) } else { place(indexes.end) };
        Some(Span { from: place(indexes.start), to })
    }

    /// Notes that some readings are on their way to a node, or in a window. Returns what cannot be given up from now
    /// on: these readings, and with the first of a record also the record's bytes, which come back only with its last
    /// reading.
    pub fn depart(&self, readings: usize) -> Amount {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.amount_beside(others, readings)
    }

    /// Notes that they are not any more. Returns what can be given up again.
    pub fn come_back(&self, readings: usize) -> Amount {
        let others = self.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.amount_beside(others, readings)
    }

    /// What so many readings keep in flight when so many other parts of their record are.
    fn amount_beside(&self, others: u64, readings: usize) -> Amount {
        let bytes = if others == 0 { self.held_bytes } else { 0 };
        Amount { readings: readings as u64, bytes }
    }

    /// Notes that a part waits in memory. Returns the record's bytes if it is the first part of it that does.
    pub fn park(&self) -> u64 {
        if self.parked.fetch_add(1, Ordering::Relaxed) == 0 { self.held_bytes } else { 0 }
    }

    /// Notes that it waits no more. Returns the record's bytes if it was the last one.
    pub fn unpark(&self) -> u64 {
        if self.parked.fetch_sub(1, Ordering::Relaxed) == 1 { self.held_bytes } else { 0 }
    }

    /// Whether some of the readings are on their way to a node, or in a window.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Has whoever waits for these readings wait for those of another record, too.
    pub fn share_waiters(&self, sharers: &mut Waiters) {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).share_with(sharers);
    }
}

/// A record whose readings are all settled.
pub struct Done {
    /// The bytes that are given back.
    pub bytes: u64,
    /// Who is to be told.
    pub told: Told,
}
