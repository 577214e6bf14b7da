//! How the values of a window are distributed, for its percentiles.
//!
//! The `q`-th percentile of `n` values is the one of rank ⌈q/100 · n⌉ in their order, counted from 1: the least value
//! that at least `q` percent of them do not exceed (the nearest-rank definition). It is always a value that was
//! measured, and never one between two. Up to [`EXACT_MAX`] values are kept and give it exactly. More go into a DDSketch (Masson, Rim, Lee, *DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees*, VLDB 2019), which gives it within [`RELATIVE_ERROR`]. That holds as long as the values of
//! one sign lie within a factor of 7.8 · 10^8 of the greatest; smaller ones count as that small.
//!
//! Memory: 8 to 1,024 bytes as values, then 1 to 8 KiB for each sign that occurs.

use sketches_ddsketch::{Config, DDSketch};

/// Most values that are kept as they are. They take as much as the smallest sketch.
const EXACT_MAX: usize = 128;
/// Relative error of a percentile of more values than that.
const RELATIVE_ERROR: f64 = 0.01;
/// Most bins of a sketch for each sign, of eight bytes each.
const BINS_MAX: u32 = 1024;

/// The values of a window, as they are or as a sketch of them.
#[derive(Debug)]
pub struct Quantiles {
    kept: Kept,
}

enum Kept {
    Values(Vec<f64>),
    Sketch(Box<DDSketch>),
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kept::Values(values) => formatter.debug_tuple("Values").field(values).finish(),
            Kept::Sketch(sketch) => formatter.debug_tuple("Sketch").field(&sketch.count()).finish(),
        }
    }
}

impl Default for Quantiles {
    fn default() -> Quantiles {
        Quantiles { kept: Kept::Values(Vec::new()) }
    }
}

impl Quantiles {
    /// Takes a finite value.
    pub fn add(&mut self, value: f64) {
        match &mut self.kept {
            Kept::Values(values) if values.len() < EXACT_MAX => values.push(value),
            Kept::Values(values) => {
                let mut sketch = sketch_of(values);
                sketch.add(value);
                self.kept = Kept::Sketch(Box::new(sketch));
            }
            Kept::Sketch(sketch) => sketch.add(value),
        }
    }

    /// Puts the values in order, so that percentiles can be asked for.
    pub fn sort(&mut self) {
        if let Kept::Values(values) = &mut self.kept {
            values.sort_unstable_by(f64::total_cmp);
        }
    }

    /// A percentile of values that are in order; 0 if there are none. May lie beyond the extremes by the relative
    /// error, and beyond what a double can hold.
    pub fn percentile(&self, percent: u8) -> f64 {
        match &self.kept {
            Kept::Values(values) => values.get(place(percent, values.len())).copied().unwrap_or_default(),
            Kept::Sketch(sketch) => percentile_of(sketch, percent),
        }
    }
}

/// The sketch takes a quantile times one less than the count and rounds that down to a place. Half-way to the next place
/// is where that does not slip; the last place, which has none behind it, is the greatest value itself.
#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 readings")]
fn percentile_of(sketch: &DDSketch, percent: u8) -> f64 {
    let count = sketch.count();
    let quantile = (place(percent, count) as f64 + 0.5) / count.saturating_sub(1) as f64;
    sketch.quantile(quantile.clamp(0.0, 1.0)).ok().flatten().unwrap_or_default()
}

/// Values below the least normal double, 2.2e-308, count as 0.
fn sketch_of(values: &[f64]) -> DDSketch {
    let mut sketch = DDSketch::new(Config::new(RELATIVE_ERROR, BINS_MAX, f64::MIN_POSITIVE));
    values.iter().for_each(|value| sketch.add(*value));
    sketch
}

/// Where a percentile stands among so many values that are in order, counted from 0: one before its rank.
fn place(percent: u8, count: usize) -> usize {
    let count = count as u128;
    let rank = (u128::from(percent) * count).div_ceil(100);
    usize::try_from(rank.saturating_sub(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantiles(values: &[f64]) -> Quantiles {
        let mut quantiles = Quantiles::default();
        values.iter().for_each(|value| quantiles.add(*value));
        quantiles.sort();
        quantiles
    }

    fn naive(values: &[f64], percent: u8) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[place(percent, sorted.len())]
    }

    #[test]
    fn a_few_values_give_exact_percentiles() {
        let check = |count: u32, expected: [f64; 3]| {
            let values: Vec<_> = (1..=count).rev().map(f64::from).collect();
            let quantiles = quantiles(&values);
            assert_eq!([50, 95, 99].map(|percent| quantiles.percentile(percent)), expected, "{count}");
        };
        check(1, [1.0, 1.0, 1.0]);
        check(2, [1.0, 2.0, 2.0]);
        check(3, [2.0, 3.0, 3.0]);
        check(10, [5.0, 10.0, 10.0]);
        check(20, [10.0, 19.0, 20.0]);
        check(100, [50.0, 95.0, 99.0]);
        check(101, [51.0, 96.0, 100.0]);
        check(128, [64.0, 122.0, 127.0]);
    }

    #[test]
    fn a_percentile_has_the_least_rank_that_so_many_percent_of_the_values_reach() {
        for count in 1..=1000_u32 {
            // Some below zero, some of them the same.
            let values: Vec<_> =
                (0..count).map(|number| f64::from(number * 7919 % count / 2) - 200.0).collect();
            let quantiles = quantiles(&values);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            for percent in [1, 5, 25, 50, 75, 90, 95, 99, 100] {
                let reaches = |rank: &usize| 100 * rank >= usize::from(percent) * sorted.len();
                let naive = sorted[(1..=sorted.len()).find(reaches).expect("the last one does") - 1];
                let got = quantiles.percentile(percent);
                let margin =
                    if values.len() > EXACT_MAX { 1.000_001 * RELATIVE_ERROR * naive.abs() } else { 0.0 };
                assert!((got - naive).abs() <= margin, "p{percent} of {count}: {got}, expected {naive}");
            }
        }
    }

    #[test]
    fn a_percentile_of_equal_values_is_that_value() {
        for (count, value) in [(1, -7.5), (2, 0.0), (128, 1e300), (129, 42.0), (5000, -3.0)] {
            let quantiles = quantiles(&vec![value; count]);
            for percent in [1, 50, 95, 99, 100] {
                let got = quantiles.percentile(percent);
                let margin = if count > EXACT_MAX { RELATIVE_ERROR * f64::abs(value) } else { 0.0 };
                assert!((got - value).abs() <= margin, "p{percent} of {count} times {value}: {got}");
            }
        }
    }

    #[test]
    fn a_percentile_of_many_values_is_not_that_of_the_place_before() {
        let values: Vec<_> = (0..201).map(|place| 1.05_f64.powi(place)).collect();
        // In doubles 0.29 * 200 is less than 58, and the rank of 29 percent of 201 values is 59.
        let got = quantiles(&values).percentile(29);
        assert!((got / 1.05_f64.powi(58) - 1.0).abs() < RELATIVE_ERROR, "{got}");
    }

    proptest! {
        #[test]
        fn percentiles_of_many_values_lie_within_one_percent(
            values in prop::collection::vec(
                prop_oneof![-1e4..-1e-3, 1e-3..1e4, Just(0.0)], EXACT_MAX + 1..1000),
            percent in 1_u8..100,
        ) {
            let (got, exact) = (quantiles(&values).percentile(percent), naive(&values, percent));
            prop_assert!((got - exact).abs() <= 1.000_001 * RELATIVE_ERROR * exact.abs(), "{} {}", got, exact);
        }

        #[test]
        fn no_finite_values_make_it_panic_or_grow(
            values in prop::collection::vec(
                prop_oneof![prop::num::f64::NORMAL, prop::num::f64::SUBNORMAL, Just(f64::MAX), Just(f64::MIN)],
                0..1000),
        ) {
            let quantiles = quantiles(&values);
            prop_assert!(!quantiles.percentile(50).is_nan());
            if let Kept::Sketch(sketch) = &quantiles.kept {
                prop_assert!(sketch.length() <= 2 * BINS_MAX as usize);
            }
        }
    }
}
