//! `replicate`: sends each batch to several nodes, the cheapest first.
//!
//! Any node that is up may get a copy, so a node that is down costs no copies while there are enough others. The delivery
//! decides how many copies there should be, and how many are enough.

use super::balance::cost;
use super::{Candidate, Placement, Routing};
use crate::node_id::NodeIndex;

/// The policy `replicate`.
#[derive(Debug)]
pub struct Replicate;

impl Routing for Replicate {
    fn placement(&self) -> Placement {
        Placement::Copies
    }

    fn rank(
        &self,
        _: u64,
        candidates: &[Candidate],
        _: &mut dyn FnMut() -> f64,
        ranking: &mut Vec<NodeIndex>,
    ) {
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        let group = |candidate: &Candidate| (!candidate.up, candidate.tried);
        order.sort_by(|a, b| group(a).cmp(&group(b)).then(cost(a).total_cmp(&cost(b))));
        ranking.extend(order.iter().map(|candidate| candidate.node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::rank_for;

    #[test]
    fn the_cheapest_leads_then_nodes_that_had_the_batch_then_nodes_that_are_down() {
        let node = |node, latency_seconds| Candidate { latency_seconds, ..Candidate::idle(node) };
        let down = Candidate { up: false, ..node(0, 0.001) };
        let tried = Candidate { tried: true, ..node(1, 0.001) };
        let candidates = [down, tried, node(2, 0.2), node(3, 0.1)];
        assert_eq!(rank_for(&Replicate, 0, &candidates, 1), [3, 2, 1, 0]);
    }
}
