//! Copies that are still missing when enough nodes have a batch: they are tried for a while longer, then counted.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;

use super::{Sending, Worker};
use crate::delivery::batch::BatchId;
use crate::delivery::nodes::Attempt;
use crate::delivery::transport::{Answer, AnswerVerdict};
use crate::node_id::NodeIndex;
use crate::routing::Placement;

/// Most bytes of bodies that wait for their last copies. The oldest are given up for newer ones.
const STRAGGLER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most batches that wait for their last copies, likewise.
const STRAGGLERS_MAX: usize = 4096;
/// Missing copies that are tried to be placed in one turn without success.
const MISSES_MAX: usize = 16;

/// A batch whose readings are settled, and that some nodes still lack.
#[derive(Debug)]
pub(super) struct Straggler {
    body: Bytes,
    readings: usize,
    /// The nodes that have it.
    stored_on: Vec<NodeIndex>,
    flights: Vec<NodeIndex>,
    /// The nodes that do not want it.
    refused_by: Vec<NodeIndex>,
    failures: u32,
    due: Instant,
    give_up_at: Instant,
}

/// Why a copy is missing in the end.
#[derive(Clone, Copy, Debug)]
enum Missing {
    /// `straggler_timeout` is over.
    Timeout,
    /// Newer ones needed the room.
    Room,
    /// The node refuses the batch.
    Refused,
    /// The gateway stopped.
    Stopped,
}

impl Missing {
    fn name(self) -> &'static str {
        match self {
            Missing::Timeout => "timeout",
            Missing::Room => "room",
            Missing::Refused => "refused",
            Missing::Stopped => "stopped",
        }
    }
}

impl Straggler {
    fn may_go_to(&self, node: NodeIndex) -> bool {
        ![&self.stored_on, &self.flights, &self.refused_by].into_iter().any(|nodes| nodes.contains(&node))
    }
}

impl Worker {
    /// How many nodes are to have each batch.
    pub(super) fn copies(&self) -> usize {
        let present = self.nodes.present_count();
        match (self.placement, self.config.replicate.copies) {
            (Placement::Anywhere | Placement::ByDevice, _) => 1,
            (Placement::Copies, 0) => present.max(self.quorum()),
            (Placement::Copies, copies) => copies.min(present).max(self.quorum()),
        }
    }

    /// How many nodes are enough.
    pub(super) fn quorum(&self) -> usize {
        match self.placement {
            Placement::Anywhere | Placement::ByDevice => 1,
            Placement::Copies => self.config.replicate.quorum,
        }
    }

    /// Keeps the body of a batch that some nodes still lack.
    pub(super) fn keep_straggler(&mut self, number: BatchId, now: Instant) {
        let copies = self.copies();
        let Some(pending) = self.batches.get_mut(&number) else { return };
        if pending.stored_on.len() >= copies && pending.flights.is_empty() {
            return;
        }
        let straggler = Straggler {
            body: pending.batch.body.clone(),
            readings: pending.batch.written(),
            stored_on: std::mem::take(&mut pending.stored_on),
            flights: std::mem::take(&mut pending.flights),
            refused_by: std::mem::take(&mut pending.refused_by),
            failures: pending.batch.failures,
            due: pending.state.due().unwrap_or(now),
            give_up_at: now + self.config.replicate.straggler_timeout,
        };
        let key = pending.batch.key.clone();
        self.straggler_bytes += straggler.body.len();
        self.stragglers.insert(number, key.clone(), straggler);
        self.give_up_refused(&key);
        while self.straggler_bytes > STRAGGLER_BYTES_MAX || self.stragglers.0.len() > STRAGGLERS_MAX {
            let Some(key) = self.stragglers.oldest_idle() else { return };
            self.give_up(&key, Missing::Room);
        }
    }

    /// Sends missing copies that are due, and gives up those whose time is over.
    pub(super) fn dispatch_stragglers(&mut self, now: Instant) {
        if self.stragglers.0.is_empty() {
            return;
        }
        // Their time is over in their order.
        while let Some(key) = self.stragglers.oldest_idle() {
            if self.stragglers.get(&key).is_some_and(|straggler| straggler.give_up_at > now) {
                break;
            }
            self.give_up(&key, Missing::Timeout);
        }
        if self.has_only_stragglers() && self.draining {
            // Nobody waits for them, and the stop must not.
            return;
        }
        let copies = self.copies();
        let mut free = self.free_nodes(now);
        let mut misses = 0;
        for index in 0..self.stragglers.0.len() {
            if free.is_empty() || misses == MISSES_MAX {
                return;
            }
            let straggler = &self.stragglers.0[index].2;
            let is_wanted =
                straggler.due <= now && straggler.stored_on.len() + straggler.flights.len() < copies;
            // One that lacks only a node that is away must not hold up those that lack another.
            if !is_wanted || !free.iter().any(|node| straggler.may_go_to(*node)) {
                continue;
            }
            if self.send_straggler(index, now) {
                free = self.free_nodes(now);
            } else {
                misses += 1;
            }
        }
    }

    /// The nodes that may be sent something now.
    fn free_nodes(&self, now: Instant) -> Vec<NodeIndex> {
        let candidates = self.nodes.candidates(&[], Attempt::First, now);
        let mut free: Vec<NodeIndex> = candidates.into_iter().map(|candidate| candidate.node).collect();
        free.extend(self.nodes.present().filter(|node| self.nodes.is_trial_due(*node, now)));
        free
    }

    /// Sends a missing copy. Returns whether there was a node for it.
    fn send_straggler(&mut self, index: usize, now: Instant) -> bool {
        let (_, _, Straggler { stored_on, flights, refused_by, failures, .. }) = &self.stragglers.0[index];
        let not_there = [&stored_on[..], flights, refused_by].concat();
        let attempt = if *failures == 0 { Attempt::First } else { Attempt::Retry };
        let Some(node) = self.choose_any(&not_there, &[], attempt, now) else { return false };
        let (number, key, straggler) = &mut self.stragglers.0[index];
        straggler.flights.push(node);
        let (readings, body) = (straggler.readings, straggler.body.clone());
        let sending = Sending { number: *number, node, key: key.clone() };
        self.post(sending, readings, body, attempt, now);
        true
    }

    pub(super) fn on_straggler_answer(&mut self, key: &str, node: NodeIndex, answer: &Answer, now: Instant) {
        let (random, pause_max) = (self.random.f64(), self.pause_max());
        let Some(straggler) = self.stragglers.get_mut(key) else { return };
        straggler.flights.retain(|other| *other != node);
        match answer.verdict {
            AnswerVerdict::Delivered => straggler.stored_on.push(node),
            AnswerVerdict::Refused | AnswerVerdict::TooLarge => straggler.refused_by.push(node),
            AnswerVerdict::Retry(_) | AnswerVerdict::Misconfigured => {
                straggler.failures = straggler.failures.saturating_add(1);
                straggler.due = now + self.config.retry.delay(straggler.failures, random).min(pause_max);
            }
        }
        debug!(key, failures = straggler.failures, reason = answer.detail, "answer to a missing copy");
        self.give_up_refused(key);
    }

    /// Gives up copies if all nodes that do not refuse the batch have it.
    fn give_up_refused(&mut self, key: &str) {
        let Some(straggler) = self.stragglers.get(key) else { return };
        let left = self.nodes.present().filter(|node| !straggler.refused_by.contains(node)).count();
        if straggler.flights.is_empty() && straggler.stored_on.len() >= self.copies().min(left) {
            self.give_up(key, Missing::Refused);
        }
    }

    /// Forgets a batch; copies that are missing are counted.
    fn give_up(&mut self, key: &str, missing: Missing) {
        let Some(straggler) = self.stragglers.remove(key) else { return };
        self.straggler_bytes -= straggler.body.len();
        let copies = self.copies().saturating_sub(straggler.stored_on.len());
        if copies > 0 {
            debug!(key, copies, reason = missing.name(), "copies are missing");
            self.metrics.copies_missing.with_label_values(&[missing.name()]).inc_by(copies as u64);
        }
    }

    /// The gateway stops: copies that are missing are given up, also those on their way.
    pub(super) fn give_up_stragglers(&mut self) {
        while let Some((_, key, _)) = self.stragglers.0.first() {
            let key = key.clone();
            self.give_up(&key, Missing::Stopped);
        }
    }

    pub(super) fn hurry_stragglers(&mut self, now: Instant) {
        let soon = now + self.config.retry.delay(1, self.random.f64());
        self.stragglers.all_mut().for_each(|straggler| straggler.due = straggler.due.min(soon));
    }

    /// When something is to be done about them even if nothing happens.
    pub(super) fn straggler_alarm(&self, now: Instant) -> Option<Instant> {
        if self.stragglers.0.is_empty() {
            return None;
        }
        let next_change =
            self.nodes.next_change(now).unwrap_or(now + self.config.replicate.straggler_timeout);
        let next = |straggler: &Straggler| {
            // Due already: a place at a node is what it waits for.
            let try_at = if straggler.due > now { straggler.due } else { next_change };
            try_at.min(straggler.give_up_at)
        };
        let idle = self.stragglers.all().filter(|straggler| straggler.flights.is_empty());
        idle.map(next).map(|at| at.max(now + Duration::from_millis(1))).chain(self.leave_at).min()
    }
}

/// The stragglers by their keys, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Stragglers(Vec<(BatchId, String, Straggler)>);

impl Stragglers {
    fn insert(&mut self, number: BatchId, key: String, straggler: Straggler) {
        self.0.push((number, key, straggler));
    }

    fn get(&self, wanted: &str) -> Option<&Straggler> {
        self.0.iter().find(|(_, key, _)| key == wanted).map(|(.., straggler)| straggler)
    }

    fn get_mut(&mut self, wanted: &str) -> Option<&mut Straggler> {
        self.0.iter_mut().find(|(_, key, _)| key == wanted).map(|(.., straggler)| straggler)
    }

    fn remove(&mut self, wanted: &str) -> Option<Straggler> {
        let index = self.0.iter().position(|(_, key, _)| key == wanted)?;
        Some(self.0.remove(index).2)
    }

    fn all(&self) -> impl Iterator<Item = &Straggler> {
        self.0.iter().map(|(.., straggler)| straggler)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Straggler> {
        self.0.iter_mut().map(|(.., straggler)| straggler)
    }

    fn oldest_idle(&self) -> Option<String> {
        let idle = self.0.iter().find(|(.., straggler)| straggler.flights.is_empty());
        idle.map(|(_, key, _)| key.clone())
    }

    pub(super) fn are_on_their_way(&self) -> bool {
        self.all().any(|straggler| !straggler.flights.is_empty())
    }
}
