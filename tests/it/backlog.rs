//! The promises for a backlog on disk: order, each reading once, and memory that stays flat.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use crate::support::process::{Process, directory, forebay};
use crate::support::{Answer, FakeNode, Reading, RunningGateway, TestGateway, eventually, readings};

/// Readings in a request; with their text they take about 64 KiB.
const READINGS: usize = 16;
/// Requests of 16 MiB, far more than the buffer keeps in memory.
const REQUESTS: usize = 256;

/// The `number`-th request of a row: its readings go on where those of the one before end, each with a long text.
fn request(number: usize) -> Vec<Reading> {
    let text = "x".repeat(4_000);
    let indexes = number * READINGS..(number + 1) * READINGS;
    let reading = |index| {
        serde_json::json!({
            "device": "meter", "sensor": "voltage", "value": format!("{index:06}{text}"),
            "time": "2007-02-01T00:00:00Z",
        })
    };
    indexes.map(reading).collect()
}

/// The place of a reading in the row.
fn index(reading: &Reading) -> usize {
    reading["value"].as_str().and_then(|value| value[..6].parse().ok()).expect("an index")
}

async fn post(gateway: &RunningGateway, numbers: std::ops::Range<usize>) {
    for number in numbers {
        gateway.post(&request(number)).await.expect_status(202);
    }
}

/// The readings that a node stored, by their places in the row.
fn stored(node: &FakeNode) -> Vec<usize> {
    node.stored().iter().flat_map(|batch| batch.readings().iter().map(index).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_delivered_once_and_in_order_while_new_readings_come_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = FakeNode::always(Answer::status(503)).await;
    let gateway = TestGateway::new()
        .set("buffer.kind", "disk")
        .set("buffer.ack", "disk")
        .set("buffer.path", directory.path().display())
        .set("cluster.max_in_flight", 1)
        .node(&node)
        .start()
        .await;
    // From memory at first, then only on disk.
    post(&gateway, 0..REQUESTS).await;
    assert_eq!(gateway.account("buffered").await as usize, REQUESTS * READINGS);
    node.answer_otherwise(Answer::status(200));
    // Readings that come in while the backlog is read stand behind it; in the end they come from memory again.
    let mut sent = REQUESTS;
    while gateway.account("buffered").await > 0 {
        post(&gateway, sent..sent + 1).await;
        sent += 1;
        assert!(sent < 8 * REQUESTS, "the backlog is delivered faster than one client sends");
        // Lets the delivery come to the end of the backlog, again and again.
        if sent > 2 * REQUESTS {
            eventually("all is delivered", || async { gateway.account("buffered").await == 0 }).await;
        }
    }
    post(&gateway, sent..sent + 8).await;
    eventually("all is delivered", || async { gateway.account("buffered").await == 0 }).await;
    assert_eq!(stored(&node), (0..(sent + 8) * READINGS).collect::<Vec<_>>());
    assert!(!gateway.stop().await.has_lost());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_on_disk_does_not_grow_memory() {
    const MEBIBYTE: u64 = 1 << 20;
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let settings = [
        ("server.listen", "127.0.0.1:0"),
        ("buffer.kind", "disk"),
        ("buffer.ack", "disk"),
        ("buffer.path", "buffer"),
        ("cluster.nodes", &node.url()),
        ("cluster.max_in_flight", "4"),
    ];
    let process = Process::start(forebay(directory.path(), &["serve"], &settings));
    let gateway = process.gateway();
    gateway.post(&readings(1)).await.expect_status(202);
    let idle = process.peak_memory();
    // 8 MiB wait in memory, as many were pulled, and 4 batches have 1 MiB each, with their readings.
    post(&gateway, 0..4 * REQUESTS).await;
    let held = gateway.get("/status").await.expect_status(200).json()["buffer"]["bytes"].as_u64();
    assert!(held >= Some(60 * MEBIBYTE), "{held:?} bytes are held");
    let grown = process.peak_memory() - idle;
    assert!(grown < 48 * MEBIBYTE, "a backlog of {held:?} bytes took {grown} bytes of memory");
}
