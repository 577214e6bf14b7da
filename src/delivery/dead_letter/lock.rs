//! Locks the directory, so that only one process changes it at a time.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::DeadLetterError;
use crate::directory_lock::{DirectoryLock, LockError, MissingLock};

/// Longest wait for another process. A holder of the lock writes at most one file.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits for the lock, before a change. The directory must exist.
///
/// # Errors
///
/// [`DeadLetterError::Locked`] if another process holds the lock for too long; an error of the system.
pub(super) fn take(directory: &Path) -> Result<DirectoryLock, DeadLetterError> {
    wait(directory, MissingLock::Create)
}

/// Waits for the lock, before reading: the file is not made. `None` if the directory was never locked.
///
/// # Errors
///
/// [`DeadLetterError::Locked`] if another process holds the lock for too long; an error of the system.
pub(super) fn take_if_there(directory: &Path) -> Result<Option<DirectoryLock>, DeadLetterError> {
    match wait(directory, MissingLock::Fail) {
        Ok(lock) => Ok(Some(lock)),
        Err(DeadLetterError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait(directory: &Path, missing: MissingLock) -> Result<DirectoryLock, DeadLetterError> {
    DirectoryLock::wait(directory, missing, WAIT_MAX).map_err(|error| match error {
        LockError::Held => DeadLetterError::Locked { path: directory.to_owned() },
        LockError::Io(path, error) => DeadLetterError::io("lock", &path)(error),
    })
}
