//! The record of a run: the answers to clients, the readings that reached each node, and violations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// A reading, by its device and its place among all readings of that device.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    /// The device.
    pub device: String,
    /// Its place: a device counts upwards.
    #[serde(rename = "value")]
    pub number: u64,
}

impl Reading {
    /// As a client writes it.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "device": self.device,
            "sensor": "energy",
            "value": self.number,
            "time": "2007-02-01T00:00:00Z",
        })
    }
}

/// A batch that a node stored.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The node.
    pub node: usize,
    /// The key that it came under.
    pub key: String,
    /// Its readings, in their order.
    pub readings: Vec<Reading>,
}

/// A handle on the record of a run; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Seen>>);

/// All that was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Batches that were stored, in the order of simulated time.
    pub arrivals: Vec<Arrival>,
    /// The readings of each key, stored or not.
    pub bodies: BTreeMap<String, Vec<Reading>>,
    /// Readings that were answered with 202.
    pub acknowledged: BTreeSet<Reading>,
    /// Readings that were answered with 503.
    pub refused: BTreeSet<Reading>,
    /// The number of faults of each kind.
    pub mischief: BTreeMap<&'static str, u64>,
    /// Nodes that have just died, and for how long.
    pub deaths: Vec<(usize, Duration)>,
    /// Readings in the buffer when the trouble ended.
    pub backlog: u64,
    /// How long the buffer took to drain after the last trouble and the last request.
    pub drained_in: Option<Duration>,
    /// Violations: events that must not happen.
    pub faults: Vec<String>,
    /// Everything, line by line.
    pub trace: Vec<String>,
}

impl Record {
    /// Everything seen so far. Never held across an await.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("not poisoned")
    }

    /// Notes something that must not happen.
    pub fn fault(&self, what: impl fmt::Display) {
        self.seen().faults.push(format!("{:?}: {what}", now()));
    }

    /// Takes a batch in that a node has read, and checks its key.
    pub fn received(&self, node: usize, key: &str, readings: &[Reading]) {
        let mut seen = self.seen();
        seen.note(format_args!("node {node} reads {key}: {}", text(readings)));
        let known = seen.bodies.entry(key.to_owned()).or_insert_with(|| readings.to_vec());
        if known != readings {
            let fault = format!("the key {key} carried {} before, now {}", text(known), text(readings));
            seen.faults.push(fault);
        }
    }

    /// Stores a batch at a node, if it has none under that key.
    pub fn store(&self, node: usize, key: &str, readings: &[Reading]) {
        let mut seen = self.seen();
        let known = seen.arrivals.iter().any(|arrival| arrival.node == node && arrival.key == key);
        seen.note(format_args!("node {node} {} {key}", if known { "knows" } else { "stores" }));
        if !known {
            seen.arrivals.push(Arrival { node, key: key.to_owned(), readings: readings.to_vec() });
        }
    }
}

impl Seen {
    /// Writes a line into the trace.
    pub fn note(&mut self, what: impl fmt::Display) {
        self.trace.push(format!("{:?}: {what}", now()));
    }

    /// Counts something that went wrong.
    pub fn count(&mut self, mischief: &'static str) {
        *self.mischief.entry(mischief).or_default() += 1;
    }

    /// The nodes that have each reading.
    pub fn places(&self) -> BTreeMap<&Reading, BTreeSet<usize>> {
        let mut places = BTreeMap::<_, BTreeSet<_>>::new();
        for arrival in &self.arrivals {
            for reading in &arrival.readings {
                places.entry(reading).or_default().insert(arrival.node);
            }
        }
        places
    }

    /// The readings in the order in which each first arrived at any node.
    pub fn first_arrivals(&self) -> Vec<&Reading> {
        let mut known = BTreeSet::new();
        let all = self.arrivals.iter().flat_map(|arrival| &arrival.readings);
        all.filter(|reading| known.insert(*reading)).collect()
    }
}

/// Simulated time.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn text(readings: &[Reading]) -> String {
    let each = readings.iter().map(|reading| format!("{}#{}", reading.device, reading.number));
    each.collect::<Vec<_>>().join(" ")
}
