//! What is looked up on disks at the moment of an answer: free space, and the dead letters that wait.
//!
//! It is looked up on a thread for blocking work, by one at a time and for [`LOOK_MAX`] at most: a disk that hangs holds
//! up no answer, which then has what was known before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Status;
use crate::delivery::{DeadLetters, LetterTotals};
use crate::filesystem;
use crate::metrics::{Sample, sample};

/// Longest that an answer waits for disks.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug)]
pub(super) struct Disks {
    free: Vec<(PathBuf, u64)>,
    waiting: Option<LetterTotals>,
}

impl Disks {
    /// Looks, for a while.
    pub(super) async fn look(status: &Arc<Status>) -> Disks {
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

/// Bytes that the file system of a directory can still take; of the one above it while it is not there.
fn free_bytes(directory: &Path) -> Option<u64> {
    filesystem::free_bytes(&filesystem::nearest_existing(directory)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_space_of_a_directory_that_is_not_there_yet_is_that_of_the_one_above() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(free_bytes(directory.path()) > Some(0));
        assert!(free_bytes(&directory.path().join("not/there")) > Some(0));
        assert!(free_bytes(Path::new("nowhere")) > Some(0));
    }
}
