//! `shard`: gives each device its own node, by rendezvous hashing.
//!
//! Every node gets a score for the device, and the highest score leads (Thaler and Ravishankar, *Using Name-Based Mappings to
//! Increase Hit Rates*, 1998). If a node joins or leaves, only the devices of that node move. Gateways with the same nodes
//! agree on a device's node without communication. The scores never change:
//!
//! - a name's hash is XXH64 of its bytes with seed 0; a node's name is its address without credentials;
//! - the score is the finalizer of `SplitMix64` (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
//!   Generators*, 2014) over the exclusive or of both hashes.

use xxhash_rust::xxh64::xxh64;

use super::{Candidate, Placement, Routing};
use crate::node_id::NodeIndex;

/// The policy `shard`.
#[derive(Debug)]
pub struct Shard;

impl Routing for Shard {
    fn placement(&self) -> Placement {
        Placement::ByDevice
    }

    fn rank(
        &self,
        device: u64,
        candidates: &[Candidate],
        _: &mut dyn FnMut() -> f64,
        ranking: &mut Vec<NodeIndex>,
    ) {
        let mut scored: Vec<_> =
            candidates.iter().map(|candidate| (score(device, candidate.hash), candidate.node)).collect();
        scored.sort_unstable_by_key(|(score, node)| (std::cmp::Reverse(*score), *node));
        ranking.extend(scored.into_iter().map(|(_, node)| node));
    }
}

/// Hashes the name of a device, or the address of a node.
pub fn name_hash(name: impl AsRef<[u8]>) -> u64 {
    xxh64(name.as_ref(), 0)
}

/// The node that leads the ranking for a device, from their hashes; `None` without nodes.
pub fn home(device: u64, nodes: impl Iterator<Item = (NodeIndex, u64)>) -> Option<NodeIndex> {
    let scored = nodes.map(|(node, hash)| (score(device, hash), std::cmp::Reverse(node)));
    scored.max().map(|(_, node)| node.0)
}

fn score(device: u64, node: u64) -> u64 {
    let mixed = device ^ node;
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::tests::rank_for;

    /// Nodes with addresses as in the settings.
    fn nodes(count: usize) -> Vec<Candidate> {
        let address = |node| format!("http://10.0.0.{node}:9000/v1/batches");
        let candidate = |node| Candidate { hash: name_hash(address(node)), ..Candidate::idle(node) };
        (0..count).map(candidate).collect()
    }

    fn devices(count: usize) -> impl Iterator<Item = u64> {
        (0..count).map(|device| name_hash(format!("meter-{device}")))
    }

    #[test]
    fn the_hash_and_the_score_are_as_documented() {
        // XXH64 of nothing and of "abc", from its specification's test vectors.
        assert_eq!((name_hash(""), name_hash("abc")), (0xef46_db37_51d8_e999, 0x44bc_2cf5_ad77_0999));
        // The first output of SplitMix64 with seed 0 is the finalizer over its increment.
        assert_eq!(score(0x9e37_79b9_7f4a_7c15, 0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn ten_thousand_devices_spread_within_ten_percent_over_ten_nodes() {
        let nodes = nodes(10);
        let mut devices_of = [0_i32; 10];
        devices(10_000).for_each(|device| devices_of[rank_for(&Shard, device, &nodes, 0)[0]] += 1);
        assert!(devices_of.iter().all(|count| (900..=1100).contains(count)), "{devices_of:?}");
    }

    proptest! {
        #[test]
        fn only_the_devices_of_a_leaving_node_move_each_to_its_next_node(count in 2..12usize, gone: prop::sample::Index) {
            let all = nodes(count);
            let gone = gone.index(count);
            let left: Vec<_> = all.iter().filter(|candidate| candidate.node.0 != gone).copied().collect();
            for device in devices(200) {
                let before = rank_for(&Shard, device, &all, 0);
                let after = rank_for(&Shard, device, &left, 0);
                let expected: Vec<_> = before.iter().filter(|node| **node != gone).copied().collect();
                prop_assert_eq!(&after, &expected, "the others keep their order");
                prop_assert_eq!(home(device, left.iter().map(|c| (c.node, c.hash))), after.first().copied().map(NodeIndex));
            }
        }
    }
}
