//! The command against a fake gateway and fake nodes.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use forebay_reading::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::ServerAccess;
use crate::audit::{Audit, AuditVerdict};
use crate::report::LoadReport;
use crate::{LoadAccess, LoadArguments, drive};

/// The behaviour of the fake gateway with one request.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Delivers the readings and acknowledges them.
    Take,
    /// 503 with `Retry-After: 0`; takes no reading.
    Refuse,
    /// 503 with `Retry-After: 60`; takes no reading.
    RefuseForLong,
    /// 202 that turns the first reading away.
    RejectFirst,
    /// 422.
    RejectAll,
    /// Delivers the readings and never answers.
    TakeAndHang,
    /// Never answers, and delivers nothing.
    Hang,
    /// Acknowledges the readings and delivers all but the first.
    LoseFirst,
    /// Acknowledges the readings and delivers the first twice.
    DoubleFirst,
    /// 503, although it delivers the readings.
    RefuseAndDeliver,
}

/// A gateway that delivers at once, to its nodes in turn.
#[derive(Default)]
struct Gateway {
    /// The acts for the next requests; after them, [`Act::Take`].
    acts: VecDeque<Act>,
    nodes: Vec<Arc<Mutex<Node>>>,
    node_urls: Vec<String>,
    requests: Vec<Value>,
    /// The `Authorization` of each request for readings, and of each for `/status`.
    keys: [Vec<String>; 2],
    /// Requests of `/status` that are answered with a buffer that is not empty.
    buffered_looks: u64,
}

/// A node, with its readings in the order of time.
#[derive(Default)]
struct Node {
    readings: BTreeMap<(String, Timestamp), Vec<Value>>,
    pages: usize,
    /// The `Authorization` of each request.
    keys: Vec<String>,
}

type Shared<T> = Arc<Mutex<T>>;

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("no test panics while it holds this")
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

impl Node {
    fn add(&mut self, reading: &Value) {
        let text = |field: &str| reading[field].as_str().expect("a text").to_owned();
        let time = time(reading);
        self.readings.entry((text("device"), time)).or_default().push(reading.clone());
    }

    fn count(&self) -> usize {
        self.readings.values().map(Vec::len).sum()
    }
}

fn time(reading: &Value) -> Timestamp {
    Timestamp::parse(reading["time"].as_str().expect("a text")).expect("a time")
}

fn key(headers: &HeaderMap) -> Option<String> {
    headers.get("authorization").map(|value| value.to_str().expect("ASCII").to_owned())
}

async fn node_readings(
    State(node): State<Shared<Node>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> String {
    let mut node = lock(&node);
    node.pages += 1;
    node.keys.extend(key(&headers));
    let limit: usize = query["limit"].parse().expect("a number");
    let at = |name: &str| query.get(name).map(|text| Timestamp::parse(text).expect("a time"));
    let (from, to) = (at("from"), at("to"));
    let readings = node.readings.iter().filter(|((device, _), _)| *device == query["device"]);
    let readings = readings.flat_map(|(_, readings)| readings).filter(|reading| {
        let time = time(reading);
        from.is_none_or(|from| from <= time) && to.is_none_or(|to| time < to)
    });
    readings.take(limit).map(|reading| format!("{reading}\n")).collect()
}

async fn node_count(State(node): State<Shared<Node>>) -> axum::response::Response {
    ([("content-type", "application/json")], json!({"count": lock(&node).count()}).to_string())
        .into_response()
}

async fn gateway_post(State(gateway): State<Shared<Gateway>>, headers: HeaderMap, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let readings = body.as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
    let act = {
        let mut gateway = lock(&gateway);
        gateway.keys[0].extend(key(&headers));
        let act = gateway.acts.pop_front().unwrap_or(Act::Take);
        let node = gateway.requests.len() % gateway.nodes.len().max(1);
        gateway.requests.push(body);
        if let Some(node) = gateway.nodes.get(node) {
            let mut node = lock(node);
            delivered(act, &readings).iter().for_each(|reading| node.add(reading));
        }
        act
    };
    let receipt = |accepted: usize, errors: Value| {
        let rejected = readings.len() - accepted;
        let body = json!({"accepted": accepted, "rejected": rejected, "ack": "memory", "errors": errors});
        (StatusCode::ACCEPTED, body.to_string()).into_response()
    };
    match act {
        Act::Take | Act::LoseFirst | Act::DoubleFirst => receipt(readings.len(), json!([])),
        Act::RejectFirst => {
            receipt(readings.len() - 1, json!([{"index": 0, "pointer": "/0", "detail": "no"}]))
        }
        Act::Refuse | Act::RefuseAndDeliver => refusal("0"),
        Act::RefuseForLong => refusal("60"),
        Act::RejectAll => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        Act::TakeAndHang | Act::Hang => std::future::pending().await,
    }
}

fn refusal(retry_after: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", retry_after)], "full").into_response()
}

/// The readings that reach the node.
fn delivered(act: Act, readings: &[Value]) -> Vec<Value> {
    match act {
        Act::Take | Act::TakeAndHang | Act::RefuseAndDeliver => readings.to_vec(),
        Act::RejectFirst | Act::LoseFirst => readings[1..].to_vec(),
        Act::DoubleFirst => [&readings[..1], readings].concat(),
        Act::Refuse | Act::RefuseForLong | Act::RejectAll | Act::Hang => Vec::new(),
    }
}

async fn gateway_status(State(gateway): State<Shared<Gateway>>, headers: HeaderMap) -> String {
    let mut gateway = lock(&gateway);
    gateway.keys[1].extend(key(&headers));
    let buffered = u64::from(gateway.buffered_looks > 0);
    gateway.buffered_looks = gateway.buffered_looks.saturating_sub(1);
    let nodes: Vec<Value> =
        gateway.node_urls.iter().map(|url| json!({"url": format!("{url}/v1/batches"), "up": true})).collect();
    json!({"version": "0.1.0", "ledger": {"accepted": 1, "buffered": buffered}, "nodes": nodes}).to_string()
}

/// A running gateway with its nodes.
struct Stand {
    url: String,
    gateway: Shared<Gateway>,
    nodes: Vec<Shared<Node>>,
}

impl Stand {
    async fn start(nodes: usize, acts: &[Act]) -> Stand {
        let nodes: Vec<Shared<Node>> = (0..nodes).map(|_| Shared::default()).collect();
        let mut node_urls = Vec::new();
        for node in &nodes {
            let router =
                Router::new().route("/v1/readings", get(node_readings)).route("/v1/count", get(node_count));
            node_urls.push(serve(router.with_state(node.clone())).await);
        }
        let acts = acts.iter().copied().collect();
        let gateway = Gateway { acts, nodes: nodes.clone(), node_urls, ..Gateway::default() };
        let gateway = Arc::new(Mutex::new(gateway));
        let router =
            Router::new().route("/v1/readings", post(gateway_post)).route("/status", get(gateway_status));
        let url = serve(router.with_state(gateway.clone())).await;
        Stand { url, gateway, nodes }
    }

    async fn load(&self, arguments: &str) -> LoadReport {
        load(&format!("{} {arguments}", self.url)).await.expect("the run begins")
    }

    fn requests(&self) -> Vec<Value> {
        lock(&self.gateway).requests.clone()
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    load: LoadArguments,
}

fn parse(arguments: &str) -> LoadArguments {
    let words = std::iter::once("load").chain(arguments.split_whitespace());
    Command::try_parse_from(words).expect("the arguments are right").load
}

async fn load(arguments: &str) -> Result<LoadReport, String> {
    load_with(arguments, &LoadAccess::default()).await
}

async fn load_with(arguments: &str, access: &LoadAccess) -> Result<LoadReport, String> {
    let arguments = parse(arguments);
    let plan = arguments.plan().map_err(|error| error.to_string())?;
    let report = drive(&arguments, access, &plan, CancellationToken::new()).await;
    report.map_err(|error| error.to_string())
}

#[track_caller]
fn verdict(report: &LoadReport) -> AuditVerdict {
    match &report.audit {
        Some(Ok(Audit::Done(verdict))) => AuditVerdict { examples: Vec::new(), ..verdict.clone() },
        other => panic!("no verdict: {other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

/// One connection and few large batches, so that requests come in the order of the acts.
const IN_ORDER: &str = "--connections 1 --devices 4 --batch 5 --rate 100 --duration 300ms --settle 5s";

#[tokio::test]
async fn the_rate_is_kept_and_every_reading_is_found_once() {
    let stand = Stand::start(3, &[]).await;
    lock(&stand.gateway).buffered_looks = 3;
    let report = stand.load("--rate 2000 --duration 500ms --devices 30 --connections 4").await;
    // At most the readings that are due; on a busy machine there may be fewer.
    assert!((100..=1000).contains(&report.tally.accepted), "{report}");
    assert_eq!(report.tally.accepted, report.tally.sent);
    let accepted = report.tally.accepted;
    assert_eq!(
        verdict(&report),
        AuditVerdict { acknowledged: accepted, found_once: accepted, ..AuditVerdict::default() }
    );
    assert!(report.passed());
    assert!(stand.nodes.iter().all(|node| lock(node).count() > 0), "all nodes take part");
    let first = stand.requests()[0].as_array().expect("an array").clone();
    assert_eq!(first.len(), 10);
}

#[tokio::test]
async fn a_refused_request_is_sent_again_unchanged_and_counted() {
    let stand = Stand::start(1, &[Act::Take, Act::Refuse, Act::Refuse]).await;
    let report = stand.load(IN_ORDER).await;
    let requests = stand.requests();
    assert_eq!(requests[1], requests[2]);
    assert_eq!(requests[2], requests[3]);
    assert_ne!(requests[3], requests[4]);
    assert_eq!(report.tally.refused, [(StatusCode::SERVICE_UNAVAILABLE, 2)].into());
    assert_eq!(report.tally.requests as usize, requests.len());
    assert_eq!(report.tally.sent, report.tally.accepted);
    assert!(
        !report.passed() && report.to_string().ends_with("failed: 2 requests were refused\n"),
        "{report}"
    );
}

#[tokio::test]
async fn a_wait_after_a_refusal_ends_with_the_run() {
    let stand = Stand::start(1, &[Act::Take, Act::RefuseForLong]).await;
    let run = tokio::time::timeout(Duration::from_secs(20), stand.load(IN_ORDER));
    let report = run.await.expect("it ends with the duration");
    assert!(report.elapsed >= Duration::from_millis(300));
    assert_eq!((report.tally.sent, report.tally.accepted), (10, 5));
    assert_eq!(verdict(&report), AuditVerdict { acknowledged: 5, found_once: 5, ..AuditVerdict::default() });
    let result = "failed: 1 requests were refused, 5 readings were not acknowledged\n";
    assert!(!report.passed() && report.to_string().ends_with(result), "{report}");
}

#[tokio::test]
async fn rejected_readings_are_neither_acknowledged_nor_missing() {
    let stand = Stand::start(1, &[Act::RejectFirst, Act::RejectAll]).await;
    let report = stand.load(IN_ORDER).await;
    assert_eq!(report.tally.rejected, 6);
    assert_eq!(report.tally.accepted + 6, report.tally.sent);
    let found = verdict(&report);
    assert_eq!(found.acknowledged, report.tally.accepted);
    assert!(found.passed() && !report.passed(), "{report}");
}

#[tokio::test]
async fn a_lost_answer_leaves_its_readings_unknown() {
    let stand = Stand::start(1, &[Act::Take, Act::TakeAndHang, Act::Hang]).await;
    let report = stand
        .load("--connections 1 --devices 4 --batch 5 --rate 100 --duration 1500ms --timeout 100ms")
        .await;
    assert_eq!(report.tally.errors, [("timed out", 2)].into());
    assert_eq!(report.tally.unanswered, 10);
    let verdict = verdict(&report);
    assert_eq!((verdict.unanswered, verdict.unanswered_found), (10, 5));
    assert_eq!(verdict.acknowledged, report.tally.sent - 10);
    let result = "failed: 2 requests failed, 10 readings were not acknowledged\n";
    assert!(verdict.passed() && report.to_string().ends_with(result), "{report}");
}

#[tokio::test]
async fn the_audit_finds_missing_double_and_refused_readings() {
    let stand = Stand::start(2, &[Act::Take, Act::LoseFirst, Act::DoubleFirst, Act::RefuseAndDeliver]).await;
    let report = stand.load(IN_ORDER).await;
    let found = verdict(&report);
    // Readings that were refused and delivered are acknowledged at the second try, and on the node twice.
    assert_eq!((found.missing, found.more_than_once, found.strangers), (1, 1 + 5, 0));
    assert!(!report.passed());
    let text = report.to_string();
    assert!(text.contains("missing: device load-"), "{text}");
    assert!(text.contains("found more than once: device load-"), "{text}");
}

#[tokio::test]
async fn the_audit_finds_readings_that_were_never_sent() {
    let stand = Stand::start(1, &[Act::Take]).await;
    let (arguments, stop) = (parse(&format!("{} {IN_ORDER}", stand.url)), CancellationToken::new());
    let plan = arguments.plan().expect("a plan");
    // A reading of a simulated device, long before the run.
    let super::Plan::Simulation(simulation) = &plan else { panic!("a simulation") };
    let device = simulation.windows(1, 1).next().expect("a window").device;
    lock(&stand.nodes[0])
        .add(&json!({"device": *device, "sensor": "v", "value": 1, "time": "2000-01-01T00:00:00Z"}));
    let report = drive(&arguments, &LoadAccess::default(), &plan, stop).await.expect("the run begins");
    assert_eq!(verdict(&report).strangers, 1);
    assert!(!report.passed(), "{report}");
}

#[tokio::test]
async fn a_file_is_sent_once_and_only_copies_that_the_run_added_are_judged() {
    let file =
        file("time,v,i\n2007-02-01T00:00:00Z,240.5,?\n2007-02-01T00:01:00Z,,3\n2007-02-01T00:02:00Z,1,4\n");
    let stand = Stand::start(1, &[]).await;
    let arguments =
        format!("--csv {} --device meter --batch 3 --rate 0 --connections 2", file.path().display());
    for run in 1..=2 {
        let report = stand.load(&arguments).await;
        assert_eq!((report.tally.sent, report.tally.accepted), (4, 4));
        assert_eq!(
            verdict(&report),
            AuditVerdict { acknowledged: 4, found_once: 4, ..AuditVerdict::default() }
        );
        assert_eq!(lock(&stand.nodes[0]).count(), 4 * run);
    }
    lock(&stand.gateway).acts = [Act::LoseFirst, Act::DoubleFirst].into();
    let report = stand.load(&arguments).await;
    assert_eq!((verdict(&report).missing, verdict(&report).more_than_once), (1, 1));
    let sent: Vec<Value> =
        stand.requests()[..2].iter().flat_map(|body| body.as_array().cloned()).flatten().collect();
    let cells: Vec<_> =
        sent.iter().map(|reading| (reading["sensor"].clone(), reading["value"].clone())).collect();
    let expected = [("v", json!(240.5)), ("i", json!(3)), ("v", json!(1)), ("i", json!(4))];
    for (sensor, value) in expected {
        assert!(cells.contains(&(json!(sensor), value.clone())), "{sensor} {value} in {cells:?}");
    }
    assert!(sent.iter().all(|reading| reading["device"] == "meter"));
}

#[tokio::test]
async fn the_file_in_the_project_is_sent_and_found() {
    let stand = Stand::start(1, &[]).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/household_power.csv");
    let report = stand.load(&format!("--csv {path} --rate 0")).await;
    assert_eq!(
        verdict(&report),
        AuditVerdict { acknowledged: 840, found_once: 840, ..AuditVerdict::default() }
    );
    assert_eq!(stand.requests()[0][0]["device"], "household_power");
}

#[tokio::test]
async fn pages_that_cut_a_span_of_time_lose_and_double_no_reading() {
    let stand = Stand::start(1, &[]).await;
    let arguments = parse(&format!("{} --rate 2000 --duration 300ms --devices 3", stand.url));
    let plan = arguments.plan().expect("a plan");
    let sent = super::send(&arguments, &LoadAccess::default(), &plan, CancellationToken::new()).await;
    let shared = sent.expect("it is sent").shared;
    let sent = shared.tally(|tally| tally.accepted);
    let fates = shared.take_fates();
    for (page, window) in [(7, 1000), (64, 10), (2, 100_000)] {
        let mut auditor = arguments.auditor(&LoadAccess::default()).expect("a client");
        (auditor.reader.page, auditor.window) = (page, window);
        let baseline = super::audit::Baseline::default();
        let audit = auditor.audit(&plan, &fates, &baseline).await.expect("the audit is done");
        let Audit::Done(verdict) = audit else { panic!("left out") };
        assert_eq!(verdict, AuditVerdict { acknowledged: sent, found_once: sent, ..AuditVerdict::default() });
    }
    let pages = lock(&stand.nodes[0]).pages as u64;
    assert!(pages > sent / 10, "{pages} pages for {sent} readings");
}

#[tokio::test]
async fn nodes_that_are_not_embedded_ones_are_left_out_and_named() {
    let stand = Stand::start(1, &[]).await;
    let other = serve(Router::new()).await;
    lock(&stand.gateway).node_urls = vec![other.clone()];
    let report = stand.load(IN_ORDER).await;
    let text = report.to_string();
    assert!(
        text.contains(&format!(
            "audit: left out, no node is an embedded one ({other}/v1/count: answered 404"
        )),
        "{text}"
    );
    assert!(report.passed());

    let named = stand.load(&format!("{IN_ORDER} --node {other}")).await;
    assert!(!named.passed(), "a node that was asked for must be read");
}

#[tokio::test]
async fn readings_that_may_be_on_an_unread_node_are_not_called_missing() {
    let stand = Stand::start(2, &[]).await;
    let other = serve(Router::new()).await;
    lock(&stand.gateway).node_urls[1] = other;
    let report = stand.load(IN_ORDER).await;
    assert!(verdict(&report).missing > 0);
    assert!(report.to_string().contains("not on the nodes read"), "{report}");
    assert!(report.passed());
}

#[tokio::test]
async fn without_an_audit_the_nodes_are_left_alone() {
    let stand = Stand::start(1, &[]).await;
    let report = stand.load(&format!("{IN_ORDER} --no-audit")).await;
    assert!(report.audit.is_none() && report.passed());
    assert_eq!(lock(&stand.nodes[0]).pages, 0);
}

#[tokio::test]
async fn a_run_in_which_nothing_was_accepted_fails() {
    let stand = Stand::start(1, &[Act::RejectAll; 100]).await;
    assert!(!stand.load(&format!("{IN_ORDER} --no-audit")).await.passed());
}

#[tokio::test]
async fn an_absent_gateway_is_reported_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = load(&format!("{url} {IN_ORDER}")).await.expect_err("nobody is there");
    assert!(error.starts_with(&format!("no gateway: {url}/status: ")), "{error}");
}

#[tokio::test]
async fn each_server_is_given_its_own_key_and_a_node_none() {
    let stand = Stand::start(1, &[]).await;
    let access = |key: &str| ServerAccess { key: key.parse().ok(), ..ServerAccess::default() };
    let access = LoadAccess { gateway: access("writes"), status: access("reads"), ..LoadAccess::default() };
    let report = load_with(&format!("{} {IN_ORDER}", stand.url), &access).await.expect("the run begins");
    assert!(report.passed(), "{report}");
    let [posts, looks] = lock(&stand.gateway).keys.clone();
    assert_eq!(posts, vec!["Bearer writes"; stand.requests().len()]);
    assert!(looks.len() > 1 && looks.iter().all(|key| key == "Bearer reads"), "{looks:?}");
    assert_eq!(lock(&stand.nodes[0]).keys, Vec::<String>::new());
}

#[tokio::test]
async fn a_status_at_another_address_is_named_with_operator() {
    let stand = Stand::start(1, &[]).await;
    let senders = Router::new().route("/v1/readings", post(gateway_post)).with_state(stand.gateway.clone());
    let senders = serve(senders).await;
    let error = load(&format!("{senders} {IN_ORDER}")).await.expect_err("there is no status");
    assert!(error.starts_with(&format!("no audit: {senders}/status: answered 404")), "{error}");
    assert!(error.contains("name it with --operator; --no-audit"), "{error}");
    assert_eq!(stand.requests().len(), 0, "nothing is sent before that is told");
    let report = load(&format!("{senders} --operator {} {IN_ORDER}", stand.url)).await;
    assert!(verdict(&report.expect("the run begins")).acknowledged > 0);
    assert!(load(&format!("{senders} {IN_ORDER} --no-audit")).await.expect("it is sent").passed());
}

#[tokio::test]
async fn an_interrupt_ends_the_sending_and_the_audit_still_runs() {
    let stand = Stand::start(1, &[]).await;
    let arguments = parse(&format!("{} --duration 5m --rate 1000", stand.url));
    let plan = arguments.plan().expect("a plan");
    let stop = CancellationToken::new();
    let interrupt = async {
        let requests = || lock(&stand.gateway).requests.len();
        while requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    let access = LoadAccess::default();
    let run = drive(&arguments, &access, &plan, stop.clone());
    let run = tokio::time::timeout(Duration::from_secs(20), run);
    let (report, ()) = tokio::join!(run, interrupt);
    let report = report.expect("it ends soon").expect("it began");
    assert!(verdict(&report).acknowledged > 0);
    assert!(report.passed(), "{report}");
}

#[test]
fn wrong_arguments_are_refused_with_the_allowed_values() {
    for (arguments, expected) in [
        ("127.0.0.1:8080", "write it as http://127.0.0.1:8080"),
        ("ftp://localhost", "only http and https are spoken"),
        ("--duration 10", "such as 500ms or 10s"),
        ("--batch 0", "not in 1..=50000"),
        ("--device x", "--csv"),
        ("--csv a --devices 3", "cannot be used with"),
    ] {
        let words = std::iter::once("load").chain(arguments.split_whitespace());
        let error = Command::try_parse_from(words).map(|_| ()).expect_err(arguments).to_string();
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}
