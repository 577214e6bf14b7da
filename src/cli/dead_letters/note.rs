//! The note of a replay: the request without an answer, on disk, so that the next replay sends the same request first.
//!
//! A replay may be killed after the gateway has accepted a request and before its letters are removed. New letters, or
//! another filter, would then make another request with another key, and the gateway would accept the readings twice.
//! The note is written in place and synced before its request is sent, so the request of a torn note was never sent.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, bail};
use forebay_wal::private_files;
use serde::{Deserialize, Serialize};

use crate::delivery::dead_letter::LetterDirectory;

/// The name of the note's file. Its lock also excludes a second replay.
const NAME: &str = "replay";
/// Largest note that is read, in bytes. The note of a full request takes 40 KiB.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// The file of the note, locked for one replay at a time.
#[derive(Debug)]
pub(super) struct NoteFile {
    file: File,
}

/// The letters of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotedRequest {
    /// The number of the letters' file.
    pub(super) file: u64,
    /// The digests of the letters' lines, in their order.
    pub(super) lines: Vec<String>,
}

impl NoteFile {
    /// Opens and locks the note of an existing directory.
    ///
    /// # Errors
    ///
    /// Another replay has the lock, or the system's error.
    pub(super) fn open(directory: &LetterDirectory) -> anyhow::Result<NoteFile> {
        let path = directory.path().join(NAME);
        let is_new = !path.exists();
        let options = OpenOptions::new().read(true).write(true).clone();
        let file = private_files::make_or_open(&path, &options)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another replay works on {}; wait for its end", directory.path().display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        if is_new {
            directory.sync()?;
        }
        Ok(NoteFile { file })
    }

    /// Reads the note; `None` if it is empty or torn.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(super) fn read(&self) -> io::Result<Option<NotedRequest>> {
        let bytes = self.file.metadata()?.len();
        if bytes > NOTE_BYTES_MAX {
            return Ok(None);
        }
        let mut text = vec![0; usize::try_from(bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut text, 0)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Writes the note of a request, and returns when it is on stable storage.
    ///
    /// # Errors
    ///
    /// The system's error; the request must not be sent then.
    pub(super) fn write(&self, noted: &NotedRequest) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&serde_json::to_vec(noted)?, 0)?;
        self.file.sync_data()
    }

    /// Empties the note: every request has its answer.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_a_torn_one_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = LetterDirectory::new(directory.path());
        let note = NoteFile::open(&letters).expect("nobody has it");
        assert!(
            NoteFile::open(&letters).expect_err("somebody has it").to_string().contains("another replay")
        );
        assert_eq!(note.read().expect("it reads"), None);
        let long = NotedRequest { file: 7, lines: vec!["a".repeat(32), "b".repeat(32)] };
        let short = NotedRequest { file: 8, lines: vec!["c".repeat(32)] };
        for noted in [long, short] {
            note.write(&noted).expect("written");
            assert_eq!(note.read().expect("it reads"), Some(noted));
        }
        note.file.set_len(20).expect("a sound disk");
        assert_eq!(note.read().expect("it reads"), None);
        note.clear().expect("written");
        drop(note);
        assert_eq!(NoteFile::open(&letters).expect("nobody has it").read().expect("it reads"), None);
    }
}
