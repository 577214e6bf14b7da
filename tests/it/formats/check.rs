//! Faults that `forebay check` finds with the questions of the format: the binary is run against nodes with scripted
//! answers.

use crate::support::process::{Finished, directory, forebay, run};
use crate::support::{Answer, FakeNode};

/// Its lines about the nodes, and its exit status.
async fn check(settings: &[(&str, &str)]) -> (Finished, String) {
    let settings = [&[("server.listen", "127.0.0.1:0")], settings].concat();
    let place = directory();
    let command = forebay(place.path(), &["check"], &settings);
    let ended = tokio::task::spawn_blocking(|| run(command)).await.expect("no panic");
    let nodes = ended.stdout.lines().skip_while(|line| !line.starts_with("node "));
    let nodes = nodes.collect::<Vec<_>>().join("\n");
    (ended, nodes)
}

fn column(name: &str, kind: &str) -> String {
    format!(
        "{{\"name\":\"{name}\",\"type\":\"{kind}\",\"default_type\":\"\",\"default_expression\":\"\",\"comment\":\"\",\"codec_expression\":\"\",\"ttl_expression\":\"\"}}\n"
    )
}

fn table(columns: &[(&str, &str)]) -> Answer {
    Answer::status(200).body(columns.iter().map(|(name, kind)| column(name, kind)).collect::<String>())
}

const FULL: [(&str, &str); 6] = [
    ("device", "String"),
    ("sensor", "String"),
    ("value", "Float64"),
    ("time", "DateTime64(9)"),
    ("unit", "String"),
    ("tags", "Map(String, String)"),
];

#[tokio::test]
async fn clickhouse_is_asked_for_its_table_and_for_an_insert_of_nothing() {
    let node = FakeNode::answering([table(&FULL)]).await;
    let url = format!("{}?user=me", node.url());
    let settings = [
        ("cluster.format", "clickhouse"),
        ("cluster.nodes", url.as_str()),
        ("cluster.headers.x-clickhouse-key", "s3cret"),
        ("cluster.compression", "gzip"),
    ];
    let (ended, nodes) = check(&settings).await;
    ended.expect_status(0);
    assert_eq!(
        nodes,
        format!("node {}: has the table `default`.`readings`; takes inserts", url_shown(&node))
    );
    let received = node.received();
    assert_eq!(received.len(), 2);
    for (request, statement) in received.iter().zip(["DESCRIBE+TABLE+", "INSERT+INTO+"]) {
        assert!(request.target.starts_with(&format!("/v1/batches?query={statement}")), "{}", request.target);
        assert!(
            request.target.ends_with("&insert_deduplication_token=forebay-check&user=me"),
            "{}",
            request.target
        );
        assert_eq!(request.header("x-clickhouse-key"), "s3cret");
        assert_eq!(request.header("content-encoding"), "gzip");
        assert!(request.unpacked().is_empty(), "nothing is stored");
    }
}

/// How a node is shown.
fn url_shown(node: &FakeNode) -> String {
    format!("http://{}/v1/batches", node.id())
}

#[tokio::test]
async fn a_fault_of_a_node_is_reported_with_a_remedy() {
    let code = |status, code: u32, text: &str| {
        Answer::status(status).body(format!("Code: {code}. DB::Exception: {text}"))
    };
    let without_time: Vec<_> = FULL.into_iter().filter(|(name, _)| *name != "time").collect();
    let table_of_this = |word: &str| format!("CREATE TABLE `default`.`readings` (\n      {word}");
    let clickhouse = [
        (vec![code(404, 60, "x")], "has no table `default`.`readings`; this makes one:".to_owned()),
        (vec![code(404, 60, "x")], table_of_this("device LowCardinality(String),")),
        (vec![Answer::status(404).body("Code: 60, e.displayText() = x")], table_of_this("device String,")),
        (vec![code(404, 81, "x")], "CREATE DATABASE `default`".to_owned()),
        (
            vec![code(404, 115, "Unknown setting insert_deduplication_token")],
            "set cluster.clickhouse.deduplication_token to false".to_owned(),
        ),
        (
            vec![code(401, 516, "x")],
            "set x-clickhouse-user and x-clickhouse-key in [cluster.headers]".to_owned(),
        ),
        (vec![table(&without_time)], "ALTER TABLE `default`.`readings` ADD COLUMN `time`".to_owned()),
        (vec![table(&[("value", "Date")])], "`value` is Date, and must be Float64".to_owned()),
        (vec![table(&FULL), code(500, 164, "x")], "lets this user read only; it needs INSERT".to_owned()),
        (vec![Answer::status(200).body("<html>")], "does not answer as ClickHouse does".to_owned()),
    ];
    let general = [
        (401, "refuses the credentials, or wants some; see cluster.headers (401)"),
        (403, "refuses these credentials; see cluster.headers (403)"),
        (301, "sends elsewhere (301)"),
        (500, "fails; its log says more (500)"),
        (503, "is busy or not ready; try again later (503)"),
    ];
    let general = general.map(|(status, words)| (vec![Answer::status(status)], words.to_owned()));
    let path = |status| (vec![Answer::status(status)], "the address must end in /_bulk".to_owned());
    let elasticsearch = general.clone().into_iter().chain([path(404), path(405), path(200), path(400)]);
    let missing = (vec![Answer::status(404)], "knows no such path".to_owned());
    let method = (vec![Answer::status(405)], "takes no batches at this path".to_owned());
    let clickhouse = clickhouse.into_iter().chain(general).chain([missing, method]);
    let cases =
        clickhouse.map(|case| ("clickhouse", case)).chain(elasticsearch.map(|case| ("elasticsearch", case)));
    for (format, (answers, words)) in cases {
        let node = FakeNode::answering(answers).await;
        let (ended, nodes) = check(&[("cluster.format", format), ("cluster.nodes", &node.url())]).await;
        assert_eq!(ended.status, Some(1), "{words}: {nodes}");
        assert!(
            nodes.starts_with(&format!("node {}: ", url_shown(&node))) && nodes.contains(&words),
            "{words}: {nodes}"
        );
    }
}

#[tokio::test]
async fn elasticsearch_is_asked_with_a_bulk_request_without_actions() {
    let refusal = r#"{"error":{"root_cause":[{"type":"action_request_validation_exception","reason":"Validation Failed: 1: no requests added;"}]},"status":400}"#;
    let node = FakeNode::always(Answer::status(400).body(refusal)).await;
    let named = format!("dns+{}", node.url());
    let (ended, nodes) = check(&[("cluster.format", "elasticsearch"), ("cluster.nodes", &named)]).await;
    ended.expect_status(0);
    assert!(nodes.starts_with(&format!("node {named} at {}: takes bulk requests", node.id())), "{nodes}");
    let [request] = &node.received()[..] else { panic!("one request") };
    assert_eq!((request.header("host"), &request.body[..]), (node.id(), &b"\n"[..]));
    assert_eq!(request.header("content-type"), "application/x-ndjson");
}

#[tokio::test]
async fn answers_of_nodes_show_no_secrets_obey_no_terminal_and_seem_to_be_no_other_node() {
    let echo =
        "\u{1b}[2J\r\nnode http://other/: takes inserts\ns3cret-token hush-hush Basic bWU6cGFzc3dvcmQ=";
    for format in ["clickhouse", "elasticsearch"] {
        let odd_table = Answer::status(200).body(column("value", "UUID\\nnode x: y\\u001b[2J hush-hush"));
        for answer in [Answer::status(500).body(echo.repeat(3000)), Answer::status(402).body(echo), odd_table]
        {
            let node = FakeNode::always(answer).await;
            let url = format!("http://me:password@{}/x?password=hush-hush", node.id());
            let settings = [
                ("cluster.format", format),
                ("cluster.nodes", url.as_str()),
                ("cluster.headers.x-key", "Bearer s3cret-token"),
            ];
            let (ended, nodes) = check(&settings).await;
            assert_eq!(ended.status, Some(1));
            for secret in ["s3cret", "hush", "bWU6", "password@"] {
                assert!(
                    !ended.stdout.contains(secret) && !ended.stderr.contains(secret),
                    "{secret}: {nodes}"
                );
            }
            assert!(!nodes.contains(|c: char| c.is_control() && c != '\n'), "{nodes:?}");
            assert_eq!(nodes.lines().filter(|line| !line.starts_with("    ")).count(), 1, "{nodes}");
            assert!(nodes.len() < 4000, "{nodes}");
        }
    }
}

#[tokio::test]
async fn a_silent_node_is_reported_after_the_time_out() {
    let node = FakeNode::always(Answer::never()).await;
    let url = node.url();
    let settings = [("cluster.format", "clickhouse"), ("cluster.nodes", &*url), ("cluster.timeout", "100ms")];
    let (ended, nodes) = check(&settings).await;
    assert_eq!(
        (ended.status, nodes),
        (Some(1), format!("node {}: did not answer in time", url_shown(&node)))
    );
    assert_eq!(node.received()[0].header("content-length"), "0", "ClickHouse wants to be told");
    let address = node.stop().await;
    let (ended, nodes) = check(&settings).await;
    assert_eq!(ended.status, Some(1));
    assert!(nodes.starts_with(&format!("node http://{address}/v1/batches: cannot be reached: ")), "{nodes}");
}
