//! Opens a log: reads the checkpoint, then every record after it in order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, CheckpointSlots, CheckpointState, LogPosition};
use crate::compatibility;
use crate::directory::{LogDirectory, SegmentHeaders};
use crate::error::LogError;
use crate::event::{Event, Truncation};
use crate::fs::{Fs, renew};
use crate::log::Log;
use crate::number::{SegmentNumber, Seq};
use crate::options::LogOptions;
use crate::reader::{Damage, RecordStart, SegmentEnd, SegmentItem, SegmentReader};
use crate::segment::{self, Header, RECORDS_START, Segment};
use crate::spare::{SpareFiles, is_spare};

impl Log {
    /// Opens the log of a directory, makes the directory if it is missing, and passes every finding to `visit` in order.
    ///
    /// No written byte is changed: a torn tail stays where it is, and the next record begins in a new segment. All
    /// reported records are on stable storage when this returns.
    ///
    /// # Errors
    ///
    /// Any I/O error, or that another version has written the directory. Damage is no error.
    pub fn open(
        fs: Arc<dyn Fs>,
        config: LogOptions,
        seed: u64,
        visit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Log, LogError> {
        let LogOptions { directory: path, segment_bytes, copied_bytes_max } = config;
        // An earlier start may have been killed before the directory's name was durable.
        if fs.list(&path).map_or(true, |names| names.is_empty()) {
            make_directory(fs.as_ref(), &path)?;
        }
        let names = fs.list(&path).map_err(LogError::at("read", &path))?;
        // A crash must leave the names that are seen now: a segment more or less changes which records count.
        fs.sync_directory(&path).map_err(LogError::at("sync", &path))?;
        compatibility::check(fs.as_ref(), &path, &names)?;
        let opened = CheckpointSlots::open(fs.as_ref(), &path, &names);
        let (slots, stored) = opened.map_err(LogError::at("read the checkpoint in", &path))?;
        let (checkpoint, gaps) = match stored {
            CheckpointState::Absent => (None, Gaps::AreLosses),
            CheckpointState::Sound(checkpoint) => (Some(checkpoint), Gaps::AreLosses),
            CheckpointState::MaybeStale(checkpoint) => (Some(checkpoint), Gaps::MayBeSettled),
            CheckpointState::Damaged => (None, Gaps::MayBeSettled),
        };
        let directory = LogDirectory { fs, path };
        let mut replay =
            LogReplay { directory, names, checkpoint, gaps, has_reported_checkpoint: false, visit };
        if replay.gaps == Gaps::MayBeSettled && replay.checkpoint.is_none() {
            replay.report_damaged_checkpoint();
        }
        let leftovers = replay.set_apart_settled();
        let ReplayOutcome { segments, end, unfinished } = replay.run()?;
        Ok(Log {
            spares: SpareFiles::new(replay.directory.clone()),
            directory: replay.directory,
            segment_bytes,
            copied_bytes_max,
            segments,
            active: None,
            unfinished,
            leftovers,
            unsynced_tail: None,
            pending: Vec::new(),
            end,
            next_seq: end.seq,
            committed_seq: end.seq,
            synced_seq: end.seq,
            slots,

            salts: fastrand::Rng::with_seed(seed),
        })
    }
}

/// Makes the directory and its ancestors, durably.
fn make_directory(fs: &dyn Fs, path: &Path) -> Result<(), LogError> {
    fs.create_directory(path).map_err(LogError::at("make", path))?;
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs.sync_directory(above) {
            // A directory without permission to read was not made here.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(LogError::at("sync", above))?,
        }
    }
    Ok(())
}

struct LogReplay<'a> {
    directory: LogDirectory,
    names: Vec<String>,
    checkpoint: Option<Checkpoint>,
    gaps: Gaps,
    has_reported_checkpoint: bool,
    visit: &'a mut dyn FnMut(Event<'_>),
}

/// The meaning of a gap in the sequence numbers between two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gaps {
    /// A needed segment is missing.
    AreLosses,
    /// Unknown: the checkpoint that would tell is damaged.
    MayBeSettled,
}

/// The result of a replay.
struct ReplayOutcome {
    /// All segments with a readable header, also those without valid records: they are released like any other.
    segments: Vec<Segment>,
    /// The place of the next record.
    end: LogPosition,
    /// The last segment, if nothing was begun behind its records.
    unfinished: Option<SegmentNumber>,
}

/// The bytes behind the last record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// No further record was begun.
    Clean,
    /// A record was begun, or the file is too short to tell.
    Torn,
}

/// The result of reading one segment.
struct ScanOutcome {
    tail: Tail,
    /// Bytes of the file.
    bytes: u64,
}

/// The plan for reading one segment.
struct SegmentScan {
    segment: Segment,
    start: Option<RecordStart>,
    limit: SegmentEnd,
    /// The size at which the file was made, as far as known.
    made_bytes: u64,
}

impl SegmentScan {
    /// The lost end of the last segment, if its file is too short. The ends of all other segments are known.
    fn truncation(&self, reader: &SegmentReader) -> Option<Truncation> {
        let SegmentScan { segment, limit, made_bytes, .. } = self;
        let (bytes, made_bytes) = (reader.size(), *made_bytes);
        let is_last = matches!(limit, SegmentEnd::Unknown { .. });
        let seq = reader.position().seq;
        (is_last && bytes < made_bytes).then_some(Truncation {
            segment: segment.number,
            bytes,
            made_bytes,
            seq,
        })
    }
}

impl LogReplay<'_> {
    /// Reports, once, that a younger checkpoint is damaged. It is called where a segment was released: that checkpoint
    /// had been written as a whole. A checkpoint that was torn while it was written does no harm and is not reported.
    fn report_damaged_checkpoint(&mut self) {
        if !std::mem::replace(&mut self.has_reported_checkpoint, true) {
            (self.visit)(Event::CheckpointDamaged);
        }
    }

    /// Removes spare files, which hold nothing, and takes the segments out of `names` that the checkpoint no longer
    /// needs. Returns the files of those that can be removed.
    fn set_apart_settled(&mut self) -> Vec<PathBuf> {
        let settled = |name: &str| {
            let (Some(number), Some(checkpoint)) = (segment::number_of(name), &self.checkpoint) else {
                return false;
            };
            number <= checkpoint.position.segment
                && checkpoint.segments.iter().all(|segment| segment.number != number)
        };
        // An unreadable segment is missing from the checkpoint without being settled.
        let is_readable = |name: &String| {
            let number = segment::number_of(name);
            let headers = number.map(|number| self.directory.headers(number));
            headers.is_none_or(|headers| headers.is_ok_and(|headers| !headers.found.is_empty()))
        };
        let names = std::mem::take(&mut self.names).into_iter();
        let (spares, names) = names.partition::<Vec<_>, _>(|name| is_spare(name));
        for name in spares {
            // A spare file on a disk that cannot be written does no harm.
            let _ = self.directory.fs.remove(&self.directory.path.join(name));
        }
        let (left_out, names) = names.into_iter().partition::<Vec<_>, _>(|name| settled(name));
        self.names = names;
        left_out.into_iter().filter(is_readable).map(|name| self.directory.path.join(name)).collect()
    }

    /// Reports the checkpoint and reads all segments behind it.
    fn run(&mut self) -> Result<ReplayOutcome, LogError> {
        let checkpoint = self.checkpoint.take();
        let files: Vec<SegmentNumber> =
            self.names.iter().filter_map(|name| segment::number_of(name)).collect();
        let mut known = BTreeMap::new();
        let mut position = LogPosition::start_of(SegmentNumber::default(), Seq::FIRST);
        if let Some(Checkpoint { position: at, segments, state }) = &checkpoint {
            position = *at;
            (self.visit)(Event::Checkpoint { state });
            for segment in segments {
                if files.contains(&segment.number) {
                    known.insert(segment.number, segment.clone());
                } else if !segment.seqs.is_empty() {
                    if self.gaps == Gaps::MayBeSettled {
                        self.report_damaged_checkpoint();
                    }
                    (self.visit)(Event::Missing(segment.clone()));
                    self.report_missing_end(segment, position, &files);
                }
            }
        }
        let youngest = files.iter().copied().max();
        let mut end = position;
        let scans = self.scans(&mut known, position, files)?;
        let mut tail = Tail::Torn;
        for scan in &scans {
            let read = self.read(scan, &mut end)?;
            tail = read.tail;
            if let Some(segment) = known.get_mut(&scan.segment.number) {
                let first = segment.seqs.start;
                segment.seqs.end = end.seq.max(first);
                // The next checkpoint has the shorter size, so that a truncation is reported only once.
                segment.bytes = segment.bytes.min(read.bytes);
            }
        }
        // The next segment must not overwrite an unreadable one.
        if let Some(segment) = youngest.filter(|youngest| *youngest > end.segment) {
            end = LogPosition::start_of(segment, end.seq);
        }
        let last = scans.last().map(|scan| scan.segment.number);
        let unfinished = last.filter(|last| tail == Tail::Clean && youngest == Some(*last));
        let unfinished = unfinished.filter(|last| self.directory.says_its_size(*last));
        Ok(ReplayOutcome { segments: known.into_values().collect(), end, unfinished })
    }

    /// Reports that the end of the log is unknown: the active segment of the last checkpoint is missing, and no later
    /// segment shows how many records it had.
    fn report_missing_end(&mut self, segment: &Segment, position: LogPosition, files: &[SegmentNumber]) {
        let is_last = segment.number == position.segment && files.iter().all(|file| *file < segment.number);
        if is_last && self.gaps == Gaps::AreLosses {
            let (segment, made_bytes) = (segment.number, segment.bytes);
            (self.visit)(Event::Truncation(Truncation { segment, bytes: 0, made_bytes, seq: position.seq }));
        }
    }

    /// The plans for all segments with records from `position` on.
    fn scans(
        &mut self,
        known: &mut BTreeMap<SegmentNumber, Segment>,
        position: LogPosition,
        mut files: Vec<SegmentNumber>,
    ) -> Result<Vec<SegmentScan>, LogError> {
        files.sort_unstable();
        let mut scans = Vec::new();
        if let Some(segment) = known.get(&position.segment) {
            let start = RecordStart { offset: position.offset, seq: position.seq };
            let limit = SegmentEnd::Unknown { proven: position.seq };
            let made_bytes = segment.bytes;
            scans.push(SegmentScan { segment: segment.clone(), start: Some(start), limit, made_bytes });
        }
        for number in files.into_iter().filter(|number| *number > position.segment) {
            let Some((segment, made_bytes)) = self.describe(number)? else {
                continue;
            };
            known.insert(number, segment.clone());
            let limit = SegmentEnd::Unknown { proven: segment.seqs.start };
            scans.push(SegmentScan { segment, start: None, limit, made_bytes });
        }
        // The first record of a later segment is the end of all earlier ones.
        let mut below = None;
        for scan in scans.iter_mut().rev() {
            if let Some(end) = below {
                scan.limit = SegmentEnd::Below(end);
            }
            let first = scan.segment.seqs.start;
            below = Some(below.map_or(first, |below: Seq| below.min(first)));
        }
        Ok(scans)
    }

    /// A segment as its headers describe it, with the size at which the file was made, as far as known. If both headers
    /// are damaged, reports that and returns `None`.
    fn describe(&mut self, number: SegmentNumber) -> Result<Option<(Segment, u64)>, LogError> {
        let SegmentHeaders { bytes, found } = self.directory.headers(number)?;
        let of_this = || found.iter().filter(|(header, _)| header.number == number);
        let Some((Header { first_seq, salt, .. }, _)) = of_this().next() else {
            (self.visit)(Event::Damage(Damage {
                segment: number,
                bytes: 0..bytes,
                seqs: Seq::default()..Seq::default(),
            }));
            return Ok(None);
        };
        let made_bytes = of_this().find_map(|(_, made_bytes)| *made_bytes).unwrap_or(RECORDS_START);
        Ok(Some((Segment { number, salt: *salt, seqs: *first_seq..*first_seq, bytes }, made_bytes)))
    }

    /// Reports the records of one segment, and moves `end` behind them.
    fn read(&mut self, scan: &SegmentScan, end: &mut LogPosition) -> Result<ScanOutcome, LogError> {
        let SegmentScan { segment, start, limit, .. } = scan;
        let first = start.map_or(segment.seqs.start, |start| start.seq);
        let void = matches!(limit, SegmentEnd::Below(below) if *below <= first);
        match self.gaps {
            _ if void || first <= end.seq => {}
            Gaps::AreLosses => {
                let lost = Damage { segment: segment.number, bytes: 0..0, seqs: end.seq..first };
                (self.visit)(Event::Damage(lost));
            }
            Gaps::MayBeSettled => self.report_damaged_checkpoint(),
        }
        let mut reader = self.directory.reader(segment, *start)?;
        loop {
            let found = reader.next(*limit).map_err(|error| self.directory.unreadable(segment, error))?;
            let Some(found) = found else { break };
            (self.visit)(match found {
                SegmentItem::Record(record) => Event::Record(record),
                SegmentItem::Damage(damage) => Event::Damage(damage),
            });
        }
        let RecordStart { offset, seq } = reader.position();
        let truncation = scan.truncation(&reader);
        if let Some(truncation) = truncation {
            (self.visit)(Event::Truncation(truncation));
        } else if reader.is_torn() {
            (self.visit)(Event::TornTail { segment: segment.number, offset });
        }
        if matches!(limit, SegmentEnd::Unknown { .. }) {
            let from = start.map_or(RECORDS_START, |start| start.offset);
            self.renew(segment, from..offset)?;
        }
        *end = LogPosition { segment: segment.number, offset, seq };
        let is_clean = !reader.is_torn() && truncation.is_none();
        let tail = if is_clean { Tail::Clean } else { Tail::Torn };
        Ok(ScanOutcome { tail, bytes: reader.size() })
    }

    /// Makes the records of a segment durable: a process may have been killed before their sync, and from now on they
    /// count.
    fn renew(&self, segment: &Segment, bytes: Range<u64>) -> Result<(), LogError> {
        let path = self.directory.segment(segment.number);
        let file = self.directory.fs.open(&path).map_err(LogError::at("open", &path))?;
        renew(file.as_ref(), bytes).map_err(LogError::at("sync", &path))
    }
}
