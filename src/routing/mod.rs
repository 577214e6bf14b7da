//! Which node a batch goes to: pure ranking, one file per policy.
//!
//! A policy sees a [`Candidate`] per node and ranks them; it does no I/O, reads no clock and draws no random
//! numbers: all that is passed in. It also says what it asks of the delivery beside a ranking ([`Spread`]): where every
//! device has its own node, readings are divided by [`shard::home`] before they are batches. A policy is added as a file here and a row in [`ROUTES`].

mod balance;
mod replicate;
pub mod shard;

use std::fmt::Debug;

use forebay_reading::registry::Registry;

/// The routing policies by their configuration names.
pub const ROUTES: Registry<&dyn Routing> = Registry {
    what: "route",
    members: &[
        ("balance", &balance::Balance),
        ("shard", &shard::Shard),
        ("replicate", &replicate::Replicate),
    ],
};

/// What a route asks of the delivery beside a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Any reading may go into any batch, and any batch to any one node.
    Anywhere,
    /// A batch has readings of devices with the same node only, and those of a device go one after the other.
    ByDevice,
    /// A batch goes to several nodes.
    Copies,
}

/// What a policy may know of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Index of the node in the configuration.
    pub node: usize,
    /// What a request to it takes at present, in seconds; failures count as long ones.
    pub latency_seconds: f64,
    /// Batches on their way to it.
    pub in_flight: usize,
    /// Whether it is taken to be up.
    pub up: bool,
    /// Whether this batch was tried there since every node had its turn.
    pub tried: bool,
    /// The hash of its name ([`shard::name_hash`]).
    pub hash: u64,
}

#[cfg(test)]
impl Candidate {
    /// A node that is up, idle and fast.
    pub(crate) fn idle(node: usize) -> Candidate {
        Candidate { node, latency_seconds: 0.001, in_flight: 0, up: true, tried: false, hash: node as u64 }
    }
}

/// Ranks nodes for a batch.
pub trait Routing: Sync + Debug {
    /// What it asks of the delivery.
    fn spread(&self) -> Spread;

    /// Appends the nodes of `candidates` to `ranking`, the best first. `device` is the hash of the device
    /// ([`shard::name_hash`]), for routes that go by it; `random` draws evenly from 0 to 1.
    fn rank(
        &self,
        device: u64,
        candidates: &[Candidate],
        random: &mut dyn FnMut() -> f64,
        ranking: &mut Vec<usize>,
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
        ranking
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
                let all: Vec<_> = candidates.iter().map(|candidate| candidate.node).collect();
                prop_assert_eq!(&ranking, &all, "{}", name);
            }
        }
    }
}
