//! The promises of the binary: how it starts, stops, and reports faults.

#![expect(clippy::disallowed_types, reason = "processes take real time")]

mod commands;
mod hope;
mod log;
mod settings;
mod signals;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::process::{Finished, Process, directory, forebay, run};
use crate::support::{Answer, FakeNode, Gate, eventually, readings, to_json, to_ndjson};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

const ANY_PORT: (&str, &str) = ("server.listen", "127.0.0.1:0");
const MEMORY: (&str, &str) = ("buffer.kind", "memory");
const DISK: (&str, &str) = ("buffer.kind", "disk");
/// An end at once takes less than this, however busy the machine is; an end by time-out takes longer.
const SOON: Duration = Duration::from_secs(12);
const CSV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/household_power.csv");

/// `forebay serve` with a buffer in memory, unless a setting says otherwise, and batches to these nodes.
fn serve(directory: &Path, nodes: &str, settings: &[(&str, &str)]) -> Process {
    let settings = [&[ANY_PORT, ("cluster.nodes", nodes), MEMORY], settings].concat();
    Process::start(forebay(directory, &["serve"], &settings))
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Runs the binary in a directory of its own.
fn forebay_says(arguments: &[&str], settings: &[(&str, &str)]) -> Finished {
    run(forebay(directory().path(), arguments, settings))
}

async fn get_json(url: &str) -> Value {
    let client = forebay_load::client::builder().build().expect("a client");
    let text = client.get(url).send().await.expect("an answer").text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// How many lines of the log have this in them.
fn lines(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

/// The first line with this in it, which must come.
async fn line(process: &Process, text: &str) -> String {
    eventually(text, || async { lines(&process.log(), text) > 0 }).await;
    process.log().lines().find(|line| line.contains(text)).expect("it came").to_owned()
}

// serve

#[tokio::test]
async fn forebay_alone_serves_with_a_node_of_its_own_that_keeps_the_readings() {
    let directory = directory();
    for round in 1..=2 {
        let process = Process::start(forebay(directory.path(), &[], &[ANY_PORT, ("batch.max_age", "10ms")]));
        let gateway = process.gateway();
        gateway.post(&readings(30)).await.expect_status(202);
        eventually("they are delivered", || async { gateway.account("delivered").await == 30 }).await;
        let status = gateway.get("/status").await.json();
        let node = status["nodes"][0]["url"].as_str().expect("an address").to_owned();
        let count = get_json(&node.replace("/v1/batches", "/v1/count")).await;
        assert_eq!(count, json!({ "count": 30 * round }));
        process.terminate();
        let ended = process.ended().await.expect_status(0);
        assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    }
    assert!(directory.path().join("data/node/readings.db").is_file());
    assert!(directory.path().join("data/buffer/checkpoint-a").is_file());
}

#[tokio::test]
async fn the_last_readings_of_a_gateway_with_a_node_of_its_own_are_at_its_own_port() {
    let directory = directory();
    let process = Process::start(forebay(directory.path(), &[], &[ANY_PORT, ("batch.max_age", "10ms")]));
    let gateway = process.gateway();
    let readings = readings(30);
    gateway.post(&readings).await.expect_status(202);
    eventually("they are delivered", || async { gateway.account("delivered").await == 30 }).await;
    let newest_first: Vec<Value> = readings.into_iter().rev().collect();
    for (query, from, to) in [("", 0, 10), ("?latest=3", 0, 3), ("?latest=10000", 0, 30)] {
        let reply = gateway.get(&format!("/v1/readings{query}")).await.expect_status(200);
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        let lines: Vec<Value> =
            reply.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines, newest_first[from..to], "{query}");
    }
    assert_eq!(gateway.get("/v1/readings?device=nobody&sensor=x").await.expect_status(200).text(), "");
    for (query, words) in [
        ("latest=0", "`latest` must be a whole number from 1 to 10000, got `0`"),
        ("latest=10001", "got `10001`"),
        ("latest=", "got ``"),
        ("limit=3", "there is no parameter `limit`; known: device, sensor, latest"),
        ("device=a&device=b", "is there twice"),
    ] {
        let detail = gateway.get(&format!("/v1/readings?{query}")).await.expect_problem(400).detail();
        assert!(detail.contains(words), "{query}: {detail}");
    }
    let client = forebay_load::client::builder().build().expect("a client");
    let put = gateway.send(client.put(gateway.url("/v1/readings"))).await.expect_problem(405);
    let allowed: Vec<_> = put.header("allow").split(',').map(str::trim).collect();
    assert!(["GET", "HEAD", "POST"].iter().all(|method| allowed.contains(method)), "{allowed:?}");
    process.terminate();
    process.ended().await.expect_status(0);
}

#[tokio::test]
async fn a_taken_port_of_the_embedded_node_fails_no_start() {
    // If somebody else has it, that is as good.
    let taken = TcpListener::bind("127.0.0.1:8081");
    let directories = [directory(), directory()];
    let gateways = directories.each_ref().map(|directory| {
        Process::start(forebay(directory.path(), &[], &[ANY_PORT, ("batch.max_age", "10ms")]))
    });
    for process in &gateways {
        let gateway = process.gateway();
        let status = gateway.get("/status").await.json();
        let url = status["nodes"][0]["url"].as_str().expect("an address").to_owned();
        assert!(url.starts_with("http://127.0.0.1:") && !url.contains(":8081/"), "{url}");
        gateway.post(&readings(3)).await.expect_status(202);
        eventually("they are delivered", || async { gateway.account("delivered").await == 3 }).await;
    }
    for process in gateways {
        process.terminate();
        let ended = process.ended().await.expect_status(0);
        assert!(
            ended.stderr.contains("the embedded node listens on a free port instead"),
            "{}",
            ended.stderr
        );
    }
    drop(taken);
}

#[tokio::test]
async fn sigterm_delivers_buffered_readings_to_a_slow_node_and_exits_with_0() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(200).after(Duration::from_millis(100))).await;
    // Nothing goes out before the stop, and then one batch after the other.
    let settings = [("batch.max_age", "1h"), ("batch.max_readings", "4"), ("cluster.max_in_flight", "1")];
    let process = serve(directory.path(), &node.url(), &settings);
    process.gateway().post(&readings(11)).await.expect_status(202);
    process.terminate();
    process.ended().await.expect_status(0);
    assert_eq!(node.readings(), readings(11));
    assert_eq!(node.received().len(), 3);
}

#[tokio::test]
async fn a_stop_retries_at_once_batches_whose_pause_exceeds_the_time_of_the_stop() {
    for refusal in [Answer::status(503).header("retry-after", 60), Answer::hang_up()] {
        let directory = directory();
        let node = FakeNode::answering([refusal.clone(), refusal]).await;
        let settings = [
            ("cluster.retry.initial", "1h"),
            ("cluster.retry.max", "1h"),
            ("batch.max_age", "10ms"),
            ("batch.max_readings", "1"),
            ("server.shutdown_timeout", "10s"),
        ];
        let process = serve(directory.path(), &node.url(), &settings);
        process.gateway().post(&readings(2)).await.expect_status(202);
        eventually("the node was asked", || async { node.requests() == 2 }).await;
        process.terminate();
        process.ended().await.expect_status(0);
        assert_eq!(node.count(), 2);
    }
}

#[tokio::test]
async fn while_it_drains_readyz_says_so_and_posts_get_503() {
    let directory = directory();
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let process = serve(directory.path(), &node.url(), &[]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    process.terminate();
    eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
    assert_eq!(gateway.get("/readyz").await.json()["status"], "draining");
    let reply = gateway.post(&readings(1)).await.expect_problem(503);
    assert!((1..=60).contains(&reply.header("retry-after").parse().expect("whole seconds")));
    gateway.get("/healthz").await.expect_status(200);
    gate.open();
    process.ended().await.expect_status(0);
    assert_eq!(node.readings(), readings(3));
}

#[tokio::test]
async fn readings_that_a_dead_node_leaves_undelivered_are_counted_in_an_error_line_and_the_status_is_1() {
    let directory = directory();
    let dead = format!("http://{}/v1/batches", nobody());
    let process = serve(directory.path(), &dead, &[("server.shutdown_timeout", "200ms")]);
    process.gateway().post(&readings(1234)).await.expect_status(202);
    process.terminate();
    let ended = process.ended().await.expect_status(1);
    let line = ended.stderr.lines().find(|line| line.contains("ERROR")).expect("an error line");
    assert!(line.contains("1234"), "{line}");
}

#[tokio::test]
async fn readings_that_a_dead_node_leaves_undelivered_stay_on_disk_and_the_next_start_delivers_them() {
    let directory = directory();
    let dead = nobody();
    let url = format!("http://{dead}/v1/batches");
    let process = serve(directory.path(), &url, &[DISK, ("server.shutdown_timeout", "200ms")]);
    let reply = process.gateway().post(&readings(1234)).await.expect_status(202);
    assert_eq!(reply.json()["ack"], "disk");
    process.terminate();
    let ended = process.ended().await.expect_status(0);
    let line = ended.stderr.lines().find(|line| line.contains("stay on disk")).expect("a line that says so");
    assert!(line.contains("1234") && line.contains("INFO"), "{line}");

    let node = FakeNode::start_at(dead).await;
    for recovered in [1234, 0] {
        let process = serve(directory.path(), &url, &[DISK]);
        let gateway = process.gateway();
        eventually("all is delivered", || async { gateway.account("delivered").await == recovered }).await;
        let ledger = gateway.ledger().await;
        assert_eq!((&ledger["accepted"], &ledger["recovered"]), (&json!(0), &json!(recovered)));
        process.terminate();
        process.ended().await.expect_status(0);
    }
    let mut arrived = node.readings();
    arrived.sort_by_key(|reading| reading["value"].as_u64());
    assert_eq!(arrived, readings(1234));
}

#[tokio::test]
async fn a_stop_with_a_buffer_on_disk_ends_within_a_second_once_no_node_is_up() {
    let refuses = FakeNode::always(Answer::status(503)).await;
    let gate = Gate::default();
    let dies = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let dies_at = dies.url();
    let dead = format!("http://{}/v1/batches", nobody());
    // The one that dies is up when the stop begins, and holds a batch.
    let cases = [dead.as_str(), &refuses.url(), &dies_at, "dns+http://nobody.invalid:9000/v1/batches"];
    let mut dies = Some(dies);
    for url in cases {
        let directory = directory();
        let settings = [
            DISK,
            ("server.shutdown_timeout", "60s"),
            ("batch.max_age", "10ms"),
            ("cluster.health.failures", "2"),
            ("cluster.retry.initial", "10ms"),
        ];
        let process = serve(directory.path(), url, &settings);
        let gateway = process.gateway();
        gateway.post(&readings(7)).await.expect_status(202);
        let waiting = gateway.request("/v1/readings?ack=delivered").body(to_json(&readings(1)));
        let waiting = tokio::spawn(async move { waiting.send().await.expect("an answer").status().as_u16() });
        eventually("both are taken", || async { gateway.account("accepted").await == 8 }).await;
        if url == dies_at {
            let node = dies.take().expect("once");
            eventually("it has a batch", || async { node.requests() > 0 }).await;
            process.terminate();
            eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
            node.stop().await;
        } else {
            process.terminate();
        }
        let begun = Instant::now();
        let ended = process.ended().await.expect_status(0);
        assert!(begun.elapsed() < SOON, "{url}: {:?}", begun.elapsed());
        assert_eq!(waiting.await.expect("no panic"), 503, "{url}: who waits is told");
        assert!(
            ended.stderr.contains("no node is up") && ended.stderr.contains("stay on disk"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_path_of_dead_letters_that_cannot_be_made_stops_the_start_and_fails_check() {
    let directory = directory();
    std::fs::write(directory.path().join("file"), "").expect("written");
    let node = FakeNode::start().await;
    let url = node.url();
    let settings = |path| [ANY_PORT, ("cluster.nodes", url.as_str()), MEMORY, ("dead_letter.path", path)];
    let check = |path| {
        let command = forebay(directory.path(), &["check"], &settings(path));
        tokio::task::spawn_blocking(|| run(command))
    };
    let ended = run(forebay(directory.path(), &["serve"], &settings("file/letters"))).expect_status(1);
    assert!(
        ended.stderr.contains("file/letters") && ended.stderr.contains("`dead_letter.path`"),
        "{}",
        ended.stderr
    );
    let checked = check("file/letters").await.expect("no panic").expect_status(1);
    let line =
        checked.stdout.lines().find(|line| line.starts_with("fault: dead_letter.path: ")).expect("a line");
    assert!(line.contains("file/letters"), "{line}");
    check("deep/letters").await.expect("no panic").expect_status(0);
    assert!(!directory.path().join("deep").exists(), "check leaves nothing");
    let process = Process::start(forebay(directory.path(), &["serve"], &settings("deep/letters")));
    assert!(directory.path().join("deep/letters").is_dir());
    process.terminate();
    process.ended().await.expect_status(0);
}

#[tokio::test]
async fn a_key_on_disk_gets_the_first_answer_again_after_a_restart() {
    let directory = directory();
    let node = FakeNode::start().await;
    let mut answers = Vec::new();
    for replayed in ["", "true"] {
        let process = serve(directory.path(), &node.url(), &[DISK]);
        let gateway = process.gateway();
        let request = gateway.request("/v1/readings").header("idempotency-key", "\"once\"");
        let reply = gateway.send(request.body(to_json(&readings(3)))).await.expect_status(202);
        assert_eq!(reply.header("idempotency-replayed"), replayed);
        answers.push(reply.text());
        process.terminate();
        process.ended().await.expect_status(0);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(node.readings(), readings(3));
}

#[tokio::test]
async fn a_second_gateway_on_the_same_directory_does_not_start_and_names_the_remedy() {
    let directory = directory();
    let node = FakeNode::start().await;
    let _first = serve(directory.path(), &node.url(), &[DISK]);
    let settings = [ANY_PORT, ("cluster.nodes", &node.url())];
    let ended = run(forebay(directory.path(), &["serve"], &settings)).expect_status(1);
    let line = ended.stderr.lines().find(|line| line.contains("ERROR")).expect("an error line");
    assert!(line.contains("data/buffer is in use") && line.contains("buffer.path"), "{line}");
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let directory = directory();
    let node = FakeNode::always(Answer::never()).await;
    let process = serve(directory.path(), &node.url(), &[("server.shutdown_timeout", "60s")]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    process.terminate();
    eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
    let begun = Instant::now();
    process.terminate();
    process.ended().await.expect_status(1);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_logs_no_errors_for_the_work_that_it_cuts_short() {
    let (directory, node) = (directory(), FakeNode::always(Answer::status(503)).await);
    let settings = [
        DISK,
        ("server.shutdown_timeout", "60s"),
        ("batch.max_age", "10ms"),
        ("batch.max_readings", "2"),
        ("cluster.max_in_flight", "32"),
    ];
    let process = serve(directory.path(), &node.url(), &settings);
    let gateway = process.gateway();
    for _ in 0..20 {
        gateway.post(&readings(1000)).await.expect_status(202);
    }
    // The delivery is busy with the backlog when the second signal comes.
    node.answer_otherwise(Answer::status(200));
    process.terminate();
    eventually("the backlog is on its way", || async { node.count() >= 100 }).await;
    let begun = Instant::now();
    process.terminate();
    let ended = process.ended().await.expect_status(1);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let (_, after) = ended.stderr.split_once("told to stop a second time").expect("a line that says so");
    for word in ["cancelled", "failed", "node is down", "panicked", "WARN", "ERROR"] {
        assert!(!after.contains(word), "{word}: {after}");
    }
}

#[tokio::test]
async fn an_interrupt_is_as_good_as_sigterm_and_a_second_signal_of_either_kind_ends_it() {
    let directory = directory();
    let node = FakeNode::start().await;
    let process = serve(directory.path(), &node.url(), &[("batch.max_age", "1h")]);
    process.gateway().post(&readings(3)).await.expect_status(202);
    process.interrupt();
    process.ended().await.expect_status(0);
    assert_eq!(node.readings(), readings(3));

    node.answer_otherwise(Answer::never());
    let process = serve(directory.path(), &node.url(), &[("server.shutdown_timeout", "60s")]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    process.interrupt();
    eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
    process.terminate();
    process.ended().await.expect_status(1);
}

#[tokio::test]
async fn an_idle_gateway_stops_quickly_even_with_connections_open() {
    let directory = directory();
    let process = serve(directory.path(), &format!("http://{}/", nobody()), &[]);
    let gateway = process.gateway();
    gateway.get("/healthz").await.expect_status(200);
    let _idle = gateway.raw().await;
    let mut half = gateway.raw().await;
    half.send("POST /v1/readings HTTP/1.1\r\nContent-").await;
    let begun = Instant::now();
    process.terminate();
    process.ended().await.expect_status(0);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_taken_port_is_reported_in_one_line_and_the_status_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = forebay_says(&["serve"], &[("server.listen", &address)]).expect_status(1);
    let line = ended.stderr.lines().find(|line| line.contains("ERROR")).expect("an error line");
    assert!(line.contains(&address) && line.contains("in use"), "{line}");
    assert_eq!(ended.stderr.matches("in use").count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn logs_go_to_standard_error_and_parse_where_json_is_asked_for() {
    let directory = directory();
    let node = FakeNode::start().await;
    let settings = [("log.format", "json"), ("log.level", "debug"), ("batch.max_age", "1ms")];
    let process = serve(directory.path(), &node.url(), &settings);
    process.gateway().post(&readings(3)).await.expect_status(202);
    process.terminate();
    let ended = process.ended().await.expect_status(0);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    let lines: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.len() >= 3);
    for line in &lines {
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
    assert!(lines.iter().any(|line| line["message"] == "gateway listening"));

    let quiet = serve(directory.path(), &node.url(), &[]);
    quiet.terminate();
    assert!(!quiet.ended().await.expect_status(0).stderr.contains("DEBUG"));
}
