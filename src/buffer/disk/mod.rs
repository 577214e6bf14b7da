//! The buffer on disk: what is acknowledged is in a log before it is, and stays until it is settled.
//!
//! 1. A request reserves room, and puts its readings into the `inbox` (bounded: 8 MiB wait at most).
//! 2. The `writer`, the one thread that owns the log ([`forebay_wal`]), takes all that waits, appends a record for
//!    each (`entry`), syncs once, counts them, hands them on and answers. The next group gathers meanwhile.
//! 3. The `handover` passes on from memory what is young, up to 8 MiB; when the delivery does not keep up, what
//!    follows stays on disk and is read from there (`cursor`).
//! 4. Which readings make up a batch is noted in the log before the batch is sent for the first time, and what is
//!    settled after it (`outlet`). What a transform makes of readings is one record with what it made them of: these are
//!    settled with it.
//! 5. A segment in which everything is settled goes (`state`), after a checkpoint that says so is durable.
//!
//! A start replays the log from the checkpoint on (`recovery`), resumes the batches that may have been sent, under
//! their keys, and reads the rest in its turn.
//!
//! When the disk fails or is full (`trouble`), or the directory is not the one of the start any more (`lock`; looked at
//! before each write, and every second), requests get 503 at once; what is in the log is delivered, only notes and
//! settlements stay in memory; the disk is tried again every second.
//!
//! # Limits
//!
//! `buffer.max_bytes` bounds the records of readings that are not settled. A segment goes only as a whole: the files
//! together may take a quarter and eight segments more, then requests find the buffer full. A segment has a
//! sixteenth of `buffer.max_bytes`, at least 64 KiB and at most 32 MiB, or more if there were more than 1024.

mod checkpoint;
mod cursor;
mod entry;
mod handover;
mod inbox;
pub mod inspect;
mod lock;
mod lost_keys;
mod memos;
mod outlet;
mod recovery;
mod state;
mod trouble;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{READING_BYTES_MIN, Readings};
use forebay_wal::{Fs, LogOptions, OsFs, quarantine};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::info;

use self::entry::Accepted;
use self::handover::{Handover, View};
use self::inbox::{Accept, Closing, Command, Inbox};
use self::lock::Lock;
use self::memos::{Memos, MemosConfig};
use self::outlet::{DiskOutlet, OutletParts};
use self::recovery::Recovered;
use self::trouble::{Left, Trouble};
use self::writer::{Behind, RETRY_EVERY, Writer};
use super::accounts::{Accounts, Bounds};
use super::waiters::Waiters;
use super::{
    Ack, Amount, Buffer, BufferConfig, OpenError, Opened, PushError, Receipt, Request, Rest, Settled,
};
use crate::metrics::Metrics;

/// Directories that a buffer makes in its own.
pub const DIRECTORIES_WITHIN: [&str; 2] = [memos::DIRECTORY, quarantine::DIRECTORY];

const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
const SEGMENT_BYTES_USUAL: u64 = 32 * 1024 * 1024;
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// A larger buffer has larger segments rather than more.
const SEGMENTS_MAX: u64 = 1024;

/// The front's half of a buffer on disk.
#[derive(Debug)]
struct Disk {
    config: BufferConfig,
    accounts: Arc<Accounts>,
    inbox: Arc<Inbox>,
    trouble: Arc<Trouble>,
    bytes_max: u64,
    /// The log's thread; taken by whoever waits for its end.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as the log's thread runs.
    lock: Arc<Lock>,
}

/// Opens the buffer in the directory that the settings name, and finds what an earlier run has left there. It
/// blocks.
///
/// # Errors
///
/// [`OpenError`]: another process has the directory, or it cannot be read or made.
pub fn open(config: &BufferConfig, nodes: usize, metrics: &Arc<Metrics>) -> Result<Opened, OpenError> {
    open_on(Arc::new(OsFs), config, nodes, metrics)
}

/// Opens a buffer on any file system.
#[expect(clippy::too_many_lines, reason = "it hands what all parts share to each of them")]
pub fn open_on(
    fs: Arc<dyn Fs>,
    config: &BufferConfig,
    nodes: usize,
    metrics: &Arc<Metrics>,
) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let path = config.path.clone();
    let lock = Arc::new(Lock::take(&path)?);
    let now = unix_nanos();
    let seed = fastrand::u64(..);
    let forgotten = metrics.idempotency_keys_forgotten.clone();
    let memos_config = MemosConfig { fs: Arc::clone(&fs), seed, kept: config.memos_kept, forgotten };
    let (mut memos, mut kept) = Memos::open(memos_config, &path, now)?;
    let log_config = log_config(&path, config.limit.bytes);
    let recovered = recovery::recover(fs, log_config, seed)?;
    let pinned = recovered.set_aside(&path);
    metrics.buffer_damaged_records.inc_by(recovered.damaged_requests());
    // Where it cannot be marked as told, the next start tells it again.
    let _ = memos.tell_lost(now);
    let Recovered { log, state, resumed, records, unread_from, unread, amount, .. } = recovered;
    for (at, memo) in recovered.memos {
        kept.push(memo.clone());
        // The next checkpoint may leave its record behind.
        memos.keep(memo, at);
    }

    let least = Amount { readings: 1, bytes: Accepted::record_bytes(0, READING_BYTES_MIN) };
    let accounts = Accounts::new(Bounds { limit: config.limit, least }, nodes, Instant::now());
    if amount.readings > 0 {
        info!(readings = amount.readings, bytes = amount.bytes, took = ?started.elapsed(), "readings found on disk");
        accounts.recover(amount);
    }

    let noted_spans = state.notes.values().flat_map(|note| note.spans.iter().copied());
    let taken = state.settled.iter().chain(noted_spans).collect();
    let inbox = Arc::new(Inbox::default());
    let trouble = Arc::new(Trouble::default());
    trouble.set_disk_bytes(log.bytes());
    #[expect(clippy::disallowed_methods, reason = "what waits in it has its room in the accounts")]
    let (kept_sender, kept_by_log) = mpsc::unbounded_channel();
    let directory = log.directory().clone();
    let bytes_max = files_bytes_max(config.limit.bytes);
    #[expect(
        clippy::disallowed_methods,
        reason = "no request sends a second answer, and their number has a limit"
    )]
    let (answers, groups) = mpsc::unbounded_channel();
    tokio::spawn(writer::answer(groups));
    let reads = unread_from.is_some();
    let first_unread = unread_from.map(|from| from.number);
    let handover = Arc::new(Handover::new(unread_from, unread, View::of(&log, &state)));
    let writer = Writer {
        log,
        state,
        memos,
        inbox: Arc::clone(&inbox),
        handover: Arc::clone(&handover),
        trouble: Arc::clone(&trouble),
        accounts: Arc::clone(&accounts),
        kept: kept_sender,
        answers,
        fsync: config.fsync,
        metrics: Arc::clone(metrics),
        spare: None,
        pinned,
        behind: Behind::default(),
        lock: Arc::clone(&lock),
    };
    let thread = std::thread::Builder::new().name("forebay-log".to_owned());
    let thread = thread.spawn(move || writer.run());
    let thread = thread.map_err(|error| OpenError::Io { path: path.clone(), error })?;
    let outlet = DiskOutlet::new(OutletParts {
        handover,
        inbox: Arc::clone(&inbox),
        trouble: Arc::clone(&trouble),
        accounts: Arc::clone(&accounts),
        metrics: Arc::clone(metrics),
        directory,
        lock: Arc::clone(&lock),
        path,
        bytes_max,
        kept: Some(kept_by_log),
        resumed,
        // What else they have is only needed while there is something to be read.
        records: if reads { records } else { HashMap::new() },
        taken,
        unread_from: first_unread,
    });
    let buffer = Disk {
        config: config.clone(),
        accounts,
        inbox,
        trouble,
        bytes_max,
        thread: Mutex::new(Some(thread)),
        lock,
    };
    Ok(Opened { buffer: Arc::new(buffer), outlet: Box::new(outlet), memos: kept })
}

/// Most bytes that the files of the log may take, of a buffer with this bound; then requests find it full.
pub fn files_bytes_max(bytes_max: u64) -> u64 {
    let segment_bytes = log_config(Path::new(""), bytes_max).segment_bytes;
    bytes_max.saturating_add(bytes_max / 4 + 8 * segment_bytes)
}

/// Bytes of the bound that a request with these readings, and without a key, takes.
pub fn request_bytes(readings: &Readings) -> u64 {
    Accepted::record_bytes(0, readings.encoded_bytes())
}

/// The settings of the log of a buffer with this bound.
fn log_config(path: &Path, bytes_max: u64) -> LogOptions {
    let segment_bytes = (bytes_max / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_USUAL);
    let segment_bytes = segment_bytes.max(bytes_max / SEGMENTS_MAX).min(SEGMENT_BYTES_MAX);
    LogOptions::new(path.to_owned(), segment_bytes)
}

impl Disk {
    async fn push(&self, request: Request) -> Result<Receipt, PushError> {
        self.check_disk()?;
        let Request { readings, format, counter, ack, until_taken, memo } = request;
        let memo = memo.unwrap_or_default();
        let bytes = Accepted::record_bytes(memo.len(), readings.encoded_bytes());
        let need = Amount { readings: readings.len() as u64, bytes };
        let reservation = self.accounts.reserve(need, self.config.on_full).await?.counted_by(counter);

        let (waiters, settled) = match ack {
            Ack::Delivered => {
                let (waiter, settled) = oneshot::channel();
                (waiter.into(), Some(settled))
            }
            Ack::Memory | Ack::Disk => (Waiters::default(), None),
        };
        let (done, kept) = match ack {
            Ack::Memory => (None, None),
            Ack::Disk | Ack::Delivered => Some(oneshot::channel()).unzip(),
        };
        let accept = Accept {
            readings,
            memo,
            amount: need,
            accepted_at: Instant::now(),
            room: Some((reservation, format)),
            done,
            waiters,
            until_taken,
        };
        self.inbox.put(Command::Accept(accept)).await.map_err(|inbox::Closed| PushError::Closed)?;
        if let Some(kept) = kept {
            // Nobody answers once the log's thread has ended.
            kept.await.unwrap_or(Err(PushError::Closed))?;
        }
        match settled {
            None => Ok(Receipt { ack }),
            Some(settled) => Settled::answer(settled.await.ok()),
        }
    }

    /// Refuses at once what cannot be written.
    fn check_disk(&self) -> Result<(), PushError> {
        if let Some(reason) = self.trouble.reason() {
            return Err(PushError::Storage { reason, retry_after: RETRY_EVERY });
        }
        if self.trouble.disk_bytes() > self.bytes_max {
            return Err(PushError::Full { retry_after: RETRY_EVERY });
        }
        Ok(())
    }
}

impl Buffer for Disk {
    fn push(&self, request: Request) -> BoxFuture<'_, Result<Receipt, PushError>> {
        self.push(request).boxed()
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.detail()
    }

    fn is_failing(&self) -> bool {
        self.trouble.reason().is_some()
    }

    fn advice(&self) -> Option<&'static str> {
        self.trouble.advice()
    }

    fn overfull(&self) -> Option<String> {
        let (held, limit) = (self.trouble.disk_bytes(), self.bytes_max);
        let text = || format!("the files of the buffer take {held} bytes of {limit}");
        (held > limit).then(text)
    }

    fn close(&self) {
        self.accounts.close();
        self.inbox.close(Closing::NoReadings);
    }

    fn finish(&self) -> BoxFuture<'_, Rest> {
        self.inbox.close(Closing::Closed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        async {
            if let Some(thread) = thread {
                // A panic in it is told by the panic itself.
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            // A request that is still being answered, or a read that nobody waits for, must not keep the next start out.
            self.lock.release();
            let (lost, left) = (self.trouble.unwritten(), self.trouble.left());
            match (lost, left) {
                (0, left) if left == Left::default() => Rest::Kept,
                (lost, Left { sent_again, is_elsewhere }) => Rest::KeptBut { lost, sent_again, is_elsewhere },
            }
        }
        .boxed()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The log's thread must not outlive the buffer, whatever the reason for its end.
        self.inbox.close(Closing::Closed);
    }
}

/// Now, in nanoseconds since the Unix epoch.
fn unix_nanos() -> i64 {
    Timestamp::from_system(wall_time()).nanos()
}
