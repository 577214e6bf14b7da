use std::collections::{BTreeMap, BTreeSet};

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, ReadingRef, Value};
use forebay_transform::KINDS;
use forebay_transform::scope::Scope;
use forebay_transform::settings::{SettingValue as Setting, Settings};
use proptest::prelude::*;

use super::*;
use crate::buffer::lease::{Record, RecordParts};
use crate::buffer::waiters::Waiters;

/// A transform of some kind with these settings.
fn config(kind: &str, settings: &[(&str, Setting)]) -> TransformConfig {
    let values = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let mut settings = Settings::new(values.collect());
    let scope = Scope::read(&mut settings);
    let read = KINDS.find(kind).expect("a kind");
    let kind_read = read(&mut settings).expect("good settings");
    assert_eq!(settings.finish(), []);
    TransformConfig { name: kind.to_owned(), scope, kind: kind_read }
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

fn list(items: &[&str]) -> Setting {
    Setting::List(items.iter().map(|item| text(item)).collect())
}

/// One transform of each kind, and a window whose readings also pass.
fn chain() -> Vec<TransformConfig> {
    vec![
        config("filter", &[("keep", text("value < 90.0"))]),
        config(
            "map",
            &[
                ("set", Setting::Table([("value".to_owned(), text("value + 0.5"))].into())),
                ("sensors", list(&["b"])),
            ],
        ),
        config("deadband", &[("delta", Setting::Number(3.0)), ("devices", list(&["0"]))]),
        config(
            "aggregate",
            &[
                ("every", text("10s")),
                ("functions", list(&["count"])),
                ("keep_raw", Setting::Truth(true)),
                ("sensors", list(&["b"])),
            ],
        ),
        TransformConfig {
            name: "merging".to_owned(),
            ..config(
                "aggregate",
                &[
                    ("every", text("5s")),
                    ("functions", list(&["sum", "count"])),
                    ("sensors", list(&["a", "b_count"])),
                ],
            )
        },
    ]
}

fn moment() -> Moment {
    Moment { instant: Instant::now(), wall: Timestamp::from_nanos(0).expect("1970") }
}

/// A record of readings, each with device, whether the sensor is `b`, value and second.
fn part(seq: u64, made_by: Option<&str>, readings: &[(u8, bool, i64, i64)]) -> Part {
    let mut encoded = Readings::default();
    for (device, is_b, value, second) in readings {
        let parts = ReadingParts {
            device: &device.to_string(),
            sensor: if *is_b { "b" } else { "a" },
            value: Value::Integer(*value).into(),
            time: Timestamp::from_nanos(second * 1_000_000_000).expect("1970"),
            unit: None,
            tags: &[],
        };
        encoded.push(&parts).expect("good parts");
    }
    whole(seq, made_by, encoded)
}

fn whole(seq: u64, made_by: Option<&str>, readings: Readings) -> Part {
    Part::whole(Record::new(RecordParts {
        readings,
        seq: Some(seq),
        made_by: made_by.map(Arc::from),
        held_bytes: 0,
        accepted_at: Instant::now(),
        waiters: Waiters::default(),
    }))
}

/// The places of readings: the number of their record, and their index in it.
fn places(span: crate::buffer::span::Span, count: usize) -> impl Iterator<Item = (u64, u32)> {
    let count = u32::try_from(count).expect("few");
    (span.from.index..span.from.index + count).map(move |index| (span.from.seq, index))
}

fn value(reading: ReadingRef<'_>) -> f64 {
    reading.value_as_double().expect("a number")
}

#[test]
fn a_part_is_split_in_order_and_changed_readings_replace_the_originals() {
    let mut transforms = Transforms::new(&chain());
    let mut transformed = TransformOutput::default();
    let readings = [
        (1, true, 1, 0),
        (1, true, 95, 1),
        (1, true, 2, 2),
        (1, false, 7, 3),
        (0, true, 5, 4),
        (0, true, 6, 5),
    ];
    transforms.apply(part(7, None, &readings), moment(), &mut transformed);
    let passed: Vec<_> =
        transformed.passed.iter().map(|part| part.iter().map(value).collect::<Vec<_>>()).collect();
    assert_eq!(passed, [vec![1.5], vec![2.5], vec![5.5]]);
    let accepted: Vec<_> = transformed.passed.iter().flat_map(Part::iter_as_accepted).map(value).collect();
    assert_eq!(accepted, [1.0, 2.0, 5.0]);
    let filtered: Vec<_> =
        transformed.removed.iter().map(|taken| (taken.outcome, taken.hold.len())).collect();
    assert_eq!(filtered, [(Outcome::Filtered { transform: 0 }, 1), (Outcome::Filtered { transform: 2 }, 1)]);
    assert_eq!((transforms.held(), transformed.departed.readings), (1, 1));
    assert!(transformed.passed.iter().all(|part| part.open_windows().is_some()));
}

#[test]
fn readings_run_again_after_a_stop_are_changed_as_before_and_all_pass() {
    let mut transforms = Transforms::new(&chain());
    let mut transformed = TransformOutput::default();
    // The filter would remove these values now, but they may have been sent already.
    let readings = [(0, true, 95, 0), (0, true, 95, 1), (1, false, 3, 2)];
    transforms.apply_again(part(7, None, &readings), moment(), &mut transformed);
    let passed: Vec<_> = transformed.passed.iter().flat_map(Part::iter).map(value).collect();
    assert_eq!(passed, [95.5, 95.5, 3.0]);
    assert!(transformed.removed.is_empty() && transforms.held() == 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_reading_passes_or_is_filtered_or_is_held_exactly_once(
        steps in prop::collection::vec(
            (prop::collection::vec((0..3u8, any::<bool>(), 0..100i64, 0..60i64), 1..12), 0..6u8),
            1..25,
        ),
    ) {
        let mut transforms = Transforms::new(&chain());
        let mut seq = 0;
        let mut seen: BTreeSet<(u64, u32)> = BTreeSet::new();
        let mut held: BTreeMap<(u64, u32), ()> = BTreeMap::new();
        let mut made: Vec<(String, Readings)> = Vec::new();
        let mut counted: u64 = 0;
        let mut came: u64 = 0;
        let total = steps.len();
        for (step, (readings, action)) in steps.into_iter().enumerate() {
            let mut parts = vec![part(seq, None, &readings)];
            came += readings.len() as u64;
            seq += 1;
            // The results come back, as from the buffer.
            for (name, readings) in made.drain(..) {
                came += readings.len() as u64;
                parts.push(whole(seq, Some(&name), readings));
                seq += 1;
            }
            let mut transformed = TransformOutput::default();
            parts.into_iter().for_each(|part| transforms.apply(part, moment(), &mut transformed));
            let passed = transformed.passed.iter().flat_map(|part| places(part.span().expect("a place"), part.len()));
            let filtered = transformed
                .removed
                .iter()
                .flat_map(|taken| places(taken.hold.span().expect("a place"), taken.hold.len()));
            let (passed, filtered): (Vec<_>, Vec<_>) = (passed.collect(), filtered.collect());
            for place in passed.iter().chain(&filtered) {
                prop_assert!(seen.insert(*place), "twice: {:?}", place);
            }
            counted += (passed.len() + filtered.len()) as u64;
            match action {
                0 => transforms.close_early(Instant::now()),
                1 => transforms.close_kept_for_good(Instant::now()),
                2 => transforms.close_due(Instant::now() + Duration::from_secs(3600)),
                _ => {}
            }
            if step + 1 == total {
                while transforms.has_windows() {
                    transforms.close_for_good(Instant::now());
                }
            }
            for WindowResults { derivation, kept } in transforms.take_results(step + 1 == total || action == 3, Instant::now()) {
                kept.iter().for_each(|windows| windows.close());
                for hold in &derivation.merged {
                    for place in places(hold.span().expect("a place"), hold.len()) {
                        prop_assert!(held.insert(place, ()).is_none() && seen.insert(place), "merged twice: {:?}", place);
                        counted += 1;
                    }
                }
                made.push((derivation.made_by.to_string(), derivation.readings));
            }
            prop_assert_eq!(counted + transforms.held(), came);
        }
        prop_assert_eq!(transforms.held(), 0);
        prop_assert!(!transforms.has_results() && !transforms.has_kept_windows());
    }
}
