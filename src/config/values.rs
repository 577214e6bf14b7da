//! The values of a layer, as the `config` crate reads them, by their full keys.

use std::collections::BTreeMap;

use config::{Map, Source, Value, ValueKind};
use forebay_reading::setting::SettingValue;

/// The leaves of a source by their full keys.
pub(super) fn collect(source: &dyn Source) -> Result<BTreeMap<String, SettingValue>, String> {
    let mut leaves = BTreeMap::new();
    flatten("", source.collect().map_err(|error| error.to_string())?, &mut leaves);
    Ok(leaves)
}

fn flatten(prefix: &str, table: Map<String, Value>, leaves: &mut BTreeMap<String, SettingValue>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(table) => flatten(&key, table, leaves),
            kind => {
                leaves.insert(key, leaf(kind));
            }
        }
    }
}

fn leaf(kind: ValueKind) -> SettingValue {
    match kind {
        ValueKind::Nil => SettingValue::Other("nothing"),
        ValueKind::Boolean(truth) => SettingValue::Truth(truth),
        ValueKind::I64(number) => SettingValue::Integer(number),
        ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => SettingValue::Other("a whole number"),
        ValueKind::Float(number) => SettingValue::Number(number),
        ValueKind::String(text) => SettingValue::Text(text),
        ValueKind::Array(items) => {
            SettingValue::List(items.into_iter().map(|item| leaf(item.kind)).collect())
        }
        // Only within a list: `flatten` splits the other tables.
        ValueKind::Table(_) => SettingValue::Other("a table"),
    }
}
