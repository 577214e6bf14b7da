//! Counts and times every request that the front answers.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::StatusCode;
use prometheus::{Histogram, IntCounter};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// What the label `path` says of a path that is not ours.
const OTHER: &str = "other";
/// The statuses that the gateway gives. One that is not here is looked up each time.
const STATUSES: [u16; 12] = [200, 202, 204, 400, 404, 405, 408, 413, 415, 422, 500, 503];

/// Counts requests by path and status. The labels come from our own routes, never from the request.
#[derive(Clone, Debug)]
pub struct Observe {
    paths: Arc<[PathMetrics]>,
    metrics: Arc<Metrics>,
}

/// The metrics of one path, held so that no label is looked up for a request.
#[derive(Debug)]
struct PathMetrics {
    path: &'static str,
    seconds: Histogram,
    by_status: [OnceLock<IntCounter>; STATUSES.len()],
}

impl Observe {
    /// Knows these paths; all others count as one.
    pub fn new(metrics: &Arc<Metrics>, paths: &[&'static str]) -> Observe {
        let path_metrics = |path: &'static str| PathMetrics {
            path,
            seconds: metrics.http_request_seconds.with_label_values(&[path]),
            by_status: Default::default(),
        };
        let paths = paths.iter().copied().chain([OTHER]).map(path_metrics).collect();
        Observe { paths, metrics: Arc::clone(metrics) }
    }

    fn index(&self, path: &str) -> usize {
        self.paths.iter().position(|known| known.path == path).unwrap_or(self.paths.len() - 1)
    }

    fn record(&self, index: usize, status: StatusCode, seconds: f64) {
        let path = &self.paths[index];
        path.seconds.observe(seconds);
        let count = || self.metrics.http_requests.with_label_values(&[path.path, status.as_str()]);
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(place) => path.by_status[place].get_or_init(count).inc(),
            None => count().inc(),
        }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, observe: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let index = self.observe.index(request.uri().path());
        let observe = self.observe.clone();
        let answer = self.inner.call(request);
        async move {
            let response = answer.await?;
            observe.record(index, response.status(), started.elapsed().as_secs_f64());
            Ok(response)
        }
        .boxed()
    }
}
