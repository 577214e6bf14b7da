//! An exclusive lock on a directory: one process at a time works on it.

#![expect(
    clippy::disallowed_types,
    reason = "a waiter blocks a thread, for which the time of a test does not pass"
)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay_wal::private_files;
use thiserror::Error;

/// The name of the locked file. It contains the process id of the gateway that has the lock.
pub const NAME: &str = "lock";
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock on a directory, until it is dropped. The system releases it when the process ends, in whatever way.
#[derive(Debug)]
pub struct DirectoryLock {
    locked: File,
    directory: PathBuf,
    /// Identifies the locked file, even if it was renamed.
    identity: Identity,
    /// Identifies the directory, even if it was renamed.
    directory_identity: Identity,
}

/// The device and the inode number of a file.
type Identity = (u64, u64);

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process has the lock.
    Held,
    /// The file that cannot be used, and the system's error.
    Io(PathBuf, io::Error),
}

/// What to do if the directory has no lock file yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingLock {
    /// Create the file, for a process that is going to write. The directory must exist.
    Create,
    /// Fail, for a process that only reads and must write nothing.
    Fail,
}

/// Why a lock protects its directory no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LockLoss {
    /// Nothing has the directory's name any more.
    #[error("the directory was moved away or removed")]
    Moved,
    /// Another directory has its name: made, moved or mounted there.
    #[error("it is another directory than at the start, made, moved or mounted in its place")]
    Covered,
    /// The lock file was removed.
    #[error("its lock was removed, and another gateway could take the directory")]
    Unlocked,
    /// Another file has the name of the lock file.
    #[error("its lock was replaced, and another gateway may use the directory")]
    Relocked,
}

impl DirectoryLock {
    /// Takes the lock at once, and writes the process id into it. The directory must exist.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another process has it; [`LockError::Io`] otherwise.
    pub fn take(directory: &Path) -> Result<DirectoryLock, LockError> {
        let mut lock = DirectoryLock::try_take(directory, MissingLock::Create)?;
        // The process id is for people only: a full disk does not matter here.
        let _ = lock.locked.set_len(0).and_then(|()| writeln!(lock.locked, "{}", std::process::id()));
        Ok(lock)
    }

    /// Takes the lock as soon as it is free, and blocks for up to `limit`.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] when `limit` is over; [`LockError::Io`] at once.
    pub fn wait(directory: &Path, missing: MissingLock, limit: Duration) -> Result<DirectoryLock, LockError> {
        let until = Instant::now() + limit;
        loop {
            match DirectoryLock::try_take(directory, missing) {
                Err(LockError::Held) if Instant::now() < until => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    fn try_take(directory: &Path, missing: MissingLock) -> Result<DirectoryLock, LockError> {
        let path = directory.join(NAME);
        let failed = |error| LockError::Io(path.clone(), error);
        let locked = open(&path, missing).map_err(failed)?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let identity = locked.metadata().map(|found| identity_of(&found)).map_err(failed)?;
        match identify(&path) {
            Ok(found) if found == identity => {}
            // The locked file was removed meanwhile, so the lock on it excludes no one.
            Ok(_) => return Err(LockError::Held),
            Err(error) if is_absence(&error) => return Err(LockError::Held),
            Err(error) => return Err(failed(error)),
        }
        let directory_identity = identify(directory).map_err(failed)?;
        Ok(DirectoryLock { locked, directory: directory.to_owned(), identity, directory_identity })
    }

    /// Releases the lock before the value is dropped. Nothing may be written to the directory from then on.
    pub fn release(&self) {
        // If this fails, the end of the process releases it.
        let _ = self.locked.unlock();
    }

    /// The path of the directory when it was locked.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checks that the path still leads to the locked directory and to the locked file.
    ///
    /// # Errors
    ///
    /// An error with a [`LockLoss`] inside if it does not; the system's error if that cannot be checked.
    pub fn check(&self) -> io::Result<()> {
        match identify(&self.directory.join(NAME)) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(self.loss(LockLoss::Relocked)),
            Err(error) if is_absence(&error) => Err(self.loss(LockLoss::Unlocked)),
            Err(error) => Err(error),
        }
    }

    /// The reason why the lock is lost; `in_place` if the directory is still in its place.
    fn loss(&self, in_place: LockLoss) -> io::Error {
        let lost = match identify(&self.directory) {
            Ok(found) if found == self.directory_identity => in_place,
            Ok(_) => LockLoss::Covered,
            Err(error) if is_absence(&error) => LockLoss::Moved,
            Err(error) => return error,
        };
        io::Error::other(lost)
    }
}

fn open(path: &Path, missing: MissingLock) -> io::Result<File> {
    if missing == MissingLock::Fail {
        return File::open(path);
    }
    let opened = private_files::make_or_open(path, OpenOptions::new().read(true).write(true));
    opened.or_else(|error| match error.kind() {
        // Another user made the file, or the disk is read-only: a lock needs no write access.
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    })
}

fn identify(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| identity_of(&found))
}

fn identity_of(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino())
}

/// Whether the error means that there is no such file. A path through a file that is not a directory counts, too.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The process id of the lock's holder, 0 if it is unknown, `None` if the lock is free. On systems that list their locks,
/// this does not take the lock even for a moment, because a gateway may be about to start.
///
/// # Errors
///
/// The system's error if the lock cannot be examined. A missing directory or lock file is not an error.
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

/// Finds the holder of the lock on the file with this inode number in the system's list (proc_locks(5)). `written` is the
/// process id in the file. On some file systems the list's devices differ from those of the files, so they are ignored.
fn holder_among(locks: &str, inode: u64, written: Option<u32>) -> Option<u32> {
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // An arrow in the second field marks a waiter.
        let &[_, "FLOCK", _, _, process, file, ..] = &fields[..] else { return None };
        let is_it = file.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(inode);
        // A process of another PID namespace is listed as 0.
        let process = process.parse::<u32>().unwrap_or(0);
        let is_ours = written.is_none_or(|written| process == 0 || process == written);
        (is_it && is_ours).then(|| if process == 0 { written.unwrap_or(0) } else { process })
    };
    locks.lines().find_map(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_directory_is_found_without_taking_its_lock() {
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path().join("buffer");
        assert_eq!(holder(&path).expect("nothing there"), None);
        assert!(!path.exists(), "nothing was created");
        fs::create_dir(&path).expect("a sound disk");
        let lock = DirectoryLock::take(&path).expect("nobody has it");
        assert_eq!(holder(&path).expect("it can be looked at"), Some(std::process::id()));
        lock.check().expect("it is still ours");
        drop(lock);
        assert_eq!(holder(&path).expect("it can be looked at"), None);
    }

    #[test]
    fn only_a_matching_line_of_the_systems_list_names_the_holder() {
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
        // A process of another PID namespace.
        check("1: FLOCK  ADVISORY  WRITE 0 fe:00:753900 0 EOF", Some(7), Some(7));
        check("\n1:\nFLOCK x\n", Some(7), None);
    }

    #[test]
    fn a_reader_creates_no_lock_file_and_a_waiter_gives_up_in_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let wait = |missing, limit| DirectoryLock::wait(directory.path(), missing, limit);
        let none = wait(MissingLock::Fail, Duration::ZERO).expect_err("nobody has locked it");
        assert!(matches!(none, LockError::Io(_, error) if is_absence(&error)));
        assert!(!directory.path().join(NAME).exists(), "nothing was created");
        let lock = wait(MissingLock::Create, Duration::ZERO).expect("nobody has it");
        for missing in [MissingLock::Create, MissingLock::Fail] {
            let held = wait(missing, Duration::from_millis(20)).expect_err("somebody has it");
            assert!(matches!(held, LockError::Held));
        }
        let waits = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(MissingLock::Fail, Duration::from_secs(60)).map(drop));
            drop(lock);
            waiter.join().expect("it does not panic")
        });
        waits.expect("it is given back");
    }
}
