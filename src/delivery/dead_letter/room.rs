//! Tests before the first letter whether the directory can be made and written.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use forebay_wal::{is_no_room, private_files};

use super::{DeadLetterError, LetterDirectory};

/// What remains of a directory that was made for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The directory remains, for later letters.
    TheDirectory,
    /// Nothing remains.
    Nothing,
}

impl LetterDirectory {
    /// Makes the directory and a file in it, and removes the file again. A full disk is not an error: it may have room when the
    /// first letter comes.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]: no letter could be stored here.
    pub fn try_out(&self, leftover: Leftover) -> Result<(), DeadLetterError> {
        let missing: Vec<PathBuf> =
            self.path().ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        let result = self.make().and_then(|()| self.write_and_remove());
        if leftover == Leftover::Nothing {
            // The deepest directory comes first. A directory that is no longer empty stays.
            missing
                .iter()
                .filter(|path| !path.as_os_str().is_empty())
                .for_each(|path| _ = fs::remove_dir(path));
        }
        match result {
            Err(DeadLetterError::Io { error, .. }) if is_no_room(&error) => Ok(()),
            result => result,
        }
    }

    fn write_and_remove(&self) -> Result<(), DeadLetterError> {
        let path = self.path().join(format!("try-{}", std::process::id()));
        let made = private_files::make_or_open(&path, OpenOptions::new().write(true).truncate(true));
        made.and_then(|_| fs::remove_file(&path)).map_err(DeadLetterError::io("write to", self.path()))
    }
}
