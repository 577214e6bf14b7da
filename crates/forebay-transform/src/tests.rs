//! Helpers of the tests of transforms that pass or filter readings.

use forebay_reading::{ReadingParts, Readings};

use crate::settings::{SettingValue, Settings};
use crate::{Moment, Transform, Verdict};

/// Whether a reading comes for the first time, or again after a stop.
#[derive(Clone, Copy)]
pub(crate) enum Encounter {
    First,
    Again,
}

/// The settings of a transform, by their keys.
pub(crate) fn settings(values: &[(&str, SettingValue)]) -> Settings {
    Settings::new(values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

/// Whether a transform passes a reading; it must pass or filter it.
pub(crate) fn passes(
    transform: &mut dyn Transform,
    encounter: Encounter,
    parts: &ReadingParts<'_>,
    now: Moment,
) -> bool {
    let mut readings = Readings::default();
    readings.push(parts).expect("a reading");
    let reading = readings.iter().next().expect("one reading");
    let mut out = Readings::default();
    let verdict = match encounter {
        Encounter::First => transform.apply(reading, now, &mut out),
        Encounter::Again => transform.apply_again(reading, now, &mut out),
    };
    assert!(out.is_empty());
    assert!(matches!(verdict, Verdict::Pass | Verdict::Filter), "{verdict:?}");
    verdict == Verdict::Pass
}
