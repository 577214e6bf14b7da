//! The consequences of an answer in every format, by its status, its type and its body.

use std::path::Path;

use serde_json::json;

use super::{NEVER, expect_settled, letters};
use crate::support::process::directory;
use crate::support::{self, Answer, FakeNode, TestGateway, eventually, node_status, readings};

const PAGE: &str = "\u{feff}\r\n <!DOCTYPE html>\n<html><body>Please sign in</body></html>";

/// The fate of a batch of three readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// The node is asked again, and takes them then.
    TriedAgain,
    /// Each stands alone and becomes a dead letter.
    DeadLetters,
}
use Fate::{DeadLetters, Delivered, TriedAgain};

/// A success as nodes of the format tell it.
fn success(format: &str, readings: usize) -> Answer {
    match format {
        "elasticsearch" => {
            let items = vec![json!({"create": {"status": 201}}); readings];
            Answer::status(200).body(json!({"errors": false, "items": items}).to_string())
        }
        _ => Answer::status(204),
    }
}

/// A gateway that sends three readings at a time in this format.
fn gateway(format: &str, directory: &Path) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", format)
        .set("batch.max_readings", 3)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
}

/// Has a node answer like this, and returns the fate; where the readings are tried again, the node takes them later.
async fn check(format: &'static str, answer: Answer, expected: Fate) {
    let (directory, what) = (directory(), format!("{format} {answer:?}"));
    let node = FakeNode::always(answer).await;
    let gateway = gateway(format, directory.path())
        .set("cluster.health.failures", 1000)
        .set("cluster.health.failure_ratio", 1.0)
        .node(&node)
        .start()
        .await;
    gateway.post(&readings(3)).await.expect_status(202);
    let (delivered, dead) = match expected {
        Delivered => (3, 0),
        DeadLetters => (0, 3),
        TriedAgain => {
            eventually(&what, || async { node.requests() >= 3 }).await;
            assert_eq!(gateway.account("buffered").await, 3, "{what}");
            node.judge_otherwise(|batch| {
                let count = batch.header("forebay-readings").parse().expect("a number");
                success(format, count)
            });
            (3, 0)
        }
    };
    expect_settled(&gateway, delivered, dead).await;
    assert_eq!(letters(directory.path()).len() as u64, dead, "{what}");
    let key = node.received()[0].key();
    assert!(expected == DeadLetters || node.received().iter().all(|batch| batch.key() == key), "{what}");
}

#[tokio::test]
async fn each_answer_has_its_promised_consequence_in_every_format() {
    const FORMATS: [&str; 6] = ["ndjson", "json", "elasticsearch", "clickhouse", "influx", "remote-write"];
    let answer = |status, media_type: &str, body: &str| {
        let answer = Answer::status(status).body(body);
        if media_type.is_empty() { answer } else { answer.header("content-type", media_type) }
    };
    let error = r#"{"error":"timeout"}"#;
    let result = r#"{"results":[{"statement_id":0},{"error":"database not found"}]}"#;
    let mut cases = Vec::new();
    for format in FORMATS {
        cases.extend([
            (format, answer(200, "text/html", ""), Delivered),
            (format, answer(204, "", ""), Delivered),
            (format, answer(200, "text/html", PAGE), TriedAgain),
            (format, answer(202, "application/json", "<HTML>"), TriedAgain),
            (format, answer(200, "application/json", error), TriedAgain),
            (format, answer(500, "application/json", error), TriedAgain),
            (format, answer(200, "application/json", result), TriedAgain),
        ]);
    }
    let beyond = r#"{"code":"internal error","message":"unexpected error writing points to database: partial write: points beyond retention policy dropped=1"}"#;
    let exception = "Code: 27. DB::Exception: Cannot parse input";
    cases.extend([
        ("ndjson", answer(200, "text/html", "thanks"), Delivered),
        ("json", answer(201, "application/json", r#"{"stored":3}"#), Delivered),
        ("influx", answer(200, "application/json", r#"{"results":[{"statement_id":0}]}"#), Delivered),
        ("ndjson", answer(200, "", r#"{"results":[{"error":"database not fou"#), TriedAgain),
        ("json", answer(200, "application/json", r#"{"results":[{"error":null},{"id":3}]}"#), Delivered),
        ("influx", answer(200, "application/json", r#"{"code":"internal error","message":"x"}"#), TriedAgain),
        ("ndjson", answer(200, "application/problem+json", r#"{"title":"no"}"#), TriedAgain),
        ("elasticsearch", answer(200, "application/json", r#"{"took":1}"#), TriedAgain),
        ("clickhouse", answer(200, "text/plain", "Code: 241. DB::Exception: Memory limit"), TriedAgain),
        ("influx", answer(500, "application/json", beyond), DeadLetters),
        ("influx", answer(422, "application/json", beyond), DeadLetters),
        (
            "influx",
            answer(500, "application/json", r#"{"error":"partial write: field type conflict: x dropped=1"}"#),
            DeadLetters,
        ),
        ("influx", answer(503, "application/json", beyond), TriedAgain),
        ("remote-write", answer(500, "text/plain", "out of order sample\n"), DeadLetters),
        ("remote-write", answer(409, "text/plain", "store locally: conflict"), DeadLetters),
        ("remote-write", answer(500, "text/plain", "disk full"), TriedAgain),
        ("clickhouse", answer(500, "text/plain", exception), DeadLetters),
        (
            "elasticsearch",
            answer(500, "application/json", r#"{"error":{"type":"mapper_parsing_exception"},"status":500}"#),
            DeadLetters,
        ),
        ("ndjson", answer(500, "application/json", beyond), TriedAgain),
    ]);
    let all = cases.into_iter().map(|(format, answer, fate)| tokio::spawn(check(format, answer, fate)));
    for done in all.collect::<Vec<_>>() {
        done.await.expect("as promised");
    }
}

#[tokio::test]
async fn one_reading_beyond_the_retention_holds_up_no_other_of_its_batch() {
    let (directory, beyond) = (directory(), "{\"error\":\"points beyond retention policy\"}");
    let node = FakeNode::judging(move |batch| {
        let text = String::from_utf8(batch.unpacked()).expect("UTF-8");
        if text.contains("value=1i ") { Answer::status(500).body(beyond) } else { Answer::status(204) }
    })
    .await;
    let gateway = gateway("influx", directory.path()).node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    expect_settled(&gateway, 2, 1).await;
    let [letter] = &letters(directory.path())[..] else { panic!("one letter") };
    assert_eq!((&letter["reading"]["value"], &letter["status"]), (&json!(1), &json!(500)));
    assert_eq!((&letter["reason"], &letter["body"]), (&json!("refused"), &json!(beyond)));
    assert_eq!(node_status(&gateway, &node.id()).await["state"], "up", "it is not ill");
}

#[tokio::test]
async fn an_unusable_answer_is_reported_with_the_reason_and_counts_against_the_node() {
    let node = FakeNode::always(Answer::status(200).body(PAGE)).await;
    let gateway = TestGateway::new().node(&node).set("cluster.health.failures", 2).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it is down", || async { node_status(&gateway, &node.id()).await["state"] == "down" }).await;
    let reason = node_status(&gateway, &node.id()).await["reason"].as_str().expect("a reason").to_owned();
    assert!(
        reason.contains("is a web page, and no answer of such a node") && reason.contains("sign in"),
        "{reason}"
    );
    assert_eq!(gateway.account("buffered").await, 1);
}

#[tokio::test]
async fn no_secret_that_a_node_repeats_is_shown_or_kept_in_whatever_encoding() {
    let directory = directory();
    // The whole request once more, in the ways in which servers repeat requests, around the limit at which answers are cut.
    let echo = |batch: &support::ReceivedBatch, padding: usize| {
        let headers: Vec<_> =
            batch.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        let said = format!("{} {}", batch.target, headers.join("\n"));
        let json = serde_json::to_string(&said).expect("JSON");
        let percent: String = said.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("{} {said} {json} {percent}", "x".repeat(padding))
    };
    let mut padding = 0;
    let node = FakeNode::judging(move |batch| {
        padding = (padding + 97) % 1024;
        let refused = String::from_utf8_lossy(&batch.unpacked()).contains("\"value\":1,");
        Answer::status(if refused { 400 } else { 404 }).body(echo(batch, padding))
    })
    .await;
    let gateway = TestGateway::new()
        .set("batch.max_readings", 1)
        .set("cluster.headers.authorization", "Bearer s3cret-token")
        .set("cluster.headers.x-api-key", "key+with/odd=chars")
        .set("dead_letter.path", directory.path().join("dead-letters").display())
        .node_at(format!("http://me:p%40ssw0rd@{}/x?db=home&p=hush%2Fhush", node.id()))
        .start()
        .await;
    let many: Vec<_> = (0..30).map(|_| support::reading(1)).collect();
    gateway.post(&many).await.expect_status(202);
    eventually("they are refused", || async { gateway.account("dead_lettered").await == 30 }).await;
    gateway.post(&[support::reading(2)]).await.expect_status(202);
    eventually("it is down", || async { node_status(&gateway, &node.id()).await["state"] == "down" }).await;
    let kept = serde_json::to_string(&letters(directory.path())).expect("JSON");
    let mut shown = vec![kept];
    for path in ["/status", "/", "/readyz", "/metrics"] {
        shown.push(gateway.get(path).await.text());
    }
    let base64 = "bWU6cEBzc3cwcmQ";
    for text in &shown {
        for secret in
            ["s3cret-token", "key+with", "p@ssw0rd", "p%40ssw0rd", "hush/hush", "hush%2Fhush", base64]
        {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(shown[0].contains("***") && shown[1].contains("***"), "the rest is there");
    assert!(shown[0].contains("db=home"), "{}", shown[0]);
}
