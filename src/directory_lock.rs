//! One process at a time works on a directory: the lock on a file in it.

#![expect(
    clippy::disallowed_types,
    reason = "whoever waits blocks a thread, which a test's time does not pass for"
)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay_wal::private_files;
use thiserror::Error;

/// The name of the file that is locked; where a gateway runs, it holds the number of its process.
pub const NAME: &str = "lock";
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock on a directory, until it is dropped. The system gives it back when the process ends, however that happens.
#[derive(Debug)]
pub struct DirectoryLock {
    locked: File,
    directory: PathBuf,
    /// Which file it is, whatever its name is by now.
    identity: Identity,
    /// Which directory it is, whatever its name is by now.
    directory_identity: Identity,
}

/// The device and the inode of a file.
type Identity = (u64, u64);

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it.
    Held,
    /// This file cannot be used, and what the system says of it.
    Io(PathBuf, io::Error),
}

/// Whether a lock that was never there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// For whoever is going to write: it is made. The directory must be there.
    IsMade,
    /// For whoever only reads: nothing is written, and the error says that it is not there.
    IsAnError,
}

/// What became of the directory that was locked, or of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// Nothing has the directory's name.
    #[error("the directory was moved away or removed")]
    Moved,
    /// Something else has its name: made there, moved there, or mounted there.
    #[error("it is another directory than at the start, made, moved or mounted in its place")]
    Covered,
    /// It is there, and its lock is not.
    #[error("its lock was removed, and another gateway could take the directory")]
    Unlocked,
    /// It is there, and its lock is another file.
    #[error("its lock was replaced, and another gateway may use the directory")]
    Relocked,
}

impl DirectoryLock {
    /// Takes the lock at once, if nobody has it, and writes down which process it is. The directory must be there.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take(directory: &Path) -> Result<DirectoryLock, LockError> {
        let mut lock = DirectoryLock::try_take(directory, Missing::IsMade)?;
        // For people only; a disk that takes no more does not matter here.
        let _ = lock.locked.set_len(0).and_then(|()| writeln!(lock.locked, "{}", std::process::id()));
        Ok(lock)
    }

    /// Takes the lock as soon as nobody else has it, and blocks for that as long as `limit`.
    ///
    /// # Errors
    ///
    /// [`LockError`]; [`LockError::Held`] once the time is over.
    pub fn wait(directory: &Path, missing: Missing, limit: Duration) -> Result<DirectoryLock, LockError> {
        let until = Instant::now() + limit;
        loop {
            match DirectoryLock::try_take(directory, missing) {
                Err(LockError::Held) if Instant::now() < until => std::thread::sleep(PAUSE),
                other => return other,
            }
        }
    }

    fn try_take(directory: &Path, missing: Missing) -> Result<DirectoryLock, LockError> {
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
            // Somebody has removed the file of that name; then the lock on it keeps nobody out.
            Ok(_) => return Err(LockError::Held),
            Err(error) if is_absence(&error) => return Err(LockError::Held),
            Err(error) => return Err(failed(error)),
        }
        let directory_identity = identify(directory).map_err(failed)?;
        Ok(DirectoryLock { locked, directory: directory.to_owned(), identity, directory_identity })
    }

    /// Gives the lock back, whoever still holds on to it. Nothing may be written to the directory from then on.
    pub fn release(&self) {
        // If the system will not, the end of the process does.
        let _ = self.locked.unlock();
    }

    /// The directory, by the name that it had when it was locked.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes sure that the directory of that name is still the one that was locked, and the lock, too.
    ///
    /// # Errors
    ///
    /// A [`Lost`] inside, if it is not; what the system says, if it cannot be looked at.
    pub fn check(&self) -> io::Result<()> {
        match identify(&self.directory.join(NAME)) {
            Ok(found) if found == self.identity => Ok(()),
            Ok(_) => Err(self.what_became(Lost::Relocked)),
            Err(error) if is_absence(&error) => Err(self.what_became(Lost::Unlocked)),
            Err(error) => Err(error),
        }
    }

    /// Why the lock is not where it was; `in_place` if the directory is.
    fn what_became(&self, in_place: Lost) -> io::Error {
        let lost = match identify(&self.directory) {
            Ok(found) if found == self.directory_identity => in_place,
            Ok(_) => Lost::Covered,
            Err(error) if is_absence(&error) => Lost::Moved,
            Err(error) => return error,
        };
        io::Error::other(lost)
    }
}

fn open(path: &Path, missing: Missing) -> io::Result<File> {
    if missing == Missing::IsAnError {
        return File::open(path);
    }
    let opened = private_files::make_or_open(path, OpenOptions::new().read(true).write(true));
    opened.or_else(|error| match error.kind() {
        // Made by another user, or on a disk that takes no more: a lock needs no writing.
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

/// Whether nothing has the name. Something that is no directory holds no lock.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_directory_is_known_without_taking_its_lock() {
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path().join("buffer");
        assert_eq!(holder(&path).expect("nothing there"), None);
        assert!(!path.exists(), "nothing is made");
        fs::create_dir(&path).expect("a sound disk");
        let lock = DirectoryLock::take(&path).expect("nobody has it");
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
    fn whoever_only_reads_makes_no_lock_and_who_waits_gives_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let wait = |missing, limit| DirectoryLock::wait(directory.path(), missing, limit);
        let none = wait(Missing::IsAnError, Duration::ZERO).expect_err("nobody has locked it");
        assert!(matches!(none, LockError::Io(_, error) if is_absence(&error)));
        assert!(!directory.path().join(NAME).exists(), "nothing is made");
        let lock = wait(Missing::IsMade, Duration::ZERO).expect("nobody has it");
        for missing in [Missing::IsMade, Missing::IsAnError] {
            let held = wait(missing, Duration::from_millis(20)).expect_err("somebody has it");
            assert!(matches!(held, LockError::Held));
        }
        let waits = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(Missing::IsAnError, Duration::from_secs(60)).map(drop));
            drop(lock);
            waiter.join().expect("it does not panic")
        });
        waits.expect("it is given back");
    }
}
