//! The table of a transform in the settings file: its values and their lines.

use std::collections::BTreeMap;

use forebay_reading::setting::SettingValue;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

/// The key of the list of tables.
pub(super) const KEY: &str = "transform";

/// One table of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// The line of its head.
    pub(super) line: usize,
    pub(super) values: BTreeMap<String, SettingValue>,
    /// The lines of its keys, and of the keys of tables in it.
    lines: BTreeMap<String, usize>,
}

impl Table {
    /// Reads a table of a TOML document.
    pub(super) fn of(table: &DeTable<'_>, line: usize, line_of: &impl Fn(usize) -> usize) -> Table {
        let mut lines = BTreeMap::new();
        let values = values(table, "", line_of, &mut lines);
        Table { line, values, lines }
    }

    /// The line of a key; for a key that is not there, the line of the table.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.line)
    }
}

fn values(
    table: &DeTable<'_>,
    prefix: &str,
    line_of: &impl Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) -> BTreeMap<String, SettingValue> {
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        lines.insert(key.clone(), line_of(name.span().start));
        let value = match value.get_ref() {
            DeValue::Table(table) => {
                SettingValue::Table(self::values(table, &format!("{key}."), line_of, lines))
            }
            other => plain(other),
        };
        values.insert(name.get_ref().to_string(), value);
    }
    values
}

/// Reads a value other than a table.
fn plain(value: &DeValue<'_>) -> SettingValue {
    match value {
        DeValue::String(text) => SettingValue::Text(text.to_string()),
        DeValue::Integer(number) => {
            integer(number).map_or(SettingValue::Other("a number that is too large"), SettingValue::Integer)
        }
        DeValue::Float(number) => {
            number.as_str().parse().map_or(SettingValue::Other("no number"), SettingValue::Number)
        }
        DeValue::Boolean(truth) => SettingValue::Truth(*truth),
        DeValue::Array(items) => SettingValue::List(list(items)),
        DeValue::Datetime(_) => SettingValue::Other("a date"),
        DeValue::Table(_) => SettingValue::Other("a table"),
    }
}

fn list(items: &DeArray<'_>) -> Vec<SettingValue> {
    items.iter().map(|item| plain(item.get_ref())).collect()
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
