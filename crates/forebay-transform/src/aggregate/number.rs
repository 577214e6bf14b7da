//! An integer or a double: integers are exact, and compared exactly with doubles.

use std::cmp::Ordering;

use forebay_reading::{ReadingRef, Token, Value};

/// A number that can be aggregated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number, or a boolean as 0 or 1.
    Integer(i64),
    /// Any other number; always finite.
    Double(f64),
}

impl Number {
    /// The value of a reading; `None` if it is a text.
    pub fn of(reading: ReadingRef<'_>) -> Option<Number> {
        match reading.value_token() {
            Token::Text(_) => None,
            Token::Literal(b"false") => Some(Number::Integer(0)),
            Token::Literal(b"true") => Some(Number::Integer(1)),
            Token::Literal(_) if reading.is_integer() => match reading.value() {
                Value::Integer(integer) => Some(Number::Integer(integer)),
                Value::Double(double) => Some(Number::Double(double)),
                Value::Boolean(_) | Value::Text(_) => None,
            },
            // This way of reading a double is the faster one.
            Token::Literal(_) => reading.value_as_double().map(Number::Double),
        }
    }

    /// The nearest double.
    pub fn as_double(self) -> f64 {
        match self {
            Number::Integer(integer) => nearest_double(integer),
            Number::Double(double) => double,
        }
    }

    /// The number as the value of a reading.
    pub fn as_value(self) -> Value<'static> {
        match self {
            Number::Integer(integer) => Value::Integer(integer),
            Number::Double(double) => Value::Double(double),
        }
    }

    /// Whether it is less than another, exactly.
    pub fn is_below(self, other: Number) -> bool {
        self.compare(other) == Ordering::Less
    }

    fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Integer(one), Number::Integer(two)) => one.cmp(&two),
            (Number::Integer(one), Number::Double(two)) => compare_exactly(one, two),
            (Number::Double(one), Number::Integer(two)) => compare_exactly(two, one).reverse(),
            (Number::Double(one), Number::Double(two)) => one.partial_cmp(&two).unwrap_or(Ordering::Equal),
        }
    }
}

/// The double that is nearest to an integer.
#[expect(clippy::cast_precision_loss, reason = "the nearest double is meant")]
fn nearest_double(integer: i64) -> f64 {
    integer as f64
}

/// Rounding preserves the order, so only an integer that rounds to the same double needs an exact comparison. That double
/// is whole, and at most 2^63.
#[expect(clippy::cast_possible_truncation, reason = "the double is whole and small enough")]
fn compare_exactly(integer: i64, double: f64) -> Ordering {
    match nearest_double(integer).partial_cmp(&double) {
        Some(Ordering::Equal) | None => i128::from(integer).cmp(&(double as i128)),
        Some(order) => order,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_doubles_are_compared_exactly() {
        let check = |integer: i64, double: f64, expected: Ordering| {
            let (one, two) = (Number::Integer(integer), Number::Double(double));
            assert_eq!(
                (one.compare(two), two.compare(one)),
                (expected, expected.reverse()),
                "{one:?} {two:?}"
            );
        };
        let two_to_53 = 9_007_199_254_740_992;
        check(1, 1.5, Ordering::Less);
        check(2, 1.5, Ordering::Greater);
        check(-3, -3.0, Ordering::Equal);
        check(two_to_53 + 1, 9_007_199_254_740_992.0, Ordering::Greater);
        check(two_to_53 - 1, 9_007_199_254_740_992.0, Ordering::Less);
        check(i64::MAX, 9_223_372_036_854_775_808.0, Ordering::Less);
        check(i64::MIN, -9_223_372_036_854_775_808.0, Ordering::Equal);
        check(i64::MAX, f64::MAX, Ordering::Less);
        check(i64::MIN, f64::MIN, Ordering::Greater);
        check(0, -0.0, Ordering::Equal);
        check(0, 5e-324, Ordering::Less);
    }
}
