//! The files of the dead letters: lists, reads, rewrites and removes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use forebay_wal::private_files;

use super::DeadLetterError;
use super::lines::{LetterLines, LinePiece, LinePieces};
use super::lock;

/// The suffix of a file of letters, after its number.
const SUFFIX: &str = ".ndjson";
/// The suffix of a file while it is rewritten.
const SUFFIX_NEW: &str = ".new";

/// A directory of dead letters, which need not exist.
#[derive(Clone, Debug)]
pub struct LetterDirectory {
    path: PathBuf,
}

/// One file of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterFile {
    /// The number, from 1; the numbers give the order of the letters.
    pub number: u64,
    /// The size in bytes.
    pub bytes: u64,
}

impl LetterDirectory {
    /// The directory at this path, which is not touched yet.
    pub fn new(path: &Path) -> LetterDirectory {
        LetterDirectory { path: path.to_owned() }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file with this number.
    pub fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:08}{SUFFIX}"))
    }

    /// The files of letters, the oldest first; empty if the directory does not exist.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn files(&self) -> Result<Vec<LetterFile>, DeadLetterError> {
        let failed = |error| DeadLetterError::io("read", &self.path)(error);
        let mut files = Vec::new();
        for name in self.names()? {
            let Some(number) = numbered(&name, SUFFIX) else { continue };
            match fs::metadata(self.path.join(name)) {
                Ok(found) => files.push(LetterFile { number, bytes: found.len() }),
                // The file was removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The names in the directory.
    fn names(&self) -> Result<Vec<String>, DeadLetterError> {
        let failed = |error| DeadLetterError::io("read", &self.path)(error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            // Forebay's file names are ASCII, so a name that is not UTF-8 belongs to someone else.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// The lines of a file at this moment, unaffected by later changes; `None` if the file does not exist any more. The
    /// directory is not locked while the lines are read.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`].
    pub fn read(&self, number: u64) -> Result<Option<LetterLines>, DeadLetterError> {
        let path = self.file(number);
        let _lock = lock::take_if_there(&self.path)?;
        // The lock prevents a concurrent append, which would look like a torn line.
        let opened = File::open(&path).and_then(|file| file.metadata().map(|found| (file, found.len())));
        match opened {
            Ok((file, bytes)) => Ok(Some(LetterLines::new(file, path, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeadLetterError::io("read", &path)(error)),
        }
    }

    /// Removes the lines of a file for which `goes` returns true; returns their number when the change is on stable storage.
    /// `goes` is called once for each line, without the line's end; lines too long for a letter stay. The file is replaced as a
    /// whole: a crash leaves the old or the new file, and concurrent appends are not lost
    /// (`letters_appended_while_others_are_removed_are_not_lost`).
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; the file is unchanged then, or, if only the last sync failed, already replaced.
    pub fn remove(&self, number: u64, goes: &mut dyn FnMut(&[u8]) -> bool) -> Result<u64, DeadLetterError> {
        let _lock = lock::take(&self.path)?;
        self.remove_leftovers()?;
        let (path, new) = (self.file(number), self.path.join(format!("{number:08}{SUFFIX_NEW}")));
        let failed = DeadLetterError::io;
        let old = match File::open(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let (removed, new_file) = match copy(&old, &new, goes) {
            Ok(counts) => counts,
            Err(error) => {
                // If this fails, the next change removes the file.
                let _ = fs::remove_file(&new);
                return Err(failed("write", &new)(error));
            }
        };
        match (removed, new_file) {
            (0, NewFile::Absent) => return Ok(0),
            (0, NewFile::Written) => {
                return fs::remove_file(&new).map(|()| 0).map_err(failed("remove", &new));
            }
            (_, NewFile::Absent) => fs::remove_file(&path).map_err(failed("remove", &path))?,
            (_, NewFile::Written) => fs::rename(&new, &path).map_err(failed("replace", &path))?,
        }
        self.sync()?;
        Ok(removed)
    }

    /// Removes rewritten files that a crash left unfinished; the old files still have all lines. The caller must hold the lock.
    pub(super) fn remove_leftovers(&self) -> Result<(), DeadLetterError> {
        for name in self.names()? {
            if numbered(&name, SUFFIX_NEW).is_some() {
                let path = self.path.join(name);
                fs::remove_file(&path).map_err(DeadLetterError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the directory and its missing ancestors, and returns when they are on stable storage.
    pub(super) fn make(&self) -> Result<(), DeadLetterError> {
        let missing: Vec<&Path> = self.path.ancestors().take_while(|path| !path.exists()).collect();
        let failed = |error| DeadLetterError::io("make", &self.path)(error);
        private_files::make_directory(&self.path).map_err(failed)?;
        let above = missing.iter().filter_map(|made| made.parent());
        above.into_iter().try_for_each(sync_directory).map_err(failed)
    }

    /// Returns when the names in the directory are on stable storage.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn sync(&self) -> Result<(), DeadLetterError> {
        sync_directory(&self.path).map_err(DeadLetterError::io("sync", &self.path))
    }
}

/// The number in the name of one of Forebay's files.
fn numbered(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let is_ours = (8..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_ours)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // The parent of a bare name is the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Whether a rewrite has made a new file, which it does only for remaining lines.
enum NewFile {
    Absent,
    Written,
}

/// Copies a file without the lines for which `goes` returns true, to stable storage; returns the number of these lines. If no
/// line remains, no file is made, so that removal works on a full disk.
fn copy(old: &File, new: &Path, goes: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<(u64, NewFile)> {
    let mut pieces = LinePieces::new(BufReader::new(old));
    let (mut removed, mut writer) = (0, None);
    while let Some(piece) = pieces.next()? {
        let kept = match piece {
            LinePiece::Line(line) if goes(line.trim_ascii()) => {
                removed += 1;
                continue;
            }
            LinePiece::Line(bytes) | LinePiece::TooLong(bytes) | LinePiece::Rest(bytes) => bytes,
        };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(BufWriter::new(make_like(old, new)?)),
        };
        writer.write_all(kept)?;
    }
    let Some(writer) = writer else { return Ok((removed, NewFile::Absent)) };
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok((removed, NewFile::Written))
}

/// Makes a file with the owner of the old one: a gateway that runs as another user than this command must be able to append to
/// it.
fn make_like(old: &File, new: &Path) -> io::Result<File> {
    let options = OpenOptions::new().write(true).truncate(true).clone();
    let file = private_files::make_or_open(new, &options)?;
    let (before, now) = (old.metadata()?, file.metadata()?);
    if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        // Without the permission for this, the gateway will begin another file.
        let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
    }
    file.set_permissions(before.permissions())?;
    Ok(file)
}
