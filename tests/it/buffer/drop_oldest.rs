//! `buffer.on_full = "drop_oldest"`.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use super::*;

#[tokio::test]
async fn drop_oldest_drops_exactly_the_oldest_and_counts_them() {
    let node = FakeNode::start().await;
    // Nothing is sent before the end: the batch waits for more.
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("batch.max_age", "1h");
    let gateway = gateway.start().await;
    for index in 0..10 {
        gateway.post(&from(index, 1)).await.expect_status(202);
        assert_eq!(gateway.account("dropped").await, (index as u64 + 1).saturating_sub(4));
    }
    expect_accounts(&gateway, 10, 0, 6).await;
    assert_eq!(gateway.metric(r#"forebay_readings_dropped_total{reason="full"}"#).await, Some(6.0));
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!(values(&node.readings()), [6, 7, 8, 9]);
}

#[tokio::test]
async fn drop_oldest_takes_no_more_of_a_request_than_must_go() {
    let node = FakeNode::start().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("batch.max_age", "1h");
    let gateway = gateway.start().await;
    gateway.post(&from(0, 4)).await.expect_status(202);
    gateway.post(&from(4, 1)).await.expect_status(202);
    expect_accounts(&gateway, 5, 0, 1).await;
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!(values(&node.readings()), [1, 2, 3, 4]);
}

#[tokio::test]
async fn drop_oldest_makes_room_in_bytes_too() {
    let node = FakeNode::start().await;
    let gateway = bounded(1000, &node).set("buffer.on_full", "drop_oldest").set("batch.max_age", "1h");
    let gateway = gateway.set("buffer.max_bytes", "4KiB").start().await;
    for index in 0..100 {
        gateway.post(&from(index, 1)).await.expect_status(202);
        let status = gateway.get("/status").await.json();
        assert!(status["buffer"]["bytes"].as_u64().expect("a number") <= 4096, "{status}");
    }
    let dropped = gateway.account("dropped").await;
    assert!((1..100).contains(&dropped), "{dropped}");
    assert_eq!(gateway.stop().await.undelivered, 0);
    assert_eq!(values(&node.readings()), (dropped..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn drop_oldest_with_a_node_that_is_down_delivers_the_newest_when_it_is_back() {
    let node = FakeNode::start().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").start().await;
    let address = node.stop().await;
    for index in 0..50 {
        gateway.post(&from(index, 1)).await.expect_status(202);
    }
    eventually("those that do not fit are dropped", || async { gateway.account("dropped").await == 46 })
        .await;
    expect_accounts(&gateway, 50, 0, 46).await;
    let node = FakeNode::start_at(address).await;
    eventually("the rest arrives", || async { gateway.account("delivered").await == 4 }).await;
    expect_accounts(&gateway, 50, 4, 46).await;
    let mut arrived = values(&node.readings());
    arrived.sort_unstable();
    // An older one may have been on its way at the moment, in vain.
    assert_eq!(arrived.len(), 4);
    assert_eq!(arrived[1..], [47, 48, 49]);
}

#[tokio::test]
async fn drop_oldest_with_a_node_that_answers_503_drops_batches_that_wait_for_a_retry() {
    let patience = Answer::status(503).header("retry-after", "2");
    let node = FakeNode::answering([patience]).await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway = gateway.start().await;
    gateway.post(&from(0, 1)).await.expect_status(202);
    eventually("it has been refused", || async {
        let batches = format!(r#"forebay_batches_total{{node="{}",outcome="unavailable"}}"#, node.id());
        gateway.metric(&batches).await == Some(1.0)
    })
    .await;
    for index in 1..10 {
        gateway.post(&from(index, 1)).await.expect_status(202);
    }
    expect_accounts(&gateway, 10, 0, 6).await;
    eventually("the newest arrive", || async { gateway.account("delivered").await == 4 }).await;
    assert_eq!(values(&node.readings()), [6, 7, 8, 9]);
    expect_accounts(&gateway, 10, 4, 6).await;
}

#[tokio::test]
async fn a_batch_that_loses_readings_to_newer_ones_goes_on_under_another_key() {
    let patience = Answer::status(503).header("retry-after", "1");
    let node = FakeNode::answering([patience]).await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway = gateway.start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    eventually("it waits for its retry", || async {
        let batches = format!(r#"forebay_batches_total{{node="{}",outcome="unavailable"}}"#, node.id());
        gateway.metric(&batches).await == Some(1.0)
    })
    .await;
    gateway.post(&from(3, 2)).await.expect_status(202);
    eventually("what is left arrives", || async { gateway.account("delivered").await == 4 }).await;
    expect_accounts(&gateway, 5, 4, 1).await;

    let received = node.received();
    let carried: Vec<_> = received.iter().map(|batch| values(&batch.readings())).collect();
    assert_eq!(carried, [vec![0, 1, 2], vec![1, 2], vec![3, 4]]);
    let keys: BTreeSet<_> = received.iter().map(|batch| batch.key()).collect();
    assert_eq!(keys.len(), 3, "other readings, another key");
}

#[tokio::test]
async fn drop_oldest_with_a_node_that_hangs_keeps_batches_on_their_way_and_drops_the_next() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway = gateway.start().await;
    gateway.post(&from(0, 1)).await.expect_status(202);
    eventually("it is on its way", || async { node.received().len() == 1 }).await;
    for index in 1..10 {
        gateway.post(&from(index, 1)).await.expect_status(202);
    }
    expect_accounts(&gateway, 10, 0, 6).await;
    gate.open();
    eventually("the rest arrives", || async { gateway.account("delivered").await == 4 }).await;
    assert_eq!(values(&node.readings()), [0, 7, 8, 9]);
    expect_accounts(&gateway, 10, 4, 6).await;
}

#[tokio::test]
async fn drop_oldest_waits_only_while_everything_is_on_its_way() {
    let (node, gate) = gated_node().await;
    let gateway =
        bounded(4, &node).set("buffer.on_full", "drop_oldest").set("server.request_timeout", "300ms");
    let gateway = gateway.start().await;
    gateway.post(&from(0, 4)).await.expect_status(202);
    eventually("they are on their way", || async { node.received().len() == 1 }).await;
    expect_full(gateway.post(&from(4, 1)).await);
    expect_accounts(&gateway, 4, 0, 0).await;
    let mut waiting = begin_post(&gateway, &from(5, 1)).await;
    gate.open();
    waiting.reply().await.expect_status(202);
    eventually("all arrive", || async { gateway.account("delivered").await == 5 }).await;
    expect_accounts(&gateway, 5, 5, 0).await;
}

#[tokio::test]
async fn drop_oldest_with_a_node_that_never_answers_goes_on_taking_the_newest() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = bounded(20, &node).set("buffer.on_full", "drop_oldest").set("cluster.timeout", "50ms");
    let gateway = gateway.start().await;
    for index in 0..30 {
        gateway.post(&from(index * 5, 5)).await.expect_status(202);
    }
    let ledger = gateway.ledger().await;
    assert_eq!(ledger["accepted"], 150);
    assert!(ledger["dropped"].as_u64().expect("a number") >= 130, "{ledger}");
    node.answer_otherwise(Answer::status(200));
    eventually("the rest is delivered", || async { gateway.account("buffered").await == 0 }).await;
    let newest = from(149, 1);
    let arrived = node.received().into_iter().filter(|batch| batch.status == 200);
    assert!(arrived.flat_map(|batch| batch.readings()).any(|reading| reading == newest[0]));
}

#[tokio::test]
async fn drop_oldest_drops_nothing_when_that_would_not_give_back_enough_bytes() {
    let (node, gate) = gated_node().await;
    let gateway =
        bounded(1_000_000, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway =
        gateway.set("buffer.max_bytes", "400KiB").set("server.request_timeout", "300ms").start().await;
    gateway.post(&from(0, 6500)).await.expect_status(202);
    eventually("its first batch is on its way", || async { node.received().len() == 1 }).await;
    // The bytes of a request come back with its last reading, and some are on their way.
    expect_full(gateway.post(&from(6500, 6500)).await);
    expect_accounts(&gateway, 6500, 0, 0).await;
    gate.open();
    eventually("all arrive", || async { gateway.account("delivered").await == 6500 }).await;
    assert_eq!(node.readings(), from(0, 6500));
}

#[tokio::test]
async fn drop_oldest_makes_room_in_bytes_with_the_oldest_request_of_which_nothing_is_on_its_way() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(1000, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway = gateway.set("batch.max_readings", 20).set("buffer.max_bytes", "8KiB").start().await;
    let bytes =
        || async { gateway.get("/status").await.json()["buffer"]["bytes"].as_u64().expect("a number") };
    gateway.post(&from(0, 50)).await.expect_status(202);
    eventually("its first batch is on its way", || async { node.received().len() == 1 }).await;
    let first = bytes().await;
    gateway.post(&from(50, 10)).await.expect_status(202);
    let each = bytes().await - first;
    let mut count = 1;
    while first + (count + 1) * each <= 8192 {
        gateway.post(&from(50 + 10 * count as usize, 10)).await.expect_status(202);
        count += 1;
    }
    expect_accounts(&gateway, 50 + 10 * count, 0, 0).await;
    gateway.post(&from(50 + 10 * count as usize, 10)).await.expect_status(202);
    expect_accounts(&gateway, 60 + 10 * count, 0, 10).await;
    gate.open();
    eventually("the rest arrives", || async { gateway.account("buffered").await == 0 }).await;
    assert_eq!(node.readings(), [from(0, 50), from(60, 10 * count as usize)].concat());
}

#[tokio::test]
async fn drop_oldest_drops_nothing_when_that_would_not_give_back_enough_readings() {
    let (node, gate) = gated_node().await;
    let gateway = bounded(4, &node).set("buffer.on_full", "drop_oldest").set("cluster.max_in_flight", 1);
    let gateway = gateway.set("server.request_timeout", "300ms").start().await;
    gateway.post(&from(0, 3)).await.expect_status(202);
    eventually("they are on their way", || async { node.received().len() == 1 }).await;
    gateway.post(&from(3, 1)).await.expect_status(202);
    expect_full(gateway.post(&from(4, 2)).await);
    expect_accounts(&gateway, 4, 0, 0).await;
    gate.open();
    eventually("all arrive", || async { gateway.account("delivered").await == 4 }).await;
    assert_eq!(node.readings(), from(0, 4));
}
