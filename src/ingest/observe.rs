//! Counts and times every request.

use std::sync::{Arc, OnceLock};

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

use crate::metrics::Metrics;

/// The label `path` of any path that the gateway does not have.
const OTHER: &str = "other";
/// The usual statuses. The counter of any other is looked up each time.
const STATUSES: [u16; 18] =
    [200, 202, 204, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 422, 429, 500, 503];

/// Counts requests by path and status. The labels come from the gateway's routes, never from a request.
#[derive(Debug)]
pub(super) struct Observe {
    paths: Vec<PathMetrics>,
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
    /// Counts each of `paths` by itself and all other paths as one.
    pub(super) fn new(metrics: &Arc<Metrics>, paths: &[&'static str]) -> Observe {
        let path_metrics = |path: &'static str| PathMetrics {
            path,
            seconds: metrics.http_request_seconds.with_label_values(&[path]),
            by_status: Default::default(),
        };
        let paths = paths.iter().copied().chain([OTHER]).map(path_metrics).collect();
        Observe { paths, metrics: Arc::clone(metrics) }
    }

    /// The index of a path in the table.
    pub(super) fn index(&self, path: &str) -> usize {
        self.paths.iter().position(|known| known.path == path).unwrap_or(self.paths.len() - 1)
    }

    /// Counts an answer.
    pub(super) fn record(&self, index: usize, status: StatusCode, seconds: f64) {
        let path = &self.paths[index];
        path.seconds.observe(seconds);
        let count = || self.metrics.http_requests.with_label_values(&[path.path, status.as_str()]);
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(place) => path.by_status[place].get_or_init(count).inc(),
            None => count().inc(),
        }
    }
}
