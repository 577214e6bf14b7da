//! Any pack, read with serde_json.
//!
//! Records and values are taken as pieces of text, so that a number keeps its digits, and one beyond all doubles is
//! the fault of its record alone; so is whatever else is wrong within a record. Cut out like that nothing bounds how
//! deeply a value is nested; a look at the whole body before does.

use std::fmt;

use serde::de::{Deserialize as _, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pack::Pack;
use super::record::{Record, noun, unquote};
use crate::elements::DEPTH_BEYOND;
use crate::mended::Mended;
use crate::object::decode_error;
use crate::{DecodeError, Decoded, Rules};

pub(super) fn read(text: &str, rules: &Rules) -> Result<Decoded, DecodeError> {
    read_shallow(text, rules).or_else(|error| match Mended::elements_of(text) {
        Some(mended) => parse(&mended, rules).map_err(|_| error),
        None => Err(error),
    })
}

/// Reads a pack that is JSON, apart from escapes that stand for nothing.
fn read_shallow(text: &str, rules: &Rules) -> Result<Decoded, DecodeError> {
    if let Some(at) = too_deep(text.as_bytes()) {
        return Err(DecodeError::at(text.as_bytes(), at, "recursion limit exceeded"));
    }
    let plain = Mended::plain(text);
    parse(&plain, rules)
        .or_else(|error| {
            let mended = Mended::of(text);
            if mended.is_changed() { parse(&mended, rules) } else { Err(error) }
        })
        .map_err(|error| decode_error(&error, 0))
}

fn parse(body: &Mended<'_>, rules: &Rules) -> Result<Decoded, serde_json::Error> {
    let mut pack = Pack::new(body.text(), rules);
    read_pack(body, &mut pack)?;
    Ok(pack.finish())
}

fn read_pack<'de>(body: &'de Mended<'_>, pack: &mut Pack<'_, 'de>) -> Result<(), serde_json::Error> {
    let text = body.text();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if text.trim_ascii_start().starts_with('[') {
        deserializer.deserialize_seq(Records { body, pack })?;
    } else {
        let json = <&RawValue>::deserialize(&mut deserializer)?;
        pack.refuse(noun(json.get()));
    }
    deserializer.end()
}

/// Where the nesting of a body goes too deep.
fn too_deep(body: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in body.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth == DEPTH_BEYOND {
                    return Some(at);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

struct Records<'p, 'a, 'de> {
    body: &'p Mended<'p>,
    pack: &'p mut Pack<'a, 'de>,
}

impl<'de> Visitor<'de> for Records<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut record = Record::default();
        while let Some(json) = seq.next_element::<&'de RawValue>()? {
            let text = json.get();
            if !text.starts_with('{') {
                let found = || format!("a record must be an object, got {}", noun(text));
                self.pack.take_other(self.body.fault_in(text).unwrap_or_else(found));
                continue;
            }
            record.begin(self.pack.next());
            let fields = Fields { body: self.body, record: &mut record };
            let read = serde_json::Deserializer::from_str(text).deserialize_map(fields);
            if let Some(detail) = self.body.fault_in(text) {
                record.fault_of_whole(detail);
            }
            read.map_err(|error| A::Error::custom(decode_error(&error, 0).detail))?;
            self.pack.take(&mut record);
        }
        Ok(())
    }
}

struct Fields<'r, 'de> {
    body: &'r Mended<'r>,
    record: &'r mut Record<'de>,
}

impl<'de> Visitor<'de> for Fields<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let broken = |error| A::Error::custom(decode_error(&error, 0).detail);
        while let Some(quoted) = map.next_key::<&'de RawValue>()? {
            let name = unquote(quoted.get()).map_err(broken)?;
            let json = map.next_value::<&'de RawValue>()?;
            if let Some(detail) = self.body.fault_in(quoted.get()) {
                self.record.take_broken_name(&name, detail);
            } else if let Some(detail) = self.body.fault_in(json.get()) {
                self.record.take_broken(&name, detail);
            } else {
                self.record.take(name, json).map_err(broken)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(too_deep(deep(127).as_bytes()), None);
        assert_eq!(too_deep(deep(128).as_bytes()), Some(127));
        assert_eq!(too_deep(format!("[{}", "{},".repeat(1000)).as_bytes()), None);
        assert_eq!(too_deep(format!("[\"\\\"{}", "[".repeat(1000)).as_bytes()), None);
        assert_eq!(too_deep(format!("[\"\\\\\"{}", "[".repeat(1000)).as_bytes()), Some(131));
    }
}
