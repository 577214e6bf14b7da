//! Instants with nanosecond precision, as RFC 3339 text or as a number since the Unix epoch.
//!
//! The calendar arithmetic is Howard Hinnant's (`chrono`-compatible low-level date algorithms); the tests
//! compare it with the `jiff` crate over the whole range.

pub mod decimal;
mod reader;

use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

pub use reader::TimeReader;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// The digits of 00 to 99.
const DIGIT_PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
    2021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859\
    6061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";
/// Longest time text that is parsed, in bytes; a longer one is not a time.
const TEXT_BYTES_MAX: usize = 64;

/// An instant from 1970-01-01T00:00:00Z to 2262-04-11T23:47:16.854775807Z, with nanosecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    nanos: i64,
}

/// The unit of a numeric time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Seconds since the Unix epoch.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Millis,
    /// Microseconds since the Unix epoch.
    Micros,
    /// Nanoseconds since the Unix epoch.
    Nanos,
    /// Minutes since the Unix epoch.
    Minutes,
    /// Hours since the Unix epoch.
    Hours,
}

/// The reason why a text or a number is not an instant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimeError {
    /// The text is not an RFC 3339 date and time with an offset.
    #[error("time must be an RFC 3339 date and time with an offset, such as 2026-02-01T12:00:00Z")]
    Syntax,
    /// A date that is not in the calendar, or an hour past 23.
    #[error("time names a date or an hour that does not exist")]
    Calendar,
    /// A time outside the range of [`Timestamp`].
    #[error(
        "time must be from 1970-01-01 to 2262-04-11; a number counts {unit} unless `precision` says otherwise",
        unit = precision.noun()
    )]
    Range {
        /// The unit of the number.
        precision: Precision,
    },
}

impl Precision {
    /// The precisions for requests in JSON, by their names in the query parameter `precision`.
    pub const NAMES: &[(&str, Precision)] = &[
        ("s", Precision::Seconds),
        ("ms", Precision::Millis),
        ("us", Precision::Micros),
        ("ns", Precision::Nanos),
    ];

    /// The unique name, under which requests are remembered.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Seconds => "s",
            Precision::Millis => "ms",
            Precision::Micros => "us",
            Precision::Nanos => "ns",
            Precision::Minutes => "m",
            Precision::Hours => "h",
        }
    }

    /// Nanoseconds in one unit.
    pub fn nanos(self) -> i64 {
        match self {
            Precision::Seconds => NANOS_PER_SECOND,
            Precision::Millis => 1_000_000,
            Precision::Micros => 1_000,
            Precision::Nanos => 1,
            Precision::Minutes => 60 * NANOS_PER_SECOND,
            Precision::Hours => 3600 * NANOS_PER_SECOND,
        }
    }

    /// The unit in the plural, for messages.
    pub fn noun(self) -> &'static str {
        match self {
            Precision::Seconds => "seconds",
            Precision::Millis => "milliseconds",
            Precision::Micros => "microseconds",
            Precision::Nanos => "nanoseconds",
            Precision::Minutes => "minutes",
            Precision::Hours => "hours",
        }
    }
}

impl Timestamp {
    /// The Unix epoch, the earliest instant.
    pub const MIN: Timestamp = Timestamp { nanos: 0 };
    /// The latest instant.
    pub const MAX: Timestamp = Timestamp { nanos: i64::MAX };

    /// The instant so many nanoseconds after the Unix epoch; `None` if negative.
    pub fn from_nanos(nanos: i64) -> Option<Timestamp> {
        (nanos >= 0).then_some(Timestamp { nanos })
    }

    /// The instant of a system time, clamped to the range of [`Timestamp`].
    pub fn from_system(time: SystemTime) -> Timestamp {
        let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Timestamp { nanos: i64::try_from(nanos).unwrap_or(i64::MAX) }
    }

    /// Nanoseconds since the Unix epoch, never negative.
    pub fn nanos(self) -> i64 {
        self.nanos
    }

    /// The instant `nanos` later, clamped to the range of [`Timestamp`].
    pub fn saturating_add_nanos(self, nanos: i64) -> Timestamp {
        Timestamp { nanos: self.nanos.saturating_add(nanos).max(0) }
    }

    /// Reads a whole number since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`TimeError::Range`] for a time before 1970 or after 2262.
    pub fn from_integer(number: i64, precision: Precision) -> Result<Timestamp, TimeError> {
        let nanos = number.checked_mul(precision.nanos()).ok_or(TimeError::Range { precision })?;
        Timestamp::from_nanos(nanos).ok_or(TimeError::Range { precision })
    }

    /// Reads a decimal number since the Unix epoch, in any form of JSON: with a fraction, an exponent, or both.
    ///
    /// Every digit down to the nanosecond counts, and further digits are cut off: 1170288000.1234567899 s is exactly
    /// …123456789 ns.
    ///
    /// # Errors
    ///
    /// [`TimeError::Range`] for a time before 1970 or after 2262.
    pub fn from_decimal(number: &str, precision: Precision) -> Result<Timestamp, TimeError> {
        let nanos = decimal::nanos(number, precision).ok().and_then(|nanos| i64::try_from(nanos).ok());
        nanos.and_then(Timestamp::from_nanos).ok_or(TimeError::Range { precision })
    }

    /// Reads an RFC 3339 date and time (section 5.6) with its offset.
    ///
    /// Digits after the ninth of a fraction are cut off. A leap second is the first instant of the next
    /// minute, as in POSIX time.
    ///
    /// # Errors
    ///
    /// [`TimeError`] says whether the form, the calendar or the range is at fault.
    pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
        Timestamp::parse_with_local(text).map(|(time, _)| time)
    }

    /// Reads a date and time. Returns the local time before the offset as well.
    fn parse_with_local(text: &str) -> Result<(Timestamp, LocalTime), TimeError> {
        let bytes = text.as_bytes();
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(TimeError::Syntax);
        }
        let (date_time, rest) = bytes.split_first_chunk::<19>().ok_or(TimeError::Syntax)?;
        let local = LocalTime::parse(date_time)?;
        let (mut nanos, offset) = parse_fraction(rest)?;
        let seconds = local.seconds_since_epoch() - parse_offset(offset)?;
        if local.second == 60 {
            // The sum above counts a leap second as the first second of the next minute.
            if seconds.rem_euclid(SECONDS_PER_DAY) != 0 {
                return Err(TimeError::Calendar);
            }
            nanos = 0;
        }
        Ok((Timestamp::from_parts(seconds, nanos)?, local))
    }

    fn from_parts(seconds: i64, nanos: i64) -> Result<Timestamp, TimeError> {
        let range = TimeError::Range { precision: Precision::Millis };
        let total = seconds.checked_mul(NANOS_PER_SECOND).and_then(|whole| whole.checked_add(nanos));
        total.and_then(Timestamp::from_nanos).ok_or(range)
    }

    /// Appends RFC 3339 in UTC with `Z` and 0, 3, 6 or 9 fraction digits, as few as the instant needs.
    pub fn write(self, out: &mut Vec<u8>) {
        let seconds = self.nanos / NANOS_PER_SECOND;
        let small = |number: i64| u32::try_from(number).expect("days and seconds up to 2262 fit");
        let (year, month, day) = civil_from_days(small(seconds / SECONDS_PER_DAY));
        let of_day = small(seconds % SECONDS_PER_DAY);
        let mut text = *b"0000-00-00T00:00:00";
        put_two(&mut text, 0, year / 100);
        put_two(&mut text, 2, year % 100);
        put_two(&mut text, 5, month);
        put_two(&mut text, 8, day);
        put_two(&mut text, 11, of_day / 3600);
        put_two(&mut text, 14, of_day / 60 % 60);
        put_two(&mut text, 17, of_day % 60);
        out.extend_from_slice(&text);
        write_fraction(self.nanos % NANOS_PER_SECOND, out);
        out.push(b'Z');
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::with_capacity(30);
        self.write(&mut text);
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

/// A date and a time of day without its offset. The second may be 60.
struct LocalTime {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl LocalTime {
    fn parse(text: &[u8; 19]) -> Result<LocalTime, TimeError> {
        let separators = (text[4], text[7], text[10], text[13], text[16]);
        let (b'-', b'-', b'T' | b't' | b' ', b':', b':') = separators else {
            return Err(TimeError::Syntax);
        };
        // One check at the end for all digits is faster than one check for each.
        let mut all_digits = true;
        let mut two = |at: usize| {
            let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
            all_digits &= tens < 10 && ones < 10;
            i64::from(tens) * 10 + i64::from(ones)
        };
        let local = LocalTime {
            year: two(0) * 100 + two(2),
            month: two(5),
            day: two(8),
            hour: two(11),
            minute: two(14),
            second: two(17),
        };
        if !all_digits {
            return Err(TimeError::Syntax);
        }
        let exists = (1..=12).contains(&local.month)
            && (1..=days_in_month(local.year, local.month)).contains(&local.day)
            && local.hour < 24
            && local.minute < 60
            && local.second <= 60;
        if exists { Ok(local) } else { Err(TimeError::Calendar) }
    }

    fn seconds_since_epoch(&self) -> i64 {
        days_from_civil(self.year, self.month, self.day) * SECONDS_PER_DAY
            + self.hour * 3600
            + self.minute * 60
            + self.second
    }
}

/// Reads optional `.digits` as nanoseconds. Returns the rest of the text as well.
fn parse_fraction(text: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let Some((b'.', digits_and_rest)) = text.split_first() else {
        return Ok((0, text));
    };
    let length = digits_and_rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return Err(TimeError::Syntax);
    }
    let (digits, rest) = digits_and_rest.split_at(length);
    let mut nanos = 0;
    let mut place = NANOS_PER_SECOND;
    for digit in &digits[..length.min(9)] {
        place /= 10;
        nanos += i64::from(digit - b'0') * place;
    }
    Ok((nanos, rest))
}

/// Reads `Z` or `±hh:mm` as seconds east of UTC.
fn parse_offset(text: &[u8]) -> Result<i64, TimeError> {
    match text {
        [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
            if hours > 23 || minutes > 59 {
                return Err(TimeError::Calendar);
            }
            let east = hours * 3600 + minutes * 60;
            Ok(if *sign == b'+' { east } else { -east })
        }
        _ => Err(TimeError::Syntax),
    }
}

fn write_fraction(nanos: i64, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let (mut number, digits) = match nanos {
        n if n % 1_000_000 == 0 => (n / 1_000_000, 3),
        n if n % 1_000 == 0 => (n / 1_000, 6),
        n => (n, 9),
    };
    let mut text = *b".000000000";
    for place in (1..=digits).rev() {
        text[place] = digit(number % 10);
        number /= 10;
    }
    out.extend_from_slice(&text[..=digits]);
}

fn two(text: &[u8], at: usize) -> Result<i64, TimeError> {
    match (text[at], text[at + 1]) {
        (tens @ b'0'..=b'9', ones @ b'0'..=b'9') => Ok(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => Err(TimeError::Syntax),
    }
}

/// Writes a number below 100 as two digits.
fn put_two(text: &mut [u8; 19], at: usize, number: u32) {
    let pair = number as usize * 2;
    text[at..at + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
}

fn digit(number: i64) -> u8 {
    b'0' + u8::try_from(number).expect("a decimal digit is below ten")
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Hinnant, `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day since 1970-01-01, from 1970 on (Hinnant, `civil_from_days`).
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let time = Timestamp::parse(text).expect(text);
        assert_eq!(time.to_string(), expected, "{text}");
    }

    #[test]
    fn rfc_3339_forms_become_utc_with_as_few_digits_as_needed() {
        check("2007-02-01T00:00:00Z", "2007-02-01T00:00:00Z");
        check("2007-02-01t00:00:00z", "2007-02-01T00:00:00Z");
        check("2007-02-01 00:00:00.5Z", "2007-02-01T00:00:00.500Z");
        check("2007-02-01T02:30:00.123456+02:30", "2007-02-01T00:00:00.123456Z");
        check("2007-01-31T23:00:00.000000001-01:00", "2007-02-01T00:00:00.000000001Z");
        check("2024-02-29T12:00:00.1234567899Z", "2024-02-29T12:00:00.123456789Z");
        check("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00Z");
        check("2262-04-11T23:47:16.854775807Z", "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn a_leap_second_is_the_next_minute_and_only_where_one_can_be() {
        check("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z");
        check("2017-01-01T00:59:60.7+01:00", "2017-01-01T00:00:00Z");
        assert_eq!(Timestamp::parse("2016-12-31T12:00:60Z"), Err(TimeError::Calendar));
    }

    #[test]
    fn invalid_times_are_refused() {
        for text in [
            "",
            "now",
            "2007-02-01",
            "2007-02-01T00:00:00",
            "2007-02-01T00:00:00.Z",
            "2007-2-01T00:00:00Z",
            "2007-02-01T00:00:00+0100",
            "2007-02-01T00:00:00Zjunk",
            "2007-02-01X00:00:00Z",
            "２００７-02-01T00:00:00Z",
            "+007-02-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimeError::Syntax), "{text}");
        }
        for text in [
            "2007-02-29T00:00:00Z",
            "2007-13-01T00:00:00Z",
            "2007-00-01T00:00:00Z",
            "2007-01-01T24:00:00Z",
            "2007-01-01T00:60:00Z",
            "2007-01-01T00:00:61Z",
            "2007-01-01T00:00:00+24:00",
        ] {
            assert_eq!(Timestamp::parse(text), Err(TimeError::Calendar), "{text}");
        }
        for text in [
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "2262-04-11T23:47:16.854775808Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert!(matches!(Timestamp::parse(text), Err(TimeError::Range { .. })), "{text}");
        }
    }

    #[test]
    fn numbers_count_in_their_unit_and_keep_their_digits() {
        let check = |time: Result<Timestamp, TimeError>, nanos: i64| {
            assert_eq!(time.map(Timestamp::nanos), Ok(nanos))
        };
        check(Timestamp::from_integer(1_170_288_000_123, Precision::Millis), 1_170_288_000_123_000_000);
        check(Timestamp::from_integer(1, Precision::Seconds), 1_000_000_000);
        check(Timestamp::from_integer(1, Precision::Micros), 1_000);
        check(Timestamp::from_integer(i64::MAX, Precision::Nanos), i64::MAX);
        check(Timestamp::from_integer(2, Precision::Minutes), 120_000_000_000);
        check(Timestamp::from_integer(2, Precision::Hours), 7_200_000_000_000);
        check(Timestamp::from_decimal("1170288000.123456", Precision::Seconds), 1_170_288_000_123_456_000);
        check(Timestamp::from_decimal("1170288000.123456789", Precision::Seconds), 1_170_288_000_123_456_789);
        check(Timestamp::from_decimal("0.5", Precision::Nanos), 0);
        check(Timestamp::from_decimal("1e9", Precision::Millis), 1_000_000_000_000_000);
        check(Timestamp::from_decimal("9223372036854775807", Precision::Nanos), i64::MAX);
        check(Timestamp::from_decimal("9223372036854.775807", Precision::Millis), i64::MAX);
        for number in ["-1", "-0.000001", "1e19", "1e300", "1e999", "9223372036854.775808"] {
            assert!(Timestamp::from_decimal(number, Precision::Millis).is_err(), "{number}");
        }
        assert!(Timestamp::from_integer(-1, Precision::Seconds).is_err());
        assert!(Timestamp::from_integer(i64::MAX, Precision::Seconds).is_err());
    }

    proptest! {
        #[test]
        fn every_instant_reads_back_and_agrees_with_jiff(nanos in 0..i64::MAX) {
            let time = Timestamp { nanos };
            let text = time.to_string();
            prop_assert_eq!(Timestamp::parse(&text), Ok(time));
            let other: jiff::Timestamp = text.parse().expect("jiff reads it");
            prop_assert_eq!(other.as_nanosecond(), i128::from(nanos));
        }

        #[test]
        fn no_text_can_cause_a_panic(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
