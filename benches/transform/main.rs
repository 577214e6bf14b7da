//! What the transforms add to a reading on its way from the buffer to a batch.
//!
//! `cargo bench --bench transform`. Times are for one run over the whole sample; the rate is in readings.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "numbers of a bench are small"
)]

use criterion::{criterion_group, criterion_main};

#[path = "../support/sample.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod sample;

mod aggregate;
mod remembering;
mod stateless;

/// As in the gateway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(
    name = benches;
    config = criterion::Criterion::default();
    targets = stateless::bench, remembering::bench, aggregate::bench
);
criterion_main!(benches);
