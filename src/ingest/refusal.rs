//! Requests that were refused as a whole: which reason they are counted under.

use http::StatusCode;
use prometheus::IntCounter;

use crate::metrics::Metrics;

/// Every reason. Those of a request for readings come from [`super::error::IngestError::reason`], the others from the
/// status.
pub(super) const REASONS: &[&str] = &[
    "full",
    "storage",
    "stopping",
    "busy",
    "body",
    "readings",
    "query",
    "ack",
    "idempotency_key",
    "media_type",
    "encoding",
    "too_large",
    "too_slow",
    "not_delivered",
    "not_found",
    "method",
    "length",
    "host",
    "origin",
    "bad_request",
    "loop",
    "internal",
    HEAD,
    OTHER,
];
/// What came is no request of HTTP, or its head is too large: answered with 400 or 431 below the front.
pub(super) const HEAD: &str = "head";
const OTHER: &str = "other";

/// The reason that a status speaks of; `None` if it refuses nothing.
pub(super) fn of_status(status: StatusCode) -> Option<&'static str> {
    let reason = match status.as_u16() {
        ..400 => return None,
        400 => "bad_request",
        403 => "origin",
        404 => "not_found",
        405 => "method",
        408 => "too_slow",
        411 => "length",
        413 => "too_large",
        415 => "media_type",
        421 => "host",
        500 => "internal",
        // How `/readyz` says that it is not ready.
        503 => return None,
        508 => "loop",
        _ => OTHER,
    };
    Some(reason)
}

/// `requests_refused_total`.
#[derive(Debug)]
pub(super) struct RefusalCounters {
    counters: Vec<IntCounter>,
}

impl RefusalCounters {
    /// Shows every reason from the start, so that an alert sees the first one.
    pub(super) fn new(metrics: &Metrics) -> RefusalCounters {
        let counter = |reason: &&str| metrics.requests_refused.with_label_values(&[*reason]);
        RefusalCounters { counters: REASONS.iter().map(counter).collect() }
    }

    /// Counts a request.
    pub(super) fn count(&self, reason: &str) {
        let known = |name| REASONS.iter().position(|known| *known == name);
        if let Some(place) = known(reason).or_else(|| known(OTHER)) {
            self.counters[place].inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_refuses_has_a_reason_of_the_table() {
        for status in (100..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
            let reason = of_status(status);
            let refuses = status.as_u16() >= 400 && status != StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(reason.is_some(), refuses, "{status}");
            assert!(reason.is_none_or(|reason| REASONS.contains(&reason)), "{status}");
        }
    }
}
