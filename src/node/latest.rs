//! The last readings of a gateway that keeps them in its own process, at the gateway's own port.
//!
//! `GET /v1/readings?device=&sensor=&latest=N` gives NDJSON, the newest by the readings' own time first. Where the
//! readings are in nodes of their own, the answer is 405 and says so; it does not name them, whose addresses are nobody's
//! business who may only post.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use utoipa::OpenApi;

use super::http::ndjson;
use super::query;
use super::reader::{Order, Readers};
use super::refusal::Refusal;

/// Readings that are given if the request does not say how many.
const LATEST_DEFAULT: u64 = 10;
/// Why readings cannot be had from a gateway with nodes of their own.
const IN_NODES: &str = "this gateway keeps no readings: its readings are in the nodes that are configured; ask those. \
     `POST` takes readings here";

/// What this part of the OpenAPI document is made from.
#[derive(OpenApi)]
#[openapi(paths(latest))]
#[derive(Debug)]
pub struct LatestApi;

/// Where the readings of a gateway are.
#[derive(Clone, Debug)]
pub enum Latest {
    /// In this process. (Not the store itself: the thread that writes ends when nobody has the store any more.)
    Here(LatestReadings),
    /// In nodes that are configured.
    InNodes,
}

/// The readings of an embedded node, to be read.
#[derive(Clone, Debug)]
pub struct LatestReadings {
    pub(super) readers: Arc<Readers>,
}

impl Latest {
    /// Serves `path`.
    pub fn routes(self, path: &str) -> Router {
        match self {
            Latest::Here(readings) => Router::new().route(path, get(latest).with_state(readings)),
            Latest::InNodes => Router::new().route(path, any(elsewhere)),
        }
    }
}

/// The last readings.
///
/// Only while this gateway keeps its readings itself, that is while no nodes are configured. A reading can be read once
/// its batch was delivered, after about `batch.max_age`.
#[utoipa::path(
    get,
    path = "/v1/readings",
    params(
        ("device" = Option<String>, Query, description = "Only those of this device."),
        ("sensor" = Option<String>, Query, description = "Only those of this sensor."),
        ("latest" = Option<u64>, Query, description = "How many, 1 to 10000; 10 unless it is said."),
    ),
    responses(
        (status = 200, description = "The newest first, a reading a line.", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "A parameter is unknown or out of range.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 405, description = "The readings are in the configured nodes.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many are reading, or the file cannot be read.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
async fn latest(
    State(readings): State<LatestReadings>,
    RawQuery(text): RawQuery,
) -> Result<Response, Refusal> {
    let query = query::parse(&text.unwrap_or_default(), &["device", "sensor", "latest"])?;
    let latest = query.latest.unwrap_or(LATEST_DEFAULT);
    let rows = readings.readers.read(query.filter, Order::NewestFirst, Some(latest)).await?;
    Ok(ndjson(rows))
}

async fn elsewhere(method: Method) -> Response {
    let asks = method == Method::GET || method == Method::HEAD;
    let detail = if asks { IN_NODES } else { "this path takes another method; `Allow` names it" };
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header("allow", "POST").into_response()
}
