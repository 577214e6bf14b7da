//! The clients of the gateway, and somebody who looks at its books: they speak HTTP over the simulated network.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::{Plan, Post, TROUBLE, millis};
use super::record::{Reading, Record};
use super::support::{to_json, to_ndjson};
use super::wire::SimulatedWire;

/// The gateway's name in the network.
pub const GATEWAY: &str = "gateway";
/// Where it listens.
pub const GATEWAY_PORT: u16 = 8080;

/// Longest that the buffer may take to drain once all is well and all requests are answered.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Longest that a client waits for an answer: for all trouble, and for the time to drain after it.
const PATIENCE: Duration = Duration::from_secs(40);

/// Posts the requests of the plan, waits until all of them are delivered, and stops the gateway.
pub async fn run(plan: Plan, stop: CancellationToken, record: Record) -> turmoil::Result {
    let desk = Desk { wire: SimulatedWire::default(), copies: plan.copies, record };
    let random = fastrand::Rng::with_seed(plan.seed);
    tokio::select! { biased;
        () = desk.audit(random, &plan) => {}
        () = desk.work(&plan) => {}
    }
    stop.cancel();
    Ok(())
}

/// Shared by all clients.
struct Desk {
    wire: SimulatedWire,
    /// Nodes that have a reading once it is delivered.
    copies: usize,
    record: Record,
}

impl Desk {
    async fn work(&self, plan: &Plan) {
        let clients = join_all(plan.clients.iter().map(|posts| self.client(posts)));
        let backlog = async {
            sleep(TROUBLE).await;
            self.ledger().await.map_or(0, |ledger| ledger.buffered)
        };
        let (_, backlog) = tokio::join!(clients, backlog);
        self.record.seen().backlog = backlog;
        let begun = Instant::now();
        while self.ledger().await.is_none_or(|ledger| ledger.buffered > 0) {
            if begun.elapsed() > DRAIN_MAX {
                self.record.fault(format_args!("the buffer has not drained within {DRAIN_MAX:?}"));
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.record.seen().drained_in = Some(begun.elapsed());
        self.check_end().await;
    }

    async fn client(&self, posts: &[Post]) {
        for post in posts {
            sleep(post.pause).await;
            self.post(post).await;
        }
    }

    async fn post(&self, post: &Post) {
        let readings: Vec<Value> = post.readings.iter().map(Reading::to_json).collect();
        let (content_type, body) = match post.lines {
            true => ("application/x-ndjson", to_ndjson(&readings)),
            false => ("application/json", to_json(&readings)),
        };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let path = format!("/v1/readings?ack={}", post.ack);
        let Some((status, body)) = self.ask(Method::POST, &path, headers, body.into()).await else { return };
        let mut seen = self.record.seen();
        seen.note(format_args!("{status} for {:?}", post.readings));
        match status {
            StatusCode::ACCEPTED => seen.acknowledged.extend(post.readings.iter().cloned()),
            StatusCode::SERVICE_UNAVAILABLE => seen.refused.extend(post.readings.iter().cloned()),
            _ => seen.faults.push(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
        if status == StatusCode::ACCEPTED && post.ack == "delivered" {
            let places = seen.places();
            let missing = post
                .readings
                .iter()
                .find(|reading| places.get(reading).is_none_or(|nodes| nodes.len() < self.copies));
            let fault = missing.map(|reading| format!("{reading:?} is said to be delivered and is not"));
            seen.faults.extend(fault);
        }
    }

    /// Looks at the books at random moments; never ends.
    async fn audit(&self, mut random: fastrand::Rng, plan: &Plan) {
        let limit = plan.settings.iter().find(|(key, _)| *key == "buffer.max_readings");
        let limit: u64 = limit.and_then(|(_, value)| value.parse().ok()).expect("a limit");
        let mut before = Ledger::default();
        loop {
            sleep(millis(&mut random, 1..200)).await;
            let Some(ledger) = self.ledger().await else { continue };
            if ledger.buffered > limit {
                self.record.fault(format_args!("the limit is {limit}: {ledger:?}"));
            }
            if ledger.accepted < before.accepted || ledger.delivered < before.delivered {
                self.record.fault(format_args!("an account shrank: {before:?}, {ledger:?}"));
            }
            before = ledger;
        }
    }

    /// The books in the end.
    async fn check_end(&self) {
        let Some(ledger) = self.ledger().await else { return };
        let mut seen = self.record.seen();
        let acknowledged = seen.acknowledged.len() as u64;
        let right = Ledger { accepted: acknowledged, delivered: acknowledged, ..Ledger::default() };
        if ledger != right {
            seen.faults.push(format!("in the end {ledger:?}, not {right:?}"));
        }
    }

    /// The accounts, which must add up whenever they are looked at; `None` if there was no answer.
    async fn ledger(&self) -> Option<Ledger> {
        let (status, body) = self.ask(Method::GET, "/status", HeaderMap::new(), Bytes::new()).await?;
        let report: Value = serde_json::from_slice(&body).unwrap_or_default();
        let account = |name: &str| report["ledger"][name].as_u64();
        let sum = |names: &[&str]| names.iter().map(|name| account(name)).sum::<Option<u64>>();
        let came = sum(&["accepted", "recovered", "derived"]);
        let others = sum(&["dead_lettered", "filtered", "merged", "dropped"]);
        let ledger = Ledger {
            accepted: came.unwrap_or_default(),
            delivered: account("delivered").unwrap_or_default(),
            others: others.unwrap_or_default(),
            buffered: account("buffered").unwrap_or_default(),
        };
        let adds_up = ledger.accepted == ledger.delivered + ledger.others + ledger.buffered;
        if status != StatusCode::OK || came.is_none() || others.is_none() || !adds_up {
            self.record.fault(format_args!("{status}: the ledger does not add up: {}", report["ledger"]));
        }
        Some(ledger)
    }

    /// One request to the gateway. Between clients and gateway the network is good: no answer is a fault.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Option<(StatusCode, Vec<u8>)> {
        let url = format!("http://{GATEWAY}:{GATEWAY_PORT}{path}").parse().expect("a URL");
        let asked = async {
            let (head, body) = self.wire.send(method, &url, headers, body).await?.into_parts();
            let body: Vec<Bytes> = body.try_collect().await?;
            Ok::<_, forebay::delivery::wire::WireError>((head.status, body.concat()))
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                self.record.fault(format_args!("{path}: {error}"));
                None
            }
            Err(_elapsed) => {
                self.record.fault(format_args!("{path}: no answer within {PATIENCE:?}"));
                None
            }
        }
    }
}

/// The accounts of interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    accepted: u64,
    delivered: u64,
    others: u64,
    buffered: u64,
}
