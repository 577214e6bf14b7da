//! Looks at the directory of a gateway that is stopped: what is in it, what is damaged, what is not delivered.

use std::ops::Range;
use std::sync::Arc;

use forebay_reading::{ReadingRef, Readings};
use forebay_wal::{
    Damage, Fs, LogError, OsFs, ReadOnlyFs, Segment, SegmentEnd, SegmentItem, SegmentNumber, Truncation,
};

use super::checkpoint::{Books, Checkpointed, Gain};
use super::entry::{Entry, Settlement};
use super::lock::Lock;
pub use super::lost_keys::LostKeys;
use super::memos::{Memos, MemosConfig};
use super::recovery::{self, Recovered, lendable, report};
use super::{log_config, unix_nanos};
use crate::buffer::span::Span;
use crate::buffer::{Amount, BufferConfig, OpenError};
use crate::metrics::Metrics;

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The segment.
    pub segment: Segment,
    /// Requests that can be read.
    pub requests: u64,
    /// Their readings, and the bytes of their records.
    pub amount: Amount,
    /// Their readings that are not settled.
    pub unsettled: u64,
    /// What cannot be read.
    pub damaged: Vec<Damage>,
    /// What cannot be read, and was set aside before.
    pub set_aside: Vec<Damage>,
    /// The numbers of requests that should be there, and cannot be read.
    pub lost: Vec<Range<u64>>,
}

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The segments, the oldest first.
    pub segments: Vec<SegmentReport>,
    /// What could not be read when the log was opened, beside what is in [`Report::segments`].
    pub damaged: Vec<Damage>,
    /// Numbers of segments that were needed and are not there.
    pub missing: Vec<SegmentNumber>,
    /// The youngest segment, if it is shorter than it was made: what stood at its end is gone.
    pub cut_short: Option<Truncation>,
    /// Whether there is a checkpoint, and it cannot be read.
    pub checkpoint_damaged: bool,
    /// Requests that were acknowledged and that nobody has any more.
    pub lost_requests: u64,
    /// Batches that may have been sent and are not settled.
    pub batches: usize,
    /// Remembered keys that cannot be read any more.
    pub lost_keys: LostKeys,
}

impl Report {
    /// Readings that are not settled and can be read.
    pub fn unsettled(&self) -> u64 {
        self.segments.iter().map(|segment| segment.unsettled).sum()
    }

    /// All that cannot be read.
    pub fn all_damaged(&self) -> impl Iterator<Item = &Damage> {
        self.damaged.iter().chain(self.segments.iter().flat_map(|segment| &segment.damaged))
    }

    /// Whether everything can be read.
    pub fn is_sound(&self) -> bool {
        let damaged = self.all_damaged().next().is_some() || !self.missing.is_empty();
        let is_log_sound = !damaged && self.cut_short.is_none() && !self.checkpoint_damaged;
        is_log_sound && self.lost_requests == 0 && self.lost_keys.is_empty()
    }
}

/// Reads the whole log without changing anything, and shows each reading that is not settled to `visit`, in the
/// order in which they were accepted. It blocks.
///
/// # Errors
///
/// [`OpenError`] if a gateway has the directory, or it cannot be read. Damage is no error.
pub fn verify(config: &BufferConfig, visit: &mut dyn FnMut(ReadingRef<'_>)) -> Result<Report, OpenError> {
    let fs = Arc::new(ReadOnlyFs);
    let (_lock, recovered) = open(config, fs.clone())?;
    let memos = open_memos(config, fs)?;
    read_all(&recovered, &memos, visit).map_err(OpenError::from)
}

/// Reads the whole log, sets aside what cannot be read, and writes a checkpoint that says so: the next start finds
/// nothing wrong. Returns what was found. It blocks.
///
/// # Errors
///
/// [`OpenError`] if a gateway has the directory, or it cannot be read or written.
pub fn repair(config: &BufferConfig) -> Result<Report, OpenError> {
    repair_on(Arc::new(OsFs), config)
}

/// The same on any file system.
///
/// # Errors
///
/// As [`repair`].
pub fn repair_on(fs: Arc<dyn Fs>, config: &BufferConfig) -> Result<Report, OpenError> {
    let (_lock, mut recovered) = open(config, Arc::clone(&fs))?;
    let mut memos = open_memos(config, fs)?;
    let report = read_all(&recovered, &memos, &mut |_| {})?;
    memos.tell_lost(unix_nanos())?;
    for (at, memo) in std::mem::take(&mut recovered.memos) {
        memos.keep(memo, at);
    }
    // What is settled goes first, but for what is to be set aside: that may need the room.
    let damaged: Vec<_> = report.all_damaged().map(|damage| damage.segment).collect();
    checkpoint(&mut recovered, &mut memos, &damaged)?;
    for damage in report.all_damaged() {
        let set_aside = recovered.log.directory().set_aside(damage);
        self::report(&config.path, damage, &set_aside);
        set_aside?;
    }
    let lost = report.segments.iter().flat_map(|segment| &segment.lost);
    let spans = lost.cloned().map(Span::of_records).collect();
    recovered.state.settle(&Settlement { notes: Vec::new(), spans });
    checkpoint(&mut recovered, &mut memos, &[])?;
    memos.end();
    Ok(report)
}

/// Keeps what is known, and lets the settled segments go, but for some.
fn checkpoint(recovered: &mut Recovered, memos: &mut Memos, stay: &[SegmentNumber]) -> Result<(), LogError> {
    let Recovered { log, state, .. } = recovered;
    let numbers = log.segments().iter().map(|segment| segment.number);
    let goes = |number: &SegmentNumber| state.is_settled(*number) && !stay.contains(number);
    let settled: Vec<_> = numbers.filter(goes).collect();
    match (Books { log, state, memos }).checkpoint(&settled, Gain::Room)? {
        Checkpointed::Written(removed) => removed?,
        Checkpointed::NotNow => {}
    }
    settled.iter().for_each(|number| _ = state.contents.remove(number));
    Ok(())
}

fn open(config: &BufferConfig, fs: Arc<dyn Fs>) -> Result<(Lock, Recovered), OpenError> {
    let path = &config.path;
    // Looking for what is not there must not make it.
    std::fs::read_dir(path).map_err(|error| OpenError::Io { path: path.clone(), error })?;
    let lock = Lock::take(path)?;
    let recovered = recovery::recover(fs, log_config(path, config.limit.bytes), fastrand::u64(..))?;
    Ok((lock, recovered))
}

fn open_memos(config: &BufferConfig, fs: Arc<dyn Fs>) -> Result<Memos, LogError> {
    let forgotten = Metrics::new().idempotency_keys_forgotten;
    let memos_config = MemosConfig { fs, seed: fastrand::u64(..), kept: config.memos_kept, forgotten };
    Memos::open(memos_config, &config.path, unix_nanos()).map(|(memos, _)| memos)
}

/// What is in the log of readings, and what is missing in that of keys.
fn read_all(
    recovered: &Recovered,
    memos: &Memos,
    visit: &mut dyn FnMut(ReadingRef<'_>),
) -> Result<Report, LogError> {
    let segments = recovered.log.segments().iter();
    Ok(Report {
        segments: segments.map(|segment| read(recovered, segment, visit)).collect::<Result<_, _>>()?,
        // Those of segments that are there are found again.
        damaged: recovered.damaged.iter().filter(|damage| is_elsewhere(recovered, damage)).cloned().collect(),
        missing: recovered.missing.clone(),
        cut_short: recovered.cut_short,
        checkpoint_damaged: recovered.checkpoint_damaged,
        lost_requests: recovered.lost_requests,
        batches: recovered.state.notes.len(),
        lost_keys: memos.lost().clone(),
    })
}

fn is_elsewhere(recovered: &Recovered, damage: &Damage) -> bool {
    damage.bytes.is_empty() || recovered.log.segments().iter().all(|segment| segment.number != damage.segment)
}

fn read(
    recovered: &Recovered,
    segment: &Segment,
    visit: &mut dyn FnMut(ReadingRef<'_>),
) -> Result<SegmentReport, LogError> {
    let directory = recovered.log.directory();
    let mut report = SegmentReport {
        segment: segment.clone(),
        requests: 0,
        amount: Amount::default(),
        unsettled: 0,
        damaged: Vec::new(),
        set_aside: Vec::new(),
        lost: Vec::new(),
    };
    let numbers =
        recovered.state.contents.get(&segment.number).map_or(0..0, |content| content.numbers.clone());
    let mut expected = numbers.start;
    let mut reader = directory.reader(segment, None)?;
    loop {
        let found = reader.next(SegmentEnd::Below(segment.seqs.end));
        let record = match found.map_err(|error| directory.unreadable(segment, error))? {
            None => {
                report.lost.extend((expected < numbers.end).then_some(expected..numbers.end));
                return Ok(report);
            }
            Some(SegmentItem::Damage(damage)) => {
                let known = directory.is_set_aside(&damage);
                (if known { &mut report.set_aside } else { &mut report.damaged }).push(damage);
                continue;
            }
            Some(SegmentItem::Record(record)) => record,
        };
        let Some(accepted) = Entry::readings(record.payload) else { continue };
        let Some(readings) = Readings::from_encoded(accepted.readings, accepted.count as usize) else {
            continue;
        };
        report.lost.extend((expected < accepted.number).then_some(expected..accepted.number));
        expected = accepted.number + 1;
        report.requests += 1;
        let bytes = forebay_wal::record_bytes(record.payload.len());
        report.amount += Amount { readings: u64::from(accepted.count), bytes };
        for indexes in lendable(&recovered.state.settled, accepted.number, accepted.count) {
            report.unsettled += indexes.len() as u64;
            readings.iter().skip(indexes.start).take(indexes.len()).for_each(&mut *visit);
        }
    }
}
