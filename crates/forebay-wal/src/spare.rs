//! The spare file that becomes the next segment. Its blocks are allocated in advance, because a sync that has to allocate
//! costs more than twice as much.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::directory::LogDirectory;
use crate::error::LogError;
use crate::fs::LogFile;
use crate::segment::{HEADER_PLACES, Header, Segment};

/// How the names of spare files begin.
const PREFIX: &str = "spare-";
/// Bytes of zeros in one write.
const STEP_BYTES: usize = 1024 * 1024;
/// On a full disk, each further attempt at a file is smaller by this factor.
const SMALLER_BY: u64 = 8;

/// A file that is ready to become a segment.
#[derive(Debug)]
pub struct Spare {
    file: Arc<dyn LogFile>,
    path: PathBuf,
    pub(super) bytes: u64,
}

impl Spare {
    /// Turns the file into the segment of this header, durably.
    pub(super) fn install(
        self,
        directory: &LogDirectory,
        header: &Header,
    ) -> Result<(Arc<dyn LogFile>, PathBuf), LogError> {
        let path = directory.segment(header.number);
        self.write_header_and_rename(directory, header, &path).inspect_err(|_| {
            // The first error is the one to report. A file that stays is empty, and the next attempt replaces it.
            let fs = &directory.fs;
            let _ = fs.remove(&self.path).or_else(|_| fs.remove(&path));
        })?;
        Ok((self.file, path))
    }

    fn write_header_and_rename(
        &self,
        directory: &LogDirectory,
        header: &Header,
        path: &Path,
    ) -> Result<(), LogError> {
        let mark = [&header.encode()[..], &header.encode_size(self.bytes)].concat();
        for place in HEADER_PLACES {
            self.file.write_at(&mark, place).map_err(LogError::at("write to", &self.path))?;
        }
        self.file.sync().map_err(LogError::at("sync", &self.path))?;
        let LogDirectory { fs, path: directory } = directory;
        fs.rename(&self.path, path).map_err(LogError::at("make", path))?;
        // Sync the directory too: without it a crash can lose the new segment's name.
        fs.sync_directory(directory).map_err(LogError::at("sync", directory))
    }
}

/// The job of making a spare file.
pub struct SpareJob {
    directory: LogDirectory,
    path: PathBuf,
    bytes: u64,
}

impl fmt::Debug for SpareJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpareJob {{ {}, {} bytes }}", self.path.display(), self.bytes)
    }
}

impl SpareJob {
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

/// The spare file of a log, if there is one, and the names of all that it has had.
#[derive(Debug)]
pub(super) struct SpareFiles {
    directory: LogDirectory,
    spare: Option<Spare>,
    /// How many spare files were named so far. Two with one name would overwrite each other.
    named: AtomicU64,
}

impl SpareFiles {
    pub(super) fn new(directory: LogDirectory) -> SpareFiles {
        SpareFiles { directory, spare: None, named: AtomicU64::new(1) }
    }

    /// Whether there is no spare file.
    pub(super) fn is_empty(&self) -> bool {
        self.spare.is_none()
    }

    /// The job of making a spare file of so many bytes, under a new name.
    pub(super) fn job(&self, bytes: u64) -> SpareJob {
        SpareJob { directory: self.directory.clone(), path: self.new_path(), bytes }
    }

    fn new_path(&self) -> PathBuf {
        self.directory.path.join(format!("{PREFIX}{}", self.named.fetch_add(1, Ordering::Relaxed)))
    }

    /// Takes a spare file of at least `wanted` bytes, or makes one. On a full disk it may have as few as `least` bytes.
    pub(super) fn take_or_make(&mut self, wanted: u64, least: u64) -> Result<Spare, LogError> {
        if let Some(spare) = self.spare.take_if(|spare| spare.bytes >= wanted) {
            return Ok(spare);
        }
        let mut bytes = wanted;
        loop {
            match self.job(bytes).run() {
                Err(error) if error.is_no_room() && bytes > least => bytes = (bytes / SMALLER_BY).max(least),
                made => return made,
            }
        }
    }

    /// Keeps a file as the spare one. A second spare file is removed.
    pub(super) fn give(&mut self, spare: Spare) {
        if self.spare.is_some() {
            // The next start removes a file that remains.
            let _ = self.directory.fs.remove(&spare.path);
        } else {
            self.spare = Some(spare);
        }
    }

    /// Removes the spare file to make room. Returns whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        let Some(spare) = self.spare.take() else { return false };
        self.directory.fs.remove(&spare.path).is_ok()
    }

    /// Turns the file of a settled segment into the spare file. Returns false if there is one already, or the file was
    /// truncated.
    pub(super) fn reuse(&mut self, segment: &Segment) -> Result<bool, LogError> {
        if self.spare.is_some() {
            return Ok(false);
        }
        let fs = &self.directory.fs;
        let from = self.directory.segment(segment.number);
        // A disk is fastest at overwriting allocated blocks. A truncated file has lost some of them.
        let file = fs.open(&from).map_err(LogError::at("open", &from))?;
        if file.size().map_err(LogError::at("read", &from))? < segment.bytes {
            return Ok(false);
        }
        let path = self.new_path();
        fs.rename(&from, &path).map_err(LogError::at("rename", &from))?;
        self.spare = Some(Spare { file, path, bytes: segment.bytes });
        Ok(true)
    }
}

/// Whether this is the name of a spare file.
pub fn is_spare(name: &str) -> bool {
    name.starts_with(PREFIX)
}
