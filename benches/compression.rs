//! zstd in and out, with contexts that are kept from body to body, beside ones that are made anew for each.
//!
//! `cargo bench --bench compression`. Times are for one body: a reading, an array of 100, an array of 1,000.

use std::hint::black_box;
use std::io::Read as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::zstd_contexts;
use zstd::stream::read::Decoder;

/// As in the gateway.
const WINDOW_LOG_MAX: u32 = 24;

/// As in the gateway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn bench(criterion: &mut Criterion) {
    for readings in [1, 100, 1000] {
        let plain = body(readings);
        let compressed = zstd_contexts::compress(&plain).expect("compressed");
        let mut group = criterion.benchmark_group(format!("{readings} readings"));
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function("in, kept", |bencher| {
            bencher.iter(|| {
                let read = |mut decoder: Decoder<'_, &[u8]>| read_to_end(&mut decoder);
                zstd_contexts::decompress(black_box(&compressed), WINDOW_LOG_MAX, read).expect("plain")
            });
        });
        group.bench_function("in, anew", |bencher| {
            bencher.iter(|| {
                let mut decoder = Decoder::with_buffer(black_box(&*compressed)).expect("a decoder");
                decoder.window_log_max(WINDOW_LOG_MAX).expect("a bound");
                read_to_end(&mut decoder)
            });
        });
        group.bench_function("out, kept", |bencher| {
            bencher.iter(|| zstd_contexts::compress(black_box(&plain)).expect("compressed"));
        });
        group.bench_function("out, anew", |bencher| {
            bencher.iter(|| zstd::bulk::compress(black_box(&plain), 1).expect("compressed"));
        });
        group.finish();
    }
}

fn read_to_end(decoder: &mut Decoder<'_, &[u8]>) -> Vec<u8> {
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain).expect("plain");
    plain
}

/// A JSON array of readings.
fn body(readings: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut one = |number: usize| {
        let (device, watts, second) = (number % 40, random.u32(1000..9000), number % 60);
        format!(
            "{{\"device\":\"meter-{device:04}\",\"sensor\":\"active_power\",\"value\":{}.{},\"time\":\"2026-02-01T12:00:{second:02}.{}Z\",\"unit\":\"kW\"}}",
            watts / 1000,
            watts % 1000,
            random.u32(100..1000),
        )
    };
    format!("[{}]", (0..readings).map(&mut one).collect::<Vec<_>>().join(",")).into_bytes()
}

criterion_group!(
    name = benches;
    config = criterion::Criterion::default();
    targets = bench
);
criterion_main!(benches);
