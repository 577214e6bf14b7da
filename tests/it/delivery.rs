//! What is promised of the way from the buffer to the nodes.

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

/// Longer than any test: what takes it does not happen.
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

// What a batch is.

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

// What an answer means.

#[tokio::test]
async fn every_2xx_is_a_delivery() {
    let node = FakeNode::answering([200, 201, 202, 204, 299].map(Answer::status)).await;
    let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
    gateway.post(&readings(5)).await.expect_status(202);
    eventually("they are settled", || async { gateway.account("delivered").await == 5 }).await;
    assert_eq!(node.requests(), 5);
}

#[tokio::test]
async fn a_batch_that_fails_is_sent_again_with_the_same_key_and_readings() {
    let statuses = [408, 409, 425, 429, 500, 502, 503, 504, 507, 599];
    let node = FakeNode::answering(statuses.map(Answer::status)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("the readings arrive", || async { node.readings() == readings(3) }).await;

    assert_eq!(node.requests(), statuses.len() + 1);
    assert!(node.received().iter().all(|batch| batch.key() == node.received()[0].key()));
    assert_keys_carry_the_same(&node.received());
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    let metric = async |labels: &str| gateway.metric(&labels.replace("NODE", &node.id())).await;
    assert_eq!(metric("forebay_batches_total{node=\"NODE\",outcome=\"unavailable\"}").await, Some(10.0));
    assert_eq!(metric("forebay_batches_total{node=\"NODE\",outcome=\"delivered\"}").await, Some(1.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"busy\"}").await, Some(5.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"server_error\"}").await, Some(5.0));
    assert_eq!(metric("forebay_delivery_seconds_count{node=\"NODE\"}").await, Some(11.0));
    assert_eq!(metric("forebay_readings_delivered_total{node=\"NODE\"}").await, Some(3.0));
    assert_eq!(metric("forebay_batch_readings_count").await, Some(1.0));
    assert_eq!(metric("forebay_batch_readings_sum").await, Some(3.0));
}

#[tokio::test]
async fn a_connection_that_breaks_and_an_answer_that_does_not_come_are_tried_again() {
    let node = FakeNode::answering([Answer::hang_up(), Answer::never(), Answer::hang_up()]).await;
    let gateway = TestGateway::new().node(&node).set("cluster.timeout", "100ms").start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    assert_eq!(node.requests(), 4);
    assert_keys_carry_the_same(&node.received());
    let metric = async |labels: &str| gateway.metric(&labels.replace("NODE", &node.id())).await;
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"broken\"}").await, Some(2.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"timeout\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_node_that_was_away_gets_the_readings_when_it_comes_back() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    let id = node.id();
    let address = node.stop().await;
    gateway.post(&[reading(3)]).await.expect_status(202);
    eventually("the node is down", || async { node_status(&gateway, &id).await["up"] == false }).await;
    let reason = node_status(&gateway, &id).await["reason"].as_str().expect("a reason").to_lowercase();
    assert!(reason.contains("refused"), "{reason}");
    assert_eq!(gateway.account("buffered").await, 1);

    let node = FakeNode::start_at(address).await;
    eventually("it arrives", || async { node.readings() == [reading(3)] }).await;
    eventually("the node is up", || async { node_status(&gateway, &id).await["up"] == true }).await;
    assert!(node_status(&gateway, &id).await["reason"].is_null());
    let retries = format!("forebay_retries_total{{node=\"{id}\",reason=\"connect\"}}");
    assert!(gateway.metric(&retries).await.is_some_and(|count| count >= 5.0));
}

#[tokio::test]
async fn a_node_that_fails_is_not_asked_without_a_pause() {
    let node = FakeNode::answering((0..5).map(|_| Answer::status(503))).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("cluster.retry.initial", "200ms")
        .set("cluster.retry.max", "200ms")
        .start()
        .await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it arrives", || async { node.count() == 1 }).await;
    let received = node.received();
    let took = received[5].at - received[0].at;
    // Five delays, each drawn evenly from 0 to 200 ms: less than this in one run of a hundred thousand.
    assert!(took >= millis(50), "{took:?}");
    assert!(took < millis(5 * 200) + LIMIT / 2, "{took:?}");
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    for is_date in [false, true] {
        let (start, clock) = (Instant::now(), wall_time());
        let date = httpdate::fmt_http_date(clock + Duration::from_secs(2));
        let text = if is_date { date.clone() } else { "1".to_owned() };
        let node = FakeNode::answering([Answer::status(429).header("retry-after", &text)]).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(1)).await.expect_status(202);
        eventually("it arrives", || async { node.count() == 1 }).await;
        let received = node.received();
        let earliest = match httpdate::parse_http_date(&text) {
            // A date has whole seconds: it is one to two seconds away.
            Ok(date) => start + date.duration_since(clock).expect("later"),
            Err(_) => received[0].at + Duration::from_secs(1),
        };
        // The two clocks are not read at the same instant.
        assert!(received[1].at + millis(10) >= earliest, "{text}: {:?} too early", earliest - received[1].at);
        assert!(received[1].at < earliest + LIMIT / 2, "{text}: {:?} late", received[1].at - earliest);
    }
}

#[tokio::test]
async fn retry_after_holds_whatever_else_the_node_answers_meanwhile() {
    for late in [503, 200] {
        let node = FakeNode::answering([
            Answer::status(503).header("retry-after", 1),
            Answer::status(late).after(millis(50)),
        ])
        .await;
        let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
        gateway.post(&readings(2)).await.expect_status(202);
        eventually("all arrive", || async { node.count() == 2 }).await;
        let received = node.received();
        let waited = received[2].at - received[0].at;
        assert!(waited >= millis(990), "{late}: {waited:?}");
    }
}

#[tokio::test]
async fn while_one_node_wants_to_be_left_alone_another_gets_its_batch() {
    let busy = FakeNode::always(Answer::status(503).header("retry-after", 60)).await;
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&busy).node(&node).set("batch.max_readings", 1).start().await;
    gateway.post(&readings(100)).await.expect_status(202);
    within(LIMIT, "all arrive", eventually("all", || async { node.count() == 100 })).await;
    // What was on its way with the first one had not heard of it yet.
    assert!((1..=16).contains(&busy.requests()), "{}", busy.requests());
}

#[tokio::test]
async fn a_batch_that_a_node_refuses_is_halved_until_a_reading_stands_alone_and_the_rest_is_delivered() {
    for status in [400, 413, 422] {
        let refusal = Answer::status(status).body("no such sensor");
        // All three, the first one alone, the other two together.
        let node = FakeNode::answering([refusal.clone(), refusal.clone(), refusal]).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(3)).await.expect_status(202);
        eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        assert_eq!(node.readings(), readings(3)[1..], "{status}");
        assert_eq!((gateway.account("delivered").await, gateway.account("dead_lettered").await), (2, 1));
        let sizes: Vec<_> = node.received().iter().map(|batch| batch.readings().len()).collect();
        assert_eq!(sizes, [3, 1, 2, 1, 1], "{status}");
        // A node that refuses readings is not ill.
        assert_eq!(node_status(&gateway, &node.id()).await["up"], true, "{status}");
    }
}

#[tokio::test]
async fn a_node_that_is_set_up_wrongly_is_down_with_the_reason_and_nothing_is_given_up() {
    let elsewhere = FakeNode::start().await;
    for status in [401, 403, 404, 405, 501, 301, 302, 303, 307, 308] {
        let answer = Answer::status(status).body("ask the operator").header("location", elsewhere.url());
        let node = FakeNode::always(answer).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(3)).await.expect_status(202);
        let id = node.id();
        eventually("it is down", || async { node_status(&gateway, &id).await["up"] == false }).await;
        let reason = node_status(&gateway, &id).await["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.contains(&status.to_string()) && reason.contains("ask the operator"), "{reason}");
        assert_eq!(gateway.metric(&format!("forebay_node_up{{node=\"{id}\"}}")).await, Some(0.0));
        eventually("it is tried again", || async { node.requests() >= 3 }).await;
        assert_eq!(gateway.account("buffered").await, 3, "{status}");

        node.answer_otherwise(Answer::status(200));
        eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
        assert_eq!(node.readings(), readings(3));
        assert_eq!(node_status(&gateway, &id).await["up"], true);
        assert_keys_carry_the_same(&node.received());
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_request_that_has_come_through_this_gateway_before_is_508_on_every_path_and_nothing_is_taken() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it arrives", || async { node.count() == 1 }).await;
    let id = node.received()[0].header("forebay-via");
    assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    for via in [id.clone(), format!("other, {id}"), format!("{id},other")] {
        let request =
            |path: &str, body: &[u8]| gateway.request(path).header("forebay-via", &via).body(body.to_vec());
        let json = to_json(&readings(1));
        let looped = gateway.send(request("/v1/readings", &json)).await.expect_problem(508);
        assert!(looped.detail().contains("loop"), "{}", looped.detail());
        for path in ["/write?db=x", "/api/v2/write"] {
            let looped = gateway.send(request(path, b"m,device=d value=1")).await.expect_status(508);
            assert!(looped.text().contains("loop"), "{}", looped.text());
        }
    }
    assert_eq!(gateway.account("accepted").await, 1);
    // Those of others are taken, and named to the nodes.
    let other =
        gateway.request("/v1/readings").header("forebay-via", "other-gateway").body(to_json(&readings(1)));
    gateway.send(other).await.expect_status(202);
    eventually("it arrives", || async { node.requests() == 2 }).await;
    assert_eq!(node.received()[1].header("forebay-via"), format!("other-gateway, {id}"));
}

#[tokio::test]
async fn gateways_that_send_to_each_other_find_it_out_and_give_nothing_up() {
    // The second one sends to where the first will be.
    let place = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let back = TestGateway::new().node_at(format!("http://{place}/v1/readings")).start().await;
    let first =
        TestGateway::new().set("server.listen", place).node_at(back.url("/v1/readings")).start().await;
    first.post(&readings(3)).await.expect_status(202);
    let id = place.to_string();
    eventually("the loop is found", || async { node_status(&back, &id).await["state"] == "down" }).await;
    let reason = node_status(&back, &id).await["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("508") && reason.contains("come back to this gateway"), "{reason}");
    eventually("the first has its answer", || async { first.account("delivered").await == 3 }).await;
    assert_eq!(back.account("buffered").await, 3);
    assert_eq!(first.account("accepted").await, 3, "nothing came in again");
}

#[tokio::test]
async fn a_node_that_answers_508_is_down_with_that_reason_and_nothing_is_given_up() {
    let node = FakeNode::always(Answer::status(508).body("a loop")).await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is down", || async { node_status(&gateway, &node.id()).await["state"] == "down" }).await;
    let reason = node_status(&gateway, &node.id()).await["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("come back to this gateway: a loop"), "{reason}");
    assert_eq!(gateway.account("buffered").await, 3);
    node.answer_otherwise(Answer::status(200));
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
}

#[tokio::test]
async fn retries_to_a_node_that_fails_do_not_storm_and_a_stop_does_not_wait_for_them() {
    const BATCHES: usize = 100;
    let node = FakeNode::always(Answer::status(500)).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.retry.initial", "1ms")
        .set("cluster.retry.max", "1ms")
        .start()
        .await;
    let start = Instant::now();
    gateway.post(&readings(BATCHES)).await.expect_status(202);
    // What is saved up is soon spent; from then on ten each second are sent, and not a thousand.
    eventually("it is spent", || async { node.requests() >= BATCHES + 100 }).await;
    tokio::time::sleep(millis(500)).await;
    let retries = node.requests() - BATCHES;
    let most = 100.0 + 10.0 * start.elapsed().as_secs_f64();
    assert!(retries as f64 <= most + 2.0, "{retries} retries, at most {most}");
    node.answer_otherwise(Answer::status(200));
    let stop = Instant::now();
    assert_eq!(gateway.stop().await.undelivered, 0);
    // As retries they would take ten seconds.
    assert!(stop.elapsed() < millis(5000), "{:?}", stop.elapsed());
}

#[tokio::test]
async fn a_node_that_fails_half_of_its_batches_is_down_now_and_then_and_all_arrive() {
    let mut count = 0;
    let half = FakeNode::choosing(move || {
        count += 1;
        Answer::status(if count % 2 == 0 { 500 } else { 200 })
    })
    .await;
    let good = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&half)
        .node(&good)
        .set("batch.max_readings", 1)
        .set("cluster.timeout", "20ms")
        .set("cluster.health.failures", 1000)
        .set("cluster.health.probe", "300ms")
        .start()
        .await;
    eventually("it is down although it never failed often in a row", || async {
        gateway.post(&readings(20)).await.expect_status(202);
        node_status(&gateway, &half.id()).await["ejected"] == true
    })
    .await;
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}

// Several nodes.

#[tokio::test]
async fn a_retry_goes_to_another_node_first() {
    // Probes are due all the time and delays are longer than their interval: they must not lead back either.
    for (failure, probe) in [(500, "1h"), (500, "1ms"), (404, "1ms")] {
        let bad = FakeNode::always(Answer::status(failure)).await;
        let good = FakeNode::start().await;
        let gateway = TestGateway::new()
            .node(&bad)
            .node(&good)
            .set("batch.max_readings", 1)
            .set("cluster.health.probe", probe)
            .set("cluster.health.failures", 1)
            .start()
            .await;
        for index in 0..40 {
            gateway.post(&[reading(index)]).await.expect_status(202);
            eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        }
        let mut tries: BTreeMap<String, usize> = BTreeMap::new();
        for batch in bad.received() {
            *tries.entry(batch.key()).or_default() += 1;
        }
        assert!(!tries.is_empty());
        assert!(tries.values().all(|count| *count == 1), "{failure}, {probe}: {tries:?}");
    }
}

#[tokio::test]
async fn a_dead_node_among_three_is_not_noticed_by_clients_and_is_probed() {
    let dead = FakeNode::start().await;
    let (first, second) = (FakeNode::start().await, FakeNode::start().await);
    let gateway =
        TestGateway::new().node(&dead).node(&first).node(&second).set("batch.max_readings", 2).start().await;
    let id = dead.id();
    let address = dead.stop().await;
    let mut sent = 0;
    let mut post = async || {
        let reply = within(LIMIT, "an answer", gateway.post(&[reading(sent), reading(sent + 1)])).await;
        reply.expect_status(202);
        sent += 2;
    };
    for _ in 0..100 {
        post().await;
    }
    eventually("all are settled", || async { gateway.account("delivered").await == 200 }).await;
    assert_eq!(stored_once(&[&first, &second]), (0..200).collect::<Vec<_>>());
    assert!(first.requests() > 10 && second.requests() > 10, "{} {}", first.requests(), second.requests());

    let until = Instant::now() + LIMIT;
    while node_status(&gateway, &id).await["up"] == true {
        assert!(Instant::now() < until, "the dead node is found to be down");
        post().await;
    }
    let node = FakeNode::start_at(address).await;
    let until = Instant::now() + LIMIT;
    while node.stored().is_empty() {
        assert!(Instant::now() < until, "the node that came back is probed and gets readings");
        post().await;
    }
    eventually("it is up again", || async { node_status(&gateway, &id).await["up"] == true }).await;
}

#[tokio::test]
async fn a_node_that_failed_once_is_used_again_soon() {
    let failing = FakeNode::answering([Answer::status(500)]).await;
    // A good deal slower: once the failure is forgiven, the other node is the better choice.
    let slow = FakeNode::always(Answer::status(200).after(millis(100))).await;
    let gateway = TestGateway::new().node(&failing).node(&slow).set("batch.max_readings", 1).start().await;
    let mut index = 0;
    let until = Instant::now() + LIMIT;
    while failing.stored().len() < 5 {
        let tally = (failing.requests(), slow.requests());
        assert!(Instant::now() < until, "the node that failed once is used again: {tally:?}");
        gateway.post(&[reading(index)]).await.expect_status(202);
        eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        index += 1;
    }
}

#[tokio::test]
async fn a_node_that_hangs_does_not_hold_up_the_others() {
    let hanging = FakeNode::always(Answer::never()).await;
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&hanging)
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.timeout", NEVER)
        .set("cluster.max_in_flight", 4)
        .start()
        .await;
    gateway.post(&readings(300)).await.expect_status(202);
    // What the hanging node took stays with it; everything else goes past.
    eventually("the rest arrives", || async { node.count() + hanging.requests() == 300 }).await;
    assert!(hanging.requests() <= 4, "{}", hanging.requests());
    eventually("it is settled", || async { gateway.account("buffered").await == hanging.requests() as u64 })
        .await;
}

// Nodes that mean harm.

/// Puts a hostile node beside a good one: all readings must be delivered, in time and in bounded memory. The gateway is a
/// process of its own: in this one other tests use memory, too.
async fn check_hostile<F>(what: &str, serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let hostile = RawNode::start(serve).await;
    let node = FakeNode::start().await;
    let directory = directory();
    let process = Process::start(forebay(
        directory.path(),
        &["serve"],
        &[
            ("server.listen", "127.0.0.1:0"),
            ("buffer.kind", "memory"),
            ("cluster.nodes", &format!("{},{}", hostile.url(), node.url())),
            ("cluster.timeout", "200ms"),
            ("cluster.retry.initial", "5ms"),
            ("cluster.retry.max", "50ms"),
            ("cluster.health.probe", "20ms"),
            ("batch.max_readings", "1"),
        ],
    ));
    let gateway = process.gateway();
    let before = process.peak_memory();
    gateway.post(&readings(100)).await.expect_status(202);
    eventually(what, || async { gateway.account("buffered").await == 0 }).await;
    assert!(hostile.connections() > 0, "{what}");
    let reason = node_status(&gateway, &hostile.id()).await["reason"].to_string();
    assert!(reason.len() < 4096, "{what}: {} bytes of reason", reason.len());
    let grown = process.peak_memory() - before;
    assert!(grown < 128_000_000, "{what}: grew by {grown} bytes");
    process.terminate();
    process.ended().await;
}

async fn pour(stream: &mut tokio::net::TcpStream, piece: &[u8]) {
    while stream.write_all(piece).await.is_ok() {}
}

#[tokio::test]
async fn an_answer_without_an_end_does_not_hang_or_grow_the_gateway() {
    for status in ["200 OK", "500 Oops"] {
        check_hostile("an endless body", move |mut stream| async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let mut chunk = b"10000\r\n".to_vec();
            chunk.extend([b'x'; 0x10000]);
            chunk.extend(b"\r\n");
            pour(&mut stream, &chunk).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_is_read_only_so_far_however_much_time_there_is() {
    let node = RawNode::start(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        pour(&mut stream, b"4\r\nmore\r\n").await;
    })
    .await;
    let gateway = TestGateway::new().node_at(node.url()).set("cluster.timeout", NEVER).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    let settled = eventually("it is settled", || async { gateway.account("delivered").await == 3 });
    within(LIMIT, "the head says that the node has the batch", settled).await;
}

#[tokio::test]
async fn an_answer_that_drips_does_not_hang_the_gateway() {
    check_hostile("a dripping body", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 100000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn huge_heads_do_not_grow_the_gateway() {
    check_hostile("one endless header", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        pour(&mut stream, &[b'x'; 0x10000]).await;
    })
    .await;
    check_hostile("headers without end", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        pour(&mut stream, &b"x: y\r\n".repeat(1000)).await;
    })
    .await;
    check_hostile("interim answers without end", |mut stream| async move {
        read_head(&mut stream).await;
        pour(&mut stream, &b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_http_is_a_failure_like_any_other() {
    check_hostile("garbage", |mut stream| async move {
        let _ = stream.write_all(&[0xff; 300]).await;
        read_head(&mut stream).await;
    })
    .await;
    check_hostile("an empty answer", |mut stream| async move { read_head(&mut stream).await }).await;
    check_hostile("closing at once", |stream| async move { drop(stream) }).await;
    check_hostile("half a body", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nhalf").await;
    })
    .await;
}

// Keys and counts, whatever happens.

fn flaky(seed: u64) -> impl Iterator<Item = Answer> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..400).map(move |_| {
        let delay = millis(random.u64(..4));
        match random.u8(..10) {
            0 => Answer::status(503).after(delay),
            1 => Answer::status(500).after(delay),
            2 => Answer::status(429).header("retry-after", 0),
            3 => Answer::hang_up().after(delay),
            4 => Answer::status(404),
            5 => Answer::status(408),
            // Stored, and the gateway does not hear of it.
            6 if random.u8(..4) == 0 => Answer::status(200).after(millis(400)),
            _ => Answer::status(200).after(delay),
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_with_three_flaky_nodes_and_64_clients() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let nodes = [
        FakeNode::answering(flaky(seed)).await,
        FakeNode::answering(flaky(seed ^ 1)).await,
        FakeNode::answering(flaky(seed ^ 2)).await,
    ];
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let gateway = nodes.iter().fold(TestGateway::new(), |gateway, node| gateway.node(node));
    let gateway = gateway
        .set("batch.max_readings", 7)
        .set("cluster.timeout", "200ms")
        .set("cluster.compression", "zstd")
        .start()
        .await;
    let (clients, requests, size) = (64, 5, 5);
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let url = gateway.url("/v1/readings");
        tasks.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().expect("a client");
            for request in 0..requests {
                let first = (client * requests + request) * size;
                let body = support::to_ndjson(&(first..first + size).map(reading).collect::<Vec<_>>());
                let post = http.post(&url).header("content-type", "application/x-ndjson").body(body);
                assert_eq!(post.send().await.expect("an answer").status(), StatusCode::ACCEPTED);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the client ends well");
    }
    let all = (clients * requests * size) as u64;
    eventually("all are settled", || async { gateway.account("delivered").await == all }).await;
    assert_eq!(stored_once(&nodes), (0..all).collect::<Vec<_>>());
    assert_keys_carry_the_same(&received(&nodes));
    let keys: BTreeSet<_> = nodes.iter().flat_map(|node| node.received()).map(|batch| batch.key()).collect();
    let batches = gateway.metric("forebay_batch_readings_count").await.expect("batches");
    assert_eq!(keys.len(), batches as usize, "one key each");
}

#[tokio::test]
async fn two_gateways_have_no_key_in_common() {
    let node = FakeNode::start().await;
    for _ in 0..2 {
        let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
        gateway.post(&readings(10)).await.expect_status(202);
        assert_eq!(gateway.stop().await.undelivered, 0);
    }
    let keys: BTreeSet<_> = node.received().iter().map(ReceivedBatch::key).collect();
    assert_eq!(keys.len(), 20);
}

// Making room.

/// Waits until the node has said when to come again, and nothing is on its way.
async fn first_answer_has_come(gateway: &RunningGateway, node: &FakeNode) {
    eventually("the node has said when to come again", || async {
        node.requests() == 1 && node_status(gateway, &node.id()).await["in_flight"] == 0
    })
    .await;
}

#[tokio::test]
async fn what_came_in_for_dropped_readings_makes_room_for_the_next_that_waits() {
    let node = FakeNode::always(Answer::status(503).header("retry-after", 60)).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("buffer.max_readings", 10)
        .set("buffer.on_full", "drop_oldest")
        .set("server.shutdown_timeout", "1ms")
        .start()
        .await;
    gateway.post(&readings(10)).await.expect_status(202);
    first_answer_has_come(&gateway, &node).await;
    // Nothing is on its way any more: nobody has to wait, however many come at once.
    let requests: Vec<_> = (0..20).map(|_| readings(10)).collect();
    let posts = futures_util::future::join_all(requests.iter().map(|request| gateway.post(request)));
    for reply in within(LIMIT, "all are taken", posts).await {
        reply.expect_status(202);
    }
    assert_eq!((gateway.account("dropped").await, gateway.account("buffered").await), (200, 10));
}

#[tokio::test]
async fn a_batch_closes_in_time_although_its_oldest_readings_make_room() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("buffer.max_readings", 10)
        .set("buffer.on_full", "drop_oldest")
        .set("batch.max_age", "200ms")
        .start()
        .await;
    let until = Instant::now() + LIMIT;
    let mut index = 0;
    while node.count() == 0 {
        assert!(Instant::now() < until, "something is delivered while more and more comes in: {index}");
        let newest: Vec<_> = (index..index + 10).map(reading).collect();
        gateway.post(&newest).await.expect_status(202);
        index += 10;
    }
}

#[tokio::test]
async fn what_is_left_of_a_batch_goes_under_another_key_and_not_at_all_if_it_may_be_stored() {
    // A node that is busy has not stored the batch; one that fails inside may have.
    for (status, dropped) in [(503, 3), (500, 10)] {
        let node = FakeNode::answering([Answer::status(status).header("retry-after", 1)]).await;
        let gateway = TestGateway::new()
            .node(&node)
            .set("buffer.max_readings", 10)
            .set("buffer.on_full", "drop_oldest")
            .start()
            .await;
        gateway.post(&readings(10)).await.expect_status(202);
        first_answer_has_come(&gateway, &node).await;
        let newest: Vec<_> = (10..13).map(reading).collect();
        gateway.post(&newest).await.expect_status(202);
        assert_eq!(gateway.account("dropped").await, dropped, "{status}");
        eventually("the rest is settled", || async { gateway.account("buffered").await == 0 }).await;
        assert_eq!(stored_once(&[&node]), (dropped..13).collect::<Vec<_>>());
        let received = node.received();
        assert!(received[1..].iter().all(|batch| batch.key() != received[0].key()), "{status}");
    }
}
