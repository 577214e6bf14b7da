//! Only one gateway at a time uses a directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

use crate::buffer::OpenError;

/// The name of the file that is locked; it holds the number of the process that has it.
const NAME: &str = "lock";

/// The lock on a directory. The system gives it back when the process ends, however that happens.
#[derive(Debug)]
pub struct Lock {
    _locked: File,
}

impl Lock {
    /// Takes the lock, and makes the directory if it is not there.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] if another process has it, [`OpenError::Directory`] if the directory cannot be made, or
    /// what the system says.
    pub fn take(directory: &Path) -> Result<Lock, OpenError> {
        fs::create_dir_all(directory)
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
        Ok(Lock { _locked: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.or_else(|error| match error.kind() {
        // What is there can be delivered, also from a disk that takes no more.
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => File::open(path),
        _ => Err(error),
    })
}
