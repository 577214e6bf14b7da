//! The promises of the route `shard`: each device has its own node, and its readings arrive in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::support::arrivals::{assert_keys_carry_the_same, by_device, numbers, reading_of, received};
use crate::support::process::directory;
use crate::support::{
    Answer, FakeNode, Gate, Names, Reading, ReceivedBatch, RunningGateway, TestGateway, eventually,
    node_status,
};

/// Longer than any test: a pause of this length never ends.
const NEVER: &str = "1h";

/// The nodes in the order of a device's ranking, as docs/src/delivering/routes.md says: XXH64 of the device
/// exclusive-or XXH64 of the address, mixed by the finalizer of `SplitMix64`; the highest leads.
fn ranking(device: &str, nodes: &[&FakeNode]) -> Vec<usize> {
    let score = |node: &FakeNode| {
        let hash = xxh64(device.as_bytes(), 0) ^ xxh64(node.url().as_bytes(), 0);
        let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    };
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|node| std::cmp::Reverse(score(nodes[*node])));
    order
}

fn device(index: usize) -> String {
    format!("device-{index}")
}

/// The rounds `from..to` of readings: one of each of `devices` devices in each, numbered through.
fn rounds(devices: usize, rounds: std::ops::Range<usize>) -> Vec<Reading> {
    let one = |number: usize| reading_of(&device(number % devices), number);
    (rounds.start * devices..rounds.end * devices).map(one).collect()
}

/// The readings of each device that must have arrived after so many rounds.
fn expected(devices: usize, rounds: usize) -> BTreeMap<String, Vec<u64>> {
    let of = |index: usize| (0..rounds).map(|round| (round * devices + index) as u64).collect();
    (0..devices).map(|index| (device(index), of(index))).collect()
}

/// The devices that have this node at this place of their ranking, beginning at 0.
fn devices_of(node: usize, place: usize, devices: usize, nodes: &[&FakeNode]) -> BTreeSet<String> {
    (0..devices).map(device).filter(|device| ranking(device, nodes)[place] == node).collect()
}

fn devices_in(batches: &[ReceivedBatch]) -> BTreeSet<String> {
    let readings = batches.iter().flat_map(ReceivedBatch::readings);
    readings.map(|reading| reading["device"].as_str().expect("a name").to_owned()).collect()
}

fn gateway(nodes: &[&FakeNode]) -> TestGateway {
    let gateway = TestGateway::new().set("cluster.route", "shard").set("batch.max_readings", 5);
    nodes.iter().fold(gateway, |gateway, node| gateway.node(node))
}

async fn three() -> [FakeNode; 3] {
    [FakeNode::start().await, FakeNode::start().await, FakeNode::start().await]
}

fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

async fn all_settled(gateway: &RunningGateway) {
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}

/// Posts in pieces that have nothing to do with the rounds.
async fn post(gateway: &RunningGateway, readings: &[Reading]) {
    for request in readings.chunks(13) {
        gateway.post(request).await.expect_status(202);
    }
}

// Where they go.

#[tokio::test]
async fn each_device_has_the_node_that_the_documented_ranking_gives() {
    let nodes = three().await;
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let with_password = nodes[1].url().replace("http://", "http://me:secret@");
    let gateway = TestGateway::new()
        .set("cluster.route", "shard")
        .set("batch.max_readings", 5)
        .node_at(with_password)
        .node(nodes[2])
        .node(nodes[0])
        .start()
        .await;
    post(&gateway, &rounds(60, 0..4)).await;
    all_settled(&gateway).await;
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(devices_in(&node.received()), devices_of(index, 0, 60, &nodes), "{index}");
    }
    assert_eq!(by_device(received(&nodes)), expected(60, 4));
}

#[tokio::test]
async fn of_a_nodes_devices_up_to_eight_groups_are_on_their_way_one_batch_of_each() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = gateway(&[&node]).start().await;
    post(&gateway, &rounds(64, 0..10)).await;
    eventually("eight are on their way", || async { node.in_flight_peak() == 8 }).await;
    // While all eight wait for their answers, no device is in two of them.
    let mut seen = BTreeSet::new();
    for batch in node.received() {
        assert!(devices_in(&[batch]).into_iter().all(|device| seen.insert(device)));
    }
    gate.open();
    all_settled(&gateway).await;
    assert_eq!(node.in_flight_peak(), 8);
    assert_eq!(by_device(node.received()), expected(64, 10));
}

#[tokio::test]
async fn max_in_flight_bounds_the_groups_too() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = gateway(&[&node]).set("cluster.max_in_flight", 2).start().await;
    post(&gateway, &rounds(20, 0..10)).await;
    eventually("two are on their way", || async { node.in_flight_peak() == 2 }).await;
    gate.open();
    all_settled(&gateway).await;
    assert_eq!(node.in_flight_peak(), 2);
    assert_eq!(by_device(node.received()), expected(20, 10));
}

// In which order they arrive.

/// A node that fails now and then, in every way.
async fn flaky(seed: u64) -> FakeNode {
    let mut random = fastrand::Rng::with_seed(seed);
    FakeNode::choosing(move || {
        let delay = Duration::from_millis(random.u64(..4));
        match random.u8(..24) {
            0 | 1 => Answer::status(503).after(delay),
            2 => Answer::status(429).header("retry-after", 0),
            3 => Answer::status(500).after_storing(),
            4 => Answer::hang_up().after(delay),
            5 => Answer::hang_up().after_storing(),
            // Longer than the gateway waits.
            6 => Answer::status(200).after(Duration::from_millis(400)),
            _ => Answer::status(200).after(delay),
        }
    })
    .await
}

#[tokio::test]
async fn order_is_kept_through_failures_with_several_batches_on_their_way() {
    let seed = seed();
    let nodes = [flaky(seed).await, flaky(seed ^ 1).await, flaky(seed ^ 2).await];
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    // No node is ever taken to be down: each device has its own node throughout.
    let gateway = gateway(&nodes)
        .set("cluster.timeout", "100ms")
        .set("cluster.health.failures", 1000)
        .set("cluster.health.failure_ratio", "1.0")
        .start()
        .await;
    post(&gateway, &rounds(40, 0..20)).await;
    all_settled(&gateway).await;
    assert_eq!(by_device(received(&nodes)), expected(40, 20));
    assert_keys_carry_the_same(&received(&nodes));
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(devices_in(&node.received()), devices_of(index, 0, 40, &nodes), "{index}");
        assert!(node.in_flight_peak() > 1, "several are on their way");
    }
}

#[tokio::test]
async fn order_is_kept_while_nodes_go_down_and_come_up() {
    for failover in ["next", "wait"] {
        let seed = seed();
        let nodes = [flaky(seed).await, flaky(seed ^ 1).await, flaky(seed ^ 2).await];
        let nodes = [&nodes[0], &nodes[1], &nodes[2]];
        let gateway = gateway(&nodes)
            .set("cluster.shard.failover", failover)
            .set("cluster.timeout", "100ms")
            .set("cluster.health.failures", 1)
            .start()
            .await;
        post(&gateway, &rounds(40, 0..20)).await;
        all_settled(&gateway).await;
        assert_keys_carry_the_same(&received(&nodes));
        assert_eq!(by_device(received(&nodes)), expected(40, 20), "{failover}");
        for node in nodes {
            let mut twice: Vec<u64> = numbers(&node.readings());
            twice.sort_unstable();
            let count = twice.len();
            twice.dedup();
            assert_eq!(twice.len(), count, "{failover}: no node has a reading under two keys");
        }
    }
}

// A node that is down.

async fn down(gateway: &RunningGateway, id: &str) {
    eventually("it is down", || async { node_status(gateway, id).await["ejected"] == true }).await;
}

#[tokio::test]
async fn with_failover_next_the_devices_of_a_node_that_is_down_go_each_to_its_next_node_and_come_back() {
    let nodes = three().await;
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let away = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&away);
    nodes[0].judge_otherwise(move |_| match seen.load(Ordering::Relaxed) {
        // Not stored: a batch that may be stored goes on as a whole.
        true => Answer::status(503),
        false => Answer::status(200),
    });
    let gateway = gateway(&nodes).set("cluster.health.failures", 1).start().await;
    post(&gateway, &rounds(60, 0..2)).await;
    all_settled(&gateway).await;

    away.store(true, Ordering::Relaxed);
    post(&gateway, &rounds(60, 2..8)).await;
    all_settled(&gateway).await;
    assert_eq!(node_status(&gateway, &nodes[0].id()).await["up"], false);
    for index in [1, 2] {
        let own = devices_of(index, 0, 60, &nodes);
        let taken_over: BTreeSet<_> =
            devices_of(0, 0, 60, &nodes).intersection(&devices_of(index, 1, 60, &nodes)).cloned().collect();
        assert!(!taken_over.is_empty());
        let all: BTreeSet<_> = own.union(&taken_over).cloned().collect();
        assert_eq!(devices_in(&nodes[index].received()), all, "{index}");
    }

    away.store(false, Ordering::Relaxed);
    let mut sent = 8;
    while node_status(&gateway, &nodes[0].id()).await["up"] == false {
        post(&gateway, &rounds(60, sent..sent + 1)).await;
        all_settled(&gateway).await;
        sent += 1;
        assert!(sent < 1000, "it is tried again, and up");
    }
    let before: Vec<usize> = nodes.iter().map(|node| node.requests()).collect();
    post(&gateway, &rounds(60, sent..sent + 1)).await;
    all_settled(&gateway).await;
    for (index, node) in nodes.iter().enumerate() {
        let after = node.received().split_off(before[index]);
        assert_eq!(devices_in(&after), devices_of(index, 0, 60, &nodes), "{index}: all is as it was");
    }
    assert_eq!(by_device(received(&nodes)), expected(60, sent + 1));
    assert_keys_carry_the_same(&received(&nodes));
}

#[tokio::test]
async fn with_failover_wait_the_devices_of_a_node_that_is_down_wait_and_the_others_go_on() {
    let [gone, first, second] = three().await;
    let all = [&gone, &first, &second];
    let own = devices_of(0, 0, 60, &all);
    let others: usize = 60 - own.len();
    let gateway =
        gateway(&all).set("cluster.shard.failover", "wait").set("cluster.health.failures", 1).start().await;
    let id = gone.id();
    let address = gone.stop().await;
    post(&gateway, &rounds(60, 0..10)).await;
    down(&gateway, &id).await;
    eventually("the others arrive", || async { gateway.account("delivered").await == 10 * others as u64 })
        .await;
    post(&gateway, &rounds(60, 10..20)).await;
    eventually("also those that come later", || async {
        gateway.account("delivered").await == 20 * others as u64
    })
    .await;
    let ledger = gateway.ledger().await;
    assert_eq!(ledger["buffered"], 20 * own.len());
    assert!(devices_in(&received(&[&first, &second])).is_disjoint(&own), "nothing goes elsewhere");

    // The waiting devices are shown, and since when they wait.
    let waiting = async |id: &str| {
        node_status(&gateway, id).await["oldest_waiting_seconds"].as_f64().expect("a number")
    };
    let before = waiting(&id).await;
    assert!(before > 0.0, "{before}");
    eventually("it grows", || async { waiting(&id).await > before + 0.05 }).await;
    assert_eq!((waiting(&first.id()).await, waiting(&second.id()).await), (0.0, 0.0));
    let metric = format!("forebay_node_oldest_waiting_seconds{{node=\"{id}\"}}");
    assert!(gateway.metric(&metric).await.is_some_and(|age| age > before));

    let back = FakeNode::start_at(address).await;
    all_settled(&gateway).await;
    assert_eq!(devices_in(&back.received()), own);
    assert_eq!(by_device(received(&[&back, &first, &second])), expected(60, 20));
    assert!(waiting(&id).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_keeps_its_key_at_the_next_node_and_its_devices_their_order() {
    let nodes = three().await;
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    for (answer, timeout) in [(Answer::hang_up().after_storing(), "10s"), (Answer::never(), "250ms")] {
        let nodes: Vec<FakeNode> = three().await.into();
        let nodes: Vec<&FakeNode> = nodes.iter().collect();
        nodes[0].answer_otherwise(answer);
        let gateway = gateway(&nodes)
            .set("cluster.timeout", timeout)
            .set("cluster.health.failures", 1)
            .set("cluster.health.probe", NEVER)
            .start()
            .await;
        post(&gateway, &rounds(60, 0..6)).await;
        all_settled(&gateway).await;
        let lost: BTreeSet<_> = nodes[0].received().iter().map(ReceivedBatch::key).collect();
        let elsewhere: BTreeSet<_> = received(&nodes[1..]).iter().map(ReceivedBatch::key).collect();
        assert!(!lost.is_empty() && lost.is_subset(&elsewhere), "{lost:?}");
        assert_keys_carry_the_same(&received(&nodes));
        assert_eq!(by_device(received(&nodes)), expected(60, 6));
        // Beside the first node, each reading is at one node only.
        let arrived = numbers(&[nodes[1].readings(), nodes[2].readings()].concat());
        assert_eq!((arrived.len(), arrived.iter().collect::<BTreeSet<_>>().len()), (360, 360));
    }
    assert_eq!(received(&nodes).len(), 0);
}

#[tokio::test]
async fn a_restart_while_nodes_are_away_loses_nothing_and_keeps_the_order() {
    for failover in ["next", "wait"] {
        let directory = directory();
        let [first, second, stays] = three().await;
        let gateway = || {
            gateway(&[&first, &second, &stays])
                .on_disk(directory.path())
                .set("cluster.shard.failover", failover)
                .set("cluster.health.failures", 2)
                .set("server.shutdown_timeout", "1ms")
        };
        // Some readings are stored, and the gateway does not hear of it.
        let mut count = 0;
        first.judge_otherwise(move |_| {
            count += 1;
            if count % 3 == 0 { Answer::hang_up().after_storing() } else { Answer::hang_up() }
        });
        second.answer_otherwise(Answer::status(503));
        if failover == "next" {
            stays.answer_otherwise(Answer::status(503).after(Duration::from_millis(5)));
        }
        let running = gateway().start().await;
        post(&running, &rounds(30, 0..5)).await;
        eventually("all are asked", || async {
            [&first, &second, &stays].iter().all(|node| node.requests() > 0)
        })
        .await;
        assert!(running.stop().await.undelivered > 0);

        let running = gateway().start().await;
        post(&running, &rounds(30, 5..10)).await;
        if failover == "next" {
            stays.answer_otherwise(Answer::status(200));
        }
        eventually("something arrives", || async { running.account("delivered").await > 0 }).await;
        let stopped = running.stop().await;

        let running = gateway().set("server.shutdown_timeout", "10s").start().await;
        post(&running, &rounds(30, 10..15)).await;
        [&first, &second, &stays].iter().for_each(|node| node.answer_otherwise(Answer::status(200)));
        all_settled(&running).await;
        let all = received(&[&first, &second, &stays]);
        assert_keys_carry_the_same(&all);
        assert_eq!(by_device(all), expected(30, 15), "{failover}, {stopped:?}");
    }
}

#[tokio::test]
async fn refusals_failures_and_restarts_together_keep_the_order_and_lose_nothing() {
    for failover in ["next", "wait"] {
        let seed = seed();
        let directory = directory();
        let judging = async |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            FakeNode::judging(move |batch| {
                let is_bad = numbers(&batch.readings()).iter().any(|number| number % 23 == 4);
                match (random.u8(..16), is_bad) {
                    (0, _) => Answer::status(503),
                    (1, _) => Answer::hang_up(),
                    (2, false) => Answer::hang_up().after_storing(),
                    (3, false) => Answer::status(200).after(Duration::from_millis(150)),
                    (_, true) => Answer::status(422),
                    (_, false) => Answer::status(200).after(Duration::from_millis(random.u64(..3))),
                }
            })
            .await
        };
        let nodes = [judging(seed).await, judging(seed ^ 1).await, judging(seed ^ 2).await];
        let nodes = [&nodes[0], &nodes[1], &nodes[2]];
        let mut random = fastrand::Rng::with_seed(seed);
        let all = rounds(20, 0..30);
        for (index, some) in all.chunks(100).enumerate() {
            let is_last = index == 5;
            let running = gateway(&nodes)
                .on_disk(directory.path())
                .set("cluster.shard.failover", failover)
                .set("cluster.timeout", "60ms")
                .set("cluster.health.failures", 1)
                .set("batch.max_readings", 10)
                .set("server.shutdown_timeout", if is_last { "10s" } else { "1ms" })
                .start()
                .await;
            post(&running, some).await;
            let left = if is_last { 0 } else { random.u64(..some.len() as u64) };
            eventually("some are settled", || async { running.account("buffered").await <= left }).await;
            let _ended = running.stop().await;
        }
        assert_keys_carry_the_same(&received(&nodes));
        let mut good = expected(20, 30);
        good.values_mut().for_each(|numbers| numbers.retain(|number| number % 23 != 4));
        assert_eq!(by_device(received(&nodes)), good, "{failover}");
        let letters = std::fs::read_to_string(directory.path().join("dead-letters/00000001.ndjson"));
        let numbers: BTreeSet<u64> = letters.expect("a file").lines().map(letter_number).collect();
        assert_eq!(numbers, (0..600).filter(|number| number % 23 == 4).collect(), "{failover}");
    }
}

fn letter_number(line: &str) -> u64 {
    let letter: serde_json::Value = serde_json::from_str(line).expect("JSON");
    numbers(&[letter["reading"].clone()])[0]
}

#[tokio::test]
async fn under_drop_oldest_the_oldest_are_given_up_whichever_node_they_are_for() {
    let nodes = three().await;
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let gateway = gateway(&nodes)
        .set("batch.max_readings", 1000)
        .set("batch.max_age", NEVER)
        .set("buffer.max_readings", 20)
        .set("buffer.on_full", "drop_oldest")
        .start()
        .await;
    // They are gathered for three nodes, none of which gets any yet; those of the last node are the oldest.
    for (request, node) in [2, 0, 1].into_iter().enumerate() {
        let device = devices_of(node, 0, 60, &nodes).pop_first().expect("some");
        let numbers = request * 10..(request + 1) * 10;
        let some: Vec<_> = numbers.map(|number| reading_of(&device, number)).collect();
        gateway.post(&some).await.expect_status(202);
        eventually("they wait for their node", || async {
            let status = node_status(&gateway, &nodes[node].id()).await;
            status["oldest_waiting_seconds"].as_f64().expect("a number") > 0.0
        })
        .await;
    }
    assert_eq!(gateway.account("dropped").await, 10);
    assert_eq!(gateway.stop().await.undelivered, 0);
    let arrived: BTreeSet<u64> = by_device(received(&nodes)).into_values().flatten().collect();
    assert_eq!(arrived, (10..30).collect());
}

// Nodes that are found by a name.

/// A gateway whose nodes are those that `names` gives at the moment.
fn by_name(names: &Names, failover: &str) -> TestGateway {
    TestGateway::new()
        .node_at("dns+http://store:9000/v1/batches")
        .resolver(Arc::new(names.clone()))
        .set("cluster.route", "shard")
        .set("cluster.shard.failover", failover)
        .set("cluster.resolve_every", "10ms")
        .set("batch.max_readings", 5)
}

#[tokio::test]
async fn when_a_node_leaves_only_its_devices_move() {
    for failover in ["next", "wait"] {
        let nodes = three().await;
        let all = [&nodes[0], &nodes[1], &nodes[2]];
        let names = Names::default();
        names.set(&all);
        let gateway = by_name(&names, failover).start().await;
        post(&gateway, &rounds(60, 0..3)).await;
        all_settled(&gateway).await;
        for (index, node) in all.iter().enumerate() {
            assert_eq!(devices_in(&node.received()), devices_of(index, 0, 60, &all), "{index}");
        }
        names.set(&[all[1], all[2]]);
        eventually("it has left", || async { node_status(&gateway, &all[0].id()).await["present"] == false })
            .await;
        let before: Vec<usize> = all.iter().map(|node| node.requests()).collect();
        post(&gateway, &rounds(60, 3..6)).await;
        all_settled(&gateway).await;
        assert_eq!(all[0].requests(), before[0]);
        let left = [all[1], all[2]];
        for (index, node) in left.iter().enumerate() {
            let after = devices_in(&node.received().split_off(before[index + 1]));
            assert_eq!(after, devices_of(index, 0, 60, &left), "{index}");
            assert!(after.is_superset(&devices_of(index + 1, 0, 60, &all)), "its own devices stay");
        }
        assert_eq!(by_device(received(&all)), expected(60, 6), "{failover}");
    }
}

#[tokio::test]
async fn batches_on_their_way_to_a_leaving_node_hold_up_their_successors_and_no_others() {
    for failover in ["next", "wait"] {
        let nodes = three().await;
        let all = [&nodes[0], &nodes[1], &nodes[2]];
        let (names, gate) = (Names::default(), Gate::default());
        names.set(&all);
        all[0].answer_otherwise(Answer::status(503).behind(&gate));
        let gateway = by_name(&names, failover).start().await;
        let own = devices_of(0, 0, 60, &all).pop_first().expect("some");
        let is_own = |reading: &Reading| reading["device"] == own.as_str();
        let before: Vec<_> = rounds(60, 0..3).into_iter().filter(is_own).collect();
        post(&gateway, &before).await;
        eventually("they are on their way", || async { all[0].requests() == 1 }).await;
        names.set(&[all[1], all[2]]);
        eventually("it has left", || async { node_status(&gateway, &all[0].id()).await["present"] == false })
            .await;
        post(&gateway, &rounds(60, 3..10)).await;
        eventually("others go on", || async { gateway.account("delivered").await >= 30 * 7 }).await;
        assert!(!by_device(received(&all)).contains_key(&own), "{failover}: they wait for the answer");
        gate.open();
        all_settled(&gateway).await;
        let arrived = by_device(received(&all));
        assert_eq!(arrived[&own], expected(60, 10)[&own], "{failover}");
        assert_eq!(arrived.values().map(Vec::len).sum::<usize>(), 60 * 7 + 3);
        assert_keys_carry_the_same(&received(&all));
    }
}

// Nodes that are set up wrongly, whatever the route.

#[tokio::test]
async fn every_route_gives_nothing_up_to_nodes_that_are_set_up_wrongly() {
    let elsewhere = FakeNode::start().await;
    for route in ["balance", "shard", "shard wait", "replicate"] {
        for status in [401, 403, 404, 405, 501, 301, 302, 303, 307, 308] {
            let answer = Answer::status(status).header("location", elsewhere.url());
            let nodes = [FakeNode::always(answer.clone()).await, FakeNode::always(answer).await];
            let nodes = [&nodes[0], &nodes[1]];
            let failover = if route == "shard wait" { "wait" } else { "next" };
            let gateway = gateway(&nodes)
                .set("cluster.route", route.split(' ').next().expect("a word"))
                .set("cluster.shard.failover", failover)
                .start()
                .await;
            gateway.post(&rounds(40, 0..1)).await.expect_status(202);
            let is_down = async |node: &FakeNode| {
                let status = node_status(&gateway, &node.id()).await;
                status["up"] == false && status["reason"].is_string()
            };
            eventually("both are down", || async { is_down(nodes[0]).await && is_down(nodes[1]).await })
                .await;
            eventually("they are tried again", || async { nodes.iter().all(|node| node.requests() >= 3) })
                .await;
            let ledger = gateway.ledger().await;
            assert_eq!(ledger["buffered"], 40, "{route}, {status}: {ledger}");
            nodes.iter().for_each(|node| node.answer_otherwise(Answer::status(200)));
            all_settled(&gateway).await;
            let ledger = gateway.ledger().await;
            assert_eq!(ledger["delivered"], 40, "{route}, {status}: {ledger}");
            let mut arrived: Vec<u64> =
                by_device(received(&nodes)).into_values().flatten().collect::<Vec<_>>();
            arrived.sort_unstable();
            assert_eq!(arrived, (0..40).collect::<Vec<_>>(), "{route}, {status}");
            assert_keys_carry_the_same(&received(&nodes));
        }
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
}
