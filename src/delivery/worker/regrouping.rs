//! What follows when other nodes than before are to be used, for routes that give every device its own node.

use std::collections::VecDeque;

use crate::delivery::batch::BatchId;
use crate::delivery::shards::{Classes, Failover};
use crate::routing::Placement;

use super::Worker;
use super::pending::Pending;

impl Worker {
    /// Divides the devices among the nodes that are to be used now. What was gathered for others goes back, ahead of all
    /// that was pulled after it.
    ///
    /// Of a device, what goes back keeps its order: first come its batches, by their numbers; then the open batch and
    /// what is parked in its lane, for it has only one between two such changes. Where there is a log it is put into the
    /// log's order, which a start after a crash goes by, too. Batches that are on their way stay, and others that have to
    /// come after them wait for them. So does a batch that a node may have stored: it goes to another node as it is,
    /// because under other keys its readings could be stored twice when that one is used again.
    pub(super) fn regroup(&mut self) {
        let availability = self.nodes.availability();
        let is_news = std::mem::replace(&mut self.seen_availability, availability) != availability;
        if self.placement != Placement::ByDevice || !(std::mem::take(&mut self.must_regroup) || is_news) {
            return;
        }
        let homes = self.nodes.hashes();
        let mut targets = homes.clone();
        match self.config.shard.failover {
            Failover::Next => targets.retain(|(node, _)| !self.nodes.is_ejected(*node)),
            Failover::Wait => {}
        }
        let has_changed = self.shards.divide(homes, targets);
        self.place_the_unplaced();
        self.retarget();
        let back = self.misplaced();
        if !has_changed && back.is_empty() {
            return;
        }
        let mut parts = VecDeque::new();
        for number in back {
            parts.extend(self.take(number).into_iter().flat_map(Pending::into_parts));
        }
        parts.extend(self.lanes.take_all());
        parts.extend(self.pulled.drain(..));
        parts.make_contiguous().sort_by_key(|part| part.span().map(|span| span.from));
        self.pulled = parts;
        self.lanes.forget_unused();
    }

    /// Batches that were resumed when no node was known.
    fn place_the_unplaced(&mut self) {
        for pending in self.batches.values_mut().filter(|pending| pending.lane.is_none()) {
            let Some((lane, class)) = self.shards.lane_of_all(&pending.batch.parts) else { return };
            (pending.lane, pending.class) = (Some(lane), class);
            pending.counted_lane().into_iter().for_each(|lane| self.lanes.on_closed(lane));
        }
    }

    /// Batches that may be stored go to the next node of their first device.
    fn retarget(&mut self) {
        for pending in self.batches.values_mut().filter(|pending| pending.is_idle()) {
            let Some(old) = pending.lane.filter(|lane| !self.shards.is_target(lane.target)) else { continue };
            if !pending.batch.may_be_stored {
                continue;
            }
            let Some((new, _)) = self.shards.lane_of_all(&pending.batch.parts) else { return };
            if pending.counted_lane().is_some() {
                self.lanes.on_settled(old);
                self.lanes.on_closed(new);
            }
            pending.lane = Some(new);
        }
    }

    /// The batches whose node is not to be used, and those that would come before them now. One that a node may have
    /// stored stays: if an older one goes back, it was resumed, and what that one had goes before it once more.
    fn misplaced(&self) -> Vec<BatchId> {
        let mut back = Vec::new();
        let mut classes = Classes::default();
        let can_go_back = |pending: &Pending| pending.is_idle() && !pending.batch.may_be_stored;
        for (number, pending) in self.batches.iter().filter(|(_, pending)| can_go_back(pending)) {
            let is_misplaced = pending.lane.is_some_and(|lane| !self.shards.is_target(lane.target));
            if is_misplaced || classes.conflict(pending.class) {
                back.push(*number);
                classes.insert(pending.class);
            }
        }
        back
    }
}
