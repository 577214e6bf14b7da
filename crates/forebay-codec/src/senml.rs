//! SenML: a pack of sensor measurements as a JSON array (RFC 8428, media type `application/senml+json`).
//!
//! Each record of the pack is at most one reading. What it leaves out it takes from the base fields of the records
//! before it (sections 4.1 and 4.5 of the RFC):
//!
//! | reading | from | rule |
//! |---|---|---|
//! | `device`, `sensor` | `bn`, `n` | one after the other they are the name; `name.rs` says which part is the device |
//! | `value` | `v` + `bv`, `vb`, `vs` | one of the three; whole numbers that fit in 64 bits signed are kept and added exactly |
//! | `time` | `bt` + `t` | seconds, added exactly, cut to the nanosecond; below 2^28 from the time of receipt, else since 1970 |
//! | `unit` | `u`, or else `bu` | an empty one is none |
//!
//! A base field holds for its own record and for all after it, until it is set anew: also one in a record that is
//! turned away for something else, as long as the field itself is good. A base field that is at fault turns away its
//! own record and every one that would need it, until it is set anew: no value, time or name is ever guessed. Only
//! records with a number need `bv`, and only those without `u` need `bu`.
//!
//! A record with base fields alone is no reading and no fault. A sum (`s`, `bs`) is passed over beside a value, and
//! turned away without one, as is binary data (`vd`); `ut` is passed over. Labels that are not known are ignored,
//! whatever `ingest.unknown_fields` says, unless they end in `_`: those turn the record away, and all after it if they
//! begin with `b` too, as base fields do. A version (`bver`) above [`VERSION`] turns the whole pack away, wherever it
//! stands; one that differs from that of the records before it is a fault like others.
//!
//! A record that is no JSON is turned away alone, as long as the pack says where it ends, and its readable base fields hold.
//! Where a label cannot be read, it counts as an unknown one by what can be read of it; where no label can, the record may
//! have had base fields, and all after it are turned away.
//!
//! More is taken than the RFC lets senders write, where it can mean only one thing: an exponent with `E`, a pack
//! without records, a version written `10.0`.
//!
//! Almost every pack is read by `scan.rs`, without a general parser, and any other pack is read again with care
//! (`read.rs`). Both fill the same [`record::Record`]; `pack.rs` alone decides what a record means.

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

/// The version of SenML that RFC 8428 defines, and what a pack has that does not say (section 4.1).
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

/// The device of a name in two parts, if the name says one.
pub(super) fn device<'a>(base_name: &'a str, name: &'a str) -> Option<&'a str> {
    name::split(base_name, name).map(|source| source.device)
}

/// The labels that a record may have, by their names.
pub fn labels() -> impl Iterator<Item = &'static str> {
    label::Label::NAMES.iter().map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests;
