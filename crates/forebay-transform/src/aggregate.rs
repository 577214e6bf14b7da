//! `aggregate`: replaces the readings of a time window by a few results, for each series: a device, a sensor and a set of
//! tags (`by = "sensor"`: a device and a sensor).
//!
//! A window is `every` long and starts at a multiple of that since the Unix epoch, by the readings' own time. It results
//! in one reading for each of the `functions` (`function`): sensor `SENSOR_FUNCTION`, time the window's start, the unit
//! that all its readings share, the tags of the series, and a tag `window` with its length. A series that has the most
//! tags allowed loses the last one to it, which is counted. Booleans count as the integers 0 and 1. A text cannot be
//! aggregated: such a reading passes unchanged, and so does one whose sensor's name is too long for the suffix.
//!
//! A window of a series closes
//! - when a reading of the series comes whose time is at or past its end and the `lateness`, or
//! - by the clock (`slots`): when the gateway's clock is past that, and at the latest when `every` and `lateness` have
//!   gone by since its first reading came, whatever the wall clocks say, or
//! - when there are more than `max_series` series with open windows, and this one was not used for long.
//!
//! A reading whose window is past goes into a late window. A series has at most one: a late reading of another slot
//! closes it and opens the next. So readings that a device sends in order after it was offline are aggregated window by
//! window, also while it sends live readings. A slot that gets readings after its window was closed has several results.
//!
//! Limits: 16 open windows and a late one for each series (by `LATENESS_MAX`), each of some 200 bytes and its unit; with
//! percentiles more (`quantiles`). The work for a reading does not depend on the number of series and windows, except for
//! its logarithm when a window is opened or closed.

mod aggregator;
mod deadlines;
mod function;
mod number;
mod numbers;
mod open;
mod quantiles;
mod results;
mod slots;
mod sum;
mod summary;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::time::Duration;

use forebay_reading::quantity::format_duration;

use crate::series::By;
use crate::settings::Settings;
use crate::{Transform, TransformKind};
use aggregator::Aggregator;
use function::{FUNCTIONS, Functions};

const EVERY_MIN: Duration = Duration::from_millis(1);
const EVERY_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Greatest lateness, as a multiple of the length of a window.
const LATENESS_MAX: u32 = 14;
const MAX_SERIES: usize = 100_000;
const MAX_SERIES_MAX: i64 = 10_000_000;

/// The settings.
#[derive(Clone, Debug)]
pub struct Aggregate {
    by: By,
    every: Duration,
    functions: Functions,
    lateness: Duration,
    keep_raw: bool,
    max_series: usize,
}

/// Reads the settings.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    let by = By::read(settings);
    let every = settings.duration("every", EVERY_MIN..=EVERY_MAX);
    if every.is_none() {
        settings.require("every", "the length of a window, such as 10s");
    }
    let functions = read_functions(settings);
    let lateness = settings.duration("lateness", Duration::ZERO..=EVERY_MAX).unwrap_or_default();
    let keep_raw = settings.truth("keep_raw").unwrap_or_default();
    let max_series = settings.count("max_series", 1..=MAX_SERIES_MAX).unwrap_or(MAX_SERIES);
    let (every, functions) = (every?, functions?);
    if lateness > LATENESS_MAX * every {
        let (most, got) = (format_duration(LATENESS_MAX * every), format_duration(lateness));
        settings
            .fault("lateness", format!("must be at most {LATENESS_MAX} times `every`, {most}, got {got}"));
        return None;
    }
    Some(Arc::new(Aggregate { by, every, functions, lateness, keep_raw, max_series }))
}

fn read_functions(settings: &mut Settings) -> Option<Functions> {
    let known = FUNCTIONS.names().collect::<Vec<_>>().join(", ");
    let Some(names) = settings.list("functions") else {
        settings.require(
            "functions",
            &format!("a list of what to make of the readings of a window; known: {known}"),
        );
        return None;
    };
    if names.is_empty() {
        settings.fault("functions", format!("must have at least one function; known: {known}"));
    }
    let mut functions = Functions::new();
    for name in names {
        match FUNCTIONS.find(&name) {
            Err(unknown) => settings.fault("functions", unknown.to_string()),
            Ok(function) if functions.iter().any(|(_, other)| other == function) => {
                settings.fault("functions", format!("has `{name}` more than once"));
            }
            Ok(function) => functions.push((name, *function)),
        }
    }
    (!functions.is_empty()).then_some(functions)
}

impl TransformKind for Aggregate {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(Aggregator::new(self))
    }

    fn why(&self) -> String {
        format!("it is part of the readings that `aggregate` makes every {}", format_duration(self.every))
    }
}
