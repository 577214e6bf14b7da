//! Admission over HTTP: the `Host` and the `Origin` of requests, and which refusal comes first.
//!
//! Every case of the rules themselves stands in `src/door/tests.rs`.

use crate::support::process::{Process, directory, forebay};
use crate::support::{FakeNode, Reply, RunningGateway, TestGateway};

const ONE: &str = r#"{"device":"d","sensor":"s","value":1}"#;

async fn start(settings: impl FnOnce(TestGateway) -> TestGateway) -> (RunningGateway, FakeNode) {
    let node = FakeNode::start().await;
    (settings(TestGateway::new().node(&node)).start().await, node)
}

/// The answer to a request with these header lines, each with its line end.
async fn ask(gateway: &RunningGateway, start: &str, lines: &str, body: &str) -> Reply {
    let mut client = gateway.raw().await;
    client.send(format!("{start}\r\n{lines}\r\n{body}")).await;
    client.reply().await
}

async fn post(gateway: &RunningGateway, path: &str, lines: &str) -> Reply {
    let lines = format!("{lines}Content-Length: {}\r\n", ONE.len());
    ask(gateway, &format!("POST {path} HTTP/1.1"), &lines, ONE).await
}

#[tokio::test]
async fn a_host_that_is_missing_double_or_invalid_is_400_on_every_path() {
    let (gateway, _node) = start(|gateway| gateway).await;
    for lines in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: a b\r\n", "Host:\r\n", "Host: a/b\r\n"]
    {
        post(&gateway, "/v1/readings", lines).await.expect_problem(400);
        for path in ["/", "/healthz", "/status", "/nowhere"] {
            ask(&gateway, &format!("GET {path} HTTP/1.1"), lines, "").await.expect_problem(400);
        }
        let reply = post(&gateway, "/write", lines).await.expect_status(400);
        assert!(reply.json()["error"].as_str().is_some_and(|text| text.contains("Host")), "{}", reply.text());
    }
    ask(&gateway, "GET /healthz HTTP/1.0", "", "").await.expect_status(200);
    ask(&gateway, "GET http://localhost/healthz HTTP/1.1", "Host: localhost\r\n", "")
        .await
        .expect_status(200);
    assert_eq!(gateway.account("accepted").await, 0);
    assert!(
        gateway.metric(r#"forebay_http_requests_total{path="/v1/readings",status="400"}"#).await >= Some(5.0)
    );
}

#[tokio::test]
async fn a_name_that_was_made_to_mean_this_machine_reaches_nothing_but_the_probes() {
    let (gateway, _node) = start(|gateway| gateway).await;
    let evil = "Host: evil.example\r\n";
    for path in ["/v1/readings", "/write", "/api/v2/write"] {
        let reply = post(&gateway, path, evil).await.expect_status(421);
        assert!(reply.text().contains("server.hosts"), "{}", reply.text());
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
    for path in ["/", "/status", "/metrics", "/openapi.json", "/ping", "/nowhere"] {
        ask(&gateway, &format!("GET {path} HTTP/1.1"), evil, "").await.expect_problem(421);
    }
    for path in ["/healthz", "/readyz"] {
        ask(&gateway, &format!("GET {path} HTTP/1.1"), evil, "").await.expect_status(200);
    }
    assert_eq!(gateway.account("accepted").await, 0);

    let (gateway, _node) = start(|gateway| gateway.set("server.hosts", "gw.example,forebay")).await;
    for (host, status) in [("gw.example", 202), ("FOREBAY:8080", 202), ("evil.example", 421)] {
        post(&gateway, "/v1/readings", &format!("Host: {host}\r\n")).await.expect_status(status);
    }
}

#[tokio::test]
async fn a_web_page_of_another_origin_can_neither_write_nor_read() {
    let (gateway, _node) = start(|gateway| gateway).await;
    let foreign = "Host: localhost\r\nOrigin: http://evil.example\r\n";
    for lines in
        [foreign, "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "Host: localhost\r\nOrigin: null\r\n"]
    {
        for path in ["/v1/readings", "/write", "/api/v2/write"] {
            let reply = post(&gateway, path, lines).await.expect_status(403);
            assert!(reply.text().contains("server.origins"), "{}", reply.text());
            assert_eq!(reply.header("access-control-allow-origin"), "");
        }
        ask(&gateway, "GET /status HTTP/1.1", lines, "").await.expect_problem(403);
        ask(&gateway, "GET / HTTP/1.1", lines, "").await.expect_problem(403);
        ask(&gateway, "OPTIONS /v1/readings HTTP/1.1", lines, "").await.expect_problem(403);
    }
    let link = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    ask(&gateway, "GET / HTTP/1.1", link, "").await.expect_status(200);
    ask(&gateway, "GET /status HTTP/1.1", link, "").await.expect_problem(403);
    let own =
        format!("Host: {0}\r\nOrigin: http://{0}\r\nSec-Fetch-Site: same-origin\r\n", gateway.address());
    post(&gateway, "/v1/readings", &own).await.expect_status(202);
    assert_eq!(gateway.account("accepted").await, 1);
}

#[tokio::test]
async fn a_listed_page_may_post_and_sees_the_answer() {
    let origin = "https://dashboard.example";
    let (gateway, _node) = start(|gateway| gateway.set("server.origins", origin)).await;
    let lines = format!("Host: localhost\r\nOrigin: {origin}\r\nSec-Fetch-Site: cross-site\r\n");
    let preflight = format!(
        "{lines}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-api-key\r\n"
    );
    let reply = ask(&gateway, "OPTIONS /v1/readings HTTP/1.1", &preflight, "").await.expect_status(204);
    assert!(reply.header("access-control-allow-headers").contains("x-api-key"));
    assert!(reply.header("access-control-allow-methods").contains("POST"));
    for (path, status) in [("/v1/readings", 202), ("/v1/readings?stict=1", 400), ("/nowhere", 404)] {
        let reply = post(&gateway, path, &lines).await.expect_status(status);
        assert_eq!(reply.header("access-control-allow-origin"), origin, "{path}");
        assert_eq!(reply.header("vary"), "origin", "{path}");
        assert!(reply.header("access-control-expose-headers").contains("retry-after"), "{path}");
    }
    let other = lines.replace("dashboard", "other");
    post(&gateway, "/v1/readings", &other).await.expect_problem(403);
}

#[tokio::test]
async fn of_several_refusals_the_first_of_the_order_is_given() {
    let (gateway, _node) = start(|gateway| gateway.set("server.max_body", "1KiB")).await;
    let order: [(u16, &str, &str, &str); 8] = [
        (421, "POST /nowhere HTTP/1.1", "Host: evil.example\r\nOrigin: http://evil.example\r\n", "the host"),
        (403, "POST /nowhere HTTP/1.1", "Host: localhost\r\nOrigin: http://evil.example\r\n", "the origin"),
        (404, "PUT /nowhere HTTP/1.1", "Host: localhost\r\n", "the path"),
        (405, "PUT /v1/readings HTTP/1.1", "Host: localhost\r\nContent-Type: text/x\r\n", "the method"),
        (411, "POST /v1/readings?a=1 HTTP/1.1", "Host: localhost\r\nContent-Type: text/x\r\n", "the length"),
        (
            415,
            "POST /v1/readings?a=1 HTTP/1.1",
            "Host: localhost\r\nContent-Type: text/x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n",
            "the type",
        ),
        (
            413,
            "POST /v1/readings?a=1 HTTP/1.1",
            "Host: localhost\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n",
            "the size",
        ),
        (400, "POST /v1/readings?a=1 HTTP/1.1", "Host: localhost\r\nContent-Length: 1\r\n", "the parameters"),
    ];
    for (status, start, lines, what) in order {
        let body = if status == 400 { "{" } else { "" };
        let reply = ask(&gateway, start, lines, body).await;
        assert_eq!(reply.status.as_u16(), status, "{what}: {}", reply.text());
    }
}

#[tokio::test]
async fn an_operators_listener_beside_an_embedded_node_says_that_readings_are_only_read_there() {
    let home = directory();
    let operator =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let listen = operator.to_string();
    let settings =
        [("server.listen", "127.0.0.1:0"), ("server.operator.listen", &*listen), ("buffer.kind", "memory")];
    let process = Process::start(forebay(home.path(), &["serve"], &settings));
    let operator = RunningGateway::at(operator);
    operator.get("/v1/readings").await.expect_status(200);
    let reply = operator.post_body("application/json", ONE).await.expect_problem(405);
    assert_eq!(reply.header("allow"), "GET,HEAD");
    assert!(reply.detail().contains("`server.listen`"), "{}", reply.detail());
    process.gateway().post_body("application/json", ONE).await.expect_status(202);
}

/// The head of a post of one reading, which a proxy passes on for this client.
fn passed_on(client: &str, lines: &str) -> String {
    format!(
        "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\nContent-Length: {}\r\n{lines}\r\n",
        ONE.len()
    )
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_only_so_many_requests_under_way_and_others_are_served() {
    let settings = |gateway: TestGateway| {
        gateway
            .set("limits.connections", 2)
            .set("server.trusted_proxies", "127.0.0.1")
            .set("server.request_timeout", "1m")
    };
    let (gateway, _node) = start(settings).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut proxy = gateway.raw().await;
        proxy.send(passed_on("192.0.2.1", "Expect: 100-continue\r\n")).await;
        // The gateway waits for the body now.
        proxy.reply().await.expect_status(100);
        held.push(proxy);
    }
    let mut proxy = gateway.raw().await;
    let mut post = async |client: &str| {
        proxy.send(passed_on(client, "") + ONE).await;
        proxy.reply().await
    };
    let refused = post("192.0.2.1").await.expect_problem(429);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.detail().contains("limits.connections"), "{}", refused.detail());
    // Nor does a refused request hold its connection for the time that a body may take.
    let mut endless = gateway.raw().await;
    endless.send(passed_on("192.0.2.1", "")).await;
    endless.reply().await.expect_problem(429);
    // As many connections as the proxy wants, and one for each of its other clients.
    for client in ["192.0.2.2", "192.0.2.3", "2001:db8::1", ""] {
        post(client).await.expect_status(202);
    }
    for proxy in &mut held {
        proxy.send(ONE).await;
        proxy.reply().await.expect_status(202);
        post("192.0.2.1").await.expect_status(202);
    }
    assert_eq!(gateway.metric(r#"forebay_requests_refused_total{reason="rate"}"#).await, Some(2.0));
}
