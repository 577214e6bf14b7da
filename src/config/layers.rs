//! The layers of settings (defaults, file, environment) and the faults found in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use forebay_reading::quantity::format_size;
use forebay_transform::settings::Value as TransformValue;
use toml::de::{DeTable, DeValue};

use super::transform_table::{self, Table};
use crate::filesystem;

#[cfg(test)]
mod tests;

const DEFAULTS: &str = include_str!("../../config/default.toml");
const ENVIRONMENT_PREFIX: &str = "FOREBAY";
const SEPARATOR: &str = "__";
/// Largest settings file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Inside the binary.
    Default,
    /// In the file as a whole, which cannot be read or is no settings file.
    WholeFile {
        /// The file.
        path: PathBuf,
    },
    /// In the file, in this line.
    File {
        /// The file.
        path: PathBuf,
        /// Line from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(formatter, "default"),
            Origin::WholeFile { path } => write!(formatter, "{}", path.display()),
            Origin::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Origin::Environment { variable } => write!(formatter, "environment variable {variable}"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was set.
    pub origin: Origin,
    /// The key, in full; empty if the file as a whole is at fault.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.key.is_empty() { "" } else { ": " };
        write!(formatter, "{}{separator}{}: {}", self.origin, self.key, self.problem)
    }
}

/// One setting, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, in full.
    pub key: String,
    /// The effective value.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// A value as a layer has it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// From a file: TOML types count.
    Typed(ValueKind),
    /// From the environment: everything is text.
    Text(String),
}

/// All layers on top of each other.
#[derive(Debug)]
pub(super) struct Layers {
    values: BTreeMap<String, (Raw, Origin)>,
    defaults: BTreeMap<String, Raw>,
    used: BTreeSet<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) settings: Vec<Setting>,
    /// The transforms, and the file that they stand in.
    transforms: Vec<Table>,
    file: PathBuf,
}

impl Layers {
    /// Reads the layers. What cannot be read becomes a fault, and the other layers are read all the same.
    pub(super) fn read(file: Option<&Path>, environment: &[(String, String)]) -> Layers {
        let mut layers = Layers {
            values: BTreeMap::new(),
            defaults: BTreeMap::new(),
            used: BTreeSet::new(),
            faults: Vec::new(),
            settings: Vec::new(),
            transforms: Vec::new(),
            file: PathBuf::new(),
        };
        let defaults =
            collect(&File::from_str(DEFAULTS, FileFormat::Toml)).expect("a test reads the defaults");
        layers.defaults =
            defaults.iter().map(|(key, kind)| (key.clone(), Raw::Typed(kind.clone()))).collect();
        for (key, kind) in defaults {
            layers.values.insert(key, (Raw::Typed(kind), Origin::Default));
        }
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_environment(environment);
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let fault = |origin, problem| Fault { origin, key: String::new(), problem };
        let whole_file = |problem| fault(Origin::WholeFile { path: path.to_owned() }, problem);
        let text = match read_file(path) {
            Ok(text) => text,
            Err(problem) => return self.faults.push(whole_file(problem)),
        };
        let lines = match key_lines(&text) {
            Ok((lines, transforms)) => {
                self.transforms = transforms;
                lines
            }
            Err((line, problem)) => {
                return self.faults.push(fault(Origin::File { path: path.to_owned(), line }, problem));
            }
        };
        path.clone_into(&mut self.file);
        match collect(&File::from_str(&text, FileFormat::Toml)) {
            Ok(values) => {
                for (key, kind) in values {
                    let line = lines.get(&key).copied().unwrap_or(1);
                    let origin = Origin::File { path: path.to_owned(), line };
                    self.values.insert(key, (Raw::Typed(kind), origin));
                }
            }
            Err(problem) => self.faults.push(whole_file(problem)),
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        let source = Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .source(Some(environment.iter().cloned().collect()));
        self.refuse_misspelt(environment);
        let values = collect(&source).unwrap_or_default();
        for (key, kind) in values {
            let variable = variable(&key, environment);
            let text = Value::new(None, kind).into_string().unwrap_or_default();
            self.values.insert(key, (Raw::Text(text), Origin::Environment { variable }));
        }
    }

    /// Notes variables that were meant to be settings and would go unnoticed: underscores are missing. Others that
    /// begin with `FOREBAY_` are left alone; Kubernetes makes some for a service of that name.
    fn refuse_misspelt(&mut self, environment: &[(String, String)]) {
        let single = |text: &str| text.replace(SEPARATOR, "_").to_lowercase();
        for (variable, _) in environment {
            let Some(rest) =
                variable.strip_prefix(ENVIRONMENT_PREFIX).and_then(|rest| rest.strip_prefix('_'))
            else {
                continue;
            };
            if rest.starts_with('_') {
                continue;
            }
            let known = self.known().find(|key| key.replace('.', "_") == single(rest));
            let problem = match known {
                Some(key) => {
                    let right = key.replace('.', SEPARATOR).to_uppercase();
                    format!("did you mean `{ENVIRONMENT_PREFIX}{SEPARATOR}{right}`?")
                }
                None if rest.contains(SEPARATOR) => {
                    format!("a setting begins with `{ENVIRONMENT_PREFIX}{SEPARATOR}`, with two underscores")
                }
                None => continue,
            };
            let origin = Origin::Environment { variable: variable.clone() };
            self.faults.push(Fault { origin, key: String::new(), problem });
        }
    }

    /// Reads one setting. A fault is noted, and the default stands in for it, so that all faults are found.
    pub(super) fn get<T>(&mut self, key: &str, parse: impl Fn(&Raw) -> Result<T, String>) -> T {
        self.used.insert(key.to_owned());
        let (raw, origin) = match self.values.get(key) {
            Some((raw, origin)) => (raw.clone(), origin.clone()),
            // A table stands where the value belongs; its members are reported as unknown keys.
            None => (self.default(key), Origin::Default),
        };
        match parse(&raw).and_then(|value| raw.refuse_empty(&origin).map(|()| value)) {
            Ok(value) => {
                self.settings.push(Setting { key: key.to_owned(), value: raw.show(), origin });
                value
            }
            Err(problem) => {
                self.faults.push(Fault { origin, key: key.to_owned(), problem });
                parse(&self.default(key)).expect("a test reads the defaults")
            }
        }
    }

    /// Reads all settings below a table whose keys are free. Their values are taken for secrets.
    pub(super) fn get_table<T>(
        &mut self,
        table: &str,
        parse: impl Fn(&str, &str) -> Result<T, String>,
    ) -> Vec<T> {
        let prefix = format!("{table}.");
        let below: Vec<_> = self
            .values
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut members = Vec::new();
        for (key, (raw, origin)) in below {
            self.used.insert(key.clone());
            let text = raw.refuse_empty(&origin).and_then(|()| raw.text());
            match text.and_then(|text| parse(&key[prefix.len()..], &text)) {
                Ok(member) => {
                    self.settings.push(Setting { key, value: "(hidden)".to_owned(), origin });
                    members.push(member);
                }
                Err(problem) => self.faults.push(Fault { origin, key, problem }),
            }
        }
        members
    }

    /// Takes the tables of the transforms out.
    pub(super) fn take_transforms(&mut self) -> Vec<Table> {
        let is_list = self
            .values
            .get(transform_table::KEY)
            .is_some_and(|(raw, _)| matches!(raw, Raw::Typed(ValueKind::Array(_))));
        let is_set = |key: &String| {
            key == transform_table::KEY || key.starts_with(&format!("{}.", transform_table::KEY))
        };
        let set: Vec<_> = self
            .values
            .iter()
            .filter(|(key, _)| is_set(key))
            .map(|(key, value)| (key.clone(), value.1.clone()))
            .collect();
        for (key, origin) in set {
            self.used.insert(key.clone());
            let is_fault = !is_list || self.transforms.is_empty() || key != transform_table::KEY;
            if is_fault && !self.faults.iter().any(|fault| fault.key == transform_table::KEY) {
                let problem = "must be tables in the file, each with the head [[transform]]".to_owned();
                self.faults.push(Fault { origin, key: transform_table::KEY.to_owned(), problem });
            }
        }
        std::mem::take(&mut self.transforms)
    }

    /// Notes a fault of a transform.
    pub(super) fn transform_fault(&mut self, line: usize, key: &str, problem: String) {
        let origin = Origin::File { path: self.file.clone(), line };
        self.faults.push(Fault { origin, key: key.to_owned(), problem });
    }

    /// Notes the settings of a transform, for people.
    pub(super) fn transform_settings(
        &mut self,
        line: usize,
        name: &str,
        values: &BTreeMap<String, TransformValue>,
    ) {
        let origin = Origin::File { path: self.file.clone(), line };
        for (key, value) in values {
            let key = format!("{} {name}: {key}", transform_table::KEY);
            self.settings.push(Setting { key, value: transform_table::show(value), origin: origin.clone() });
        }
    }

    /// Notes a fault of a setting that only shows beside others.
    pub(super) fn fault(&mut self, key: &str, problem: String) {
        let origin = self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        self.faults.push(Fault { origin, key: key.to_owned(), problem });
    }

    /// Notes every key that nothing asked for.
    pub(super) fn refuse_unknown(&mut self) {
        let mut faults = Vec::new();
        for (key, (_, origin)) in &self.values {
            if self.used.contains(key) {
                continue;
            }
            let nearest = self.known().map(|known| (strsim::osa_distance(key, known), known)).min();
            let hint = match nearest {
                Some((distance, known)) if distance <= 3 => format!(", did you mean `{known}`?"),
                _ => "; config/default.toml lists all keys".to_owned(),
            };
            let problem = format!("unknown key{hint}");
            faults.push(Fault { origin: origin.clone(), key: key.clone(), problem });
        }
        self.faults.append(&mut faults);
    }

    /// All keys that are known, but those of free tables.
    fn known(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().map(String::as_str)
    }

    fn default(&self, key: &str) -> Raw {
        self.defaults.get(key).unwrap_or_else(|| panic!("config/default.toml has the key {key}")).clone()
    }
}

impl Raw {
    /// The value as text.
    pub(super) fn text(&self) -> Result<String, String> {
        match self {
            Raw::Text(text) | Raw::Typed(ValueKind::String(text)) => Ok(text.clone()),
            Raw::Typed(other) => Err(format!("must be a string, got {}", noun(other))),
        }
    }

    /// The value as a whole number.
    pub(super) fn integer(&self) -> Result<i64, String> {
        match self {
            Raw::Typed(ValueKind::I64(number)) => Ok(*number),
            Raw::Text(text) => {
                text.trim().parse().map_err(|_| format!("must be a whole number, got `{text}`"))
            }
            Raw::Typed(other) => Err(format!("must be a whole number, got {}", noun(other))),
        }
    }

    /// The value as a number, whole or not.
    pub(super) fn number(&self) -> Result<f64, String> {
        match self {
            Raw::Typed(ValueKind::Float(number)) => Ok(*number),
            #[expect(clippy::cast_precision_loss, reason = "numbers that are set are small")]
            Raw::Typed(ValueKind::I64(number)) => Ok(*number as f64),
            Raw::Text(text) => text.trim().parse().map_err(|_| format!("must be a number, got `{text}`")),
            Raw::Typed(other) => Err(format!("must be a number, got {}", noun(other))),
        }
    }

    /// The value as true or false.
    pub(super) fn truth(&self) -> Result<bool, String> {
        match self {
            Raw::Typed(ValueKind::Boolean(truth)) => Ok(*truth),
            Raw::Text(text) => {
                text.trim().parse().map_err(|_| format!("must be true or false, got `{text}`"))
            }
            Raw::Typed(other) => Err(format!("must be true or false, got {}", noun(other))),
        }
    }

    /// The value as a list of texts; in the environment they are separated by commas.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        match self {
            // That nothing at all is no list is for `refuse_empty` to say.
            Raw::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
            Raw::Text(text) => text.split(',').map(|item| list_entry(item.trim())).collect(),
            Raw::Typed(ValueKind::Array(items)) => {
                let texts = items.iter().map(|item| Raw::Typed(item.kind.clone()).text());
                texts.map(|text| list_entry(&text?)).collect()
            }
            Raw::Typed(other) => Err(format!("must be a list of strings, got {}", noun(other))),
        }
    }

    /// Refuses a value that is set and says nothing: a variable that was to be filled in and was not, for one. It must
    /// not pass for the default.
    fn refuse_empty(&self, origin: &Origin) -> Result<(), String> {
        let (Raw::Text(text) | Raw::Typed(ValueKind::String(text))) = self else { return Ok(()) };
        if !text.trim().is_empty() {
            return Ok(());
        }
        match origin {
            Origin::Default => Ok(()),
            Origin::Environment { .. } => {
                Err("must not be empty; remove the variable to leave the setting as it is without it"
                    .to_owned())
            }
            Origin::File { .. } | Origin::WholeFile { .. } => {
                Err("must not be empty; remove the line to leave the setting at its default".to_owned())
            }
        }
    }

    fn show(&self) -> String {
        match self {
            Raw::Text(text) => text.clone(),
            Raw::Typed(ValueKind::Array(_)) => self.list().unwrap_or_default().join(", "),
            // With the fraction that says that it may have one: `1.0`.
            Raw::Typed(ValueKind::Float(number)) => format!("{number:?}"),
            Raw::Typed(kind) => kind.to_string(),
        }
    }
}

/// An entry of a list. The others may be secret, so they are not shown.
fn list_entry(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => {
            Err("must not have an empty entry; a comma stands between two entries, and nowhere else"
                .to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

/// Reads the settings file, or says in words why not.
fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let opened =
        fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match opened {
        Err(error) => Err(format!("cannot be read: {error}{}", filesystem::advice_on_file(path, &error))),
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(format!(
            "cannot be read: it is larger than {}, the most that settings may take",
            format_size(FILE_BYTES_MAX)
        )),
        Ok(_) => Ok(text),
    }
}

fn noun(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// The leaves of a source by their full keys.
fn collect(source: &dyn Source) -> Result<BTreeMap<String, ValueKind>, String> {
    let mut leaves = BTreeMap::new();
    flatten("", source.collect().map_err(|error| error.to_string())?, &mut leaves);
    Ok(leaves)
}

fn flatten(prefix: &str, table: Map<String, Value>, leaves: &mut BTreeMap<String, ValueKind>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(table) => flatten(&key, table, leaves),
            kind => {
                leaves.insert(key, kind);
            }
        }
    }
}

/// The name of the variable that sets `key`, as it is written in the environment.
fn variable(key: &str, environment: &[(String, String)]) -> String {
    let expected = format!("{ENVIRONMENT_PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR));
    let found = environment.iter().find(|(name, _)| name.eq_ignore_ascii_case(&expected));
    found.map_or(expected, |(name, _)| name.clone())
}

/// The line of every key in a TOML text.
type Lines = BTreeMap<String, usize>;

/// The line of every key in a TOML text, and its transforms, or the line and the text of its first error.
fn key_lines(text: &str) -> Result<(Lines, Vec<Table>), (usize, String)> {
    let line = |byte: usize| {
        1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
    };
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map_or(1, |span| line(span.start)), error.message().to_owned()))?;
    let mut lines = BTreeMap::new();
    add_lines("", table.get_ref(), &line, &mut lines);
    Ok((lines, transforms(table.get_ref(), &line)))
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
