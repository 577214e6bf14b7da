use std::collections::HashMap;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{Readings, Tag, Value};
use proptest::prelude::*;

use super::*;

type Pair = (String, String);

fn reading(device: &str, sensor: &str) -> Readings {
    tagged(device, sensor, &[])
}

fn tagged(device: &str, sensor: &str, tags: &[(&str, &str)]) -> Readings {
    let tags: Vec<Tag<'_>> = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let parts = forebay_reading::ReadingParts {
        device,
        sensor,
        value: Value::Integer(1).into(),
        time: Timestamp::MIN,
        unit: None,
        tags: &tags,
    };
    let mut readings = Readings::default();
    readings.push(&parts).expect("a reading");
    readings
}

/// Uses a series; a new one gets the state `new`. Gives its number and state, and the names and the state of the series
/// that was evicted for it.
fn touch<S: BuildHasher>(
    table: &mut SeriesTable<usize, S>,
    device: &str,
    sensor: &str,
    new: usize,
) -> (SeriesId, usize, Option<(Pair, usize)>) {
    let readings = reading(device, sensor);
    let found = table.get_or_insert_with(readings.iter().next().expect("one reading"), || new);
    assert!(!found.is_new || *found.state == new);
    let evicted = found.evicted.map(|evicted| (owned(evicted.names()), evicted.state));
    (found.id, *found.state, evicted)
}

fn owned(names: SeriesIdentity<'_>) -> Pair {
    (names.device.to_owned(), names.sensor.to_owned())
}

#[test]
fn a_series_is_found_by_device_and_sensor() {
    let mut table = SeriesTable::new(100, By::Series);
    let long = "n".repeat(256);
    let names = [("a", "bc"), ("ab", "c"), ("a", "b"), ("a", "bcd"), ("tür", "°"), (&long, &long)];
    for (number, (device, sensor)) in names.into_iter().enumerate() {
        let (id, state, evicted) = touch(&mut table, device, sensor, number);
        let names = (device.to_owned(), sensor.to_owned());
        assert_eq!((owned(table.names(id)), state, evicted), (names, number, None));
    }
    for (number, (device, sensor)) in names.into_iter().enumerate() {
        assert_eq!(touch(&mut table, device, sensor, 99).1, number, "{device} {sensor}");
    }
    assert_eq!(table.len(), names.len());
}

/// The series of each set of tags, as the number of the first set in the same series.
fn series_of(by: By, sets: &[&[(&str, &str)]]) -> Vec<u32> {
    let mut table = SeriesTable::new(100, by);
    let mut series = |tags: &&[(&str, &str)]| {
        let readings = tagged("d", "s", tags);
        table.get_or_insert_with(readings.iter().next().expect("one reading"), || 0_usize).id.0
    };
    sets.iter().map(&mut series).collect()
}

#[test]
fn sets_of_tags_are_equal_in_any_order_and_only_then() {
    let (a, b, c) = (("a", "1"), ("b", "2"), ("c", "3"));
    let sets: &[&[(&str, &str)]] = &[
        &[],
        &[a],
        &[a, b, c],
        &[c, a, b],
        &[b, c, a],
        &[a, b],
        &[b, a],
        &[("a", "2")],
        &[("b", "1")],
        &[("", "")],
        &[("a", "1b")],
        &[("a1", "")],
        &[("a", "\n")],
        &[("\na", "1")],
    ];
    assert_eq!(series_of(By::Series, sets), [0, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(series_of(By::Sensor, sets), [0; 14]);
}

#[test]
fn a_series_with_the_most_tags_gives_them_back_in_order() {
    let names: Vec<_> = (0..32).map(|number| (format!("{number:0>256}"), "v".repeat(256))).collect();
    let tags: Vec<_> = names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reversed: Vec<_> = tags.iter().rev().copied().collect();
    let mut table = SeriesTable::new(100, By::Series);
    for (tags, is_new) in [(&reversed, true), (&tags, false)] {
        let readings = tagged("d", "s", tags);
        let found = table.get_or_insert_with(readings.iter().next().expect("one reading"), || 0_usize);
        assert_eq!((found.id, found.is_new), (SeriesId(0), is_new));
    }
    let kept: Vec<_> = table.names(SeriesId(0)).tags().collect();
    assert!(kept.iter().map(|(name, value)| (&**name, &**value)).eq(tags));
    table.remove(SeriesId(0));
    assert_eq!(table.len(), 0);
}

#[test]
fn a_full_table_evicts_an_unused_series_and_hands_it_out() {
    let mut table = SeriesTable::new(3, By::Series);
    for (number, device) in ["a", "b", "c"].into_iter().enumerate() {
        touch(&mut table, device, "s", number);
    }
    touch(&mut table, "a", "s", 9);
    let (_, _, evicted) = touch(&mut table, "d", "s", 3);
    assert_eq!(evicted, Some((("b".to_owned(), "s".to_owned()), 1)));
    assert_eq!(table.len(), 3);
    // It is unknown when it comes again.
    assert_eq!(touch(&mut table, "b", "s", 4).1, 4);
    assert_eq!(touch(&mut table, "a", "s", 5).1, 0);
}

#[test]
fn series_in_use_outlive_a_flood_of_others() {
    let mut table = SeriesTable::new(100, By::Series);
    for flood in 0..10_000 {
        let (_, state, _) = touch(&mut table, &format!("used-{}", flood % 40), "s", flood);
        assert!(state < 40, "forgotten before {flood}");
        touch(&mut table, &format!("flood-{flood}"), "s", flood);
    }
}

#[test]
fn a_series_in_the_place_of_a_removed_one_is_not_the_next_to_be_evicted() {
    let mut table = SeriesTable::new(3, By::Series);
    let ids = ["a", "b", "c"].map(|device| touch(&mut table, device, "s", 0).0);
    assert_eq!(table.remove(ids[0]), 0);
    assert_eq!(table.len(), 2);
    touch(&mut table, "d", "s", 1);
    let (_, _, evicted) = touch(&mut table, "e", "s", 2);
    assert_eq!(evicted.map(|((device, _), _)| device), Some("b".to_owned()));
}

#[test]
fn ten_times_too_many_series_leave_as_many_as_there_is_room_for() {
    for max_series in [1, 2, 63, 64, 65, CHUNK, CHUNK + 1] {
        let mut table = SeriesTable::new(max_series, By::Series);
        let mut evicted = 0;
        for number in 0..10 * max_series {
            evicted += usize::from(touch(&mut table, &number.to_string(), "s", number).2.is_some());
        }
        assert_eq!((table.len(), evicted), (max_series, 9 * max_series));
        let places: usize = table.chunks.iter().map(Vec::capacity).sum();
        assert!(places <= 2 * max_series.max(4), "{places} places for {max_series}");
    }
}

#[test]
#[should_panic(expected = "the number of a series in the table")]
fn the_number_of_a_removed_series_is_refused() {
    let mut table = SeriesTable::new(3, By::Series);
    let (id, _, _) = touch(&mut table, "a", "s", 0);
    table.remove(id);
    table.get_mut(id);
}

/// Gives every text the same hash.
#[derive(Clone, Copy, Default)]
struct Constant;

impl BuildHasher for Constant {
    type Hasher = Constant;

    fn build_hasher(&self) -> Constant {
        Constant
    }
}

impl Hasher for Constant {
    fn write(&mut self, _bytes: &[u8]) {}

    fn finish(&self) -> u64 {
        7
    }
}

/// The numbers of a device and of a sensor, and whether their series is removed or used.
type Step = (u8, u8, bool);

fn check_against_a_map<S: BuildHasher>(
    mut table: SeriesTable<usize, S>,
    max_series: usize,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut model: HashMap<Pair, (SeriesId, usize)> = HashMap::new();
    for (number, (device, sensor, is_removed)) in steps.iter().enumerate() {
        let names = (format!("d{device}"), format!("s{sensor}"));
        if *is_removed {
            if let Some((id, state)) = model.remove(&names) {
                prop_assert_eq!(owned(table.names(id)), names);
                prop_assert_eq!(table.remove(id), state);
            }
            continue;
        }
        let (id, state, evicted) = touch(&mut table, &names.0, &names.1, number);
        prop_assert_eq!(evicted.is_some(), model.len() == max_series && !model.contains_key(&names));
        if let Some((names, state)) = evicted {
            prop_assert_eq!(model.remove(&names), Some((id, state)));
        }
        let known = model.entry(names).or_insert((id, number));
        prop_assert_eq!((id, state), *known);
        known.1 = number;
        *table.get_mut(id) = number;
        prop_assert_eq!(table.len(), model.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_map_for_all_hashes(
        max_series in 1usize..20,
        steps in prop::collection::vec(any::<Step>().prop_map(|(d, s, removed)| (d % 6, s % 6, removed)), 1..300),
    ) {
        check_against_a_map(SeriesTable::new(max_series, By::Series), max_series, &steps)?;
        check_against_a_map(SeriesTable::with_seed(max_series, By::Sensor, Constant), max_series, &steps)?;
    }
}
