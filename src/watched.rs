//! Files whose content is looked at while the gateway runs: certificates, keys, secrets.
//!
//! [`FileWatcher`] reads each group of files every [`LOOK_EVERY`]. New content is handed on once two looks that are
//! [`SETTLED_AFTER`] apart agree, so that a file that somebody is still writing is left alone. Content that its
//! [`Subject`] refuses leaves the old content in force; it is logged and counted once, not at every look.
//!
//! The content is compared, and no notification of the system is asked for: Kubernetes swaps a mounted secret by renaming a
//! symbolic link, and a watch on the file ends with the file that it replaced.
//!
//! Limits: a file has at most [`FILE_BYTES_MAX`] bytes, and only regular files are read. Reading and taking happen on a thread
//! for blocking work.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::filesystem;
use crate::tasks;

/// Time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Time between a look that finds new content and the look that has to find the same.
pub const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How often files are looked at.
#[derive(Clone, Copy, Debug)]
pub struct WatchTimes {
    /// Time between two looks.
    pub look_every: Duration,
    /// Time between a look that finds new content and the look that has to find the same.
    pub settled_after: Duration,
}

impl Default for WatchTimes {
    /// [`LOOK_EVERY`] and [`SETTLED_AFTER`].
    fn default() -> WatchTimes {
        WatchTimes { look_every: LOOK_EVERY, settled_after: SETTLED_AFTER }
    }
}

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a regular file of at most [`FILE_BYTES_MAX`] bytes.
///
/// # Errors
///
/// A sentence for people that names the file, what is wrong, and what to do.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let problem = |error: std::io::Error| {
        format!("{shown} cannot be read: {error}{}", filesystem::advice_on_file(path, &error))
    };
    // A directory opens; a pipe would wait for a writer, so the kind is asked first.
    let found = std::fs::metadata(path).map_err(problem)?;
    if !found.is_file() {
        let kind = if found.is_dir() { "a directory" } else { "not a regular file" };
        return Err(format!("{shown} cannot be read: it is {kind}; allowed: a file"));
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(problem)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(problem)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown} cannot be read: it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    Ok(content)
}

/// The contents of files, by their paths. To clone it is cheap.
#[derive(Clone, Default)]
pub struct FileContents(HashMap<PathBuf, Arc<[u8]>>);

impl FileContents {
    /// Reads several files.
    ///
    /// # Errors
    ///
    /// What [`read`] says of the first file that cannot be read.
    pub fn read<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<FileContents, String> {
        let read = |path: &Path| Ok((path.to_owned(), read(path)?.into()));
        paths.into_iter().map(read).collect::<Result<_, _>>().map(FileContents)
    }

    /// The content of a file; nothing if the file is not among these.
    pub fn of(&self, path: &Path) -> &[u8] {
        self.0.get(path).map(AsRef::as_ref).unwrap_or_default()
    }

    /// These contents with the changed ones in their places.
    #[must_use]
    pub fn with(&self, changed: &FileContents) -> FileContents {
        let mut all = self.clone();
        all.0.extend(changed.0.iter().map(|(path, content)| (path.clone(), Arc::clone(content))));
        all
    }

    fn digest(&self, paths: &[PathBuf]) -> [u8; 32] {
        let mut sha = Sha256::new();
        for content in paths.iter().map(|path| self.of(path)) {
            sha.update((content.len() as u64).to_le_bytes());
            sha.update(content);
        }
        sha.finalize().into()
    }
}

/// The paths alone: a content may be a secret.
impl Debug for FileContents {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Takes the content of a group of files that belong together, such as a certificate and its key.
pub trait Subject: Debug + Send + 'static {
    /// The name of the group in the log and metrics: "keys", "server.tls".
    fn name(&self) -> &'static str;

    /// The files.
    fn paths(&self) -> Vec<PathBuf>;

    /// Puts new content in force.
    ///
    /// # Errors
    ///
    /// The fault of the new content, for people; the old content must still be in force then.
    fn take(&mut self, contents: &FileContents) -> Result<(), String>;
}

/// A group of files under watch.
#[derive(Debug)]
pub struct Watched {
    subject: Box<dyn Subject>,
    /// Content that was taken.
    taken: IntCounter,
    /// Content that was refused.
    refused: IntCounter,
    /// The state of the files that was taken or refused last.
    known: Found,
}

/// The state of a group of files, in a form that is quick to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// The SHA-256 of all contents.
    Content([u8; 32]),
    /// Why a file cannot be read.
    Unreadable(String),
}

impl Watched {
    /// Watches the files of a subject that has taken their `contents` already. Later changes are counted by their result,
    /// `taken` or `refused`.
    pub fn new(
        subject: impl Subject,
        contents: &FileContents,
        counter: impl Fn(&str) -> IntCounter,
    ) -> Watched {
        let known = Found::Content(contents.digest(&subject.paths()));
        Watched { subject: Box::new(subject), taken: counter("taken"), refused: counter("refused"), known }
    }

    /// The present state of the files, if it differs from the known one.
    fn news(&self) -> Option<Found> {
        Some(self.look().0).filter(|found| *found != self.known)
    }

    fn look(&self) -> (Found, FileContents) {
        let paths = self.subject.paths();
        match FileContents::read(paths.iter().map(PathBuf::as_path)) {
            Ok(contents) => (Found::Content(contents.digest(&paths)), contents),
            Err(problem) => (Found::Unreadable(problem), FileContents::default()),
        }
    }

    /// Takes or refuses the present content, if the state is the same as `before`, [`SETTLED_AFTER`] ago.
    fn settle(&mut self, before: &Found) {
        let (found, contents) = self.look();
        if found != *before || found == self.known {
            return;
        }
        let outcome = match &found {
            Found::Content(_) => self.subject.take(&contents),
            Found::Unreadable(problem) => Err(problem.clone()),
        };
        self.known = found;
        let files = self.subject.name();
        match outcome {
            Ok(()) => {
                self.taken.inc();
                info!(files, "changed files are in force");
            }
            Err(reason) => {
                self.refused.inc();
                warn!(files, reason, "changed files do not fit; what was in force before stays in force");
            }
        }
    }
}

/// Looks at groups of files again and again.
#[derive(Debug)]
pub struct FileWatcher {
    watched: Vec<Watched>,
    times: WatchTimes,
}

impl FileWatcher {
    /// Watches these groups.
    pub fn new(watched: Vec<Watched>, times: WatchTimes) -> FileWatcher {
        FileWatcher { watched, times }
    }

    /// Looks again and again until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.watched.is_empty() {
            return stop.cancelled().await;
        }
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(self.times.look_every)).await.is_none() {
                return;
            }
            let Some(next) = stop.run_until_cancelled(self.look()).await else { return };
            self = next;
        }
    }

    /// One round.
    async fn look(self) -> FileWatcher {
        let first = tokio::task::spawn_blocking(move || {
            let looks: Vec<_> = self.watched.iter().map(Watched::news).collect();
            (self, looks)
        });
        let (mut watcher, looks) = tasks::outcome(first.await).await;
        if looks.iter().all(Option::is_none) {
            return watcher;
        }
        tokio::time::sleep(watcher.times.settled_after).await;
        let second = tokio::task::spawn_blocking(move || {
            for (group, look) in watcher.watched.iter_mut().zip(&looks) {
                if let Some(before) = look {
                    group.settle(before);
                }
            }
            watcher
        });
        tasks::outcome(second.await).await
    }
}

#[cfg(test)]
mod tests;
