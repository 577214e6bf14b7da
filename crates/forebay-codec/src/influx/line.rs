//! Reads one line.

use std::borrow::Cow;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingError, ReadingParts, Readings, TAGS_MAX, Tag};

use super::cursor::LineCursor;
use super::fault::{FaultScope, LineFault};
use super::{Reason, digits, value};
use crate::names::UniqueNames;
use crate::{REJECTIONS_LISTED_MAX, Rules};

/// The field whose sensor has the name of the measurement alone.
const PLAIN_FIELD: &str = "value";

/// Why a line gives no readings.
#[derive(Debug)]
pub(super) enum LineError {
    /// The line has a fault.
    Fault(LineFault),
    /// The readings exceed [`Rules::encoded_bytes_max`].
    Overflow,
}

impl From<LineFault> for LineError {
    fn from(fault: LineFault) -> LineError {
        LineError::Fault(fault)
    }
}

/// Reads lines, one after the other. The next line uses its memory again.
#[derive(Debug)]
pub(super) struct Parser<'a, 'r> {
    rules: &'r Rules,
    tags: Vec<Tag<'a>>,
    /// The keys of the fields before the current one.
    fields: Vec<Cow<'a, str>>,
    names: UniqueNames,
    sensor: String,
    text: String,
    /// Faults that cost single fields of the line.
    faults: FieldFaults,
}

/// Faults that cost single fields: the first ones in words, the others as counts.
#[derive(Debug, Default)]
pub(super) struct FieldFaults {
    pub(super) listed: Vec<LineFault>,
    /// Counts by [`Reason`], in the order of [`Reason::NAMES`].
    pub(super) unlisted: [u64; Reason::NAMES.len()],
}

impl FieldFaults {
    fn add(&mut self, fault: LineFault) {
        if self.listed.len() < REJECTIONS_LISTED_MAX {
            self.listed.push(fault);
        } else {
            self.unlisted[fault.reason as usize] += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

impl<'a, 'r> Parser<'a, 'r> {
    pub(super) fn new(rules: &'r Rules) -> Parser<'a, 'r> {
        Parser {
            rules,
            tags: Vec::new(),
            fields: Vec::new(),
            names: UniqueNames::default(),
            sensor: String::new(),
            text: String::new(),
            faults: FieldFaults::default(),
        }
    }

    /// The field faults of the last line; `None` if all its fields are valid.
    pub(super) fn take_faults(&mut self) -> Option<FieldFaults> {
        if self.faults.is_empty() { None } else { Some(std::mem::take(&mut self.faults)) }
    }

    /// Reads the line that begins at `start`, pushes its readings, and returns the start of the next line.
    ///
    /// After an error some of its readings may have been pushed.
    pub(super) fn line(
        &mut self,
        text: &'a str,
        start: usize,
        readings: &mut Readings,
    ) -> Result<usize, LineError> {
        let mut cursor = LineCursor::new(text, start);
        self.forget_faults();
        cursor.skip_blanks();
        if cursor.take_line_end() {
            return Ok(cursor.at);
        }
        if cursor.peek() == Some(b'#') {
            cursor.skip_line();
            return Ok(cursor.at);
        }
        let measurement_at = cursor.at;
        let measurement = cursor.measurement();
        if measurement.is_empty() {
            return Err(LineFault::missing(measurement_at, "the measurement is missing").into());
        }
        let device = self.tags(&mut cursor)?;
        let before = readings.end();
        self.fields(&mut cursor, &measurement, &device, readings)?;
        if let Some(time) = self.time(&mut cursor)? {
            readings.set_time_after(before, time);
        }
        Ok(cursor.at)
    }

    /// Reads the tags, and returns the device that they name.
    fn tags(&mut self, cursor: &mut LineCursor<'a>) -> Result<Cow<'a, str>, LineFault> {
        self.tags.clear();
        let mut device: Option<(usize, usize)> = None;
        while cursor.take(b',') {
            let at = cursor.at;
            let key = self.tag(cursor)?;
            let place = self.tags.len() - 1;
            let before = self.tags[..place].iter().map(|(known, _)| &**known);
            if !self.names.is_new(&self.tags[place].0, before) {
                return Err(LineFault::tag_twice(at, &self.tags[place].0));
            }
            // Each tag is compared with all others, so their number is limited; one more than allowed may be the device.
            if place > TAGS_MAX {
                return Err(LineFault::reading(at, &ReadingError::TagCount { got: place }.into()));
            }
            if let Some(rank) = key
                && device.is_none_or(|(best, _)| rank < best)
            {
                device = Some((rank, place));
            }
        }
        match device {
            Some((_, place)) => Ok(self.tags.remove(place).1),
            None => match self.rules.default_device() {
                Some(device) => Ok(device.to_owned().into()),
                None => Err(LineFault::no_device(cursor.at, &self.rules.device_tags)),
            },
        }
    }

    /// Reads one tag, and returns its precedence among the tags that name a device.
    fn tag(&mut self, cursor: &mut LineCursor<'a>) -> Result<Option<usize>, LineFault> {
        let at = cursor.at;
        let key = cursor.key();
        if key.is_empty() {
            return Err(LineFault::missing(at, "a tag has no name"));
        }
        if !cursor.take(b'=') {
            return Err(LineFault::tag_without_value(at, &key));
        }
        let value_at = cursor.at;
        let value = cursor.key();
        if cursor.peek() == Some(b'=') {
            return Err(LineFault::equals_in_tag(cursor.at, &key));
        }
        if value.is_empty() {
            return Err(LineFault::tag_without_value(value_at, &key));
        }
        let rank = self.rules.device_tags.rank(&key);
        self.tags.push((key, value));
        Ok(rank)
    }

    /// Reads the fields up to the time, and pushes a reading for each with the time of receipt.
    fn fields(
        &mut self,
        cursor: &mut LineCursor<'a>,
        measurement: &str,
        device: &str,
        readings: &mut Readings,
    ) -> Result<(), LineError> {
        let end = cursor.at;
        cursor.skip_blanks();
        if cursor.take_line_end() {
            return Err(LineFault::missing(end, "the line has no fields").into());
        }
        self.fields.clear();
        self.sensor.clear();
        self.sensor.push_str(measurement);
        self.sensor.push('_');
        loop {
            let at = cursor.at;
            let key = cursor.key();
            if key.is_empty() {
                return Err(LineFault::missing(at, "a field has no name").into());
            }
            if !cursor.take(b'=') {
                return Err(LineFault::field_without_value(at, &key).into());
            }
            if !self.names.is_new(&key, self.fields.iter().map(|known| &**known)) {
                return Err(LineFault::field_twice(at, &key).into());
            }
            if let Err(fault) = self.field(cursor, at, &key, (device, measurement), readings) {
                match fault.scope {
                    FaultScope::Line => return Err(fault.into()),
                    FaultScope::Field(_) => self.faults.add(fault),
                }
            }
            if readings.encoded_bytes() > self.rules.encoded_bytes_max {
                return Err(LineError::Overflow);
            }
            match cursor.peek() {
                Some(b',') => cursor.at += 1,
                None | Some(b' ' | b'\t' | b'\r' | b'\n') => return Ok(()),
                Some(_) => return Err(LineFault::after_field(cursor.at, &key).into()),
            }
            self.fields.push(key);
        }
    }

    /// Reads the value of the field `key`, which begins at the byte `at`, and pushes a reading of it.
    fn field(
        &mut self,
        cursor: &mut LineCursor<'a>,
        at: usize,
        key: &str,
        (device, measurement): (&str, &str),
        readings: &mut Readings,
    ) -> Result<(), LineFault> {
        let value = value::read(cursor, key, &mut self.text)?;
        self.sensor.truncate(measurement.len() + 1);
        self.sensor.push_str(key);
        let sensor = if key == PLAIN_FIELD { measurement } else { &self.sensor };
        let parts = ReadingParts {
            device,
            sensor,
            value,
            time: self.rules.received_at,
            unit: None,
            tags: &self.tags,
        };
        self.rules.push(&parts, readings).map_err(|error| LineFault::reading_of(at, key, &error))
    }

    /// Forgets the faults of the line before, if it was rejected as a whole.
    fn forget_faults(&mut self) {
        if !self.faults.is_empty() {
            self.faults = FieldFaults::default();
        }
    }

    /// Reads the time, if there is one, and skips the end of the line.
    fn time(&self, cursor: &mut LineCursor<'a>) -> Result<Option<Timestamp>, LineFault> {
        cursor.skip_blanks();
        if cursor.take_line_end() {
            return Ok(None);
        }
        let at = cursor.at;
        let number = whole_number(cursor)?;
        let time = number.and_then(|number| Timestamp::from_integer(number, self.rules.precision).ok());
        let time = match time {
            Some(time) if self.rules.takes_time(time) => time,
            _ => self
                .rules
                .time_of_number(cursor.since(at))
                .map_err(|detail| LineFault::new(at, Reason::Time, detail))?,
        };
        cursor.skip_blanks();
        if !cursor.take_line_end() {
            return Err(LineFault::new(cursor.at, Reason::Type, "after the time, the line must end"));
        }
        Ok(Some(time))
    }
}

/// Reads the time as a number; `None` if it does not fit in 64 bits signed.
fn whole_number(cursor: &mut LineCursor<'_>) -> Result<Option<i64>, LineFault> {
    if let Some((number, length)) = digits::at_start_of(cursor.rest().as_bytes())
        && cursor.is_token(length)
    {
        cursor.at += length;
        return Ok(i64::try_from(number).ok());
    }
    let at = cursor.at;
    let token = cursor.token();
    let digits = token.strip_prefix('-').unwrap_or(token);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LineFault::no_time(at, token));
    }
    Ok(token.parse().ok())
}
