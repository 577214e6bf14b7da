//! Keys that are identities: who may write what, who may look, and which answer comes first. Over HTTP; how a key is read
//! and found stands in `src/auth/`.

mod counts;
mod hostile;

use std::path::PathBuf;

use forebay::auth::secret::KeyHash;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{FakeNode, LIMIT, Reply, RunningGateway, TestGateway, eventually};

const ONE: &str = r#"{"device":"plant-7/a","sensor":"s","value":1}"#;

/// A gateway with keys, one node, and the file of the keys.
struct Setup {
    gateway: RunningGateway,
    node: FakeNode,
    directory: TempDir,
}

/// The entry of a key; `KEY` itself is `key of NAME`.
fn entry(name: &str, rest: &str) -> String {
    format!(
        "[[key]]\nname = \"{name}\"\nhashes = [\"{}\"]\n{rest}\n",
        KeyHash::of(format!("key of {name}").as_bytes())
    )
}

fn keys() -> String {
    entry(
        "plant-7",
        "devices = [\"plant-7/*\"]\nsensors = [\"s*\"]\ndefault_device = \"plant-7/unknown\"\ntags = { site = \"plant-7\" }",
    ) + &entry("any", "")
        + &entry("homely", "default_device = \"Küche\"")
        + &entry("operator", "role = \"read\"")
        + &entry("past", "not_after = \"2001-01-01T00:00:00Z\"")
}

impl Setup {
    async fn start(settings: impl FnOnce(TestGateway) -> TestGateway) -> Setup {
        Setup::with_keys(&keys(), settings).await
    }

    async fn with_keys(keys: &str, settings: impl FnOnce(TestGateway) -> TestGateway) -> Setup {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, keys).expect("written");
        let node = FakeNode::start().await;
        let gateway = TestGateway::new().node(&node).set("auth.keys", path.display());
        let gateway = settings(gateway).start().await;
        Setup { gateway, node, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("keys.toml")
    }

    /// Posts a body with these headers.
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let request = headers
            .iter()
            .fold(self.gateway.request(path), |request, (name, value)| request.header(*name, *value));
        self.gateway.send(request.body(body.to_owned())).await
    }

    async fn post_as(&self, name: &str, body: &str) -> Reply {
        self.post("/v1/readings", &[("authorization", &format!("Bearer key of {name}"))], body).await
    }

    /// Gets a path with a key.
    async fn get_as(&self, name: &str, path: &str) -> Reply {
        let mut client = self.gateway.raw().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key of {name}\r\n\r\n");
        client.send(head).await;
        client.reply().await
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_taken_and_the_answer_asks_for_one() {
    let setup = Setup::start(|gateway| gateway).await;
    let no_key = setup.post("/v1/readings", &[], ONE).await.expect_problem(401);
    assert_eq!(no_key.header("www-authenticate"), "Bearer");
    assert_eq!(
        no_key.detail(),
        "this gateway wants a key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    );
    for name in ["nobody", "past"] {
        let reply = setup.post_as(name, ONE).await.expect_problem(401);
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let two = [("authorization", "Bearer key of any"), ("x-api-key", "key of plant-7")];
    setup.post("/v1/readings", &two, ONE).await.expect_problem(401);
    for path in ["/write", "/api/v2/write"] {
        let reply = setup.post(path, &[], "m,device=d v=1").await.expect_status(401);
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert!(!reply.text().contains("problem"), "as clients of InfluxDB know it: {}", reply.text());
    }
    assert_eq!(setup.node.count(), 0);
    let refused = r#"forebay_requests_refused_total{reason="unauthorized"}"#;
    let metrics = setup.get_as("operator", "/metrics").await.expect_status(200).text();
    assert!(metrics.contains(&format!("{refused} 6\n")), "{metrics}");
}

#[tokio::test]
async fn a_key_may_come_in_every_form_that_clients_have() {
    let setup = Setup::start(|gateway| gateway).await;
    let basic = "Basic dTprZXkgb2YgYW55"; // u:key of any
    for headers in [
        [("authorization", "Bearer key of any")],
        [("authorization", "Token key of any")],
        [("authorization", basic)],
        [("x-api-key", "key of any")],
    ] {
        setup.post("/v1/readings", &headers, ONE).await.expect_status(202);
        for path in ["/write?db=x", "/api/v2/write?bucket=x"] {
            setup.post(path, &headers, "m,device=d v=1").await.expect_status(204);
        }
    }
    setup.post("/write?u=x&p=key+of+any", &[], "m,device=d v=1").await.expect_status(204);
    setup.post("/api/v2/write?p=key+of+any", &[], "m,device=d v=1").await.expect_status(401);
}

#[tokio::test]
async fn readings_that_a_key_does_not_cover_are_turned_away_one_by_one() {
    let setup = Setup::start(|gateway| gateway).await;
    let body = r#"[{"device":"plant-7/a","sensor":"s","value":1},
        {"device":"plant-8/a","sensor":"s","value":2},
        {"device":"plant-7/b","values":{"s1":3,"t":4}}]"#;
    let reply = setup.post_as("plant-7", body).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(2)), "{reply}");
    let errors = reply["errors"].as_array().expect("errors");
    assert_eq!((&errors[0]["index"], &errors[0]["pointer"]), (&json!(1), &json!("/1/device")));
    assert_eq!(errors[0]["detail"], "the key `plant-7` may not write readings of the device `plant-8/a`");
    assert_eq!((&errors[1]["index"], &errors[1]["pointer"]), (&json!(2), &json!("/2/values/t")));
    eventually("two readings arrive", || async { setup.node.count() == 2 }).await;
    let metrics = setup.get_as("operator", "/metrics").await.expect_status(200).text();
    for line in [
        r#"forebay_readings_rejected_total{reason="key"} 2"#,
        r#"forebay_key_readings_total{key="plant-7",outcome="accepted"} 2"#,
        r#"forebay_key_readings_total{key="plant-7",outcome="rejected"} 2"#,
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} in {metrics}");
    }
    let status = setup.get_as("operator", "/status").await.expect_status(200).json();
    let plant = status["keys"].as_array().expect("keys").iter().find(|key| key["name"] == "plant-7");
    assert_eq!(plant, Some(&json!({"name": "plant-7", "accepted": 2, "rejected": 2})));
}

#[tokio::test]
async fn a_request_of_which_a_key_covers_nothing_is_403_and_with_other_faults_422() {
    let setup = Setup::start(|gateway| gateway).await;
    let other = r#"{"device":"plant-8/a","sensor":"s","value":2}"#;
    let reply = setup.post_as("plant-7", other).await.expect_problem(403);
    assert_eq!(reply.json()["errors"][0]["pointer"], "/device");
    let and_bad = format!("[{other},{{\"device\":\"plant-7/a\"}}]");
    setup.post_as("plant-7", &and_bad).await.expect_problem(422);
    let lines = [("x-api-key", "key of plant-7")];
    setup.post("/write", &lines, "s,device=plant-8/a value=1").await.expect_status(403);
    setup.post("/api/v2/write", &lines, "s,device=plant-8/a value=1").await.expect_status(403);
    let partial = "s,device=plant-8/a value=1\ns,device=plant-7/a value=1\n";
    let reply = setup.post("/write", &lines, partial).await.expect_status(400);
    assert!(reply.text().contains("partial write"), "{}", reply.text());
    setup.post_as("operator", ONE).await.expect_problem(403);
}

#[tokio::test]
async fn a_name_that_is_too_long_is_refused_for_that_and_not_repeated() {
    let setup = Setup::start(|gateway| gateway).await;
    let (device, sensor) = ("d".repeat(100_000), "t".repeat(100_000));
    let values: Vec<_> = (0..100).map(|number| format!("\"s{number}\":1")).collect();
    let body = format!(r#"{{"device":"{device}","values":{{{}}}}}"#, values.join(","));
    let reply = setup.post_as("plant-7", &body).await.expect_problem(422);
    assert!(reply.text().len() < 50_000, "{}", reply.text().len());
    let line = format!("{sensor},device=plant-7/a {}", values.join(",").replace(':', "=").replace('"', ""));
    let reply = setup.post("/write", &[("x-api-key", "key of plant-7")], &line).await.expect_status(400);
    assert!(reply.text().len() < 50_000, "{}", reply.text().len());
}

#[tokio::test]
async fn a_key_gives_readings_its_tags_and_a_device_to_those_without_one() {
    let setup = Setup::start(|gateway| gateway).await;
    let body = r#"[{"sensor":"s","value":1,"tags":{"site":"elsewhere","room":"1"}}]"#;
    setup.post_as("plant-7", body).await.expect_status(202);
    let ndjson = [("x-api-key", "key of plant-7"), ("content-type", "application/x-ndjson")];
    setup.post("/v1/readings", &ndjson, "{\"sensor\":\"s2\",\"value\":2}\n").await.expect_status(202);
    setup.post("/write", &[("x-api-key", "key of plant-7")], "s3 value=3").await.expect_status(204);
    let senml = [("x-api-key", "key of plant-7"), ("content-type", "application/senml+json")];
    setup.post("/v1/readings", &senml, r#"[{"bn":"plant-7/x:","n":"s4","v":4}]"#).await.expect_status(202);
    let homely = [("x-api-key", "key of homely"), ("content-type", "application/senml+json")];
    let pack = r#"[{"v":5},{"v":6,"t":1},{"v":7,"x":{}}]"#;
    setup.post("/v1/readings", &homely, pack).await.expect_status(202);
    let homeless = [("x-api-key", "key of any"), ("content-type", "application/senml+json")];
    setup.post("/v1/readings", &homeless, pack).await.expect_problem(422);
    eventually("seven readings arrive", || async { setup.node.count() == 7 }).await;
    let received = setup.node.stored();
    let bodies: Vec<_> =
        received.iter().map(|batch| String::from_utf8_lossy(&batch.unpacked()).into_owned()).collect();
    let text = bodies.concat();
    for part in [
        r#""device":"plant-7/unknown","sensor":"s","value":1"#,
        r#""tags":{"room":"1","site":"plant-7"}"#,
        r#""device":"plant-7/unknown","sensor":"s2","value":2"#,
        r#""device":"plant-7/unknown","sensor":"s3","value":3"#,
        r#""device":"plant-7/x","sensor":"s4","value":4"#,
        r#""device":"Küche","sensor":"value","value":5"#,
        r#""device":"Küche","sensor":"value","value":6"#,
        r#""device":"Küche","sensor":"value","value":7"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(text.matches(r#""site":"plant-7""#).count(), 4, "{text}");
    // With its 32 tags a reading has no room for one more.
    let tags: Vec<_> = (0..32).map(|number| format!("\"t{number}\":\"x\"")).collect();
    let full = format!(r#"{{"device":"plant-7/a","sensor":"s","value":1,"tags":{{{}}}}}"#, tags.join(","));
    setup.post_as("plant-7", &full).await.expect_problem(422);
    setup.post_as("any", &full).await.expect_status(202);
}

#[tokio::test]
async fn each_key_has_its_idempotency_keys_to_itself() {
    let setup = Setup::start(|gateway| gateway).await;
    let send = |name: &'static str, body: &'static str| {
        let setup = &setup;
        async move {
            let key = format!("key of {name}");
            let headers = [("x-api-key", key.as_str()), ("idempotency-key", "1")];
            setup.post("/v1/readings", &headers, body).await
        }
    };
    send("any", ONE).await.expect_status(202);
    assert_eq!(send("any", ONE).await.header("idempotency-replayed"), "true");
    let other = r#"{"device":"plant-7/b","sensor":"s","value":2}"#;
    let reply = send("plant-7", other).await.expect_status(202);
    assert_eq!(reply.header("idempotency-replayed"), "");
    send("any", other).await.expect_problem(422);
}

#[tokio::test]
async fn what_the_operator_sees_needs_a_key_for_reading_once_there_are_keys() {
    let setup = Setup::start(|gateway| gateway).await;
    for path in ["/", "/page.css", "/metrics", "/status", "/status/rejections"] {
        setup.gateway.get(path).await.expect_problem(401);
        setup.get_as("any", path).await.expect_problem(403);
        setup.get_as("operator", path).await.expect_status(200);
    }
    for path in ["/healthz", "/openapi.json", "/ping?verbose=true", "/health", "/query"] {
        setup.gateway.get(path).await.expect_status(200);
    }
    setup.node.answer_otherwise(crate::support::Answer::status(404));
    setup.post_as("any", ONE).await.expect_status(202);
    eventually("the node is shown as down", || async {
        setup.gateway.get("/readyz").await.json()["status"] == "degraded"
    })
    .await;
    let readiness = setup.gateway.get("/readyz").await.expect_status(200);
    let checks = readiness.json()["checks"].clone();
    assert_eq!(checks["nodes"]["ok"], false);
    assert!(checks["nodes"]["reason"].is_null(), "the reasons name nodes: {}", readiness.text());
}

#[tokio::test]
async fn beside_an_operators_listener_senders_reach_nothing_else() {
    for keys in [false, true] {
        let settings = |gateway: TestGateway| {
            gateway.set("server.operator.listen", "127.0.0.1:0").set("server.operator.keys", keys)
        };
        let setup = Setup::start(settings).await;
        for path in ["/", "/metrics", "/status", "/status/rejections", "/page.css"] {
            setup.get_as("operator", path).await.expect_problem(404);
        }
        setup.gateway.get("/healthz").await.expect_status(200);
        setup.gateway.get("/v1/readings").await.expect_status(405);
        setup.post_as("any", ONE).await.expect_status(202);
        let operator = setup.gateway.operator();
        operator.get("/healthz").await.expect_status(200);
        for path in ["/v1/readings", "/write", "/api/v2/write"] {
            let reply = operator.send(operator.request(path).body(ONE)).await.expect_problem(404);
            assert!(reply.detail().contains("`server.listen`"), "{}", reply.detail());
        }
        operator.get("/v1/readings").await.expect_problem(404);
        for path in ["/", "/metrics", "/status", "/readyz"] {
            let reply = operator.get(path).await;
            reply.expect_status(if keys { 401 } else { 200 });
        }
    }
}

#[tokio::test]
async fn a_changed_file_of_keys_is_in_force_without_a_restart_and_a_bad_one_is_not() {
    let setup = Setup::start(|gateway| gateway).await;
    std::fs::write(setup.file(), "[[key]]\nname = ").expect("written");
    let refused = r#"forebay_file_reloads_total{files="keys",result="refused"} 1"#;
    eventually("the bad file is refused", || async {
        setup.get_as("operator", "/metrics").await.text().contains(refused)
    })
    .await;
    setup.post_as("any", ONE).await.expect_status(202);
    std::fs::write(setup.file(), entry("new", "") + &entry("operator", "role = \"read\"")).expect("written");
    eventually("the new key is taken", || async { setup.post_as("new", ONE).await.status == 202 }).await;
    setup.post_as("any", ONE).await.expect_problem(401);
}

#[tokio::test]
async fn wrong_keys_from_one_address_are_429_after_a_while_and_others_are_served() {
    let settings = |gateway: TestGateway| {
        gateway.set("limits.unauthorized", "5/h").set("server.trusted_proxies", "127.0.0.1")
    };
    let setup = Setup::start(settings).await;
    let from = |address: &'static str, key: &'static str| {
        let setup = &setup;
        async move { setup.post("/v1/readings", &[("x-api-key", key), ("x-forwarded-for", address)], ONE).await }
    };
    for _ in 0..5 {
        from("192.0.2.1", "wrong").await.expect_problem(401);
    }
    let limited = from("192.0.2.1", "wrong").await.expect_problem(429);
    let wait: u64 = limited.header("retry-after").parse().expect("seconds");
    assert!((1..=720).contains(&wait), "{wait}");
    from("192.0.2.1", "key of any").await.expect_problem(429);
    from("192.0.2.2", "key of any").await.expect_status(202);
    from("192.0.2.2", "wrong").await.expect_problem(401);
}

#[tokio::test]
async fn one_address_may_have_only_so_many_connections() {
    let setup = Setup::start(|gateway| gateway.set("limits.connections", 3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = setup.gateway.raw().await;
        client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.reply().await.expect_status(200);
        held.push(client);
    }
    let mut refused = setup.gateway.raw().await;
    refused.try_send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(refused.reply_or_end().await.is_none(), "the fourth is closed");
    held.pop();
    eventually("there is room again", || async {
        let mut client = setup.gateway.raw().await;
        client.try_send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.reply_or_end().await.is_some()
    })
    .await;
}

#[tokio::test]
async fn readings_are_still_taken_for_a_while_after_readyz_has_turned_503() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).set("server.drain_delay", "1s").start().await;
    let asked = gateway.handle();
    let stopped = tokio::spawn(gateway.stop());
    eventually("it says that it leaves", || async { asked.get("/readyz").await.status == 503 }).await;
    asked.post_body("application/json", ONE).await.expect_status(202);
    let outcome = tokio::time::timeout(LIMIT, stopped).await.expect("it ends").expect("no panic");
    assert_eq!(outcome.undelivered, 0);
    assert_eq!(node.count(), 1);
}

/// Makes a fault in a request.
type Spoil = fn(&mut Asked);

/// Every fault that a request can have, in the order in which it is told: its status, and what makes it.
const FAULTS: &[(u16, Spoil)] = &[
    (400, |asked| asked.lines.push("Host: a b".to_owned())),
    (403, |asked| asked.lines.push("Origin: http://evil.example".to_owned())),
    (404, |asked| asked.path = "/nowhere".to_owned()),
    (405, |asked| asked.method = "PUT"),
    (401, |asked| asked.key = Some("wrong")),
    (411, |asked| asked.length = None),
    (415, |asked| asked.lines.push("Content-Type: text/html".to_owned())),
    (413, |asked| asked.length = Some(100 << 20)),
    (400, |asked| asked.path.push_str("?nonsense=1")),
    (403, |asked| asked.key = Some("key of operator")),
];

/// A request in the making.
struct Asked {
    method: &'static str,
    path: String,
    lines: Vec<String>,
    key: Option<&'static str>,
    length: Option<usize>,
}

impl Asked {
    fn head(&self) -> String {
        let host =
            if self.lines.iter().any(|line| line.starts_with("Host")) { "" } else { "Host: localhost\r\n" };
        let key = self.key.map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
        let length = self.length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        let lines: String = self.lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\n{host}{key}{length}{lines}\r\n", self.method, self.path)
    }
}

#[tokio::test]
async fn of_two_faults_the_first_in_the_order_of_the_contract_is_told() {
    let setup = Setup::start(|gateway| gateway.set("server.request_timeout", "200ms")).await;
    // A key for reading is refused where the key is looked at, before the length and the type.
    let rank = |place: usize| if place == FAULTS.len() - 1 { 45 } else { place * 10 };
    for (one, (first_status, first)) in FAULTS.iter().enumerate() {
        for (other, (second_status, second)) in FAULTS.iter().enumerate().skip(one + 1) {
            // Both change the key.
            if (one, other) == (4, 9) || (one, other) == (5, 7) {
                continue;
            }
            let mut asked = Asked {
                method: "POST",
                path: "/v1/readings".to_owned(),
                lines: Vec::new(),
                key: Some("key of any"),
                length: Some(ONE.len()),
            };
            second(&mut asked);
            first(&mut asked);
            if asked.path.starts_with("/nowhere") {
                asked.path = "/nowhere".to_owned();
            }
            let expected = if rank(one) < rank(other) { *first_status } else { *second_status };
            let mut client = setup.gateway.raw().await;
            client.send(asked.head() + ONE).await;
            let reply = client.reply().await;
            assert_eq!(reply.status.as_u16(), expected, "{}{}", asked.head(), reply.text());
        }
    }
}

#[tokio::test]
async fn a_browser_asks_its_person_for_a_key_and_the_page_is_shown() {
    let setup = Setup::start(|gateway| gateway).await;
    let open = async |headers: &[&str]| {
        let mut client = setup.gateway.raw().await;
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await;
        let reply = client.reply().await;
        let asked: Vec<_> = reply.headers.get_all("www-authenticate").iter().cloned().collect();
        (reply.status.as_u16(), asked)
    };
    let navigates = "Sec-Fetch-Dest: document";
    let (status, asked) = open(&[navigates]).await;
    assert_eq!((status, asked.len()), (401, 2));
    assert_eq!(asked[1], "Basic realm=\"Forebay\", charset=\"UTF-8\"");
    assert_eq!(open(&[]).await.1, ["Bearer"], "a program is asked for a key alone");
    // The password is the key of the operator: `me:key of operator`.
    assert_eq!(open(&[navigates, "Authorization: Basic bWU6a2V5IG9mIG9wZXJhdG9y"]).await.0, 200);
}

#[tokio::test]
async fn a_refused_request_counts_as_one_of_its_client_behind_a_proxy_while_its_body_is_read() {
    let setup = Setup::start(|gateway| {
        gateway
            .set("limits.connections", 1)
            .set("server.trusted_proxies", "127.0.0.1")
            .set("server.request_timeout", "1m")
    })
    .await;
    let mut refused = setup.gateway.raw().await;
    let length = ONE.len();
    refused
        .send(format!(
            "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nX-API-Key: nobody's\r\nX-Forwarded-For: 192.0.2.1\r\n\
             Content-Length: {length}\r\n\r\n"
        ))
        .await;
    let post = async || {
        let headers = [("x-api-key", "key of any"), ("x-forwarded-for", "192.0.2.1")];
        setup.post("/v1/readings", &headers, ONE).await.status.as_u16()
    };
    eventually("the refused request is under way", || async { post().await == 429 }).await;
    refused.send(ONE).await;
    refused.reply().await.expect_problem(401);
    eventually("its place is free", || async { post().await == 202 }).await;
}
