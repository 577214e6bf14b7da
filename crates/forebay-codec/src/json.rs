//! JSON: one reading as an object, or an array of them.

use forebay_reading::{ReadingRef, Readings};

use crate::mended::{self, MendedBody};
use crate::object::{Draft, PointerBase};
use crate::parse::{self, check_depth};
use crate::scan::{Scanner, Uncommon};
use crate::value::noun;
use crate::{
    DecodeError, Decoded, Decoder, Encoder, Looks, Reason, Rules, Unwritable, escape, utf8, write_reading,
};

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
        let copy = escape::replaced(text);
        let common = copy.as_deref().unwrap_or(text);
        scan(common, rules).or_else(|Uncommon| read_with_care(text, rules))
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

/// Reads a body of the common form; of an array, elements may be of any form.
fn scan(text: &str, rules: &Rules) -> Result<Decoded, Uncommon> {
    let mut decoded = decoded_for(text);
    let mut scanner = Scanner::new(text);
    if !scanner.take(b'[') {
        scanner.object(rules, &mut decoded.readings)?;
    } else if !scanner.take(b']') {
        let mut draft = Draft::default();
        for index in 0.. {
            let (position, before) = (scanner.position(), decoded.readings.end());
            if scanner.object(rules, &mut decoded.readings).is_err() {
                decoded.readings.truncate(before);
                let element = parse::first_value(&text[position..]).map_err(|_| Uncommon)?;
                check_depth(element, 1).map_err(|_| Uncommon)?;
                draft.read(element, rules).map_err(|_| Uncommon)?;
                draft.finish(PointerBase::Element(index), rules, &mut decoded);
                scanner.go_to(position);
                scanner.skip_space();
                scanner.go_to(scanner.position() + element.len());
            }
            if scanner.is_last(b']')? {
                break;
            }
        }
    }
    if scanner.is_at_end() { Ok(decoded) } else { Err(Uncommon) }
}

/// Reads a body of any form.
#[cold]
fn read_with_care(text: &str, rules: &Rules) -> Result<Decoded, DecodeError> {
    if text.trim_ascii_start().starts_with('[') {
        return mended::read(text, |body| read_array(body, rules));
    }
    check_depth(text, 0)?;
    read_alone(text, rules).map_err(|error| DecodeError::of_parser(&error))
}

fn read_array(body: &MendedBody<'_>, rules: &Rules) -> serde_json::Result<Decoded> {
    let mut decoded = decoded_for(body.text());
    let mut draft = Draft::default();
    let mut next = 0;
    parse::elements(body.text(), |element| {
        let base = PointerBase::Element(next);
        next += 1;
        if let Some(detail) = body.fault_in(element) {
            let describe = || (base.pointer(&body.pointer_in(element)), detail);
            decoded.rejections.add(base.index(), Reason::Type, 1, describe);
        } else {
            draft.read(element, rules)?;
            draft.finish(base, rules, &mut decoded);
        }
        Ok(())
    })?;
    Ok(decoded)
}

fn read_alone(text: &str, rules: &Rules) -> serde_json::Result<Decoded> {
    let mut decoded = decoded_for(text);
    if text.trim_ascii_start().starts_with('{') {
        let mut draft = Draft::default();
        draft.read(text, rules)?;
        draft.finish(PointerBase::Body, rules, &mut decoded);
    } else {
        let found = noun(parse::value(text)?);
        let detail = format!("the body must be a reading, as an object, or an array of them, got {found}");
        decoded.rejections.add(0, Reason::Type, 1, || (String::new(), detail));
    }
    Ok(decoded)
}

/// Makes room for the readings in `text`: encoded, they are mostly shorter than their JSON.
fn decoded_for(text: &str) -> Decoded {
    Decoded { readings: Readings::with_capacity(text.len()), ..Decoded::default() }
}

#[cfg(test)]
pub(super) mod tests;
