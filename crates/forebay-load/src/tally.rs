//! Counts of the requests and readings that were sent, and of their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use crate::histogram::Histogram;

/// The counts of a run; bounded memory, however long the run is.
#[derive(Clone, Debug)]
pub(super) struct LoadTally {
    /// Requests; each try counts.
    pub(super) requests: u64,
    /// Readings that were sent, each counted once however often it was tried.
    pub(super) sent: u64,
    /// Readings that the gateway acknowledged.
    pub(super) accepted: u64,
    /// Readings that the gateway turned away, one by one or all of a request.
    pub(super) rejected: u64,
    /// Readings in requests whose answer was lost.
    pub(super) unanswered: u64,
    /// Requests that were refused as a whole, by status.
    pub(super) refused: BTreeMap<StatusCode, u64>,
    /// Requests without a usable answer, by the kind of error.
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// Latency from sending a request to its 202.
    pub(super) since_sent: Histogram,
    /// Latency from the due time of a request to its 202: it includes waits behind slow answers and between
    /// tries.
    pub(super) since_due: Histogram,
    /// One refusal or error in full, as an example.
    pub(super) example: Option<String>,
}

impl LoadTally {
    pub(super) fn new() -> LoadTally {
        LoadTally {
            requests: 0,
            sent: 0,
            accepted: 0,
            rejected: 0,
            unanswered: 0,
            refused: BTreeMap::new(),
            errors: BTreeMap::new(),
            since_sent: Histogram::new(),
            since_due: Histogram::new(),
            example: None,
        }
    }

    pub(super) fn add_refusal(&mut self, status: StatusCode, example: impl FnOnce() -> String) {
        *self.refused.entry(status).or_default() += 1;
        self.example.get_or_insert_with(example);
    }

    pub(super) fn add_error(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        *self.errors.entry(what).or_default() += 1;
        self.example.get_or_insert_with(example);
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }

    pub(super) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Acknowledged readings a second over `elapsed`, rounded.
    pub(super) fn rate(&self, elapsed: Duration) -> u64 {
        let nanos = elapsed.as_nanos();
        let rounded = (u128::from(self.accepted) * 1_000_000_000 + nanos / 2).checked_div(nanos);
        u64::try_from(rounded.unwrap_or(0)).unwrap_or(u64::MAX)
    }
}
