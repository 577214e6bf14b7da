//! The file system behind a trait, so that tests can replace it with one that fails.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::private_files;

/// Whether an error says that the disk is full, or the user's share of it.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The operations of a file system that the log needs.
pub trait Fs: Send + Sync + fmt::Debug {
    /// Makes a directory and its ancestors.
    ///
    /// # Errors
    ///
    /// Any I/O error; so do all other calls.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a directory, in no particular order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file, or empties an existing one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;

    /// Opens a file for reading and, if allowed, for writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;

    /// Renames a file, and replaces the file that had the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns once the names in the directory are on stable storage: without it a crash can lose a new file, or bring a
    /// removed one back.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The operations of an open file that the log needs.
pub trait LogFile: Send + Sync + fmt::Debug {
    /// Size in bytes.
    ///
    /// # Errors
    ///
    /// Any I/O error; so do all other calls.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on, as far as the file goes, and returns how many bytes it has read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once the written bytes and the size of the file are on stable storage (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// Bytes of one read and write in [`renew`].
const STEP_BYTES: u64 = 1024 * 1024;

/// Reads a part of a file, writes it once more, and returns once it is on stable storage.
///
/// A sync alone is not enough after a failed one, in this process or an earlier one: the system may mark pages as clean
/// that never reached the disk. On a read-only file system this does nothing, for none of our writes can be lost there.
///
/// # Errors
///
/// Any I/O error.
pub(super) fn renew(file: &dyn LogFile, bytes: Range<u64>) -> io::Result<()> {
    let mut at = bytes.start;
    while at < bytes.end {
        let mut buffer = vec![0; usize::try_from((bytes.end - at).min(STEP_BYTES)).unwrap_or(1)];
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        match file.write_at(&buffer[..read], at) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            written => written?,
        }
        at += read as u64;
    }
    file.sync()
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        private_files::make_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // Forebay's file names are ASCII, so a name that is not UTF-8 belongs to someone else.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let options = OpenOptions::new().read(true).write(true).truncate(true).clone();
        let file = private_files::make_or_open(path, &options)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Arc::new(OsFile(file))),
            // A log on a read-only disk is still read and delivered.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(Arc::new(ReadOnlyFile(OsFile(fs::File::open(path)?))))
            }
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

/// The file system of the operating system, for inspecting a log without changing anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyFs;

impl Fs for ReadOnlyFs {
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        OsFs.list(directory)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn LogFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(ReadOnlyFile(OsFile(fs::File::open(path)?))))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct OsFile(fs::File);

impl LogFile for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A file that refuses writes.
#[derive(Debug)]
struct ReadOnlyFile(OsFile);

impl LogFile for ReadOnlyFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}
