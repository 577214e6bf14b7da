//! Sums and squares of doubles that lose little and never overflow on the way.
//!
//! As long as every value is below [`LARGE`], nothing can overflow, however many there are. From the first larger one on
//! everything is kept scaled by [`SCALE`], a power of two, so that no digit is lost but of what is smaller than the
//! larger ones by more than 10^260.

use super::number::Number;

/// Beyond this, squares of values might overflow.
const LARGE: f64 = 1e140;
/// 2^-600: squares of the greatest doubles do not overflow after it.
const SCALE: f64 = 2.409_919_865_102_884_e-181;

/// A sum of integers, exact, and of doubles, with the rounding error of each addition kept beside it (Neumaier,
/// *Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen*, 1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    integers: Wide,
    doubles: f64,
    compensation: f64,
    seen: Seen,
}

/// An `i128` that need not lie at a multiple of 16 bytes, so that no memory is lost around it.
#[derive(Clone, Copy, Debug, Default)]
struct Wide {
    high: i64,
    low: u64,
}

/// The doubles that a sum is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// None.
    #[default]
    None,
    /// None above [`LARGE`].
    Plain,
    /// Some above it, so that all are scaled.
    Large,
}

impl Sum {
    /// Takes a number.
    pub fn add(&mut self, number: Number) {
        match number {
            // 2^64 integers of 64 bits fit in 128.
            Number::Integer(integer) => self.integers = Wide::of(self.integers.get() + i128::from(integer)),
            Number::Double(double) => self.add_double(double),
        }
    }

    fn add_double(&mut self, double: f64) {
        if self.seen != Seen::Large {
            self.see(double);
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

    fn see(&mut self, double: f64) {
        self.seen = if double.abs() > LARGE { Seen::Large } else { Seen::Plain };
        self.doubles *= self.scale();
        self.compensation *= self.scale();
    }

    /// The sum: an integer if it was made of integers only and is one of 64 bits. One beyond what a double can hold is
    /// given as the greatest or least double.
    pub fn total(&self) -> Number {
        match i64::try_from(self.integers.get()) {
            Ok(integer) if self.seen == Seen::None => Number::Integer(integer),
            _ => Number::Double((self.scaled() / self.scale()).clamp(f64::MIN, f64::MAX)),
        }
    }

    /// The mean of so many numbers, which may be beyond their extremes by a rounding error.
    pub fn mean(&self, count: f64) -> f64 {
        self.scaled() / count / self.scale()
    }

    #[expect(clippy::cast_precision_loss, reason = "the nearest double is what is asked for")]
    fn scaled(&self) -> f64 {
        self.integers.get() as f64 * self.scale() + self.compensation + self.doubles
    }

    fn scale(&self) -> f64 {
        match self.seen {
            Seen::None | Seen::Plain => 1.0,
            Seen::Large => SCALE,
        }
    }
}

impl Wide {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "each half is cut off on purpose"
    )]
    fn of(number: i128) -> Wide {
        Wide { high: (number >> 64) as i64, low: number as u64 }
    }

    fn get(self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }
}

/// Mean and squares of the distances from it, updated value by value (Welford, *Note on a method for calculating
/// corrected sums of squares and products*, Technometrics 1962).
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    mean: f64,
    squares: f64,
    scale: f64,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { mean: 0.0, squares: 0.0, scale: 1.0 }
    }
}

impl Spread {
    /// Takes the value that is the `count`-th.
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

    /// The standard deviation of a sample of so many values; 0 for a single one. One beyond what a double can hold is
    /// given as the greatest double.
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
        let (mut spread, mut count) = (Spread::default(), 0.0);
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
    fn sums_of_integers_are_exact_and_of_the_kind_that_holds_them() {
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
    fn sums_of_doubles_lose_nothing_of_small_ones_beside_great_ones() {
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
    fn what_no_double_holds_is_given_as_the_greatest_or_least_double() {
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
    fn the_standard_deviation_is_that_of_a_sample() {
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
