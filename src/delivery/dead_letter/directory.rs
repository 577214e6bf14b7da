//! The files of the dead letters: which there are, and how they are read, removed and written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use forebay_wal::private_files;

use super::DeadLetterError;
use super::lines::{Lines, Piece, Pieces};
use super::lock;

/// What every file of letters is called after its number.
const SUFFIX: &str = ".ndjson";
/// What a file is called while it is written again.
const SUFFIX_NEW: &str = ".new";
/// A directory of dead letters; it need not be there.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// One file of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterFile {
    /// Its number, from 1; letters stand in the order of the numbers.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
}

impl Directory {
    /// The directory of this name.
    pub fn new(path: &Path) -> Directory {
        Directory { path: path.to_owned() }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file with this number is.
    pub fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:08}{SUFFIX}"))
    }

    /// The files of letters, the oldest first; none if there is no directory.
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
                // Removed in between.
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
            // A name that is no UTF-8 is none of ours.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(names)
    }

    /// The lines of a file as they are now, whatever is appended or removed later; `None` if it is not there any more.
    /// The directory is not locked while they are read.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`].
    pub fn read(&self, number: u64) -> Result<Option<Lines>, DeadLetterError> {
        let path = self.file(number);
        let _lock = lock::take_if_there(&self.path)?;
        // What was appended in the middle of this would look like a torn line; hence the lock.
        let opened = File::open(&path).and_then(|file| file.metadata().map(|found| (file, found.len())));
        match opened {
            Ok((file, bytes)) => Ok(Some(Lines::new(file, path, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeadLetterError::io("read", &path)(error)),
        }
    }

    /// Removes those lines of a file for which `goes` says so, and returns how many went, on stable storage. It is
    /// asked of every line in turn, without the line's end; what is too long to be a letter stays. The file is replaced
    /// as a whole, so that a crash leaves it as it was or as it is to be, and nothing that is appended meanwhile is
    /// lost (`what_is_appended_while_lines_are_removed_is_not_lost`).
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; the file is as it was then, or, if only the last step failed, as it is to be.
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
        let (removed, kept) = match copy(&old, &new, goes) {
            Ok(counts) => counts,
            Err(error) => {
                // What cannot be removed now goes with the next change.
                let _ = fs::remove_file(&new);
                return Err(failed("write", &new)(error));
            }
        };
        match (removed, kept) {
            (0, Kept::Nothing) => return Ok(0),
            (0, Kept::InNewFile) => return fs::remove_file(&new).map(|()| 0).map_err(failed("remove", &new)),
            (_, Kept::Nothing) => fs::remove_file(&path).map_err(failed("remove", &path))?,
            (_, Kept::InNewFile) => fs::rename(&new, &path).map_err(failed("replace", &path))?,
        }
        self.sync()?;
        Ok(removed)
    }

    /// Removes what a crash left of files that were being written again: all of it stands in the old files, too. Only
    /// for whoever has the lock.
    pub(super) fn remove_leftovers(&self) -> Result<(), DeadLetterError> {
        for name in self.names()? {
            if numbered(&name, SUFFIX_NEW).is_some() {
                let path = self.path.join(name);
                fs::remove_file(&path).map_err(DeadLetterError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the directory and those above it, unless they are there, and returns when they are on stable storage.
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
    /// What the system says.
    pub fn sync(&self) -> Result<(), DeadLetterError> {
        sync_directory(&self.path).map_err(DeadLetterError::io("sync", &self.path))
    }
}

/// The number in a name of ours.
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

/// Whether the new file has been made: there was something to keep.
enum Kept {
    Nothing,
    InNewFile,
}

/// Copies a file without the lines that go, and returns how many went. The copy is on stable storage. If nothing
/// stays, nothing is written: it must be possible on a full disk.
fn copy(old: &File, new: &Path, goes: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<(u64, Kept)> {
    let mut pieces = Pieces::new(BufReader::new(old));
    let (mut removed, mut writer) = (0, None);
    while let Some(piece) = pieces.next()? {
        let kept = match piece {
            Piece::Line(line) if goes(line.trim_ascii()) => {
                removed += 1;
                continue;
            }
            Piece::Line(bytes) | Piece::TooLong(bytes) | Piece::Rest(bytes) => bytes,
        };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(BufWriter::new(make_like(old, new)?)),
        };
        writer.write_all(kept)?;
    }
    let Some(writer) = writer else { return Ok((removed, Kept::Nothing)) };
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok((removed, Kept::InNewFile))
}

/// Makes a file that belongs to whom the old one belongs: a gateway that runs as another user than this command must
/// be able to append to it.
fn make_like(old: &File, new: &Path) -> io::Result<File> {
    let options = OpenOptions::new().write(true).truncate(true).clone();
    let file = private_files::make_or_open(new, &options)?;
    let (before, now) = (old.metadata()?, file.metadata()?);
    if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        // Whoever may not give it away keeps it; the gateway begins another file then.
        let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
    }
    file.set_permissions(before.permissions())?;
    Ok(file)
}
