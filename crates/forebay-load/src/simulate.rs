//! Simulated devices.
//!
//! Each device has one sensor, whose value is a slow random walk, and takes readings at even distances of time, so
//! that a reading's time gives its number within the device. Names contain that of the run, so that runs against the
//! same nodes do not mix. A device sends over one connection, in order.

use std::sync::Arc;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Value};

use crate::csv_error::CsvError;
use crate::source::{AuditWindow, BatchSource, ExpectedReading, LoadBatch};

/// Least distance between two readings of a device, and the distance where there is no rate.
const STEP_NANOS_MIN: i64 = 1_000;

/// A kind of sensor and the range in which its value walks.
#[derive(Debug)]
struct SensorKind {
    sensor: &'static str,
    unit: &'static str,
    low: f64,
    high: f64,
}

/// Devices have the kinds in turn. Units are named as in SenML.
const SENSOR_KINDS: &[SensorKind] = &[
    SensorKind { sensor: "temperature", unit: "Cel", low: -10.0, high: 40.0 },
    SensorKind { sensor: "humidity", unit: "%RH", low: 20.0, high: 95.0 },
    SensorKind { sensor: "pressure", unit: "hPa", low: 970.0, high: 1040.0 },
    SensorKind { sensor: "power", unit: "W", low: 0.0, high: 4000.0 },
];

/// A run's devices, their names and the times of their readings.
///
/// The reading with number `n` of device `d` has the ordinal `n * devices + d`.
#[derive(Clone, Debug)]
pub(super) struct Simulation {
    run: String,
    devices: usize,
    start: Timestamp,
    step_nanos: i64,
}

/// The devices of one connection.
#[derive(Debug)]
struct Share {
    simulation: Simulation,
    devices: Vec<Device>,
    next: usize,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Device {
    index: usize,
    name: String,
    kind: &'static SensorKind,
    value: f64,
    readings: usize,
}

impl Simulation {
    /// Devices of the run named `run`, whose first readings are at `start`, and which together take
    /// `readings_per_second` readings a second (0: without a limit).
    pub(super) fn new(run: &str, devices: usize, readings_per_second: u64, start: Timestamp) -> Simulation {
        // Whole microseconds keep the times short; the lost fraction does not matter.
        let micros = (devices as u64).saturating_mul(1_000_000).checked_div(readings_per_second).unwrap_or(0);
        let step_nanos = i64::try_from(micros).unwrap_or(i64::MAX).saturating_mul(1_000).max(STEP_NANOS_MIN);
        Simulation { run: run.to_owned(), devices, start, step_nanos }
    }

    /// Divides the devices among at most `connections` connections, each with at least one device.
    pub(super) fn sources(&self, connections: usize) -> Vec<Box<dyn BatchSource>> {
        let connections = connections.min(self.devices);
        (0..connections)
            .map(|first| Box::new(self.share(first, connections)) as Box<dyn BatchSource>)
            .collect()
    }

    fn share(&self, first: usize, step: usize) -> Share {
        let mut random = fastrand::Rng::new();
        let devices =
            (first..self.devices).step_by(step).map(|index| self.device(index, &mut random)).collect();
        Share { simulation: self.clone(), devices, next: 0, random }
    }

    fn device(&self, index: usize, random: &mut fastrand::Rng) -> Device {
        let kind = self.kind(index);
        let value = kind.low + random.f64() * (kind.high - kind.low);
        Device { index, name: self.name(index), kind, value, readings: 0 }
    }

    fn name(&self, device: usize) -> String {
        format!("load-{}-{device:05}", self.run)
    }

    fn kind(&self, device: usize) -> &'static SensorKind {
        &SENSOR_KINDS[device % SENSOR_KINDS.len()]
    }

    fn time(&self, number: usize) -> Timestamp {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.start.saturating_add_nanos(self.step_nanos.saturating_mul(number))
    }

    /// The windows that hold all readings with ordinals below `end`, of `size` readings at most.
    ///
    /// The first window of a device has no beginning and its last no end, so that every reading of the devices that a
    /// node holds is in a window.
    pub(super) fn windows(&self, end: usize, size: usize) -> impl Iterator<Item = AuditWindow> + '_ {
        let numbers = end.div_ceil(self.devices);
        let windows = numbers.div_ceil(size).max(1);
        (0..self.devices).flat_map(move |device| {
            (0..windows).map(move |window| {
                let (first, after) = (window * size, ((window + 1) * size).min(numbers));
                AuditWindow {
                    device: self.name(device).into(),
                    from: (window > 0).then(|| self.time(first)),
                    to: (window + 1 < windows).then(|| self.time(after)),
                    wanted: self.wanted(device, first..after),
                }
            })
        })
    }

    fn wanted(&self, device: usize, numbers: std::ops::Range<usize>) -> Vec<ExpectedReading> {
        let sensor: Arc<str> = self.kind(device).sensor.into();
        let wanted = |number| ExpectedReading {
            ordinal: number * self.devices + device,
            sensor: sensor.clone(),
            time: self.time(number),
        };
        numbers.map(wanted).collect()
    }
}

impl BatchSource for Share {
    fn next_batch(&mut self, most: usize) -> Result<Option<LoadBatch>, CsvError> {
        let mut batch = LoadBatch::default();
        for _ in 0..most {
            let devices = self.devices.len();
            let device = &mut self.devices[self.next];
            self.next = (self.next + 1) % devices;
            device.walk(&mut self.random);
            let parts = ReadingParts {
                device: &device.name,
                sensor: device.kind.sensor,
                value: Value::Double(rounded(device.value)).into(),
                time: self.simulation.time(device.readings),
                unit: Some(device.kind.unit),
                tags: &[],
            };
            batch.readings.push(&parts).expect("a simulated reading keeps to the rules");
            batch.ordinals.push(device.readings * self.simulation.devices + device.index);
            device.readings += 1;
        }
        Ok(Some(batch))
    }
}

impl Device {
    /// Moves the value by up to 0.5 % of its range, and never out of it.
    fn walk(&mut self, random: &mut fastrand::Rng) {
        let SensorKind { low, high, .. } = self.kind;
        let change = (random.f64() - 0.5) * 0.01 * (high - low);
        self.value = (self.value + change).clamp(*low, *high);
    }
}

/// Two decimals, like the values of a sensor.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap, HashSet};

    fn start() -> Timestamp {
        Timestamp::parse("2026-02-01T12:00:00Z").expect("a time")
    }

    #[test]
    fn a_rate_spreads_the_readings_of_a_device_evenly_over_time() {
        let simulation = Simulation::new("1a", 100, 1000, start());
        assert_eq!(simulation.time(3).to_string(), "2026-02-01T12:00:00.300Z");
        assert_eq!(simulation.name(42), "load-1a-00042");
    }

    #[test]
    fn without_a_rate_times_still_rise() {
        let simulation = Simulation::new("1a", 100, 0, start());
        assert_eq!(simulation.time(1).to_string(), "2026-02-01T12:00:00.000001Z");
    }

    #[test]
    fn a_batch_of_one_is_an_object_and_others_are_arrays() {
        let mut source = Simulation::new("1a", 1, 10, start()).share(0, 1);
        let one = source.next_batch(1).expect("it goes on").expect("for ever");
        assert!(one.body(1).starts_with(br#"{"device":"load-1a-00000","sensor":"temperature","value":"#));
        let two = source.next_batch(2).expect("it goes on").expect("for ever");
        let two: Vec<serde_json::Value> = serde_json::from_slice(&two.body(2)).expect("an array");
        assert_eq!(two[1]["time"], "2026-02-01T12:00:00.200Z");
    }

    proptest! {
        /// Also that names and times are unique, and that values stay within their range.
        #[test]
        fn the_audit_looks_for_exactly_the_readings_that_were_sent(
            devices in 1..12_usize, connections in 1..5_usize, batch in 1..7_usize, batches in 1..6_usize, size in 1..9_usize,
        ) {
            let simulation = Simulation::new("1a", devices, 500, start());
            let mut sent = BTreeMap::new();
            let mut latest: HashMap<String, Timestamp> = HashMap::new();
            for mut source in simulation.sources(connections) {
                for _ in 0..batches {
                    let batch = source.next_batch(batch).expect("it goes on").expect("for ever");
                    for (reading, ordinal) in batch.readings.iter().zip(batch.ordinals) {
                        let key = (reading.device().to_owned(), reading.sensor().to_owned(), reading.time());
                        prop_assert!(latest.insert(key.0.clone(), key.2).is_none_or(|before| before < key.2));
                        prop_assert!(sent.insert(ordinal, key).is_none());
                        prop_assert!(matches!(reading.value(), Value::Double(value) if (-10.0..=4000.0).contains(&value)));
                    }
                }
            }
            let end = sent.keys().next_back().expect("something was sent") + 1;
            let mut seen = HashSet::new();
            for window in simulation.windows(end, size) {
                for wanted in window.wanted {
                    prop_assert!(seen.insert(wanted.ordinal));
                    prop_assert!(window.from.is_none_or(|from| from <= wanted.time));
                    prop_assert!(window.to.is_none_or(|to| wanted.time < to));
                    if let Some((device, sensor, time)) = sent.remove(&wanted.ordinal) {
                        prop_assert_eq!((&*window.device, &*wanted.sensor, wanted.time), (&*device, &*sensor, time));
                    }
                }
            }
            prop_assert!(sent.is_empty(), "no window holds {sent:?}");
        }
    }
}
