//! The promises on the way from the buffer to the nodes.

mod accounts;
mod answers;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use forebay_reading::clock::wall_time;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::arrivals::{assert_keys_carry_the_same, received};
use crate::support::process::{Process, directory, forebay};
use crate::support::{
    self, Answer, FakeNode, LIMIT, RawNode, Reading, ReceivedBatch, RunningGateway, TestGateway, eventually,
    node_status, read_head, reading, readings, to_json,
};

/// Longer than any test: a pause of this length never ends.
const NEVER: &str = "1h";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The readings of each batch, as their count.
fn sizes(received: &[ReceivedBatch]) -> Vec<usize> {
    received.iter().map(|batch| batch.readings().len()).collect()
}

/// All readings in the order in which they came.
fn in_order(received: &[ReceivedBatch]) -> Vec<Reading> {
    received.iter().flat_map(ReceivedBatch::readings).collect()
}

/// The readings that several nodes have, each batch once, wherever and however often it came.
fn stored_once(nodes: &[&FakeNode]) -> Vec<u64> {
    let batches: BTreeMap<_, _> =
        nodes.iter().flat_map(|node| node.stored()).map(|batch| (batch.key(), batch)).collect();
    let mut values: Vec<_> = batches
        .values()
        .flat_map(ReceivedBatch::readings)
        .map(|reading| reading["value"].as_u64().expect("a number"))
        .collect();
    values.sort_unstable();
    values
}

async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("within {limit:?}: {what}"))
}

// The bounds of a batch.

#[tokio::test]
async fn readings_arrive_at_the_node_in_canonical_form_with_the_promised_headers() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("cluster.headers.x-token", "secret").start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("the readings arrive", || async { node.readings() == readings(3) }).await;

    let batch = &node.received()[0];
    assert_eq!(batch.header("content-type"), "application/x-ndjson");
    assert_eq!(batch.header("forebay-readings"), "3");
    assert_eq!(batch.header("user-agent"), concat!("forebay/", env!("CARGO_PKG_VERSION")));
    assert_eq!(batch.header("x-token"), "secret");
    assert!(!batch.headers.contains_key("content-encoding"));
    assert!(!batch.key().is_empty());
    let lines: Vec<String> = readings(3)
        .iter()
        .map(|r| {
            format!(
                r#"{{"device":{},"sensor":"voltage","value":{},"time":{}}}"#,
                r["device"], r["value"], r["time"]
            ) + "\n"
        })
        .collect();
    assert_eq!(batch.body, lines.concat());
    eventually("they are settled", || async { gateway.account("delivered").await == 3 }).await;
}

#[tokio::test]
async fn a_batch_goes_when_it_has_max_readings_and_not_before() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 5)
        .set("batch.max_age", NEVER)
        .set("cluster.max_in_flight", 1)
        .start()
        .await;
    // One request is spread over several batches, and its rest waits for the next one.
    gateway.post(&readings(12)).await.expect_status(202);
    eventually("two full batches are delivered", || async { gateway.account("delivered").await == 10 }).await;
    assert_eq!(sizes(&node.received()), [5, 5]);
    gateway.post(&[reading(12)]).await.expect_status(202);
    gateway.post(&[reading(13)]).await.expect_status(202);
    assert_eq!((node.requests(), gateway.account("buffered").await), (2, 4));
    gateway.post(&[reading(14)]).await.expect_status(202);
    eventually("the third is delivered", || async { gateway.account("delivered").await == 15 }).await;
    assert_eq!(sizes(&node.received()), [5, 5, 5]);
    assert_eq!(in_order(&node.received()), readings(15));
}

#[tokio::test]
async fn several_small_requests_share_a_batch() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 10)
        .set("batch.max_age", NEVER)
        .start()
        .await;
    for request in readings(10).chunks(2) {
        gateway.post(request).await.expect_status(202);
    }
    eventually("they arrive", || async { node.readings() == readings(10) }).await;
    assert_eq!(node.requests(), 1);
}

#[tokio::test]
async fn a_batch_goes_when_its_first_reading_has_waited_max_age() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("batch.max_age", "2s").start().await;
    let posted = Instant::now();
    gateway.post(&[reading(0)]).await.expect_status(202);
    tokio::time::sleep(millis(1000)).await;
    // This one does not make the first one wait longer.
    gateway.post(&[reading(1)]).await.expect_status(202);
    let second = Instant::now();
    eventually("they arrive", || async { node.readings() == readings(2) }).await;
    let received = node.received();
    assert_eq!(received.len(), 1);
    assert!(received[0].at - posted >= millis(2000), "{:?}", received[0].at - posted);
    assert!(received[0].at - second < millis(2000), "{:?}", received[0].at - second);
}

#[tokio::test]
async fn a_body_never_exceeds_max_bytes_and_a_larger_reading_goes_alone() {
    for format in ["ndjson", "json"] {
        let node = FakeNode::start().await;
        let gateway = TestGateway::new()
            .node(&node)
            .set("cluster.format", format)
            .set("batch.max_bytes", "1000B")
            .set("cluster.max_in_flight", 1)
            .start()
            .await;
        let lengths = [0, 300, 300, 2000, 10, 880, 900, 4096, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let sent: Vec<Reading> = lengths
            .iter()
            .map(|length| {
                json!({"device": "d", "sensor": "s", "value": "x".repeat(*length), "time": "2007-02-01T00:00:00Z"})
            })
            .collect();
        gateway.post(&sent).await.expect_status(202);
        eventually("all arrive", || async { in_order(&node.received()) == sent }).await;
        let received = node.received();
        let alone =
            received.iter().filter(|batch| batch.body.len() > 1000).map(|batch| batch.readings().len());
        assert!(alone.eq([1, 1]), "{format}: {:?}", sizes(&received));
        // Nothing was sent alone that would have fitted: the twelve small ones at the end are one batch.
        assert_eq!(received.last().map(|batch| batch.readings().len()), Some(12), "{format}");
    }
}

#[tokio::test]
async fn a_body_is_in_the_format_and_the_compression_that_are_set() {
    for (format, content_type) in [("ndjson", "application/x-ndjson"), ("json", "application/json")] {
        for compression in ["none", "gzip", "zstd"] {
            let node = FakeNode::answering([Answer::status(503)]).await;
            let gateway = TestGateway::new()
                .node(&node)
                .set("cluster.format", format)
                .set("cluster.compression", compression)
                .start()
                .await;
            gateway.post(&readings(50)).await.expect_status(202);
            eventually("they arrive", || async { node.readings() == readings(50) }).await;
            let received = node.received();
            assert_eq!(received[0].header("content-type"), content_type);
            let encoding = received[0].headers.get("content-encoding").map(|value| value.as_bytes());
            assert_eq!(encoding, (compression != "none").then_some(compression.as_bytes()));
            assert_eq!(received[0].header("content-length"), received[0].body.len().to_string());
            assert_eq!(received[0].body, received[1].body, "again, the same bytes");
            if format == "json" {
                assert_eq!(
                    serde_json::from_slice::<Value>(&received[0].unpacked()).expect("JSON"),
                    json!(readings(50))
                );
            }
        }
    }
}

// How batches travel.

#[tokio::test]
async fn batches_share_a_connection_that_is_kept_open() {
    let node = FakeNode::answering((0..5).map(|_| Answer::status(503).body("x".repeat(5000)))).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.max_in_flight", 1)
        .start()
        .await;
    gateway.post(&readings(30)).await.expect_status(202);
    eventually("they arrive", || async { node.readings() == readings(30) }).await;
    assert_eq!((node.requests(), node.connections()), (35, 1));
}

#[tokio::test]
async fn as_many_batches_are_in_flight_as_max_in_flight_says_and_not_more() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.max_in_flight", 4)
        .set("cluster.timeout", "300ms")
        .start()
        .await;
    gateway.post(&readings(40)).await.expect_status(202);
    eventually("four are on their way", || async { node.in_flight_peak() == 4 }).await;
    let status = node_status(&gateway, &node.id()).await;
    assert_eq!((&status["in_flight"], &status["in_flight_limit"]), (&json!(4), &json!(4)));
    let line = format!("forebay_node_in_flight{{node=\"{}\"}}", node.id());
    assert_eq!(gateway.metric(&line).await, Some(4.0));

    node.answer_otherwise(Answer::status(200).after(millis(2)));
    eventually("they are settled", || async { gateway.account("delivered").await == 40 }).await;
    assert_eq!(node.in_flight_peak(), 4);
    assert_eq!(gateway.metric(&line).await, Some(0.0));
}

#[tokio::test]
async fn order_is_kept_at_a_node_that_gets_one_batch_at_a_time() {
    let node = FakeNode::answering([503, 200, 500, 200, 200, 408, 429, 200].map(Answer::status)).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 3)
        .set("cluster.max_in_flight", 1)
        .start()
        .await;
    for request in readings(40).chunks(4) {
        gateway.post(request).await.expect_status(202);
    }
    eventually("they arrive", || async { node.count() == 40 }).await;
    assert_eq!(node.readings(), readings(40));
}
