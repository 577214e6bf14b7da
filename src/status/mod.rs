//! The gateway's state: `/healthz`, `/readyz`, `/metrics`, `/status`, the last rejections, the page at `/`, the OpenAPI
//! document; lasting conditions in the log (`watch`); and the answers to InfluxDB clients that ask before they write
//! (`influxdb`).
//!
//! Each answer is built from one snapshot of the accounts, so that the ledger adds up in it.

mod certificate;
mod disks;
mod influxdb;
mod page;
mod readiness;
mod report;
mod samples;
mod watch;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::{OpenApi, ToSchema};

use crate::auth::usage::UsageTable;
use crate::buffer::{Buffer, BufferConfig, OnFull, Snapshot};
use crate::delivery::credentials::CredentialsInForce;
use crate::delivery::secrets::Extent;
use crate::delivery::{ClusterNodeStatus, DeadLetters, DeliveryStatus, TransformStatus};
use crate::metrics::Metrics;
use crate::problem::{Problem, json_line};
use crate::rejections::{RejectionEntry, RejectionLog};
use crate::tasks;
use crate::tls::client::ClientTls;
use crate::tls::server::ServerTls;
use disks::Disks;
use readiness::{Readiness, Requirement};
use report::StatusReport;

pub use watch::Watch;

/// The paths of this module.
pub const PATHS: &[&str] = &[
    "/",
    "/page.css",
    "/healthz",
    "/readyz",
    "/metrics",
    "/status",
    "/status/rejections",
    "/openapi.json",
    influxdb::PATHS[0],
    influxdb::PATHS[1],
    influxdb::PATHS[2],
];

/// This module's part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(
    health,
    readiness,
    metrics,
    status,
    rejections,
    page,
    style,
    openapi,
    influxdb::ping,
    influxdb::health,
    influxdb::query,
    influxdb::post_query
))]
#[derive(Debug)]
pub struct StatusApi;

/// The sources of the answers.
#[derive(Debug)]
pub struct StatusSources {
    /// When the gateway started.
    pub started_at: Instant,
    /// The settings of the buffer.
    pub buffer_config: BufferConfig,
    /// The buffer, with its room, its ledger and its troubles.
    pub buffer: Arc<dyn Buffer>,
    /// The nodes.
    pub delivery: Arc<DeliveryStatus>,
    /// The dead letters.
    pub dead_letters: DeadLetters,
    /// Cancelled when no more requests are accepted.
    pub draining: CancellationToken,
    /// How many readings came with each key.
    pub keys: Arc<UsageTable>,
    /// The certificate of the listener; `None`: plain HTTP.
    pub tls: Option<Arc<ArcSwap<ServerTls>>>,
    /// The TLS settings of calls to nodes, with the certificate that nodes are shown; `None`: no node is called over TLS.
    pub node_tls: Option<Arc<ArcSwap<ClientTls>>>,
    /// The last rejections.
    pub rejections: Arc<RejectionLog>,
    /// What requests to nodes carry; its secrets are hidden, even where a client repeats them.
    pub credentials: CredentialsInForce,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The OpenAPI document, as JSON.
    pub openapi: String,
}

/// How much `/readyz` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadinessDetail {
    /// The reason of each check, too.
    Whole,
    /// The status, and the checks by name.
    NamesOnly,
}

/// Puts nothing around a route.
fn unguarded(route: MethodRouter) -> MethodRouter {
    route
}

/// A consistent snapshot of the state.
struct StatusView {
    snapshot: Snapshot,
    /// The buffer's trouble, if it has any.
    trouble: Option<String>,
    /// What to do about that trouble, if the general advice about a failing disk does not fit.
    advice: Option<&'static str>,
    /// Whether the trouble keeps the buffer from accepting readings.
    is_failing: bool,
    /// Why the next request would find no room.
    full: Option<String>,
    /// Whether the gateway is stopping and accepts no more requests.
    is_draining: bool,
    /// Why refused readings stay in the buffer.
    dead_letter_trouble: Option<String>,
    nodes: Vec<ClusterNodeStatus>,
    /// Nodes that have to accept each batch.
    nodes_needed: usize,
    oldest_seconds: f64,
    transforms: Vec<TransformStatus>,
}

impl StatusSources {
    /// Hides secrets in text from a client; `is_cut` tells whether the end of the text may be missing.
    fn hide(&self, text: &str, is_cut: bool) -> String {
        let extent = if is_cut { Extent::Cut } else { Extent::Whole };
        self.credentials.load().secrets().hide(text, extent).into_owned()
    }

    /// The routes that are open to all: whether the gateway serves and takes readings, what it is, and what clients of
    /// InfluxDB ask before they write.
    pub fn open_routes(self: &Arc<Self>, detail: ReadinessDetail) -> Router {
        Router::new().route("/healthz", get(health)).merge(self.readiness_route(detail, &unguarded)).merge(
            Router::new()
                .route("/openapi.json", get(openapi))
                .with_state(Arc::clone(self))
                .merge(influxdb::routes()),
        )
    }

    /// The routes for those who run the gateway; `guard` is put around each.
    pub fn operator_routes(self: &Arc<Self>, guard: &dyn Fn(MethodRouter) -> MethodRouter) -> Router {
        let route = |handler: MethodRouter<Arc<StatusSources>>| guard(handler.with_state(Arc::clone(self)));
        Router::new()
            .route("/", route(get(page)))
            .route("/page.css", route(get(style)))
            .route("/metrics", route(get(metrics)))
            .route("/status", route(get(self::status)))
            .route("/status/rejections", route(get(rejections)))
    }

    /// The routes of a listener that only those who run the gateway reach: theirs, and whether the gateway serves, in full.
    pub fn operator_listener_routes(
        self: &Arc<Self>,
        guard: &dyn Fn(MethodRouter) -> MethodRouter,
    ) -> Router {
        self.operator_routes(guard)
            .route("/healthz", get(health))
            .merge(self.readiness_route(ReadinessDetail::Whole, guard))
    }

    fn readiness_route(
        self: &Arc<Self>,
        detail: ReadinessDetail,
        guard: &dyn Fn(MethodRouter) -> MethodRouter,
    ) -> Router {
        let status = Arc::clone(self);
        let handler = match detail {
            ReadinessDetail::Whole => get(readiness),
            ReadinessDetail::NamesOnly => get(readiness_in_short),
        };
        Router::new().route("/readyz", guard(handler.with_state(status)))
    }

    fn view(&self) -> StatusView {
        // Taken at one moment, so that the accounts match the nodes.
        let (nodes, snapshot) = self.delivery.nodes_and(|| self.buffer.accounts().snapshot());
        StatusView {
            full: self.full(&snapshot),
            snapshot,
            trouble: self.buffer.trouble(),
            advice: self.buffer.advice(),
            is_failing: self.buffer.is_failing(),
            is_draining: self.draining.is_cancelled(),
            dead_letter_trouble: self.dead_letters.trouble(),
            nodes,
            nodes_needed: self.delivery.needed(),
            oldest_seconds: self.delivery.oldest_age(Instant::now()).as_secs_f64(),
            transforms: self.delivery.transforms(),
        }
    }

    /// Why the next request would be refused for lack of room, or would have to wait for room. `None` if the oldest
    /// readings are dropped to make room.
    fn full(&self, held: &Snapshot) -> Option<String> {
        let makes_room = matches!(self.buffer_config.on_full, OnFull::DropOldest { .. });
        let accounts = || {
            let limit = held.limit;
            format!(
                "the buffer holds {} readings of {} and {} bytes of {}",
                held.ledger.buffered, limit.readings, held.held_bytes, limit.bytes
            )
        };
        (held.full && !makes_room).then(accounts).or_else(|| self.buffer.overfull())
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
#[utoipa::path(get, path = "/readyz",
    params(("require" = Option<String>, Query, description = "`nodes`: 503 also while no node is up.")),
    responses(
        (status = 200, description = "`ready`; or `degraded`: readings are taken, and something needs a look; the checks say what.", body = Readiness),
        (status = 400, description = "`require` has another value.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`draining`, `failing` or `full`: readings are not taken; the checks say why. With `require=nodes` also while no node is up.", body = Readiness),
    )
)]
async fn readiness(State(status): State<Arc<StatusSources>>, RawQuery(query): RawQuery) -> Response {
    answer_readiness(&status, query.as_deref(), Readiness::clone)
}

/// The same for those who do not run the gateway: without the reasons, which name nodes and paths.
async fn readiness_in_short(State(status): State<Arc<StatusSources>>, RawQuery(query): RawQuery) -> Response {
    answer_readiness(&status, query.as_deref(), Readiness::without_reasons)
}

fn answer_readiness(
    status: &StatusSources,
    query: Option<&str>,
    show: impl Fn(&Readiness) -> Readiness,
) -> Response {
    let required = match Requirement::from_query(query.unwrap_or_default()) {
        Ok(required) => required,
        Err(detail) => return Problem::new(StatusCode::BAD_REQUEST, detail).into_response(),
    };
    let readiness = Readiness::of(&status.view());
    let is_ready = readiness.is_ready(required);
    json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &show(&readiness))
}

/// The last rejections.
#[derive(Debug, Serialize, ToSchema)]
struct LastRejections {
    /// Readings and requests that were turned away, at most 200, the newest first; of one request at most 10 readings.
    rejections: Vec<RejectionEntry>,
}

/// The last readings and requests that were turned away.
#[utoipa::path(get, path = "/status/rejections", responses((status = 200, description = "The newest first.", body = LastRejections)))]
async fn rejections(State(status): State<Arc<StatusSources>>) -> Response {
    let newest = status.rejections.newest();
    // With many secrets this takes longer than a task may block its thread.
    let shown = tokio::task::spawn_blocking(move || {
        let hide = |text: &str, is_cut| status.hide(text, is_cut);
        newest.iter().map(|entry| entry.with_hidden(hide)).collect()
    });
    json(StatusCode::OK, &LastRejections { rejections: tasks::outcome(shown.await).await })
}

/// The metrics, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus text format.", body = String, content_type = "text/plain")))]
async fn metrics(State(status): State<Arc<StatusSources>>) -> Response {
    let disks = Disks::look(&status).await;
    let mut samples = samples::samples(&status.view());
    samples.extend(disks.samples());
    samples.extend(certificate::samples(&status));
    text("text/plain; version=0.0.4; charset=utf-8", status.metrics.encode(samples))
}

/// The state of the gateway.
#[utoipa::path(get, path = "/status", responses((status = 200, description = "The state.", body = StatusReport)))]
async fn status(State(status): State<Arc<StatusSources>>) -> Response {
    json(StatusCode::OK, &StatusReport::of(&status, &status.view()))
}

/// The state of the gateway, for people.
#[utoipa::path(get, path = "/", responses((status = 200, description = "A page.", body = String, content_type = "text/html")))]
async fn page(State(status): State<Arc<StatusSources>>) -> Response {
    let view = status.view();
    let readiness = Readiness::of(&view);
    let mut response =
        text("text/html; charset=utf-8", page::render(&StatusReport::of(&status, &view), &readiness));
    response.headers_mut().extend(page::HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// How the page looks.
#[utoipa::path(get, path = "/page.css", responses((status = 200, description = "The style sheet of the page.", body = String, content_type = "text/css")))]
async fn style() -> Response {
    text("text/css; charset=utf-8", page::STYLE)
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json")))]
async fn openapi(State(status): State<Arc<StatusSources>>) -> Response {
    text("application/json", format!("{}\n", status.openapi))
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    let mut response = text("application/json", json_line(body));
    *response.status_mut() = code;
    response
}

fn text(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
