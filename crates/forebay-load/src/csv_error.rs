//! The faults of a CSV file.

use std::path::PathBuf;

use forebay_reading::ReadingError;
use forebay_reading::timestamp::TimeError;
use thiserror::Error;

/// A file cannot be sent.
#[derive(Debug, Error)]
pub enum CsvError {
    /// The file is missing, unreadable, or not CSV.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the reader.
        source: csv::Error,
    },
    /// There is no column, or only that of the time.
    #[error("{path}: the first line must name a column for the time and at least one sensor", path = path.display())]
    NoSensors {
        /// The file.
        path: PathBuf,
    },
    /// The first cell of a line is not a time.
    #[error("{path}, line {line}: {source}; found `{found}`", path = path.display())]
    Time {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The cell, cut to 40 characters.
        found: String,
        /// The rule for times.
        source: TimeError,
    },
    /// A name or a value breaks a rule for readings.
    #[error("{path}, line {line}: {source}", path = path.display())]
    Reading {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The rule.
        source: ReadingError,
    },
}
