//! The promises of `POST /v1/readings`: every answer of its table, and that a refused request leaves nothing.

mod arrival;
mod connections;
mod keys;
mod refusals;
mod settings;

use std::time::{Duration, UNIX_EPOCH};

use crate::support::compression::{self, gzip, raw_deflate, zlib, zstd};
use crate::support::process::{Process, directory, forebay};
use crate::support::{
    self, Answer, FakeNode, Gate, RawClient, Reply, RunningGateway, TestGateway, chunk, eventually,
    post_head, reading, readings, to_json, to_ndjson,
};
use forebay_reading::clock::wall_time;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const SENML: &str = "application/senml+json";
/// For `ingest.earliest`, where times are small numbers.
const EPOCH: &str = "1970-01-01T00:00:00Z";
const ONE: &str = r#"{"device":"d","sensor":"s","value":1}"#;
/// How long something that must not happen is watched.
const WATCH: Duration = Duration::from_millis(100);

/// A gateway with a node that takes everything.
struct Setup {
    gateway: RunningGateway,
    node: FakeNode,
}

impl Setup {
    async fn start() -> Setup {
        Setup::with(|gateway| gateway).await
    }

    async fn with(settings: impl FnOnce(TestGateway) -> TestGateway) -> Setup {
        let node = FakeNode::start().await;
        let gateway = TestGateway::new().node(&node);
        Setup { gateway: settings(gateway).start().await, node }
    }

    async fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.gateway.post_body(content_type, body).await
    }

    async fn post_to(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.gateway.send(self.gateway.request(path).header("content-type", JSON).body(body)).await
    }

    /// Posts JSON with a key.
    async fn post_keyed(&self, key: &str, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        post_keyed(&self.gateway, key, path, body).await
    }

    async fn post_encoded(&self, encoding: &str, body: Vec<u8>) -> Reply {
        let request = self.gateway.request("/v1/readings").header("content-type", JSON);
        self.gateway.send(request.header("content-encoding", encoding).body(body)).await
    }

    /// The requests so far were refused, and nothing of them was taken.
    async fn expect_nothing_taken(&self) {
        let ledger = self.gateway.ledger().await;
        assert_eq!((&ledger["accepted"], &ledger["buffered"]), (&json!(0), &json!(0)), "{ledger}");
        assert!(self.node.received().is_empty());
    }

    /// The readings as the node was sent them, one line each.
    async fn lines(&self, count: usize) -> Vec<String> {
        eventually("the readings arrive", || async { self.node.count() >= count }).await;
        let text = |batch: &support::ReceivedBatch| String::from_utf8(batch.body.to_vec()).expect("UTF-8");
        let lines: Vec<_> = self.node.received().iter().map(text).collect();
        let lines: Vec<_> = lines.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

/// Fails unless `reply` is 202 for so many readings, with none turned away.
#[track_caller]
fn expect_accepted(reply: Reply, accepted: usize) {
    let reply = reply.expect_status(202);
    assert_eq!(reply.header("content-type"), JSON);
    let expected = json!({ "accepted": accepted, "rejected": 0, "ack": "memory", "errors": [] });
    assert_eq!(reply.json(), expected);
}

async fn post_keyed(
    gateway: &RunningGateway,
    key: &str,
    path: &str,
    body: impl Into<reqwest::Body>,
) -> Reply {
    let request = gateway.request(path).header("content-type", JSON).header("idempotency-key", key);
    gateway.send(request.body(body)).await
}

/// Fails unless `again` repeats the answer `first`, and says that it is a repetition.
#[track_caller]
fn expect_replayed(again: Reply, first: &Reply) {
    let again = again.expect_status(202);
    assert_eq!(again.text(), first.text());
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
}

fn milliseconds_now() -> u64 {
    let since = wall_time().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("this age")
}

// 202

#[tokio::test]
async fn every_media_type_of_the_contract_is_taken() {
    let setup = Setup::start().await;
    let (array, lines) = (to_json(&readings(3)), to_ndjson(&readings(3)));
    let spaced = format!("\n{ONE}\r\n\n   \n{ONE}").into_bytes();
    let pack = br#"[{"bn":"d/","n":"a","v":1},{"n":"b","v":2}]"#.to_vec();
    let cases: [(Option<&str>, Vec<u8>, usize); 11] = [
        (Some(JSON), ONE.into(), 1),
        (Some(JSON), array.clone(), 3),
        (Some("application/json; charset=utf-8"), array.clone(), 3),
        (Some("Application/JSON"), array.clone(), 3),
        (None, ONE.into(), 1),
        (None, array, 3),
        (Some(NDJSON), lines.clone(), 3),
        (Some("application/jsonl"), lines, 3),
        (Some(NDJSON), spaced, 2),
        (Some(SENML), pack.clone(), 2),
        (Some("application/senml+json;charset=utf-8"), pack, 2),
    ];
    let mut total = 0;
    for (content_type, body, accepted) in cases {
        let request = setup.gateway.request("/v1/readings").body(body);
        let request =
            content_type.into_iter().fold(request, |request, name| request.header("content-type", name));
        expect_accepted(setup.gateway.send(request).await, accepted);
        total += accepted;
    }
    eventually("all arrive", || async { setup.gateway.account("delivered").await == total as u64 }).await;
    assert_eq!(setup.node.count(), total);
}

#[tokio::test]
async fn an_object_with_values_counts_as_that_many_readings() {
    let setup = Setup::start().await;
    let body = r#"{"device":"d","values":{"a":1,"b":true,"c":"x"},"time":1170288000000,"unit":"V"}"#;
    expect_accepted(setup.post(JSON, body).await, 3);
    let rest = r#""time":"2007-02-01T00:00:00Z","unit":"V"}"#;
    let expected = [("a", "1"), ("b", "true"), ("c", "\"x\"")]
        .map(|(sensor, value)| format!(r#"{{"device":"d","sensor":"{sensor}","value":{value},{rest}"#));
    assert_eq!(setup.lines(3).await, expected);
    assert_eq!(setup.gateway.account("accepted").await, 3);
}

#[tokio::test]
async fn an_empty_array_is_202_with_nothing_accepted() {
    let setup = Setup::start().await;
    for path in ["/v1/readings", "/v1/readings?strict=true", "/v1/readings?ack=delivered"] {
        let reply = setup.post_to(path, "[]").await.expect_status(202);
        assert_eq!(reply.json()["accepted"], 0, "{path}");
    }
    expect_accepted(setup.post(NDJSON, "\n\n").await, 0);
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn good_readings_are_taken_and_the_others_are_listed_with_index_pointer_and_detail() {
    let setup = Setup::start().await;
    let bad = [
        (json!({"sensor":"s","value":1}), "/device", "`device` is missing"),
        (json!({"device":"d","value":1}), "/sensor", "`sensor` is missing"),
        (json!({"device":"d","sensor":"s"}), "/value", "`value` is missing"),
        (json!({"device":"d","sensor":"s","value":null}), "/value", "got null"),
        (json!({"device":7,"sensor":"s","value":1}), "/device", "`device` must be a string"),
        (json!({"device":"d","sensor":"s","value":1,"time":"yesterday"}), "/time", "RFC 3339"),
        (json!({"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00"}), "/time", "offset"),
        (json!({"device":"d","sensor":"s","value":1,"unit":3}), "/unit", "`unit` must be a string"),
        (json!({"device":"d","sensor":"s","value":1,"tags":{"a":1}}), "/tags/a", "must be a string"),
        (json!({"device":"d","sensor":"s","value":1,"tags":[]}), "/tags", "must be an object"),
        (json!({"device":"d","values":{"a/b~c":{}}}), "/values/a~1b~0c", "got an object"),
        (json!({"device":"d","sensor":"s","value":1,"values":{"a":1}}), "/values", "instead of"),
        (
            json!({"device":"d","sensor":"s","vlaue":1}),
            "/vlaue",
            "unknown field `vlaue`, did you mean `value`?",
        ),
        (json!({"device":"d","sensor":"s","value":1,"colour":1}), "/colour", "unknown field `colour`"),
        (json!([]), "", "must be an object"),
        (json!("x"), "", "must be an object"),
    ];
    let mut elements = vec![reading(0)];
    for (element, ..) in &bad {
        elements.extend([element.clone(), reading(elements.len())]);
    }
    let good: Vec<Value> = elements.iter().step_by(2).cloned().collect();
    for (content_type, body) in [(JSON, to_json(&elements)), (NDJSON, to_ndjson(&elements))] {
        let reply = setup.post(content_type, body).await.expect_status(202).json();
        assert_eq!(
            (&reply["accepted"], &reply["rejected"]),
            (&json!(good.len()), &json!(bad.len())),
            "{reply}"
        );
        let errors = reply["errors"].as_array().expect("an array");
        assert_eq!(errors.len(), bad.len());
        for (place, (error, (_, pointer, detail))) in errors.iter().zip(&bad).enumerate() {
            let index = 2 * place + 1;
            assert_eq!(error["index"], index, "{error}");
            assert_eq!(error["pointer"], format!("/{index}{pointer}"), "{error}");
            assert!(error["detail"].as_str().is_some_and(|text| text.contains(detail)), "{detail}: {error}");
        }
    }
    eventually("the good ones arrive", || async { setup.node.count() == 2 * good.len() }).await;
    assert_eq!(setup.node.readings()[..good.len()], good);
    assert_eq!(setup.gateway.account("accepted").await, 2 * good.len() as u64);
}

#[tokio::test]
async fn at_most_100_errors_are_listed_and_all_are_counted() {
    let setup = Setup::start().await;
    let mut elements = vec![json!({"device":"d"}); 1000];
    elements.push(reading(0));
    let reply = setup.post(JSON, to_json(&elements)).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(1), &json!(1000)));
    assert_eq!(reply["errors"].as_array().map(Vec::len), Some(100));
    assert_eq!(reply["errors"][99]["index"], 99);

    elements.pop();
    let problem = setup.post(JSON, to_json(&elements)).await.expect_problem(422).json();
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(100));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1000")), "{problem}");
    assert_eq!(
        setup.gateway.metric(r#"forebay_readings_rejected_total{reason="field"}"#).await,
        Some(2000.0)
    );
}

#[tokio::test]
async fn every_limit_of_a_reading_holds_at_its_exact_bound() {
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    let names = |length: usize| "é".repeat(length / 2) + &"x".repeat(length % 2);
    let tags = |count: usize| (0..count).map(|tag| (format!("t{tag}"), json!("v"))).collect::<Value>();
    let tag = |name: usize, value: usize| json!({ names(name): names(value) });
    let base = json!({"device":"d","sensor":"s","value":1});
    let cases = [
        ("device", json!(names(256)), json!(names(257))),
        ("device", json!("x"), json!("")),
        ("device", json!(" ö/:#日本"), json!("a\u{0}b")),
        ("sensor", json!(names(256)), json!(names(257))),
        ("sensor", json!("x"), json!("")),
        ("sensor", json!("a b"), json!("a\u{7f}")),
        ("sensor", json!("a"), json!("a\u{85}")),
        ("value", json!("x".repeat(4096)), json!("x".repeat(4097))),
        ("value", json!(""), json!([1])),
        ("unit", json!("x".repeat(64)), json!("x".repeat(65))),
        ("tags", tags(32), tags(33)),
        ("tags", tag(256, 256), tag(257, 1)),
        ("tags", tag(1, 0), tag(1, 257)),
        ("time", json!(0), json!(-1)),
        ("time", json!("1970-01-01T00:00:00Z"), json!("1969-12-31T23:59:59.999999999Z")),
        ("time", json!("1970-01-01T01:00:00+01:00"), json!("1970-01-01T00:59:59+01:00")),
    ];
    for (field, good, bad) in cases {
        let with = |value: &Value| {
            let mut reading = base.clone();
            reading[field] = value.clone();
            reading.to_string()
        };
        setup.post(JSON, with(&good)).await.expect_status(202);
        let problem = setup.post(JSON, with(&bad)).await.expect_problem(422).json();
        let pointer = problem["errors"][0]["pointer"].as_str().expect("a pointer");
        assert!(pointer.starts_with(&format!("/{field}")), "{field}: {problem}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 16);
}

#[tokio::test]
async fn times_reach_to_2262_when_the_clock_is_not_asked() {
    let setup = Setup::with(|gateway| gateway.set("ingest.max_future", "0s")).await;
    let at = |time: &str| format!(r#"{{"device":"d","sensor":"s","value":1,"time":"{time}"}}"#);
    expect_accepted(setup.post(JSON, at("2262-04-11T23:47:16.854775807Z")).await, 1);
    setup.post(JSON, at("2262-04-11T23:47:16.854775808Z")).await.expect_problem(422);
    setup.post(JSON, at("9999-12-31T23:59:59Z")).await.expect_problem(422);
    assert!(setup.lines(1).await[0].contains(r#""time":"2262-04-11T23:47:16.854775807Z""#));
}
