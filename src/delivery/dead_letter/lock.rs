//! One at a time changes the directory, in whichever process.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::DeadLetterError;
use crate::directory_lock::{DirectoryLock, LockError, Missing};

/// Longest wait for somebody else. Whoever has the lock writes one file at most.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits for the lock, for whoever wants to change something. The directory must be there.
///
/// # Errors
///
/// [`DeadLetterError::Locked`] if others have it for too long; what the system says.
pub(super) fn take(directory: &Path) -> Result<DirectoryLock, DeadLetterError> {
    wait(directory, Missing::IsMade)
}

/// Waits for the lock, for whoever only reads: nothing is made. `None` if nobody has ever locked the directory.
///
/// # Errors
///
/// [`DeadLetterError::Locked`] if others have it for too long; what the system says.
pub(super) fn take_if_there(directory: &Path) -> Result<Option<DirectoryLock>, DeadLetterError> {
    match wait(directory, Missing::IsAnError) {
        Ok(lock) => Ok(Some(lock)),
        Err(DeadLetterError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait(directory: &Path, missing: Missing) -> Result<DirectoryLock, DeadLetterError> {
    DirectoryLock::wait(directory, missing, WAIT_MAX).map_err(|error| match error {
        LockError::Held => DeadLetterError::Locked { path: directory.to_owned() },
        LockError::Io(path, error) => DeadLetterError::io("lock", &path)(error),
    })
}
