//! What the front wants to be kept beyond its readings: a small log of its own, beside the one with the readings.
//!
//! A memo is durable with the readings of its request, in their record. Before the segment of that record may go,
//! the memo is written here, where it stays as long as it is wanted. So keeping it costs no sync of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use crate::wal::{Durability, Event, Fs, Log, LogConfig, LogError};

/// The directory below the buffer's own.
const DIRECTORY: &str = "keys";
const SEGMENT_BYTES: u64 = 1024 * 1024;
/// Most bytes of all segments: about half a million keys. Beyond that the oldest are forgotten early.
const LOG_BYTES_MAX: u64 = 64 * SEGMENT_BYTES;
/// Bytes of the time before each memo.
const TIME_BYTES: usize = 8;

/// The log of memos.
#[derive(Debug)]
pub struct Memos {
    log: Option<Log>,
    open: Opening,
    kept: Duration,
    /// Memos that are only with their readings, and when they came.
    pending: Vec<(i64, Bytes)>,
    /// When the youngest memo of each segment came.
    youngest: BTreeMap<u64, i64>,
}

#[derive(Debug)]
struct Opening {
    fs: Arc<dyn Fs>,
    config: LogConfig,
    seed: u64,
}

impl Memos {
    /// Opens the log below `directory` and returns what is in it that came within `kept` before `now`, both in
    /// nanoseconds since the Unix epoch. A directory without memos is not touched.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(
        fs: Arc<dyn Fs>,
        directory: &Path,
        seed: u64,
        kept: Duration,
        now: i64,
    ) -> Result<(Memos, Vec<Bytes>), LogError> {
        let config = LogConfig::new(directory.join(DIRECTORY), SEGMENT_BYTES);
        let exists = fs.list(&config.directory).is_ok();
        let open = Opening { fs, config, seed };
        let mut memos = Memos { log: None, open, kept, pending: Vec::new(), youngest: BTreeMap::new() };
        let mut found = Vec::new();
        if exists {
            let oldest = now.saturating_sub(memos.kept_nanos());
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
        let youngest = &mut self.youngest;
        Log::open(Arc::clone(fs), config.clone(), *seed, &mut |event| match event {
            Event::Record(record) => {
                let Some((time, memo)) = record.payload.split_first_chunk::<TIME_BYTES>() else { return };
                let at = i64::from_le_bytes(*time);
                let youngest = youngest.entry(record.segment).or_insert(at);
                *youngest = at.max(*youngest);
                visit(at, Bytes::copy_from_slice(memo));
            }
            Event::Damage(damage) if !damage.bytes.is_empty() => {
                warn!(segment = damage.segment, bytes = ?damage.bytes, "some remembered keys on disk are damaged");
            }
            _ => {}
        })
    }

    fn kept_nanos(&self) -> i64 {
        i64::try_from(self.kept.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Keeps a memo that stands, durable or as good as, in a record behind the last checkpoint: one that was just
    /// committed, or one that a start has found. An empty one is none.
    pub fn keep(&mut self, memo: Bytes, at: i64) {
        if !memo.is_empty() {
            self.pending.push((at, memo));
        }
    }

    /// Writes what is pending, durably, and lets go what is not wanted any more.
    ///
    /// # Errors
    ///
    /// What the system says; everything is still pending then.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let Some((now, _)) = self.pending.last().cloned() else { return Ok(()) };
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.read(&mut |_, _| {})?,
        };
        let written = self.write(&mut log);
        if written.is_ok() {
            self.pending.clear();
            self.let_go(&mut log, now);
        }
        self.log = Some(log);
        written
    }

    fn write(&mut self, log: &mut Log) -> Result<(), LogError> {
        for (at, memo) in &self.pending {
            log.append(&[&at.to_le_bytes(), memo])?;
            self.youngest.insert(log.position().segment, *at);
        }
        log.commit(Durability::Synced)
    }

    /// Lets old segments go, and the oldest ones if there are too many.
    fn let_go(&mut self, log: &mut Log, now: i64) {
        let oldest = now.saturating_sub(self.kept_nanos());
        let active = log.position().segment;
        let mut bytes = log.bytes();
        let mut old = Vec::new();
        for segment in log.segments().iter().filter(|segment| segment.number != active) {
            let youngest = self.youngest.get(&segment.number).copied().unwrap_or_default();
            if youngest < oldest || bytes > LOG_BYTES_MAX {
                bytes -= segment.bytes;
                old.push(segment.number);
            }
        }
        self.youngest.retain(|segment, _| !old.contains(segment));
        if let Err(error) = log.discard(&old) {
            warn!(%error, "old remembered keys stay on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::OsFs;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: i64 = 1_000_000_000;

    fn open(directory: &Path, now: i64) -> (Memos, Vec<Bytes>) {
        Memos::open(Arc::new(OsFs), directory, 1, HOUR, now).expect("it opens")
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
        let (_, found) = open(directory.path(), SECOND);
        assert!((100..200).contains(&found.len()), "{}", found.len());
    }
}
