//! Tests of the node over HTTP.

use std::io::Write as _;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};

use super::batch::BODY_BYTES_MAX;
use super::*;

const LINE: &str = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;

struct TestNode {
    node: Node,
    client: Client,
    directory: tempfile::TempDir,
}

impl TestNode {
    async fn start() -> TestNode {
        TestNode::start_in(tempfile::tempdir().expect("a directory")).await
    }

    async fn start_in(directory: tempfile::TempDir) -> TestNode {
        let data = directory.path().join("deep/data");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let node = Node::start(NodeOptions { listen, data }).await.expect("it starts");
        let client =
            forebay_load::client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        TestNode { node, client, directory }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.node.address())
    }

    fn batch(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(self.url("/v1/batches"));
        request.header("content-type", "application/x-ndjson").body(body)
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("an answer")
    }

    async fn text(&self, path: &str) -> String {
        self.get(path).await.text().await.expect("text")
    }
}

async fn answer(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("text"))
}

/// The status, the detail and the header field `field` of an answer that must be a problem.
async fn problem(request: RequestBuilder, field: &str) -> (u16, String, String) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).map_or("", |value| value.to_str().expect("text"));
    assert_eq!(header("content-type"), "application/problem+json");
    let field = header(field).to_owned();
    let body: serde_json::Value = serde_json::from_str(&response.text().await.expect("text")).expect("JSON");
    assert_eq!((&body["type"], &body["status"]), (&"about:blank".into(), &status.into()));
    (status, body["detail"].as_str().expect("a text").to_owned(), field)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).expect("written");
    encoder.finish().expect("finished")
}

#[tokio::test]
async fn a_batch_is_stored_once_and_read_back_even_after_a_restart() {
    let node = TestNode::start().await;
    let body = format!("{LINE}\n{LINE}\n");
    for (key, duplicate) in [("\"key-1\"", false), ("\"key-1\"", true), ("key-1", true), ("key-2", false)] {
        let answered = answer(node.batch(body.clone()).header("idempotency-key", key)).await;
        assert_eq!(answered, (200, format!("{{\"readings\":2,\"duplicate\":{duplicate}}}\n")), "{key}");
    }
    node.node.stop().await;
    let node = TestNode::start_in(node.directory).await;
    let again = answer(node.batch(body.clone()).header("idempotency-key", "key-2")).await;
    assert_eq!(again, (200, "{\"readings\":2,\"duplicate\":true}\n".to_owned()));
    assert_eq!(node.text("/v1/count").await, "{\"count\":4}\n");
    assert_eq!(node.text("/v1/readings").await, body.repeat(2));
}

#[tokio::test]
async fn compressed_batches_are_taken() {
    let node = TestNode::start().await;
    let plain = format!("{LINE}\n");
    let two_members = [gzip(plain.as_bytes()), gzip(plain.as_bytes())].concat();
    let zstd = zstd::encode_all(plain.as_bytes(), 3).expect("compressed");
    for (encoding, body, readings) in [
        ("identity", plain.clone().into_bytes(), 1),
        ("gzip", gzip(plain.as_bytes()), 1),
        ("GZIP", two_members, 2),
        ("zstd", zstd, 1),
    ] {
        let answered = answer(node.batch(body).header("content-encoding", encoding)).await;
        assert_eq!(
            answered,
            (200, format!("{{\"readings\":{readings},\"duplicate\":false}}\n")),
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn a_batch_without_readings_is_taken() {
    let node = TestNode::start().await;
    assert_eq!(answer(node.batch("\n")).await, (200, "{\"readings\":0,\"duplicate\":false}\n".to_owned()));
    assert_eq!(node.text("/v1/readings").await, "");
}

#[tokio::test]
async fn a_body_that_decompresses_beyond_the_limit_is_answered_with_413() {
    let node = TestNode::start().await;
    let bomb = vec![b' '; BODY_BYTES_MAX + 1];
    let zstd = zstd::encode_all(bomb.as_slice(), 1).expect("compressed");
    for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd)] {
        let (status, detail, _) = problem(node.batch(body).header("content-encoding", encoding), "").await;
        assert_eq!(status, 413, "{encoding}: {detail}");
    }
    assert_eq!(answer(node.batch(vec![b' '; BODY_BYTES_MAX])).await.0, 200);
}

#[tokio::test]
async fn a_plain_body_beyond_the_limit_is_answered_with_413_before_it_is_sent() {
    let node = TestNode::start().await;
    let mut stream = tokio::net::TcpStream::connect(node.node.address()).await.expect("a connection");
    let length = BODY_BYTES_MAX + 1;
    let head = format!("POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        let read = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut answer).await.expect("bytes");
        assert_ne!(read, 0, "closed");
    }
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_invalid_body_is_answered_with_400_and_its_line_and_column() {
    let node = TestNode::start().await;
    let broken = format!("{LINE}\n{{\"device\":\n");
    let (status, detail, _) = problem(node.batch(broken), "").await;
    assert_eq!((status, detail.as_str()), (400, "line 2, column 10: EOF while parsing a value"));
    let mut cut = gzip(LINE.as_bytes());
    cut.truncate(20);
    for (encoding, body) in [("gzip", cut), ("zstd", LINE.into()), ("gzip", LINE.into())] {
        let (status, detail, _) = problem(node.batch(body).header("content-encoding", encoding), "").await;
        assert!(status == 400 && detail.starts_with("the body cannot be decompressed: "), "{detail}");
    }
    let (status, _, _) = problem(node.batch(LINE).header("idempotency-key", "\"open"), "").await;
    assert_eq!(status, 400);
    assert_eq!(node.text("/v1/count").await, "{\"count\":0}\n");
}

#[tokio::test]
async fn one_invalid_reading_refuses_the_whole_batch() {
    let node = TestNode::start().await;
    let body = format!("{LINE}\n{{\"device\":\"\",\"sensor\":\"s\",\"value\":1}}\n{LINE}\n");
    let response = node.batch(body).header("idempotency-key", "a").send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 422);
    let body: serde_json::Value = serde_json::from_str(&response.text().await.expect("text")).expect("JSON");
    assert_eq!(body["errors"][0]["pointer"], "/1/device");
    assert_eq!(node.text("/v1/count").await, "{\"count\":0}\n");
    // The key was not used up.
    let answered = answer(node.batch(LINE).header("idempotency-key", "a")).await;
    assert_eq!(answered, (200, "{\"readings\":1,\"duplicate\":false}\n".to_owned()));
}

#[tokio::test]
async fn unknown_types_and_encodings_are_answered_with_the_known_ones() {
    let node = TestNode::start().await;
    let request = node.client.post(node.url("/v1/batches")).header("content-type", "text/csv; a=b");
    let (status, detail, accept) = problem(request.body("a"), "accept").await;
    assert_eq!((status, accept.as_str()), (415, "application/x-ndjson, application/jsonl"));
    assert!(detail.contains("`text/csv`"), "{detail}");
    let request = node.batch("a").header("content-encoding", "br");
    let (status, _, accept) = problem(request, "accept-encoding").await;
    assert_eq!((status, accept.as_str()), (415, "gzip, zstd, identity"));
    for (name, first, second) in [
        ("content-encoding", "gzip", "identity"),
        ("content-encoding", "identity", "br"),
        ("content-type", "application/x-ndjson", "application/x-ndjson"),
    ] {
        let request = node.client.post(node.url("/v1/batches")).header(name, first).header(name, second);
        let (status, detail, _) = problem(request.body(LINE), "accept").await;
        assert_eq!(status, 415, "{name}");
        assert!(detail.contains(&format!("{first}, {second}")), "{detail}");
    }
    let typed = ["application/jsonl", "Application/X-NDJSON; charset=utf-8"];
    for media_type in typed {
        let request = node.client.post(node.url("/v1/batches")).header("content-type", media_type);
        assert_eq!(answer(request.body(LINE)).await.0, 200, "{media_type}");
    }
    assert_eq!(answer(node.client.post(node.url("/v1/batches")).body(LINE)).await.0, 200);
}

#[tokio::test]
async fn wrong_paths_methods_and_parameters_are_problems() {
    let node = TestNode::start().await;
    let (status, detail, _) = problem(node.client.get(node.url("/v2")), "").await;
    assert!(status == 404 && detail.starts_with("there is no `/v2` here; known: "), "{detail}");
    let (status, _, allow) = problem(node.client.get(node.url("/v1/batches")), "allow").await;
    assert_eq!((status, allow.as_str()), (405, "POST"));
    let (status, _, allow) = problem(node.client.post(node.url("/v1/count")), "allow").await;
    assert_eq!((status, allow.as_str()), (405, "GET,HEAD"));
    for path in ["/v1/readings?limit=many", "/v1/readings?from=now", "/v1/count?limit=1", "/v1/count?x=1"] {
        assert_eq!(problem(node.client.get(node.url(path)), "").await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn queries_take_filters() {
    let node = TestNode::start().await;
    let line = |device: &str, time: &str| {
        format!("{{\"device\":\"{device}\",\"sensor\":\"s\",\"value\":1,\"time\":\"{time}\"}}\n")
    };
    let a = line("a", "2007-02-01T00:00:02Z");
    let (b, c) = (line("b", "2007-02-01T00:00:01Z"), line("b", "2007-02-01T00:00:03Z"));
    assert_eq!(answer(node.batch(format!("{a}{b}{c}"))).await.0, 200);
    for (query, expected) in [
        ("", vec![&b, &a, &c]),
        ("?device=b", vec![&b, &c]),
        ("?device=b&limit=1", vec![&b]),
        ("?sensor=s&from=2007-02-01T00:00:02Z", vec![&a, &c]),
        ("?from=2007-02-01T01:00:01%2B01:00&to=1170288003000", vec![&b, &a]),
        ("?limit=0", vec![]),
        ("?device=none", vec![]),
    ] {
        let expected: String = expected.into_iter().map(String::as_str).collect();
        assert_eq!(node.text(&format!("/v1/readings{query}")).await, expected, "{query}");
    }
    assert_eq!(node.text("/v1/count?device=b&from=1170288003000").await, "{\"count\":1}\n");
}

#[tokio::test]
async fn a_long_answer_comes_whole_and_in_parts() {
    let node = TestNode::start().await;
    let mut body = String::new();
    for second in 0..20_000 {
        let time =
            forebay_reading::timestamp::Timestamp::from_nanos(second * 1_000_000_000).expect("after 1970");
        body += &format!("{{\"device\":\"d\",\"sensor\":\"s\",\"value\":{second},\"time\":\"{time}\"}}\n");
    }
    assert_eq!(answer(node.batch(body.clone())).await.0, 200);
    assert_eq!(node.text("/v1/readings").await, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_batches_at_a_time_are_all_stored() {
    let node = TestNode::start().await;
    let body = format!("{LINE}\n").repeat(1000);
    for _ in 0..4 {
        let answers = (0..16).map(|_| answer(node.batch(body.clone())));
        for (status, text) in futures_util::future::join_all(answers).await {
            assert_eq!(status, 200, "{text}");
        }
    }
    assert_eq!(node.text("/v1/count").await, "{\"count\":64000}\n");
}

#[tokio::test]
async fn a_node_is_healthy_while_it_takes_batches() {
    let node = TestNode::start().await;
    let response = node.get("/healthz").await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.text().await.expect("text"), "{\"status\":\"ok\"}\n");
}

#[tokio::test]
async fn a_node_that_has_lost_readings_reports_their_number_at_every_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("deep/data");
    std::fs::create_dir_all(&data).expect("made");
    let (mut file, _) = marks::MarksFile::open(&data.join("readings.db-answered")).expect("made");
    file.write(marks::Marks { last: 7, checkpointed: 4, lost: 10 }).expect("noted");
    let node = TestNode::start_in(directory).await;
    let degraded = "{\"damage\":null,\"lost_readings\":13,\"status\":\"degraded\"}\n";
    assert_eq!(node.text("/healthz").await, degraded);
    node.node.stop().await;
    let node = TestNode::start_in(node.directory).await;
    assert_eq!(node.text("/healthz").await, degraded);
}

#[tokio::test]
async fn the_latest_readings_come_newest_first() {
    let node = TestNode::start().await;
    let line = |second: i64, device: &str, value: i64| {
        format!(
            "{{\"device\":\"{device}\",\"sensor\":\"s\",\"value\":{value},\"time\":\"2007-02-01T00:00:0{second}Z\"}}\n"
        )
    };
    let (a, b, c, d) = (line(2, "a", 1), line(1, "b", 2), line(2, "b", 3), line(3, "a", 4));
    assert_eq!(answer(node.batch([a.clone(), b.clone(), c.clone(), d.clone()].concat())).await.0, 200);
    for (query, expected) in [
        ("?latest=10", vec![&d, &c, &a, &b]),
        ("?latest=2", vec![&d, &c]),
        ("?device=b&latest=1", vec![&c]),
        ("?sensor=s&to=2007-02-01T00:00:03Z&latest=2", vec![&c, &a]),
        ("?device=none&latest=5", vec![]),
    ] {
        let expected: String = expected.into_iter().map(String::as_str).collect();
        assert_eq!(node.text(&format!("/v1/readings{query}")).await, expected, "{query}");
    }
    for query in ["latest=0", "latest=10001", "latest=x", "latest=1&limit=1"] {
        let request = node.client.get(node.url(&format!("/v1/readings?{query}")));
        assert_eq!(problem(request, "").await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_stopped_node_has_released_its_address_and_its_file() {
    let node = TestNode::start().await;
    let (address, data) = (node.node.address(), node.directory.path().join("deep/data"));
    assert_eq!(answer(node.batch(LINE)).await.0, 200);
    node.node.stop().await;
    TcpListener::bind(address).await.expect("the address is free");
    // SQLite removes its log when the last connection to the file has closed.
    assert!(data.join("readings.db").exists() && !data.join("readings.db-wal").exists());
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let listen = taken.local_addr().expect("an address");
    let options = NodeOptions { listen, data: directory.path().join("data") };
    let error = Node::start(options.clone()).await.expect_err("taken").to_string();
    assert!(error.starts_with(&format!("cannot listen on {listen}: ")), "{error}");

    let free = "127.0.0.1:0".parse().expect("an address");
    std::fs::write(&options.data, "a file").expect("written");
    let error = Node::start(NodeOptions { listen: free, ..options }).await.expect_err("a file").to_string();
    assert!(error.starts_with("cannot use the directory "), "{error}");

    let data = directory.path().join("other");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("readings.db"), "no database, but a text".repeat(100)).expect("written");
    let error = Node::start(NodeOptions { listen: free, data }).await.expect_err("no database").to_string();
    assert!(error.ends_with("readings.db: the store failed: file is not a database"), "{error}");
}

/// Sends raw bytes, and returns the answer up to the end of the connection.
async fn raw(node: &TestNode, bytes: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(node.node.address()).await.expect("a connection");
    tokio::io::AsyncWriteExt::write_all(&mut stream, bytes.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.expect("an end");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_batch_without_a_length_is_answered_with_411_and_not_stored() {
    let node = TestNode::start().await;
    for head in [
        "POST /v1/batches HTTP/1.0\r\n",
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
    ] {
        let answer = raw(&node, &format!("{head}\r\n{LINE}\n")).await;
        assert!(answer.contains(" 411 ") && answer.contains("Content-Length"), "{answer}");
    }
    let empty = raw(&node, "POST /v1/batches HTTP/1.0\r\nContent-Length: 0\r\n\r\n").await;
    assert!(empty.contains(" 200 "), "{empty}");
    assert_eq!(node.text("/v1/count").await, "{\"count\":0}\n");
}

#[tokio::test]
async fn foreign_web_pages_and_unknown_host_names_are_refused() {
    let node = TestNode::start().await;
    let host = reqwest::header::HOST;
    let evil = problem(node.batch(LINE).header(&host, "evil.example"), "x-content-type-options").await;
    assert_eq!((evil.0, evil.2.as_str()), (421, "nosniff"), "{}", evil.1);
    let (status, detail, _) = problem(node.batch(LINE).header("origin", "http://evil.example"), "").await;
    assert_eq!(status, 403, "{detail}");
    let (status, detail, _) = problem(node.batch(LINE).header("sec-fetch-site", "cross-site"), "").await;
    assert_eq!(status, 403, "{detail}");
    for name in ["localhost", "127.0.0.1:1", "[::1]"] {
        assert_eq!(answer(node.batch(LINE).header(&host, name)).await.0, 200, "{name}");
    }
    let health = node.client.get(node.url("/healthz")).header(&host, "node1:9000");
    assert_eq!(answer(health).await, (200, "{\"status\":\"ok\"}\n".to_owned()));
    assert_eq!(node.text("/v1/count").await, "{\"count\":3}\n");
}
