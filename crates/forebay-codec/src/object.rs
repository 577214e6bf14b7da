//! One JSON object to readings, as both JSON formats read it.
//!
//! An object is read in one pass into a [`Draft`] that borrows from the body. The first fault of a reading is kept in the
//! draft while the parser goes on, so that only broken JSON stops a request.

use std::borrow::Cow;
use std::fmt;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{Field, ReadingParts, TAGS_MAX, Tag};

use crate::names::UniqueNames;
use crate::quote::{pointer_token, shorten};
use crate::value::{JsonValue, noun, unquote};
use crate::{Decoded, Reason, Rules, UnknownFields, parse, unknown};

/// The start of JSON pointers to an object and its parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum PointerBase {
    /// The body is this one object.
    Body,
    /// The body is an array, and the object has this index in it.
    Element(usize),
}

/// Why an object is not a reading.
#[derive(Debug)]
struct ObjectFault {
    pointer: String,
    reason: Reason,
    detail: String,
}

/// The fields of one object. The next object uses its memory again.
#[derive(Debug, Default)]
pub(super) struct Draft<'de> {
    /// The fields that the object has.
    seen: [bool; Field::NAMES.len()],
    /// The fields that are not null.
    present: [bool; Field::NAMES.len()],
    device: Cow<'de, str>,
    sensor: Cow<'de, str>,
    value: Option<JsonValue<'de>>,
    time: Option<Timestamp>,
    unit: Option<Cow<'de, str>>,
    tags: Vec<Tag<'de>>,
    values: Vec<(Cow<'de, str>, JsonValue<'de>)>,
    /// The names of unknown fields, where these are ignored.
    unknown: Vec<Cow<'de, str>>,
    /// Find names that are there twice in `tags`, in `values`, and among unknown fields.
    names: [UniqueNames; 3],
    fault: Option<ObjectFault>,
}

/// The places in [`Draft::names`].
const TAG_NAMES: usize = 0;
const VALUE_NAMES: usize = 1;
const UNKNOWN_NAMES: usize = 2;

impl<'de> Draft<'de> {
    /// Reads the one object in `text`, whose nesting was checked; [`Draft::finish`] makes readings of it.
    ///
    /// # Errors
    ///
    /// `text` is not JSON.
    pub(super) fn read(&mut self, text: &'de str, rules: &Rules) -> serde_json::Result<()> {
        self.clear();
        if !text.trim_ascii_start().starts_with('{') {
            let detail = format!("a reading must be an object, got {}", noun(parse::value(text)?));
            self.fault_at("", Reason::Type, detail);
            return Ok(());
        }
        parse::members(text, |name, json| {
            let name = unquote(name)?;
            match Field::named(&name) {
                Some(field) => self.set(field, json, rules)?,
                None => self.unknown_field(name, rules.unknown_fields),
            }
            Ok(())
        })
    }

    fn clear(&mut self) {
        self.seen = Default::default();
        self.present = Default::default();
        self.value = None;
        self.time = None;
        self.unit = None;
        self.tags.clear();
        self.values.clear();
        self.unknown.clear();
        self.fault = None;
    }

    /// Notes a fault, unless there is one already.
    fn fault_at(&mut self, pointer: impl fmt::Display, reason: Reason, detail: String) {
        self.fault.get_or_insert_with(|| ObjectFault { pointer: pointer.to_string(), reason, detail });
    }

    fn fault(&mut self, field: Field, reason: Reason, detail: String) {
        self.fault_at(format_args!("/{}", field.name()), reason, detail);
    }

    fn wrong_type(&mut self, field: Field, expected: &str, found: &JsonValue<'_>) {
        let reason = if found.is_beyond() { Reason::Number } else { Reason::Type };
        self.fault(field, reason, format!("`{}` must be {expected}, got {}", field.name(), found.noun()));
    }

    /// Takes the value of a field.
    fn set(&mut self, field: Field, json: &'de str, rules: &Rules) -> serde_json::Result<()> {
        if std::mem::replace(&mut self.seen[field as usize], true) {
            self.twice("", "", field.name());
            return Ok(());
        }
        let value = JsonValue::of(json)?;
        self.present[field as usize] = !matches!(value, JsonValue::Null);
        match (field, value) {
            (Field::Value, value) => self.value = Some(value),
            (Field::Device, JsonValue::Text(text)) => self.device = text,
            (Field::Sensor, JsonValue::Text(text)) => self.sensor = text,
            (Field::Unit, JsonValue::Text(text)) => self.unit = Some(text),
            (Field::Time, JsonValue::Text(text)) => self.set_time(rules.time_of_text(&text)),
            (Field::Time, JsonValue::Number(number)) => self.set_time(rules.time_of_number(number)),
            (Field::Tags, JsonValue::Object(tags)) => parse::members(tags, |name, json| {
                self.add_tag(unquote(name)?, JsonValue::of(json)?);
                Ok(())
            })?,
            (Field::Values, JsonValue::Object(values)) => parse::members(values, |name, json| {
                self.add_value(unquote(name)?, JsonValue::of(json)?);
                Ok(())
            })?,
            (Field::Device, other) => self.wrong_type(field, "a string", &other),
            (_, JsonValue::Null) => {}
            (Field::Sensor | Field::Unit, other) => self.wrong_type(field, "a string", &other),
            (Field::Time, other) => self.wrong_type(field, "an RFC 3339 string or a number", &other),
            (Field::Tags | Field::Values, other) => self.wrong_type(field, "an object", &other),
        }
        Ok(())
    }

    fn set_time(&mut self, time: Result<Timestamp, String>) {
        match time {
            Ok(time) => self.time = Some(time),
            Err(detail) => self.fault(Field::Time, Reason::Time, detail),
        }
    }

    fn add_value(&mut self, sensor: Cow<'de, str>, json: JsonValue<'de>) {
        let before = self.values.iter().map(|(known, _)| &**known);
        if !self.names[VALUE_NAMES].is_new(&sensor, before) {
            self.twice("/values", "the sensor ", &sensor);
        }
        self.values.push((sensor, json));
    }

    fn add_tag(&mut self, name: Cow<'de, str>, json: JsonValue<'de>) {
        let before = self.tags.iter().map(|(known, _)| &**known);
        if !self.names[TAG_NAMES].is_new(&name, before) {
            return self.twice("/tags", "the tag ", &name);
        }
        match json {
            // One tag more than allowed is enough to reject the reading.
            JsonValue::Text(value) if self.tags.len() <= TAGS_MAX => self.tags.push((name, value)),
            JsonValue::Text(_) => {}
            other => {
                let detail = format!("a tag must be a string, got {}", other.noun());
                self.fault_at(format_args!("/tags/{}", pointer_token(&name)), Reason::Type, detail);
            }
        }
    }

    /// Rejects an unknown field, or remembers its name.
    fn unknown_field(&mut self, name: Cow<'de, str>, unknown_fields: UnknownFields) {
        match unknown_fields {
            UnknownFields::Reject if self.fault.is_none() => {
                let detail = unknown::detail(&name);
                self.fault_at(format_args!("/{}", pointer_token(&name)), Reason::Unknown, detail);
            }
            UnknownFields::Reject => {}
            UnknownFields::Ignore => {
                let before = self.unknown.iter().map(|known| &**known);
                if !self.names[UNKNOWN_NAMES].is_new(&name, before) {
                    self.twice("", "", &name);
                }
                self.unknown.push(name);
            }
        }
    }

    /// Notes a name that is there twice in the place of `pointer`.
    fn twice(&mut self, pointer: &str, what: &str, name: &str) {
        let detail = format!("{what}`{}` is there twice", shorten(name));
        self.fault_at(format_args!("{pointer}/{}", pointer_token(name)), Reason::Field, detail);
    }

    /// Adds the readings of this object to `decoded`, or a rejection.
    pub(super) fn finish(&mut self, base: PointerBase, rules: &Rules, decoded: &mut Decoded) {
        if self.fault.is_none() {
            self.check_fields(rules);
        }
        if let Some(fault) = self.fault.take() {
            let describe = || (base.pointer(&fault.pointer), fault.detail);
            return decoded.rejections.add(base.index(), fault.reason, self.values.len().max(1), describe);
        }
        let time = self.time.unwrap_or(rules.received_at);
        match self.value.take().filter(|_| !self.present[Field::Values as usize]) {
            Some(value) => self.push(&self.sensor, &value, time, base, None, (rules, decoded)),
            None => {
                for (sensor, value) in &self.values {
                    if decoded.readings.encoded_bytes() > rules.encoded_bytes_max {
                        decoded.overflowed = true;
                        return;
                    }
                    self.push(sensor, value, time, base, Some(sensor), (rules, decoded));
                }
            }
        }
    }

    /// Checks that the fields make a reading, or several, together.
    fn check_fields(&mut self, rules: &Rules) {
        if !self.present[Field::Device as usize]
            && let Some(device) = rules.default_device()
        {
            self.present[Field::Device as usize] = true;
            self.device = device.to_owned().into();
        }
        let has = |field: Field| self.present[field as usize];
        let (several, sensor, value) = (has(Field::Values), has(Field::Sensor), has(Field::Value));
        let missing = |field: Field| (format!("/{}", field.name()), format!("`{}` is missing", field.name()));
        let (pointer, detail) = if !has(Field::Device) {
            missing(Field::Device)
        } else if several && (sensor || value) {
            (
                "/values".to_owned(),
                "`values` stands instead of `sensor` and `value`, not beside them".to_owned(),
            )
        } else if several && self.values.is_empty() {
            ("/values".to_owned(), "`values` must name at least one sensor".to_owned())
        } else if !several && !sensor {
            missing(Field::Sensor)
        } else if !several && self.value.is_none() {
            missing(Field::Value)
        } else {
            return;
        };
        self.fault_at(pointer, Reason::Field, detail);
    }

    /// Appends one reading; `member` is its name in `values`, if it is one of those.
    fn push(
        &self,
        sensor: &str,
        value: &JsonValue<'de>,
        time: Timestamp,
        base: PointerBase,
        member: Option<&str>,
        (rules, decoded): (&Rules, &mut Decoded),
    ) {
        let pointer = |field: Field| match (field, member) {
            (Field::Value | Field::Sensor, Some(name)) => {
                base.pointer(&format!("/values/{}", pointer_token(name)))
            }
            _ => base.pointer(&format!("/{}", field.name())),
        };
        let value = match value.as_new_value() {
            Ok(value) => value,
            Err((reason, detail)) => {
                return decoded.rejections.add(base.index(), reason, 1, || (pointer(Field::Value), detail));
            }
        };
        let parts = ReadingParts {
            device: &self.device,
            sensor,
            value,
            time,
            unit: self.unit.as_deref(),
            tags: &self.tags,
        };
        if let Err(error) = rules.push(&parts, &mut decoded.readings) {
            let describe = || (pointer(error.field()), error.to_string());
            decoded.rejections.add(base.index(), Reason::from(&error), 1, describe);
        }
    }
}

impl PointerBase {
    pub(super) fn index(self) -> usize {
        match self {
            PointerBase::Body => 0,
            PointerBase::Element(index) => index,
        }
    }

    pub(super) fn pointer(self, rest: &str) -> String {
        match self {
            PointerBase::Body => rest.to_owned(),
            PointerBase::Element(index) => format!("/{index}{rest}"),
        }
    }
}
