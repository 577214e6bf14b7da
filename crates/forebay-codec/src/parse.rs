//! JSON of any form, taken apart with serde_json: an array into its elements, an object into its members, each as its
//! text.
//!
//! This is the careful way to read, for everything that the scanner leaves. A number keeps its digits as text, also one
//! beyond all doubles, so that only broken JSON stops the parser. Cutting out text does not bound how deeply it is
//! nested: [`check_depth`] does, before.

use std::fmt;

use serde::de::{Deserialize as _, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::DecodeError;
use crate::tokens::string_end;

/// The first depth of nesting that is an error, as in serde_json.
pub(super) const DEPTH_BEYOND: usize = 128;

/// Checks that fewer than [`DEPTH_BEYOND`] arrays and objects are nested in `text`, of which `around` are around it.
pub(super) fn check_depth(text: &str, around: usize) -> Result<(), DecodeError> {
    let bytes = text.as_bytes();
    // Mostly there are too few of them.
    if around + memchr::memchr2_iter(b'[', b'{', bytes).take(DEPTH_BEYOND).count() < DEPTH_BEYOND {
        return Ok(());
    }
    let (mut depth, mut at) = (around, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'[' | b'{' => {
                depth += 1;
                if depth == DEPTH_BEYOND {
                    return Err(DecodeError::at(bytes, at, "recursion limit exceeded"));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The text of the one value in `text`, without the white space around it.
pub(super) fn value(text: &str) -> serde_json::Result<&str> {
    serde_json::from_str::<&RawValue>(text).map(RawValue::get)
}

/// The text of the value at the beginning of `text`.
pub(super) fn first_value(text: &str) -> serde_json::Result<&str> {
    <&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(text)).map(RawValue::get)
}

/// Gives each element of an array to `take`.
pub(super) fn elements<'de>(
    array: &'de str,
    take: impl FnMut(&'de str) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(array);
    deserializer.deserialize_seq(ElementVisitor(take))?;
    deserializer.end()
}

/// Gives each member of an object to `take`: its name, in quotes, and its value.
pub(super) fn members<'de>(
    object: &'de str,
    take: impl FnMut(&'de str, &'de str) -> serde_json::Result<()>,
) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(MemberVisitor(take))?;
    deserializer.end()
}

struct ElementVisitor<F>(F);

impl<'de, F: FnMut(&'de str) -> serde_json::Result<()>> Visitor<'de> for ElementVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            self.0(element.get()).map_err(of_part)?;
        }
        Ok(())
    }
}

struct MemberVisitor<F>(F);

impl<'de, F: FnMut(&'de str, &'de str) -> serde_json::Result<()>> Visitor<'de> for MemberVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            self.0(name.get(), value.get()).map_err(of_part)?;
        }
        Ok(())
    }
}

/// An error in a part that was cut out; its place is then the end of the part.
fn of_part<E: serde::de::Error>(error: serde_json::Error) -> E {
    E::custom(DecodeError::of_parser(&error).detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let column = |text: String| check_depth(&text, 0).err().map(|error| error.column);
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(column(deep(127)), None);
        assert_eq!(column(deep(128)), Some(128));
        assert_eq!(column(format!("[{}", "{},".repeat(1000))), None);
        assert_eq!(column(format!("[\"\\\"{}", "[".repeat(1000))), None);
        assert_eq!(column(format!("[\"\\\\\"{}", "[".repeat(1000))), Some(132));
    }
}
