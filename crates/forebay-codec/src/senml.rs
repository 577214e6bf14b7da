//! SenML: a pack of sensor measurements as a JSON array (RFC 8428, media type `application/senml+json`).
//!
//! Each record of the pack is at most one reading. It takes missing fields from the base fields of the records before it
//! (sections 4.1 and 4.5 of the RFC):
//!
//! | reading | from | rule |
//! |---|---|---|
//! | `device`, `sensor` | `bn`, `n` | joined they are the name; `name.rs` decides which part is the device, and what becomes of a record without a name |
//! | `value` | `v` + `bv`, `vb`, `vs` | one of the three; whole numbers that fit in 64 bits signed are kept and added exactly |
//! | `time` | `bt` + `t` | seconds, added exactly, cut to the nanosecond; below 2^28 from the time of receipt, else since 1970 |
//! | `unit` | `u`, or else `bu` | an empty unit is no unit |
//!
//! A base field holds for its own record and for all later ones, until it is set again. A good base field holds even if its
//! record is rejected for another fault. A faulty base field rejects its own record and every record that needs it, until it
//! is set again: no value, time or name is ever guessed. Only records with a number need `bv`, and only records without `u`
//! need `bu`.
//!
//! A record with base fields only is neither a reading nor a fault. A sum (`s`, `bs`) is ignored beside a value; without a
//! value it is rejected, like binary data (`vd`). `ut` is ignored. Unknown labels are ignored, whatever
//! `ingest.unknown_fields` says, unless they end in `_`: such a label rejects its record, and all later records if it begins
//! with `b` as base fields do. A version (`bver`) above [`VERSION`] in any record rejects the whole pack; a version that
//! differs from the one of earlier records is an ordinary fault.
//!
//! A record that is not JSON is rejected alone, as long as its end is clear, and its readable base fields hold. An unreadable
//! label counts as an unknown label with its readable part as name. If no label of a record is readable, the record may have
//! had base fields, and all later records are rejected.
//!
//! Some forms that the RFC forbids are accepted because their meaning is clear: an exponent with `E`, a pack without records,
//! a version written `10.0`.
//!
//! Almost every pack is read by `scan.rs`, without a general parser, and any other pack is read again with care
//! (`read.rs`). Both fill the same [`record::RecordFields`]; `pack.rs` alone decides what a record means.

mod base;
mod label;
mod name;
mod number;
mod pack;
mod read;
mod record;
mod scan;

use crate::scan::Uncommon;
use crate::{DecodeError, Decoded, Decoder, Looks, Rules, escape, utf8};

/// The version of SenML in RFC 8428, and the default of a pack without `bver` (section 4.1).
const VERSION: u32 = 10;

/// The format `senml`.
#[derive(Debug)]
pub struct Senml;

impl Decoder for Senml {
    fn media_types(&self) -> &'static [&'static str] {
        &["application/senml+json"]
    }

    fn advice(&self, looks: Looks) -> Option<&'static str> {
        match looks {
            Looks::Empty => Some(
                "the body is empty; send a SenML pack, an array of records such as [{\"n\":\"device/sensor\",\"v\":1}]",
            ),
            Looks::Objects | Looks::Markup | Looks::Form | Looks::Lines => looks.advice(),
            Looks::Object | Looks::SpreadObject | Looks::Array | Looks::Unknown => None,
        }
    }

    fn read(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let text = utf8(body)?;
        let copy = escape::replaced(text);
        let common = copy.as_deref().unwrap_or(text);
        scan::scan(common, rules).or_else(|Uncommon| read::read(text, rules))
    }

    fn layout(&self) -> super::Layout {
        super::Layout::SenmlArray
    }
}

/// The device of a base name and a name, unless both are empty.
pub(super) fn device<'a>(base_name: &'a str, name: &'a str) -> Option<&'a str> {
    name::split(base_name, name).map(|source| source.device)
}

/// The names of all known labels.
pub fn labels() -> impl Iterator<Item = &'static str> {
    label::Label::NAMES.iter().map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests;
