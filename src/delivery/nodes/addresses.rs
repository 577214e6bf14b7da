//! Nodes that appear, leave and return when a DNS look-up changes their addresses.
//!
//! A node is identified by its address and path, over TLS also by its name. Listed by several entries of `cluster.nodes`, it is one node, and it leaves
//! when the last entry drops it. A node that left keeps its index: batches in flight can end there, its deliveries stay in
//! its account, and its state is still there if it returns. A new node takes over an index only when [`NODES_MAX`] are in
//! use: that of the idle node that left first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::time::Instant;

use super::{ClusterNode, ClusterNodes};
use crate::buffer::Accounts;
use crate::delivery::source::{Endpoint, EndpointKey};
use crate::node_id::{NodeId, NodeIndex};

/// Most nodes that are known at once, including those that left.
pub const NODES_MAX: usize = 1024;

impl ClusterNodes {
    /// Sets the addresses of an entry of `cluster.nodes`: nodes appear, leave and return.
    ///
    /// Returns the nodes whose index a new node has taken over, and whose account is closed.
    pub(in crate::delivery) fn set_addresses(
        &mut self,
        source: usize,
        addresses: &[SocketAddr],
        accounts: &Accounts,
        now: Instant,
    ) -> Vec<NodeId> {
        let endpoints: Vec<Endpoint> =
            addresses.iter().map(|address| self.sources[source].endpoint(*address)).collect();
        let mut wanted: BTreeSet<EndpointKey> = endpoints.iter().map(Endpoint::key).collect();
        let keys = self.nodes.iter().map(|node| node.key.clone());
        let known: BTreeMap<EndpointKey, NodeIndex> = keys.zip((0..).map(NodeIndex)).collect();
        for index in 0..self.nodes.len() {
            if !wanted.contains(&self.nodes[index].key) {
                self.leave(NodeIndex(index), source);
            }
        }
        let mut replaced = Vec::new();
        for endpoint in endpoints {
            let key = endpoint.key();
            if !wanted.remove(&key) {
                // The address is listed twice.
                continue;
            }
            match known.get(&key) {
                Some(index) => self.come_back(*index, source, endpoint),
                None => replaced.extend(self.appear(source, endpoint, accounts, now)),
            }
        }
        self.eject();
        replaced
    }

    /// Removes the node from the entry.
    fn leave(&mut self, index: NodeIndex, source: usize) {
        let node = &mut self.nodes[index.0];
        if node.sources.remove(&source) && !node.is_present() {
            self.went += 1;
            node.gone_since = self.went;
            tracing::info!(node = %node.id, in_flight = node.in_flight, "node is gone");
            self.show(index);
        }
    }

    /// Adds a known node to the entry, which may have listed it before.
    fn come_back(&mut self, index: NodeIndex, source: usize, endpoint: Endpoint) {
        let node = &mut self.nodes[index.0];
        if !node.is_present() {
            node.endpoint = endpoint;
            tracing::info!(node = %node.id, "node is back");
        }
        node.sources.insert(source);
        self.show(index);
    }

    /// Adds a new node. Returns the node that had its index before.
    fn appear(
        &mut self,
        source: usize,
        endpoint: Endpoint,
        accounts: &Accounts,
        now: Instant,
    ) -> Option<NodeId> {
        let Some(index) = self.free_index() else {
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::warn!(limit = NODES_MAX, "too many nodes, the rest is not used");
            }
            return None;
        };
        let others = self.nodes.iter().map(|node| &node.id);
        let id = NodeId::beside(&endpoint.own_url(), endpoint.name(), others);
        tracing::info!(node = %id, name = %self.sources[source], "node appeared");
        let node = ClusterNode::new(id, endpoint, source, &self.config, now);
        // The index may have belonged to a node that was usable until now.
        self.availability += 1;
        // The status of a node and its account change together.
        let mut state = self.status.lock();
        let status = node.status();
        if index.0 == self.nodes.len() {
            accounts.add_node();
            state.nodes.push(status);
            self.nodes.push(node);
            return None;
        }
        accounts.close_node(index);
        state.nodes[index.0] = status;
        Some(std::mem::replace(&mut self.nodes[index.0], node).id)
    }

    /// An index for a new node: an unused one, or else that of the idle node that left first.
    fn free_index(&self) -> Option<NodeIndex> {
        if self.nodes.len() < NODES_MAX {
            return Some(NodeIndex(self.nodes.len()));
        }
        let gone =
            self.nodes.iter().enumerate().filter(|(_, node)| !node.is_present() && node.in_flight == 0);
        gone.min_by_key(|(_, node)| node.gone_since).map(|(index, _)| NodeIndex(index))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::buffer::accounts::Bounds;
    use crate::buffer::ledger::Outcome;
    use crate::buffer::{Amount, OnFull};
    use crate::delivery::breaker::HealthConfig;
    use crate::delivery::nodes::{Attempt, NodesConfig};
    use crate::delivery::source::NodeSource;
    use crate::delivery::transport::{Answer, AnswerVerdict};

    const CONFIG: NodesConfig = NodesConfig {
        health: HealthConfig {
            failures: 2,
            failure_ratio: 0.5,
            probe: Duration::from_secs(1),
            max_ejected: 0.9,
        },
        max_in_flight: 2,
        timeout: Duration::from_secs(10),
    };

    /// The nodes with their accounts.
    struct Cluster {
        nodes: ClusterNodes,
        accounts: Arc<Accounts>,
        now: Instant,
    }

    impl Cluster {
        /// One fixed node, and two names: entries 1 and 2.
        fn new() -> Cluster {
            let url = |text: &str| text.parse().expect("a URL");
            let sources = [
                NodeSource::Address(url("http://10.0.0.1:9000/x")),
                NodeSource::Name(url("http://store:9000/x")),
                NodeSource::Name(url("http://other:9000/y")),
            ];
            let limit = Amount { readings: 1 << 40, bytes: 1 << 40 };
            let bounds = Bounds { limit, least: Amount { readings: 1, bytes: 1 } };
            let now = Instant::now();
            let accounts = Accounts::new(bounds, 1, now);
            Cluster { nodes: ClusterNodes::new(&sources, CONFIG, now), accounts, now }
        }

        /// Sets the addresses of an entry, each by its last number.
        fn resolve(&mut self, source: usize, hosts: impl IntoIterator<Item = u16>) -> Vec<String> {
            let address =
                |host: u16| SocketAddr::from(([10, 0, (host >> 8) as u8, (host & 0xff) as u8], 9000));
            let addresses: Vec<_> = hosts.into_iter().map(address).collect();
            let replaced = self.nodes.set_addresses(source, &addresses, &self.accounts, self.now);
            let (nodes, snapshot) = self.nodes.status().nodes_and(|| self.accounts.snapshot());
            assert_eq!(
                nodes.len(),
                snapshot.ledger.delivered.len(),
                "an account for each node that is shown"
            );
            assert!(snapshot.ledger.balances());
            replaced.iter().map(ToString::to_string).collect()
        }

        fn present(&self) -> Vec<&str> {
            self.nodes.present().map(|node| self.nodes.get(node).id.as_str()).collect()
        }

        fn answer(&mut self, node: usize) {
            let node = NodeIndex(node);
            let answer = Answer { verdict: AnswerVerdict::Delivered, ..Answer::internal(String::new()) };
            self.nodes.on_answer(node, &answer, Duration::ZERO, self.now, Duration::MAX);
        }

        /// Delivers readings to a node.
        async fn deliver(&mut self, index: usize, readings: u64) {
            let node = NodeIndex(index);
            let amount = Amount { readings, bytes: 0 };
            self.accounts.reserve(amount, OnFull::Reject).await.expect("room").accept(0);
            self.nodes.on_sent(node, Attempt::First, self.now);
            self.answer(index);
            self.accounts.settle(amount, Outcome::Delivered { node }, self.now);
        }

        fn delivered(&self) -> (Vec<u64>, u64) {
            let ledger = self.accounts.snapshot().ledger;
            (ledger.delivered, ledger.delivered_to_gone)
        }
    }

    #[tokio::test]
    async fn a_node_that_appears_is_used_and_a_node_that_left_is_not() {
        let mut cluster = Cluster::new();
        assert_eq!(cluster.present(), ["10.0.0.1:9000"]);
        let before = cluster.nodes.availability();
        cluster.resolve(1, [2, 3]);
        assert_eq!(cluster.present(), ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"]);
        assert_ne!(cluster.nodes.availability(), before);
        let host = cluster.nodes.get(NodeIndex(1)).endpoint.host.as_ref().expect("a host of its own");
        assert_eq!(host, "store:9000");
        assert_eq!(cluster.nodes.candidates(&[], Attempt::First, cluster.now).len(), 3);

        let before = cluster.nodes.availability();
        cluster.resolve(1, [3, 2]);
        assert_eq!(cluster.nodes.availability(), before, "nothing new");
        cluster.resolve(1, [3]);
        assert_eq!(cluster.present(), ["10.0.0.1:9000", "10.0.0.3:9000"]);
        assert_ne!(cluster.nodes.availability(), before);
        let candidates = cluster.nodes.candidates(&[], Attempt::First, cluster.now);
        assert_eq!(candidates.iter().map(|one| one.node.0).collect::<Vec<_>>(), [0, 2]);
        let gone = cluster.nodes.status().nodes().remove(1);
        assert_eq!((gone.present, gone.up), (false, false));
        assert!(gone.reason.is_some_and(|reason| reason.starts_with("gone")));
    }

    #[tokio::test]
    async fn a_node_that_returns_has_its_index_and_its_account_again() {
        let mut cluster = Cluster::new();
        cluster.resolve(1, [2, 3]);
        cluster.deliver(1, 7).await;
        cluster.nodes.on_sent(NodeIndex(1), Attempt::First, cluster.now);
        cluster.resolve(1, [3, 4]);
        assert_eq!(cluster.nodes.get(NodeIndex(1)).in_flight, 1, "what is on its way ends by itself");
        cluster.answer(1);
        assert_eq!(cluster.delivered(), (vec![0, 7, 0, 0], 0));
        cluster.resolve(1, [2, 3]);
        assert_eq!(cluster.present(), ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000"]);
        cluster.deliver(1, 1).await;
        assert_eq!(cluster.delivered(), (vec![0, 8, 0, 0], 0));
    }

    #[tokio::test]
    async fn a_node_listed_by_two_entries_is_one_node_and_leaves_with_the_last_entry() {
        let mut cluster = Cluster::new();
        cluster.resolve(1, [1, 1, 2]);
        assert_eq!(cluster.present(), ["10.0.0.1:9000", "10.0.0.2:9000"], "the fixed one is among them");
        cluster.resolve(1, [2]);
        assert_eq!(cluster.present().len(), 2, "a fixed node does not go");
        // The same address with another path is another node.
        cluster.resolve(2, [2]);
        assert_eq!(cluster.present()[2], "http://10.0.0.2:9000/y");
    }

    #[tokio::test]
    async fn over_tls_two_names_at_one_address_are_two_nodes_and_each_leaves_with_its_own_name() {
        let sources = ["https://10.0.0.1:9000/x", "https://store:9000/x", "https://other:9000/x"];
        let [fixed, store, other] = sources.map(|url| url.parse().expect("a URL"));
        let sources = [NodeSource::Address(fixed), NodeSource::Name(store), NodeSource::Name(other)];
        let nodes = ClusterNodes::new(&sources, CONFIG, Instant::now());
        let mut cluster = Cluster { nodes, ..Cluster::new() };
        cluster.resolve(1, [1]);
        cluster.resolve(2, [1]);
        let https = "https://10.0.0.1:9000/x";
        assert_eq!(cluster.present(), ["10.0.0.1:9000", https, "other at https://10.0.0.1:9000/x"]);
        let hosts: Vec<_> = cluster.nodes.nodes.iter().map(|node| node.endpoint.url.host_str()).collect();
        assert_eq!(hosts, [Some("10.0.0.1"), Some("store"), Some("other")]);
        let hashes: BTreeSet<_> = cluster.nodes.nodes.iter().map(|node| node.hash).collect();
        assert_eq!(hashes.len(), 3);
        cluster.resolve(1, [2]);
        assert_eq!(cluster.present(), ["10.0.0.1:9000", "other at https://10.0.0.1:9000/x", "10.0.0.2:9000"]);
    }

    #[tokio::test]
    async fn a_new_node_takes_an_unused_index_or_else_that_of_the_idle_node_that_left_first() {
        let mut cluster = Cluster::new();
        let most = NODES_MAX as u16;
        cluster.resolve(1, 2..most);
        cluster.resolve(1, [most]);
        assert_eq!(
            cluster.nodes.get(NodeIndex(NODES_MAX - 1)).id.as_str(),
            "10.0.4.0:9000",
            "the last free index"
        );
        cluster.resolve(1, [most, 2, 3]);
        for (node, readings) in [(1, 5), (2, 6), (3, 7)] {
            cluster.deliver(node, readings).await;
        }
        // Node 4 left first but has a batch in flight; node 5 is next.
        cluster.nodes.on_sent(NodeIndex(3), Attempt::First, cluster.now);
        let before = cluster.nodes.availability();
        assert_eq!(cluster.resolve(1, [2, 3, most + 1]), ["10.0.0.5:9000"]);
        assert_eq!(cluster.nodes.get(NodeIndex(4)).id.as_str(), "10.0.4.1:9000");
        assert_ne!(cluster.nodes.availability(), before, "other nodes than before, at whatever index");
        assert_eq!(cluster.delivered().1, 0, "nothing was delivered there");
        cluster.answer(3);
        assert_eq!(cluster.resolve(1, [2, 3, most + 1, most + 2]), ["10.0.0.4:9000"]);
        let (delivered, gone) = cluster.delivered();
        assert_eq!((&delivered[..4], gone), (&[0, 5, 6, 0][..], 7));
        assert_eq!(cluster.nodes.status().nodes()[3].id.as_str(), "10.0.4.2:9000");
    }

    #[tokio::test]
    async fn nodes_beyond_the_limit_are_not_used_until_an_index_is_free() {
        let mut cluster = Cluster::new();
        let most = NODES_MAX as u16;
        cluster.resolve(1, 2..most + 2);
        assert_eq!(cluster.nodes.present_count(), NODES_MAX);
        let before = cluster.nodes.availability();
        cluster.resolve(1, 3..most + 2);
        assert_ne!(cluster.nodes.availability(), before, "another node at the index of one that was in use");
        assert_eq!(cluster.nodes.present_count(), NODES_MAX, "the node without an index has one now");
    }
}
