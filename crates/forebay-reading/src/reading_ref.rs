//! One encoded reading, read without allocating.

use std::fmt;

use crate::layout::{FLAG_ESCAPE, HEAD_BYTES, number, text};
use crate::number::nearest_double;
use crate::tags::{TagBytes, tags_of};
use crate::timestamp::Timestamp;
use crate::value::{DOUBLE, FALSE, INTEGER, TEXT, TRUE, Token, Value};

/// One encoded reading, borrowed.
///
/// The `…_bytes` accessors return UTF-8 that was checked when it was encoded, without checking it again.
#[derive(Clone, Copy)]
pub struct ReadingRef<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> ReadingRef<'a> {
    /// The device.
    pub fn device(self) -> &'a str {
        text(self.device_bytes())
    }

    /// The device, as UTF-8.
    pub fn device_bytes(self) -> &'a [u8] {
        &self.bytes[HEAD_BYTES..][..self.device_length()]
    }

    /// The sensor.
    pub fn sensor(self) -> &'a str {
        text(self.sensor_bytes())
    }

    /// The sensor, as UTF-8.
    pub fn sensor_bytes(self) -> &'a [u8] {
        &self.bytes[HEAD_BYTES + self.device_length()..][..self.sensor_length()]
    }

    /// The value.
    pub fn value(self) -> Value<'a> {
        const NUMBER: &str = "only numbers are encoded as numbers";
        let text = text(self.value_bytes());
        match self.bytes[12] {
            INTEGER => Value::Integer(text.parse().expect(NUMBER)),
            DOUBLE => Value::Double(text.parse().expect(NUMBER)),
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            _ => Value::Text(text),
        }
    }

    /// The value as the nearest double, with true as 1 and false as 0; `None` for text.
    pub fn value_as_double(self) -> Option<f64> {
        match self.bytes[12] {
            INTEGER | DOUBLE => Some(nearest_double(self.value_bytes())),
            FALSE => Some(0.0),
            TRUE => Some(1.0),
            _ => None,
        }
    }

    /// Whether the value is a whole number that fits in 64 bits signed.
    pub fn is_integer(self) -> bool {
        self.bytes[12] == INTEGER
    }

    /// The value as a JSON token.
    pub fn value_token(self) -> Token<'a> {
        match self.bytes[12] {
            FALSE => Token::Literal(b"false"),
            TRUE => Token::Literal(b"true"),
            TEXT => Token::Text(self.value_bytes()),
            _ => Token::Literal(self.value_bytes()),
        }
    }

    fn value_bytes(self) -> &'a [u8] {
        &self.bytes[self.value_start()..self.tags_start()]
    }

    /// The time.
    pub fn time(self) -> Timestamp {
        let nanos = i64::from_le_bytes(self.bytes[4..12].try_into().expect("eight bytes"));
        Timestamp::from_nanos(nanos).expect("only times in range are encoded")
    }

    /// The unit, if there is one.
    pub fn unit(self) -> Option<&'a str> {
        self.unit_bytes().map(text)
    }

    /// The unit, if there is one, as UTF-8.
    pub fn unit_bytes(self) -> Option<&'a [u8]> {
        let length = usize::from(self.bytes[14]);
        let start = HEAD_BYTES + self.device_length() + self.sensor_length();
        (length > 0).then(|| &self.bytes[start..][..length])
    }

    /// The tags, name and value, in the order of the request.
    pub fn tags(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.tags_bytes().map(|(name, value)| (text(name), text(value)))
    }

    /// The tags, name and value, as UTF-8.
    pub fn tags_bytes(self) -> impl Iterator<Item = TagBytes<'a>> {
        tags_of(self.tags_encoded())
    }

    /// The encoded tags; [`tags_of`] iterates over them.
    pub fn tags_encoded(self) -> &'a [u8] {
        &self.bytes[if self.bytes[15] == 0 { self.bytes.len() } else { self.tags_start() }..]
    }

    /// Bytes of the reading in the internal encoding.
    pub fn encoded_len(self) -> usize {
        self.bytes.len()
    }

    /// Whether a string of the reading needs escaping in JSON.
    pub fn needs_escape(self) -> bool {
        self.bytes[13] & FLAG_ESCAPE != 0
    }

    fn device_length(self) -> usize {
        number(&self.bytes[16..18])
    }

    fn sensor_length(self) -> usize {
        number(&self.bytes[18..20])
    }

    fn value_start(self) -> usize {
        HEAD_BYTES + self.device_length() + self.sensor_length() + usize::from(self.bytes[14])
    }

    fn tags_start(self) -> usize {
        self.value_start() + number(&self.bytes[20..22])
    }
}

impl fmt::Debug for ReadingRef<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reading")
            .field("device", &self.device())
            .field("sensor", &self.sensor())
            .field("value", &self.value())
            .field("time", &format_args!("{}", self.time()))
            .field("unit", &self.unit())
            .field("tags", &self.tags().collect::<Vec<_>>())
            .finish()
    }
}
