//! Only one gateway at a time uses a directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::buffer::OpenError;
use crate::private_files;
use crate::wal::LogError;

/// The name of the file that is locked; it holds the number of the process that has it.
const NAME: &str = "lock";

/// The lock on a directory. The system gives it back when the process ends, however that happens.
#[derive(Debug)]
pub struct Lock {
    locked: File,
    directory: PathBuf,
    /// Which file it is, whatever its name is by now.
    identity: (u64, u64),
}

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
        let path = directory.join(NAME);
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let mut file = open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: directory.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // For people only; a disk that takes no more does not matter here.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        let identity = file.metadata().map(|found| (found.dev(), found.ino())).map_err(failed)?;
        Ok(Lock { locked: file, directory: directory.to_owned(), identity })
    }

    /// Gives the lock back, whoever still holds on to it. Nothing may be written to the directory from then on.
    pub fn release(&self) {
        // If the system will not, the end of the process does.
        let _ = self.locked.unlock();
    }

    /// Makes sure that the directory of that name is still the one that was locked. The log goes by names: in a
    /// directory that another gateway has made in its place, it would write over that one's segments.
    ///
    /// # Errors
    ///
    /// If it is not, or cannot be looked at.
    pub fn check(&self) -> Result<(), LogError> {
        let found = fs::metadata(self.directory.join(NAME)).map(|found| (found.dev(), found.ino()));
        let error = match found {
            Ok(found) if found == self.identity => return Ok(()),
            Ok(_) => io::Error::other(
                "it is another directory than at the start; was it moved, or its lock removed?",
            ),
            Err(error) => error,
        };
        Err(LogError { action: "find the lock in", path: self.directory.clone(), error })
    }
}

/// The number of the process that has the directory, or 0 if it is not told; none if nobody has it. The lock is not
/// taken, not even for a moment, where the system lists its locks: a gateway may be about to start.
///
/// # Errors
///
/// What the system says when the lock cannot be looked at. No directory and no lock are no error.
pub fn holder(directory: &Path) -> io::Result<Option<u32>> {
    let path = directory.join(NAME);
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let written = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    if let Ok(locks) = fs::read_to_string("/proc/locks") {
        return Ok(holder_among(&locks, found.ino(), written));
    }
    let file = File::open(&path)?;
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| None),
        Err(TryLockError::WouldBlock) => Ok(Some(written.unwrap_or(0))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who has a lock, in the system's list of them (proc_locks(5)), on the file with this inode, into which the process with
/// the number `written` has put it. The devices of the list are not those that files have on some file systems.
fn holder_among(locks: &str, inode: u64, written: Option<u32>) -> Option<u32> {
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // With an arrow in the second place, it waits.
        let &[_, "FLOCK", _, _, process, file, ..] = &fields[..] else { return None };
        let is_it = file.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(inode);
        // Of another name space, a process has no number here.
        let process = process.parse::<u32>().unwrap_or(0);
        let is_ours = written.is_none_or(|written| process == 0 || process == written);
        (is_it && is_ours).then(|| if process == 0 { written.unwrap_or(0) } else { process })
    };
    locks.lines().find_map(holder)
}

fn open(path: &Path) -> io::Result<File> {
    let opened = private_files::make_or_open(path, OpenOptions::new().read(true).write(true));
    opened.or_else(|error| match error.kind() {
        // What is there can be delivered, also from a disk that takes no more.
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_directory_is_known_without_taking_its_lock() {
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path().join("buffer");
        assert_eq!(holder(&path).expect("nothing there"), None);
        assert!(!path.exists(), "nothing is made");
        let lock = Lock::take(&path).expect("nobody has it");
        assert_eq!(holder(&path).expect("it can be looked at"), Some(std::process::id()));
        lock.check().expect("it is still ours");
        drop(lock);
        assert_eq!(holder(&path).expect("it can be looked at"), None);
    }

    #[test]
    fn the_systems_list_of_locks_is_read_with_care() {
        let check = |line: &str, written, expected| {
            assert_eq!(holder_among(line, 753_900, written), expected, "{line}");
        };
        check("1: FLOCK  ADVISORY  WRITE 1447 fe:00:753900 0 EOF", Some(1447), Some(1447));
        check("1: FLOCK  ADVISORY  WRITE 1447 fe:00:753900 0 EOF", None, Some(1447));
        // The same inode of another file system.
        check("1: FLOCK  ADVISORY  WRITE 1447 fe:01:753900 0 EOF", Some(9), None);
        check("1: FLOCK  ADVISORY  WRITE 1447 fe:00:753901 0 EOF", Some(1447), None);
        check("1: POSIX  ADVISORY  WRITE 1447 fe:00:753900 0 EOF", Some(1447), None);
        check("1: -> FLOCK  ADVISORY  WRITE 1447 fe:00:753900 0 EOF", Some(1447), None);
        // A process of another name space.
        check("1: FLOCK  ADVISORY  WRITE 0 fe:00:753900 0 EOF", Some(7), Some(7));
        check("\n1:\nFLOCK x\n", Some(7), None);
    }

    #[test]
    fn a_directory_that_was_moved_away_or_replaced_is_not_the_one_that_was_locked() {
        let above = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (above.path().join("buffer"), above.path().join("moved"));
        let lock = Lock::take(&path).expect("nobody has it");
        assert!(matches!(Lock::take(&path), Err(OpenError::Locked { .. })));
        lock.check().expect("it is there");
        fs::rename(&path, &elsewhere).expect("a sound disk");
        assert_eq!(lock.check().expect_err("it is gone").error.kind(), io::ErrorKind::NotFound);
        let other = Lock::take(&path).expect("it is another one");
        assert!(lock.check().expect_err("it is another one").to_string().contains("another directory"));
        other.check().expect("it is there");
        fs::rename(&path, above.path().join("other")).expect("a sound disk");
        fs::rename(&elsewhere, &path).expect("a sound disk");
        lock.check().expect("it is there again");
    }
}
