//! Over any number of kills, the results of windows count every acknowledged reading.
//!
//! Each request has a device of its own, and readings such that a result tells which of them it counts ([`results`]).
//!
//! [`results`]: crate::results

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::Instant;

use forebay_reading::timestamp::Timestamp;

use crate::client::{Fate, Load, Promise, Request};
use crate::evidence::Evidence;
use crate::results::{BASE, EVERY, Results, is_result, stored};
use crate::support::Reading;
use crate::victim::{BALANCE, SHARD};
use crate::{PLAIN, Trial, survive};

/// Sensors that a request has at most. It has up to 59 readings.
const SENSORS: usize = 4;
/// Readings that each has at most, so that the greatest value and every sum fit in 63 bits.
const SENSOR_MAX: usize = 15;
const MILLISECOND: i64 = 1_000_000;

const WINDOWED: Trial = Trial {
    half_max: Duration::from_millis(700),
    load: Load { readings, patience: Duration::from_millis(700), ..PLAIN.load },
    ..PLAIN
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_any_number_of_kills_the_windows_count_each_acknowledged_reading_once() {
    let config = r#"
        [[transform]]
        kind = "aggregate"
        every = "300ms"
        functions = ["count", "sum", "min", "max"]
        lateness = "100ms"
    "#;
    let check = |evidence: &Evidence| {
        check_nothing_raw(evidence);
        check(evidence, Raw::Merged);
    };
    survive(Trial { route: BALANCE, config, rounds: 24, check, ..WINDOWED }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_readings_are_kept_beside_their_windows_kills_lose_neither() {
    const ROUNDS: usize = 12;
    let config = r#"
        [[transform]]
        kind = "aggregate"
        every = "300ms"
        functions = ["count", "sum", "min", "max"]
        lateness = "100ms"
        keep_raw = true
    "#;
    let check = |evidence: &Evidence| {
        check_raw(evidence);
        check(evidence, Raw::Kept { recounts: ROUNDS });
    };
    survive(Trial { route: BALANCE, config, rounds: ROUNDS, check, ..WINDOWED }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_behind_a_dedupe_count_each_acknowledged_reading_whatever_it_has_forgotten() {
    let config = r#"
        [[transform]]
        kind = "dedupe"
        window = "1h"
        [[transform]]
        kind = "aggregate"
        every = "300ms"
        functions = ["count", "sum", "min", "max"]
        lateness = "100ms"
    "#;
    let check = |evidence: &Evidence| {
        let twins = groups(evidence).values().filter(|requests| requests.len() > 1).count();
        assert!(twins > evidence.rounds, "too few were sent twice: {twins}");
        check_nothing_raw(evidence);
        check(evidence, Raw::Merged);
    };
    let load = Load { twice: 30, ..WINDOWED.load };
    survive(Trial { route: SHARD, config, rounds: 12, load, check, ..WINDOWED }).await;
}

/// The readings of a request: of about now, of a while ago as from a device that was offline, or from all over.
fn readings(numbers: Range<usize>, made_at: SystemTime) -> Vec<Reading> {
    let mut random = fastrand::Rng::with_seed(numbers.start as u64);
    let (first, sensors) = (numbers.start, random.usize(numbers.len().div_ceil(SENSOR_MAX)..=SENSORS));
    let now = Timestamp::from_system(made_at).nanos();
    let kind = random.u8(..6);
    let mut reading = |index: usize| {
        let millis = match (kind, random.u8(..10)) {
            (0, _) => -3_600_000 + 50 * i64::try_from(index).expect("it is small"),
            (1, _) => random.i64(-10_000..1000),
            (_, 0) => random.i64(-60_000..0),
            (_, 1) => random.i64(0..800),
            _ => random.i64(-400..0),
        };
        let time = now + millis * MILLISECOND;
        // Some are exactly where a window ends and the next one begins.
        let time = if random.u8(..5) == 0 { time - time % EVERY } else { time };
        json!({
            "device": format!("meter-{first}"),
            "sensor": format!("flow-{}", index % sensors),
            "value": BASE.pow(u32::try_from(index / sensors).expect("it is small")),
            "time": Timestamp::from_nanos(time).expect("after 1970").to_string(),
        })
    };
    (0..numbers.len()).map(&mut reading).collect()
}

/// The fate of a reading that is in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raw {
    /// The window's result takes its place.
    Merged,
    /// It goes on. If it is not delivered at a crash, it is counted again after it: so often, if it comes to the worst.
    Kept { recounts: usize },
}

/// The results of windows count the acknowledged readings, and no other.
fn check(evidence: &Evidence, raw: Raw) {
    let (results, groups) = (Results::of(evidence), groups(evidence));
    let is_all_stored = evidence.stored_at().len() == evidence.bodies().len();
    assert!(is_all_stored || evidence.route == SHARD, "what is sent is sent until it is stored");
    let (mut slots, mut counted) = (0, 0);
    for requests in groups.values() {
        slots += results.check_slots(requests[0]);
        counted += check_counts(&results, requests, raw);
    }
    assert_eq!(slots, results.slots(), "every result is of a window that a request has readings in");
    println!("{slots} windows counted {counted} readings");
    let rounds = evidence.rounds;
    assert!(slots > 20 * rounds && counted > 40 * rounds, "too little has happened in {rounds} rounds");
}

/// Each reading is in the windows at least once if its request was promised to be there, and as often as it may have
/// been taken at most; and a request is taken whole. Returns how many readings were counted.
fn check_counts(results: &Results, requests: &[&Request], raw: Raw) -> usize {
    let recounts = match raw {
        Raw::Merged => 0,
        Raw::Kept { recounts } => recounts,
    };
    let counts = results.counts(requests[0], |_| true);
    let what = format!("{counts:?} of {requests:?}");
    let (least, most) = (counts.iter().min().expect("not empty"), counts.iter().max().expect("not empty"));
    let may_be_taken = requests.iter().filter(|request| request.fate != Fate::Refused).count();
    assert!(*most <= may_be_taken * (1 + recounts), "counted too often: {what}");
    let is_promised = requests.iter().any(|request| is_kept(request));
    assert!(!is_promised || *least > 0, "acknowledged, and not counted: {what}");
    assert!((*least == 0) == (*most == 0), "a request is taken whole: {what}");
    // Readings that a dedupe has taken out need not be delivered, and the others are delivered without their window.
    if let (Raw::Merged, [Request { fate: Fate::Promised { promise: Promise::Delivered, at }, .. }]) =
        (raw, requests)
    {
        let in_time = results.counts(requests[0], |stored| stored <= *at);
        assert!(in_time.iter().all(|count| *count > 0), "said to be delivered: {in_time:?} in time, {what}");
    }
    counts.iter().sum()
}

/// Whether its answer promises that its readings outlast a crash.
fn is_kept(request: &Request) -> bool {
    matches!(request.fate, Fate::Promised { promise: Promise::Disk | Promise::Delivered, .. })
}

/// The requests that brought the same readings, by the first number of these.
fn groups(evidence: &Evidence) -> BTreeMap<usize, Vec<&Request>> {
    let mut groups: BTreeMap<usize, Vec<&Request>> = BTreeMap::new();
    for request in &evidence.requests {
        groups.entry(request.numbers.start).or_default().push(request);
    }
    groups
}

/// Every reading that was to be kept arrives as it was sent, under one key.
fn check_raw(evidence: &Evidence) {
    let mut arrived: HashMap<String, Instant> = HashMap::new();
    for (reading, at) in stored(evidence).filter(|(reading, _)| !is_result(reading)) {
        let known = arrived.insert(reading.to_string(), at);
        assert!(known.is_none(), "it has two keys: {reading}");
    }
    let mut sent = 0;
    for request in &evidence.requests {
        let readings = request.readings();
        let stored: Vec<_> =
            readings.iter().filter_map(|reading| arrived.get(&reading.to_string())).collect();
        let there = stored.len();
        assert!(there == 0 || there == readings.len(), "a request is taken whole: {there} of {request:?}");
        assert!(!is_kept(request) || there > 0, "acknowledged, and not there: {request:?}");
        assert!(request.fate != Fate::Refused || there == 0, "refused, and there: {request:?}");
        if let Fate::Promised { promise: Promise::Delivered, at } = request.fate {
            assert!(stored.iter().all(|stored| **stored <= at), "said to be delivered: {request:?}");
        }
        sent += there;
    }
    assert_eq!(arrived.len(), sent, "nothing arrives that was not sent");
}

/// No reading arrives but those that windows made.
fn check_nothing_raw(evidence: &Evidence) {
    for batch in &evidence.received {
        assert!(batch.readings().iter().all(is_result), "{:?}", batch.body);
    }
}
