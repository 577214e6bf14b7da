//! Prometheus takes numbers only, and refuses a request as a whole.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};

use super::{NEVER, all_settled, expect_settled, letters};
use crate::support::process::{block, directory};
use crate::support::{
    Answer, FakeNode, Reading, ReceivedBatch, TestGateway, eventually, reading, readings, to_json,
};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// The series of a batch, a line each, sorted.
fn series(batch: &ReceivedBatch) -> Vec<String> {
    let mut lines: Vec<_> = decode(batch)
        .timeseries
        .iter()
        .map(|series| {
            let labels: Vec<_> =
                series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
            let samples: Vec<_> = series
                .samples
                .iter()
                .map(|sample| format!("{}@{}", sample.value, sample.timestamp))
                .collect();
            format!("{} {}", labels.join(","), samples.join(","))
        })
        .collect();
    lines.sort();
    lines
}

fn decode(batch: &ReceivedBatch) -> WriteRequest {
    let request = snap::raw::Decoder::new().decompress_vec(&batch.body).expect("Snappy");
    WriteRequest::decode(&request[..]).expect("a WriteRequest")
}

/// The values of a batch, sorted.
fn values(batch: &ReceivedBatch) -> Vec<f64> {
    let samples = decode(batch).timeseries.into_iter().flat_map(|series| series.samples);
    let mut values: Vec<_> = samples.map(|sample| sample.value).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn gateway(directory: &Path, node: &FakeNode, readings: usize) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", "remote-write")
        .set("batch.max_readings", readings)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
        .node(node)
}

fn with_value(index: usize, value: impl Into<Value>) -> Reading {
    let mut reading = reading(index);
    reading["value"] = value.into();
    reading
}

/// A text at each of these places, numbers elsewhere.
fn mixed(count: usize, texts: &[usize]) -> Vec<Reading> {
    let text = |index| with_value(index, format!("text {index}"));
    (0..count).map(|index| if texts.contains(&index) { text(index) } else { reading(index) }).collect()
}

#[track_caller]
fn assert_not_numeric(letters: &[Value], expected: &[Reading]) {
    let found: Vec<_> = letters.iter().map(|letter| letter["reading"].clone()).collect();
    assert_eq!(found, expected);
    for letter in letters {
        assert_eq!(
            (&letter["reason"], &letter["node"], &letter["status"]),
            (&json!("not_numeric"), &json!(""), &json!(0))
        );
        assert_eq!(letter["body"], "the format of the nodes holds numbers only");
    }
}

#[tokio::test]
async fn readings_arrive_as_series_with_the_promised_headers() {
    let directory = directory();
    let node = FakeNode::answering([Answer::status(204)]).await;
    let gateway = gateway(directory.path(), &node, 5).start().await;
    let at = |sensor: &str, value: Value, time: &str, tags: Value| json!({"device": "m-7", "sensor": sensor, "value": value, "time": time, "tags": tags});
    let sent = [
        at("voltage", json!(230.5), "2007-02-01T00:00:02.0019Z", json!({})),
        at("voltage", json!(230), "2007-02-01T00:00:01Z", json!({})),
        at("door open", json!(true), "2007-02-01T00:00:01Z", json!({"site-name": "north", "device": "x"})),
        at("voltage", json!(231), "2007-02-01T00:00:01Z", json!({"site": "north", "empty": ""})),
        at("voltage", json!(false), "2007-02-01T00:00:03Z", json!({})),
    ];
    gateway.post(&sent).await.expect_status(202);
    expect_settled(&gateway, 5, 0).await;
    let [batch] = &node.received()[..] else { panic!("one batch: {:?}", node.received()) };
    assert_eq!(batch.header("content-type"), "application/x-protobuf");
    assert_eq!(batch.header("content-encoding"), "snappy");
    assert_eq!(batch.header("x-prometheus-remote-write-version"), "0.1.0");
    assert_eq!(batch.header("forebay-readings"), "5");
    assert_eq!(
        series(batch),
        [
            "__name__=door_open,device=m-7,exported_device=x,site_name=north 1@1170288001000",
            "__name__=voltage,device=m-7 230@1170288001000,230.5@1170288002001,0@1170288003000",
            "__name__=voltage,device=m-7,site=north 231@1170288001000",
        ]
    );
}

#[tokio::test]
async fn texts_become_dead_letters_and_the_numbers_of_their_batch_are_delivered() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = gateway(directory.path(), &node, 10).start().await;
    let texts = [0, 4, 5, 9];
    let sent = mixed(10, &texts);
    gateway.post(&sent).await.expect_status(202);
    expect_settled(&gateway, 6, 4).await;
    let [batch] = &node.received()[..] else { panic!("one batch: {:?}", node.received()) };
    assert_eq!(batch.header("forebay-readings"), "6");
    assert_eq!(values(batch), [1.0, 2.0, 3.0, 6.0, 7.0, 8.0]);
    assert_not_numeric(&letters(directory.path()), &texts.map(|index| sent[index].clone()));
    let metric = gateway.metric("forebay_readings_dead_lettered_total{reason=\"not_numeric\"}").await;
    assert_eq!(metric, Some(4.0));
}

#[tokio::test]
async fn a_batch_of_texts_alone_is_not_sent_and_ack_delivered_says_so() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = gateway(directory.path(), &node, 3).start().await;
    let sent = mixed(3, &[0, 1, 2]);
    let request = gateway.request("/v1/readings?ack=delivered").header("content-type", "application/json");
    let reply = gateway.send(request.body(to_json(&sent))).await;
    reply.expect_problem(422);
    expect_settled(&gateway, 0, 3).await;
    assert_eq!(node.requests(), 0);
    assert_not_numeric(&letters(directory.path()), &sent);
}

#[tokio::test]
async fn a_second_value_of_a_millisecond_is_not_sent_and_not_lost() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = gateway(directory.path(), &node, 4).start().await;
    let at = |value: Value, time: &str| json!({"device": "d", "sensor": "s", "value": value, "time": time});
    let sent = [
        at(json!(1), "2007-02-01T00:00:00.000000001Z"),
        at(json!("text"), "2007-02-01T00:00:00Z"),
        at(json!(2), "2007-02-01T00:00:00.000999Z"),
        at(json!(3), "2007-02-01T00:00:00.001Z"),
    ];
    gateway.post(&sent).await.expect_status(202);
    expect_settled(&gateway, 2, 2).await;
    let [batch] = &node.received()[..] else { panic!("one batch: {:?}", node.received()) };
    assert_eq!(series(batch), ["__name__=s,device=d 1@1170288000000,3@1170288000001"]);
    assert_eq!(batch.header("forebay-readings"), "2");
    let letters = letters(directory.path());
    let told: Vec<_> = letters.iter().map(|letter| (&letter["reading"], &letter["reason"])).collect();
    assert_eq!(told, [(&sent[1], &json!("not_numeric")), (&sent[2], &json!("unwritable"))]);
    assert!(letters[1]["body"].as_str().expect("a text").contains("one value of a series a millisecond"));
}

#[tokio::test]
async fn texts_that_cannot_be_written_down_hold_up_their_own_batch_and_no_other() {
    let directory = directory();
    let node = FakeNode::start().await;
    let place = directory.path().join("blocked");
    let gateway = gateway(directory.path(), &node, 2)
        .set("dead_letter.path", place.join("dead-letters").display())
        .start()
        .await;
    block(&place);
    gateway.post(&mixed(6, &[1])).await.expect_status(202);
    eventually("the others arrive", || async { gateway.account("delivered").await == 4 }).await;
    let trouble = || async {
        gateway.get("/status").await.expect_status(200).json()["dead_letters"]["trouble"].is_string()
    };
    eventually("it is told", trouble).await;
    assert_eq!(gateway.account("buffered").await, 2);
    fs::remove_file(&place).expect("removed");
    expect_settled(&gateway, 5, 1).await;
    assert_eq!(node.requests(), 3, "what is delivered is not sent again");
    assert_not_numeric(&letters(&place), &mixed(2, &[1])[1..]);
}

#[tokio::test]
async fn a_batch_is_the_same_bytes_under_the_same_key_on_each_try_and_after_a_restart() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let start = || async {
        let gateway = gateway(directory.path(), &node, 8).on_disk(directory.path());
        gateway.set("server.shutdown_timeout", "1ms").start().await
    };
    let running = start().await;
    let mut sent = mixed(7, &[2, 3]);
    // In the millisecond of another one.
    sent.push(with_value(6, 60));
    running.post(&sent).await.expect_status(202);
    eventually("it is tried again", || async { node.requests() >= 3 }).await;
    assert_eq!(running.stop().await.undelivered, 8);
    assert_eq!(letters(directory.path()), [] as [Value; 0], "nothing is settled yet");

    let before = node.requests();
    let running = start().await;
    eventually("it is tried again", || async { node.requests() > before + 1 }).await;
    node.answer_otherwise(Answer::status(204));
    expect_settled(&running, 5, 3).await;
    let carried: Vec<(String, Bytes)> =
        node.received().iter().map(|batch| (batch.key(), batch.body.clone())).collect();
    assert!(carried.iter().all(|batch| *batch == carried[0]), "{carried:?}");
    assert_eq!(values(&node.received()[0]), [0.0, 1.0, 4.0, 5.0, 6.0]);
    assert_eq!(letters(directory.path()).len(), 3);
}

#[tokio::test]
async fn a_refused_sample_does_not_affect_the_others() {
    const COUNT: usize = 16;
    for (status, error) in [
        (400, "out of order sample\n"),
        (400, "duplicate sample for timestamp\n"),
        (409, "conflict\n"),
        (500, "too old sample\n"),
    ] {
        let directory = directory();
        let node = FakeNode::judging(move |batch| match values(batch).contains(&11.0) {
            true => Answer::status(status).body(error),
            false => Answer::status(204),
        })
        .await;
        let gateway = gateway(directory.path(), &node, COUNT).start().await;
        gateway.post(&mixed(COUNT, &[3])).await.expect_status(202);
        expect_settled(&gateway, COUNT as u64 - 2, 2).await;
        let mut stored: Vec<_> = node.stored().iter().flat_map(values).collect();
        stored.sort_by(f64::total_cmp);
        let expected: Vec<_> = (0..16u8).filter(|n| ![3, 11].contains(n)).map(f64::from).collect();
        assert_eq!(stored, expected, "{error}");
        let letters = letters(directory.path());
        let mut reasons: Vec<_> = letters.iter().map(|letter| letter["reason"].to_string()).collect();
        reasons.sort();
        assert_eq!(reasons, ["\"not_numeric\"", "\"refused\""], "{error}");
        let refused = letters.iter().find(|letter| letter["reason"] == "refused").expect("one");
        assert_eq!((&refused["status"], &refused["body"]), (&json!(status), &json!(error)));
        assert_eq!(refused["reading"]["value"], 11);
    }
}

#[tokio::test]
async fn a_receiver_that_is_off_is_no_fault_of_the_readings() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(404).body("remote write receiver needs to be enabled")).await;
    let gateway = gateway(directory.path(), &node, 4).start().await;
    gateway.post(&readings(4)).await.expect_status(202);
    eventually("it is tried again", || async { node.requests() >= 3 }).await;
    assert_eq!(gateway.account("dead_lettered").await, 0);
    node.answer_otherwise(Answer::status(204));
    all_settled(&gateway).await;
    assert_eq!(gateway.account("delivered").await, 4);
}
