//! The readings that arrived at nodes, by their devices and by their keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;

use super::node::{FakeNode, ReceivedBatch};
use super::readings::Reading;

/// The `number`-th reading of a device.
pub fn reading_of(device: &str, number: usize) -> Reading {
    let mut reading = super::readings::reading(number);
    reading["device"] = json!(device);
    reading
}

/// The numbers of readings: their values.
pub fn numbers(readings: &[Reading]) -> Vec<u64> {
    readings.iter().map(|reading| reading["value"].as_u64().expect("a number")).collect()
}

/// The numbers of each device's readings, in the order in which they were stored first, each key once.
pub fn by_device(batches: impl IntoIterator<Item = ReceivedBatch>) -> BTreeMap<String, Vec<u64>> {
    let mut stored: Vec<_> = batches.into_iter().filter(ReceivedBatch::is_stored).collect();
    stored.sort_by_key(|batch| batch.at);
    let mut keys = BTreeSet::new();
    let mut devices: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for batch in stored.iter().filter(|batch| keys.insert(batch.key())) {
        for reading in batch.readings() {
            let device = reading["device"].as_str().expect("a name").to_owned();
            devices.entry(device).or_default().extend(numbers(&[reading]));
        }
    }
    devices
}

/// All that several nodes received.
pub fn received(nodes: &[&FakeNode]) -> Vec<ReceivedBatch> {
    nodes.iter().flat_map(|node| node.received()).collect()
}

/// Fails if a key ever came with other bytes or another count of readings.
#[track_caller]
pub fn assert_keys_carry_the_same(batches: &[ReceivedBatch]) {
    let mut bodies: BTreeMap<String, (Bytes, String)> = BTreeMap::new();
    for batch in batches {
        let count = batch.header("forebay-readings");
        assert_eq!(batch.readings().len().to_string(), count);
        let known = bodies.entry(batch.key()).or_insert_with(|| (batch.body.clone(), count.clone()));
        assert!(*known == (batch.body.clone(), count), "the key {} carries other readings", batch.key());
    }
}
