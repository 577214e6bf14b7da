//! Durations and timestamps by the specification of CEL, where the crate `cel` differs from it.
//!
//! - `getMilliseconds` of a duration is its milliseconds part, 0 to 999: 234 of `duration('1.234s')`. The crate gives all
//!   of its milliseconds, 1234. (`getHours`, `getMinutes` and `getSeconds` are the whole duration in that unit.)
//! - `duration(text)` reads a duration to the end of the text, and exactly. The crate ignores text behind a duration, and
//!   reads decimals as doubles: its `1.001s` has 0 whole milliseconds beyond the second.
//! - `timestamp(text)` is an instant in UTC: its parts, without a time zone, are in UTC. In the crate they are in the
//!   offset of the text.
//!
//! An overload of the crate cannot be replaced. So macros turn these calls into calls of our own functions, whose names
//! cannot be written in an expression.

use cel::common::ast::{CallExpr, Expr, IdedExpr};
use cel::common::types::{CelDuration, CelInt, CelString, CelTimestamp};
use cel::parser::Macro;
use cel::{DeclarationError, Env, ExecutionError};
use chrono::{DateTime, Datelike as _, FixedOffset, Timelike as _};

/// Units of a duration in nanoseconds, by their names in Go and the specification. A name comes before its prefixes.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Digits behind the point of a duration that count: an hour in nanoseconds has 13 digits.
const FRACTION_DIGITS_MAX: usize = 18;
/// The years that a timestamp may lie in.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// The standard environment with our own functions in place of the crate's.
pub(super) fn language() -> Env {
    let mut language = Env::stdlib();
    extend(&mut language).expect("each macro and overload is added once");
    language
}

fn extend(language: &mut Env) -> Result<(), DeclarationError> {
    language.add_macro(Macro::global("duration", 1, |helper, _target, arguments| {
        Ok(Some(helper.next_expr(call("@duration", None, std::mem::take(arguments)))))
    }))?;
    language.add_macro(Macro::global("timestamp", 1, |helper, _target, arguments| {
        Ok(Some(helper.next_expr(call("@timestamp", None, std::mem::take(arguments)))))
    }))?;
    language.add_macro(Macro::receiver("getMilliseconds", 0, |helper, target, _arguments| {
        Ok(Some(helper.next_expr(call("@getMilliseconds", target.take(), Vec::new()))))
    }))?;
    cel::add_overload!(language, fn duration_of_text: (CelString) -> Result<CelDuration>,
        name = "@duration", id = "forebay_string_to_duration")?;
    cel::add_overload!(language, fn duration_of_duration: (CelDuration) -> CelDuration,
        name = "@duration", id = "forebay_duration_to_duration")?;
    cel::add_overload!(language, fn timestamp_of_text: (CelString) -> Result<CelTimestamp>,
        name = "@timestamp", id = "forebay_string_to_timestamp")?;
    cel::add_overload!(language, fn timestamp_of_seconds: (CelInt) -> Result<CelTimestamp>,
        name = "@timestamp", id = "forebay_int64_to_timestamp")?;
    cel::add_overload!(language, fn timestamp_of_timestamp: (CelTimestamp) -> CelTimestamp,
        name = "@timestamp", id = "forebay_timestamp_to_timestamp")?;
    cel::add_member_overload!(language, fn milliseconds_of_duration: (CelDuration) -> CelInt,
        name = "@getMilliseconds", id = "forebay_duration_to_milliseconds")?;
    cel::add_member_overload!(language, fn milliseconds_of_timestamp: (CelTimestamp) -> CelInt,
        name = "@getMilliseconds", id = "forebay_timestamp_to_milliseconds")
}

fn call(name: &str, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: target.map(Box::new), args })
}

fn milliseconds_of_duration(duration: &CelDuration) -> CelInt {
    CelInt::from(duration.inner().num_milliseconds() % 1000)
}

fn milliseconds_of_timestamp(time: &CelTimestamp) -> CelInt {
    CelInt::from(i64::from(time.inner().timestamp_subsec_millis()))
}

fn duration_of_duration(duration: &CelDuration) -> CelDuration {
    *duration
}

fn duration_of_text(text: &CelString<'_>) -> Result<CelDuration, ExecutionError> {
    let nanos = parse_duration(text.inner())
        .ok_or_else(|| ExecutionError::function_error("duration", "no duration, or one that is too long"))?;
    Ok(CelDuration::from(chrono::Duration::nanoseconds(nanos)))
}

/// Nanoseconds of a text such as `1h30m` or `-1.5s`; `None` if it is not a duration, or too long for 64 bits. Digits
/// beyond nanoseconds are cut off.
fn parse_duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let mut nanos = 0_i128;
    if rest == "0" {
        return Some(0);
    }
    loop {
        let (part, after) = parse_part(rest)?;
        nanos = nanos.checked_add(part)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    i64::try_from(if is_negative { -nanos } else { nanos }).ok()
}

/// The nanoseconds of a number and its unit at the beginning of a text, and the rest of the text.
fn parse_part(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let unit = |(name, nanos): &(&str, u128)| rest.strip_prefix(name).map(|after| (*nanos, after));
    // "m" is a prefix of "ms", which therefore comes first.
    let (unit, after) = UNITS.iter().find_map(unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let tenths: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let nanos = u128::from(whole) * unit + u128::from(tenths) * unit / scale;
    Some((i128::try_from(nanos).ok()?, after))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn timestamp_of_timestamp(time: &CelTimestamp) -> CelTimestamp {
    time.clone()
}

fn timestamp_of_text(text: &CelString<'_>) -> Result<CelTimestamp, ExecutionError> {
    let failed = |problem: String| ExecutionError::function_error("timestamp", problem);
    let time = DateTime::parse_from_rfc3339(text.inner()).map_err(|error| failed(error.to_string()))?;
    // The crate `chrono` gives a leap second more nanoseconds than a second has.
    if time.nanosecond() >= 1_000_000_000 {
        return Err(failed("there is no leap second here".to_owned()));
    }
    within_years(time)
}

fn timestamp_of_seconds(seconds: &CelInt) -> Result<CelTimestamp, ExecutionError> {
    let time = DateTime::from_timestamp(*seconds.inner(), 0).map(|time| time.fixed_offset());
    time.ok_or_else(out_of_range).and_then(within_years)
}

/// The same instant in UTC, if it lies in the years that a timestamp may lie in.
fn within_years(time: DateTime<FixedOffset>) -> Result<CelTimestamp, ExecutionError> {
    let time = time.to_utc().fixed_offset();
    if YEARS.contains(&time.year()) { Ok(CelTimestamp::from(time)) } else { Err(out_of_range()) }
}

fn out_of_range() -> ExecutionError {
    ExecutionError::function_error("timestamp", "out of range: years 1 to 9999")
}
