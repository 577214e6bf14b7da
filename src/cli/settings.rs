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
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment: Vec<_> = std::env::vars_os().filter_map(utf8).collect();
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
