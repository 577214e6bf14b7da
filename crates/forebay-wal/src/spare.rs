//! The spare file that becomes the next segment. Its blocks are allocated in advance, because a sync that has to allocate
//! costs more than twice as much.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::directory::LogDirectory;
use crate::error::LogError;
use crate::fs::LogFile;

/// How the names of spare files begin.
const PREFIX: &str = "spare-";
/// Bytes of zeros in one write.
const STEP_BYTES: usize = 1024 * 1024;

/// A file that is ready to become a segment.
#[derive(Debug)]
pub struct Spare {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The job of making a spare file.
pub struct SpareJob {
    directory: LogDirectory,
    pub(super) path: PathBuf,
    bytes: u64,
}

impl fmt::Debug for SpareJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpareJob {{ {}, {} bytes }}", self.path.display(), self.bytes)
    }
}

impl SpareJob {
    pub(super) fn new(directory: &LogDirectory, number: u64, bytes: u64) -> SpareJob {
        let path = directory.path.join(format!("{PREFIX}{number}"));
        SpareJob { directory: directory.clone(), path, bytes }
    }

    /// Makes the file and fills it with zeros.
    ///
    /// # Errors
    ///
    /// The I/O error, for example of a full disk; the unfinished file is removed.
    pub fn run(self) -> Result<Spare, LogError> {
        self.fill().inspect_err(|_| {
            // The first error is the one to report; the next start removes a file that remains.
            let _ = self.directory.fs.remove(&self.path);
        })
    }

    fn fill(&self) -> Result<Spare, LogError> {
        let file = self.directory.fs.create(&self.path).map_err(LogError::at("make", &self.path))?;
        let zeros = vec![0; STEP_BYTES];
        let mut offset = 0;
        while offset < self.bytes {
            let left = usize::try_from(self.bytes - offset).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            file.write_at(&zeros[..left], offset).map_err(LogError::at("make room in", &self.path))?;
            offset += left as u64;
        }
        file.sync().map_err(LogError::at("sync", &self.path))?;
        Ok(Spare { file, path: self.path.clone(), bytes: self.bytes })
    }
}

/// Whether this is the name of a spare file.
pub fn is_spare(name: &str) -> bool {
    name.starts_with(PREFIX)
}
