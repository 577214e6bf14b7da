//! JSON: one reading as an object, or an array of them.

use std::fmt;

use forebay_reading::{ReadingRef, Readings};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde_json::value::RawValue;

use crate::mended::Mended;
use crate::object::{Care, Draft, Place, decode_error, is_beyond};
use crate::scan::{Scanner, Uncommon};
use crate::{DecodeError, Decoded, Decoder, Encoder, Looks, Rules, Unwritable, utf8, write_reading};

/// The format `json`.
#[derive(Debug)]
pub struct Json;

impl Decoder for Json {
    fn media_types(&self) -> &'static [&'static str] {
        &["application/json"]
    }

    fn advice(&self, looks: Looks) -> Option<&'static str> {
        match looks {
            Looks::Empty => Some(
                "the body is empty; send a reading as a JSON object, such as {\"device\":\"d\",\"sensor\":\"s\",\"value\":1}, or an array of them",
            ),
            Looks::Objects | Looks::Markup | Looks::Form | Looks::Lines => looks.advice(),
            Looks::Object | Looks::SpreadObject | Looks::Array | Looks::Unknown => None,
        }
    }

    fn read(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let text = utf8(body)?;
        if let Ok(decoded) = scan(text, rules) {
            return Ok(decoded);
        }
        parse(&Mended::plain(text), Care::Fast, rules)
            .or_else(|error| parse_with_care(text, error, rules))
            .map_err(|error| decode_error(&error, 0))
    }

    fn layout(&self) -> super::Layout {
        super::Layout::Array
    }
}

impl Encoder for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn write(&self, index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable> {
        body.push(if index == 0 { b'[' } else { b',' });
        write_reading(reading, body);
        Ok(())
    }

    fn finish(&self, _key: &str, body: &mut Vec<u8>) {
        body.push(b']');
    }

    fn finish_bytes(&self) -> usize {
        1
    }
}

/// Reads a body of the common form.
fn scan(text: &str, rules: &Rules) -> Result<Decoded, Uncommon> {
    let mut decoded = decoded_for(text);
    let mut scanner = Scanner::new(text);
    if !scanner.take(b'[') {
        scanner.object(rules, &mut decoded.readings)?;
    } else if !scanner.take(b']') {
        loop {
            scanner.object(rules, &mut decoded.readings)?;
            if scanner.is_last(b']')? {
                break;
            }
        }
    }
    if scanner.is_at_end() { Ok(decoded) } else { Err(Uncommon) }
}

/// Reads a body in which the parser stopped at `error`, if that may be the fault of an element alone.
#[cold]
fn parse_with_care(
    text: &str,
    error: serde_json::Error,
    rules: &Rules,
) -> Result<Decoded, serde_json::Error> {
    let is_array = text.trim_ascii_start().starts_with('[');
    let mended = if is_array { Mended::of(text) } else { Mended::plain(text) };
    let is_enough = mended.is_changed() || is_beyond(&error);
    let read = if is_enough { parse(&mended, Care::Slow, rules) } else { Err(error) };
    drop(mended);
    read.or_else(|error| match Mended::elements_of(text) {
        Some(mended) => parse(&mended, Care::Slow, rules).map_err(|_| error),
        None => Err(error),
    })
}

fn parse(body: &Mended<'_>, care: Care, rules: &Rules) -> Result<Decoded, serde_json::Error> {
    let mut decoded = decoded_for(body.text());
    let mut deserializer = serde_json::Deserializer::from_str(body.text());
    match (&mut deserializer).deserialize_any(Document { body, care, rules, decoded: &mut decoded }) {
        Ok(()) => {}
        Err(error) if care == Care::Slow && is_beyond(&error) => Draft::refuse("a number", &mut decoded),
        Err(error) => return Err(error),
    }
    deserializer.end()?;
    Ok(decoded)
}

/// Makes room for what `text` holds: encoded readings are mostly shorter than their JSON.
fn decoded_for(text: &str) -> Decoded {
    Decoded { readings: Readings::with_capacity(text.len()), ..Decoded::default() }
}

struct Document<'a> {
    body: &'a Mended<'a>,
    care: Care,
    rules: &'a Rules,
    decoded: &'a mut Decoded,
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a reading or an array of readings")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let object = MapAccessDeserializer::new(map);
        Draft::default().read(object, Place::Alone, self.care, self.rules, self.decoded)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut draft = Draft::default();
        let mut index = 0;
        loop {
            let place = Place::Among(index);
            let element = Element {
                body: self.body,
                draft: &mut draft,
                place,
                care: self.care,
                rules: self.rules,
                decoded: self.decoded,
            };
            if seq.next_element_seed(element)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Draft::refuse("a boolean", self.decoded);
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Draft::refuse("a number", self.decoded);
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Draft::refuse("a number", self.decoded);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Draft::refuse("a number", self.decoded);
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Draft::refuse("a string", self.decoded);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Draft::refuse("null", self.decoded);
        Ok(())
    }
}

/// One element of the array.
struct Element<'a, 'de> {
    body: &'a Mended<'a>,
    draft: &'a mut Draft<'de>,
    place: Place,
    care: Care,
    rules: &'a Rules,
    decoded: &'a mut Decoded,
}

impl<'de> DeserializeSeed<'de> for Element<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.care {
            Care::Fast => self.draft.read(deserializer, self.place, self.care, self.rules, self.decoded),
            Care::Slow => {
                let text = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
                if let Some(detail) = self.body.fault_in(text) {
                    Draft::refuse_part(self.place, &self.body.pointer_in(text), detail, self.decoded);
                    return Ok(());
                }
                let element = &mut serde_json::Deserializer::from_str(text);
                let read = self.draft.read(element, self.place, self.care, self.rules, self.decoded);
                read.map_err(|error| serde::de::Error::custom(decode_error(&error, 0).detail))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
