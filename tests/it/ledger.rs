//! The ledger, whatever happens: nodes that answer anything in any order, requests of any size, small bounds, every
//! kind of buffer.
//!
//! A run prints its seed; `FOREBAY_TEST_SEED=…` repeats it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay::buffer::KINDS;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::support::{
    self, Answer, FakeNode, ReceivedBatch, RunningGateway, TestGateway, eventually, reading, to_json,
    to_ndjson,
};

/// Clients that post at the same time.
const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
struct Case {
    /// The kind of buffer.
    buffer: &'static str,
    /// The answers of each node; after them it takes everything.
    nodes: Vec<Vec<Kind>>,
    requests: Vec<Request>,
    on_full: &'static str,
    buffer_readings: usize,
    batch_readings: usize,
    in_flight: usize,
    compression: &'static str,
}

#[derive(Clone, Debug)]
enum Kind {
    Status(u16, u64),
    RetryAtOnce(u16),
    HangUp(u64),
    /// The node stores the batch, and the gateway does not hear of it.
    Late,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    readings: usize,
    lines: bool,
    await_delivery: bool,
}

impl Kind {
    fn answer(&self) -> Answer {
        match *self {
            Kind::Status(status, millis) => Answer::status(status).after(Duration::from_millis(millis)),
            Kind::RetryAtOnce(status) => Answer::status(status).header("retry-after", 0),
            Kind::HangUp(millis) => Answer::hang_up().after(Duration::from_millis(millis)),
            Kind::Late => Answer::status(200).after(Duration::from_millis(250)),
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let good = prop::sample::select(vec![200, 201, 204]);
    let bad = prop::sample::select(vec![401, 404, 408, 409, 425, 429, 500, 501, 502, 503, 301]);
    prop_oneof![
        4 => (good, 0..5u64).prop_map(|(status, millis)| Kind::Status(status, millis)),
        6 => (bad, 0..5u64).prop_map(|(status, millis)| Kind::Status(status, millis)),
        2 => prop::sample::select(vec![429, 503]).prop_map(Kind::RetryAtOnce),
        2 => (0..5u64).prop_map(Kind::HangUp),
        1 => Just(Kind::Late),
    ]
}

fn cases(on_full: &'static [&'static str]) -> impl Strategy<Value = Case> {
    let request = (1..16usize, any::<bool>(), prop::bool::weighted(0.2));
    let request =
        request.prop_map(|(readings, lines, await_delivery)| Request { readings, lines, await_delivery });
    (
        prop::collection::vec(prop::collection::vec(kinds(), 0..14), 1..=3),
        prop::collection::vec(request, 1..60),
        prop::sample::select(on_full),
        12..60usize,
        1..20usize,
        1..4usize,
        prop::sample::select(vec!["none", "gzip", "zstd"]),
        prop::sample::select(KINDS.names().collect::<Vec<_>>()),
        // Whether the nodes are all but gone at first, so that batches wait long enough to be taken apart.
        prop::option::weighted(0.7, 6..20usize),
    )
        .prop_map(
            |(
                mut nodes,
                requests,
                on_full,
                buffer_readings,
                batch_readings,
                in_flight,
                compression,
                buffer,
                away,
            )| {
                for script in &mut nodes {
                    let busy = std::iter::repeat_n(Kind::Status(503, 1), away.unwrap_or(0));
                    script.splice(0..0, busy);
                }
                Case {
                    buffer,
                    nodes,
                    requests,
                    on_full,
                    buffer_readings,
                    batch_readings,
                    in_flight,
                    compression,
                }
            },
        )
}

/// The view of the clients and of the nodes, and the ledger in the end.
#[derive(Debug)]
struct Seen {
    accepted: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    received: Vec<ReceivedBatch>,
    stored: Vec<ReceivedBatch>,
    ledger: Value,
}

impl Seen {
    fn account(&self, name: &str) -> usize {
        self.ledger[name].as_u64().and_then(|number| number.try_into().ok()).expect("a number")
    }

    /// The readings that arrived, each batch once, in no order.
    fn arrived(&self) -> Vec<u64> {
        let batches: BTreeMap<_, _> = self.stored.iter().map(|batch| (batch.key(), batch)).collect();
        batches.values().flat_map(|batch| numbers(batch)).collect()
    }
}

fn numbers(batch: &ReceivedBatch) -> Vec<u64> {
    batch.readings().iter().map(|reading| reading["value"].as_u64().expect("a number")).collect()
}

/// One run of the gateway.
struct Run<'a> {
    gateway: &'a RunningGateway,
    nodes: &'a [FakeNode],
    case: &'a Case,
    accepted: RefCell<BTreeSet<u64>>,
    refused: RefCell<BTreeSet<u64>>,
}

impl Run<'_> {
    async fn client(&self, number: usize) {
        let mut first = 0;
        for (index, request) in self.case.requests.iter().enumerate() {
            if index % CLIENTS == number {
                self.post(first..first + request.readings, *request).await;
            }
            first += request.readings;
        }
    }

    async fn post(&self, numbers: std::ops::Range<usize>, request: Request) {
        let readings: Vec<_> = numbers.clone().map(reading).collect();
        // Under drop_oldest waiting readings may be given up, which is another promise.
        let await_delivery = request.await_delivery && self.case.on_full != "drop_oldest";
        let path = if await_delivery { "/v1/readings?ack=delivered" } else { "/v1/readings" };
        let (media_type, body) = match request.lines {
            true => ("application/x-ndjson", to_ndjson(&readings)),
            false => ("application/json", to_json(&readings)),
        };
        let post = self.gateway.request(path).header("content-type", media_type).body(body);
        let reply = self.gateway.send(post).await;
        let numbers = numbers.map(|number| number as u64);
        match reply.status.as_u16() {
            202 => {
                assert_eq!(reply.json()["accepted"], readings.len());
                if await_delivery {
                    let stored: BTreeSet<_> = self
                        .nodes
                        .iter()
                        .flat_map(FakeNode::stored)
                        .flat_map(|batch| self::numbers(&batch))
                        .collect();
                    assert!(numbers.clone().all(|number| stored.contains(&number)), "said to be delivered");
                }
                self.accepted.borrow_mut().extend(numbers);
            }
            413 | 503 => self.refused.borrow_mut().extend(numbers),
            other => panic!("{other}: {}", reply.text()),
        }
    }

    /// Looks at the books again and again; never ends.
    async fn audit(&self) {
        let mut before = BTreeMap::new();
        loop {
            let ledger = self.gateway.ledger().await;
            assert!(ledger["buffered"].as_u64() <= Some(self.case.buffer_readings as u64), "{ledger}");
            let text = self.gateway.get("/metrics").await.expect_status(200).text();
            check_metrics(&text, &mut before);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

const CAME: [&str; 3] = ["readings_accepted_total", "readings_recovered_total", "readings_derived_total"];
const WENT: [&str; 5] = [
    "readings_delivered_total",
    "readings_dead_lettered_total",
    "readings_filtered_total",
    "readings_merged_total",
    "readings_dropped_total",
];

/// The accounts add up in the metrics too, and only `buffered` ever shrinks.
fn check_metrics(text: &str, before: &mut BTreeMap<&'static str, f64>) {
    let total = |name: &str| -> f64 {
        let full = format!("forebay_{name}");
        let rows = text
            .lines()
            .filter(|line| line.strip_prefix(full.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])));
        rows.map(|row| row.rsplit(' ').next().expect("a number").parse::<f64>().expect("a number")).sum()
    };
    let came: f64 = CAME.iter().map(|name| total(name)).sum();
    let went: f64 = WENT.iter().map(|name| total(name)).sum();
    assert_eq!(came, went + total("buffer_readings"), "the metrics add up: {text}");
    for name in CAME.into_iter().chain(WENT) {
        let now = total(name);
        let last = before.insert(name, now).unwrap_or(0.0);
        assert!(now >= last, "{name} went from {last} to {now}");
    }
}

fn run(case: &Case) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut nodes = Vec::new();
        for script in &case.nodes {
            nodes.push(FakeNode::answering(script.iter().map(Kind::answer)).await);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let gateway = nodes.iter().fold(TestGateway::new(), TestGateway::node);
        let gateway = gateway
            .on_disk(directory.path())
            .set("buffer.kind", case.buffer)
            .set("buffer.on_full", case.on_full)
            .set("buffer.max_readings", case.buffer_readings)
            .set("batch.max_readings", case.batch_readings)
            .set("cluster.max_in_flight", case.in_flight)
            .set("cluster.compression", case.compression)
            .set("cluster.timeout", "150ms")
            .set("cluster.retry.max", "20ms")
            .set("server.request_timeout", "500ms")
            .start()
            .await;
        let run = Run {
            gateway: &gateway,
            nodes: &nodes,
            case,
            accepted: RefCell::default(),
            refused: RefCell::default(),
        };
        let work = async {
            futures_util::future::join_all((0..CLIENTS).map(|number| run.client(number))).await;
            eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
        };
        tokio::select! {
            () = run.audit() => {}
            () = work => {}
        }
        let (accepted, refused) = (run.accepted.into_inner(), run.refused.into_inner());
        let ledger = gateway.ledger().await;
        let ended = gateway.stop().await;
        assert_eq!((ended.undelivered, ended.failed), (0, false));
        Seen {
            accepted,
            refused,
            received: nodes.iter().flat_map(FakeNode::received).collect(),
            stored: nodes.iter().flat_map(FakeNode::stored).collect(),
            ledger,
        }
    })
}

/// Runs `count` random cases.
fn check_all(count: u32, on_full: &'static [&'static str], check: impl Fn(&Case, &Seen)) {
    let bytes: Vec<u8> = support::seed().to_le_bytes().repeat(4);
    let config =
        Config { cases: count, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&cases(on_full), |case| {
        check(&case, &run(&case));
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_ledger_adds_up_and_every_accepted_reading_arrives_once() {
    check_all(10, &["reject", "wait"], |_case, seen| {
        let arrived = seen.arrived();
        let distinct: BTreeSet<_> = arrived.iter().copied().collect();
        assert_eq!(distinct.len(), arrived.len(), "nothing is doubled");
        assert_eq!(distinct, seen.accepted, "what was accepted arrived, and nothing else");
        assert_eq!(seen.account("accepted"), seen.accepted.len());
        assert_eq!((seen.account("delivered"), seen.account("dropped")), (seen.accepted.len(), 0));
    });
}

#[test]
fn under_drop_oldest_readings_that_do_not_arrive_are_counted_as_dropped() {
    check_all(8, &["drop_oldest"], |_case, seen| {
        let arrived = seen.arrived();
        let distinct: BTreeSet<_> = arrived.iter().copied().collect();
        assert_eq!(distinct.len(), arrived.len(), "nothing is doubled");
        assert!(distinct.is_subset(&seen.accepted), "what was refused does not arrive");
        assert_eq!(seen.account("accepted"), seen.accepted.len());
        assert_eq!(seen.account("delivered") + seen.account("dropped"), seen.accepted.len());
        // A dropped reading may have been stored by a node whose answer was lost; a delivered one is there.
        assert!(distinct.len() >= seen.account("delivered"));
    });
}

#[test]
fn a_key_never_carries_other_readings() {
    check_all(8, &["drop_oldest"], |_case, seen| {
        let mut bodies = BTreeMap::new();
        for batch in &seen.received {
            let known = bodies.entry(batch.key()).or_insert_with(|| batch.body.clone());
            assert!(*known == batch.body, "the key {} carries other readings", batch.key());
            let readings = numbers(batch);
            assert_eq!(batch.header("forebay-readings"), readings.len().to_string());
            assert!(
                readings.iter().all(|number| !seen.refused.contains(number)),
                "what was refused is not sent"
            );
        }
    });
}
