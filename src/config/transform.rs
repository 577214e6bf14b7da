//! The settings of the transforms: `[[transform]]`, one table each, in the file only.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_transform::scope::Scope;
use forebay_transform::settings::Settings;
use forebay_transform::{KINDS, Kind, NAME_BYTES_MAX, TRANSFORMS_MAX, TransformConfig};
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::layers::Layers;
pub(super) use forebay_transform::settings::Value;

/// The key of the list.
pub(super) const KEY: &str = "transform";
/// The keys that every transform has.
const COMMON: [&str; 2] = ["kind", "name"];

/// One table as the file has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// The line of its head.
    pub(super) line: usize,
    values: BTreeMap<String, Value>,
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
    fn line_of(&self, key: &str) -> usize {
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

pub(super) fn read(layers: &mut Layers) -> Vec<TransformConfig> {
    let tables = layers.take_transforms();
    if tables.len() > TRANSFORMS_MAX {
        layers.fault(KEY, format!("must have at most {TRANSFORMS_MAX} transforms, got {}", tables.len()));
    }
    let mut configs: Vec<TransformConfig> = Vec::new();
    for (index, table) in tables.into_iter().enumerate().take(TRANSFORMS_MAX) {
        configs.extend(read_one(layers, index + 1, &table, &configs));
    }
    configs
}

/// Reads the transform at this position, from 1.
fn read_one(
    layers: &mut Layers,
    position: usize,
    table: &Table,
    before: &[TransformConfig],
) -> Option<TransformConfig> {
    let mut settings = Settings::new(table.values.clone());
    let [kind_key, name_key] = COMMON;
    let kind_name = settings.text(kind_key);
    if kind_name.is_none() {
        let known = KINDS.names().collect::<Vec<_>>().join(", ");
        settings.require(kind_key, &format!("one of {known}"));
    }
    let name = settings.text(name_key);
    let scope = Scope::read(&mut settings);
    let kind = kind_name.as_deref().and_then(|kind| read_kind(kind, &mut settings));
    let default = format!("{}-{position}", kind_name.as_deref().unwrap_or("transform"));
    let name = name.unwrap_or(default);
    check_name(&name, before, &mut settings);
    // Of a kind that nobody knows, nobody knows the keys.
    let is_known = kind_name.is_some_and(|kind| KINDS.find(&kind).is_ok());
    let faults = settings.finish();
    for fault in &faults {
        if is_known || COMMON.contains(&fault.key.as_str()) {
            let line = table.line_of(&fault.key);
            layers.transform_fault(line, &format!("{KEY} {name}: {}", fault.key), fault.problem.clone());
        }
    }
    layers.transform_settings(table.line, &name, &table.values);
    faults.is_empty().then_some(TransformConfig { name, scope, kind: kind? })
}

fn read_kind(name: &str, settings: &mut Settings) -> Option<Arc<dyn Kind>> {
    match KINDS.find(name) {
        Ok(read) => read(settings),
        Err(unknown) => {
            settings.fault(COMMON[0], unknown.to_string());
            None
        }
    }
}

/// A name becomes the label of metrics, and is noted with what the transform makes.
fn check_name(name: &str, before: &[TransformConfig], settings: &mut Settings) {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        let problem = format!(
            "must be 1 to {NAME_BYTES_MAX} letters of a to z, A to Z, 0 to 9, - _ and ., got `{name}`"
        );
        settings.fault(COMMON[1], problem);
    } else if before.iter().any(|other| other.name == name) {
        settings.fault(COMMON[1], format!("must be another than those before it, got `{name}` again"));
    }
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
