//! The answers to clients, compared with the readings that nodes received.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::{Fate, Promise, Request};
use crate::support::{Reading, ReceivedBatch, reading};
use crate::victim::{Route, SHARD};

/// Everything that was seen.
pub struct Evidence {
    pub route: Route,
    /// How often the gateway was started and ended.
    pub rounds: usize,
    pub requests: Vec<Request>,
    pub received: Vec<ReceivedBatch>,
}

impl Evidence {
    /// Fails if a promise was broken.
    pub fn check(&self) {
        let bodies = self.bodies();
        let sent: HashSet<usize> = bodies.values().flat_map(|body| numbers(body)).collect();
        self.check_keys(&bodies);
        let arrived = self.arrived(&bodies);
        for Request { numbers, fate, key, promise, .. } in &self.requests {
            let there = numbers.clone().filter(|number| arrived.contains_key(number)).count();
            let what = format!("{numbers:?}, {promise:?}, {key:?}, {fate:?}");
            assert!(there == 0 || there == numbers.len(), "a request is taken whole: {there} of {what}");
            match *fate {
                Fate::Promised { promise: Promise::Delivered, at } => {
                    let in_time = |number: usize| arrived.get(&number).is_some_and(|stored| *stored <= at);
                    assert!(numbers.clone().all(in_time), "said to be delivered: {what}");
                }
                Fate::Promised { promise: Promise::Disk, .. } => {
                    assert_eq!(there, numbers.len(), "said to be on disk: {what}");
                }
                Fate::Refused => {
                    let is_sent = numbers.clone().any(|number| sent.contains(&number));
                    assert!(!is_sent, "refused, and sent: {what}");
                }
                Fate::Promised { promise: Promise::Memory, .. } | Fate::Unknown => {}
            }
        }
    }

    /// The readings of each key, which are always the same.
    pub fn bodies(&self) -> HashMap<String, &Bytes> {
        let mut bodies: HashMap<String, &Bytes> = HashMap::new();
        for batch in &self.received {
            let known = *bodies.entry(batch.key()).or_insert(&batch.body);
            assert!(*known == batch.body, "the key {} carries other readings", batch.key());
        }
        bodies
    }

    /// Each reading has one key, so a node that honours keys stores none twice. Where devices have their own nodes, what
    /// no node has stored may come under another key later, after a node went out of use.
    fn check_keys(&self, bodies: &HashMap<String, &Bytes>) {
        let counts = |batch: &&ReceivedBatch| batch.is_stored() || self.route != SHARD;
        let stored = self.received.iter().filter(counts).map(ReceivedBatch::key);
        let mut keys = HashMap::new();
        for key in stored.collect::<HashSet<_>>() {
            for number in numbers(bodies[&key]) {
                let other = keys.insert(number, key.clone());
                assert!(other.is_none(), "the reading {number} has the keys {key} and {other:?}");
            }
        }
    }

    /// When each key was stored first.
    pub fn stored_at(&self) -> HashMap<String, Instant> {
        let mut stored: HashMap<String, Instant> = HashMap::new();
        for batch in self.received.iter().filter(|batch| batch.is_stored()) {
            let at = stored.entry(batch.key()).or_insert(batch.at);
            *at = batch.at.min(*at);
        }
        stored
    }

    /// When each reading was stored first.
    fn arrived(&self, bodies: &HashMap<String, &Bytes>) -> HashMap<usize, Instant> {
        let numbers = |key: &String| numbers(bodies[key]);
        self.stored_at()
            .iter()
            .flat_map(|(key, at)| numbers(key).into_iter().map(|number| (number, *at)))
            .collect()
    }
}

/// The numbers of the readings of a batch, which are as they were sent.
fn numbers(body: &Bytes) -> Vec<usize> {
    let number = |found: Reading| {
        let number = found["value"].as_u64().and_then(|number| number.try_into().ok()).expect("a number");
        assert_eq!(found, reading(number));
        number
    };
    lines(body).map(number).collect()
}

/// The readings of a batch.
pub fn lines(body: &Bytes) -> impl Iterator<Item = Reading> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON"))
}

/// The figures of the run, and a check that it exercised anything.
pub fn tell(evidence: &Evidence, recovered: u64) {
    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
    for request in &evidence.requests {
        let fate = match request.fate {
            Fate::Promised { promise, .. } => format!("{promise:?}"),
            Fate::Refused => "Refused".to_owned(),
            Fate::Unknown => "Unknown".to_owned(),
        };
        *fates.entry(fate).or_default() += 1;
    }
    let keys: HashSet<_> = evidence.received.iter().map(ReceivedBatch::key).collect();
    let received = evidence.received.len();
    println!("requests {fates:?}, batches {} sent {received} times, recovered {recovered}", keys.len());
    let least = 4 * evidence.rounds;
    let has_happened = fates["Disk"] > least && recovered > least as u64 && received > keys.len();
    assert!(has_happened, "too little has happened");
}
