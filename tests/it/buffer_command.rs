//! The promises of `forebay buffer`: it shows the readings on disk, changes nothing, and repairs damage when asked to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::process::{Finished, Process, directory, forebay, run};
use crate::support::{self, FakeNode, readings};
use serde_json::Value;

const ANY_PORT: (&str, &str) = ("server.listen", "127.0.0.1:0");
/// Nobody is there, so that everything stays on disk.
const NODES: (&str, &str) = ("cluster.nodes", "http://127.0.0.1:9/v1/batches");
const STOP_SOON: (&str, &str) = ("server.shutdown_timeout", "100ms");

fn start(directory: &Path) -> Process {
    Process::start(forebay(directory, &["serve"], &[ANY_PORT, NODES, STOP_SOON]))
}

fn buffer(directory: &Path, command: &str) -> Finished {
    run(forebay(directory, &["buffer", command], &[]))
}

/// A gateway took `requests` requests of two readings each, and was stopped.
async fn left_behind(directory: &Path, requests: usize) {
    let process = start(directory);
    for _ in 0..requests {
        process.gateway().post(&readings(2)).await.expect_status(202);
    }
    process.terminate();
    process.ended().await.expect_status(0);
}

/// All files below the buffer's directory except the lock, with their contents.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory.join("data/buffer")).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.is_file() && !path.ends_with("lock"));
    files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Flips a bit within the payload of the second record.
fn damage(directory: &Path) {
    let (path, mut bytes) = files(directory)
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|extension| extension == "segment"))
        .expect("a segment");
    let length = u32::from_le_bytes(bytes[4100..4104].try_into().expect("four bytes")) as usize;
    let second = 4096 + (24 + length).next_multiple_of(8);
    bytes[second + 60] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn expect(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in\n{text}");
}

#[tokio::test]
async fn verify_and_dump_show_undelivered_readings_and_change_nothing() {
    let directory = directory();
    left_behind(directory.path(), 3).await;
    let before = files(directory.path());
    let verified = buffer(directory.path(), "verify").expect_status(0);
    expect(&verified.stdout, "3 requests, 6 readings, 6 not delivered");
    let dumped = buffer(directory.path(), "dump").expect_status(0);
    let lines: Vec<Value> =
        dumped.stdout.lines().map(|line| serde_json::from_str(line).expect("canonical JSON")).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], lines[2], "every request had the same readings");
    assert!(files(directory.path()) == before, "nothing has changed");
}

#[tokio::test]
async fn damage_is_reported_set_aside_by_repair_and_known_from_then_on() {
    let directory = directory();
    left_behind(directory.path(), 4).await;
    damage(directory.path());
    let verified = buffer(directory.path(), "verify").expect_status(1);
    expect(&verified.stdout, "3 requests, 6 readings, 6 not delivered");
    expect(&verified.stdout, "DAMAGED");
    expect(&verified.stdout, "cannot be read: 1 records");
    let dumped = buffer(directory.path(), "dump").expect_status(1);
    assert_eq!(dumped.stdout.lines().count(), 6);
    expect(&dumped.stderr, "forebay buffer verify");
    assert!(!directory.path().join("data/buffer/quarantine").exists(), "nothing has changed");

    let repaired = buffer(directory.path(), "repair").expect_status(0);
    expect(&repaired.stdout, "set aside");
    let quarantine = fs::read_dir(directory.path().join("data/buffer/quarantine")).expect("a directory");
    assert_eq!(quarantine.count(), 1);
    let verified = buffer(directory.path(), "verify").expect_status(0);
    expect(&verified.stdout, "sound, but for what is set aside");
    let again = buffer(directory.path(), "repair").expect_status(0);
    expect(&again.stdout, "nothing was damaged");

    let process = start(directory.path());
    assert_eq!(process.gateway().account("recovered").await, 6);
    process.terminate();
    let ended = process.ended().await.expect_status(0);
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_directory_that_a_gateway_uses_is_left_alone() {
    let directory = directory();
    let process = start(directory.path());
    for command in ["verify", "dump", "repair"] {
        let refused = buffer(directory.path(), command).expect_status(1);
        expect(&refused.stderr, "data/buffer is in use by another gateway");
    }
    process.terminate();
    process.ended().await.expect_status(0);
}

#[tokio::test]
async fn a_missing_directory_is_reported_and_not_made() {
    let directory = directory();
    for command in ["verify", "dump", "repair"] {
        let failed = run(forebay(directory.path(), &["buffer", command, "--path", "elsewhere"], &[]));
        expect(&failed.expect_status(1).stderr, "cannot use elsewhere: No such file or directory");
    }
    assert!(!directory.path().join("elsewhere").exists());
    run(forebay(directory.path(), &["buffer", "mend"], &[])).expect_status(2);
}

/// A gateway took requests with the keys 0 to 4, delivered them, and was stopped. Returns the file with the keys.
async fn keys_left_behind(directory: &Path) -> PathBuf {
    let node = FakeNode::start().await;
    let url = node.url();
    let settings = [ANY_PORT, ("cluster.nodes", &url), ("batch.max_age", "1ms")];
    let process = Process::start(forebay(directory, &["serve"], &settings));
    for key in 0..5 {
        post_with_key(&process, key).await;
    }
    process.terminate();
    process.ended().await.expect_status(0);
    directory.join("data/buffer/keys/00000000000000000001.segment")
}

async fn post_with_key(process: &Process, key: usize) {
    let client = forebay_load::client::builder().build().expect("a client");
    let request = client.post(process.gateway().url("/v1/readings")).body(support::to_json(&readings(1)));
    let answer = request.header("Idempotency-Key", format!("\"{key}\"")).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
}

/// The number of keys that a start counts as forgotten, and its log.
async fn keys_forgotten(directory: &Path) -> (f64, String) {
    let process = start(directory);
    let forgotten = process.gateway().metric("forebay_idempotency_keys_forgotten_total").await;
    process.terminate();
    (forgotten.expect("it is counted"), process.ended().await.expect_status(0).stderr)
}

#[tokio::test]
async fn lost_keys_are_reported_by_verify_and_by_one_start() {
    for length in [0, 100, 4096, 4500] {
        let directory = directory();
        let path = keys_left_behind(directory.path()).await;
        buffer(directory.path(), "verify").expect_status(0);
        let file = fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_len(length)).expect("a segment");
        let verified = buffer(directory.path(), "verify").expect_status(1);
        expect(
            &verified.stdout,
            "keys: remembered keys that are lost: an unknown number; a request that is sent",
        );
        let (forgotten, log) = keys_forgotten(directory.path()).await;
        assert!(forgotten >= 1.0, "{length}: {forgotten}");
        expect(&log, "remembered keys of clients on disk are lost");
        expect(&log, "an unknown number");
        let (forgotten, log) = keys_forgotten(directory.path()).await;
        assert!(forgotten == 0.0 && !log.contains("ERROR"), "{length}: it is told once: {log}");
        buffer(directory.path(), "verify").expect_status(0);
    }
}

#[tokio::test]
async fn damaged_keys_are_set_aside_by_repair() {
    let directory = directory();
    let path = keys_left_behind(directory.path()).await;
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[4096 + 30] ^= 1;
    fs::write(&path, bytes).expect("a segment");
    let verified = buffer(directory.path(), "verify").expect_status(1);
    expect(&verified.stdout, "keys: segment 1: bytes 4096 to");
    expect(&verified.stdout, "remembered keys that are lost: 1;");
    let quarantine = directory.path().join("data/buffer/keys/quarantine");
    assert!(!quarantine.exists(), "nothing has changed");
    let repaired = buffer(directory.path(), "repair").expect_status(0);
    expect(&repaired.stdout, "keys/quarantine");
    assert_eq!(fs::read_dir(quarantine).expect("a directory").count(), 1);
    buffer(directory.path(), "verify").expect_status(0);
    expect(&buffer(directory.path(), "repair").expect_status(0).stdout, "nothing was damaged");
    let (forgotten, log) = keys_forgotten(directory.path()).await;
    assert!(forgotten == 0.0 && !log.contains("ERROR"), "{log}");
}
