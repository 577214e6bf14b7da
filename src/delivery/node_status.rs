//! What others may know of the nodes and of the delivery.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_transform::Stats;
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::latency::MeasuredLatency;
use crate::node_id::NodeId;

/// How a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// Its last answer was no failure, or nothing was sent to it yet.
    Up,
    /// It has failed and has not had success since, but not often enough yet to be down: it is still used.
    Failing,
    /// It is taken to be down, or it is no longer among the addresses of its name.
    Down,
}

impl NodeHealth {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            NodeHealth::Up => "up",
            NodeHealth::Failing => "failing",
            NodeHealth::Down => "down",
        }
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// What people should read.
    pub text: Arc<str>,
    /// When it was known.
    pub at: Instant,
}

/// What others may know of a node.
#[derive(Clone, Debug)]
pub struct ClusterNodeStatus {
    /// Its name.
    pub id: NodeId,
    /// Its address, without credentials.
    pub url: String,
    /// Whether batches may go there; otherwise it is no longer among the addresses of its name.
    pub present: bool,
    /// Whether it is taken to be up, and present; also while it fails and is not down yet.
    pub up: bool,
    /// Whether it has failed and has not had success since, be it down or not.
    pub failing: bool,
    /// What went wrong last; `None` since the last delivery.
    pub reason: Option<String>,
    /// What its breaker does.
    pub breaker: BreakerState,
    /// Whether it is left out because it is down.
    pub ejected: bool,
    /// Batches on their way to it.
    pub in_flight: usize,
    /// Batches that may be on their way to it at present.
    pub in_flight_limit: usize,
    /// What went wrong last, also if all is well since.
    pub last_error: Option<NodeFailure>,
    /// When the oldest reading was accepted that waits for this node alone.
    pub oldest_waiting: Option<Instant>,
    pub(super) measured: MeasuredLatency,
}

impl ClusterNodeStatus {
    /// How it does.
    pub fn state(&self) -> NodeHealth {
        match (self.up, self.failing) {
            (true, false) => NodeHealth::Up,
            (true, true) => NodeHealth::Failing,
            (false, _) => NodeHealth::Down,
        }
    }

    /// What its answers take, in seconds, as they were measured; `None` before the first.
    pub fn latency_seconds(&self) -> Option<f64> {
        self.measured.seconds()
    }

    /// How long the oldest reading has waited that waits for this node alone; nothing if there is none.
    pub fn oldest_waiting_age(&self, now: Instant) -> Duration {
        self.oldest_waiting.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest))
    }
}

/// What others may know of the delivery. The worker writes it, whoever asks reads it.
#[derive(Debug)]
pub struct DeliveryStatus {
    /// Held for a copy, never across an await. Who holds it may lock the accounts, not the other way round.
    view: Mutex<DeliveryState>,
}

#[derive(Debug)]
pub(super) struct DeliveryState {
    pub(super) nodes: Vec<ClusterNodeStatus>,
    oldest: Option<Instant>,
    needed: usize,
    transforms: Vec<TransformStatus>,
}

/// What others may know of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it counts and holds.
    pub stats: Stats,
}

impl DeliveryStatus {
    pub(super) fn new(nodes: Vec<ClusterNodeStatus>) -> DeliveryStatus {
        DeliveryStatus {
            view: Mutex::new(DeliveryState { nodes, oldest: None, needed: 1, transforms: Vec::new() }),
        }
    }

    /// The nodes, in the order of their indices.
    pub fn nodes(&self) -> Vec<ClusterNodeStatus> {
        self.lock().nodes.clone()
    }

    /// The nodes, and what `also` says at the same moment: no node comes or goes meanwhile.
    pub fn nodes_and<T>(&self, also: impl FnOnce() -> T) -> (Vec<ClusterNodeStatus>, T) {
        let view = self.lock();
        (view.nodes.clone(), also())
    }

    /// How long the oldest reading that is not settled has waited; nothing if there is none.
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

    /// How many nodes have to take each batch.
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
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_the_oldest_reading_is_seen() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let status = DeliveryStatus::new(Vec::new());
        assert_eq!(status.oldest_age(now), Duration::ZERO);
        status.set_oldest(Some(now));
        assert_eq!(status.oldest_age(now + second), second);
        status.set_oldest(None);
        assert_eq!(status.oldest_age(now + second), Duration::ZERO);
    }
}
