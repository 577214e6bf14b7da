//! What is promised of the way from the buffer to the nodes.

mod support;

use support::{Answer, FakeNode, TestGateway, eventually, readings};

#[tokio::test]
async fn readings_arrive_at_the_node_in_canonical_form_with_the_promised_headers() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("cluster.headers.x-token", "secret").start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("the readings arrive", || async { node.readings() == readings(3) }).await;

    let batch = &node.received()[0];
    assert_eq!(batch.header("content-type"), "application/x-ndjson");
    assert_eq!(batch.header("forebay-readings"), "3");
    assert_eq!(batch.header("user-agent"), concat!("forebay/", env!("CARGO_PKG_VERSION")));
    assert_eq!(batch.header("x-token"), "secret");
    assert!(!batch.headers.contains_key("content-encoding"));
    assert!(!batch.key().is_empty());
    eventually("they are settled", || async { gateway.account("delivered").await == 3 }).await;
}

#[tokio::test]
async fn a_batch_that_fails_is_sent_again_with_the_same_key_and_readings() {
    let node = FakeNode::answering([503, 500, 429, 408].map(Answer::status)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("the readings arrive", || async { node.readings() == readings(3) }).await;

    let received = node.received();
    assert_eq!(received.len(), 5);
    assert!(received.iter().all(|batch| batch.key() == received[0].key() && batch.body == received[0].body));
}
