#![expect(clippy::cast_possible_wrap, reason = "numbers of a test are small")]

use std::collections::VecDeque;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Value};
use proptest::prelude::*;

use super::*;
use crate::settings::SettingValue as Setting;
use crate::tests::{Encounter, passes, settings};

fn kind(window: &str, max_readings: i64) -> Arc<dyn TransformKind> {
    let window = Setting::Text(window.to_owned());
    let mut settings = settings(&[("window", window), ("max_readings", Setting::Integer(max_readings))]);
    let kind = read(&mut settings);
    assert_eq!(settings.finish(), []);
    kind.expect("settings without fault")
}

fn parts<'a>(device: &'a str, sensor: &'a str, value: Value<'a>, time: i64) -> ReadingParts<'a> {
    let time = Timestamp::from_nanos(time).expect("a time that can be kept");
    ReadingParts { device, sensor, value: value.into(), time, unit: None, tags: &[] }
}

/// Whether a reading passes.
fn look(
    memory: &mut dyn Transform,
    encounter: Encounter,
    parts: &ReadingParts<'_>,
    instant: Instant,
) -> bool {
    passes(memory, encounter, parts, Moment { instant, wall: Timestamp::MIN })
}

/// Readings of one series: their time, the milliseconds on the clock when they come, and whether they must pass.
#[track_caller]
fn check(memory: &mut dyn Transform, readings: &[(u64, i64, bool)]) {
    let start = Instant::now();
    for (at, time, expected) in readings {
        let parts = parts("d", "s", Value::Integer(1), *time);
        let passes = look(memory, Encounter::First, &parts, start + Duration::from_millis(*at));
        assert_eq!(passes, *expected, "{time} at {at}");
    }
}

#[test]
fn readings_are_the_same_if_series_time_and_value_are() {
    let (site, room) = (("site".into(), "attic".into()), ("room".into(), "1".into()));
    let [one_tag, two_tags, turned] =
        [vec![site.clone()], vec![room.clone(), site.clone()], vec![site, room]];
    let one = Value::Integer(1);
    let different = [
        parts("d", "s", one, 0),
        parts("d", "s", one, 1),
        parts("d", "s", Value::Integer(2), 0),
        parts("d", "s", Value::Double(1.0), 0),
        parts("d", "s", Value::Double(0.0), 0),
        parts("d", "s", Value::Double(-0.0), 0),
        parts("d", "s", Value::Text("1"), 0),
        parts("d", "s", Value::Text("1.0"), 0),
        parts("d", "s", Value::Text(""), 0),
        parts("d", "s", Value::Text("true"), 0),
        parts("d", "s", Value::Boolean(true), 0),
        parts("d", "s", Value::Boolean(false), 0),
        parts("ds", "s", one, 0),
        parts("d", "ss", one, 0),
        parts("s", "d", one, 0),
        ReadingParts { tags: &one_tag, ..parts("d", "s", one, 0) },
        ReadingParts { tags: &two_tags, ..parts("d", "s", one, 0) },
    ];
    let mut memory = kind("10m", 1000).make();
    let now = Instant::now();
    for parts in &different {
        assert!(look(&mut *memory, Encounter::First, parts, now), "{parts:?}");
    }
    for parts in different {
        assert!(!look(&mut *memory, Encounter::First, &parts, now), "{parts:?}");
        let dressed = ReadingParts { unit: Some("V"), ..parts };
        assert!(!look(&mut *memory, Encounter::First, &dressed, now), "{dressed:?}");
    }
    assert_eq!(memory.stats(), Stats { remembered: 17, ..Stats::default() });
    let turned = ReadingParts { tags: &turned, ..parts("d", "s", one, 0) };
    assert!(!look(&mut *memory, Encounter::First, &turned, now));
}

#[test]
fn readings_that_differ_in_tags_are_the_same_by_sensor() {
    let tags = [("site".into(), "attic".into())];
    let by = ("by", Setting::Text("sensor".to_owned()));
    let mut settings = settings(&[("window", Setting::Text("10m".to_owned())), by]);
    let mut memory = read(&mut settings).expect("settings without fault").make();
    let plain = parts("d", "s", Value::Integer(1), 0);
    assert!(look(&mut *memory, Encounter::First, &plain, Instant::now()));
    assert!(!look(&mut *memory, Encounter::First, &ReadingParts { tags: &tags, ..plain }, Instant::now()));
}

#[test]
fn a_reading_that_comes_after_the_window_passes_and_is_remembered_anew() {
    let mut memory = kind("1s", 1000).make();
    let readings = [
        (0, 7, true),
        (500, 7, false),
        (1_000, 7, false),
        // The duplicates did not lengthen the window.
        (1_001, 7, true),
        (2_001, 7, false),
        (2_002, 7, true),
    ];
    check(&mut *memory, &readings);
}

#[test]
fn the_oldest_reading_is_evicted_and_counted_when_there_is_no_room() {
    let mut memory = kind("1s", 2).make();
    check(
        &mut *memory,
        &[(0, 1, true), (1, 2, true), (2, 1, false), (3, 3, true), (4, 2, false), (5, 1, true)],
    );
    assert_eq!(memory.stats(), Stats { evicted: 2, remembered: 2, ..Stats::default() });
    let mut memory = kind("1s", 2).make();
    check(&mut *memory, &[(0, 1, true), (1, 2, true), (2_000, 3, true), (2_001, 4, true)]);
    assert_eq!(memory.stats(), Stats { evicted: 0, remembered: 2, ..Stats::default() });
}

#[test]
fn ten_times_too_many_readings_leave_as_many_as_there_is_room_for() {
    let mut memory = kind("30d", 3_000).make();
    let readings: Vec<_> = (0..30_000).map(|time| (0, time, true)).collect();
    check(&mut *memory, &readings);
    assert_eq!(memory.stats(), Stats { evicted: 27_000, remembered: 3_000, ..Stats::default() });
}

#[test]
fn expired_readings_are_forgotten_a_few_at_a_time_as_others_come() {
    let mut memory = kind("1s", 1_000_000).make();
    let readings: Vec<_> = (0..1_000).map(|time| (0, time, true)).collect();
    check(&mut *memory, &readings);
    let readings: Vec<_> = (1_000..2_000).map(|time| (2_000, time, true)).collect();
    check(&mut *memory, &readings);
    assert_eq!(memory.stats().remembered, 1_000);
}

#[test]
fn a_reading_that_passes_again_among_many_expired_ones_is_remembered_anew() {
    let mut memory = kind("1s", 1_000_000).make();
    let old = (0..100).map(|time| (0, time, true));
    let twice = [99, 98].into_iter().flat_map(|time| [(2_000, time, true), (2_000, time, false)]);
    let new = (100..200).map(|time| (2_001, time, true));
    let again = [(2_001, 99, false), (2_001, 98, false)];
    check(&mut *memory, &old.chain(twice).chain(new).chain(again).collect::<Vec<_>>());
    assert_eq!(memory.stats().remembered, 102);
}

#[test]
fn readings_that_passed_before_a_stop_pass_again_and_are_remembered() {
    let mut memory = kind("1s", 1000).make();
    let start = Instant::now();
    let parts = parts("d", "s", Value::Text("on"), 0);
    let later = |millis| start + Duration::from_millis(millis);
    assert!(look(&mut *memory, Encounter::Again, &parts, start));
    assert!(look(&mut *memory, Encounter::Again, &parts, later(500)));
    assert!(!look(&mut *memory, Encounter::First, &parts, later(1_000)));
    assert!(look(&mut *memory, Encounter::First, &parts, later(1_001)));
}

#[test]
fn the_reason_names_the_window() {
    assert_eq!(kind("10m", 1).why(), "the same reading came within 10m");
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
    let by = ("by", Setting::Text("device".to_owned()));
    let window = ("window", Setting::Text("10m".to_owned()));
    check(&[by, window], &["by: `device` is no way to tell series apart; known: series, sensor"]);
    check(&[], &["window: is missing: for how long the same reading is taken out, such as 10m"]);
    let (window, none) = (Setting::Text("31d".to_owned()), Setting::Integer(0));
    check(
        &[("window", window), ("max_readings", none)],
        &["window: must be from 1ms to 30d, got 31d", "max_readings: must be from 1 to 100000000, got 0"],
    );
}

proptest! {
    #[test]
    fn it_agrees_with_a_list_of_the_readings_that_passed(
        max_readings in prop_oneof![1usize..20, Just(1_000_000)],
        steps in prop::collection::vec((0i64..12, prop_oneof![Just(0u64), 0u64..4, Just(10), 0u64..30]), 1..400),
    ) {
        const WINDOW: u64 = 10;
        let mut memory = kind("10ms", max_readings as i64).make();
        let start = Instant::now();
        let (mut model, mut at, mut evicted) = (VecDeque::new(), 0, 0);
        for (time, later) in steps {
            at += later;
            model.retain(|(_, passed)| at - passed <= WINDOW);
            let parts = parts("d", "s", Value::Integer(1), time);
            let passes = look(&mut *memory, Encounter::First, &parts, start + Duration::from_millis(at));
            prop_assert_eq!(passes, model.iter().all(|(known, _)| *known != time), "{} at {}", time, at);
            if passes && model.len() == max_readings {
                model.pop_front();
                evicted += 1;
            }
            if passes {
                model.push_back((time, at));
            }
            let stats = memory.stats();
            prop_assert_eq!(stats.evicted, evicted);
            prop_assert!(stats.remembered >= model.len() as u64 && stats.remembered <= max_readings as u64);
        }
    }
}
