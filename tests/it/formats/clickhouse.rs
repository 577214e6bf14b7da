//! ClickHouse takes the insert in the query of its address, and names errors by codes of its own.

use std::path::Path;

use serde_json::json;
use url::form_urlencoded;

use super::{NEVER, expect_settled, letters};
use crate::support::process::directory;
use crate::support::{
    Answer, FakeNode, ReceivedBatch, TestGateway, eventually, node_status, reading, readings,
};

const INSERT: &str = "INSERT INTO `default`.`readings` FORMAT JSONEachRow";

fn gateway(directory: &Path, node: &FakeNode, readings: usize) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", "clickhouse")
        .set("batch.max_readings", readings)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
        .node(node)
}

/// The parameters of the address that a batch was sent to, in their order.
fn parameters(batch: &ReceivedBatch) -> Vec<(String, String)> {
    let (_, query) = batch.target.split_once('?').expect("a query");
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parameter(batch: &ReceivedBatch, name: &str) -> Option<String> {
    parameters(batch).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

#[tokio::test]
async fn each_insert_names_its_table_and_carries_its_token_at_every_try() {
    let directory = directory();
    let node = FakeNode::answering([Answer::status(503), Answer::hang_up()]).await;
    let gateway = gateway(directory.path(), &node, 5).start().await;
    gateway.post(&readings(10)).await.expect_status(202);
    expect_settled(&gateway, 10, 0).await;
    let received = node.received();
    assert_eq!(received.len(), 4);
    for batch in &received {
        assert!(batch.target.starts_with("/v1/batches?query="), "{}", batch.target);
        assert_eq!(parameter(batch, "query").as_deref(), Some(INSERT));
        assert_eq!(parameter(batch, "insert_deduplication_token"), Some(batch.key()));
        assert_eq!(parameter(batch, "date_time_input_format").as_deref(), Some("best_effort"));
        assert_eq!(parameter(batch, "input_format_skip_unknown_fields").as_deref(), Some("0"));
    }
    let mut stored = node.readings();
    stored.sort_by_key(|reading| reading["value"].as_u64());
    assert_eq!(stored, readings(10), "canonical rows");
}

#[tokio::test]
async fn settings_of_node_and_format_are_used_and_parameters_of_the_address_come_last() {
    let directory = directory();
    let node = FakeNode::start().await;
    let address = format!("{}?user=me&input_format_skip_unknown_fields=1&query=SELECT%201", node.url());
    let gateway = TestGateway::new()
        .set("cluster.format", "clickhouse")
        .set("cluster.clickhouse.database", "me`asured")
        .set("cluster.clickhouse.table", "all")
        .set("cluster.clickhouse.deduplication_token", false)
        .set("dead_letter.path", directory.path().join("dead-letters").display())
        .node_at(address)
        .start()
        .await;
    gateway.post(&readings(3)).await.expect_status(202);
    expect_settled(&gateway, 3, 0).await;
    let expected = [
        ("query", "INSERT INTO `me\\`asured`.`all` FORMAT JSONEachRow"),
        ("date_time_input_format", "best_effort"),
        ("input_format_skip_unknown_fields", "0"),
        ("user", "me"),
        ("input_format_skip_unknown_fields", "1"),
        ("query", "SELECT 1"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(parameters(&node.received()[0]), expected);
}

/// The answer of a node when one of these readings is in the batch.
async fn node_refusing(bad: &'static [u64], answer: Answer) -> FakeNode {
    FakeNode::judging(move |batch| {
        let is_bad = |row: &super::Reading| row["value"].as_u64().is_some_and(|number| bad.contains(&number));
        if batch.readings().iter().any(is_bad) { answer.clone() } else { Answer::status(200) }
    })
    .await
}

#[tokio::test]
async fn rows_that_do_not_fit_are_halved_down_to_whatever_the_status_is() {
    let cannot_parse =
        "Code: 27, e.displayText() = DB::Exception: Cannot parse input: expected , before: on (at row 6)";
    let answers = [
        Answer::status(500).body(cannot_parse),
        Answer::status(400).body("Code: 26. DB::Exception: Cannot parse JSON string"),
        Answer::status(500).header("x-clickhouse-exception-code", 469).body("Constraint violated"),
        // The answer had begun when the rows were found wanting.
        Answer::status(200).body(cannot_parse),
    ];
    for answer in answers {
        let directory = directory();
        let node = node_refusing(&[5], answer.clone()).await;
        let gateway = gateway(directory.path(), &node, 16).start().await;
        gateway.post(&readings(16)).await.expect_status(202);
        expect_settled(&gateway, 15, 1).await;
        let letters = letters(directory.path());
        assert_eq!(letters.len(), 1, "{answer:?}");
        assert_eq!((&letters[0]["reading"], &letters[0]["reason"]), (&reading(5), &json!("refused")));
        assert_eq!(node_status(&gateway, &node.id()).await["up"], true, "it is not ill");
        let received = node.received();
        assert!(received.iter().all(|b| parameter(b, "insert_deduplication_token") == Some(b.key())));
    }
}

#[tokio::test]
async fn a_node_that_is_set_up_wrongly_is_down_with_the_reason_and_nothing_is_lost() {
    for answer in [
        Answer::status(404)
            .body("Code: 60, e.displayText() = DB::Exception: Table default.readings doesn't exist."),
        Answer::status(404)
            .body("Code: 115, e.displayText() = DB::Exception: Unknown setting insert_deduplication_token"),
        Answer::status(500)
            .body("Code: 164, e.displayText() = DB::Exception: Cannot insert into table in readonly mode"),
        Answer::status(400).header("x-clickhouse-exception-code", 36).body("DB::Exception: no"),
    ] {
        let directory = directory();
        let node = FakeNode::always(answer.clone()).await;
        let gateway = gateway(directory.path(), &node, 4).start().await;
        gateway.post(&readings(4)).await.expect_status(202);
        eventually("the node is down", || async { node_status(&gateway, &node.id()).await["up"] == false })
            .await;
        let told = node_status(&gateway, &node.id()).await.to_string();
        assert!(told.contains("DB::Exception"), "{told}");
        node.judge_otherwise(|_| Answer::status(200));
        expect_settled(&gateway, 4, 0).await;
        assert_eq!(node.readings(), readings(4));
        assert!(letters(directory.path()).is_empty());
    }
}

#[tokio::test]
async fn trouble_that_passes_gives_no_reading_up_whatever_the_status_is() {
    let directory = directory();
    let trouble = [
        Answer::status(500).body("Code: 252, e.displayText() = DB::Exception: Too many parts"),
        Answer::status(400).body("Code: 241. DB::Exception: Memory limit exceeded"),
        Answer::status(200).body("Code: 241. DB::Exception: Memory limit exceeded"),
        Answer::status(200).body("\r\n__exception__\r\nabcd\r\nCode: 241. DB::Exception: Memory limit"),
        Answer::status(200).header("x-clickhouse-exception-code", 209),
        Answer::status(200).body("<html>Welcome</html>"),
    ];
    let tries = trouble.len() + 1;
    let node = FakeNode::answering(trouble).await;
    let gateway = gateway(directory.path(), &node, 4).set("cluster.health.failures", 100).start().await;
    gateway.post(&readings(4)).await.expect_status(202);
    expect_settled(&gateway, 4, 0).await;
    assert_eq!(node.requests(), tries);
    assert!(node.received().iter().all(|batch| batch.key() == node.received()[0].key()));
    assert!(letters(directory.path()).is_empty());
}
