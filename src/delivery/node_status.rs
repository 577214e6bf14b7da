//! The status of the nodes and of the delivery, for other modules.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_transform::Stats;
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::latency::MeasuredLatency;
use crate::node_id::NodeId;

/// The health of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// The last answer was not a failure, or there was none yet.
    Up,
    /// The node has failed since its last success, but too seldom to be down: it is still used.
    Failing,
    /// The breaker is not closed, or the address is gone from the node's DNS name.
    Down,
}

impl NodeHealth {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            NodeHealth::Up => "up",
            NodeHealth::Failing => "failing",
            NodeHealth::Down => "down",
        }
    }
}

/// A failure of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// The description for people, without secrets.
    pub text: Arc<str>,
    /// When the failure was noticed.
    pub at: Instant,
}

/// The status of one node.
#[derive(Clone, Debug)]
pub struct ClusterNodeStatus {
    /// The node's name.
    pub id: NodeId,
    /// The address, without credentials.
    pub url: String,
    /// Whether the node is still configured; `false` once its address is gone from its DNS name.
    pub present: bool,
    /// Whether the node is present and its breaker closed; also `true` while it is failing but not down.
    pub up: bool,
    /// Whether the node has failed since its last success, down or not.
    pub failing: bool,
    /// The last failure since the last delivery, or why the node is not present.
    pub reason: Option<String>,
    /// The state of the breaker.
    pub breaker: BreakerState,
    /// Whether the node gets nothing but trials because it is down.
    pub ejected: bool,
    /// Batches in flight to this node.
    pub in_flight: usize,
    /// The present limit for batches in flight.
    pub in_flight_limit: usize,
    /// The last failure, even if deliveries followed it.
    pub last_error: Option<NodeFailure>,
    /// When the oldest reading that waits for this node alone was accepted.
    pub oldest_waiting: Option<Instant>,
    pub(super) measured: MeasuredLatency,
}

impl ClusterNodeStatus {
    /// The health of the node.
    pub fn health(&self) -> NodeHealth {
        match (self.up, self.failing) {
            (true, false) => NodeHealth::Up,
            (true, true) => NodeHealth::Failing,
            (false, _) => NodeHealth::Down,
        }
    }

    /// The average latency of answers, in seconds; `None` before the first.
    pub fn latency_seconds(&self) -> Option<f64> {
        self.measured.seconds()
    }

    /// The age of the oldest reading that waits for this node alone; zero without such a reading.
    pub fn oldest_waiting_age(&self, now: Instant) -> Duration {
        self.oldest_waiting.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest))
    }
}

/// The status of the delivery: written by the worker, read by any other module.
#[derive(Debug)]
pub struct DeliveryStatus {
    /// Locked for a copy, never across an await. The accounts may be locked while this lock is held, not the reverse.
    state: Mutex<DeliveryState>,
}

#[derive(Debug)]
pub(super) struct DeliveryState {
    pub(super) nodes: Vec<ClusterNodeStatus>,
    oldest: Option<Instant>,
    needed: usize,
    transforms: Vec<TransformStatus>,
}

/// The status of one transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformStatus {
    /// The transform's name.
    pub name: Arc<str>,
    /// Its counters and the readings that it holds.
    pub stats: Stats,
}

impl DeliveryStatus {
    pub(super) fn new(nodes: Vec<ClusterNodeStatus>) -> DeliveryStatus {
        DeliveryStatus {
            state: Mutex::new(DeliveryState { nodes, oldest: None, needed: 1, transforms: Vec::new() }),
        }
    }

    /// The nodes, in the order of their indices.
    pub fn nodes(&self) -> Vec<ClusterNodeStatus> {
        self.lock().nodes.clone()
    }

    /// The nodes, and the result of `also` at the same moment: the set of nodes does not change meanwhile.
    pub fn nodes_and<T>(&self, also: impl FnOnce() -> T) -> (Vec<ClusterNodeStatus>, T) {
        let state = self.lock();
        (state.nodes.clone(), also())
    }

    /// The age of the oldest unsettled reading; zero without such a reading.
    pub fn oldest_age(&self, now: Instant) -> Duration {
        self.lock().oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest))
    }

    /// The transforms, in their order.
    pub fn transforms(&self) -> Vec<TransformStatus> {
        self.lock().transforms.clone()
    }

    pub(super) fn set_transforms(&self, transforms: Vec<TransformStatus>) {
        self.lock().transforms = transforms;
    }

    /// How many nodes must store each batch.
    pub fn needed(&self) -> usize {
        self.lock().needed
    }

    pub(super) fn set_needed(&self, nodes: usize) {
        self.lock().needed = nodes;
    }

    pub(super) fn set_oldest(&self, oldest: Option<Instant>) {
        self.lock().oldest = oldest;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_the_oldest_reading_is_shown() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let status = DeliveryStatus::new(Vec::new());
        assert_eq!(status.oldest_age(now), Duration::ZERO);
        status.set_oldest(Some(now));
        assert_eq!(status.oldest_age(now + second), second);
        status.set_oldest(None);
        assert_eq!(status.oldest_age(now + second), Duration::ZERO);
    }
}
