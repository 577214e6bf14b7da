//! The file of keys on disk: read and replaced as a whole, by one command at a time.
//!
//! A change is written to a file beside it, synced, and renamed over it: a gateway sees the old content or the new. Owner,
//! group and mode stay those of the old file; a new one is for its user alone, and belongs to whom its directory does.
//!
//! Once it is renamed, the new content is in force, whatever happens next: a directory that cannot be synced then is told,
//! and is no failure. The key that was just made would be lost otherwise.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use forebay_wal::private_files;
use rustix::fs::{FlockOperation, flock};

use super::edit::Document;
use crate::filesystem;
use crate::watched;

/// How often another command may replace the file while this one waits for it.
const TRIES_MAX: usize = 100;

/// Syncs the directory of a file.
type SyncDirectory = fn(&Path) -> io::Result<()>;

/// New content that is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct WrittenFile {
    /// Why a power cut may still bring the old content back, for people.
    pub(super) warning: Option<String>,
}

/// A file of keys that no other command changes meanwhile.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    /// Holds the lock until it is dropped.
    file: File,
}

impl KeyFile {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// A sentence for people.
    pub(super) fn open(path: &Path) -> Result<KeyFile, String> {
        KeyFile::lock(path, OpenOptions::new().read(true))
    }

    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// A sentence for people.
    pub(super) fn open_or_make(path: &Path) -> Result<KeyFile, String> {
        if !path.exists() {
            make(path).map_err(|error| problem(path, "cannot be made", &error))?;
        }
        KeyFile::open(path)
    }

    fn lock(path: &Path, options: &OpenOptions) -> Result<KeyFile, String> {
        // A link is followed once, so that the file and not the link is replaced.
        let path = fs::canonicalize(path).map_err(|error| problem(path, "cannot be read", &error))?;
        for _ in 0..TRIES_MAX {
            let file = options.open(&path).map_err(|error| problem(&path, "cannot be read", &error))?;
            flock(&file, FlockOperation::LockExclusive)
                .map_err(|error| problem(&path, "cannot be locked", &error.into()))?;
            // Another command may have replaced it while this one waited.
            let is_there = match (file.metadata(), fs::metadata(&path)) {
                (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
                _ => false,
            };
            if is_there {
                return Ok(KeyFile { path, file });
            }
        }
        Err(format!("{} is replaced again and again by another command", path.display()))
    }

    /// Its content.
    ///
    /// # Errors
    ///
    /// A sentence for people.
    pub(super) fn document(&self) -> Result<Document, String> {
        let content = watched::read(&self.path)?;
        let text = String::from_utf8(content)
            .map_err(|_| format!("{}: the file is not UTF-8", self.path.display()))?;
        Document::read(&text).map_err(|problem| format!("{}: {problem}", self.path.display()))
    }

    /// Puts new content in the place of the old.
    ///
    /// # Errors
    ///
    /// A sentence for people; the old content is still there then.
    pub(super) fn write(&mut self, document: &Document) -> Result<WrittenFile, String> {
        self.write_with(document, sync_directory)
    }

    fn write_with(&mut self, document: &Document, sync: SyncDirectory) -> Result<WrittenFile, String> {
        let text = document.checked().map_err(|problem| format!("{}: {problem}", self.path.display()))?;
        let new = self.path.with_added_extension("new");
        self.replace(&new, &text).map_err(|error| {
            let _ = fs::remove_file(&new);
            let problem = problem(&self.path, "cannot be written", &error);
            format!("{problem}; `forebay keys add --print` shows an entry, to be put there by hand")
        })?;
        let shown = self.path.display();
        let warning = sync(&self.path).err().map(|error| {
            format!(
                "{shown} is written and in force, but its directory could not be synced: {error}; after a power cut the \
                 old content may be back"
            )
        });
        Ok(WrittenFile { warning })
    }

    fn replace(&self, new: &Path, text: &str) -> io::Result<()> {
        let before = self.file.metadata()?;
        // What an earlier command left half written goes, and so does a link that somebody put there.
        match fs::remove_file(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private_files::make_new(new, OpenOptions::new().write(true))?;
        file.set_permissions(before.permissions())?;
        if (before.uid(), before.gid()) != (file.metadata()?.uid(), file.metadata()?.gid()) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, &self.path)
    }
}

/// Makes an empty file, unless it is there. Its directory is synced when it gets its content.
fn make(path: &Path) -> io::Result<()> {
    match private_files::make_new(path, OpenOptions::new().write(true)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(|_| ()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn problem(path: &Path, what: &str, error: &io::Error) -> String {
    format!("{} {what}: {error}{}", path.display(), filesystem::advice_on_file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_is_in_its_place_is_no_failure_when_its_directory_cannot_be_synced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        let text = "# none yet\n";
        let document = Document::read(text).expect("a document");
        let mut file = KeyFile::open_or_make(&path).expect("made");
        let written = file.write_with(&document, |_| Err(io::Error::other("the disk says no")));
        let warning = written.expect("it is written").warning.expect("it is told");
        assert!(
            warning.contains("is written and in force") && warning.contains("the disk says no"),
            "{warning}"
        );
        assert_eq!(fs::read_to_string(&path).expect("the file"), text);
        let mut file = KeyFile::open(&path).expect("opened");
        assert_eq!(file.write(&document), Ok(WrittenFile { warning: None }));
    }
}
