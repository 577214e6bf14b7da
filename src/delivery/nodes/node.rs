//! One node of the cluster: its address, its policies, and its status for other modules.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::NodesConfig;
use crate::delivery::breaker::{Breaker, BreakerState};
use crate::delivery::budget::Budget;
use crate::delivery::latency::{Latency, MeasuredLatency};
use crate::delivery::limit::InFlightLimit;
use crate::delivery::node_status::{ClusterNodeStatus, NodeFailure};
use crate::delivery::source::{Endpoint, EndpointKey};
use crate::node_id::NodeId;
use crate::routing::shard::name_hash;

/// The reason shown for a node that is no longer present.
const GONE: &str = "gone: no longer among the addresses of its name";

/// One node of the cluster.
#[derive(Debug)]
pub(in crate::delivery) struct ClusterNode {
    pub(in crate::delivery) id: NodeId,
    pub(in crate::delivery) endpoint: Endpoint,
    /// What tells it from all other nodes.
    pub(super) key: EndpointKey,
    /// The hash of the key, for rendezvous hashing.
    pub(super) hash: u64,
    /// The entries of `cluster.nodes` that list the node now; without any, it is not present.
    pub(super) sources: BTreeSet<usize>,
    /// Position in the order in which nodes left.
    pub(super) gone_since: u64,
    pub(in crate::delivery) in_flight: usize,
    pub(in crate::delivery) breaker: Breaker,
    pub(in crate::delivery) latency: Latency,
    /// The latency that people see.
    pub(in crate::delivery) measured: MeasuredLatency,
    pub(in crate::delivery) limit: InFlightLimit,
    pub(super) budget: Budget,
    /// End of the wait that the node asked for with `Retry-After`.
    pub(super) not_before: Option<Instant>,
    /// Position in the order in which nodes went down.
    pub(super) down_since: u64,
    pub(in crate::delivery) is_ejected: bool,
    pub(in crate::delivery) last_error: Option<NodeFailure>,
    /// Whether the last error is newer than the last delivery.
    pub(in crate::delivery) has_trouble: bool,
}

impl ClusterNode {
    pub(super) fn new(
        id: NodeId,
        endpoint: Endpoint,
        source: usize,
        config: &NodesConfig,
        now: Instant,
    ) -> ClusterNode {
        let key = endpoint.key();
        ClusterNode {
            id,
            hash: match &key {
                (address, Some(name)) => name_hash(format!("{name} at {address}")),
                (address, None) => name_hash(address),
            },
            key,
            endpoint,
            sources: BTreeSet::from([source]),
            gone_since: 0,
            in_flight: 0,
            breaker: Breaker::new(config.health, now),
            latency: Latency::new(now),
            measured: MeasuredLatency::default(),
            limit: InFlightLimit::new(config.max_in_flight),
            budget: Budget::new(now),
            not_before: None,
            down_since: 0,
            is_ejected: false,
            last_error: None,
            has_trouble: false,
        }
    }

    /// The status of a new node.
    pub(super) fn status(&self) -> ClusterNodeStatus {
        let mut status = ClusterNodeStatus {
            id: self.id.clone(),
            url: self.key.0.clone(),
            present: true,
            up: true,
            failing: false,
            reason: None,
            breaker: BreakerState::Closed,
            ejected: false,
            in_flight: 0,
            in_flight_limit: 0,
            last_error: None,
            oldest_waiting: None,
            measured: self.measured,
        };
        self.show(&mut status);
        status
    }

    /// Copies the parts that change into the status.
    pub(super) fn show(&self, status: &mut ClusterNodeStatus) {
        status.present = self.is_present();
        status.up = self.is_present() && self.breaker.is_closed();
        status.breaker = self.breaker.state();
        status.ejected = self.is_ejected;
        status.in_flight = self.in_flight;
        status.in_flight_limit = self.limit.get();
        status.measured = self.measured;
        status.failing = self.is_present() && self.breaker.failures() > 0;
        status.last_error.clone_from(&self.last_error);
        let failure = self.last_error.as_ref().filter(|_| self.has_trouble);
        status.reason = if self.is_present() {
            failure.map(|failure| failure.text.to_string())
        } else {
            Some(GONE.to_owned())
        };
    }

    /// Whether the settings or a name list the node now, so that it may get batches.
    pub(in crate::delivery) fn is_present(&self) -> bool {
        !self.sources.is_empty()
    }

    pub(super) fn is_left_alone(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|until| until > now)
    }

    /// When the next trial is due; `None` without one, or while a batch is in flight.
    pub(super) fn trial_at(&self) -> Option<Instant> {
        let at = self.breaker.trial_at().filter(|_| self.in_flight == 0);
        at.map(|at| self.not_before.map_or(at, |until| until.max(at)))
    }
}
