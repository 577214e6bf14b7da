//! Properties of every line, and of every text.

use forebay_reading::Value;
use proptest::prelude::*;

use super::{decode, nanos};
use crate::Decoded;

/// A line as a careful client writes it.
#[derive(Clone, Debug)]
struct Point {
    measurement: String,
    device: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, Kind)>,
    time: i64,
}

#[derive(Clone, Debug)]
enum Kind {
    Integer(i64),
    Unsigned(u64),
    Double(f64),
    Boolean(bool),
    Text(String),
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let kind = prop_oneof![
        any::<i64>().prop_map(Kind::Integer),
        (0..=i64::MAX as u64).prop_map(Kind::Unsigned),
        prop::num::f64::NORMAL.prop_map(Kind::Double),
        (-1000.0..1000.0).prop_map(Kind::Double),
        any::<bool>().prop_map(Kind::Boolean),
        "(?s).{0,20}".prop_map(Kind::Text),
        "[\"\\\\\n,= #a]{0,12}".prop_map(Kind::Text),
    ];
    // A name cannot end in a backslash: it would escape the separator.
    let name = "([a-z, =\"]|\\\\[a-z]|[^\\p{C}\\\\]){0,8}[^\\p{C}\\\\]";
    let first = "[^\\p{C}\\\\#,\\s]";
    let point = (
        (first, name).prop_map(|(first, rest)| first + &rest),
        name,
        prop::collection::btree_map(name, name, 0..4),
        prop::collection::vec((name, kind), 1..6),
        0..i64::MAX,
    );
    let point = point.prop_map(|(measurement, device, tags, fields, time)| {
        let tags = tags.into_iter().filter(|(key, _)| key != "device" && key != "host").collect();
        // A line names each field once.
        let mut known = std::collections::BTreeSet::new();
        let fields =
            fields.into_iter().filter(|(key, _): &(String, Kind)| known.insert(key.clone())).collect();
        Point { measurement, device, tags, fields, time }
    });
    prop::collection::vec(point, 1..12)
}

fn escape(text: &str, special: &[char], out: &mut String) {
    for character in text.chars() {
        if special.contains(&character) {
            out.push('\\');
        }
        out.push(character);
    }
}

impl Point {
    fn write(&self, out: &mut String) {
        const KEY: &[char] = &[',', ' ', '='];
        escape(&self.measurement, &[',', ' '], out);
        for (place, (key, value)) in self.tags.iter().enumerate() {
            if place == 1 {
                out.push_str(",device=");
                escape(&self.device, KEY, out);
            }
            out.push(',');
            escape(key, KEY, out);
            out.push('=');
            escape(value, KEY, out);
        }
        if self.tags.len() < 2 {
            out.push_str(",device=");
            escape(&self.device, KEY, out);
        }
        for (place, (key, kind)) in self.fields.iter().enumerate() {
            out.push(if place == 0 { ' ' } else { ',' });
            escape(key, KEY, out);
            out.push('=');
            match kind {
                Kind::Integer(number) => out.push_str(&format!("{number}i")),
                Kind::Unsigned(number) => out.push_str(&format!("{number}u")),
                Kind::Double(number) => out.push_str(&format!("{number:?}")),
                Kind::Boolean(truth) => out.push_str(&truth.to_string()),
                Kind::Text(text) => {
                    out.push('"');
                    escape(text, &['"', '\\'], out);
                    out.push('"');
                }
            }
        }
        out.push_str(&format!(" {}\n", self.time));
    }

    fn readings(&self, out: &mut Vec<String>) {
        for (key, kind) in &self.fields {
            let value = match kind {
                Kind::Integer(number) => Value::Integer(*number),
                Kind::Unsigned(number) => Value::Integer(i64::try_from(*number).expect("small enough")),
                Kind::Double(number) => Value::Double(*number),
                Kind::Boolean(truth) => Value::Boolean(*truth),
                Kind::Text(text) => Value::Text(text),
            };
            let sensor = match key.as_str() {
                "value" => self.measurement.clone(),
                key => format!("{}_{key}", self.measurement),
            };
            out.push(format!("{:?}", (&self.device, sensor, value, self.time, &self.tags)));
        }
    }
}

fn readings_of(decoded: &Decoded) -> Vec<String> {
    let show = |reading: forebay_reading::ReadingRef<'_>| {
        let tags: Vec<_> = reading.tags().collect();
        format!("{:?}", (reading.device(), reading.sensor(), reading.value(), reading.time().nanos(), tags))
    };
    decoded.readings.iter().map(show).collect()
}

proptest! {
    #[test]
    fn points_are_read_back_as_a_client_wrote_them(points in points()) {
        let (mut body, mut expected) = (String::new(), Vec::new());
        for point in &points {
            point.write(&mut body);
            point.readings(&mut expected);
        }
        let decoded = decode(body.as_bytes(), &nanos());
        prop_assert_eq!(decoded.rejections.count(), 0, "{}: {:?}", body, decoded.rejections.listed);
        prop_assert_eq!(readings_of(&decoded), expected, "{}", body);
    }

    #[test]
    fn a_bad_line_costs_no_other_line_at_any_place(points in points(), place: prop::sample::Index, bad in "[a-z]{1,5}(,[a-z]{1,3})? ?[a-z=]{0,5}") {
        let mut lines: Vec<String> = Vec::new();
        for point in &points {
            let mut line = String::new();
            point.write(&mut line);
            lines.push(line);
        }
        let whole = readings_of(&decode(lines.concat().as_bytes(), &nanos()));
        let place = place.index(lines.len() + 1);
        lines.insert(place, bad + "\n");
        let before = lines[..place].concat().matches('\n').count();
        let decoded = decode(lines.concat().as_bytes(), &nanos());
        prop_assert_eq!(decoded.rejections.count(), 1);
        prop_assert_eq!(decoded.rejections.listed[0].index, before);
        prop_assert_eq!(readings_of(&decoded), whole);
    }

    #[test]
    fn line_end_finds_the_end_that_the_parser_finds(body in "([mhosta,= \\\\\"#\n1i]|m,host=h a=1i|a=\"b\"|\nm,host=h a=\"x\ny\"){0,40}") {
        // A last line that is not UTF-8 makes the decoder find the ends of all lines first.
        let mut other = body.clone().into_bytes();
        other.extend_from_slice(b"\n\xff");
        let (alone, beside) = (decode(body.as_bytes(), &nanos()), decode(&other, &nanos()));
        prop_assert_eq!(alone.readings, beside.readings);
        for (one, two) in alone.rejections.listed.iter().zip(&beside.rejections.listed) {
            prop_assert_eq!(one.index, two.index);
        }
    }

    #[test]
    fn no_text_can_cause_a_panic(body in "([a-c,= \\\\\"#\n\r\t0-9.eiuté-]|,host=h| a=\"){0,60}") {
        let decoded = decode(body.as_bytes(), &nanos());
        prop_assert_eq!(decoded.readings.iter().count(), decoded.readings.len());
    }
}
