//! Durations and sizes in settings: `500ms`, `10s`, `64MiB`.

use std::time::Duration;

use thiserror::Error;

const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// The error for a text that is not a duration or size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("must be a whole number and a unit ({units}), such as {example}")]
pub struct QuantityError {
    units: &'static str,
    example: &'static str,
}

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
///
/// [`QuantityError`], which names the units.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let error = QuantityError { units: "ms, s, m, h, d", example: "500ms or 10s" };
    parse(text, DURATION_UNITS).map(Duration::from_millis).ok_or(error)
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
///
/// # Errors
///
/// [`QuantityError`], which names the units.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let error = QuantityError { units: "B, KiB, MiB, GiB, TiB", example: "64MiB" };
    parse(text, SIZE_UNITS).ok_or(error)
}

/// Writes a duration in the largest unit that needs no fraction. Fractions of a millisecond are cut off.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATION_UNITS)
}

/// Writes a size in the largest unit that needs no fraction.
pub fn format_size(bytes: u64) -> String {
    format(bytes, SIZE_UNITS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().rev().find(|(_, scale)| amount >= *scale && amount.is_multiple_of(*scale));
    let (unit, scale) = exact.unwrap_or(&units[usize::from(units[0].0 == "ms")]);
    format!("{}{unit}", amount / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back_as_they_are_written() {
        for text in ["0s", "500ms", "10s", "10m", "1h", "7d", "1500ms"] {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Ok(text));
        }
        for text in ["0B", "1000B", "64MiB", "1GiB", "1025KiB"] {
            assert_eq!(parse_size(text).map(format_size).as_deref(), Ok(text));
        }
        assert_eq!(parse_size("8 MiB"), Ok(8 << 20));
        assert_eq!(format_duration(Duration::from_secs(60)), "1m");
    }

    #[test]
    fn the_error_for_an_invalid_quantity_names_the_units() {
        for text in ["", "10", "s", "-1s", "1.5s", "10 sec", "99999999999999999999s", "18446744073709551615d"]
        {
            let error = parse_duration(text).expect_err(text);
            assert_eq!(
                error.to_string(),
                "must be a whole number and a unit (ms, s, m, h, d), such as 500ms or 10s"
            );
        }
        for text in ["64MB", "64M", "1e3B"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
