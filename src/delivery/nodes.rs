//! The nodes of the cluster: which of them may get a batch now, and what an answer changes.
//!
//! Policies for a single node have their own files: [`super::breaker`] (up or down), [`super::limit`] (batches in flight),
//! [`super::budget`] (retries), [`super::latency`] (cost). Here is the policy for all nodes together: a node that is down is
//! ejected, so that it gets nothing but trials. At most the share `cluster.health.max_ejected` of the nodes is ejected. Nodes
//! that are down beyond that share stay in use, ranked after all others.

mod addresses;
mod node;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::breaker::{BreakerChange, HealthConfig};
use super::latency::Latency;
use super::node_status::{DeliveryStatus, NodeFailure};
use super::source::{Endpoint, NodeSource};
use super::transport::{Answer, AnswerVerdict};
use crate::node_id::{NodeId, NodeIndex};
use crate::routing::Candidate;

pub use addresses::NODES_MAX;
use node::ClusterNode;

/// Tolerance for a product of doubles that comes out just below a whole number.
const ROUNDING: f64 = 1e-9;

/// The settings of the policies for nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodesConfig {
    /// When a node is down.
    pub(super) health: HealthConfig,
    /// Most batches in flight to one node.
    pub(super) max_in_flight: usize,
    /// The least latency that a failure counts as in the cost of a node.
    pub(super) timeout: Duration,
}

/// Whether a batch was sent before, to any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The batch is sent for the first time.
    First,
    /// The batch was sent before: each node's budget limits these.
    Retry,
}

/// All nodes of the cluster. A node keeps its index while it is present or has a batch in flight.
#[derive(Debug)]
pub(super) struct ClusterNodes {
    config: NodesConfig,
    /// The entries of `cluster.nodes`.
    sources: Vec<NodeSource>,
    nodes: Vec<ClusterNode>,
    status: Arc<DeliveryStatus>,
    availability: u64,
    /// The nodes that were present and not ejected at the last decision.
    usable: Vec<NodeIndex>,
    /// How many times a node has left so far.
    went: u64,
    /// Whether a node was turned away because of [`NODES_MAX`].
    is_full: bool,
    /// How many times a node has gone down so far.
    went_down: u64,
    /// Whether the gateway stops, so that retries no longer need the budget.
    is_draining: bool,
}

impl ClusterNodes {
    /// Starts with the nodes that have fixed addresses. Nodes behind DNS names are added by
    /// [`ClusterNodes::set_addresses`].
    pub(super) fn new(sources: &[NodeSource], config: NodesConfig, now: Instant) -> ClusterNodes {
        let fixed = sources.iter().enumerate().filter_map(|(source, entry)| match entry {
            NodeSource::Address(url) => Some((source, url.clone())),
            NodeSource::Name(_) => None,
        });
        let (indices, urls): (Vec<usize>, Vec<Url>) = fixed.unzip();
        let ids = NodeId::for_urls(&urls);
        let endpoints = urls.into_iter().map(Endpoint::at);
        let nodes = ids.into_iter().zip(endpoints).zip(indices);
        let nodes: Vec<ClusterNode> = nodes
            .map(|((id, endpoint), source)| ClusterNode::new(id, endpoint, source, &config, now))
            .collect();
        ClusterNodes {
            config,
            sources: sources.to_vec(),
            status: Arc::new(DeliveryStatus::new(nodes.iter().map(ClusterNode::status).collect())),
            availability: 0,
            usable: (0..nodes.len()).map(NodeIndex).collect(),
            nodes,
            went: 0,
            is_full: false,
            went_down: 0,
            is_draining: false,
        }
    }

    pub(super) fn status(&self) -> &Arc<DeliveryStatus> {
        &self.status
    }

    pub(super) fn get(&self, node: NodeIndex) -> &ClusterNode {
        &self.nodes[node.0]
    }

    /// The indices of the nodes that are present.
    pub(super) fn present(&self) -> impl Iterator<Item = NodeIndex> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_present()).map(|(index, _)| NodeIndex(index))
    }

    /// The nodes that are present, with the hashes of their addresses.
    pub(super) fn hashes(&self) -> Vec<(NodeIndex, u64)> {
        self.present().map(|node| (node, self.get(node).hash)).collect()
    }

    pub(super) fn present_count(&self) -> usize {
        self.present().count()
    }

    /// Whether a node may soon take a batch: it is up, and its last answer was not a failure or another one is pending.
    pub(super) fn may_take(&self, node: NodeIndex) -> bool {
        let node = self.get(node);
        let is_hopeful = node.breaker.failures() == 0 || node.in_flight > 0;
        node.is_present() && node.breaker.is_closed() && is_hopeful
    }

    /// Whether the node gets nothing but trials.
    pub(super) fn is_ejected(&self, node: NodeIndex) -> bool {
        self.get(node).is_ejected
    }

    /// A number that changes with the set of nodes that are present and not ejected.
    pub(super) fn availability(&self) -> u64 {
        self.availability
    }

    /// The nodes that a batch may be sent to now: not ejected, below the limit in flight, not waiting after `Retry-After`, and
    /// with budget left if the batch is a retry. `tried` are the nodes that had the batch before.
    pub(super) fn candidates(&self, tried: &[NodeIndex], attempt: Attempt, now: Instant) -> Vec<Candidate> {
        let is_free = |node: &ClusterNode| {
            !node.is_ejected
                && node.in_flight < node.limit.get()
                && !node.is_left_alone(now)
                && self.may_try(node, attempt, now)
        };
        let candidate = |index: NodeIndex| {
            let node = self.get(index);
            Candidate {
                node: index,
                latency_seconds: node.latency.seconds(now),
                in_flight: node.in_flight,
                up: node.breaker.is_closed(),
                tried: tried.contains(&index),
                hash: node.hash,
            }
        };
        self.present().filter(|index| is_free(self.get(*index))).map(candidate).collect()
    }

    fn may_try(&self, node: &ClusterNode, attempt: Attempt, now: Instant) -> bool {
        match attempt {
            Attempt::First => true,
            Attempt::Retry => self.is_draining || node.budget.has_retry(now),
        }
    }

    /// A node that is due for a trial: an ejected node after its pause, or a node that failed and is not ejected, whose cost
    /// may keep it from being chosen. Nodes in `tried` had the batch before, and are trials only if no other node is in use.
    /// Sending the batch there is the trial; until then it stays due.
    pub(super) fn trial(&self, tried: &[NodeIndex], now: Instant) -> Option<NodeIndex> {
        let is_used = |node: &ClusterNode| !node.is_ejected && !node.is_left_alone(now);
        let has_choice = self.present().any(|node| is_used(self.get(node)));
        let mut due = self.present().filter(|node| self.is_trial_due(*node, now));
        due.find(|node| !has_choice || !tried.contains(node))
    }

    /// Whether the next batch to this node is its trial: one at a time, with nothing else in flight.
    pub(super) fn is_trial_due(&self, node: NodeIndex, now: Instant) -> bool {
        let node = self.get(node);
        node.is_present() && node.trial_at().is_some_and(|at| at <= now)
    }

    /// When time alone next makes a node available: a wait, a pause, or the budget for a retry.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let present = self.present().map(|index| self.get(index));
        let changes = present.flat_map(|node| {
            let budget = node.budget.next_retry(now).filter(|_| !self.is_draining);
            [node.not_before, node.trial_at(), budget]
        });
        changes.flatten().filter(|at| *at > now).min()
    }

    /// Records that a batch was sent to a node.
    pub(super) fn on_sent(&mut self, node: NodeIndex, attempt: Attempt, now: Instant) {
        let sent_to = &mut self.nodes[node.0];
        sent_to.in_flight += 1;
        sent_to.breaker.on_sent(now);
        match attempt {
            Attempt::First => {}
            Attempt::Retry => sent_to.budget.on_retry(now),
        }
        self.show(node);
    }

    /// Records an answer that arrived after `took`, and logs if the node went down or came up. `pause_max` limits any pause
    /// that follows. Returns whether the node has just recovered from failures.
    pub(super) fn on_answer(
        &mut self,
        node: NodeIndex,
        answer: &Answer,
        took: Duration,
        now: Instant,
        pause_max: Duration,
    ) -> bool {
        let penalty = took.max(self.config.timeout);
        let sender = &mut self.nodes[node.0];
        let had_failed = sender.breaker.failures() > 0;
        sender.in_flight -= 1;
        // The longest wait holds: answers to earlier batches do not shorten it.
        let wait_until = answer.retry_after.map(|wait| now + wait.min(pause_max));
        sender.not_before = sender.not_before.max(wait_until);
        if answer.status.is_some() {
            sender.measured.observe(took);
        }
        if answer.verdict == AnswerVerdict::Delivered {
            sender.has_trouble = false;
        } else {
            sender.last_error = Some(NodeFailure { text: answer.detail.as_str().into(), at: now });
            sender.has_trouble = true;
        }
        let change = match answer.verdict {
            AnswerVerdict::Delivered => {
                sender.limit.on_delivered();
                sender.budget.on_delivered(now);
                sender.breaker.on_delivered(now)
            }
            AnswerVerdict::Refused | AnswerVerdict::TooLarge => sender.breaker.on_answered(now),
            AnswerVerdict::Retry(reason) => {
                if reason.is_overload() {
                    sender.limit.on_overload();
                }
                sender.breaker.on_failure(now, pause_max)
            }
            AnswerVerdict::Misconfigured => sender.breaker.on_misconfigured(now, pause_max),
        };
        let is_well = sender.breaker.failures() == 0;
        if had_failed && is_well && sender.in_flight == 0 {
            // The penalties for its failures would keep it out of use for more than a minute.
            sender.latency = Latency::new(now);
        }
        match answer.verdict {
            // Refusing is faster than storing: a low latency must not attract more batches.
            AnswerVerdict::Refused | AnswerVerdict::TooLarge if is_well => {}
            AnswerVerdict::Refused
            | AnswerVerdict::TooLarge
            | AnswerVerdict::Delivered
            | AnswerVerdict::Retry(_)
            | AnswerVerdict::Misconfigured => {
                sender.latency.observe(if is_well { took } else { penalty }, now);
            }
        }
        self.on_change(node, change, &answer.detail);
        self.show(node);
        had_failed && is_well
    }

    /// Makes every node available for a last time, at a stop: ends pauses and waits, and makes retries free.
    pub(super) fn ask_all(&mut self, now: Instant) {
        self.is_draining = true;
        for node in &mut self.nodes {
            node.not_before = None;
            node.breaker.end_pause(now);
        }
        (0..self.nodes.len()).for_each(|node| self.show(NodeIndex(node)));
    }

    /// Publishes the time of the oldest reading that waits for each node alone.
    pub(super) fn set_oldest_waiting(&self, oldest: impl Fn(NodeIndex) -> Option<Instant>) {
        let mut state = self.status.lock();
        state
            .nodes
            .iter_mut()
            .enumerate()
            .for_each(|(node, status)| status.oldest_waiting = oldest(NodeIndex(node)));
    }

    /// Logs a change of a node's state, and decides again which nodes are ejected.
    fn on_change(&mut self, index: NodeIndex, change: Option<BreakerChange>, detail: &str) {
        let node = &mut self.nodes[index.0];
        match change {
            None => return,
            Some(BreakerChange::WentDown) => {
                self.went_down += 1;
                node.down_since = self.went_down;
                tracing::warn!(node = %node.id, failures = node.breaker.failures(), reason = detail, "node is down");
            }
            Some(BreakerChange::CameUp) => tracing::info!(node = %node.id, "node is up again"),
        }
        self.eject();
    }

    /// Ejects the nodes that are down, up to the largest share, in the order in which they went down.
    fn eject(&mut self) {
        let down = self.present().filter(|node| !self.get(*node).breaker.is_closed());
        let mut down: Vec<NodeIndex> = down.collect();
        down.sort_by_key(|node| self.get(*node).down_since);
        down.truncate(ejected_max(self.present_count(), self.config.health.max_ejected));
        let mut is_ejected = vec![false; self.nodes.len()];
        down.iter().for_each(|node| is_ejected[node.0] = true);
        for (node, is_ejected) in is_ejected.into_iter().enumerate() {
            if std::mem::replace(&mut self.nodes[node].is_ejected, is_ejected) != is_ejected {
                self.show(NodeIndex(node));
            }
        }
        let usable: Vec<NodeIndex> = self.present().filter(|node| !self.is_ejected(*node)).collect();
        if usable != self.usable {
            self.usable = usable;
            self.availability += 1;
        }
    }

    fn show(&self, node: NodeIndex) {
        self.nodes[node.0].show(&mut self.status.lock().nodes[node.0]);
    }
}

/// The largest number of nodes that may be ejected at once.
fn ejected_max(present: usize, share: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small number, rounded down"
    )]
    let most = (present as f64 * share + ROUNDING) as usize;
    most.min(present)
}

#[cfg(test)]
mod tests;
