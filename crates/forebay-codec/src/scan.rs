//! The common form of a reading, read without a general parser.
//!
//! Almost every request has the same shape: flat objects of known fields, strings without escapes, plain numbers, and no
//! faults. A [`Scanner`] reads that shape and nothing else, several times as fast as serde_json; escapes that Python and
//! others write for ordinary characters are replaced before (`escape.rs`). On anything else (another escape, an unknown or
//! repeated field, another type, a broken rule, broken JSON) it gives up, and the caller reads the object again with care
//! (`parse.rs`). So the scanner decides nothing: whatever it accepts, the careful reader accepts with the same result
//! (`json::tests::the_scanner_agrees_with_the_careful_reader`, `ndjson::tests::a_body_is_read_as_its_lines_are`).

use std::borrow::Cow;

use forebay_reading::text::{PlainText, Text as _};
use forebay_reading::timestamp::{TimeReader, Timestamp};
use forebay_reading::{Field, NewValue, NumberText, Parts, Readings, Tag, Value, number_at_start_of};

use crate::Rules;
use crate::names::UniqueNames;

// The names of the fields in quotes, as words of up to eight bytes.
const DEVICE: u64 = u64::from_le_bytes(*b"\"device\"");
const SENSOR: u64 = u64::from_le_bytes(*b"\"sensor\"");
const VALUES: u64 = u64::from_le_bytes(*b"\"values\"");
const VALUE: u64 = u64::from_le_bytes(*b"\"value\"\0");
const TIME: u64 = u64::from_le_bytes(*b"\"time\"\0\0");
const UNIT: u64 = u64::from_le_bytes(*b"\"unit\"\0\0");
const TAGS: u64 = u64::from_le_bytes(*b"\"tags\"\0\0");
const SEVEN_BYTES: u64 = u64::MAX >> 8;
const SIX_BYTES: u64 = u64::MAX >> 16;

/// The text is not of the common form.
#[derive(Debug)]
pub(super) struct Uncommon;

/// Reads the common form.
#[derive(Debug)]
pub(super) struct Scanner<'de> {
    text: &'de str,
    at: usize,
    /// Whether skipped white space had a line feed in it.
    passed_line_feed: bool,
    times: TimeReader,
    /// The tags and values of the current object; the next object uses their memory again.
    tags: Vec<Tag<'de>>,
    values: Vec<(PlainText<'de>, NewValue<'de>)>,
    names: UniqueNames,
}

/// The fields of one object.
#[derive(Default)]
struct ObjectFields<'de> {
    device: Option<PlainText<'de>>,
    sensor: Option<PlainText<'de>>,
    value: Option<NewValue<'de>>,
    time: Option<Timestamp>,
    unit: Option<PlainText<'de>>,
    has_tags: bool,
    has_values: bool,
}

impl<'de> Scanner<'de> {
    pub(super) fn new(text: &'de str) -> Scanner<'de> {
        Scanner {
            text,
            at: 0,
            passed_line_feed: false,
            times: TimeReader::default(),
            tags: Vec::new(),
            values: Vec::new(),
            names: UniqueNames::default(),
        }
    }

    /// Skips white space. Returns whether that was the rest of the text.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Skips white space, and `byte` if it comes next. Returns whether it did.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        // Mostly there is no white space.
        self.take_next(byte) || self.take_after_space(byte)
    }

    #[cold]
    fn take_after_space(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.take_next(byte)
    }

    /// Skips white space and a comma or `end`. Returns whether it was `end`.
    pub(super) fn is_last(&mut self, end: u8) -> Result<bool, Uncommon> {
        self.skip_space();
        let next = self.peek();
        self.at += 1;
        match next {
            Some(b',') => Ok(false),
            Some(byte) if byte == end => Ok(true),
            _ => Err(Uncommon),
        }
    }

    /// Reads one object that is alone on its line, and skips the end of the line. After an error some of its readings may
    /// have been pushed.
    pub(super) fn line(&mut self, rules: &Rules, readings: &mut Readings) -> Result<(), Uncommon> {
        self.passed_line_feed = false;
        self.object(rules, readings)?;
        // A string has no line feed in it, so a line feed in the object was skipped as white space.
        if self.passed_line_feed {
            return Err(Uncommon);
        }
        if self.take_next(b'\n') || self.is_at_end() || self.passed_line_feed {
            return Ok(());
        }
        Err(Uncommon)
    }

    /// The current place, in bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Continues at another place.
    pub(super) fn go_to(&mut self, position: usize) {
        self.at = position;
    }

    /// Reads one object and pushes its readings. After an error some of them may have been pushed.
    pub(super) fn object(&mut self, rules: &Rules, readings: &mut Readings) -> Result<(), Uncommon> {
        let fields = self.fields(rules)?;
        let device = fields.device.ok_or(Uncommon)?;
        let parts = |sensor: PlainText<'de>, value: NewValue<'de>| Parts {
            device,
            sensor,
            value,
            time: fields.time.unwrap_or(rules.received_at),
            unit: fields.unit,
            tags: &self.tags,
        };
        if let (Some(sensor), Some(value), false) = (fields.sensor, fields.value, fields.has_values) {
            return rules.push(&parts(sensor, value), readings).map_err(|_| Uncommon);
        }
        if fields.sensor.is_some() || fields.value.is_some() || self.values.is_empty() {
            return Err(Uncommon);
        }
        for (sensor, value) in &self.values {
            if readings.encoded_bytes() > rules.encoded_bytes_max {
                return Err(Uncommon);
            }
            rules.push(&parts(*sensor, *value), readings).map_err(|_| Uncommon)?;
        }
        Ok(())
    }

    fn fields(&mut self, rules: &Rules) -> Result<ObjectFields<'de>, Uncommon> {
        let mut fields = ObjectFields::default();
        self.tags.clear();
        self.values.clear();
        self.expect(b'{')?;
        loop {
            let field = self.field()?;
            self.expect(b':')?;
            self.skip_space();
            let is_first = match field {
                Field::Device => fields.device.replace(self.string()?).is_none(),
                Field::Sensor => fields.sensor.replace(self.string()?).is_none(),
                Field::Unit => fields.unit.replace(self.string()?).is_none(),
                Field::Value => fields.value.replace(self.value()?).is_none(),
                Field::Time => fields.time.replace(self.time(rules)?).is_none(),
                Field::Tags => {
                    self.tags()?;
                    !std::mem::replace(&mut fields.has_tags, true)
                }
                Field::Values => {
                    self.values()?;
                    !std::mem::replace(&mut fields.has_values, true)
                }
            };
            if !is_first {
                return Err(Uncommon);
            }
            if self.is_last(b'}')? {
                return Ok(fields);
            }
        }
    }

    /// The name of a field, by comparison with all known names. Even the shortest name with a value and a closing brace is
    /// longer than a word, so no name is missed at the end of the text.
    fn field(&mut self) -> Result<Field, Uncommon> {
        self.skip_space();
        let word = u64::from_le_bytes(*self.rest().first_chunk().ok_or(Uncommon)?);
        let (field, length) = match (word, word & SEVEN_BYTES, word & SIX_BYTES) {
            (DEVICE, ..) => (Field::Device, 8),
            (SENSOR, ..) => (Field::Sensor, 8),
            (_, VALUE, _) => (Field::Value, 7),
            (.., TIME) => (Field::Time, 6),
            (.., UNIT) => (Field::Unit, 6),
            (.., TAGS) => (Field::Tags, 6),
            (VALUES, ..) => (Field::Values, 8),
            _ => return Err(Uncommon),
        };
        self.at += length;
        Ok(field)
    }

    fn tags(&mut self) -> Result<(), Uncommon> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let (name, value) = (self.name()?.as_str(), self.string()?.as_str());
            if !self.names.is_new(name, self.tags.iter().map(|(known, _)| &**known)) {
                return Err(Uncommon);
            }
            self.tags.push((Cow::Borrowed(name), Cow::Borrowed(value)));
            // Each tag is compared with all others, so reading stops beyond the limit.
            if self.tags.len() > forebay_reading::TAGS_MAX {
                return Err(Uncommon);
            }
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    fn values(&mut self) -> Result<(), Uncommon> {
        self.expect(b'{')?;
        loop {
            let (name, value) = (self.name()?, self.value()?);
            if !self.names.is_new(name.as_str(), self.values.iter().map(|(known, _)| known.as_str())) {
                return Err(Uncommon);
            }
            self.values.push((name, value));
            if self.is_last(b'}')? {
                return Ok(());
            }
        }
    }

    /// The name of a member, up to its value.
    fn name(&mut self) -> Result<PlainText<'de>, Uncommon> {
        self.skip_space();
        let name = self.string()?;
        self.expect(b':')?;
        self.skip_space();
        Ok(name)
    }

    fn time(&mut self, rules: &Rules) -> Result<Timestamp, Uncommon> {
        let time = match self.peek() {
            Some(b'"') => self.time_text()?,
            _ => Timestamp::from_decimal(self.number_text()?, rules.precision).map_err(|_| Uncommon)?,
        };
        if rules.takes_time(time) { Ok(time) } else { Err(Uncommon) }
    }

    fn time_text(&mut self) -> Result<Timestamp, Uncommon> {
        if let Some((time, length)) = self.times.at_start_of(&self.rest()[1..])
            && self.rest().get(1 + length) == Some(&b'"')
        {
            self.at += length + 2;
            return Ok(time);
        }
        let text = self.string()?;
        self.times.parse(text.as_str()).map_err(|_| Uncommon)
    }

    fn value(&mut self) -> Result<NewValue<'de>, Uncommon> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?.as_str()).into()),
            Some(b't') => self.word("true").map(|_| Value::Boolean(true).into()),
            Some(b'f') => self.word("false").map(|_| Value::Boolean(false).into()),
            _ => match NumberText::at_start_of(self.text.get(self.at..).ok_or(Uncommon)?) {
                Some((number, length)) => {
                    self.at += length;
                    Ok(NewValue::Number(number))
                }
                None => Value::of_number(self.number_text()?).map(NewValue::from).ok_or(Uncommon),
            },
        }
    }

    /// Skips `word`, which must come next, and returns it.
    pub(super) fn word(&mut self, word: &'static str) -> Result<&'static str, Uncommon> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Uncommon);
        }
        self.at += word.len();
        Ok(word)
    }

    /// A string without escapes.
    pub(super) fn string(&mut self) -> Result<PlainText<'de>, Uncommon> {
        if !self.take_next(b'"') {
            return Err(Uncommon);
        }
        let string = PlainText::starting_at(self.text, self.at).ok_or(Uncommon)?;
        self.at += string.as_str().len();
        if self.take_next(b'"') { Ok(string) } else { Err(Uncommon) }
    }

    /// A number as it is written.
    pub(super) fn number_text(&mut self) -> Result<&'de str, Uncommon> {
        let number = number_at_start_of(self.text.get(self.at..).ok_or(Uncommon)?).ok_or(Uncommon)?;
        self.at += number.len();
        Ok(number)
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Uncommon> {
        if self.take(byte) { Ok(()) } else { Err(Uncommon) }
    }

    fn take_next(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.at += 1;
        }
        is_next
    }

    pub(super) fn skip_space(&mut self) {
        // One comparison in the usual case: white space is below every visible character.
        if let Some(0..=b' ') = self.peek() {
            self.skip_spaces();
        }
    }

    #[cold]
    fn skip_spaces(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.passed_line_feed |= byte == b'\n';
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn rest(&self) -> &'de [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}
