//! What is promised of the binary: how it starts, stops, and says what is wrong.

mod hope;

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
/// What ends at once ends within this, however busy the machine is; what waits for its time-out takes longer.
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
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let text = client.get(url).send().await.expect("an answer").text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
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
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
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
async fn sigterm_delivers_what_is_buffered_to_a_node_that_is_slow_and_exits_with_0() {
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
async fn a_stop_tries_at_once_what_was_to_wait_longer_than_the_stop_may_last() {
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
async fn what_a_dead_node_leaves_undelivered_is_counted_in_an_error_line_and_the_status_is_1() {
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
async fn what_a_dead_node_leaves_undelivered_stays_on_disk_and_the_next_start_delivers_it() {
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
async fn a_second_gateway_on_the_same_directory_does_not_start_and_says_what_to_do() {
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
async fn a_second_signal_blames_nobody_for_what_it_cuts_short() {
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
async fn a_port_that_is_taken_is_told_in_a_clear_line_and_the_status_is_1() {
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

// What the log says while something goes wrong

/// How many lines of the log have this in them.
fn lines(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

/// The first line with this in it, which must come.
async fn line(process: &Process, text: &str) -> String {
    eventually(text, || async { lines(&process.log(), text) > 0 }).await;
    process.log().lines().find(|line| line.contains(text)).expect("it came").to_owned()
}

#[tokio::test]
async fn a_full_buffer_and_a_node_that_is_gone_are_each_told_in_one_line_whatever_the_load() {
    let directory = directory();
    let settings = [
        ("buffer.max_readings", "5"),
        ("cluster.health.failures", "1"),
        ("server.shutdown_timeout", "100ms"),
    ];
    let process = serve(directory.path(), &format!("http://{}/", nobody()), &settings);
    let gateway = process.gateway();
    gateway.post(&readings(5)).await.expect_status(202);
    for _ in 0..200 {
        gateway.post(&readings(1)).await.expect_status(503);
    }
    let full = line(&process, "the buffer is full").await;
    assert!(
        full.contains("WARN") && full.contains("buffered=5") && full.contains("5 readings of 5"),
        "{full}"
    );
    assert!(full.contains("buffer.max_readings"), "what to do: {full}");
    let gone = line(&process, "no node is up").await;
    assert!(gone.contains("WARN") && gone.contains("refused") && gone.contains("forebay check"), "{gone}");
    process.terminate();
    let log = process.ended().await.stderr;
    assert_eq!((lines(&log, "condition=\"no_node_up\""), lines(&log, "the buffer is full")), (1, 1), "{log}");
    // What was not told while it lasted is told at the end.
    let told = log.lines().filter(|line| line.contains("condition=\"buffer_full\""));
    let told = told.filter_map(|line| line.split_once("requests=")?.1.split(' ').next()?.parse::<u64>().ok());
    assert_eq!(told.sum::<u64>(), 200, "{log}");
}

#[tokio::test]
async fn nothing_that_was_accepted_is_given_up_without_a_line_also_just_before_the_end() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let settings = [
        ("buffer.max_readings", "10"),
        ("buffer.on_full", "drop_oldest"),
        ("cluster.retry.initial", "1m"),
        ("cluster.retry.max", "1m"),
        ("server.shutdown_timeout", "100ms"),
    ];
    let process = serve(directory.path(), &node.url(), &settings);
    let gateway = process.gateway();
    for _ in 0..4 {
        gateway.post(&readings(10)).await.expect_status(202);
    }
    let dropped = gateway.account("dropped").await;
    assert!(dropped > 0);
    process.terminate();
    let log = process.ended().await.stderr;
    let told = log.lines().filter(|line| line.contains("ERROR") && line.contains("given up for newer ones"));
    let told = told.filter_map(|line| line.split_once("readings=")?.1.split(' ').next()?.parse::<u64>().ok());
    assert_eq!(told.sum::<u64>(), dropped, "{log}");
}

#[tokio::test]
async fn readings_that_nodes_refuse_and_that_the_gateway_turns_away_are_told_with_an_example() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(422).body("no such sensor")).await;
    let process = serve(directory.path(), &node.url(), &[]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    let refused = line(&process, "readings become dead letters").await;
    assert!(refused.contains("WARN") && refused.contains("no such sensor"), "{refused}");
    assert!(refused.contains(&node.id()) && refused.contains("dead-letters list"), "{refused}");

    let bad = |device: usize| json!({ "device": format!("pump-{device}"), "sensor": "s" });
    gateway.post(&(0..30).map(bad).collect::<Vec<_>>()).await.expect_status(422);
    gateway.post_body("application/json", "{").await.expect_status(400);
    let turned_away = line(&process, "are turned away").await;
    assert!(turned_away.contains("WARN") && turned_away.contains("/status/rejections"), "{turned_away}");
    assert!(
        turned_away.contains("turned_away=3") && turned_away.contains("pump-13: 1 (field)"),
        "{turned_away}"
    );
    process.terminate();
    let log = process.ended().await.stderr;
    let told = log.lines().filter(|line| line.contains("condition=\"turned_away\""));
    let told: String = told.collect();
    assert_eq!(told.matches("pump-").count(), 20, "{log}");
    assert!(told.contains("all others: 10 (field)") && told.contains("whole requests: 1 (body)"), "{log}");
}

#[tokio::test]
async fn a_disk_that_fails_is_told_when_it_begins_and_when_it_is_over_and_readyz_says_failing() {
    let directory = directory();
    let node = FakeNode::start().await;
    let process = serve(directory.path(), &node.url(), &[DISK, ("buffer.path", "buffer")]);
    let gateway = process.gateway();
    gateway.post(&readings(1)).await.expect_status(202);
    let (here, away) = (directory.path().join("buffer"), directory.path().join("away"));
    std::fs::rename(&here, &away).expect("moved");
    eventually("it is refused", || async { gateway.post(&readings(1)).await.status == 503 }).await;
    let begins = line(&process, "nothing can be written to the buffer on disk").await;
    assert!(begins.contains("ERROR") && begins.contains("buffer"), "{begins}");
    let answer = gateway.get("/readyz").await.expect_status(503).json();
    assert_eq!((&answer["status"], &answer["checks"]["storage"]["ok"]), (&json!("failing"), &json!(false)));
    assert_eq!(gateway.metric(r#"forebay_ready{check="storage"}"#).await, Some(0.0));
    std::fs::rename(&away, &here).expect("moved back");
    let ends = line(&process, "the buffer on disk can be written again").await;
    assert!(ends.contains("INFO") && ends.contains("lasted_seconds="), "{ends}");
    gateway.post(&readings(1)).await.expect_status(202);
    assert_eq!(lines(&process.log(), "nothing can be written"), 1, "{}", process.log());
}

#[tokio::test]
async fn a_lock_or_a_directory_that_is_taken_from_an_idle_gateway_is_told_with_what_to_do_and_the_end_is_true()
 {
    let lock: (&str, _, _, _) = ("buffer/lock", "restart the gateway", "readings stay on disk", 0);
    let whole = ("buffer", "put the directory back", "the next start does not find them", 1);
    for (gone, to_do, ends, status) in [lock, whole] {
        let directory = directory();
        let settings = [DISK, ("buffer.path", "buffer")];
        let process = serve(directory.path(), &format!("http://{}/", nobody()), &settings);
        process.gateway().post(&readings(3)).await.expect_status(202);
        let away = directory.path().join("away");
        std::fs::rename(directory.path().join(gone), away).expect("moved");
        let told = line(&process, "nothing can be written to the buffer on disk").await;
        assert!(told.contains(to_do) && !told.contains("make room"), "{told}");
        process.get("/readyz").await.expect_status(503);
        process.terminate();
        let ended = process.ended().await.expect_status(status);
        assert!(ended.stderr.contains(ends) && !ended.stderr.contains("other keys"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn an_end_without_the_directory_is_told_also_when_no_reading_is_left() {
    let directory = directory();
    let process =
        serve(directory.path(), &format!("http://{}/", nobody()), &[DISK, ("buffer.path", "buffer")]);
    std::fs::rename(directory.path().join("buffer"), directory.path().join("away")).expect("moved");
    line(&process, "nothing can be written to the buffer on disk").await;
    process.terminate();
    let ended = process.ended().await.expect_status(0);
    let told = ended.stderr.lines().find(|line| line.contains("stopped")).expect("the last line");
    assert!(told.contains("WARN") && told.contains("put the directory back"), "{told}");
    assert!(told.contains("knows no `Idempotency-Key` of before"), "{told}");
}

// Signals

#[tokio::test]
async fn signals_that_do_not_ask_to_stop_end_nothing() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = serve(directory.path(), &node.url(), &[("log.level", "debug")]);
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let alone = Process::start(forebay(directory.path(), &arguments, &[]));
    for process in [gateway, alone] {
        for signal in [Signal::USR1, Signal::USR2, Signal::HUP, Signal::HUP] {
            process.signal(signal);
        }
        let told = line(&process, "SIGHUP").await;
        assert!(
            told.contains("WARN") && told.contains("no reload yet") && told.contains("restart"),
            "{told}"
        );
        process.get("/healthz").await.expect_status(200);
        assert_eq!(lines(&process.log(), "WARN SIGUSR"), 0, "{}", process.log());
        process.terminate();
        process.ended().await.expect_status(0);
    }
}

#[tokio::test]
async fn a_hang_up_while_it_starts_or_stops_ends_nothing() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let process = serve(directory.path(), &node.url(), &[("server.shutdown_timeout", "2s")]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    process.terminate();
    eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
    process.signal(Signal::HUP);
    node.answer_otherwise(Answer::status(200));
    process.ended().await.expect_status(0);
    assert_eq!(node.readings(), readings(3));
}

/// The signals that a process catches, as bits from SIGHUP on: proc_pid_status(5).
fn caught_signals(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).expect("a mask"))
}

#[tokio::test]
async fn signals_end_nothing_from_before_the_settings_are_read() {
    let signals = [Signal::HUP, Signal::USR1, Signal::USR2];
    let bits = signals.iter().fold(0, |bits, signal| bits | 1 << (signal.as_raw() - 1));
    let node = FakeNode::start().await;
    let (url, mut windows) = (node.url(), Vec::new());
    for round in 0..15 {
        let directory = directory();
        let file = directory.path().join("settings");
        // Whoever reads the settings waits until somebody writes them.
        mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let path = file.to_str().expect("UTF-8");
        let all = ["serve", "--config", path];
        // `forebay` alone is `serve`.
        let arguments = &all[round % 2..];
        let settings = [ANY_PORT, ("cluster.nodes", &*url), MEMORY];
        let mut process = Process::launch(forebay(directory.path(), arguments, &settings));
        let started = Instant::now();
        while caught_signals(&process) & bits != bits {
            assert!(
                started.elapsed() < crate::support::LIMIT,
                "they are listened to before the settings are read"
            );
        }
        windows.push(started.elapsed());
        signals.iter().for_each(|signal| process.signal(*signal));
        std::fs::write(&file, "").expect("it reads");
        eventually("it listens", || std::future::ready(process.is_listening())).await;
        line(&process, "SIGHUP").await;
        process.terminate();
        process.ended().await.expect_status(0);
    }
    // Until the system has loaded the program, nobody can listen.
    windows.sort_unstable();
    let (least, median, most) = (windows[0], windows[windows.len() / 2], windows[windows.len() - 1]);
    println!("a signal ends the process in its first {least:?} (median {median:?}, at most {most:?})");
}

// Settings

#[test]
fn every_fault_of_the_settings_is_one_line_and_the_status_is_2() {
    let place = directory();
    let file = place.path().join("forebay.toml");
    std::fs::write(
        &file,
        "[server]\nlisten = 8080\n[bufer]\nkind = \"memory\"\n[batch]\nmax_age = \"1 hour\"\n",
    )
    .expect("written");
    let path = file.to_str().expect("UTF-8");
    let settings = [("batch.max_readings", "0"), ("batch.max_bites", "1MiB")];
    for arguments in [&["--config", path][..], &["serve", "--config", path], &["check", "--config", path]] {
        let ended = run(forebay(place.path(), arguments, &settings)).expect_status(2);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 5, "{}", ended.stderr);
        for (origin, key) in [
            (":2:", "server.listen"),
            (":4:", "bufer.kind"),
            (":6:", "batch.max_age"),
            ("FOREBAY__BATCH__MAX_READINGS", "batch.max_readings"),
            ("FOREBAY__BATCH__MAX_BITES", "batch.max_bites"),
        ] {
            let found = lines.iter().filter(|line| line.contains(origin) && line.contains(key)).count();
            assert_eq!(found, 1, "{origin} {key} in\n{}", ended.stderr);
        }
    }
    let mut command = forebay(place.path(), &["serve"], &[]);
    command.env("FOREBAY_CONFIG", place.path().join("nowhere.toml"));
    let ended = run(command).expect_status(2);
    assert!(ended.stderr.contains("nowhere.toml"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_shows_the_effective_settings_and_hides_secrets() {
    let place = directory();
    let node = FakeNode::start().await;
    let file = place.path().join("forebay.toml");
    let text = "[batch]\nmax_readings = 77\nmax_age = \"3s\"\n[cluster.headers]\nauthorization = \"Bearer s3cret\"\n";
    std::fs::write(&file, text).expect("written");
    let mut command = forebay(
        place.path(),
        &["check"],
        &[
            ANY_PORT,
            ("batch.max_age", "4s"),
            ("cluster.nodes", &node.url().replace("http://", "http://user:s3cret@")),
            ("cluster.headers.x-token", "s3cret"),
        ],
    );
    command.env("FOREBAY_CONFIG", &file);
    let ended = run(command).expect_status(0);
    let has = |start: &str, rest: &str| {
        let mut lines = ended.stdout.lines();
        assert!(
            lines.any(|line| line.starts_with(start) && line.contains(rest)),
            "{start} in\n{}",
            ended.stdout
        );
    };
    has("batch.max_readings = 77", "forebay.toml:2");
    has("batch.max_age = 4s", "FOREBAY__BATCH__MAX_AGE");
    has("batch.max_bytes = 1MiB", "default");
    has("cluster.headers.authorization", "hidden");
    assert!(ended.stdout.contains(&node.id()), "{}", ended.stdout);
    assert!(!(ended.stdout + &ended.stderr).contains("s3cret"));
}

#[test]
fn faults_do_not_show_secrets() {
    for node in [
        "ftp://user:s3cret@localhost/",
        "http://user:s3cret@",
        "http://user:s3cret@host:99999/",
        "user:s3cret@h",
        "dns+ftp://user:s3cret@h/",
        "dns+http://user:s3cret@host:99999/",
    ] {
        let settings = [("cluster.nodes", node), ("cluster.headers.x", "s3cret\u{e9}\n")];
        let ended = forebay_says(&["check"], &settings).expect_status(2);
        assert!(!(ended.stdout.clone() + &ended.stderr).contains("s3cret"), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tries_each_node_and_exits_with_1_if_one_is_dead() {
    let node = FakeNode::start().await;
    let dead = nobody();
    let nodes = format!("{},http://{dead}/v1/batches", node.url());
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &nodes)]).expect_status(1);
    let line = |id: &str| {
        let line = ended.stdout.lines().find(|line| line.starts_with("node ") && line.contains(id));
        line.unwrap_or_else(|| panic!("{id} in\n{}", ended.stdout)).to_owned()
    };
    assert!(line(&dead.to_string()).contains("refused"), "{}", ended.stdout);
    assert_ne!(line(&node.id()), line(&dead.to_string()));
    let is_empty = node.received().iter().all(|request| request.body.is_empty());
    assert!(is_empty, "a node that is tried is sent nothing that it could store");
    forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]).expect_status(0);
    // A name is looked up, and each of its addresses tried.
    let named = format!("dns+{}", node.url());
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &named)]).expect_status(0);
    let line = format!("node {named} at {}: takes connections", node.id());
    assert!(ended.stdout.contains(&line), "{}", ended.stdout);
    let nowhere = "dns+http://no-such-name.invalid:9000/x";
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", nowhere)]).expect_status(1);
    assert!(ended.stdout.contains(&format!("node {nowhere}: is not found: ")), "{}", ended.stdout);
}

/// The lines that `check` begins with this word.
fn found<'a>(ended: &'a Finished, word: &str) -> Vec<&'a str> {
    ended.stdout.lines().filter(|line| line.starts_with(&format!("{word}: "))).collect()
}

/// Fails unless `check` found a fault that says this.
#[track_caller]
fn expect_fault(ended: Finished, words: &[&str]) {
    let ended = ended.expect_status(1);
    let faults = found(&ended, "fault");
    let is_told = faults.iter().any(|fault| words.iter().all(|words| fault.contains(words)));
    assert!(is_told, "{words:?}: {}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_an_address_that_cannot_be_listened_on() {
    let node = FakeNode::start().await;
    let check = |listen: &str| {
        forebay_says(&["check"], &[("server.listen", listen), ("cluster.nodes", &node.url()), MEMORY])
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    expect_fault(check(&address), &["server.listen: ", &address, "in use", "another program"]);
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    expect_fault(check(&everywhere), &["server.listen: ", "another program"]);
    // Addresses for documents, which no machine has.
    expect_fault(check("192.0.2.1:0"), &["192.0.2.1 is no address of this machine"]);
    expect_fault(check("[2001:db8::1]:8080"), &["2001:db8::1 is no address of this machine"]);
    check(&nobody().to_string()).expect_status(0);
    let ended = forebay_says(&["serve"], &[("server.listen", "192.0.2.1:0"), MEMORY]).expect_status(1);
    assert!(ended.stderr.contains("192.0.2.1 is no address of this machine"), "{}", ended.stderr);

    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim() == "1024") {
        let (place, denied_run) = denied();
        let settings = [("server.listen", "127.0.0.1:81"), ("cluster.nodes", &node.url()), MEMORY];
        let ended = denied_run(place.path(), &["check"], &settings);
        expect_fault(ended, &["the system keeps port 81 for privileged programs"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_finds_no_fault_in_a_gateway_that_runs_here_and_disturbs_it_in_nothing() {
    let (place, elsewhere, node) = (directory(), directory(), FakeNode::start().await);
    for kind in [MEMORY, DISK] {
        let process = serve(place.path(), &node.url(), &[kind]);
        let address = process.address().to_string();
        let settings = [("server.listen", &*address), ("cluster.nodes", &node.url()), kind];
        let ended = run(forebay(place.path(), &["check"], &settings)).expect_status(0);
        let notes = found(&ended, "note").join("\n");
        let words = format!("server.listen: {address} is in use by the gateway that runs here");
        assert!(notes.contains(&words), "{}", ended.stdout);
        assert_eq!(
            notes.contains("buffer.path: data/buffer is in use by the gateway"),
            kind == DISK,
            "{notes}"
        );
        // Of another directory, it is another program.
        let ended = run(forebay(elsewhere.path(), &["check"], &settings));
        expect_fault(ended, &["server.listen: ", "another program"]);
        process.gateway().post(&readings(3)).await.expect_status(202);
        // Nor does a port of another program become right by it.
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address").to_string();
        let settings = [("server.listen", &*address), ("cluster.nodes", &node.url()), kind];
        let ended = run(forebay(place.path(), &["check"], &settings));
        expect_fault(ended, &["server.listen: ", "another program"]);
        process.terminate();
        let ended = process.ended().await.expect_status(0);
        assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("WARN"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_places_and_sizes_that_there_are_not_and_leaves_nothing_behind() {
    let (place, node) = (directory(), FakeNode::start().await);
    let file = place.path().join("file");
    std::fs::write(&file, "").expect("written");
    let check = |settings: &[(&str, &str)]| {
        let url = node.url();
        let settings = [&[ANY_PORT, ("cluster.nodes", &*url)], settings].concat();
        run(forebay(place.path(), &["check"], &settings))
    };
    check(&[]).expect_status(0);
    for path in ["/proc/nowhere", "file", "file/below"] {
        expect_fault(check(&[("buffer.path", path)]), &["buffer.path: ", path, "cannot be used"]);
    }
    let (much, words) = ("1000TiB", "1000 TiB is more than the ");
    expect_fault(check(&[("buffer.max_bytes", much)]), &["buffer.max_bytes: ", words, "are free"]);
    expect_fault(check(&[("dead_letter.max_bytes", much)]), &["dead_letter.max_bytes: ", words, "are free"]);
    expect_fault(check(&[MEMORY, ("buffer.max_bytes", much)]), &["buffer.max_bytes: ", words, "memory"]);
    // What is not used is not looked at.
    check(&[MEMORY, ("buffer.path", "/proc/nowhere")]).expect_status(0);
    let names = std::fs::read_dir(place.path()).expect("it is there").count();
    assert_eq!(names, 1, "the file alone is there");

    let (place, denied_run) = denied();
    let ended = denied_run(place.path(), &["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]);
    expect_fault(
        ended,
        &["buffer.path: data/buffer cannot be used", "this process runs as user ", "belongs to user "],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_a_path_that_a_node_does_not_know_whatever_the_format() {
    for format in forebay_stores::STORES.names() {
        for status in [404, 405] {
            let node = FakeNode::always(Answer::status(status)).await;
            let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &node.url()), ("cluster.format", format)];
            let ended = forebay_says(&["check"], &settings).expect_status(1);
            let line = ended.stdout.lines().find(|line| line.starts_with("node ")).expect("a line");
            let is_told = line.contains("path") || line.contains("the address must end in /_bulk");
            assert!(is_told && line.contains(&format!("({status})")), "{format}: {line}");
        }
    }
    for format in ["ndjson", "json", "influx", "remote-write"] {
        let node = FakeNode::always(Answer::status(200).body("<!DOCTYPE html><title>Sign in")).await;
        let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &node.url()), ("cluster.format", format)];
        let ended = forebay_says(&["check"], &settings).expect_status(1);
        assert!(ended.stdout.contains(": its answer is a web page"), "{format}: {}", ended.stdout);
    }
    // One that may be any program need not answer what has no readings in it.
    for format in ["ndjson", "json"] {
        let node = FakeNode::always(Answer::never()).await;
        let url = node.url();
        let settings = [
            ANY_PORT,
            MEMORY,
            ("cluster.nodes", &*url),
            ("cluster.format", format),
            ("cluster.timeout", "100ms"),
        ];
        let ended = forebay_says(&["check"], &settings).expect_status(0);
        assert!(ended.stdout.contains(": takes connections, and answers nothing to"), "{}", ended.stdout);
    }
    // A real one, which stores nothing of it.
    let place = directory();
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let process = Process::start(forebay(place.path(), &arguments, &[]));
    let check = |path: &str, compression: &str, status| {
        let url = format!("http://{}{path}", process.address());
        let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &*url), ("cluster.compression", compression)];
        forebay_says(&["check"], &settings).expect_status(status)
    };
    for compression in ["none", "gzip", "zstd"] {
        let ended = check("/v1/batches", compression, 0);
        assert!(
            ended.stdout.contains(": takes connections, and a batch without readings (200)"),
            "{}",
            ended.stdout
        );
    }
    check("/v1/batch", "none", 1);
    check("/v1/readings", "none", 1);
    let count = get_json(&format!("http://{}/v1/count", process.address())).await;
    assert_eq!(count, json!({ "count": 0 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_how_long_the_buffer_lasts() {
    let node = FakeNode::start().await;
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]).expect_status(0);
    let words = "at 1,000 readings a second, 2.8 hours (buffer.max_readings comes first)";
    assert!(found(&ended, "note").iter().any(|line| line.contains(words)), "{}", ended.stdout);
}

#[test]
fn check_ends_quietly_when_nobody_reads_on() {
    let place = directory();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = forebay(place.path(), &["check"], &[]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let ended = child.wait_with_output().expect("an end");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[tokio::test]
async fn healthcheck_exits_with_0_where_a_gateway_serves_and_with_1_where_none_does() {
    let directory = directory();
    let node = FakeNode::start().await;
    let process = serve(directory.path(), &node.url(), &[]);
    let address = process.address().to_string();
    forebay_says(&["healthcheck"], &[("server.listen", &address)]).expect_status(0);
    forebay_says(&["healthcheck", &format!("http://{address}/healthz")], &[]).expect_status(0);
    forebay_says(&["healthcheck", &format!("http://{address}/nowhere")], &[]).expect_status(1);
    let everywhere = format!("0.0.0.0:{}", process.address().port());
    forebay_says(&["healthcheck"], &[("server.listen", &everywhere)]).expect_status(0);
    let ended = forebay_says(&["healthcheck"], &[("server.listen", &nobody().to_string())]).expect_status(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn healthcheck_without_arguments_asks_what_its_user_runs_in_this_directory() {
    let (first, second, third) = (directory(), directory(), directory());
    let (node, no_gateway) = (FakeNode::start().await, nobody().to_string());
    let says = |place: &Path, settings: &[(&str, &str)], status| {
        run(forebay(place, &["healthcheck"], settings)).expect_status(status);
    };
    // Two gateways on one machine, each on a port that only it knows.
    let one = serve(first.path(), &node.url(), &[]);
    let other = serve(second.path(), &node.url(), &[]);
    says(first.path(), &[ANY_PORT], 0);
    says(second.path(), &[ANY_PORT], 0);
    says(third.path(), &[("server.listen", &no_gateway)], 1);
    // What a gateway that was killed has left is no gateway.
    one.kill().await;
    says(first.path(), &[ANY_PORT], 1);
    says(second.path(), &[ANY_PORT], 0);
    other.terminate();
    other.ended().await.expect_status(0);
    says(second.path(), &[ANY_PORT], 1);

    // A node, beside the setting for gateways that the image has.
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let process = Process::start(forebay(third.path(), &arguments, &[]));
    says(third.path(), &[("server.listen", &no_gateway)], 0);
    process.kill().await;
    says(third.path(), &[("server.listen", &no_gateway)], 1);
}

/// A directory that the user of the processes of this test may not write to, and how to start one as that user.
#[expect(clippy::type_complexity, reason = "it is said once")]
fn denied() -> (tempfile::TempDir, impl Fn(&Path, &[&str], &[(&str, &str)]) -> Finished) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    use std::os::unix::process::CommandExt as _;

    let place = directory();
    let is_root = place.path().metadata().expect("it is there").uid() == 0;
    // Nothing is denied to root, so that it becomes somebody else.
    let mode = if is_root { 0o755 } else { 0o500 };
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).expect("it is ours");
    let denied_run = move |place: &Path, arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = forebay(place, arguments, settings);
        if is_root {
            command.uid(12345).gid(12345);
        }
        run(command)
    };
    (place, denied_run)
}

#[test]
fn a_place_that_may_not_be_used_is_told_with_whose_it_is_and_who_was_denied() {
    let (place, denied_run) = denied();
    let data = place.path().canonicalize().expect("it is there");
    let mine = data.join("mine");
    let unreadable = data.join("forebay.toml");
    let _ = std::fs::write(&unreadable, "");
    let nodes = ("cluster.nodes", "http://127.0.0.1:9/v1/batches");
    let path = mine.to_str().expect("UTF-8");
    for (arguments, settings, status) in [
        (&["serve"][..], &[ANY_PORT, nodes, ("buffer.path", path)][..], 1),
        (&["serve"], &[ANY_PORT, MEMORY], 1),
        (&["node", "--listen", "127.0.0.1:0", "--data", path], &[], 1),
    ] {
        let ended = denied_run(place.path(), arguments, settings).expect_status(status);
        let line = ended.stderr.lines().find(|line| line.contains("ERROR")).expect("an error line");
        for words in
            ["Permission denied", "this process runs as user ", "belongs to user ", "with the mode 0", "`ch"]
        {
            assert!(
                line.contains(words) || (words == "`ch" && line.contains("&& chown ")),
                "{words}: {line}"
            );
        }
        assert!(line.contains(data.to_str().expect("UTF-8")), "{line}");
    }
    assert!(!mine.exists());
}

// The other commands

#[test]
fn the_version_says_of_which_commit_it_is_and_when_that_was_made() {
    let version = forebay_says(&["--version"], &[]).expect_status(0).stdout;
    let of =
        version.trim().strip_prefix(concat!("forebay ", env!("CARGO_PKG_VERSION"), " (")).expect("a version");
    let (build, rest) = of.split_once(')').expect("what was built");
    // Tests are run with builds that are not made anew at each commit.
    assert!(["", " or later"].contains(&rest), "{version}");
    let (commit, date) = build.split_once(' ').expect("a commit and a date");
    let is_commit = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown", "{version}");
    let is_date = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    assert!(is_date || date == "unknown", "{version}");
}

#[tokio::test]
async fn the_node_takes_batches_once_and_survives_a_restart() {
    let directory = directory();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "here/node"];
    for round in 0..2 {
        let process = Process::start(forebay(directory.path(), &arguments, &[]));
        let url = format!("http://{}", process.address());
        for (key, status) in [("\"one\"", 200), ("\"one\"", 200), ("\"two\"", 200)] {
            let post = client.post(format!("{url}/v1/batches")).header("idempotency-key", key);
            let body = to_ndjson(&readings(if key == "\"one\"" { 5 } else { 7 }));
            let reply = post.header("content-type", "application/x-ndjson").body(body).send().await;
            assert_eq!(reply.expect("an answer").status(), status, "round {round}");
        }
        assert_eq!(get_json(&format!("{url}/v1/count")).await, json!({ "count": 12 }));
        assert_eq!(get_json(&format!("{url}/healthz")).await["status"], "ok");
        forebay_says(&["healthcheck", &format!("{url}/healthz")], &[]).expect_status(0);
        process.terminate();
        process.ended().await.expect_status(0);
    }
    assert!(directory.path().join("here/node/readings.db").is_file());
}

#[tokio::test]
async fn a_gateway_delivers_to_a_node_of_its_own_kind_through_a_restart_of_the_node() {
    let directory = directory();
    let listen = nobody().to_string();
    let arguments = ["node", "--listen", &listen, "--data", "node"];
    let node = Process::start(forebay(directory.path(), &arguments, &[]));
    let settings =
        [("batch.max_age", "5ms"), ("cluster.retry.initial", "5ms"), ("cluster.retry.max", "50ms")];
    let process = serve(directory.path(), &format!("http://{listen}/v1/batches"), &settings);
    let gateway = process.gateway();
    gateway.post(&readings(100)).await.expect_status(202);
    eventually("they arrive", || async { gateway.account("delivered").await == 100 }).await;
    node.terminate();
    node.ended().await.expect_status(0);
    gateway.post(&readings(50)).await.expect_status(202);
    let _node = Process::start(forebay(directory.path(), &arguments, &[]));
    eventually("the rest arrives", || async { gateway.account("delivered").await == 150 }).await;
    assert_eq!(get_json(&format!("http://{listen}/v1/count")).await, json!({ "count": 150 }));
}

#[test]
fn a_node_that_cannot_start_says_why_in_one_line_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = forebay_says(&["node", "--listen", &address, "--data", "x"], &[]).expect_status(1);
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("in use"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let nowhere = ["node", "--listen", "127.0.0.1:0", "--data", "/proc/nowhere"];
    let ended = forebay_says(&nowhere, &[]).expect_status(1);
    assert!(ended.stderr.contains("/proc/nowhere"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn load_sends_a_file_through_and_its_audit_passes() {
    let directory = directory();
    let settings = [ANY_PORT, ("batch.max_age", "50ms")];
    let process = Process::start(forebay(directory.path(), &["serve"], &settings));
    let url = format!("http://{}", process.address());
    let rows = std::fs::read_to_string(CSV).expect("the file").lines().count() - 1;
    let readings = rows as u64 * 7;
    // The second time the node has the readings already.
    for round in 1..=2 {
        let ended = forebay_says(&["load", &url, "--csv", CSV, "--rate", "0"], &[]).expect_status(0);
        let audit = format!("{readings} acknowledged, {readings} found once, 0 missing, 0 more than once");
        assert!(ended.stdout.contains(&audit), "{}", ended.stdout);
        assert_eq!(process.gateway().account("accepted").await, round * readings);
    }
    process.terminate();
    process.ended().await.expect_status(0);
}

#[tokio::test]
async fn load_without_a_gateway_exits_with_1() {
    let ended = forebay_says(&["load", &format!("http://{}", nobody()), "--duration", "1s"], &[]);
    assert!(ended.expect_status(1).stderr.contains("no gateway"));
}

#[test]
fn wrong_use_exits_with_2_and_help_and_version_with_0() {
    for arguments in [
        &["serv"][..],
        &["--no-such-option"],
        &["serve", "--listen", "x"],
        &["node", "--listen", "nowhere"],
        &["load", "--csv"],
        &["check", "extra"],
    ] {
        let ended = forebay_says(arguments, &[]).expect_status(2);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{arguments:?}");
    }
    let help = forebay_says(&["--help"], &[]).expect_status(0);
    for command in ["serve", "node", "check", "healthcheck", "load", "completions"] {
        assert!(help.stdout.contains(command), "{command}");
        forebay_says(&[command, "--help"], &[]).expect_status(0);
    }
}

#[test]
fn completions_are_printed_for_each_shell_and_another_one_is_wrong_use() {
    let shells = ["bash", "zsh", "fish", "elvish", "powershell"];
    for shell in shells {
        let ended = forebay_says(&["completions", shell], &[]).expect_status(0);
        assert_eq!(ended.stderr, "", "{shell}");
        for word in ["forebay", "serve", "dead-letters", "healthcheck", "verify", "completions"] {
            assert!(ended.stdout.contains(word), "{shell} completes no {word}");
        }
    }
    let bash = forebay_says(&["completions", "bash"], &[]).expect_status(0).stdout;
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("{bash}\nCOMP_WORDS=(forebay dead)\nCOMP_CWORD=1\n_forebay forebay dead forebay\necho \"${{COMPREPLY[@]}}\"")]);
    assert_eq!(String::from_utf8_lossy(&shell.output().expect("bash runs").stdout), "dead-letters\n");
    let ended = forebay_says(&["completions", "nushell"], &[]).expect_status(2);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    for shell in shells {
        assert!(ended.stderr.contains(shell), "{shell}: {}", ended.stderr);
    }
    forebay_says(&["completions"], &[]).expect_status(2);
}
