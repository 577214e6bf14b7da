//! What the tests of transforms share that pass a reading on or filter it.

use forebay_reading::{ReadingParts, Readings};

use crate::settings::{SettingValue, Settings};
use crate::{Moment, Transform, Verdict};

/// Whether a reading comes for the first time, or once more after a stop.
#[derive(Clone, Copy)]
pub(crate) enum Turn {
    First,
    Again,
}

/// The settings of a transform, by their keys.
pub(crate) fn settings(values: &[(&str, SettingValue)]) -> Settings {
    Settings::new(values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

/// Whether a transform lets a reading pass. It does nothing else with it than that, or filter it.
pub(crate) fn passes(
    transform: &mut dyn Transform,
    turn: Turn,
    parts: &ReadingParts<'_>,
    now: Moment,
) -> bool {
    let mut readings = Readings::default();
    readings.push(parts).expect("a reading");
    let reading = readings.iter().next().expect("one reading");
    let mut out = Readings::default();
    let verdict = match turn {
        Turn::First => transform.apply(reading, now, &mut out),
        Turn::Again => transform.apply_again(reading, now, &mut out),
    };
    assert!(out.is_empty());
    assert!(matches!(verdict, Verdict::Pass | Verdict::Filter), "{verdict:?}");
    verdict == Verdict::Pass
}
