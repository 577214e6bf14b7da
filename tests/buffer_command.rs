//! What `forebay buffer` promises: it shows what is on disk, changes nothing, and mends what is damaged.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::process::{Finished, Process, directory, forebay, run};
use support::readings;

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

/// All files below the buffer's directory, but the lock, with what is in them.
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
async fn verify_and_dump_show_what_is_not_delivered_and_change_nothing() {
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
async fn damage_is_told_set_aside_by_repair_and_known_from_then_on() {
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
async fn a_directory_that_is_not_there_is_told_and_not_made() {
    let directory = directory();
    for command in ["verify", "dump", "repair"] {
        let failed = run(forebay(directory.path(), &["buffer", command, "--path", "elsewhere"], &[]));
        expect(&failed.expect_status(1).stderr, "cannot use elsewhere: No such file or directory");
    }
    assert!(!directory.path().join("elsewhere").exists());
    run(forebay(directory.path(), &["buffer", "mend"], &[])).expect_status(2);
}
