//! The options that name the settings, for the commands that need them.

use std::path::PathBuf;

use clap::Args;

use crate::config::Config;

/// Where the settings come from.
#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// File with settings, in TOML; config/default.toml lists all keys. Environment variables
    /// FOREBAY__SECTION__KEY go before it.
    #[arg(long, value_name = "FILE", env = "FOREBAY_CONFIG")]
    config: Option<PathBuf>,
}

impl SettingsArguments {
    /// Reads the settings, or prints one line per fault.
    pub(super) fn read(&self) -> Option<Config> {
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => environment.push((name, value)),
                (Ok(name), Err(_)) if name.starts_with("FOREBAY_") => {
                    eprintln!("forebay: environment variable {name}: must be UTF-8");
                    return None;
                }
                // No setting of ours.
                _ => {}
            }
        }
        match Config::read(self.config.as_deref(), &environment) {
            Ok(config) => Some(config),
            Err(faults) => {
                for fault in faults {
                    eprintln!("forebay: {fault}");
                }
                None
            }
        }
    }
}
