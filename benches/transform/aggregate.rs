//! aggregate

use criterion::Criterion;

pub fn bench(_criterion: &mut Criterion) {}
