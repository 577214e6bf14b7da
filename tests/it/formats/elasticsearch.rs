//! Elasticsearch answers for each document by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{NEVER, all_settled, expect_settled, json_lines, letters};
use crate::support::process::{Process, block, directory, forebay};
use crate::support::{
    Answer, FakeNode, Reading, ReceivedBatch, RunningGateway, TestGateway, eventually, node_status, reading,
    readings, to_json,
};

/// The stored documents, by their identifiers.
type Index = Arc<Mutex<BTreeMap<String, Reading>>>;

/// The documents of a bulk request with their identifiers.
fn documents(batch: &ReceivedBatch) -> Vec<(String, Reading)> {
    assert_eq!(batch.header("content-type"), "application/x-ndjson");
    assert!(batch.unpacked().ends_with(b"\n"), "a bulk request ends in a line feed");
    let lines = json_lines(&batch.unpacked());
    let documents: Vec<_> = lines
        .chunks(2)
        .map(|pair| {
            let [action, document] = pair else { panic!("an action without a document: {pair:?}") };
            let create = &action["create"];
            assert_eq!(create["_index"], "readings");
            (create["_id"].as_str().expect("an identifier").to_owned(), document.clone())
        })
        .collect();
    assert_eq!(documents.len().to_string(), batch.header("forebay-readings"));
    documents
}

fn ids(batch: &ReceivedBatch) -> BTreeSet<String> {
    documents(batch).into_iter().map(|(id, _)| id).collect()
}

fn number(document: &Reading) -> usize {
    document["value"].as_u64().and_then(|number| usize::try_from(number).ok()).expect("a small number")
}

fn item(status: u16, error: Option<&str>) -> Value {
    let outcome = match error {
        None => json!({"_index": "readings", "result": "created", "status": status}),
        Some(kind) => {
            json!({"_index": "readings", "status": status, "error": {"type": kind, "reason": "words"}})
        }
    };
    json!({ "create": outcome })
}

/// Treats a bulk request as Elasticsearch does: `status` makes some documents fail, by their numbers.
fn bulk(
    index: &Index,
    batch: &ReceivedBatch,
    status: impl Fn(usize) -> Option<(u16, &'static str)>,
) -> Answer {
    let mut index = index.lock().expect("not poisoned");
    let items: Vec<Value> = documents(batch)
        .into_iter()
        .map(|(id, document)| match status(number(&document)) {
            Some((status, kind)) => item(status, Some(kind)),
            None if index.contains_key(&id) => item(409, Some("version_conflict_engine_exception")),
            None => {
                index.insert(id, document);
                item(201, None)
            }
        })
        .collect();
    let errors = items.iter().any(|item| item["create"]["error"].is_object());
    Answer::status(200).body(json!({"took": 3, "errors": errors, "items": items}).to_string())
}

/// A node that takes everything.
async fn node_taking_all(index: &Index) -> FakeNode {
    let index = Arc::clone(index);
    FakeNode::judging(move |batch| bulk(&index, batch, |_| None)).await
}

fn gateway(directory: &Path, node: &FakeNode, readings: usize) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", "elasticsearch")
        .set("batch.max_readings", readings)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
        .node(node)
}

/// All that is stored, in the order of its numbers.
fn stored(index: &Index) -> Vec<Reading> {
    let mut stored: Vec<_> = index.lock().expect("not poisoned").values().cloned().collect();
    stored.sort_by_key(number);
    stored
}

fn without(count: usize, bad: &[usize]) -> Vec<Reading> {
    (0..count).filter(|number| !bad.contains(number)).map(reading).collect()
}

#[tokio::test]
async fn every_reading_becomes_a_document_in_any_compression() {
    for compression in ["none", "gzip"] {
        let (directory, index) = (directory(), Index::default());
        let node = node_taking_all(&index).await;
        let gateway =
            gateway(directory.path(), &node, 50).set("cluster.compression", compression).start().await;
        gateway.post(&readings(100)).await.expect_status(202);
        expect_settled(&gateway, 100, 0).await;
        assert_eq!(stored(&index), readings(100));
        assert_eq!(node.requests(), 2);
        assert_eq!(gateway.stop().await.undelivered, 0);
    }
}

#[tokio::test]
async fn documents_that_are_refused_become_dead_letters_and_those_alone() {
    const BAD: [usize; 3] = [0, 4, 9];
    let (directory, index) = (directory(), Index::default());
    let in_node = Arc::clone(&index);
    let node = FakeNode::judging(move |batch| {
        bulk(&in_node, batch, |number| BAD.contains(&number).then_some((400, "document_parsing_exception")))
    })
    .await;
    let gateway = gateway(directory.path(), &node, 10).start().await;
    let request = gateway.request("/v1/readings?ack=delivered").body(to_json(&readings(10)));
    let reply = gateway.send(request).await.expect_problem(422);
    assert!(reply.detail().contains("kept as dead letters"), "{}", reply.detail());
    expect_settled(&gateway, 7, 3).await;
    assert_eq!(stored(&index), without(10, &BAD));
    assert_eq!(node.requests(), 1, "nothing is sent again");
    let letters = letters(directory.path());
    assert_eq!(letters.len(), BAD.len());
    for (letter, bad) in letters.iter().zip(BAD) {
        assert_eq!(letter["reading"], reading(bad));
        assert_eq!((&letter["reason"], &letter["status"]), (&json!("refused"), &json!(400)));
        assert_eq!(
            (&letter["node"], &letter["body"]),
            (&json!(node.id()), &json!("document_parsing_exception: words"))
        );
    }
    let delivered = format!("forebay_readings_delivered_total{{node=\"{}\"}}", node.id());
    assert_eq!(gateway.metric(&delivered).await, Some(7.0));
    assert_eq!(node_status(&gateway, &node.id()).await["up"], true, "it is not ill");

    // A request with ack=delivered whose readings are all stored hears so.
    let later: Vec<_> = (10..20).map(reading).collect();
    let request = gateway.request("/v1/readings?ack=delivered").body(to_json(&later));
    gateway.send(request).await.expect_status(202);
}

#[tokio::test]
async fn a_batch_that_was_taken_in_part_goes_again_whole_under_the_same_identifiers() {
    for (status, kind) in [
        (429, "es_rejected_execution_exception"),
        (503, "unavailable_shards_exception"),
        (500, "null_pointer_exception"),
    ] {
        let (directory, index) = (directory(), Index::default());
        let in_node = Arc::clone(&index);
        let mut tries = 0;
        let node = FakeNode::judging(move |batch| {
            tries += 1;
            // A document that is refused beside them waits for the others.
            bulk(&in_node, batch, |number| match number {
                3 => Some((400, "document_parsing_exception")),
                5.. if tries < 4 => Some((status, kind)),
                _ => None,
            })
        })
        .await;
        let gateway = gateway(directory.path(), &node, 10).start().await;
        gateway.post(&readings(10)).await.expect_status(202);
        expect_settled(&gateway, 9, 1).await;
        let received = node.received();
        assert_eq!(received.len(), 4, "{status}");
        assert!(
            received.iter().all(|batch| batch.body == received[0].body && batch.key() == received[0].key())
        );
        assert_eq!(stored(&index), without(10, &[3]));
        assert_eq!(letters(directory.path()).len(), 1, "{status}");
        let retries = format!("forebay_retries_total{{node=\"{}\",reason=\"partly\"}}", node.id());
        assert_eq!(gateway.metric(&retries).await, Some(3.0));
    }
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_stored_once() {
    let (directory, index) = (directory(), Index::default());
    let in_node = Arc::clone(&index);
    let mut tries = 0;
    let node = FakeNode::judging(move |batch| {
        tries += 1;
        let answer = bulk(&in_node, batch, |_| None);
        if tries < 3 { Answer::hang_up() } else { answer }
    })
    .await;
    let gateway = gateway(directory.path(), &node, 10).start().await;
    gateway.post(&readings(10)).await.expect_status(202);
    expect_settled(&gateway, 10, 0).await;
    assert_eq!((node.requests(), stored(&index)), (3, readings(10)));
    assert!(letters(directory.path()).is_empty());
}

#[tokio::test]
async fn a_success_without_a_bulk_answer_counts_as_a_failure() {
    let (directory, index) = (directory(), Index::default());
    let all_but_one = json!({"errors": false, "items": vec![item(201, None); 9]}).to_string();
    let cut = json!({"errors": false, "items": vec![item(201, None); 10]}).to_string();
    let no_status = json!({"errors": true, "items": vec![json!({"create": {}}); 10]}).to_string();
    let endless = format!("{{\"errors\":false,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let odd = [
        "<html>Welcome</html>",
        "{}",
        r#"{"status":"ok"}"#,
        &all_but_one,
        &cut[..cut.len() - 1],
        &no_status,
        r#"{"errors":true,"items":[{"create":{"status":"201"}}]}"#,
        &endless,
    ];
    let node = FakeNode::answering(odd.iter().map(|body| Answer::status(200).body(*body))).await;
    let in_node = Arc::clone(&index);
    node.judge_otherwise(move |batch| bulk(&in_node, batch, |_| None));
    let gateway = gateway(directory.path(), &node, 10).set("cluster.health.failures", 100).start().await;
    gateway.post(&readings(10)).await.expect_status(202);
    // The endless one holds more than is kept of an answer about ten readings, and says that all went well.
    expect_settled(&gateway, 10, 0).await;
    assert_eq!(stored(&index), readings(10));
    assert_eq!(node.requests(), odd.len() + 1);
    assert!(letters(directory.path()).is_empty());
}

async fn last_error(gateway: &RunningGateway, node: &FakeNode) -> String {
    let status = node_status(gateway, &node.id()).await;
    assert_eq!(status["up"], false, "{status}");
    status.to_string()
}

#[tokio::test]
async fn a_fault_that_every_document_would_meet_takes_the_node_down_and_nothing_is_given_up() {
    let timestamp = json!({"create": {"status": 400, "error": {
        "type": "document_parsing_exception", "reason": "[1:2] failed to parse",
        "caused_by": {"type": "illegal_argument_exception", "reason": "data stream timestamp field [@timestamp] is missing"},
    }}});
    for (item, words) in [
        (item(404, Some("index_not_found_exception")), "index_not_found_exception: words"),
        (item(403, Some("cluster_block_exception")), "cluster_block_exception: words"),
        (timestamp, "data stream timestamp field [@timestamp] is missing"),
    ] {
        let (directory, index) = (directory(), Index::default());
        let body = json!({"took": 1, "errors": true, "items": vec![item; 5]}).to_string();
        let node = FakeNode::always(Answer::status(200).body(body)).await;
        let gateway = gateway(directory.path(), &node, 5).start().await;
        gateway.post(&readings(5)).await.expect_status(202);
        eventually("the node is down", || async { node_status(&gateway, &node.id()).await["up"] == false })
            .await;
        let told = last_error(&gateway, &node).await;
        assert!(told.contains(words), "{told}");
        assert_eq!(gateway.account("buffered").await, 5);
        // Somebody mends it.
        let in_node = Arc::clone(&index);
        node.judge_otherwise(move |batch| bulk(&in_node, batch, |_| None));
        expect_settled(&gateway, 5, 0).await;
        assert_eq!(stored(&index), readings(5));
        assert!(letters(directory.path()).is_empty());
    }
}

#[tokio::test]
async fn dead_letters_that_find_no_room_are_tried_again_without_sending_the_batch_again() {
    const BAD: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    let (directory, index) = (directory(), Index::default());
    let in_node = Arc::clone(&index);
    let node = FakeNode::judging(move |batch| {
        bulk(&in_node, batch, |number| BAD.contains(&number).then_some((400, "document_parsing_exception")))
    })
    .await;
    let place = directory.path().join("dead-letters");
    let gateway = gateway(directory.path(), &node, 20).start().await;
    block(&place);
    gateway.post(&readings(20)).await.expect_status(202);
    let trouble = || async { gateway.get("/status").await.json()["dead_letters"]["trouble"].clone() };
    eventually("it is told", || async { trouble().await.is_string() }).await;
    gateway.post(&(20..40).map(reading).collect::<Vec<_>>()).await.expect_status(202);
    eventually("the next batch is delivered", || async { gateway.account("delivered").await == 20 }).await;
    assert_eq!(gateway.account("buffered").await, 20);
    fs::remove_file(&place).expect("removed");
    expect_settled(&gateway, 32, 8).await;
    assert_eq!(node.requests(), 2, "each batch was sent once");
    let refused: Vec<_> = letters(directory.path()).iter().map(|letter| letter["reading"].clone()).collect();
    assert_eq!(refused, readings(8), "only what was refused");
    assert_eq!(stored(&index), without(40, &BAD));
}

#[tokio::test]
async fn after_a_crash_the_same_readings_have_the_same_identifiers() {
    let (directory, index) = (directory(), Index::default());
    let in_node = Arc::clone(&index);
    // It stores the documents and does not answer.
    let node = FakeNode::judging(move |batch| {
        bulk(&in_node, batch, |_| None);
        Answer::never()
    })
    .await;
    let url = node.url();
    let settings = [
        ("server.listen", "127.0.0.1:0"),
        ("buffer.path", "buffer"),
        ("dead_letter.path", "dead-letters"),
        ("batch.max_readings", "10"),
        ("cluster.nodes", &url),
        ("cluster.format", "elasticsearch"),
        ("cluster.timeout", NEVER),
    ];
    let start = || {
        let command = forebay(directory.path(), &["serve"], &settings);
        tokio::task::spawn_blocking(|| Process::start(command))
    };
    let process = start().await.expect("it starts");
    process.gateway().post(&readings(30)).await.expect_status(202);
    eventually("all are stored", || async { index.lock().expect("not poisoned").len() == 30 }).await;
    let before: BTreeSet<String> = node.received().iter().flat_map(ids).collect();
    process.kill().await;
    let seen = node.requests();
    let in_node = Arc::clone(&index);
    node.judge_otherwise(move |batch| bulk(&in_node, batch, |_| None));
    let process = start().await.expect("it starts again");
    all_settled(&process.gateway()).await;
    let after: BTreeSet<String> = node.received()[seen..].iter().flat_map(ids).collect();
    assert_eq!(after, before);
    assert_eq!(stored(&index), readings(30), "once each");
    assert!(letters(directory.path()).is_empty());
}
