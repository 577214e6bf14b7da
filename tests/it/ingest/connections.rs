//! Connections: slow, broken, many, and with bytes that are not a clear request.

use super::*;

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_the_body_leaves_nothing() {
    let setup = Setup::start().await;
    let whole = to_json(&readings(100));
    for head in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        // A whole document, but not the whole body.
        client.send(if head.starts_with("Content") { whole.clone() } else { chunk(&whole) }).await;
        assert!(!client.hears_within(WATCH).await);
        drop(client);
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
    eventually("it arrives", || async { setup.gateway.account("delivered").await == 1 }).await;
    assert_eq!(setup.gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let setup = Setup::with(|gateway| gateway.set("server.idle_timeout", "100ms")).await;
    let mut client = setup.gateway.raw().await;
    client.send("POST /v1/readings HTTP/1.1\r\n").await;
    while !client.hears_within(Duration::from_millis(5)).await {
        client.try_send("X: 1\r\n").await;
    }
    let said = client.end().await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let mut all = Vec::new();
    for count in 1..=20 {
        let body = to_json(&readings(count));
        all.extend(post_head(&format!("Content-Length: {}\r\n", body.len())).into_bytes());
        all.extend(body);
    }
    client.send(all).await;
    for count in 1..=20 {
        expect_accepted(client.reply().await, count);
    }
    assert_eq!(setup.gateway.account("accepted").await, (1..=20).sum::<u64>());
}

#[tokio::test]
async fn http_1_0_is_answered_and_the_connection_closed() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let head = format!("POST /v1/readings HTTP/1.0\r\nContent-Length: {}\r\n\r\n", ONE.len());
    client.send(head + ONE).await;
    expect_accepted(client.reply().await, 1);
    assert!(client.end().await.is_empty());
}

#[tokio::test]
async fn a_post_that_says_no_length_is_411_on_every_path_and_nothing_is_lost_behind_a_success() {
    let setup = Setup::start().await;
    let line = "t,device=d value=1\n";
    for (path, body) in
        [("/v1/readings", ONE), ("/v1/readings", ""), ("/write?db=x", line), ("/api/v2/write?bucket=b", line)]
    {
        let heads = [
            format!("POST {path} HTTP/1.0\r\n\r\n"),
            format!("POST {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ];
        for head in heads {
            let mut client = setup.gateway.raw().await;
            client.send(head.clone() + body).await;
            let reply = client.reply().await.expect_status(411);
            assert!(reply.text().contains("Content-Length"), "{head}: {}", reply.text());
            let lines: Vec<_> = reply.headers.get_all("connection").iter().collect();
            assert_eq!(lines, ["close"], "{head}");
            client.end().await;
        }
        // hyper refuses an empty value itself, without a body.
        let mut client = setup.gateway.raw().await;
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n{body}"))
            .await;
        let status = client.reply().await.status.as_u16();
        assert!([400, 411].contains(&status), "{status}");
    }
    setup.expect_nothing_taken().await;
    // A length of 0 is an empty body.
    for (path, status) in [("/v1/readings", 400), ("/write", 204), ("/api/v2/write", 204)] {
        let mut client = setup.gateway.raw().await;
        client.send(format!("POST {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n")).await;
        client.reply().await.expect_status(status);
    }
}

#[tokio::test]
async fn the_body_of_a_post_without_a_length_is_never_taken_for_the_next_request() {
    let setup = Setup::start().await;
    let hidden = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (path, status) in [("/query?q=x", 200), ("/status", 405), ("/nowhere", 404)] {
        for version in ["1.0\r\nConnection: keep-alive", "1.1\r\nHost: localhost"] {
            let mut client = setup.gateway.raw().await;
            client.send(format!("POST {path} HTTP/{version}\r\n\r\n{hidden}")).await;
            let reply = client.reply().await.expect_status(status);
            let lines: Vec<_> = reply.headers.get_all("connection").iter().collect();
            assert_eq!(lines, ["close"], "{path} {version}");
            assert!(client.end().await.is_empty(), "{path} {version}");
        }
    }
    let mut client = setup.gateway.raw().await;
    let query = "POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nq=x";
    client.send(format!("{query}{hidden}")).await;
    client.reply().await.expect_status(200);
    client.reply().await.expect_status(204);
}

#[tokio::test]
async fn a_body_of_no_clear_length_is_refused_and_its_connection_closed() {
    let setup = Setup::start().await;
    let body = format!("{:x}\r\n{ONE}\r\n0\r\n\r\n", ONE.len());
    for (lines, status) in [
        ("Transfer-Encoding: foo, chunked\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5, 6\r\n", 400),
        ("Content-Length: +5\r\n", 400),
    ] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(lines) + &body).await;
        let reply = client.reply().await;
        assert_eq!(reply.status.as_u16(), status, "{lines}: {}", reply.text());
        client.end().await;
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_chunked_body_is_taken_in_pieces_of_any_size() {
    let setup = Setup::start().await;
    let body = to_json(&readings(20));
    for size in [1, 7, 100, body.len()] {
        let mut client = setup.gateway.raw().await;
        let pieces: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
        client
            .send([post_head("Transfer-Encoding: chunked\r\n").into_bytes(), pieces, chunk("")].concat())
            .await;
        expect_accepted(client.reply().await, 20);
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_and_others_are_served() {
    let setup = Setup::start().await;
    let chunked = post_head("Transfer-Encoding: chunked\r\n");
    let hostile: Vec<Vec<u8>> = vec![
        b"\0\xff\xfe garbage\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"POST /v1/readings HTTP/9.9\r\n\r\n".to_vec(),
        post_head("Content-Length: -1\r\n").into_bytes(),
        post_head("Content-Length: 99999999999999999999999999\r\n").into_bytes(),
        post_head("Content-Length: 5\r\nContent-Length: 6\r\n").into_bytes(),
        post_head("Transfer-Encoding: gzip\r\n").into_bytes(),
        format!("{chunked}zz\r\n{ONE}\r\n").into_bytes(),
        format!("{chunked}ffffffffffffffffff\r\n{ONE}").into_bytes(),
        format!("{chunked}{:x}\r\n{ONE}no line end", ONE.len()).into_bytes(),
    ];
    for bytes in hostile {
        let mut client = setup.gateway.raw().await;
        client.send(&bytes).await;
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(reply) = client.reply_or_end().await {
            assert!((400..506).contains(&reply.status.as_u16()), "{shown}: {}", reply.status);
        }
        setup.expect_nothing_taken().await;
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

#[tokio::test]
async fn a_request_with_both_a_length_and_chunks_smuggles_nothing() {
    let setup = Setup::start().await;
    let mut client = setup.gateway.raw().await;
    let inner = post_head(&format!("Content-Length: {}\r\n", ONE.len())) + ONE;
    let smuggled = [chunk("[]"), chunk(""), inner.into_bytes()].concat();
    let head = post_head(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len()));
    client.send([head.into_bytes(), smuggled].concat()).await;
    // Either it is refused, or the connection ends after the first answer (RFC 9112, section 6.1).
    let _ = client.reply_or_end().await;
    let rest = client.end();
    let rest = tokio::time::timeout(support::LIMIT, rest).await;
    assert!(rest.is_ok(), "the connection is closed");
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn two_hundred_clients_at_once_are_all_served() {
    let setup = Setup::start().await;
    let address = setup.gateway.address();
    let client = |client: usize| async move {
        let mut connection = RawClient::connect(address).await;
        for request in 0..5 {
            connection.post(to_json(&[reading(client * 5 + request)])).await;
            expect_accepted(connection.reply().await, 1);
        }
    };
    let clients: Vec<_> = (0..200).map(|number| tokio::spawn(client(number))).collect();
    for client in clients {
        client.await.expect("a client that is served");
    }
    assert_eq!(setup.gateway.account("accepted").await, 1000);
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 1000 }).await;
    let mut values: Vec<_> =
        setup.node.readings().iter().map(|reading| reading["value"].as_u64().expect("a number")).collect();
    values.sort_unstable();
    assert_eq!(values, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn connections_beyond_max_connections_are_served_when_one_ends() {
    let setup = Setup::with(|gateway| gateway.set("server.max_connections", 2)).await;
    let mut first = setup.gateway.raw().await;
    let mut second = setup.gateway.raw().await;
    for client in [&mut first, &mut second] {
        client.post(ONE).await;
        expect_accepted(client.reply().await, 1);
    }
    let mut third = setup.gateway.raw().await;
    third.post(ONE).await;
    assert!(!third.hears_within(WATCH).await);
    drop(first);
    expect_accepted(third.reply().await, 1);
}

#[tokio::test]
async fn bodies_that_all_requests_hold_together_are_bounded() {
    let setup =
        Setup::with(|gateway| gateway.set("server.max_body", "64KiB").set("server.max_pending", "64KiB"))
            .await;
    let mut first = setup.gateway.raw().await;
    first.send(post_head("Content-Length: 60000\r\n")).await;
    first.send(" ".repeat(59_000)).await;
    eventually("a second one finds no room", || async {
        let reply = setup.post(JSON, format!("{}{ONE}", " ".repeat(10_000))).await;
        let refused = reply.status == 503;
        assert!(!refused || (1..=60).contains(&reply.header("retry-after").parse().expect("seconds")));
        refused
    })
    .await;
    first.send(format!("{ONE}{}", " ".repeat(1000 - ONE.len()))).await;
    expect_accepted(first.reply().await, 1);
    expect_accepted(setup.post(JSON, format!("{}{ONE}", " ".repeat(10_000))).await, 1);
}

#[tokio::test]
async fn bodies_that_stay_half_sent_do_not_shut_out_others() {
    let setup =
        Setup::with(|gateway| gateway.set("server.max_body", "64KiB").set("server.max_pending", "256KiB"))
            .await;
    let mut waiting = Vec::new();
    for sent in [1, 1, 1, 1, 1, 1, 9_000, 9_000, 9_000, 9_000] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head("Content-Length: 65536\r\n") + &" ".repeat(sent)).await;
        // It has not been refused either.
        assert!(!client.hears_within(Duration::from_millis(10)).await);
        waiting.push(client);
    }
    expect_accepted(setup.post(JSON, ONE).await, 1);
    expect_accepted(setup.post(JSON, format!("{}{ONE}", " ".repeat(60_000))).await, 1);
    drop(waiting);
}

#[tokio::test]
async fn many_values_with_large_tags_are_413_before_they_fill_the_memory() {
    let setup = Setup::start().await;
    let tags: Vec<_> = (0..32).map(|n| format!("\"{n:0>256}\":\"{}\"", "v".repeat(256))).collect();
    let values: Vec<_> = (0..20_000).map(|n| format!("\"{n}\":1")).collect();
    let body =
        format!("{{\"device\":\"d\",\"tags\":{{{}}},\"values\":{{{}}}}}", tags.join(","), values.join(","));
    for content_type in [JSON, NDJSON] {
        let detail = setup.post(content_type, body.clone()).await.expect_problem(413).detail();
        assert!(detail.contains("fewer `values`"), "{detail}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn many_values_with_usual_tags_are_taken() {
    let setup = Setup::start().await;
    let values: Vec<_> = (0..100).map(|n| format!("\"t{n}\":20.5")).collect();
    let line = format!(
        "{{\"device\":\"boiler-room-17\",\"tags\":{{\"site\":\"north\",\"building\":\"12\",\"floor\":\"cellar\"}},\"values\":{{{}}}}}\n",
        values.join(",")
    );
    expect_accepted(setup.post(NDJSON, line.repeat(500)).await, 50_000);
}

#[tokio::test]
async fn requests_that_wait_for_delivery_leave_connections_and_room_for_bodies_to_others() {
    let node = FakeNode::always(Answer::never()).await;
    let gateway = TestGateway::new()
        .set("server.max_connections", 6)
        .set("server.max_body", "64KiB")
        .set("server.max_pending", "64KiB")
        .node(&node)
        .start()
        .await;
    let gateway = std::sync::Arc::new(gateway);
    let body = to_ndjson(&readings(300));
    let shared = std::sync::Arc::clone(&gateway);
    let mut waiting = Vec::new();
    for number in 1..=3 {
        let (gateway, body) = (std::sync::Arc::clone(&gateway), body.clone());
        waiting.push(tokio::spawn(async move {
            let request = gateway.request("/v1/readings?ack=delivered").header("content-type", NDJSON);
            gateway.send(request.body(body)).await
        }));
        eventually("it waits", || async { shared.account("buffered").await == 300 * number }).await;
    }
    // Their readings are in the buffer now: another body of that size finds room.
    gateway.post_body(NDJSON, body.clone()).await.expect_status(202);
    // A fourth would take the connections that others need.
    let request = gateway.request("/v1/readings?ack=delivered").header("content-type", NDJSON);
    let reply = gateway.send(request.body(body)).await.expect_problem(503);
    assert!(!reply.header("retry-after").is_empty());
    gateway.get("/healthz").await.expect_status(200);
    assert_eq!(gateway.account("accepted").await, 1200);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}
