//! Opens a log: the checkpoint, then every record after it, in their order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::checkpoint::{Checkpoint, CheckpointSlots, CheckpointState, LogPosition};
use crate::fs::{Fs, renew};
use crate::log::{Log, LogDirectory, LogError, LogOptions};
use crate::reader::{Damage, LogRecord, RecordStart, SegmentEnd, SegmentItem, SegmentReader};
use crate::segment::{self, HEADER_BYTES, HEADER_PLACES, Header, RECORDS_START, SIZE_BYTES, Segment};
use crate::spare::is_spare;
use crate::version;

/// What is found when a log is opened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The state that was kept last; what comes after it has changed it since.
    Checkpoint {
        /// As it was given to [`Log::checkpoint`].
        state: &'a [u8],
    },
    /// The last checkpoint cannot be read. Nobody knows what was let go since the one before it; if that one cannot be
    /// read either, every record that is there comes again.
    CheckpointDamaged,
    /// A sound record.
    Record(LogRecord<'a>),
    /// Records that cannot be read. Without sequence numbers it is a segment whose headers are both damaged, so that
    /// nobody knows what is in it: it is told no more after the
    /// next checkpoint, and stays where it is.
    Damage(Damage),
    /// A segment that was needed, and is not there.
    Missing(Segment),
    /// The youngest segment is shorter than it was made.
    Truncation(Truncation),
    /// Behind the last record one was begun that is not whole, and nothing says that it was ever synced: it does not
    /// count.
    TornTail {
        /// The number of the segment.
        segment: u64,
        /// Where in the file they begin.
        offset: u64,
    },
}

/// The youngest segment is shorter than it was made: what stood at its end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The number of the segment.
    pub segment: u64,
    /// Bytes that are left.
    pub bytes: u64,
    /// Bytes that it was made with, at least.
    pub made_bytes: u64,
    /// The sequence number of the first record that may have been in what is gone.
    pub seq: u64,
}

impl Log {
    /// Opens the log of a directory, which is made if it is not there, and tells `visit` what is in it, in order.
    ///
    /// Nothing that was written is changed: a torn tail stays where it is, and the next record begins in a new
    /// segment. What it tells of is on stable storage when it returns.
    ///
    /// # Errors
    ///
    /// What the system says, or that another version has written it. Damage is no error.
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
        // What is seen now must be what a crash leaves: a segment that was begun, or removed, changes what counts.
        fs.sync_directory(&path).map_err(LogError::at("sync", &path))?;
        version::check(fs.as_ref(), &path, &names)?;
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
            spare: None,
            spares_named: AtomicU64::new(1),
            salts: fastrand::Rng::with_seed(seed),
        })
    }
}

/// Makes the directory and those above it, durably.
fn make_directory(fs: &dyn Fs, path: &Path) -> Result<(), LogError> {
    fs.create_directory(path).map_err(LogError::at("make", path))?;
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs.sync_directory(above) {
            // What may not even be read was not made here.
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

/// What it means that sequence numbers are missing between two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gaps {
    /// A segment is gone that should be there.
    AreLosses,
    /// Nobody knows: the checkpoint that would say so is damaged.
    MayBeSettled,
}

/// What a replay comes to.
struct ReplayOutcome {
    /// All segments that can be told apart, also those that hold nothing that counts: they go like any other.
    segments: Vec<Segment>,
    /// Where the next record comes.
    end: LogPosition,
    /// The last segment, if nothing stands in it behind its records that was begun.
    unfinished: Option<u64>,
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing behind them was begun.
    Clean,
    /// Something was.
    Torn,
}

/// What reading a segment comes to.
struct ScanOutcome {
    tail: Tail,
    /// Bytes of the file.
    bytes: u64,
}

/// A segment that is to be read, and from where.
struct SegmentScan {
    segment: Segment,
    start: Option<RecordStart>,
    limit: SegmentEnd,
    /// Bytes that the file was made with, as far as that is known.
    made_bytes: u64,
}

impl SegmentScan {
    /// What is missing at the end of it, if it is the last one: where the others end is known.
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
    /// A younger checkpoint that was torn as it was written does no harm. One that let something go had been written
    /// as a whole: it is damaged.
    fn report_damaged_checkpoint(&mut self) {
        if !std::mem::replace(&mut self.has_reported_checkpoint, true) {
            (self.visit)(Event::CheckpointDamaged);
        }
    }

    /// Removes files that were to become segments, which hold nothing, and leaves out segments that the checkpoint no
    /// longer needs. Returns those of them that can be removed.
    fn set_apart_settled(&mut self) -> Vec<PathBuf> {
        let settled = |name: &str| {
            let (Some(number), Some(checkpoint)) = (segment::number_of(name), &self.checkpoint) else {
                return false;
            };
            number <= checkpoint.position.segment
                && checkpoint.segments.iter().all(|segment| segment.number != number)
        };
        // What cannot be read was not settled, only left out of the checkpoint.
        let is_readable = |name: &String| {
            let number = segment::number_of(name);
            let headers = number.map(|number| self.directory.headers(number));
            headers.is_none_or(|headers| headers.is_ok_and(|headers| !headers.found.is_empty()))
        };
        let names = std::mem::take(&mut self.names).into_iter();
        let (spares, names) = names.partition::<Vec<_>, _>(|name| is_spare(name));
        for name in spares {
            // One that stays, on a disk that cannot be written, does no harm.
            let _ = self.directory.fs.remove(&self.directory.path.join(name));
        }
        let (left_out, names) = names.into_iter().partition::<Vec<_>, _>(|name| settled(name));
        self.names = names;
        left_out.into_iter().filter(is_readable).map(|name| self.directory.path.join(name)).collect()
    }

    /// Reads all there is.
    fn run(&mut self) -> Result<ReplayOutcome, LogError> {
        let checkpoint = self.checkpoint.take();
        let files: Vec<u64> = self.names.iter().filter_map(|name| segment::number_of(name)).collect();
        let mut known = BTreeMap::new();
        let mut position = LogPosition::start_of(0, 1);
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
                // What was told of a file that is shorter than it was made is not told again after a checkpoint.
                segment.bytes = segment.bytes.min(read.bytes);
            }
        }
        // A segment that cannot be read is not written over by the next one.
        if let Some(segment) = youngest.filter(|youngest| *youngest > end.segment) {
            end = LogPosition::start_of(segment, end.seq);
        }
        let last = scans.last().map(|scan| scan.segment.number);
        let unfinished = last.filter(|last| tail == Tail::Clean && youngest == Some(*last));
        let unfinished = unfinished.filter(|last| self.directory.says_its_size(*last));
        Ok(ReplayOutcome { segments: known.into_values().collect(), end, unfinished })
    }

    /// The segment is gone that was written to at the last checkpoint: if none comes after it, nobody knows what it
    /// held beside what the checkpoint says.
    fn report_missing_end(&mut self, segment: &Segment, position: LogPosition, files: &[u64]) {
        let is_last = segment.number == position.segment && files.iter().all(|file| *file < segment.number);
        if is_last && self.gaps == Gaps::AreLosses {
            let (segment, made_bytes) = (segment.number, segment.bytes);
            (self.visit)(Event::Truncation(Truncation { segment, bytes: 0, made_bytes, seq: position.seq }));
        }
    }

    /// The segments that have records from `position` on, with their limits.
    fn scans(
        &mut self,
        known: &mut BTreeMap<u64, Segment>,
        position: LogPosition,
        mut files: Vec<u64>,
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
        // What a later segment begins with is where the earlier ones end.
        let mut below = None;
        for scan in scans.iter_mut().rev() {
            if let Some(end) = below {
                scan.limit = SegmentEnd::Below(end);
            }
            let first = scan.segment.seqs.start;
            below = Some(below.map_or(first, |below: u64| below.min(first)));
        }
        Ok(scans)
    }

    /// What the header of a segment says, and the bytes that it was made with, as far as it says so; `None`, and said
    /// so, if both headers are damaged.
    fn describe(&mut self, number: u64) -> Result<Option<(Segment, u64)>, LogError> {
        let SegmentHeaders { bytes, found } = self.directory.headers(number)?;
        let of_this = || found.iter().filter(|(header, _)| header.number == number);
        let Some((Header { first_seq, salt, .. }, _)) = of_this().next() else {
            (self.visit)(Event::Damage(Damage { segment: number, bytes: 0..bytes, seqs: 0..0 }));
            return Ok(None);
        };
        let made_bytes = of_this().find_map(|(_, made_bytes)| *made_bytes).unwrap_or(RECORDS_START);
        Ok(Some((Segment { number, salt: *salt, seqs: *first_seq..*first_seq, bytes }, made_bytes)))
    }

    /// Tells of the records of one segment, and moves `end` behind them. Returns how they end.
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

    /// Makes what was read durable: it may have been written by a process that was killed before its sync, and
    /// from now on it counts.
    fn renew(&self, segment: &Segment, bytes: Range<u64>) -> Result<(), LogError> {
        let path = self.directory.segment(segment.number);
        let file = self.directory.fs.open(&path).map_err(LogError::at("open", &path))?;
        renew(file.as_ref(), bytes).map_err(LogError::at("sync", &path))
    }
}

/// What the front of a segment says.
struct SegmentHeaders {
    /// Bytes of the file.
    bytes: u64,
    /// The headers that are sound, and the bytes that the file was made with, where they say so.
    found: Vec<(Header, Option<u64>)>,
}

impl LogDirectory {
    /// Whether this version made the segment. An older version wrote checkpoints whose position is behind void
    /// records, and nothing can go on there.
    fn says_its_size(&self, number: u64) -> bool {
        let headers = self.headers(number);
        headers.is_ok_and(|headers| headers.found.iter().any(|(_, made_bytes)| made_bytes.is_some()))
    }

    fn headers(&self, number: u64) -> Result<SegmentHeaders, LogError> {
        let path = self.segment(number);
        let file = self.fs.open(&path).map_err(LogError::at("open", &path))?;
        let bytes = file.size().map_err(LogError::at("read", &path))?;
        let mut found = Vec::new();
        for place in HEADER_PLACES {
            let mut front = [0; HEADER_BYTES + SIZE_BYTES];
            let read = file.read_at(&mut front, place).map_err(LogError::at("read", &path))?;
            let header = Header::decode(&front[..read.min(HEADER_BYTES)]);
            let size = |header: &Header| header.decode_size(front[..read].get(HEADER_BYTES..)?);
            found.extend(header.map(|header| (header, size(&header))));
        }
        Ok(SegmentHeaders { bytes, found })
    }
}
