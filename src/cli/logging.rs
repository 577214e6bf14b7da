//! The log: lines on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use super::terminal::{Colours, LogLine};
use crate::config::{LogFormat, LoggingConfig};

/// Starts the log. A second call, as in tests, has no effect.
pub(super) fn start(config: LoggingConfig) {
    let level = LevelFilter::from_level(config.level);
    let is_coloured = config.format == LogFormat::Text && io::stderr().is_terminal();
    let colours = if is_coloured { Colours::Some } else { Colours::None };
    let lines = fmt().with_max_level(level).with_target(false);
    // The subscriber reports a line that it cannot write on standard error, and panics where that fails, too (a full disk).
    let lines = lines.log_internal_errors(false);
    let lines = lines.with_writer(move || LogLine::new(io::stderr(), colours));
    let _ = match config.format {
        LogFormat::Text => lines.with_ansi(is_coloured).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
