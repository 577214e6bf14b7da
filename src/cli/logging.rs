//! The log: lines on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};

/// Starts the log. A second call, as tests may make it, changes nothing.
pub(super) fn start(config: LogConfig) {
    let level = LevelFilter::from_level(config.level);
    let lines = fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    let _ = match config.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
