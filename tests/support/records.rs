//! Readings as the buffer has them, told apart by their values.

use std::ops::Range;

use forebay::buffer::Part;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Value};

/// Readings of a device whose values are these numbers.
pub fn numbered(device: &str, numbers: Range<i64>) -> Readings {
    let mut readings = Readings::default();
    for number in numbers {
        let time = Timestamp::from_nanos(1_170_288_000_000_000_000).expect("2007");
        let value = Value::Integer(number).into();
        let parts = ReadingParts { device, sensor: "voltage", value, time, unit: None, tags: &[] };
        readings.push(&parts).expect("good parts");
    }
    readings
}

/// The numbers of [`numbered`] readings.
pub fn numbers(part: &Part) -> Vec<i64> {
    let number = |value| match value {
        Value::Integer(number) => number,
        Value::Double(_) | Value::Boolean(_) | Value::Text(_) => panic!("{value:?} is no whole number"),
    };
    part.iter().map(|reading| number(reading.value())).collect()
}
