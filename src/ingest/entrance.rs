//! Where every request comes in: readings go straight to the front, all else to the router.
//!
//! Whatever happens to a request is counted here, and answered: a panic, which would be a defect of ours, as 500.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::response::Response;
use axum::routing::post;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use super::dialect::{Dialect, PATHS};
use super::observe::Observe;
use super::{Front, READINGS_PATH};
use crate::metrics::Metrics;
use crate::problem::Problem;

/// The whole HTTP surface.
#[derive(Clone, Debug)]
pub struct Entrance {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    front: Front,
    router: Router,
    observe: Observe,
}

impl Entrance {
    /// Serves `front`, and `others` with the paths `paths` beside it.
    pub fn new(front: Front, others: Router, paths: &[&'static str], metrics: &Arc<Metrics>) -> Entrance {
        let known: Vec<_> = PATHS.iter().map(|(path, _)| *path).chain(paths.iter().copied()).collect();
        // Posts never get there; the routes tell other methods what is allowed.
        let router = PATHS.iter().fold(others, |router, (path, _)| router.route(path, post(not_found)));
        let router =
            router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(());
        Entrance { shared: Arc::new(Shared { front, router, observe: Observe::new(metrics, &known) }) }
    }
}

impl Service<Request<Incoming>> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        async move {
            let started = Instant::now();
            let path = shared.observe.index(request.uri().path());
            // The paths that take readings stand in front.
            let dialect = PATHS.get(path).map(|(_, dialect)| *dialect);
            let answer = AssertUnwindSafe(shared.answer(request, dialect)).catch_unwind().await;
            let response = answer.unwrap_or_else(|_panic| defect(dialect));
            shared.observe.record(path, response.status(), started.elapsed().as_secs_f64());
            Ok(response)
        }
        .boxed()
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, dialect: Option<Dialect>) -> Response {
        if let Some(dialect) = dialect
            && request.method() == Method::POST
        {
            return self.front.post(request, dialect).await;
        }
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at `{path}`; readings go to `{READINGS_PATH}`"),
    )
}

async fn method_not_allowed(uri: Uri) -> Response {
    refuse(
        Dialect::at(uri.path()),
        StatusCode::METHOD_NOT_ALLOWED,
        "this path takes another method; `Allow` names it",
    )
}

fn defect(dialect: Option<Dialect>) -> Response {
    tracing::error!("a request failed inside the gateway");
    refuse(dialect, StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed while it answered")
}

fn refuse(dialect: Option<Dialect>, status: StatusCode, detail: &str) -> Response {
    dialect.unwrap_or(Dialect::Own).refuse(status, detail)
}
