//! The least that an HTTP service in Rust can do with readings: axum parses the body into a typed struct with
//! serde_json and drops it. The gateway's cost is measured against this one's.

use std::hint::black_box;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

use crate::typed::{read_json, read_ndjson};

/// As the gateway's default.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let limit = DefaultBodyLimit::max(BODY_BYTES_MAX);
    axum::serve(listener, Router::new().route("/v1/readings", post(take)).layer(limit)).await
}

async fn take(headers: HeaderMap, body: Bytes) -> StatusCode {
    let lines = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/x-ndjson");
    let readings = if lines { read_ndjson(&body) } else { read_json(&body) };
    match readings {
        Ok(readings) => {
            drop(black_box(readings));
            StatusCode::ACCEPTED
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}
