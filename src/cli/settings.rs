//! The options that name the settings, shared by several commands.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::terminal::complain;
use crate::config::{Config, ConfigFault, SettingOrigin};

/// The variable that names the file.
const FILE_VARIABLE: &str = "FOREBAY_CONFIG";

/// The source of the settings.
#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// File with settings, in TOML; config/default.toml lists all keys. Environment variables
    /// FOREBAY__SECTION__KEY go before it. FOREBAY_CONFIG names the file where this option does not
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The option or variable that names the settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileNameSource {
    Option,
    Variable,
}

impl fmt::Display for FileNameSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileNameSource::Option => formatter.write_str("--config"),
            FileNameSource::Variable => write!(formatter, "the environment variable {FILE_VARIABLE}"),
        }
    }
}

impl SettingsArguments {
    /// Reads the settings; `None` after printing a line for each fault.
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

    /// The settings file, and the option or variable that names it.
    fn file(&self, variable: Option<OsString>) -> Result<Option<(PathBuf, FileNameSource)>, Vec<String>> {
        match (&self.config, variable) {
            (Some(path), _) => Ok(Some((path.clone(), FileNameSource::Option))),
            (None, Some(path)) if path.is_empty() => Err(vec![format!(
                "environment variable {FILE_VARIABLE}: must be the path of a file, got nothing; remove the variable to \
                 have no settings file"
            )]),
            (None, Some(path)) => Ok(Some((path.into(), FileNameSource::Variable))),
            (None, None) => Ok(None),
        }
    }
}

/// Reads the settings.
///
/// # Errors
///
/// A line for each fault.
fn read(
    file: Option<(PathBuf, FileNameSource)>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, Vec<String>> {
    let mut environment = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("FOREBAY_") && name != FILE_VARIABLE => {
                return Err(vec![format!("environment variable {name}: must be UTF-8")]);
            }
            // The variable is not a setting of Forebay.
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
    fn the_fault_of_an_unreadable_file_says_what_names_the_file() {
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
    fn a_fault_in_the_file_has_its_line_and_not_what_names_the_file() {
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
