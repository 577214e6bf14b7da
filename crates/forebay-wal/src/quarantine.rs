//! The quarantine: unreadable bytes are copied there, never thrown away.

use std::path::PathBuf;

use crate::directory::LogDirectory;
use crate::error::LogError;
use crate::reader::Damage;

/// The subdirectory of the log's own directory.
pub const DIRECTORY: &str = "quarantine";
/// Bytes of one step of the copy.
const STEP_BYTES: u64 = 1024 * 1024;

impl LogDirectory {
    /// Copies damaged bytes of a segment into a file of their own, named after their place. Returns its path, or `None`
    /// if the damage has no bytes.
    ///
    /// # Errors
    ///
    /// Any I/O error. The segment keeps the bytes.
    pub fn set_aside(&self, damage: &Damage) -> Result<Option<PathBuf>, LogError> {
        if damage.bytes.is_empty() {
            return Ok(None);
        }
        let quarantine = self.path.join(DIRECTORY);
        self.fs.create_directory(&quarantine).map_err(LogError::at("make", &quarantine))?;
        let from = self.segment(damage.segment);
        let source = self.fs.open(&from).map_err(LogError::at("open", &from))?;
        let to = quarantine.join(name(damage));
        let target = self.fs.create(&to).map_err(LogError::at("make", &to))?;
        let mut at = damage.bytes.start;
        while at < damage.bytes.end {
            let mut bytes = vec![0; usize::try_from((damage.bytes.end - at).min(STEP_BYTES)).unwrap_or(1)];
            let read = source.read_at(&mut bytes, at).map_err(LogError::at("read", &from))?;
            if read == 0 {
                break;
            }
            target
                .write_at(&bytes[..read], at - damage.bytes.start)
                .map_err(LogError::at("write to", &to))?;
            at += read as u64;
        }
        target.sync().map_err(LogError::at("sync", &to))?;
        for directory in [&quarantine, &self.path] {
            self.fs.sync_directory(directory).map_err(LogError::at("sync", directory))?;
        }
        Ok(Some(to))
    }

    /// Whether these bytes are in the quarantine already.
    pub fn is_set_aside(&self, damage: &Damage) -> bool {
        let names = self.fs.list(&self.path.join(DIRECTORY)).unwrap_or_default();
        names.contains(&name(damage))
    }
}

/// The file name of damaged bytes.
fn name(damage: &Damage) -> String {
    format!("{:020}-{}", damage.segment, damage.bytes.start)
}
