//! The nodes as the worker knows them: who may be sent a batch now, and what follows from an answer.
//!
//! What is decided about one node stands in its own file: [`super::breaker`] (up or down), [`super::limit`] (how many
//! at a time), [`super::budget`] (how many retries), [`super::latency`] (at what cost). What is decided about all of
//! them together stands here: a node that is down is ejected, that is, sent nothing but trials, unless so many are
//! ejected already that the rest would be too few (`cluster.health.max_ejected`). One beyond that share is down and
//! is asked all the same, after all others.

mod addresses;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;
use url::Url;

use super::breaker::{Breaker, BreakerState, Change, HealthConfig};
use super::budget::Budget;
use super::latency::{Latency, MeasuredLatency};
use super::limit::Limit;
use super::node_status::{ClusterNodeStatus, DeliveryStatus, NodeFailure};
use super::source::{Endpoint, NodeSource};
use super::transport::{Answer, AnswerVerdict};
use crate::node_id::{NodeId, without_credentials};
use crate::routing::Candidate;
use crate::routing::shard::name_hash;

pub use addresses::NODES_MAX;

/// Why a node that has gone is not up.
const GONE: &str = "gone: no longer among the addresses of its name";

/// A product of doubles may come out a trifle below a whole number.
const ROUNDING: f64 = 1e-9;

/// What is decided about nodes, and by which bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodesConfig {
    /// When a node is down.
    pub(super) health: HealthConfig,
    /// Most batches on their way to one node.
    pub(super) max_in_flight: usize,
    /// What a failure counts as, at least, where the cost of a node is weighed.
    pub(super) timeout: Duration,
}

/// Whether a batch was tried before, at whichever node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It was not.
    First,
    /// It was: nodes take only so many of these.
    Retry,
}

/// One node.
#[derive(Debug)]
pub(super) struct ClusterNode {
    pub(super) id: NodeId,
    /// Where requests go.
    pub(super) url: Url,
    /// Their `Host`, if it is not that of the URL.
    pub(super) host: Option<HeaderValue>,
    /// The URL without credentials: no two nodes have the same.
    pub(super) address: String,
    /// The hash of that, by which devices choose it.
    hash: u64,
    /// The entries of `cluster.nodes` that have it now; none: it has gone.
    sources: BTreeSet<usize>,
    /// Its turn among the nodes that have gone.
    gone_since: u64,
    pub(super) in_flight: usize,
    pub(super) breaker: Breaker,
    pub(super) latency: Latency,
    /// What its answers took.
    pub(super) measured: MeasuredLatency,
    pub(super) limit: Limit,
    budget: Budget,
    /// Until then the node asked to be left alone.
    not_before: Option<Instant>,
    /// Its turn among the nodes that went down.
    down_since: u64,
    pub(super) is_ejected: bool,
    pub(super) last_error: Option<NodeFailure>,
    /// Whether nothing was delivered since the last error.
    pub(super) has_trouble: bool,
}

impl ClusterNode {
    fn new(id: NodeId, place: Endpoint, source: usize, config: &NodesConfig, now: Instant) -> ClusterNode {
        let address = without_credentials(&place.url);
        ClusterNode {
            id,
            hash: name_hash(&address),
            address,
            url: place.url,
            host: place.host,
            sources: BTreeSet::from([source]),
            gone_since: 0,
            in_flight: 0,
            breaker: Breaker::new(config.health, now),
            latency: Latency::new(now),
            measured: MeasuredLatency::default(),
            limit: Limit::new(config.max_in_flight),
            budget: Budget::new(now),
            not_before: None,
            down_since: 0,
            is_ejected: false,
            last_error: None,
            has_trouble: false,
        }
    }

    /// What others may know of it, when it has just come.
    fn status(&self) -> ClusterNodeStatus {
        let mut status = ClusterNodeStatus {
            id: self.id.clone(),
            url: self.address.clone(),
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

    /// Shows what changes all the time.
    fn show(&self, status: &mut ClusterNodeStatus) {
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

    /// Whether batches may go there.
    pub(super) fn is_present(&self) -> bool {
        !self.sources.is_empty()
    }

    fn is_left_alone(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|until| until > now)
    }

    /// When a batch should be sent to it as a trial; `None` while none is due, or something is on its way.
    fn trial_at(&self) -> Option<Instant> {
        let at = self.breaker.trial_at().filter(|_| self.in_flight == 0);
        at.map(|at| self.not_before.map_or(at, |until| until.max(at)))
    }
}

/// All nodes. A node keeps its index while it is present or anything is on its way to it.
#[derive(Debug)]
pub(super) struct ClusterNodes {
    config: NodesConfig,
    /// The entries of `cluster.nodes`.
    sources: Vec<NodeSource>,
    nodes: Vec<ClusterNode>,
    status: Arc<DeliveryStatus>,
    availability: u64,
    /// The nodes that were present and not ejected when that was decided last.
    usable: Vec<usize>,
    /// How many nodes have gone so far.
    went: u64,
    /// Whether there was no place for a node.
    is_full: bool,
    /// How many nodes went down so far.
    went_down: u64,
    /// Whether retries are no longer counted against the budget: there is no later.
    is_draining: bool,
}

impl ClusterNodes {
    /// Starts with the nodes whose addresses are set. Those that are to be found by their names come with
    /// [`ClusterNodes::set_addresses`].
    pub(super) fn new(sources: &[NodeSource], config: NodesConfig, now: Instant) -> ClusterNodes {
        let fixed = sources.iter().enumerate().filter_map(|(source, entry)| match entry {
            NodeSource::Address(url) => Some((source, url.clone())),
            NodeSource::Name(_) => None,
        });
        let (indices, urls): (Vec<usize>, Vec<Url>) = fixed.unzip();
        let ids = NodeId::for_urls(&urls);
        let places = urls.into_iter().map(|url| Endpoint { url, host: None });
        let nodes = ids.into_iter().zip(places).zip(indices);
        let nodes: Vec<ClusterNode> =
            nodes.map(|((id, place), source)| ClusterNode::new(id, place, source, &config, now)).collect();
        ClusterNodes {
            config,
            sources: sources.to_vec(),
            status: Arc::new(DeliveryStatus::new(nodes.iter().map(ClusterNode::status).collect())),
            availability: 0,
            usable: (0..nodes.len()).collect(),
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

    pub(super) fn get(&self, node: usize) -> &ClusterNode {
        &self.nodes[node]
    }

    /// The nodes that batches may go to. Others have gone.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_present()).map(|(index, _)| index)
    }

    /// The nodes that batches may go to, with the hashes of their names.
    pub(super) fn hashes(&self) -> Vec<(usize, u64)> {
        self.present().map(|node| (node, self.nodes[node].hash)).collect()
    }

    pub(super) fn present_count(&self) -> usize {
        self.present().count()
    }

    /// Whether a node may take a batch: it is up, and its last answer was no failure, or one is still to come.
    pub(super) fn may_take(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let has_answer_to_come = node.breaker.failures() == 0 || node.in_flight > 0;
        node.is_present() && node.breaker.is_closed() && has_answer_to_come
    }

    /// Whether the node is sent nothing but trials.
    pub(super) fn is_ejected(&self, node: usize) -> bool {
        self.nodes[node].is_ejected
    }

    /// A number that changes whenever other nodes than before are present and not ejected.
    pub(super) fn availability(&self) -> u64 {
        self.availability
    }

    /// The nodes that a batch may be sent to now: not ejected, with a free place, asked to be left alone by none, and
    /// with a retry to spare if the batch needs one. `tried` are those where it was.
    pub(super) fn candidates(&self, tried: &[usize], attempt: Attempt, now: Instant) -> Vec<Candidate> {
        let is_free = |node: &ClusterNode| {
            !node.is_ejected
                && node.in_flight < node.limit.get()
                && !node.is_left_alone(now)
                && self.may_try(node, attempt, now)
        };
        let candidate = |index: usize| {
            let node = &self.nodes[index];
            Candidate {
                node: index,
                latency_seconds: node.latency.seconds(now),
                in_flight: node.in_flight,
                up: node.breaker.is_closed(),
                tried: tried.contains(&index),
                hash: node.hash,
            }
        };
        self.present().filter(|index| is_free(&self.nodes[*index])).map(candidate).collect()
    }

    fn may_try(&self, node: &ClusterNode, attempt: Attempt, now: Instant) -> bool {
        match attempt {
            Attempt::First => true,
            Attempt::Retry => self.is_draining || node.budget.has_retry(now),
        }
    }

    /// A node that is due for a trial, for a batch that was `tried` at some: an ejected one whose pause is over, or
    /// one that failed and is not ejected, and may be too costly to be chosen. A batch goes elsewhere than before
    /// if anywhere else is used at all now. Sending the batch there is the trial; until then it stays due.
    pub(super) fn trial(&self, tried: &[usize], now: Instant) -> Option<usize> {
        let is_used = |node: &ClusterNode| !node.is_ejected && !node.is_left_alone(now);
        let has_choice = self.present().any(|node| is_used(&self.nodes[node]));
        let mut due = self.present().filter(|node| self.is_trial_due(*node, now));
        due.find(|node| !has_choice || !tried.contains(node))
    }

    /// Whether the next batch that is sent to this node is its trial: one at a time, with nothing else on its way.
    pub(super) fn is_trial_due(&self, node: usize, now: Instant) -> bool {
        let node = &self.nodes[node];
        node.is_present() && node.trial_at().is_some_and(|at| at <= now)
    }

    /// When something may become possible that is impossible now, although nothing is heard until then.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let present = self.present().map(|index| &self.nodes[index]);
        let changes = present.flat_map(|node| {
            let budget = node.budget.next_retry(now).filter(|_| !self.is_draining);
            [node.not_before, node.trial_at(), budget]
        });
        changes.flatten().filter(|at| *at > now).min()
    }

    /// Notes that a batch is on its way to a node.
    pub(super) fn on_sent(&mut self, node: usize, attempt: Attempt, now: Instant) {
        let sent_to = &mut self.nodes[node];
        sent_to.in_flight += 1;
        sent_to.breaker.on_sent(now);
        match attempt {
            Attempt::First => {}
            Attempt::Retry => sent_to.budget.on_retry(now),
        }
        self.show(node);
    }

    /// Notes an answer that `took` so long, and logs if the node went down or came up. No pause that follows is longer
    /// than `pause_max`. Returns whether the node is well again after it failed.
    pub(super) fn on_answer(
        &mut self,
        node: usize,
        answer: &Answer,
        took: Duration,
        now: Instant,
        pause_max: Duration,
    ) -> bool {
        let penalty = took.max(self.config.timeout);
        let heard_of = &mut self.nodes[node];
        let had_failed = heard_of.breaker.failures() > 0;
        heard_of.in_flight -= 1;
        // The latest wish holds, whatever comes back that was sent before it was known.
        let wish = answer.retry_after.map(|wait| now + wait.min(pause_max));
        heard_of.not_before = heard_of.not_before.max(wish);
        if answer.status.is_some() {
            heard_of.measured.observe(took);
        }
        if answer.verdict == AnswerVerdict::Delivered {
            heard_of.has_trouble = false;
        } else {
            heard_of.last_error = Some(NodeFailure { text: answer.detail.as_str().into(), at: now });
            heard_of.has_trouble = true;
        }
        let change = match answer.verdict {
            AnswerVerdict::Delivered => {
                heard_of.limit.on_delivered();
                heard_of.budget.on_delivered(now);
                heard_of.breaker.on_delivered(now)
            }
            AnswerVerdict::Refused | AnswerVerdict::TooLarge => heard_of.breaker.on_answered(now),
            AnswerVerdict::Retry(reason) => {
                if reason.is_overload() {
                    heard_of.limit.on_overload();
                }
                heard_of.breaker.on_failure(now, pause_max)
            }
            AnswerVerdict::Misconfigured => heard_of.breaker.on_misconfigured(now, pause_max),
        };
        let is_well = heard_of.breaker.failures() == 0;
        if had_failed && is_well && heard_of.in_flight == 0 {
            // What it was fined for its failures would keep it out of use for a minute and more.
            heard_of.latency = Latency::new(now);
        }
        match answer.verdict {
            // It may be quick with what it does not do: that must not draw more to it.
            AnswerVerdict::Refused | AnswerVerdict::TooLarge if is_well => {}
            AnswerVerdict::Refused
            | AnswerVerdict::TooLarge
            | AnswerVerdict::Delivered
            | AnswerVerdict::Retry(_)
            | AnswerVerdict::Misconfigured => {
                heard_of.latency.observe(if is_well { took } else { penalty }, now);
            }
        }
        self.on_change(node, change, &answer.detail);
        self.show(node);
        had_failed && is_well
    }

    /// Asks every node for a last time: pauses and wishes to be left alone are forgotten, and retries are free.
    pub(super) fn ask_all(&mut self, now: Instant) {
        self.is_draining = true;
        for node in &mut self.nodes {
            node.not_before = None;
            node.breaker.end_pause(now);
        }
        (0..self.nodes.len()).for_each(|node| self.show(node));
    }

    /// Shows others since when a reading waits for each node alone.
    pub(super) fn set_oldest_waiting(&self, oldest: impl Fn(usize) -> Option<Instant>) {
        let mut view = self.status.lock();
        view.nodes.iter_mut().enumerate().for_each(|(node, status)| status.oldest_waiting = oldest(node));
    }

    /// Logs a change of a node's state, once, and decides anew who is ejected.
    fn on_change(&mut self, index: usize, change: Option<Change>, detail: &str) {
        let node = &mut self.nodes[index];
        match change {
            None => return,
            Some(Change::WentDown) => {
                self.went_down += 1;
                node.down_since = self.went_down;
                tracing::warn!(node = %node.id, failures = node.breaker.failures(), reason = detail, "node is down");
            }
            Some(Change::CameUp) => tracing::info!(node = %node.id, "node is up again"),
        }
        self.eject();
    }

    /// Ejects the nodes that are down, those first that went down first, as far as the share reaches.
    fn eject(&mut self) {
        let down = self.present().filter(|node| !self.nodes[*node].breaker.is_closed());
        let mut down: Vec<usize> = down.collect();
        down.sort_by_key(|node| self.nodes[*node].down_since);
        down.truncate(ejected_max(self.present_count(), self.config.health.max_ejected));
        let mut is_ejected = vec![false; self.nodes.len()];
        down.iter().for_each(|node| is_ejected[*node] = true);
        for (node, is_ejected) in is_ejected.into_iter().enumerate() {
            if std::mem::replace(&mut self.nodes[node].is_ejected, is_ejected) != is_ejected {
                self.show(node);
            }
        }
        let usable: Vec<usize> = self.present().filter(|node| !self.is_ejected(*node)).collect();
        if usable != self.usable {
            self.usable = usable;
            self.availability += 1;
        }
    }

    fn show(&self, node: usize) {
        self.nodes[node].show(&mut self.status.lock().nodes[node]);
    }
}

/// How many of so many nodes may be ejected at once.
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
