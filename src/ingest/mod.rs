//! The HTTP front: readings in.
//!
//! A request goes through [`content`] (what it says about itself), [`body`] (taking it in), a decoder of
//! [`crate::codec`], and into the buffer, whole or not at all. Every refusal is an [`error`] with its status, told
//! as a problem (RFC 9457).
//!
//! Limits: a body is at most `server.max_body` bytes after decompression and arrives within
//! `server.request_timeout`; all bodies under way hold at most `server.max_pending` bytes together; connections and
//! heads are bounded below, in [`crate::listener`]. A refused body is read on for a while, so that its sender sees
//! the answer.

mod body;
mod content;
mod error;
mod observe;
mod readings;
mod schema;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{StatusCode, Uri};
use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;

use crate::buffer::{Ack, Buffer};
use crate::codec::{Reason, UnknownFields};
use crate::metrics::Metrics;
use crate::problem::Problem;
use body::BodyBudget;

pub use observe::Observe;

/// The path that takes readings.
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
}

/// What the front's part of the OpenAPI document is made from.
#[derive(OpenApi)]
#[openapi(paths(readings::post))]
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
    /// Cancelled when no more requests are taken.
    draining: CancellationToken,
    /// `readings_rejected_total` by reason, in the order of [`Reason::NAMES`].
    rejected: Vec<IntCounter>,
}

impl Front {
    /// Takes readings into `buffer` until `draining` is cancelled.
    pub fn new(
        config: IngestConfig,
        buffer: Arc<dyn Buffer>,
        ack: Ack,
        acks: &'static [Ack],
        draining: CancellationToken,
        metrics: &Metrics,
    ) -> Front {
        let counter = |(name, _): &(&str, Reason)| metrics.readings_rejected.with_label_values(&[*name]);
        let rejected = Reason::NAMES.iter().map(counter).collect();
        let bodies = BodyBudget::new(config.max_pending);
        Front { config, buffer, ack, acks, bodies, draining, rejected }
    }

    /// The routes of the front.
    pub fn routes(self) -> Router {
        Router::new().route(READINGS_PATH, post(readings::post)).with_state(Arc::new(self))
    }
}

/// Adds what holds for every path: problems for what is not there, counting, and an answer even after a defect.
pub fn finish(routes: Router, observe: Observe) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(observe)
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at `{path}`; readings go to `{READINGS_PATH}`"),
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; `Allow` names it")
}

fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request failed inside the gateway");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed while it answered").into_response()
}
