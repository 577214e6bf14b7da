//! Numbers from their text: values as they are kept. Times are read by [`forebay_reading::timestamp::decimal`].
//!
//! The texts are JSON numbers (RFC 8259, section 6); whoever cut them out of the body has seen to that.

use forebay_reading::{NewValue, NumberText, Value};

/// No double is as large as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beyond;

/// A text that is not longer and has no exponent is no number beyond all doubles.
const PLAIN_BYTES_MAX: usize = 300;

/// A number as a value: whole ones that fit in 64 bits signed exactly, others as doubles.
pub(super) fn value(text: &str) -> Result<Value<'static>, Beyond> {
    // Minus zero is a double: no integer tells it from zero.
    if text != "-0"
        && let Ok(number) = text.parse()
    {
        return Ok(Value::Integer(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Double(number)),
        _ => Err(Beyond),
    }
}

/// The same where nothing is added to it: mostly the text is what will be kept.
pub(super) fn lone_value(text: &str) -> Result<NewValue<'_>, Beyond> {
    match NumberText::at_start_of(text) {
        Some((number, length)) if length == text.len() => Ok(NewValue::Number(number)),
        _ => value(text).map(NewValue::from),
    }
}

/// The sum of a base value and a value: exact for two integers if it fits, else that of doubles. `None` if no finite
/// double is as large.
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

/// Whether no double can hold the number.
pub(super) fn is_beyond(text: &str) -> bool {
    let is_plain = text.len() <= PLAIN_BYTES_MAX && !text.contains(['e', 'E']);
    !is_plain && value(text).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            let (first, second) = (value(base).expect(base), value(own).expect(own));
            assert_eq!(sum(first, second), expected, "{base} + {own}");
        }
    }

    #[test]
    fn numbers_beyond_all_doubles_are_known() {
        for (text, expected) in
            [("1e999", true), ("-1E400", true), ("1e308", false), ("1e-999", false), ("5", false)]
        {
            assert_eq!(is_beyond(text), expected, "{text}");
            assert_eq!(value(text).is_err(), expected, "{text}");
        }
        assert!(is_beyond(&"9".repeat(400)));
        assert!(!is_beyond(&format!("0.{}", "9".repeat(400))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_number_can_cause_a_panic(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,25})?") {
            let _ = (value(&text), is_beyond(&text), lone_value(&text));
        }
    }
}
