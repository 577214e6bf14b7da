//! Sums and squares of doubles with a small error and without overflow on the way.
//!
//! While every value is at most [`LARGE`], no number of them can overflow. From the first larger one on, sums are scaled
//! by [`SCALE`], a power of two, so that digits are lost only from values that are smaller than the large ones by more
//! than 10^260.

use super::number::Number;

/// Largest value without scaling: the squares of larger ones might overflow.
const LARGE: f64 = 1e140;
/// 2^-600: squares of the greatest doubles, scaled, do not overflow.
const SCALE: f64 = 2.409_919_865_102_884_e-181;

/// A sum of integers, exact, and of doubles, with the rounding error of each addition kept beside it (Neumaier,
/// *Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen*, 1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    integers: WideInteger,
    doubles: f64,
    compensation: f64,
    magnitude: Magnitude,
}

/// An `i128` with the alignment of 8 bytes, so that structs with it have no padding.
#[derive(Clone, Copy, Debug, Default)]
struct WideInteger {
    high: i64,
    low: u64,
}

/// The magnitude of the doubles in a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Magnitude {
    /// There is no double.
    #[default]
    None,
    /// No double is above [`LARGE`].
    Plain,
    /// Some double is above it, so that the sum is scaled.
    Large,
}

impl Sum {
    /// Adds a number.
    pub fn add(&mut self, number: Number) {
        match number {
            // 2^64 integers of 64 bits fit in 128.
            Number::Integer(integer) => {
                self.integers = WideInteger::of(self.integers.get() + i128::from(integer))
            }
            Number::Double(double) => self.add_double(double),
        }
    }

    fn add_double(&mut self, double: f64) {
        if self.magnitude != Magnitude::Large {
            self.raise_magnitude(double);
        }
        let double = double * self.scale();
        let sum = self.doubles + double;
        self.compensation += if self.doubles.abs() >= double.abs() {
            (self.doubles - sum) + double
        } else {
            (double - sum) + self.doubles
        };
        self.doubles = sum;
    }

    fn raise_magnitude(&mut self, double: f64) {
        self.magnitude = if double.abs() > LARGE { Magnitude::Large } else { Magnitude::Plain };
        self.doubles *= self.scale();
        self.compensation *= self.scale();
    }

    /// The sum: an integer if all numbers were integers and it fits in 64 bits. A sum beyond the range of doubles is given
    /// as the greatest or least double.
    pub fn total(&self) -> Number {
        match i64::try_from(self.integers.get()) {
            Ok(integer) if self.magnitude == Magnitude::None => Number::Integer(integer),
            _ => Number::Double((self.scaled() / self.scale()).clamp(f64::MIN, f64::MAX)),
        }
    }

    /// The mean of `count` numbers, which may be beyond their extremes by a rounding error.
    pub fn mean(&self, count: f64) -> f64 {
        self.scaled() / count / self.scale()
    }

    #[expect(clippy::cast_precision_loss, reason = "the nearest double is meant")]
    fn scaled(&self) -> f64 {
        self.integers.get() as f64 * self.scale() + self.compensation + self.doubles
    }

    fn scale(&self) -> f64 {
        match self.magnitude {
            Magnitude::None | Magnitude::Plain => 1.0,
            Magnitude::Large => SCALE,
        }
    }
}

impl WideInteger {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "each half is cut off on purpose"
    )]
    fn of(number: i128) -> WideInteger {
        WideInteger { high: (number >> 64) as i64, low: number as u64 }
    }

    fn get(self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }
}

/// Mean and squared distances from it, updated value by value (Welford, *Note on a method for calculating
/// corrected sums of squares and products*, Technometrics 1962).
#[derive(Clone, Copy, Debug)]
pub struct Deviation {
    mean: f64,
    squares: f64,
    scale: f64,
}

impl Default for Deviation {
    fn default() -> Deviation {
        Deviation { mean: 0.0, squares: 0.0, scale: 1.0 }
    }
}

impl Deviation {
    /// Adds the `count`-th value.
    pub fn add(&mut self, value: f64, count: f64) {
        if value.abs() > LARGE && self.scale > SCALE {
            self.mean *= SCALE;
            self.squares *= SCALE * SCALE;
            self.scale = SCALE;
        }
        let value = value * self.scale;
        let distance = value - self.mean;
        self.mean += distance / count;
        self.squares += distance * (value - self.mean);
    }

    /// The standard deviation of a sample of `count` values; 0 for a single one. A deviation beyond the range of doubles
    /// is given as the greatest double.
    pub fn standard_deviation(&self, count: f64) -> f64 {
        if count < 2.0 {
            return 0.0;
        }
        ((self.squares / (count - 1.0)).sqrt() / self.scale).min(f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(numbers: &[Number]) -> Sum {
        let mut sum = Sum::default();
        numbers.iter().for_each(|number| sum.add(*number));
        sum
    }

    fn doubles(doubles: &[f64]) -> Vec<Number> {
        doubles.iter().copied().map(Number::Double).collect()
    }

    fn deviation(values: &[f64]) -> f64 {
        let (mut spread, mut count) = (Deviation::default(), 0.0);
        for value in values {
            count += 1.0;
            spread.add(*value, count);
        }
        spread.standard_deviation(count)
    }

    #[test]
    fn the_scale_is_a_power_of_two() {
        assert_eq!(SCALE, 2_f64.powi(-600));
    }

    #[test]
    fn sums_of_integers_are_exact_or_doubles_beyond_64_bits() {
        let check = |integers: &[i64], expected: Number| {
            let numbers: Vec<_> = integers.iter().copied().map(Number::Integer).collect();
            assert_eq!(sum(&numbers).total(), expected, "{integers:?}");
        };
        check(&[1, 2, 3], Number::Integer(6));
        check(&[i64::MAX, i64::MAX, i64::MIN, i64::MIN], Number::Integer(-2));
        check(&[i64::MAX, 1], Number::Double(9_223_372_036_854_775_808.0));
        check(&[i64::MIN, -1], Number::Double(-9_223_372_036_854_775_808.0));
    }

    #[test]
    fn sums_of_doubles_keep_small_values_beside_large_ones() {
        let check = |numbers: &[Number], expected: f64| {
            assert_eq!(sum(numbers).total(), Number::Double(expected), "{numbers:?}");
        };
        check(&doubles(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        check(&doubles(&[0.1; 10]), 1.0);
        check(&[Number::Integer(2), Number::Double(0.5)], 2.5);
        check(&doubles(&[1e300, 1.0, -1e300]), 1.0);
        check(&doubles(&[1e130, 1e200, -1e200]), 1e130);
        check(&doubles(&[5e-324]), 5e-324);
    }

    #[test]
    fn sums_beyond_the_range_of_doubles_are_the_greatest_or_least_double() {
        let check = |values: &[f64], expected: f64, mean: f64| {
            let sum = sum(&doubles(values));
            #[expect(clippy::cast_precision_loss, reason = "the counts of this test are small")]
            let count = values.len() as f64;
            assert_eq!((sum.total(), sum.mean(count)), (Number::Double(expected), mean), "{values:?}");
        };
        check(&[f64::MAX, f64::MAX], f64::MAX, f64::MAX);
        check(&[f64::MIN, f64::MIN], f64::MIN, f64::MIN);
        check(&[f64::MAX, f64::MAX, f64::MIN, f64::MIN], 0.0, 0.0);
        check(&[f64::MAX, f64::MAX / 2.0, f64::MIN, 0.0], f64::MAX / 2.0, f64::MAX / 8.0);
    }

    #[test]
    fn the_standard_deviation_is_of_a_sample() {
        let check = |values: &[f64], expected: f64| {
            let got = deviation(values);
            assert!((got - expected).abs() <= 1e-14 * expected, "{values:?}: {got}");
        };
        check(&[], 0.0);
        check(&[42.0], 0.0);
        check(&[2.0, 4.0], 2_f64.sqrt());
        check(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], (32.0_f64 / 7.0).sqrt());
        check(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0], 30_f64.sqrt());
        check(&[3.0, 1e200, -1e200], 1e200);
        check(&[2e200, 4e200, 4e200, 4e200, 5e200, 5e200, 7e200, 9e200], (32.0_f64 / 7.0).sqrt() * 1e200);
        check(&[f64::MAX, f64::MIN], f64::MAX);
        check(&[1000.0; 3], 0.0);
    }
}
