//! Requests of 100 readings to the internal encoding, beside plain serde_json into a typed struct; and the same
//! readings as line protocol, one field or five fields a line.
//!
//! `cargo bench --bench decode`. The plain parsers check less (no limits, times left as text) and keep the
//! parsed form; the decoders check everything and write the bytes that are forwarded later.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a bench are small")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_codec::{DECODERS, Decoder, DeviceTags, Rules, UnknownFields};
use forebay_reading::timestamp::{Precision, Timestamp};
use serde::Deserialize;

#[path = "support/sample.rs"]
mod sample;
#[path = "support/senml.rs"]
mod senml;
#[path = "support/typed.rs"]
mod typed;

/// As in the gateway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const READINGS: u64 = 100;

/// A reading with its strings copied out of the body, as services are mostly written.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "parsed and dropped: that is what is measured")]
struct Owned {
    device: String,
    sensor: String,
    value: f64,
    time: Option<String>,
    unit: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

fn rules() -> Rules {
    Rules {
        unknown_fields: UnknownFields::Reject,
        precision: Precision::Millis,
        received_at: Timestamp::MIN,
        earliest: Timestamp::MIN,
        latest: Timestamp::MAX,
        encoded_bytes_max: usize::MAX,
        device_tags: DeviceTags::default(),
        grant: None,
    }
}

fn decoder(name: &str) -> &'static dyn Decoder {
    *DECODERS.find(name).expect("a known format")
}

fn decode(criterion: &mut Criterion) {
    let array = sample::body(0..READINGS, ["[", ",", "]"]).into_bytes();
    let lines = sample::body(0..READINGS, ["", "\n", "\n"]).into_bytes();
    let rules = rules();

    let mut group = criterion.benchmark_group("decode/json_array");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("forebay", |bencher| {
        let json = decoder("json");
        let decoded = json.decode(&array, &rules).expect("well-formed");
        assert_eq!((decoded.readings.len() as u64, decoded.rejections.count()), (READINGS, 0));
        bencher.iter(|| json.decode(black_box(&array), &rules));
    });
    group.bench_function("serde_json_borrowed", |bencher| {
        bencher.iter(|| typed::read_json(black_box(&array)).expect("well-formed"));
    });
    group.bench_function("serde_json_owned", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Vec<Owned>>(black_box(&array)).expect("well-formed"));
    });
    group.finish();

    let mut group = criterion.benchmark_group("decode/ndjson");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("forebay", |bencher| {
        let ndjson = decoder("ndjson");
        let decoded = ndjson.decode(&lines, &rules).expect("well-formed");
        assert_eq!((decoded.readings.len() as u64, decoded.rejections.count()), (READINGS, 0));
        bencher.iter(|| ndjson.decode(black_box(&lines), &rules));
    });
    group.bench_function("serde_json_borrowed", |bencher| {
        bencher.iter(|| typed::read_ndjson(black_box(&lines)).expect("well-formed"));
    });
    group.bench_function("serde_json_owned", |bencher| {
        bencher.iter(|| {
            let readings = serde_json::Deserializer::from_slice(black_box(&lines)).into_iter::<Owned>();
            readings.collect::<Result<Vec<_>, _>>().expect("well-formed")
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("decode/senml");
    group.throughput(Throughput::Elements(READINGS));
    for (name, body) in [
        ("base_fields", senml::with_base_fields(READINGS)),
        ("full_records", senml::full_records(READINGS)),
        ("escapes", senml::with_escapes(READINGS)),
    ] {
        group.bench_function(name, |bencher| {
            let senml = decoder("senml");
            let decoded = senml.decode(body.as_bytes(), &rules).expect("well-formed");
            assert_eq!((decoded.readings.len() as u64, decoded.rejections.count()), (READINGS, 0));
            bencher.iter(|| senml.decode(black_box(body.as_bytes()), &rules));
        });
    }
    group.finish();
}

/// The same readings as line protocol; `fields` of them share a line, with its device and time.
fn lines_of_points(fields: u64) -> Vec<u8> {
    let mut body = String::new();
    for point in 0..READINGS / fields {
        let device = point * fields % 977;
        write!(body, "household,host=meter-{device:05}").expect("writing to memory does not fail");
        for field in 0..fields {
            let number = point * fields + field;
            let (whole, thousandths) = (number * 7919 % 241, number * 104_729 % 1000);
            let name =
                ["voltage", "global_active_power", "global_reactive_power", "global_intensity", "frequency"]
                    [field as usize % 5];
            let before = if field == 0 { ' ' } else { ',' };
            write!(body, "{before}{name}={whole}.{thousandths:03}").expect("writing to memory does not fail");
        }
        writeln!(body, " {}", 1_170_288_000_000_000_000 + point * 1_000_000_000)
            .expect("writing to memory does not fail");
    }
    body.into_bytes()
}

/// Beside NDJSON in one run: what else the machine does bears on both.
fn decode_lines(criterion: &mut Criterion) {
    let ndjson = sample::body(0..READINGS, ["", "\n", "\n"]).into_bytes();
    let rules = Rules { precision: Precision::Nanos, ..rules() };
    let mut group = criterion.benchmark_group("decode/influx");
    group.throughput(Throughput::Elements(READINGS));
    let bodies = [
        ("one_field_a_line", "influx", lines_of_points(1)),
        ("five_fields_a_line", "influx", lines_of_points(5)),
        ("ndjson", "ndjson", ndjson),
    ];
    for (name, format, body) in bodies {
        group.bench_function(name, |bencher| {
            let decoder = decoder(format);
            let decoded = decoder.decode(&body, &rules).expect("well-formed");
            assert_eq!((decoded.readings.len() as u64, decoded.rejections.count()), (READINGS, 0));
            bencher.iter(|| decoder.decode(black_box(&body), &rules));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, decode_lines);
criterion_main!(benches);
