//! Several nodes, and nodes that mean harm.

use super::*;

#[tokio::test]
async fn a_retry_goes_to_another_node_first() {
    // Probes are due all the time and delays are longer than their interval: they must not lead back either.
    for (failure, probe) in [(500, "1h"), (500, "1ms"), (404, "1ms")] {
        let bad = FakeNode::always(Answer::status(failure)).await;
        let good = FakeNode::start().await;
        let gateway = TestGateway::new()
            .node(&bad)
            .node(&good)
            .set("batch.max_readings", 1)
            .set("cluster.health.probe", probe)
            .set("cluster.health.failures", 1)
            .start()
            .await;
        for index in 0..40 {
            gateway.post(&[reading(index)]).await.expect_status(202);
            eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        }
        let mut tries: BTreeMap<String, usize> = BTreeMap::new();
        for batch in bad.received() {
            *tries.entry(batch.key()).or_default() += 1;
        }
        assert!(!tries.is_empty());
        assert!(tries.values().all(|count| *count == 1), "{failure}, {probe}: {tries:?}");
    }
}

#[tokio::test]
async fn a_dead_node_among_three_is_not_noticed_by_clients_and_is_probed() {
    let dead = FakeNode::start().await;
    let (first, second) = (FakeNode::start().await, FakeNode::start().await);
    let gateway =
        TestGateway::new().node(&dead).node(&first).node(&second).set("batch.max_readings", 2).start().await;
    let id = dead.id();
    let address = dead.stop().await;
    let mut sent = 0;
    let mut post = async || {
        let reply = within(LIMIT, "an answer", gateway.post(&[reading(sent), reading(sent + 1)])).await;
        reply.expect_status(202);
        sent += 2;
    };
    for _ in 0..100 {
        post().await;
    }
    eventually("all are settled", || async { gateway.account("delivered").await == 200 }).await;
    assert_eq!(stored_once(&[&first, &second]), (0..200).collect::<Vec<_>>());
    assert!(first.requests() > 10 && second.requests() > 10, "{} {}", first.requests(), second.requests());

    let until = Instant::now() + LIMIT;
    while node_status(&gateway, &id).await["up"] == true {
        assert!(Instant::now() < until, "the dead node is found to be down");
        post().await;
    }
    let node = FakeNode::start_at(address).await;
    let until = Instant::now() + LIMIT;
    while node.stored().is_empty() {
        assert!(Instant::now() < until, "the node that came back is probed and gets readings");
        post().await;
    }
    eventually("it is up again", || async { node_status(&gateway, &id).await["up"] == true }).await;
}

#[tokio::test]
async fn a_node_that_failed_once_is_used_again_soon() {
    let failing = FakeNode::answering([Answer::status(500)]).await;
    // A good deal slower: once the failure is forgiven, the other node is the better choice.
    let slow = FakeNode::always(Answer::status(200).after(millis(100))).await;
    let gateway = TestGateway::new().node(&failing).node(&slow).set("batch.max_readings", 1).start().await;
    let mut index = 0;
    let until = Instant::now() + LIMIT;
    while failing.stored().len() < 5 {
        let tally = (failing.requests(), slow.requests());
        assert!(Instant::now() < until, "the node that failed once is used again: {tally:?}");
        gateway.post(&[reading(index)]).await.expect_status(202);
        eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        index += 1;
    }
}

#[tokio::test]
async fn a_node_that_hangs_does_not_hold_up_the_others() {
    let hanging = FakeNode::always(Answer::never()).await;
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&hanging)
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.timeout", NEVER)
        .set("cluster.max_in_flight", 4)
        .start()
        .await;
    gateway.post(&readings(300)).await.expect_status(202);
    // Batches that the hanging node holds stay there; all others go past it.
    eventually("the rest arrives", || async { node.count() + hanging.requests() == 300 }).await;
    assert!(hanging.requests() <= 4, "{}", hanging.requests());
    eventually("it is settled", || async { gateway.account("buffered").await == hanging.requests() as u64 })
        .await;
}

// Nodes that mean harm.

/// Puts a hostile node beside a good one: all readings must be delivered, in time and in bounded memory. The gateway is a
/// process of its own: in this one other tests use memory, too.
async fn check_hostile<F>(what: &str, serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let hostile = RawNode::start(serve).await;
    let node = FakeNode::start().await;
    let directory = directory();
    let process = Process::start(forebay(
        directory.path(),
        &["serve"],
        &[
            ("server.listen", "127.0.0.1:0"),
            ("buffer.kind", "memory"),
            ("cluster.nodes", &format!("{},{}", hostile.url(), node.url())),
            ("cluster.timeout", "200ms"),
            ("cluster.retry.initial", "5ms"),
            ("cluster.retry.max", "50ms"),
            ("cluster.health.probe", "20ms"),
            ("batch.max_readings", "1"),
        ],
    ));
    let gateway = process.gateway();
    let before = process.peak_memory();
    gateway.post(&readings(100)).await.expect_status(202);
    eventually(what, || async { gateway.account("buffered").await == 0 }).await;
    assert!(hostile.connections() > 0, "{what}");
    let reason = node_status(&gateway, &hostile.id()).await["reason"].to_string();
    assert!(reason.len() < 4096, "{what}: {} bytes of reason", reason.len());
    let grown = process.peak_memory() - before;
    assert!(grown < 128_000_000, "{what}: grew by {grown} bytes");
    process.terminate();
    process.ended().await;
}

async fn pour(stream: &mut tokio::net::TcpStream, piece: &[u8]) {
    while stream.write_all(piece).await.is_ok() {}
}

#[tokio::test]
async fn an_answer_without_an_end_does_not_hang_or_grow_the_gateway() {
    for status in ["200 OK", "500 Oops"] {
        check_hostile("an endless body", move |mut stream| async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let mut chunk = b"10000\r\n".to_vec();
            chunk.extend([b'x'; 0x10000]);
            chunk.extend(b"\r\n");
            pour(&mut stream, &chunk).await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_is_read_only_so_far_however_much_time_there_is() {
    let node = RawNode::start(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        pour(&mut stream, b"4\r\nmore\r\n").await;
    })
    .await;
    let gateway = TestGateway::new().node_at(node.url()).set("cluster.timeout", NEVER).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    let settled = eventually("it is settled", || async { gateway.account("delivered").await == 3 });
    within(LIMIT, "the head says that the node has the batch", settled).await;
}

#[tokio::test]
async fn an_answer_that_drips_does_not_hang_the_gateway() {
    check_hostile("a dripping body", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 100000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn huge_heads_do_not_grow_the_gateway() {
    check_hostile("one endless header", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        pour(&mut stream, &[b'x'; 0x10000]).await;
    })
    .await;
    check_hostile("headers without end", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        pour(&mut stream, &b"x: y\r\n".repeat(1000)).await;
    })
    .await;
    check_hostile("interim answers without end", |mut stream| async move {
        read_head(&mut stream).await;
        pour(&mut stream, &b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failure_like_any_other() {
    check_hostile("garbage", |mut stream| async move {
        let _ = stream.write_all(&[0xff; 300]).await;
        read_head(&mut stream).await;
    })
    .await;
    check_hostile("an empty answer", |mut stream| async move { read_head(&mut stream).await }).await;
    check_hostile("closing at once", |stream| async move { drop(stream) }).await;
    check_hostile("half a body", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nhalf").await;
    })
    .await;
}
