//! Dead letters: readings that nodes refused, one by one, kept on disk for a person to look at.
//!
//! Whoever appends may count the readings as settled afterwards: they are on stable storage then. Nothing is ever
//! removed here. `forebay dead-letters` lists, replays and purges them, also while a gateway runs.
//!
//! # The directory
//!
//! `dead_letter.path` is made at the start of a gateway. In it:
//!
//! - `00000001.ndjson` and so on: the letters, a line each, in the order in which they came ([`letter`] has the
//!   form; lines with the same batch and place are one letter: [`Letters`]). The next one begins when a file would grow beyond [`FILE_BYTES`], or when the last one ends in the middle
//!   of a line or cannot be written to. Together they never take more than `dead_letter.max_bytes`: what does not fit
//!   is not taken ([`DeadLetterError::Full`]), and its readings stay in the buffer.
//! - `00000001.new`: a file that is being written again without some of its lines. What a crash leaves of it goes
//!   with the next change.
//! - `lock`: locked, and by its name still the same file, during every append and every change. Nobody holds it for
//!   longer than it takes to write one file; whoever waits for it in vain gives up ([`DeadLetterError::Locked`]).
//! - `reserve`: room for letters on a full disk (`reserve.rs`). It is no letter, and does not count as one.
//! - `replay`: made by `forebay dead-letters replay`, which notes there what it has sent and not heard of.
//!
//! Files are opened for each append, since others may have removed or rewritten them in between.

mod append;
mod census;
mod directory;
pub mod letter;
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
pub use census::Waiting;
pub use directory::{Directory, LetterFile};
pub use lines::{Line, Lines};
pub use origin::{Letters, Origin};
use reserve::Reserve;
pub use room::Leftover;

/// Size from which on the next file is begun, in bytes. What is appended at once stands in one file.
pub const FILE_BYTES: u64 = 16 << 20;
/// Most of a node's answer that is kept, in bytes.
pub const BODY_BYTES_MAX: usize = 1024;
/// Most of it that the log shows, in characters.
const WORDS_CHARS_MAX: usize = 200;

/// The settings of the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterConfig {
    /// The directory.
    pub path: PathBuf,
    /// Most bytes that all files together may take.
    pub max_bytes: u64,
}

/// A reading that is given to people, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reading as canonical JSON, one object without a line end.
    pub reading: Vec<u8>,
    /// Why, by its name: [`crate::buffer::ledger::DeadLetterReason::name`].
    pub reason: &'static str,
    /// What the node answered.
    pub status: u16,
    /// The node.
    pub node: String,
    /// How its answer begins; what is longer than [`BODY_BYTES_MAX`] is cut.
    pub body: String,
    /// When it was refused.
    pub at: Timestamp,
    /// Where it was, by which the letter is known.
    pub origin: Option<Origin>,
}

/// Why letters are not kept, or cannot be worked on.
#[derive(Debug, Error)]
pub enum DeadLetterError {
    /// No room.
    #[error(
        "the dead letters in {} take {} of {} (`dead_letter.max_bytes`), and {} more do not fit; replay or purge \
         some with `forebay dead-letters`, or raise the limit",
        path.display(), format_size(*held), format_size(*limit), format_size(*need)
    )]
    Full {
        /// The directory.
        path: PathBuf,
        /// Bytes that are taken.
        held: u64,
        /// Bytes that were to be added.
        need: u64,
        /// Bytes that may be taken.
        limit: u64,
    },
    /// Somebody else works on the directory, and does not come to an end.
    #[error("{} is locked by another process that does not let go of it", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file or the directory cannot be used.
    #[error("cannot {action} {}: {error}{}", path.display(), advice(action, path, error))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl DeadLetterError {
    /// Says what was tried with which file when the system refused.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeadLetterError + use<> {
        let path = path.to_owned();
        move |error| DeadLetterError::Io { action, path, error }
    }
}

/// What lets this process use a file, or make the directory.
fn advice(action: &str, path: &Path, error: &io::Error) -> String {
    match action {
        "make" => filesystem::advice_on_directory(path, error),
        _ => filesystem::advice_on_file(path, error),
    }
}

/// Keeps dead letters. Clones work on the same directory and share what is known of its trouble.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    config: Arc<DeadLetterConfig>,
    /// Why the last append failed. Held for setting and reading it.
    trouble: Arc<Mutex<Option<String>>>,
    /// What the last letters were about. Held for setting and reading it.
    latest: Arc<Mutex<Option<String>>>,
    counted: Arc<Counted>,
    /// Whether [`DeadLetters::look_after`] has something to do.
    wants_care: Arc<AtomicBool>,
}

/// What is known of the letters that wait.
#[derive(Debug, Default)]
struct Counted {
    /// Held while the files are looked at, by whoever came first.
    census: Mutex<Census>,
    /// What it found last. Held for setting and reading it.
    found: Mutex<Option<Waiting>>,
}

impl DeadLetters {
    /// Will keep letters as the settings say.
    pub fn new(config: DeadLetterConfig) -> DeadLetters {
        DeadLetters {
            config: Arc::new(config),
            trouble: Arc::default(),
            latest: Arc::default(),
            counted: Arc::default(),
            wants_care: Arc::default(),
        }
    }

    /// Keeps letters, all or none, and returns when they are on stable storage. It blocks: on the disk, and for up to
    /// ten seconds on others who work on the directory.
    ///
    /// After a failure none is there, unless the disk would not even let go of what was written: then the same letters
    /// may be there twice after the next try. A crash in the middle leaves some of them, the last perhaps torn.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; it is worth another try later.
    pub fn append(&self, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        let mut lines = Vec::new();
        letters.iter().for_each(|letter| letter::write(letter, &mut lines));
        let kept = match lines.is_empty() {
            true => Ok(()),
            false => append::append(&Directory::new(&self.config.path), &lines, self.config.max_bytes),
        };
        *self.lock_trouble() = kept.as_ref().err().map(ToString::to_string);
        if !self.reserve().is_whole() {
            self.want_care();
        }
        if let (Ok(()), Some(last)) = (&kept, letters.last()) {
            *lock(&self.latest) = Some(last.words());
        }
        kept
    }

    /// Has the directory looked after soon.
    pub fn want_care(&self) {
        self.wants_care.store(true, Ordering::Relaxed);
    }

    /// Whether the directory is to be looked after; whoever asks does it.
    pub fn takes_care(&self) -> bool {
        self.wants_care.swap(false, Ordering::Relaxed)
    }

    /// Makes the reserve whole if there is room, and counts what waits if nobody has. What cannot be done now is wanted
    /// again. It blocks on the disk.
    pub fn look_after(&self) {
        let kept = self.keep_reserve();
        if self.last_waiting().is_none() {
            self.waiting();
        }
        if kept.is_err() || !self.reserve().is_whole() {
            self.want_care();
        }
    }

    /// Makes room for letters on a full disk, if the directory is there and the disk has room now. It blocks on the
    /// disk.
    ///
    /// # Errors
    ///
    /// The directory cannot be locked; it is worth another try later.
    pub fn keep_reserve(&self) -> Result<(), DeadLetterError> {
        self.reserve().keep(&Directory::new(&self.config.path))
    }

    fn reserve(&self) -> Reserve {
        Reserve::of(&Directory::new(&self.config.path), self.config.max_bytes)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.config.path
    }

    /// What the last letter was about, in words; `None` if there was none since the start.
    pub fn latest(&self) -> Option<String> {
        lock(&self.latest).clone()
    }

    /// What waits in the files, also of earlier runs. It blocks on the disk, and gives what was found last if somebody else
    /// looks at this moment, or if the directory cannot be read.
    pub fn waiting(&self) -> Option<Waiting> {
        let census = match self.last_waiting() {
            Some(_) => self.counted.census.try_lock().ok(),
            // Whoever looks first finds something.
            None => Some(lock(&self.counted.census)),
        };
        if let Some(mut census) = census
            && let Ok(found) = census.look(&Directory::new(&self.config.path))
        {
            *lock(&self.counted.found) = Some(found);
        }
        self.last_waiting()
    }

    /// What was found last; `None` if nobody has looked yet. It does not block.
    pub fn last_waiting(&self) -> Option<Waiting> {
        *lock(&self.counted.found)
    }

    /// Why letters cannot be kept, for people; `None` if the last append went well, or there was none. It does not
    /// block.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    fn lock_trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        lock(&self.trouble)
    }
}

impl DeadLetter {
    /// What it is about, for the log.
    fn words(&self) -> String {
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
