//! Batches that nodes refuse: halved until the readings stand alone that are refused, which become dead letters.
//!
//! The first half goes first, and the second one only when every reading of the first is settled: the readings of a
//! device stay in their order. For `k` readings that are refused among `n` it takes about `2 k log2 n` requests. Every
//! piece is a batch of its own, with its key, and is noted before it is sent.

use tokio::time::Instant;
use tracing::{debug, error};

use super::Worker;
use super::pending::{Noted, Pending, Piece, Refusal, State};
use crate::backoff::Backoff;
use crate::buffer::ledger::{DeadLetterReason, Outcome};
use crate::buffer::{Noting, Part};
use crate::codec::write_reading;
use crate::delivery::DeadLetter;
use crate::delivery::batch::Batch;
use crate::delivery::transport::{Answer, Verdict};
use crate::routing::Spread;
use crate::timestamp::Timestamp;

/// What became of a dead letter.
#[derive(Debug)]
pub(super) struct Buried {
    /// The batch that the reading is a piece of.
    number: u64,
    reason: DeadLetterReason,
    kept: Result<(), String>,
}

impl Worker {
    /// Notes that a node refuses a batch.
    pub(super) fn on_refused(&mut self, number: u64, node: usize, answer: &Answer) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let (verdict, status, body) =
            (answer.verdict, answer.status.unwrap_or_default(), answer.body.clone());
        let (id, readings) = (&self.nodes.get(node).id, pending.batch.readings);
        debug!(node = %id, readings, reason = answer.detail, "node refuses a batch");
        pending.refused_by.push(node);
        pending.refusal = Some(Refusal { node, verdict, status, body });
    }

    /// Does what follows from a refusal, once the batch is on its way to no other node: one that stores it after all
    /// must not get its pieces, too.
    pub(super) fn act_on_refusal(&mut self, number: u64, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        if !pending.flights.is_empty() {
            return;
        }
        let Some(refusal) = pending.refusal.take() else { return };
        if pending.batch.readings > 1 {
            self.split(number, now);
        } else if self.others_may_take(number) {
            // It is refused by that node only; enough others may have it.
        } else {
            self.bury(number, refusal);
        }
    }

    /// Whether enough nodes are left that have not refused a reading.
    fn others_may_take(&self, number: u64) -> bool {
        let Some(pending) = self.batches.get(&number) else { return false };
        let left = self.nodes.present().filter(|node| !pending.refused_by.contains(node)).count();
        self.spread == Spread::Copies && left >= self.quorum()
    }

    /// Nodes may have gone: where too few are left for a reading, those are asked again that refused it, and it becomes
    /// a dead letter if they still do.
    pub(super) fn ask_refusers_again(&mut self) {
        let is_refused = |pending: &Pending| pending.is_idle() && !pending.refused_by.is_empty();
        let refused = self.batches.iter().filter(|(_, pending)| is_refused(pending));
        for number in refused.map(|(number, _)| *number).collect::<Vec<_>>() {
            if !self.others_may_take(number)
                && let Some(pending) = self.batches.get_mut(&number)
            {
                pending.refused_by.clear();
            }
        }
    }

    fn split(&mut self, number: u64, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let half = pending.batch.readings / 2;
        let (first, second) = halves(std::mem::take(&mut pending.batch.parts), half);
        let key = self.lanes.new_key();
        let batch = self.lanes.rebatch(number, first);
        self.observe_batch(&batch);
        let state = self.note(&batch, now);
        let noted = match self.outlet.note(number, &key, &second) {
            Noting::NotNeeded => Noted::Done(None),
            Noting::UnderWay => Noted::UnderWay,
        };
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let stored_on = pending.stored_on.clone();
        pending.rest.push_front(Piece { key, parts: second, noted, stored_on });
        pending.batch = batch;
        (pending.note, pending.state) = (None, state);
        pending.refused_by.clear();
    }

    /// Makes the next piece of a batch the one whose turn it is. Returns whether there is one.
    pub(super) fn next_piece(&mut self, number: u64, now: Instant) -> bool {
        let next = self.batches.get_mut(&number).and_then(|pending| pending.rest.pop_front());
        let Some(Piece { key, parts, noted, stored_on }) = next else { return false };
        let batch = self.lanes.rebatch(number, parts);
        self.observe_batch(&batch);
        let Some(pending) = self.batches.get_mut(&number) else { return false };
        pending.batch = Batch { key, ..batch };
        (pending.state, pending.note) = match noted {
            Noted::UnderWay => (State::Noting { due: now }, None),
            Noted::Done(note) => (State::Waiting { due: now }, note),
        };
        pending.flights.clear();
        pending.refused_by.clear();
        pending.refusal = None;
        pending.stored_on = stored_on;
        true
    }

    /// Writes the only reading of a batch down for people to look at.
    fn bury(&mut self, number: u64, refusal: Refusal) {
        let Some(Pending { batch, state, .. }) = self.batches.get_mut(&number) else { return };
        let Some(reading) = batch.parts.iter().flat_map(Part::iter).next() else { return };
        let mut text = Vec::new();
        write_reading(reading, &mut text);
        *state = State::Burying;
        let reason = match refusal.verdict {
            Verdict::TooLarge => DeadLetterReason::TooLarge,
            Verdict::Refused | Verdict::Delivered | Verdict::Retry(_) | Verdict::Misconfigured => {
                DeadLetterReason::Refused
            }
        };
        let node = self.nodes.get(refusal.node).id.to_string();
        debug!(%node, status = refusal.status, reason = refusal.body, "reading becomes a dead letter");
        let (dead_letters, Refusal { status, body, .. }) = (self.dead_letters.clone(), refusal);
        self.burying.spawn(async move {
            // It blocks on the disk.
            let write = move || {
                let at = Timestamp::from_system(std::time::SystemTime::now());
                let letter = DeadLetter { reading: text, reason: reason.name(), status, node, body, at };
                dead_letters.append(&[letter]).map_err(|error| error.to_string())
            };
            let done = tokio::task::spawn_blocking(write).await;
            let kept = done.unwrap_or_else(|error| Err(error.to_string()));
            Buried { number, reason, kept }
        });
    }

    /// The reading is settled once its letter is on stable storage. If it cannot be written, the reading stays in the
    /// buffer, and is sent and refused again later.
    pub(super) fn on_buried(&mut self, Buried { number, reason, kept }: Buried, now: Instant) {
        match kept {
            Ok(()) => self.settle(number, Outcome::DeadLettered(reason), now),
            Err(reason) => {
                let is_told =
                    self.told_of_burying_trouble.is_some_and(|at| now < at + super::BURY_TELL_EVERY);
                if !is_told {
                    self.told_of_burying_trouble = Some(now);
                    error!(reason, "dead letters cannot be written; refused readings stay in the buffer");
                }
                let random = self.random.f64();
                let Some(Pending { batch, state, refused_by, .. }) = self.batches.get_mut(&number) else {
                    return;
                };
                // Whoever refused it is asked again.
                refused_by.clear();
                batch.failures = batch.failures.saturating_add(1);
                let Backoff { max, .. } = self.config.retry;
                let pause = self.config.retry.delay(batch.failures, random).max(super::BURY_PAUSE.min(max));
                *state = State::Waiting { due: now + pause };
            }
        }
    }
}

/// Cuts readings in two: the first `count`, and the rest.
fn halves(parts: Vec<Part>, count: usize) -> (Vec<Part>, Vec<Part>) {
    let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), count);
    for mut part in parts {
        let front = part.split_first(left);
        left -= front.len();
        first.extend(Some(front).filter(|part| !part.is_empty()));
        second.extend(Some(part).filter(|part| !part.is_empty()));
    }
    (first, second)
}
