//! The promises of `POST /api/v2/write` and `POST /write`: clients of InfluxDB are served as they expect, and are told of
//! each line that is not taken in a way that makes them neither send it for ever nor lose it silently.

use crate::support::compression::{gzip, zstd};
use crate::support::{Answer, FakeNode, Gate, Reply, RunningGateway, TestGateway, eventually};
use serde_json::json;

const V1: &str = "/write?db=telegraf&rp=&u=user&p=secret&consistency=one";
const V2: &str = "/api/v2/write?bucket=b&org=o";
const BOTH: [&str; 2] = [V1, V2];
/// For `ingest.earliest`, where times are small numbers.
const EPOCH: &str = "1970-01-01T00:00:00Z";
/// A body such as Telegraf sends for a machine.
const LINE: &str = "mem,host=web-1,region=eu active=25i,used_percent=71.5 1170288000000000000\n";

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

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.post_with(path, &[("content-type", "text/plain; charset=utf-8")], body).await
    }

    async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Reply {
        let request = self.gateway.request(path).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.gateway.send(request).await
    }

    /// The readings as the node was sent them, one line each.
    async fn lines(&self, count: usize) -> Vec<String> {
        eventually("the readings arrive", || async { self.node.count() >= count }).await;
        let bodies: Vec<_> = self.node.received().iter().map(|batch| batch.body.to_vec()).collect();
        let text = String::from_utf8(bodies.concat()).expect("UTF-8");
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }

    async fn expect_nothing_taken(&self) {
        let ledger = self.gateway.ledger().await;
        assert_eq!((&ledger["accepted"], &ledger["buffered"]), (&json!(0), &json!(0)), "{ledger}");
    }
}

/// Fails unless everything was taken.
#[track_caller]
fn expect_taken(reply: Reply) -> Reply {
    let reply = reply.expect_status(204);
    assert_eq!((reply.text().as_str(), reply.header("content-type")), ("", ""));
    reply
}

/// The message of an error in the shape that the clients of `path` know, which has this status and code.
#[track_caller]
fn error(reply: Reply, path: &str, status: u16, code: &str) -> String {
    let reply = reply.expect_status(status);
    assert_eq!(reply.header("content-type"), "application/json");
    let body = reply.json();
    let members = body.as_object().expect("an object");
    if path.starts_with("/write") {
        let message = body["error"].as_str().expect("an error").to_owned();
        assert_eq!(members.len(), 1, "{body}");
        assert!(message.starts_with(reply.header("x-influxdb-error")), "{message}");
        assert!(!reply.header("x-influxdb-error").is_empty());
        return message;
    }
    assert_eq!(body["code"], code, "{body}");
    assert!(members.keys().all(|name| ["code", "message", "line"].contains(&name.as_str())), "{body}");
    body["message"].as_str().expect("a message").to_owned()
}

// 204

#[tokio::test]
async fn lines_are_taken_whatever_media_type_or_encoding_they_come_in() {
    let setup = Setup::start().await;
    for path in BOTH {
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/vnd.influx.arrow")],
            &[("authorization", "Token secret"), ("user-agent", "Telegraf/1.30.0")],
        ] {
            expect_taken(setup.post_with(path, headers, LINE).await);
        }
        expect_taken(setup.post_with(path, &[("content-encoding", "gzip")], gzip(LINE.as_bytes())).await);
        expect_taken(setup.post_with(path, &[("content-encoding", "zstd")], zstd(LINE.as_bytes())).await);
    }
    let lines = setup.lines(24).await;
    for pair in lines.chunks(2) {
        assert_eq!(
            pair,
            [
                r#"{"device":"web-1","sensor":"mem_active","value":25,"time":"2007-02-01T00:00:00Z","tags":{"region":"eu"}}"#,
                r#"{"device":"web-1","sensor":"mem_used_percent","value":71.5,"time":"2007-02-01T00:00:00Z","tags":{"region":"eu"}}"#,
            ]
        );
    }
    let accepted = setup.gateway.metric(r#"forebay_readings_accepted_total{format="influx"}"#).await;
    assert_eq!(accepted, Some(24.0));
    for path in ["/write", "/api/v2/write"] {
        let answered = format!(r#"forebay_http_requests_total{{path="{path}",status="204"}}"#);
        assert_eq!(setup.gateway.metric(&answered).await, Some(6.0));
    }
}

#[tokio::test]
async fn a_body_that_holds_no_line_is_taken() {
    let setup = Setup::start().await;
    for path in BOTH {
        for body in ["", "\n", "# nothing\r\n"] {
            expect_taken(setup.post(path, body).await);
        }
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn times_have_the_requested_precision_and_nanoseconds_by_default() {
    const HERE: &str = r#"{"device":"d","sensor":"m","value":1,"time":"1970-01-01T02:00:00Z"}"#;
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    let both =
        [("", 1), ("ns", 1), ("n", 1), ("us", 1000), ("u", 1000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    // A parameter without a value says nothing.
    expect_taken(setup.post(&format!("{V2}&precision="), "m,device=d value=1i 7200000000000").await);
    let v1_only = [("m", 60_000_000_000_i64), ("h", 3_600_000_000_000)];
    let mut expected = vec![HERE];
    for path in BOTH {
        let others = if path == V1 { &v1_only[..] } else { &[] };
        for (name, nanos) in both.iter().chain(others) {
            let precision = if name.is_empty() { String::new() } else { format!("&precision={name}") };
            let line = format!("m,device=d value=1i {}", 7_200_000_000_000 / nanos);
            expect_taken(setup.post(&format!("{path}{precision}"), line).await);
            expected.push(HERE);
        }
    }
    assert_eq!(setup.lines(expected.len()).await, expected);

    for (path, precision, allowed) in [
        (V1, "d", "ns, n, us, u, ms, s, m, h"),
        (V2, "m", "ns, n, us, u, ms, s"),
        (V2, "h", "ns, n, us, u, ms, s"),
        (V2, "nanoseconds", "ns, n, us, u, ms, s"),
    ] {
        let reply = setup.post(&format!("{path}&precision={precision}"), LINE).await;
        let expected = format!("query parameter `precision` is `{precision}`; allowed: {allowed}");
        assert_eq!(error(reply, path, 400, "invalid"), expected);
    }
    assert_eq!(setup.gateway.account("accepted").await, expected.len() as u64);
}

#[tokio::test]
async fn other_tags_may_name_the_device() {
    let setup = Setup::with(|gateway| {
        gateway.set("ingest.influx_device_tags", "serial,host").set("ingest.earliest", EPOCH)
    })
    .await;
    expect_taken(setup.post(V2, "m,device=d,host=h,serial=s value=1i 0\nm,host=h value=2i 0").await);
    let reply = setup.post(V2, "m,device=d value=1i 0").await;
    let message = error(reply, V2, 400, "invalid");
    assert!(message.contains("`serial`, `host`"), "{message}");
    assert_eq!(
        setup.lines(2).await,
        [
            r#"{"device":"s","sensor":"m","value":1,"time":"1970-01-01T00:00:00Z","tags":{"device":"d","host":"h"}}"#,
            r#"{"device":"h","sensor":"m","value":2,"time":"1970-01-01T00:00:00Z"}"#,
        ]
    );
}

// 400

#[tokio::test]
async fn a_partial_write_keeps_the_good_lines_and_names_the_others() {
    for path in BOTH {
        let setup = Setup::start().await;
        let body = format!("{LINE}\n# a comment\nmem,region=eu a=1\n{LINE}mem,host=h a=1,a=2\n");
        let message = error(setup.post(path, body).await, path, 400, "invalid");
        assert_eq!(
            message,
            "partial write: 4 readings were taken; unable to parse or take 2 lines: line 4, column 14: the line has no \
             tag that names its device; known: `device`, `host`, the first one counts; line 6, column 16: the field `a` \
             is there twice"
        );
        setup.lines(4).await;
        let rejected = |reason: &str| format!(r#"forebay_readings_rejected_total{{reason="{reason}"}}"#);
        assert_eq!(setup.gateway.metric(&rejected("field")).await, Some(2.0));
    }
}

#[tokio::test]
async fn a_field_without_a_valid_value_is_rejected_alone() {
    for path in BOTH {
        let setup = Setup::start().await;
        let body = "mem,host=h a=1,b=NaN,c=2i,d=x,e= 1170288000000000000\n";
        let message = error(setup.post(path, body).await, path, 400, "invalid");
        assert_eq!(
            message,
            "partial write: 2 readings were taken; unable to parse or take 3 fields: line 1, column 18: the field `b` is \
             `NaN`, which is no finite number; line 1, column 29: the field `d` is `x`; allowed: a number, a whole number \
             with `i` or `u` behind it, true, false, or a text in double quotes; line 1, column 33: the field `e` has no \
             value"
        );
        let lines = setup.lines(2).await;
        assert!(lines[0].contains("\"mem_a\"") && lines[1].contains("\"mem_c\""), "{lines:?}");
        let rejected = |reason: &str| format!(r#"forebay_readings_rejected_total{{reason="{reason}"}}"#);
        for reason in ["number", "type", "field"] {
            assert_eq!(setup.gateway.metric(&rejected(reason)).await, Some(1.0), "{reason}");
        }
        let strict = setup.post(&format!("{path}&strict=true"), body).await;
        let message = error(strict, path, 400, "invalid");
        assert!(message.starts_with("the request is strict, and nothing of it was taken; "), "{message}");
        assert!(message.contains("take 3 fields: "), "{message}");
        assert_eq!(setup.gateway.account("accepted").await, 2);
    }
}

#[tokio::test]
async fn seconds_sent_as_nanoseconds_are_turned_away_and_the_unit_that_fits_is_named() {
    let setup = Setup::start().await;
    for path in BOTH {
        let message = error(setup.post(path, "m,device=d value=1i 1170288000").await, path, 400, "invalid");
        assert!(message.contains("did you mean `precision=s`?"), "{message}");
        expect_taken(setup.post(&format!("{path}&precision=s"), "m,device=d value=1i 1170288000").await);
    }
    assert_eq!(setup.gateway.metric(r#"forebay_readings_rejected_total{reason="time"}"#).await, Some(2.0));
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_first_measurement() {
    let setup = Setup::start().await;
    for path in BOTH {
        expect_taken(setup.post(path, format!("\u{feff}{LINE}")).await);
    }
    for pair in setup.lines(4).await.chunks(2) {
        assert!(pair[0].contains(r#""sensor":"mem_active""#), "{pair:?}");
    }
    for path in BOTH {
        let body: Vec<u8> = LINE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let message = error(setup.post(path, [&b"\xff\xfe"[..], &body].concat()).await, path, 400, "invalid");
        assert!(message.contains("UTF-16"), "{message}");
        let message = error(setup.post(path, r#"{"device":"d"}"#).await, path, 400, "invalid");
        assert!(message.contains("looks like JSON") && message.contains("`/v1/readings`"), "{message}");
    }
}

#[tokio::test]
async fn a_single_line_at_fault_is_named_to_clients_of_v2() {
    let setup = Setup::start().await;
    let reply = setup.post(V2, format!("{LINE}{LINE}m,host=h\n")).await.expect_status(400);
    let message = "partial write: 4 readings were taken; unable to parse or take 1 line: line 3, column 9: the line has \
                   no fields";
    assert_eq!(reply.json(), json!({ "code": "invalid", "message": message, "line": 3 }));
    let reply = setup.post(V2, "m,host=h").await.expect_status(400);
    let message = "unable to parse or take 1 line: line 1, column 9: the line has no fields";
    assert_eq!(reply.json(), json!({ "code": "invalid", "message": message, "line": 1 }));
    let reply = setup.post(V2, "m,host=h\nm,host=h").await.expect_status(400);
    assert_eq!(reply.json().get("line"), None);
}

#[tokio::test]
async fn where_all_lines_are_turned_away_nothing_is_kept_and_a_hundred_are_named() {
    let setup = Setup::start().await;
    for path in BOTH {
        let message = error(setup.post(path, "m,host=h\n".repeat(150)).await, path, 400, "invalid");
        assert!(
            message.starts_with("unable to parse or take 150 lines: line 1, column 9: the "),
            "{message}"
        );
        assert!(message.ends_with("; line 100, column 9: the line has no fields; and 50 more"), "{message}");
        assert!(!message.contains("partial write"), "{message}");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_strict_request_is_taken_whole_or_not_at_all() {
    let setup = Setup::start().await;
    for path in BOTH {
        let reply = setup.post(&format!("{path}&strict=true"), format!("{LINE}m,host=h\n")).await;
        assert_eq!(
            error(reply, path, 400, "invalid"),
            "the request is strict, and nothing of it was taken; unable to parse or take 1 line: line 2, column 9: the \
             line has no fields"
        );
    }
    setup.expect_nothing_taken().await;
    expect_taken(setup.post(&format!("{V1}&strict=true"), LINE).await);
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_rejected_alone() {
    let setup = Setup::start().await;
    for path in BOTH {
        let body = [LINE.as_bytes(), b"m,host=\xff value=1\n", LINE.as_bytes()].concat();
        let message = error(setup.post(path, body).await, path, 400, "invalid");
        assert!(message.ends_with("line 2, column 8: the line is not UTF-8"), "{message}");
    }
    setup.lines(8).await;
}

#[tokio::test]
async fn a_body_that_contradicts_its_encoding_is_400() {
    let setup = Setup::start().await;
    for path in BOTH {
        let reply = setup.post_with(path, &[("content-encoding", "gzip")], LINE).await;
        let message = error(reply, path, 400, "invalid");
        assert!(message.starts_with("the body is not valid gzip"), "{message}");
    }
    setup.expect_nothing_taken().await;
}

// 404, 405

#[tokio::test]
async fn other_methods_are_405_with_allow_and_other_paths_are_404() {
    let setup = Setup::start().await;
    let client = forebay_load::client::builder().build().expect("a client");
    for path in BOTH {
        for method in ["GET", "PUT", "DELETE"] {
            let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
            let reply = setup.gateway.send(client.request(method, setup.gateway.url(path))).await;
            assert_eq!(reply.header("allow"), "POST");
            error(reply, path, 405, "method not allowed");
        }
    }
    for path in ["/api/v2/ping", "/api/v3/write_lp", "/write/"] {
        setup.gateway.get(path).await.expect_problem(404);
    }
}

#[tokio::test]
async fn questions_of_clients_before_they_write_are_answered() {
    let setup = Setup::start().await;
    // The clients of InfluxDB 1 and 2 look for the version.
    let ping = setup.gateway.get("/ping").await.expect_status(204);
    assert!(ping.header("x-influxdb-version").starts_with("1.8"), "{ping:?}");
    let mut raw = setup.gateway.raw().await;
    raw.send("HEAD /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!raw.reply_to_head().await.expect_status(204).header("x-influxdb-version").is_empty());
    let verbose = setup.gateway.get("/ping?verbose=true").await.expect_status(200).json();
    assert_eq!(verbose["version"], ping.header("x-influxdb-version"));
    assert_eq!(setup.gateway.get("/ping?verbose=false&wait_for_leader=1s").await.status, 204);
    // Those of InfluxDB 2 ask whether it is well.
    let health = setup.gateway.get("/health").await.expect_status(200);
    assert_eq!(health.header("content-type"), "application/json");
    let health = health.json();
    assert_eq!((&health["name"], &health["status"]), (&json!("influxdb"), &json!("pass")));
    assert_eq!(health["checks"], json!([]));
    // Telegraf makes its database by a form, others by the query; some list the databases first.
    let done = json!({ "results": [{ "statement_id": 0 }] });
    let form = setup
        .post_with(
            "/query",
            &[("content-type", "application/x-www-form-urlencoded")],
            "q=CREATE+DATABASE+%22telegraf%22",
        )
        .await;
    assert_eq!(form.expect_status(200).json(), done);
    for path in ["/query?q=SHOW+DATABASES&db=x&u=user&p=secret", "/query"] {
        assert_eq!(setup.gateway.get(path).await.expect_status(200).json(), done);
    }
    for method in ["PUT", "DELETE"] {
        for path in ["/ping", "/health", "/query"] {
            let mut raw = setup.gateway.raw().await;
            raw.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            raw.reply().await.expect_problem(405);
        }
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_query_is_answered_however_long_its_body_is() {
    let setup = Setup::start().await;
    let done = json!({ "results": [{ "statement_id": 0 }] });
    assert_eq!(setup.post("/query", "q".repeat(60_000)).await.expect_status(200).json(), done);
    let mut raw = setup.gateway.raw().await;
    raw.send("POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n").await;
    raw.try_send("q".repeat(100_000)).await;
    assert_eq!(raw.reply().await.expect_status(200).json(), done);
    // No length at all: there is nothing to wait for.
    let mut raw = setup.gateway.raw().await;
    raw.send("POST /query HTTP/1.0\r\n\r\n").await;
    raw.reply().await.expect_status(200);
}

// 408, 409, 413, 415, 422, 503

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_smaller_ones_are_taken() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    for path in BOTH {
        let body = LINE.repeat(60);
        let message = error(setup.post(path, body.clone()).await, path, 413, "request too large");
        assert!(message.contains("4KiB"), "{message}");
        let reply = setup.post_with(path, &[("content-encoding", "gzip")], gzip(body.as_bytes())).await;
        error(reply, path, 413, "request too large");
        expect_taken(setup.post(path, LINE.repeat(30)).await);
    }
    assert_eq!(setup.gateway.account("accepted").await, 120);
}

#[tokio::test]
async fn many_fields_with_large_tags_are_413_before_they_fill_the_memory() {
    let setup = Setup::start().await;
    let tags: String = (0..32).map(|n| format!(",{n:0>256}={}", "v".repeat(256))).collect();
    let fields: Vec<_> = (0..20_000).map(|n| format!("{n}=1i")).collect();
    let reply = setup.post(V2, format!("m,host=h{tags} {}", fields.join(","))).await;
    let message = error(reply, V2, 413, "request too large");
    assert!(message.contains("fields"), "{message}");
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_body_that_trickles_in_is_408() {
    let setup = Setup::with(|gateway| gateway.set("server.request_timeout", "100ms")).await;
    for path in BOTH {
        let mut client = setup.gateway.raw().await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nm"))
            .await;
        let message = error(client.reply().await, path, 408, "unavailable");
        assert!(message.contains("100ms"), "{message}");
    }
}

#[tokio::test]
async fn an_encoding_that_is_not_known_is_415_and_an_acknowledgement_that_cannot_be_given_422() {
    let setup = Setup::start().await;
    for path in BOTH {
        let reply = setup.post_with(path, &[("content-encoding", "br")], LINE).await;
        assert!(reply.header("accept-encoding").contains("gzip"));
        error(reply, path, 415, "unsupported media type");
        let reply = setup.post(&format!("{path}&ack=disk"), LINE).await;
        error(reply, path, 422, "unprocessable entity");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_full_buffer_is_503_with_retry_after_and_all_or_nothing() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = TestGateway::new().set("buffer.max_readings", 3).node(&node).start().await;
    let setup = Setup { gateway, node };
    expect_taken(setup.post(V2, LINE).await);
    for path in BOTH {
        let reply = setup.post(path, LINE).await;
        assert!((1..=60).contains(&reply.header("retry-after").parse().expect("seconds")));
        error(reply, path, 503, "unavailable");
    }
    assert_eq!(setup.gateway.account("accepted").await, 2);
    // More than it ever holds.
    for path in BOTH {
        error(setup.post(path, LINE.repeat(2)).await, path, 413, "request too large");
    }
}

#[tokio::test]
async fn while_it_drains_clients_are_asked_to_retry() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    let setup = Setup { gateway: gateway.handle(), node };
    expect_taken(setup.post(V2, LINE).await);
    let stopping = tokio::spawn(gateway.stop());
    eventually("it is draining", || async { setup.gateway.get("/readyz").await.status == 503 }).await;
    for path in BOTH {
        let reply = setup.post(path, LINE).await;
        assert_eq!(reply.header("retry-after"), "5");
        let message = error(reply, path, 503, "unavailable");
        assert!(message.ends_with("nothing of the request was taken"), "{message}");
    }
    gate.open();
    assert_eq!(stopping.await.expect("it stops").undelivered, 0);
}

#[tokio::test]
async fn ack_delivered_is_answered_when_the_node_has_the_lines_and_names_dead_letters() {
    let setup = Setup::start().await;
    for path in BOTH {
        expect_taken(setup.post(&format!("{path}&ack=delivered"), LINE).await);
    }
    assert_eq!(setup.node.count(), 4);
    setup.node.answer_otherwise(Answer::status(422));
    for path in BOTH {
        let reply = setup.post(&format!("{path}&ack=delivered"), LINE).await;
        assert_eq!(reply.header("retry-after"), "");
        let message = error(reply, path, 422, "unprocessable entity");
        assert!(message.contains("dead letters"), "{message}");
    }
}

// Idempotency-Key

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again_in_the_shape_of_its_path() {
    let setup = Setup::start().await;
    let partial = format!("{LINE}m,host=h\n");
    let keyed = async |path: &str, key: &str, body: String| {
        setup.post_with(path, &[("idempotency-key", key)], body).await
    };
    for (path, key) in [(V1, "one"), (V2, "two")] {
        let taken = format!("\"{key}-taken\"");
        assert_eq!(
            expect_taken(keyed(path, &taken, LINE.to_owned()).await).header("idempotency-replayed"),
            ""
        );
        let again = expect_taken(keyed(path, &taken, LINE.to_owned()).await);
        assert_eq!(again.header("idempotency-replayed"), "true");

        let other = keyed(path, &taken, partial.clone()).await;
        let message = error(other, path, 422, "unprocessable entity");
        assert!(message.contains("came with another request"), "{message}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 4);
    // The same lines under the same key are the same request on both paths, each answered in its own shape.
    let again = expect_taken(keyed(V2, "\"one-taken\"", LINE.to_owned()).await);
    assert_eq!(again.header("idempotency-replayed"), "true");
    // A partial write asks for another body: it is not remembered, and its key is free for that.
    for path in BOTH {
        for _ in 0..2 {
            let reply = keyed(path, "partial", partial.clone()).await;
            assert_eq!(reply.header("idempotency-replayed"), "");
            let message = error(reply, path, 400, "invalid");
            assert!(message.starts_with("partial write: 2 readings were taken"), "{message}");
        }
    }
    assert_eq!(setup.gateway.account("accepted").await, 12);
    assert_eq!(expect_taken(keyed(V1, "partial", LINE.to_owned()).await).header("idempotency-replayed"), "");
    // A request that was refused as a whole is taken afresh.
    for _ in 0..2 {
        let refused = keyed(V2, "three", "m,host=h\n".to_owned()).await;
        assert_eq!(refused.header("idempotency-replayed"), "");
        error(refused, V2, 400, "invalid");
    }
    expect_taken(keyed(V2, "three", LINE.to_owned()).await);
    assert_eq!(setup.gateway.account("accepted").await, 16);
    let error_of_key = keyed(V1, "\"", LINE.to_owned()).await;
    error(error_of_key, V1, 400, "invalid");
}

#[tokio::test]
async fn a_key_whose_first_request_is_under_way_is_409() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    let setup = Setup { gateway, node };
    for path in BOTH {
        let path = format!("{path}&ack=delivered");
        let key = ("idempotency-key", &path[..8]);
        let request = setup.gateway.request(&path).header(key.0, key.1).body(LINE);
        let handle = setup.gateway.handle();
        let first = tokio::spawn(async move { handle.send(request).await });
        eventually("the first one is under way", || async { setup.gateway.account("buffered").await > 0 })
            .await;
        let reply = setup.post_with(&path, &[key], LINE).await;
        assert_eq!(reply.header("retry-after"), "1");
        error(reply, &path, 409, "conflict");
        gate.pass_one();
        expect_taken(first.await.expect("an answer"));
    }
}
