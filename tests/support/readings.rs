//! Readings as tests write and compare them.

use serde_json::{Value, json};

/// A reading as canonical JSON.
pub type Reading = Value;

/// The `index`-th of a row of readings that are all different.
pub fn reading(index: usize) -> Reading {
    let (minute, second) = (index / 60 % 60, index % 60);
    json!({
        "device": format!("meter-{}", index % 7),
        "sensor": "voltage",
        "value": index,
        "time": format!("2007-02-01T{:02}:{minute:02}:{second:02}Z", index / 3600 % 24),
    })
}

/// The first `count` of them.
pub fn readings(count: usize) -> Vec<Reading> {
    (0..count).map(reading).collect()
}

/// A reading of one series, so many seconds after some moment long ago.
pub fn at(second: u32, value: impl Into<Value>) -> Reading {
    let (minute, second) = (second / 60, second % 60);
    json!({
        "device": "meter-1",
        "sensor": "power",
        "value": value.into(),
        "time": format!("2007-02-01T00:{minute:02}:{second:02}Z"),
    })
}

/// As the body of a request with `application/json`.
pub fn to_json(readings: &[Reading]) -> Vec<u8> {
    serde_json::to_vec(readings).expect("JSON")
}

/// As the body of a request with `application/x-ndjson`.
pub fn to_ndjson(readings: &[Reading]) -> Vec<u8> {
    readings.iter().flat_map(|reading| format!("{reading}\n").into_bytes()).collect()
}
