//! The least change: whether a value moved far enough.

/// The least change that lets a reading pass. An equal value never does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LeastChange {
    /// A difference; 0: any change.
    Delta(f64),
    /// Percent of the absolute value of the last one passed.
    Percent(f64),
}

/// A value, as it is remembered for comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ComparedValue {
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// A text, as 64 bits of a hash with a random key. Two different texts count
    /// as equal with a probability of 1 in 2^64 (1.8e19).
    Text(u64),
}

impl LeastChange {
    /// Whether two values are at least this far apart. Booleans and texts that differ always are, and so are values of
    /// different kinds; all numbers are of one kind.
    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers that is_same tells apart are compared with a tolerance"
    )]
    pub fn is_reached(self, last: ComparedValue, new: ComparedValue) -> bool {
        match (last, new) {
            (ComparedValue::Integer(last), ComparedValue::Integer(new)) => {
                self.is_reached_by_integers(last, new)
            }
            (ComparedValue::Double(last), ComparedValue::Double(new)) => {
                last != new && self.is_reached_by_doubles(last, new)
            }
            (ComparedValue::Integer(last), ComparedValue::Double(new)) => {
                !is_same(last, new) && self.is_reached_by_doubles(last as f64, new)
            }
            (ComparedValue::Double(last), ComparedValue::Integer(new)) => {
                !is_same(new, last) && self.is_reached_by_doubles(last, new as f64)
            }
            (ComparedValue::Boolean(_) | ComparedValue::Text(_), _)
            | (_, ComparedValue::Boolean(_) | ComparedValue::Text(_)) => last != new,
        }
    }

    /// Compares exactly for `delta`, with a tolerance for `percent`.
    #[expect(clippy::cast_precision_loss, reason = "a percentage is compared with a tolerance")]
    fn is_reached_by_integers(self, last: i64, new: i64) -> bool {
        let distance = last.abs_diff(new);
        let is_enough = match self {
            LeastChange::Delta(delta) => u128::from(distance) >= whole_from(delta),
            LeastChange::Percent(_) => distance as f64 >= self.of(last as f64) * (1.0 - ROUNDING),
        };
        distance != 0 && is_enough
    }

    /// 20.0 and 20.2 are 0.2 apart in decimals, but their doubles are 0.199…29 apart. The two and the limit are each off by
    /// half a unit in their last place, and the difference and the product with `percent` by as much again. The sum of
    /// these errors is less than the tolerance.
    fn is_reached_by_doubles(self, last: f64, new: f64) -> bool {
        // Not of the sum: that may exceed the largest double.
        let tolerance = ROUNDING * last.abs() + ROUNDING * new.abs();
        (last - new).abs() >= self.of(last) - tolerance
    }

    /// The least difference from a value.
    fn of(self, last: f64) -> f64 {
        match self {
            LeastChange::Delta(delta) => delta,
            LeastChange::Percent(percent) => last.abs() * percent / 100.0,
        }
    }
}

/// Tolerance of a comparison, as a ratio of the numbers.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

/// The least whole number that is not below `delta`; saturates.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit is not negative, and a cast saturates"
)]
fn whole_from(delta: f64) -> u128 {
    delta.ceil() as u128
}

/// Whether a double is exactly this integer.
#[expect(clippy::cast_possible_truncation, reason = "it is whole, and a cast saturates")]
fn is_same(integer: i64, double: f64) -> bool {
    double.fract() == 0.0 && double as i128 == i128::from(integer)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_precision_loss, reason = "some numbers are chosen for their rounding")]

    use super::ComparedValue::{Boolean, Double, Integer, Text};
    use super::LeastChange::{Delta, Percent};
    use super::*;

    const BIG: i64 = 1 << 53;

    fn check(least: LeastChange, last: ComparedValue, new: ComparedValue, expected: bool) {
        assert_eq!(least.is_reached(last, new), expected, "{least:?} {last:?} {new:?}");
        if !matches!(least, Percent(_)) {
            assert_eq!(least.is_reached(new, last), expected, "{least:?} {new:?} {last:?}");
        }
    }

    #[test]
    fn a_number_moved_if_it_differs_by_at_least_the_least_change() {
        check(Delta(0.2), Double(20.0), Double(20.2), true);
        check(Delta(0.2), Double(20.0), Double(20.19), false);
        check(Delta(0.2), Double(20.0), Double(20.199_999_999_999), false);
        check(Delta(0.2), Double(-0.1), Double(0.1), true);
        check(Delta(0.1), Double(0.2), Double(0.3), true);
        check(Delta(0.3), Double(1e15), Double(1e15), false);
        check(Delta(2.0), Double(1.5), Integer(3), false);
        check(Delta(2.0), Double(1.0), Integer(3), true);
        check(Delta(0.0), Double(1.0), Integer(1), false);
        check(Delta(0.0), Double(0.0), Double(-0.0), false);
        check(Delta(0.0), Double(1.0), Double(1.0 + f64::EPSILON), true);
        check(Delta(1e18), Double(f64::MAX), Double(f64::MIN), true);
        check(Delta(1e18), Double(1e18), Double(-1e15), true);
        check(Delta(1e18), Double(1e17), Double(-1e15), false);
    }

    #[test]
    fn integers_are_compared_to_the_last_digit() {
        check(Delta(2.0), Integer(1), Integer(3), true);
        check(Delta(2.0), Integer(1), Integer(2), false);
        check(Delta(1.5), Integer(1), Integer(2), false);
        check(Delta(0.0), Integer(BIG), Integer(BIG + 1), true);
        check(Delta(1.0), Integer(i64::MAX), Integer(i64::MAX - 1), true);
        check(Delta(2.0), Integer(i64::MAX), Integer(i64::MAX - 1), false);
        check(Delta(1e18), Integer(i64::MAX), Integer(i64::MIN), true);
        check(Delta(0.0), Integer(BIG + 1), Double(BIG as f64), true);
        check(Delta(0.0), Integer(BIG), Double(BIG as f64), false);
        check(Delta(0.0), Integer(i64::MAX), Double(i64::MAX as f64), true);
        check(Delta(0.0), Integer(0), Double(-0.0), false);
    }

    #[test]
    fn percents_are_relative_to_the_last_value_passed() {
        check(Percent(10.0), Integer(100), Integer(110), true);
        check(Percent(10.0), Integer(110), Integer(100), false);
        check(Percent(10.0), Integer(-100), Integer(-109), false);
        check(Percent(0.1), Integer(1000), Integer(1001), true);
        check(Percent(1.1), Integer(1000), Integer(1011), true);
        check(Percent(1.1), Integer(1000), Integer(1010), false);
        check(Percent(1.0), Double(20.0), Double(20.2), true);
        check(Percent(1.0), Double(-20.0), Double(-19.8), true);
        check(Percent(1.0), Double(20.0), Double(20.19), false);
        check(Percent(1.0), Double(0.0), Double(1e-300), true);
        check(Percent(1.0), Integer(0), Integer(0), false);
        check(Percent(0.0), Integer(5), Integer(6), true);
        check(Percent(1e6), Double(1e307), Double(1.0), false);
    }

    #[test]
    fn booleans_texts_and_kinds_move_with_every_change() {
        for least in [Delta(1e18), Percent(1e6)] {
            check(least, Boolean(true), Boolean(true), false);
            check(least, Boolean(true), Boolean(false), true);
            check(least, Text(7), Text(7), false);
            check(least, Text(7), Text(8), true);
            check(least, Boolean(true), Integer(1), true);
            check(least, Text(1), Integer(1), true);
            check(least, Text(1), Boolean(true), true);
            check(least, Double(0.0), Boolean(false), true);
        }
    }
}
