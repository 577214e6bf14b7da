//! The table of a transform as the file has it: its values, the lines that they stand in, and how people read them.

use std::collections::BTreeMap;

use forebay_transform::settings::Value;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

/// The key of the list of tables.
pub(super) const KEY: &str = "transform";

/// One table as the file has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// The line of its head.
    pub(super) line: usize,
    pub(super) values: BTreeMap<String, Value>,
    /// The lines of its keys, and of the keys of tables in it.
    lines: BTreeMap<String, usize>,
}

impl Table {
    /// Takes a table over from a TOML document.
    pub(super) fn of(table: &DeTable<'_>, line: usize, line_of: &impl Fn(usize) -> usize) -> Table {
        let mut lines = BTreeMap::new();
        let values = values(table, "", line_of, &mut lines);
        Table { line, values, lines }
    }

    /// The line in which a key stands; that of the table if it does not.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.line)
    }
}

fn values(
    table: &DeTable<'_>,
    prefix: &str,
    line_of: &impl Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        lines.insert(key.clone(), line_of(name.span().start));
        let value = match value.get_ref() {
            DeValue::Table(table) => Value::Table(self::values(table, &format!("{key}."), line_of, lines)),
            other => plain(other),
        };
        values.insert(name.get_ref().to_string(), value);
    }
    values
}

/// A value that is no table.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            integer(number).map_or(Value::Other("a number that is too large"), Value::Integer)
        }
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Other("no number"), Value::Number),
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Array(items) => Value::List(list(items)),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

fn list(items: &DeArray<'_>) -> Vec<Value> {
    items.iter().map(|item| plain(item.get_ref())).collect()
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value for people.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => format!("{number:?}"),
        Value::Truth(truth) => truth.to_string(),
        Value::List(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::Table(members) => members
            .iter()
            .map(|(key, value)| format!("{key} = {}", show(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Other(noun) => (*noun).to_owned(),
    }
}
