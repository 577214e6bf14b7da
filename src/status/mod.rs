//! What the gateway says about itself: `/healthz`, `/readyz`, `/metrics`, `/status`, the page at `/`, and the
//! OpenAPI document.
//!
//! All of it is read from one snapshot of the accounts, so that the books add up in every answer.

mod page;
mod readiness;
mod report;
mod samples;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::{OpenApi, ToSchema};

use crate::buffer::{Buffer, BufferConfig, Snapshot};
use crate::delivery::{DeadLetters, DeliveryStatus, NodeStatus, TransformStatus};
use crate::metrics::Metrics;
use readiness::Readiness;
use report::Report;

/// The paths that are served here.
pub const PATHS: &[&str] = &["/", "/healthz", "/readyz", "/metrics", "/status", "/openapi.json"];

/// What this part of the OpenAPI document is made from.
#[derive(OpenApi)]
#[openapi(paths(health, readiness, metrics, status, page, openapi))]
#[derive(Debug)]
pub struct Api;

/// Where the answers come from.
#[derive(Debug)]
pub struct Status {
    /// When the gateway started.
    pub started_at: Instant,
    /// The settings of the buffer.
    pub buffer_config: BufferConfig,
    /// The room, the ledger, and what is wrong with the buffer.
    pub buffer: Arc<dyn Buffer>,
    /// The nodes.
    pub delivery: Arc<DeliveryStatus>,
    /// Where readings go that nodes refuse.
    pub dead_letters: DeadLetters,
    /// Cancelled when no more requests are taken.
    pub draining: CancellationToken,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The OpenAPI document, as JSON.
    pub openapi: String,
}

/// One consistent view.
struct View {
    snapshot: Snapshot,
    /// Why no readings can be taken.
    trouble: Option<String>,
    /// Why refused readings stay in the buffer.
    dead_letter_trouble: Option<String>,
    nodes: Vec<NodeStatus>,
    /// How many of them have to take each batch.
    nodes_needed: usize,
    oldest_seconds: f64,
    transforms: Vec<TransformStatus>,
}

impl Status {
    /// The routes.
    pub fn routes(self) -> Router {
        let status = Arc::new(self);
        Router::new()
            .route("/", get(page))
            .route("/healthz", get(health))
            .route("/readyz", get(readiness))
            .route("/metrics", get(metrics))
            .route("/status", get(self::status))
            .route("/openapi.json", get(openapi))
            .with_state(status)
    }

    fn view(&self) -> View {
        // At one moment: the accounts are those of these nodes.
        let (nodes, snapshot) = self.delivery.nodes_and(|| self.buffer.accounts().snapshot());
        View {
            snapshot,
            trouble: self.buffer.trouble(),
            dead_letter_trouble: self.dead_letters.trouble(),
            nodes,
            nodes_needed: self.delivery.needed(),
            oldest_seconds: self.delivery.oldest_age(Instant::now()).as_secs_f64(),
            transforms: self.delivery.transforms(),
        }
    }
}

/// The process serves.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process serves.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "The process serves.", body = Health)))]
async fn health() -> Response {
    json(StatusCode::OK, &Health { status: "ok" })
}

/// Whether the gateway should be sent readings.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "Ready.", body = Readiness),
    (status = 503, description = "Draining, full, or degraded; the checks say why.", body = Readiness),
))]
async fn readiness(State(status): State<Arc<Status>>) -> Response {
    let readiness = Readiness::of(&status.view(), status.draining.is_cancelled());
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, &readiness)
}

/// The metrics, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus text format.", body = String, content_type = "text/plain")))]
async fn metrics(State(status): State<Arc<Status>>) -> Response {
    text("text/plain; version=0.0.4; charset=utf-8", status.metrics.encode(samples::samples(&status.view())))
}

/// The state of the gateway.
#[utoipa::path(get, path = "/status", responses((status = 200, description = "The state.", body = Report)))]
async fn status(State(status): State<Arc<Status>>) -> Response {
    json(StatusCode::OK, &Report::of(&status, &status.view()))
}

/// The state of the gateway, for people.
#[utoipa::path(get, path = "/", responses((status = 200, description = "A page.", body = String, content_type = "text/html")))]
async fn page(State(status): State<Arc<Status>>) -> Response {
    let view = status.view();
    let readiness = Readiness::of(&view, status.draining.is_cancelled());
    text("text/html; charset=utf-8", page::render(&Report::of(&status, &view), &readiness))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json")))]
async fn openapi(State(status): State<Arc<Status>>) -> Response {
    text("application/json", status.openapi.clone())
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    let mut response = text("application/json", serde_json::to_string(body).unwrap_or_default());
    *response.status_mut() = code;
    response
}

fn text(content_type: &'static str, body: String) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
