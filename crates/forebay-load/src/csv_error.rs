//! The faults of a CSV file.

use std::path::PathBuf;

use forebay_reading::ReadingError;
use forebay_reading::timestamp::TimeError;
use thiserror::Error;

/// Why a file cannot be sent.
#[derive(Debug, Error)]
pub enum CsvError {
    /// No such file, no permission, or no CSV.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: csv::Error,
    },
    /// No column, or only the time.
    #[error("{path}: the first line must name a column for the time and at least one sensor", path = path.display())]
    NoSensors {
        /// The file.
        path: PathBuf,
    },
    /// No time where one must be.
    #[error("{path}, line {line}: {source}; found `{found}`", path = path.display())]
    Time {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What stands there.
        found: String,
        /// What must stand there.
        source: TimeError,
    },
    /// A name or a value that no reading may have.
    #[error("{path}, line {line}: {source}", path = path.display())]
    Reading {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The rule that it breaks.
        source: ReadingError,
    },
}
