//! Whether the directory can be made and written, found out before the first letter.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use forebay_wal::{is_no_room, private_files};

use super::{DeadLetterError, Directory};

/// What is left of a directory that was made to try it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The directory, for the letters to come.
    TheDirectory,
    /// Nothing.
    Nothing,
}

impl Directory {
    /// Makes the directory and a file in it, and removes the file again. A disk without room is no fault: there may be
    /// some when the first letter comes.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]: no letter could be kept here.
    pub fn try_out(&self, leftover: Leftover) -> Result<(), DeadLetterError> {
        let missing: Vec<PathBuf> =
            self.path().ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        let tried = self.make().and_then(|()| self.write_and_remove());
        if leftover == Leftover::Nothing {
            // The deepest comes first. What somebody has put something into meanwhile stays.
            missing
                .iter()
                .filter(|path| !path.as_os_str().is_empty())
                .for_each(|path| _ = fs::remove_dir(path));
        }
        match tried {
            Err(DeadLetterError::Io { error, .. }) if is_no_room(&error) => Ok(()),
            tried => tried,
        }
    }

    fn write_and_remove(&self) -> Result<(), DeadLetterError> {
        let path = self.path().join(format!("try-{}", std::process::id()));
        let made = private_files::make_or_open(&path, OpenOptions::new().write(true).truncate(true));
        made.and_then(|_| fs::remove_file(&path)).map_err(DeadLetterError::io("write to", self.path()))
    }
}
