//! Passes a reading that moved by at least so much from the last one passed, and one every so often.
//!
//! For each series (a device, a sensor and a set of tags; with `by = "sensor"` a device and a sensor) the value and the time of the last reading that passed are remembered. One passes if it is the
//! first, if it moved by at least `delta` or `percent` ([`change`]), or if its own time is at least `heartbeat` after
//! that of the last one passed. Whoever holds the last value that passed is therefore never off by `delta` or more.
//!
//! - A reading that is older than the last one passed comes too late to be compared: what went before it is not known
//!   any more. It passes, and what comes next is compared with the newer one as before.
//! - A device whose clock was ahead and was then set right would have all its readings pass for as long as it was
//!   ahead. So if the last one passed is more than [`AHEAD_MAX`] ahead of the gateway's clock and a reading is not, the
//!   reading passes and takes its place.
//! - A series that had to go to make room for others, and every series after a restart, begins anew: its first reading
//!   passes. There may be more readings than are needed, never fewer.
//!
//! A series takes about 110 bytes with names of 20 bytes together, and about 720 with the longest names (measured with
//! a million of them), and what its tags take.

mod change;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use change::{Kept, Least};
use forebay_reading::quantity::format_duration;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingRef, Readings, Value};

use crate::series::{By, SeriesTable};
use crate::settings::Settings;
use crate::{Kind, Moment, Stats, Transform, Verdict};

/// Largest `delta`. An integer cannot move by much more.
const DELTA_MAX: f64 = 1e18;
/// Largest `percent`.
const PERCENT_MAX: f64 = 1e6;
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);
/// A century.
const HEARTBEAT_MAX: Duration = Duration::from_hours(36_525 * 24);
/// How many series are remembered at most, at most.
const MAX_SERIES_MAX: i64 = 10_000_000;
const MAX_SERIES_DEFAULT: usize = 1_000_000;
/// How far ahead of the gateway's clock a device's clock may be without being taken for wrong.
const AHEAD_MAX: Duration = Duration::from_mins(1);

/// What is configured.
#[derive(Clone, Copy, Debug)]
struct Deadband {
    by: By,
    least: Least,
    heartbeat: Option<Duration>,
    max_series: usize,
}

/// Reads `by`, `delta` or `percent`, `heartbeat` and `max_series`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn Kind>> {
    let by = By::read(settings);
    let delta = settings.number("delta", 0.0..=DELTA_MAX).map(Least::Delta);
    let percent = settings.number("percent", 0.0..=PERCENT_MAX).map(Least::Percent);
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

impl Kind for Deadband {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(Reducer {
            config: *self,
            seed: RandomState::new(),
            series: SeriesTable::new(self.max_series, self.by),
            evicted: 0,
        })
    }

    fn why(&self) -> String {
        let mut why = match self.least {
            Least::Delta(0.0) | Least::Percent(0.0) => "its value did not change".to_owned(),
            Least::Delta(delta) => format!("its value moved by less than {delta}"),
            Least::Percent(percent) => format!("its value moved by less than {percent} percent"),
        };
        if let Some(heartbeat) = self.heartbeat {
            let heartbeat = format_duration(heartbeat);
            write!(why, " within {heartbeat}").expect("writing to a string does not fail");
        }
        why
    }
}

/// The transform at work.
#[derive(Debug)]
struct Reducer {
    config: Deadband,
    /// For the hashes of texts.
    seed: RandomState,
    series: SeriesTable<Passed>,
    evicted: u64,
}

/// What is remembered of the last reading that passed.
#[derive(Clone, Copy, Debug)]
struct Passed {
    value: Kept,
    time: Timestamp,
}

impl Passed {
    fn new(reading: ReadingRef<'_>, seed: &RandomState) -> Passed {
        let value = match reading.value() {
            Value::Integer(number) => Kept::Integer(number),
            Value::Double(number) => Kept::Double(number),
            Value::Boolean(truth) => Kept::Boolean(truth),
            Value::Text(text) => Kept::Text(seed.hash_one(text)),
        };
        Passed { value, time: reading.time() }
    }

    /// Whether a reading comes too late to be compared with this one, or to take its place.
    fn is_before(&self, last: &Passed, wall: Timestamp) -> bool {
        let limit = wall.saturating_add_nanos(nanos(AHEAD_MAX));
        let clock_was_set_right = last.time > limit && self.time <= limit;
        self.time < last.time && !clock_was_set_right
    }
}

impl Deadband {
    /// Whether a reading that is not late passes.
    fn passes(&self, last: &Passed, new: &Passed) -> bool {
        let since = new.time.nanos() - last.time.nanos();
        // Less than nothing: the clock was set right.
        since < 0
            || self.least.is_reached(last.value, new.value)
            || self.heartbeat.is_some_and(|heartbeat| since >= nanos(heartbeat))
    }
}

impl Reducer {
    /// Looks at a reading, which passes if `passes` says so of the last one passed and of this one, or if there is
    /// nothing to compare it with.
    fn look(
        &mut self,
        reading: ReadingRef<'_>,
        now: Moment,
        passes: impl FnOnce(&Deadband, &Passed, &Passed) -> bool,
    ) -> Verdict {
        let new = Passed::new(reading, &self.seed);
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

impl Transform for Reducer {
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
