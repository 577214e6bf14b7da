//! Sums of base values and values.

use forebay_reading::Value;

/// The sum of a base value and a value: exact for two integers if it fits, else a sum of doubles. `None` beyond all doubles.
pub(super) fn sum(base: Value<'_>, own: Value<'_>) -> Option<Value<'static>> {
    if let (Value::Integer(base), Value::Integer(own)) = (base, own)
        && let Some(sum) = base.checked_add(own)
    {
        return Some(Value::Integer(sum));
    }
    let sum = double(base) + double(own);
    sum.is_finite().then_some(Value::Double(sum))
}

fn double(number: Value<'_>) -> f64 {
    match number {
        #[expect(
            clippy::cast_precision_loss,
            reason = "beside a double, or past 64 bits, numbers are doubles"
        )]
        Value::Integer(number) => number as f64,
        Value::Double(number) => number,
        Value::Boolean(_) | Value::Text(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_kept_and_added_exactly_while_they_fit() {
        for (base, own, expected) in [
            ("9223372036854775806", "1", Some(Value::Integer(i64::MAX))),
            ("9223372036854775807", "1", Some(Value::Double(9_223_372_036_854_775_808.0))),
            ("-9223372036854775808", "9223372036854775807", Some(Value::Integer(-1))),
            ("1", "0.5", Some(Value::Double(1.5))),
            ("20.0", "1", Some(Value::Double(21.0))),
            ("1e308", "1e308", None),
            ("-1e308", "1e308", Some(Value::Double(0.0))),
        ] {
            let value = |text| Value::of_number(text).expect(text);
            assert_eq!(sum(value(base), value(own)), expected, "{base} + {own}");
        }
    }
}
