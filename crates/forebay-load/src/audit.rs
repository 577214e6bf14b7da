//! The audit: is every acknowledged reading on the nodes, exactly once?
//!
//! After the sending it waits until the gateway has nothing buffered, reads back from every embedded node what
//! it holds of our devices, and compares that with the fates of the readings, window by window: memory does
//! not grow with the run. A reading is known by device, sensor and time; its value is not compared, since a
//! transform may change it. A node that does not answer `GET /v1/count` as an embedded node does is left out;
//! readings that are missing then may be on that node.
//!
//! A file's readings may have been sent before. The copies on the nodes are counted before the run, and only
//! the copies that the run added are judged. Another run that sends the same file meanwhile is counted too.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Client;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;
use url::Url;

use crate::client;
use crate::csv_error::CsvError;
use crate::fates::{FATES_MAX, Fates, SentFate};
use crate::http::{self, GatewayStatus, HttpError};
use crate::node::{self, NodeReadError, NodeReader, WindowCounts};
use crate::plan::{AuditWindows, Plan};
use crate::source::AuditWindow;

/// About how many readings are compared at a time.
pub(super) const WINDOW_READINGS: usize = 10_000;
/// Windows that are read back at the same time.
const WINDOWS_AT_ONCE: usize = 4;
/// Distance between two looks at `/status`.
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// Most faults that are shown one by one.
const EXAMPLES_MAX: usize = 5;

/// Where the audit looks, and how long it waits.
#[derive(Debug)]
pub(super) struct Auditor {
    /// For `/status`.
    pub(super) client: Client,
    /// For the nodes.
    pub(super) reader: NodeReader,
    /// The base address of `/status`.
    pub(super) status_at: Url,
    /// The nodes' base addresses; if empty, the nodes that the gateway names are read.
    pub(super) nodes: Vec<Url>,
    /// How long the gateway may take to empty its buffer.
    pub(super) settle: Duration,
    /// About how many readings are compared at a time.
    pub(super) window: usize,
}

/// Counts of readings that the nodes held before the run.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// Copies of each reading, by ordinal. A reading with more than 65,535 copies cannot be audited.
    found: Vec<u16>,
    /// Readings of the device that are not in the file, for each window.
    strangers: Vec<u64>,
}

/// The result of an audit.
#[derive(Debug)]
pub(super) enum Audit {
    /// The nodes were read.
    Done(AuditVerdict),
    /// No node could be read, for this reason; the run does not fail by it.
    LeftOut(String),
}

/// The findings of the audit, in readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuditVerdict {
    /// Acknowledged by the gateway.
    pub(super) acknowledged: u64,
    /// Acknowledged and on the nodes once.
    pub(super) found_once: u64,
    /// Acknowledged and on no node.
    pub(super) missing: u64,
    /// On the nodes more than once: each surplus copy counts.
    pub(super) more_than_once: u64,
    /// On the nodes, and refused or never sent.
    pub(super) strangers: u64,
    /// Sent, and the answer was lost.
    pub(super) unanswered: u64,
    /// Readings without an answer that are on a node.
    pub(super) unanswered_found: u64,
    /// Readings that the gateway still held when the wait was over.
    pub(super) still_buffered: u64,
    /// The nodes that were not read, each with the reason.
    pub(super) left_out: Vec<String>,
    /// The first faults, a line each.
    pub(super) examples: Vec<String>,
}

/// The audit could not be finished.
#[derive(Debug, Error)]
pub(super) enum AuditError {
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A node's readings could not be read.
    #[error(transparent)]
    Node(#[from] NodeReadError),
    /// The file could not be read again.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// `/status` names a node by a text that is not an address.
    #[error("the gateway names a node `{url}`, which is no address: {source}")]
    Address {
        /// The text.
        url: String,
        /// The fault of the address.
        source: url::ParseError,
    },
    /// The gateway still held readings, so that counts from before the run would be wrong.
    #[error(
        "before the run, the gateway still held {buffered} readings after {waited:?}, maybe of the same file"
    )]
    Unsettled {
        /// Readings that it held.
        buffered: u64,
        /// How long the audit waited for their delivery.
        waited: Duration,
    },
    /// The list of fates was full.
    #[error("more than {most} readings were sent, which is more than the audit remembers")]
    TooMany {
        /// Most readings that it remembers.
        most: usize,
    },
}

/// The nodes that can be read, and the reasons for which the others cannot.
#[derive(Debug)]
struct ReadableNodes {
    embedded: Vec<Url>,
    left_out: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct CountAnswer {
    #[serde(rename = "count")]
    _count: u64,
}

impl Auditor {
    /// Counts the copies on the nodes of readings that the plan will send.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the nodes cannot be read; then there can be no audit.
    pub(super) async fn baseline(&self, plan: &Plan) -> Result<Baseline, AuditError> {
        let mut baseline = Baseline::default();
        let Some(readings) = plan.readings().filter(|_| plan.repeats() && plan.no_audit_because().is_none())
        else {
            return Ok(baseline);
        };
        let status = self.settled().await?;
        if status.ledger.buffered > 0 {
            let (buffered, waited) = (status.ledger.buffered, self.settle);
            return Err(AuditError::Unsettled { buffered, waited });
        }
        let nodes = self.nodes(&status).await?;
        baseline.found = vec![0; readings];
        let mut counts = self.counts(&nodes, plan.windows(readings, self.window)?);
        while let Some(window) = counts.next().await {
            let (window, found) = window?;
            for (wanted, count) in window.wanted.iter().zip(found.counts) {
                // A file that grew in between has readings past the end; they are missing from the baseline.
                if let Some(before) = baseline.found.get_mut(wanted.ordinal) {
                    *before = u16::try_from(count).unwrap_or(u16::MAX);
                }
            }
            baseline.strangers.push(found.strangers);
        }
        drop(counts);
        Ok(baseline)
    }

    /// Compares the readings on the nodes with the fates of the readings that were sent.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the audit could not be finished.
    pub(super) async fn audit(
        &self,
        plan: &Plan,
        fates: &Fates,
        baseline: &Baseline,
    ) -> Result<Audit, AuditError> {
        if let Some(reason) = plan.no_audit_because() {
            return Ok(Audit::LeftOut(reason));
        }
        if fates.overflowed() {
            return Err(AuditError::TooMany { most: FATES_MAX });
        }
        let status = self.settled().await?;
        let nodes = self.nodes(&status).await?;
        if nodes.embedded.is_empty() {
            let reasons = if nodes.left_out.is_empty() {
                "the gateway names no nodes; name them with --node".to_owned()
            } else {
                format!("no node is an embedded one ({})", nodes.left_out.join("; "))
            };
            return Ok(Audit::LeftOut(reasons));
        }
        let mut verdict = AuditVerdict { still_buffered: status.ledger.buffered, ..AuditVerdict::default() };
        let mut counts = self.counts(&nodes, plan.windows(fates.end(), self.window)?).enumerate();
        while let Some((nth, window)) = counts.next().await {
            let (window, found) = window?;
            let strangers_before = baseline.strangers.get(nth).copied().unwrap_or(0);
            verdict.judge(&window, &found.counts, fates, &baseline.found);
            verdict.add_strangers(&window, found.strangers.saturating_sub(strangers_before));
        }
        drop(counts);
        verdict.left_out = nodes.left_out;
        Ok(Audit::Done(verdict))
    }

    /// Counts the readings of each window over all nodes, in the order of the windows.
    fn counts<'a>(
        &'a self,
        nodes: &'a ReadableNodes,
        windows: AuditWindows<'a>,
    ) -> impl futures_util::Stream<Item = Result<(AuditWindow, WindowCounts), AuditError>> + Unpin + 'a {
        let count = move |window: Result<AuditWindow, CsvError>| async move {
            let window = window?;
            let found = self.reader.count(&nodes.embedded, &window).await?;
            Ok((window, found))
        };
        Box::pin(futures_util::stream::iter(windows).map(count).buffered(WINDOWS_AT_ONCE))
    }

    /// Waits until the gateway's buffer is empty, at most for `settle`, and gives its last status.
    async fn settled(&self) -> Result<GatewayStatus, AuditError> {
        let until = Instant::now() + self.settle;
        loop {
            let status: GatewayStatus = self.status().await?;
            if status.ledger.buffered == 0 || Instant::now() >= until {
                return Ok(status);
            }
            tokio::time::sleep(STATUS_EVERY).await;
        }
    }

    /// The gateway's `/status`.
    pub(super) async fn status(&self) -> Result<GatewayStatus, HttpError> {
        http::get_json(&self.client, client::join(&self.status_at, "/status")).await
    }

    /// Finds the embedded nodes. Each node that `--node` names must be one.
    async fn nodes(&self, status: &GatewayStatus) -> Result<ReadableNodes, AuditError> {
        let mut nodes = ReadableNodes { embedded: Vec::new(), left_out: Vec::new() };
        let mut bases = self.nodes.clone();
        if bases.is_empty() {
            for node in &status.nodes {
                bases.push(base(&node.url)?);
            }
        }
        bases.sort();
        bases.dedup();
        for base in bases {
            match http::get_json::<CountAnswer>(&self.reader.client, client::join(&base, "/v1/count")).await {
                Ok(_) => nodes.embedded.push(base),
                Err(error) if self.nodes.is_empty() => nodes.left_out.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(nodes)
    }
}

/// A node's address without its path.
fn base(url: &str) -> Result<Url, AuditError> {
    let parsed = Url::parse(url).map_err(|source| AuditError::Address { url: url.to_owned(), source })?;
    let mut base = parsed;
    base.set_path("");
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

impl AuditVerdict {
    /// Whether the audit found no fault. A missing reading is not a fault if a node was left out,
    /// which may have it.
    pub(super) fn passed(&self) -> bool {
        let all_read = self.left_out.is_empty();
        self.more_than_once == 0 && self.strangers == 0 && (self.missing == 0 || !all_read)
    }

    /// Judges one window. `found` counts each reading's copies on the nodes now, `before` those from before the run.
    ///
    /// Readings with the same sensor and time cannot be told apart: the first of them stands for all.
    fn judge(&mut self, window: &AuditWindow, found: &[u32], fates: &Fates, before: &[u16]) {
        let same = node::same(window);
        let mut acknowledged = vec![0_u32; found.len()];
        let mut unanswered = vec![0_u32; found.len()];
        for (wanted, same) in window.wanted.iter().zip(&same) {
            match fates.get(wanted.ordinal) {
                SentFate::Acknowledged => acknowledged[*same] += 1,
                SentFate::Unknown => unanswered[*same] += 1,
                SentFate::NotTaken => {}
            }
        }
        for (at, wanted) in window.wanted.iter().enumerate().filter(|(at, _)| same[*at] == *at) {
            let before = before.get(wanted.ordinal).copied().unwrap_or(0);
            let added = found[at].saturating_sub(u32::from(before));
            let fault = self.judge_reading(added, acknowledged[at], unanswered[at]);
            if let Some(fault) = fault.filter(|_| self.examples.len() < EXAMPLES_MAX) {
                let (device, sensor, time) = (&window.device, &wanted.sensor, wanted.time);
                self.examples.push(format!("{fault}: device {device}, sensor {sensor}, time {time}"));
            }
        }
    }

    /// Judges a reading of which the run added `added` copies, and names its fault, if it has one.
    fn judge_reading(&mut self, added: u32, acknowledged: u32, unanswered: u32) -> Option<&'static str> {
        let missing = acknowledged.saturating_sub(added);
        let surplus = added.saturating_sub(acknowledged + unanswered);
        self.acknowledged += u64::from(acknowledged);
        self.missing += u64::from(missing);
        self.found_once += u64::from((acknowledged - missing).saturating_sub(surplus));
        self.unanswered += u64::from(unanswered);
        self.unanswered_found += u64::from(added.saturating_sub(acknowledged).min(unanswered));
        if acknowledged + unanswered == 0 {
            self.strangers += u64::from(surplus);
            return (surplus > 0).then_some("found, though it was not acknowledged");
        }
        self.more_than_once += u64::from(surplus);
        match (missing, surplus) {
            (0, 0) => None,
            (0, _) => Some("found more than once"),
            _ => Some("missing"),
        }
    }

    fn add_strangers(&mut self, window: &AuditWindow, strangers: u64) {
        self.strangers += strangers;
        if strangers > 0 && self.examples.len() < EXAMPLES_MAX {
            self.examples
                .push(format!("found, though never sent: {strangers} readings of device {}", window.device));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ExpectedReading;
    use forebay_reading::timestamp::Timestamp;

    /// Judges one reading, found `found` times, `before` of them before the run.
    #[track_caller]
    fn check(fates: &[SentFate], found: u32, before: u16, expected: AuditVerdict) {
        let time = Timestamp::MIN;
        let wanted = |ordinal| ExpectedReading { ordinal, sensor: "v".into(), time };
        let wanted = (0..fates.len()).map(wanted).collect();
        let window = AuditWindow { device: "d".into(), from: None, to: None, wanted };
        let mut remembered = Fates::new(100);
        for (ordinal, fate) in fates.iter().enumerate() {
            remembered.set(ordinal, *fate);
        }
        let mut counts = vec![0; fates.len()];
        counts[0] = found;
        let mut verdict = AuditVerdict::default();
        verdict.judge(&window, &counts, &remembered, &[before]);
        verdict.examples.clear();
        assert_eq!(verdict, expected, "{fates:?}, found {found} times, {before} before");
    }

    #[test]
    fn each_fate_allows_its_number_of_copies() {
        use SentFate::{Acknowledged, NotTaken, Unknown};
        let none = AuditVerdict::default;
        let acknowledged = || AuditVerdict { acknowledged: 1, ..none() };
        let unanswered = || AuditVerdict { unanswered: 1, ..none() };
        check(&[Acknowledged], 1, 0, AuditVerdict { found_once: 1, ..acknowledged() });
        check(&[Acknowledged], 0, 0, AuditVerdict { missing: 1, ..acknowledged() });
        check(&[Acknowledged], 2, 0, AuditVerdict { more_than_once: 1, ..acknowledged() });
        check(&[Acknowledged], 4, 0, AuditVerdict { more_than_once: 3, ..acknowledged() });
        check(&[Unknown], 0, 0, unanswered());
        check(&[Unknown], 1, 0, AuditVerdict { unanswered_found: 1, ..unanswered() });
        check(&[Unknown], 2, 0, AuditVerdict { unanswered_found: 1, more_than_once: 1, ..unanswered() });
        check(&[NotTaken], 0, 0, none());
        check(&[NotTaken], 1, 0, AuditVerdict { strangers: 1, ..none() });
        // Only copies that the run added count.
        check(&[Acknowledged], 3, 2, AuditVerdict { found_once: 1, ..acknowledged() });
        check(&[Acknowledged], 2, 2, AuditVerdict { missing: 1, ..acknowledged() });
        check(&[NotTaken], 2, 2, none());
        // The same sensor and time twice in a file.
        check(&[Acknowledged, Acknowledged], 2, 0, AuditVerdict { acknowledged: 2, found_once: 2, ..none() });
        let one_missing = AuditVerdict { acknowledged: 2, found_once: 1, missing: 1, ..none() };
        check(&[Acknowledged, Acknowledged], 1, 0, one_missing);
        let one_unanswered = AuditVerdict { acknowledged: 1, found_once: 1, unanswered: 1, ..none() };
        check(&[Acknowledged, Unknown], 1, 0, one_unanswered);
    }

    #[test]
    fn a_verdict_fails_on_missing_surplus_and_unsent_readings() {
        let verdict = |missing, more_than_once, strangers, left_out: &[&str]| AuditVerdict {
            missing,
            more_than_once,
            strangers,
            left_out: left_out.iter().map(ToString::to_string).collect(),
            ..AuditVerdict::default()
        };
        assert!(verdict(0, 0, 0, &[]).passed());
        assert!(!verdict(1, 0, 0, &[]).passed());
        assert!(!verdict(0, 1, 0, &[]).passed());
        assert!(!verdict(0, 0, 1, &[]).passed());
        assert!(verdict(1, 0, 0, &["another node"]).passed());
        assert!(!verdict(0, 1, 0, &["another node"]).passed());
    }

    #[test]
    fn the_base_of_a_node_is_its_address_without_the_path() {
        assert_eq!(
            base("http://127.0.0.1:9000/v1/batches?x=1").expect("an address").as_str(),
            "http://127.0.0.1:9000/"
        );
        assert!(base("node-1").is_err());
    }
}
