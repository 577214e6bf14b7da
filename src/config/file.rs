//! The settings file: its text, its values, the line of every key, and the tables of its transforms.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use config::FileFormat;
use forebay_reading::quantity::format_size;
use forebay_reading::setting::SettingValue;
use toml::de::{DeTable, DeValue};

use super::transform_table::{self, Table};
use super::values;
use crate::filesystem;

/// Largest settings file, in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// A settings file, read.
#[derive(Debug)]
pub(super) struct SettingsFile {
    /// Values and their lines, by their full keys.
    pub(super) values: BTreeMap<String, (SettingValue, usize)>,
    /// The transforms.
    pub(super) transforms: Vec<Table>,
}

/// A file that cannot be read as settings.
#[derive(Debug)]
pub(super) struct FileFault {
    /// The line at fault; `None` for the file as a whole.
    pub(super) line: Option<usize>,
    pub(super) problem: String,
}

/// Reads a settings file.
pub(super) fn read(path: &Path) -> Result<SettingsFile, FileFault> {
    let whole_file = |problem| FileFault { line: None, problem };
    let text = read_text(path).map_err(whole_file)?;
    let line = |byte: usize| {
        1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
    };
    let document = DeTable::parse(&text).map_err(|error| FileFault {
        line: Some(error.span().map_or(1, |span| line(span.start))),
        problem: error.message().to_owned(),
    })?;
    let mut lines = BTreeMap::new();
    add_lines("", document.get_ref(), &line, &mut lines);
    let values = values::collect(&config::File::from_str(&text, FileFormat::Toml)).map_err(whole_file)?;
    let with_line = |(key, value)| {
        let line = lines.get(&key).copied().unwrap_or(1);
        (key, (value, line))
    };
    let values = values.into_iter().map(with_line).collect();
    Ok(SettingsFile { values, transforms: transforms(document.get_ref(), &line) })
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened = fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    match opened {
        Err(error) => Err(format!("cannot be read: {error}{}", filesystem::advice_on_file(path, &error))),
        Ok(bytes) if bytes as u64 > BYTES_MAX => Err(format!(
            "cannot be read: it is larger than {}, the most that settings may take",
            format_size(BYTES_MAX)
        )),
        Ok(_) => Ok(text),
    }
}

/// The tables of the transforms.
fn transforms(document: &DeTable<'_>, line: &impl Fn(usize) -> usize) -> Vec<Table> {
    let Some(DeValue::Array(tables)) = document.get(transform_table::KEY).map(toml::Spanned::get_ref) else {
        return Vec::new();
    };
    let table = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::Table(table) => Some(Table::of(table, line(item.span().start), line)),
        _ => None,
    };
    tables.iter().filter_map(table).collect()
}

fn add_lines(
    prefix: &str,
    table: &DeTable<'_>,
    line: &impl Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        // The `config` crate folds the case of keys.
        lines.insert(key.to_lowercase(), line(name.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            add_lines(&key, table, line, lines);
        }
    }
}
