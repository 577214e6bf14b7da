//! The latest readings of a gateway with an embedded node, at the gateway's own port.
//!
//! `GET /v1/readings?device=&sensor=&latest=N` answers NDJSON, the newest first by the readings' own time. If nodes are
//! configured, the answer is 405 and says so; it does not name them, because a client that may only post has no need of
//! their addresses.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use utoipa::OpenApi;

use super::http::ndjson;
use super::query;
use super::reader::{Order, Readers};
use super::refusal::NodeRefusal;

/// Readings in an answer if the request does not say how many.
const LATEST_DEFAULT: u64 = 10;
/// The refusal of a gateway with configured nodes.
const IN_NODES: &str = "this gateway keeps no readings: its readings are in the nodes that are configured; ask those. \
     `POST` takes readings here";

/// This route's part of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(latest))]
#[derive(Debug)]
pub struct LatestApi;

/// The place of a gateway's readings.
#[derive(Clone, Debug)]
pub enum Latest {
    /// In this process. These are only its readers: the writer's thread ends when the last clone of the store is dropped.
    Here(LatestReadings),
    /// In configured nodes.
    InNodes,
}

/// Read access to an embedded node.
#[derive(Clone, Debug)]
pub struct LatestReadings {
    pub(super) readers: Arc<Readers>,
}

impl Latest {
    /// Serves `path` on a listener that takes readings there; `guard` is put around what shows readings.
    pub fn routes(self, path: &str, guard: &dyn Fn(MethodRouter) -> MethodRouter) -> Router {
        match self {
            Latest::Here(_) => self.operator_listener_routes(path, guard),
            Latest::InNodes => Router::new().route(path, any(elsewhere)),
        }
    }

    /// Serves `path` on a listener that takes no readings: with readings in nodes there is nothing.
    pub fn operator_listener_routes(
        self,
        path: &str,
        guard: &dyn Fn(MethodRouter) -> MethodRouter,
    ) -> Router {
        match self {
            Latest::Here(readings) => Router::new().route(path, guard(get(latest).with_state(readings))),
            Latest::InNodes => Router::new(),
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
) -> Result<Response, NodeRefusal> {
    let query = query::parse(&text.unwrap_or_default(), &["device", "sensor", "latest"])?;
    let latest = query.latest.unwrap_or(LATEST_DEFAULT);
    let rows = readings.readers.read(query.filter, Order::NewestFirst, Some(latest)).await?;
    Ok(ndjson(rows))
}

async fn elsewhere(method: Method) -> Response {
    let asks = method == Method::GET || method == Method::HEAD;
    let detail = if asks { IN_NODES } else { "this path takes another method; `Allow` names it" };
    NodeRefusal::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header("allow", "POST").into_response()
}
