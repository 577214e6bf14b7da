//! Readings of a batch become dead letters while other things happen to it.

use std::fs;

use serde_json::{Value, json};

use super::{NEVER, expect_settled, letters};
use crate::support::process::{block, directory};
use crate::support::{self, Answer, FakeNode, Reading, TestGateway, eventually, reading};

/// Readings whose first one is a text, which remote write cannot hold.
fn with_text(count: usize) -> Vec<Reading> {
    let mut readings: Vec<_> = (0..count).map(reading).collect();
    readings[0]["value"] = json!("a text");
    readings
}

fn gateway(node: &FakeNode, directory: &std::path::Path) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", "remote-write")
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
        .node(node)
}

#[tokio::test]
async fn copies_that_are_stored_while_letters_are_written_are_stragglers_and_each_letter_is_written_once() {
    const BATCHES: u64 = 40;
    let directory = directory();
    let nodes = [FakeNode::start().await, FakeNode::start().await];
    let gateway = gateway(&nodes[0], directory.path())
        .set("cluster.route", "replicate")
        .set("cluster.replicate.copies", 2)
        .set("cluster.replicate.quorum", 1)
        .set("batch.max_readings", 2)
        .node(&nodes[1])
        .start()
        .await;
    for _ in 0..BATCHES {
        gateway.post(&with_text(2)).await.expect_status(202);
    }
    expect_settled(&gateway, BATCHES, BATCHES).await;
    let has_all = || async { nodes.iter().all(|node| node.stored().len() as u64 == BATCHES) };
    eventually("both nodes have every batch", has_all).await;
    assert_eq!(letters(directory.path()).len() as u64, BATCHES);
    let ended = gateway.stop().await;
    assert_eq!((ended.undelivered, ended.failed), (0, false));
}

/// A gateway with a batch of 90 readings whose one letter cannot be written.
async fn blocked(node: &FakeNode, directory: &std::path::Path) -> support::RunningGateway {
    let gateway = gateway(node, directory)
        .set("buffer.kind", "memory")
        .set("buffer.max_readings", 100)
        .set("buffer.on_full", "drop_oldest")
        .set("server.request_timeout", "200ms")
        .set("batch.max_readings", 90)
        .set("cluster.retry.initial", "1m")
        .set("cluster.retry.max", "1m")
        .start()
        .await;
    block(&directory.join("dead-letters"));
    gateway.post(&with_text(90)).await.expect_status(202);
    let is_told =
        || async { gateway.get("/readyz").await.json()["checks"]["dead_letters"]["ok"] == json!(false) };
    eventually("it is told", is_told).await;
    gateway
}

#[tokio::test]
async fn nothing_is_dropped_in_vain_for_readings_that_wait_for_their_letters() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let gateway = blocked(&node, directory.path()).await;
    assert_eq!(gateway.get("/readyz").await.expect_status(200).json()["status"], "degraded");
    let ten: Vec<_> = (0..10).map(reading).collect();
    gateway.post(&ten).await.expect_status(202);
    // There is room for them only in the place of the 90, of which nothing can be given up.
    let fifty: Vec<_> = (0..50).map(reading).collect();
    gateway.post(&fifty).await.expect_status(503);
    assert_eq!(gateway.account("dropped").await, 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_to_write_letters_again() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let gateway = blocked(&node, directory.path()).await;
    fs::remove_file(directory.path().join("dead-letters")).expect("removed");
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!((letters(directory.path()).len(), node.requests()), (1, 1));
}

#[tokio::test]
async fn an_answer_for_want_of_tls_is_no_fault_of_the_readings() {
    let node =
        FakeNode::always(Answer::status(400).body("Client sent an HTTP request to an HTTPS server.\n")).await;
    let gateway = TestGateway::new().set("batch.max_readings", 2).node(&node).start().await;
    gateway.post(&[reading(0), reading(1)]).await.expect_status(202);
    eventually("it is tried again", || async { node.requests() >= 3 }).await;
    assert_eq!(gateway.account("dead_lettered").await, 0);
    node.answer_otherwise(Answer::status(204));
    expect_settled(&gateway, 2, 0).await;
}

/// An item of a bulk answer.
fn item(status: u16) -> Value {
    let error = (status > 299).then(|| json!({"type": "t", "reason": "r"}));
    json!({"create": {"status": status, "error": error}})
}

#[tokio::test]
async fn a_batch_refused_by_one_node_and_too_large_for_another_is_stored_once_at_each() {
    let is_13 = |reading: &Reading| reading["value"] == 13;
    let documents = |body: &[u8]| super::json_lines(body).into_iter().skip(1).step_by(2).collect::<Vec<_>>();
    let directory = directory();
    let refusing = FakeNode::judging(move |batch| {
        let items: Vec<_> = documents(&batch.body)
            .iter()
            .map(|reading| item(if is_13(reading) { 400 } else { 201 }))
            .collect();
        Answer::status(200).body(json!({"errors": true, "items": items}).to_string())
    })
    .await;
    let small = FakeNode::judging(move |batch| {
        let items: Vec<_> = documents(&batch.body).iter().map(|_| item(201)).collect();
        match items.len() > 4 {
            true => Answer::status(413),
            false => Answer::status(200).body(json!({"errors": false, "items": items}).to_string()),
        }
    })
    .await;
    let gateway = TestGateway::new()
        .set("cluster.format", "elasticsearch")
        .set("cluster.route", "replicate")
        .set("batch.max_readings", 8)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.path().join("dead-letters").display())
        .node(&refusing)
        .node(&small)
        .start()
        .await;
    let sent: Vec<_> = (10..18).map(reading).collect();
    gateway.post(&sent).await.expect_status(202);
    expect_settled(&gateway, 7, 1).await;
    let [letter] = &letters(directory.path())[..] else { panic!("one letter") };
    assert_eq!(letter["reading"]["value"], 13);
    let stored: Vec<_> = refusing.received().iter().flat_map(|batch| documents(&batch.body)).collect();
    assert_eq!(stored.iter().filter(|reading| !is_13(reading)).count(), 7, "{stored:?}");
}
