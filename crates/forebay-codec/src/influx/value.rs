//! The value of a field.

use forebay_reading::{NewValue, NumberText, Value};

use super::cursor::LineCursor;
use super::fault::LineFault;
use super::text_end;

/// InfluxDB's words for true and false.
const BOOLEANS: &[(&str, bool)] = &[
    ("true", true),
    ("false", false),
    ("t", true),
    ("f", false),
    ("T", true),
    ("F", false),
    ("True", true),
    ("False", false),
    ("TRUE", true),
    ("FALSE", false),
];
/// Words that are numbers to other programs, in lower case and without their sign.
const NOT_FINITE: &[&str] = &["nan", "inf", "infinity"];

/// Reads the value of the field `key`, which begins at the cursor. `text` is memory for a text without its escapes.
pub(super) fn read<'t, 'a: 't>(
    cursor: &mut LineCursor<'a>,
    key: &str,
    text: &'t mut String,
) -> Result<NewValue<'t>, LineFault> {
    if cursor.peek() == Some(b'"') {
        return quoted(cursor, key, text).map(|text| Value::Text(text).into());
    }
    if let Some((number, length)) = common_number(cursor) {
        cursor.at += length;
        return Ok(NewValue::Number(number));
    }
    let start = cursor.at;
    token(cursor.token(), start, key).map(NewValue::Value)
}

/// The number at the cursor and its length in bytes, if it is a whole value and needs no parsing.
fn common_number<'a>(cursor: &LineCursor<'a>) -> Option<(NumberText<'a>, usize)> {
    let text = cursor.rest();
    let (number, digits) = NumberText::at_start_of(text)?;
    let length = match (number.is_integer(), text.as_bytes().get(digits)) {
        (true, Some(b'i')) => digits + 1,
        (true, Some(b'u')) if !number.as_str().starts_with('-') => digits + 1,
        // Whole numbers without a suffix are doubles.
        (true, _) => return None,
        (false, _) => digits,
    };
    cursor.is_token(length).then_some((number, length))
}

/// Reads the text whose first quotation mark is at the cursor.
fn quoted<'t, 'a: 't>(
    cursor: &mut LineCursor<'a>,
    key: &str,
    text: &'t mut String,
) -> Result<&'t str, LineFault> {
    let rest = &cursor.rest()[1..];
    let length = text_end(rest.as_bytes(), 0).ok_or_else(|| LineFault::not_closed(cursor.at, key))?;
    cursor.at += length + 2;
    let raw = &rest[..length];
    if !raw.contains('\\') {
        return Ok(raw);
    }
    text.clear();
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let is_escape = matches!(rest.as_bytes().get(at + 1), Some(b'"' | b'\\'));
        text.push_str(&rest[..at + usize::from(!is_escape)]);
        // An escaped backslash does not begin another escape.
        let after = &rest[at + 1..];
        let passed = usize::from(is_escape);
        text.push_str(&after[..passed]);
        rest = &after[passed..];
    }
    text.push_str(rest);
    Ok(text)
}

/// A value that is not a text.
fn token(token: &str, at: usize, key: &str) -> Result<Value<'static>, LineFault> {
    if token.is_empty() {
        return Err(LineFault::empty_value(at, key));
    }
    if let Some((_, truth)) = BOOLEANS.iter().find(|(name, _)| *name == token) {
        return Ok(Value::Boolean(*truth));
    }
    let not_whole = || LineFault::not_whole(at, key, token);
    match token.split_at(token.floor_char_boundary(token.len() - 1)) {
        (digits, "i") if is_whole(digits) => {
            digits.parse().map(Value::Integer).map_err(|_too_large| not_whole())
        }
        (digits, "u") if is_whole(digits) && !digits.starts_with('-') => {
            digits.parse().ok().and_then(unsigned).ok_or_else(not_whole)
        }
        _ if is_decimal(token) => match token.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Double(number)),
            _ => Err(LineFault::not_finite(at, key, token)),
        },
        _ => {
            let name = token.trim_start_matches(['-', '+']);
            let is_known = NOT_FINITE.iter().any(|known| known.eq_ignore_ascii_case(name));
            Err(if is_known {
                LineFault::not_finite(at, key, token)
            } else {
                LineFault::no_value(at, key, token)
            })
        }
    }
}

/// An unsigned number as the value of a reading, if that is exactly the same number.
fn unsigned(number: u64) -> Option<Value<'static>> {
    if let Ok(number) = i64::try_from(number) {
        return Some(Value::Integer(number));
    }
    #[expect(clippy::cast_precision_loss, reason = "whether it is lost is looked at below")]
    let double = number as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is no negative number, and whole"
    )]
    let whole = double as u128;
    (whole == u128::from(number)).then_some(Value::Double(double))
}

/// Whether a text is digits, perhaps after a minus.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is a number as InfluxDB writes it: digits with at most one point, perhaps after a minus and before an
/// exponent.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_digits = exponent.map(|text| text.strip_prefix(['-', '+']).unwrap_or(text));
    are_digits(whole)
        && are_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent_digits.is_none_or(|digits| !digits.is_empty() && are_digits(digits))
}
