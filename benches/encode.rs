//! A batch of 1,000 readings from the internal encoding to the body for a node.
//!
//! `cargo bench --bench encode`. Every format of the table is measured.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_codec::{DECODERS, DeviceTags, ENCODERS, Rules, UnknownFields};
use forebay_reading::Readings;
use forebay_reading::timestamp::{Precision, Timestamp};

#[path = "support/sample.rs"]
mod sample;

/// As in the gateway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const READINGS: u64 = 1000;
/// As long as keys are.
const KEY: &str = "0123456789abcdef0123456789abcdef-12345";

fn readings() -> Readings {
    let rules = Rules {
        unknown_fields: UnknownFields::Reject,
        precision: Precision::Millis,
        received_at: Timestamp::MIN,
        earliest: Timestamp::MIN,
        latest: Timestamp::MAX,
        encoded_bytes_max: usize::MAX,
        device_tags: DeviceTags::default(),
        grant: None,
    };
    let ndjson = DECODERS.find("ndjson").expect("a known format");
    let lines = sample::body(0..READINGS, ["", "\n", "\n"]);
    let decoded = ndjson.decode(lines.as_bytes(), &rules).expect("well-formed");
    assert_eq!((decoded.readings.len() as u64, decoded.rejections.count()), (READINGS, 0));
    decoded.readings
}

fn encode(criterion: &mut Criterion) {
    let readings = readings();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(READINGS));
    for (name, make) in ENCODERS.members {
        let encoder = make();
        let mut body = Vec::new();
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                body.clear();
                for (index, reading) in black_box(&readings).iter().enumerate() {
                    encoder.write(index, reading, &mut body).expect("the format holds numbers");
                }
                assert!(encoder.arrange(&mut body).is_empty(), "the format holds all of them");
                encoder.finish(KEY, &mut body);
                body.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
