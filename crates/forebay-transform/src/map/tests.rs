use tokio::time::Instant;

use super::*;
use crate::settings;

const NOON: &str = "2026-02-01T12:00:00Z";

fn reading_of(value: Value<'_>, tags: &[(&str, &str)]) -> Readings {
    let mut readings = Readings::default();
    let tags: Vec<Tag<'_>> = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let parts = ReadingParts {
        device: "meter-7",
        sensor: "temperature",
        value: value.into(),
        time: Timestamp::parse(NOON).expect("a time"),
        unit: Some("Cel"),
        tags: &tags,
    };
    readings.push(&parts).expect("a reading");
    readings
}

fn reading(value: Value<'_>) -> Readings {
    reading_of(value, &[("site", "north"), ("room", "attic")])
}

fn kind(set: &[(&str, &str)]) -> Result<Arc<dyn TransformKind>, Vec<String>> {
    let text = |text: &str| settings::SettingValue::Text(text.to_owned());
    let set = set.iter().map(|(field, expression)| ((*field).to_owned(), text(expression))).collect();
    let mut settings = Settings::new([(SET.to_owned(), settings::SettingValue::Table(set))].into());
    let kind = read(&mut settings);
    let faults = settings.finish();
    kind.ok_or_else(|| faults.into_iter().map(|fault| format!("{}: {}", fault.key, fault.problem)).collect())
}

/// The reading that goes on in the place of another; `None` if that passes unchanged.
#[track_caller]
fn apply(set: &[(&str, &str)], readings: &Readings, failed: u64) -> Option<Readings> {
    let mut map = kind(set).expect("well set").make();
    let now = Moment { instant: Instant::now(), wall: Timestamp::MIN };
    let reading = readings.iter().next().expect("one");
    let (mut out, mut again) = (Readings::default(), Readings::default());
    let verdict = map.apply(reading, now, &mut out);
    assert_eq!(map.stats().failed, failed, "{set:?}");
    assert_eq!((map.apply_again(reading, now, &mut again), &again), (verdict, &out), "{set:?}");
    assert_eq!(out.len(), usize::from(verdict == Verdict::Change), "{set:?}");
    match verdict {
        Verdict::Change => Some(out),
        verdict => {
            assert_eq!(verdict, Verdict::Pass, "{set:?}");
            None
        }
    }
}

#[track_caller]
fn changes(set: &[(&str, &str)], readings: &Readings, expected: &Readings) {
    assert_eq!(apply(set, readings, 0).as_ref(), Some(expected), "{set:?}");
}

#[track_caller]
fn stays(set: &[(&str, &str)], readings: &Readings) {
    assert_eq!(apply(set, readings, 0), None, "{set:?}");
}

#[track_caller]
fn fails(set: &[(&str, &str)], readings: &Readings) {
    assert_eq!(apply(set, readings, 1), None, "{set:?}");
}

/// The same reading with other parts.
fn with(value: Value<'_>, change: impl FnOnce(&mut ReadingParts<'_>)) -> Readings {
    let tags = [("site".into(), "north".into()), ("room".into(), "attic".into())];
    let mut parts = ReadingParts {
        device: "meter-7",
        sensor: "temperature",
        value: value.into(),
        time: Timestamp::parse(NOON).expect("a time"),
        unit: Some("Cel"),
        tags: &tags,
    };
    change(&mut parts);
    let mut readings = Readings::default();
    readings.push(&parts).expect("a reading");
    readings
}

#[test]
fn every_field_can_be_set_and_all_expressions_see_the_unchanged_reading() {
    let twenty = Value::Integer(20);
    let fahrenheit = [("value", "value * 1.8 + 32.0"), ("unit", "'degF'")];
    changes(&fahrenheit, &reading(twenty), &with(Value::Double(68.0), |parts| parts.unit = Some("degF")));
    let swapped = with(twenty, |parts| (parts.device, parts.sensor) = ("temperature", "meter-7"));
    changes(&[("device", "sensor"), ("sensor", "device")], &reading(twenty), &swapped);
    let later = Timestamp::parse("2026-02-01T12:00:10Z").expect("a time");
    let later = with(twenty, |parts| parts.time = later);
    changes(&[("time", "time + duration('10s')")], &reading(twenty), &later);
    changes(&[("value", "unit")], &reading(twenty), &with(Value::Text("Cel"), |_| {}));
    changes(&[("value", "value > 1.0")], &reading(twenty), &with(Value::Boolean(true), |_| {}));
    changes(
        &[("sensor", "sensor + '_' + unit")],
        &reading(twenty),
        &with(twenty, |parts| parts.sensor = "temperature_Cel"),
    );
}

#[test]
fn an_int_becomes_an_integer_and_a_double_a_double() {
    let half = Value::Double(0.5);
    changes(&[("value", "7")], &reading(half), &with(Value::Integer(7), |_| {}));
    changes(&[("value", "7.0")], &reading(half), &with(Value::Double(7.0), |_| {}));
    changes(&[("value", "7u")], &reading(half), &with(Value::Integer(7), |_| {}));
    changes(&[("value", "int(value * 10.0)")], &reading(half), &with(Value::Integer(5), |_| {}));
    fails(&[("value", "18446744073709551615u")], &reading(half));
}

#[test]
fn a_tag_is_set_in_place_or_appended_and_an_empty_string_removes_it() {
    let one = Value::Integer(1);
    let tags = |tags: &[(&str, &str)]| reading_of(one, tags);
    changes(&[("tags.site", "'south'")], &reading(one), &tags(&[("site", "south"), ("room", "attic")]));
    changes(
        &[("tags.kind", "sensor")],
        &reading(one),
        &tags(&[("site", "north"), ("room", "attic"), ("kind", "temperature")]),
    );
    changes(&[("tags.site", "''")], &reading(one), &tags(&[("room", "attic")]));
    stays(&[("tags.floor", "''")], &reading(one));
    changes(
        &[("tags.a.b", "tags.room")],
        &tags(&[("room", "attic")]),
        &tags(&[("room", "attic"), ("a.b", "attic")]),
    );
    changes(&[("unit", "''")], &reading(one), &with(one, |parts| parts.unit = None));
}

#[test]
fn a_reading_that_has_the_new_values_already_passes_unchanged() {
    let large = Value::Integer(9_007_199_254_740_993);
    stays(&[("value", "value"), ("device", "'meter-7'"), ("tags.site", "tags.site")], &reading(large));
    stays(&[("value", "value"), ("unit", "'Cel'"), ("time", "time")], &reading(Value::Text("on")));
    // The large integer keeps its digits although another field changes.
    let set = [("value", "sensor == 'x' ? value * 2.0 : value"), ("unit", "'K'")];
    changes(&set, &reading(large), &with(large, |parts| parts.unit = Some("K")));
}

#[test]
fn a_reading_on_which_one_expression_fails_passes_unchanged_and_is_counted() {
    let one = reading(Value::Integer(1));
    let text = reading(Value::Text("error"));
    fails(&[("value", "value * 2.0"), ("unit", "'K'")], &text);
    fails(&[("unit", "'K'"), ("tags.site", "tags.floor")], &one);
    fails(&[("value", "value / 0.0")], &one);
    fails(&[("value", "value / 0.0 - value / 0.0")], &one);
    fails(&[("device", "unit == 'Cel' ? '' : device")], &one);
    fails(&[("sensor", "'a\\nb'")], &one);
    fails(&[("unit", "value")], &one);
    fails(&[("time", "time - duration('2000000h')")], &one);
    fails(&[("time", "timestamp('2300-01-01T00:00:00Z')")], &one);
    fails(&[("unit", &format!("'{}'", "x".repeat(65)))], &one);
    fails(&[("device", &format!("'{}'", "x".repeat(257)))], &one);
    fails(&[("tags.site", &format!("'{}'", "x".repeat(257)))], &one);
    let names: Vec<String> = (0..32).map(|number| format!("tags.t{number}")).collect();
    let set: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "sensor")).collect();
    fails(&set, &one);
    assert!(apply(&set, &reading_of(Value::Integer(1), &[]), 0).is_some(), "32 tags are allowed");
}

#[test]
fn every_fault_is_reported_with_its_key() {
    let check = |set: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(kind(set).expect_err("a fault"), expected, "{set:?}");
    };
    let missing =
        "set: is missing: a table of fields and expressions, such as { value = 'value * 1.8 + 32.0' }";
    check(&[], &[missing]);
    check(
        &[("valeu", "1.0"), ("value", "value * 2"), ("unit", "value > 1.0"), ("tags.", "''"), ("tags", "''")],
        &[
            "set.tags: is no field that can be set; known: device, sensor, value, time, unit, tags.NAME",
            "set.tags.: the name of a tag must be 1 to 256 bytes long",
            "set.unit: line 1, column 7: must give a string, got bool",
            "set.valeu: is no field that can be set; known: device, sensor, value, time, unit, tags.NAME",
            "set.value: line 1, column 7: `*` does not work on double and int: a number is a double, write 2.0",
        ],
    );
    let names: Vec<String> = (0..33).map(|number| format!("tags.t{number}")).collect();
    let set: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "sensor")).collect();
    check(&set, &["set: must set at most 32 tags, got 33"]);

    let mut settings = Settings::default();
    assert!(read(&mut settings).is_none());
    assert_eq!(format!("set: {}", settings.finish()[0].problem), missing);
}

#[test]
fn a_tag_may_be_set_in_a_table_of_its_own() {
    let text = |text: &str| settings::SettingValue::Text(text.to_owned());
    let tags = settings::SettingValue::Table([("site".to_owned(), text("'south'"))].into());
    let set = settings::SettingValue::Table([("tags".to_owned(), tags)].into());
    let mut settings = Settings::new([(SET.to_owned(), set)].into());
    assert!(read(&mut settings).is_some());
    assert_eq!(settings.finish(), Vec::new());
}
