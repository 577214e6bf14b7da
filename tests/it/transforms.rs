//! The promises of the transforms: which readings go to the nodes, and where every other reading is.

use std::time::Duration;

use crate::support::process::{Process, directory, forebay};
use crate::support::{self, Answer, FakeNode, Gate, Reading, RunningGateway, TestGateway, at, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Long enough that no test sees a window close by its own time.
const LONG: &str = "[[transform]]\nkind = \"aggregate\"\nevery = \"1h\"\nfunctions = [\"sum\", \"count\"]\n";
/// Closes at once behind a later reading of the series.
const SHORT: &str =
    "[[transform]]\nkind = \"aggregate\"\nevery = \"10s\"\nfunctions = [\"sum\", \"count\"]\n";

/// A reading that a window made.
fn result(function: &str, second: u32, value: impl Into<Value>, window: &str) -> Reading {
    let mut reading = at(second, value);
    reading["sensor"] = format!("power_{function}").into();
    reading["tags"] = json!({ "window": window });
    reading
}

/// A gateway with a buffer of each kind.
fn each_kind() -> [(TestGateway, tempfile::TempDir); 2] {
    let (memory, disk) = (directory(), directory());
    [(TestGateway::new(), memory), (TestGateway::new().on_disk(disk.path()), disk)]
}

async fn until_account(gateway: &RunningGateway, account: &str, readings: u64) {
    eventually(&format!("{account} = {readings}"), || async { gateway.account(account).await == readings })
        .await;
}

#[tokio::test]
async fn readings_that_a_transform_takes_out_are_filtered_and_the_others_arrive() {
    let deadband = "[[transform]]\nname = \"calm\"\nkind = \"deadband\"\ndelta = 10\n";
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(deadband).start().await;
        let sent: Vec<_> = [0, 3, 9, 10, 12, 25, 24].into_iter().zip(0..).map(|(v, t)| at(t, v)).collect();
        gateway.post(&sent).await.expect_status(202);
        until_account(&gateway, "buffered", 0).await;
        assert_eq!(node.readings(), [at(0, 0), at(3, 10), at(5, 25)]);
        let ledger = gateway.ledger().await;
        assert_eq!((&ledger["filtered"], &ledger["delivered"]), (&json!(4), &json!(3)), "{ledger}");
        let filtered = gateway.metric("forebay_readings_filtered_total{transform=\"calm\"}").await;
        assert_eq!(filtered, Some(4.0));
        let status = gateway.get("/status").await.json();
        assert_eq!(
            (&status["transforms"][0]["name"], &status["transforms"][0]["filtered"]),
            (&json!("calm"), &json!(4))
        );
        let page = gateway.get("/").await.text();
        assert!(page.contains("Transforms") && page.contains("calm"), "{page}");
    }
}

#[tokio::test]
async fn the_result_of_a_window_takes_the_place_of_its_readings() {
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(SHORT).start().await;
        gateway.post(&[at(1, 5), at(2, 6)]).await.expect_status(202);
        gateway.post(&[at(9, 7), at(10, 100)]).await.expect_status(202);
        until_account(&gateway, "delivered", 2).await;
        assert_eq!(node.readings(), [result("sum", 0, 18, "10s"), result("count", 0, 3, "10s")]);
        let ledger = gateway.ledger().await;
        assert_eq!((&ledger["merged"], &ledger["derived"]), (&json!(3), &json!(2)), "{ledger}");
        assert_eq!(ledger["buffered"], 1, "the window of the last one is open");
        let metric =
            async |name: &str| gateway.metric(&format!("forebay_{name}{{transform=\"aggregate-1\"}}")).await;
        assert_eq!(metric("readings_merged_total").await, Some(3.0));
        assert_eq!(metric("readings_derived_total").await, Some(2.0));
        eventually("it shows", || async { metric("transform_open_windows").await == Some(1.0) }).await;
    }
}

#[tokio::test]
async fn transforms_run_in_their_order_and_the_result_of_one_goes_on_behind_it() {
    let chain = format!(
        "{SHORT}[[transform]]\nkind = \"deadband\"\ndelta = 5\nsensors = [\"*_sum\"]\n[[transform]]\nkind = \"aggregate\"\nevery = \"1m\"\nfunctions = [\"last\"]\nsensors = [\"*_sum\"]\n"
    );
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(&chain).start().await;
        // Sums of 1, 2, 30 and 90 in windows of 10 s; the second moved by less than 5.
        for (second, value) in [(0, 1), (10, 2), (20, 30), (60, 90), (70, 0), (140, 0)] {
            gateway.post(&[at(second, value)]).await.expect_status(202);
            // One window after the other.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut last = result("sum_last", 0, 30, "1m");
        last["sensor"] = "power_sum_last".into();
        eventually("the minute's window closes", || async { node.readings().contains(&last) }).await;
        let names: Vec<_> = node.readings().iter().map(|reading| reading["sensor"].clone()).collect();
        assert!(names.iter().all(|name| name != "power_sum" && name != "power"), "{names:?}");
        assert_eq!(gateway.account("filtered").await, 1);
        let status = gateway.get("/status").await.json();
        assert_eq!(status["transforms"][1]["filtered"], 1, "{status}");
    }
}

#[tokio::test]
async fn a_stop_delivers_the_readings_in_windows_in_memory() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).file(LONG).start().await;
    gateway.post(&[at(1, 5), at(2, 6)]).await.expect_status(202);
    eventually("they are in a window", || async {
        gateway.get("/status").await.json()["transforms"][0]["open_windows"] == 1
    })
    .await;
    assert_eq!(gateway.account("buffered").await, 2);
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!(node.readings(), [result("sum", 0, 11, "1h"), result("count", 0, 2, "1h")]);
}

#[tokio::test]
async fn a_window_on_disk_goes_on_after_a_stop_as_if_there_had_been_none() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let gateway = || TestGateway::new().on_disk(directory.path()).node(&node).file(SHORT).start();
    let first = gateway().await;
    first.post(&[at(1, 5)]).await.expect_status(202);
    let _ = first.stop().await;
    assert_eq!(node.count(), 0);
    let second = gateway().await;
    assert_eq!(second.account("recovered").await, 1);
    second.post(&[at(2, 6), at(11, 0)]).await.expect_status(202);
    until_account(&second, "delivered", 2).await;
    assert_eq!(node.readings(), [result("sum", 0, 11, "10s"), result("count", 0, 2, "10s")]);
    let _ = second.stop().await;
}

#[tokio::test]
async fn the_result_of_a_window_before_a_stop_is_delivered_after_it_and_not_made_again() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let gateway = |url: String| TestGateway::new().on_disk(directory.path()).node_at(url).file(SHORT);
    let nobody = FakeNode::always(Answer::status(503)).await;
    let first = gateway(nobody.url()).set("server.shutdown_timeout", "50ms").start().await;
    first.post(&[at(1, 5), at(2, 6), at(11, 0)]).await.expect_status(202);
    until_account(&first, "derived", 2).await;
    let keys = || nobody.received().iter().map(support::ReceivedBatch::key).collect::<Vec<_>>();
    eventually("it is tried", || async { !keys().is_empty() }).await;
    let _ = first.stop().await;
    let second = gateway(node.url()).start().await;
    assert_eq!(second.account("recovered").await, 3, "two results, and one reading in an open window");
    until_account(&second, "delivered", 2).await;
    assert_eq!(node.readings(), [result("sum", 0, 11, "10s"), result("count", 0, 2, "10s")]);
    assert_eq!(node.received()[0].key(), keys()[0], "under the same key");
    let _ = second.stop().await;
}

#[tokio::test]
async fn raw_readings_that_are_kept_arrive_at_once_and_are_settled_with_their_window() {
    let kept = format!("{SHORT}keep_raw = true\n");
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(&kept).start().await;
        gateway.post(&[at(1, 5), at(2, 6)]).await.expect_status(202);
        eventually("they arrive", || async { node.count() == 2 }).await;
        assert_eq!(node.readings(), [at(1, 5), at(2, 6)]);
        assert_eq!(gateway.account("buffered").await, 2, "their window is open");
        gateway.post(&[at(11, 0)]).await.expect_status(202);
        // Their window's results, and the three of them but the last.
        until_account(&gateway, "delivered", 4).await;
        let ledger = gateway.ledger().await;
        assert_eq!(
            (&ledger["merged"], &ledger["derived"], &ledger["buffered"]),
            (&json!(0), &json!(2), &json!(1))
        );
        let _ = gateway.stop().await;
        assert_eq!(node.count(), 7, "a stop closes their windows");
    }
}

#[tokio::test]
async fn raw_readings_that_were_delivered_are_not_sent_again_after_a_stop() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let kept = format!("{LONG}keep_raw = true\n");
    let gateway = || TestGateway::new().on_disk(directory.path()).node(&node).file(&kept).start();
    let first = gateway().await;
    first.post(&[at(1, 5), at(2, 6)]).await.expect_status(202);
    eventually("they arrive", || async { node.count() == 2 }).await;
    assert_eq!(first.stop().await.undelivered, 0);
    assert_eq!(node.readings()[2..], [result("sum", 0, 11, "1h"), result("count", 0, 2, "1h")]);
    let second = gateway().await;
    assert_eq!(second.account("recovered").await, 0);
    let _ = second.stop().await;
    assert_eq!(node.count(), 4);
}

#[tokio::test]
async fn a_request_that_waits_for_delivery_is_answered_when_its_windows_results_are_delivered() {
    for (gateway, _directory) in each_kind() {
        let gate = Gate::default();
        let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
        let gateway = gateway.node(&node).file(SHORT).start().await;
        let waiting = gateway.handle();
        let waits = tokio::spawn(async move {
            let request = waiting.request("/v1/readings?ack=delivered");
            waiting.send(request.body(support::to_json(&[at(1, 5), at(2, 6)]))).await
        });
        until_account(&gateway, "accepted", 2).await;
        gateway.post(&[at(11, 0)]).await.expect_status(202);
        until_account(&gateway, "merged", 2).await;
        eventually("it is sent", || async { node.requests() == 1 }).await;
        assert!(!waits.is_finished(), "nothing is delivered");
        gate.open();
        let answer = waits.await.expect("no panic").expect_status(202);
        assert_eq!(answer.json()["ack"], "delivered");
    }
}

#[tokio::test]
async fn a_request_whose_readings_are_all_taken_out_need_not_wait() {
    let dedupe = "[[transform]]\nkind = \"dedupe\"\nwindow = \"1h\"\n";
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(dedupe).start().await;
        for _ in 0..2 {
            let request = gateway.request("/v1/readings?ack=delivered");
            gateway.send(request.body(support::to_json(&[at(1, 5)]))).await.expect_status(202);
        }
        assert_eq!((node.count(), gateway.account("filtered").await), (1, 1));
    }
}

#[tokio::test]
async fn windows_close_early_when_their_readings_fill_the_buffer() {
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.set("buffer.max_readings", 100).node(&node).file(LONG).start().await;
        for second in 0..500 {
            let post = || async { gateway.post(&[at(second, 1)]).await.status == 202 };
            eventually("there is room", post).await;
        }
        eventually("they are counted", || async {
            gateway.get("/status").await.json()["transforms"][0]["evicted"].as_u64() > Some(3)
        })
        .await;
        let _ = gateway.stop().await;
        let counts = node.readings().into_iter().filter(|reading| reading["sensor"] == "power_count");
        let count: u64 = counts.map(|reading| reading["value"].as_u64().expect("a count")).sum();
        assert!((400..=500).contains(&count), "{count}");
    }
}

#[tokio::test]
async fn the_oldest_readings_make_room_although_windows_hold_others() {
    let node = FakeNode::always(Answer::status(503)).await;
    let narrow = format!("{LONG}devices = [\"meter-1\"]\n");
    let gateway = TestGateway::new()
        .set("buffer.max_readings", 100)
        .set("buffer.on_full", "drop_oldest")
        .node(&node)
        .file(&narrow)
        .start()
        .await;
    let mut other = at(0, 0);
    other["device"] = "meter-2".into();
    gateway.post(&vec![at(1, 1); 30]).await.expect_status(202);
    for _ in 0..20 {
        gateway.post(&vec![other.clone(); 10]).await.expect_status(202);
    }
    let ledger = gateway.ledger().await;
    assert_eq!(ledger["dropped"], 130, "{ledger}");
    eventually("the window is still open", || async {
        gateway.get("/status").await.json()["transforms"][0]["open_windows"] == 1
    })
    .await;
    // The readings in it were never given up.
    assert_eq!(gateway.account("merged").await, 0);
}

#[tokio::test]
async fn no_reading_passes_the_transforms_twice_when_others_are_given_up() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .set("buffer.max_readings", 8)
        .set("buffer.on_full", "drop_oldest")
        .node(&node)
        .file(LONG)
        .start()
        .await;
    for _ in 0..100 {
        // The last finds room when some of the others are given up, which may be anywhere then. None needs more than a
        // quarter of the buffer: windows make room for so much.
        let requests: Vec<_> = (1..=5).map(|second| vec![at(second, 1); 2]).collect();
        for reply in join_all(requests.iter().map(|request| gateway.post(request))).await {
            reply.expect_status(202);
        }
    }
    let dropped = gateway.account("dropped").await;
    let _ = gateway.stop().await;
    let readings = node.readings();
    assert!(dropped > 0 && readings.iter().all(|reading| reading["sensor"] != "power"), "{dropped} dropped");
}

#[tokio::test]
async fn a_gateway_with_nothing_to_do_uses_no_processor_time() {
    const SECOND: Duration = Duration::from_secs(1);
    let node = FakeNode::start().await;
    let kept = format!("{LONG}keep_raw = true\n[[transform]]\nkind = \"dedupe\"\nwindow = \"1h\"\n");
    for kind in ["memory", "disk"] {
        for file in ["", LONG, &kept] {
            let directory = directory();
            std::fs::write(directory.path().join("forebay.toml"), file).expect("written");
            let nodes = node.url();
            let settings =
                [("server.listen", "127.0.0.1:0"), ("buffer.kind", kind), ("cluster.nodes", &*nodes)];
            let arguments = ["serve", "--config", "forebay.toml"];
            let process = Process::start(forebay(directory.path(), &arguments, &settings));
            process.gateway().post(&[at(0, 1)]).await.expect_status(202);
            // The work is done soon; the quietest of some seconds counts, because the machine has other work.
            let mut least = u64::MAX;
            for _ in 0..5 {
                let before = process.processor_ticks();
                tokio::time::sleep(SECOND).await;
                least = least.min(process.processor_ticks() - before);
                if least <= 5 {
                    break;
                }
            }
            assert!(least <= 5, "{least} hundredths of a second each second, {kind}: {file}");
        }
    }
}

#[tokio::test]
async fn a_fault_of_a_transform_is_reported_with_its_place() {
    let directory = directory();
    let path = directory.path().join("forebay.toml");
    let toml = "[log]\nlevel = \"info\"\n\n[[transform]]\nkind = \"deadbnd\"\ndelta = 1\n\n[[transform]]\nkind = \"dedupe\"\nname = \"a b\"\nwindw = \"10m\"\n\n[[transform]]\nkind = \"aggregate\"\nevery = \"10\"\nfunctions = [\"median\"]\nsensors = \"power\"\n\n[[transform]]\n";
    std::fs::write(&path, toml).expect("written");
    let faults = forebay::config::Config::read(Some(&path), &[]).expect_err("faults");
    let shown = path.display().to_string();
    let faults: Vec<_> = faults.iter().map(|fault| fault.to_string().replace(&shown, "FILE")).collect();
    let has = |start: &str, part: &str| {
        assert!(
            faults.iter().any(|fault| fault.starts_with(start) && fault.contains(part)),
            "{start} {part} in {faults:#?}"
        );
    };
    has(
        "FILE:5: transform deadbnd-1: kind: `deadbnd` is no kind of transform; known: filter, map, dedupe",
        "",
    );
    has("FILE:10: transform a b: name: must be 1 to 64 letters", "got `a b`");
    has("FILE:11: transform a b: windw: unknown key, did you mean `window`?", "");
    has("FILE:8: transform a b: window: is missing", "");
    has("FILE:15: transform aggregate-3: every: ", "10");
    has("FILE:16: transform aggregate-3: functions: ", "median");
    has("FILE:17: transform aggregate-3: sensors: must be a list of strings", "");
    has("FILE:19: transform transform-4: kind: is missing: one of filter, map", "");
    assert_eq!(faults.len(), 8, "{faults:#?}");
    let single =
        forebay::config::Config::read(None, &[("FOREBAY__TRANSFORM__KIND".to_owned(), "filter".to_owned())]);
    let single = single.expect_err("a fault")[0].to_string();
    assert!(single.ends_with("must be tables in the file, each with the head [[transform]]"), "{single}");
}

#[tokio::test]
async fn a_filter_takes_out_readings_whose_expression_is_false_and_passes_those_on_which_it_fails() {
    let filter = "[[transform]]\nname = \"plausible\"\nkind = \"filter\"\nkeep = 'value > 10.0 && tags.site == \"north\"'\n";
    for (gateway, _directory) in each_kind() {
        let node = FakeNode::start().await;
        let gateway = gateway.node(&node).file(filter).start().await;
        let with_site = |second, value: i64, site: &str| {
            let mut reading = at(second, value);
            reading["tags"] = json!({ "site": site });
            reading
        };
        let sent = [
            with_site(0, 20, "north"),
            with_site(1, 20, "south"),
            with_site(2, 5, "north"),
            at(3, 20),
            at(4, "x"),
        ];
        gateway.post(&sent).await.expect_status(202);
        until_account(&gateway, "buffered", 0).await;
        assert_eq!(node.readings(), [sent[0].clone(), at(3, 20), at(4, "x")]);
        let failed =
            || async { gateway.metric("forebay_transform_failed_total{transform=\"plausible\"}").await };
        eventually("failures are counted", || async { failed().await == Some(2.0) }).await;
        assert_eq!(gateway.account("filtered").await, 2);
    }
}

#[tokio::test]
async fn a_map_changes_the_readings_for_nodes_and_a_dead_letter_has_the_original() {
    let map = "[[transform]]\nkind = \"map\"\nset = { value = \"value * 1000.0\", unit = \"'W'\", \"tags.site\" = \"'north'\" }\n";
    for (gateway, directory) in each_kind() {
        let gateway = gateway.set("dead_letter.path", directory.path().join("letters").display());
        let node = FakeNode::always(Answer::status(422)).await;
        let gateway = gateway.node(&node).file(map).start().await;
        gateway.post(&[at(0, 0.5)]).await.expect_status(202);
        until_account(&gateway, "dead_lettered", 1).await;
        let mut mapped = at(0, 500.0);
        mapped["unit"] = "W".into();
        mapped["tags"] = json!({ "site": "north" });
        assert_eq!(node.received()[0].readings(), [mapped.clone()]);
        let letters = std::fs::read_dir(directory.path().join("letters")).expect("a directory");
        let texts =
            letters.map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default());
        let text: String = texts.collect();
        let letter: Value = serde_json::from_str(text.lines().next().expect("a letter")).expect("JSON");
        assert_eq!(letter["reading"], at(0, 0.5), "replayed, it goes through the transforms again");
        let _ = gateway.stop().await;
    }
}

#[tokio::test]
async fn a_batch_that_may_have_been_sent_goes_out_again_as_it_was_mapped() {
    let directory = directory();
    let map = "[[transform]]\nkind = \"map\"\nset = { value = \"value * 2.0\" }\n[[transform]]\nkind = \"deadband\"\ndelta = 3\n";
    let node = FakeNode::always(Answer::hang_up().after_storing()).await;
    let gateway = |url: String| TestGateway::new().on_disk(directory.path()).node_at(url).file(map);
    let first = gateway(node.url()).set("server.shutdown_timeout", "50ms").start().await;
    first.post(&[at(0, 1), at(1, 2), at(2, 5)]).await.expect_status(202);
    eventually("it is sent", || async { node.requests() > 0 }).await;
    let _ = first.stop().await;
    let after = FakeNode::start().await;
    let second = gateway(after.url()).start().await;
    until_account(&second, "buffered", 0).await;
    assert_eq!(after.received()[0].body, node.received()[0].body);
    assert_eq!(after.received()[0].key(), node.received()[0].key());
    assert_eq!(after.readings(), [at(0, 2.0), at(2, 10.0)]);
    let _ = second.stop().await;
}
