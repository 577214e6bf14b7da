//! A node that counts the readings that it is sent and forgets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;

/// Readings of all bodies that arrived whole.
type Count = Arc<AtomicU64>;

/// Serves until the process ends: `POST /v1/batches` takes NDJSON, `GET /count` answers with the number.
pub(crate) async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let routes = Router::new().route("/v1/batches", post(take)).route("/count", get(count));
    axum::serve(listener, routes.with_state(Count::default())).await
}

/// Counts the lines of a body as it arrives, so that its size does not matter.
async fn take(State(readings): State<Count>, mut body: Body) -> StatusCode {
    let (mut lines, mut line_open) = (0, false);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return StatusCode::BAD_REQUEST };
        let Ok(data) = frame.into_data() else { continue };
        lines += data.iter().filter(|byte| **byte == b'\n').count() as u64;
        line_open = data.last().map_or(line_open, |byte| *byte != b'\n');
    }
    readings.fetch_add(lines + u64::from(line_open), Ordering::Relaxed);
    StatusCode::OK
}

async fn count(State(readings): State<Count>) -> String {
    readings.load(Ordering::Relaxed).to_string()
}
