//! The bounded buffer between the front and the delivery.
//!
//! A [`Buffer`] takes the readings of a request whole or not at all, within a limit in readings and in bytes, and
//! hands them out in the order in which they came. What is handed out still counts until it is settled, so the
//! limit holds for all that the gateway has accepted and not yet delivered.
//!
//! - [`accounts`] keeps the room and the [`ledger`] behind one lock; a request reserves room first.
//! - [`Outlet`] is the delivery's half: readings out, notes on batches, and what became of them.
//! - [`OnFull`] says what happens to a request that finds none.
//! - [`lease`] is what is handed out: a record may be spread over several batches, part by part. [`hold`] is what is
//!   left of it until it is settled, and `tally` what is counted of a record.
//! - [`span`] says which readings of a log are meant, for kinds that keep one.
//! - One file per kind, and a row in [`KINDS`]. A kind says which acknowledgements it can give.
//!
//! Delivery, retries and batches are left to `delivery/`.

pub mod accounts;
pub mod disk;
mod drain_rate;
pub mod hold;
pub mod lease;
pub mod ledger;
mod memory;
mod outlet;
pub mod span;
mod tally;
pub mod waiters;

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::{Add, AddAssign, SubAssign};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_reading::Readings;
use forebay_reading::quantity::{QuantityError, parse_duration};
use forebay_reading::registry::Registry;
use forebay_wal::LogError;
use futures_util::future::BoxFuture;
use prometheus::IntCounter;
use thiserror::Error;

use crate::filesystem;
use crate::metrics::Metrics;

pub use accounts::{Accounts, Snapshot};
pub use hold::{Hold, settle};
pub use lease::Part;
pub use outlet::{Derivation, Deriving, Fate, Kept, NoteId, Noted, Noting, Outlet, Resumed};

/// The kinds of buffer by their configuration names.
pub const KINDS: Registry<Kind> = Registry {
    what: "kind of buffer",
    members: &[
        (
            "disk",
            Kind {
                open: disk::open,
                acks: &[Ack::Disk, Ack::Memory, Ack::Delivered],
                settings: &["buffer.path", "buffer.fsync"],
            },
        ),
        ("memory", Kind { open: memory::open, acks: &[Ack::Memory, Ack::Delivered], settings: &[] }),
    ],
};

/// A kind of buffer.
#[derive(Debug)]
pub struct Kind {
    /// Opens one for a number of nodes. It may wait for the disk.
    pub open: fn(&BufferConfig, usize, &Arc<Metrics>) -> Result<Opened, OpenError>,
    /// The acknowledgements that it can give.
    pub acks: &'static [Ack],
    /// The keys of settings that only some kinds have, and this is one of them.
    pub settings: &'static [&'static str],
}

/// Why a buffer does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file or a directory cannot be used.
    #[error("cannot use {}: {error}{}", path.display(), filesystem::advice_on_file(path, error))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The directory is not there and cannot be made, or is something else.
    #[error(
        "cannot make the directory {}: {error}{}; set `buffer.path` to one that can be used",
        path.display(), filesystem::advice_on_directory(path, error)
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The log cannot be opened.
    #[error("{}", with_advice(.0))]
    Log(LogError),
    /// Another process has it.
    #[error(
        "{} is in use by another gateway; stop that one, or give each gateway a `buffer.path` of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

impl From<LogError> for OpenError {
    /// No source: its words are those of the error itself, and are told once.
    fn from(error: LogError) -> OpenError {
        OpenError::Log(error)
    }
}

/// What went wrong with the log, and what lets this process use its files. The log itself knows nothing of that.
fn with_advice(error: &LogError) -> String {
    format!("{error}{}", filesystem::advice_on_file(&error.path, &error.error))
}

/// Readings and the bytes of memory or disk that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many readings.
    pub readings: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Amount {
    /// Whether both numbers are within `limit`.
    pub fn fits(self, limit: Amount) -> bool {
        self.readings <= limit.readings && self.bytes <= limit.bytes
    }

    /// What is left of each number, at least nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount {
            readings: self.readings.saturating_sub(other.readings),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount { readings: self.readings + other.readings, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.readings -= other.readings;
        self.bytes -= other.bytes;
    }
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The readings are in the buffer; what is not delivered, or written to disk, is lost if the process dies.
    Memory,
    /// The readings are on stable storage: they survive kill -9 and power loss.
    Disk,
    /// Every reading reached the nodes that the route asks for; the request waits until then.
    Delivered,
}

impl Ack {
    /// The acknowledgements by their names.
    pub const NAMES: Registry<Ack> = Registry {
        what: "acknowledgement",
        members: &[("memory", Ack::Memory), ("disk", Ack::Disk), ("delivered", Ack::Delivered)],
    };

    /// The name in settings and answers.
    pub fn name(self) -> &'static str {
        match self {
            Ack::Memory => "memory",
            Ack::Disk => "disk",
            Ack::Delivered => "delivered",
        }
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What happens to a request when the buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// The sender gets 503 at once, with a `Retry-After`; no accepted reading is lost.
    Reject,
    /// The sender waits for room, the first come first, and gets 503 if there is none in time; no accepted
    /// reading is lost.
    Wait {
        /// Longest wait, from `server.request_timeout`.
        up_to: Duration,
    },
    /// The oldest readings that are not on their way to a node are given up, counted as dropped, and the newest
    /// are taken. The sender waits only while too little of what is held can be given up.
    DropOldest {
        /// Longest wait, from `server.request_timeout`.
        up_to: Duration,
    },
}

/// The names of the overflow policies, with what makes one of the longest wait.
pub const OVERFLOW_POLICIES: Registry<fn(Duration) -> OnFull> = Registry {
    what: "overflow policy",
    members: &[
        ("reject", |_| OnFull::Reject),
        ("wait", |up_to| OnFull::Wait { up_to }),
        ("drop_oldest", |up_to| OnFull::DropOldest { up_to }),
    ],
};

/// The settings of the buffer.
#[derive(Clone, Debug)]
pub struct BufferConfig {
    /// The kind, by its name in [`KINDS`].
    pub kind: &'static str,
    /// The acknowledgement that a request gets if it asks for none.
    pub ack: Ack,
    /// Most that may be held, in flight included.
    pub limit: Amount,
    /// What happens to a request when the buffer is full.
    pub on_full: OnFull,
    /// Directory of the files, for kinds that have some.
    pub path: PathBuf,
    /// When what was written is synced, for kinds that write.
    pub fsync: Fsync,
    /// How long the answer to a request with an `Idempotency-Key` is remembered, for kinds that can.
    pub memos_kept: Duration,
}

/// When what was written is synced to stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each acknowledgement, once for all requests that wait: what is acknowledged survives a power loss.
    Always,
    /// At this interval: a power loss may cost what was acknowledged since the last sync.
    Every(Duration),
}

impl FromStr for Fsync {
    type Err = QuantityError;

    /// Reads `always`, or an interval such as `200ms`.
    fn from_str(text: &str) -> Result<Fsync, QuantityError> {
        if text == "always" { Ok(Fsync::Always) } else { parse_duration(text).map(Fsync::Every) }
    }
}

impl BufferConfig {
    /// Whether the kind keeps readings in files.
    pub fn is_on_disk(&self) -> bool {
        self.kind().acks.contains(&Ack::Disk)
    }

    /// The kind that is named.
    pub fn kind(&self) -> &'static Kind {
        KINDS.find(self.kind).expect("the name comes from the table")
    }
}

/// What one request wants to put into the buffer.
#[derive(Debug)]
pub struct Request {
    /// The readings, at least one.
    pub readings: Readings,
    /// Index of the request's format in the table of decoders, for the ledger.
    pub format: usize,
    /// Counts the readings once they are accepted, at the moment when the ledger does: also if the client hangs up before
    /// it is answered, and whatever becomes of them then.
    pub counter: Option<IntCounter>,
    /// The acknowledgement that is asked for; one that the kind can give.
    pub ack: Ack,
    /// What the request holds until its readings are in the buffer; dropped then, or with the request.
    pub until_taken: Option<Box<dyn Any + Send>>,
    /// Opaque bytes that the buffer keeps with the readings, atomically with them, for as long as the front asked
    /// for. A kind that does not survive the process has no use for them.
    pub memo: Option<Bytes>,
}

/// The promise that was kept before the request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The acknowledgement.
    pub ack: Ack,
}

/// What became of all readings of a request; the worst of it is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settled {
    /// Every one was delivered, but for those that a filter took out; what was merged into a window is delivered when its
    /// result is.
    Delivered,
    /// Some were given up to make room for newer ones.
    Dropped,
    /// Some were refused by nodes and are kept as dead letters; others may have been dropped.
    Refused,
    /// Some cannot be read back from disk; others may have been refused or dropped.
    Damaged,
}

impl Settled {
    /// What a request hears that waited for delivery; `None` if nobody is left who could say.
    fn answer(settled: Option<Settled>) -> Result<Receipt, PushError> {
        match settled {
            Some(Settled::Delivered) => Ok(Receipt { ack: Ack::Delivered }),
            Some(Settled::Dropped) => Err(PushError::Dropped),
            Some(Settled::Refused) => Err(PushError::Refused),
            Some(Settled::Damaged) => Err(PushError::Damaged),
            None => Err(PushError::Undelivered),
        }
    }
}

/// Why readings were not taken, or not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// No room now.
    #[error("the buffer is full")]
    Full {
        /// When there should be room.
        retry_after: Duration,
    },
    /// Never any room.
    #[error(
        "the request needs room for {} readings and {} bytes, the whole buffer has {} and {}",
        need.readings, need.bytes, limit.readings, limit.bytes
    )]
    TooLarge {
        /// What the request takes.
        need: Amount,
        /// What the buffer can hold.
        limit: Amount,
    },
    /// The kind promises to keep readings on disk, and cannot now.
    #[error("readings cannot be stored now: {reason}")]
    Storage {
        /// What went wrong.
        reason: String,
        /// When it may have changed.
        retry_after: Duration,
    },
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Closed,
    /// The request asked to wait for delivery, and readings of it were given up to make room for newer ones.
    #[error("readings of the request were given up to make room for newer ones")]
    Dropped,
    /// The request asked to wait for delivery, and nodes refused readings of it; they are kept as dead letters.
    #[error(
        "nodes refused readings of the request, which are kept as dead letters; the others were delivered, unless \
         `drop_oldest` gave some of them up"
    )]
    Refused,
    /// The request asked to wait for delivery, and readings of it cannot be read back from disk: they are damaged, or
    /// the disk fails.
    #[error("readings of the request were stored and cannot be read back from disk")]
    Damaged,
    /// The request asked to wait for delivery, and the gateway stopped before.
    #[error("the gateway stopped before every reading of the request was delivered")]
    Undelivered,
}

/// The front's half of the buffer.
pub trait Buffer: Send + Sync + fmt::Debug {
    /// Takes the readings of a request, all or none, and returns when the promise of its `ack` is kept.
    ///
    /// # Errors
    ///
    /// [`PushError`]; unless it says that readings were dropped, refused, damaged or not delivered yet, none was taken.
    ///
    /// Dropped half-way, either all readings are taken or none; the books balance in either case.
    fn push(&self, request: Request) -> BoxFuture<'_, Result<Receipt, PushError>>;

    /// The room and the ledger.
    fn accounts(&self) -> &Arc<Accounts>;

    /// Takes no more. What is held is still handed out; after it, [`Outlet::pull`] says that nothing more comes.
    fn close(&self);

    /// What is wrong, in words for people: why no readings can be taken, or why some that are held cannot be read; `None`
    /// if nothing is, or if only room is missing. It does not block.
    fn trouble(&self) -> Option<String>;

    /// Whether no readings can be stored at all, so that every request is refused; otherwise [`Buffer::trouble`] is about
    /// what is stored already.
    fn is_failing(&self) -> bool {
        self.trouble().is_some()
    }

    /// What to do about [`Buffer::trouble`], if it is not what is to be done about any disk.
    fn advice(&self) -> Option<&'static str> {
        None
    }

    /// Why requests find no room although the accounts have some, in words for people.
    fn overfull(&self) -> Option<String> {
        None
    }

    /// Ends the buffer once it is closed and the outlet is gone: what it keeps is on stable storage then, and every
    /// [`Buffer::push`] has its answer but those that wait for delivery. Returns what becomes of readings that are
    /// not settled.
    fn finish(&self) -> BoxFuture<'_, Rest>;
}

/// What becomes of readings that are not delivered when the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are gone with the process.
    Lost,
    /// They are on stable storage, for the next start.
    Kept,
    /// They are on stable storage, but not all that the disk should have was taken by it.
    KeptBut {
        /// So many readings were acknowledged in memory and could not be written: they are gone with the process.
        lost: u64,
        /// Readings that are settled, which could not be written: the next start sends them again.
        sent_again: SentAgain,
        /// Whether the directory was moved away, or something else has its place: the next start does not find it.
        is_elsewhere: bool,
    },
}

/// Readings that the next start sends again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentAgain {
    /// All of them.
    pub readings: u64,
    /// Those of them that nodes cannot know by their keys.
    pub under_other_keys: u64,
}

impl SentAgain {
    /// Counts so many more.
    pub fn add(&mut self, readings: u64, has_key: bool) {
        self.readings += readings;
        self.under_other_keys += if has_key { 0 } else { readings };
    }

    /// These and others.
    #[must_use]
    pub fn and(self, other: SentAgain) -> SentAgain {
        SentAgain {
            readings: self.readings + other.readings,
            under_other_keys: self.under_other_keys + other.under_other_keys,
        }
    }
}

/// Both halves of a buffer.
#[derive(Debug)]
pub struct Opened {
    /// For the front.
    pub buffer: Arc<dyn Buffer>,
    /// For the delivery.
    pub outlet: Box<dyn Outlet>,
    /// What [`Request::memo`] had of the requests whose memos are kept, from before the start.
    pub memos: Vec<Bytes>,
}

#[cfg(test)]
pub(crate) mod tests;
