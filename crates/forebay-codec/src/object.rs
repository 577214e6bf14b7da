//! One JSON object to readings: what the JSON formats share.
//!
//! An object is read in one pass into a [`Draft`] that borrows from the body. What is wrong with a reading is
//! kept as a fault of that reading while the parser goes on, so that only broken JSON stops a request.
//!
//! One thing stops serde_json that is no fault of the JSON: a number beyond all doubles, such as 1e999. A body
//! with one is read again with care ([`Care::Slow`]): each value is cut out as text first and parsed by itself.

use std::borrow::Cow;
use std::fmt;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{Field, ReadingParts, TAGS_MAX, Tag};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::names::Names;
use crate::value::{Json, JsonSeed, Key, KeySeed, TextSeed};
use crate::{DecodeError, Decoded, Reason, Rules, UnknownFields, unknown};

/// Longest piece of a request that an error repeats, in bytes.
const QUOTE_BYTES_MAX: usize = 64;

/// Whether a number beyond all doubles may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// None is expected; one stops the parser.
    Fast,
    /// Each value is cut out as text and parsed by itself; such a number is the fault of its reading alone.
    Slow,
}

/// Where an object stands in its request, for JSON pointers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The body is this one object.
    Alone,
    /// The `index`-th of several.
    Among(usize),
}

/// Why an object is no reading.
#[derive(Debug)]
struct Fault {
    pointer: String,
    reason: Reason,
    detail: String,
}

/// One object as far as it has been read. Used again for the next one, to keep its memory.
#[derive(Debug, Default)]
pub(super) struct Draft<'de> {
    /// The fields that are there.
    seen: [bool; Field::NAMES.len()],
    /// Those of them that say something: one that is null does not.
    present: [bool; Field::NAMES.len()],
    device: Cow<'de, str>,
    sensor: Cow<'de, str>,
    value: Option<Json<'de>>,
    time: Option<Timestamp>,
    unit: Option<Cow<'de, str>>,
    tags: Vec<Tag<'de>>,
    values: Vec<(Cow<'de, str>, Json<'de>)>,
    /// The names of fields that no reading has, where they are passed over.
    unknown: Vec<Cow<'de, str>>,
    /// What is remembered of the names in `tags`, in `values`, and of unknown fields.
    names: [Names; 3],
    fault: Option<Fault>,
}

/// The places in [`Draft::names`].
const TAG_NAMES: usize = 0;
const VALUE_NAMES: usize = 1;
const UNKNOWN_NAMES: usize = 2;

impl<'de> Draft<'de> {
    /// Reads one object from `deserializer` and adds what it holds to `decoded`.
    pub(super) fn read<D: Deserializer<'de>>(
        &mut self,
        deserializer: D,
        place: Place,
        care: Care,
        rules: &Rules,
        decoded: &mut Decoded,
    ) -> Result<(), D::Error> {
        self.parse(deserializer, care, rules)?;
        self.finish(place, rules, decoded);
        Ok(())
    }

    /// Reads one object from `deserializer`; what it holds is for [`Draft::finish`].
    pub(super) fn parse<D: Deserializer<'de>>(
        &mut self,
        deserializer: D,
        care: Care,
        rules: &Rules,
    ) -> Result<(), D::Error> {
        self.clear();
        match deserializer.deserialize_any(ObjectVisitor { draft: self, care, rules }) {
            Err(error) if care == Care::Slow && is_beyond(&error) => {
                self.fault_at("", Reason::Type, not_an_object("a number"));
                Ok(())
            }
            done => done,
        }
    }

    /// Adds a rejection for an element that cannot be read; `rest` points to the part of it that is at fault.
    pub(super) fn refuse_part(place: Place, rest: &str, detail: String, decoded: &mut Decoded) {
        decoded.rejections.add(place.index(), Reason::Type, 1, || (place.pointer(rest), detail));
    }

    /// Adds a rejection for a body that is neither an object nor an array.
    pub(super) fn refuse(found: &str, decoded: &mut Decoded) {
        let detail = format!("the body must be a reading, as an object, or an array of them, got {found}");
        decoded.rejections.add(0, Reason::Type, 1, || (String::new(), detail));
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

    /// Keeps the first fault.
    fn fault_at(&mut self, pointer: impl fmt::Display, reason: Reason, detail: String) {
        self.fault.get_or_insert_with(|| Fault { pointer: pointer.to_string(), reason, detail });
    }

    fn fault(&mut self, field: Field, reason: Reason, detail: String) {
        self.fault_at(format_args!("/{}", field.name()), reason, detail);
    }

    fn wrong_type(&mut self, field: Field, expected: &str, found: &Json<'_>) {
        let reason = if matches!(found, Json::Beyond) { Reason::Number } else { Reason::Type };
        self.fault(field, reason, format!("`{}` must be {expected}, got {}", field.name(), found.noun()));
    }

    /// Notes that a field is there. Returns whether it was not there before.
    fn see(&mut self, field: Field) -> bool {
        !std::mem::replace(&mut self.seen[field as usize], true)
    }

    /// Notes that a field says something, unless it is null.
    fn set_present(&mut self, field: Field, is_null: bool) {
        self.present[field as usize] = !is_null;
    }

    fn set_value(&mut self, json: Json<'de>) {
        self.set_present(Field::Value, matches!(json, Json::Null));
        self.value = Some(json);
    }

    fn add_value(&mut self, sensor: Cow<'de, str>, json: Json<'de>) {
        let before = self.values.iter().map(|(known, _)| &**known);
        if !self.names[VALUE_NAMES].is_new(&sensor, before) {
            self.twice("/values", "the sensor ", &sensor);
        }
        self.values.push((sensor, json));
    }

    fn set_text(&mut self, field: Field, json: Json<'de>) {
        self.set_present(field, matches!(json, Json::Null));
        match (field, json) {
            (Field::Device, Json::Text(text)) => self.device = text,
            (Field::Sensor, Json::Text(text)) => self.sensor = text,
            (Field::Unit, Json::Text(text)) => self.unit = Some(text),
            (Field::Sensor | Field::Unit, Json::Null) => {}
            (_, other) => self.wrong_type(field, "a string", &other),
        }
    }

    /// Takes the time, which is kept as text until here: a double would lose digits of a number.
    fn set_time<E: serde::de::Error>(&mut self, json: &'de str, rules: &Rules) -> Result<(), E> {
        let broken = |error: serde_json::Error| E::custom(decode_error(&error, 0).detail);
        let time = match json.as_bytes() {
            [b'"', .., b'"'] if !json.contains('\\') => rules.time_of_text(&json[1..json.len() - 1]),
            [b'"', ..] => rules.time_of_text(&serde_json::from_str::<String>(json).map_err(broken)?),
            [b'-' | b'0'..=b'9', ..] => rules.time_of_number(json),
            [b'n', ..] => return Ok(()),
            _ => {
                // Read on: nesting is bounded there.
                let other =
                    JsonSeed.deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(broken)?;
                self.wrong_type(Field::Time, "an RFC 3339 string or a number", &other);
                return Ok(());
            }
        };
        match time {
            Ok(time) => self.time = Some(time),
            Err(detail) => self.fault(Field::Time, Reason::Time, detail),
        }
        Ok(())
    }

    fn add_tag(&mut self, name: Cow<'de, str>, json: Json<'de>) {
        let before = self.tags.iter().map(|(known, _)| &**known);
        if !self.names[TAG_NAMES].is_new(&name, before) {
            return self.twice("/tags", "the tag ", &name);
        }
        match json {
            // One more than are allowed is enough to know that there are too many.
            Json::Text(value) if self.tags.len() <= TAGS_MAX => self.tags.push((name, value)),
            Json::Text(_) => {}
            other => {
                let detail = format!("a tag must be a string, got {}", other.noun());
                self.fault_at(format_args!("/tags/{}", pointer_token(&name)), Reason::Type, detail);
            }
        }
    }

    /// A field that no reading has.
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

    /// A name that is there twice in the place that `pointer` leads to.
    fn twice(&mut self, pointer: &str, what: &str, name: &str) {
        let detail = format!("{what}`{}` is there twice", shorten(name));
        self.fault_at(format_args!("{pointer}/{}", pointer_token(name)), Reason::Field, detail);
    }

    /// Adds the readings of this object to `decoded`, or the reason why there are none.
    pub(super) fn finish(&mut self, place: Place, rules: &Rules, decoded: &mut Decoded) {
        if self.fault.is_none() {
            self.check_fields();
        }
        if let Some(fault) = self.fault.take() {
            let describe = || (place.pointer(&fault.pointer), fault.detail);
            return decoded.rejections.add(place.index(), fault.reason, self.values.len().max(1), describe);
        }
        let time = self.time.unwrap_or(rules.received_at);
        match self.value.take().filter(|_| !self.present[Field::Values as usize]) {
            Some(value) => self.push(&self.sensor, &value, time, place, None, decoded),
            None => {
                for (sensor, value) in &self.values {
                    if decoded.readings.encoded_bytes() > rules.encoded_bytes_max {
                        decoded.overflowed = true;
                        return;
                    }
                    self.push(sensor, value, time, place, Some(sensor), decoded);
                }
            }
        }
    }

    /// Checks that the fields make a reading, or several, together.
    fn check_fields(&mut self) {
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

    /// Appends one reading; `member` is its name in `values`, if it came from there.
    fn push(
        &self,
        sensor: &str,
        value: &Json<'de>,
        time: Timestamp,
        place: Place,
        member: Option<&str>,
        decoded: &mut Decoded,
    ) {
        let pointer = |field: Field| match (field, member) {
            (Field::Value | Field::Sensor, Some(name)) => {
                place.pointer(&format!("/values/{}", pointer_token(name)))
            }
            _ => place.pointer(&format!("/{}", field.name())),
        };
        let value = match value.as_value() {
            Ok(value) => value,
            Err((reason, detail)) => {
                return decoded.rejections.add(place.index(), reason, 1, || (pointer(Field::Value), detail));
            }
        };
        let parts = ReadingParts {
            device: &self.device,
            sensor,
            value: value.into(),
            time,
            unit: self.unit.as_deref(),
            tags: &self.tags,
        };
        if let Err(error) = decoded.readings.push(&parts) {
            let describe = || (pointer(error.field()), error.to_string());
            decoded.rejections.add(place.index(), Reason::from(&error), 1, describe);
        }
    }
}

impl Place {
    fn index(self) -> usize {
        match self {
            Place::Alone => 0,
            Place::Among(index) => index,
        }
    }

    fn pointer(self, rest: &str) -> String {
        match self {
            Place::Alone => rest.to_owned(),
            Place::Among(index) => format!("/{index}{rest}"),
        }
    }
}

/// Whether the parser stopped at a number beyond all doubles.
///
/// serde_json has no code for it; a test holds this to its wording.
pub(super) fn is_beyond(error: &impl fmt::Display) -> bool {
    error.to_string().starts_with("number out of range")
}

/// The parser's error, `lines_before` lines into the body.
pub(super) fn decode_error(error: &serde_json::Error, lines_before: usize) -> DecodeError {
    let text = error.to_string();
    let detail = text.split(" at line ").next().unwrap_or_default().to_owned();
    DecodeError { line: lines_before + error.line().max(1), column: error.column().max(1), detail }
}

/// Cuts a piece of a request to a length that an error may repeat.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= QUOTE_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(QUOTE_BYTES_MAX)]))
}

/// Writes a name as a token of a JSON pointer (RFC 6901, section 3).
pub(super) fn pointer_token(name: &str) -> String {
    shorten(name).replace('~', "~0").replace('/', "~1")
}

fn not_an_object(found: &str) -> String {
    format!("a reading must be an object, got {found}")
}

struct ObjectVisitor<'a, 'de> {
    draft: &'a mut Draft<'de>,
    care: Care,
    rules: &'a Rules,
}

impl<'de> ObjectVisitor<'_, 'de> {
    fn no_object<E>(self, found: &Json<'_>) -> Result<(), E> {
        self.draft.fault_at("", Reason::Type, not_an_object(found.noun()));
        Ok(())
    }

    fn field<A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        if !self.draft.see(field) {
            self.draft.twice("", "", field.name());
            take(map, JsonSeed, self.care)?;
            return Ok(());
        }
        match field {
            Field::Device | Field::Sensor | Field::Unit => {
                let json = take(map, JsonSeed, self.care)?.unwrap_or(Json::Beyond);
                self.draft.set_text(field, json);
            }
            Field::Value => self.draft.set_value(take(map, JsonSeed, self.care)?.unwrap_or(Json::Beyond)),
            Field::Time => self.draft.set_time(map.next_value::<&'de RawValue>()?.get(), self.rules)?,
            Field::Tags | Field::Values => {
                self.draft.set_present(field, false);
                let members = MembersSeed { draft: self.draft, field, care: self.care };
                if take(map, members, self.care)?.is_none() {
                    self.draft.wrong_type(field, "an object", &Json::Beyond);
                }
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for ObjectVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a reading")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            match key {
                Key::Known(field) => self.field(field, &mut map)?,
                Key::Unknown(name) => {
                    take(&mut map, JsonSeed, self.care)?;
                    self.draft.unknown_field(name, self.rules.unknown_fields);
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(JsonSeed)?.is_some() {}
        self.no_object(&Json::Array)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.no_object(&Json::Boolean(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.no_object(&Json::Integer(number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.no_object(&Json::Integer(0))
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.no_object(&Json::Double(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.no_object(&Json::Text(Cow::Borrowed("")))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.no_object(&Json::Null)
    }
}

/// Takes the next value of `map` by `seed`; `None` if a number beyond all doubles stands in it.
fn take<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
    map: &mut A,
    seed: S,
    care: Care,
) -> Result<Option<S::Value>, A::Error> {
    match care {
        Care::Fast => map.next_value_seed(seed).map(Some),
        Care::Slow => {
            let text = map.next_value::<&'de RawValue>()?.get();
            match seed.deserialize(&mut serde_json::Deserializer::from_str(text)) {
                Ok(value) => Ok(Some(value)),
                Err(error) if is_beyond(&error) => Ok(None),
                Err(error) => Err(A::Error::custom(decode_error(&error, 0).detail)),
            }
        }
    }
}

/// The members of `tags` or `values`.
struct MembersSeed<'a, 'de> {
    draft: &'a mut Draft<'de>,
    field: Field,
    care: Care,
}

impl<'de> MembersSeed<'_, 'de> {
    fn no_object<E>(self, found: &Json<'_>) -> Result<(), E> {
        self.draft.wrong_type(self.field, "an object", found);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for MembersSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(TextSeed)? {
            let json = take(&mut map, JsonSeed, self.care)?.unwrap_or(Json::Beyond);
            match self.field {
                Field::Tags => self.draft.add_tag(name, json),
                _ => self.draft.add_value(name, json),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(JsonSeed)?.is_some() {}
        self.no_object(&Json::Array)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.no_object(&Json::Boolean(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.no_object(&Json::Integer(number))
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.no_object(&Json::Integer(0))
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.no_object(&Json::Double(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.no_object(&Json::Text(Cow::Borrowed("")))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.draft.set_present(self.field, true);
        Ok(())
    }
}
