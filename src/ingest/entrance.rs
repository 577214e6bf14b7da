//! The entry point of every HTTP request: the [`Door`] decides on its head, then one router answers it.
//!
//! A gateway has one [`Entrance`] for each of its listeners, with the routes that are served there. Every request is counted
//! and answered here. A panic is a defect of the gateway and is answered with 500.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use forebay_reading::clock::wall_time;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service;

use super::dialect::{Dialect, PATHS};
use super::observe::Observe;
use super::refusal::{self, RefusalCounters, RefusalReason};
use super::{Front, READINGS_PATH};
use crate::door::{self, ConnectionReuse, Door};
use crate::listener::{ConnectionService, Peer};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rejections::{RejectionEntry, RejectionFacts};

/// The HTTP surface of one listener.
#[derive(Clone, Debug)]
pub struct Entrance {
    surface: Arc<HttpSurface>,
    /// The other end of this connection.
    peer: Arc<Peer>,
}

/// What all connections use.
#[derive(Debug)]
struct HttpSurface {
    door: Door,
    front: Arc<Front>,
    router: Router,
    observe: Observe,
    refusals: RefusalCounters,
}

impl ConnectionService for Entrance {
    fn for_connection(&self, peer: Peer) -> Entrance {
        Entrance { surface: Arc::clone(&self.surface), peer: Arc::new(peer) }
    }

    fn on_unreadable(&self, detail: &str) {
        self.surface.refusals.count(refusal::HEAD);
        self.surface.note_refusal("", self.peer.address, refusal::HEAD, detail);
    }
}

/// The routes that take readings.
pub fn readings_routes(front: &Arc<Front>) -> Router {
    PATHS.iter().fold(Router::new(), |router, (path, dialect)| {
        let route = ReadingsRoute { front: Arc::clone(front), path, dialect: *dialect };
        router.route(path, post(take_readings).with_state(Arc::new(route)))
    })
}

/// A path that takes readings.
#[derive(Debug)]
struct ReadingsRoute {
    front: Arc<Front>,
    path: &'static str,
    dialect: Dialect,
}

async fn take_readings(State(route): State<Arc<ReadingsRoute>>, request: Request<Body>) -> Response {
    let peer = request.extensions().get::<Arc<Peer>>().cloned().unwrap_or_default();
    // Boxed, because futures are moved and this one is large.
    let (mut response, refusal) = route.front.post(request, route.dialect, route.path, &peer).boxed().await;
    response.extensions_mut().insert(RefusalReason(refusal));
    response
}

impl Entrance {
    /// Serves the routes of `router` to the requests that `door` admits. `paths` are those that are counted by name;
    /// `front` knows how long a refused body is read on, and records refusals.
    pub fn new(
        door: Door,
        front: Arc<Front>,
        router: Router,
        paths: &[&'static str],
        metrics: &Arc<Metrics>,
    ) -> Entrance {
        let known: Vec<_> = PATHS.iter().map(|(path, _)| *path).chain(paths.iter().copied()).collect();
        let router =
            router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(());
        let surface = HttpSurface {
            door,
            front,
            router,
            observe: Observe::new(metrics, &known),
            refusals: RefusalCounters::new(metrics),
        };
        Entrance { surface: Arc::new(surface), peer: Arc::default() }
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
        let peer = Arc::clone(&self.peer);
        async move {
            let started = Instant::now();
            let path = surface.observe.index(request.uri().path());
            let connection_reuse = ConnectionReuse::of(&request);
            // The paths that take readings come first in the table of `observe`.
            let dialect = PATHS.get(path).map(|(_, dialect)| *dialect);
            let answer = AssertUnwindSafe(surface.answer(request, dialect, peer)).catch_unwind().await;
            let mut response = answer.unwrap_or_else(|_panic| surface.defect(dialect));
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
        mut request: Request<Incoming>,
        dialect: Option<Dialect>,
        peer: Arc<Peer>,
    ) -> Response {
        if peer.certificate.is_some() && peer.is_past(wall_time()) {
            return self.refuse_past_certificate(request, dialect, &peer).boxed().await;
        }
        let visitor = match self.door.admit(&request) {
            Ok(visitor) => visitor,
            Err(refusal) => return self.turn_away(request, dialect, &peer, refusal).boxed().await,
        };
        if let Some(preflight) = visitor.preflight(&request) {
            return preflight;
        }
        let is_safe = request.method().is_safe();
        let takes_readings = dialect.is_some() && *request.method() == Method::POST;
        let asked = (!takes_readings).then(|| self.asked(&request, &peer));
        request.extensions_mut().insert(peer);
        let Ok(mut response) = self.router.clone().call(request).await;
        let refusal = match response.extensions_mut().remove::<RefusalReason>() {
            Some(RefusalReason(refusal)) => refusal,
            None => refusal::of_status(response.status()),
        };
        if let Some(reason) = refusal {
            self.refusals.count(reason);
            // The front records its refusals itself, with the beginning of the body.
            if let Some(asked) = asked.filter(|_| reason == "method" || !is_safe) {
                let detail = format!("{}: {}", asked.method, response.status());
                self.note_refusal(asked.uri.path(), asked.address, reason, &detail);
            }
        }
        visitor.add_headers(&mut response);
        response
    }

    /// Answers a request on a connection whose client certificate has ended since its handshake, and closes it: a new
    /// handshake with that certificate would fail.
    async fn refuse_past_certificate(
        &self,
        request: Request<Incoming>,
        dialect: Option<Dialect>,
        peer: &Peer,
    ) -> Response {
        let detail =
            "the client certificate of this connection has ended; connect again with one that is valid";
        let (status, detail) = (StatusCode::UNAUTHORIZED, detail.to_owned());
        let mut response = self.turn_away(request, dialect, peer, door::DoorRefusal { status, detail }).await;
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }

    fn asked(&self, request: &Request<Incoming>, peer: &Peer) -> Asked {
        let address = self.address(peer, request.headers());
        Asked { method: request.method().clone(), uri: request.uri().clone(), address }
    }

    fn address(&self, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
        self.front.access.address(peer, headers)
    }

    /// Answers a request that the door refused, and closes its connection, which cannot be trusted any more.
    async fn turn_away(
        &self,
        request: Request<Incoming>,
        dialect: Option<Dialect>,
        peer: &Peer,
        door::DoorRefusal { status, detail }: door::DoorRefusal,
    ) -> Response {
        let (head, body) = request.into_parts();
        self.front.turn_away(&head, Body::new(body)).await;
        if let Some(reason) = refusal::of_status(status) {
            self.refusals.count(reason);
            if !head.method.is_safe() {
                let address = self.address(peer, &head.headers);
                self.note_refusal(head.uri.path(), address, reason, &detail);
            }
        }
        let mut response = refuse(dialect, status, &detail);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        door::add_common_headers(&mut response);
        response
    }

    /// Answers a request that failed inside the gateway.
    fn defect(&self, dialect: Option<Dialect>) -> Response {
        tracing::error!("a request failed inside the gateway");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        if let Some(reason) = refusal::of_status(status) {
            self.refusals.count(reason);
        }
        let mut response = refuse(dialect, status, "the gateway failed while it answered");
        door::add_common_headers(&mut response);
        response
    }

    /// Records a request that was refused before its body was read.
    fn note_refusal(&self, path: &str, address: Option<IpAddr>, reason: &'static str, detail: &str) {
        let rejected =
            RejectionFacts { path, address, key: None, device: None, reason, detail, sample: None };
        self.front.rejections.record(vec![RejectionEntry::new(rejected, wall_time())], []);
    }
}

/// The method, target and client of a request, for the record of a refusal.
#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    address: Option<IpAddr>,
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at `{path}`; {}", where_readings_go(&uri)))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let mut detail = "this path takes another method; `Allow` names it".to_owned();
    if method == Method::POST {
        detail += &format!("; {}", where_readings_go(&uri));
    }
    refuse(Dialect::at(uri.path()), StatusCode::METHOD_NOT_ALLOWED, &detail)
}

/// Advice for a client that may want to send readings. It posted them to the right path if it ends up here with one that
/// takes readings: on the operator's listener.
fn where_readings_go(uri: &Uri) -> String {
    match Dialect::at(uri.path()) {
        None => format!("readings go to `{READINGS_PATH}`"),
        Some(_) => "readings go to the gateway's other address, `server.listen`".to_owned(),
    }
}

fn refuse(dialect: Option<Dialect>, status: StatusCode, detail: &str) -> Response {
    dialect.unwrap_or(Dialect::Own).refuse(status, detail)
}
