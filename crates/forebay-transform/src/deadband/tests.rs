#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "numbers of a test are small"
)]

use std::collections::HashMap;

use forebay_reading::{ReadingParts, Tag};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::settings::SettingValue as Setting;
use crate::tests::{Encounter, passes, settings};

/// The gateway's clock, in seconds, in tests that do not depend on it.
const WALL: i64 = 1_000_000_000;

fn kind(values: &[(&str, Setting)]) -> Arc<dyn TransformKind> {
    let mut settings = settings(values);
    let kind = read(&mut settings);
    assert_eq!(settings.finish(), []);
    kind.expect("settings without fault")
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

fn delta(delta: f64) -> (&'static str, Setting) {
    ("delta", Setting::Number(delta))
}

/// Whether a reading passes; times are in milliseconds.
fn look(
    band: &mut dyn Transform,
    encounter: Encounter,
    device: &str,
    value: Value<'_>,
    time: i64,
    wall: Timestamp,
) -> bool {
    let time = Timestamp::from_nanos(time * 1_000_000).expect("a time that can be kept");
    let (sensor, unit, tags) = ("s", None, &[][..]);
    let parts = ReadingParts { device, sensor, value: value.into(), time, unit, tags };
    passes(band, encounter, &parts, Moment { instant: Instant::now(), wall })
}

fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000).expect("a time that can be kept")
}

/// Readings of one series: time in milliseconds, value, and whether the reading must pass.
#[track_caller]
fn check(values: &[(&str, Setting)], readings: &[(i64, Value<'_>, bool)]) {
    let mut band = kind(values).make();
    for (time, value, expected) in readings {
        let passes = look(&mut *band, Encounter::First, "d", *value, *time, wall(WALL));
        assert_eq!(passes, *expected, "{value:?} at {time}");
    }
}

fn double(number: f64) -> Value<'static> {
    Value::Double(number)
}

#[test]
fn a_reading_passes_if_it_is_the_first_or_moved_by_delta_from_the_last_one_passed() {
    let readings = [
        (0, double(20.0), true),
        (1, double(20.1), false),
        (2, double(20.19), false),
        (3, double(20.2), true),
        // Compared with the last one passed, not with the last one seen.
        (4, double(20.1), false),
        (5, double(20.0), true),
        (6, Value::Integer(20), false),
        (7, Value::Integer(19), true),
    ];
    check(&[delta(0.2)], &readings);
}

#[test]
fn any_change_passes_a_delta_of_zero_and_no_change_does_not() {
    let readings =
        [(0, double(0.1), true), (1, double(0.1), false), (2, double(0.100_000_000_000_000_02), true)];
    check(&[delta(0.0)], &readings);
    let readings = [
        (0, Value::Integer(i64::MAX), true),
        (1, Value::Integer(i64::MAX - 1), true),
        (1, Value::Integer(i64::MAX - 1), false),
    ];
    check(&[("delta", Setting::Integer(0))], &readings);
}

#[test]
fn percents_are_relative_to_the_last_reading_passed() {
    let percent = ("percent", Setting::Number(10.0));
    let readings = [
        (0, double(100.0), true),
        (1, double(109.9), false),
        (2, double(110.0), true),
        (3, double(100.0), false),
        (4, double(99.0), true),
        (5, double(-9.5), true),
        (6, double(-10.4), false),
    ];
    check(&[percent], &readings);
}

#[test]
fn a_reading_passes_once_its_own_time_is_heartbeat_after_the_last_one_passed() {
    let readings = [
        (0, double(1.0), true),
        (4_999, double(1.0), false),
        (5_000, double(1.0), true),
        (9_999, double(1.1), false),
        (10_100, double(1.1), true),
        (15_000, double(1.1), false),
    ];
    check(&[delta(0.2), ("heartbeat", text("5s"))], &readings);
}

#[test]
fn booleans_and_texts_pass_with_every_change_and_each_heartbeat() {
    let readings = [
        (0, Value::Boolean(true), true),
        (1, Value::Boolean(true), false),
        (2, Value::Boolean(false), true),
        (3, Value::Integer(0), true),
        (4, Value::Text("0"), true),
        (5, Value::Text("0"), false),
        (6, Value::Text("off"), true),
        (1_005, Value::Text("off"), false),
        (1_006, Value::Text("off"), true),
    ];
    check(&[delta(100.0), ("heartbeat", text("1s"))], &readings);
}

#[test]
fn a_late_reading_passes_and_later_ones_are_not_compared_with_it() {
    let readings = [
        (1_000, double(20.0), true),
        (900, double(20.0), true),
        (800, double(30.0), true),
        (1_100, double(20.1), false),
        // A reading of the same time is not late.
        (1_000, double(20.1), false),
        (1_000, double(25.0), true),
    ];
    check(&[delta(0.2)], &readings);
}

/// Readings: seconds by the device's clock, seconds by the gateway's, and whether the reading must pass.
#[track_caller]
fn check_clock(encounter: Encounter, readings: &[(i64, i64, bool)]) {
    let mut band = kind(&[delta(0.2)]).make();
    for (time, at, expected) in readings {
        let passes = look(&mut *band, encounter, "d", double(1.0), time * 1_000, wall(*at));
        assert_eq!(passes, *expected, "{time} at {at}");
    }
    let (time, at, _) = readings[readings.len() - 1];
    assert!(!look(&mut *band, Encounter::First, "d", double(1.0), time * 1_000 + 1, wall(at)));
}

#[test]
fn a_device_whose_clock_was_a_day_ahead_is_reduced_again_after_its_correction() {
    let day = 86_400;
    let readings = [
        (WALL + day, WALL, true),
        (WALL + day + 1, WALL + 1, false),
        // The clock was corrected: the first one passes, and the others are compared with it.
        (WALL + 2, WALL + 2, true),
        (WALL + 3, WALL + 3, false),
        // A late one still passes.
        (WALL + 1, WALL + 4, true),
        (WALL + 5, WALL + 5, false),
    ];
    check_clock(Encounter::First, &readings);
}

#[test]
fn a_clock_that_is_a_minute_ahead_does_not_count_as_wrong() {
    let late_twice = |ahead, late| {
        [(WALL + ahead, WALL, true), (late, WALL, true), (late, WALL, true), (WALL + ahead, WALL, false)]
    };
    check_clock(Encounter::First, &late_twice(60, WALL));
    check_clock(Encounter::First, &[(WALL + 61, WALL, true), (WALL, WALL, true), (WALL + 1, WALL, false)]);
    // Set back, but still wrong.
    check_clock(Encounter::First, &late_twice(100, WALL + 61));
    check_clock(
        Encounter::First,
        &[(WALL + 100, WALL, true), (WALL + 60, WALL, true), (WALL + 60, WALL, false)],
    );
}

#[test]
fn readings_that_passed_before_a_stop_pass_again_and_later_ones_are_compared_with_them() {
    let mut band = kind(&[delta(0.2)]).make();
    let mut look = |turn, value, time| look(&mut *band, turn, "d", double(value), time, wall(WALL));
    assert!(look(Encounter::Again, 1.0, 1_000));
    assert!(look(Encounter::Again, 1.1, 2_000));
    assert!(!look(Encounter::First, 1.2, 3_000));
    // A reading that was late before the stop is late again, and the next one is not compared with it.
    assert!(look(Encounter::Again, 9.0, 500));
    assert!(!look(Encounter::First, 1.0, 4_000));
    assert!(look(Encounter::First, 1.3, 5_000));
    let day = 86_400;
    check_clock(Encounter::Again, &[(WALL + day, WALL, true), (WALL, WALL, true)]);
}

#[test]
fn series_are_separate_and_never_more_than_there_is_room_for() {
    let mut band = kind(&[delta(1e9), ("max_series", Setting::Integer(50))]).make();
    for number in 0..500 {
        assert!(look(&mut *band, Encounter::First, &format!("d{number}"), double(1.0), 0, wall(WALL)));
    }
    assert_eq!(band.stats(), Stats { evicted: 450, remembered: 50, ..Stats::default() });
    // A series that was evicted begins anew.
    assert!(look(&mut *band, Encounter::First, "d0", double(1.0), 1, wall(WALL)));
    assert!(!look(&mut *band, Encounter::First, "d0", double(1.0), 2, wall(WALL)));
}

#[test]
fn the_reason_names_the_least_change() {
    let check = |values: &[(&str, Setting)], why: &str| assert_eq!(kind(values).why(), why);
    let heartbeat = ("heartbeat", text("5m"));
    check(&[delta(0.2)], "its value moved by less than 0.2");
    check(&[delta(0.2), heartbeat.clone()], "its value moved by less than 0.2 within 5m");
    check(&[("percent", Setting::Integer(1))], "its value moved by less than 1 percent");
    check(&[delta(0.0), heartbeat], "its value did not change within 5m");
}

#[test]
fn each_fault_in_the_settings_is_reported() {
    let check = |values: &[(&str, Setting)], expected: &[&str]| {
        let mut settings = settings(values);
        read(&mut settings);
        let faults: Vec<_> =
            settings.finish().into_iter().map(|fault| format!("{}: {}", fault.key, fault.problem)).collect();
        assert_eq!(faults, expected);
    };
    check(&[], &["delta: is missing: the least change that counts, such as 0.2 (or `percent`)"]);
    let both = [delta(1.0), ("percent", Setting::Number(1.0))];
    check(&both, &["percent: cannot stand beside `delta`, leave one out"]);
    check(&[delta(-0.1)], &["delta: must be from 0 to 1000000000000000000, got -0.1"]);
    check(&[delta(f64::NAN)], &["delta: must be from 0 to 1000000000000000000, got NaN"]);
    check(&[("percent", text("1%"))], &["percent: must be a number, got a string"]);
    check(
        &[delta(1.0), ("heartbeat", text("0s")), ("max_series", Setting::Integer(0))],
        &["heartbeat: must be from 1ms to 36525d, got 0s", "max_series: must be from 1 to 10000000, got 0"],
    );
}

/// The readings of one series that passed, in order, and those that must pass by exact arithmetic.
#[derive(Default)]
struct Model {
    passed: Vec<(i64, i64)>,
    last: Option<(i64, i64)>,
}

/// The rules of the model, in units of the last decimal place.
#[derive(Clone, Copy, Debug)]
struct Rules {
    delta: Option<i64>,
    /// In tenths.
    percent: i64,
    heartbeat: Option<i64>,
}

impl Rules {
    fn settings(self, scale: i64) -> Vec<(&'static str, Setting)> {
        let least = match self.delta {
            Some(least) => delta(least as f64 / scale as f64),
            None => ("percent", Setting::Number(self.percent as f64 / 10.0)),
        };
        let heartbeat = self.heartbeat.map(|heartbeat| ("heartbeat", text(&format!("{heartbeat}ms"))));
        [least].into_iter().chain(heartbeat).collect()
    }

    fn is_reached(self, last: i64, new: i64) -> bool {
        let distance = (new - last).abs();
        let is_enough = match self.delta {
            Some(delta) => distance >= delta,
            None => distance * 1000 >= self.percent * last.abs(),
        };
        distance > 0 && is_enough
    }
}

impl Model {
    fn passes(&mut self, rules: Rules, time: i64, number: i64) -> bool {
        let is_late = self.last.is_some_and(|(last, _)| time < last);
        let passes = self.last.is_none_or(|(last_time, last)| {
            is_late
                || rules.is_reached(last, number)
                || rules.heartbeat.is_some_and(|heartbeat| time - last_time >= heartbeat)
        });
        if passes {
            self.passed.push((time, number));
        }
        if passes && !is_late {
            self.last = Some((time, number));
        }
        passes
    }

    /// The value at a time, as a receiver of the passed readings knows it.
    fn held(&self, time: i64) -> Option<i64> {
        let before = self.passed.iter().filter(|(passed, _)| *passed <= time);
        before.max_by_key(|(passed, _)| *passed).map(|(_, number)| *number)
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let least = prop_oneof![
        (0i64..30).prop_map(|delta| (Some(delta), 0)),
        (0i64..200).prop_map(|percent| (None, percent)),
    ];
    let heartbeat = prop::option::of(1i64..2_000);
    (least, heartbeat).prop_map(|((delta, percent), heartbeat)| Rules { delta, percent, heartbeat })
}

/// Steps of random walks: the series, the change, and how much later (or earlier) in milliseconds.
fn steps(later: std::ops::Range<i64>) -> impl Strategy<Value = Vec<(u8, i64, i64)>> {
    prop::collection::vec((0u8..4, -20i64..=20, later), 1..300)
}

fn value(number: i64, scale: i64) -> Value<'static> {
    if scale == 1 { Value::Integer(number) } else { Value::Double(number as f64 / scale as f64) }
}

proptest! {
    #[test]
    fn readings_pass_as_exact_arithmetic_says_also_with_late_ones(
        rules in rules(),
        scale in prop::sample::select(vec![1, 10, 1_000]),
        start in -10_000i64..10_000,
        steps in steps(-300..500),
    ) {
        let mut band = kind(&rules.settings(scale)).make();
        let (mut models, mut numbers, mut time) = (HashMap::<u8, Model>::new(), [start; 4], 200_000);
        for (series, change, later) in steps {
            time += later;
            let number = &mut numbers[usize::from(series)];
            *number += change;
            let model = models.entry(series).or_default();
            let device = format!("d{series}");
            let passes = look(&mut *band, Encounter::First, &device, value(*number, scale), time, wall(WALL));
            prop_assert_eq!(passes, model.passes(rules, time, *number), "{} at {}", number, time);
            // The promise to a receiver: the last value passed is near enough to every one that was filtered.
            if !passes {
                let held = model.held(time).expect("something passed before");
                prop_assert!(!rules.is_reached(held, *number), "{} held for {}", held, number);
            }
        }
        prop_assert_eq!(band.stats().remembered, models.len() as u64);
    }

    #[test]
    fn passed_neighbours_are_apart_by_delta_or_by_the_heartbeat(
        rules in rules(),
        scale in prop::sample::select(vec![1, 10, 1_000]),
        start in -10_000i64..10_000,
        steps in steps(0..500),
    ) {
        let mut band = kind(&rules.settings(scale)).make();
        let (mut number, mut time, mut last) = (start, 0, None);
        for (_, change, later) in steps {
            time += later;
            number += change;
            if !look(&mut *band, Encounter::First, "d", value(number, scale), time, wall(WALL)) {
                continue;
            }
            if let Some((last_time, last)) = last.replace((time, number)) {
                let is_due = rules.heartbeat.is_some_and(|heartbeat| time - last_time >= heartbeat);
                prop_assert!(is_due || rules.is_reached(last, number), "{} after {}", number, last);
            }
        }
    }

    #[test]
    fn an_evicted_series_loses_no_reading_that_should_pass(
        rules in rules(),
        max_series in 1i64..4,
        steps in steps(0..500),
    ) {
        let mut settings = rules.settings(10);
        settings.push(("max_series", Setting::Integer(max_series)));
        let mut band = kind(&settings).make();
        let (mut passed, mut numbers, mut time) = (HashMap::new(), [0; 4], 0);
        for (series, change, later) in steps {
            time += later;
            let number = &mut numbers[usize::from(series)];
            *number += change;
            let device = format!("d{series}");
            if look(&mut *band, Encounter::First, &device, value(*number, 10), time, wall(WALL)) {
                passed.insert(series, (time, *number));
            } else {
                let (last_time, last) = passed[&series];
                prop_assert!(!rules.is_reached(last, *number));
                prop_assert!(rules.heartbeat.is_none_or(|heartbeat| time - last_time < heartbeat));
            }
            prop_assert!(band.stats().remembered <= max_series as u64);
        }
    }

    #[test]
    fn filtered_doubles_of_any_size_are_near_the_last_one_passed(
        delta in 0.0..=1e18,
        numbers in prop::collection::vec(prop_oneof![prop::num::f64::NORMAL, -1e18..1e18, Just(0.0)], 1..50),
    ) {
        let mut band = kind(&[("delta", Setting::Number(delta))]).make();
        let mut last = f64::NAN;
        for (time, number) in numbers.into_iter().enumerate() {
            if look(&mut *band, Encounter::First, "d", double(number), time as i64, wall(WALL)) {
                prop_assert_ne!(number, last);
                last = number;
            } else {
                prop_assert!((number - last).abs() <= delta);
            }
        }
    }
}

#[test]
fn a_series_has_its_tags_unless_it_goes_by_sensor() {
    let passes = |by: &[(&str, Setting)]| {
        let mut band = kind(&[&[delta(1.0)], by].concat()).make();
        let tags: [&[(&str, &str)]; 5] =
            [&[("a", "1")], &[("a", "2")], &[("a", "1"), ("b", "1")], &[("b", "1"), ("a", "1")], &[]];
        tags.map(|tags| {
            let tags: Vec<Tag<'_>> =
                tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let (value, time) = (Value::Integer(7).into(), Timestamp::MIN);
            let parts = ReadingParts { device: "d", sensor: "s", value, time, unit: None, tags: &tags };
            let mut readings = Readings::default();
            readings.push(&parts).expect("a reading");
            let reading = readings.iter().next().expect("one reading");
            let now = Moment { instant: Instant::now(), wall: wall(WALL) };
            band.apply(reading, now, &mut Readings::default()) == Verdict::Pass
        })
    };
    assert_eq!(passes(&[]), [true, true, true, false, true]);
    assert_eq!(passes(&[("by", text("series"))]), [true, true, true, false, true]);
    assert_eq!(passes(&[("by", text("sensor"))]), [true, false, false, false, false]);
}
