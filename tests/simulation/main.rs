//! The gateway and its nodes on a simulated network, whatever happens to either.
//!
//! Each run follows from its seed: how many nodes, their tempers, the faults of the network, the settings of the
//! gateway, the requests of clients. The gateway is the real one, from its front to its delivery; only sockets, time and
//! random numbers are simulated. While there is trouble ([`plan::TROUBLE`]) links are cut in one or both directions or
//! held up, and nodes are slow, fail, hang up, die in the middle of an answer, lose answers and give them twice. Then
//! all is well, and the buffer must drain.
//!
//! A run that fails prints its seed; `FOREBAY_TEST_SEED=…` repeats it, and prints what happened, line by line.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod node;
mod plan;
mod record;
mod run;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use forebay::routing::ROUTES;

use plan::{Plan, Trouble};
use record::Seen;
use support::rounds;

/// The promises of a route under some settings.
#[derive(Clone, Debug)]
pub struct Promise {
    /// The name of the route.
    route: &'static str,
    /// Settings that it is run with, beside those that follow from the seed.
    settings: &'static [(&'static str, &'static str)],
    /// How many nodes it is run with.
    nodes: RangeInclusive<usize>,
    /// Nodes that have a reading once it is delivered.
    copies: usize,
    order: Order,
}

/// In which order readings arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// In any.
    Any,
    /// Those of a device in the order in which they were accepted: of all nodes together, each reading counted when
    /// it first arrives anywhere.
    OfEachDevice,
}

/// Every route, at least once.
const PROMISES: [Promise; 6] = [
    Promise { route: "balance", settings: &[], nodes: 2..=4, copies: 1, order: Order::Any },
    // Whatever the route is, where there is one node and one batch at a time nothing can overtake.
    Promise {
        route: "balance",
        settings: &[("cluster.max_in_flight", "1")],
        nodes: 1..=1,
        copies: 1,
        order: Order::OfEachDevice,
    },
    Promise {
        route: "shard",
        settings: &[("cluster.shard.failover", "next")],
        nodes: 2..=4,
        copies: 1,
        order: Order::OfEachDevice,
    },
    Promise {
        route: "shard",
        settings: &[("cluster.shard.failover", "wait")],
        nodes: 2..=4,
        copies: 1,
        order: Order::OfEachDevice,
    },
    Promise {
        route: "replicate",
        settings: &[("cluster.replicate.copies", "2"), ("cluster.replicate.quorum", "2")],
        nodes: 2..=4,
        copies: 2,
        order: Order::Any,
    },
    // Every node is to have it, and one is enough.
    Promise {
        route: "replicate",
        settings: &[("cluster.replicate.copies", "0"), ("cluster.replicate.quorum", "1")],
        nodes: 2..=4,
        copies: 1,
        order: Order::Any,
    },
];

/// Says how to repeat a run that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("FOREBAY_TEST_SEED={} repeats it", self.0);
        }
    }
}

/// So many seeds, or the one that is to be repeated.
fn seeds(count: usize) -> Vec<u64> {
    match std::env::var("FOREBAY_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a whole number")],
        Err(_) => (0..count).map(|_| fastrand::u64(..)).collect(),
    }
}

#[test]
fn whatever_nodes_and_network_do_acknowledged_readings_arrive_in_order_and_the_ledger_adds_up() {
    let seeds = seeds(rounds(20, 200));
    let mut mischief = BTreeMap::new();
    for promise in &PROMISES {
        let (mut drained_in, mut backlog) = (Duration::ZERO, 0);
        for seed in &seeds {
            let _repeat = Repeat(*seed);
            let seen = run::run(&Plan::new(*seed, promise));
            if seeds.len() == 1 {
                println!("{promise:?}:\n{}", seen.trace.join("\n"));
            }
            check(promise, &seen);
            backlog = backlog.max(seen.backlog);
            drained_in = drained_in.max(seen.drained_in.expect("it has drained"));
            seen.mischief.into_iter().for_each(|(name, count)| *mischief.entry(name).or_insert(0) += count);
        }
        println!("{promise:?}: up to {backlog} readings drained within {drained_in:?}");
        assert!(backlog > 0 || seeds.len() == 1, "there was never anything to drain");
    }
    println!("{mischief:?}");
    if seeds.len() > 1 {
        let all = node::mischiefs().chain(Trouble::NAMES);
        let missing: Vec<_> = all.filter(|name| !mischief.contains_key(name)).collect();
        assert!(missing.is_empty(), "in no run it happened: {missing:?}");
    }
}

#[test]
fn a_seed_is_always_the_same_run() {
    for (seed, promise) in seeds(rounds(6, 12)).into_iter().zip(PROMISES.iter().cycle()) {
        let _repeat = Repeat(seed);
        let plan = Plan::new(seed, promise);
        let (first, second) = (run::run(&plan).trace, run::run(&plan).trace);
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(differs.map(|line| (&first[line], &second[line])), None);
        assert_eq!(first.len(), second.len());
    }
}

#[test]
fn every_route_is_simulated() {
    let simulated: BTreeSet<_> = PROMISES.iter().map(|promise| promise.route).collect();
    assert_eq!(simulated, ROUTES.names().collect());
}

#[track_caller]
fn check(promise: &Promise, seen: &Seen) {
    assert!(seen.faults.is_empty(), "{promise:?}: {:#?}", seen.faults);
    let places = seen.places();
    for reading in &seen.acknowledged {
        let nodes = places.get(reading).map_or(0, BTreeSet::len);
        assert!(nodes >= promise.copies, "{promise:?}: {reading:?} was acknowledged and is at {nodes} nodes");
    }
    for reading in places.keys() {
        assert!(seen.acknowledged.contains(*reading), "{promise:?}: {reading:?} was refused and arrived");
    }
    let mut keys = BTreeMap::new();
    for arrival in &seen.arrivals {
        for reading in &arrival.readings {
            let key = keys.entry(reading).or_insert(&arrival.key);
            assert_eq!(**key, arrival.key, "{promise:?}: {reading:?} came under two keys");
        }
    }
    if promise.order == Order::OfEachDevice {
        check_order(promise, seen);
    }
}

#[track_caller]
fn check_order(promise: &Promise, seen: &Seen) {
    let mut last = BTreeMap::new();
    for reading in seen.first_arrivals() {
        let before = last.insert(&reading.device, reading.number);
        assert!(before < Some(reading.number), "{promise:?}: {reading:?} arrived after number {before:?}");
    }
}
