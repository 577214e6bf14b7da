//! Readings that become dead letters: those that nodes refuse one by one, and those that the format of the nodes cannot
//! hold. What is delivered of their batch is settled together with them, once their letters are on stable storage.

use std::collections::BTreeMap;

use forebay_codec::{Unwritable, write_reading};
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use forebay_stores::FailedItem;
use tokio::time::Instant;
use tracing::debug;

use super::Worker;
use super::pending::{Death, Pending, Refusal, State};
use crate::backoff::Backoff;
use crate::buffer::ledger::{DeadLetterReason, Outcome};
use crate::buffer::{Fate, Part};
use crate::delivery::DeadLetter;
use crate::delivery::batch::{BatchId, UnwritableReading};
use crate::delivery::dead_letter::LetterOrigin;
use crate::delivery::transport::AnswerVerdict;
use crate::node_id::NodeIndex;
use crate::tasks;

/// What became of the dead letters of a batch.
#[derive(Debug)]
pub(super) struct Buried {
    /// The number of the batch.
    number: BatchId,
    /// The key, by which a batch is told from another piece of it.
    key: String,
    kept: Result<(), String>,
}

impl Worker {
    /// Settles a batch that `node` has, or, if none of it can be sent, nobody: at once, or when the letters are written of
    /// the readings that were left out or refused.
    pub(super) fn settle_or_bury(&mut self, number: BatchId, node: Option<NodeIndex>, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        pending.delivered_to = node;
        pending.mark_unwritten();
        match pending.dead.is_empty() {
            true => self.settle(number, now),
            false => self.bury(number),
        }
    }

    /// Makes the only reading that a batch was sent with a dead letter, and those that it was sent without.
    pub(super) fn bury_refused(&mut self, number: BatchId, refusal: Refusal, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let reason = match refusal.verdict {
            AnswerVerdict::TooLarge => DeadLetterReason::TooLarge,
            AnswerVerdict::Refused
            | AnswerVerdict::Delivered
            | AnswerVerdict::Retry(_)
            | AnswerVerdict::Misconfigured => DeadLetterReason::Refused,
        };
        let Refusal { node, status, body, .. } = refusal;
        let death = Death { reason, node: Some(node), status, detail: body };
        pending.dead = BTreeMap::from([(pending.batch.place(0), death)]);
        self.settle_or_bury(number, None, now);
    }

    /// Goes on with batches that have nothing to be sent, and with letters that could not be written.
    pub(super) fn bury_due(&mut self, now: Instant) {
        let is_due = |pending: &Pending| match pending.state {
            State::Waiting { due } => {
                due <= now && pending.batch.written() == 0 && pending.flights.is_empty()
            }
            State::ToBury { due } => due <= now,
            State::Noting { .. } | State::Burying => false,
        };
        let due = self.batches.iter().filter(|(_, pending)| is_due(pending));
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            let delivered_to = self.batches.get(&number).and_then(|pending| pending.delivered_to);
            self.settle_or_bury(number, delivered_to, now);
        }
    }

    /// Writes readings of a batch down for people to look at.
    fn bury(&mut self, number: BatchId) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        if !matches!(pending.state, State::ToBury { .. }) {
            // They cannot be given up for newer ones any more, as if they were on their way.
            pending.batch.parts.iter().for_each(|part| self.in_flight += part.depart());
        }
        pending.state = State::Burying;
        let key = pending.batch.key.clone();
        let at = Timestamp::from_system(wall_time());
        // As they were accepted: one that is replayed goes through the transforms again.
        let readings = pending.batch.parts.iter().flat_map(Part::iter_as_accepted).enumerate();
        let dead = readings.filter_map(|(index, reading)| Some((index, reading, pending.dead.get(&index)?)));
        let letters: Vec<DeadLetter> = dead
            .map(|(index, reading, Death { reason, node, status, detail })| {
                let mut text = Vec::new();
                write_reading(reading, &mut text);
                let node = node.map_or_else(String::new, |node| self.nodes.get(node).id.to_string());
                let (reason, body) = (reason.name(), detail.clone());
                let origin = Some(LetterOrigin { batch: key.clone(), place: index as u64 });
                DeadLetter { reading: text, reason, status: *status, node, body, at, origin }
            })
            .collect();
        debug!(readings = letters.len(), "readings become dead letters");
        let dead_letters = self.dead_letters.clone();
        self.burying.spawn(async move {
            // It blocks on the disk.
            let write = move || dead_letters.append(&letters).map_err(|error| error.to_string());
            let done = tasks::unless_cancelled(tokio::task::spawn_blocking(write).await).await;
            Buried { number, key, kept: done.unwrap_or_else(|error| Err(error.to_string())) }
        });
    }

    /// The readings are settled once their letters are on stable storage. If they cannot be written, the readings stay in
    /// the buffer. What no node has of them is sent and refused again later; else only the letters are tried again.
    pub(super) fn on_buried(&mut self, Buried { number, key, kept }: Buried, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number).filter(|pending| pending.batch.key == key) else {
            return;
        };
        let waits_for_letters = pending.delivered_to.is_some() || pending.batch.written() == 0;
        if kept.is_ok() || !waits_for_letters {
            pending.batch.parts.iter().for_each(|part| self.in_flight -= part.come_back());
        }
        // Why they cannot be written is told by the gateway's log, which asks for it.
        if kept.is_ok() {
            return self.settle(number, now);
        }
        let (random, pause_max, draining) = (self.random.f64(), self.pause_max(), self.draining);
        let Some(pending) = self.batches.get_mut(&number) else { return };
        pending.batch.failures = pending.batch.failures.saturating_add(1);
        pending.is_unburied = draining;
        let Backoff { max, .. } = self.config.retry;
        let pause = self.config.retry.delay(pending.batch.failures, random).max(super::BURY_PAUSE.min(max));
        let pause = pause.min(pause_max);
        let due = now + pause;
        if waits_for_letters {
            pending.state = State::ToBury { due };
        } else {
            // Whoever refused it is asked again.
            pending.refused_by.clear();
            pending.dead.clear();
            pending.state = State::Waiting { due };
        }
    }
}

impl Pending {
    /// Notes which readings a node refuses that has the others.
    pub(super) fn mark_refused(&mut self, node: NodeIndex, refused: &[FailedItem]) {
        for FailedItem { index, status, detail, .. } in refused {
            let reason = DeadLetterReason::Refused;
            let death = Death { reason, node: Some(node), status: *status, detail: detail.clone() };
            self.dead.entry(self.batch.place(*index)).or_insert(death);
        }
    }

    /// Notes which readings no node ever gets.
    fn mark_unwritten(&mut self) {
        for UnwritableReading { index, why } in &self.batch.unwritten {
            let reason = match why {
                Unwritable::NotNumeric => DeadLetterReason::NotNumeric,
                Unwritable::NoSuchText(_) | Unwritable::SameTime => DeadLetterReason::Unwritable,
            };
            let death = Death { reason, node: None, status: 0, detail: why.to_string() };
            self.dead.insert(*index, death);
        }
    }

    /// Takes the readings out, and says what became of them.
    pub(super) fn fates(&mut self) -> Vec<Fate> {
        let parts = std::mem::take(&mut self.batch.parts);
        let outcome = |index: &usize| match (self.dead.get(index), self.delivered_to) {
            (Some(death), _) => Outcome::DeadLettered(death.reason),
            (None, Some(node)) => Outcome::Delivered { node },
            (None, None) => unreachable!("every reading that no node has becomes a dead letter"),
        };
        if self.dead.is_empty() {
            return vec![Fate::of(parts, outcome(&0))];
        }
        let mut fates: Vec<Fate> = Vec::new();
        let mut index = 0;
        for mut part in parts {
            while !part.is_empty() {
                let outcome_here = outcome(&index);
                let alike =
                    (index..index + part.len()).take_while(|index| outcome(index) == outcome_here).count();
                let front = part.split_first(alike);
                index += alike;
                match fates.iter_mut().find(|fate| fate.outcome == outcome_here) {
                    Some(fate) => fate.holds.push(front.into()),
                    None => fates.push(Fate::of(vec![front], outcome_here)),
                }
            }
        }
        fates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Hold;
    use crate::buffer::lease::{Record, RecordParts};
    use crate::buffer::tests::numbered;
    use crate::buffer::waiters::Waiters;
    use crate::delivery::batch::{Batch, Body};

    const REFUSED: DeadLetterReason = DeadLetterReason::Refused;

    /// A batch of three requests with the numbers 0 to 7; in the log a request has the number of its first reading.
    fn pending() -> Pending {
        let part = |numbers: std::ops::Range<i64>| {
            let seq = u64::try_from(numbers.start).ok();
            let (readings, accepted_at, held_bytes) = (numbered(numbers), Instant::now(), 0);
            Part::whole(Record::new(RecordParts {
                readings,
                seq,
                made_by: None,
                held_bytes,
                accepted_at,
                waiters: Waiters::default(),
            }))
        };
        let unwritten = vec![UnwritableReading { index: 3, why: Unwritable::NotNumeric }];
        let body = Body { bytes: bytes::Bytes::new(), unwritten };
        let batch =
            Batch::new(BatchId(0), "key".to_owned(), vec![part(0..3), part(3..4), part(4..8)], 8, body);
        Pending::new(batch, None, State::Burying)
    }

    fn refused(index: usize) -> FailedItem {
        FailedItem { index, status: 400, detail: "no".to_owned(), blame: None }
    }

    fn fates(mut pending: Pending) -> Vec<(Outcome, Vec<i64>)> {
        let numbers = |hold: &Hold| {
            let from = hold.span().expect("in the log").from;
            let first = i64::try_from(from.seq).expect("small") + i64::from(from.index);
            first..first + i64::try_from(hold.len()).expect("small")
        };
        let fates = pending.fates().into_iter();
        fates.map(|fate| (fate.outcome, fate.holds.iter().flat_map(numbers).collect())).collect()
    }

    #[test]
    fn each_reading_of_a_batch_meets_its_own_fate() {
        let delivered = Outcome::Delivered { node: NodeIndex(2) };
        let whole = Pending { delivered_to: Some(NodeIndex(2)), ..pending() };
        assert_eq!(fates(whole), [(delivered, (0..8).collect())]);

        let mut in_part = Pending { delivered_to: Some(NodeIndex(2)), ..pending() };
        in_part.mark_refused(NodeIndex(2), &[refused(0), refused(3), refused(6)]);
        in_part.mark_unwritten();
        assert_eq!(
            fates(in_part),
            [
                (Outcome::DeadLettered(REFUSED), vec![0, 4, 7]),
                (delivered, vec![1, 2, 5, 6]),
                (Outcome::DeadLettered(DeadLetterReason::NotNumeric), vec![3]),
            ]
        );

        let mut none = pending();
        none.mark_refused(NodeIndex(1), &(0..7).map(refused).collect::<Vec<_>>());
        none.mark_unwritten();
        let dead: Vec<_> = fates(none).into_iter().map(|(_, numbers)| numbers).collect();
        assert_eq!(dead, [vec![0, 1, 2, 4, 5, 6, 7], vec![3]]);
    }
}
