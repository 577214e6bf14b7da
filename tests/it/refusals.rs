//! The promises for readings that nodes refuse.

#![expect(clippy::cast_precision_loss, reason = "numbers of a test are small")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::arrivals::{assert_keys_carry_the_same, by_device, numbers, reading_of};
use crate::support::process::{Process, block, directory, forebay, run};
use crate::support::{
    self, Answer, FakeNode, Gate, Reading, ReceivedBatch, RunningGateway, TestGateway, eventually,
    node_status, reading, readings,
};

/// Longer than any test: a pause of this length never ends.
const NEVER: &str = "1h";
/// The text with which nodes refuse a batch.
const WORDS: &str = "no such sensor";

/// The answer of a node that refuses batches with one of these readings.
fn verdict(batch: &ReceivedBatch, status: u16, bad: &[usize]) -> Answer {
    let is_bad = |number: &u64| bad.contains(&usize::try_from(*number).expect("small"));
    match numbers(&batch.readings()).iter().any(is_bad) {
        true => Answer::status(status).body(WORDS),
        false => Answer::status(200),
    }
}

async fn node_refusing(status: u16, bad: &[usize]) -> FakeNode {
    let bad = bad.to_vec();
    FakeNode::judging(move |batch| verdict(batch, status, &bad)).await
}

/// The first `count` readings without those at `bad`.
fn good(count: usize, bad: &[usize]) -> Vec<Reading> {
    (0..count).filter(|index| !bad.contains(index)).map(reading).collect()
}

/// Every kind of buffer, with dead letters in a directory of the test's own.
fn kinds() -> impl Iterator<Item = (TempDir, TestGateway)> {
    let in_memory = |directory: &TempDir| {
        TestGateway::new().set("dead_letter.path", directory.path().join("dead-letters").display())
    };
    let on_disk = |directory: &TempDir| TestGateway::new().on_disk(directory.path());
    let kinds: [&dyn Fn(&TempDir) -> TestGateway; 2] = [&in_memory, &on_disk];
    let made = kinds.map(|kind| {
        let directory = directory();
        let gateway = kind(&directory);
        (directory, gateway)
    });
    made.into_iter()
}

/// The lines of all dead letters below a directory.
fn lines(directory: &Path) -> Vec<String> {
    let file = directory.join("dead-letters/00000001.ndjson");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The numbers of the readings of dead letters.
fn letter_numbers(lines: &[String]) -> Vec<u64> {
    let letter = |line: &String| serde_json::from_str::<Value>(line).expect("JSON")["reading"].clone();
    numbers(&lines.iter().map(letter).collect::<Vec<_>>())
}

/// A reading without unit and tags as it must be written.
fn canonical(reading: &Reading) -> String {
    let Value::Object(members) = reading else { panic!("{reading} is no reading") };
    let member = |name: &str| format!("\"{name}\":{}", members[name]);
    format!("{{{}}}", ["device", "sensor", "value", "time"].map(member).join(","))
}

fn log2_up(number: usize) -> usize {
    usize::try_from(number.next_power_of_two().trailing_zeros()).expect("small")
}

async fn all_settled(gateway: &RunningGateway) {
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}

/// One batch of `count` readings, of which those at `bad` are refused.
async fn check_halving(gateway: TestGateway, directory: &Path, status: u16, count: usize, bad: &[usize]) {
    let what = format!("{status}: {bad:?} of {count}");
    let node = node_refusing(status, bad).await;
    let gateway = gateway
        .node(&node)
        .set("batch.max_readings", count)
        .set("batch.max_age", NEVER)
        .set("cluster.health.failures", 1)
        .start()
        .await;
    let before = Timestamp::from_system(wall_time());
    gateway.post(&readings(count)).await.expect_status(202);
    all_settled(&gateway).await;

    let stored: Vec<_> = node.stored().iter().flat_map(ReceivedBatch::readings).collect();
    assert_eq!(stored, good(count, bad), "{what}: each good one arrives once, in order");
    let requests = node.requests();
    let most = 2 * bad.len() * log2_up(count) + 1;
    assert!(requests <= most, "{what}: {requests} requests, at most {most}");
    assert_keys_carry_the_same(&node.received());
    let keys: BTreeSet<_> = node.received().iter().map(ReceivedBatch::key).collect();
    assert_eq!(keys.len(), requests, "{what}: each piece has its own key");

    let letters = lines(directory);
    assert_eq!(letters.len(), bad.len(), "{what}");
    for (line, bad) in letters.iter().zip(bad) {
        let (reading, node) = (canonical(&reading(*bad)), node.id());
        let begin = format!(
            r#"{{"reading":{reading},"reason":"refused","status":{status},"node":"{node}","body":"{WORDS}","at":""#
        );
        let at = line.strip_prefix(&begin).unwrap_or_else(|| panic!("{what}: {line} begins with {begin}"));
        let (at, origin) = at.split_once("\",\"batch\":\"").expect("the batch");
        assert!(origin.contains("\",\"place\":") && origin.ends_with('}'), "{what}: {origin}");
        assert!(Timestamp::parse(at).expect("an instant") >= before, "{what}: {at}");
    }
    let ledger = gateway.ledger().await;
    let accounts = (ledger["delivered"].clone(), ledger["dead_lettered"].clone());
    assert_eq!(accounts, (json!(count - bad.len()), json!(bad.len())), "{what}");
    let metric = gateway.metric("forebay_readings_dead_lettered_total{reason=\"refused\"}").await;
    assert_eq!(metric, Some(bad.len() as f64), "{what}");
    assert_eq!(node_status(&gateway, &node.id()).await["up"], true, "{what}: it is not ill");
}

#[tokio::test]
async fn refused_readings_become_dead_letters_in_few_requests_and_the_rest_arrives_once() {
    let table: [(usize, &[usize]); 14] = [
        (1, &[0]),
        (2, &[0]),
        (2, &[1]),
        (2, &[0, 1]),
        (3, &[1]),
        (8, &[3]),
        (8, &[0, 7]),
        (13, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (33, &[32]),
        (64, &[31, 32]),
        (100, &[]),
        (100, &[0, 50, 99]),
        (100, &[10, 11, 12, 13]),
        (1000, &[1, 333, 500, 998]),
    ];
    for (count, bad) in table {
        for status in [400, 422] {
            for (directory, gateway) in kinds() {
                check_halving(gateway, directory.path(), status, count, bad).await;
            }
        }
    }
}

#[tokio::test]
async fn of_a_long_answer_the_dead_letter_has_the_first_kibibyte() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(422).body("y".repeat(5000))).await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    all_settled(&gateway).await;
    let letter: Value = serde_json::from_str(&lines(directory.path())[0]).expect("JSON");
    assert_eq!(letter["body"], "y".repeat(1024));
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_the_node_arrives_in_pieces() {
    for (directory, gateway) in kinds() {
        let node = FakeNode::judging(|batch| match batch.readings().len() {
            0..=9 => Answer::status(200),
            _ => Answer::status(413),
        })
        .await;
        let gateway = gateway.node(&node).set("batch.max_readings", 100).set("batch.max_age", NEVER);
        let gateway = gateway.start().await;
        gateway.post(&readings(100)).await.expect_status(202);
        all_settled(&gateway).await;
        assert_eq!(node.readings(), readings(100), "in order");
        assert_eq!(gateway.account("delivered").await, 100);
        // One, two, four and eight pieces are too large.
        assert_eq!((node.requests(), node.stored().len()), (31, 16));
        assert_keys_carry_the_same(&node.received());
        let made = fs::read_dir(directory.path().join("dead-letters")).expect("made at the start");
        let names = made.map(|entry| entry.expect("an entry").file_name());
        let letters = names.filter(|name| Path::new(name).extension().is_some_and(|end| end == "ndjson"));
        assert_eq!(letters.count(), 0, "no dead letter is made");
    }
}

#[tokio::test]
async fn a_reading_that_is_too_large_by_itself_becomes_a_dead_letter() {
    for (directory, gateway) in kinds() {
        let node = FakeNode::judging(|batch| match batch.body.len() {
            0..1000 => Answer::status(200),
            _ => Answer::status(413).body("too much"),
        })
        .await;
        let gateway = gateway.node(&node).start().await;
        let mut large = reading(1);
        large["value"] = json!("x".repeat(1500));
        gateway.post(&[reading(0), large.clone(), reading(2)]).await.expect_status(202);
        all_settled(&gateway).await;
        assert_eq!(node.readings(), [reading(0), reading(2)]);
        let letters = lines(directory.path());
        let expected = format!(r#"{{"reading":{},"reason":"too_large","status":413,"#, canonical(&large));
        assert!(letters.len() == 1 && letters[0].starts_with(&expected), "{letters:?}");
        assert!(letters[0].contains(r#""body":"too much""#), "{letters:?}");
        let metric = gateway.metric("forebay_readings_dead_lettered_total{reason=\"too_large\"}").await;
        assert_eq!(metric, Some(1.0));
    }
}

#[tokio::test]
async fn failures_in_the_middle_of_the_halving_lose_and_double_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for (directory, gateway) in kinds() {
        let bad = [3, 17, 18, 39];
        let mut random = fastrand::Rng::with_seed(random.u64(..));
        let node = FakeNode::judging(move |batch| match (verdict(batch, 422, &bad), random.u8(..8)) {
            (_, 0) => Answer::status(503),
            (_, 1) => Answer::hang_up(),
            // Stored, or refused, and the gateway does not hear of it.
            (answer, 2) if answer.is_success() => Answer::hang_up().after_storing(),
            (answer, _) => answer,
        })
        .await;
        let gateway = gateway.node(&node).set("batch.max_readings", 20).start().await;
        gateway.post(&readings(40)).await.expect_status(202);
        all_settled(&gateway).await;
        assert_keys_carry_the_same(&node.received());
        let mut stored = numbers(&node.readings());
        stored.sort_unstable();
        assert_eq!(stored, numbers(&good(40, &bad)));
        let mut letters = letter_numbers(&lines(directory.path()));
        letters.sort_unstable();
        assert_eq!(letters, [3, 17, 18, 39]);
    }
}

#[tokio::test]
async fn dead_letters_that_cannot_be_written_stay_in_the_buffer_and_others_go_on() {
    for (directory, gateway) in kinds() {
        let node = node_refusing(422, &[0]).await;
        let place = directory.path().join("blocked");
        let gateway = gateway
            .node(&node)
            .set("dead_letter.path", place.join("dead-letters").display())
            .set("batch.max_readings", 1)
            .start()
            .await;
        // After the start, which would not go on with such a place.
        block(&place);
        assert!(trouble(&gateway).await.is_null());
        gateway.post(&readings(1)).await.expect_status(202);
        eventually("it is told", || async { trouble(&gateway).await.is_string() }).await;
        let told = trouble(&gateway).await.to_string();
        assert!(told.contains("blocked") && told.contains("os error"), "{told}");
        gateway.post(&(1..20).map(reading).collect::<Vec<_>>()).await.expect_status(202);
        eventually("the others arrive", || async { gateway.account("delivered").await == 19 }).await;
        eventually("it is tried again", || async { node.requests() >= 19 + 3 }).await;
        let ledger = gateway.ledger().await;
        assert_eq!((&ledger["buffered"], &ledger["dead_lettered"]), (&json!(1), &json!(0)));
        assert_eq!(node_status(&gateway, &node.id()).await["up"], true);

        fs::remove_file(&place).expect("removed");
        eventually("it is written", || async { gateway.account("dead_lettered").await == 1 }).await;
        assert!(trouble(&gateway).await.is_null());
        assert_eq!(letter_numbers(&lines(&place)), [0]);
        assert_keys_carry_the_same(&node.received());
    }
}

/// The state of dead letters that cannot be written, in `/status`.
async fn trouble(gateway: &RunningGateway) -> Value {
    gateway.get("/status").await.expect_status(200).json()["dead_letters"]["trouble"].clone()
}

#[tokio::test]
async fn readings_without_room_among_the_dead_letters_wait_until_some_are_removed() {
    for (directory, gateway) in kinds() {
        let node = node_refusing(422, &(0..10).collect::<Vec<_>>()).await;
        let gateway = gateway.node(&node).set("dead_letter.max_bytes", "1KiB").set("batch.max_readings", 1);
        let gateway = gateway.start().await;
        let sent: Vec<_> = (0..20).map(|number| reading_of(&format!("d{number}"), number)).collect();
        gateway.post(&sent).await.expect_status(202);
        eventually("it is told", || async { trouble(&gateway).await.is_string() }).await;
        eventually("the good ones arrive", || async { gateway.account("delivered").await == 10 }).await;
        let written = lines(directory.path());
        assert!(written.len() < 10 && written.concat().len() + written.len() <= 1024, "{written:?}");
        assert!(trouble(&gateway).await.to_string().contains("dead_letter.max_bytes"));
        assert_eq!(gateway.account("buffered").await, 10 - written.len() as u64);

        let mut seen: BTreeSet<u64> = BTreeSet::new();
        loop {
            // Asked once: the last one may be settled between two questions.
            let count = gateway.account("dead_lettered").await;
            if count == 10 {
                break;
            }
            let gone = purge(directory.path()).await;
            assert!(gone.iter().all(|number| seen.insert(*number)), "{gone:?}");
            eventually("what waits is written", || async { gateway.account("dead_lettered").await > count })
                .await;
        }
        assert!(trouble(&gateway).await.is_null());
        seen.extend(letter_numbers(&lines(directory.path())));
        assert_eq!(seen, (0..10).collect());
    }
}

/// Removes the dead letters that are there, as a person does; returns their numbers. Each has a device of its own.
async fn purge(directory: &Path) -> Vec<u64> {
    let there = letter_numbers(&lines(directory));
    for number in &there {
        let device = format!("d{number}");
        let arguments = ["dead-letters", "purge", "--yes", "--device", &device];
        let command = forebay(directory, &arguments, &[("dead_letter.path", "dead-letters")]);
        tokio::task::spawn_blocking(|| run(command)).await.expect("no panic").expect_status(0);
    }
    there
}

#[tokio::test]
async fn ack_delivered_hears_of_refused_readings_and_others_in_the_same_batch_do_not() {
    for (_directory, gateway) in kinds() {
        let node = node_refusing(400, &[2]).await;
        let gateway = gateway.node(&node).set("batch.max_readings", 8).set("batch.max_age", NEVER);
        let gateway = gateway.start().await;
        let post = |numbers: std::ops::Range<usize>| {
            let body = support::to_json(&numbers.map(reading).collect::<Vec<_>>());
            let request =
                gateway.request("/v1/readings?ack=delivered").header("content-type", "application/json");
            gateway.send(request.body(body))
        };
        let (with_bad, without) = tokio::join!(post(0..4), post(4..8));
        let detail = with_bad.expect_problem(422).detail();
        assert!(detail.contains("dead letter"), "{detail}");
        without.expect_status(202);
        let mut stored = numbers(&node.readings());
        stored.sort_unstable();
        assert_eq!(stored, [0, 1, 3, 4, 5, 6, 7], "the other ones of both are delivered");
    }
}

#[tokio::test]
async fn the_ledger_adds_up_all_the_while() {
    for (directory, gateway) in kinds() {
        let bad: Vec<usize> = (0..600).filter(|number| number % 37 == 5).collect();
        let node = node_refusing(422, &bad).await;
        let gateway = gateway.node(&node).set("batch.max_readings", 50).start().await;
        let handle = gateway.handle();
        let posts = tokio::spawn(async move {
            for request in readings(600).chunks(20) {
                handle.post(request).await.expect_status(202);
            }
        });
        let mut asked = 0;
        // Every look at the ledger adds it up.
        while !posts.is_finished() || gateway.account("buffered").await > 0 {
            assert!(gateway.account("dead_lettered").await <= bad.len() as u64);
            asked += 1;
        }
        assert!(asked > 5, "{asked}");
        posts.await.expect("all are taken");
        assert_eq!(gateway.account("dead_lettered").await, bad.len() as u64);
        assert_eq!(gateway.account("delivered").await, 600 - bad.len() as u64);
        assert_eq!(letter_numbers(&lines(directory.path())).len(), bad.len());
    }
}

#[tokio::test]
async fn a_node_that_refuses_is_well() {
    let node = node_refusing(422, &(0..60).collect::<Vec<_>>()).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.health.failures", 1)
        .set("cluster.health.probe", NEVER)
        .start()
        .await;
    gateway.post(&readings(60)).await.expect_status(202);
    all_settled(&gateway).await;
    let status = node_status(&gateway, &node.id()).await;
    assert_eq!(
        (&status["up"], &status["breaker"], &status["ejected"]),
        (&json!(true), &json!("closed"), &json!(false))
    );
    let outcome = format!("forebay_batches_total{{node=\"{}\",outcome=\"refused\"}}", node.id());
    assert_eq!(gateway.metric(&outcome).await, Some(60.0));
    gateway.get("/readyz").await.expect_status(200);
}

#[tokio::test]
async fn a_devices_readings_stay_in_order_when_some_are_refused() {
    for (directory, gateway) in kinds() {
        let bad: Vec<usize> = (0..120).filter(|number| number % 11 == 4).collect();
        let node = node_refusing(422, &bad).await;
        let gateway =
            gateway.node(&node).set("cluster.route", "shard").set("batch.max_readings", 10).start().await;
        let sent: Vec<_> = (0..120).map(|number| reading_of(&format!("d{}", number % 3), number)).collect();
        for request in sent.chunks(7) {
            gateway.post(request).await.expect_status(202);
        }
        all_settled(&gateway).await;
        let arrived = by_device(node.received());
        let expected = |device: usize| {
            (0..120)
                .filter(move |number| number % 3 == device && number % 11 != 4)
                .map(|number| number as u64)
        };
        for device in 0..3 {
            assert_eq!(arrived[&format!("d{device}")], expected(device).collect::<Vec<_>>());
        }
        assert_eq!(lines(directory.path()).len(), bad.len());
    }
}

// The readings on disk are delivered after a stop or a kill in the middle of the halving.

const COUNT: usize = 16;
const BAD: [usize; 3] = [2, 3, 12];

/// Takes part in the halving until its `last` request, which it keeps waiting.
async fn node_until(last: usize) -> (FakeNode, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let node = FakeNode::judging(move |batch| {
        match counted.fetch_add(1, Ordering::Relaxed) {
            before if before < last => verdict(batch, 422, &BAD),
            // The good readings in it are delivered all the same.
            _ => verdict(batch, 422, &BAD).behind(&Gate::default()),
        }
    })
    .await;
    (node, count)
}

/// One device's readings in their order, so that they make a batch each time.
fn sixteen() -> Vec<Reading> {
    (0..COUNT).map(|number| reading_of("d", number)).collect()
}

/// Each good one arrived once, in order, and of each bad one there is a letter.
fn check_all_arrived(node: &FakeNode, directory: &Path) {
    let expected: Vec<_> =
        (0..COUNT).filter(|number| !BAD.contains(number)).map(|number| number as u64).collect();
    assert_eq!(by_device(node.received())["d"], expected);
    assert_keys_carry_the_same(&node.received());
    let letters: BTreeSet<_> = letter_numbers(&lines(directory)).into_iter().collect();
    assert_eq!(letters, BAD.map(|number| number as u64).into());
}

#[tokio::test]
async fn a_stop_in_the_middle_of_the_halving_loses_and_doubles_nothing() {
    for last in 0..14 {
        let directory = directory();
        let (node, requests) = node_until(last).await;
        let gateway = || {
            TestGateway::new()
                .on_disk(directory.path())
                .node(&node)
                .set("cluster.route", "shard")
                .set("batch.max_readings", COUNT)
                .set("server.shutdown_timeout", "1ms")
        };
        let running = gateway().start().await;
        running.post(&sixteen()).await.expect_status(202);
        eventually("it is in the middle of it", || async { requests.load(Ordering::Relaxed) > last }).await;
        assert!(running.stop().await.undelivered > 0, "{last}");
        node.judge_otherwise(|batch| verdict(batch, 422, &BAD));
        let running = gateway().set("server.shutdown_timeout", "10s").start().await;
        all_settled(&running).await;
        check_all_arrived(&node, directory.path());
        assert_eq!(letter_numbers(&lines(directory.path())).len(), BAD.len(), "{last}: each letter once");
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_the_halving_loses_and_doubles_nothing() {
    for last in [0, 3, 7, 11] {
        let directory = directory();
        let (node, requests) = node_until(last).await;
        let url = node.url();
        let settings = [
            ("server.listen", "127.0.0.1:0"),
            ("buffer.path", "buffer"),
            ("dead_letter.path", "dead-letters"),
            ("batch.max_readings", "16"),
            ("batch.max_age", "10ms"),
            ("cluster.nodes", &url),
            ("cluster.route", "shard"),
        ];
        let start = || {
            let command = forebay(directory.path(), &["serve"], &settings);
            tokio::task::spawn_blocking(|| Process::start(command))
        };
        let process = start().await.expect("it starts");
        process.gateway().post(&sixteen()).await.expect_status(202);
        eventually("it is in the middle of it", || async { requests.load(Ordering::Relaxed) > last }).await;
        process.kill().await;
        node.judge_otherwise(|batch| verdict(batch, 422, &BAD));
        let process = start().await.expect("it starts again");
        all_settled(&process.gateway()).await;
        check_all_arrived(&node, directory.path());
    }
}
