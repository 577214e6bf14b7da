//! One at a time changes the directory, in whichever process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_wal::private_files;

use super::DeadLetterError;

/// The name of the file that is locked.
const NAME: &str = "lock";
/// Longest wait for somebody else. Whoever has the lock writes one file at most.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock on a directory, until it is dropped. The system gives it back when the process ends, however that happens.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not looked at")] File);

impl Lock {
    /// Waits for the lock, for whoever wants to change something. The directory must be there.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError::Locked`] if others have it for too long; what the system says.
    pub(super) fn take(directory: &Path) -> Result<Lock, DeadLetterError> {
        wait(directory, open)
    }

    /// Waits for the lock, for whoever only reads: nothing is made. `None` if nobody has ever locked the directory.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError::Locked`] if others have it for too long; what the system says.
    pub(super) fn take_if_there(directory: &Path) -> Result<Option<Lock>, DeadLetterError> {
        match wait(directory, |path| File::open(path)) {
            Ok(lock) => Ok(Some(lock)),
            Err(DeadLetterError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn wait(directory: &Path, open: impl Fn(&Path) -> io::Result<File>) -> Result<Lock, DeadLetterError> {
    let path = directory.join(NAME);
    let failed = |error| DeadLetterError::io("lock", &path)(error);
    let until = Instant::now() + WAIT_MAX;
    loop {
        let file = open(&path).map_err(failed)?;
        match file.try_lock() {
            // Somebody may have removed the file of that name; then the lock on it keeps nobody out.
            Ok(()) if is_still(&file, &path).map_err(failed)? => return Ok(Lock(file)),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if Instant::now() >= until {
            return Err(DeadLetterError::Locked { path: directory.to_owned() });
        }
        std::thread::sleep(PAUSE);
    }
}

fn open(path: &Path) -> io::Result<File> {
    private_files::make_or_open(path, OpenOptions::new().read(true).write(true)).or_else(|error| match error
        .kind()
    {
        // Made by another user; a lock needs no writing.
        io::ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    })
}

fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
