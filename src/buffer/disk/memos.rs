//! What the front wants to be kept beyond its readings: a small log of its own, beside the one with the readings.
//!
//! A memo is durable with the readings of its request, in their record. Before the segment of that record may go,
//! the memo is written here, where it stays as long as it is wanted. So keeping it costs no sync of its own.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounter;
use tracing::{info, warn};

use crate::wal::{Durability, Event, Fs, Log, LogConfig, LogError};

/// The directory below the buffer's own.
const DIRECTORY: &str = "keys";
const SEGMENT_BYTES: u64 = 1024 * 1024;
/// Most bytes of all segments: about half a million keys. Beyond that the oldest are forgotten early.
const LOG_BYTES_MAX: u64 = 64 * SEGMENT_BYTES;
/// Most bytes of memos that wait to be written.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the time before each memo.
const TIME_BYTES: usize = 8;

/// The log of memos.
#[derive(Debug)]
pub struct Memos {
    log: Option<Log>,
    open: Opening,
    kept: Duration,
    /// Memos that are not in the log of memos, and when they came; the oldest first.
    pending: VecDeque<(i64, Bytes)>,
    pending_bytes: usize,
    /// The first so many of those are nowhere else on disk: a checkpoint has left their records behind.
    alone: usize,
    /// What each segment holds.
    held: BTreeMap<u64, Held>,
    /// Counts what is forgotten before its time.
    forgotten: IntCounter,
    /// Whether it was told that there is no writing them.
    is_told: bool,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// When the youngest memo came.
    youngest: i64,
    /// How many memos there are.
    memos: u64,
}

impl Held {
    fn add(&mut self, at: i64) {
        self.youngest = if self.memos == 0 { at } else { at.max(self.youngest) };
        self.memos += 1;
    }
}

#[derive(Debug)]
struct Opening {
    fs: Arc<dyn Fs>,
    config: LogConfig,
    seed: u64,
}

/// What memos are opened with.
#[derive(Debug)]
pub struct MemosConfig {
    /// Where they are written.
    pub fs: Arc<dyn Fs>,
    /// What chance comes from.
    pub seed: u64,
    /// How long they are wanted.
    pub kept: Duration,
    /// Counts what is forgotten before its time.
    pub forgotten: IntCounter,
}

impl Memos {
    /// Opens the log below `directory` and returns what is in it that is still wanted at `now`, in nanoseconds since
    /// the Unix epoch. A directory without memos is not touched.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(config: MemosConfig, directory: &Path, now: i64) -> Result<(Memos, Vec<Bytes>), LogError> {
        let MemosConfig { fs, seed, kept, forgotten } = config;
        let config = LogConfig::new(directory.join(DIRECTORY), SEGMENT_BYTES);
        let exists = fs.list(&config.directory).is_ok();
        let mut memos = Memos {
            log: None,
            open: Opening { fs, config, seed },
            kept,
            pending: VecDeque::new(),
            pending_bytes: 0,
            alone: 0,
            held: BTreeMap::new(),
            forgotten,
            is_told: false,
        };
        let mut found = Vec::new();
        if exists {
            let oldest = memos.oldest_wanted(now);
            memos.log = Some(memos.read(&mut |at, memo| {
                if at >= oldest {
                    found.push(memo);
                }
            })?);
        }
        Ok((memos, found))
    }

    fn read(&mut self, visit: &mut dyn FnMut(i64, Bytes)) -> Result<Log, LogError> {
        let Opening { fs, config, seed } = &self.open;
        let held = &mut self.held;
        Log::open(Arc::clone(fs), config.clone(), *seed, &mut |event| match event {
            Event::Record(record) => {
                let Some((time, memo)) = record.payload.split_first_chunk::<TIME_BYTES>() else { return };
                let at = i64::from_le_bytes(*time);
                held.entry(record.segment).or_default().add(at);
                visit(at, Bytes::copy_from_slice(memo));
            }
            Event::Damage(damage) if !damage.bytes.is_empty() => {
                warn!(segment = damage.segment, bytes = ?damage.bytes, "some remembered keys on disk are damaged");
            }
            _ => {}
        })
    }

    fn oldest_wanted(&self, now: i64) -> i64 {
        now.saturating_sub(i64::try_from(self.kept.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Keeps a memo that stands, durable or as good as, in a record behind the last checkpoint: one that was just
    /// committed, or one that a start has found. An empty one is none.
    pub fn keep(&mut self, memo: Bytes, at: i64) {
        if memo.is_empty() {
            return;
        }
        self.pending_bytes += memo.len();
        self.pending.push_back((at, memo));
        let mut forgotten = 0;
        while self.pending_bytes > PENDING_BYTES_MAX {
            let Some((_, oldest)) = self.pending.pop_front() else { break };
            self.pending_bytes -= oldest.len();
            self.alone = self.alone.saturating_sub(1);
            forgotten += 1;
        }
        self.forget(forgotten, "they cannot be written, and too many wait for it");
    }

    /// Writes what is pending, durably, and lets go what is not wanted any more.
    ///
    /// # Errors
    ///
    /// What the system says; everything is still pending then.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let Some(now) = self.pending.back().map(|(at, _)| *at) else { return Ok(()) };
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.read(&mut |_, _| {})?,
        };
        let written = self.write(&mut log);
        if written.is_ok() {
            self.pending.clear();
            (self.pending_bytes, self.alone) = (0, 0);
            self.let_go(&mut log, now);
            // The next file is there before it is needed: then there may be no room for it.
            if let Some(spare) = log.wants_spare().and_then(|job| job.run().ok()) {
                log.give_spare(spare);
            }
        }
        self.log = Some(log);
        written
    }

    fn write(&mut self, log: &mut Log) -> Result<(), LogError> {
        log.go_on_in_last()?;
        let mut added: BTreeMap<u64, Held> = BTreeMap::new();
        for (at, memo) in &self.pending {
            log.append(&[&at.to_le_bytes(), memo])?;
            let segment = log.position().segment;
            added
                .entry(segment)
                .or_insert_with(|| self.held.get(&segment).copied().unwrap_or_default())
                .add(*at);
        }
        log.commit(Durability::Synced)?;
        self.held.extend(added);
        Ok(())
    }

    /// Lets old segments go, and the oldest ones if there are too many.
    fn let_go(&mut self, log: &mut Log, now: i64) {
        let oldest = self.oldest_wanted(now);
        let active = log.position().segment;
        let mut bytes = log.bytes();
        let mut old = Vec::new();
        let mut forgotten = 0;
        for segment in log.segments().iter().filter(|segment| segment.number != active) {
            let held = self.held.get(&segment.number).copied();
            let wanted = held.filter(|held| held.youngest >= oldest);
            if wanted.is_none() || bytes > LOG_BYTES_MAX {
                bytes -= segment.bytes;
                old.push(segment.number);
                forgotten += wanted.map_or(0, |held| held.memos);
            }
        }
        self.discard(log, &old);
        self.forget(forgotten, "more came than are kept on disk");
    }

    fn discard(&mut self, log: &mut Log, old: &[u64]) {
        self.held.retain(|segment, _| !old.contains(segment));
        if let Err(error) = log.discard(old) {
            warn!(%error, "old remembered keys stay on disk");
        }
    }

    /// Lets the oldest segment go before its time, so that others find room in its place. Returns whether there was
    /// one beside that which is written to.
    pub fn forget_oldest(&mut self) -> bool {
        let Some(mut log) = self.log.take() else { return false };
        let active = log.position().segment;
        let oldest = log.segments().iter().map(|segment| segment.number).find(|number| *number != active);
        if let Some(oldest) = oldest {
            let held = self.held.get(&oldest).copied().unwrap_or_default();
            self.discard(&mut log, &[oldest]);
            self.forget(held.memos, "there is no room on disk");
        }
        self.log = Some(log);
        oldest.is_some()
    }

    /// The same, if more that are only in memory can take its place. Returns whether it has gone.
    pub fn forget_oldest_for_youngest(&mut self) -> bool {
        let oldest = self.held.first_key_value().map_or(0, |(_, held)| held.memos);
        oldest < self.alone as u64 && self.forget_oldest()
    }

    /// Gives back room: what is kept for memos to come, or else the oldest ones go. Returns whether there is less than
    /// before.
    pub fn give_up_room(&mut self) -> bool {
        self.log.as_mut().is_some_and(Log::give_up_spare) || self.forget_oldest()
    }

    /// A checkpoint has left the records of all that is pending behind: from now on they are only in memory.
    pub fn left_alone(&mut self) {
        self.alone = self.pending.len();
    }

    /// Says that there is no writing them, once.
    pub fn tell(&mut self, error: &LogError) {
        if !self.pending.is_empty() && !std::mem::replace(&mut self.is_told, true) {
            warn!(
                %error,
                keys = self.pending.len(),
                in_memory_only = self.alone,
                "remembered keys cannot be written to disk; those that are in memory only are forgotten at the next start"
            );
        }
    }

    /// Says that they can be written again, if the opposite was told.
    pub fn tell_written(&mut self) {
        if std::mem::take(&mut self.is_told) {
            info!("remembered keys can be written to disk again");
        }
    }

    /// The process ends: what is only in memory is forgotten.
    pub fn end(&mut self) {
        let alone = std::mem::take(&mut self.alone) as u64;
        self.forget(alone, "they could not be written to disk");
    }

    /// Counts and tells what is forgotten before its time.
    fn forget(&self, keys: u64, why: &'static str) {
        if keys > 0 {
            self.forgotten.inc_by(keys);
            warn!(
                keys,
                why,
                "keys of clients are forgotten before their time; a request that is sent again with one is taken again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::wal::OsFs;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: i64 = 1_000_000_000;

    fn open(directory: &Path, now: i64) -> (Memos, Vec<Bytes>) {
        let forgotten = Metrics::new().idempotency_keys_forgotten;
        let config = MemosConfig { fs: Arc::new(OsFs), seed: 1, kept: HOUR, forgotten };
        Memos::open(config, directory, now).expect("it opens")
    }

    #[test]
    fn memos_are_kept_as_long_as_they_are_wanted_and_no_longer() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut memos, found) = open(directory.path(), 0);
        assert!(found.is_empty() && !directory.path().join(DIRECTORY).exists());
        for second in 0..3 {
            memos.keep(Bytes::from(vec![second; 10]), i64::from(second) * SECOND);
            memos.flush().expect("a sound disk");
        }
        let now = 3601 * SECOND;
        let (_, found) = open(directory.path(), now);
        assert_eq!(found, [vec![1; 10], vec![2; 10]]);
    }

    #[test]
    fn more_memos_than_there_is_room_for_push_the_oldest_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut memos, _) = open(directory.path(), 0);
        let large = Bytes::from(vec![7; 400_000]);
        for _ in 0..200 {
            memos.keep(large.clone(), SECOND);
            memos.flush().expect("a sound disk");
        }
        let bytes = memos.log.as_ref().map(Log::bytes).expect("it is open");
        assert!(bytes <= LOG_BYTES_MAX + SEGMENT_BYTES, "{bytes}");
        let forgotten = memos.forgotten.get();
        let (_, found) = open(directory.path(), SECOND);
        assert_eq!(found.len() as u64 + forgotten, 200, "what is forgotten is counted");
        assert!((100..200).contains(&found.len()), "{}", found.len());
    }
}
