//! One JSON value, from its text.

use std::borrow::Cow;

use forebay_reading::{NewValue, Value, is_beyond_doubles};

use crate::Reason;
use crate::tokens::{is_of_word, string_end};

pub(super) const STRING: &str = "a string";
pub(super) const NUMBER: &str = "a number";
pub(super) const BOOLEAN: &str = "a boolean";
const BEYOND: &str = "a number that no double can hold";

/// A JSON value; arrays, objects and numbers are kept as their text.
#[derive(Debug)]
pub(super) enum JsonValue<'de> {
    Null,
    Boolean(bool),
    Number(&'de str),
    Text(Cow<'de, str>),
    Array(&'de str),
    Object(&'de str),
}

impl<'de> JsonValue<'de> {
    /// # Errors
    ///
    /// A string has half of a surrogate pair in it.
    pub(super) fn of(json: &'de str) -> serde_json::Result<JsonValue<'de>> {
        Ok(match json.bytes().next() {
            Some(b'"') => JsonValue::Text(unquote(json)?),
            Some(b'{') => JsonValue::Object(json),
            Some(b'[') => JsonValue::Array(json),
            Some(b't') => JsonValue::Boolean(true),
            Some(b'f') => JsonValue::Boolean(false),
            Some(b'n') => JsonValue::Null,
            _ => JsonValue::Number(json),
        })
    }

    /// The kind of the value, for messages.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            JsonValue::Null => "null",
            JsonValue::Boolean(_) => BOOLEAN,
            JsonValue::Text(_) => STRING,
            _ if self.is_beyond() => BEYOND,
            JsonValue::Number(_) => NUMBER,
            JsonValue::Array(_) => "an array",
            JsonValue::Object(_) => "an object",
        }
    }

    /// Whether it is or holds a number beyond all doubles.
    pub(super) fn is_beyond(&self) -> bool {
        match self {
            JsonValue::Null | JsonValue::Boolean(_) | JsonValue::Text(_) => false,
            JsonValue::Number(json) | JsonValue::Array(json) | JsonValue::Object(json) => holds_beyond(json),
        }
    }

    /// The value of a reading.
    ///
    /// # Errors
    ///
    /// Why a reading cannot have this value.
    pub(super) fn as_new_value(&self) -> Result<NewValue<'_>, (Reason, String)> {
        match self {
            JsonValue::Boolean(truth) => Ok(Value::Boolean(*truth).into()),
            JsonValue::Text(text) => Ok(Value::Text(text).into()),
            JsonValue::Number(text) if let Some(value) = NewValue::of_number(text) => Ok(value),
            _ if self.is_beyond() => {
                Err((Reason::Number, format!("a value must be a finite number, got {BEYOND}")))
            }
            other => Err((
                Reason::Type,
                format!("a value must be a number, a boolean or a string, got {}", other.noun()),
            )),
        }
    }
}

/// Whether a JSON value is or holds a number beyond all doubles.
fn holds_beyond(json: &str) -> bool {
    let (bytes, mut at) = (json.as_bytes(), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'-' | b'0'..=b'9' => {
                let number = &json[at..];
                let number = number
                    .split(|letter: char| !u8::try_from(letter).is_ok_and(is_of_word))
                    .next()
                    .unwrap_or_default();
                if is_beyond_doubles(number) {
                    return true;
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    false
}

/// The kind of a JSON value, from the first byte of its text.
pub(super) fn noun(json: &str) -> &'static str {
    match json.bytes().next() {
        Some(b'"') => STRING,
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => BOOLEAN,
        Some(b'n') => "null",
        _ => NUMBER,
    }
}

/// The text of a JSON string.
///
/// # Errors
///
/// It has half of a surrogate pair in it.
pub(super) fn unquote(json: &str) -> serde_json::Result<Cow<'_, str>> {
    match json.get(1..json.len() - 1) {
        Some(text) if !text.as_bytes().contains(&b'\\') => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(json).map(Cow::Owned),
    }
}
