//! The entry point of every HTTP request: the [`Door`] decides on its head, then a post of readings goes to the front
//! and any other request to the router.
//!
//! Every request is counted and answered here. A panic is a defect of the gateway and is answered with 500.

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
use crate::door::{self, ConnectionReuse, Door};
use crate::listener::ConnectionService;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rejections::{RejectionEntry, RejectionFacts};

/// The whole HTTP surface.
#[derive(Clone, Debug)]
pub struct Entrance {
    surface: Arc<HttpSurface>,
    /// The client of this connection; `None` before there is a connection.
    client: Option<Arc<Client>>,
}

/// What all connections use.
#[derive(Debug)]
struct HttpSurface {
    door: Door,
    front: Front,
    router: Router,
    observe: Observe,
    refusals: RefusalCounters,
    /// The metric `connections`.
    connections: IntGauge,
}

/// The client of an open connection. Dropping it takes the connection out of the metric.
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

impl ConnectionService for Entrance {
    fn for_connection(&self, peer: Option<SocketAddr>) -> Entrance {
        let connections = self.surface.connections.clone();
        connections.inc();
        let client = Client { address: peer.map(|peer| peer.ip()), connections };
        Entrance { surface: Arc::clone(&self.surface), client: Some(Arc::new(client)) }
    }

    fn on_unreadable(&self, detail: &str) {
        self.surface.refusals.count(refusal::HEAD);
        let address = self.client.as_ref().and_then(|client| client.address);
        self.surface.note_refusal("", address, refusal::HEAD, detail);
    }
}

impl Entrance {
    /// Serves the requests that `door` admits: posts of readings by `front`, all others by `others`, whose paths are
    /// `paths`.
    pub fn new(
        door: Door,
        front: Front,
        others: Router,
        paths: &[&'static str],
        metrics: &Arc<Metrics>,
    ) -> Entrance {
        let known: Vec<_> = PATHS.iter().map(|(path, _)| *path).chain(paths.iter().copied()).collect();
        // Posts of readings never reach these routes; other methods get their 405 with `Allow` from them.
        let router = PATHS.iter().fold(others, |router, (path, _)| router.route(path, post(not_found)));
        let router =
            router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(());
        let surface = HttpSurface {
            door,
            front,
            router,
            observe: Observe::new(metrics, &known),
            refusals: RefusalCounters::new(metrics),
            connections: metrics.connections.clone(),
        };
        Entrance { surface: Arc::new(surface), client: None }
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
        let surface = Arc::clone(&self.surface);
        let address = self.client.as_ref().and_then(|client| client.address);
        async move {
            let started = Instant::now();
            let path = surface.observe.index(request.uri().path());
            let connection_reuse = ConnectionReuse::of(&request);
            // The paths that take readings come first in the table of `observe`.
            let for_readings = PATHS.get(path).copied();
            let answer = surface.answer(request, for_readings, address);
            let answer = AssertUnwindSafe(answer).catch_unwind().await;
            let mut response =
                answer.unwrap_or_else(|_panic| surface.defect(for_readings.map(|(_, dialect)| dialect)));
            connection_reuse.apply(&mut response);
            surface.observe.record(path, response.status(), started.elapsed().as_secs_f64());
            Ok(response)
        }
        .boxed()
    }
}

impl HttpSurface {
    /// Answers a request.
    ///
    /// The rare branches are boxed: otherwise they would enlarge the future of every request, and futures are moved.
    async fn answer(
        &self,
        request: Request<Incoming>,
        for_readings: Option<(&'static str, Dialect)>,
        address: Option<IpAddr>,
    ) -> Response {
        let visitor = match self.door.admit(&request) {
            Ok(visitor) => visitor,
            Err(refusal) => return self.turn_away(request, for_readings, address, refusal).boxed().await,
        };
        let (mut response, refusal) = match for_readings.filter(|_| request.method() == Method::POST) {
            Some((path, dialect)) => self.front.post(request, dialect, Sender { path, address }).await,
            None => match visitor.preflight(&request) {
                Some(preflight) => return preflight,
                None => self.route(request, address).boxed().await,
            },
        };
        self.count(refusal);
        visitor.add_headers(&mut response);
        response
    }

    /// Counts a refusal under its reason, if there was one.
    fn count(&self, refusal: Option<&'static str>) {
        if let Some(reason) = refusal {
            self.refusals.count(reason);
        }
    }

    /// Answers a request that the door refused, and closes its connection, which cannot be trusted any more.
    async fn turn_away(
        &self,
        request: Request<Incoming>,
        for_readings: Option<(&'static str, Dialect)>,
        address: Option<IpAddr>,
        door::DoorRefusal { status, detail }: door::DoorRefusal,
    ) -> Response {
        let (head, body) = request.into_parts();
        self.front.turn_away(&head, body).await;
        let refusal = refusal::of_status(status);
        self.count(refusal);
        if let Some(reason) = refusal.filter(|_| !head.method.is_safe()) {
            self.note_refusal(head.uri.path(), address, reason, &detail);
        }
        let mut response = refuse(for_readings.map(|(_, dialect)| dialect), status, &detail);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        door::add_common_headers(&mut response);
        response
    }

    /// Answers any request but a post of readings. The second value is the reason of a refusal.
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
        door::add_common_headers(&mut response);
        response
    }

    /// Records a request that was refused before its body was read.
    fn note_refusal(&self, path: &str, address: Option<IpAddr>, reason: &'static str, detail: &str) {
        let rejected = RejectionFacts { path, address, device: None, reason, detail, sample: None };
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
