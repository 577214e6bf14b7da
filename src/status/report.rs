//! `/status`: the state of the gateway as JSON.

use std::sync::Arc;
use std::time::SystemTime;

use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::certificate::{CertificateReport, OwnCertificate};
use super::{StatusSources, StatusView};
use crate::auth::usage::KeyUsage;
use crate::buffer::ledger::Ledger;
use crate::delivery::{BreakerState, ClusterNodeStatus, TransformStatus};

/// The state of the gateway.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub(super) struct StatusReport {
    /// Version of the gateway.
    pub(super) version: &'static str,
    /// Seconds since it started.
    pub(super) uptime_seconds: u64,
    /// Where every accepted reading is.
    pub(super) ledger: LedgerReport,
    /// The buffer.
    pub(super) buffer: BufferReport,
    /// The dead letters.
    pub(super) dead_letters: DeadLettersReport,
    /// The transforms, in their order.
    pub(super) transforms: Vec<TransformReport>,
    /// The listener's own certificate; null without TLS.
    pub(super) certificate: Option<CertificateReport>,
    /// The own certificate that nodes are shown; null without one.
    pub(super) node_certificate: Option<CertificateReport>,
    /// The keys that readings came with, the first 1,000 by name and all others as `other`; empty without keys.
    pub(super) keys: Vec<KeyReport>,
    /// The nodes.
    pub(super) nodes: Vec<NodeReport>,
}

/// How many readings came with a key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyReport {
    /// The name of the key.
    pub(super) name: String,
    /// Readings that were accepted.
    pub(super) accepted: u64,
    /// Readings that were turned away.
    pub(super) rejected: u64,
}

/// Where every accepted reading is: `accepted + recovered + derived = delivered + dead_lettered + filtered + merged +
/// dropped + buffered`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ledger)]
pub(super) struct LedgerReport {
    /// Taken in.
    pub(super) accepted: u64,
    /// Found in the buffer at the start.
    pub(super) recovered: u64,
    /// Made by transforms.
    pub(super) derived: u64,
    /// Delivered to a node.
    pub(super) delivered: u64,
    /// Of these, delivered to nodes that have gone and are no longer shown.
    pub(super) delivered_to_gone: u64,
    /// Set aside, for a person to look at.
    pub(super) dead_lettered: u64,
    /// Taken out by transforms.
    pub(super) filtered: u64,
    /// Folded into readings that transforms made.
    pub(super) merged: u64,
    /// Given up to make room for newer ones.
    pub(super) dropped: u64,
    /// Still to be delivered, in flight included.
    pub(super) buffered: u64,
}

/// The buffer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Buffer)]
pub(super) struct BufferReport {
    /// Its kind.
    pub(super) kind: &'static str,
    /// What an acknowledgement promises unless the request asks for another.
    pub(super) ack: &'static str,
    /// Readings held.
    pub(super) readings: u64,
    /// Bytes held.
    pub(super) bytes: u64,
    /// Most readings that may be held.
    pub(super) limit_readings: u64,
    /// Most bytes that may be held.
    pub(super) limit_bytes: u64,
    /// Age of the oldest reading that is not settled.
    pub(super) oldest_seconds: f64,
    /// Why no readings can be taken; not set while they can, or while only room is missing.
    pub(super) trouble: Option<String>,
}

/// One transform.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transform)]
pub(super) struct TransformReport {
    /// Its name.
    pub(super) name: String,
    /// Readings that it took out.
    pub(super) filtered: u64,
    /// Readings that it folded into others.
    pub(super) merged: u64,
    /// Readings that it made.
    pub(super) derived: u64,
    /// Readings that passed unchanged because it could not be applied to them.
    pub(super) failed: u64,
    /// Readings that were too late for their window and went into one of their own.
    pub(super) late: u64,
    /// What was forgotten, and windows that were closed, before their time to make room.
    pub(super) evicted: u64,
    /// Results of windows that lack a tag of their series, because they have as many as there may be.
    pub(super) tags_cut: u64,
    /// Series, or readings, that it remembers.
    pub(super) remembered: u64,
    /// Windows that are open.
    pub(super) open_windows: u64,
}

/// The dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(super) struct DeadLettersReport {
    /// Why refused readings stay in the buffer; not set while their letters can be written.
    pub(super) trouble: Option<String>,
}

/// One node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeReport {
    /// Its name in metrics and logs.
    pub(super) id: String,
    /// Its address, without credentials.
    pub(super) url: String,
    /// Whether batches may go there; otherwise it is no longer among the addresses of its name.
    pub(super) present: bool,
    /// How it does: `up`, `failing` (it has failed and has not had success since, but is not down yet) or `down`.
    #[schema(example = "up")]
    pub(super) state: &'static str,
    /// Whether it is taken to be up, and present; also while it is failing.
    pub(super) up: bool,
    /// Its last error, unless it has taken a batch since.
    pub(super) reason: Option<String>,
    /// What its circuit breaker does: `closed` (it is in use), `open` (it is down) or `half_open` (a trial is on its way).
    #[schema(example = "closed")]
    pub(super) breaker: &'static str,
    /// Seconds until a trial is due; not set unless the breaker is open.
    pub(super) trial_in_seconds: Option<f64>,
    /// Whether it is sent nothing but trials because it is down.
    pub(super) ejected: bool,
    /// Latency of its answers as a moving average; not set before the first answer.
    pub(super) latency_seconds: Option<f64>,
    /// Its last error, even if all has been well since.
    pub(super) last_error: Option<LastError>,
    /// Age of the oldest reading that waits for this node alone, 0 if there is none.
    pub(super) oldest_waiting_seconds: f64,
    /// Batches on their way to it.
    pub(super) in_flight: usize,
    /// Batches that may be on their way to it at present.
    pub(super) in_flight_limit: usize,
    /// Readings delivered to it.
    pub(super) delivered: u64,
}

/// An error of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LastError {
    /// The status and the beginning of the answer, or why there was no answer.
    pub(super) text: String,
    /// When, as RFC 3339.
    pub(super) at: String,
}

impl NodeReport {
    fn of(node: &ClusterNodeStatus, delivered: u64, now: Instant) -> NodeReport {
        let trial_in = match node.breaker {
            BreakerState::Open { until } => Some(until.saturating_duration_since(now).as_secs_f64()),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        };
        let last_error = node.last_error.as_ref().map(|error| {
            let ago = now.saturating_duration_since(error.at);
            let at = wall_time().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
            LastError { text: error.text.to_string(), at: Timestamp::from_system(at).to_string() }
        });
        NodeReport {
            id: node.id.to_string(),
            url: node.url.clone(),
            present: node.present,
            state: node.health().name(),
            up: node.up,
            reason: node.reason.clone(),
            breaker: node.breaker.name(),
            trial_in_seconds: trial_in,
            ejected: node.ejected,
            latency_seconds: node.latency_seconds(),
            last_error,
            oldest_waiting_seconds: node.oldest_waiting_age(now).as_secs_f64(),
            in_flight: node.in_flight,
            in_flight_limit: node.in_flight_limit,
            delivered,
        }
    }
}

impl TransformReport {
    fn of(
        place: usize,
        TransformStatus { name, stats }: &TransformStatus,
        ledger: &Ledger,
    ) -> TransformReport {
        let account = |accounts: &[u64]| accounts.get(place).copied().unwrap_or(0);
        TransformReport {
            name: name.to_string(),
            filtered: account(&ledger.filtered),
            merged: account(&ledger.merged),
            derived: account(&ledger.derived),
            failed: stats.failed,
            late: stats.late,
            evicted: stats.evicted,
            tags_cut: stats.tags_cut,
            remembered: stats.remembered,
            open_windows: stats.open_windows,
        }
    }
}

fn keys(status: &StatusSources) -> Vec<KeyReport> {
    let report = |(name, usage): (Arc<str>, Arc<KeyUsage>)| KeyReport {
        name: name.to_string(),
        accepted: usage.accepted.get(),
        rejected: usage.rejected.get(),
    };
    status.keys.all().into_iter().map(report).collect()
}

impl StatusReport {
    pub(super) fn of(status: &StatusSources, view: &StatusView) -> StatusReport {
        let ledger = &view.snapshot.ledger;
        let now = Instant::now();
        let transform =
            |(place, transform): (usize, &TransformStatus)| TransformReport::of(place, transform, ledger);
        let node = |(node, delivered): (&ClusterNodeStatus, &u64)| NodeReport::of(node, *delivered, now);
        StatusReport {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.duration_since(status.started_at).as_secs(),
            ledger: LedgerReport {
                accepted: ledger.accepted.iter().sum(),
                recovered: ledger.recovered,
                derived: ledger.derived.iter().sum(),
                delivered: ledger.delivered_to_all(),
                delivered_to_gone: ledger.delivered_to_gone,
                dead_lettered: ledger.dead_lettered.iter().sum(),
                filtered: ledger.filtered.iter().sum(),
                merged: ledger.merged.iter().sum(),
                dropped: ledger.dropped.iter().sum(),
                buffered: ledger.buffered,
            },
            buffer: BufferReport {
                kind: status.buffer_config.kind,
                ack: status.buffer_config.ack.name(),
                readings: ledger.buffered,
                bytes: view.snapshot.held_bytes,
                limit_readings: view.snapshot.limit.readings,
                limit_bytes: view.snapshot.limit.bytes,
                oldest_seconds: view.oldest_seconds,
                trouble: view.trouble.clone(),
            },
            dead_letters: DeadLettersReport { trouble: view.dead_letter_trouble.clone() },
            transforms: view.transforms.iter().enumerate().map(transform).collect(),
            certificate: CertificateReport::of(status, OwnCertificate::Listener),
            node_certificate: CertificateReport::of(status, OwnCertificate::ForNodes),
            keys: keys(status),
            nodes: view.nodes.iter().zip(&ledger.delivered).map(node).collect(),
        }
    }
}
