//! The requests that InfluxDB clients and Telegraf send before they write: `/ping`, `/health` and `/query`. The answers
//! are constants that let these clients go on.
//!
//! | request | clients | answer |
//! |---|---|---|
//! | `GET`, `HEAD /ping` | the clients of InfluxDB 1 and 2, for the version | 204, `X-Influxdb-Version`; with `?verbose=true` 200 and a body |
//! | `GET /health` | the clients of InfluxDB 2 | 200, with the body of a healthy InfluxDB 2 |
//! | `GET`, `POST /query` | Telegraf and the clients of InfluxDB 1, for `CREATE DATABASE` and `SHOW DATABASES` | 200, one statement without a result |

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::problem::json_line;

/// The paths of this module.
pub(super) const PATHS: [&str; 3] = ["/ping", "/health", "/query"];

/// The version of InfluxDB that is announced. Clients of InfluxDB 1 and 2 accept it.
const VERSION: &str = "1.8.10";
const X_INFLUXDB_VERSION: HeaderName = HeaderName::from_static("x-influxdb-version");
const X_INFLUXDB_BUILD: HeaderName = HeaderName::from_static("x-influxdb-build");

/// Most bytes of a query that are read and ignored, so that its sender sees the answer.
const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Longest time to read them.
const QUERY_WITHIN: Duration = Duration::from_secs(5);

/// The version, for `/ping?verbose=true`.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    /// The version of InfluxDB whose clients are served.
    #[schema(example = "1.8.10")]
    version: &'static str,
}

/// How InfluxDB 2 says that it is well.
#[derive(Debug, Serialize, ToSchema)]
struct InfluxdbHealth {
    /// Always `influxdb`, which clients look for.
    name: &'static str,
    /// Always the same.
    message: &'static str,
    /// Always `pass`.
    status: &'static str,
    /// Always empty.
    checks: [&'static str; 0],
    /// The version of InfluxDB whose clients are served.
    version: &'static str,
}

/// The result of one statement that gives nothing back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Results)]
struct QueryResults {
    /// Always one.
    results: [Statement; 1],
}

/// A statement that was done.
#[derive(Debug, Serialize, ToSchema)]
struct Statement {
    /// Always 0.
    statement_id: u8,
}

/// The routes.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/ping", get(ping))
        .route("/health", get(health))
        .route("/query", get(query).post(query))
}

/// Whether a server of InfluxDB is there, and which.
#[utoipa::path(get, path = "/ping", responses(
    (status = 204, description = "Always; `X-Influxdb-Version` has the version whose clients are served."),
    (status = 200, description = "With `verbose=true`.", body = Version),
))]
pub(super) async fn ping(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let is_verbose = form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "verbose" && !["", "0", "false"].contains(&value.as_ref()));
    if is_verbose { json(&Version { version: VERSION }) } else { as_influxdb(StatusCode::NO_CONTENT) }
}

/// Whether a server of InfluxDB 2 is well.
#[utoipa::path(get, path = "/health", responses((status = 200, description = "Always.", body = InfluxdbHealth)))]
pub(super) async fn health() -> Response {
    json(&InfluxdbHealth {
        name: "influxdb",
        message: "ready for queries and writes",
        status: "pass",
        checks: [],
        version: VERSION,
    })
}

/// What clients ask for their database. Readings cannot be queried here.
#[utoipa::path(get, path = "/query", responses((status = 200, description = "Always one statement without a result.", body = QueryResults)))]
pub(super) async fn query(request: Request) -> Response {
    // A connection that is closed with unread bytes is reset, and the client may never see the answer.
    let body = Limited::new(request.into_body(), QUERY_BYTES_MAX);
    let _ = timeout(QUERY_WITHIN, body.collect()).await;
    json(&QueryResults { results: [Statement { statement_id: 0 }] })
}

/// The same by `POST`.
#[utoipa::path(post, path = "/query", responses((status = 200, description = "Always one statement without a result.", body = QueryResults)))]
#[expect(dead_code, reason = "the document is made from it; the answer is `query`")]
pub(super) fn post_query() {}

fn json(body: &impl Serialize) -> Response {
    let mut response = as_influxdb(json_line(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn as_influxdb(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(X_INFLUXDB_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(X_INFLUXDB_BUILD, HeaderValue::from_static("OSS"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
