//! The promises of windows when something comes between: crashes, stops, a full buffer, a full disk.

use std::path::Path;
use std::time::Duration;

use crate::support::process::directory;
use crate::support::{Answer, FakeNode, TestGateway, at, eventually};
use serde_json::{Value, json};

const KEPT_LONG: &str = "[[transform]]\nkind = \"aggregate\"\nevery = \"1h\"\nfunctions = [\"sum\", \"count\"]\nkeep_raw = true\n";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a sound disk");
    for entry in std::fs::read_dir(from).expect("a sound disk") {
        let entry = entry.expect("a sound disk");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a sound disk").is_dir() {
            copy(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).map(drop).expect("a sound disk")
        }
    }
}

/// How many readings each window had whose result the node has.
fn counts(node: &FakeNode) -> Vec<Value> {
    let results = node.readings().into_iter().filter(|reading| reading["sensor"] == "power_count");
    results.map(|reading| reading["value"].clone()).collect()
}

/// Readings that go on from a window, and that a later transform takes out.
async fn crash_in_open_window(later: &str) {
    let (live, crashed, node) = (directory(), directory(), FakeNode::start().await);
    let file = format!("{KEPT_LONG}{later}");
    let gateway = |at: &Path| TestGateway::new().on_disk(at).node(&node).file(&file);
    let first = gateway(live.path()).start().await;
    first.post(&[at(1, 5), at(2, 5), at(3, 5)]).await.expect_status(202);
    eventually("they are in their window", || async { first.account("buffered").await == 3 }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // As `kill -9` would leave it.
    copy(live.path(), crashed.path());
    let second = gateway(crashed.path()).start().await;
    let _ = second.stop().await;
    let counts = counts(&node);
    assert_eq!(counts, [json!(3)], "the window is made again of all of its readings");
}

#[tokio::test]
async fn a_kept_window_is_made_again_from_readings_that_a_later_transform_took_out() {
    crash_in_open_window("[[transform]]\nkind = \"deadband\"\ndelta = 1\n").await;
    crash_in_open_window("[[transform]]\nkind = \"aggregate\"\nname = \"other\"\nevery = \"1h\"\nfunctions = [\"max\"]\nsensors = [\"power\"]\n").await;
}

#[tokio::test]
async fn windows_of_series_that_differ_in_a_tag_are_made_again_after_a_crash_each_by_itself() {
    let (live, crashed, node) = (directory(), directory(), FakeNode::start().await);
    let file =
        "[[transform]]\nkind = \"aggregate\"\nevery = \"1m\"\nfunctions = [\"p50\", \"p95\", \"count\"]\n";
    let gateway = |at: &Path| TestGateway::new().on_disk(at).node(&node).file(file);
    let tagged = |second: u32, value: i64, tags: Value| {
        let mut reading = at(second, value);
        reading["tags"] = tags;
        reading
    };
    let of_a = (1..=10).map(|value| tagged(value, value.into(), json!({"site": "a", "floor": "1"})));
    let of_b = (1..=3).map(|value| tagged(value, i64::from(value) * -100, json!({"site": "b"})));
    let readings: Vec<_> = of_a.chain(of_b).collect();
    let first = gateway(live.path()).start().await;
    first.post(&readings).await.expect_status(202);
    eventually("they are in their windows", || async { first.account("buffered").await == 13 }).await;
    copy(live.path(), crashed.path());
    let second = gateway(crashed.path()).start().await;
    // The same set of tags in another order, a minute later, closes the windows.
    let later = [tagged(61, 7, json!({"floor": "1", "site": "a"})), tagged(61, 7, json!({"site": "b"}))];
    second.post(&later).await.expect_status(202);
    eventually("the results arrive", || async { node.count() == 6 }).await;
    let mut results: Vec<_> = node
        .readings()
        .iter()
        .map(|result| format!("{} {} {}", result["sensor"], result["value"], result["tags"]).replace('"', ""))
        .collect();
    results.sort();
    let (a, b) = ("{floor:1,site:a,window:1m}", "{site:b,window:1m}");
    let expected = [
        format!("power_count 10 {a}"),
        format!("power_count 3 {b}"),
        format!("power_p50 -200.0 {b}"),
        format!("power_p50 5.0 {a}"),
        format!("power_p95 -100.0 {b}"),
        format!("power_p95 10.0 {a}"),
    ];
    assert_eq!(results, expected);
}

#[tokio::test]
async fn kept_windows_close_early_when_they_fill_the_buffer() {
    for disk in [false, true] {
        let (directory, node) = (directory(), FakeNode::start().await);
        let gateway = TestGateway::new().set("buffer.max_readings", 100).node(&node).file(KEPT_LONG);
        let gateway = if disk { gateway.on_disk(directory.path()) } else { gateway };
        let gateway = gateway.start().await;
        for second in 0..300 {
            let post = || async { gateway.post(&[at(second, 1)]).await.status == 202 };
            eventually(&format!("there is room for {second}, disk {disk}"), post).await;
        }
    }
}

#[tokio::test]
async fn a_few_readings_in_windows_do_not_fill_the_disk() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let file = "[[transform]]\nkind = \"aggregate\"\nevery = \"1h\"\nfunctions = [\"count\"]\nsensors = [\"power\"]\n";
    let gateway =
        TestGateway::new().set("buffer.max_bytes", "1MiB").on_disk(directory.path()).node(&node).file(file);
    let gateway = gateway.start().await;
    let mut other = at(0, "x".repeat(4000));
    other["sensor"] = "other".into();
    for round in 0..200 {
        for second in 0..2 {
            let post = || async { gateway.post(&vec![other.clone(); 10]).await.status == 202 };
            eventually(&format!("room in round {round}/{second}; ledger"), post).await;
        }
        let post = || async { gateway.post(&[at(round, 1)]).await.status == 202 };
        eventually(&format!("room in round {round}"), post).await;
    }
}

#[tokio::test]
async fn a_stop_with_a_node_away_makes_no_second_result_of_a_kept_window() {
    let directory = directory();
    let (node, nobody) = (FakeNode::start().await, FakeNode::always(Answer::status(503)).await);
    let gateway = |url: String| TestGateway::new().on_disk(directory.path()).node_at(url).file(KEPT_LONG);
    let first = gateway(nobody.url()).set("server.shutdown_timeout", "500ms").start().await;
    first.post(&[at(1, 5), at(2, 6)]).await.expect_status(202);
    eventually("it is tried", || async { nobody.requests() > 0 }).await;
    let _ = first.stop().await;
    let second = gateway(node.url()).start().await;
    eventually("they arrive", || async { node.count() == 2 }).await;
    second.post(&[at(3, 7)]).await.expect_status(202);
    let _ = second.stop().await;
    let counts = counts(&node);
    let total: u64 = counts.iter().map(|c| c.as_u64().expect("a sound disk")).sum();
    assert_eq!(total, 3, "each counts once: {counts:?}");
}

#[tokio::test]
async fn the_results_of_windows_stay_within_the_bound() {
    let file = "[[transform]]\nkind = \"aggregate\"\nevery = \"1s\"\nfunctions = [\"mean\", \"min\", \"max\", \"count\", \"sum\", \"first\", \"last\", \"stddev\", \"p50\", \"p95\", \"p99\"]\n";
    for disk in [false, true] {
        let (directory, node) = (directory(), FakeNode::always(Answer::status(503)).await);
        let gateway = TestGateway::new()
            .set("buffer.max_bytes", "8MiB")
            .set("server.shutdown_timeout", "10ms")
            .node(&node)
            .file(file);
        let gateway = if disk { gateway.on_disk(directory.path()) } else { gateway };
        let gateway = gateway.start().await;
        let readings: Vec<_> = (0..3600)
            .map(|second| {
                let mut reading = at(second, 1);
                let tags: serde_json::Map<_, _> =
                    (0..8).map(|i| (format!("tag{i}"), Value::from("x".repeat(200)))).collect();
                reading["tags"] = tags.into();
                reading
            })
            .collect();
        gateway.post(&readings).await.expect_status(202);
        eventually("results wait", || async { gateway.account("derived").await > 1000 }).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let bytes = gateway.metric("forebay_buffer_bytes").await.expect("a sound disk");
        assert!(bytes <= 8.0 * 1024.0 * 1024.0 * 2.0, "disk {disk}: {bytes} of 8 MiB are held");
    }
}

#[tokio::test]
async fn a_batch_of_the_last_run_goes_although_windows_fill_a_buffer_that_is_too_small_for_them() {
    let (directory, node) = (directory(), FakeNode::always(Answer::status(503)).await);
    let file =
        "[[transform]]\nkind = \"aggregate\"\nevery = \"1h\"\nfunctions = [\"sum\"]\nsensors = [\"power\"]\n";
    let gateway = || {
        let gateway = TestGateway::new().on_disk(directory.path()).node(&node).file(file);
        gateway.set("cluster.route", "shard").set("server.shutdown_timeout", "200ms")
    };
    let first = gateway().start().await;
    let windowed: Vec<_> = (0..50).map(|second| at(second, 1)).collect();
    first.post(&windowed).await.expect_status(202);
    let mut other = at(50, 7);
    other["sensor"] = "other".into();
    first.post(&[other.clone()]).await.expect_status(202);
    eventually("the batch with the later reading is tried", || async { node.requests() > 0 }).await;
    let _ = first.stop().await;
    node.answer_otherwise(Answer::status(200));
    // Fewer readings than were found, so the buffer stays overfull until something goes out of it.
    let second = gateway().set("buffer.max_readings", 10).start().await;
    eventually("the batch goes", || async { node.readings().contains(&other) }).await;
    drop(second);
}
