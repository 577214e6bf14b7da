//! The nodes as the worker knows them, and as others may see them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::health::{Change, Health, HealthConfig};
use super::latency::Latency;
use super::limit::Limit;
use crate::node_id::{NodeId, without_credentials};
use crate::routing::Candidate;

/// What others may know of a node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its name.
    pub id: NodeId,
    /// Its address, without credentials.
    pub url: String,
    /// Whether it is taken to be up.
    pub up: bool,
    /// What went wrong last; `None` since the last delivery.
    pub reason: Option<String>,
    /// Batches on their way to it.
    pub in_flight: usize,
    /// Batches that may be on their way to it at present.
    pub in_flight_limit: usize,
}

/// What others may know of the delivery. The worker writes it, whoever asks reads it.
#[derive(Debug)]
pub struct DeliveryStatus {
    /// Held for a copy, never across an await.
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    nodes: Vec<NodeStatus>,
    oldest: Option<Instant>,
}

impl DeliveryStatus {
    /// The nodes, in the order of the configuration.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).nodes.clone()
    }

    /// How long the oldest reading that is not settled has waited; nothing if there is none.
    pub fn oldest_age(&self, now: Instant) -> Duration {
        let oldest = self.view.lock().unwrap_or_else(PoisonError::into_inner).oldest;
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest))
    }

    pub(super) fn set_oldest(&self, oldest: Option<Instant>) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).oldest = oldest;
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) url: Url,
    pub(super) in_flight: usize,
    pub(super) health: Health,
    pub(super) latency: Latency,
    pub(super) limit: Limit,
    /// Until then the node asked to be left alone.
    pub(super) not_before: Option<Instant>,
}

/// All nodes, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    status: Arc<DeliveryStatus>,
}

impl Nodes {
    pub(super) fn new(urls: &[Url], health: HealthConfig, in_flight_max: usize, now: Instant) -> Nodes {
        let ids = NodeId::for_urls(urls);
        let node = |(url, id): (&Url, NodeId)| Node {
            id,
            url: url.clone(),
            in_flight: 0,
            health: Health::new(health),
            latency: Latency::new(now),
            limit: Limit::new(in_flight_max),
            not_before: None,
        };
        let nodes: Vec<Node> = urls.iter().zip(ids).map(node).collect();
        let statuses = nodes.iter().map(Node::status).collect();
        let status = Arc::new(DeliveryStatus { view: Mutex::new(View { nodes: statuses, oldest: None }) });
        Nodes { nodes, status }
    }

    pub(super) fn status(&self) -> &Arc<DeliveryStatus> {
        &self.status
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// Changes a node and shows it to others. `reason` is what went wrong last.
    pub(super) fn update<T>(
        &mut self,
        node: usize,
        change: impl FnOnce(&mut Node) -> (T, Option<Option<String>>),
    ) -> T {
        let (result, reason) = change(&mut self.nodes[node]);
        let mut view = self.status.view.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = &mut view.nodes[node];
        let reason = reason.unwrap_or_else(|| shown.reason.take());
        *shown = NodeStatus { reason, ..self.nodes[node].status() };
        result
    }

    /// The nodes that have a free place and want to be asked, for a batch that was `tried` at some.
    pub(super) fn candidates(&self, tried: &[usize], now: Instant) -> Vec<Candidate> {
        let free = |(_, node): &(usize, &Node)| {
            node.in_flight < node.limit.get() && node.not_before.is_none_or(|until| until <= now)
        };
        let candidate = |(index, node): (usize, &Node)| Candidate {
            node: index,
            latency_seconds: node.latency.seconds(now),
            in_flight: node.in_flight,
            up: node.health.is_up(),
            tried: tried.contains(&index),
        };
        self.nodes.iter().enumerate().filter(free).map(candidate).collect()
    }

    pub(super) fn any_up(&self) -> bool {
        self.nodes.iter().any(|node| node.health.is_up())
    }

    /// The first idle node that is due to be probed, for a batch that was `tried` at some: it goes elsewhere first.
    /// The node counts as probed then.
    pub(super) fn take_probe(&mut self, tried: &[usize], now: Instant) -> Option<usize> {
        let free = |(index, node): &(usize, &mut Node)| {
            let left_alone = node.not_before.is_some_and(|until| until > now);
            node.in_flight == 0 && !left_alone && !tried.contains(index)
        };
        let mut free = self.nodes.iter_mut().enumerate().filter(free);
        free.find_map(|(index, node)| node.health.take_probe(now).then_some(index))
    }

    /// Forgets which nodes asked to be left alone.
    pub(super) fn ask_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.not_before = None);
    }

    /// When the first node that asked to be left alone may be asked again.
    pub(super) fn next_asked(&self, now: Instant) -> Option<Instant> {
        self.nodes.iter().filter_map(|node| node.not_before).filter(|until| *until > now).min()
    }

    /// Logs a change of a node's state, once.
    pub(super) fn tell(&self, node: usize, change: Option<Change>, detail: &str) {
        let node = &self.nodes[node];
        match change {
            Some(Change::WentDown) => {
                tracing::warn!(node = %node.id, failures = node.health.failures(), reason = detail, "node is down");
            }
            Some(Change::CameUp) => tracing::info!(node = %node.id, "node is up again"),
            None => {}
        }
    }
}

impl Node {
    fn status(&self) -> NodeStatus {
        NodeStatus {
            id: self.id.clone(),
            url: without_credentials(&self.url),
            up: self.health.is_up(),
            reason: None,
            in_flight: self.in_flight,
            in_flight_limit: self.limit.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Duration = Duration::from_secs(1);

    fn nodes(count: usize, in_flight_max: usize) -> (Nodes, Instant) {
        let urls: Vec<Url> = (0..count)
            .map(|index| format!("http://user:secret@node-{index}/x?token=1").parse().expect("a URL"))
            .collect();
        let now = Instant::now();
        (Nodes::new(&urls, HealthConfig { failures: 2, probe: PROBE }, in_flight_max, now), now)
    }

    fn change(nodes: &mut Nodes, node: usize, change: impl FnOnce(&mut Node)) {
        nodes.update(node, |node| {
            change(node);
            ((), None)
        });
    }

    fn free(nodes: &Nodes, now: Instant) -> Vec<usize> {
        nodes.candidates(&[], now).iter().map(|candidate| candidate.node).collect()
    }

    #[test]
    fn a_node_is_a_candidate_while_it_has_a_place_and_wants_to_be_asked() {
        let (mut nodes, now) = nodes(3, 2);
        change(&mut nodes, 0, |node| node.in_flight = 2);
        change(&mut nodes, 1, |node| node.not_before = Some(now + PROBE));
        change(&mut nodes, 2, |node| node.in_flight = 1);
        assert_eq!(free(&nodes, now), [2]);
        assert_eq!(nodes.next_asked(now), Some(now + PROBE));
        assert_eq!(free(&nodes, now + PROBE), [1, 2]);
        assert_eq!(nodes.next_asked(now + PROBE), None);
        // The limit adapts: what is too much for the node now is no place.
        change(&mut nodes, 2, |node| node.limit.on_overload());
        assert_eq!(free(&nodes, now + PROBE), [1]);
    }

    #[test]
    fn a_candidate_says_whether_the_batch_was_there_and_whether_the_node_is_up() {
        let (mut nodes, now) = nodes(2, 2);
        change(&mut nodes, 0, |node| {
            node.health.on_misconfigured(now);
        });
        let seen: Vec<_> =
            nodes.candidates(&[1], now).iter().map(|one| (one.node, one.up, one.tried)).collect();
        assert_eq!(seen, [(0, false, false), (1, true, true)]);
        assert!(nodes.any_up());
        change(&mut nodes, 1, |node| {
            node.health.on_misconfigured(now);
        });
        assert!(!nodes.any_up());
    }

    #[test]
    fn a_probe_goes_to_an_idle_node_that_is_due_and_was_not_just_tried() {
        let (mut nodes, now) = nodes(2, 2);
        assert_eq!(nodes.take_probe(&[], now + PROBE), None, "nobody failed");
        change(&mut nodes, 0, |node| {
            node.health.on_failure(now);
        });
        assert_eq!(nodes.take_probe(&[], now), None, "not yet");
        let due = now + PROBE;
        assert_eq!(nodes.take_probe(&[0], due), None, "the batch comes from there");
        change(&mut nodes, 0, |node| node.in_flight = 1);
        assert_eq!(nodes.take_probe(&[], due), None, "busy");
        change(&mut nodes, 0, |node| (node.in_flight, node.not_before) = (0, Some(due + PROBE)));
        assert_eq!(nodes.take_probe(&[], due), None, "it wants to be left alone");
        assert_eq!(nodes.take_probe(&[1], due + PROBE), Some(0));
        assert_eq!(nodes.take_probe(&[1], due + PROBE), None, "once an interval");
    }

    #[test]
    fn what_others_see_is_what_is_and_has_no_secrets() {
        let (mut nodes, now) = nodes(1, 4);
        let status = Arc::clone(nodes.status());
        let seen = || status.nodes().remove(0);
        assert_eq!((seen().id.as_str(), seen().url.as_str()), ("node-0:80", "http://node-0:80/x"));
        nodes.update(0, |node| {
            node.in_flight = 1;
            node.limit.on_overload();
            node.health.on_misconfigured(now);
            ((), Some(Some("404: no such path".to_owned())))
        });
        assert_eq!((seen().up, seen().in_flight, seen().in_flight_limit), (false, 1, 2));
        change(&mut nodes, 0, |node| node.in_flight = 0);
        assert_eq!(seen().reason.as_deref(), Some("404: no such path"), "until something else is known");
        nodes.update(0, |_| ((), Some(None)));
        assert_eq!(seen().reason, None);
    }

    #[test]
    fn the_age_of_the_oldest_reading_is_seen() {
        let (nodes, now) = nodes(1, 1);
        let status = nodes.status();
        assert_eq!(status.oldest_age(now), Duration::ZERO);
        status.set_oldest(Some(now));
        assert_eq!(status.oldest_age(now + PROBE), PROBE);
        status.set_oldest(None);
        assert_eq!(status.oldest_age(now + PROBE), Duration::ZERO);
    }
}
