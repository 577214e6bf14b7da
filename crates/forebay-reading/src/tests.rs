use proptest::prelude::*;

use super::*;
use crate::timestamp::Timestamp;

fn parts<'a>(value: Value<'a>, tags: &'a [Tag<'a>]) -> ReadingParts<'a> {
    ReadingParts {
        device: "meter-7",
        sensor: "voltage",
        value: value.into(),
        time: Timestamp::MIN,
        unit: Some("V"),
        tags,
    }
}

#[track_caller]
fn check(parts: ReadingParts<'_>, message: &str) {
    let mut readings = Readings::default();
    let error = readings.push(&parts).expect_err("must be refused");
    assert_eq!(error.to_string(), message);
    assert!(readings.is_empty() && readings.iter().next().is_none());
}

#[test]
fn each_rule_is_enforced_and_its_message_has_the_limit_and_the_actual_value() {
    let long = "x".repeat(5000);
    let one = Value::Integer(1);
    check(ReadingParts { device: "", ..parts(one, &[]) }, "`device` must be 1 to 256 bytes long, got 0");
    check(
        ReadingParts { sensor: &long, ..parts(one, &[]) },
        "`sensor` must be 1 to 256 bytes long, got 5000",
    );
    check(
        ReadingParts { device: "a\u{7}", ..parts(one, &[]) },
        "`device` must not contain control characters, found U+0007 at byte 1",
    );
    check(
        ReadingParts { sensor: "é\u{85}", ..parts(one, &[]) },
        "`sensor` must not contain control characters, found U+0085 at byte 2",
    );
    check(
        ReadingParts { sensor: "a\u{7f}", ..parts(one, &[]) },
        "`sensor` must not contain control characters, found U+007F at byte 1",
    );
    check(parts(Value::Double(f64::NAN), &[]), "`value` must be a finite number");
    check(parts(Value::Text(&long), &[]), "`value` must be at most 4096 bytes long as a string, got 5000");
    check(
        ReadingParts { unit: Some(&long), ..parts(one, &[]) },
        "`unit` must be at most 64 bytes long, got 5000",
    );
    let many: Vec<Tag<'_>> = (0..33).map(|n| (n.to_string().into(), "v".into())).collect();
    check(parts(one, &many), "`tags` must be at most 32, got 33");
    let big = [("a".into(), long.as_str().into())];
    check(parts(one, &big), "a tag's name and value must be at most 256 bytes long, got 1 and 5000");
}

#[test]
fn the_limits_themselves_are_allowed() {
    let name = "n".repeat(NAME_BYTES_MAX);
    let value = "v".repeat(TEXT_VALUE_BYTES_MAX);
    let tags: Vec<Tag<'_>> =
        (0..TAGS_MAX).map(|n| (format!("{n:0>TAG_BYTES_MAX$}").into(), name.as_str().into())).collect();
    let unit = "u".repeat(UNIT_BYTES_MAX);
    let mut readings = Readings::default();
    let parts = ReadingParts {
        device: &name,
        sensor: &name,
        value: Value::Text(&value).into(),
        time: Timestamp::MAX,
        unit: Some(&unit),
        tags: &tags,
    };
    assert_eq!(readings.push(&parts), Ok(()));
    let reading = readings.iter().next().expect("one reading");
    assert_eq!(reading.value(), Value::Text(&value));
    assert_eq!(reading.tags().count(), TAGS_MAX);
}

#[test]
fn a_time_is_set_for_the_readings_after_a_position_and_for_no_other() {
    let mut readings = Readings::default();
    let mut positions = Vec::new();
    for length in [1, 300, 0, 4096] {
        positions.push(readings.end());
        readings.push(&parts(Value::Text(&"x".repeat(length)), &[])).expect("within the limits");
    }
    let later = Timestamp::from_nanos(5).expect("after 1970");
    readings.set_time_after(positions[2], later);
    readings.set_time_after(readings.end(), Timestamp::MAX);
    let times: Vec<_> = readings.iter().map(ReadingRef::time).collect();
    assert_eq!(times, [Timestamp::MIN, Timestamp::MIN, later, later]);
}

fn any_value() -> impl Strategy<Value = (u8, i64, f64, String)> {
    (0..4u8, any::<i64>(), -1e300..1e300, "\\PC{0,20}")
}

proptest! {
    #[test]
    fn encoded_readings_read_back(
        rows in prop::collection::vec(
            ("[a-z\"\\\\é]{1,20}", "[^\\p{C}]{1,20}", any_value(), 0..i64::MAX, "[a-z\n]{0,4}",
             prop::collection::vec(("\\PC{1,8}", "(?s).{0,8}"), 0..4)),
            0..20,
        )
    ) {
        let mut readings = Readings::default();
        let mut expected = Vec::new();
        for (device, sensor, (kind, integer, double, text), nanos, unit, tags) in &rows {
            let tags: Vec<Tag<'_>> = tags.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
            let value = match kind {
                0 => Value::Integer(*integer),
                1 => Value::Double(*double),
                2 => Value::Boolean(*integer > 0),
                _ => Value::Text(text),
            };
            let parts = ReadingParts {
                device, sensor, value: value.into(), time: Timestamp::from_nanos(*nanos).expect("not negative"),
                unit: (!unit.is_empty()).then_some(unit), tags: &tags,
            };
            prop_assert_eq!(readings.push(&parts), Ok(()));
            expected.push((device, sensor, value, *nanos, unit, tags));
        }
        prop_assert_eq!(readings.len(), expected.len());
        let mut iter = readings.iter();
        for (index, (device, sensor, value, nanos, unit, tags)) in expected.iter().enumerate() {
            prop_assert_eq!(iter.position().index, index);
            let reading = iter.next().expect("as many as were pushed");
            prop_assert_eq!(reading.device(), device.as_str());
            prop_assert_eq!(reading.sensor(), sensor.as_str());
            prop_assert_eq!(reading.value(), *value);
            prop_assert_eq!(reading.time().nanos(), *nanos);
            prop_assert_eq!(reading.unit().unwrap_or_default(), unit.as_str());
            let read: Vec<Tag<'_>> = reading.tags().map(|(n, v)| (n.into(), v.into())).collect();
            prop_assert_eq!(&read, tags);
        }
        prop_assert_eq!(iter.position(), readings.end());
    }
}
