//! `Idempotency-Key`: a request that is sent again is answered as the first one was.

use super::*;

const READINGS: &str = "/v1/readings";
const DELIVERED: &str = "/v1/readings?ack=delivered";

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again_and_nothing_is_taken_twice() {
    let setup = Setup::start().await;
    let body = to_json(&readings(3));
    let first = setup.post_keyed("\"a\"", READINGS, body.clone()).await.expect_status(202);
    assert_eq!(first.json()["accepted"], 3);
    for key in ["\"a\"", "a", " a "] {
        expect_replayed(setup.post_keyed(key, READINGS, body.clone()).await, &first);
    }
    assert_eq!(setup.gateway.account("accepted").await, 3);
    // Another key is another request, and without a key there is nothing to know it by.
    expect_accepted(setup.post_keyed("A", READINGS, body.clone()).await, 3);
    expect_accepted(setup.post(JSON, body).await, 3);
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 9 }).await;
    assert_eq!(setup.node.count(), 9);
}

#[tokio::test]
async fn every_kind_of_202_is_repeated() {
    let setup = Setup::start().await;
    let mut mixed: Vec<_> = (0..150).map(|n| json!({"device":"d","sensor":"s","é\"\\/~":n})).collect();
    mixed.extend(readings(2));
    let cases: [(&str, &str, Vec<u8>); 4] = [
        ("partly refused", READINGS, to_json(&mixed)),
        ("empty", READINGS, "[]".into()),
        ("delivered", DELIVERED, ONE.into()),
        ("large", READINGS, to_json(&readings(2000))),
    ];
    for (key, path, body) in cases {
        let first = setup.post_keyed(key, path, body.clone()).await.expect_status(202);
        if key == "partly refused" {
            assert_eq!(first.json()["errors"].as_array().map(Vec::len), Some(100));
            assert_eq!((&first.json()["accepted"], &first.json()["rejected"]), (&json!(2), &json!(150)));
        }
        expect_replayed(setup.post_keyed(key, path, body).await, &first);
    }
    assert_eq!(setup.gateway.account("accepted").await, 2003);
}

#[tokio::test]
async fn readings_that_nodes_refused_are_not_taken_again_under_the_same_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = FakeNode::always(Answer::status(422)).await;
    let dead_letters = directory.path().join("dead-letters");
    let gateway =
        TestGateway::new().set("dead_letter.path", dead_letters.display()).node(&node).start().await;
    post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_problem(422);
    let again = post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_status(202);
    assert_eq!((again.header("idempotency-replayed"), &again.json()["accepted"]), ("true", &json!(1)));
    assert_ne!(again.json()["ack"], "delivered", "that would not be true");
    assert_eq!((gateway.account("accepted").await, gateway.account("dead_lettered").await), (1, 1));
}

#[tokio::test]
async fn the_same_key_with_another_request_is_422() {
    let setup = Setup::start().await;
    let first = setup.post_keyed("a", READINGS, ONE).await.expect_status(202);
    for path in [DELIVERED, "/v1/readings?strict=true", "/v1/readings?precision=s"] {
        setup.post_keyed("a", path, ONE).await.expect_problem(422);
    }
    let detail = setup.post_keyed("a", READINGS, format!("{ONE} ")).await.expect_problem(422).detail();
    assert!(detail.contains("another request"), "{detail}");
    expect_replayed(setup.post_keyed("a", READINGS, ONE).await, &first);
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn bodies_are_compared_decompressed() {
    let setup = Setup::start().await;
    let post = async |encoding: &str, body: Vec<u8>| {
        let request = setup.gateway.request(READINGS).header("idempotency-key", "\"a\"");
        setup.gateway.send(request.header("content-encoding", encoding).body(body)).await
    };
    let first = post("gzip", gzip(ONE.as_bytes())).await.expect_status(202);
    // As a client that compresses anew does it: in two members, or not at all.
    let (one, two) = ONE.as_bytes().split_at(5);
    for (encoding, body) in [
        ("gzip", gzip(ONE.as_bytes())),
        ("gzip", [gzip(one), gzip(two)].concat()),
        ("deflate", zlib(ONE.as_bytes())),
        ("zstd", zstd(ONE.as_bytes())),
        ("identity", ONE.as_bytes().to_vec()),
    ] {
        expect_replayed(post(encoding, body).await, &first);
    }
    for (encoding, body) in [("gzip", gzip(b"[]")), ("zstd", zstd(b"[]")), ("identity", b"[]".to_vec())] {
        let detail = post(encoding, body).await.expect_problem(422).detail();
        assert!(detail.contains("another request"), "{encoding}: {detail}");
    }
    post("gzip", b"no gzip".to_vec()).await.expect_problem(400);
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_key_whose_first_request_is_under_way_is_409() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    let handle = gateway.handle();
    let first = tokio::spawn(async move { post_keyed(&handle, "a", DELIVERED, ONE).await });
    eventually("it is under way", || async { node.requests() == 1 }).await;
    let reply = post_keyed(&gateway, "a", DELIVERED, ONE).await.expect_problem(409);
    assert_eq!(reply.header("retry-after"), "1");
    post_keyed(&gateway, "a", DELIVERED, "[]").await.expect_problem(422);
    gate.open();
    let first = first.await.expect("an answer").expect_status(202);
    assert_eq!(first.json()["ack"], "delivered");
    expect_replayed(post_keyed(&gateway, "a", DELIVERED, ONE).await, &first);
    assert_eq!(gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_request_goes_on_without_its_client_and_its_answer_can_be_had_later() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().set("server.max_connections", 2).node(&node).start().await;
    let keyed = post_head(&format!("Idempotency-Key: \"a\"\r\nContent-Length: {}\r\n", ONE.len()));
    let keyed = keyed.replacen(READINGS, DELIVERED, 1) + ONE;
    let mut first = gateway.raw().await;
    first.send(&keyed).await;
    eventually("it is under way", || async { node.requests() == 1 }).await;
    // Both places for connections are taken: that a third is served shows that the first is gone.
    let mut second = gateway.raw().await;
    second.post("[]").await;
    expect_accepted(second.reply().await, 0);
    drop(first);
    let mut third = gateway.raw().await;
    third.send(&keyed).await;
    third.reply().await.expect_problem(409);
    gate.open();
    let answered = async {
        loop {
            third.send(&keyed).await;
            let reply = third.reply().await;
            if reply.status != 409 {
                return reply;
            }
        }
    };
    let reply = tokio::time::timeout(support::LIMIT, answered).await.expect("an answer in time");
    let reply = reply.expect_status(202);
    assert_eq!(reply.header("idempotency-replayed"), "true");
    assert_eq!(reply.json(), json!({ "accepted": 1, "rejected": 0, "ack": "delivered", "errors": [] }));
    drop((second, third));
    assert_eq!(gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn after_the_window_a_key_is_taken_anew() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_window", "10m")).await;
    // A connection of its own each time: those that are open may be idle for too long meanwhile.
    let post = || async {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(&format!("Idempotency-Key: a\r\nContent-Length: {}\r\n", ONE.len()))).await;
        client.send(ONE).await;
        client.reply().await
    };
    let pass = |time| async move {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    };
    let first = post().await;
    pass(Duration::from_secs(590)).await;
    expect_replayed(post().await, &first);
    pass(Duration::from_secs(10)).await;
    assert_eq!(post().await.expect_status(202).header("idempotency-replayed"), "");
    eventually("both arrive", || async { setup.node.count() == 2 }).await;
}

#[tokio::test]
async fn only_answers_of_202_are_remembered() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let gateway = TestGateway::new().set("buffer.max_readings", 1).node(&node).start().await;
    gateway.post_body(JSON, ONE).await.expect_status(202);
    post_keyed(&gateway, "a", READINGS, ONE).await.expect_problem(503);
    post_keyed(&gateway, "b", READINGS, "[{}]").await.expect_problem(422);
    post_keyed(&gateway, "c", READINGS, "[").await.expect_problem(400);
    gate.open();
    eventually("there is room", || async { gateway.account("delivered").await == 1 }).await;
    let reply = post_keyed(&gateway, "a", READINGS, ONE).await;
    assert_eq!(reply.header("idempotency-replayed"), "");
    expect_accepted(reply, 1);
    for key in ["b", "c"] {
        expect_accepted(post_keyed(&gateway, key, READINGS, "[]").await, 0);
    }
}

#[tokio::test]
async fn beyond_idempotency_keys_the_oldest_are_forgotten_and_counted() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_keys", 2)).await;
    let metric = "forebay_idempotency_keys_forgotten_total";
    assert_eq!(setup.gateway.metric(metric).await, Some(0.0));
    let mut answers = Vec::new();
    for key in ["a", "b", "c"] {
        answers.push(setup.post_keyed(key, READINGS, ONE).await.expect_status(202));
    }
    assert_eq!(setup.gateway.metric(metric).await, Some(1.0));
    expect_replayed(setup.post_keyed("b", READINGS, ONE).await, &answers[1]);
    expect_accepted(setup.post_keyed("a", READINGS, ONE).await, 1);
    assert_eq!(setup.gateway.account("accepted").await, 4);
}

#[tokio::test]
async fn an_invalid_key_is_400_and_the_answer_says_what_is_allowed() {
    let setup = Setup::start().await;
    for key in ["\"a", "\"\"", "", "\"a\", \"b\"", &"k".repeat(256), "a\tb"] {
        let detail = setup.post_keyed(key, READINGS, ONE).await.expect_problem(400).detail();
        assert!(detail.contains("`Idempotency-Key`") && detail.contains("1 to 255 bytes"), "{detail}");
    }
    let twice = setup.gateway.request(READINGS).header("idempotency-key", "a").header("idempotency-key", "a");
    let detail = setup.gateway.send(twice.body(ONE)).await.expect_problem(400).detail();
    assert!(detail.contains("2 times"), "{detail}");
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn with_a_window_of_zero_keys_are_not_looked_at() {
    let setup = Setup::with(|gateway| gateway.set("ingest.idempotency_window", "0s")).await;
    for key in ["a", "a", "\"a"] {
        expect_accepted(setup.post_keyed(key, READINGS, ONE).await, 1);
    }
}
