//! Packs with and without base fields, and texts that are almost packs.

use std::collections::BTreeMap;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Value};
use proptest::prelude::*;

use super::NOW;
use crate::json::tests::same;
use crate::senml::{read::read, scan::scan};
use crate::tests::rules;

/// A measurement and how it is written.
#[derive(Clone, Debug)]
struct Measured {
    device: usize,
    sensor: usize,
    unit: usize,
    value: Kind,
    nanos: i64,
    /// Which base fields its record sets, as bits, and to what.
    bases: u8,
    base_value: i32,
    base_nanos: i64,
    order: prop::sample::Index,
    space: &'static str,
}

#[derive(Clone, Debug)]
enum Kind {
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Text(String),
}

const DEVICES: [&str; 3] = ["urn:dev:ow:10e2073a01080063", "2001:db8::2", "meter-7"];
const SENSORS: [&str; 3] = ["voltage", "a/b_c:d", "x"];
const UNITS: [&str; 3] = ["", "V", "\\u00b5\\\\"];
const UNITS_READ: [&str; 3] = ["", "V", "µ\\"];

fn measured() -> impl Strategy<Value = Measured> {
    let value = prop_oneof![
        any::<i32>().prop_map(|number| Kind::Integer(number.into())),
        prop::num::f64::NORMAL.prop_map(Kind::Double),
        any::<bool>().prop_map(Kind::Boolean),
        "(?s).{0,8}".prop_map(Kind::Text),
    ];
    // From 1978-07-04, where times become absolute, to the last timestamp.
    let nanos = prop_oneof![(268_435_456_000_000_000..i64::MAX), (NOW * 1_000_000_000..NOW * 1_000_000_100)];
    let base_nanos = prop_oneof![Just(0), any::<i32>().prop_map(i64::from), 0..i64::MAX];
    let names = (0..DEVICES.len(), 0..SENSORS.len(), 0..UNITS.len());
    let bases = (any::<u8>(), any::<i32>(), base_nanos);
    let form = (any::<prop::sample::Index>(), prop::sample::select(vec!["", " ", "\n\t"]));
    (names, value, nanos, bases, form).prop_map(
        |((device, sensor, unit), value, nanos, bases, (order, space))| {
            let (bases, base_value, base_nanos) = bases;
            Measured { device, sensor, unit, value, nanos, bases, base_value, base_nanos, order, space }
        },
    )
}

/// Seconds with nine digits after the point.
fn seconds(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}.{:09}", nanos.abs() / 1_000_000_000, nanos.abs() % 1_000_000_000)
}

/// Writes measurements as a pack; a record leaves out, or compensates, the base fields in force.
#[derive(Default)]
struct Writer {
    device: Option<usize>,
    unit: Option<usize>,
    value: Option<i32>,
    nanos: i128,
}

impl Writer {
    fn record(&mut self, measured: &Measured) -> String {
        let mut fields = BTreeMap::new();
        let sets = |bit: u8| measured.bases & 1 << bit != 0;
        if sets(0) || self.device.is_some_and(|device| device != measured.device) {
            self.device = Some(measured.device);
            let separator = [":", "/", "_", ".-"][usize::from(measured.bases >> 6)];
            fields.insert("bn", format!("\"{}{separator}\"", DEVICES[measured.device]));
        }
        if sets(1) {
            self.nanos = measured.base_nanos.into();
            fields.insert("bt", seconds(self.nanos));
        }
        if sets(2) {
            self.unit = Some(measured.unit);
            fields.insert("bu", format!("\"{}\"", UNITS[measured.unit]));
        }
        if sets(3) {
            self.value = Some(measured.base_value);
            fields.insert("bv", measured.base_value.to_string());
        }
        if sets(4) {
            fields.insert("bver", "10".to_owned());
        }
        if sets(5) {
            fields.insert("s", "1.5".to_owned());
            fields.insert("ut", "60".to_owned());
        }
        self.regular(measured, &mut fields);
        let mut fields: Vec<_> = fields.iter().map(|(label, json)| format!("\"{label}\":{json}")).collect();
        let first = measured.order.index(fields.len());
        fields.rotate_left(first);
        format!("{{{}}}", fields.join(&format!(",{}", measured.space)))
    }

    fn regular(&self, measured: &Measured, fields: &mut BTreeMap<&str, String>) {
        let sensor = SENSORS[measured.sensor];
        let name = match self.device {
            Some(_) => sensor.to_owned(),
            // One name for both: the part after the last slash is the sensor, or else after the last underscore.
            None => alone(measured),
        };
        fields.insert("n", format!("\"{name}\""));
        let own = i128::from(measured.nanos) - self.nanos;
        if own != 0 {
            fields.insert("t", seconds(own));
        }
        if self.unit.is_some_and(|unit| unit != measured.unit) || (self.unit.is_none() && measured.unit != 0)
        {
            fields.insert("u", format!("\"{}\"", UNITS[measured.unit]));
        }
        match &measured.value {
            Kind::Integer(number) => {
                fields.insert("v", (number - i64::from(self.value.unwrap_or(0))).to_string())
            }
            Kind::Double(number) => fields.insert("v", format!("{number:e}")),
            Kind::Boolean(truth) => fields.insert("vb", truth.to_string()),
            Kind::Text(text) => fields.insert("vs", serde_json::to_string(text).expect("a string")),
        };
    }
}

/// The name without a base name.
fn alone(measured: &Measured) -> String {
    let separator = if measured.device == 0 { "_" } else { "/" };
    // Only the last part of a name alone is the sensor.
    format!("{}{separator}{}", DEVICES[measured.device], ["voltage", "b", "x"][measured.sensor])
}

/// The readings that a pack of these measurements must give.
fn expected(pack: &[Measured]) -> Readings {
    let mut readings = Readings::default();
    let (mut base_value, mut has_base_name) = (None, false);
    for measured in pack {
        has_base_name |= measured.bases & 1 != 0;
        if measured.bases & 1 << 3 != 0 {
            base_value = Some(measured.base_value);
        }
        let sensor = match has_base_name {
            true => SENSORS[measured.sensor],
            false => ["voltage", "b", "x"][measured.sensor],
        };
        let value = match &measured.value {
            Kind::Integer(number) => Value::Integer(*number),
            Kind::Double(number) => {
                Value::Double(base_value.map_or(*number, |base| f64::from(base) + number))
            }
            Kind::Boolean(truth) => Value::Boolean(*truth),
            Kind::Text(text) => Value::Text(text),
        };
        let parts = ReadingParts {
            device: DEVICES[measured.device],
            sensor,
            value: value.into(),
            time: Timestamp::from_nanos(measured.nanos).expect("not negative"),
            unit: Some(UNITS_READ[measured.unit]),
            tags: &[],
        };
        readings.push(&parts).expect("within the limits");
    }
    readings
}

/// An object that is a record, or almost one.
fn fragment() -> impl Strategy<Value = String> {
    let json = prop::sample::select(vec![
        "1",
        "-0",
        "0.0",
        "01",
        "1.",
        "1.50",
        "-12.25e3",
        "1E+2",
        "1e",
        "1e999",
        "1e-999",
        "11",
        "10",
        "268435456",
        "9223372036854775807",
        "9223372036854775808",
        "1.276020076001e+09",
        "true",
        "false",
        "null",
        "tru",
        "\"\"",
        "\"a\"",
        "\"d/s\"",
        "\"urn:dev:a_b\"",
        "\"\\n\"",
        "\"\\u002f\"",
        "\"é\"",
        "[1]",
        "{}",
        "\"",
        "\"a\tb\"",
        " 1 ",
        "1 2",
        "NaN",
    ]);
    let label = prop::sample::select(vec![
        "bn", "bt", "bu", "bv", "bs", "bver", "n", "u", "v", "vs", "vb", "vd", "s", "t", "ut", "x", "x_",
        "bx_", "\\u0076", "bve", "",
    ]);
    let colon = prop::sample::select(vec![":", ":", ":", " : "]);
    let member = (label, colon, json).prop_map(|(label, colon, json)| format!("\"{label}\"{colon}{json}"));
    let good = prop::sample::select(vec![
        r#""n":"d/s","v":2.5"#,
        r#""bn":"d:","bt":5"#,
        r#""n":"s","vs":"x","t":-1"#,
        r#""bv":1"#,
        r#""v":7"#,
    ]);
    let members = prop::collection::vec(prop_oneof![member, good.prop_map(str::to_owned)], 0..4);
    let space = prop::sample::select(vec!["", "", " ", "\n", ",", "\t\r"]);
    (members, space).prop_map(|(members, space)| format!("{{{space}{}}}", members.join(&format!(",{space}"))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_pack_with_any_base_fields_is_read_back(pack in prop::collection::vec(measured(), 1..12)) {
        let mut writer = Writer::default();
        let records: Vec<_> = pack.iter().map(|measured| writer.record(measured)).collect();
        let body = format!("[{}]", records.join(","));
        let decoded = super::decode(&body, &rules()).expect("JSON");
        prop_assert_eq!(decoded.rejections.count(), 0, "{} {:?}", body, decoded.rejections.listed);
        prop_assert_eq!(&decoded.readings, &expected(&pack), "{}", body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8000))]

    #[test]
    fn the_scanner_agrees_with_the_careful_reader(
        records in prop::collection::vec(fragment(), 0..5),
        frame in prop::sample::select(vec![("[", "]"), ("[", "]"), ("", ""), ("[", ""), ("", "]"), (" [ ", " ] "), ("[", "] x")]),
    ) {
        let body = format!("{}{}{}", frame.0, records.join(","), frame.1);
        if let Ok(scanned) = scan(&body, &rules()) {
            let read = read(&body, &rules()).expect("what the scanner takes is JSON");
            prop_assert!(same(&scanned, &read), "{} {:?} {:?}", body, scanned, read);
        }
    }

    #[test]
    fn no_mangled_pack_can_cause_a_panic(
        pack in prop::collection::vec(measured(), 1..4),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut writer = Writer::default();
        let records: Vec<_> = pack.iter().map(|measured| writer.record(measured)).collect();
        let mut body = format!("[{}]", records.join(",")).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(text) = std::str::from_utf8(&body)
            && let Ok(decoded) = super::decode(text, &rules())
        {
            prop_assert_eq!(decoded.readings.iter().count(), decoded.readings.len());
        }
        body.truncate(at);
        if let Ok(text) = std::str::from_utf8(&body) {
            let _ = super::decode(text, &rules());
        }
    }
}

#[test]
fn the_common_form_is_scanned() {
    for body in [
        "[]",
        r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#,
        r#" [ {"bn":"d:", "bt":1.276020076001e+09, "bu":"A", "bver":10, "bv":1, "bs":2} ,
            {"n":"x","t":-5,"v":-1.2e3,"s":1,"ut":5}, {"n": "y", "vs" : "°C"}, {"n":"z","vb":true}, {} ] "#,
    ] {
        scan(body, &rules()).expect(body);
    }
}
