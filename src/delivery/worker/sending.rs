//! From batches to nodes, and what follows from their answers.

use std::time::Duration;

use bytes::Bytes;
use forebay_stores::FailedItem;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;
use tracing::{debug, error};

use super::pending::{Pending, State};
use super::transforming::open_windows;
use super::{Sending, Worker};
use crate::buffer::span::Place;
use crate::delivery::batch::BatchId;
use crate::delivery::nodes::Attempt;
use crate::delivery::resumption::Epoch;
use crate::delivery::shards::{Class, Classes, LaneId};
use crate::delivery::transport::{Answer, AnswerVerdict, BatchRequest};
use crate::node_id::NodeIndex;
use crate::routing::Placement;

/// How far the readings have come that no stop had noted, for the batches that are resumed.
#[derive(Debug)]
pub(super) struct Gate {
    /// All that lie before this place are in lanes, or in batches.
    pub(super) batched_to: Place,
    /// What is in lanes, and when it goes at the earliest.
    pub(super) lanes: Vec<(Class, Epoch)>,
    /// A resumed batch that goes whatever is not in a lane: there is no room for more.
    pub(super) forced: Option<usize>,
}

impl Gate {
    /// Whether all is in batches that may have to go before the `nth` resumed one, which lies before `end`.
    fn is_open(&self, nth: usize, end: Place, class: Class) -> bool {
        let is_ahead = |(other, epoch): &(Class, Epoch)| epoch.is_before(nth) && other.conflicts(class);
        (self.batched_to >= end || self.forced == Some(nth)) && !self.lanes.iter().any(is_ahead)
    }
}

impl Worker {
    /// Sends what is due to nodes that have a free place, the oldest first.
    pub(super) fn dispatch(&mut self, now: Instant) {
        let copies = self.copies();
        for number in self.due(copies, now) {
            while self.batches.get(&number).is_some_and(|pending| pending.is_due(copies, now)) {
                match self.choose(number, now) {
                    Some(node) => self.send(number, node, now),
                    // Where any node will do, another batch would not find one either, unless this one needs a retry.
                    None if self.placement == Placement::Anywhere && self.is_first_try(number) => {
                        return;
                    }
                    None => break,
                }
            }
        }
    }

    /// The batches that may be sent, the oldest first: of those that may have readings of the same devices, one.
    fn due(&self, copies: usize, now: Instant) -> Vec<BatchId> {
        let mut older = Classes::default();
        let mut due = Vec::new();
        let gate = self.gate();
        let is_held = |pending: &Pending| {
            let (Some(gate), Some(nth)) = (&gate, pending.resumed) else { return false };
            !gate.is_open(nth, self.resumption.end(nth), pending.class)
        };
        for (number, pending) in &self.batches {
            if pending.is_due(copies, now) && !older.conflict(pending.class) && !is_held(pending) {
                due.push(*number);
            }
            older.insert(pending.class);
        }
        due
    }

    fn is_first_try(&self, number: BatchId) -> bool {
        self.batches.get(&number).is_some_and(|pending| pending.attempt() == Attempt::First)
    }

    /// The node for a batch; `None` if none has a free place.
    fn choose(&mut self, number: BatchId, now: Instant) -> Option<NodeIndex> {
        let pending = self.batches.get(&number)?;
        match self.placement {
            Placement::ByDevice => self.choose_target(pending, now),
            Placement::Anywhere | Placement::Copies => {
                let not_there = [&pending.flights[..], &pending.stored_on, &pending.refused_by].concat();
                let (tried, attempt) = (pending.batch.tried.clone(), pending.attempt());
                self.choose_any(&not_there, &tried, attempt, now)
            }
        }
    }

    /// The lane's own node, or the home of its devices where that is due for a trial.
    fn choose_target(&self, pending: &Pending, now: Instant) -> Option<NodeIndex> {
        let LaneId { home, target, .. } = pending.lane?;
        let due = [home, target].into_iter().find(|node| self.nodes.is_trial_due(*node, now));
        let is_free = || self.nodes.candidates(&[], pending.attempt(), now).iter().any(|c| c.node == target);
        due.or_else(|| is_free().then_some(target))
    }

    pub(super) fn choose_any(
        &mut self,
        not_there: &[NodeIndex],
        tried: &[NodeIndex],
        attempt: Attempt,
        now: Instant,
    ) -> Option<NodeIndex> {
        // Of the nodes that it may go to, some may be better than one where it was; if none is, that one is asked again.
        let others: Vec<NodeIndex> = self.nodes.present().filter(|node| !not_there.contains(node)).collect();
        let is_better = |node: &NodeIndex| !tried.contains(node) && !self.nodes.is_ejected(*node);
        let tried = if others.iter().any(is_better) { tried } else { &[] };
        let avoided = [tried, not_there].concat();
        let trial = self.nodes.trial(&avoided, now).or_else(|| self.nodes.trial(tried, now));
        if let Some(node) = trial.filter(|node| others.contains(node)) {
            return Some(node);
        }
        let mut candidates = self.nodes.candidates(tried, attempt, now);
        candidates.retain(|candidate| others.contains(&candidate.node));
        let mut ranking = Vec::with_capacity(candidates.len());
        let random = &mut self.random;
        self.config.route.rank(0, &candidates, &mut || random.f64(), &mut ranking);
        // Rather wait for a place at a node that is up than bother one that is down.
        let any_up = others.iter().any(|node| self.nodes.get(*node).breaker.is_closed());
        ranking.first().copied().filter(|node| !any_up || self.nodes.get(*node).breaker.is_closed())
    }

    fn send(&mut self, number: BatchId, node: NodeIndex, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        if pending.flights.is_empty() {
            pending.batch.parts.iter().for_each(|part| self.in_flight += part.depart());
        }
        pending.flights.push(node);
        let (key, attempt) = (pending.batch.key.clone(), pending.attempt());
        let (readings, body) = (pending.batch.written(), pending.batch.body.clone());
        self.post(Sending { number, node, key }, readings, body, attempt, now);
    }

    pub(super) fn post(
        &mut self,
        sending: Sending,
        readings: usize,
        body: Bytes,
        attempt: Attempt,
        now: Instant,
    ) {
        self.nodes.on_sent(sending.node, attempt, now);
        let node = self.nodes.get(sending.node);
        let (endpoint, key) = (node.endpoint.clone(), sending.key.clone());
        let parcel = BatchRequest { endpoint, key, readings, body };
        let transport = self.transport.clone();
        let task = self.sending.spawn(async move {
            let started = Instant::now();
            let answer = transport.send(parcel).await;
            (answer, started.elapsed())
        });
        self.tasks.insert(task.id(), sending);
    }

    pub(super) fn on_done(&mut self, done: Result<(Id, (Answer, Duration)), JoinError>) {
        let (id, answer, took) = match done {
            Ok((id, (answer, took))) => (id, answer, took),
            Err(error) => {
                error!(%error, "sending a batch failed inside the gateway");
                (error.id(), Answer::internal(error.to_string()), Duration::ZERO)
            }
        };
        let Some(Sending { number, node, key }) = self.tasks.remove(&id) else { return };
        let now = Instant::now();
        self.count(node, answer.verdict, took);
        let pause_max = self.pause_max();
        if self.nodes.on_answer(node, &answer, took, now, pause_max) {
            self.hurry(now);
        }
        // Once a batch is settled, or its dead letters are being written, other copies of it are stragglers.
        let is_awaited = |pending: &Pending| pending.batch.key == key && pending.flights.contains(&node);
        if self.batches.get(&number).is_some_and(is_awaited) {
            self.on_answer(number, node, &answer, now);
        } else {
            self.on_straggler_answer(&key, node, &answer, now);
        }
        // What is not on its way any more can be given up again, and less may be missing.
        self.evict();
    }

    fn on_answer(&mut self, number: BatchId, node: NodeIndex, answer: &Answer, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        pending.flights.retain(|other| *other != node);
        if pending.flights.is_empty() {
            pending.batch.parts.iter().for_each(|part| self.in_flight -= part.come_back());
        }
        match answer.verdict {
            AnswerVerdict::Delivered => self.on_delivered(number, node, &answer.refused, now),
            AnswerVerdict::Refused | AnswerVerdict::TooLarge => self.on_refused(number, node, answer),
            AnswerVerdict::Retry(_) | AnswerVerdict::Misconfigured => {
                self.try_again(number, node, answer, now)
            }
        }
        self.act_on_refusal(number, now);
    }

    fn count(&self, node: NodeIndex, verdict: AnswerVerdict, took: Duration) {
        let node = self.nodes.get(node).id.as_str();
        self.metrics.batches.with_label_values(&[node, verdict.name()]).inc();
        self.metrics.delivery_seconds.with_label_values(&[node]).observe(took.as_secs_f64());
        match verdict {
            AnswerVerdict::Retry(_) | AnswerVerdict::Misconfigured => {
                self.metrics.retries.with_label_values(&[node, verdict.reason()]).inc();
            }
            AnswerVerdict::Delivered | AnswerVerdict::Refused | AnswerVerdict::TooLarge => {}
        }
    }

    /// One more node has it, but for what it refuses. When enough have, its readings are settled; what is still missing is
    /// a straggler then.
    fn on_delivered(&mut self, number: BatchId, node: NodeIndex, refused: &[FailedItem], now: Instant) {
        let quorum = self.quorum();
        let Some(pending) = self.batches.get_mut(&number) else { return };
        pending.mark_refused(node, refused);
        pending.stored_on.push(node);
        pending.batch.may_be_stored = true;
        if pending.stored_on.len() < quorum {
            return;
        }
        if !pending.flights.is_empty() {
            pending.batch.parts.iter().for_each(|part| self.in_flight -= part.come_back());
        }
        let (readings, failures) = (pending.batch.readings, pending.batch.failures);
        debug!(node = %self.nodes.get(node).id, readings, failures, "batch delivered");
        self.keep_straggler(number, now);
        self.settle_or_bury(number, Some(node), now);
    }

    /// Settles the batch, or the piece of it whose turn it was, and goes on with the next piece.
    pub(super) fn settle(&mut self, number: BatchId, now: Instant) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let windows = open_windows(&pending.batch.parts);
        let (fates, note) = (pending.fates(), pending.note);
        self.settle_or_keep(fates, note, windows, now);
        if !self.next_piece(number, now) {
            self.take(number);
        }
    }

    /// A node is back: what waits need not wait for its whole delay.
    fn hurry(&mut self, now: Instant) {
        for pending in self.batches.values_mut() {
            let soon = now + self.config.retry.delay(1, self.random.f64());
            if let Some(due) = pending.state.due_mut() {
                *due = soon.min(*due);
            }
        }
        self.hurry_stragglers(now);
    }

    fn try_again(&mut self, number: BatchId, node: NodeIndex, answer: &Answer, now: Instant) {
        let all_nodes = self.nodes.present_count();
        let random = self.random.f64();
        let pause_max = self.pause_max();
        let Some(Pending { batch, state, .. }) = self.batches.get_mut(&number) else { return };
        batch.failures = batch.failures.saturating_add(1);
        batch.tried.push(node);
        if batch.tried.len() >= all_nodes {
            // Every node had its turn. The last one is still not the first to be asked again.
            batch.tried = vec![node];
        }
        let delay = self.config.retry.delay(batch.failures, random).min(pause_max);
        *state = State::Waiting { due: now + delay };
        batch.may_be_stored |= answer.is_stored_in_part;
        if let AnswerVerdict::Retry(reason) = answer.verdict {
            batch.may_be_stored |= reason.may_be_stored();
        }
        let (id, failures) = (&self.nodes.get(node).id, batch.failures);
        debug!(node = %id, failures, retry_in = ?delay, reason = answer.detail, "batch not delivered");
        // The node may be out of use by now, and the readings go elsewhere.
        self.must_regroup |= self.placement == Placement::ByDevice;
    }
}
