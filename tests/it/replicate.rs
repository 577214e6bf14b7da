//! The promises of the route `replicate`: each batch to several nodes, delivered when enough have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::arrivals::{assert_keys_carry_the_same, numbers, received};
use crate::support::process::{directory, forebay, run};
use crate::support::{
    Answer, FakeNode, Gate, LIMIT, Names, ReceivedBatch, Reply, RunningGateway, TestGateway, eventually,
    node_status, reading, readings, to_json,
};

/// Longer than any test: a pause of this length never ends.
const NEVER: &str = "1h";

fn gateway(nodes: &[&FakeNode], copies: usize, quorum: usize) -> TestGateway {
    let gateway = TestGateway::new()
        .set("cluster.route", "replicate")
        .set("cluster.replicate.copies", copies)
        .set("cluster.replicate.quorum", quorum)
        .set("batch.max_readings", 5);
    nodes.iter().fold(gateway, |gateway, node| gateway.node(node))
}

async fn three() -> [FakeNode; 3] {
    [FakeNode::start().await, FakeNode::start().await, FakeNode::start().await]
}

async fn all_settled(gateway: &RunningGateway) {
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}

/// Posts in pieces.
async fn post(gateway: &RunningGateway, count: usize) {
    for request in readings(count).chunks(13) {
        gateway.post(request).await.expect_status(202);
    }
}

async fn post_until_delivered(gateway: RunningGateway, count: usize) -> Reply {
    let request = gateway.request("/v1/readings?ack=delivered").header("content-type", "application/json");
    gateway.send(request.body(to_json(&readings(count)))).await
}

async fn missing(gateway: &RunningGateway, reason: &str) -> f64 {
    let metric = format!("forebay_copies_missing_total{{reason=\"{reason}\"}}");
    gateway.metric(&metric).await.unwrap_or(0.0)
}

async fn all_missing(gateway: &RunningGateway) -> f64 {
    let text = gateway.get("/metrics").await.expect_status(200).text();
    let lines = text.lines().filter(|line| line.starts_with("forebay_copies_missing_total{"));
    let number = |line: &str| line.rsplit_once(' ').expect("a number").1.parse::<f64>().expect("a number");
    lines.map(number).sum()
}

/// Batches that a node took, as the gateway counts them.
async fn taken(gateway: &RunningGateway, node: &FakeNode) -> f64 {
    let metric = format!("forebay_batches_total{{node=\"{}\",outcome=\"delivered\"}}", node.id());
    gateway.metric(&metric).await.unwrap_or(0.0)
}

/// The numbers of a node's readings, in their order; fails if it has one under two keys.
#[track_caller]
fn each_once(node: &FakeNode) -> BTreeSet<u64> {
    let stored = numbers(&node.readings());
    let once: BTreeSet<_> = stored.iter().copied().collect();
    assert_eq!(stored.len(), once.len(), "no reading twice: {stored:?}");
    once
}

/// On how many nodes each reading is.
fn copies(nodes: &[&FakeNode]) -> BTreeMap<u64, usize> {
    let mut copies = BTreeMap::new();
    for number in nodes.iter().flat_map(|node| each_once(node)) {
        *copies.entry(number).or_default() += 1;
    }
    copies
}

fn all(count: u64) -> BTreeSet<u64> {
    (0..count).collect()
}

// How many have it.

#[tokio::test]
async fn a_batch_is_delivered_when_the_quorum_has_it_and_not_before() {
    let nodes = three().await;
    let gates = [Gate::default(), Gate::default(), Gate::default()];
    for (node, gate) in nodes.iter().zip(&gates) {
        node.answer_otherwise(Answer::status(200).behind(gate));
    }
    let [first, second, third] = &nodes;
    let gateway = gateway(&[first, second, third], 3, 2).set("cluster.timeout", NEVER).start().await;
    let reply = tokio::spawn(post_until_delivered(gateway.handle(), 5));
    eventually("all three are asked", || async { nodes.iter().all(|node| node.requests() == 1) }).await;
    gates[1].open();
    eventually("one has it", || async { taken(&gateway, second).await > 0.0 }).await;
    assert_eq!((gateway.account("delivered").await, gateway.account("buffered").await), (0, 5));
    assert!(!reply.is_finished(), "one is not enough");

    gates[2].open();
    reply.await.expect("no panic").expect_status(202);
    // Each reading counts once, for the node that made the quorum complete.
    assert_eq!((gateway.account("delivered").await, gateway.account("buffered").await), (5, 0));
    let delivered = async |node: &FakeNode| node_status(&gateway, &node.id()).await["delivered"].clone();
    assert_eq!((delivered(second).await, delivered(third).await), (0.into(), 5.into()));

    gates[0].open();
    eventually("the last copy arrives", || async { taken(&gateway, first).await > 0.0 }).await;
    nodes.iter().for_each(|node| assert_eq!(each_once(node), all(5)));
    assert_keys_carry_the_same(&received(&[first, second, third]));
    let keys: BTreeSet<_> = nodes.iter().flat_map(FakeNode::received).map(|batch| batch.key()).collect();
    assert_eq!(keys.len(), 1, "all copies have one key");
    assert_eq!(gateway.account("delivered").await, 5);
    assert!(all_missing(&gateway).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn each_batch_goes_to_so_many_nodes_and_to_no_more() {
    for (wanted, quorum) in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (0, 2)] {
        let [first, second, third] = three().await;
        let nodes = [&first, &second, &third];
        let gateway = gateway(&nodes, wanted, quorum).start().await;
        post(&gateway, 60).await;
        all_settled(&gateway).await;
        let wanted = if wanted == 0 { 3 } else { wanted };
        eventually("all copies arrive", || async {
            let copies = copies(&nodes);
            copies.len() == 60 && copies.values().all(|count| *count == wanted)
        })
        .await;
        assert_eq!(gateway.stop().await.undelivered, 0);
        assert!(copies(&nodes).values().all(|count| *count == wanted), "{wanted}, {quorum}");
        assert_keys_carry_the_same(&received(&nodes));
    }
}

// A node that is away.

#[tokio::test]
async fn with_one_node_of_three_away_every_reading_has_its_copies() {
    let [gone, first, second] = three().await;
    let gateway = gateway(&[&gone, &first, &second], 2, 2).start().await;
    let _address = gone.stop().await;
    post(&gateway, 100).await;
    all_settled(&gateway).await;
    assert_eq!((each_once(&first), each_once(&second)), (all(100), all(100)));
    assert!(all_missing(&gateway).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn copies_for_a_node_that_is_away_arrive_when_it_comes_back() {
    let [gone, first, second] = three().await;
    let gateway = gateway(&[&gone, &first, &second], 0, 2).start().await;
    let address = gone.stop().await;
    post(&gateway, 100).await;
    // They count as delivered at the quorum.
    all_settled(&gateway).await;
    assert_eq!(gateway.account("delivered").await, 100);
    assert_eq!((each_once(&first), each_once(&second)), (all(100), all(100)));
    let back = FakeNode::start_at(address).await;
    // Nothing else is sent meanwhile.
    eventually("it gets all of them", || async { each_once(&back) == all(100) }).await;
    assert_keys_carry_the_same(&received(&[&back, &first, &second]));
    assert!(all_missing(&gateway).await.abs() < f64::EPSILON);
    assert_eq!(gateway.account("delivered").await, 100, "each counts once");
}

#[tokio::test]
async fn copies_that_are_missing_for_too_long_are_counted() {
    let [gone, first, second] = three().await;
    let gateway = gateway(&[&gone, &first, &second], 3, 2)
        .set("cluster.replicate.straggler_timeout", "150ms")
        .set("batch.max_age", NEVER)
        .start()
        .await;
    let address = gone.stop().await;
    gateway.post(&readings(50)).await.expect_status(202);
    all_settled(&gateway).await;
    eventually("ten batches lack a copy", || async {
        let missing = missing(&gateway, "timeout").await;
        assert!(missing <= 10.0, "{missing}");
        (missing - 10.0).abs() < f64::EPSILON
    })
    .await;
    assert!((all_missing(&gateway).await - 10.0).abs() < f64::EPSILON);
    // Copies that were given up never come; new ones do.
    let back = FakeNode::start_at(address).await;
    let newer: Vec<_> = (50..55).map(reading).collect();
    eventually("new ones arrive", || async {
        gateway.post(&newer).await.expect_status(202);
        back.count() > 0
    })
    .await;
    assert!(numbers(&back.readings()).iter().all(|number| *number >= 50));
}

#[tokio::test]
async fn below_the_quorum_readings_wait_and_nothing_is_given_up() {
    let [stays, first, second] = three().await;
    let gateway = gateway(&[&stays, &first, &second], 2, 2)
        .set("cluster.replicate.straggler_timeout", "0s")
        .start()
        .await;
    let addresses = [first.stop().await, second.stop().await];
    post(&gateway, 30).await;
    eventually("one has some", || async { stays.count() > 0 }).await;
    assert_eq!((gateway.account("delivered").await, gateway.account("buffered").await), (0, 30));
    let back = FakeNode::start_at(addresses[1]).await;
    all_settled(&gateway).await;
    assert_eq!(gateway.account("delivered").await, 30);
    assert_eq!((each_once(&stays), each_once(&back)), (all(30), all(30)));
    assert_keys_carry_the_same(&received(&[&stays, &back]));
}

#[tokio::test]
async fn copies_for_a_node_that_is_well_arrive_although_older_ones_wait_for_one_that_is_away() {
    let [gone, busy, first] = three().await;
    let gateway = gateway(&[&gone, &busy, &first], 3, 1)
        .set("cluster.health.failures", 1)
        .set("cluster.health.probe", "5ms")
        .start()
        .await;
    let id = gone.id();
    let _address = gone.stop().await;
    post(&gateway, 50).await;
    all_settled(&gateway).await;
    eventually("the other two have them", || async { busy.count() == 50 && first.count() == 50 }).await;
    assert_eq!(node_status(&gateway, &id).await["up"], false);
    busy.script_next([Answer::status(503)]);
    gateway.post(&(50..55).map(reading).collect::<Vec<_>>()).await.expect_status(202);
    eventually("it gets what it was too busy for", || async { each_once(&busy) == all(55) }).await;
    assert_eq!(each_once(&first), all(55));
}

// Answers that are lost.

#[tokio::test]
async fn a_lost_answer_gives_no_second_copy_under_another_key() {
    for answer in [Answer::hang_up().after_storing(), Answer::never()] {
        let (first, second) = (FakeNode::answering(vec![answer; 4]).await, FakeNode::start().await);
        let gateway = gateway(&[&first, &second], 2, 2).set("cluster.timeout", "50ms").start().await;
        post(&gateway, 60).await;
        all_settled(&gateway).await;
        assert_eq!((each_once(&first), each_once(&second)), (all(60), all(60)));
        assert!(first.requests() >= 12 + 4, "it was asked again");
        assert_keys_carry_the_same(&received(&[&first, &second]));
    }
}

#[tokio::test]
async fn through_failures_of_all_nodes_every_reading_has_its_copies_and_no_node_has_one_twice() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let flaky = async |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        FakeNode::choosing(move || match random.u8(..16) {
            0 => Answer::status(503),
            1 => Answer::status(500).after_storing(),
            2 => Answer::hang_up(),
            3 => Answer::hang_up().after_storing(),
            4 => Answer::status(200).after(Duration::from_millis(200)),
            _ => Answer::status(200).after(Duration::from_millis(random.u64(..3))),
        })
        .await
    };
    for (wanted, quorum) in [(2, 2), (3, 2), (0, 1)] {
        let nodes = [flaky(seed).await, flaky(seed ^ 1).await, flaky(seed ^ 2).await];
        let nodes = [&nodes[0], &nodes[1], &nodes[2]];
        let gateway = gateway(&nodes, wanted, quorum).set("cluster.timeout", "100ms").start().await;
        post(&gateway, 200).await;
        all_settled(&gateway).await;
        assert_eq!(gateway.account("delivered").await, 200);
        let least = if wanted == 0 { 3 } else { wanted };
        eventually("each has its copies", || async {
            let copies = copies(&nodes);
            copies.len() == 200 && copies.values().all(|count| *count >= least)
        })
        .await;
        assert_keys_carry_the_same(&received(&nodes));
        assert!(all_missing(&gateway).await.abs() < f64::EPSILON);
    }
}

// Nodes that refuse.

/// A node that refuses batches with one of these readings.
async fn refusing(bad: impl Fn(u64) -> bool + Send + 'static) -> FakeNode {
    FakeNode::judging(move |batch| match numbers(&batch.readings()).into_iter().any(&bad) {
        true => Answer::status(422).body("no"),
        false => Answer::status(200),
    })
    .await
}

#[tokio::test]
async fn a_batch_that_one_node_refuses_is_taken_by_the_others() {
    let (picky, first, second) = (refusing(|_| true).await, FakeNode::start().await, FakeNode::start().await);
    let nodes = [&picky, &first, &second];
    let gateway = gateway(&nodes, 2, 2).start().await;
    post(&gateway, 60).await;
    all_settled(&gateway).await;
    let ledger = gateway.ledger().await;
    assert_eq!((&ledger["delivered"], &ledger["dead_lettered"]), (&60.into(), &0.into()));
    assert_eq!((each_once(&first), each_once(&second), picky.count()), (all(60), all(60), 0));
    assert_keys_carry_the_same(&received(&nodes));
    assert_eq!(node_status(&gateway, &picky.id()).await["up"], true);
}

#[tokio::test]
async fn a_reading_that_too_many_refuse_becomes_one_dead_letter_and_the_rest_is_delivered() {
    let directory = directory();
    let nodes = [
        refusing(|number| number == 7).await,
        refusing(|number| number == 7).await,
        refusing(|_| false).await,
    ];
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let gateway = gateway(&nodes, 2, 2).on_disk(directory.path()).set("batch.max_readings", 20).start().await;
    post(&gateway, 40).await;
    all_settled(&gateway).await;
    let ledger = gateway.ledger().await;
    assert_eq!((&ledger["delivered"], &ledger["dead_lettered"]), (&39.into(), &1.into()));
    let letters = fs::read_to_string(directory.path().join("dead-letters/00000001.ndjson")).expect("a file");
    let letters: Vec<Value> = letters.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(letters.iter().map(|letter| letter["reading"].clone()).collect::<Vec<_>>(), [reading(7)]);
    assert!(
        [nodes[0].id(), nodes[1].id()].contains(&letters[0]["node"].as_str().expect("a node").to_owned())
    );
    let mut copies = copies(&nodes);
    // One of them may have taken it.
    assert!(copies.remove(&7).unwrap_or(0) <= 1);
    assert_eq!(copies.len(), 39);
    assert!(copies.values().all(|count| *count >= 2), "{copies:?}");
}

#[tokio::test]
async fn a_copy_that_nodes_refuse_is_counted_as_refused() {
    let (picky, first, second) = (refusing(|_| true).await, FakeNode::start().await, FakeNode::start().await);
    let gateway = gateway(&[&picky, &first, &second], 3, 2).set("batch.max_readings", 1).start().await;
    post(&gateway, 10).await;
    all_settled(&gateway).await;
    assert_eq!((each_once(&first), each_once(&second)), (all(10), all(10)));
    eventually("each lacks a copy", || async { (missing(&gateway, "refused").await - 10.0).abs() < 0.1 })
        .await;
    assert!((all_missing(&gateway).await - 10.0).abs() < f64::EPSILON);
    assert_eq!(gateway.account("dead_lettered").await, 0);
}

#[tokio::test]
async fn a_reading_that_all_nodes_refuse_that_are_left_becomes_a_dead_letter() {
    let (picky, busy) = (refusing(|_| true).await, FakeNode::always(Answer::status(503)).await);
    let names = Names::default();
    names.set(&[&picky, &busy]);
    let gateway = gateway(&[], 2, 1)
        .node_at("dns+http://store:9000/v1/batches")
        .resolver(Arc::new(names.clone()))
        .set("cluster.resolve_every", "10ms")
        .start()
        .await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("both are asked", || async { picky.requests() > 0 && busy.requests() > 1 }).await;
    assert_eq!(gateway.account("buffered").await, 1, "the other one may take it yet");
    names.set(&[&picky]);
    eventually("it is given to people", || async { gateway.account("dead_lettered").await == 1 }).await;
}

// Settings, and the end.

#[test]
fn copies_and_a_quorum_that_cannot_be_stop_the_start_with_a_line_for_each_fault() {
    let nodes = "http://127.0.0.1:9001/v1/batches,http://127.0.0.1:9002/v1/batches";
    let check = |copies: &str, quorum: &str, expected: &[&str]| {
        let directory = directory();
        let settings = [
            ("cluster.nodes", nodes),
            ("cluster.route", "replicate"),
            ("cluster.replicate.copies", copies),
            ("cluster.replicate.quorum", quorum),
        ];
        let ended = run(forebay(directory.path(), &["serve"], &settings)).expect_status(2);
        let lines: Vec<_> = ended.stderr.lines().filter(|line| line.contains("cluster.replicate.")).collect();
        assert_eq!(lines.len(), expected.len(), "{}", ended.stderr);
        for part in expected {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {}", ended.stderr);
        }
        assert!(fs::read_dir(directory.path()).expect("a directory").next().is_none(), "nothing is made");
    };
    check(
        "1",
        "2",
        &["cluster.replicate.quorum: must be at most cluster.replicate.copies, which is 1, got 2"],
    );
    check(
        "3",
        "1",
        &["cluster.replicate.copies: must be at most the number of cluster.nodes, which is 2, got 3"],
    );
    check(
        "0",
        "3",
        &["cluster.replicate.quorum: must be at most the number of cluster.nodes, which is 2, got 3"],
    );
    check(
        "3",
        "4",
        &[
            "cluster.replicate.quorum: must be at most cluster.replicate.copies, which is 3, got 4",
            "cluster.replicate.copies: must be at most the number of cluster.nodes, which is 2, got 3",
            "cluster.replicate.quorum: must be at most the number of cluster.nodes, which is 2, got 4",
        ],
    );
}

#[tokio::test]
async fn a_stop_does_not_wait_for_copies_of_a_node_that_is_away() {
    let [gone, first, second] = three().await;
    let gateway = gateway(&[&gone, &first, &second], 3, 2)
        .set("cluster.replicate.straggler_timeout", NEVER)
        .set("server.shutdown_timeout", "60s")
        .start()
        .await;
    let _address = gone.stop().await;
    post(&gateway, 50).await;
    all_settled(&gateway).await;
    let stop = Instant::now();
    let ended = gateway.stop().await;
    assert!(ended.undelivered == 0 && !ended.failed, "{ended:?}");
    assert!(stop.elapsed() < LIMIT, "{:?}", stop.elapsed());
    assert_eq!((each_once(&first), each_once(&second)), (all(50), all(50)));
}

#[tokio::test]
async fn a_stop_ends_in_time_although_a_node_hangs_with_a_copy() {
    let [hangs, first, second] = three().await;
    hangs.answer_otherwise(Answer::never());
    let gateway = gateway(&[&hangs, &first, &second], 3, 2)
        .set("cluster.timeout", NEVER)
        .set("server.shutdown_timeout", "300ms")
        .start()
        .await;
    post(&gateway, 50).await;
    all_settled(&gateway).await;
    let stop = Instant::now();
    let ended = gateway.stop().await;
    assert!(ended.undelivered == 0 && !ended.failed, "{ended:?}");
    assert!(stop.elapsed() < LIMIT, "{:?}", stop.elapsed());
}

#[tokio::test]
async fn a_restart_below_the_quorum_delivers_the_rest_under_the_same_keys() {
    let directory = directory();
    let [first, second] = [FakeNode::start().await, FakeNode::always(Answer::status(503)).await];
    let gateway =
        || gateway(&[&first, &second], 2, 2).on_disk(directory.path()).set("server.shutdown_timeout", "1ms");
    let running = gateway().start().await;
    post(&running, 40).await;
    eventually("one has them", || async { first.count() == 40 }).await;
    assert_eq!(running.stop().await.undelivered, 40);
    second.answer_otherwise(Answer::status(200));
    let running = gateway().set("server.shutdown_timeout", "10s").start().await;
    all_settled(&running).await;
    assert_eq!((each_once(&first), each_once(&second)), (all(40), all(40)));
    let keys = |node: &FakeNode| node.received().iter().map(ReceivedBatch::key).collect::<BTreeSet<_>>();
    assert_eq!(keys(&first), keys(&second));
    assert_keys_carry_the_same(&received(&[&first, &second]));
}
