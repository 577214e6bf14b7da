//! InfluxDB takes lines, and stores the good ones of a batch that it refuses.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{NEVER, expect_settled, letters};
use crate::support::process::directory;
use crate::support::{
    Answer, FakeNode, Reading, ReceivedBatch, TestGateway, eventually, node_status, readings,
};

/// The value of each point by its series and time.
type Points = Arc<Mutex<BTreeMap<String, String>>>;

fn gateway(directory: &Path, node: &FakeNode, readings: usize) -> TestGateway {
    TestGateway::new()
        .set("cluster.format", "influx")
        .set("batch.max_readings", readings)
        .set("batch.max_age", NEVER)
        .set("dead_letter.path", directory.join("dead-letters").display())
        .node(node)
}

fn text(batch: &ReceivedBatch) -> String {
    String::from_utf8(batch.unpacked()).expect("UTF-8")
}

fn reading(sensor: &str, value: impl Into<Reading>, tags: Reading) -> Reading {
    let time = "2007-02-01T00:00:00.000000001Z";
    let mut reading =
        json!({"device": "m 7", "sensor": sensor, "value": value.into(), "time": time, "unit": "V"});
    if tags != json!({}) {
        reading["tags"] = tags;
    }
    reading
}

/// Treats a batch as InfluxDB does: the good lines are stored, and the answer names the others.
fn write(points: &Points, batch: &ReceivedBatch, is_bad: impl Fn(&str) -> bool) -> Answer {
    let text = text(batch);
    let (bad, good): (Vec<_>, Vec<_>) = text.lines().partition(|line| is_bad(line));
    let mut points = points.lock().expect("not poisoned");
    for line in good {
        let (series, rest) = line.split_once(" value=").expect("a field");
        let (value, time) = rest.rsplit_once(' ').expect("a time");
        points.insert(format!("{series} {time}"), value.to_owned());
    }
    if bad.is_empty() {
        return Answer::status(204);
    }
    let error = format!("partial write: field type conflict: input field \"value\" … dropped={}", bad.len());
    Answer::status(400).body(json!({ "error": error }).to_string())
}

#[tokio::test]
async fn readings_arrive_as_lines_with_the_promised_headers() {
    let sent = [
        reading("voltage", 230, json!({})),
        reading("volt age", 230.5, json!({"site": "a=b", "device": "x", "empty": ""})),
        reading("on", true, json!({})),
        reading("state", "a \"b\"\nc", json!({})),
    ];
    for (integers, whole, compression) in [("integer", "230i", "none"), ("float", "230", "gzip")] {
        let directory = directory();
        let node = FakeNode::start().await;
        let gateway = gateway(directory.path(), &node, sent.len())
            .set("cluster.influx.integers", integers)
            .set("cluster.compression", compression)
            .start()
            .await;
        gateway.post(&sent).await.expect_status(202);
        expect_settled(&gateway, 4, 0).await;
        let [batch] = &node.received()[..] else { panic!("one batch: {:?}", node.received()) };
        assert_eq!(batch.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(batch.header("forebay-readings"), "4");
        let time = "1170288000000000001";
        let expected = format!(
            "voltage,device=m\\ 7 value={whole} {time}\n\
             volt\\ age,device=m\\ 7,exported_device=x,site=a\\=b value=230.5 {time}\n\
             on,device=m\\ 7 value=true {time}\n\
             state,device=m\\ 7 value=\"a \\\"b\\\"\nc\" {time}\n"
        );
        assert_eq!(text(batch), expected);
    }
}

#[tokio::test]
async fn readings_that_line_protocol_cannot_hold_become_dead_letters_and_the_rest_is_delivered() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = gateway(directory.path(), &node, 5).start().await;
    let sent = [
        reading("#1", 1, json!({})),
        reading("s", 2, json!({"path": "C:\\"})),
        reading("s", 3, json!({"path": "C:\\x"})),
        reading("s", 4, json!({"note": "two\nlines"})),
        reading("s", 5, json!({"note": "a\ttab"})),
    ];
    gateway.post(&sent).await.expect_status(202);
    expect_settled(&gateway, 1, 4).await;
    let [batch] = &node.received()[..] else { panic!("one batch: {:?}", node.received()) };
    assert_eq!(text(batch), "s,device=m\\ 7,path=C:\\x value=3i 1170288000000000001\n");
    assert_eq!(batch.header("forebay-readings"), "1");
    let letters = letters(directory.path());
    assert_eq!(letters.len(), 4);
    for (letter, (reading, word)) in
        letters.iter().zip([(0, "comment"), (1, "backslash"), (3, "line feed"), (4, "tab")])
    {
        assert_eq!(letter["reading"], sent[reading]);
        assert_eq!((&letter["reason"], &letter["node"]), (&json!("unwritable"), &json!("")));
        assert!(letter["body"].as_str().expect("a text").contains(word), "{letter}");
    }
}

#[tokio::test]
async fn a_reading_that_conflicts_becomes_a_dead_letter_and_the_others_are_stored() {
    const COUNT: usize = 16;
    let (directory, points) = (directory(), Points::default());
    let node = FakeNode::judging({
        let points = Arc::clone(&points);
        move |batch| write(&points, batch, |line| line.contains("value=5i") || line.contains("value=11i"))
    })
    .await;
    let gateway = gateway(directory.path(), &node, COUNT).start().await;
    gateway.post(&readings(COUNT)).await.expect_status(202);
    expect_settled(&gateway, COUNT as u64 - 2, 2).await;
    let letters = letters(directory.path());
    let dead: Vec<_> = letters.iter().map(|letter| letter["reading"]["value"].as_u64()).collect();
    assert_eq!(dead, [Some(5), Some(11)]);
    for letter in &letters {
        assert_eq!((&letter["reason"], &letter["status"]), (&json!("refused"), &json!(400)));
        assert!(letter["body"].as_str().expect("a text").contains("field type conflict"), "{letter}");
    }
    let stored: Vec<_> = points.lock().expect("not poisoned").values().cloned().collect();
    let mut expected: Vec<_> = (0..COUNT).filter(|n| ![5, 11].contains(n)).map(|n| format!("{n}i")).collect();
    let mut stored = stored;
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn a_database_that_is_missing_is_no_fault_of_the_readings() {
    for (status, error) in [
        (400, "database is required"),
        (404, "database not found: \"readings\""),
        (500, "retention policy not found: nope"),
    ] {
        let directory = directory();
        let node = FakeNode::always(Answer::status(status).body(json!({ "error": error }).to_string())).await;
        let gateway = gateway(directory.path(), &node, 4).start().await;
        gateway.post(&readings(4)).await.expect_status(202);
        let told = || async { node_status(&gateway, &node.id()).await.to_string() };
        let words = serde_json::to_string(error).expect("JSON");
        let words = words.trim_matches('"').split('\\').next().expect("the beginning").to_owned();
        eventually("it is told", || async { told().await.contains(&words) }).await;
        eventually("it is tried again", || async { node.requests() >= 3 }).await;
        let ledger = gateway.ledger().await;
        assert_eq!((&ledger["buffered"], &ledger["dead_lettered"]), (&json!(4), &json!(0)), "{error}");
        node.answer_otherwise(Answer::status(204));
        expect_settled(&gateway, 4, 0).await;
    }
}
