//! The reasons under which refused requests are counted.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use prometheus::IntCounter;

use crate::metrics::Metrics;

/// Every reason with its meaning, for `docs/src/reference/statuses.md`. A post of readings gets its reason from the
/// error, any other request from the status.
pub const REASONS: &[(&str, &str)] = &[
    ("full", "the buffer has no room"),
    ("storage", "the buffer cannot store readings now; the disk is full, for one"),
    ("stopping", "the gateway is shutting down"),
    (
        "busy",
        "too many bodies are being read, too many requests wait for delivery, or too many have an `Idempotency-Key`",
    ),
    ("body", "the body is not what it claims to be, or it broke off"),
    ("readings", "every reading was turned away, or one was and the request is strict"),
    ("query", "a query parameter is not known, is there twice, or has a value that it cannot have"),
    ("ack", "the acknowledgement cannot be given by this gateway"),
    (
        "idempotency_key",
        "the `Idempotency-Key` is not valid, came with another request, or its first request is under way",
    ),
    ("media_type", "the `Content-Type` is not known, or there are several"),
    ("encoding", "the `Content-Encoding` is not known, or there are several"),
    ("too_large", "the body, or what it holds, is larger than allowed"),
    ("too_slow", "the body did not arrive in time"),
    ("not_delivered", "`ack=delivered`: not all readings were delivered"),
    ("not_found", "no such path"),
    ("method", "another method than the path takes"),
    ("length", "the request does not say how long its body is"),
    ("host", "the gateway does not go by the name in `Host`"),
    ("unauthorized", "no key, or one that is not known or does not hold now"),
    ("key", "the key does not cover the request: not one of its readings, or its role is another"),
    (
        "rate",
        "too many requests without a valid key from one address, or too many at once of one client behind a proxy",
    ),
    ("origin", "a web page of another origin that is not listed"),
    ("bad_request", "`Host`, `Transfer-Encoding` or a parameter of a `GET` is not valid"),
    ("loop", "the readings have come through this gateway before"),
    ("internal", "a defect in the gateway"),
    (HEAD, "what came is not HTTP, or its head is too large"),
    (OTHER, "any other, such as a transfer coding that is not known"),
];
/// The bytes are not an HTTP request, or its head is too large: answered with 400 or 431 below the front.
pub(super) const HEAD: &str = "head";
const OTHER: &str = "other";

/// The reason for a status; `None` if it is not a refusal.
pub(super) fn of_status(status: StatusCode) -> Option<&'static str> {
    let reason = match status.as_u16() {
        ..400 => return None,
        400 => "bad_request",
        401 => "unauthorized",
        403 => "origin",
        404 => "not_found",
        405 => "method",
        408 => "too_slow",
        411 => "length",
        413 => "too_large",
        415 => "media_type",
        421 => "host",
        429 => "rate",
        500 => "internal",
        // `/readyz` answers this while the gateway is not ready.
        503 => return None,
        508 => "loop",
        _ => OTHER,
    };
    Some(reason)
}

/// Why nothing of a request was taken, as an extension of its answer; `None` in it if something was, or nothing was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusalReason(pub(super) Option<&'static str>);

/// A time to wait, for `Retry-After`: whole seconds, rounded up, at least one.
pub(super) fn whole_seconds(wait: Duration) -> HeaderValue {
    let started = u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from((wait.as_secs() + started).max(1))
}

/// The metric `requests_refused_total`.
#[derive(Debug)]
pub(super) struct RefusalCounters {
    counters: Vec<IntCounter>,
}

impl RefusalCounters {
    /// Makes a counter of every reason at once, so that an alert sees the first refusal.
    pub(super) fn new(metrics: &Metrics) -> RefusalCounters {
        let counter = |(reason, _): &(&str, &str)| metrics.requests_refused.with_label_values(&[*reason]);
        RefusalCounters { counters: REASONS.iter().map(counter).collect() }
    }

    /// Counts a request.
    pub(super) fn count(&self, reason: &str) {
        let known = |name| REASONS.iter().position(|(known, _)| *known == name);
        if let Some(place) = known(reason).or_else(|| known(OTHER)) {
            self.counters[place].inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusing_status_has_a_reason_from_the_table() {
        for status in (100..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
            let reason = of_status(status);
            let refuses = status.as_u16() >= 400 && status != StatusCode::SERVICE_UNAVAILABLE;
            assert_eq!(reason.is_some(), refuses, "{status}");
            assert!(
                reason.is_none_or(|reason| REASONS.iter().any(|(known, _)| *known == reason)),
                "{status}"
            );
        }
    }
}
