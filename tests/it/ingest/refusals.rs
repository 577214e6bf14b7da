//! The statuses that refuse a request or its readings, from 400 to 422.

use super::*;

#[tokio::test]
async fn a_body_that_is_not_json_is_400_with_line_and_column_and_nothing_is_taken() {
    let setup = Setup::start().await;
    let cases: [(&str, Vec<u8>, &str); 18] = [
        (JSON, b"".to_vec(), "line 1, column 1"),
        (JSON, b"   ".to_vec(), "line 1, column 3"),
        (JSON, b"{".to_vec(), "line 1, column 1"),
        (JSON, format!("[{ONE},\n{ONE}").into_bytes(), "line 2, column 37"),
        (JSON, format!("[{ONE},]").into_bytes(), "line 1, column "),
        (JSON, format!("[\n{ONE}\n{ONE}]").into_bytes(), "line 3, column 1"),
        (JSON, format!("{ONE} x").into_bytes(), "line 1, column 39"),
        (JSON, format!("{ONE}{ONE}").into_bytes(), "line 1, column 38"),
        (JSON, br#"{"device":"d","sensor":"s","value":NaN}"#.to_vec(), "line 1, column 36"),
        (JSON, br#"{"device":"d","sensor":"s","value":-Infinity}"#.to_vec(), "line 1, column "),
        (JSON, br#"{"device":"d","sensor":"s","value":01}"#.to_vec(), "line 1, column "),
        (JSON, b"{\"device\":\"d\",\n\"sensor\":\"\xff\",\"value\":1}".to_vec(), "line 2, column 11"),
        (JSON, b"{\"device\":\"a\nb\",\"sensor\":\"s\",\"value\":1}".to_vec(), "line "),
        (JSON, br#"{"device":"\ud800","sensor":"s","value":1}"#.to_vec(), "line 1, column "),
        (
            JSON,
            format!("[{},\n{{\"device\":\"\\ud800\"}}", ONE.replace('1', "1e999")).into_bytes(),
            "line 2, column ",
        ),
        (NDJSON, b"\n\n{\"device\":".to_vec(), "line 3, column "),
        (NDJSON, format!("{ONE} {ONE}\n{ONE}{ONE}").into_bytes(), "line 1, column 39"),
        (NDJSON, b"\xff\n\xff".to_vec(), "line 1, column 1"),
    ];
    for (content_type, body, place) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let detail = setup.post(content_type, body).await.expect_problem(400).detail();
        assert!(detail.contains(place), "{shown}: {detail}");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn an_invalid_line_of_ndjson_is_rejected_by_its_index() {
    let setup = Setup::start().await;
    let deep = format!(r#"{{"device":"d","sensor":"s","value":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let broken: [&[u8]; 6] = [
        br#"{"device":"d","sensor":"s","value":-nan}"#,
        br#"{"device":"d","sensor""#,
        b"{\"device\":\"\xff\",\"sensor\":\"s\",\"value\":1}",
        br#"{"device":"d","sensor":"s","value":1} x"#,
        br#"{"device":"\ud800","sensor":"s","value":1}"#,
        deep.as_bytes(),
    ];
    for line in broken {
        let body = [ONE.as_bytes(), b"\n\n", line, b"\r\n", ONE.as_bytes(), b"\n"].concat();
        let reply = setup.post(NDJSON, body.clone()).await.expect_status(202).json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{reply}");
        assert_eq!((&reply["errors"][0]["index"], &reply["errors"][0]["pointer"]), (&json!(1), &json!("/1")));
        let detail = reply["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("line 3, column "), "{detail}");
        let request = setup.gateway.request("/v1/readings?strict=true").header("content-type", NDJSON);
        let problem = setup.gateway.send(request.body(body)).await.expect_problem(422).json();
        assert_eq!(problem["errors"][0]["index"], 1, "{problem}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 12);
    let rejected = setup.gateway.metric(r#"forebay_readings_rejected_total{reason="type"}"#).await;
    assert_eq!(rejected, Some(12.0));
}

#[tokio::test]
async fn a_fault_that_leaves_an_array_whole_rejects_its_element_alone() {
    let setup = Setup::start().await;
    let element =
        |device: &str, value: &str| format!(r#"{{"device":"{device}","sensor":"s","value":{value}}}"#);
    for broken in [
        element("\\q", "1"),
        element("\\ud800", "1"),
        element("d", "\"\\u12\""),
        element("d", "1e999"),
        element("\\udc00", "-1e999"),
    ] {
        let reply = setup.post(JSON, format!("[{ONE},{broken},{ONE}]")).await.expect_status(202).json();
        assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{broken}: {reply}");
        assert_eq!(reply["errors"][0]["index"], 1, "{reply}");
        setup.post(JSON, format!("[{broken}]")).await.expect_problem(422);
        setup.post_to("/v1/readings?strict=true", format!("[{ONE},{broken}]")).await.expect_problem(422);
        setup.post(JSON, format!("[{ONE},{broken}")).await.expect_problem(400);
    }
    assert_eq!(setup.gateway.account("accepted").await, 10);
}

#[tokio::test]
async fn an_invalid_element_of_an_array_is_rejected_alone() {
    let setup = Setup::start().await;
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    let values = ["NaN", "-nan", "Infinity", "True", "None", "01", ".5", "0x10", "\"\t\"", "\"\n\"", &deep];
    for value in values {
        let bodies = [
            (JSON, ONE, format!(r#"{{"device":"d","sensor":"s","value":{value}}}"#)),
            (SENML, r#"{"n":"d/s","v":1}"#, format!(r#"{{"n":"d/s","v":{value}}}"#)),
        ];
        for (content_type, good, broken) in bodies {
            let body = format!("[{good},{broken},{good}]");
            let reply = setup.post(content_type, body.clone()).await.expect_status(202).json();
            assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{broken}: {reply}");
            assert_eq!(reply["errors"][0]["index"], 1, "{reply}");
            let request =
                setup.gateway.request("/v1/readings?strict=true").header("content-type", content_type);
            setup.gateway.send(request.body(body)).await.expect_problem(422);
            setup.post(content_type, format!("[{broken},{{}}]")).await.expect_problem(422);
            for none in [format!("[{broken}]"), format!("[{good},{broken}"), format!("[{good} {broken}]")] {
                let detail = setup.post(content_type, none).await.expect_problem(400).detail();
                assert!(detail.starts_with("line ") && detail.contains(", column "), "{detail}");
            }
        }
    }
    assert_eq!(setup.gateway.account("accepted").await, 44);
}

#[tokio::test]
async fn a_byte_order_mark_is_passed_over_in_every_format_and_encoding() {
    let setup = Setup::start().await;
    let marked = |body: &str| format!("\u{feff}{body}");
    for (content_type, body) in [
        (JSON, marked(ONE)),
        (JSON, marked(&format!("[{ONE}]"))),
        (NDJSON, marked(&format!("{ONE}\n"))),
        (SENML, marked(r#"[{"n":"d/s","v":1}]"#)),
    ] {
        expect_accepted(setup.post(content_type, body.clone()).await, 1);
        let wide: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let detail = setup.post(content_type, wide).await.expect_problem(400).detail();
        assert!(detail.contains("UTF-16") && detail.contains("UTF-8"), "{detail}");
    }
    for compressed in [("gzip", gzip(marked(ONE).as_bytes())), ("zstd", zstd(marked(ONE).as_bytes()))] {
        expect_accepted(setup.post_encoded(compressed.0, compressed.1).await, 1);
    }
}

#[tokio::test]
async fn common_mistakes_are_answered_with_a_remedy() {
    let setup = Setup::start().await;
    let lines = format!("{ONE}\n{ONE}\n");
    let array = format!("[{ONE},\n{ONE}]");
    for (content_type, body, status, words) in [
        (JSON, lines.as_str(), 400, "looks like NDJSON"),
        (JSON, lines.as_str(), 400, "set `Content-Type: application/x-ndjson`"),
        (NDJSON, array.as_str(), 400, "set `Content-Type: application/json`"),
        (NDJSON, "[\n{}\n,{}\n]", 422, "set `Content-Type: application/json`"),
        (NDJSON, "[{},{}]", 422, "set `Content-Type: application/json`"),
        (JSON, "", 400, "the body is empty; send a reading as a JSON object"),
        (SENML, "\n", 400, "the body is empty; send a SenML pack"),
        (JSON, "device=d&sensor=s&value=1", 400, "looks like a form"),
        (JSON, "cpu,host=h idle=1", 400, "looks like line protocol"),
        (JSON, "<reading/>", 400, "looks like XML"),
        ("application/x-www-form-urlencoded", ONE, 415, "add `-H 'Content-Type: application/json'`"),
        ("text/plain", "cpu,host=h idle=1", 415, "`/api/v2/write`"),
        (JSON, r#"{"device_id":"d"}"#, 422, "unknown field `device_id`, did you mean `device`?"),
        (JSON, r#"{"device":"d","timestamp":0}"#, 422, "unknown field `timestamp`, did you mean `time`?"),
        (JSON, r#"{"readings":[]}"#, 422, "send the array itself"),
    ] {
        let reply = setup.post(content_type, body.to_owned()).await.expect_status(status);
        let told = reply.detail();
        assert!(told.contains(words), "{body}: {told}");
    }
    for (path, status) in [("/", 405), ("/readings", 404), ("/api/v1/readings", 404), ("/v1/reading", 404)] {
        let detail = setup.post_to(path, ONE).await.expect_problem(status).detail();
        assert!(detail.contains("readings go to `/v1/readings`"), "{path}: {detail}");
    }
    assert_eq!(setup.gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn a_body_that_is_not_compressed_as_it_says_is_400() {
    let setup = Setup::start().await;
    let body = to_json(&readings(100));
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 9].to_vec();
    let cases = [
        ("gzip", body.clone()),
        ("gzip", cut(gzip(&body))),
        ("gzip", [gzip(&body), b"more".to_vec()].concat()),
        ("deflate", cut(zlib(&body))),
        ("deflate", cut(raw_deflate(&body))),
        ("zstd", body.clone()),
        ("zstd", cut(zstd(&body))),
        ("gzip", Vec::new()),
        ("zstd", zstd(b"[")),
    ];
    for (encoding, compressed) in cases {
        let reply = setup.post_encoded(encoding, compressed).await;
        assert_eq!(reply.status, 400, "{encoding}: {}", reply.text());
        reply.expect_problem(400);
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_query_parameter_that_cannot_be_understood_is_400_and_the_known_values_are_named() {
    let setup = Setup::start().await;
    for (query, known) in [("precision=h", "s, ms, us, ns"), ("precision=", "ns"), ("strict=perhaps", "true")]
    {
        let reply = setup.post_to(&format!("/v1/readings?{query}"), ONE).await;
        let detail = reply.expect_problem(400).detail();
        assert!(detail.contains(known), "{query}: {detail}");
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_query_parameter_that_nobody_knows_is_400_and_the_nearest_one_is_named() {
    let setup = Setup::start().await;
    for (query, nearest) in [
        ("stict=true", "strict"),
        ("precison=s", "precision"),
        ("Precision=s", "precision"),
        ("akc=disk", "ack"),
        ("ack=memory&unit=s", "strict, ack, precision"),
        ("=x", "strict, ack, precision"),
    ] {
        let detail = setup.post_to(&format!("/v1/readings?{query}"), ONE).await.expect_problem(400).detail();
        assert!(detail.contains(nearest), "{query}: {detail}");
    }
    let detail = setup.post_to("/v1/readings?stict=true", ONE).await.detail();
    assert_eq!(
        detail,
        "query parameter `stict` is not known here, did you mean `strict`? Known: strict, ack, precision"
    );
    let twice = setup.post_to("/v1/readings?precision=s&precision=ms", ONE).await.expect_problem(400);
    assert!(twice.detail().contains("`precision` is there more than once"), "{}", twice.detail());
    setup.expect_nothing_taken().await;
    for query in ["", "?", "?&", "?precision=ms&strict=false&ack=memory"] {
        expect_accepted(setup.post_to(&format!("/v1/readings{query}"), ONE).await, 1);
    }
}

#[tokio::test]
async fn a_number_that_no_double_can_hold_is_the_fault_of_its_reading_alone() {
    let setup = Setup::start().await;
    let beyond = r#"{"device":"d","sensor":"s","value":1e999}"#;
    setup.post(JSON, beyond).await.expect_problem(422);
    setup.expect_nothing_taken().await;
    let reply = setup.post(JSON, format!("[{ONE},{beyond},{ONE}]")).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(1)), "{reply}");
    assert_eq!(reply["errors"][0]["pointer"], "/1/value");
    let reply = setup.post(NDJSON, format!("{ONE}\n{beyond}\n{ONE}")).await.expect_status(202).json();
    assert_eq!(reply["accepted"], 2);
}

#[tokio::test]
async fn deep_nesting_huge_names_and_duplicate_names_are_refused_and_do_no_harm() {
    let setup = Setup::start().await;
    let deep = 100_000;
    for open in ["[", "{\"a\":", "[{\"values\":"] {
        setup.post(JSON, open.repeat(deep)).await.expect_problem(400);
    }
    let closed = "[".repeat(deep) + &"]".repeat(deep);
    setup.post(JSON, closed.clone()).await.expect_problem(400);
    setup.post(NDJSON, closed.clone()).await.expect_problem(400);
    setup.post(JSON, format!(r#"{{"device":"d","sensor":"s","value":{closed}}}"#)).await.expect_problem(400);

    let name = "n".repeat(1 << 20);
    let huge = setup.post(JSON, format!(r#"{{"device":"d","sensor":"s","value":1,"{name}":1}}"#)).await;
    assert!(huge.expect_problem(422).text().len() < 2000, "an answer does not repeat a huge name");
    let huge = setup.post(JSON, format!(r#"{{"device":"d","values":{{"{name}":1}}}}"#)).await;
    assert!(huge.expect_problem(422).text().len() < 2000);

    for twice in [
        r#"{"device":"d","device":"e","sensor":"s","value":1}"#,
        r#"{"device":"d","sensor":"s","value":1,"value":1}"#,
        r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"1","a":"2"}}"#,
        r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"1","\u0061":"1"}}"#,
        r#"{"device":"d","values":{"a":1,"b":2,"\u0061":3}}"#,
        r#"{"device":"d","sensor":"s","value":1,"unit":"V","unit":"V"}"#,
    ] {
        let detail = setup.post(JSON, twice).await.expect_problem(422).detail();
        assert!(detail.contains("twice"), "{detail}");
    }
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, ONE).await, 1);
}

// 404, 405

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_is_405_with_allow() {
    let setup = Setup::start().await;
    for path in ["/v1/reading", "/v1/readings/", "/v2", "/v1/readings/../../etc/passwd", "/%00"] {
        setup.post_to(path, ONE).await.expect_problem(404);
    }
    let client = forebay_load::client::builder().build().expect("a client");
    let check = async |method: &str, path: &str, allow: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = client.request(method.clone(), setup.gateway.url(path)).body(ONE);
        let reply = setup.gateway.send(request).await.expect_problem(405);
        assert!(reply.header("allow").split(',').any(|known| known.trim() == allow), "{method} {path}");
    };
    for method in ["GET", "PUT", "DELETE", "PATCH", "BREW"] {
        check(method, "/v1/readings", "POST").await;
    }
    // Nodes are configured: the readings are there.
    let get = setup.gateway.get("/v1/readings?latest=3").await.expect_problem(405);
    assert_eq!(get.header("allow"), "POST");
    let detail = get.detail();
    assert!(detail.contains("its readings are in the nodes") && !detail.contains("127.0.0.1"), "{detail}");
    let head = setup.gateway.send(client.head(setup.gateway.url("/v1/readings"))).await.expect_status(405);
    assert_eq!(head.header("allow"), "POST");
    let put = setup.gateway.send(client.put(setup.gateway.url("/v1/readings"))).await.expect_problem(405);
    assert_eq!(put.header("allow"), "POST");
    for path in ["/", "/healthz", "/readyz", "/metrics", "/status", "/openapi.json"] {
        check("POST", path, "GET").await;
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn head_and_options_are_answered_on_every_path() {
    let setup = Setup::start().await;
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/status",
        "/openapi.json",
        "/page.css",
        "/ping",
        "/health",
        "/query",
        "/v1/readings",
        "/write",
        "/x",
        "*",
    ] {
        for method in ["HEAD", "OPTIONS"] {
            let mut client = setup.gateway.raw().await;
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let reply = if method == "HEAD" { client.reply_to_head().await } else { client.reply().await };
            assert!(reply.status.as_u16() < 500, "{method} {path}: {}", reply.status);
        }
    }
    let mut client = setup.gateway.raw().await;
    client.send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.reply_to_head().await.expect_status(200);
    // The connection is still good: the answer had no body.
    client.post(ONE).await;
    expect_accepted(client.reply().await, 1);
}

// 415

#[tokio::test]
async fn several_lines_of_a_header_are_one_list_and_several_codings_or_types_are_415() {
    let setup = Setup::start().await;
    let zipped = gzip(ONE.as_bytes());
    for (encodings, body) in [
        (["identity", "br"], ONE.as_bytes()),
        (["gzip", "identity"], &zipped),
        (["gzip", "gzip"], &zipped),
        (["identity", "identity"], ONE.as_bytes()),
    ] {
        let request = setup.gateway.request("/v1/readings").header("content-encoding", encodings[0]);
        let request = request.header("content-encoding", encodings[1]).body(body.to_vec());
        let reply = setup.gateway.send(request).await.expect_problem(415);
        assert!(reply.detail().contains(&encodings.join(", ")), "{}", reply.detail());
        assert!(reply.header("accept-encoding").contains("gzip"));
    }
    for types in [[JSON, NDJSON], [JSON, JSON], [NDJSON, "text/plain"]] {
        let request = setup.gateway.request("/v1/readings").header("content-type", types[0]);
        let reply = setup.gateway.send(request.header("content-type", types[1]).body(ONE)).await;
        let reply = reply.expect_problem(415);
        assert!(reply.detail().contains("`Content-Type` is there more than once"), "{}", reply.detail());
        assert!(reply.header("accept").contains(JSON));
    }
    setup.expect_nothing_taken().await;
}

// 408

#[tokio::test]
async fn a_body_that_trickles_in_is_408_with_a_length_and_in_chunks() {
    let setup = Setup::with(|gateway| gateway.set("server.request_timeout", "150ms")).await;
    let trickle = async |head: &str, piece: &[u8]| {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        while !client.hears_within(Duration::from_millis(10)).await {
            client.try_send(piece).await;
        }
        let detail = client.reply().await.expect_problem(408).detail();
        assert!(detail.contains("150ms"), "{detail}");
        client.end().await;
    };
    trickle("Content-Length: 1000000\r\n", b" ").await;
    trickle("Transfer-Encoding: chunked\r\n", &chunk(" ")).await;
    trickle("Content-Length: 1000000\r\n", b"").await;
    setup.expect_nothing_taken().await;
}

// 413

#[tokio::test]
async fn a_body_beyond_max_body_is_413_by_length_in_chunks_and_after_decompression() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    let fits = format!("{ONE}{}", " ".repeat(4096 - ONE.len()));
    let over = format!("{fits} ");
    expect_accepted(setup.post(JSON, fits.clone()).await, 1);
    expect_accepted(setup.post_encoded("gzip", gzip(fits.as_bytes())).await, 1);

    let detail = setup.post(JSON, over.clone()).await.expect_problem(413).detail();
    assert!(detail.contains("4KiB"), "{detail}");
    for encoding in ["gzip", "zstd", "deflate"] {
        let compress: fn(&[u8]) -> Vec<u8> = match encoding {
            "gzip" => gzip,
            "zstd" => zstd,
            _ => zlib,
        };
        setup.post_encoded(encoding, compress(over.as_bytes())).await.expect_problem(413);
    }
    let mut client = setup.gateway.raw().await;
    client.send(post_head("Transfer-Encoding: chunked\r\n")).await;
    client.send(chunk(&fits)).await;
    client.send(chunk(" ")).await;
    client.send(chunk("")).await;
    client.reply().await.expect_problem(413);
    assert_eq!(setup.gateway.account("accepted").await, 2);
}

#[tokio::test]
async fn a_body_far_beyond_max_body_is_answered_with_413_before_it_is_all_there() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    for head in ["Content-Length: 10000000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = setup.gateway.raw().await;
        client.send(post_head(head)).await;
        let mut sent = 0;
        while !client.hears_within(Duration::from_millis(1)).await
            && client.try_send(chunk(" ".repeat(4000))).await
        {
            sent += 4000;
            assert!(sent < 10_000_000, "it reads for ever");
        }
        client.reply().await.expect_problem(413);
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn bombs_are_413_and_memory_does_not_grow_with_them() {
    let directory = directory();
    let node = FakeNode::start().await;
    let settings = [("server.listen", "127.0.0.1:0"), ("cluster.nodes", &node.url())];
    let process = Process::start(forebay(directory.path(), &["serve"], &settings));
    let gateway = process.gateway();
    let before = process.peak_memory();
    let bombs = [
        ("gzip", compression::gzip_bomb(400)),
        ("deflate", compression::deflate_bomb(400)),
        ("zstd", compression::zstd_bomb(400)),
    ];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "{encoding}: {}", bomb.len());
        for _ in 0..3 {
            let request = gateway.request("/v1/readings").header("content-type", JSON);
            let request = request.header("content-encoding", encoding).body(bomb.clone());
            gateway.send(request).await.expect_problem(413);
        }
    }
    // A body of 8 MiB takes up to 16 MiB while it grows, and each thread that has read one keeps some of them.
    let grown = process.peak_memory() - before;
    assert!(grown < 128 << 20, "{grown} bytes more");
    assert_eq!(gateway.account("accepted").await, 0);
}

#[tokio::test]
async fn more_readings_than_the_whole_buffer_can_hold_are_413() {
    let setup = Setup::with(|gateway| gateway.set("buffer.max_readings", "5")).await;
    let detail = setup.post(JSON, to_json(&readings(6))).await.expect_problem(413).detail();
    assert!(detail.contains('6') && detail.contains('5'), "{detail}");
    setup.expect_nothing_taken().await;
    expect_accepted(setup.post(JSON, to_json(&readings(5))).await, 5);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_refused_before_it_sends() {
    let setup = Setup::with(|gateway| gateway.set("server.max_body", "4KiB")).await;
    let mut client = setup.gateway.raw().await;
    client.send(post_head("Content-Length: 5000\r\nExpect: 100-continue\r\n")).await;
    client.reply().await.expect_problem(413);

    let mut client = setup.gateway.raw().await;
    let head = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", ONE.len());
    client.send(post_head(&head).replace(JSON, "text/plain")).await;
    client.reply().await.expect_problem(415);

    let mut client = setup.gateway.raw().await;
    client.send(post_head(&head)).await;
    client.reply().await.expect_status(100);
    client.send(ONE).await;
    expect_accepted(client.reply().await, 1);
}

// 415

#[tokio::test]
async fn another_media_type_or_encoding_is_415_with_the_known_ones() {
    let setup = Setup::start().await;
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", "*/*"]
    {
        let reply = setup.post(media_type, ONE).await.expect_problem(415);
        for known in [JSON, NDJSON, "application/jsonl", SENML] {
            assert!(reply.header("accept").split(", ").any(|name| name == known), "{media_type}");
            assert!(reply.detail().contains(known), "{media_type}: {}", reply.detail());
        }
    }
    for encoding in ["br", "compress", "gzip, gzip", "gzipped"] {
        let reply = setup.post_encoded(encoding, gzip(ONE.as_bytes())).await.expect_problem(415);
        for known in ["gzip", "deflate", "zstd", "identity"] {
            assert!(reply.header("accept-encoding").split(", ").any(|name| name == known), "{encoding}");
            assert!(reply.detail().contains(known), "{encoding}: {}", reply.detail());
        }
    }
    setup.expect_nothing_taken().await;
}

// 422

#[tokio::test]
async fn a_request_whose_readings_are_all_turned_away_is_422_with_the_errors() {
    let setup = Setup::start().await;
    for (content_type, body, pointer) in [
        (JSON, "{}", "/device"),
        (JSON, "[{}]", "/0/device"),
        (NDJSON, "{}\n", "/0/device"),
        (SENML, r#"[{"n":"d/s"}]"#, "/0/v"),
        (SENML, r#"{"n":"d/s","v":1}"#, ""),
        (JSON, "null", ""),
        (JSON, "3", ""),
        (JSON, "\"x\"", ""),
    ] {
        let problem = setup.post(content_type, body).await.expect_problem(422).json();
        assert_eq!(problem["errors"][0]["index"], 0, "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["errors"][0]["detail"].is_string());
    }
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn strict_takes_all_or_none() {
    let setup = Setup::start().await;
    let mixed = format!("[{ONE},{{\"device\":\"d\"}},{ONE}]");
    let problem = setup.post_to("/v1/readings?strict=true", mixed.clone()).await.expect_problem(422).json();
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
    assert_eq!(problem["errors"][0]["pointer"], "/1/sensor");
    assert_eq!(problem["rejected"], 1);
    assert_eq!(
        problem["detail"],
        "1 reading was turned away, and the request is strict: nothing was taken; the first: `sensor` is missing"
    );
    setup.expect_nothing_taken().await;

    expect_accepted(setup.post_to("/v1/readings?strict=true", format!("[{ONE},{ONE}]")).await, 2);
    let reply = setup.post_to("/v1/readings?strict=false", mixed).await.expect_status(202).json();
    assert_eq!(reply["accepted"], 2);
}

#[tokio::test]
async fn an_acknowledgement_that_the_buffer_cannot_give_is_422() {
    let setup = Setup::start().await;
    let detail = setup.post_to("/v1/readings?ack=disk", ONE).await.expect_problem(422).detail();
    assert!(detail.contains("disk") && detail.contains("memory") && detail.contains("delivered"), "{detail}");
    setup.expect_nothing_taken().await;
    for ack in ["memory", "delivered"] {
        let reply = setup.post_to(&format!("/v1/readings?ack={ack}"), ONE).await.expect_status(202);
        assert_eq!(reply.json()["ack"], ack);
    }
}

#[tokio::test]
async fn optional_fields_that_are_null_count_as_absent() {
    let setup = Setup::start().await;
    for fields in [
        r#""sensor":"s","value":1,"time":null,"unit":null,"tags":null,"values":null"#,
        r#""sensor":null,"value":null,"values":{"s":1}"#,
    ] {
        let body = format!(r#"{{"device":"d",{fields}}}"#);
        expect_accepted(setup.post(JSON, body.clone()).await, 1);
        expect_accepted(setup.post(NDJSON, body).await, 1);
    }
    let document = setup.gateway.get("/openapi.json").await.expect_status(200).json();
    let properties = &document["components"]["schemas"]["Reading"]["properties"];
    for field in ["time", "unit", "tags"] {
        let text = properties[field].to_string();
        assert!(text.contains("\"null\""), "{field}: {text}");
    }
    for value in [&properties["value"], &properties["values"]["additionalProperties"]] {
        assert_eq!(value["type"], json!(["number", "boolean", "string"]), "{value}");
    }
}
