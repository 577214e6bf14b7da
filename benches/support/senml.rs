//! SenML packs to measure with: the readings of household meters, as in `sample.rs`.

/// Sensors of a meter with their units.
const SENSORS: [(&str, &str); 4] = [
    ("global_active_power", "kW"),
    ("global_reactive_power", "kW"),
    ("voltage", "V"),
    ("global_intensity", "A"),
];

/// A pack in the form that saves most: what records have in common stands in the first one.
pub(crate) fn with_base_fields(count: u64) -> String {
    let records = (0..count).map(|number| {
        let ((sensor, unit), value) = (sensor(number), value(number));
        format!(r#"{{"n":"{sensor}","u":"{unit}","t":{number},"v":{value}}}"#)
    });
    pack(
        std::iter::once(r#"{"bn":"urn:dev:ow:10e2073a01080063:","bt":1.170288e+09,"bver":10}"#.to_owned())
            .chain(records),
    )
}

/// A pack in which each record says everything.
pub(crate) fn full_records(count: u64) -> String {
    pack((0..count).map(|number| full_record(number, ":", sensor(number).1)))
}

/// The same with escapes, which only a general parser reads.
pub(crate) fn with_escapes(count: u64) -> String {
    pack((0..count).map(|number| full_record(number, "\\/", "\\u00b0C")))
}

fn full_record(number: u64, separator: &str, unit: &str) -> String {
    let (sensor, value) = (sensor(number).0, value(number));
    let (device, seconds) = (number % 977, 1_170_288_000 + number);
    format!(
        r#"{{"bn":"meter-{device:05}{separator}","n":"{sensor}","u":"{unit}","t":{seconds},"v":{value}}}"#
    )
}

fn sensor(number: u64) -> (&'static str, &'static str) {
    SENSORS[(number / 3) as usize % SENSORS.len()]
}

fn value(number: u64) -> String {
    // Multiples of a prime: the digits differ from one reading to the next.
    format!("{}.{:03}", number * 7919 % 241, number * 104_729 % 1000)
}

fn pack(records: impl Iterator<Item = String>) -> String {
    format!("[{}]", records.collect::<Vec<_>>().join(","))
}
