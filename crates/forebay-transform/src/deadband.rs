//! `deadband`: passes a reading whose value moved far enough from the last one passed, and one each heartbeat.
//!
//! For each series (a device, a sensor and a set of tags; with `by = "sensor"` a device and a sensor) the value and the
//! time of the last reading that passed are remembered. A reading passes if it is the first, if it moved by at least
//! `delta` or `percent` ([`change`]), or if its own time is at least `heartbeat` after that of the last one passed. The
//! last value that passed is therefore never off by `delta` or more.
//!
//! - A reading that is older than the last one passed comes too late to be compared: the value before it has been
//!   forgotten. It passes, and the next reading is still compared with the newer one.
//! - After a device's clock was ahead and was then corrected, all its readings would be late, and pass, for as long as
//!   it had been ahead. So if the last one passed is more than [`AHEAD_MAX`] ahead of the gateway's clock and a reading
//!   is not, the reading passes and replaces it.
//! - A series that was evicted, and every series after a restart, begins anew: its first reading passes. So more
//!   readings than needed may pass, never fewer.
//!
//! A series takes about 110 bytes with names of 20 bytes together, and about 720 with the longest names (measured with
//! a million series), plus its tags.

mod change;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use change::{ComparedValue, LeastChange};
use forebay_reading::quantity::format_duration;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingRef, Readings, Value};

use crate::series::{By, SeriesTable};
use crate::settings::Settings;
use crate::{Moment, Stats, Transform, TransformKind, Verdict};

/// Largest `delta`. An integer cannot move by much more.
const DELTA_MAX: f64 = 1e18;
/// Largest `percent`.
const PERCENT_MAX: f64 = 1e6;
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);
/// A century.
const HEARTBEAT_MAX: Duration = Duration::from_hours(36_525 * 24);
/// Largest `max_series`.
const MAX_SERIES_MAX: i64 = 10_000_000;
const MAX_SERIES_DEFAULT: usize = 1_000_000;
/// A device's clock that is further ahead of the gateway's counts as wrong.
const AHEAD_MAX: Duration = Duration::from_mins(1);

/// The settings.
#[derive(Clone, Copy, Debug)]
struct Deadband {
    by: By,
    least: LeastChange,
    heartbeat: Option<Duration>,
    max_series: usize,
}

/// Reads `by`, `delta` or `percent`, `heartbeat` and `max_series`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    let by = By::read(settings);
    let delta = settings.number("delta", 0.0..=DELTA_MAX).map(LeastChange::Delta);
    let percent = settings.number("percent", 0.0..=PERCENT_MAX).map(LeastChange::Percent);
    let heartbeat = settings.duration("heartbeat", HEARTBEAT_MIN..=HEARTBEAT_MAX);
    let max_series = settings.count("max_series", 1..=MAX_SERIES_MAX).unwrap_or(MAX_SERIES_DEFAULT);
    match (settings.has("delta"), settings.has("percent")) {
        (true, true) => settings.fault("percent", "cannot stand beside `delta`, leave one out".to_owned()),
        (false, false) => {
            settings.require("delta", "the least change that counts, such as 0.2 (or `percent`)")
        }
        (true, false) | (false, true) => {}
    }
    Some(Arc::new(Deadband { by, least: delta.or(percent)?, heartbeat, max_series }))
}

impl TransformKind for Deadband {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(DeadbandTransform {
            config: *self,
            seed: RandomState::new(),
            series: SeriesTable::new(self.max_series, self.by),
            evicted: 0,
        })
    }

    fn why(&self) -> String {
        let mut why = match self.least {
            LeastChange::Delta(0.0) | LeastChange::Percent(0.0) => "its value did not change".to_owned(),
            LeastChange::Delta(delta) => format!("its value moved by less than {delta}"),
            LeastChange::Percent(percent) => format!("its value moved by less than {percent} percent"),
        };
        if let Some(heartbeat) = self.heartbeat {
            let heartbeat = format_duration(heartbeat);
            write!(why, " within {heartbeat}").expect("writing to a string does not fail");
        }
        why
    }
}

/// The instance of the transform.
#[derive(Debug)]
struct DeadbandTransform {
    config: Deadband,
    /// For the hashes of texts.
    seed: RandomState,
    series: SeriesTable<LastPassed>,
    evicted: u64,
}

/// The last reading of a series that passed.
#[derive(Clone, Copy, Debug)]
struct LastPassed {
    value: ComparedValue,
    time: Timestamp,
}

impl LastPassed {
    fn new(reading: ReadingRef<'_>, seed: &RandomState) -> LastPassed {
        let value = match reading.value() {
            Value::Integer(number) => ComparedValue::Integer(number),
            Value::Double(number) => ComparedValue::Double(number),
            Value::Boolean(truth) => ComparedValue::Boolean(truth),
            Value::Text(text) => ComparedValue::Text(seed.hash_one(text)),
        };
        LastPassed { value, time: reading.time() }
    }

    /// Whether this reading comes too late to be compared with `last`, or to replace it.
    fn is_before(&self, last: &LastPassed, wall: Timestamp) -> bool {
        let limit = wall.saturating_add_nanos(nanos(AHEAD_MAX));
        let clock_was_set_right = last.time > limit && self.time <= limit;
        self.time < last.time && !clock_was_set_right
    }
}

impl Deadband {
    /// Whether a reading that is not late passes.
    fn passes(&self, last: &LastPassed, new: &LastPassed) -> bool {
        let since = new.time.nanos() - last.time.nanos();
        // Negative if the device's clock was corrected.
        since < 0
            || self.least.is_reached(last.value, new.value)
            || self.heartbeat.is_some_and(|heartbeat| since >= nanos(heartbeat))
    }
}

impl DeadbandTransform {
    /// Applies the transform. A reading passes if `passes` is true for the last one passed and this one, or if there is
    /// no reading to compare it with.
    fn look(
        &mut self,
        reading: ReadingRef<'_>,
        now: Moment,
        passes: impl FnOnce(&Deadband, &LastPassed, &LastPassed) -> bool,
    ) -> Verdict {
        let new = LastPassed::new(reading, &self.seed);
        let found = self.series.get_or_insert_with(reading, || new);
        self.evicted += u64::from(found.evicted.is_some());
        if found.is_new || new.is_before(found.state, now.wall) {
            return Verdict::Pass;
        }
        if !passes(&self.config, found.state, &new) {
            return Verdict::Filter;
        }
        *found.state = new;
        Verdict::Pass
    }
}

impl Transform for DeadbandTransform {
    fn apply(&mut self, reading: ReadingRef<'_>, now: Moment, _out: &mut Readings) -> Verdict {
        self.look(reading, now, Deadband::passes)
    }

    fn apply_again(&mut self, reading: ReadingRef<'_>, now: Moment, _out: &mut Readings) -> Verdict {
        self.look(reading, now, |_, _, _| true)
    }

    fn stats(&self) -> Stats {
        Stats { evicted: self.evicted, remembered: self.series.len() as u64, ..Stats::default() }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
