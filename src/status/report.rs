//! `/status`: the state of the gateway as JSON.

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Status, View};

/// The state of the gateway.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Report {
    /// Version of the gateway.
    pub(super) version: &'static str,
    /// Seconds since it started.
    pub(super) uptime_seconds: u64,
    /// Where every accepted reading is.
    pub(super) ledger: Ledger,
    /// The buffer.
    pub(super) buffer: Buffer,
    /// The nodes.
    pub(super) nodes: Vec<Node>,
}

/// Where every accepted reading is: `accepted + recovered + derived = delivered + dead_lettered + filtered + merged +
/// dropped + buffered`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ledger {
    /// Taken in.
    pub(super) accepted: u64,
    /// Found in the buffer at the start.
    pub(super) recovered: u64,
    /// Made by aggregation.
    pub(super) derived: u64,
    /// Delivered to a node.
    pub(super) delivered: u64,
    /// Of these, delivered to nodes that have gone and are no longer shown.
    pub(super) delivered_to_gone: u64,
    /// Set aside, for a person to look at.
    pub(super) dead_lettered: u64,
    /// Taken out by a filter.
    pub(super) filtered: u64,
    /// Folded into others by aggregation.
    pub(super) merged: u64,
    /// Given up to make room for newer ones.
    pub(super) dropped: u64,
    /// Still to be delivered, in flight included.
    pub(super) buffered: u64,
}

/// The buffer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Buffer {
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

/// One node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Node {
    /// Its name in metrics and logs.
    pub(super) id: String,
    /// Its address, without credentials.
    pub(super) url: String,
    /// Whether batches may go there; otherwise it is no longer among the addresses of its name.
    pub(super) present: bool,
    /// Whether it is taken to be up, and present.
    pub(super) up: bool,
    /// What went wrong last, unless it has taken a batch since.
    pub(super) reason: Option<String>,
    /// Batches on their way to it.
    pub(super) in_flight: usize,
    /// Batches that may be on their way to it at present.
    pub(super) in_flight_limit: usize,
    /// Readings delivered to it.
    pub(super) delivered: u64,
}

impl Report {
    pub(super) fn of(status: &Status, view: &View) -> Report {
        let ledger = &view.snapshot.ledger;
        let node = |(node, delivered): (&crate::delivery::NodeStatus, &u64)| Node {
            id: node.id.to_string(),
            url: node.url.clone(),
            present: node.present,
            up: node.up,
            reason: node.reason.clone(),
            in_flight: node.in_flight,
            in_flight_limit: node.in_flight_limit,
            delivered: *delivered,
        };
        Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: Instant::now().duration_since(status.started_at).as_secs(),
            ledger: Ledger {
                accepted: ledger.accepted.iter().sum(),
                recovered: ledger.recovered,
                derived: ledger.derived,
                delivered: ledger.delivered_to_all(),
                delivered_to_gone: ledger.delivered_to_gone,
                dead_lettered: ledger.dead_lettered.iter().sum(),
                filtered: ledger.filtered,
                merged: ledger.merged,
                dropped: ledger.dropped.iter().sum(),
                buffered: ledger.buffered,
            },
            buffer: Buffer {
                kind: status.buffer_config.kind,
                ack: status.buffer_config.ack.name(),
                readings: ledger.buffered,
                bytes: view.snapshot.held_bytes,
                limit_readings: view.snapshot.limit.readings,
                limit_bytes: view.snapshot.limit.bytes,
                oldest_seconds: view.oldest_seconds,
                trouble: view.trouble.clone(),
            },
            nodes: view.nodes.iter().zip(&ledger.delivered).map(node).collect(),
        }
    }
}
