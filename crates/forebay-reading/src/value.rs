//! Values: as they are measured, and as they are encoded.

use crate::error::ReadingError;
use crate::limits::TEXT_VALUE_BYTES_MAX;
use crate::number::{NumberText, finite_double, integer};

/// The value of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A whole number that fits in 64 bits signed, stored exactly.
    Integer(i64),
    /// Any other number; always finite.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// Text of at most [`TEXT_VALUE_BYTES_MAX`] bytes.
    Text(&'a str),
}

/// The value of a reading before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NewValue<'a> {
    /// A number in canonical form.
    Number(NumberText<'a>),
    /// Any value.
    Value(Value<'a>),
}

impl Value<'static> {
    /// The value of a JSON number: an integer if it is written as one that fits in 64 bits signed, else the nearest
    /// double. `None` beyond the range of doubles.
    pub fn of_number(number: &str) -> Option<Value<'static>> {
        integer(number).map(Value::Integer).or_else(|| finite_double(number).map(Value::Double))
    }
}

impl<'a> NewValue<'a> {
    /// [`Value::of_number`], without parsing a number in canonical text.
    pub fn of_number(number: &'a str) -> Option<NewValue<'a>> {
        match NumberText::at_start_of(number) {
            Some((text, length)) if length == number.len() => Some(NewValue::Number(text)),
            _ => Value::of_number(number).map(NewValue::Value),
        }
    }
}

impl<'a> From<Value<'a>> for NewValue<'a> {
    fn from(value: Value<'a>) -> NewValue<'a> {
        NewValue::Value(value)
    }
}

/// The value of an encoded reading as a JSON token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A number, `true` or `false`, without quotation marks.
    Literal(&'a [u8]),
    /// Text, to be quoted.
    Text(&'a [u8]),
}

/// The kind of an encoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    Integer = 0,
    Double = 1,
    False = 2,
    True = 3,
    Text = 4,
}

pub(super) const INTEGER: u8 = ValueKind::Integer as u8;
pub(super) const DOUBLE: u8 = ValueKind::Double as u8;
pub(super) const FALSE: u8 = ValueKind::False as u8;
pub(super) const TRUE: u8 = ValueKind::True as u8;
pub(super) const TEXT: u8 = ValueKind::Text as u8;
/// The kinds of false and true, in this order.
pub(super) const BOOLEAN_KINDS: [u8; 2] = [FALSE, TRUE];

/// Buffers for the text of numbers that are not in canonical form yet.
#[derive(Default)]
pub(super) struct NumberBuffer {
    integer: Option<itoa::Buffer>,
    double: Option<zmij::Buffer>,
}

impl NumberBuffer {
    /// The kind and the text of a value.
    pub(super) fn encode<'a>(
        &'a mut self,
        value: NewValue<'a>,
    ) -> Result<(ValueKind, &'a str), ReadingError> {
        let value = match value {
            NewValue::Number(number) if number.is_integer() => {
                return Ok((ValueKind::Integer, number.as_str()));
            }
            NewValue::Number(number) => return Ok((ValueKind::Double, number.as_str())),
            NewValue::Value(value) => value,
        };
        match value {
            Value::Integer(number) => {
                Ok((ValueKind::Integer, self.integer.insert(itoa::Buffer::new()).format(number)))
            }
            Value::Double(number) if !number.is_finite() => Err(ReadingError::NotFinite),
            Value::Double(number) => {
                Ok((ValueKind::Double, self.double.insert(zmij::Buffer::new()).format_finite(number)))
            }
            Value::Boolean(true) => Ok((ValueKind::True, "")),
            Value::Boolean(false) => Ok((ValueKind::False, "")),
            Value::Text(text) if text.len() > TEXT_VALUE_BYTES_MAX => {
                Err(ReadingError::TextLength { got: text.len() })
            }
            Value::Text(text) => Ok((ValueKind::Text, text)),
        }
    }
}
