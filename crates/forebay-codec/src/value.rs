//! What serde_json hands over for the parts of an object: names, texts, and values of any type.

use std::borrow::Cow;
use std::fmt;

use forebay_reading::{Field, Value};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Reason;

/// What JSON a value is; what an array or object holds has been passed over.
#[derive(Debug)]
pub(super) enum Json<'de> {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(Cow<'de, str>),
    Array,
    Object,
    /// A number beyond all doubles.
    Beyond,
}

impl Json<'_> {
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Boolean(_) => "a boolean",
            Json::Integer(_) | Json::Double(_) => "a number",
            Json::Text(_) => "a string",
            Json::Array => "an array",
            Json::Object => "an object",
            Json::Beyond => "a number that no double can hold",
        }
    }

    pub(super) fn as_value(&self) -> Result<Value<'_>, (Reason, String)> {
        match self {
            Json::Boolean(truth) => Ok(Value::Boolean(*truth)),
            Json::Integer(number) => Ok(Value::Integer(*number)),
            Json::Double(number) => Ok(Value::Double(*number)),
            Json::Text(text) => Ok(Value::Text(text)),
            Json::Beyond => {
                Err((Reason::Number, format!("a value must be a finite number, got {}", self.noun())))
            }
            Json::Null | Json::Array | Json::Object => Err((
                Reason::Type,
                format!("a value must be a number, a boolean or a string, got {}", self.noun()),
            )),
        }
    }
}

pub(super) enum Key<'de> {
    Known(Field),
    Unknown(Cow<'de, str>),
}

pub(super) struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
        Ok(Field::named(name).map_or(Key::Unknown(Cow::Borrowed(name)), Key::Known))
    }

    fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
        Ok(Field::named(name).map_or_else(|| Key::Unknown(Cow::Owned(name.to_owned())), Key::Known))
    }
}

pub(super) struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Any value. Arrays and objects are passed over with serde_json's bound on nesting, which `IgnoredAny` lacks.
pub(super) struct JsonSeed;

impl<'de> DeserializeSeed<'de> for JsonSeed {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonSeed {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json<'de>, E> {
        Ok(Json::Boolean(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        #[expect(clippy::cast_precision_loss, reason = "past 64 bits signed, numbers are doubles")]
        Ok(i64::try_from(number).map_or(Json::Double(number as f64), Json::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Double(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        while seq.next_element_seed(JsonSeed)?.is_some() {}
        Ok(Json::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(JsonSeed)?;
        }
        Ok(Json::Object)
    }
}
