//! Ranks the nodes for a batch: one file per policy, without side effects.
//!
//! A policy ranks one [`Candidate`] per node. It does no I/O, reads no clock and draws no random numbers: all of these are
//! passed in. A policy also declares how batches are distributed ([`Placement`]): if every device has its own node, readings are
//! divided by [`shard::home`] before they are batched. A new policy is a file here and a row in [`ROUTES`].

mod balance;
mod replicate;
pub mod shard;

use std::fmt::Debug;

use forebay_reading::registry::Registry;

use crate::node_id::NodeIndex;

/// The routing policies by their configuration names.
pub const ROUTES: Registry<&dyn Routing> = Registry {
    what: "route",
    members: &[
        ("balance", &balance::Balance),
        ("shard", &shard::Shard),
        ("replicate", &replicate::Replicate),
    ],
};

/// How a route distributes batches over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Any reading may go into any batch, and each batch to any one node.
    Anywhere,
    /// Every device has its own node: a batch has only readings of devices with the same node, and the batches of a device go
    /// one after the other.
    ByDevice,
    /// Each batch goes to several nodes.
    Copies,
}

/// A node that may get a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The node.
    pub node: NodeIndex,
    /// The node's present latency in seconds; failures count as long latencies.
    pub latency_seconds: f64,
    /// Batches in flight to the node.
    pub in_flight: usize,
    /// Whether the node is up.
    pub up: bool,
    /// Whether the node had this batch in the present round, in which every node gets it once.
    pub tried: bool,
    /// The hash of the node's address ([`shard::name_hash`]).
    pub hash: u64,
}

#[cfg(test)]
impl Candidate {
    /// A node that is up, idle and fast.
    pub(crate) fn idle(node: usize) -> Candidate {
        Candidate {
            node: NodeIndex(node),
            latency_seconds: 0.001,
            in_flight: 0,
            up: true,
            tried: false,
            hash: node as u64,
        }
    }
}

/// A routing policy: ranks the nodes for a batch.
pub trait Routing: Sync + Debug {
    /// How the policy distributes batches.
    fn placement(&self) -> Placement;

    /// Appends the nodes of `candidates` to `ranking`, the best first. `device` is the hash of the device's name
    /// ([`shard::name_hash`]), for [`Placement::ByDevice`]; `random` draws uniformly from 0 to 1.
    fn rank(
        &self,
        device: u64,
        candidates: &[Candidate],
        random: &mut dyn FnMut() -> f64,
        ranking: &mut Vec<NodeIndex>,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn rank_for(
        route: &dyn Routing,
        device: u64,
        candidates: &[Candidate],
        seed: u64,
    ) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ranking = Vec::new();
        route.rank(device, candidates, &mut || random.f64(), &mut ranking);
        ranking.into_iter().map(|node| node.0).collect()
    }

    proptest! {
        #[test]
        fn every_policy_ranks_each_candidate_once(
            rows in prop::collection::vec((0.0..100.0, 0..20usize, any::<bool>(), any::<bool>()), 0..8),
            seed: u64,
        ) {
            let candidates: Vec<_> = rows.iter().enumerate().map(|(index, (latency_seconds, in_flight, up, tried))| {
                let (latency_seconds, in_flight, up, tried) = (*latency_seconds, *in_flight, *up, *tried);
                Candidate { latency_seconds, in_flight, up, tried, ..Candidate::idle(index + 3) }
            }).collect();
            for (name, route) in ROUTES.members {
                let mut ranking = rank_for(*route, seed, &candidates, seed);
                ranking.sort_unstable();
                let all: Vec<_> = candidates.iter().map(|candidate| candidate.node.0).collect();
                prop_assert_eq!(&ranking, &all, "{}", name);
            }
        }
    }
}
