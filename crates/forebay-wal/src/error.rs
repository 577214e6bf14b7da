//! The error of everything that reaches the disk.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::fs::is_no_room;

/// An I/O error, with the file or directory that it is about.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {error}", path.display())]
pub struct LogError {
    /// The attempt, as a verb: `open`, `read`.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's error.
    pub error: io::Error,
}

impl LogError {
    /// Whether the disk is full.
    pub fn is_no_room(&self) -> bool {
        is_no_room(&self.error)
    }

    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |error| LogError { action, path: path.to_owned(), error }
    }
}

/// The error for a file of another version.
pub fn refusal(path: &Path, what: &str) -> LogError {
    let error = format!(
        "{what}: another version of forebay has written it, most likely a later one; start that version again, or \
         give this one a directory of its own; nothing was changed"
    );
    LogError {
        action: "use",
        path: path.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
