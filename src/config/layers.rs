//! The layers of settings (defaults, file, environment) and the faults found in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use forebay_reading::setting::{SettingValue, TypeMismatch, unknown_key};

use super::file::{self, SettingsFile};
use super::transform_table::{self, Table};
use super::values::collect;

#[cfg(test)]
mod tests;

const DEFAULTS: &str = include_str!("../../config/default.toml");
const ENVIRONMENT_PREFIX: &str = "FOREBAY";
const SEPARATOR: &str = "__";

/// The place where a setting was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The defaults, which are part of the binary.
    Default,
    /// The file as a whole, if it cannot be read or is not a settings file.
    WholeFile {
        /// The file.
        path: PathBuf,
    },
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingOrigin::Default => write!(formatter, "default"),
            SettingOrigin::WholeFile { path } => write!(formatter, "{}", path.display()),
            SettingOrigin::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            SettingOrigin::Environment { variable } => write!(formatter, "environment variable {variable}"),
        }
    }
}

/// A fault of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where it was set.
    pub origin: SettingOrigin,
    /// The key, in full; empty if the file as a whole is at fault.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for ConfigFault {
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
    pub origin: SettingOrigin,
}

/// A setting of a table whose keys users choose.
#[derive(Debug)]
pub(super) struct TableMember<T> {
    pub(super) member: T,
    /// The value as people may see it; `None`: it is a secret.
    pub(super) shown: Option<String>,
}

/// The settings of all layers, with the faults found so far.
#[derive(Debug)]
pub(super) struct Layers {
    values: BTreeMap<String, (SettingValue, SettingOrigin)>,
    defaults: BTreeMap<String, SettingValue>,
    used: BTreeSet<String>,
    pub(super) faults: Vec<ConfigFault>,
    pub(super) settings: Vec<Setting>,
    /// The transforms of `file`, which has them only.
    transforms: Vec<Table>,
    file: PathBuf,
}

impl Layers {
    /// Reads the layers. A layer that cannot be read becomes a fault, and the others are still read.
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
        layers.defaults =
            collect(&File::from_str(DEFAULTS, FileFormat::Toml)).expect("a test reads the defaults");
        let defaults = layers.defaults.iter();
        layers.values =
            defaults.map(|(key, value)| (key.clone(), (value.clone(), SettingOrigin::Default))).collect();
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_environment(environment);
        layers
    }

    fn add_file(&mut self, path: &Path) {
        let origin = |line| match line {
            Some(line) => SettingOrigin::File { path: path.to_owned(), line },
            None => SettingOrigin::WholeFile { path: path.to_owned() },
        };
        match file::read(path) {
            Ok(SettingsFile { values, transforms }) => {
                path.clone_into(&mut self.file);
                self.transforms = transforms;
                let values = values.into_iter();
                self.values.extend(values.map(|(key, (value, line))| (key, (value, origin(Some(line))))));
            }
            Err(fault) => {
                let origin = origin(fault.line);
                self.faults.push(ConfigFault { origin, key: String::new(), problem: fault.problem });
            }
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        let source = Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .source(Some(environment.iter().cloned().collect()));
        self.refuse_misspelt(environment);
        for (key, value) in collect(&source).unwrap_or_default() {
            let variable = variable(&key, environment);
            let value = SettingValue::Variable(value.to_string());
            self.values.insert(key, (value, SettingOrigin::Environment { variable }));
        }
    }

    /// Records a fault for each variable that lacks underscores of a setting and would be ignored. Other variables that
    /// begin with `FOREBAY_` are not faults: Kubernetes makes some for a service of that name.
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
            let origin = SettingOrigin::Environment { variable: variable.clone() };
            self.faults.push(ConfigFault { origin, key: String::new(), problem });
        }
    }

    /// Reads one setting. A fault is recorded and the default used instead, so that the other faults are found too.
    pub(super) fn get<T>(&mut self, key: &str, parse: impl Fn(&SettingValue) -> Result<T, String>) -> T {
        self.used.insert(key.to_owned());
        let (value, origin) = match self.values.get(key) {
            Some(set) => set.clone(),
            // The file has a table under this key; its members are reported as unknown keys.
            None => (self.default(key), SettingOrigin::Default),
        };
        match parse(&value).and_then(|parsed| refuse_empty(&value, &origin).map(|()| parsed)) {
            Ok(parsed) => {
                self.settings.push(Setting { key: key.to_owned(), value: value.to_string(), origin });
                parsed
            }
            Err(problem) => {
                self.faults.push(ConfigFault { origin, key: key.to_owned(), problem });
                parse(&self.default(key)).expect("a test reads the defaults")
            }
        }
    }

    /// Reads all settings of a table whose keys users choose. A key within a table in it is the two keys with a dot
    /// between. Values count as secrets unless `parse` says how they are shown.
    pub(super) fn get_table<T>(
        &mut self,
        table: &str,
        parse: impl Fn(&str, &str) -> Result<TableMember<T>, String>,
    ) -> Vec<T> {
        let prefix = format!("{table}.");
        let below: Vec<_> = self
            .values
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut members = Vec::new();
        for (key, (value, origin)) in below {
            self.used.insert(key.clone());
            let text = refuse_empty(&value, &origin).and_then(|()| Ok(value.text()?));
            match text.and_then(|text| parse(&key[prefix.len()..], text)) {
                Ok(TableMember { member, shown }) => {
                    let value = shown.unwrap_or_else(|| "(hidden)".to_owned());
                    self.settings.push(Setting { key, value, origin });
                    members.push(member);
                }
                Err(problem) => self.faults.push(ConfigFault { origin, key, problem }),
            }
        }
        members
    }

    /// Hands over the tables of the transforms. A value of the key that is not such a table is a fault.
    pub(super) fn take_transforms(&mut self) -> Vec<Table> {
        let is_list = self
            .values
            .get(transform_table::KEY)
            .is_some_and(|(value, _)| matches!(value, SettingValue::List(_)));
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
                self.faults.push(ConfigFault { origin, key: transform_table::KEY.to_owned(), problem });
            }
        }
        std::mem::take(&mut self.transforms)
    }

    /// Records a fault of a transform.
    pub(super) fn transform_fault(&mut self, line: usize, key: &str, problem: String) {
        let origin = SettingOrigin::File { path: self.file.clone(), line };
        self.faults.push(ConfigFault { origin, key: key.to_owned(), problem });
    }

    /// Records the settings of a transform, for people.
    pub(super) fn transform_settings(
        &mut self,
        line: usize,
        name: &str,
        values: &BTreeMap<String, SettingValue>,
    ) {
        let origin = SettingOrigin::File { path: self.file.clone(), line };
        for (key, value) in values {
            let key = format!("{} {name}: {key}", transform_table::KEY);
            self.settings.push(Setting { key, value: value.to_string(), origin: origin.clone() });
        }
    }

    /// Records a fault of a setting that was read already, such as a contradiction to another.
    pub(super) fn fault(&mut self, key: &str, problem: String) {
        let origin = self.values.get(key).map_or(SettingOrigin::Default, |(_, origin)| origin.clone());
        self.faults.push(ConfigFault { origin, key: key.to_owned(), problem });
    }

    /// Records a fault for each key that was not read.
    pub(super) fn refuse_unknown(&mut self) {
        let unknown = self.values.iter().filter(|(key, _)| !self.used.contains(*key));
        let fault = |(key, (_, origin)): (&String, &(SettingValue, SettingOrigin))| {
            let problem = unknown_key(key, self.known(), "; config/default.toml lists all keys");
            ConfigFault { origin: origin.clone(), key: key.clone(), problem }
        };
        let faults: Vec<_> = unknown.map(fault).collect();
        self.faults.extend(faults);
    }

    /// All known keys, except those that users choose.
    fn known(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().map(String::as_str)
    }

    fn default(&self, key: &str) -> SettingValue {
        self.defaults.get(key).unwrap_or_else(|| panic!("config/default.toml has the key {key}")).clone()
    }
}

/// The value as a list of texts; in the environment they are separated by commas.
pub(super) fn list(value: &SettingValue) -> Result<Vec<String>, String> {
    match value {
        // `refuse_empty` has the better message.
        SettingValue::Variable(text) if text.trim().is_empty() => Ok(Vec::new()),
        SettingValue::Variable(text) => text.split(',').map(|item| list_entry(item.trim())).collect(),
        SettingValue::List(items) => items.iter().map(|item| list_entry(item.text()?)).collect(),
        _ => Err(TypeMismatch { wanted: "a list of strings", value }.into()),
    }
}

/// An entry of a list. The message does not show the list, whose other entries may be secret.
fn list_entry(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => {
            Err("must not have an empty entry; a comma stands between two entries, and nowhere else"
                .to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

/// Refuses a value that is set and empty, such as that of a variable that was never filled in: it must not pass for the
/// default.
fn refuse_empty(value: &SettingValue, origin: &SettingOrigin) -> Result<(), String> {
    let (SettingValue::Variable(text) | SettingValue::Text(text)) = value else { return Ok(()) };
    let remedy = match origin {
        _ if !text.trim().is_empty() => return Ok(()),
        SettingOrigin::Default => return Ok(()),
        SettingOrigin::Environment { .. } => "remove the variable to leave the setting as it is without it",
        SettingOrigin::File { .. } | SettingOrigin::WholeFile { .. } => {
            "remove the line to leave the setting at its default"
        }
    };
    Err(format!("must not be empty; {remedy}"))
}

/// The name of the variable that sets `key`, as it is written in the environment.
fn variable(key: &str, environment: &[(String, String)]) -> String {
    let expected = format!("{ENVIRONMENT_PREFIX}{SEPARATOR}{}", key.replace('.', SEPARATOR));
    let found = environment.iter().find(|(name, _)| name.eq_ignore_ascii_case(&expected));
    found.map_or(expected, |(name, _)| name.clone())
}
