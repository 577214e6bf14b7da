//! The active segment: the one that records are appended to.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::LogError;
use crate::fs::LogFile;

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) path: PathBuf,
    /// Bytes that are written, without the pending ones.
    pub(super) written: u64,
    /// The end of the committed bytes.
    pub(super) committed: u64,
    /// The end of the bytes on stable storage.
    pub(super) synced: u64,
    pub(super) bytes: u64,
}

impl ActiveSegment {
    /// Writes behind the written bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write_at(bytes, self.written).map_err(LogError::at("write to", &self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Stops writing to the segment. Returns its committed bytes that still have to be synced.
    pub(super) fn close(self) -> Option<UnsyncedTail> {
        let ActiveSegment { file, path, committed, synced, .. } = self;
        (synced < committed).then_some(UnsyncedTail { file, path, bytes: synced..committed })
    }
}

/// Records that were committed as [`Durability::Written`] in a segment that failed afterwards.
#[derive(Debug)]
pub(super) struct UnsyncedTail {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) path: PathBuf,
    pub(super) bytes: Range<u64>,
}
