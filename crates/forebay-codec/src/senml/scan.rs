//! The common form of a pack, read without a general parser.
//!
//! Known labels, each once and with the type that it must have, strings without escapes. Anything else, broken JSON
//! included, and the scanner gives up without a word: `read.rs` reads the body again. It decides nothing: what it fills
//! into a record, serde_json would, too (`codec::senml::tests::the_scanner_agrees_with_serde_json`).

use std::borrow::Cow;

use forebay_reading::text::Text as _;

use super::label::{Kind, Label};
use super::pack::Pack;
use super::record::Record;
use crate::scan::{Scanner, Uncommon};
use crate::{Decoded, Rules};

pub(super) fn scan(text: &str, rules: &Rules) -> Result<Decoded, Uncommon> {
    let mut scanner = Scanner::new(text);
    scanner.expect(b'[')?;
    let mut pack = Pack::new(text, rules);
    let mut record = Record::default();
    if !scanner.take(b']') {
        loop {
            record.begin(pack.next());
            fields(&mut scanner, &mut record)?;
            pack.take(&mut record);
            if scanner.is_last(b']')? {
                break;
            }
        }
    }
    if scanner.is_at_end() { Ok(pack.finish()) } else { Err(Uncommon) }
}

fn fields<'de>(scanner: &mut Scanner<'de>, record: &mut Record<'de>) -> Result<(), Uncommon> {
    scanner.expect(b'{')?;
    if scanner.take(b'}') {
        return Ok(());
    }
    loop {
        let (label, kind) = label(scanner)?;
        scanner.skip_space();
        let text = match kind {
            Kind::Text => scanner.string()?.as_str(),
            Kind::Number => scanner.number_text()?,
            Kind::Boolean => scanner.word("true").or_else(|_| scanner.word("false"))?,
        };
        if !record.set(label, Cow::Borrowed(text)) {
            return Err(Uncommon);
        }
        if scanner.is_last(b'}')? {
            return Ok(());
        }
    }
}

/// A label with its colon, by comparing it with the few that there are.
fn label(scanner: &mut Scanner<'_>) -> Result<(Label, Kind), Uncommon> {
    scanner.skip_space();
    let (label, kind) = match scanner.rest().first_chunk().ok_or(Uncommon)? {
        b"\"n\":" => (Label::Name, Kind::Text),
        b"\"v\":" => (Label::Value, Kind::Number),
        b"\"t\":" => (Label::Time, Kind::Number),
        b"\"u\":" => (Label::Unit, Kind::Text),
        b"\"s\":" => (Label::Sum, Kind::Number),
        two_letters => return long_label(*two_letters, scanner),
    };
    scanner.go_to(scanner.position() + 4);
    Ok((label, kind))
}

fn long_label(start: [u8; 4], scanner: &mut Scanner<'_>) -> Result<(Label, Kind), Uncommon> {
    let (label, kind, length) = match &start {
        b"\"bn\"" => (Label::BaseName, Kind::Text, 4),
        b"\"bt\"" => (Label::BaseTime, Kind::Number, 4),
        b"\"bu\"" => (Label::BaseUnit, Kind::Text, 4),
        b"\"bv\"" => (Label::BaseValue, Kind::Number, 4),
        b"\"bs\"" => (Label::BaseSum, Kind::Number, 4),
        b"\"vs\"" => (Label::StringValue, Kind::Text, 4),
        b"\"vb\"" => (Label::BooleanValue, Kind::Boolean, 4),
        b"\"vd\"" => (Label::DataValue, Kind::Text, 4),
        b"\"ut\"" => (Label::UpdateTime, Kind::Number, 4),
        b"\"bve" if scanner.rest().starts_with(b"\"bver\"") => (Label::Version, Kind::Number, 6),
        _ => return Err(Uncommon),
    };
    scanner.go_to(scanner.position() + length);
    scanner.expect(b':')?;
    Ok((label, kind))
}
