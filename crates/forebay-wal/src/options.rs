//! The settings of a log.

use std::path::PathBuf;

/// The settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Directory of the files; nobody else may write there.
    pub directory: PathBuf,
    /// Size of a segment; a record that needs more gets a larger one.
    pub segment_bytes: u64,
    /// Payloads of up to so many bytes are copied together and written at once; a larger payload is written without a
    /// copy when it is appended.
    pub copied_bytes_max: usize,
}

impl LogOptions {
    /// The usual settings: below 64 KiB a copy costs less than a write of its own.
    pub fn new(directory: PathBuf, segment_bytes: u64) -> LogOptions {
        LogOptions { directory, segment_bytes, copied_bytes_max: 64 * 1024 - 1 }
    }
}
