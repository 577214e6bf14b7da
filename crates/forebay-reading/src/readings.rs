//! Readings in one buffer of bytes, in the internal encoding.

use std::fmt;
use std::ops::Range;

use crate::error::ReadingError;
use crate::field::Field;
use crate::layout::{FLAG_ESCAPE, HEAD_BYTES, LENGTH_BYTES, number, small};
use crate::limits::{NAME_BYTES_MAX, UNIT_BYTES_MAX};
use crate::parts::Parts;
use crate::reading_ref::ReadingRef;
use crate::tags::{self, append_tag};
use crate::text::Text;
use crate::timestamp::Timestamp;
use crate::value::{NumberBuffer, ValueKind};

/// Readings in the internal encoding, in the order of their arrival.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Readings {
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
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
