//! The audit: is every acknowledged reading on the nodes, exactly once?
//!
//! After the sending it waits until the gateway has nothing buffered, reads back from every embedded node what
//! it holds of our devices, and compares that with the fates of the readings, window by window: memory does
//! not grow with the run. A reading is known by device, sensor and time; its value is not compared, since a
//! transform may change it. A node that does not answer `GET /v1/count` as an embedded node does is left out;
//! what is missing then may be there.
//!
//! A file's readings may have been sent before. What the nodes hold of them is counted before the run, and only
//! what the run added is judged. Whoever sends the same file at the same time is counted too.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Client;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;
use url::Url;

use crate::client;
use crate::csv_error::CsvError;
use crate::fates::{FATES_MAX, Fate, Fates};
use crate::http::{self, HttpError, Status};
use crate::node::{self, Found, NodeError, NodeReader};
use crate::plan::{Plan, Windows};
use crate::source::Window;

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
    pub(super) client: Client,
    pub(super) reader: NodeReader,
    /// The gateway's base address.
    pub(super) gateway: Url,
    /// The nodes' base addresses; none: those that the gateway names.
    pub(super) nodes: Vec<Url>,
    /// How long the gateway may take to deliver what it holds.
    pub(super) settle: Duration,
    /// About how many readings are compared at a time.
    pub(super) window: usize,
}

/// What the nodes held before the run.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// How often, by ordinal. A reading that was sent more than 65,535 times before cannot be audited.
    found: Vec<u16>,
    /// Readings of the device in each window that are not in the file.
    strangers: Vec<u64>,
}

/// The end of an audit.
#[derive(Debug)]
pub(super) enum Audit {
    /// The nodes were read.
    Done(Verdict),
    /// There was nothing that could be read; this is no fault.
    LeftOut(String),
}

/// What the audit found, in readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
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
    /// Of those, the ones that arrived.
    pub(super) unanswered_found: u64,
    /// What the gateway still held when the wait was over.
    pub(super) still_buffered: u64,
    /// The nodes that were left out, and why.
    pub(super) left_out: Vec<String>,
    /// Some faults, one by one.
    pub(super) examples: Vec<String>,
}

/// Why the audit could not be done to its end.
#[derive(Debug, Error)]
pub(super) enum AuditError {
    /// No answer, or a wrong one.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A node's readings could not be read.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The file could not be read again.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A node's address in `/status` is none.
    #[error("the gateway names a node `{url}`, which is no address: {source}")]
    Address {
        /// The text.
        url: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// What was counted before the run would be wrong.
    #[error(
        "before the run, the gateway still held {buffered} readings after {waited:?}, maybe of the same file"
    )]
    Unsettled {
        /// How many.
        buffered: u64,
        /// How long they were waited for.
        waited: Duration,
    },
    /// The list of fates was full.
    #[error("more than {most} readings were sent, which is more than the audit remembers")]
    TooMany {
        /// How many it remembers.
        most: usize,
    },
}

/// The nodes that can be read, and why the others cannot.
#[derive(Debug)]
struct Nodes {
    embedded: Vec<Url>,
    left_out: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Count {
    #[serde(rename = "count")]
    _count: u64,
}

impl Auditor {
    /// Counts what the nodes hold already of readings that the plan will send.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if that cannot be told; then there can be no audit.
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
        let mut counted = self.counted(&nodes, plan.windows(readings, self.window)?);
        while let Some(window) = counted.next().await {
            let (window, found) = window?;
            for (wanted, count) in window.wanted.iter().zip(found.counts) {
                // A file that grew in between has readings past the end; they are missing from the baseline.
                if let Some(before) = baseline.found.get_mut(wanted.ordinal) {
                    *before = u16::try_from(count).unwrap_or(u16::MAX);
                }
            }
            baseline.strangers.push(found.strangers);
        }
        drop(counted);
        Ok(baseline)
    }

    /// Compares what the nodes hold with what became of the readings.
    ///
    /// # Errors
    ///
    /// [`AuditError`] if the audit could not be done to its end.
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
        let mut verdict = Verdict { still_buffered: status.ledger.buffered, ..Verdict::default() };
        let mut counted = self.counted(&nodes, plan.windows(fates.end(), self.window)?).enumerate();
        while let Some((nth, window)) = counted.next().await {
            let (window, found) = window?;
            let strangers_before = baseline.strangers.get(nth).copied().unwrap_or(0);
            verdict.judge(&window, &found.counts, fates, &baseline.found);
            verdict.add_strangers(&window, found.strangers.saturating_sub(strangers_before));
        }
        drop(counted);
        verdict.left_out = nodes.left_out;
        Ok(Audit::Done(verdict))
    }

    /// What each window's readings come to over all nodes, in the order of the windows.
    fn counted<'a>(
        &'a self,
        nodes: &'a Nodes,
        windows: Windows<'a>,
    ) -> impl futures_util::Stream<Item = Result<(Window, Found), AuditError>> + Unpin + 'a {
        let count = move |window: Result<Window, CsvError>| async move {
            let window = window?;
            let found = self.reader.count(&nodes.embedded, &window).await?;
            Ok((window, found))
        };
        Box::pin(futures_util::stream::iter(windows).map(count).buffered(WINDOWS_AT_ONCE))
    }

    /// Waits until the gateway holds nothing, as long as is allowed, and gives its last status.
    async fn settled(&self) -> Result<Status, AuditError> {
        let until = Instant::now() + self.settle;
        loop {
            let status: Status = self.status().await?;
            if status.ledger.buffered == 0 || Instant::now() >= until {
                return Ok(status);
            }
            tokio::time::sleep(STATUS_EVERY).await;
        }
    }

    /// What the gateway says of itself.
    pub(super) async fn status(&self) -> Result<Status, HttpError> {
        http::get_json(&self.client, client::join(&self.gateway, "/status")).await
    }

    /// Finds the embedded ones among the nodes. A node that was asked for by name must be one.
    async fn nodes(&self, status: &Status) -> Result<Nodes, AuditError> {
        let mut nodes = Nodes { embedded: Vec::new(), left_out: Vec::new() };
        let mut bases = self.nodes.clone();
        if bases.is_empty() {
            for node in &status.nodes {
                bases.push(base(&node.url)?);
            }
        }
        bases.sort();
        bases.dedup();
        for base in bases {
            match http::get_json::<Count>(&self.client, client::join(&base, "/v1/count")).await {
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

impl Verdict {
    /// Whether nothing speaks against the gateway. What is missing may be on a node that was left out.
    pub(super) fn passed(&self) -> bool {
        let all_read = self.left_out.is_empty();
        self.more_than_once == 0 && self.strangers == 0 && (self.missing == 0 || !all_read)
    }

    /// Judges one window, of which `found` says how often each reading is on the nodes, and `before` how often
    /// it was there before the run.
    ///
    /// Readings with the same sensor and time cannot be told apart: the first of them stands for all.
    fn judge(&mut self, window: &Window, found: &[u32], fates: &Fates, before: &[u16]) {
        let same = node::same(window);
        let mut acknowledged = vec![0_u32; found.len()];
        let mut unanswered = vec![0_u32; found.len()];
        for (wanted, same) in window.wanted.iter().zip(&same) {
            match fates.get(wanted.ordinal) {
                Fate::Acknowledged => acknowledged[*same] += 1,
                Fate::Unknown => unanswered[*same] += 1,
                Fate::NotTaken => {}
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

    /// Judges a reading that the run added `added` times; says what is wrong with it, if anything.
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

    fn add_strangers(&mut self, window: &Window, strangers: u64) {
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
    use crate::source::Wanted;
    use forebay_reading::timestamp::Timestamp;

    /// Judges one reading, found `found` times, `before` of them before the run.
    #[track_caller]
    fn check(fates: &[Fate], found: u32, before: u16, expected: Verdict) {
        let time = Timestamp::MIN;
        let wanted = |ordinal| Wanted { ordinal, sensor: "v".into(), time };
        let wanted = (0..fates.len()).map(wanted).collect();
        let window = Window { device: "d".into(), from: None, to: None, wanted };
        let mut remembered = Fates::new(100);
        for (ordinal, fate) in fates.iter().enumerate() {
            remembered.set(ordinal, *fate);
        }
        let mut counts = vec![0; fates.len()];
        counts[0] = found;
        let mut verdict = Verdict::default();
        verdict.judge(&window, &counts, &remembered, &[before]);
        verdict.examples.clear();
        assert_eq!(verdict, expected, "{fates:?}, found {found} times, {before} before");
    }

    #[test]
    fn every_fate_allows_what_it_says() {
        use Fate::{Acknowledged, NotTaken, Unknown};
        let none = Verdict::default;
        let acknowledged = || Verdict { acknowledged: 1, ..none() };
        let unanswered = || Verdict { unanswered: 1, ..none() };
        check(&[Acknowledged], 1, 0, Verdict { found_once: 1, ..acknowledged() });
        check(&[Acknowledged], 0, 0, Verdict { missing: 1, ..acknowledged() });
        check(&[Acknowledged], 2, 0, Verdict { more_than_once: 1, ..acknowledged() });
        check(&[Acknowledged], 4, 0, Verdict { more_than_once: 3, ..acknowledged() });
        check(&[Unknown], 0, 0, unanswered());
        check(&[Unknown], 1, 0, Verdict { unanswered_found: 1, ..unanswered() });
        check(&[Unknown], 2, 0, Verdict { unanswered_found: 1, more_than_once: 1, ..unanswered() });
        check(&[NotTaken], 0, 0, none());
        check(&[NotTaken], 1, 0, Verdict { strangers: 1, ..none() });
        // Only what the run added counts.
        check(&[Acknowledged], 3, 2, Verdict { found_once: 1, ..acknowledged() });
        check(&[Acknowledged], 2, 2, Verdict { missing: 1, ..acknowledged() });
        check(&[NotTaken], 2, 2, none());
        // The same sensor and time twice in a file.
        check(&[Acknowledged, Acknowledged], 2, 0, Verdict { acknowledged: 2, found_once: 2, ..none() });
        let one_missing = Verdict { acknowledged: 2, found_once: 1, missing: 1, ..none() };
        check(&[Acknowledged, Acknowledged], 1, 0, one_missing);
        let one_unanswered = Verdict { acknowledged: 1, found_once: 1, unanswered: 1, ..none() };
        check(&[Acknowledged, Unknown], 1, 0, one_unanswered);
    }

    #[test]
    fn a_verdict_fails_on_what_speaks_against_the_gateway() {
        let verdict = |missing, more_than_once, strangers, left_out: &[&str]| Verdict {
            missing,
            more_than_once,
            strangers,
            left_out: left_out.iter().map(ToString::to_string).collect(),
            ..Verdict::default()
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
