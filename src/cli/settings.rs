//! The options that name the settings, for the commands that need them.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::terminal::complain;
use crate::config::{Config, ConfigFault, SettingOrigin};

/// The variable that names the file.
const FILE_VARIABLE: &str = "FOREBAY_CONFIG";

/// Where the settings come from.
#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// File with settings, in TOML; config/default.toml lists all keys. Environment variables
    /// FOREBAY__SECTION__KEY go before it. FOREBAY_CONFIG names the file where this option does not
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What named the settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedBy {
    Option,
    Variable,
}

impl fmt::Display for NamedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamedBy::Option => formatter.write_str("--config"),
            NamedBy::Variable => write!(formatter, "the environment variable {FILE_VARIABLE}"),
        }
    }
}

impl SettingsArguments {
    /// Reads the settings, or prints one line per fault.
    pub(super) fn read(&self) -> Option<Config> {
        let read =
            self.file(std::env::var_os(FILE_VARIABLE)).and_then(|file| read(file, std::env::vars_os()));
        match read {
            Ok(config) => Some(config),
            Err(lines) => {
                for line in lines {
                    complain(line);
                }
                None
            }
        }
    }

    /// Whether a settings file is named.
    pub(super) fn name_a_file(&self) -> bool {
        self.config.is_some() || std::env::var_os(FILE_VARIABLE).is_some()
    }

    /// The settings file, and what names it.
    fn file(&self, variable: Option<OsString>) -> Result<Option<(PathBuf, NamedBy)>, Vec<String>> {
        match (&self.config, variable) {
            (Some(path), _) => Ok(Some((path.clone(), NamedBy::Option))),
            (None, Some(path)) if path.is_empty() => Err(vec![format!(
                "environment variable {FILE_VARIABLE}: must be the path of a file, got nothing; remove the variable to \
                 have no settings file"
            )]),
            (None, Some(path)) => Ok(Some((path.into(), NamedBy::Variable))),
            (None, None) => Ok(None),
        }
    }
}

/// Reads the settings; a line for each fault if there are some.
fn read(
    file: Option<(PathBuf, NamedBy)>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, Vec<String>> {
    let mut environment = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("FOREBAY_") && name != FILE_VARIABLE => {
                return Err(vec![format!("environment variable {name}: must be UTF-8")]);
            }
            // No setting of ours.
            _ => {}
        }
    }
    let path = file.as_ref().map(|(path, _)| path.as_path());
    let line = |fault: &ConfigFault| match (&fault.origin, &file) {
        (SettingOrigin::WholeFile { .. }, Some((_, named_by))) => format!("{fault}; {named_by} names it"),
        _ => fault.to_string(),
    };
    Config::read(path, &environment).map_err(|faults| faults.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(option: Option<&str>, variable: Option<&str>, expected: &str) {
        let arguments = SettingsArguments { config: option.map(PathBuf::from) };
        let file = arguments.file(variable.map(OsString::from));
        let lines = file.and_then(|file| read(file, std::iter::empty())).expect_err("no such file");
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_without_a_line_and_with_what_named_it() {
        let gone = "cannot be read: No such file or directory (os error 2)";
        check(Some("/nope.toml"), Some("/other.toml"), &format!("/nope.toml: {gone}; --config names it"));
        let variable = "the environment variable FOREBAY_CONFIG names it";
        check(None, Some("/nope.toml"), &format!("/nope.toml: {gone}; {variable}"));
        check(None, Some("/"), &format!("/: cannot be read: Is a directory (os error 21); {variable}"));
        check(
            None,
            Some(""),
            "environment variable FOREBAY_CONFIG: must be the path of a file, got nothing; remove the variable to have \
             no settings file",
        );
    }

    #[test]
    fn a_fault_in_a_line_of_the_file_has_its_line_alone() {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(file.path(), "\n[server\n").expect("written");
        let arguments = SettingsArguments { config: Some(file.path().to_owned()) };
        let lines =
            arguments.file(None).and_then(|file| read(file, std::iter::empty())).expect_err("no TOML");
        assert!(
            lines.len() == 1 && lines[0].starts_with(&format!("{}:2: ", file.path().display())),
            "{lines:?}"
        );
        assert!(!lines[0].contains("names it"), "{lines:?}");
    }
}
