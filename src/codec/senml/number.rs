//! Numbers from their text: values as they are kept, times to the nanosecond.
//!
//! The texts are JSON numbers (RFC 8259, section 6); whoever cut them out of the body has seen to that.

use crate::reading::{NewValue, NumberText, Value};

/// No double, or no time that is looked at, is as large as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beyond;

/// Times are looked at up to so many nanoseconds in either direction; any two of them can be added.
const NANOS_MAX: i128 = 10_i128.pow(36);
/// Nanoseconds are so many digits after the point of a second.
const NANO_DIGITS: i64 = 9;
/// Integers up to so many digits can be multiplied by a thousand million without a look at their size.
const PLAIN_DIGITS_MAX: usize = 18;
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

/// Seconds as nanoseconds, from the decimal digits: nothing is rounded, digits after the ninth of a second are cut
/// off.
pub(super) fn nanos(seconds: &str) -> Result<i128, Beyond> {
    if seconds.len() <= PLAIN_DIGITS_MAX
        && let Ok(seconds) = seconds.parse::<i64>()
    {
        return Ok(i128::from(seconds) * 1_000_000_000);
    }
    let (negative, text) = match seconds.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, seconds),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // An exponent of more digits than fit is as good as the largest one, or the smallest.
    let exponent =
        exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 });
    let whole_digits = i64::try_from(whole.len()).map_err(|_| Beyond)?;
    // How many digits stand before the point of a number of nanoseconds.
    let count = whole_digits.saturating_add(exponent).saturating_add(NANO_DIGITS);
    let nanos = leading_digits(whole.bytes().chain(fraction.bytes()), count)?;
    Ok(if negative { -nanos } else { nanos })
}

/// The number that the first `count` digits make, with zeros after the last.
fn leading_digits(mut digits: impl Iterator<Item = u8>, count: i64) -> Result<i128, Beyond> {
    let mut number = 0;
    for _ in 0..count.max(0) {
        number = match digits.next() {
            Some(digit) => number * 10 + i128::from(digit - b'0'),
            // Zero stays zero, however large its exponent.
            None if number == 0 => return Ok(0),
            None => number * 10,
        };
        if number > NANOS_MAX {
            return Err(Beyond);
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_keep_every_digit_down_to_the_nanosecond() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0e7", 0),
            ("1.276020076001e+09", 1_276_020_076_001_000_000),
            ("1276020076.001", 1_276_020_076_001_000_000),
            ("1276020076.123456789", 1_276_020_076_123_456_789),
            ("1276020076.1234567899", 1_276_020_076_123_456_789),
            ("-1.9999999999", -1_999_999_999),
            ("-5", -5_000_000_000),
            ("5e-10", 0),
            ("5E-9", 5),
            ("12345e-13", 1),
            ("1e0", 1_000_000_000),
            ("268435456", 268_435_456_000_000_000),
            ("123456789012345678", 123_456_789_012_345_678_000_000_000),
            ("1e27", NANOS_MAX),
            ("0e99999999999999999999999999", 0),
            ("7e-99999999999999999999999999", 0),
            ("0.000000000000000000000000000000000000000001e42", 1_000_000_000),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
        for text in ["1e28", "-1e28", "1e999", "1e99999999999999999999999999", &"9".repeat(10_000)] {
            assert_eq!(nanos(text), Err(Beyond), "{text:.40}");
        }
    }

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

    /// Writes `number` × 10^-9 with its point moved to the left by `shift` places, and an exponent that moves it back.
    fn decimal(number: i64, shift: usize, letter: &str) -> String {
        let places = 9 + shift;
        let digits = format!("{:0width$}", number.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let sign = if number < 0 { "-" } else { "" };
        match shift {
            0 => format!("{sign}{whole}.{fraction}"),
            _ => format!("{sign}{whole}.{fraction}{letter}{shift}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn any_number_of_nanoseconds_is_read_back_from_its_seconds(
            number: i64,
            shift in 0..30_usize,
            letter in prop::sample::select(vec!["e", "e+", "E", "E+0"]),
            cut_off in "[0-9]{0,5}",
        ) {
            let text = decimal(number, shift, letter);
            prop_assert_eq!(nanos(&text), Ok(i128::from(number)), "{}", text);
            if shift == 0 {
                let longer = format!("{text}{cut_off}");
                prop_assert_eq!(nanos(&longer), Ok(i128::from(number)), "{}", longer);
            }
            let whole = format!("{number}e-9");
            prop_assert_eq!(nanos(&whole), Ok(i128::from(number)), "{}", whole);
        }

        #[test]
        fn no_number_can_cause_a_panic(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,25})?") {
            let time = nanos(&text);
            prop_assert!(time.is_err() || time.is_ok_and(|nanos| nanos.abs() <= NANOS_MAX));
            let _ = (value(&text), is_beyond(&text), lone_value(&text));
        }
    }
}
