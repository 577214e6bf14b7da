//! Only one gateway at a time uses a directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use forebay_wal::LogError;
use forebay_wal::private_files;
use thiserror::Error;

use crate::buffer::OpenError;

/// The name of the file that is locked; it holds the number of the process that has it.
const NAME: &str = "lock";

/// The lock on a directory. The system gives it back when the process ends, however that happens.
#[derive(Debug)]
pub struct Lock {
    locked: File,
    directory: PathBuf,
    /// Which file it is, whatever its name is by now.
    identity: Identity,
    /// Which directory it is, whatever its name is by now.
    directory_identity: Identity,
}

/// The device and the inode of a file.
type Identity = (u64, u64);

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

impl Lost {
    /// What was found missing, if that is what an error of [`Lock::check`] is about.
    pub fn of(error: &LogError) -> Option<Lost> {
        error.error.get_ref()?.downcast_ref().copied()
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Lost::Moved => {
                "put the directory back where it was, with what is in it: the gateway goes on by itself then"
            }
            Lost::Covered => {
                "take away what is in the directory's place, and put the directory back: the gateway goes on by itself \
                 then"
            }
            Lost::Unlocked => {
                "restart the gateway: the start makes a new lock and goes on with what is in the directory; the lock of \
                 a gateway that runs must stay"
            }
            Lost::Relocked => {
                "see that no other gateway uses the directory, then restart this one; each gateway needs a directory of \
                 its own"
            }
        }
    }

    /// Whether a start at the same path does not find what the directory holds.
    pub fn is_elsewhere(self) -> bool {
        match self {
            Lost::Moved | Lost::Covered => true,
            Lost::Unlocked | Lost::Relocked => false,
        }
    }
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
        let directory_identity = identify(directory).map_err(failed)?;
        Ok(Lock { locked: file, directory: directory.to_owned(), identity, directory_identity })
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
    /// If it is not, which [`Lost::of`] tells, or cannot be looked at.
    pub fn check(&self) -> Result<(), LogError> {
        let error = match identify(&self.directory.join(NAME)) {
            Ok(found) if found == self.identity => return Ok(()),
            Ok(_) => self.what_became(Lost::Relocked),
            Err(error) if is_absence(&error) => self.what_became(Lost::Unlocked),
            Err(error) => error,
        };
        Err(LogError { action: "use the directory", path: self.directory.clone(), error })
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

fn identify(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
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
    fn what_became_of_a_directory_that_is_not_as_it_was_is_told_with_what_to_do() {
        let above = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (above.path().join("buffer"), above.path().join("moved"));
        let lock = Lock::take(&path).expect("nobody has it");
        let check = |expected: Lost, advice: &str, is_elsewhere| {
            let error = lock.check().expect_err("it is not as it was");
            assert_eq!(Lost::of(&error), Some(expected), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(
                expected.advice().contains(advice) && expected.is_elsewhere() == is_elsewhere,
                "{expected:?}"
            );
        };
        let (file, hidden) = (path.join(NAME), path.join("hidden"));
        fs::rename(&file, &hidden).expect("a sound disk");
        check(Lost::Unlocked, "restart", false);
        fs::write(&file, "").expect("a sound disk");
        check(Lost::Relocked, "restart", false);
        fs::rename(&hidden, &file).expect("a sound disk");
        lock.check().expect("it is there again");
        fs::rename(&path, &elsewhere).expect("a sound disk");
        check(Lost::Moved, "put the directory back", true);
        fs::write(&path, "").expect("a sound disk");
        check(Lost::Covered, "take away", true);
        fs::remove_file(&path).expect("a sound disk");
        fs::create_dir(&path).expect("a sound disk");
        check(Lost::Covered, "take away", true);
        fs::write(&file, "").expect("a sound disk");
        check(Lost::Covered, "take away", true);
    }

    #[test]
    fn a_directory_that_was_moved_away_or_replaced_is_not_the_one_that_was_locked() {
        let above = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (above.path().join("buffer"), above.path().join("moved"));
        let lock = Lock::take(&path).expect("nobody has it");
        assert!(matches!(Lock::take(&path), Err(OpenError::Locked { .. })));
        lock.check().expect("it is there");
        fs::rename(&path, &elsewhere).expect("a sound disk");
        assert_eq!(Lost::of(&lock.check().expect_err("it is gone")), Some(Lost::Moved));
        let other = Lock::take(&path).expect("it is another one");
        assert!(lock.check().expect_err("it is another one").to_string().contains("another directory"));
        other.check().expect("it is there");
        fs::rename(&path, above.path().join("other")).expect("a sound disk");
        fs::rename(&elsewhere, &path).expect("a sound disk");
        lock.check().expect("it is there again");
    }
}
