//! Keys and counts, whatever happens, and how room is made.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of a test are small")]

use super::*;

fn flaky(seed: u64) -> impl Iterator<Item = Answer> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..400).map(move |_| {
        let delay = millis(random.u64(..4));
        match random.u8(..10) {
            0 => Answer::status(503).after(delay),
            1 => Answer::status(500).after(delay),
            2 => Answer::status(429).header("retry-after", 0),
            3 => Answer::hang_up().after(delay),
            4 => Answer::status(404),
            5 => Answer::status(408),
            // Stored, and the gateway does not hear of it.
            6 if random.u8(..4) == 0 => Answer::status(200).after(millis(400)),
            _ => Answer::status(200).after(delay),
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_with_three_flaky_nodes_and_64_clients() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let nodes = [
        FakeNode::answering(flaky(seed)).await,
        FakeNode::answering(flaky(seed ^ 1)).await,
        FakeNode::answering(flaky(seed ^ 2)).await,
    ];
    let nodes = [&nodes[0], &nodes[1], &nodes[2]];
    let gateway = nodes.iter().fold(TestGateway::new(), |gateway, node| gateway.node(node));
    let gateway = gateway
        .set("batch.max_readings", 7)
        .set("cluster.timeout", "200ms")
        .set("cluster.compression", "zstd")
        .start()
        .await;
    let (clients, requests, size) = (64, 5, 5);
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let url = gateway.url("/v1/readings");
        tasks.spawn(async move {
            let http = forebay_load::client::builder().build().expect("a client");
            for request in 0..requests {
                let first = (client * requests + request) * size;
                let body = support::to_ndjson(&(first..first + size).map(reading).collect::<Vec<_>>());
                let post = http.post(&url).header("content-type", "application/x-ndjson").body(body);
                assert_eq!(post.send().await.expect("an answer").status(), StatusCode::ACCEPTED);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the client ends well");
    }
    let all = (clients * requests * size) as u64;
    eventually("all are settled", || async { gateway.account("delivered").await == all }).await;
    assert_eq!(stored_once(&nodes), (0..all).collect::<Vec<_>>());
    assert_keys_carry_the_same(&received(&nodes));
    let keys: BTreeSet<_> = nodes.iter().flat_map(|node| node.received()).map(|batch| batch.key()).collect();
    let batches = gateway.metric("forebay_batch_readings_count").await.expect("batches");
    assert_eq!(keys.len(), batches as usize, "one key each");
}

#[tokio::test]
async fn two_gateways_have_no_key_in_common() {
    let node = FakeNode::start().await;
    for _ in 0..2 {
        let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
        gateway.post(&readings(10)).await.expect_status(202);
        assert_eq!(gateway.stop().await.undelivered, 0);
    }
    let keys: BTreeSet<_> = node.received().iter().map(ReceivedBatch::key).collect();
    assert_eq!(keys.len(), 20);
}

// Making room.

/// Waits until the node has said when to come again, and nothing is on its way.
async fn first_answer_has_come(gateway: &RunningGateway, node: &FakeNode) {
    eventually("the node has said when to come again", || async {
        node.requests() == 1 && node_status(gateway, &node.id()).await["in_flight"] == 0
    })
    .await;
}

#[tokio::test]
async fn readings_that_replaced_dropped_ones_make_room_for_the_next_that_wait() {
    let node = FakeNode::always(Answer::status(503).header("retry-after", 60)).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("buffer.max_readings", 10)
        .set("buffer.on_full", "drop_oldest")
        .set("server.shutdown_timeout", "1ms")
        .start()
        .await;
    gateway.post(&readings(10)).await.expect_status(202);
    first_answer_has_come(&gateway, &node).await;
    // Nothing is on its way any more: nobody has to wait, however many come at once.
    let requests: Vec<_> = (0..20).map(|_| readings(10)).collect();
    let posts = futures_util::future::join_all(requests.iter().map(|request| gateway.post(request)));
    for reply in within(LIMIT, "all are taken", posts).await {
        reply.expect_status(202);
    }
    assert_eq!((gateway.account("dropped").await, gateway.account("buffered").await), (200, 10));
}

#[tokio::test]
async fn a_batch_closes_in_time_although_its_oldest_readings_make_room() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("buffer.max_readings", 10)
        .set("buffer.on_full", "drop_oldest")
        .set("batch.max_age", "200ms")
        .start()
        .await;
    let until = Instant::now() + LIMIT;
    let mut index = 0;
    while node.count() == 0 {
        assert!(Instant::now() < until, "something is delivered while more and more comes in: {index}");
        let newest: Vec<_> = (index..index + 10).map(reading).collect();
        gateway.post(&newest).await.expect_status(202);
        index += 10;
    }
}

#[tokio::test]
async fn the_rest_of_a_batch_goes_under_another_key_and_not_at_all_if_it_may_be_stored() {
    // A node that is busy has not stored the batch; one that fails inside may have.
    for (status, dropped) in [(503, 3), (500, 10)] {
        let node = FakeNode::answering([Answer::status(status).header("retry-after", 1)]).await;
        let gateway = TestGateway::new()
            .node(&node)
            .set("buffer.max_readings", 10)
            .set("buffer.on_full", "drop_oldest")
            .start()
            .await;
        gateway.post(&readings(10)).await.expect_status(202);
        first_answer_has_come(&gateway, &node).await;
        let newest: Vec<_> = (10..13).map(reading).collect();
        gateway.post(&newest).await.expect_status(202);
        assert_eq!(gateway.account("dropped").await, dropped, "{status}");
        eventually("the rest is settled", || async { gateway.account("buffered").await == 0 }).await;
        assert_eq!(stored_once(&[&node]), (dropped..13).collect::<Vec<_>>());
        let received = node.received();
        assert!(received[1..].iter().all(|batch| batch.key() != received[0].key()), "{status}");
    }
}
