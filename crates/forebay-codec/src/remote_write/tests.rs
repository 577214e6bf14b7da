use std::collections::BTreeMap;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Tag, Value};
use proptest::prelude::*;
use prost::Message;

use super::*;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

fn encoder() -> RemoteWriteEncoder {
    RemoteWriteEncoder::default()
}

const START: i64 = 1_170_288_000_000_000_000;

/// Appends a reading; its tags are pairs of names and values.
fn push(
    readings: &mut Readings,
    [device, sensor]: [&str; 2],
    value: Value<'_>,
    nanos: i64,
    tags: &[(&str, &str)],
) {
    let tags: Vec<Tag<'_>> = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let time = Timestamp::from_nanos(nanos).expect("not before 1970");
    let value = value.into();
    readings
        .push(&ReadingParts { device, sensor, value, time, unit: Some("V"), tags: &tags })
        .expect("good parts");
}

/// The uncompressed body, and the removed readings.
fn arranged(readings: &Readings) -> (Vec<u8>, Vec<(usize, Unwritable)>) {
    let mut body = Vec::new();
    for (index, reading) in readings.iter().enumerate() {
        encoder().write(index, reading, &mut body).expect("it holds numbers");
    }
    let unfit = encoder().arrange(&mut body);
    (body, unfit)
}

fn decode(body: &[u8]) -> WriteRequest {
    let request = snap::raw::Decoder::new().decompress_vec(body).expect("Snappy");
    WriteRequest::decode(&request[..]).expect("a WriteRequest")
}

/// The series of the body, one per line.
fn sent(readings: &Readings) -> Vec<String> {
    let (mut body, unfit) = arranged(readings);
    assert_eq!(unfit, []);
    encoder().finish("key", &mut body);
    let line = |series: &TimeSeries| {
        let labels: Vec<_> =
            series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let samples: Vec<_> =
            series.samples.iter().map(|sample| format!("{}@{}", sample.value, sample.timestamp)).collect();
        format!("{} {}", labels.join(","), samples.join(","))
    };
    let mut lines: Vec<_> = decode(&body).timeseries.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn numbers_are_doubles_booleans_are_1_and_0_and_times_are_milliseconds() {
    let check = |value: Value<'_>, nanos: i64, expected: &str| {
        let mut readings = Readings::default();
        push(&mut readings, ["d", "s"], value, nanos, &[]);
        assert_eq!(sent(&readings), [format!("__name__=s,device=d {expected}")]);
    };
    check(Value::Integer(230), START, "230@1170288000000");
    check(Value::Integer(i64::MAX), START, "9223372036854776000@1170288000000");
    check(Value::Double(-0.1), START + 1_999_999, "-0.1@1170288000001");
    check(Value::Double(-0.0), START, "-0@1170288000000");
    check(Value::Double(5e-324), 0, &format!("{}@0", 5e-324));
    check(Value::Boolean(true), 1, "1@0");
    check(Value::Boolean(false), i64::MAX, "0@9223372036854");
}

#[test]
fn texts_cannot_be_held() {
    let mut readings = Readings::default();
    push(&mut readings, ["d", "s"], Value::Text("1"), START, &[]);
    let mut body = b"before".to_vec();
    let done = encoder().write(0, readings.iter().next().expect("one"), &mut body);
    assert_eq!((done, &body[..]), (Err(Unwritable::NotNumeric), &b"before"[..]));
}

#[test]
fn names_are_made_valid_and_labels_sorted() {
    let check = |sensor: &str, tags: &[(&str, &str)], expected: &str| {
        let mut readings = Readings::default();
        push(&mut readings, ["d d", sensor], Value::Integer(1), START, tags);
        assert_eq!(sent(&readings), [format!("{expected} 1@1170288000000")]);
    };
    check("node:rate", &[], "__name__=node:rate,device=d d");
    check("7-tür °C", &[], "__name__=_7_t_r__C,device=d d");
    check("__x", &[], "__name__=__x,device=d d");
    check("s", &[("z", "1"), ("A", "2"), ("a", "3")], "A=2,__name__=s,a=3,device=d d,z=1");
    check("s", &[("site:a", "é\n\""), ("1", "y")], "_1=y,__name__=s,device=d d,site_a=é\n\"");
    check("s", &[("empty", ""), ("", ""), ("__name__", "")], "__name__=s,device=d d");
    check("s", &[("__name__", "x")], "__name__=s,device=d d,exported___name__=x");
    check("s", &[("-_x", "y")], "__name__=s,device=d d,exported___x=y");
    check("s", &[("device", "x")], "__name__=s,device=d d,exported_device=x");
    let both = "__name__=s,device=d d,exported_device=x,exported_exported_device=y";
    check("s", &[("exported-device", "y"), ("device", "x")], both);
    check("s", &[("a-b", ""), ("a_b", "x")], "__name__=s,a_b=x,device=d d");
}

#[test]
fn tags_with_the_same_final_name_cannot_be_held() {
    let check = |tags: &[(&str, &str)], expected: Unwritable| {
        let mut readings = Readings::default();
        push(&mut readings, ["d", "s"], Value::Integer(1), START, tags);
        let mut body = b"before".to_vec();
        let done = encoder().write(0, readings.iter().next().expect("one"), &mut body);
        assert_eq!((done, &body[..]), (Err(expected), &b"before"[..]), "{tags:?}");
    };
    check(&[("a-b", "x"), ("a_b", "x")], TWICE);
    check(&[("a", "x"), ("a", "y")], TWICE);
    check(&[("__x", "x"), ("exported___x", "y")], TWICE);
    check(&[("", "x")], NAMELESS);
}

#[test]
fn each_series_appears_once_with_its_samples_in_the_order_of_their_times() {
    let mut readings = Readings::default();
    for (device, sensor, value, millis, site) in [
        ("a", "v", 3, 30, "x"),
        ("b", "v", 9, 10, "x"),
        ("a", "v", 1, 10, "x"),
        ("a", "w", 8, 10, "x"),
        ("a", "v", 7, 10, "y"),
        ("a", "v", 2, 20, "x"),
    ] {
        push(&mut readings, [device, sensor], Value::Integer(value), millis * 1_000_000, &[("site", site)]);
    }
    let expected = [
        "__name__=v,device=a,site=x 1@10,2@20,3@30",
        "__name__=v,device=a,site=y 7@10",
        "__name__=v,device=b,site=x 9@10",
        "__name__=w,device=a,site=x 8@10",
    ];
    assert_eq!(sent(&readings), expected);
}

#[test]
fn of_several_values_of_a_millisecond_the_first_is_sent_and_the_others_are_returned() {
    let mut readings = Readings::default();
    for (device, value, nanos) in [
        ("b", 1.0, 5_000_000),
        ("a", 1.0, 5_900_000),
        ("a", 2.0, 5_000_000),
        ("a", 1.0, 5_000_001),
        ("a", 2.0, 6_000_000),
        ("a", 3.0, 5_999_999),
        ("b", 7.0, 5_000_000),
    ] {
        push(&mut readings, [device, "s"], Value::Double(value), nanos, &[]);
    }
    let (mut body, unfit) = arranged(&readings);
    let (places, whys): (Vec<_>, Vec<_>) = unfit.into_iter().unzip();
    assert_eq!((places, whys), (vec![2, 5, 6], vec![Unwritable::SameTime; 3]));
    encoder().finish("key", &mut body);
    let samples =
        |series: TimeSeries| series.samples.into_iter().map(|sample| (sample.value, sample.timestamp));
    let mut samples: Vec<_> = decode(&body).timeseries.into_iter().flat_map(samples).collect();
    samples.sort_by(|one, other| one.partial_cmp(other).expect("no NaN"));
    assert_eq!(samples, [(1.0, 5), (1.0, 5), (2.0, 6)]);
}

type Row = (String, String, Vec<(String, String)>, f64, i64);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let tags = prop::collection::vec(("[a-c_é-]{0,3}", "[xy]{0,2}"), 0..4);
    let nanos = prop_oneof![0..4_000_000i64, 0..i64::MAX];
    let row = ("[ab]{1,2}|\\PC{1,60}", "[ab:1-]{1,2}|\\PC{1,60}", tags, -1e300..1e300, nanos);
    prop::collection::vec(row, 1..40)
}

proptest! {
    #[test]
    fn a_request_keeps_the_rules_and_is_never_longer_than_the_appended_entries(rows in rows()) {
        let mut readings = Readings::default();
        let mut body = Vec::new();
        let mut written = Vec::new();
        for (device, sensor, tags, value, nanos) in &rows {
            let tags: Vec<_> = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut one = Readings::default();
            push(&mut one, [device, sensor], Value::Double(*value), *nanos, &tags);
            if encoder().write(written.len(), one.iter().next().expect("one"), &mut body).is_ok() {
                push(&mut readings, [device, sensor], Value::Double(*value), *nanos, &tags);
                written.push((device, *value, nanos / 1_000_000));
            }
        }
        let appended = body.len();
        let unfit = encoder().arrange(&mut body);
        prop_assert!(body.len() <= appended, "{} of {appended}", body.len());
        encoder().finish("key", &mut body);

        let mut arrived: BTreeMap<(String, i64, u64), usize> = BTreeMap::new();
        let mut seen = Vec::new();
        for series in decode(&body).timeseries {
            let names: Vec<_> = series.labels.iter().map(|label| label.name.clone()).collect();
            prop_assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
            prop_assert!(series.labels.iter().all(|label| !label.value.is_empty()));
            prop_assert!(series.samples.is_sorted_by(|one, other| one.timestamp < other.timestamp));
            prop_assert!(!seen.contains(&series.labels), "{:?}", series.labels);
            let device = series.labels.iter().find(|label| label.name == DEVICE).expect("a device").value.clone();
            for sample in &series.samples {
                *arrived.entry((device.clone(), sample.timestamp, sample.value.to_bits())).or_default() += 1;
            }
            seen.push(series.labels);
        }
        let unfit: Vec<_> = unfit.into_iter().map(|(place, _)| place).collect();
        prop_assert!(unfit.is_sorted_by(|one, other| one < other));
        for (place, (device, value, millis)) in written.iter().enumerate() {
            let is_there = arrived.contains_key(&((*device).clone(), *millis, value.to_bits()));
            prop_assert!(is_there || unfit.contains(&place), "{place} of {rows:?}");
        }
        let (again, _) = arranged(&readings);
        let mut again = again;
        encoder().finish("another", &mut again);
        prop_assert_eq!(again, body, "the same readings make the same bytes");
    }
}
