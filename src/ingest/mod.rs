//! The HTTP front for readings.
//!
//! A request passes through `content` (its head), `body` (its bytes) and a decoder of [`forebay_codec`] into the
//! buffer, whole or not at all. Every refusal is an `error` with a status, answered as a problem (RFC 9457).
//!
//! [`PATHS`] lists the paths that take readings. They share this code and differ in their `dialect`: `influx` is the
//! dialect of InfluxDB's clients.
//!
//! A request with an `Idempotency-Key` is carried out once; a repetition gets the same answer (`idempotency`).
//!
//! Limits: a body is at most `server.max_body` bytes after decompression and arrives within
//! `server.request_timeout`; all bodies in memory and their decoded readings are at most `server.max_pending` bytes
//! together; decoded readings take a bounded multiple of the bytes of their body; as many large bodies are decoded at
//! a time as there are cores; at most half of the connections wait for delivery; [`crate::listener`] bounds
//! connections and heads. The rest of a refused body is read for a while, so that its sender sees the answer.

mod accepted;
mod access;
mod body;
mod content;
mod dialect;
mod encoding;
mod entrance;
mod error;
mod evidence;
mod idempotency;
mod influx;
mod key_header;
mod observe;
mod openapi;
mod readings;
mod refusal;
mod statuses;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_codec::{DeviceTags, Reason, UnknownFields};
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use prometheus::IntCounter;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::buffer::{Ack, Buffer};
use crate::metrics::Metrics;
use crate::rejections::RejectionLog;
use crate::via::Via;
use body::BodyBudget;
use idempotency::Idempotency;

pub use access::{Access, for_operators};
pub use dialect::{Dialect, PATHS};
pub use entrance::{Entrance, readings_routes};
pub use idempotency::KeysConfig;
pub use influx::InfluxApi;
pub use refusal::REASONS as REFUSALS;
pub use statuses::STATUSES;
pub use statuses::StatusRow;

/// The gateway's own path for readings; [`PATHS`] also has the paths of other clients.
pub const READINGS_PATH: &str = "/v1/readings";

/// The settings of the front.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Largest body after decompression, in bytes.
    pub max_body: usize,
    /// Most bytes of the bodies of all requests in progress.
    pub max_pending: u64,
    /// Longest time for a body to arrive.
    pub request_timeout: Duration,
    /// How unknown fields of a reading are treated.
    pub unknown_fields: UnknownFields,
    /// How far ahead of the clock the time of a reading may be; zero: no limit.
    pub max_future: Duration,
    /// How far behind the clock the time of a reading may be; zero: no limit.
    pub max_past: Duration,
    /// The earliest time that a reading may have.
    pub earliest: Timestamp,
    /// How idempotency keys are remembered.
    pub keys: KeysConfig,
    /// Which tag names the device in line protocol.
    pub device_tags: DeviceTags,
}

/// The front's part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(openapi::post, openapi::write_v2, openapi::write_v1))]
#[derive(Debug)]
pub struct IngestApi;

/// The acknowledgements that the buffer gives.
#[derive(Clone, Copy, Debug)]
pub struct Acks {
    /// That of a request that asks for none.
    pub default: Ack,
    /// Those that a request may ask for.
    pub allowed: &'static [Ack],
}

/// Takes posts of readings into the buffer.
#[derive(Debug)]
pub struct Front {
    config: IngestConfig,
    access: Arc<Access>,
    buffer: Arc<dyn Buffer>,
    /// The acknowledgement of a request that asks for none.
    ack: Ack,
    /// The acknowledgements that a request may ask for.
    acks: &'static [Ack],
    bodies: Arc<BodyBudget>,
    /// Permits to decode a large body, one for each core.
    decoding: Semaphore,
    /// Permits to wait for delivery: so few that other requests still find a connection.
    waiting: Arc<Semaphore>,
    /// The idempotency keys of clients; `None` if they are ignored.
    keys: Option<Arc<Idempotency>>,
    /// Cancelled once the gateway takes no more readings.
    draining: CancellationToken,
    /// Finds requests that have come through this gateway before.
    via: Arc<Via>,
    /// `readings_rejected_total` by reason, in the order of [`Reason::NAMES`].
    rejected: Vec<IntCounter>,
    /// The latest rejections, for people to read.
    rejections: Arc<RejectionLog>,
}

impl Front {
    /// A front that takes readings into `buffer` until `draining` is cancelled. Half of the `connections_max`
    /// connections may wait for delivery.
    pub fn new(
        config: IngestConfig,
        access: Arc<Access>,
        connections_max: usize,
        buffer: Arc<dyn Buffer>,
        Acks { default: ack, allowed: acks }: Acks,
        draining: CancellationToken,
        metrics: &Metrics,
    ) -> Front {
        let counter = |(name, _): &(&str, Reason)| metrics.readings_rejected.with_label_values(&[*name]);
        let rejected = Reason::NAMES.iter().map(counter).collect();
        let bodies = BodyBudget::new(config.max_pending);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Front {
            decoding: Semaphore::new(cores),
            waiting: Arc::new(Semaphore::new((connections_max / 2).max(1))),
            keys: Idempotency::new(config.keys, connections_max, metrics.idempotency_keys_forgotten.clone()),
            config,
            access,
            buffer,
            ack,
            acks,
            bodies,
            draining,
            via: Arc::new(Via::new(fastrand::u128(..))),
            rejected,
            rejections: Arc::default(),
        }
    }

    /// The latest rejections.
    pub fn rejections(&self) -> Arc<RejectionLog> {
        Arc::clone(&self.rejections)
    }

    /// This front with another `via`, which the delivery shares.
    #[must_use]
    pub fn with_via(self, via: Arc<Via>) -> Front {
        Front { via, ..self }
    }

    /// Restores the idempotency keys of earlier requests from their memos in the buffer.
    pub fn restore(&self, memos: &[Bytes]) {
        if let Some(keys) = &self.keys {
            keys.restore(memos, wall_time());
        }
    }
}

#[cfg(test)]
mod tests;
