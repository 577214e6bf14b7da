//! The promises for nodes that are found by a name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Answer, FakeNode, Names, RunningGateway, TestGateway, eventually, reading, readings};

/// A gateway whose nodes are those of the name.
fn gateway(names: &Names) -> TestGateway {
    TestGateway::new()
        .node_at("dns+http://store:9000/v1/batches")
        .resolver(Arc::new(names.clone()))
        .set("cluster.resolve_every", "20ms")
        .set("batch.max_readings", 1)
}

async fn deliver(gateway: &RunningGateway, index: usize) {
    gateway.post(&[reading(index)]).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
}

/// The nodes in `/status`, by their names.
async fn nodes(gateway: &RunningGateway) -> BTreeMap<String, Value> {
    let status = gateway.get("/status").await.expect_status(200).json();
    let nodes = status["nodes"].as_array().expect("nodes").clone();
    let delivered: u64 = nodes.iter().map(|node| node["delivered"].as_u64().expect("a number")).sum();
    assert_eq!(status["ledger"]["delivered"], delivered, "{status}");
    nodes.into_iter().map(|node| (node["id"].as_str().expect("a name").to_owned(), node)).collect()
}

async fn is_present(gateway: &RunningGateway, node: &FakeNode) -> bool {
    nodes(gateway).await.get(&node.id()).is_some_and(|node| node["present"] == true)
}

#[tokio::test]
async fn readings_wait_until_the_name_is_found_and_go_to_every_node_that_it_has() {
    let (first, second) = (FakeNode::start().await, FakeNode::start().await);
    let names = Names::default();
    let gateway = gateway(&names).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    let readiness = gateway.get("/readyz").await.expect_status(200).json();
    assert!(readiness["checks"]["nodes"]["reason"].to_string().contains("not found"), "{readiness}");
    names.set(&[&first, &second]);
    eventually("they are settled", || async { gateway.account("delivered").await == 3 }).await;
    let mut index = 3;
    while first.requests() == 0 || second.requests() == 0 {
        deliver(&gateway, index).await;
        index += 1;
    }
    let batch = first.received().remove(0);
    assert_eq!(batch.header("host"), "store:9000");
    gateway.get("/readyz").await.expect_status(200);
}

#[tokio::test]
async fn a_node_appears_goes_and_comes_back_and_the_books_add_up() {
    let (first, second) = (FakeNode::start().await, FakeNode::start().await);
    let names = Names::default();
    names.set(&[&first]);
    let gateway = gateway(&names).start().await;
    deliver(&gateway, 0).await;
    names.set(&[&second]);
    eventually("one has gone", || async { !is_present(&gateway, &first).await }).await;
    assert!(is_present(&gateway, &second).await);
    for index in 1..4 {
        deliver(&gateway, index).await;
    }
    assert_eq!((first.count(), second.count()), (1, 3));
    let gone = nodes(&gateway).await.remove(&first.id()).expect("still shown");
    assert_eq!((&gone["up"], &gone["delivered"]), (&Value::from(false), &Value::from(1)));
    assert_eq!(gateway.metric(&format!("forebay_node_up{{node=\"{}\"}}", first.id())).await, None);
    let delivered = format!("forebay_readings_delivered_total{{node=\"{}\"}}", first.id());
    assert_eq!(gateway.metric(&delivered).await, Some(1.0));

    names.fail();
    deliver(&gateway, 4).await;
    names.set(&[&first]);
    eventually("it is back", || async { is_present(&gateway, &first).await }).await;
    deliver(&gateway, 5).await;
    assert_eq!((first.count(), second.count(), gateway.metric(&delivered).await), (2, 4, Some(2.0)));
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn batches_waiting_for_a_removed_node_go_elsewhere_and_those_on_their_way_may_end_there() {
    let slow = FakeNode::always(Answer::status(200).after(Duration::from_millis(300))).await;
    let other = FakeNode::start().await;
    let names = Names::default();
    names.set(&[&slow]);
    let gateway = gateway(&names).set("cluster.max_in_flight", 2).start().await;
    gateway.post(&readings(10)).await.expect_status(202);
    eventually("two are on their way", || async { slow.requests() == 2 }).await;
    names.set(&[&other]);
    eventually("all are settled", || async { gateway.account("delivered").await == 10 }).await;
    assert_eq!((slow.count(), other.count()), (2, 8));
    let delivered = nodes(&gateway).await;
    assert_eq!(
        (&delivered[&slow.id()]["delivered"], &delivered[&other.id()]["delivered"]),
        (&2.into(), &8.into())
    );
}

#[tokio::test]
async fn the_system_finds_localhost() {
    let node = FakeNode::start().await;
    let port = node.id().rsplit_once(':').expect("a port").1.to_owned();
    let gateway = TestGateway::new().node_at(format!("dns+http://localhost:{port}/v1/batches")).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    assert_eq!(node.received()[0].header("host"), format!("localhost:{port}"));
    assert!(nodes(&gateway).await.contains_key(&node.id()), "its name is its address");
}
