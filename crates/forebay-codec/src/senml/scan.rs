//! The common form of a pack, read without a general parser.
//!
//! The common form has known labels, each once and with a value of the right type, and strings without escapes. On anything
//! else, including broken JSON, the scanner gives up, and `read.rs` reads the body again. So it decides nothing: it fills
//! records as the careful reader does (`senml::tests::properties::the_scanner_agrees_with_the_careful_reader`).

use std::borrow::Cow;

use forebay_reading::text::Text as _;

use super::label::{Label, LabelKind};
use super::pack::Pack;
use super::record::RecordFields;
use crate::scan::{Scanner, Uncommon};
use crate::{Decoded, Rules};

pub(super) fn scan(text: &str, rules: &Rules) -> Result<Decoded, Uncommon> {
    let mut scanner = Scanner::new(text);
    scanner.expect(b'[')?;
    let mut pack = Pack::new(text, rules);
    let mut record = RecordFields::default();
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

fn fields<'de>(scanner: &mut Scanner<'de>, record: &mut RecordFields<'de>) -> Result<(), Uncommon> {
    scanner.expect(b'{')?;
    if scanner.take(b'}') {
        return Ok(());
    }
    loop {
        let (label, kind) = label(scanner)?;
        scanner.skip_space();
        let text = match kind {
            LabelKind::Text => scanner.string()?.as_str(),
            LabelKind::Number => scanner.number_text()?,
            LabelKind::Boolean => scanner.word("true").or_else(|_| scanner.word("false"))?,
        };
        if !record.set(label, Cow::Borrowed(text)) {
            return Err(Uncommon);
        }
        if scanner.is_last(b'}')? {
            return Ok(());
        }
    }
}

/// A label with its colon, by comparison with all known labels.
fn label(scanner: &mut Scanner<'_>) -> Result<(Label, LabelKind), Uncommon> {
    scanner.skip_space();
    let (label, kind) = match scanner.rest().first_chunk().ok_or(Uncommon)? {
        b"\"n\":" => (Label::Name, LabelKind::Text),
        b"\"v\":" => (Label::Value, LabelKind::Number),
        b"\"t\":" => (Label::Time, LabelKind::Number),
        b"\"u\":" => (Label::Unit, LabelKind::Text),
        b"\"s\":" => (Label::Sum, LabelKind::Number),
        two_letters => return long_label(*two_letters, scanner),
    };
    scanner.go_to(scanner.position() + 4);
    Ok((label, kind))
}

fn long_label(start: [u8; 4], scanner: &mut Scanner<'_>) -> Result<(Label, LabelKind), Uncommon> {
    let (label, kind, length) = match &start {
        b"\"bn\"" => (Label::BaseName, LabelKind::Text, 4),
        b"\"bt\"" => (Label::BaseTime, LabelKind::Number, 4),
        b"\"bu\"" => (Label::BaseUnit, LabelKind::Text, 4),
        b"\"bv\"" => (Label::BaseValue, LabelKind::Number, 4),
        b"\"bs\"" => (Label::BaseSum, LabelKind::Number, 4),
        b"\"vs\"" => (Label::StringValue, LabelKind::Text, 4),
        b"\"vb\"" => (Label::BooleanValue, LabelKind::Boolean, 4),
        b"\"vd\"" => (Label::DataValue, LabelKind::Text, 4),
        b"\"ut\"" => (Label::UpdateTime, LabelKind::Number, 4),
        b"\"bve" if scanner.rest().starts_with(b"\"bver\"") => (Label::Version, LabelKind::Number, 6),
        _ => return Err(Uncommon),
    };
    scanner.go_to(scanner.position() + length);
    scanner.expect(b':')?;
    Ok((label, kind))
}
