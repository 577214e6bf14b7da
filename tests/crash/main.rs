//! No acknowledged reading is lost, however often and whenever the gateway is killed.
//!
//! The real binary is killed again and again, under load, while it starts and while it stops. The nodes stand in
//! this process and outlive it: they answer as nodes do, and remember the readings of each key.
//!
//! A run prints its seed; `FOREBAY_TEST_SEED=…` repeats it, as far as two processes can be repeated.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod evidence;
mod order;
mod results;
mod victim;
mod weather;
mod windows;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use client::{Client, Fate, Load, Stage};
use evidence::{Evidence, tell};
use support::process::{Process, directory};
use support::{FakeNode, LIMIT, eventually, reading, readings, seed, to_json};
use victim::{BALANCE, REPLICATE, Route, SHARD, Victim, check_log, live, segments, sound_ledger};
use weather::{Round, Sky, Weather};

const NODES: usize = 3;
/// Clients that post at the same time.
const CLIENTS: usize = 6;

/// Rounds of a short run: the fewest that end in every way.
const ROUNDS: usize = 10;

/// The gateway's settings, and the load on it.
struct Trial {
    route: Route,
    /// The text of its file.
    config: &'static str,
    /// How many rounds a long run has; a short one has [`ROUNDS`].
    rounds: usize,
    /// A round has two halves, each shorter than this.
    half_max: Duration,
    load: Load,
    /// Fails if a promise was broken.
    check: fn(&Evidence),
}

/// Readings that go to nodes as they are.
const PLAIN: Trial = Trial {
    route: BALANCE,
    config: "",
    rounds: 26,
    half_max: Duration::from_millis(500),
    load: Load {
        readings: |numbers, _| numbers.map(reading).collect(),
        patience: Duration::from_millis(400),
        twice: 0,
    },
    check: Evidence::check,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_readings_survive_any_number_of_kills_and_arrive_under_one_key() {
    survive(PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_devices_have_their_own_nodes_kills_lose_nothing_either() {
    survive(Trial { route: SHARD, ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_batches_have_copies_kills_lose_nothing_either() {
    survive(Trial { route: REPLICATE, ..PLAIN }).await;
}

async fn survive(trial: Trial) {
    let Trial { route, config, rounds, half_max, load, check } = trial;
    let rounds = support::rounds(ROUNDS, rounds);
    let mut random = fastrand::Rng::with_seed(seed());
    let sky = Sky::default();
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let (sky, mut random) = (sky.clone(), random.fork());
        nodes.push(FakeNode::choosing(move || sky.answer(&mut random)).await);
    }
    let directory = directory();
    let urls: Vec<_> = nodes.iter().map(FakeNode::url).collect();
    let victim = Victim { directory: directory.path(), nodes: urls.join(","), route, config };
    let (address, receiver) = watch::channel(None);
    let stage = Stage::new(load, receiver);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(Client::new(&stage, random.u64(..)).run())).collect();

    let mut recovered = 0;
    for (number, round) in Round::choose(rounds, half_max, &mut random).iter().enumerate() {
        println!("round {number}: {round:?}");
        recovered += live(&victim, round, &sky, &address).await;
    }

    sky.set(Weather::Fair);
    let (process, found) = victim.start().await;
    address.send_replace(Some(process.address()));
    stage.over.store(true, Ordering::Relaxed);
    let requests = timeout(3 * LIMIT, join_all(clients)).await.expect("every client gets its answer");
    let requests: Vec<_> = requests.into_iter().flat_map(|requests| requests.expect("no panic")).collect();
    let gateway = process.gateway();
    eventually("all is delivered", || async { sound_ledger(&gateway).await["buffered"] == 0 }).await;
    process.terminate();
    check_log(&process.ended().await.expect_status(0));
    let numbers = segments(directory.path());
    assert!(numbers.iter().all(|number| *number > rounds as u64 / 2), "segments come and go: {numbers:?}");

    let received: Vec<_> = nodes.iter().flat_map(FakeNode::received).collect();
    let evidence = Evidence { route, rounds, requests, received };
    check(&evidence);
    tell(&evidence, recovered + found);
    what_was_done_is_known_after_the_last_start(&victim, load, &nodes, &evidence).await;
}

/// Everything is settled on disk, too, and requests that are repeated get their first answer.
async fn what_was_done_is_known_after_the_last_start(
    victim: &Victim<'_>,
    load: Load,
    nodes: &[FakeNode],
    evidence: &Evidence,
) {
    let (process, recovered) = victim.start().await;
    assert_eq!(recovered, 0, "nothing is left");
    let (_address, receiver) = watch::channel(Some(process.address()));
    let stage = Stage::new(load, receiver);
    let mut client = Client::new(&stage, 0);
    for request in evidence.requests.iter().filter(|request| request.key.is_some()) {
        let fate = client.post(request).await;
        assert!(matches!(fate, Fate::Promised { .. }), "{fate:?} to {request:?}");
    }
    assert_eq!(sound_ledger(&process.gateway()).await["accepted"], 0, "nothing is taken again");
    process.terminate();
    check_log(&process.ended().await.expect_status(0));
    let received: usize = nodes.iter().map(FakeNode::requests).sum();
    assert_eq!(received, evidence.received.len(), "nothing is sent again");
}

#[tokio::test]
async fn a_key_is_known_after_two_kills_with_a_checkpoint_between_them() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let victim = Victim { directory: directory.path(), nodes: node.url(), route: &[], config: "" };
    let post = async |process: &Process| {
        let gateway = process.gateway();
        let post = gateway.request("/v1/readings").header("idempotency-key", "\"once\"");
        gateway.send(post.body(to_json(&[reading(0)]))).await.expect_status(202);
    };
    let (process, _) = victim.start().await;
    post(&process).await;
    process.kill().await;

    let (process, _) = victim.start().await;
    let begun = segments(directory.path()).into_iter().max();
    let others = readings(1000);
    while segments(directory.path()).into_iter().max() <= begun.map(|begun| begun + 3) {
        process.gateway().post(&others).await.expect_status(202);
    }
    process.kill().await;

    let (process, _) = victim.start().await;
    post(&process).await;
    assert_eq!(process.gateway().account("accepted").await, 0, "it is not taken a second time");
}
