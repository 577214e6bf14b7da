//! Dead letters: single readings that nodes refused, stored on disk for people to inspect.
//!
//! After an append, the letters are on stable storage, so their readings can be settled. The gateway never removes letters.
//! `forebay dead-letters` lists, replays and purges them, also while a gateway runs.
//!
//! # The directory
//!
//! `dead_letter.path` is made at the start of a gateway. It contains:
//!
//! - `00000001.ndjson` and so on: the letters, one a line, in the order in which they were appended. [`letter`] describes the
//!   format; lines with the same batch and place are one letter ([`LetterSet`]). A new file begins when the last one would grow
//!   beyond [`FILE_BYTES`], ends within a line, or cannot be written. All files together never take more than
//!   `dead_letter.max_bytes`: an append beyond that fails ([`DeadLetterError::Full`]), and its readings stay in the buffer.
//! - `00000001.new`: a file that is being rewritten without some of its lines. The next change removes the remains of a crash.
//! - `lock`: locked during every append and every change, and never replaced meanwhile. It is held only while one file is
//!   written; a wait for it is bounded ([`DeadLetterError::Locked`]).
//! - `reserve`: room for letters on a full disk (`reserve.rs`). It contains no letters.
//! - `replay`: the record of `forebay dead-letters replay` about letters that it sent without an answer so far.
//!
//! Files are opened for each append, since other processes may have removed or rewritten them.

mod append;
mod census;
mod directory;
pub mod letter;
mod letter_set;
mod lines;
mod lock;
mod origin;
mod reserve;
mod room;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_reading::quantity::format_size;
use forebay_reading::timestamp::Timestamp;
use thiserror::Error;

use crate::filesystem;

use census::Census;
pub use census::LetterTotals;
pub use directory::{LetterDirectory, LetterFile};
pub use letter_set::LetterSet;
pub use lines::{LetterLine, LetterLines};
pub use origin::LetterOrigin;
use reserve::Reserve;
pub use room::Leftover;

/// Size at which a new file begins, in bytes. The letters of one append are in one file.
pub const FILE_BYTES: u64 = 16 << 20;
/// Longest part of a node's answer in a letter, in bytes.
pub const BODY_BYTES_MAX: usize = 1024;
/// Longest part of a node's answer in the log, in characters.
const WORDS_CHARS_MAX: usize = 200;

/// The settings of the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    /// The directory.
    pub path: PathBuf,
    /// Most bytes of all files together.
    pub max_bytes: u64,
}

/// A reading that nodes refused, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reading as canonical JSON, one object without a line end.
    pub reading: Vec<u8>,
    /// The reason, as [`crate::buffer::ledger::DeadLetterReason::name`].
    pub reason: &'static str,
    /// The status of the node's answer.
    pub status: u16,
    /// The name of the node.
    pub node: String,
    /// The body of the node's answer, cut at [`BODY_BYTES_MAX`] when it is written.
    pub body: String,
    /// The time of the refusal.
    pub at: Timestamp,
    /// The reading's batch and place, which identify the letter.
    pub origin: Option<LetterOrigin>,
}

/// Why letters cannot be written, read or removed.
#[derive(Debug, Error)]
pub enum DeadLetterError {
    /// The letters do not fit into `dead_letter.max_bytes`.
    #[error(
        "the dead letters in {} take {} of {} (`dead_letter.max_bytes`), and {} more do not fit; replay or purge \
         some with `forebay dead-letters`, or raise the limit",
        path.display(), format_size(*held), format_size(*limit), format_size(*need)
    )]
    Full {
        /// The directory.
        path: PathBuf,
        /// Bytes in use.
        held: u64,
        /// Bytes to add.
        need: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Another process holds the lock of the directory for too long.
    #[error("{} is locked by another process that does not let go of it", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file or the directory cannot be used.
    #[error("cannot {action} {}: {error}{}", path.display(), advice(action, path, error))]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl DeadLetterError {
    /// Adds the action and the file to an error of the system.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeadLetterError + use<> {
        let path = path.to_owned();
        move |error| DeadLetterError::Io { action, path, error }
    }
}

/// Advice on how this process can use a file, or make the directory.
fn advice(action: &str, path: &Path, error: &io::Error) -> String {
    match action {
        "make" => filesystem::advice_on_directory(path, error),
        _ => filesystem::advice_on_file(path, error),
    }
}

/// Stores dead letters. Clones use the same directory and share their state.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    config: Arc<DeadLetterConfig>,
    /// Why the last append failed. Locked only to set or read it.
    trouble: Arc<Mutex<Option<String>>>,
    /// A description of the last letter. Locked only to set or read it.
    latest: Arc<Mutex<Option<String>>>,
    counts: Arc<LetterCounts>,
    /// Whether [`DeadLetters::look_after`] has work to do.
    wants_care: Arc<AtomicBool>,
}

/// The counts of stored letters.
#[derive(Debug, Default)]
struct LetterCounts {
    /// Locked while one caller looks at the files.
    census: Mutex<Census>,
    /// The last result. Locked only to set or read it.
    latest: Mutex<Option<LetterTotals>>,
}

impl DeadLetters {
    /// Makes a store of dead letters; nothing is written yet.
    pub fn new(config: DeadLetterConfig) -> DeadLetters {
        DeadLetters {
            config: Arc::new(config),
            trouble: Arc::default(),
            latest: Arc::default(),
            counts: Arc::default(),
            wants_care: Arc::default(),
        }
    }

    /// Appends letters, all or none, and returns when they are on stable storage. Blocks on the disk, and up to ten seconds on
    /// other processes that hold the lock.
    ///
    /// A failed append leaves no letters, unless the disk cannot even remove them: then the next attempt may store them twice.
    /// A crash may leave some of the letters, the last one perhaps torn.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; the append should be retried later.
    pub fn append(&self, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        let mut lines = Vec::new();
        letters.iter().for_each(|letter| letter::write(letter, &mut lines));
        let result = match lines.is_empty() {
            true => Ok(()),
            false => append::append(&LetterDirectory::new(&self.config.path), &lines, self.config.max_bytes),
        };
        *self.lock_trouble() = result.as_ref().err().map(ToString::to_string);
        if !self.reserve().is_whole() {
            self.want_care();
        }
        if let (Ok(()), Some(last)) = (&result, letters.last()) {
            *lock(&self.latest) = Some(last.summary());
        }
        result
    }

    /// Requests a call of [`DeadLetters::look_after`].
    pub fn want_care(&self) {
        self.wants_care.store(true, Ordering::Relaxed);
    }

    /// Whether [`DeadLetters::look_after`] is requested. The request is then withdrawn: the caller must fulfil it.
    pub fn takes_care(&self) -> bool {
        self.wants_care.swap(false, Ordering::Relaxed)
    }

    /// Fills the reserve if the disk has room, and counts the letters if nobody has yet. Requests another call if that fails.
    /// Blocks on the disk.
    pub fn look_after(&self) {
        let filled = self.keep_reserve();
        if self.last_waiting().is_none() {
            self.waiting();
        }
        if filled.is_err() || !self.reserve().is_whole() {
            self.want_care();
        }
    }

    /// Reserves room for letters on a full disk, if the directory exists and the disk has room now. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// The directory cannot be locked; the call should be retried later.
    pub fn keep_reserve(&self) -> Result<(), DeadLetterError> {
        self.reserve().keep(&LetterDirectory::new(&self.config.path))
    }

    fn reserve(&self) -> Reserve {
        Reserve::of(&LetterDirectory::new(&self.config.path), self.config.max_bytes)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.config.path
    }

    /// A description of the last letter for people; `None` if there was none since the start.
    pub fn latest(&self) -> Option<String> {
        lock(&self.latest).clone()
    }

    /// Counts the stored letters, including those of earlier runs. Blocks on the disk. Returns the last count if another caller
    /// is counting at this moment, or if the directory cannot be read.
    pub fn waiting(&self) -> Option<LetterTotals> {
        let census = match self.last_waiting() {
            Some(_) => self.counts.census.try_lock().ok(),
            // There is no last count yet, so wait for the other caller.
            None => Some(lock(&self.counts.census)),
        };
        if let Some(mut census) = census
            && let Ok(found) = census.look(&LetterDirectory::new(&self.config.path))
        {
            *lock(&self.counts.latest) = Some(found);
        }
        self.last_waiting()
    }

    /// The last count; `None` if nobody has counted yet. Does not block.
    pub fn last_waiting(&self) -> Option<LetterTotals> {
        *lock(&self.counts.latest)
    }

    /// Why the last append failed, for people; `None` if it succeeded, or there was none. Does not block.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    fn lock_trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        lock(&self.trouble)
    }
}

impl DeadLetter {
    /// A description for the log.
    fn summary(&self) -> String {
        let DeadLetter { reason, status, node, body, .. } = self;
        let answer: String = body.chars().take(WORDS_CHARS_MAX).collect();
        match node.is_empty() {
            true => format!("{reason}: {answer}"),
            false => format!("{reason} by {node} with {status}: {answer}"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
