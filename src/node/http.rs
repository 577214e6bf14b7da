//! The node's routes: what requests ask for, in terms of the store.

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

use super::batch::{self, Head};
use super::database::{Health, StoreError};
use super::query;
use super::reader::{Order, Rows};
use super::refusal::Refusal;
use super::store::Store;
use super::writer::{Batch, Stored};
use crate::door::{self, ConnectionReuse, Door};

/// Batches in memory at a time.
const BATCHES_MAX: usize = 32;

#[derive(Clone)]
struct NodeState {
    store: Store,
    /// One permit for each batch in memory.
    batches: Arc<Semaphore>,
}

/// The routes over a store, for those whom `door` lets in.
pub(super) fn router(store: Store, door: Door) -> Router {
    let state = NodeState { store, batches: Arc::new(Semaphore::new(BATCHES_MAX)) };
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

/// Asks the door first, and dresses the answer, also that to a request at which the node has a defect.
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
            let refusal = Refusal::new(refusal.status, refusal.detail).with_header("connection", "close");
            let mut response = refusal.into_response();
            door::add_common_headers(&mut response);
            response
        }
    };
    connection_reuse.apply(&mut response);
    response
}

/// Takes a batch. If the client goes away meanwhile, the batch may be stored or not; its key tells.
async fn take_batch(
    State(state): State<NodeState>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    let head = Head::read(&headers)?;
    let _slot = state.batches.acquire().await.expect("the semaphore is never closed");
    let body = batch::receive(request.into_body()).await?;
    let decoded = spawn_blocking(move || batch::decode(&body, head.encoding)).await;
    let readings = decoded.map_err(|_| defect())??;
    let count = readings.len();
    let stored = state.store.put(Batch { key: head.key, readings }).await?;
    let duplicate = match stored {
        Stored::New => false,
        Stored::Before => true,
    };
    Ok(json(format!("{{\"readings\":{count},\"duplicate\":{duplicate}}}")))
}

async fn readings(State(state): State<NodeState>, RawQuery(text): RawQuery) -> Result<Response, Refusal> {
    let known = ["device", "sensor", "from", "to", "limit", "latest"];
    let query = query::parse(&text.unwrap_or_default(), &known)?;
    let (order, limit) = match query.latest {
        Some(latest) => (Order::NewestFirst, Some(latest)),
        None => (Order::OldestFirst, query.limit),
    };
    Ok(ndjson(state.store.read(query.filter, order, limit).await?))
}

/// An answer with readings, sent in parts as they are read.
pub(super) fn ndjson(rows: Rows) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (content_type, Body::from_stream(stream::unfold(rows, next_part))).into_response()
}

async fn next_part(mut rows: Rows) -> Option<(Result<Bytes, StoreError>, Rows)> {
    let part = rows.next().await?;
    if let Err(error) = &part {
        // The status has gone out; all that is left is to break off, so that nobody takes this for the end.
        error!(error = %error, "answer with readings broken off");
    }
    Some((part, rows))
}

async fn count(State(state): State<NodeState>, RawQuery(text): RawQuery) -> Result<Response, Refusal> {
    let query = query::parse(&text.unwrap_or_default(), &["device", "sensor", "from", "to"])?;
    let count = state.store.count(query.filter).await?;
    Ok(json(format!("{{\"count\":{count}}}")))
}

async fn health(State(state): State<NodeState>) -> Result<Response, Refusal> {
    if !state.store.is_open() {
        return Err(StoreError::Stopped.into());
    }
    let Health { lost_readings, damage } = state.store.health();
    if *lost_readings == 0 && damage.is_none() {
        return Ok(json("{\"status\":\"ok\"}".to_owned()));
    }
    let told = serde_json::json!({ "status": "degraded", "lost_readings": lost_readings, "damage": damage });
    Ok(json(told.to_string()))
}

async fn no_such_path(uri: Uri) -> Refusal {
    let detail =
        format!("there is no `{}` here; known: /v1/batches, /v1/readings, /v1/count, /healthz", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, detail)
}

/// The router adds `Allow`.
async fn wrong_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see `Allow`")
}

fn defect() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "a defect in the node; its log says more")
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_defect_in_a_handler_is_answered_with_500_and_the_door_still_dresses_the_answer() {
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
