//! Opens a log: the checkpoint, then every record after it, in their order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::checkpoint::{Checkpoint, Position, Slots, Stored};
use super::fs::{Fs, renew};
use super::log::{Directory, Log, LogConfig, LogError};
use super::reader::{Damage, Found, Limit, Record, Start};
use super::segment::{self, HEADER_BYTES, HEADER_PLACES, Header, RECORDS_START, Segment};
use super::spare::is_spare;

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
    Record(Record<'a>),
    /// Records that cannot be read. Without sequence numbers it is a segment whose headers are both damaged, so that
    /// nobody knows what is in it: it is told no more after the
    /// next checkpoint, and stays where it is.
    Damage(Damage),
    /// A segment that was needed, and is not there.
    Missing(Segment),
    /// Bytes behind the last record were begun and never acknowledged; they do not count.
    TornTail {
        /// The number of the segment.
        segment: u64,
        /// Where in the file they begin.
        offset: u64,
    },
}

impl Log {
    /// Opens the log of a directory, which is made if it is not there, and tells `visit` what is in it, in order.
    ///
    /// Nothing that was written is changed: a torn tail stays where it is, and the next record begins in a new
    /// segment. What it tells of is on stable storage when it returns.
    ///
    /// # Errors
    ///
    /// What the system says. Damage is no error.
    pub fn open(
        fs: Arc<dyn Fs>,
        config: LogConfig,
        seed: u64,
        visit: &mut dyn FnMut(Event<'_>),
    ) -> Result<Log, LogError> {
        let LogConfig { directory: path, segment_bytes, copied_bytes_max } = config;
        // An earlier start may have been killed before the directory's name was durable.
        if fs.list(&path).map_or(true, |names| names.is_empty()) {
            make_directory(fs.as_ref(), &path)?;
        }
        let names = fs.list(&path).map_err(LogError::at("read", &path))?;
        // What is seen now must be what a crash leaves: a segment that was begun, or removed, changes what counts.
        fs.sync_directory(&path).map_err(LogError::at("sync", &path))?;
        let opened = Slots::open(fs.as_ref(), &path, &names);
        let (slots, stored) = opened.map_err(LogError::at("read the checkpoint in", &path))?;
        let (checkpoint, gaps) = match stored {
            Stored::Nothing => (None, Gaps::AreLosses),
            Stored::Checkpoint(checkpoint) => (Some(checkpoint), Gaps::AreLosses),
            Stored::Beside(checkpoint) => (Some(checkpoint), Gaps::MayBeSettled),
            Stored::Damaged => (None, Gaps::MayBeSettled),
        };
        let directory = Directory { fs, path };
        let mut replay = Replay { directory, names, checkpoint, gaps, told_of_checkpoint: false, visit };
        if replay.gaps == Gaps::MayBeSettled && replay.checkpoint.is_none() {
            replay.tell_of_checkpoint();
        }
        replay.remove_leftovers();
        let Replayed { segments, end, unfinished } = replay.run()?;
        Ok(Log {
            directory: replay.directory,
            segment_bytes,
            copied_bytes_max,
            segments,
            active: None,
            unfinished,
            left: None,
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

struct Replay<'a> {
    directory: Directory,
    names: Vec<String>,
    checkpoint: Option<Checkpoint>,
    gaps: Gaps,
    told_of_checkpoint: bool,
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
struct Replayed {
    /// All segments that can be told apart, also those that hold nothing that counts: they go like any other.
    segments: Vec<Segment>,
    /// Where the next record comes.
    end: Position,
    /// The last segment, if nothing stands in it behind its records that was begun.
    unfinished: Option<u64>,
}

/// How the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nothing behind them was begun.
    Clean,
    /// Something was.
    Torn,
}

/// A segment that is to be read, and from where.
struct Chapter {
    segment: Segment,
    start: Option<Start>,
    limit: Limit,
}

impl Replay<'_> {
    /// A younger checkpoint that was torn as it was written does no harm. One that let something go had been written
    /// as a whole: it is damaged.
    fn tell_of_checkpoint(&mut self) {
        if !std::mem::replace(&mut self.told_of_checkpoint, true) {
            (self.visit)(Event::CheckpointDamaged);
        }
    }

    /// Removes files that were to become segments, and segments that the checkpoint no longer needs. A file that
    /// stays, on a disk that cannot be written, does no harm.
    fn remove_leftovers(&mut self) {
        let Directory { fs, path } = &self.directory;
        let settled = |name: &str| {
            let (Some(number), Some(checkpoint)) = (segment::number_of(name), &self.checkpoint) else {
                return false;
            };
            number <= checkpoint.position.segment
                && checkpoint.segments.iter().all(|segment| segment.number != number)
        };
        // What cannot be read was not settled, only left out of the checkpoint.
        let is_readable = |name: &str| {
            let number = segment::number_of(name);
            let headers = number.map(|number| self.directory.headers(number));
            headers.is_none_or(|headers| headers.is_ok_and(|(_, headers)| !headers.is_empty()))
        };
        self.names.retain(|name| {
            let goes = is_spare(name) || settled(name);
            if goes && is_readable(name) {
                let _ = fs.remove(&path.join(name));
            }
            !goes
        });
    }

    /// Reads all there is.
    fn run(&mut self) -> Result<Replayed, LogError> {
        let checkpoint = self.checkpoint.take();
        let files: Vec<u64> = self.names.iter().filter_map(|name| segment::number_of(name)).collect();
        let mut known = BTreeMap::new();
        let mut position = Position { segment: 0, offset: RECORDS_START, seq: 1 };
        if let Some(Checkpoint { position: at, segments, state }) = &checkpoint {
            position = *at;
            (self.visit)(Event::Checkpoint { state });
            for segment in segments {
                if files.contains(&segment.number) {
                    known.insert(segment.number, segment.clone());
                } else if !segment.seqs.is_empty() {
                    if self.gaps == Gaps::MayBeSettled {
                        self.tell_of_checkpoint();
                    }
                    (self.visit)(Event::Missing(segment.clone()));
                }
            }
        }
        let youngest = files.iter().copied().max();
        let mut end = position;
        let chapters = self.chapters(&mut known, position, files)?;
        let mut ending = Ending::Torn;
        for chapter in &chapters {
            ending = self.read(chapter, &mut end)?;
            if let Some(segment) = known.get_mut(&chapter.segment.number) {
                let first = segment.seqs.start;
                segment.seqs.end = end.seq.max(first);
            }
        }
        // A segment that cannot be read is not written over by the next one.
        if let Some(segment) = youngest.filter(|youngest| *youngest > end.segment) {
            end = Position { segment, offset: RECORDS_START, seq: end.seq };
        }
        let last = chapters.last().map(|chapter| chapter.segment.number);
        let unfinished = last.filter(|last| ending == Ending::Clean && youngest == Some(*last));
        Ok(Replayed { segments: known.into_values().collect(), end, unfinished })
    }

    /// The segments that have records from `position` on, with their limits.
    fn chapters(
        &mut self,
        known: &mut BTreeMap<u64, Segment>,
        position: Position,
        mut files: Vec<u64>,
    ) -> Result<Vec<Chapter>, LogError> {
        files.sort_unstable();
        let mut chapters = Vec::new();
        if let Some(segment) = known.get(&position.segment) {
            let start = Start { offset: position.offset, seq: position.seq };
            let limit = Limit::Unknown { proven: position.seq };
            chapters.push(Chapter { segment: segment.clone(), start: Some(start), limit });
        }
        for number in files.into_iter().filter(|number| *number > position.segment) {
            let Some(segment) = self.describe(number)? else {
                continue;
            };
            known.insert(number, segment.clone());
            let limit = Limit::Unknown { proven: segment.seqs.start };
            chapters.push(Chapter { segment, start: None, limit });
        }
        // What a later segment begins with is where the earlier ones end.
        let mut below = None;
        for chapter in chapters.iter_mut().rev() {
            if let Some(end) = below {
                chapter.limit = Limit::Below(end);
            }
            let first = chapter.segment.seqs.start;
            below = Some(below.map_or(first, |below: u64| below.min(first)));
        }
        Ok(chapters)
    }

    /// What the header of a segment says; `None`, and said so, if both are damaged.
    fn describe(&mut self, number: u64) -> Result<Option<Segment>, LogError> {
        let (bytes, headers) = self.directory.headers(number)?;
        let found = headers.into_iter().find(|header| header.number == number);
        let Some(Header { first_seq, salt, .. }) = found else {
            (self.visit)(Event::Damage(Damage { segment: number, bytes: 0..bytes, seqs: 0..0 }));
            return Ok(None);
        };
        Ok(Some(Segment { number, salt, seqs: first_seq..first_seq, bytes }))
    }

    /// Tells of the records of one segment, and moves `end` behind them. Returns how they end.
    fn read(&mut self, chapter: &Chapter, end: &mut Position) -> Result<Ending, LogError> {
        let Chapter { segment, start, limit } = chapter;
        let first = start.map_or(segment.seqs.start, |start| start.seq);
        let void = matches!(limit, Limit::Below(below) if *below <= first);
        match self.gaps {
            _ if void || first <= end.seq => {}
            Gaps::AreLosses => {
                let lost = Damage { segment: segment.number, bytes: 0..0, seqs: end.seq..first };
                (self.visit)(Event::Damage(lost));
            }
            Gaps::MayBeSettled => self.tell_of_checkpoint(),
        }
        let mut reader = self.directory.reader(segment, *start)?;
        loop {
            let found = reader.next(*limit).map_err(|error| self.directory.unreadable(segment, error))?;
            let Some(found) = found else { break };
            (self.visit)(match found {
                Found::Record(record) => Event::Record(record),
                Found::Damage(damage) => Event::Damage(damage),
            });
        }
        if reader.is_torn() {
            let offset = reader.position().offset;
            (self.visit)(Event::TornTail { segment: segment.number, offset });
        }
        let Start { offset, seq } = reader.position();
        if matches!(limit, Limit::Unknown { .. }) {
            let from = start.map_or(RECORDS_START, |start| start.offset);
            self.renew(segment, from..offset)?;
        }
        *end = Position { segment: segment.number, offset, seq };
        Ok(if reader.is_torn() { Ending::Torn } else { Ending::Clean })
    }

    /// Makes what was read durable: it may have been written by a process that was killed before its sync, and
    /// from now on it counts.
    fn renew(&self, segment: &Segment, bytes: Range<u64>) -> Result<(), LogError> {
        let path = self.directory.segment(segment.number);
        let file = self.directory.fs.open(&path).map_err(LogError::at("open", &path))?;
        renew(file.as_ref(), bytes).map_err(LogError::at("sync", &path))
    }
}

impl Directory {
    /// The size of a segment, and the headers in it that are sound.
    fn headers(&self, number: u64) -> Result<(u64, Vec<Header>), LogError> {
        let path = self.segment(number);
        let file = self.fs.open(&path).map_err(LogError::at("open", &path))?;
        let bytes = file.size().map_err(LogError::at("read", &path))?;
        let mut headers = Vec::new();
        for place in HEADER_PLACES {
            let mut header = [0; HEADER_BYTES];
            let read = file.read_at(&mut header, place).map_err(LogError::at("read", &path))?;
            headers.extend(Header::decode(&header[..read]));
        }
        Ok((bytes, headers))
    }
}
