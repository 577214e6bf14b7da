//! The node's routes: maps requests to the store.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{FutureExt as _, stream};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::error;

use super::batch::{self, BatchHead};
use super::database::{StoreError, StoreHealth};
use super::query;
use super::reader::{Order, QueryRows};
use super::refusal::NodeRefusal;
use super::store::ReadingStore;
use super::writer::{PutOutcome, StoreBatch};
use crate::door::{self, ConnectionReuse, Door};

/// Most batches in memory.
const BATCHES_MAX: usize = 32;

#[derive(Clone)]
struct RouteState {
    store: ReadingStore,
    /// One permit for each batch in memory.
    batches: Arc<Semaphore>,
}

/// The routes of a store, for the requests that `door` admits.
pub(super) fn router(store: ReadingStore, door: Door) -> Router {
    let state = RouteState { store, batches: Arc::new(Semaphore::new(BATCHES_MAX)) };
    Router::new()
        .route("/v1/batches", post(take_batch))
        .route("/v1/readings", get(readings))
        .route("/v1/count", get(count))
        .route("/healthz", get(health))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::new(door), let_in))
        .with_state(state)
}

/// Lets the door decide, and adds its headers to every answer, even after a panic in a handler.
async fn let_in(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let connection_reuse = ConnectionReuse::of(&request);
    let mut response = match door.admit(&request) {
        Ok(visitor) => {
            let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
            let mut response = answered.unwrap_or_else(|_panic| defect().into_response());
            visitor.add_headers(&mut response);
            response
        }
        Err(refusal) => {
            let refusal = NodeRefusal::new(refusal.status, refusal.detail).with_header("connection", "close");
            let mut response = refusal.into_response();
            door::add_common_headers(&mut response);
            response
        }
    };
    connection_reuse.apply(&mut response);
    response
}

/// Stores a batch. If the client hangs up, the batch may be stored or not; a repetition with its key finds out.
async fn take_batch(
    State(state): State<RouteState>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, NodeRefusal> {
    let head = BatchHead::read(&headers)?;
    let _slot = state.batches.acquire().await.expect("the semaphore is never closed");
    let body = batch::receive(request.into_body()).await?;
    let decoded = spawn_blocking(move || batch::decode(&body, head.encoding)).await;
    let readings = decoded.map_err(|_| defect())??;
    let count = readings.len();
    let stored = state.store.put(StoreBatch { key: head.key, readings }).await?;
    let duplicate = match stored {
        PutOutcome::Stored => false,
        PutOutcome::Duplicate => true,
    };
    Ok(json(format!("{{\"readings\":{count},\"duplicate\":{duplicate}}}")))
}

async fn readings(
    State(state): State<RouteState>,
    RawQuery(text): RawQuery,
) -> Result<Response, NodeRefusal> {
    let known = ["device", "sensor", "from", "to", "limit", "latest"];
    let query = query::parse(&text.unwrap_or_default(), &known)?;
    let (order, limit) = match query.latest {
        Some(latest) => (Order::NewestFirst, Some(latest)),
        None => (Order::OldestFirst, query.limit),
    };
    Ok(ndjson(state.store.read(query.filter, order, limit).await?))
}

/// An answer of readings, sent in parts as they are read.
pub(super) fn ndjson(rows: QueryRows) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (content_type, Body::from_stream(stream::unfold(rows, next_part))).into_response()
}

async fn next_part(mut rows: QueryRows) -> Option<(Result<Bytes, StoreError>, QueryRows)> {
    let part = rows.next().await?;
    if let Err(error) = &part {
        // The status was already sent. Breaking off is the only way to show that the answer is incomplete.
        error!(error = %error, "answer with readings broken off");
    }
    Some((part, rows))
}

async fn count(State(state): State<RouteState>, RawQuery(text): RawQuery) -> Result<Response, NodeRefusal> {
    let query = query::parse(&text.unwrap_or_default(), &["device", "sensor", "from", "to"])?;
    let count = state.store.count(query.filter).await?;
    Ok(json(format!("{{\"count\":{count}}}")))
}

async fn health(State(state): State<RouteState>) -> Result<Response, NodeRefusal> {
    if !state.store.is_open() {
        return Err(StoreError::Stopped.into());
    }
    let StoreHealth { lost_readings, damage } = state.store.health();
    if *lost_readings == 0 && damage.is_none() {
        return Ok(json("{\"status\":\"ok\"}".to_owned()));
    }
    let body = serde_json::json!({ "status": "degraded", "lost_readings": lost_readings, "damage": damage });
    Ok(json(body.to_string()))
}

async fn no_such_path(uri: Uri) -> NodeRefusal {
    let detail =
        format!("there is no `{}` here; known: /v1/batches, /v1/readings, /v1/count, /healthz", uri.path());
    NodeRefusal::new(StatusCode::NOT_FOUND, detail)
}

/// The router adds the header `Allow`.
async fn wrong_method() -> NodeRefusal {
    NodeRefusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see `Allow`")
}

fn defect() -> NodeRefusal {
    NodeRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a defect in the node; its log says more")
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_answered_with_500_and_the_headers_of_the_door() {
        async fn fail() -> &'static str {
            panic!("a defect, made for this test");
        }
        let door = Door::of_node(([127, 0, 0, 1], 9000).into());
        let router = Router::new().route("/", get(fail));
        let router = router.layer(middleware::from_fn_with_state(Arc::new(door), let_in));
        let request = Request::get("/").header(header::HOST, "127.0.0.1:9000").body(Body::empty());
        let response = router.oneshot(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(header::X_CONTENT_TYPE_OPTIONS));
    }
}
