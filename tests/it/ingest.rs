//! What is promised of `POST /v1/readings`: every answer of its table, and that a refused request leaves nothing.

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

/// Fails unless `again` is what was answered with `first`, and says that it is given again.
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
async fn good_readings_are_taken_and_the_others_are_told_with_index_pointer_and_detail() {
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

// The readings as they are sent on

#[tokio::test]
async fn every_kind_of_value_and_time_arrives_in_canonical_form() {
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    // The members of a reading as they are sent, value and time as they arrive.
    let cases = [
        (r#""value":0,"time":0"#, "0", "1970-01-01T00:00:00Z"),
        (r#""value":9223372036854775807,"time":1"#, "9223372036854775807", "1970-01-01T00:00:00.001Z"),
        (r#""value":-9223372036854775808,"time":1.5"#, "-9223372036854775808", "1970-01-01T00:00:00.001500Z"),
        (r#""value":230.10,"time":1170288000123"#, "230.1", "2007-02-01T00:00:00.123Z"),
        (r#""value":0.1,"time":"2007-02-01T01:00:00+01:00""#, "0.1", "2007-02-01T00:00:00Z"),
        (r#""value":true,"time":"2007-01-31T23:59:60Z""#, "true", "2007-02-01T00:00:00Z"),
        (r#""value":false,"time":"2007-02-01t00:00:00.5z""#, "false", "2007-02-01T00:00:00.500Z"),
        (r#""value":"on","time":"2007-02-01T00:00:00.000001Z""#, "\"on\"", "2007-02-01T00:00:00.000001Z"),
        (r#""value":"","time":"2007-02-01T00:00:00.000000001Z""#, "\"\"", "2007-02-01T00:00:00.000000001Z"),
        (
            r#""value":"\u00e9\"\\\n\u0001\ud83d\ude00","time":"2007-02-01T00:00:00.120Z""#,
            r#""é\"\\\n\u0001😀""#,
            "2007-02-01T00:00:00.120Z",
        ),
    ];
    for (members, ..) in &cases {
        expect_accepted(setup.post(JSON, format!(r#"{{{members},"sensor":"s","device":"d"}}"#)).await, 1);
    }
    let expected = cases
        .map(|(_, value, time)| format!(r#"{{"device":"d","sensor":"s","value":{value},"time":"{time}"}}"#));
    assert_eq!(setup.lines(cases.len()).await, expected);
}

#[tokio::test]
async fn fields_arrive_in_canonical_order_whatever_order_they_had() {
    let setup = Setup::start().await;
    let body = r#"{"tags":{"z":"1","a":"\/é"},"unit":"°C","time":"2007-02-01T00:00:00Z","value":1e3,"sensor":"t","device":"d"}"#;
    expect_accepted(setup.post(JSON, body).await, 1);
    let reading: Value = serde_json::from_str(&setup.lines(1).await[0]).expect("JSON");
    assert_eq!(reading["value"], 1000.0);
    assert_eq!(reading["tags"], json!({"z":"1","a":"/é"}));
    let line = &setup.lines(1).await[0];
    let places: Vec<_> = ["device", "sensor", "value", "time", "unit", "tags"]
        .iter()
        .map(|field| line.find(&format!("\"{field}\":")).expect("the field"))
        .collect();
    assert!(places.is_sorted(), "{line}");
}

#[tokio::test]
async fn a_reading_without_time_gets_the_time_of_receipt() {
    let setup = Setup::start().await;
    let before = milliseconds_now();
    expect_accepted(setup.post(JSON, ONE).await, 1);
    let after = milliseconds_now();
    let line = setup.lines(1).await.remove(0);
    let reading: Value = serde_json::from_str(&line).expect("JSON");
    let time: jiff::Timestamp = reading["time"].as_str().expect("a time").parse().expect("RFC 3339");
    let time = u64::try_from(time.as_millisecond()).expect("after 1970");
    assert!((before..=after).contains(&time), "{before} {time} {after}");
}

#[tokio::test]
async fn precision_is_the_unit_of_times_that_are_numbers() {
    let setup = Setup::start().await;
    let cases = [
        ("", "1170288000123", "2007-02-01T00:00:00.123Z"),
        ("?precision=s", "1170288000", "2007-02-01T00:00:00Z"),
        ("?precision=s", "1170288000.25", "2007-02-01T00:00:00.250Z"),
        ("?precision=s", "1170288000.123456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=s", "1.170288000123456789e9", "2007-02-01T00:00:00.123456789Z"),
        ("", "1170288000123.456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=us", "1170288000123456.7899", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=ms", "1170288000123", "2007-02-01T00:00:00.123Z"),
        ("?precision=us", "1170288000123456", "2007-02-01T00:00:00.123456Z"),
        ("?precision=ns", "1170288000123456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=ns&strict=false", "\"2007-02-01T00:00:00Z\"", "2007-02-01T00:00:00Z"),
    ];
    for (query, time, _) in &cases {
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        expect_accepted(setup.post_to(&format!("/v1/readings{query}"), body).await, 1);
    }
    for (line, (query, time, expected)) in setup.lines(cases.len()).await.iter().zip(&cases) {
        assert!(line.contains(&format!(r#""time":"{expected}""#)), "{query} {time}: {line}");
    }
    // Seconds taken for milliseconds of the wrong unit are far in the future.
    let body = r#"{"device":"d","sensor":"s","value":1,"time":1170288000123}"#;
    setup.post_to("/v1/readings?precision=s", body).await.expect_problem(422);
}

#[tokio::test]
async fn a_senml_pack_arrives_as_canonical_readings() {
    let setup = Setup::start().await;
    let pack = include_str!("../../crates/forebay-codec/tests/data/senml/rfc8428-5.1.2b.json");
    expect_accepted(setup.post(SENML, pack).await, 7);
    let lines = setup.lines(7).await;
    let line = |sensor: &str, value: &str, second: u32, unit: &str| {
        format!(
            r#"{{"device":"urn:dev:ow:10e2073a0108006","sensor":"{sensor}","value":{value},"time":"2010-06-08T18:01:{second}.001Z","unit":"{unit}"}}"#
        )
    };
    assert_eq!(lines[0], line("voltage", "120.1", 16, "V"));
    assert_eq!(lines[1], line("current", "1.2", 11, "A"));
    assert_eq!(lines[6], line("current", "1.7", 16, "A"));
    let accepted = setup.gateway.metric(r#"forebay_readings_accepted_total{format="senml"}"#).await;
    assert_eq!(accepted, Some(7.0));
}

#[tokio::test]
async fn a_senml_time_counts_seconds_whatever_the_precision_and_small_ones_from_the_receipt() {
    let setup = Setup::start().await;
    let before = milliseconds_now();
    for precision in ["s", "ms", "us", "ns"] {
        let request = setup.gateway.request(&format!("/v1/readings?precision={precision}"));
        let pack = r#"[{"n":"d/s","v":1,"t":1170288000.25},{"n":"d/s","v":1,"t":-3600}]"#;
        expect_accepted(setup.gateway.send(request.header("content-type", SENML).body(pack)).await, 2);
    }
    let after = milliseconds_now();
    for lines in setup.lines(8).await.chunks(2) {
        assert!(lines[0].contains(r#""time":"2007-02-01T00:00:00.250Z""#), "{}", lines[0]);
        let reading: Value = serde_json::from_str(&lines[1]).expect("JSON");
        let time: jiff::Timestamp = reading["time"].as_str().expect("a time").parse().expect("RFC 3339");
        let time = u64::try_from(time.as_millisecond()).expect("after 1970") + 3_600_000;
        assert!((before..=after).contains(&time), "{before} {time} {after}");
    }
}

#[tokio::test]
async fn bad_records_of_a_senml_pack_are_turned_away_with_their_pointers() {
    let setup = Setup::start().await;
    let pack = r#"[{"bn":"d/"},{"n":"s","v":1},{"n":"s","vd":"aGk"},{"n":"s","v":1,"x_":1},{"n":"s","v":2}]"#;
    let reply = setup.post(SENML, pack).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(2)), "{reply}");
    let pointers: Vec<_> = (0..2).map(|index| reply["errors"][index]["pointer"].clone()).collect();
    assert_eq!(pointers, ["/2/vd", "/3/x_"], "{reply}");
    setup.lines(2).await;
}

#[tokio::test]
async fn a_senml_pack_with_a_newer_version_or_a_bad_record_of_a_strict_one_is_422_and_nothing_is_taken() {
    let setup = Setup::start().await;
    for pack in [
        r#"[{"bver":11,"n":"d/s","v":1},{"n":"d/s","v":2}]"#,
        r#"[{"n":"d/s","v":1},{"bver":11,"n":"d/s","v":2}]"#,
    ] {
        let problem = setup.post(SENML, pack).await.expect_problem(422).json();
        let pointer = problem["errors"][0]["pointer"].as_str().expect("a pointer");
        assert!(pointer.ends_with("/bver"), "{problem}");
    }
    let request = setup.gateway.request("/v1/readings?strict=true").header("content-type", SENML);
    let reply = setup.gateway.send(request.body(r#"[{"n":"d/s","v":1},{"n":"d/s"}]"#)).await;
    assert_eq!(reply.expect_problem(422).json()["errors"][0]["pointer"], "/1/v");
    setup.post(SENML, r#"[{"n":"d/s","v":1}"#).await.expect_problem(400);
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_body_may_be_compressed_in_every_encoding_of_the_contract() {
    let setup = Setup::start().await;
    let body = to_json(&readings(50));
    let cases = [
        ("identity", body.clone()),
        ("gzip", gzip(&body)),
        ("GZIP", gzip(&body)),
        ("deflate", zlib(&body)),
        ("deflate", raw_deflate(&body)),
        ("zstd", zstd(&body)),
    ];
    for (encoding, compressed) in &cases {
        expect_accepted(setup.post_encoded(encoding, compressed.clone()).await, 50);
    }
    eventually("all arrive", || async { setup.node.count() == 50 * cases.len() }).await;
    assert_eq!(setup.node.readings()[..50], readings(50));
}

#[tokio::test]
async fn a_large_request_is_taken_whole_and_arrives_in_order() {
    let setup = Setup::with(|gateway| gateway.set("cluster.max_in_flight", 1)).await;
    let many = readings(20_000);
    expect_accepted(setup.post(NDJSON, to_ndjson(&many)).await, many.len());
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 20_000 }).await;
    assert_eq!(setup.node.readings(), many);
}

#[tokio::test]
async fn an_empty_unit_is_at_most_64_bytes_long() {
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    let body = r#"{"device":"d","sensor":"s","value":1,"time":0,"unit":""}"#;
    expect_accepted(setup.post(JSON, body).await, 1);
}

// 400

#[tokio::test]
async fn a_body_that_is_not_json_is_400_with_line_and_column_and_nothing_is_taken() {
    let setup = Setup::start().await;
    let cases: [(&str, Vec<u8>, &str); 18] = [
        (JSON, b"".to_vec(), "line 1, column 1"),
        (JSON, b"   ".to_vec(), "line 1, column 3"),
        (JSON, b"{".to_vec(), "line 1, column 1"),
        (JSON, format!("[{ONE},\n{ONE}").into_bytes(), "line 2, column 37"),
        (JSON, format!("[{ONE},]").into_bytes(), "line 1, column "),
        (JSON, format!("[\n{ONE}\n{ONE}]").into_bytes(), "line 3, column 1"),
        (JSON, format!("{ONE} x").into_bytes(), "line 1, column 39"),
        (JSON, format!("{ONE}{ONE}").into_bytes(), "line 1, column 38"),
        (JSON, br#"{"device":"d","sensor":"s","value":NaN}"#.to_vec(), "line 1, column 36"),
        (JSON, br#"{"device":"d","sensor":"s","value":-Infinity}"#.to_vec(), "line 1, column "),
        (JSON, br#"{"device":"d","sensor":"s","value":01}"#.to_vec(), "line 1, column "),
        (JSON, b"{\"device\":\"d\",\n\"sensor\":\"\xff\",\"value\":1}".to_vec(), "line 2, column 11"),
        (JSON, b"{\"device\":\"a\nb\",\"sensor\":\"s\",\"value\":1}".to_vec(), "line "),
        (JSON, br#"{"device":"\ud800","sensor":"s","value":1}"#.to_vec(), "line 1, column "),
        (
            JSON,
            format!("[{},\n{{\"device\":\"\\ud800\"}}", ONE.replace('1', "1e999")).into_bytes(),
            "line 2, column ",
        ),
        (NDJSON, b"\n\n{\"device\":".to_vec(), "line 3, column "),
        (NDJSON, format!("{ONE} {ONE}\n{ONE}{ONE}").into_bytes(), "line 1, column 39"),
        (NDJSON, b"\xff\n\xff".to_vec(), "line 1, column 1"),
    ];
    for (content_type, body, place) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let detail = setup.post(content_type, body).await.expect_problem(400).detail();
        assert!(detail.contains(place), "{shown}: {detail}");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_line_of_ndjson_that_is_no_json_is_turned_away_by_its_index() {
    let setup = Setup::start().await;
    let deep = format!(r#"{{"device":"d","sensor":"s","value":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let broken: [&[u8]; 6] = [
        br#"{"device":"d","sensor":"s","value":-nan}"#,
        br#"{"device":"d","sensor""#,
        b"{\"device\":\"\xff\",\"sensor\":\"s\",\"value\":1}",
        br#"{"device":"d","sensor":"s","value":1} x"#,
        br#"{"device":"\ud800","sensor":"s","value":1}"#,
        deep.as_bytes(),
    ];
    for line in broken {
        let body = [ONE.as_bytes(), b"\n\n", line, b"\r\n", ONE.as_bytes(), b"\n"].concat();
        let reply = setup.post(NDJSON, body.clone()).await.expect_status(202).json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{reply}");
        assert_eq!((&reply["errors"][0]["index"], &reply["errors"][0]["pointer"]), (&json!(1), &json!("/1")));
        let detail = reply["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("line 3, column "), "{detail}");
        let request = setup.gateway.request("/v1/readings?strict=true").header("content-type", NDJSON);
        let problem = setup.gateway.send(request.body(body)).await.expect_problem(422).json();
        assert_eq!(problem["errors"][0]["index"], 1, "{problem}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 12);
    let rejected = setup.gateway.metric(r#"forebay_readings_rejected_total{reason="type"}"#).await;
    assert_eq!(rejected, Some(12.0));
}

#[tokio::test]
async fn a_fault_that_leaves_an_array_whole_costs_its_element_alone() {
    let setup = Setup::start().await;
    let element =
        |device: &str, value: &str| format!(r#"{{"device":"{device}","sensor":"s","value":{value}}}"#);
    for broken in [
        element("\\q", "1"),
        element("\\ud800", "1"),
        element("d", "\"\\u12\""),
        element("d", "1e999"),
        element("\\udc00", "-1e999"),
    ] {
        let reply = setup.post(JSON, format!("[{ONE},{broken},{ONE}]")).await.expect_status(202).json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{broken}: {reply}");
        assert_eq!(reply["errors"][0]["index"], 1, "{reply}");
        setup.post(JSON, format!("[{broken}]")).await.expect_problem(422);
        setup.post_to("/v1/readings?strict=true", format!("[{ONE},{broken}]")).await.expect_problem(422);
        setup.post(JSON, format!("[{ONE},{broken}")).await.expect_problem(400);
    }
    assert_eq!(setup.gateway.account("accepted").await, 10);
}

#[tokio::test]
async fn an_element_of_an_array_that_is_no_json_costs_no_other() {
    let setup = Setup::start().await;
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    let values = ["NaN", "-nan", "Infinity", "True", "None", "01", ".5", "0x10", "\"\t\"", "\"\n\"", &deep];
    for value in values {
        let bodies = [
            (JSON, ONE, format!(r#"{{"device":"d","sensor":"s","value":{value}}}"#)),
            (SENML, r#"{"n":"d/s","v":1}"#, format!(r#"{{"n":"d/s","v":{value}}}"#)),
        ];
        for (content_type, good, broken) in bodies {
            let body = format!("[{good},{broken},{good}]");
            let reply = setup.post(content_type, body.clone()).await.expect_status(202).json();
            assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{broken}: {reply}");
            assert_eq!(reply["errors"][0]["index"], 1, "{reply}");
            let request =
                setup.gateway.request("/v1/readings?strict=true").header("content-type", content_type);
            setup.gateway.send(request.body(body)).await.expect_problem(422);
            setup.post(content_type, format!("[{broken},{{}}]")).await.expect_problem(422);
            for none in [format!("[{broken}]"), format!("[{good},{broken}"), format!("[{good} {broken}]")] {
                let detail = setup.post(content_type, none).await.expect_problem(400).detail();
                assert!(detail.starts_with("line ") && detail.contains(", column "), "{detail}");
            }
        }
    }
    assert_eq!(setup.gateway.account("accepted").await, 44);
}

#[tokio::test]
async fn a_byte_order_mark_is_passed_over_in_every_format_and_encoding() {
    let setup = Setup::start().await;
    let marked = |body: &str| format!("\u{feff}{body}");
    for (content_type, body) in [
        (JSON, marked(ONE)),
        (JSON, marked(&format!("[{ONE}]"))),
        (NDJSON, marked(&format!("{ONE}\n"))),
        (SENML, marked(r#"[{"n":"d/s","v":1}]"#)),
    ] {
        expect_accepted(setup.post(content_type, body.clone()).await, 1);
        let wide: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let detail = setup.post(content_type, wide).await.expect_problem(400).detail();
        assert!(detail.contains("UTF-16") && detail.contains("UTF-8"), "{detail}");
    }
    for compressed in [("gzip", gzip(marked(ONE).as_bytes())), ("zstd", zstd(marked(ONE).as_bytes()))] {
        expect_accepted(setup.post_encoded(compressed.0, compressed.1).await, 1);
    }
}

#[tokio::test]
async fn first_mistakes_are_answered_with_what_to_do() {
    let setup = Setup::start().await;
    let lines = format!("{ONE}\n{ONE}\n");
    let array = format!("[{ONE},\n{ONE}]");
    for (content_type, body, status, words) in [
        (JSON, lines.as_str(), 400, "looks like NDJSON"),
        (JSON, lines.as_str(), 400, "set `Content-Type: application/x-ndjson`"),
        (NDJSON, array.as_str(), 400, "set `Content-Type: application/json`"),
        (NDJSON, "[\n{}\n,{}\n]", 422, "set `Content-Type: application/json`"),
        (NDJSON, "[{},{}]", 422, "set `Content-Type: application/json`"),
        (JSON, "", 400, "the body is empty; send a reading as a JSON object"),
        (SENML, "\n", 400, "the body is empty; send a SenML pack"),
        (JSON, "device=d&sensor=s&value=1", 400, "looks like a form"),
        (JSON, "cpu,host=h idle=1", 400, "looks like line protocol"),
        (JSON, "<reading/>", 400, "looks like XML"),
        ("application/x-www-form-urlencoded", ONE, 415, "add `-H 'Content-Type: application/json'`"),
        ("text/plain", "cpu,host=h idle=1", 415, "`/api/v2/write`"),
        (JSON, r#"{"device_id":"d"}"#, 422, "unknown field `device_id`, did you mean `device`?"),
        (JSON, r#"{"device":"d","timestamp":0}"#, 422, "unknown field `timestamp`, did you mean `time`?"),
        (JSON, r#"{"readings":[]}"#, 422, "send the array itself"),
    ] {
        let reply = setup.post(content_type, body.to_owned()).await.expect_status(status);
        let told = reply.detail();
        assert!(told.contains(words), "{body}: {told}");
    }
    for (path, status) in [("/", 405), ("/readings", 404), ("/api/v1/readings", 404), ("/v1/reading", 404)] {
        let detail = setup.post_to(path, ONE).await.expect_problem(status).detail();
        assert!(detail.contains("readings go to `/v1/readings`"), "{path}: {detail}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn a_body_that_is_not_compressed_as_it_says_is_400() {
    let setup = Setup::start().await;
    let body = to_json(&readings(100));
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 9].to_vec();
    let cases = [
        ("gzip", body.clone()),
        ("gzip", cut(gzip(&body))),
        ("gzip", [gzip(&body), b"more".to_vec()].concat()),
        ("deflate", cut(zlib(&body))),
        ("deflate", cut(raw_deflate(&body))),
        ("zstd", body.clone()),
        ("zstd", cut(zstd(&body))),
        ("gzip", Vec::new()),
        ("zstd", zstd(b"[")),
    ];
    for (encoding, compressed) in cases {
        let reply = setup.post_encoded(encoding, compressed).await;
        assert_eq!(reply.status, 400, "{encoding}: {}", reply.text());
        reply.expect_problem(400);
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_query_parameter_that_cannot_be_understood_is_400_and_the_known_values_are_named() {
    let setup = Setup::start().await;
    for (query, known) in [("precision=h", "s, ms, us, ns"), ("precision=", "ns"), ("strict=perhaps", "true")]
    {
        let reply = setup.post_to(&format!("/v1/readings?{query}"), ONE).await;
        let detail = reply.expect_problem(400).detail();
        assert!(detail.contains(known), "{query}: {detail}");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_query_parameter_that_nobody_knows_is_400_and_the_nearest_one_is_named() {
    let setup = Setup::start().await;
    for (query, nearest) in [
        ("stict=true", "strict"),
        ("precison=s", "precision"),
        ("Precision=s", "precision"),
        ("akc=disk", "ack"),
        ("ack=memory&unit=s", "strict, ack, precision"),
        ("=x", "strict, ack, precision"),
    ] {
        let detail = setup.post_to(&format!("/v1/readings?{query}"), ONE).await.expect_problem(400).detail();
        assert!(detail.contains(nearest), "{query}: {detail}");
    }
    let detail = setup.post_to("/v1/readings?stict=true", ONE).await.detail();
    assert_eq!(
        detail,
        "query parameter `stict` is not known here, did you mean `strict`? Known: strict, ack, precision"
    );
    let twice = setup.post_to("/v1/readings?precision=s&precision=ms", ONE).await.expect_problem(400);
    assert!(twice.detail().contains("`precision` is there more than once"), "{}", twice.detail());
    setup.expect_nothing_taken().await;
    for query in ["", "?", "?&", "?precision=ms&strict=false&ack=memory"] {
        expect_accepted(setup.post_to(&format!("/v1/readings{query}"), ONE).await, 1);
    }
}

#[tokio::test]
async fn a_number_that_no_double_can_hold_is_the_fault_of_its_reading_alone() {
    let setup = Setup::start().await;
    let beyond = r#"{"device":"d","sensor":"s","value":1e999}"#;
    setup.post(JSON, beyond).await.expect_problem(422);
    setup.expect_nothing_taken().await;
    let reply = setup.post(JSON, format!("[{ONE},{beyond},{ONE}]")).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{reply}");
    assert_eq!(reply["errors"][0]["pointer"], "/1/value");
    let reply = setup.post(NDJSON, format!("{ONE}\n{beyond}\n{ONE}")).await.expect_status(202).json();
    assert_eq!(reply["accepted"], 2);
}

#[tokio::test]
async fn deep_nesting_huge_names_and_duplicate_names_are_refused_and_do_no_harm() {
    let setup = Setup::start().await;
    let deep = 100_000;
    for open in ["[", "{\"a\":", "[{\"values\":"] {
        setup.post(JSON, open.repeat(deep)).await.expect_problem(400);
    }
    let closed = "[".repeat(deep) + &"]".repeat(deep);
    setup.post(JSON, closed.clone()).await.expect_problem(400);
    setup.post(NDJSON, closed.clone()).await.expect_problem(400);
    setup.post(JSON, format!(r#"{{"device":"d","sensor":"s","value":{closed}}}"#)).await.expect_problem(400);

    let name = "n".repeat(1 << 20);
    let huge = setup.post(JSON, format!(r#"{{"device":"d","sensor":"s","value":1,"{name}":1}}"#)).await;
    assert!(huge.expect_problem(422).text().len() < 2000, "an answer does not repeat a huge name");
    let huge = setup.post(JSON, format!(r#"{{"device":"d","values":{{"{name}":1}}}}"#)).await;
    assert!(huge.expect_problem(422).text().len() < 2000);

    for twice in [
        r#"{"device":"d","device":"e","sensor":"s","value":1}"#,
        r#"{"device":"d","sensor":"s","value":1,"value":1}"#,
        r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"1","a":"2"}}"#,
        r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"1","\u0061":"1"}}"#,
        r#"{"device":"d","values":{"a":1,"b":2,"\u0061":3}}"#,
        r#"{"device":"d","sensor":"s","value":1,"unit":"V","unit":"V"}"#,
    ] {
        let detail = setup.post(JSON, twice).await.expect_problem(422).detail();
        assert!(detail.contains("twice"), "{detail}");
    }
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

// 404, 405

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_is_405_with_allow() {
    let setup = Setup::start().await;
    for path in ["/v1/reading", "/v1/readings/", "/v2", "/v1/readings/../../etc/passwd", "/%00"] {
        setup.post_to(path, ONE).await.expect_problem(404);
    }
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let check = async |method: &str, path: &str, allow: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = client.request(method.clone(), setup.gateway.url(path)).body(ONE);
        let reply = setup.gateway.send(request).await.expect_problem(405);
        assert!(reply.header("allow").split(',').any(|known| known.trim() == allow), "{method} {path}");
    };
    for method in ["GET", "PUT", "DELETE", "PATCH", "BREW"] {
        check(method, "/v1/readings", "POST").await;
    }
    // Nodes are configured: the readings are there.
    let get = setup.gateway.get("/v1/readings?latest=3").await.expect_problem(405);
    assert_eq!(get.header("allow"), "POST");
    let detail = get.detail();
    assert!(detail.contains("its readings are in the nodes") && !detail.contains("127.0.0.1"), "{detail}");
    let head = setup.gateway.send(client.head(setup.gateway.url("/v1/readings"))).await.expect_status(405);
    assert_eq!(head.header("allow"), "POST");
    let put = setup.gateway.send(client.put(setup.gateway.url("/v1/readings"))).await.expect_problem(405);
    assert_eq!(put.header("allow"), "POST");
    for path in ["/", "/healthz", "/readyz", "/metrics", "/status", "/openapi.json"] {
        check("POST", path, "GET").await;
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn head_and_options_are_answered_on_every_path() {
    let setup = Setup::start().await;
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/status",
        "/openapi.json",
        "/page.css",
        "/ping",
        "/health",
        "/query",
        "/v1/readings",
        "/write",
        "/x",
        "*",
    ] {
        for method in ["HEAD", "OPTIONS"] {
            let mut client = setup.gateway.raw().await;
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let reply = if method == "HEAD" { client.reply_to_head().await } else { client.reply().await };
            assert!(reply.status.as_u16() < 500, "{method} {path}: {}", reply.status);
        }
    }
    let mut client = setup.gateway.raw().await;
    client.send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.reply_to_head().await.expect_status(200);
    // The connection is still good: the answer had no body.
    client.post(ONE).await;
    expect_accepted(client.reply().await, 1);
}

// 415

#[tokio::test]
async fn several_lines_of_a_header_are_one_list_and_several_codings_or_types_are_415() {
    let setup = Setup::start().await;
    let zipped = gzip(ONE.as_bytes());
    for (encodings, body) in [
        (["identity", "br"], ONE.as_bytes()),
        (["gzip", "identity"], &zipped),
        (["gzip", "gzip"], &zipped),
        (["identity", "identity"], ONE.as_bytes()),
    ] {
        let request = setup.gateway.request("/v1/readings").header("content-encoding", encodings[0]);
        let request = request.header("content-encoding", encodings[1]).body(body.to_vec());
        let reply = setup.gateway.send(request).await.expect_problem(415);
        assert!(reply.detail().contains(&encodings.join(", ")), "{}", reply.detail());
        assert!(reply.header("accept-encoding").contains("gzip"));
    }
    for types in [[JSON, NDJSON], [JSON, JSON], [NDJSON, "text/plain"]] {
        let request = setup.gateway.request("/v1/readings").header("content-type", types[0]);
        let reply = setup.gateway.send(request.header("content-type", types[1]).body(ONE)).await;
        let reply = reply.expect_problem(415);
        assert!(reply.detail().contains("`Content-Type` is there more than once"), "{}", reply.detail());
        assert!(reply.header("accept").contains(JSON));
    }
    setup.expect_nothing_taken().await;
}

// 408

#[tokio::test]
async fn a_body_that_trickles_in_is_408_with_a_length_and_in_chunks() {
    let setup = Setup::with(|gateway| gateway.set("server.request_timeout", "150ms")).await;
    let trickle = async |head: &str, piece: &[u8]| {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        while !client.hears_within(Duration::from_millis(10)).await {
            client.try_send(piece).await;
        }
        let detail = client.reply().await.expect_problem(408).detail();
        assert!(detail.contains("150ms"), "{detail}");
        client.end().await;
    };
    trickle("Content-Length: 1000000\r\n", b" ").await;
    trickle("Transfer-Encoding: chunked\r\n", &chunk(" ")).await;
    trickle("Content-Length: 1000000\r\n", b"").await;
    setup.expect_nothing_taken().await;
}

// 413

#[tokio::test]
async fn a_body_beyond_max_body_is_413_by_length_in_chunks_and_after_decompression() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    let fits = format!("{ONE}{}", " ".repeat(4096 - ONE.len()));
    let over = format!("{fits} ");
    expect_accepted(setup.post(JSON, fits.clone()).await, 1);
    expect_accepted(setup.post_encoded("gzip", gzip(fits.as_bytes())).await, 1);

    let detail = setup.post(JSON, over.clone()).await.expect_problem(413).detail();
    assert!(detail.contains("4KiB"), "{detail}");
    for encoding in ["gzip", "zstd", "deflate"] {
        let compress: fn(&[u8]) -> Vec<u8> = match encoding {
            "gzip" => gzip,
            "zstd" => zstd,
            _ => zlib,
        };
        setup.post_encoded(encoding, compress(over.as_bytes())).await.expect_problem(413);
    }
    let mut client = setup.gateway.raw().await;
    client.send(post_head("Transfer-Encoding: chunked\r\n")).await;
    client.send(chunk(&fits)).await;
    client.send(chunk(" ")).await;
    client.send(chunk("")).await;
    client.reply().await.expect_problem(413);
    assert_eq!(setup.gateway.account("accepted").await, 2);
}

#[tokio::test]
async fn a_body_far_beyond_max_body_is_answered_with_413_before_it_is_all_there() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    for head in ["Content-Length: 10000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        let mut sent = 0;
        while !client.hears_within(Duration::from_millis(1)).await
            && client.try_send(chunk(" ".repeat(4000))).await
        {
            sent += 4000;
            assert!(sent < 10_000_000, "it reads for ever");
        }
        client.reply().await.expect_problem(413);
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn bombs_are_413_and_memory_does_not_grow_with_them() {
    let directory = directory();
    let node = FakeNode::start().await;
    let settings = [("server.listen", "127.0.0.1:0"), ("cluster.nodes", &node.url())];
    let process = Process::start(forebay(directory.path(), &["serve"], &settings));
    let gateway = process.gateway();
    let before = process.peak_memory();
    let bombs = [
        ("gzip", compression::gzip_bomb(400)),
        ("deflate", compression::deflate_bomb(400)),
        ("zstd", compression::zstd_bomb(400)),
    ];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "{encoding}: {}", bomb.len());
        for _ in 0..3 {
            let request = gateway.request("/v1/readings").header("content-type", JSON);
            let request = request.header("content-encoding", encoding).body(bomb.clone());
            gateway.send(request).await.expect_problem(413);
        }
    }
    // A body of 8 MiB takes up to 16 MiB while it grows, and each thread that has read one keeps some of them.
    let grown = process.peak_memory() - before;
    assert!(grown < 128 << 20, "{grown} bytes more");
    assert_eq!(gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn more_readings_than_the_whole_buffer_can_hold_are_413() {
    let setup = Setup::with(|gateway| gateway.set("buffer.max_readings", "5")).await;
    let detail = setup.post(JSON, to_json(&readings(6))).await.expect_problem(413).detail();
    assert!(detail.contains('6') && detail.contains('5'), "{detail}");
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, to_json(&readings(5))).await, 5);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_without_sending() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    let mut client = setup.gateway.raw().await;
    client.send(post_head("Content-Length: 5000\r\nExpect: 100-continue\r\n")).await;
    client.reply().await.expect_problem(413);

    let mut client = setup.gateway.raw().await;
    let head = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", ONE.len());
    client.send(post_head(&head).replace(JSON, "text/plain")).await;
    client.reply().await.expect_problem(415);

    let mut client = setup.gateway.raw().await;
    client.send(post_head(&head)).await;
    client.reply().await.expect_status(100);
    client.send(ONE).await;
    expect_accepted(client.reply().await, 1);
}

// 415

#[tokio::test]
async fn another_media_type_or_encoding_is_415_with_the_known_ones() {
    let setup = Setup::start().await;
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", "*/*"]
    {
        let reply = setup.post(media_type, ONE).await.expect_problem(415);
        for known in [JSON, NDJSON, "application/jsonl", SENML] {
            assert!(reply.header("accept").split(", ").any(|name| name == known), "{media_type}");
            assert!(reply.detail().contains(known), "{media_type}: {}", reply.detail());
        }
    }
    for encoding in ["br", "compress", "gzip, gzip", "gzipped"] {
        let reply = setup.post_encoded(encoding, gzip(ONE.as_bytes())).await.expect_problem(415);
        for known in ["gzip", "deflate", "zstd", "identity"] {
            assert!(reply.header("accept-encoding").split(", ").any(|name| name == known), "{encoding}");
            assert!(reply.detail().contains(known), "{encoding}: {}", reply.detail());
        }
    }
    setup.expect_nothing_taken().await;
}

// 422

#[tokio::test]
async fn a_request_whose_readings_are_all_turned_away_is_422_with_the_errors() {
    let setup = Setup::start().await;
    for (content_type, body, pointer) in [
        (JSON, "{}", "/device"),
        (JSON, "[{}]", "/0/device"),
        (NDJSON, "{}\n", "/0/device"),
        (SENML, r#"[{"n":"d/s"}]"#, "/0/v"),
        (SENML, r#"{"n":"d/s","v":1}"#, ""),
        (JSON, "null", ""),
        (JSON, "3", ""),
        (JSON, "\"x\"", ""),
    ] {
        let problem = setup.post(content_type, body).await.expect_problem(422).json();
        assert_eq!(problem["errors"][0]["index"], 0, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["errors"][0]["detail"].is_string());
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn strict_takes_all_or_none() {
    let setup = Setup::start().await;
    let mixed = format!("[{ONE},{{\"device\":\"d\"}},{ONE}]");
    let problem = setup.post_to("/v1/readings?strict=true", mixed.clone()).await.expect_problem(422).json();
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
    assert_eq!(problem["errors"][0]["pointer"], "/1/sensor");
    assert_eq!(problem["rejected"], 1);
    assert_eq!(
        problem["detail"],
        "1 reading was turned away, and the request is strict: nothing was taken; the first: `sensor` is missing"
    );
    setup.expect_nothing_taken().await;

    expect_accepted(setup.post_to("/v1/readings?strict=true", format!("[{ONE},{ONE}]")).await, 2);
    let reply = setup.post_to("/v1/readings?strict=false", mixed).await.expect_status(202).json();
    assert_eq!(reply["accepted"], 2);
}

#[tokio::test]
async fn an_acknowledgement_that_the_buffer_cannot_give_is_422() {
    let setup = Setup::start().await;
    let detail = setup.post_to("/v1/readings?ack=disk", ONE).await.expect_problem(422).detail();
    assert!(detail.contains("disk") && detail.contains("memory") && detail.contains("delivered"), "{detail}");
    setup.expect_nothing_taken().await;
    for ack in ["memory", "delivered"] {
        let reply = setup.post_to(&format!("/v1/readings?ack={ack}"), ONE).await.expect_status(202);
        assert_eq!(reply.json()["ack"], ack);
    }
}

#[tokio::test]
async fn optional_fields_that_are_null_count_as_absent() {
    let setup = Setup::start().await;
    for fields in [
        r#""sensor":"s","value":1,"time":null,"unit":null,"tags":null,"values":null"#,
        r#""sensor":null,"value":null,"values":{"s":1}"#,
    ] {
        let body = format!(r#"{{"device":"d",{fields}}}"#);
        expect_accepted(setup.post(JSON, body.clone()).await, 1);
        expect_accepted(setup.post(NDJSON, body).await, 1);
    }
    let document = setup.gateway.get("/openapi.json").await.expect_status(200).json();
    let properties = &document["components"]["schemas"]["Reading"]["properties"];
    for field in ["time", "unit", "tags"] {
        let text = properties[field].to_string();
        assert!(text.contains("\"null\""), "{field}: {text}");
    }
    for value in [&properties["value"], &properties["values"]["additionalProperties"]] {
        assert_eq!(value["type"], json!(["number", "boolean", "string"]), "{value}");
    }
}

// Settings that say what is turned away

#[tokio::test]
async fn readings_too_far_from_the_clock_are_turned_away() {
    let setup =
        Setup::with(|gateway| gateway.set("ingest.max_future", "1m").set("ingest.max_past", "2m")).await;
    let now = i64::try_from(milliseconds_now()).expect("this age");
    for (offset_seconds, status) in [(0, 202), (50, 202), (70, 422), (-110, 202), (-130, 422)] {
        let time = now + offset_seconds * 1000;
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        let reply = setup.post(JSON, body).await.expect_status(status);
        if status == 422 {
            assert_eq!(reply.json()["errors"][0]["pointer"], "/time", "{offset_seconds}");
        }
    }
    assert_eq!(setup.gateway.account("accepted").await, 3);
    assert_eq!(setup.gateway.metric(r#"forebay_readings_rejected_total{reason="time"}"#).await, Some(2.0));
}

#[tokio::test]
async fn by_default_an_hour_ahead_is_too_far_and_no_past_since_2001_is() {
    let setup = Setup::start().await;
    let now = i64::try_from(milliseconds_now()).expect("this age");
    let earliest = 978_307_200_000;
    for (time, status) in
        [(0, 422), (earliest - 1, 422), (earliest, 202), (now + 3_590_000, 202), (now + 3_610_000, 422)]
    {
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        setup.post(JSON, body).await.expect_status(status);
    }
}

#[tokio::test]
async fn a_reading_before_ingest_earliest_is_turned_away_and_the_unit_that_fits_is_named() {
    let setup = Setup::start().await;
    let post = async |content_type: &str, path: &str, body: String| {
        let request = setup.gateway.request(path).header("content-type", content_type).body(body);
        setup.gateway.send(request).await
    };
    let reading = |time: &str| format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
    for (path, time, unit) in [
        ("/v1/readings", "1170288000", "s"),
        ("/v1/readings", "1.170288e9", "s"),
        ("/v1/readings", "1170288000000000", "us"),
        ("/v1/readings", "1170288000000000000", "ns"),
        ("/v1/readings?precision=s", "1170288000000", "ms"),
        ("/v1/readings?precision=us", "1170288000", "s"),
        ("/v1/readings?precision=ns", "1170288000000", "ms"),
    ] {
        for (content_type, body) in
            [(JSON, reading(time)), (JSON, format!("[{}]", reading(time))), (NDJSON, reading(time))]
        {
            let detail = post(content_type, path, body).await.expect_problem(422).detail();
            assert!(detail.contains(&format!("did you mean `precision={unit}`?")), "{time}: {detail}");
        }
    }
    for time in ["0", "\"2000-12-31T23:59:59.999999999Z\"", "\"1970-01-01T00:00:00Z\""] {
        let detail = post(JSON, "/v1/readings", reading(time)).await.expect_problem(422).detail();
        assert!(detail.contains("is earlier than 2001-01-01T00:00:00Z"), "{time}: {detail}");
        assert!(!detail.contains("did you mean"), "{detail}");
    }
    let pack = r#"[{"n":"d/s","v":1,"t":1170288000000}]"#;
    let detail = post(SENML, "/v1/readings", pack.to_owned()).await.expect_problem(422).detail();
    assert!(detail.contains("it would fit as milliseconds, but SenML counts seconds"), "{detail}");
    let pack = r#"[{"n":"d/s","v":1,"t":978307199}]"#;
    post(SENML, "/v1/readings", pack.to_owned()).await.expect_problem(422);
    setup.expect_nothing_taken().await;
    assert_eq!(setup.gateway.metric(r#"forebay_readings_rejected_total{reason="time"}"#).await, Some(26.0));
}

#[tokio::test]
async fn unknown_fields_are_passed_over_where_the_settings_say_so() {
    let setup =
        Setup::with(|gateway| gateway.set("ingest.unknown_fields", "ignore").set("ingest.earliest", EPOCH))
            .await;
    let extra = r#"{"device":"d","x":{"y":[1,{"z":1e999}]},"sensor":"s","value":1,"time":0,"X":2,"":null}"#;
    expect_accepted(setup.post(JSON, extra).await, 1);
    expect_accepted(setup.post(NDJSON, extra).await, 1);
    let expected = r#"{"device":"d","sensor":"s","value":1,"time":"1970-01-01T00:00:00Z"}"#;
    assert_eq!(setup.lines(2).await, [expected, expected]);
}

// Idempotency-Key

const READINGS: &str = "/v1/readings";
const DELIVERED: &str = "/v1/readings?ack=delivered";

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again_and_nothing_is_taken_twice() {
    let setup = Setup::start().await;
    let body = to_json(&readings(3));
    let first = setup.post_keyed("\"a\"", READINGS, body.clone()).await.expect_status(202);
    assert_eq!(first.json()["accepted"], 3);
    for key in ["\"a\"", "a", " a "] {
        expect_replayed(setup.post_keyed(key, READINGS, body.clone()).await, &first);
    }
    assert_eq!(setup.gateway.account("accepted").await, 3);
    // Another key is another request, and without a key there is nothing to know it by.
    expect_accepted(setup.post_keyed("A", READINGS, body.clone()).await, 3);
    expect_accepted(setup.post(JSON, body).await, 3);
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 9 }).await;
    assert_eq!(setup.node.count(), 9);
}

#[tokio::test]
async fn every_kind_of_answer_of_202_is_given_again() {
    let setup = Setup::start().await;
    let mut mixed: Vec<_> = (0..150).map(|n| json!({"device":"d","sensor":"s","é\"\\/~":n})).collect();
    mixed.extend(readings(2));
    let cases: [(&str, &str, Vec<u8>); 4] = [
        ("partly refused", READINGS, to_json(&mixed)),
        ("empty", READINGS, "[]".into()),
        ("delivered", DELIVERED, ONE.into()),
        ("large", READINGS, to_json(&readings(2000))),
    ];
    for (key, path, body) in cases {
        let first = setup.post_keyed(key, path, body.clone()).await.expect_status(202);
        if key == "partly refused" {
            assert_eq!(first.json()["errors"].as_array().map(Vec::len), Some(100));
            assert_eq!((&first.json()["accepted"], &first.json()["rejected"]), (&json!(2), &json!(150)));
        }
        expect_replayed(setup.post_keyed(key, path, body).await, &first);
    }
    assert_eq!(setup.gateway.account("accepted").await, 2003);
}

#[tokio::test]
async fn readings_that_nodes_refused_are_not_taken_again_under_the_same_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = FakeNode::always(Answer::status(422)).await;
    let dead_letters = directory.path().join("dead-letters");
    let gateway =
        TestGateway::new().set("dead_letter.path", dead_letters.display()).node(&node).start().await;
    post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_problem(422);
    let again = post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_status(202);
    assert_eq!((again.header("idempotency-replayed"), &again.json()["accepted"]), ("true", &json!(1)));
    assert_ne!(again.json()["ack"], "delivered", "that would not be true");
    assert_eq!((gateway.account("accepted").await, gateway.account("dead_lettered").await), (1, 1));
}

#[tokio::test]
async fn the_same_key_with_another_request_is_422() {
    let setup = Setup::start().await;
    let first = setup.post_keyed("a", READINGS, ONE).await.expect_status(202);
    for path in [DELIVERED, "/v1/readings?strict=true", "/v1/readings?precision=s"] {
        setup.post_keyed("a", path, ONE).await.expect_problem(422);
    }
    let detail = setup.post_keyed("a", READINGS, format!("{ONE} ")).await.expect_problem(422).detail();
    assert!(detail.contains("another request"), "{detail}");
    expect_replayed(setup.post_keyed("a", READINGS, ONE).await, &first);
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn what_was_in_the_body_is_compared_and_not_how_it_was_compressed() {
    let setup = Setup::start().await;
    let post = async |encoding: &str, body: Vec<u8>| {
        let request = setup.gateway.request(READINGS).header("idempotency-key", "\"a\"");
        setup.gateway.send(request.header("content-encoding", encoding).body(body)).await
    };
    let first = post("gzip", gzip(ONE.as_bytes())).await.expect_status(202);
    // As a client that compresses anew does it: in two members, or not at all.
    let (one, two) = ONE.as_bytes().split_at(5);
    for (encoding, body) in [
        ("gzip", gzip(ONE.as_bytes())),
        ("gzip", [gzip(one), gzip(two)].concat()),
        ("deflate", zlib(ONE.as_bytes())),
        ("zstd", zstd(ONE.as_bytes())),
        ("identity", ONE.as_bytes().to_vec()),
    ] {
        expect_replayed(post(encoding, body).await, &first);
    }
    for (encoding, body) in [("gzip", gzip(b"[]")), ("zstd", zstd(b"[]")), ("identity", b"[]".to_vec())] {
        let detail = post(encoding, body).await.expect_problem(422).detail();
        assert!(detail.contains("another request"), "{encoding}: {detail}");
    }
    post("gzip", b"no gzip".to_vec()).await.expect_problem(400);
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_key_whose_first_request_is_under_way_is_409() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    let handle = gateway.handle();
    let first = tokio::spawn(async move { post_keyed(&handle, "a", DELIVERED, ONE).await });
    eventually("it is under way", || async { node.requests() == 1 }).await;
    let reply = post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_problem(409);
    assert_eq!(reply.header("retry-after"), "1");
    post_keyed(&gateway, "a", DELIVERED, "[]").await.expect_problem(422);
    gate.open();
    let first = first.await.expect("an answer").expect_status(202);
    assert_eq!(first.json()["ack"], "delivered");
    expect_replayed(post_keyed(&gateway, "a", DELIVERED, ONE).await, &first);
    assert_eq!(gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_request_whose_client_hung_up_goes_on_and_its_answer_is_there_later() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().set("server.max_connections", 2).node(&node).start().await;
    let keyed = post_head(&format!("Idempotency-Key: \"a\"\r\nContent-Length: {}\r\n", ONE.len()));
    let keyed = keyed.replacen(READINGS, DELIVERED, 1) + ONE;
    let mut first = gateway.raw().await;
    first.send(&keyed).await;
    eventually("it is under way", || async { node.requests() == 1 }).await;
    // Both places for connections are taken: that a third is served shows that the first is gone.
    let mut second = gateway.raw().await;
    second.post("[]").await;
    expect_accepted(second.reply().await, 0);
    drop(first);
    let mut third = gateway.raw().await;
    third.send(&keyed).await;
    third.reply().await.expect_problem(409);
    gate.open();
    let answered = async {
        loop {
            third.send(&keyed).await;
            let reply = third.reply().await;
            if reply.status != 409 {
                return reply;
            }
        }
    };
    let reply = tokio::time::timeout(support::LIMIT, answered).await.expect("an answer in time");
    let reply = reply.expect_status(202);
    assert_eq!(reply.header("idempotency-replayed"), "true");
    assert_eq!(reply.json(), json!({ "accepted": 1, "rejected": 0, "ack": "delivered", "errors": [] }));
    drop((second, third));
    assert_eq!(gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn after_the_window_a_key_is_taken_anew() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_window", "10m")).await;
    // A connection of its own each time: those that are open may be idle for too long meanwhile.
    let post = || async {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(&format!("Idempotency-Key: a\r\nContent-Length: {}\r\n", ONE.len()))).await;
        client.send(ONE).await;
        client.reply().await
    };
    let pass = |time| async move {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    let first = post().await;
    pass(Duration::from_secs(590)).await;
    expect_replayed(post().await, &first);
    pass(Duration::from_secs(10)).await;
    assert_eq!(post().await.expect_status(202).header("idempotency-replayed"), "");
    eventually("both arrive", || async { setup.node.count() == 2 }).await;
}

#[tokio::test]
async fn only_answers_of_202_are_remembered() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().set("buffer.max_readings", 1).node(&node).start().await;
    gateway.post_body(JSON, ONE).await.expect_status(202);
    post_keyed(&gateway, "a", READINGS, ONE).await.expect_problem(503);
    post_keyed(&gateway, "b", READINGS, "[{}]").await.expect_problem(422);
    post_keyed(&gateway, "c", READINGS, "[").await.expect_problem(400);
    gate.open();
    eventually("there is room", || async { gateway.account("delivered").await == 1 }).await;
    let reply = post_keyed(&gateway, "a", READINGS, ONE).await;
    assert_eq!(reply.header("idempotency-replayed"), "");
    expect_accepted(reply, 1);
    for key in ["b", "c"] {
        expect_accepted(post_keyed(&gateway, key, READINGS, "[]").await, 0);
    }
}

#[tokio::test]
async fn beyond_idempotency_keys_the_oldest_are_forgotten_and_counted() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_keys", 2)).await;
    let metric = "forebay_idempotency_keys_forgotten_total";
    assert_eq!(setup.gateway.metric(metric).await, Some(0.0));
    let mut answers = Vec::new();
    for key in ["a", "b", "c"] {
        answers.push(setup.post_keyed(key, READINGS, ONE).await.expect_status(202));
    }
    assert_eq!(setup.gateway.metric(metric).await, Some(1.0));
    expect_replayed(setup.post_keyed("b", READINGS, ONE).await, &answers[1]);
    expect_accepted(setup.post_keyed("a", READINGS, ONE).await, 1);
    assert_eq!(setup.gateway.account("accepted").await, 4);
}

#[tokio::test]
async fn a_header_that_is_no_key_is_400_and_says_what_is_allowed() {
    let setup = Setup::start().await;
    for key in ["\"a", "\"\"", "", "\"a\", \"b\"", &"k".repeat(256), "a\tb"] {
        let detail = setup.post_keyed(key, READINGS, ONE).await.expect_problem(400).detail();
        assert!(detail.contains("`Idempotency-Key`") && detail.contains("1 to 255 bytes"), "{detail}");
    }
    let twice = setup.gateway.request(READINGS).header("idempotency-key", "a").header("idempotency-key", "a");
    let detail = setup.gateway.send(twice.body(ONE)).await.expect_problem(400).detail();
    assert!(detail.contains("2 times"), "{detail}");
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn with_a_window_of_zero_keys_are_not_looked_at() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_window", "0s")).await;
    for key in ["a", "a", "\"a"] {
        expect_accepted(setup.post_keyed(key, READINGS, ONE).await, 1);
    }
}

// Connections

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_the_body_leaves_nothing() {
    let setup = Setup::start().await;
    let whole = to_json(&readings(100));
    for head in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        // A whole document, but not the whole body.
        client.send(if head.starts_with("Content") { whole.clone() } else { chunk(&whole) }).await;
        assert!(!client.hears_within(WATCH).await);
        drop(client);
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
    eventually("it arrives", || async { setup.gateway.account("delivered").await == 1 }).await;
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let setup = Setup::with(|gateway| gateway.set("server.idle_timeout", "100ms")).await;
    let mut client = setup.gateway.raw().await;
    client.send("POST /v1/readings HTTP/1.1\r\n").await;
    while !client.hears_within(Duration::from_millis(5)).await {
        client.try_send("X: 1\r\n").await;
    }
    let said = client.end().await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let mut all = Vec::new();
    for count in 1..=20 {
        let body = to_json(&readings(count));
        all.extend(post_head(&format!("Content-Length: {}\r\n", body.len())).into_bytes());
        all.extend(body);
    }
    client.send(all).await;
    for count in 1..=20 {
        expect_accepted(client.reply().await, count);
    }
    assert_eq!(setup.gateway.account("accepted").await, (1..=20).sum::<u64>());
}

#[tokio::test]
async fn http_1_0_is_answered_and_the_connection_closed() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let head = format!("POST /v1/readings HTTP/1.0\r\nContent-Length: {}\r\n\r\n", ONE.len());
    client.send(head + ONE).await;
    expect_accepted(client.reply().await, 1);
    assert!(client.end().await.is_empty());
}

#[tokio::test]
async fn a_post_that_says_no_length_is_411_on_every_path_and_nothing_is_lost_behind_a_success() {
    let setup = Setup::start().await;
    let line = "t,device=d value=1\n";
    for (path, body) in
        [("/v1/readings", ONE), ("/v1/readings", ""), ("/write?db=x", line), ("/api/v2/write?bucket=b", line)]
    {
        let heads = [
            format!("POST {path} HTTP/1.0\r\n\r\n"),
            format!("POST {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ];
        for head in heads {
            let mut client = setup.gateway.raw().await;
            client.send(head.clone() + body).await;
            let reply = client.reply().await.expect_status(411);
            assert!(reply.text().contains("Content-Length"), "{head}: {}", reply.text());
            let lines: Vec<_> = reply.headers.get_all("connection").iter().collect();
            assert_eq!(lines, ["close"], "{head}");
            client.end().await;
        }
        // hyper refuses an empty value itself, without a body.
        let mut client = setup.gateway.raw().await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n{body}"))
            .await;
        let status = client.reply().await.status.as_u16();
        assert!([400, 411].contains(&status), "{status}");
    }
    setup.expect_nothing_taken().await;
    // A length of 0 is an empty body.
    for (path, status) in [("/v1/readings", 400), ("/write", 204), ("/api/v2/write", 204)] {
        let mut client = setup.gateway.raw().await;
        client.send(format!("POST {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n")).await;
        client.reply().await.expect_status(status);
    }
}

#[tokio::test]
async fn whatever_a_post_without_a_length_asks_for_what_follows_is_not_the_next_request() {
    let setup = Setup::start().await;
    let hidden = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (path, status) in [("/query?q=x", 200), ("/status", 405), ("/nowhere", 404)] {
        for version in ["1.0\r\nConnection: keep-alive", "1.1\r\nHost: localhost"] {
            let mut client = setup.gateway.raw().await;
            client.send(format!("POST {path} HTTP/{version}\r\n\r\n{hidden}")).await;
            let reply = client.reply().await.expect_status(status);
            let lines: Vec<_> = reply.headers.get_all("connection").iter().collect();
            assert_eq!(lines, ["close"], "{path} {version}");
            assert!(client.end().await.is_empty(), "{path} {version}");
        }
    }
    let mut client = setup.gateway.raw().await;
    let query = "POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nq=x";
    client.send(format!("{query}{hidden}")).await;
    client.reply().await.expect_status(200);
    client.reply().await.expect_status(204);
}

#[tokio::test]
async fn a_body_of_no_clear_length_is_refused_and_its_connection_closed() {
    let setup = Setup::start().await;
    let body = format!("{:x}\r\n{ONE}\r\n0\r\n\r\n", ONE.len());
    for (lines, status) in [
        ("Transfer-Encoding: foo, chunked\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5, 6\r\n", 400),
        ("Content-Length: +5\r\n", 400),
    ] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(lines) + &body).await;
        let reply = client.reply().await;
        assert_eq!(reply.status.as_u16(), status, "{lines}: {}", reply.text());
        client.end().await;
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_chunked_body_is_taken_in_pieces_of_any_size() {
    let setup = Setup::start().await;
    let body = to_json(&readings(20));
    for size in [1, 7, 100, body.len()] {
        let mut client = setup.gateway.raw().await;
        let pieces: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
        client
            .send([post_head("Transfer-Encoding: chunked\r\n").into_bytes(), pieces, chunk("")].concat())
            .await;
        expect_accepted(client.reply().await, 20);
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_and_others_are_served() {
    let setup = Setup::start().await;
    let chunked = post_head("Transfer-Encoding: chunked\r\n");
    let hostile: Vec<Vec<u8>> = vec![
        b"\0\xff\xfe garbage\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"POST /v1/readings HTTP/9.9\r\n\r\n".to_vec(),
        post_head("Content-Length: -1\r\n").into_bytes(),
        post_head("Content-Length: 99999999999999999999999999\r\n").into_bytes(),
        post_head("Content-Length: 5\r\nContent-Length: 6\r\n").into_bytes(),
        post_head("Transfer-Encoding: gzip\r\n").into_bytes(),
        format!("{chunked}zz\r\n{ONE}\r\n").into_bytes(),
        format!("{chunked}ffffffffffffffffff\r\n{ONE}").into_bytes(),
        format!("{chunked}{:x}\r\n{ONE}no line end", ONE.len()).into_bytes(),
    ];
    for bytes in hostile {
        let mut client = setup.gateway.raw().await;
        client.send(&bytes).await;
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(reply) = client.reply_or_end().await {
            assert!((400..506).contains(&reply.status.as_u16()), "{shown}: {}", reply.status);
        }
        setup.expect_nothing_taken().await;
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

#[tokio::test]
async fn a_request_with_both_a_length_and_chunks_smuggles_nothing() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let inner = post_head(&format!("Content-Length: {}\r\n", ONE.len())) + ONE;
    let smuggled = [chunk("[]"), chunk(""), inner.into_bytes()].concat();
    let head = post_head(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len()));
    client.send([head.into_bytes(), smuggled].concat()).await;
    // Either it is refused, or the connection ends after the first answer (RFC 9112, section 6.1).
    let _ = client.reply_or_end().await;
    let rest = client.end();
    let rest = tokio::time::timeout(support::LIMIT, rest).await;
    assert!(rest.is_ok(), "the connection is closed");
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn two_hundred_clients_at_once_are_all_served() {
    let setup = Setup::start().await;
    let address = setup.gateway.address();
    let client = |client: usize| async move {
        let mut connection = RawClient::connect(address).await;
        for request in 0..5 {
            connection.post(to_json(&[reading(client * 5 + request)])).await;
            expect_accepted(connection.reply().await, 1);
        }
    };
    let clients: Vec<_> = (0..200).map(|number| tokio::spawn(client(number))).collect();
    for client in clients {
        client.await.expect("a client that is served");
    }
    assert_eq!(setup.gateway.account("accepted").await, 1000);
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 1000 }).await;
    let mut values: Vec<_> =
        setup.node.readings().iter().map(|reading| reading["value"].as_u64().expect("a number")).collect();
    values.sort_unstable();
    assert_eq!(values, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn connections_beyond_max_connections_are_served_when_one_ends() {
    let setup = Setup::with(|gateway| gateway.set("server.max_connections", 2)).await;
    let mut first = setup.gateway.raw().await;
    let mut second = setup.gateway.raw().await;
    for client in [&mut first, &mut second] {
        client.post(ONE).await;
        expect_accepted(client.reply().await, 1);
    }
    let mut third = setup.gateway.raw().await;
    third.post(ONE).await;
    assert!(!third.hears_within(WATCH).await);
    drop(first);
    expect_accepted(third.reply().await, 1);
}

#[tokio::test]
async fn bodies_that_all_requests_hold_together_are_bounded() {
    let setup =
        Setup::with(|gateway| gateway.set("server.max_body", "64KiB").set("server.max_pending", "64KiB"))
            .await;
    let mut first = setup.gateway.raw().await;
    first.send(post_head("Content-Length: 60000\r\n")).await;
    first.send(" ".repeat(59_000)).await;
    eventually("a second one finds no room", || async {
        let reply = setup.post(JSON, format!("{}{ONE}", " ".repeat(10_000))).await;
        let refused = reply.status == 503;
        assert!(!refused || (1..=60).contains(&reply.header("retry-after").parse().expect("seconds")));
        refused
    })
    .await;
    first.send(format!("{ONE}{}", " ".repeat(1000 - ONE.len()))).await;
    expect_accepted(first.reply().await, 1);
    expect_accepted(setup.post(JSON, format!("{}{ONE}", " ".repeat(10_000))).await, 1);
}

#[tokio::test]
async fn bodies_that_stay_half_sent_do_not_shut_out_others() {
    let setup =
        Setup::with(|gateway| gateway.set("server.max_body", "64KiB").set("server.max_pending", "256KiB"))
            .await;
    let mut waiting = Vec::new();
    for sent in [1, 1, 1, 1, 1, 1, 9_000, 9_000, 9_000, 9_000] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head("Content-Length: 65536\r\n") + &" ".repeat(sent)).await;
        // It has not been refused either.
        assert!(!client.hears_within(Duration::from_millis(10)).await);
        waiting.push(client);
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
    expect_accepted(setup.post(JSON, format!("{}{ONE}", " ".repeat(60_000))).await, 1);
    drop(waiting);
}

#[tokio::test]
async fn many_values_with_large_tags_are_413_before_they_fill_the_memory() {
    let setup = Setup::start().await;
    let tags: Vec<_> = (0..32).map(|n| format!("\"{n:0>256}\":\"{}\"", "v".repeat(256))).collect();
    let values: Vec<_> = (0..20_000).map(|n| format!("\"{n}\":1")).collect();
    let body =
        format!("{{\"device\":\"d\",\"tags\":{{{}}},\"values\":{{{}}}}}", tags.join(","), values.join(","));
    for content_type in [JSON, NDJSON] {
        let detail = setup.post(content_type, body.clone()).await.expect_problem(413).detail();
        assert!(detail.contains("fewer `values`"), "{detail}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn many_values_with_usual_tags_are_taken() {
    let setup = Setup::start().await;
    let values: Vec<_> = (0..100).map(|n| format!("\"t{n}\":20.5")).collect();
    let line = format!(
        "{{\"device\":\"boiler-room-17\",\"tags\":{{\"site\":\"north\",\"building\":\"12\",\"floor\":\"cellar\"}},\"values\":{{{}}}}}\n",
        values.join(",")
    );
    expect_accepted(setup.post(NDJSON, line.repeat(500)).await, 50_000);
}

#[tokio::test]
async fn requests_that_wait_for_delivery_leave_connections_and_room_for_bodies_to_others() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = TestGateway::new()
        .set("server.max_connections", 6)
        .set("server.max_body", "64KiB")
        .set("server.max_pending", "64KiB")
        .node(&node)
        .start()
        .await;
    let gateway = std::sync::Arc::new(gateway);
    let body = to_ndjson(&readings(300));
    let shared = std::sync::Arc::clone(&gateway);
    let mut waiting = Vec::new();
    for number in 1..=3 {
        let (gateway, body) = (std::sync::Arc::clone(&gateway), body.clone());
        waiting.push(tokio::spawn(async move {
            let request = gateway.request("/v1/readings?ack=delivered").header("content-type", NDJSON);
            gateway.send(request.body(body)).await
        }));
        eventually("it waits", || async { shared.account("buffered").await == 300 * number }).await;
    }
    // What they sent counts in the buffer now: another body of that size finds room.
    gateway.post_body(NDJSON, body.clone()).await.expect_status(202);
    // A fourth would take the connections that others need.
    let request = gateway.request("/v1/readings?ack=delivered").header("content-type", NDJSON);
    let reply = gateway.send(request.body(body)).await.expect_problem(503);
    assert!(!reply.header("retry-after").is_empty());
    gateway.get("/healthz").await.expect_status(200);
    assert_eq!(gateway.account("accepted").await, 1200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
