//! Decimal numbers as nanoseconds, digit by digit: the reader of numeric times for all formats.
//!
//! A double holds 15 to 17 digits, but a time in nanoseconds has 19, so no time passes through a double. The texts must be
//! JSON numbers (RFC 8259, section 6); callers make sure of that.

use super::Precision;

/// The error for a number beyond [`NANOS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOutOfRange;

/// Largest time in nanoseconds, in either direction. The sum of any two times cannot overflow.
pub const NANOS_MAX: i128 = 10_i128.pow(36);
/// Every integer of up to so many digits fits in 64 bits signed.
const PLAIN_DIGITS_MAX: usize = 18;

/// Reads a number of units as nanoseconds. Digits beyond the nanosecond are cut off, never rounded.
///
/// Minutes and hours must be whole numbers, because they are not a power of ten of a nanosecond.
///
/// # Errors
///
/// [`TimeOutOfRange`] for a time beyond [`NANOS_MAX`], and for a fraction of minutes or hours.
pub fn nanos(number: &str, unit: Precision) -> Result<i128, TimeOutOfRange> {
    if number.len() <= PLAIN_DIGITS_MAX
        && let Ok(whole) = number.parse::<i64>()
    {
        return Ok(i128::from(whole) * i128::from(unit.nanos()));
    }
    let (negative, text) = match number.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, number),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // An exponent with too many digits counts as the largest or the smallest one.
    let exponent =
        exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 });
    let whole_digits = i64::try_from(whole.len()).map_err(|_| TimeOutOfRange)?;
    // The number of digits before the decimal point, in nanoseconds.
    let count = whole_digits.saturating_add(exponent).saturating_add(places(unit).ok_or(TimeOutOfRange)?);
    let nanos = leading_digits(whole.bytes().chain(fraction.bytes()), count)?;
    Ok(if negative { -nanos } else { nanos })
}

/// The number of decimal places from a unit down to the nanosecond; `None` if the unit is not a power of ten of it.
fn places(unit: Precision) -> Option<i64> {
    match unit {
        Precision::Seconds => Some(9),
        Precision::Millis => Some(6),
        Precision::Micros => Some(3),
        Precision::Nanos => Some(0),
        Precision::Minutes | Precision::Hours => None,
    }
}

/// The number that consists of the first `count` digits, filled up with zeros.
fn leading_digits(mut digits: impl Iterator<Item = u8>, count: i64) -> Result<i128, TimeOutOfRange> {
    let mut number = 0;
    for _ in 0..count.max(0) {
        number = match digits.next() {
            Some(digit) => number * 10 + i128::from(digit - b'0'),
            // Zero stays zero, however large its exponent.
            None if number == 0 => return Ok(0),
            None => number * 10,
        };
        if number > NANOS_MAX {
            return Err(TimeOutOfRange);
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
            assert_eq!(nanos(text, Precision::Seconds), Ok(expected), "{text}");
        }
        for text in ["1e28", "-1e28", "1e999", "1e99999999999999999999999999", &"9".repeat(10_000)] {
            assert_eq!(nanos(text, Precision::Seconds), Err(TimeOutOfRange), "{text:.40}");
        }
    }

    #[test]
    fn every_unit_keeps_the_digits_that_a_double_would_lose() {
        for (text, unit, expected) in [
            ("1700000000.123456789", Precision::Seconds, 1_700_000_000_123_456_789),
            ("1700000000123.456789", Precision::Millis, 1_700_000_000_123_456_789),
            ("1700000000123456.789", Precision::Micros, 1_700_000_000_123_456_789),
            ("1700000000123456789", Precision::Nanos, 1_700_000_000_123_456_789),
            ("1700000000123456789.0", Precision::Nanos, 1_700_000_000_123_456_789),
            ("1700000000123456789.9", Precision::Nanos, 1_700_000_000_123_456_789),
            ("1.700000000123456789e9", Precision::Seconds, 1_700_000_000_123_456_789),
            ("1.700000000123456789E+18", Precision::Nanos, 1_700_000_000_123_456_789),
            ("1700000000123456789e-9", Precision::Seconds, 1_700_000_000_123_456_789),
            ("1.7e9", Precision::Seconds, 1_700_000_000_000_000_000),
            ("1.7e12", Precision::Millis, 1_700_000_000_000_000_000),
            ("0.000001", Precision::Millis, 1),
            ("0.0000009", Precision::Millis, 0),
            ("-0.5", Precision::Micros, -500),
            ("2", Precision::Minutes, 120_000_000_000),
            ("2", Precision::Hours, 7_200_000_000_000),
        ] {
            assert_eq!(nanos(text, unit), Ok(expected), "{text} {unit:?}");
        }
        assert_eq!(nanos("0.5", Precision::Minutes), Err(TimeOutOfRange));
    }

    /// Writes `number` × 10^-places with its point moved to the left by `shift` places, and an exponent that moves it
    /// back.
    fn decimal(number: i64, places: usize, shift: usize, letter: &str) -> String {
        let places = places + shift;
        let digits = format!("{:0width$}", number.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let sign = if number < 0 { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        match shift {
            0 => format!("{sign}{whole}{point}{fraction}"),
            _ => format!("{sign}{whole}{point}{fraction}{letter}{shift}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn any_number_of_nanoseconds_reads_back_from_every_unit(
            number: i64,
            (unit, places) in prop::sample::select(vec![
                (Precision::Seconds, 9_usize),
                (Precision::Millis, 6),
                (Precision::Micros, 3),
                (Precision::Nanos, 0),
            ]),
            shift in 0..30_usize,
            letter in prop::sample::select(vec!["e", "e+", "E", "E+0"]),
            cut_off in "[0-9]{0,5}",
        ) {
            let text = decimal(number, places, shift, letter);
            prop_assert_eq!(nanos(&text, unit), Ok(i128::from(number)), "{}", text);
            if shift == 0 && places > 0 {
                let longer = format!("{text}{cut_off}");
                prop_assert_eq!(nanos(&longer, unit), Ok(i128::from(number)), "{}", longer);
            }
            let whole = format!("{number}e-{places}");
            prop_assert_eq!(nanos(&whole, unit), Ok(i128::from(number)), "{}", whole);
        }

        #[test]
        fn no_number_can_cause_a_panic(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,25})?") {
            for (_, unit) in Precision::NAMES {
                let time = nanos(&text, *unit);
                prop_assert!(time.is_err() || time.is_ok_and(|nanos| nanos.abs() <= NANOS_MAX));
            }
        }
    }
}
