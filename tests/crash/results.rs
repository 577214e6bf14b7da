//! The results of windows, as the nodes have stored them.
//!
//! The value of a reading is a power of 16 that no other reading of its sensor has. So the sum of a window tells which
//! readings are in it, and how often each was counted: that is its digit in the sum. A digit has room for 15 times.

use std::collections::HashMap;

use tokio::time::Instant;

use forebay_reading::timestamp::Timestamp;

use crate::client::Request;
use crate::evidence::{Evidence, lines};
use crate::support::Reading;

/// The base of values.
pub const BASE: u64 = 16;
/// Length of a window, in nanoseconds.
pub const EVERY: i64 = 300_000_000;
const FUNCTIONS: [&str; 4] = ["count", "sum", "min", "max"];

/// A sensor of a device, and a window's start.
type Slot = (String, String, i64);

/// The slot of a reading whose sensor has this name otherwise.
fn slot(reading: &Reading, sensor: &str) -> Slot {
    let time = time(reading);
    (text(reading, "device").to_owned(), sensor.to_owned(), time - time % EVERY)
}

/// The results of each slot, by the function: values, and when each was stored. A slot has several results if a
/// reading came late, or in between a stop.
#[derive(Default)]
pub struct Results(HashMap<Slot, HashMap<String, Vec<(u64, Instant)>>>);

impl Results {
    /// The results that nodes have stored.
    pub fn of(evidence: &Evidence) -> Results {
        let mut results = Results::default();
        for (reading, at) in stored(evidence).filter(|(reading, _)| is_result(reading)) {
            let name = text(&reading, "sensor");
            let (sensor, function) = name.rsplit_once('_').expect("the name of a function");
            assert_eq!(time(&reading) % EVERY, 0, "it has the time of a window's start: {reading}");
            let slot = results.0.entry(slot(&reading, sensor)).or_default();
            slot.entry(function.to_owned()).or_default().push((value(&reading), at));
        }
        results
    }

    /// How many slots have some.
    pub fn slots(&self) -> usize {
        self.0.len()
    }

    /// How often each reading of a request is in a sum that was stored at such a time.
    pub fn counts(&self, request: &Request, is_in_time: impl Fn(Instant) -> bool) -> Vec<usize> {
        let count = |reading: &Reading| {
            let slot = self.0.get(&slot(reading, text(reading, "sensor")));
            let sums = slot.and_then(|slot| slot.get("sum")).map_or(&[][..], Vec::as_slice);
            let sum: u64 = sums.iter().filter(|(_, at)| is_in_time(*at)).map(|(sum, _)| sum).sum();
            usize::try_from(sum / value(reading) % BASE).expect("it is small")
        };
        request.readings().iter().map(count).collect()
    }

    /// Fails if the results of a slot do not agree. Returns how many slots of the request have some.
    pub fn check_slots(&self, request: &Request) -> usize {
        let mut slots: HashMap<Slot, Vec<(u64, usize)>> = HashMap::new();
        for (reading, count) in request.readings().iter().zip(self.counts(request, |_| true)) {
            let slot = slot(reading, text(reading, "sensor"));
            slots.entry(slot).or_default().push((value(reading), count));
        }
        slots.iter().filter(|(slot, readings)| self.check_slot(slot, readings)).count()
    }

    /// The values of the readings in a slot, and how often each is in a sum, are what its results say. Returns whether
    /// there are any.
    fn check_slot(&self, slot: &Slot, readings: &[(u64, usize)]) -> bool {
        let Some(results) = self.0.get(slot) else { return false };
        let what = format!("{slot:?}: {results:?} of {readings:?}");
        let all = FUNCTIONS.map(|function| {
            let values = results.get(function).unwrap_or_else(|| panic!("no {function} in {what}"));
            values.iter().map(|(value, _)| *value).collect::<Vec<_>>()
        });
        assert_eq!(results.len(), FUNCTIONS.len(), "{what}");
        assert!(all.iter().all(|values| values.len() == all[0].len()), "results are whole: {what}");
        let [counts, sums, least, most] = all;
        let counted = || readings.iter().filter(|(_, count)| *count > 0).map(|(value, _)| *value);
        let count = readings.iter().map(|(_, count)| *count as u64).sum::<u64>();
        let sum = readings.iter().map(|(value, count)| value * *count as u64).sum::<u64>();
        assert_eq!((counts.iter().sum(), sums.iter().sum()), (count, sum), "{what}");
        let extremes = (least.into_iter().min(), most.into_iter().max());
        assert_eq!(extremes, (counted().min(), counted().max()), "{what}");
        true
    }
}

/// The readings that nodes have stored under each key, and when.
pub fn stored(evidence: &Evidence) -> impl Iterator<Item = (Reading, Instant)> {
    let stored_at = evidence.stored_at();
    let bodies = evidence.bodies().into_iter();
    let stored = bodies.filter_map(move |(key, body)| Some((body, *stored_at.get(&key)?)));
    stored.flat_map(|(body, at)| lines(body).map(move |reading| (reading, at)))
}

/// Whether a window made it.
pub fn is_result(reading: &Reading) -> bool {
    reading["tags"]["window"] == "300ms"
}

fn text<'a>(reading: &'a Reading, field: &str) -> &'a str {
    reading[field].as_str().expect("a text")
}

fn value(reading: &Reading) -> u64 {
    reading["value"].as_u64().unwrap_or_else(|| panic!("a whole number in {reading}"))
}

fn time(reading: &Reading) -> i64 {
    Timestamp::parse(text(reading, "time")).expect("a time").nanos()
}
