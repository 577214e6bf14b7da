//! Only one gateway at a time uses a directory.

use std::path::Path;

use forebay_wal::LogError;
use forebay_wal::private_files;

use crate::buffer::OpenError;
use crate::directory_lock::{DirectoryLock, LockError, LockLoss};

/// The lock on the directory of a buffer.
#[derive(Debug)]
pub struct Lock(DirectoryLock);

impl Lock {
    /// Takes the lock, and makes the directory if it is not there.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if another process has it, [`OpenError::Directory`] if the directory cannot be made, or
    /// what the system says.
    pub fn take(directory: &Path) -> Result<Lock, OpenError> {
        private_files::make_directory(directory)
            .map_err(|error| OpenError::Directory { path: directory.to_owned(), error })?;
        DirectoryLock::take(directory).map(Lock).map_err(|error| match error {
            LockError::Held => OpenError::Locked { path: directory.to_owned() },
            LockError::Io(path, error) => OpenError::Io { path, error },
        })
    }

    /// Gives the lock back, whoever still holds on to it. Nothing may be written to the directory from then on.
    pub fn release(&self) {
        self.0.release();
    }

    /// Makes sure that the directory of that name is still the one that was locked. The log goes by names: in a
    /// directory that another gateway has made in its place, it would write over that one's segments.
    ///
    /// # Errors
    ///
    /// If it is not, which [`lost`] tells, or cannot be looked at.
    pub fn check(&self) -> Result<(), LogError> {
        let path = || self.0.directory().to_owned();
        self.0.check().map_err(|error| LogError { action: "use the directory", path: path(), error })
    }
}

/// What was found missing, if that is what an error of [`Lock::check`] is about.
pub fn lost(error: &LogError) -> Option<LockLoss> {
    error.error.get_ref()?.downcast_ref().copied()
}

/// What to do about it.
pub fn advice(lost: LockLoss) -> &'static str {
    match lost {
        LockLoss::Moved => {
            "put the directory back where it was, with what is in it: the gateway goes on by itself then"
        }
        LockLoss::Covered => {
            "take away what is in the directory's place, and put the directory back: the gateway goes on by itself \
             then"
        }
        LockLoss::Unlocked => {
            "restart the gateway: the start makes a new lock and goes on with what is in the directory; the lock of \
             a gateway that runs must stay"
        }
        LockLoss::Relocked => {
            "see that no other gateway uses the directory, then restart this one; each gateway needs a directory of \
             its own"
        }
    }
}

/// Whether a start at the same path does not find what the directory holds.
pub fn is_elsewhere(lost: LockLoss) -> bool {
    match lost {
        LockLoss::Moved | LockLoss::Covered => true,
        LockLoss::Unlocked | LockLoss::Relocked => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::directory_lock::NAME;

    #[test]
    fn what_became_of_a_directory_that_is_not_as_it_was_is_told_with_what_to_do() {
        let above = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (above.path().join("buffer"), above.path().join("moved"));
        let lock = Lock::take(&path).expect("nobody has it");
        let check = |expected: LockLoss, words: &str, elsewhere| {
            let error = lock.check().expect_err("it is not as it was");
            assert_eq!(lost(&error), Some(expected), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(advice(expected).contains(words) && is_elsewhere(expected) == elsewhere, "{expected:?}");
        };
        let (file, hidden) = (path.join(NAME), path.join("hidden"));
        fs::rename(&file, &hidden).expect("a sound disk");
        check(LockLoss::Unlocked, "restart", false);
        fs::write(&file, "").expect("a sound disk");
        check(LockLoss::Relocked, "restart", false);
        fs::rename(&hidden, &file).expect("a sound disk");
        lock.check().expect("it is there again");
        fs::rename(&path, &elsewhere).expect("a sound disk");
        check(LockLoss::Moved, "put the directory back", true);
        fs::write(&path, "").expect("a sound disk");
        check(LockLoss::Covered, "take away", true);
        fs::remove_file(&path).expect("a sound disk");
        fs::create_dir(&path).expect("a sound disk");
        check(LockLoss::Covered, "take away", true);
        fs::write(&file, "").expect("a sound disk");
        check(LockLoss::Covered, "take away", true);
    }

    #[test]
    fn a_directory_that_was_moved_away_or_replaced_is_not_the_one_that_was_locked() {
        let above = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (above.path().join("buffer"), above.path().join("moved"));
        let lock = Lock::take(&path).expect("nobody has it");
        assert!(matches!(Lock::take(&path), Err(OpenError::Locked { .. })));
        lock.check().expect("it is there");
        fs::rename(&path, &elsewhere).expect("a sound disk");
        assert_eq!(lost(&lock.check().expect_err("it is gone")), Some(LockLoss::Moved));
        let other = Lock::take(&path).expect("it is another one");
        assert!(lock.check().expect_err("it is another one").to_string().contains("another directory"));
        other.check().expect("it is there");
        fs::rename(&path, above.path().join("other")).expect("a sound disk");
        fs::rename(&elsewhere, &path).expect("a sound disk");
        lock.check().expect("it is there again");
    }
}
