use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Tag, Value};
use tokio::time::Instant;

use super::*;
use crate::settings;

fn reading(value: Value<'_>, site: Option<&str>) -> Readings {
    let mut readings = Readings::default();
    let tags: Vec<Tag<'_>> = site.into_iter().map(|site| ("site".into(), site.into())).collect();
    let parts = ReadingParts {
        device: "meter-7",
        sensor: "temperature",
        value: value.into(),
        time: Timestamp::MIN,
        unit: None,
        tags: &tags,
    };
    readings.push(&parts).expect("a reading");
    readings
}

fn kind(keep: settings::SettingValue) -> Result<Arc<dyn TransformKind>, String> {
    let mut settings = Settings::new([(KEEP.to_owned(), keep)].into());
    let kind = read(&mut settings);
    let faults = settings.finish();
    kind.ok_or_else(|| faults.iter().map(|fault| format!("{}: {}", fault.key, fault.problem)).collect())
}

/// The verdict on a reading, and whether it counts as failed.
#[track_caller]
fn check(keep: &str, readings: &Readings, expected: (Verdict, u64)) {
    let kind = kind(settings::SettingValue::Text(keep.to_owned())).expect(keep);
    let mut filter = kind.make();
    let mut out = Readings::default();
    let now = Moment { instant: Instant::now(), wall: Timestamp::MIN };
    let reading = readings.iter().next().expect("one");
    let verdict = filter.apply(reading, now, &mut out);
    assert_eq!((verdict, filter.stats().failed), expected, "{keep}");
    assert_eq!(filter.apply_again(reading, now, &mut out), Verdict::Pass, "{keep}");
    assert!(out.is_empty());
}

#[test]
fn readings_for_which_the_expression_is_true_pass_and_others_are_filtered() {
    let keep = "sensor != 'temperature' || (value > -40.0 && value < 125.0)";
    check(keep, &reading(Value::Integer(20), None), (Verdict::Pass, 0));
    check(keep, &reading(Value::Double(124.9), None), (Verdict::Pass, 0));
    check(keep, &reading(Value::Integer(125), None), (Verdict::Filter, 0));
    check("sensor.matches('^h')", &reading(Value::Integer(125), None), (Verdict::Filter, 0));
    check("value", &reading(Value::Boolean(false), None), (Verdict::Filter, 0));
}

#[test]
fn readings_on_which_the_expression_fails_pass_and_are_counted() {
    let keep = "value > -40.0 && value < 125.0";
    check(keep, &reading(Value::Text("error"), None), (Verdict::Pass, 1));
    check("tags.site == 'north'", &reading(Value::Integer(1), None), (Verdict::Pass, 1));
    check("tags.site == 'north'", &reading(Value::Integer(1), Some("south")), (Verdict::Filter, 0));
    check("value", &reading(Value::Integer(1), None), (Verdict::Pass, 1));
    check("size(value) > 1", &reading(Value::Integer(1), None), (Verdict::Pass, 1));
}

#[test]
fn a_fault_names_the_setting_and_the_reason_names_the_expression() {
    let check = |keep: settings::SettingValue, expected: &str| {
        assert_eq!(kind(keep).expect_err(expected), expected);
    };
    check(settings::SettingValue::Integer(1), "keep: must be a string, got a whole number");
    check(
        settings::SettingValue::Text("value * 2.0".to_owned()),
        "keep: line 1, column 7: must give true or false, got double",
    );
    let mut settings = Settings::default();
    assert!(read(&mut settings).is_none());
    let faults = settings.finish();
    assert_eq!(
        (faults[0].key.as_str(), faults[0].problem.as_str()),
        ("keep", "is missing: an expression that is true for what passes, such as 'value < 125.0'")
    );
    let kind = kind(settings::SettingValue::Text("value < 1.0".to_owned())).expect("an expression");
    assert_eq!(kind.why(), "`keep` is false for it: value < 1.0");
}
