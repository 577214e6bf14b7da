//! Reads packs of any form, with care.
//!
//! Records and values are cut out as text: a number keeps its digits, and a fault within a record costs that record alone.

use super::pack::Pack;
use super::record::RecordFields;
use crate::mended::{self, MendedBody};
use crate::value::{noun, unquote};
use crate::{DecodeError, Decoded, Rules, parse};

pub(super) fn read(text: &str, rules: &Rules) -> Result<Decoded, DecodeError> {
    mended::read(text, |body| {
        let mut pack = Pack::new(body.text(), rules);
        read_pack(body, &mut pack)?;
        Ok(pack.finish())
    })
}

fn read_pack<'de>(body: &'de MendedBody<'_>, pack: &mut Pack<'_, 'de>) -> serde_json::Result<()> {
    if !body.text().trim_ascii_start().starts_with('[') {
        pack.refuse(noun(parse::value(body.text())?));
        return Ok(());
    }
    let mut record = RecordFields::default();
    parse::elements(body.text(), |text| {
        if !text.starts_with('{') {
            let found = || format!("a record must be an object, got {}", noun(text));
            pack.take_other(body.fault_in(text).unwrap_or_else(found));
            return Ok(());
        }
        record.begin(pack.next());
        read_fields(body, text, &mut record)?;
        if let Some(detail) = body.fault_in(text) {
            record.fault_of_whole(detail);
        }
        pack.take(&mut record);
        Ok(())
    })
}

fn read_fields<'de>(
    body: &MendedBody<'_>,
    text: &'de str,
    record: &mut RecordFields<'de>,
) -> serde_json::Result<()> {
    parse::members(text, |quoted, json| {
        let name = unquote(quoted)?;
        if let Some(detail) = body.fault_in(quoted) {
            record.take_broken_name(&name, detail);
        } else if let Some(detail) = body.fault_in(json) {
            record.take_broken(&name, detail);
        } else {
            record.take(name, json)?;
        }
        Ok(())
    })
}
