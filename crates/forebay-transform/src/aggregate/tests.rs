//! The readings of windows, their closing, and their results.

mod closing;
mod properties;
mod results;
mod setup;

use std::borrow::Cow;
use std::time::Duration;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{Parts, ReadingRef, Readings, Tag, Value};
use tokio::time::Instant;

use super::*;
use crate::settings::SettingValue as Setting;
use crate::{Moment, Stats, Verdict, WindowId};

const NANOS: i64 = 1_000_000_000;

/// A transform under test, with its clocks and results.
struct Trial {
    transform: Box<dyn Transform>,
    start: Instant,
    /// Time since the start, by the clock that never jumps.
    elapsed: Duration,
    /// The gateway's wall clock, in seconds since the Unix epoch.
    wall: i64,
}

/// The parts of a reading; tests that do not need a part leave it at its default.
#[derive(Clone, Copy)]
struct Given<'a> {
    device: &'a str,
    sensor: &'a str,
    value: Value<'a>,
    /// Nanoseconds since the Unix epoch.
    nanos: i64,
    unit: Option<&'a str>,
    tags: &'a [(&'a str, &'a str)],
}

impl Default for Given<'_> {
    fn default() -> Self {
        let value = Value::Integer(1);
        Given { device: "d", sensor: "t", value, nanos: 0, unit: None, tags: &[] }
    }
}

impl Given<'_> {
    fn encode(&self) -> Readings {
        let tags: Vec<Tag<'_>> =
            self.tags.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))).collect();
        let parts = Parts {
            device: self.device,
            sensor: self.sensor,
            value: self.value.into(),
            time: Timestamp::from_nanos(self.nanos).unwrap(),
            unit: self.unit,
            tags: &tags,
        };
        let mut readings = Readings::default();
        readings.push(&parts).unwrap();
        readings
    }
}

impl Trial {
    /// A transform of these settings, such as `every = 10s, functions = mean max, keep_raw = true`. The gateway's clock
    /// stands at 1,000 s.
    fn new(settings: &str) -> Trial {
        let mut settings = read_line(settings);
        let kind = super::read(&mut settings);
        assert_eq!(settings.finish(), []);
        Trial { transform: kind.unwrap().make(), start: Instant::now(), elapsed: Duration::ZERO, wall: 1000 }
    }

    fn now(&self) -> Moment {
        let wall = Timestamp::from_nanos(self.wall * NANOS).unwrap();
        Moment { instant: self.start + self.elapsed, wall }
    }

    /// Lets time go by on both clocks.
    fn wait(&mut self, seconds: u32) {
        self.elapsed += Duration::from_secs(u64::from(seconds));
        self.wall += i64::from(seconds);
    }

    fn apply(&mut self, given: Given<'_>) -> Verdict {
        let (now, mut out) = (self.now(), Readings::default());
        let readings = given.encode();
        let verdict = self.transform.apply(first(&readings), now, &mut out);
        assert!(out.is_empty());
        verdict
    }

    /// Applies the transform to a reading with this time and value.
    fn read(&mut self, seconds: i64, value: i64) -> WindowId {
        self.read_of("d", seconds, value)
    }

    fn read_of(&mut self, device: &str, seconds: i64, value: i64) -> WindowId {
        let given =
            Given { device, nanos: seconds * NANOS, value: Value::Integer(value), ..Given::default() };
        match self.apply(given) {
            Verdict::Merge(window) => window,
            other => panic!("{other:?}"),
        }
    }

    fn close_due(&mut self) {
        self.transform.close_due(self.start + self.elapsed, usize::MAX);
    }

    /// Seconds from now until the first window is due.
    fn due_in(&self) -> Option<f64> {
        self.transform.next_due().map(|due| (due - (self.start + self.elapsed)).as_secs_f64())
    }

    fn stats(&self) -> Stats {
        self.transform.stats()
    }

    /// The results of closed windows: `d t_mean 2.5 C @1000 room=a window=10s`.
    fn closed(&mut self) -> Vec<String> {
        self.transform.take_closed().results.iter().map(show).collect()
    }

    /// The results of closed windows whose only function is the sum: `1000: 3`.
    fn sums(&mut self) -> Vec<String> {
        let closed = self.transform.take_closed().results;
        closed.iter().map(|reading| format!("{}: {}", seconds(reading), number(reading))).collect()
    }

    /// Closes all windows and gives their results.
    fn all(&mut self) -> Vec<String> {
        self.transform.close_oldest(usize::MAX);
        assert_eq!(self.transform.next_due(), None);
        self.closed()
    }
}

fn first(readings: &Readings) -> ReadingRef<'_> {
    readings.iter().next().unwrap()
}

fn read_line(line: &str) -> Settings {
    let setting = |setting: &str| {
        let (key, value) = setting.split_once(" = ").unwrap();
        let value = match (key, value) {
            ("functions", names) => {
                Setting::List(names.split_whitespace().map(|name| Setting::Text(name.to_owned())).collect())
            }
            ("keep_raw", truth) => Setting::Truth(truth == "true"),
            ("max_series", count) => Setting::Integer(count.parse().unwrap()),
            (_, text) => Setting::Text(text.to_owned()),
        };
        (key.to_owned(), value)
    };
    Settings::new(line.split(", ").filter(|line| !line.is_empty()).map(setting).collect())
}

fn show(reading: ReadingRef<'_>) -> String {
    let mut text = format!("{} {} {}", reading.device(), reading.sensor(), number(reading));
    text.extend(reading.unit().map(|unit| format!(" {unit}")));
    text += &format!(" @{}", seconds(reading));
    text.extend(reading.tags().map(|(name, value)| format!(" {name}={value}")));
    text
}

fn number(reading: ReadingRef<'_>) -> String {
    match reading.value() {
        Value::Integer(integer) => integer.to_string(),
        Value::Double(double) => format!("{double:?}"),
        other => panic!("{other:?}"),
    }
}

fn seconds(reading: ReadingRef<'_>) -> i64 {
    reading.time().nanos() / NANOS
}
