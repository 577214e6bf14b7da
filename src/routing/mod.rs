//! Which node a batch goes to: pure ranking, one file per policy.
//!
//! A policy sees a [`Candidate`] per node and ranks them; it does no I/O, reads no clock and draws no random
//! numbers: all that is passed in. The dispatcher sends the batch to the first of the ranking that has a free
//! place. A policy is added as a file here and a row in [`ROUTES`].

mod balance;

use std::fmt::Debug;

use crate::registry::Registry;

/// The routing policies by their configuration names.
pub const ROUTES: Registry<&dyn Routing> =
    Registry { what: "route", members: &[("balance", &balance::Balance)] };

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
}

/// Ranks nodes for a batch.
pub trait Routing: Sync + Debug {
    /// Appends the nodes of `candidates` to `ranking`, the best first. `random` draws evenly from 0 to 1.
    fn rank(&self, candidates: &[Candidate], random: &mut dyn FnMut() -> f64, ranking: &mut Vec<usize>);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn rank(route: &dyn Routing, candidates: &[Candidate], seed: u64) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ranking = Vec::new();
        route.rank(candidates, &mut || random.f64(), &mut ranking);
        ranking
    }

    proptest! {
        #[test]
        fn every_policy_ranks_each_candidate_once(
            rows in prop::collection::vec((0.0..100.0, 0..20usize, any::<bool>(), any::<bool>()), 0..8),
            seed: u64,
        ) {
            let candidates: Vec<_> = rows.iter().enumerate().map(|(index, (latency_seconds, in_flight, up, tried))| {
                Candidate { node: index + 3, latency_seconds: *latency_seconds, in_flight: *in_flight, up: *up, tried: *tried }
            }).collect();
            for (name, route) in ROUTES.members {
                let mut ranking = rank(*route, &candidates, seed);
                ranking.sort_unstable();
                let all: Vec<_> = candidates.iter().map(|candidate| candidate.node).collect();
                prop_assert_eq!(&ranking, &all, "{}", name);
            }
        }
    }
}
