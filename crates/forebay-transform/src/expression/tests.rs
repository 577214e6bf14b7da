mod agreement;
mod faults;
mod robust;
mod times;

use forebay_reading::{ReadingParts, Readings, Tag, Value};

use super::*;

/// A reading of an outdoor thermometer.
fn reading(value: Value<'_>) -> Readings {
    let mut readings = Readings::default();
    let tags: [Tag<'_>; 2] = [("site".into(), "north".into()), ("offset".into(), "0.5".into())];
    let parts = ReadingParts {
        device: "meter-7",
        sensor: "temperature",
        value: value.into(),
        time: Timestamp::parse("2007-02-01T12:30:00Z").expect("a time"),
        unit: Some("Cel"),
        tags: &tags,
    };
    readings.push(&parts).expect("a reading");
    readings
}

#[track_caller]
fn check(text: &str, value: Value<'_>, expected: Option<ExpressionValue<'_>>) {
    let wanted = [ResultType::Truth, ResultType::Value, ResultType::Text, ResultType::Time];
    let compiled = wanted.into_iter().map(|wanted| Expression::compile(text, wanted));
    let expression = compiled.reduce(Result::or).expect("something is wanted").expect(text);
    let readings = reading(value);
    let reading = readings.iter().next().expect("one");
    let outcome = expression.evaluate(&ReadingFields::of(reading)).ok();
    assert_eq!(outcome, expected, "{text}");
    assert_eq!(expression.interpret(reading).ok(), expected, "{text}, by the crate alone");
}

fn truth(truth: bool) -> Option<ExpressionValue<'static>> {
    Some(ExpressionValue::Boolean(truth))
}

fn double(number: f64) -> Option<ExpressionValue<'static>> {
    Some(ExpressionValue::Double(number))
}

fn text(text: &str) -> Option<ExpressionValue<'_>> {
    Some(ExpressionValue::Text(text.into()))
}

#[test]
fn a_number_is_a_double_however_it_was_sent() {
    check("value * 1.8 + 32.0", Value::Integer(20), double(68.0));
    check("value * 1.8 + 32.0", Value::Double(20.5), double(68.9));
    check("value == 20", Value::Integer(20), truth(true));
    check("value > 2", Value::Double(2.5), truth(true));
    check("value / 0.0", Value::Integer(1), double(f64::INFINITY));
    check("-value", Value::Integer(20), double(-20.0));
    check("value in [1, 2.5, 'x']", Value::Double(2.5), truth(true));
    check("value + 1.0", Value::Boolean(true), None);
    check("value > 1.0", Value::Text("on"), None);
    check("value < 1.0", Value::Boolean(false), None);
}

#[test]
fn every_field_has_a_name() {
    let one = Value::Integer(1);
    check("device", one, text("meter-7"));
    check("sensor + '/' + unit", one, text("temperature/Cel"));
    check("time == timestamp('2007-02-01T12:30:00Z')", one, truth(true));
    check("time.getHours()", one, Some(ExpressionValue::Integer(12)));
    let later = Timestamp::parse("2007-02-01T12:30:10Z").ok();
    check("time + duration('10s')", one, Some(ExpressionValue::Time(later)));
    check("timestamp('1969-12-31T23:59:59Z')", one, Some(ExpressionValue::Time(None)));
    check("timestamp('9999-12-31T00:00:00Z')", one, Some(ExpressionValue::Time(None)));
    check("value", Value::Text("on"), text("on"));
    check("!value", Value::Boolean(false), truth(true));
    check("18446744073709551615u", one, Some(ExpressionValue::Unsigned(u64::MAX)));
}

#[test]
fn tags_are_a_map_that_may_lack_a_name() {
    let one = Value::Integer(1);
    check("tags.site", one, text("north"));
    check("tags['site'].startsWith('n')", one, truth(true));
    check("tags.room", one, None);
    check("has(tags.room) ? tags.room : 'none'", one, text("none"));
    check("'site' in tags && !('room' in tags)", one, truth(true));
    check("1.0 in tags", one, truth(false));
    check("tags.?room.orValue('none')", one, text("none"));
    check("value + double(tags.offset)", one, double(1.5));
    check("size(tags) == 2 && tags.exists(name, name.endsWith('set'))", one, truth(true));
    check("tags.map(name, name)[0]", one, text("site"));
    check("tags == {'offset': '0.5', 'site': 'north'}", one, truth(true));
    check("tags == {'offset': '0.5', 'site': 'south'}", one, truth(false));
    check("tags[sensor]", one, None);
}

#[test]
fn a_side_that_decides_outweighs_one_that_fails() {
    let on = Value::Text("on");
    check("value > 1.0 || sensor == 'temperature'", on, truth(true));
    check("sensor == 'temperature' || value > 1.0", on, truth(true));
    check("value > 1.0 || sensor == 'humidity'", on, None);
    check("value > 1.0 && sensor == 'humidity'", on, truth(false));
    check("value > 1.0 && sensor == 'temperature'", on, None);
    check("sensor == 'humidity' ? value > 1.0 : true", on, truth(true));
    check("!(value > 1.0)", on, None);
}

#[test]
fn the_common_shapes_are_fast_and_the_others_are_not() {
    let is_fast = |text: &str| Expression::compile(text, ResultType::Truth).expect(text).is_fast();
    for text in [
        "sensor != \"temperature\" || (value > -40.0 && value < 125.0)",
        "has(tags.site) && tags.site in ['north', 'south']",
        "'site' in tags ? tags['site'].contains('or') : device.endsWith('7')",
        "(value - 32.0) / 1.8 >= -1.0 || value * 2.0 <= 1.0",
        "!(unit == '') && sensor.matches('^t')",
    ] {
        assert!(is_fast(text), "{text}");
    }
    for text in ["time > timestamp('2020-01-01T00:00:00Z')", "size(sensor) > 3", "int(value) % 2 == 0"] {
        assert!(!is_fast(text), "{text}");
    }
}

#[test]
fn an_expression_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Expression>();
}
