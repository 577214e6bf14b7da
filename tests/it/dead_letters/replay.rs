//! `forebay dead-letters replay`: sent again, removed once taken.

#![expect(clippy::disallowed_methods, reason = "queues of a test are short")]

use super::*;

#[tokio::test]
async fn replay_delivers_all_in_order_and_nothing_is_left_with_every_kind_of_buffer() {
    for kind in ["memory", "disk"] {
        let directory = directory();
        keep_refused(directory.path(), &readings(2500));
        let node = FakeNode::start().await;
        let gateway = match kind {
            "disk" => TestGateway::new().on_disk(directory.path()),
            _ => TestGateway::new(),
        };
        // One batch on its way at a time, so that none overtakes another.
        let gateway = gateway.node(&node).set("cluster.max_in_flight", 1).start().await;
        let done = replay(directory.path(), &gateway, &[]).await.expect_status(0);
        expect(&done.stdout, "replayed 2500 dead letters");
        expect_delivered(&node, &readings(2500)).await;
        assert!(files(directory.path()).is_empty());
        let again = replay(directory.path(), &gateway, &[]).await.expect_status(0);
        expect(&again.stdout, "no dead letters");
        assert_eq!(gateway.account("accepted").await, 2500);
        assert_eq!(gateway.stop().await.undelivered, 0);
    }
}

#[tokio::test]
async fn replay_sends_only_the_selected_letters_and_no_more_than_its_limit() {
    let directory = directory();
    keep_refused(directory.path(), &readings(14));
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    let done = replay(directory.path(), &gateway, &["--device", "meter-3", "--limit", "1"]).await;
    expect(&done.expect_status(0).stdout, "replayed 1 dead letter");
    expect_delivered(&node, &[reading(3)]).await;
    let done = replay(directory.path(), &gateway, &["--limit", "0"]).await;
    expect(&done.expect_status(0).stdout, "replayed no dead letters");
    let done = replay(directory.path(), &gateway, &["--before", "2026-02-01T12:00:03Z"]).await;
    expect(&done.expect_status(0).stdout, "replayed 3 dead letters");
    assert_eq!(kept(directory.path()), readings(14)[4..]);
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn letters_that_the_gateway_rejects_stay_with_the_reason_and_the_rest_goes() {
    let directory = directory();
    let mut all = readings(400);
    // More than an answer lists.
    for bad in (0..300).step_by(2) {
        all[bad]["time"] = json!("2261-01-01T00:00:00Z");
    }
    keep_refused(directory.path(), &all);
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("cluster.max_in_flight", 1).start().await;
    let done = replay(directory.path(), &gateway, &[]).await.expect_status(1);
    expect(&done.stdout, "replayed 250 dead letters");
    expect(&done.stderr, "meter-0/voltage, refused at 2026-02-01T12:00:00Z, is turned away and kept: `time`");
    expect(&done.stderr, "150 dead letters turned away by the gateway, and kept");
    let (bad, good): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|reading| reading["time"].as_str() > Some("2200"));
    expect_delivered(&node, &good).await;
    assert_eq!(kept(directory.path()), bad);
    // They may be replayed where they are welcome.
    let tolerant = TestGateway::new().node(&node).set("ingest.max_future", "0s").start().await;
    let done = replay(directory.path(), &tolerant, &[]).await.expect_status(0);
    expect(&done.stdout, "replayed 150 dead letters");
    for gateway in [gateway, tolerant] {
        assert_eq!(gateway.stop().await.undelivered, 0);
    }
    assert_eq!(node.count(), 400);
}

#[tokio::test]
async fn requests_become_smaller_where_a_gateway_takes_only_small_ones() {
    let directory = directory();
    let mut all = readings(300);
    all[150]["tags"] = (0..30).map(|n| (format!("t{n}"), json!("x".repeat(200)))).collect();
    keep_refused(directory.path(), &all);
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("server.max_body", "2KiB");
    let gateway = gateway.set("cluster.max_in_flight", 1).start().await;
    let done = replay(directory.path(), &gateway, &[]).await.expect_status(1);
    expect(&done.stdout, "replayed 299 dead letters");
    expect(&done.stderr, "the body is larger than 2KiB");
    let large = all.remove(150);
    expect_delivered(&node, &all).await;
    assert_eq!(kept(directory.path()), [large]);
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn replay_waits_as_long_as_the_gateway_asks_and_comes_again_with_the_same_key() {
    let directory = directory();
    keep_refused(directory.path(), &readings(3));
    let busy = |status| Answer::status(status).header("retry-after", 0);
    let taken = Answer::status(202).body(r#"{"accepted":3,"rejected":0,"ack":"disk","errors":[]}"#);
    // A node that plays the gateway.
    let gateway = FakeNode::answering([busy(503), busy(429), busy(409), Answer::hang_up(), taken]).await;
    let url = gateway.url().replace("/v1/batches", "");
    let done =
        dead_letters_meanwhile(directory.path(), &["replay", "--gateway", &url]).await.expect_status(0);
    expect(&done.stdout, "replayed 3 dead letters");
    let received = gateway.received();
    assert_eq!(received.len(), 5);
    assert!(received.iter().all(|request| request.key() == received[0].key()));
    assert!(received.iter().all(|request| request.body == received[0].body));
    assert!(files(directory.path()).is_empty());
}

#[tokio::test]
async fn where_no_gateway_takes_them_all_letters_stay_and_replay_says_why() {
    let directory = directory();
    keep_refused(directory.path(), &readings(3));
    let before = files(directory.path());
    let settings = [("server.listen", "0.0.0.0:9")];
    let command = forebay(directory.path(), &["dead-letters", "replay"], &settings);
    let failed = tokio::task::spawn_blocking(|| run(command)).await.expect("no panic").expect_status(1);
    expect(&failed.stderr, "http://127.0.0.1:9/v1/readings: no answer");
    expect(&failed.stdout, "replayed no dead letters");

    let part = Answer::status(202).body(r#"{"accepted":2,"rejected":1}"#);
    for (answer, told) in [
        (Answer::status(403).body("not for you"), "answered 403 Forbidden: not for you"),
        (Answer::status(404), "answered 404 Not Found"),
        (Answer::status(422), "answered 422 Unprocessable Entity"),
        (part, "answered 202 Accepted"),
    ] {
        let gateway = FakeNode::always(answer).await;
        let url = gateway.url().replace("/v1/batches", "");
        let arguments = ["replay", "--gateway", &url];
        let failed = dead_letters_meanwhile(directory.path(), &arguments).await.expect_status(1);
        expect(&failed.stderr, told);
        assert!(files(directory.path()) == before, "all stay: {told}");
    }
    let slow = FakeNode::always(Answer::never()).await;
    let url = slow.url().replace("/v1/batches", "");
    let arguments = ["replay", "--timeout", "100ms", "--gateway", &url];
    let failed = dead_letters_meanwhile(directory.path(), &arguments).await.expect_status(1);
    expect(&failed.stderr, "timed out");
    assert!(files(directory.path()) == before, "all stay");
    let wrong = dead_letters_meanwhile(directory.path(), &["replay", "--gateway", "gateway:8080"]).await;
    expect(&wrong.expect_status(2).stderr, "http://127.0.0.1:8080");
}

/// A way to a gateway on which answers get lost.
struct LossyProxy {
    address: SocketAddr,
    /// Has one for each answer that the gateway gave and nobody saw.
    swallowed: mpsc::UnboundedReceiver<()>,
    server: JoinHandle<()>,
}

/// The fate of a connection whose answer was swallowed.
#[derive(Clone, Copy)]
enum Then {
    HangUp,
    SayNothing,
}

impl LossyProxy {
    /// Swallows the answer to the first request of each of the first `connections` connections.
    async fn start(gateway: SocketAddr, connections: usize, then: Then) -> LossyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (swallow, swallowed) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            for number in 0.. {
                let (mut client, _) = listener.accept().await.expect("a connection");
                let mut gateway = TcpStream::connect(gateway).await.expect("the gateway is there");
                let swallow = (number < connections).then(|| swallow.clone());
                tokio::spawn(async move {
                    let Some(swallow) = swallow else {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
                        return;
                    };
                    let (mut from_client, _to_client) = client.split();
                    let (mut from_gateway, mut to_gateway) = gateway.split();
                    let mut answer = [0; 4096];
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_gateway) => panic!("the answer comes first"),
                        read = from_gateway.read(&mut answer) => assert!(read.expect("an answer") > 0),
                    }
                    swallow.send(()).expect("the test waits for it");
                    if let Then::SayNothing = then {
                        std::future::pending::<()>().await;
                    }
                    let _ = to_gateway.shutdown().await;
                });
            }
        });
        LossyProxy { address, swallowed, server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn a_replay_whose_answer_was_lost_is_repeated_and_nothing_is_delivered_twice() {
    let directory = directory();
    keep_refused(directory.path(), &readings(30));
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    let proxy = LossyProxy::start(gateway.address(), 2, Then::HangUp).await;
    let done = dead_letters_meanwhile(directory.path(), &["replay", "--gateway", &proxy.url()]).await;
    expect(&done.expect_status(0).stdout, "replayed 30 dead letters");
    expect_delivered(&node, &readings(30)).await;
    assert_eq!(gateway.account("accepted").await, 30);
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn a_killed_replay_is_continued_and_nothing_is_delivered_twice() {
    let directory = directory();
    keep_refused(directory.path(), &readings(30));
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    let mut proxy = LossyProxy::start(gateway.address(), 1, Then::SayNothing).await;
    let url = proxy.url();
    let killed =
        Process::launch(forebay(directory.path(), &["dead-letters", "replay", "--gateway", &url], &[]));
    proxy.swallowed.recv().await.expect("the gateway has taken the readings");
    killed.kill().await;
    assert_eq!(kept(directory.path()), readings(30), "nobody knows yet");

    // A gateway that is away knows nothing of it.
    let away = ["replay", "--gateway", "http://127.0.0.1:9"];
    dead_letters_meanwhile(directory.path(), &away).await.expect_status(1);
    // Letters that come meanwhile, and another selection, would make other requests.
    keep_refused(directory.path(), &readings(40)[30..]);
    let done = replay(directory.path(), &gateway, &["--device", "meter-0"]).await.expect_status(0);
    expect(&done.stdout, "replayed 31 dead letters");
    let done = replay(directory.path(), &gateway, &[]).await.expect_status(0);
    expect(&done.stdout, "replayed 9 dead letters");
    eventually("the readings arrive", || async { node.count() >= 40 }).await;
    let mut arrived: Vec<_> =
        node.stored().iter().flat_map(|batch| batch.readings()).map(|r| r["value"].clone()).collect();
    arrived.sort_by_key(|value| value.as_u64());
    assert_eq!(arrived, (0..40).map(|n| json!(n)).collect::<Vec<_>>(), "each once");
    assert_eq!(gateway.account("accepted").await, 40);
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn letters_that_are_the_same_in_every_byte_are_all_delivered() {
    let directory = directory();
    let same = letter(&reading(0), "refused", "2026-02-01T12:00:00Z");
    keep(directory.path(), &[same.clone(), same.clone(), same]);
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    for _ in 0..3 {
        let done = replay(directory.path(), &gateway, &["--limit", "1"]).await.expect_status(0);
        expect(&done.stdout, "replayed 1 dead letter");
    }
    expect_delivered(&node, &[reading(0), reading(0), reading(0)]).await;
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn a_reading_that_is_refused_again_is_another_letter_and_may_be_replayed_again() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    for time in ["2026-02-01T12:00:00Z", "2026-02-01T12:00:01Z"] {
        keep(directory.path(), &[letter(&reading(0), "refused", time)]);
        replay(directory.path(), &gateway, &[]).await.expect_status(0);
    }
    expect_delivered(&node, &[reading(0), reading(0)]).await;
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[tokio::test]
async fn only_one_replay_at_a_time_works_on_a_directory() {
    let directory = directory();
    keep_refused(directory.path(), &readings(3));
    let note = directory.path().join(PATH).join("replay");
    let other = File::create(note).expect("made");
    other.lock().expect("nobody has it");
    let refused = dead_letters_meanwhile(directory.path(), &["replay"]).await.expect_status(1);
    expect(&refused.stderr, "another replay works on data/dead-letters");
    assert_eq!(kept(directory.path()), readings(3));
}
