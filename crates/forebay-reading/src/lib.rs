//! Readings in the internal encoding: written once when a request is decoded, then only read.
//!
//! [`Readings`] holds the readings of one accepted request in one buffer of bytes. The same bytes wait in memory,
//! and routing and the encoders read them through a borrowed [`ReadingRef`] without allocating.
//!
//! The layout of a reading, with all numbers little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the rest |
//! | 8 | time, nanoseconds since the Unix epoch, `i64` |
//! | 1 | kind of the value: 0 integer, 1 double, 2 false, 3 true, 4 string |
//! | 1 | flags; bit 0: a string needs escaping in JSON |
//! | 1 | length of the unit, 0 without a unit |
//! | 1 | number of tags |
//! | 2 | length of the device |
//! | 2 | length of the sensor |
//! | 2 | length of the value as text; 0 for true and false |
//! | … | device, sensor, unit, value |
//! | … | for each tag: length of the name (2), length of the value (2), name, value |
//!
//! A number is stored as its canonical text: mostly shorter than its bits, exact, and ready to be written.
//!
//! The other modules are independent of readings: [`timestamp`], [`text`] and [`clock`], and for settings [`quantity`]
//! and [`registry`].

pub mod clock;
mod error;
mod number;
pub mod quantity;
pub mod registry;
mod stored;
mod tags;
pub mod text;
pub mod timestamp;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

pub use error::ReadingError;
pub use number::NumberText;
pub use tags::{TagBytes, append_tag, tags_of};

use crate::text::Text;
use crate::timestamp::Timestamp;

/// Longest name of a device or sensor, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest string value, in bytes.
pub const TEXT_VALUE_BYTES_MAX: usize = 4096;
/// Longest unit, in bytes.
pub const UNIT_BYTES_MAX: usize = 64;
/// Most tags on a reading.
pub const TAGS_MAX: usize = 32;
/// Longest name or value of a tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;
/// Smallest size of an encoded reading, in bytes: its head and two names of one byte each.
pub const READING_BYTES_MIN: usize = HEAD_BYTES + 2;

const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = LENGTH_BYTES + 18;
const FLAG_ESCAPE: u8 = 1;

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

/// The name and the value of a tag in a request.
pub type Tag<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The parts of one reading before they are checked.
pub type ReadingParts<'a> = Parts<'a, &'a str>;

/// The parts of one reading before they are checked. Names and unit are some kind of [`Text`]: if it is known to be plain,
/// only its length is checked.
#[derive(Clone, Debug)]
pub struct Parts<'a, T> {
    /// The device.
    pub device: T,
    /// The sensor.
    pub sensor: T,
    /// The measured value.
    pub value: NewValue<'a>,
    /// The time of the measurement.
    pub time: Timestamp,
    /// The unit, if one is given.
    pub unit: Option<T>,
    /// The tags.
    pub tags: &'a [Tag<'a>],
}

/// A field of a reading, by its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `device`
    Device,
    /// `sensor`
    Sensor,
    /// `value`
    Value,
    /// `time`
    Time,
    /// `unit`
    Unit,
    /// `tags`
    Tags,
    /// `values`
    Values,
}

impl Field {
    /// Every field with its name, in the canonical order.
    pub const NAMES: &[(&str, Field)] = &[
        ("device", Field::Device),
        ("sensor", Field::Sensor),
        ("value", Field::Value),
        ("time", Field::Time),
        ("unit", Field::Unit),
        ("tags", Field::Tags),
        ("values", Field::Values),
    ];

    /// The field of this name.
    pub fn named(name: &str) -> Option<Field> {
        Some(match name.as_bytes() {
            b"device" => Field::Device,
            b"sensor" => Field::Sensor,
            b"value" => Field::Value,
            b"time" => Field::Time,
            b"unit" => Field::Unit,
            b"tags" => Field::Tags,
            b"values" => Field::Values,
            _ => return None,
        })
    }

    /// The field's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Field::Device => "device",
            Field::Sensor => "sensor",
            Field::Value => "value",
            Field::Time => "time",
            Field::Unit => "unit",
            Field::Tags => "tags",
            Field::Values => "values",
        }
    }
}

/// Readings in the internal encoding, in the order of their arrival.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Readings {
    bytes: Vec<u8>,
    count: usize,
}

/// A position between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    byte: usize,
    /// The number of readings before the position.
    pub index: usize,
}

impl Readings {
    /// An empty buffer with room for `bytes` bytes of encoded readings.
    pub fn with_capacity(bytes: usize) -> Readings {
        Readings { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    /// Checks the parts of a reading and appends it.
    ///
    /// # Errors
    ///
    /// The first broken rule; nothing is appended then.
    pub fn push<'a, T: Text<'a>>(&mut self, parts: &Parts<'a, T>) -> Result<(), ReadingError> {
        let mut escape = check_name(Field::Device, parts.device)? | check_name(Field::Sensor, parts.sensor)?;
        let mut buffer = NumberBuffer::default();
        let (kind, text) = buffer.encode(parts.value)?;
        if kind == ValueKind::Text {
            escape |= !text.is_plain();
        }
        // An empty unit means the same as a missing one.
        let unit = parts.unit.map_or("", T::as_str);
        if unit.len() > UNIT_BYTES_MAX {
            return Err(ReadingError::UnitLength { got: unit.len() });
        }
        escape |= parts.unit.is_some_and(|unit| !unit.is_plain());
        escape |= tags::check(parts.tags)?;

        let start = self.bytes.len();
        let (device, sensor) = (parts.device.as_str(), parts.sensor.as_str());
        let mut head = [0; HEAD_BYTES];
        head[4..12].copy_from_slice(&parts.time.nanos().to_le_bytes());
        head[12] = kind as u8;
        head[13] = if escape { FLAG_ESCAPE } else { 0 };
        head[14] = small(unit.len());
        head[15] = small(parts.tags.len());
        head[16..18].copy_from_slice(&small::<u16>(device.len()).to_le_bytes());
        head[18..20].copy_from_slice(&small::<u16>(sensor.len()).to_le_bytes());
        head[20..22].copy_from_slice(&small::<u16>(text.len()).to_le_bytes());
        let strings = device.len() + sensor.len() + unit.len() + text.len();
        self.bytes.reserve(HEAD_BYTES + strings);
        self.bytes.extend_from_slice(&head);
        for text in [device, sensor, unit, text] {
            self.bytes.extend_from_slice(text.as_bytes());
        }
        for (name, value) in parts.tags {
            append_tag((name.as_bytes(), value.as_bytes()), &mut self.bytes);
        }
        let length = small::<u32>(self.bytes.len() - start - LENGTH_BYTES);
        self.bytes[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// Sets the time of all readings after `position`.
    pub fn set_time_after(&mut self, position: Position, time: Timestamp) {
        let mut start = position.byte;
        while let Some(reading) = self.bytes.get_mut(start..).filter(|rest| !rest.is_empty()) {
            reading[4..12].copy_from_slice(&time.nanos().to_le_bytes());
            start += LENGTH_BYTES + number(&reading[..LENGTH_BYTES]);
        }
    }

    /// The number of readings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no readings.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends encoded readings.
    pub fn append(&mut self, others: &Readings) {
        self.bytes.extend_from_slice(&others.bytes);
        self.count += others.count;
    }

    /// Removes the readings after `position`.
    pub fn truncate(&mut self, position: Position) {
        self.bytes.truncate(position.byte);
        self.count = position.index;
    }

    /// Bytes of the encoded readings.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that the encoded readings occupy.
    pub fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Frees unused reserved memory, if it is worth the copy.
    pub fn shrink(&mut self) {
        if self.bytes.capacity() > 2 * self.bytes.len() + 64 {
            self.bytes.shrink_to_fit();
        }
    }

    /// The readings in order.
    pub fn iter(&self) -> Iter<'_> {
        self.range(Position::default()..self.end())
    }

    /// The position after the last reading.
    pub fn end(&self) -> Position {
        Position { byte: self.bytes.len(), index: self.count }
    }

    /// The readings from one position to another of the same [`Readings`].
    pub fn range(&self, range: Range<Position>) -> Iter<'_> {
        Iter { rest: &self.bytes[range.start.byte..range.end.byte], at: range.start }
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Readings {
    type Item = ReadingRef<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over encoded readings.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
    at: Position,
}

impl Iter<'_> {
    /// The position before the next reading.
    pub fn position(&self) -> Position {
        self.at
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = ReadingRef<'a>;

    fn next(&mut self) -> Option<ReadingRef<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (reading, rest) = self.rest.split_at(LENGTH_BYTES + number(&self.rest[..4]));
        self.at = Position { byte: self.at.byte + reading.len(), index: self.at.index + 1 };
        self.rest = rest;
        Some(ReadingRef { bytes: reading })
    }
}

/// One encoded reading, borrowed.
///
/// The `…_bytes` accessors return UTF-8 that was checked when it was encoded, without checking it again.
#[derive(Clone, Copy)]
pub struct ReadingRef<'a> {
    bytes: &'a [u8],
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
            INTEGER | DOUBLE => Some(number::nearest_double(self.value_bytes())),
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

/// Checks a name. Returns whether JSON needs to escape it.
fn check_name<'a>(field: Field, name: impl Text<'a>) -> Result<bool, ReadingError> {
    let text = name.as_str();
    if !(1..=NAME_BYTES_MAX).contains(&text.len()) {
        return Err(ReadingError::NameLength { field, got: text.len() });
    }
    if name.is_plain_ascii() {
        return Ok(false);
    }
    match text.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, found)) => Err(ReadingError::ControlCharacter { field, found, at }),
        None => Ok(!name.is_plain()),
    }
}

/// The kind of an encoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    Integer = 0,
    Double = 1,
    False = 2,
    True = 3,
    Text = 4,
}

const INTEGER: u8 = ValueKind::Integer as u8;
const DOUBLE: u8 = ValueKind::Double as u8;
const FALSE: u8 = ValueKind::False as u8;
const TRUE: u8 = ValueKind::True as u8;
const TEXT: u8 = ValueKind::Text as u8;
/// The kinds of false and true, in this order.
const BOOLEAN_KINDS: [u8; 2] = [FALSE, TRUE];

/// Buffers for the text of numbers that are not in canonical form yet.
#[derive(Default)]
struct NumberBuffer {
    integer: Option<itoa::Buffer>,
    double: Option<zmij::Buffer>,
}

impl NumberBuffer {
    /// The kind and the text of a value.
    fn encode<'a>(&'a mut self, value: NewValue<'a>) -> Result<(ValueKind, &'a str), ReadingError> {
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

fn small<T: TryFrom<usize>>(length: usize) -> T {
    T::try_from(length).ok().expect("lengths are checked before they are encoded")
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only UTF-8 is encoded")
}

#[cfg(test)]
mod tests;
