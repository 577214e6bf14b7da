//! The gateway's reports about itself: health, readiness, state, metrics, the page, and the OpenAPI document.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "numbers of a test are small"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    self, Answer, FakeNode, Gate, Reply, RunningGateway, TestGateway, eventually, node_status, readings,
};
use serde_json::{Value, json};

fn gateway(node: &FakeNode) -> TestGateway {
    TestGateway::new().node(node)
}

/// One answer of `/metrics`.
struct Metrics {
    text: String,
}

impl Metrics {
    async fn of(gateway: &RunningGateway) -> Metrics {
        let reply = gateway.get("/metrics").await.expect_status(200);
        assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
        Metrics { text: reply.text() }
    }

    /// The sum over all lines of a metric, whatever their labels; 0 without a line.
    fn sum(&self, name: &str) -> u64 {
        let number = |line: &str| {
            let rest = line.strip_prefix("forebay_")?.strip_prefix(name)?;
            let rest = rest.split_once('}').map_or(rest, |(_, rest)| rest);
            rest.starts_with(' ').then(|| rest.trim().parse::<f64>().expect("a number"))
        };
        self.text.lines().filter_map(number).sum::<f64>() as u64
    }

    /// The equation of the ledger.
    fn expect_balance(&self) {
        let came = ["accepted", "recovered", "derived"];
        let went = ["delivered", "dead_lettered", "filtered", "merged", "dropped"];
        let sum = |names: &[&str]| -> u64 {
            names.iter().map(|name| self.sum(&format!("readings_{name}_total"))).sum()
        };
        assert_eq!(sum(&came), sum(&went) + self.sum("buffer_readings"), "{}", self.text);
    }

    fn kind(&self, name: &str) -> Option<&str> {
        let prefix = format!("# TYPE {name} ");
        self.text.lines().find_map(|line| line.strip_prefix(&prefix))
    }

    fn has_line(&self, start: &str) -> bool {
        self.text.lines().any(|line| line.starts_with(start))
    }
}

async fn readiness(gateway: &RunningGateway) -> (u16, Value) {
    let reply = gateway.get("/readyz").await;
    (reply.status.as_u16(), reply.json())
}

// /healthz, /readyz

#[tokio::test]
async fn healthz_says_ok_while_the_process_serves_whatever_its_state() {
    let node = FakeNode::always(Answer::status(401)).await;
    let gateway = gateway(&node).set("buffer.max_readings", 1).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it is full or degraded", || async { readiness(&gateway).await.0 == 503 }).await;
    let reply = gateway.get("/healthz").await.expect_status(200);
    assert_eq!(reply.json(), json!({ "status": "ok" }));
    assert_eq!(reply.header("content-type"), "application/json");
}

#[tokio::test]
async fn readyz_is_ready_and_full_and_ready_again() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = gateway(&node).set("buffer.max_readings", 5).start().await;
    let (status, body) = readiness(&gateway).await;
    assert_eq!((status, &body["status"]), (200, &json!("ready")), "{body}");

    gateway.post(&readings(4)).await.expect_status(202);
    assert_eq!(readiness(&gateway).await.0, 200);
    gateway.post(&readings(1)).await.expect_status(202);
    let (status, body) = readiness(&gateway).await;
    assert_eq!((status, &body["status"]), (503, &json!("full")), "{body}");
    assert_eq!(body["checks"]["buffer"]["ok"], false);
    let reason = body["checks"]["buffer"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("5 readings of 5"), "{reason}");
    assert_eq!(body["checks"]["intake"], json!({ "ok": false, "reason": reason }));
    assert_eq!(gateway.metric(r#"forebay_ready{check="intake"}"#).await, Some(0.0));
    assert_eq!(gateway.metric(r#"forebay_ready{check="storage"}"#).await, Some(1.0));
    assert_eq!(body["checks"]["nodes"], json!({ "ok": true, "reason": null }));
    assert_eq!(body["checks"]["storage"], json!({ "ok": true, "reason": null }));

    gate.open();
    eventually("it is ready again", || async { readiness(&gateway).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_node_is_shown_with_its_breaker_and_its_last_error_also_after_it_has_recovered() {
    let bad = FakeNode::answering([Answer::status(401).body("no <such> token")]).await;
    let good = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&bad)
        .node(&good)
        .set("cluster.health.probe", "1500ms")
        .set("batch.max_readings", 1)
        .start()
        .await;
    let node = async |id: &str| {
        let status = gateway.get("/status").await.expect_status(200).json();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        nodes.into_iter().find(|node| node["id"] == id).expect("the node")
    };
    eventually("it is down", || async {
        gateway.post(&readings(1)).await.expect_status(202);
        node(&bad.id()).await["up"] == false
    })
    .await;
    let shown = node(&bad.id()).await;
    assert_eq!((&shown["breaker"], &shown["ejected"]), (&json!("open"), &json!(true)), "{shown}");
    let trial = shown["trial_in_seconds"].as_f64().expect("a trial");
    assert!((0.0..=1.5).contains(&trial), "{shown}");
    assert_eq!(shown["state"], "down", "{shown}");
    let is_measured = |seconds: Option<f64>| seconds.is_some_and(|seconds| seconds < 1.0);
    assert!(is_measured(shown["latency_seconds"].as_f64()), "what was measured, and no penalty: {shown}");
    let text = shown["last_error"]["text"].as_str().expect("an error");
    assert!(text.contains("401") && shown["reason"] == text, "{shown}");
    let metric =
        async |name: &str, id: &str| gateway.metric(&format!("forebay_node_{name}{{node=\"{id}\"}}")).await;
    assert_eq!(
        (metric("ejected", &bad.id()).await, metric("ejected", &good.id()).await),
        (Some(1.0), Some(0.0))
    );
    assert!(is_measured(metric("latency_seconds", &bad.id()).await));
    assert_eq!(
        (metric("failing", &bad.id()).await, metric("failing", &good.id()).await),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(metric("oldest_waiting_seconds", &bad.id()).await, Some(0.0));
    let page = gateway.get("/").await.expect_status(200).text();
    assert!(page.contains("breaker open, ejected, next trial in "), "{page}");
    assert!(page.contains("no &lt;such&gt; token") && !page.contains("<such>"), "{page}");

    eventually("it is up again", || async {
        gateway.post(&readings(1)).await.expect_status(202);
        node(&bad.id()).await["up"] == true
    })
    .await;
    let after = node(&bad.id()).await;
    assert_eq!(
        (&after["breaker"], &after["ejected"], &after["reason"]),
        (&json!("closed"), &json!(false), &json!(null))
    );
    assert_eq!(after["last_error"]["text"], text, "{after}");
    let at = after["last_error"]["at"].as_str().expect("an instant");
    let at: jiff::Timestamp = at.parse().expect("RFC 3339");
    assert!(jiff::Timestamp::now().duration_since(at).as_secs() < 60, "{at}");
}

#[tokio::test]
async fn a_node_is_failing_from_its_first_failure_on_until_a_success_and_its_latency_is_measured_or_unknown()
{
    let first = FakeNode::start().await;
    let id = first.id();
    let gateway = gateway(&first)
        .set("cluster.health.failures", 1000)
        .set("cluster.health.failure_ratio", 1.0)
        .set("batch.max_readings", 1)
        .start()
        .await;
    let node = || node_status(&gateway, &id);
    let metric = async |name: &str| gateway.metric(&format!("forebay_node_{name}{{node=\"{id}\"}}")).await;
    let page = async || gateway.get("/").await.expect_status(200).text();
    let shown = node().await;
    assert_eq!(
        (&shown["state"], &shown["up"], &shown["latency_seconds"]),
        (&json!("up"), &json!(true), &json!(null))
    );
    assert_eq!((metric("failing").await, metric("latency_seconds").await), (Some(0.0), None));
    assert!(page().await.contains("<td>–</td>"), "an unknown latency is no number");

    let address = first.stop().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it is failing", || async { node().await["state"] == "failing" }).await;
    let shown = node().await;
    assert_eq!((&shown["up"], &shown["latency_seconds"]), (&json!(true), &json!(null)), "{shown}");
    assert!(shown["reason"].as_str().expect("a reason").to_lowercase().contains("refused"), "{shown}");
    assert_eq!((metric("failing").await, metric("up").await), (Some(1.0), Some(1.0)));
    assert_eq!(metric("latency_seconds").await, None);
    assert!(page().await.contains("<span class=\"failing\">failing</span>"));

    let _again = FakeNode::start_at(address).await;
    eventually("it is up", || async { node().await["state"] == "up" }).await;
    let shown = node().await;
    assert!(shown["latency_seconds"].as_f64().is_some_and(|seconds| seconds < 5.0), "{shown}");
    assert_eq!(metric("failing").await, Some(0.0));
}

#[tokio::test]
async fn readyz_is_degraded_and_200_while_no_node_is_up_because_readings_are_taken() {
    let (first, second) =
        (FakeNode::start().await, FakeNode::always(Answer::status(401).body("no key")).await);
    let (gone, wrong) = (first.id(), second.id());
    let gateway = gateway(&first).node(&second).set("cluster.health.failures", 2).start().await;
    let address = first.stop().await;
    let checked = async || gateway.metric(r#"forebay_ready{check="nodes"}"#).await;
    assert_eq!(checked().await, Some(1.0));
    gateway.get("/readyz?require=nodes").await.expect_status(200);
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("both are down", || async { readiness(&gateway).await.1["status"] == "degraded" }).await;
    let (status, body) = readiness(&gateway).await;
    assert_eq!((status, &body["checks"]["intake"]["ok"]), (200, &json!(true)), "{body}");
    let reason = body["checks"]["nodes"]["reason"].as_str().expect("a reason");
    assert!(reason.contains(&gone) && reason.contains(&wrong) && reason.contains("401"), "{reason}");
    let required = gateway.get("/readyz?require=nodes").await.expect_status(503).json();
    assert_eq!((&required["status"], checked().await), (&json!("degraded"), Some(0.0)));
    let detail = gateway.get("/readyz?require=node").await.expect_problem(400).detail();
    assert!(detail.contains("`node`") && detail.contains("allowed: nodes"), "{detail}");
    gateway.post(&readings(2)).await.expect_status(202);

    // One node that is up is enough.
    let _first = FakeNode::start_at(address).await;
    eventually("it is ready again", || async { readiness(&gateway).await.1["status"] == "ready" }).await;
    gateway.get("/readyz?require=nodes").await.expect_status(200);
    eventually("all is delivered", || async { gateway.account("delivered").await == 5 }).await;
}

#[tokio::test]
async fn readyz_is_not_full_where_the_oldest_readings_make_room() {
    let node = FakeNode::always(Answer::status(503)).await;
    let gateway = gateway(&node).set("buffer.max_readings", 5).set("buffer.on_full", "drop_oldest");
    let gateway = gateway.set("cluster.retry.initial", "1s").set("cluster.retry.max", "2s").start().await;
    for _ in 0..3 {
        gateway.post(&readings(5)).await.expect_status(202);
        let (status, body) = readiness(&gateway).await;
        assert_eq!((status, &body["checks"]["intake"]["ok"]), (200, &json!(true)), "{body}");
    }
}

#[tokio::test]
async fn readyz_says_draining_and_posts_get_503_while_a_stop_delivers() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = gateway(&node).start().await;
    let other = gateway.handle();
    gateway.post(&readings(3)).await.expect_status(202);
    let stop = tokio::spawn(gateway.stop());
    eventually("it is draining", || async { other.get("/readyz").await.status == 503 }).await;
    let (_, body) = readiness(&other).await;
    assert_eq!((&body["status"], &body["checks"]["intake"]["ok"]), (&json!("draining"), &json!(false)));
    let reply = other.post(&readings(1)).await.expect_problem(503);
    let seconds: u64 = reply.header("retry-after").parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    other.get("/healthz").await.expect_status(200);
    assert_eq!(other.account("accepted").await, 3);
    gate.open();
    assert_eq!(stop.await.expect("it stops").undelivered, 0);
    assert_eq!(node.count(), 3);
}

// /status and /metrics

#[tokio::test]
async fn status_and_metrics_show_the_same_accounts() {
    let node = FakeNode::answering([503, 200, 200].map(Answer::status)).await;
    let gateway = gateway(&node).start().await;
    gateway.post(&readings(7)).await.expect_status(202);
    let ndjson = support::to_ndjson(&readings(5));
    gateway.post_body("application/x-ndjson", ndjson).await.expect_status(202);
    gateway.post_body("application/json", "{}").await.expect_status(422);
    eventually("all is delivered", || async { gateway.account("delivered").await == 12 }).await;

    let status = gateway.get("/status").await.expect_status(200).json();
    let metrics = Metrics::of(&gateway).await;
    metrics.expect_balance();
    for (account, metric) in [
        ("accepted", "readings_accepted_total"),
        ("recovered", "readings_recovered_total"),
        ("derived", "readings_derived_total"),
        ("delivered", "readings_delivered_total"),
        ("dead_lettered", "readings_dead_lettered_total"),
        ("filtered", "readings_filtered_total"),
        ("merged", "readings_merged_total"),
        ("dropped", "readings_dropped_total"),
        ("buffered", "buffer_readings"),
    ] {
        assert_eq!(status["ledger"][account], metrics.sum(metric), "{account}");
    }
    assert_eq!(gateway.metric(r#"forebay_readings_accepted_total{format="json"}"#).await, Some(7.0));
    assert_eq!(gateway.metric(r#"forebay_readings_accepted_total{format="ndjson"}"#).await, Some(5.0));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["buffer"]["bytes"], 0);
    assert!(status["buffer"]["trouble"].is_null());
    assert_eq!(status["nodes"][0]["id"], node.id());
    assert_eq!(status["nodes"][0]["delivered"], 12);
    assert_eq!(status["nodes"][0]["up"], true);
}

#[tokio::test]
async fn the_accounts_add_up_in_every_answer_while_load_runs() {
    let nodes = [FakeNode::start().await, FakeNode::answering([503, 500, 503].map(Answer::status)).await];
    let gateway = gateway(&nodes[0]).node(&nodes[1]).set("buffer.max_readings", 300);
    let gateway = gateway.set("buffer.on_full", "drop_oldest").set("batch.max_readings", 7).start().await;
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=4)
        .map(|size| {
            let (gateway, done) = (gateway.handle(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut accepted = 0;
                while !done.load(Ordering::Relaxed) {
                    let reply = gateway.post(&readings(size * 30)).await;
                    accepted += if reply.status == 202 { size * 30 } else { 0 };
                }
                accepted as u64
            })
        })
        .collect();
    let mut highest = (0, 0);
    for _ in 0..100 {
        let ledger = gateway.ledger().await;
        let metrics = Metrics::of(&gateway).await;
        metrics.expect_balance();
        let now = (ledger["accepted"].as_u64().expect("a number"), metrics.sum("readings_accepted_total"));
        assert!(highest.1 <= now.0 && now.0 <= now.1, "{highest:?} {now:?}: counters only grow");
        assert!(ledger["buffered"].as_u64() <= Some(300) && metrics.sum("buffer_readings") <= 300);
        highest = now;
    }
    done.store(true, Ordering::Relaxed);
    let mut accepted = 0;
    for client in clients {
        accepted += client.await.expect("a client that is served");
    }
    assert!(accepted > 1000, "there was load: {accepted}");
    eventually("all is settled", || async { gateway.account("buffered").await == 0 }).await;
    assert_eq!(gateway.account("accepted").await, accepted);
    let arrived = nodes.iter().map(FakeNode::count).sum::<usize>() as u64;
    assert_eq!(gateway.account("delivered").await, arrived);
    assert_eq!(Metrics::of(&gateway).await.sum("readings_delivered_total"), arrived);
}

#[tokio::test]
async fn every_metric_of_the_contract_is_there_with_its_type() {
    let node = FakeNode::answering([503].map(Answer::status)).await;
    let gateway = gateway(&node).start().await;
    gateway.post(&[readings(3), vec![json!({})]].concat()).await.expect_status(202);
    eventually("they are delivered", || async { gateway.account("delivered").await == 3 }).await;
    let metrics = Metrics::of(&gateway).await;
    // Metrics with labels for transforms or group commits appear with the first count.
    for (name, kind, line) in [
        ("readings_accepted_total", "counter", r#"{format="json"} 3"#),
        ("readings_recovered_total", "counter", " 0"),
        ("readings_rejected_total", "counter", r#"{reason="field"} 1"#),
        ("readings_delivered_total", "counter", &format!(r#"{{node="{}"}} 3"#, node.id())),
        ("readings_dropped_total", "counter", r#"{reason="full"} 0"#),
        ("readings_dead_lettered_total", "counter", r#"{reason="damaged"} 0"#),
        ("buffer_readings", "gauge", " 0"),
        ("buffer_bytes", "gauge", " 0"),
        ("buffer_limit_readings", "gauge", " 10000000"),
        ("buffer_limit_bytes", "gauge", " 1073741824"),
        ("buffer_oldest_seconds", "gauge", " "),
        ("batches_total", "counter", &format!(r#"{{node="{}",outcome="delivered"}} 1"#, node.id())),
        ("batch_readings", "histogram", "_bucket{le="),
        ("batch_bytes", "histogram", "_count 1"),
        ("delivery_seconds", "histogram", &format!(r#"_count{{node="{}"}} 2"#, node.id())),
        ("node_up", "gauge", &format!(r#"{{node="{}"}} 1"#, node.id())),
        ("node_in_flight", "gauge", &format!(r#"{{node="{}"}} 0"#, node.id())),
        ("node_in_flight_limit", "gauge", &format!(r#"{{node="{}"}} "#, node.id())),
        ("retries_total", "counter", &format!(r#"{{node="{}",reason="busy"}} 1"#, node.id())),
        ("http_requests_total", "counter", r#"{path="/v1/readings",status="202"} 1"#),
        ("http_request_seconds", "histogram", r#"_count{path="/v1/readings"} 1"#),
        ("requests_refused_total", "counter", r#"{reason="body"} 0"#),
        ("connections", "gauge", " "),
        ("ready", "gauge", r#"{check="dead_letters"} 1"#),
        ("dead_letters", "gauge", " 0"),
        ("dead_letter_bytes", "gauge", " 0"),
        ("disk_free_bytes", "gauge", r#"{directory="#),
        ("build_info", "gauge", &format!(r#"{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(metrics.kind(&format!("forebay_{name}")), Some(kind), "{name}");
        assert!(metrics.has_line(&format!("forebay_{name}{line}")), "{name}{line} in\n{}", metrics.text);
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(metrics.kind(name).is_some(), "{name}");
    }
    let mut families = BTreeMap::new();
    for line in metrics.text.lines().filter(|line| line.starts_with("# TYPE ")) {
        *families.entry(line).or_insert(0) += 1;
    }
    assert!(families.values().all(|count| *count == 1), "{families:?}");
}

#[tokio::test]
async fn no_label_comes_from_a_request() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    gateway
        .post(&[json!({"device":"very-own-name","sensor":"very-own-name","value":1})])
        .await
        .expect_status(202);
    gateway.get("/very-own-name").await.expect_status(404);
    gateway.post_body("very/own-name", "{}").await.expect_status(415);
    eventually("it is delivered", || async { gateway.account("delivered").await == 1 }).await;
    let metrics = Metrics::of(&gateway).await;
    assert!(!metrics.text.contains("own-name"), "{}", metrics.text);
    assert!(
        metrics.has_line(r#"forebay_http_requests_total{path="other",status="404"} 1"#),
        "{}",
        metrics.text
    );
}

#[tokio::test]
async fn node_up_goes_to_0_and_to_1_again() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).set("cluster.health.failures", 3).start().await;
    let up = format!(r#"forebay_node_up{{node="{}"}}"#, node.id());
    assert_eq!(gateway.metric(&up).await, Some(1.0));
    node.answer_otherwise(Answer::status(500).body("out of sorts"));
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it is down", || async { gateway.metric(&up).await == Some(0.0) }).await;
    let status = gateway.get("/status").await.json();
    assert_eq!(status["nodes"][0]["up"], false);
    let reason = status["nodes"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("500") && reason.contains("out of sorts"), "{reason}");
    assert!(status["buffer"]["oldest_seconds"].as_f64() > Some(0.0), "{status}");

    node.answer_otherwise(Answer::status(200));
    eventually("it is up again", || async { gateway.metric(&up).await == Some(1.0) }).await;
    assert_eq!(gateway.get("/status").await.json()["nodes"][0]["reason"], Value::Null);
}

#[tokio::test]
async fn batches_in_flight_and_the_age_of_the_oldest_reading_are_shown() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = gateway(&node).set("batch.max_readings", 2).set("cluster.max_in_flight", 3).start().await;
    gateway.post(&readings(10)).await.expect_status(202);
    eventually("three batches are on their way", || async { node.received().len() == 3 }).await;
    let status = gateway.get("/status").await.json();
    assert_eq!(status["nodes"][0]["in_flight"], 3, "{status}");
    assert_eq!(status["nodes"][0]["in_flight_limit"], 3);
    let before = gateway.metric("forebay_buffer_oldest_seconds").await;
    eventually("the oldest grows older", || async {
        gateway.metric("forebay_buffer_oldest_seconds").await > before
    })
    .await;
    gate.open();
    eventually("nothing is left", || async { gateway.account("buffered").await == 0 }).await;
    eventually("nothing is old", || async {
        gateway.metric("forebay_buffer_oldest_seconds").await == Some(0.0)
    })
    .await;
}

#[tokio::test]
async fn open_connections_are_counted() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let connections = async || gateway.metric("forebay_connections").await.expect("a number");
    let before = connections().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(gateway.raw().await);
    }
    eventually("they are counted", || async { connections().await == before + 3.0 }).await;
    drop(clients);
    eventually("they are not counted any more", || async { connections().await == before }).await;
}

#[tokio::test]
async fn waiting_dead_letters_are_counted_even_when_others_change_the_files() {
    let place = support::process::directory();
    let node = FakeNode::always(Answer::status(422).body("no")).await;
    let letters = place.path().join("dead-letters");
    std::fs::create_dir(&letters).expect("made");
    std::fs::write(letters.join("00000001.ndjson"), "{\"of\":\"an earlier run\"}\n").expect("written");
    let gateway = gateway(&node).on_disk(place.path()).start().await;
    let waiting = async || {
        let numbers = ["forebay_dead_letters", "forebay_dead_letter_bytes"];
        (gateway.metric(numbers[0]).await, gateway.metric(numbers[1]).await)
    };
    assert_eq!(waiting().await, (Some(1.0), Some(24.0)));
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("they are set aside", || async { gateway.account("dead_lettered").await == 3 }).await;
    assert_eq!(waiting().await.0, Some(4.0));
    std::fs::remove_file(letters.join("00000001.ndjson")).expect("removed");
    assert_eq!(waiting().await, (Some(0.0), Some(0.0)));
    for directory in ["buffer", "dead-letters"] {
        let directory = place.path().join(directory);
        let name = format!("forebay_disk_free_bytes{{directory=\"{}\"}}", directory.display());
        assert!(gateway.metric(&name).await > Some(0.0), "{name}");
    }
}

// Rejections

/// The rejections, the newest first.
async fn rejections(gateway: &RunningGateway) -> Vec<Value> {
    let answer = gateway.get("/status/rejections").await.expect_status(200).json();
    answer["rejections"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn each_rejected_reading_is_shown_with_its_device_its_reason_and_its_text() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    assert_eq!(rejections(&gateway).await, Vec::<Value>::new());
    let good = r#"{"device":"good","sensor":"s","value":1}"#;
    let bad = r#"{"device":"pump-13","sensor":"s","value":null}"#;
    let unknown = r#"{"device":"pump-14","sensor":"s","valeu":2}"#;
    let record = r#"{"n":"t","v":"x"}"#;
    let cases = [
        ("/v1/readings", "application/json", bad.to_owned(), "pump-13", bad),
        ("/v1/readings", "application/json", format!("[{good}, {unknown} ]"), "pump-14", unknown),
        ("/v1/readings", "application/x-ndjson", format!("\n{good}\n\n{bad}\n"), "pump-13", bad),
        (
            "/v1/readings",
            "application/senml+json",
            format!(r#"[{{"bn":"urn:dev:mac:7:","n":"t","v":1}},{record}]"#),
            "urn:dev:mac:7",
            record,
        ),
        (
            "/write",
            "text/plain",
            "m,device=a v=1\nm,device=pump-15 v=x".to_owned(),
            "pump-15",
            "m,device=pump-15 v=x",
        ),
        ("/api/v2/write", "text/plain", "m,host=pump-16 v=".to_owned(), "pump-16", "m,host=pump-16 v="),
    ];
    for (path, content_type, body, device, sample) in cases {
        let request = gateway.request(path).header("content-type", content_type).body(body.clone());
        gateway.send(request).await;
        let newest = rejections(&gateway).await.swap_remove(0);
        assert_eq!((&newest["path"], &newest["address"]), (&json!(path), &json!("127.0.0.1")), "{newest}");
        assert_eq!((&newest["device"], &newest["sample"]), (&json!(device), &json!(sample)), "{body}");
        assert_eq!(newest["key"], Value::Null);
        let reason = newest["reason"].as_str().expect("a reason");
        let counted = format!("forebay_readings_rejected_total{{reason=\"{reason}\"}}");
        assert!(gateway.metric(&counted).await > Some(0.0), "{reason}");
        assert!(newest["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{newest}");
        let at: jiff::Timestamp = newest["at"].as_str().expect("an instant").parse().expect("RFC 3339");
        assert!(jiff::Timestamp::now().duration_since(at).as_secs() < 60, "{newest}");
    }
    assert_eq!(rejections(&gateway).await.len(), 6);
}

#[tokio::test]
async fn rejections_of_compressed_bodies_and_of_other_decoders_are_shown_alike() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let bad = json!({ "device": "pump-13", "sensor": "s" });
    let many = [readings(2000), vec![bad.clone()]].concat();
    gateway.post(&many).await.expect_status(202);
    let zipped = support::compression::gzip(&support::to_json(std::slice::from_ref(&bad)));
    let request = gateway.request("/v1/readings").header("content-encoding", "gzip").body(zipped);
    gateway.send(request).await.expect_status(422);
    let told = rejections(&gateway).await;
    assert_eq!(told.len(), 2);
    for entry in told {
        assert_eq!(
            (&entry["device"], &entry["sample"]),
            (&json!("pump-13"), &json!(bad.to_string())),
            "{entry}"
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table of reasons")]
async fn a_request_refused_as_a_whole_is_shown_and_counted_under_its_reason() {
    let node = FakeNode::always(Answer::status(503)).await;
    let gateway = gateway(&node).set("buffer.max_readings", 5).set("server.max_body", "4KiB");
    let gateway = gateway.set("server.request_timeout", "200ms").start().await;
    let counted = async |reason: &str| {
        gateway.metric(&format!("forebay_requests_refused_total{{reason=\"{reason}\"}}")).await
    };
    let post = |content_type: &str, body: &str| {
        gateway.request("/v1/readings").header("content-type", content_type.to_owned()).body(body.to_owned())
    };
    let asking = |query: &str, body: &str| {
        let path = format!("/v1/readings?{query}");
        gateway.request(&path).header("content-type", "application/json").body(body.to_owned())
    };
    let reading = r#"{"device":"pump-13","sensor":"s","value":1}"#;
    let long = format!("[\"{}\"]", "x".repeat(5000));
    let cases = [
        (
            post("application/json", "{\"device\":\"pump-13\", no"),
            400,
            "body",
            json!("{\"device\":\"pump-13\", no"),
        ),
        (post("application/json", &long), 413, "too_large", Value::Null),
        (post("text/csv", reading), 415, "media_type", Value::Null),
        (post("application/json", reading).header("content-encoding", "br"), 415, "encoding", Value::Null),
        (post("application/json", "x").header("content-encoding", "gzip"), 400, "body", json!("x")),
        (asking("ack=disk", reading), 422, "ack", Value::Null),
        (asking("precision=h", reading), 400, "query", Value::Null),
        (
            post("application/json", reading).header("idempotency-key", "\"a"),
            400,
            "idempotency_key",
            Value::Null,
        ),
        (gateway.request("/v1/reading").body(reading), 404, "not_found", Value::Null),
        (gateway.request("/status").body(reading), 405, "method", Value::Null),
    ];
    for (number, (request, status, reason, sample)) in cases.into_iter().enumerate() {
        let before = counted(reason).await.expect("every reason is shown from the start");
        gateway.send(request).await.expect_status(status);
        assert_eq!(counted(reason).await, Some(before + 1.0), "{reason}");
        let told = rejections(&gateway).await;
        assert_eq!(told.len(), number + 1, "{told:?}");
        let newest = &told[0];
        assert_eq!((&newest["reason"], &newest["sample"]), (&json!(reason), &sample), "{newest}");
        assert_eq!(newest["address"], "127.0.0.1", "{newest}");
    }
    let mut slow = gateway.raw().await;
    slow.send(&support::post_head("Content-Length: 9\r\n")).await;
    eventually("it is too slow", || async { counted("too_slow").await == Some(1.0) }).await;
    assert_eq!(rejections(&gateway).await[0]["reason"], "too_slow");
    gateway.post(&readings(5)).await.expect_status(202);
    gateway.post_body("application/json", reading).await.expect_status(503);
    let full = &rejections(&gateway).await[0];
    assert_eq!((&full["reason"], &full["device"]), (&json!("full"), &json!("pump-13")), "{full}");
    assert_eq!((counted("full").await, &full["sample"]), (Some(1.0), &json!(reading)));
    let large = format!("GET / HTTP/1.1\r\nHost: forebay\r\nX-Large: {}\r\n\r\n", "x".repeat(40_000));
    for (number, (head, detail)) in
        [("no request at all\r\n\r\n", "HTTP"), (&large, "too large")].iter().enumerate()
    {
        let mut client = gateway.raw().await;
        client.try_send(head).await;
        eventually("it is counted", || async { counted("head").await == Some(number as f64 + 1.0) }).await;
        let newest = &rejections(&gateway).await[0];
        assert_eq!((&newest["reason"], &newest["path"]), (&json!("head"), &json!("")), "{newest}");
        assert!(newest["detail"].as_str().is_some_and(|text| text.contains(detail)), "{newest}");
    }
    // A path that does not exist is not the request of a device.
    gateway.get("/favicon.ico").await.expect_status(404);
    assert_eq!(rejections(&gateway).await[0]["reason"], "head");
}

#[tokio::test]
async fn at_most_ten_rejections_of_a_request_and_the_last_two_hundred_of_all_are_shown() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let bad = |number: usize| json!({ "device": format!("d{number}"), "sensor": "s" });
    gateway.post(&(0..150).map(bad).collect::<Vec<_>>()).await.expect_status(422);
    let told = rejections(&gateway).await;
    let devices: Vec<_> = told.iter().map(|entry| entry["device"].as_str().expect("a device")).collect();
    assert_eq!(devices, (0..10).rev().map(|number| format!("d{number}")).collect::<Vec<_>>());
    for number in 0..210 {
        gateway.post(&[bad(1000 + number)]).await.expect_status(422);
    }
    let told = rejections(&gateway).await;
    assert_eq!(
        (told.len(), &told[0]["device"], &told[199]["device"]),
        (200, &json!("d1209"), &json!("d1010"))
    );
}

#[tokio::test]
async fn shown_rejections_have_no_secret_and_no_control_character() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let request =
        gateway.request("/write?db=x&u=me&p=s3cret&precision=y").header("authorization", "Token s3cret");
    gateway.send(request.body("m v=1")).await.expect_status(400);
    let request =
        gateway.request("/write?p=s3cret").body("m,device=a\u{1b}[31m\u{202e} v=x\u{9b},token=\"s3cret\"");
    gateway.send(request).await.expect_status(400);
    gateway.send(gateway.request("/nowhere?p=s3cret").body("x")).await.expect_status(404);
    let body = b"\xff\xfe\x00{\"password\":\"s3cret\"}".to_vec();
    gateway.post_body("application/json", body).await.expect_status(400);
    let answer = gateway.get("/status/rejections").await.text();
    assert!(!answer.contains("s3cret") && !answer.contains("db="), "{answer}");
    let line = answer.trim_end();
    assert!(!line.chars().any(|character| character.is_control() || character == '\u{202e}'), "{answer}");
    assert_eq!(rejections(&gateway).await.len(), 4, "{answer}");
}

#[tokio::test]
async fn shown_rejections_have_no_secret_of_the_settings_wherever_a_client_repeats_it() {
    let node = FakeNode::start().await;
    let url = node.url().replace("http://", "http://me:Zebra-Pass@") + "?sig=Quagga-Parameter";
    let gateway = TestGateway::new().node_at(url).set("cluster.headers.x-scope", "Okapi-Header-Value");
    let gateway = gateway.start().await;
    for secret in ["Zebra-Pass", "Quagga-Parameter", "Okapi-Header-Value", "okapi%2Dheader%2Dvalue"] {
        for device in [secret.to_owned(), format!("a {secret} b")] {
            gateway.post(&[json!({"device": device, "sensor": "s", "value": []})]).await.expect_status(422);
        }
        let line = format!("m,device=d x={secret}");
        gateway.send(gateway.request("/write").body(line)).await.expect_status(400);
        let long = format!("m,device=d,y={} x=\"{secret}\"", "y".repeat(200 - 19 - secret.len() / 2));
        gateway.send(gateway.request("/write").body(format!("{long} z"))).await.expect_status(400);
    }
    let told = rejections(&gateway).await;
    assert_eq!(told.len(), 16, "{told:?}");
    assert_eq!((&told[3]["device"], &told[2]["device"]), (&json!("***"), &json!("a *** b")), "{told:?}");
    let text = json!(told).to_string().to_lowercase();
    for part in ["zebr", "quag", "okap"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

// The page and the document

#[tokio::test]
async fn the_page_shows_the_state_and_escapes_texts_of_nodes() {
    let node = FakeNode::always(Answer::status(401).body("<script>alert('\"&')</script>")).await;
    let url = node.url().replace("http://", "http://user:secret@");
    let gateway = TestGateway::new().node_at(url);
    let gateway = gateway.start().await;
    let page = |reply: Reply| {
        let reply = reply.expect_status(200);
        assert!(reply.header("content-type").starts_with("text/html"));
        let policy = reply.header("content-security-policy").to_owned();
        for directive in ["default-src 'none'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(!policy.contains("unsafe-inline") && !policy.contains('*'), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        let html = reply.text();
        // The policy would make inline ones do nothing.
        for inline in ["<style", "style=", "<script", "onclick", "src=", "href=\"http"] {
            assert!(!html.contains(inline), "{inline} in {html}");
        }
        html
    };
    assert!(page(gateway.get("/").await).contains(">ready<"));
    let style = gateway.get("/page.css").await.expect_status(200);
    assert!(style.header("content-type").starts_with("text/css") && style.text().contains(".ready"));

    gateway.post(&readings(1234)).await.expect_status(202);
    eventually("the node is down", || async { readiness(&gateway).await.1["status"] == "degraded" }).await;
    let html = page(gateway.get("/").await);
    assert!(html.contains(">degraded<") && html.contains("1,234") && html.contains("401"), "{html}");
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    assert!(!html.contains("secret"), "{html}");
    let status = gateway.get("/status").await.text();
    assert!(!status.contains("secret"), "{status}");
    assert!(!gateway.get("/metrics").await.text().contains("secret"));
}

#[tokio::test]
async fn every_json_answer_ends_with_a_line_feed_and_no_browser_guesses_its_type() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let mut replies =
        vec![gateway.post(&readings(1)).await, gateway.post_body("application/json", "{").await];
    replies.push(gateway.post_body("text/plain", "x").await);
    for path in
        ["/healthz", "/readyz", "/status", "/openapi.json", "/health", "/query", "/nowhere", "/v1/readings"]
    {
        replies.push(gateway.get(path).await);
    }
    for path in ["/write", "/api/v2/write"] {
        replies.push(gateway.send(gateway.request(path).body("m,host=h")).await);
    }
    for reply in replies {
        let text = reply.text();
        assert!(text.ends_with("}\n") && !text.ends_with("\n\n"), "{text:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{text}");
    }
    assert_eq!(gateway.get("/metrics").await.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn openapi_is_3_1_and_has_every_path_with_its_answers() {
    let node = FakeNode::start().await;
    let gateway = gateway(&node).start().await;
    let reply = gateway.get("/openapi.json").await.expect_status(200);
    assert_eq!(reply.header("content-type"), "application/json");
    let document = reply.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    for path in ["/", "/healthz", "/readyz", "/metrics", "/status", "/openapi.json"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    let post = &document["paths"]["/v1/readings"]["post"];
    for status in ["202", "400", "403", "408", "409", "411", "413", "415", "422", "503"] {
        assert!(post["responses"][status].is_object(), "{status}");
    }
    for media_type in ["application/json", "application/x-ndjson", "application/jsonl"] {
        assert!(post["requestBody"]["content"][media_type].is_object(), "{media_type}");
    }
    let parameters = post["parameters"].as_array().expect("parameters");
    for name in ["strict", "ack", "precision"] {
        assert!(parameters.iter().any(|parameter| parameter["name"] == name), "{name}");
    }
    let key = parameters.iter().find(|parameter| parameter["name"] == "Idempotency-Key");
    assert!(key.is_some_and(|key| key["in"] == "header" && key["required"] != true), "{parameters:?}");
    for path in ["/write", "/api/v2/write"] {
        let post = &document["paths"][path]["post"];
        for status in ["204", "400", "403", "408", "409", "411", "413", "415", "422", "503"] {
            assert!(post["responses"][status].is_object(), "{path}: {status}");
        }
        assert!(post["requestBody"]["content"]["text/plain"].is_object(), "{path}");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a pointer");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
