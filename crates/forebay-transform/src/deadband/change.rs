//! Whether a value moved by enough.

/// The least change that counts. No change at all never does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Least {
    /// So much. Of 0, any change.
    Delta(f64),
    /// So many percent of the absolute value that it is compared with.
    Percent(f64),
}

/// What is kept of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kept {
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// A text, as 64 bits of a hash with a random key. Texts are only compared with the one before them: one that
    /// changed is taken for the same once in 2^64 times (1.8e19).
    Text(u64),
}

impl Least {
    /// Whether there is at least so much between two values. Truths and texts are as far apart as can be unless they
    /// are equal, and so are values of different kinds; all numbers are of one kind.
    #[expect(
        clippy::cast_precision_loss,
        reason = "what is_same finds different is compared with a tolerance"
    )]
    pub fn is_reached(self, last: Kept, new: Kept) -> bool {
        match (last, new) {
            (Kept::Integer(last), Kept::Integer(new)) => self.is_reached_by_integers(last, new),
            (Kept::Double(last), Kept::Double(new)) => last != new && self.is_reached_by_doubles(last, new),
            (Kept::Integer(last), Kept::Double(new)) => {
                !is_same(last, new) && self.is_reached_by_doubles(last as f64, new)
            }
            (Kept::Double(last), Kept::Integer(new)) => {
                !is_same(new, last) && self.is_reached_by_doubles(last, new as f64)
            }
            (Kept::Boolean(_) | Kept::Text(_), _) | (_, Kept::Boolean(_) | Kept::Text(_)) => last != new,
        }
    }

    /// With `delta`, exactly.
    #[expect(clippy::cast_precision_loss, reason = "a percentage is compared with a tolerance")]
    fn is_reached_by_integers(self, last: i64, new: i64) -> bool {
        let distance = last.abs_diff(new);
        let is_enough = match self {
            Least::Delta(delta) => u128::from(distance) >= whole_from(delta),
            Least::Percent(_) => distance as f64 >= self.of(last as f64) * (1.0 - ROUNDING),
        };
        distance != 0 && is_enough
    }

    /// 20.0 and 20.2 are 0.2 apart for whoever wrote them, but their doubles are 0.199…29 apart. Each of the two and
    /// the limit are off by half a unit in their last place, the difference and the product with `percent` by as much
    /// again. All of that together is less than the tolerance.
    fn is_reached_by_doubles(self, last: f64, new: f64) -> bool {
        // Not the sum first: it may be more than the largest double.
        let tolerance = ROUNDING * last.abs() + ROUNDING * new.abs();
        (last - new).abs() >= self.of(last) - tolerance
    }

    /// How much it is, seen from a value.
    fn of(self, last: f64) -> f64 {
        match self {
            Least::Delta(delta) => delta,
            Least::Percent(percent) => last.abs() * percent / 100.0,
        }
    }
}

/// What numbers may be off by without being taken for different, as a ratio of themselves.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

/// The first whole number that is no less; the largest for what is beyond it.
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
    #![expect(clippy::cast_precision_loss, reason = "some are chosen for it")]

    use super::Kept::{Boolean, Double, Integer, Text};
    use super::Least::{Delta, Percent};
    use super::*;

    const BIG: i64 = 1 << 53;

    fn check(least: Least, last: Kept, new: Kept, expected: bool) {
        assert_eq!(least.is_reached(last, new), expected, "{least:?} {last:?} {new:?}");
        if !matches!(least, Percent(_)) {
            assert_eq!(least.is_reached(new, last), expected, "{least:?} {new:?} {last:?}");
        }
    }

    #[test]
    fn a_number_moved_if_it_is_as_far_off_as_the_least_change_and_not_the_same() {
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
    fn percents_are_those_of_the_value_that_passed() {
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
    fn truths_and_texts_and_kinds_move_when_they_change() {
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
