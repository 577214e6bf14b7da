//! The length of a stop whose buffer keeps the rest: it goes on while something that waits could still be delivered.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{DISK, SOON, nobody, serve};
use crate::support::process::{Finished, Process, block, directory};
use crate::support::{Answer, FakeNode, Reading, eventually, readings, to_json};

/// Longer than any stop here may take.
const TIMEOUT: (&str, &str) = ("server.shutdown_timeout", "40s");
const BATCHES: (&str, &str) = ("batch.max_age", "10ms");
const RETRY: (&str, &str) = ("cluster.retry.initial", "10ms");
const FAILURES: (&str, &str) = ("cluster.health.failures", "2");

/// A gateway with a buffer on disk, whose letters go to a directory that can be spoilt.
fn start(directory: &Path, nodes: &str, settings: &[(&str, &str)]) -> Process {
    let place = directory.join("letters");
    let letters = ("dead_letter.path", place.to_str().expect("UTF-8"));
    serve(directory, nodes, &[&[DISK, TIMEOUT, BATCHES, RETRY, FAILURES, letters], settings].concat())
}

/// After the start, which would not go on with such a place.
fn spoil_the_letters(directory: &Path) {
    block(&directory.join("letters"));
}

fn away() -> String {
    format!("http://{}/v1/batches", nobody())
}

/// Readings of many devices, so that some are of each node.
fn of_many_devices() -> Vec<Reading> {
    let mut readings = readings(24);
    for (number, reading) in readings.iter_mut().enumerate() {
        reading["device"] = format!("device-{number}").into();
    }
    readings
}

/// Stops it, and says how long that took.
async fn stop(process: Process) -> (Finished, Duration) {
    process.terminate();
    let begun = Instant::now();
    let ended = process.ended().await.expect_status(0);
    (ended, begun.elapsed())
}

/// Stops it while nothing can be delivered: it ends soon, and says how many readings are kept.
async fn expect_soon(process: Process, kept: usize) -> Finished {
    let (ended, took) = stop(process).await;
    assert!(took < SOON, "{took:?}: {}", ended.stderr);
    let line = ended.stderr.lines().find(|line| line.contains("stay on disk")).expect("a line that says so");
    assert!(line.contains(&format!("={kept}")), "{line}");
    assert!(ended.stderr.contains("what is not delivered is kept for the next start"), "{}", ended.stderr);
    ended
}

#[tokio::test]
async fn a_stop_ends_within_a_second_once_fewer_nodes_are_up_than_a_batch_has_to_reach() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let nodes = format!("{},{}", node.url(), away());
    let process = start(directory.path(), &nodes, &[("cluster.route", "replicate")]);
    let gateway = process.gateway();
    let waiting = gateway.request("/v1/readings?ack=delivered").body(to_json(&readings(3)));
    let waiting = tokio::spawn(async move { waiting.send().await.expect("an answer").status().as_u16() });
    let told = "1 of 2 nodes is up, and each batch has to reach 2";
    eventually("it is told", || async { process.log().contains(told) }).await;
    expect_soon(process, 3).await;
    assert_eq!(waiting.await.expect("no panic"), 503, "who waits is told");
    assert_eq!(node.count(), 3, "one of the copies");
}

#[tokio::test]
async fn a_stop_ends_within_a_second_once_the_nodes_are_away_that_the_devices_wait_for() {
    let shard = [("cluster.route", "shard"), ("cluster.shard.failover", "wait")];
    for readings in [readings(1), of_many_devices()] {
        let directory = directory();
        // One device has one node; the other one is never tried.
        let process = start(directory.path(), &format!("{},{}", away(), away()), &shard);
        process.gateway().post(&readings).await.expect_status(202);
        expect_soon(process, readings.len()).await;
    }
}

#[tokio::test]
async fn a_stop_ends_within_a_second_once_nothing_waits_but_letters_that_cannot_be_written() {
    for refused in [Answer::status(422), Answer::status(413)] {
        let (directory, node) = (directory(), FakeNode::always(refused).await);
        let process = start(directory.path(), &node.url(), &[]);
        spoil_the_letters(directory.path());
        let gateway = process.gateway();
        gateway.post(&readings(2)).await.expect_status(202);
        eventually("they are refused", || async { node.requests() >= 2 }).await;
        expect_soon(process, 2).await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_a_node_that_is_up_although_batches_of_others_are_stuck() {
    let slow = || Answer::status(200).after(Duration::from_secs(3));
    let shard = [("cluster.route", "shard"), ("cluster.shard.failover", "wait")];
    let (directory, node) = (directory(), FakeNode::always(slow()).await);
    let process = start(directory.path(), &format!("{},{}", node.url(), away()), &shard);
    process.gateway().post(&of_many_devices()).await.expect_status(202);
    eventually("the node has a batch", || async { node.requests() > 0 }).await;
    let (ended, took) = stop(process).await;
    assert!(took < Duration::from_secs(20), "{took:?}: {}", ended.stderr);
    let (taken, kept) = (node.count(), ended.stderr.lines().find(|line| line.contains("stay on disk")));
    assert!((1..24).contains(&taken), "each node has some of the devices: {taken}");
    let kept = kept.expect("a line that says so");
    assert!(kept.contains(&format!("={}", 24 - taken)), "all that came to the node is settled: {kept}");
}

#[tokio::test]
async fn a_stop_waits_for_a_node_that_is_up_although_letters_cannot_be_written() {
    let directory = directory();
    let node = FakeNode::judging(|batch| {
        let is_bad = batch.readings()[0]["value"] == 0;
        if is_bad { Answer::status(422) } else { Answer::status(200).after(Duration::from_secs(3)) }
    });
    let node = node.await;
    let process = start(directory.path(), &node.url(), &[("batch.max_readings", "1")]);
    spoil_the_letters(directory.path());
    process.gateway().post(&readings(3)).await.expect_status(202);
    eventually("all were sent", || async { node.requests() >= 3 }).await;
    let (ended, took) = stop(process).await;
    assert!(took < Duration::from_secs(20), "{took:?}: {}", ended.stderr);
    let kept = ended.stderr.lines().find(|line| line.contains("stay on disk")).expect("a line that says so");
    assert!(kept.contains("=1"), "{kept}");
}
