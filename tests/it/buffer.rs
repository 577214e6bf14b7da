//! The promises of the buffer at its bound: each overflow policy, and acknowledgement after delivery.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "numbers of a test are small, and processes take real time"
)]

mod drop_oldest;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{
    Answer, FakeNode, Gate, LIMIT, RawClient, Reading, Reply, RunningGateway, TestGateway, eventually,
    reading, readings, to_json,
};
use serde_json::json;

/// How long something that must not happen is watched.
const WATCH: Duration = Duration::from_millis(100);

/// A gateway with a buffer of so many readings and the default policy.
fn bounded(max_readings: usize, node: &FakeNode) -> TestGateway {
    TestGateway::new().set("buffer.max_readings", max_readings).node(node)
}

/// A node that answers nothing before its gate lets it.
async fn gated_node() -> (FakeNode, Gate) {
    let gate = Gate::default();
    (FakeNode::always(Answer::status(200).behind(&gate)).await, gate)
}

/// The readings from `first` on.
fn from(first: usize, count: usize) -> Vec<Reading> {
    (first..first + count).map(reading).collect()
}

fn values(readings: &[Reading]) -> Vec<u64> {
    readings.iter().map(|reading| reading["value"].as_u64().expect("a whole number")).collect()
}

/// Fails unless this is 503 with a `Retry-After` from 1 to 60 s, which it returns.
#[track_caller]
fn expect_full(reply: Reply) -> u64 {
    let reply = reply.expect_problem(503);
    let seconds = reply.header("retry-after").parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    seconds
}

async fn expect_accounts(gateway: &RunningGateway, accepted: u64, delivered: u64, dropped: u64) {
    let ledger = gateway.ledger().await;
    let found = ["accepted", "delivered", "dropped"].map(|name| ledger[name].as_u64().expect("a number"));
    assert_eq!(found, [accepted, delivered, dropped], "{ledger}");
}

/// Sends readings on a connection of their own, without waiting for the answer.
async fn begin_post(gateway: &RunningGateway, readings: &[Reading]) -> RawClient {
    let mut client = gateway.raw().await;
    client.post(to_json(readings)).await;
    client
}

/// Waits until some request waits for room, in a buffer that still has room for one reading.
async fn someone_waits(gateway: &RunningGateway) {
    eventually("a request waits", || async { gateway.get("/readyz").await.status == 503 }).await;
}

// reject

#[tokio::test]
async fn reject_holds_exactly_max_readings_and_readings_in_flight_count() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(10, &node).start().await;
    gateway.post(&from(0, 4)).await.expect_status(202);
    eventually("they are in flight", || async { node.received().len() == 1 }).await;
    gateway.post(&from(4, 4)).await.expect_status(202);
    expect_full(gateway.post(&from(8, 3)).await);
    gateway.post(&from(8, 2)).await.expect_status(202);
    expect_full(gateway.post(&from(10, 1)).await);
    expect_accounts(&gateway, 10, 0, 0).await;
    let status = gateway.get("/status").await.json();
    assert_eq!((&status["buffer"]["readings"], &status["ledger"]["buffered"]), (&json!(10), &json!(10)));

    gate.open();
    eventually("there is room again", || async { gateway.account("buffered").await == 0 }).await;
    gateway.post(&from(10, 10)).await.expect_status(202);
    eventually("all arrive", || async { gateway.account("delivered").await == 20 }).await;
    assert_eq!(values(&node.readings()).len(), 20);
    assert!(from(0, 20).iter().all(|reading| node.readings().contains(reading)));
}

#[tokio::test]
async fn reject_holds_exactly_max_bytes() {
    let (node, _gate) = gated_node().await;
    let gateway = bounded(1_000_000, &node).start().await;
    let request = readings(20);
    gateway.post(&request).await.expect_status(202);
    let each = gateway.get("/status").await.json()["buffer"]["bytes"].as_u64().expect("a number");
    assert!(each > 400, "{each}");

    for (limit, fit) in [(3 * each, 3), (3 * each - 1, 2), (3 * each + 50, 3)] {
        let gateway = bounded(1_000_000, &node).set("buffer.max_bytes", format!("{limit}B")).start().await;
        for _ in 0..fit {
            gateway.post(&request).await.expect_status(202);
        }
        expect_full(gateway.post(&request).await);
        assert_eq!(gateway.metric("forebay_buffer_bytes").await, Some((fit * each) as f64));
        assert_eq!(gateway.metric("forebay_buffer_limit_bytes").await, Some(limit as f64));
        expect_accounts(&gateway, fit * 20, 0, 0).await;
        // No reading is so small that it would fit into the rest.
        assert_eq!(gateway.get("/readyz").await.status == 503, fit == 3, "{limit}");
    }
}

#[tokio::test]
async fn a_request_larger_than_the_buffer_is_413_under_every_policy() {
    let (node, _gate) = gated_node().await;
    for policy in ["reject", "wait", "drop_oldest"] {
        let gateway = bounded(5, &node).set("buffer.on_full", policy).start().await;
        gateway.post(&readings(6)).await.expect_problem(413);
        gateway.post(&readings(5)).await.expect_status(202);
        gateway.post(&readings(6)).await.expect_problem(413);
        expect_accounts(&gateway, 5, 0, 0).await;

        let gateway = bounded(1000, &node).set("buffer.on_full", policy).set("buffer.max_bytes", "1KiB");
        let gateway = gateway.start().await;
        gateway.post(&readings(100)).await.expect_problem(413);
        gateway.post(&readings(1)).await.expect_status(202);
        expect_accounts(&gateway, 1, 0, 0).await;
    }
}

#[tokio::test]
async fn retry_after_is_a_minute_while_nothing_leaves_and_short_when_much_does() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(1000, &node).start().await;
    gateway.post(&readings(1000)).await.expect_status(202);
    assert_eq!(expect_full(gateway.post(&readings(1)).await), 60);

    // A thousand leave in less than a second: room for one is there at once, so to speak.
    node.answer_otherwise(Answer::status(200));
    gate.open();
    eventually("they are delivered", || async { gateway.account("delivered").await == 1000 }).await;
    let gate = Gate::default();
    node.answer_otherwise(Answer::status(200).behind(&gate));
    gateway.post(&readings(1000)).await.expect_status(202);
    assert_eq!(expect_full(gateway.post(&readings(1)).await), 1);
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_even_in_a_buffer_that_is_nearly_full() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(10, &node).start().await;
    gateway.post(&from(0, 9)).await.expect_status(202);
    for _ in 0..20 {
        expect_full(gateway.post(&from(100, 2)).await);
    }
    gateway.post(&from(9, 1)).await.expect_status(202);
    gate.open();
    eventually("all arrive", || async { gateway.account("delivered").await == 10 }).await;
    assert!(node.readings().iter().all(|reading| from(0, 10).contains(reading)));
}

// wait

#[tokio::test]
async fn wait_waits_until_there_is_room() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").start().await;
    gateway.post(&from(0, 4)).await.expect_status(202);
    let mut waiting = begin_post(&gateway, &from(4, 4)).await;
    assert!(!waiting.hears_within(WATCH).await);
    expect_accounts(&gateway, 4, 0, 0).await;
    gate.open();
    waiting.reply().await.expect_status(202);
    eventually("all arrive", || async { gateway.account("delivered").await == 8 }).await;
    assert_eq!(node.readings(), from(0, 8));
}

#[tokio::test]
async fn wait_ends_with_503_after_request_timeout_and_nothing_is_taken() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").set("server.request_timeout", "200ms");
    let gateway = gateway.start().await;
    gateway.post(&from(0, 4)).await.expect_status(202);
    let begun = std::time::Instant::now();
    expect_full(gateway.post(&from(4, 1)).await);
    let waited = begun.elapsed();
    assert!((Duration::from_millis(190)..LIMIT).contains(&waited), "{waited:?}");
    expect_accounts(&gateway, 4, 0, 0).await;
    gate.open();
    eventually("there is room", || async { gateway.account("buffered").await == 0 }).await;
    gateway.post(&from(5, 4)).await.expect_status(202);
    eventually("they arrive", || async { gateway.account("delivered").await == 8 }).await;
    assert_eq!(node.readings(), [from(0, 4), from(5, 4)].concat());
}

#[tokio::test]
async fn waiting_requests_are_served_in_order_and_small_ones_do_not_starve_a_large_one() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    let mut large = begin_post(&gateway, &from(3, 4)).await;
    someone_waits(&gateway).await;
    // There is room for one, but not for those who came before.
    let mut small = begin_post(&gateway, &from(7, 1)).await;
    assert!(!small.hears_within(WATCH).await);
    assert!(!large.hears_within(Duration::from_millis(1)).await);

    gate.open();
    large.reply().await.expect_status(202);
    small.reply().await.expect_status(202);
    eventually("all arrive", || async { gateway.account("delivered").await == 8 }).await;
    assert_eq!(node.readings(), from(0, 8));
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_leaves_the_room_to_those_behind_it() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    let large = begin_post(&gateway, &from(100, 4)).await;
    someone_waits(&gateway).await;
    let mut small = begin_post(&gateway, &from(3, 1)).await;
    assert!(!small.hears_within(WATCH).await);
    drop(large);
    small.reply().await.expect_status(202);
    expect_accounts(&gateway, 4, 0, 0).await;
    gate.open();
    eventually("all arrive", || async { gateway.account("delivered").await == 4 }).await;
    assert_eq!(node.readings(), from(0, 4));
}

#[tokio::test]
async fn a_client_that_hung_up_while_it_waited_takes_no_room_from_later_ones() {
    let (node, _gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    let large = begin_post(&gateway, &from(100, 4)).await;
    someone_waits(&gateway).await;
    drop(large);
    gateway.post(&from(3, 1)).await.expect_status(202);
    expect_accounts(&gateway, 4, 0, 0).await;
}

#[tokio::test]
async fn a_large_request_that_gives_up_lets_those_behind_it_go_on() {
    let (node, _gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").set("server.request_timeout", "1s");
    let gateway = gateway.start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    let mut large = begin_post(&gateway, &from(100, 4)).await;
    someone_waits(&gateway).await;
    // Those behind it have so much longer to wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut small = begin_post(&gateway, &from(3, 1)).await;
    expect_full(large.reply().await);
    small.reply().await.expect_status(202);
    expect_accounts(&gateway, 4, 0, 0).await;
}

#[tokio::test]
async fn many_waiting_requests_are_all_served_and_the_bound_holds_all_the_time() {
    let node = FakeNode::always(Answer::status(200).after(Duration::from_millis(3))).await;
    let gateway = bounded(10, &node).set("buffer.on_full", "wait").set("batch.max_age", "1ms").start().await;
    let clients: Vec<_> = (0..40)
        .map(|client| {
            let gateway = gateway.handle();
            tokio::spawn(async move {
                gateway.post(&from(client * 10, client % 10 + 1)).await.expect_status(202);
            })
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        assert!(gateway.account("buffered").await <= 10);
    }
    for client in clients {
        client.await.expect("served");
    }
    eventually("all arrive", || async { gateway.account("delivered").await == 220 }).await;
    assert_eq!(node.count(), 220);
}

#[tokio::test]
async fn requests_waiting_for_room_are_answered_at_once_when_the_gateway_stops() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "wait").start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    let mut waiting = begin_post(&gateway, &from(3, 2)).await;
    someone_waits(&gateway).await;
    let stop = tokio::spawn(gateway.stop());
    expect_full(waiting.reply().await);
    gate.open();
    assert_eq!(stop.await.expect("it stops").undelivered, 0);
    assert_eq!(node.readings(), from(0, 3));
}

// Acknowledgements

#[tokio::test]
async fn a_buffer_on_disk_gives_every_acknowledgement_and_disk_unless_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    for (path, ack) in [
        ("/v1/readings", "disk"),
        ("/v1/readings?ack=memory", "memory"),
        ("/v1/readings?ack=disk", "disk"),
        ("/v1/readings?ack=delivered", "delivered"),
    ] {
        let reply = gateway.send(gateway.request(path).body(to_json(&readings(1)))).await;
        assert_eq!(reply.expect_status(202).json()["ack"], ack, "{path}");
    }
    eventually("all are delivered", || async { gateway.account("delivered").await == 4 }).await;
    let commits = gateway.metric("forebay_commit_readings_sum").await;
    assert_eq!(commits, Some(4.0), "each reading is in one group commit");
    assert!(gateway.metric("forebay_commit_seconds_count").await >= Some(1.0));
    assert_eq!(gateway.stop().await.undelivered, 0);
}

// ack=delivered

async fn begin_delivered(gateway: &RunningGateway, readings: &[Reading]) -> tokio::task::JoinHandle<Reply> {
    let (gateway, body) = (gateway.handle(), to_json(readings));
    tokio::spawn(async move {
        let request = gateway.request("/v1/readings?ack=delivered").body(body);
        gateway.send(request.header("content-type", "application/json")).await
    })
}

#[tokio::test]
async fn ack_delivered_is_answered_when_the_node_has_every_reading() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = bounded(100, &node).set("batch.max_readings", 2).start().await;
    let answer = begin_delivered(&gateway, &from(0, 5)).await;
    eventually("three batches are on their way", || async { node.received().len() == 3 }).await;
    gate.pass_one();
    gate.pass_one();
    eventually("two are delivered", || async { gateway.account("delivered").await >= 3 }).await;
    tokio::time::sleep(WATCH).await;
    assert!(!answer.is_finished());
    gate.pass_one();
    let reply = answer.await.expect("an answer").expect_status(202).json();
    assert_eq!(reply, json!({ "accepted": 5, "rejected": 0, "ack": "delivered", "errors": [] }));
    // A client that has the answer finds the readings in the ledger.
    expect_accounts(&gateway, 5, 5, 0).await;
}

#[tokio::test]
async fn ack_delivered_waits_through_retries_and_may_be_the_default() {
    let node = FakeNode::answering([503, 500].map(Answer::status)).await;
    let gateway = bounded(100, &node).set("buffer.ack", "delivered").start().await;
    let reply = gateway.post(&readings(3)).await.expect_status(202);
    assert_eq!(reply.json()["ack"], "delivered");
    assert_eq!(node.readings(), readings(3));
    let quick = gateway.request("/v1/readings?ack=memory").body(to_json(&readings(1)));
    assert_eq!(gateway.send(quick).await.expect_status(202).json()["ack"], "memory");
}

#[tokio::test]
async fn ack_delivered_is_answered_when_readings_were_dropped() {
    let node = FakeNode::start().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("batch.max_age", "1h");
    let gateway = gateway.start().await;
    let answer = begin_delivered(&gateway, &from(0, 3)).await;
    eventually("it is in the buffer", || async { gateway.account("accepted").await == 3 }).await;
    gateway.post(&from(3, 2)).await.expect_status(202);
    // One of its readings was given up; the others are still to come.
    assert_eq!(gateway.account("dropped").await, 1);
    gateway.post(&from(5, 2)).await.expect_status(202);
    let reply = answer.await.expect("an answer");
    expect_full(reply.clone());
    assert!(reply.detail().contains("given up"), "{}", reply.detail());
    expect_accounts(&gateway, 7, 0, 3).await;
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!(values(&node.readings()), [3, 4, 5, 6]);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_for_delivery_changes_nothing() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(100, &node).set("buffer.ack", "delivered").start().await;
    let client = begin_post(&gateway, &from(0, 3)).await;
    eventually("they are on their way", || async { node.received().len() == 1 }).await;
    drop(client);
    gate.open();
    eventually("they are delivered", || async { gateway.account("delivered").await == 3 }).await;
    assert_eq!(node.readings(), from(0, 3));
}

#[tokio::test]
async fn ack_delivered_is_answered_while_a_stop_delivers() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(100, &node).start().await;
    let answer = begin_delivered(&gateway, &from(0, 3)).await;
    eventually("it is on its way", || async { node.received().len() == 1 }).await;
    let other = gateway.handle();
    let stop = tokio::spawn(gateway.stop());
    eventually("it is draining", || async { other.get("/readyz").await.status == 503 }).await;
    gate.open();
    assert_eq!(answer.await.expect("an answer").expect_status(202).json()["ack"], "delivered");
    assert_eq!(stop.await.expect("it stops").undelivered, 0);
}

#[tokio::test]
async fn ack_delivered_is_answered_when_the_gateway_stops_before() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = bounded(100, &node).set("server.shutdown_timeout", "100ms").start().await;
    let answer = begin_delivered(&gateway, &from(0, 3)).await;
    eventually("it is on its way", || async { node.received().len() == 1 }).await;
    assert_eq!(gateway.stop().await.undelivered, 3);
    let detail = answer.await.expect("an answer").expect_problem(503).detail();
    assert!(detail.contains("stopped"), "{detail}");
}
