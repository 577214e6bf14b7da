//! The value of a field.

use forebay_reading::{NewValue, NumberText, Value};

use super::cursor::Cursor;
use super::fault::Fault;
use super::text_end;

/// What InfluxDB takes for true and false.
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
/// What is a number elsewhere, in lower case and without its sign.
const NOT_FINITE: &[&str] = &["nan", "inf", "infinity"];

/// Reads the value of the field `key`, which begins where the cursor stands. A text with escapes is put together in
/// `text`.
pub(super) fn read<'t, 'a: 't>(
    cursor: &mut Cursor<'a>,
    key: &str,
    text: &'t mut String,
) -> Result<NewValue<'t>, Fault> {
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

/// The number where the cursor stands and how many bytes it takes there, if it needs no parsing and nothing else
/// belongs to it.
fn common_number<'a>(cursor: &Cursor<'a>) -> Option<(NumberText<'a>, usize)> {
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

/// The text whose first quotation mark the cursor stands at.
fn quoted<'t, 'a: 't>(cursor: &mut Cursor<'a>, key: &str, text: &'t mut String) -> Result<&'t str, Fault> {
    let rest = &cursor.rest()[1..];
    let length = text_end(rest.as_bytes(), 0).ok_or_else(|| Fault::not_closed(cursor.at, key))?;
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
        // What was escaped is looked at no more.
        let after = &rest[at + 1..];
        let passed = usize::from(is_escape);
        text.push_str(&after[..passed]);
        rest = &after[passed..];
    }
    text.push_str(rest);
    Ok(text)
}

/// A value that is no text.
fn token(token: &str, at: usize, key: &str) -> Result<Value<'static>, Fault> {
    if token.is_empty() {
        return Err(Fault::empty_value(at, key));
    }
    if let Some((_, truth)) = BOOLEANS.iter().find(|(name, _)| *name == token) {
        return Ok(Value::Boolean(*truth));
    }
    let not_whole = || Fault::not_whole(at, key, token);
    match token.split_at(token.floor_char_boundary(token.len() - 1)) {
        (digits, "i") if is_whole(digits) => {
            digits.parse().map(Value::Integer).map_err(|_too_large| not_whole())
        }
        (digits, "u") if is_whole(digits) && !digits.starts_with('-') => {
            digits.parse().ok().and_then(unsigned).ok_or_else(not_whole)
        }
        _ if is_decimal(token) => match token.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Double(number)),
            _ => Err(Fault::not_finite(at, key, token)),
        },
        _ => {
            let name = token.trim_start_matches(['-', '+']);
            let is_known = NOT_FINITE.iter().any(|known| known.eq_ignore_ascii_case(name));
            Err(if is_known { Fault::not_finite(at, key, token) } else { Fault::no_value(at, key, token) })
        }
    }
}

/// An unsigned number as one that readings have, if there is exactly the same.
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

/// Whether it is digits, perhaps with a minus.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is a number as InfluxDB writes it: digits with at most one point among them, perhaps a minus before and
/// an exponent behind.
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
