//! A node that takes its time over every answer, and notes the readings that it got and how long they had waited.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::distinct::{Fingerprint, numbers_in};

/// How long a node that is well takes over an answer.
pub(crate) const WELL: Duration = Duration::from_millis(5);
/// How long a slow one takes.
pub(crate) const SLOW: Duration = Duration::from_millis(500);
/// The bytes before the time in a batch.
const BEFORE_TIME: &[u8] = b"\"time\":\"";

/// The readings that a node took, in answered batches only.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Taken {
    /// Batches.
    pub(crate) batches: u64,
    /// Their readings.
    pub(crate) fingerprint: Fingerprint,
    /// From a batch's arrival to its answer, summed up over all of them.
    pub(crate) busy_seconds: f64,
}

/// How long the first reading of a batch waited: from its receipt at the gateway to the node's answer.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Wait {
    /// So long.
    pub(crate) seconds: f64,
    /// Readings in the batch.
    pub(crate) readings: u64,
}

#[derive(Debug, Default)]
struct Seen {
    taken: Taken,
    waits: Vec<Wait>,
}

#[derive(Clone)]
struct Node {
    delay: Duration,
    seen: Arc<Mutex<Seen>>,
}

/// Serves until the process ends: `POST /v1/batches` takes NDJSON; `GET /taken` and `GET /waits`.
pub(crate) async fn serve(listener: TcpListener, delay: Duration) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/v1/batches", post(take))
        .route("/taken", get(taken))
        .route("/waits", get(waits));
    axum::serve(listener, routes.with_state(Node { delay, seen: Arc::default() })).await
}

async fn take(State(Node { delay, seen }): State<Node>, batch: Bytes) -> StatusCode {
    let arrived_at = Instant::now();
    let fingerprint = Fingerprint::of(numbers_in(&batch));
    tokio::time::sleep(delay).await;
    let Some(received_at) = first_time(&batch) else { return StatusCode::BAD_REQUEST };
    let waited = Timestamp::from_system(wall_time()).nanos() - received_at.nanos();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.waits.push(Wait { seconds: waited as f64 / 1e9, readings: fingerprint.readings });
    seen.taken.batches += 1;
    seen.taken.fingerprint = seen.taken.fingerprint.and(fingerprint);
    seen.taken.busy_seconds += arrived_at.elapsed().as_secs_f64();
    StatusCode::OK
}

/// When the first reading of a batch was received: readings that come without a time have that one.
fn first_time(batch: &[u8]) -> Option<Timestamp> {
    let at = memchr::memmem::find(batch, BEFORE_TIME)? + BEFORE_TIME.len();
    let bytes = memchr::memchr(b'"', &batch[at..])?;
    Timestamp::parse(std::str::from_utf8(&batch[at..at + bytes]).ok()?).ok()
}

async fn taken(State(node): State<Node>) -> Result<String, StatusCode> {
    json(&node.seen.lock().unwrap_or_else(PoisonError::into_inner).taken)
}

async fn waits(State(node): State<Node>) -> Result<String, StatusCode> {
    json(&node.seen.lock().unwrap_or_else(PoisonError::into_inner).waits)
}

fn json(value: &impl Serialize) -> Result<String, StatusCode> {
    serde_json::to_string(value).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
