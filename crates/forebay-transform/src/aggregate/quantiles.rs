//! The distribution of a window's values, for percentiles.
//!
//! The `q`-th percentile of `n` values is the one of rank ⌈q/100 · n⌉ in their order, counted from 1: the least value
//! that at least `q` percent of them do not exceed (the nearest-rank definition). It is always a measured value, never one
//! between two. Up to [`EXACT_MAX`] values are stored and give it exactly. More go into a DDSketch (Masson, Rim, Lee,
//! *DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees*, VLDB 2019), which gives it
//! within [`RELATIVE_ERROR`]. That holds if the values of one sign lie within a factor of 7.8 · 10^8 of the greatest;
//! smaller ones count as that small.
//!
//! Memory: 8 to 1,024 bytes as values, then 1 to 8 KiB for each sign that occurs.

use sketches_ddsketch::{Config, DDSketch};

/// Most values that are stored exactly. They take as much memory as the smallest sketch.
const EXACT_MAX: usize = 128;
/// Relative error of a percentile of more values.
const RELATIVE_ERROR: f64 = 0.01;
/// Most bins of a sketch for each sign, of eight bytes each.
const BINS_MAX: u32 = 1024;

/// The values of a window, exactly or as a sketch.
#[derive(Debug)]
pub struct Quantiles {
    distribution: Distribution,
}

enum Distribution {
    Values(Vec<f64>),
    Sketch(Box<DDSketch>),
}

impl std::fmt::Debug for Distribution {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Distribution::Values(values) => formatter.debug_tuple("Values").field(values).finish(),
            Distribution::Sketch(sketch) => formatter.debug_tuple("Sketch").field(&sketch.count()).finish(),
        }
    }
}

impl Default for Quantiles {
    fn default() -> Quantiles {
        Quantiles { distribution: Distribution::Values(Vec::new()) }
    }
}

impl Quantiles {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        match &mut self.distribution {
            Distribution::Values(values) if values.len() < EXACT_MAX => values.push(value),
            Distribution::Values(values) => {
                let mut sketch = sketch_of(values);
                sketch.add(value);
                self.distribution = Distribution::Sketch(Box::new(sketch));
            }
            Distribution::Sketch(sketch) => sketch.add(value),
        }
    }

    /// Sorts the values, which must come before [`Quantiles::percentile`].
    pub fn sort(&mut self) {
        if let Distribution::Values(values) = &mut self.distribution {
            values.sort_unstable_by(f64::total_cmp);
        }
    }

    /// A percentile of the sorted values; 0 if there are none. It may lie beyond the extremes by the relative error, and
    /// so beyond the range of doubles.
    pub fn percentile(&self, percent: u8) -> f64 {
        match &self.distribution {
            Distribution::Values(values) => {
                values.get(place(percent, values.len())).copied().unwrap_or_default()
            }
            Distribution::Sketch(sketch) => percentile_of(sketch, percent),
        }
    }
}

/// The sketch multiplies a quantile with the count less one and rounds down to a place. A quantile half-way to the next
/// place is safe from rounding errors; the last place, which has no next one, is the greatest value itself.
#[expect(clippy::cast_precision_loss, reason = "no window has 2^53 readings")]
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

/// The place of a percentile among sorted values, counted from 0: its rank less one.
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
    fn a_percentile_has_the_least_rank_that_covers_its_share_of_the_values() {
        for count in 1..=1000_u32 {
            // Some are negative, and some equal.
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
    fn rounding_moves_no_percentile_to_the_place_before() {
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
        fn finite_values_never_cause_a_panic_or_growth(
            values in prop::collection::vec(
                prop_oneof![prop::num::f64::NORMAL, prop::num::f64::SUBNORMAL, Just(f64::MAX), Just(f64::MIN)],
                0..1000),
        ) {
            let quantiles = quantiles(&values);
            prop_assert!(!quantiles.percentile(50).is_nan());
            if let Distribution::Sketch(sketch) = &quantiles.distribution {
                prop_assert!(sketch.length() <= 2 * BINS_MAX as usize);
            }
        }
    }
}
