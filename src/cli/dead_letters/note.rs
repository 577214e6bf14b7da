//! What a replay has sent and not heard of, on disk, so that the next one sends the same request first.
//!
//! A replay may be killed after the gateway has taken a request and before its letters are removed. Letters that came
//! meanwhile, or another filter, would make up another request then, with another key, and the gateway would take the
//! readings twice. The note is written in place: one that is torn was never sent.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, bail};
use forebay_wal::private_files;
use serde::{Deserialize, Serialize};

use crate::delivery::dead_letter::LetterDirectory;

/// The name of its file, which is also what keeps a second replay out.
const NAME: &str = "replay";
/// Largest note that is read, in bytes. One of a full request takes 40 KiB.
const NOTE_BYTES_MAX: u64 = 1 << 20;

/// The request that was sent last, if it is not known what became of it. Only one replay at a time has it.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
}

/// Which letters are in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    /// The number of their file.
    pub(super) file: u64,
    /// The digests of their lines, in their order.
    pub(super) lines: Vec<String>,
}

impl Note {
    /// Takes the note of a directory that is there.
    ///
    /// # Errors
    ///
    /// Another replay has it, or what the system says.
    pub(super) fn take(directory: &LetterDirectory) -> anyhow::Result<Note> {
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
        Ok(Note { file })
    }

    /// What was noted; `None` if nothing was, or it is torn.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn read(&self) -> io::Result<Option<Noted>> {
        let bytes = self.file.metadata()?.len();
        if bytes > NOTE_BYTES_MAX {
            return Ok(None);
        }
        let mut text = vec![0; usize::try_from(bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut text, 0)?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Notes what is about to be sent, and returns when that is on stable storage.
    ///
    /// # Errors
    ///
    /// What the system says; nothing may be sent then.
    pub(super) fn write(&self, noted: &Noted) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&serde_json::to_vec(noted)?, 0)?;
        self.file.sync_data()
    }

    /// Notes that nothing is under way.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_one_that_is_torn_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let letters = LetterDirectory::new(directory.path());
        let note = Note::take(&letters).expect("nobody has it");
        assert!(Note::take(&letters).expect_err("somebody has it").to_string().contains("another replay"));
        assert_eq!(note.read().expect("it reads"), None);
        let long = Noted { file: 7, lines: vec!["a".repeat(32), "b".repeat(32)] };
        let short = Noted { file: 8, lines: vec!["c".repeat(32)] };
        for noted in [long, short] {
            note.write(&noted).expect("written");
            assert_eq!(note.read().expect("it reads"), Some(noted));
        }
        note.file.set_len(20).expect("a sound disk");
        assert_eq!(note.read().expect("it reads"), None);
        note.clear().expect("written");
        drop(note);
        assert_eq!(Note::take(&letters).expect("nobody has it").read().expect("it reads"), None);
    }
}
