//! `balance`: sends each batch to one node, chosen by the power of two choices on latency and load.
//!
//! Of two random nodes the cheaper one leads. This balances load nearly as well as comparing all nodes, without herding
//! (Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001). The cost is the latency times the batches in
//! flight. A failure counts as a long latency, so that a node which fails fast does not look fast.

use super::{Candidate, Placement, Routing};
use crate::node_id::NodeIndex;

/// The policy `balance`.
#[derive(Debug)]
pub struct Balance;

impl Routing for Balance {
    fn placement(&self) -> Placement {
        Placement::Anywhere
    }

    fn rank(
        &self,
        _: u64,
        candidates: &[Candidate],
        random: &mut dyn FnMut() -> f64,
        ranking: &mut Vec<NodeIndex>,
    ) {
        // Nodes that are up come first, then nodes that have not had the batch; the cost decides only among equals.
        let group = |candidate: &Candidate| (!candidate.up, candidate.tried);
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        order.sort_by_key(|candidate| group(candidate));
        let rivals = order.iter().take_while(|candidate| group(candidate) == group(order[0])).count();
        if rivals > 1 {
            let first = draw(rivals, random);
            let second = (first + 1 + draw(rivals - 1, random)) % rivals;
            let cheaper = if cost(order[second]) < cost(order[first]) { second } else { first };
            order.swap(0, cheaper);
        }
        if let Some((_, others)) = order.split_first_mut() {
            others.sort_by(|a, b| group(a).cmp(&group(b)).then(cost(a).total_cmp(&cost(b))));
        }
        ranking.extend(order.iter().map(|candidate| candidate.node));
    }
}

/// The cost of one more batch on a node.
pub(super) fn cost(candidate: &Candidate) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a handful of batches")]
    let load = (candidate.in_flight + 1) as f64;
    candidate.latency_seconds * load
}

/// Draws a whole number below `below`, which is at least one.
fn draw(below: usize, random: &mut dyn FnMut() -> f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small"
    )]
    let drawn = (random() * below as f64) as usize;
    drawn.min(below - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::rank_for;

    fn node(node: usize, latency_seconds: f64) -> Candidate {
        Candidate { latency_seconds, ..Candidate::idle(node) }
    }

    #[test]
    fn the_cheaper_of_two_leads() {
        assert_eq!(rank_for(&Balance, 0, &[node(0, 0.2), node(1, 0.1)], 1), [1, 0]);
        let busy = Candidate { in_flight: 3, ..node(1, 0.1) };
        assert_eq!(rank_for(&Balance, 0, &[node(0, 0.2), busy], 1), [0, 1]);
    }

    #[test]
    fn a_node_that_is_down_comes_last_after_those_that_had_the_batch() {
        let down = Candidate { up: false, ..node(0, 0.001) };
        let tried = Candidate { tried: true, ..node(1, 0.001) };
        assert_eq!(rank_for(&Balance, 0, &[down, tried, node(2, 9.0)], 1), [2, 1, 0]);
    }

    #[test]
    fn load_spreads_over_equal_nodes_and_the_costliest_never_leads() {
        let mut nodes: Vec<_> = (0..8).map(|index| node(index, 0.1)).collect();
        nodes[5].latency_seconds = 10.0;
        let mut led = [0; 8];
        for seed in 0..8000 {
            led[rank_for(&Balance, 0, &nodes, seed)[0]] += 1;
        }
        assert_eq!(led[5], 0, "{led:?}");
        assert!(led.iter().filter(|count| **count > 100).count() == 7, "{led:?}");
    }
}
