//! Batches that nodes refuse: halved until the readings stand alone that are refused, which become dead letters.
//!
//! The first half goes first, and the second one only when every reading of the first is settled: the readings of a
//! device stay in their order. For `k` readings that are refused among `n` it takes about `2 k log2 n` requests. Every
//! piece is a batch of its own, with its key, and is noted before it is sent.

use tokio::time::Instant;
use tracing::debug;

use super::Worker;
use super::pending::{Noted, Pending, Piece, Refusal, State};
use crate::buffer::{Noting, Part};
use crate::delivery::batch::BatchId;
use crate::delivery::transport::Answer;
use crate::node_id::NodeIndex;
use crate::routing::Placement;

impl Worker {
    /// Notes that a node refuses a batch.
    pub(super) fn on_refused(&mut self, number: BatchId, node: NodeIndex, answer: &Answer) {
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
    pub(super) fn act_on_refusal(&mut self, number: BatchId, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        if !pending.flights.is_empty() {
            return;
        }
        let Some(refusal) = pending.refusal.take() else { return };
        if pending.batch.written() > 1 {
            self.split(number, now);
        } else if self.others_may_take(number) {
            // It is refused by that node only; enough others may have it.
        } else {
            self.bury_refused(number, refusal, now);
        }
    }

    /// Whether enough nodes are left that have not refused a reading.
    fn others_may_take(&self, number: BatchId) -> bool {
        let Some(pending) = self.batches.get(&number) else { return false };
        let left = self.nodes.present().filter(|node| !pending.refused_by.contains(node)).count();
        self.placement == Placement::Copies && left >= self.quorum()
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

    fn split(&mut self, number: BatchId, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let half = pending.batch.readings / 2;
        let (first, second) = halves(std::mem::take(&mut pending.batch.parts), half);
        let key = self.lanes.new_key();
        let batch = self.lanes.rebatch(number, first);
        self.observe_batch(&batch);
        let state = self.note(&batch, now);
        let noted = match self.outlet.note(number.0, &key, &second) {
            Noting::NotNeeded => Noted::Done(None),
            Noting::UnderWay => Noted::UnderWay,
        };
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let stored_on = pending.stored_on.clone();
        // What nodes refuse that have the rest of the batch is known by its place.
        let dead =
            pending.dead.split_off(&half).into_iter().map(|(place, death)| (place - half, death)).collect();
        pending.rest.push_front(Piece { key, parts: second, noted, stored_on, dead });
        pending.batch = batch;
        (pending.note, pending.state) = (None, state);
        pending.refused_by.clear();
    }

    /// Makes the next piece of a batch the one whose turn it is. Returns whether there is one.
    pub(super) fn next_piece(&mut self, number: BatchId, now: Instant) -> bool {
        let next = self.batches.get_mut(&number).and_then(|pending| pending.rest.pop_front());
        let Some(Piece { key, parts, noted, stored_on, dead }) = next else { return false };
        let batch = self.lanes.piece(number, key, parts);
        self.observe_batch(&batch);
        let Some(pending) = self.batches.get_mut(&number) else { return false };
        pending.batch = batch;
        (pending.state, pending.note) = match noted {
            Noted::UnderWay => (State::Noting { due: now }, None),
            Noted::Done(note) => (State::Waiting { due: now }, note),
        };
        pending.flights.clear();
        pending.refused_by.clear();
        (pending.refusal, pending.is_unburied) = (None, false);
        (pending.dead, pending.delivered_to) = (dead, None);
        pending.stored_on = stored_on;
        true
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
