//! What the gateway says about itself: health, readiness, state, metrics, the page, and the OpenAPI document.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::{Answer, FakeNode, Gate, Reply, RunningGateway, TestGateway, eventually, readings};

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

    /// The sum over all lines of a metric, whatever their labels; 0 if there are none.
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
    assert!(shown["latency_seconds"].as_f64().expect("a number") > 1.0, "a failure counts as a long request");
    let text = shown["last_error"]["text"].as_str().expect("an error");
    assert!(text.contains("401") && shown["reason"] == text, "{shown}");
    let metric =
        async |name: &str, id: &str| gateway.metric(&format!("forebay_node_{name}{{node=\"{id}\"}}")).await;
    assert_eq!(
        (metric("ejected", &bad.id()).await, metric("ejected", &good.id()).await),
        (Some(1.0), Some(0.0))
    );
    assert!(metric("latency_seconds", &bad.id()).await > Some(1.0));
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
async fn readyz_is_degraded_with_the_reason_when_every_node_is_down_and_readings_are_taken_all_the_same() {
    let (first, second) =
        (FakeNode::start().await, FakeNode::always(Answer::status(401).body("no key")).await);
    let (gone, wrong) = (first.id(), second.id());
    let gateway = gateway(&first).node(&second).set("cluster.health.failures", 2).start().await;
    let address = first.stop().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("both are down", || async { readiness(&gateway).await.0 == 503 }).await;
    let (_, body) = readiness(&gateway).await;
    assert_eq!(body["status"], "degraded");
    let reason = body["checks"]["nodes"]["reason"].as_str().expect("a reason");
    assert!(reason.contains(&gone) && reason.contains(&wrong) && reason.contains("401"), "{reason}");
    gateway.post(&readings(2)).await.expect_status(202);

    // One that is up is enough.
    let _first = FakeNode::start_at(address).await;
    eventually("it is ready again", || async { readiness(&gateway).await.0 == 200 }).await;
    eventually("all is delivered", || async { gateway.account("delivered").await == 5 }).await;
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
    // Those whose labels name transforms or group commits come with what they count.
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
async fn what_is_in_flight_and_how_old_the_oldest_is_can_be_seen() {
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

// The page and the document

#[tokio::test]
async fn the_page_shows_the_state_and_makes_harmless_what_nodes_said() {
    let node = FakeNode::always(Answer::status(401).body("<script>alert('\"&')</script>")).await;
    let url = node.url().replace("http://", "http://user:secret@");
    let gateway = TestGateway::new().node_at(url);
    let gateway = gateway.start().await;
    let page = |reply: Reply| {
        let reply = reply.expect_status(200);
        assert!(reply.header("content-type").starts_with("text/html"));
        reply.text()
    };
    assert!(page(gateway.get("/").await).contains(">ready<"));

    gateway.post(&readings(1234)).await.expect_status(202);
    eventually("the node is down", || async { readiness(&gateway).await.0 == 503 }).await;
    let html = page(gateway.get("/").await);
    assert!(html.contains(">degraded<") && html.contains("1,234") && html.contains("401"), "{html}");
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    assert!(!html.contains("secret"), "{html}");
    let status = gateway.get("/status").await.text();
    assert!(!status.contains("secret"), "{status}");
    assert!(!gateway.get("/metrics").await.text().contains("secret"));
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
    for status in ["202", "400", "408", "409", "413", "415", "422", "503"] {
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
        for status in ["204", "400", "408", "409", "413", "415", "422", "503"] {
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
