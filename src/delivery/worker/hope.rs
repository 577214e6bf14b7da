//! Whether a stop has anything to wait for.
//!
//! Where the buffer keeps what is left, a stop goes on only while something that waits could still be delivered or
//! become a dead letter. That is asked of each batch by itself, because nodes that are up help only the batches that
//! may go to them: with `replicate` a batch needs as many as its quorum, with `shard` it needs the node of its devices.

use tokio::time::Instant;

use super::pending::{Pending, State};
use super::{HOPELESS_MAX, Worker};
use crate::delivery::lanes::Urgency;
use crate::delivery::shards::{Classes, Failover, LaneId};
use crate::node_id::NodeIndex;
use crate::routing::Placement;

impl Worker {
    /// Whether a stop need not go on: for a while nothing that waits could get on, and it is sent after the next start.
    pub(super) fn is_hopeless(&mut self, now: Instant) -> bool {
        if !self.draining || !self.outlet.keeps_all() || self.has_hope() {
            self.hopeless_since = None;
            return false;
        }
        *self.hopeless_since.get_or_insert(now) + HOPELESS_MAX <= now
    }

    /// Why it need not, for people.
    pub(super) fn why_hopeless(&self) -> &'static str {
        match self.nodes_that_take().next() {
            None => "no node is up; what is not delivered is kept for the next start",
            Some(_) => {
                "too few of the right nodes are up, or dead letters cannot be written; what is not delivered is kept \
                 for the next start"
            }
        }
    }

    fn has_hope(&self) -> bool {
        if self.exhausted && self.has_only_stragglers() {
            // All that is left are the last results of transforms, and copies on their way.
            return self.nodes_that_take().next().is_some();
        }
        let mut stuck = Classes::default();
        for pending in self.batches.values() {
            if !stuck.conflict(pending.class) && self.may_get_on(pending) {
                return true;
            }
            // Batches that may have readings of the same devices wait for it.
            stuck.insert(pending.class);
        }
        self.may_open_lanes_get_on(&stuck) || self.may_unbatched_get_on()
    }

    fn nodes_that_take(&self) -> impl Iterator<Item = NodeIndex> {
        self.nodes.present().filter(|node| self.nodes.may_take(*node))
    }

    /// Whether a batch could be delivered or become dead letters, if no older batch held it up.
    fn may_get_on(&self, pending: &Pending) -> bool {
        let is_writing = match pending.state {
            State::Burying | State::ToBury { .. } => true,
            State::Noting { .. } | State::Waiting { .. } => pending.batch.written() == 0,
        };
        if is_writing {
            return !pending.is_unburied && self.dead_letters.trouble().is_none();
        }
        if pending.is_unburied {
            return false;
        }
        if pending.refusal.is_some() {
            // What follows from the refusal is done when the other nodes have answered.
            return pending.flights.iter().any(|node| self.nodes.may_take(*node));
        }
        match self.placement {
            Placement::ByDevice => pending.lane.is_some_and(|lane| self.may_lane_be_taken(lane)),
            Placement::Anywhere | Placement::Copies => {
                let has_answered =
                    |node: &NodeIndex| pending.stored_on.contains(node) || pending.refused_by.contains(node);
                let others = self.nodes_that_take().filter(|node| !has_answered(node)).count();
                others + pending.stored_on.len() >= self.quorum()
            }
        }
    }

    /// Whether the node of a lane may take a batch; or another one, which its devices go to if theirs is down.
    fn may_lane_be_taken(&self, LaneId { target, .. }: LaneId) -> bool {
        let may_move = match self.config.shard.failover {
            // One that is down and is not ejected stays the one that its devices go to.
            Failover::Next => self.nodes.is_ejected(target) || self.nodes.get(target).breaker.is_closed(),
            Failover::Wait => false,
        };
        self.nodes.may_take(target) || may_move && self.nodes_that_take().next().is_some()
    }

    /// Whether open batches could be closed, and sent.
    fn may_open_lanes_get_on(&self, stuck: &Classes) -> bool {
        self.lanes.epochs().any(|(lane, _)| {
            self.has_room(lane)
                && match self.placement {
                    Placement::ByDevice => {
                        !stuck.conflict(self.shards.class(lane)) && self.may_lane_be_taken(lane)
                    }
                    Placement::Anywhere | Placement::Copies => {
                        self.nodes_that_take().count() >= self.quorum()
                    }
                }
        })
    }

    /// Whether readings that are in no batch yet could come into one: then it is known where they go.
    fn may_unbatched_get_on(&self) -> bool {
        let is_deriving =
            !self.deriving.is_empty() || !self.to_derive.is_empty() || self.transforms.has_results();
        let has_any = !self.pulled.is_empty() || !self.is_transformed() || self.wants_more() || is_deriving;
        has_any && self.has_room_for_pulled() && self.nodes_that_take().count() >= self.quorum()
    }

    fn has_room_for_pulled(&self) -> bool {
        match self.placement {
            Placement::Anywhere | Placement::Copies => self.has_place(),
            Placement::ByDevice => {
                let front = self.pulled.front().and_then(|part| part.span());
                let is_last = front.is_none_or(|span| self.resumption.is_behind(span.from));
                !self.lanes.is_full(if is_last { Urgency::Normal } else { Urgency::BeforeResumed })
            }
        }
    }
}
