//! The examples of RFC 8428, section 5.1.

use super::{check, decode, show};
use crate::tests;

macro_rules! example {
    ($section:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/senml/rfc8428-", $section, ".json"))
    };
}

/// The canonical line of a reading: device, sensor, value, time of the day or with its date, unit.
fn line(device: &str, sensor: &str, value: &str, time: &str, unit: &str) -> String {
    let unit = if unit.is_empty() { String::new() } else { format!(r#","unit":"{unit}""#) };
    format!(r#"{{"device":"{device}","sensor":"{sensor}","value":{value},"time":"{time}"{unit}}}"#)
}

const DEVICE: &str = "urn:dev:ow:10e2073a01080063";
const NOW: &str = "2007-02-01T00:00:00Z";

#[test]
fn a_single_data_point_5_1_1() {
    check(example!("5.1.1"), &line(DEVICE, "value", "23.1", NOW, "Cel"));
}

#[test]
fn multiple_data_points_5_1_2() {
    check(
        example!("5.1.2a"),
        &[line(DEVICE, "voltage", "120.1", NOW, "V"), line(DEVICE, "current", "1.2", NOW, "A")].join("\n"),
    );
    let other = "urn:dev:ow:10e2073a0108006";
    let mut lines = vec![line(other, "voltage", "120.1", "2010-06-08T18:01:16.001Z", "V")];
    for (second, value) in [(11, "1.2"), (12, "1.3"), (13, "1.4"), (14, "1.5"), (15, "1.6"), (16, "1.7")] {
        lines.push(line(other, "current", value, &format!("2010-06-08T18:01:{second}.001Z"), "A"));
    }
    check(example!("5.1.2b"), &lines.join("\n"));
    let values = ["21.2", "21.3", "21.4", "21.4", "21.5", "21.5", "21.5", "21.6", "21.7"];
    let lines = (24..).step_by(10).zip(values).map(|(second, value)| {
        let time = format!("2011-10-31T13:{}:{:02}Z", 24 + second / 60, second % 60);
        line(DEVICE, "value", value, &time, "%RH")
    });
    check(example!("5.1.2c"), &lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn multiple_measurements_5_1_3_give_the_readings_of_resolved_5_1_4() {
    let decoded = |body| decode(body, &tests::rules()).expect("JSON");
    let (packed, resolved) = (decoded(example!("5.1.3")), decoded(example!("5.1.4")));
    assert_eq!(packed.readings, resolved.readings);
    assert_eq!((packed.readings.len(), packed.rejections.count()), (13, 0));
    let shown = show(example!("5.1.3"), &tests::rules());
    assert!(shown.starts_with(&line(DEVICE, "value", "20", "2011-10-31T13:24:24Z", "%RH")), "{shown}");
    assert!(shown.contains(&line(DEVICE, "value", "98", "2011-10-31T13:26:54Z", "%EL")), "{shown}");
    assert!(
        shown.ends_with(&(line(DEVICE, "value", "60.07967", "2011-10-31T13:27:24Z", "lat") + "\n")),
        "{shown}"
    );
}

#[test]
fn multiple_data_types_5_1_5() {
    check(
        example!("5.1.5"),
        &[
            line(DEVICE, "temp", "23.1", NOW, "Cel"),
            line(DEVICE, "label", "\"Machine Room\"", NOW, ""),
            line(DEVICE, "open", "false", NOW, ""),
            "3 /3/vd: binary data (`vd`) is not taken: a value is a number (`v`), a boolean (`vb`) or a string (`vs`)".to_owned(),
        ]
        .join("\n"),
    );
}

#[test]
fn a_collection_of_resources_5_1_6() {
    let time = "2011-10-31T16:27:09Z";
    check(
        example!("5.1.6"),
        &[
            line("2001:db8::2", "temperature", "25.2", time, "Cel"),
            line("2001:db8::2", "humidity", "30", time, "%RH"),
            line("2001:db8::1", "temperature", "12.3", time, "Cel"),
            line("2001:db8::1", "humidity", "67", time, "%RH"),
        ]
        .join("\n"),
    );
}

#[test]
fn setting_an_actuator_5_1_7() {
    check(
        example!("5.1.7a"),
        &[
            line(DEVICE, "temp", "23.1", NOW, "Cel"),
            line(DEVICE, "heat", "1", NOW, "/"),
            line(DEVICE, "fan", "0", NOW, "/"),
        ]
        .join("\n"),
    );
    let time = "2011-10-31T16:27:09Z";
    let light = |sensor, value, time| line("2001:db8:", sensor, value, time, "/");
    check(example!("5.1.7b"), &[light("3", "1", time), light("4", "1", time)].join("\n"));
    let later = "2011-10-31T16:27:09.100Z";
    check(
        example!("5.1.7c"),
        &[light("3", "0.5", time), light("4", "0.5", time), light("3", "0", later), light("4", "0", later)]
            .join("\n"),
    );
}
