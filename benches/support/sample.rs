//! Readings to measure with: those of household meters, about 110 bytes of JSON each, no two neighbours alike.

use std::fmt::Write as _;
use std::ops::Range;

/// Sensors of a meter with their units.
const SENSORS: &[(&str, &str)] = &[
    ("global_active_power", "kW"),
    ("global_reactive_power", "kW"),
    ("voltage", "V"),
    ("global_intensity", "A"),
];
const DEVICES: u64 = 977;
const SECONDS_A_DAY: u64 = 86_400;

/// Readings as the body of a request, with what stands before, between and after them: `["[", ",", "]"]` makes
/// an array, `["", "\n", "\n"]` lines. The same numbers always give the same bytes.
pub(crate) fn body(numbers: Range<u64>, [before, between, after]: [&str; 3]) -> String {
    let mut body = before.to_owned();
    for number in numbers.clone() {
        if number != numbers.start {
            body.push_str(between);
        }
        write_reading(number, &mut body);
    }
    body.push_str(after);
    body
}

/// Appends the `number`-th reading as one JSON object.
fn write_reading(number: u64, out: &mut String) {
    let (sensor, unit) = SENSORS[(number / 3) as usize % SENSORS.len()];
    let device = number % DEVICES;
    // Multiples of a prime: the digits differ from one reading to the next.
    let (whole, thousandths) = (number * 7919 % 241, number * 104_729 % 1000);
    let second = number % SECONDS_A_DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(
        out,
        "{{\"device\":\"meter-{device:05}\",\"sensor\":\"{sensor}\",\"value\":{whole}.{thousandths:03},\
         \"time\":\"2007-02-01T{hour:02}:{minute:02}:{second:02}Z\",\"unit\":\"{unit}\"}}"
    )
    .expect("writing to memory does not fail");
}
