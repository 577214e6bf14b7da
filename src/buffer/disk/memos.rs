//! What the front wants to be kept beyond its readings: a small log of its own, beside the one with the readings.
//!
//! A memo is durable with the readings of its request, in their record. Before the segment of that record may go,
//! the memo is written here, where it stays as long as it is wanted. So keeping it costs no sync of its own.
//!
//! A record without a memo is a mark: what is missing before it was told.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_wal::{Durability, Event, Fs, Log, LogError, LogOptions, SegmentNumber};
use prometheus::IntCounter;
use tracing::{error, info, warn};

use super::lost_keys::LostKeys;
use super::recovery;

/// The directory below the buffer's own.
pub const DIRECTORY: &str = "keys";
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
    held: BTreeMap<SegmentNumber, Held>,
    /// Counts what is forgotten before its time.
    forgotten: IntCounter,
    /// What could not be read, and was not told yet.
    lost: LostKeys,
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
    config: LogOptions,
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
        let config = LogOptions::new(directory.join(DIRECTORY), SEGMENT_BYTES);
        let exists = fs.list(&config.directory).is_ok_and(|names| !names.is_empty());
        let mut memos = Memos {
            log: None,
            open: Opening { fs, config, seed },
            kept,
            pending: VecDeque::new(),
            pending_bytes: 0,
            alone: 0,
            held: BTreeMap::new(),
            forgotten,
            lost: LostKeys::default(),
            is_told: false,
        };
        let mut found = Vec::new();
        if exists {
            memos.log = Some(memos.read(now, &mut |memo| found.push(memo))?);
        }
        Ok((memos, found))
    }

    /// Reads all there is, and shows `visit` what is still wanted.
    fn read(&mut self, now: i64, visit: &mut dyn FnMut(Bytes)) -> Result<Log, LogError> {
        let oldest = self.oldest_wanted(now);
        let Memos { open: Opening { fs, config, seed }, held, lost, .. } = self;
        let log = Log::open(Arc::clone(fs), config.clone(), *seed, &mut |event| match event {
            Event::Record(record) => {
                let Some((time, memo)) = record.payload.split_first_chunk::<TIME_BYTES>() else { return };
                let at = i64::from_le_bytes(*time);
                // What came before a memo that is not wanted any more is not wanted either.
                if memo.is_empty() || at < oldest {
                    lost.none_up_to(record.segment);
                }
                if !memo.is_empty() {
                    held.entry(record.segment).or_default().add(at);
                }
                if !memo.is_empty() && at >= oldest {
                    visit(Bytes::copy_from_slice(memo));
                }
            }
            Event::Damage(damage) => lost.add_damage(damage),
            Event::Truncation(cut_short) => lost.cut_short = Some(cut_short),
            Event::TornTail { segment, offset } => info!(
                segment = segment.get(),
                offset,
                "the last remembered key on disk is begun and not whole: either it was being written at the last stop, \
                 and stands with its readings too, or the disk has damaged it since; it does not count"
            ),
            // This log has no checkpoint: it is always read as a whole.
            Event::Checkpoint { .. } | Event::CheckpointDamaged | Event::Missing(_) => {}
        })?;
        lost.damaged.retain(|damage| !log.directory().is_set_aside(damage));
        let readable = held.first_key_value().zip(held.last_key_value());
        lost.count(readable.map(|((first, _), (last, _))| *first..=*last));
        Ok(log)
    }

    /// What could not be read when the log was opened, and was not told before.
    pub fn lost(&self) -> &LostKeys {
        &self.lost
    }

    /// Sets aside what could not be read, counts and tells it, and marks it as told.
    ///
    /// # Errors
    ///
    /// If something cannot be set aside, or the mark cannot be written; the next start tells it again then.
    pub fn tell_lost(&mut self, now: i64) -> Result<(), LogError> {
        let lost = std::mem::take(&mut self.lost);
        let Some(log) = self.log.as_mut().filter(|_| !lost.is_empty()) else { return Ok(()) };
        let path = &self.open.config.directory;
        let mut done = Ok(());
        for damage in &lost.damaged {
            let set_aside = log.directory().set_aside(damage);
            recovery::report(path, damage, &set_aside);
            done = done.and(set_aside.map(drop));
        }
        if let Some(cut_short) = &lost.cut_short {
            recovery::tell_of(path, cut_short);
        }
        self.forgotten.inc_by(lost.number().unwrap_or(1));
        error!(
            keys = %lost,
            "remembered keys of clients on disk are lost; a request that is sent again with one of them is taken again"
        );
        done?;
        log.resume_last_segment()?;
        log.append(&[&now.to_le_bytes()])?;
        log.commit(Durability::Synced)
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
            None => self.read(now, &mut drop)?,
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
        log.resume_last_segment()?;
        let mut added: BTreeMap<SegmentNumber, Held> = BTreeMap::new();
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
            // In their order: what is missing between two segments is always a loss.
            if wanted.is_some() && bytes <= LOG_BYTES_MAX {
                break;
            }
            bytes -= segment.bytes;
            old.push(segment.number);
            forgotten += wanted.map_or(0, |held| held.memos);
        }
        self.discard(log, &old);
        self.forget(forgotten, "more came than are kept on disk");
    }

    fn discard(&mut self, log: &mut Log, old: &[SegmentNumber]) {
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
    use forebay_wal::OsFs;

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

    /// Eight memos, two in each of four segments.
    fn eight() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut memos, _) = open(directory.path(), 0);
        for second in 0..8 {
            memos.keep(Bytes::from(vec![second; 400_000]), i64::from(second) * SECOND);
            memos.flush().expect("a sound disk");
        }
        assert_eq!(memos.held.values().map(|held| held.memos).collect::<Vec<_>>(), [2; 4]);
        directory
    }

    fn segment(directory: &Path, number: u64) -> std::path::PathBuf {
        directory.join(DIRECTORY).join(format!("{number:020}.segment"))
    }

    fn cut(path: &Path, bytes: u64) {
        let file = std::fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_len(bytes)).expect("a segment");
    }

    fn flip(path: &Path, at: &[usize]) {
        let mut bytes = std::fs::read(path).expect("a segment");
        at.iter().for_each(|at| bytes[*at] ^= 0x55);
        std::fs::write(path, bytes).expect("a segment");
    }

    const FIRST: usize = 4096 + 100;
    const SECOND_RECORD: usize = 4096 + 400_000 + 200;

    #[test]
    fn keys_that_are_lost_on_disk_are_counted_and_told_once() {
        type Harm = fn(&Path);
        let cases: [(&str, Harm, Option<u64>, usize); 9] = [
            ("a flipped bit", |path| flip(&segment(path, 1), &[FIRST]), Some(1), 7),
            ("a flipped bit in the last segment", |path| flip(&segment(path, 4), &[FIRST]), Some(1), 7),
            ("two flipped bits", |path| flip(&segment(path, 2), &[FIRST, SECOND_RECORD]), Some(2), 6),
            ("a segment is gone", |path| std::fs::remove_file(segment(path, 2)).unwrap(), Some(2), 6),
            ("a segment is empty", |path| cut(&segment(path, 2), 0), Some(2), 6),
            ("a segment is cut", |path| cut(&segment(path, 3), 4096), Some(2), 6),
            ("a segment has no header", |path| flip(&segment(path, 3), &[9, 2048 + 9]), Some(2), 6),
            ("the last segment is cut", |path| cut(&segment(path, 4), 4096), None, 6),
            ("the last segment is empty", |path| cut(&segment(path, 4), 0), None, 6),
        ];
        for (what, harm, number, left) in cases {
            let directory = eight();
            harm(directory.path());
            let now = 10 * SECOND;
            let (mut memos, found) = open(directory.path(), now);
            let lost = (memos.lost().is_empty(), memos.lost().number(), found.len());
            assert_eq!(lost, (false, number, left), "{what}: {:?}", memos.lost());
            memos.tell_lost(now).expect("a sound disk");
            assert_eq!(memos.forgotten.get(), number.unwrap_or(1), "{what}");
            memos.keep(Bytes::from_static(b"young"), now);
            memos.flush().expect("a sound disk");
            let (memos, found) = open(directory.path(), now);
            assert_eq!(memos.lost(), &LostKeys::default(), "{what}: it is told once");
            assert_eq!(found.len(), left + 1, "{what}");
        }
    }

    #[test]
    fn a_torn_tail_and_what_is_not_wanted_any_more_are_no_loss() {
        let torn = eight();
        flip(&segment(torn.path(), 4), &[SECOND_RECORD]);
        let (memos, found) = open(torn.path(), 10 * SECOND);
        assert_eq!((memos.lost(), found.len()), (&LostKeys::default(), 7));

        let old = eight();
        flip(&segment(old.path(), 1), &[FIRST]);
        cut(&segment(old.path(), 2), 0);
        let (memos, found) = open(old.path(), 3604 * SECOND + 1);
        assert_eq!((memos.lost(), found.len()), (&LostKeys::default(), 3));
    }
}
