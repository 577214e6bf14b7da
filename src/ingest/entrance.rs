//! Where every request comes in: through the [`Door`], then readings go straight to the front, all else to the router.
//!
//! Whatever happens to a request is counted here, and answered: a panic, which would be a defect of ours, as 500.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::response::Response;
use axum::routing::post;
use forebay_reading::clock::wall_time;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use prometheus::IntGauge;
use tokio::time::Instant;
use tower::Service;

use super::dialect::{Dialect, PATHS};
use super::evidence::Sender;
use super::observe::Observe;
use super::refusal::{self, RefusalCounters};
use super::{Front, READINGS_PATH};
use crate::door::{self, Door, Ending};
use crate::listener::Connected;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rejections::{Rejected, RejectionEntry};

/// The whole HTTP surface.
#[derive(Clone, Debug)]
pub struct Entrance {
    shared: Arc<Shared>,
    /// Who sends the requests; `None` before there is a connection.
    client: Option<Arc<Client>>,
}

#[derive(Debug)]
struct Shared {
    door: Door,
    front: Front,
    router: Router,
    observe: Observe,
    refusals: RefusalCounters,
    /// `connections`
    connections: IntGauge,
}

/// A connection that is open.
#[derive(Debug)]
struct Client {
    address: Option<IpAddr>,
    connections: IntGauge,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Connected for Entrance {
    fn connected(&self, peer: Option<SocketAddr>) -> Entrance {
        let connections = self.shared.connections.clone();
        connections.inc();
        let client = Client { address: peer.map(|peer| peer.ip()), connections };
        Entrance { shared: Arc::clone(&self.shared), client: Some(Arc::new(client)) }
    }

    fn unreadable(&self, detail: &str) {
        self.shared.refusals.count(refusal::HEAD);
        let address = self.client.as_ref().and_then(|client| client.address);
        self.shared.note_refusal("", address, refusal::HEAD, detail);
    }
}

impl Entrance {
    /// Serves `front`, and `others` with the paths `paths` beside it, to those whom `door` lets in.
    pub fn new(
        door: Door,
        front: Front,
        others: Router,
        paths: &[&'static str],
        metrics: &Arc<Metrics>,
    ) -> Entrance {
        let known: Vec<_> = PATHS.iter().map(|(path, _)| *path).chain(paths.iter().copied()).collect();
        // Posts never get there; the routes tell other methods what is allowed.
        let router = PATHS.iter().fold(others, |router, (path, _)| router.route(path, post(not_found)));
        let router =
            router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(());
        let shared = Shared {
            door,
            front,
            router,
            observe: Observe::new(metrics, &known),
            refusals: RefusalCounters::new(metrics),
            connections: metrics.connections.clone(),
        };
        Entrance { shared: Arc::new(shared), client: None }
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
        let address = self.client.as_ref().and_then(|client| client.address);
        async move {
            let started = Instant::now();
            let path = shared.observe.index(request.uri().path());
            let ending = Ending::of(&request);
            // The paths that take readings stand in front.
            let taking = PATHS.get(path).copied();
            let answered = shared.answer(request, taking, address);
            let answer = AssertUnwindSafe(answered).catch_unwind().await;
            let mut response =
                answer.unwrap_or_else(|_panic| shared.defect(taking.map(|(_, dialect)| dialect)));
            ending.settle(&mut response);
            shared.observe.record(path, response.status(), started.elapsed().as_secs_f64());
            Ok(response)
        }
        .boxed()
    }
}

impl Shared {
    /// What is rare is boxed: it would make the future of every request larger, and futures are moved.
    async fn answer(
        &self,
        request: Request<Incoming>,
        taking: Option<(&'static str, Dialect)>,
        address: Option<IpAddr>,
    ) -> Response {
        let visitor = match self.door.admit(&request) {
            Ok(visitor) => visitor,
            Err(refusal) => return self.turn_away(request, taking, address, refusal).boxed().await,
        };
        let (mut response, refusal) = match taking.filter(|_| request.method() == Method::POST) {
            Some((path, dialect)) => self.front.post(request, dialect, Sender { path, address }).await,
            None => match visitor.preflight(&request) {
                Some(preflight) => return preflight,
                None => self.route(request, address).boxed().await,
            },
        };
        self.count(refusal);
        visitor.dress(&mut response);
        response
    }

    /// Counts why nothing of a request was taken, if nothing was.
    fn count(&self, refusal: Option<&'static str>) {
        if let Some(reason) = refusal {
            self.refusals.count(reason);
        }
    }

    /// Answers who was not let in, and trusts the connection no further.
    async fn turn_away(
        &self,
        request: Request<Incoming>,
        taking: Option<(&'static str, Dialect)>,
        address: Option<IpAddr>,
        door::Refusal { status, detail }: door::Refusal,
    ) -> Response {
        let (head, body) = request.into_parts();
        self.front.turn_away(&head, body).await;
        let refusal = refusal::of_status(status);
        self.count(refusal);
        if let Some(reason) = refusal.filter(|_| !head.method.is_safe()) {
            self.note_refusal(head.uri.path(), address, reason, &detail);
        }
        let mut response = refuse(taking.map(|(_, dialect)| dialect), status, &detail);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        door::dress(&mut response);
        response
    }

    /// Answers everything but the taking of readings. The second value says why nothing was taken, if nothing was.
    async fn route(
        &self,
        request: Request<Incoming>,
        address: Option<IpAddr>,
    ) -> (Response, Option<&'static str>) {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let Ok(response) = self.router.clone().call(request).await;
        let refusal = refusal::of_status(response.status());
        if let Some(reason) = refusal.filter(|reason| *reason == "method" || !method.is_safe()) {
            self.note_refusal(uri.path(), address, reason, &format!("{method}: {}", response.status()));
        }
        (response, refusal)
    }

    /// Answers a request that failed inside the gateway.
    fn defect(&self, dialect: Option<Dialect>) -> Response {
        tracing::error!("a request failed inside the gateway");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        self.count(refusal::of_status(status));
        let mut response = refuse(dialect, status, "the gateway failed while it answered");
        door::dress(&mut response);
        response
    }

    /// Keeps a request that was refused before its body was looked at.
    fn note_refusal(&self, path: &str, address: Option<IpAddr>, reason: &'static str, detail: &str) {
        let rejected = Rejected { path, address, device: None, reason, detail, sample: None };
        self.front.rejections.record(vec![RejectionEntry::new(rejected, wall_time())], []);
    }
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at `{path}`; readings go to `{READINGS_PATH}`"),
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let mut detail = "this path takes another method; `Allow` names it".to_owned();
    if method == Method::POST {
        detail += &format!("; readings go to `{READINGS_PATH}`");
    }
    refuse(Dialect::at(uri.path()), StatusCode::METHOD_NOT_ALLOWED, &detail)
}

fn refuse(dialect: Option<Dialect>, status: StatusCode, detail: &str) -> Response {
    dialect.unwrap_or(Dialect::Own).refuse(status, detail)
}
