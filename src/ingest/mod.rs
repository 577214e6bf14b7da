//! The HTTP front: readings in.
//!
//! A request goes through `content` (what it says about itself), `body` (taking it in), a decoder of
//! [`forebay_codec`], and into the buffer, whole or not at all. Every refusal is an `error` with its status, told
//! as a problem (RFC 9457).
//!
//! [`PATHS`] lists the paths that take readings. They share all of that; what sets them apart is their `dialect`:
//! `influx` is that of InfluxDB's clients.
//!
//! A request with an `Idempotency-Key` is done once, and what it was answered is given again (`idempotency`).
//!
//! Limits: a body is at most `server.max_body` bytes after decompression and arrives within
//! `server.request_timeout`; all bodies under way, and what they hold once decoded, are at most `server.max_pending`
//! bytes together; readings may not take many times the bytes of their body; large bodies are decoded one for each
//! core at a time; at most half of the connections wait for delivery; connections and heads are bounded below, in
//! [`crate::listener`]. A refused body is read on for a while, so that its sender sees the answer.

mod accepted;
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
mod readings;
mod refusal;
mod schema;
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

pub use dialect::{Dialect, PATHS};
pub use entrance::Entrance;
pub use idempotency::KeysConfig;
pub use influx::Api as InfluxApi;
pub use refusal::REASONS as REFUSALS;
pub use statuses::STATUSES;
pub use statuses::StatusRow;

/// The path that takes readings from the gateway's own clients; [`PATHS`] has those of others, too.
pub const READINGS_PATH: &str = "/v1/readings";

/// The settings of the front.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Largest body after decompression, in bytes.
    pub max_body: usize,
    /// Bytes that the bodies of all requests under way may hold together.
    pub max_pending: u64,
    /// Longest time in which a body must arrive.
    pub request_timeout: Duration,
    /// What to do with a field that no reading has.
    pub unknown_fields: UnknownFields,
    /// How far ahead of the clock a reading may be; zero: any time.
    pub max_future: Duration,
    /// How far behind the clock a reading may be; zero: any time.
    pub max_past: Duration,
    /// No reading may be earlier.
    pub earliest: Timestamp,
    /// How clients' keys are remembered.
    pub keys: KeysConfig,
    /// Which tag names the device in line protocol.
    pub device_tags: DeviceTags,
}

/// What the front's part of the OpenAPI document is made from.
#[derive(OpenApi)]
#[openapi(paths(readings::post, influx::write_v2, influx::write_v1))]
#[derive(Debug)]
pub struct Api;

/// Takes readings.
#[derive(Debug)]
pub struct Front {
    config: IngestConfig,
    buffer: Arc<dyn Buffer>,
    /// What a request is promised that does not ask.
    ack: Ack,
    /// What a request may ask for.
    acks: &'static [Ack],
    bodies: Arc<BodyBudget>,
    /// Turns to decode large bodies, one for each core.
    decoding: Semaphore,
    /// Places for requests that wait for delivery: so many that others find a connection all the same.
    waiting: Arc<Semaphore>,
    /// The keys of clients; `None` if they are not looked at.
    keys: Option<Arc<Idempotency>>,
    /// Cancelled when no more requests are taken.
    draining: CancellationToken,
    /// Which gateways readings have come through.
    via: Arc<Via>,
    /// `readings_rejected_total` by reason, in the order of [`Reason::NAMES`].
    rejected: Vec<IntCounter>,
    /// What was turned away last, for people.
    rejections: Arc<RejectionLog>,
}

impl Front {
    /// Takes readings into `buffer` until `draining` is cancelled. Of `connections_max` connections, half may wait
    /// for delivery.
    pub fn new(
        config: IngestConfig,
        connections_max: usize,
        buffer: Arc<dyn Buffer>,
        ack: Ack,
        acks: &'static [Ack],
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

    /// What was turned away last.
    pub fn rejections(&self) -> Arc<RejectionLog> {
        Arc::clone(&self.rejections)
    }

    /// The same, knowing the way that readings come and go on with.
    #[must_use]
    pub fn with_via(self, via: Arc<Via>) -> Front {
        Front { via, ..self }
    }

    /// Remembers the keys of requests from before the start, which the buffer has kept.
    pub fn restore(&self, memos: &[Bytes]) {
        if let Some(keys) = &self.keys {
            keys.restore(memos, wall_time());
        }
    }
}

#[cfg(test)]
mod tests;
