//! Free space on disks and the waiting dead letters, looked up when `/metrics` is asked.
//!
//! The lookup runs on a thread for blocking work, and an answer waits for at most [`LOOK_MAX`]: if a disk hangs, the
//! answer has the last known numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::StatusSources;
use crate::delivery::{DeadLetters, LetterTotals};
use crate::filesystem;
use crate::metrics::{Sample, sample};

/// Longest time that an answer waits for disks.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The result of a lookup.
#[derive(Debug)]
pub(super) struct Disks {
    free: Vec<(PathBuf, u64)>,
    waiting: Option<LetterTotals>,
}

impl Disks {
    /// Looks the numbers up, for at most [`LOOK_MAX`].
    pub(super) async fn look(status: &Arc<StatusSources>) -> Disks {
        let dead_letters = status.dead_letters.clone();
        let mut directories = vec![dead_letters.path().to_owned()];
        if status.buffer_config.is_on_disk() {
            directories.insert(0, status.buffer_config.path.clone());
        }
        directories.dedup();
        let known = dead_letters.clone();
        let look = tokio::task::spawn_blocking(move || Disks::look_now(directories, &dead_letters));
        match tokio::time::timeout(LOOK_MAX, look).await {
            Ok(Ok(disks)) => disks,
            Ok(Err(_)) | Err(_) => Disks { free: Vec::new(), waiting: known.last_waiting() },
        }
    }

    fn look_now(directories: Vec<PathBuf>, dead_letters: &DeadLetters) -> Disks {
        let free = |path: PathBuf| free_bytes(&path).map(|bytes| (path, bytes));
        Disks { free: directories.into_iter().filter_map(free).collect(), waiting: dead_letters.waiting() }
    }

    #[expect(clippy::cast_precision_loss, reason = "the text format holds doubles")]
    pub(super) fn samples(&self) -> Vec<Sample> {
        let free = self
            .free
            .iter()
            .map(|(path, bytes)| sample("disk_free_bytes", &[&*path.to_string_lossy()], *bytes as f64));
        let waiting = self.waiting.iter().flat_map(|LetterTotals { letters, bytes }| {
            [sample("dead_letters", &[], *letters as f64), sample("dead_letter_bytes", &[], *bytes as f64)]
        });
        free.chain(waiting).collect()
    }
}

/// Free bytes on the file system of a directory, or of its nearest existing ancestor.
fn free_bytes(directory: &Path) -> Option<u64> {
    filesystem::free_bytes(&filesystem::nearest_existing(directory)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_space_of_a_missing_directory_is_that_of_its_nearest_ancestor() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(free_bytes(directory.path()) > Some(0));
        assert!(free_bytes(&directory.path().join("not/there")) > Some(0));
        assert!(free_bytes(Path::new("nowhere")) > Some(0));
    }
}
