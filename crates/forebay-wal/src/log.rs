//! The log: appends records to the youngest segment, makes them durable, and lets old segments go.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointSlots, LogPosition};
use crate::frame;
use crate::fs::{Fs, LogFile, is_no_room, renew};
use crate::reader::{RecordStart, SegmentReader};
use crate::segment::{self, HEADER_PLACES, Header, RECORDS_START, Segment};
use crate::spare::{Spare, SpareJob};

/// Memory that is kept for the records of the next group.
const PENDING_BYTES_KEPT: usize = 4 * 1024 * 1024;
/// Size of the first segment after a start: it is made while a request waits.
const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Where there is no room for a segment, one that is smaller by this factor is tried.
const SMALLER_BY: u64 = 8;

/// The settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where its files are; nobody else may write there.
    pub directory: PathBuf,
    /// Size of a segment; one for a larger record is larger.
    pub segment_bytes: u64,
    /// Records with a payload of up to so many bytes are copied together, to be written at once; a larger one is
    /// written from where it is, when it is appended.
    pub copied_bytes_max: usize,
}

impl LogOptions {
    /// The usual settings: below 64 KiB a copy costs less than a write of its own.
    pub fn new(directory: PathBuf, segment_bytes: u64) -> LogOptions {
        LogOptions { directory, segment_bytes, copied_bytes_max: 64 * 1024 - 1 }
    }
}

/// Where the files of a log are.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) path: PathBuf,
}

impl LogDirectory {
    /// The file of the segment with this number.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(segment::file_name(number))
    }

    /// A reader of a segment, from its first record on or from `start`.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn reader(&self, segment: &Segment, start: Option<RecordStart>) -> Result<SegmentReader, LogError> {
        let path = self.segment(segment.number);
        let file = self.fs.open(&path).map_err(LogError::at("open", &path))?;
        SegmentReader::new(file, segment, start).map_err(LogError::at("read", &path))
    }

    /// What went wrong when a segment was read.
    pub fn unreadable(&self, segment: &Segment, error: io::Error) -> LogError {
        LogError::at("read", &self.segment(segment.number))(error)
    }
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// What was appended survives the process.
    Written,
    /// What was appended survives power loss.
    Synced,
}

/// Something that the system did not do.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {error}", path.display())]
pub struct LogError {
    /// What was tried.
    pub action: &'static str,
    /// With which file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

impl LogError {
    /// Whether there was no room for it.
    pub fn is_no_room(&self) -> bool {
        is_no_room(&self.error)
    }

    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |error| LogError { action, path: path.to_owned(), error }
    }
}

/// An open log. One thread owns it.
pub struct Log {
    pub(super) directory: LogDirectory,
    pub(super) segment_bytes: u64,
    pub(super) copied_bytes_max: usize,
    /// The segments that are needed, the oldest first; the active one, if there is one, is the last.
    pub(super) segments: Vec<Segment>,
    pub(super) active: Option<ActiveSegment>,
    /// The last segment that a start has found, if it can be gone on in.
    pub(super) unfinished: Option<u64>,
    /// Files from before the start that are not needed, to be removed before anything is written.
    pub(super) leftovers: Vec<PathBuf>,
    /// What a commit has kept and no sync has confirmed, in the segment before the next one.
    pub(super) unsynced_tail: Option<UnsyncedTail>,
    /// Records that were appended and not written yet.
    pub(super) pending: Vec<u8>,
    /// Where the next record comes, if there is no active segment.
    pub(super) end: LogPosition,
    /// The sequence number of the next record.
    pub(super) next_seq: u64,
    /// The sequence number of the first record that no commit has kept yet.
    pub(super) committed_seq: u64,
    /// Records below this sequence number are on stable storage.
    pub(super) synced_seq: u64,
    pub(super) slots: CheckpointSlots,
    pub(super) spare: Option<Spare>,
    /// Spare files that were named so far: no two have the same name, or one would be written through the other.
    pub(super) spares_named: AtomicU64,
    pub(super) salts: fastrand::Rng,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    file: Arc<dyn LogFile>,
    path: PathBuf,
    /// Bytes that are written, without those that are pending.
    written: u64,
    /// The end of what a commit has kept.
    committed: u64,
    /// The end of what is on stable storage.
    synced: u64,
    bytes: u64,
}

impl ActiveSegment {
    /// Writes behind what is written.
    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write_at(bytes, self.written).map_err(LogError::at("write to", &self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// What of it still has to be synced when no more is written to it.
    fn leave(self) -> Option<UnsyncedTail> {
        let ActiveSegment { file, path, committed, synced, .. } = self;
        (synced < committed).then_some(UnsyncedTail { file, path, bytes: synced..committed })
    }
}

/// Records that were committed as [`Durability::Written`], in a segment that something went wrong with since.
#[derive(Debug)]
pub(super) struct UnsyncedTail {
    file: Arc<dyn LogFile>,
    path: PathBuf,
    bytes: Range<u64>,
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Log { directory, segments, next_seq, synced_seq, .. } = self;
        write!(formatter, "Log {{ {directory:?}, {segments:?}, next {next_seq}, synced {synced_seq} }}")
    }
}

impl Log {
    /// Appends a record, whose payload is the concatenation of `payload`, and returns its sequence number.
    ///
    /// It counts only after [`Log::commit`].
    ///
    /// # Errors
    ///
    /// If a new segment is needed and cannot be had, or a large record cannot be written. All records since the last
    /// commit are void then; the next one begins in a new segment.
    ///
    /// # Panics
    ///
    /// If the payload is empty or has 4 GiB and more.
    pub fn append(&mut self, payload: &[&[u8]]) -> Result<u64, LogError> {
        let payload_bytes = payload.iter().map(|part| part.len()).sum();
        let bytes = frame::size(payload_bytes);
        if self.room() < bytes {
            let rolled = self.roll(bytes);
            self.or_void(rolled)?;
        }
        let seq = self.next_seq;
        let salt = self.segments.last().expect("there is an active segment").salt;
        self.next_seq += 1;
        if payload_bytes <= self.copied_bytes_max {
            frame::write(&mut self.pending, salt, seq, self.synced_seq, payload);
        } else {
            self.pending.extend_from_slice(&frame::head(salt, seq, self.synced_seq, payload));
            let written = self.write_through(payload);
            self.or_void(written)?;
            self.pending.extend_from_slice(frame::padding(payload_bytes));
        }
        Ok(seq)
    }

    /// Writes what is pending, and then `parts`, from where they are.
    fn write_through(&mut self, parts: &[&[u8]]) -> Result<(), LogError> {
        self.flush()?;
        let active = self.active.as_mut().expect("there is an active segment");
        parts.iter().try_for_each(|part| active.write(part))
    }

    /// Makes all that was appended survive the process, or power loss.
    ///
    /// # Errors
    ///
    /// If it cannot be written or synced. What of it reached the disk is unknown, and all records since the last
    /// commit are void: the next one begins in a new segment, under the first of their sequence numbers, and that
    /// is what makes whatever is left of them not count. Records of earlier commits stay; if they are not synced yet,
    /// the next segment begins only after they are.
    pub fn commit(&mut self, durability: Durability) -> Result<(), LogError> {
        let done = match durability {
            Durability::Written => self.flush(),
            Durability::Synced => self.sync(),
        };
        self.or_void(done)?;
        self.committed_seq = self.next_seq;
        if let Some(active) = &mut self.active {
            active.committed = active.written;
        }
        Ok(())
    }

    /// Passes a success on; after a failure nothing since the last commit counts.
    fn or_void(&mut self, done: Result<(), LogError>) -> Result<(), LogError> {
        if done.is_err() {
            if let Some(segment) = self.active() {
                // Not behind the void records of this segment: a later start would go on there, and a reader of the
                // whole segment would come upon them first.
                self.end = LogPosition::start_of(segment + 1, self.committed_seq);
            }
            self.unsynced_tail =
                self.active.take().and_then(ActiveSegment::leave).or(self.unsynced_tail.take());
            self.pending.clear();
            self.next_seq = self.committed_seq;
            self.synced_seq = self.synced_seq.min(self.next_seq);
            self.segments.iter_mut().for_each(|segment| segment.cut(self.committed_seq));
        }
        done
    }

    fn room(&self) -> u64 {
        let free =
            |active: &ActiveSegment| active.bytes.saturating_sub(active.written + self.pending.len() as u64);
        self.active.as_ref().map_or(0, free)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.as_mut().filter(|_| !self.pending.is_empty()) else { return Ok(()) };
        active.write(&self.pending)?;
        self.pending.clear();
        // A group of large requests must not keep its memory for ever.
        self.pending.shrink_to(PENDING_BYTES_KEPT);
        if let Some(segment) = self.segments.last_mut() {
            segment.seqs.end = self.next_seq;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        if let Some(UnsyncedTail { file, path, bytes }) = &self.unsynced_tail {
            renew(file.as_ref(), bytes.clone()).map_err(LogError::at("sync", path))?;
            self.unsynced_tail = None;
        }
        if let Some(active) = self.active.as_mut().filter(|_| self.synced_seq < self.next_seq) {
            active.file.sync().map_err(LogError::at("sync", &active.path))?;
            active.synced = active.written;
        }
        self.synced_seq = self.next_seq;
        Ok(())
    }

    /// Goes on in the last segment that a start has found, if nothing stands in it behind its records: a log that
    /// takes few records is not to begin a file at every start. Without it, and after a checkpoint was tried, the next
    /// record begins a new one.
    ///
    /// Its records were made durable when the log was opened, and there is nothing in it that could be taken for one
    /// that follows them.
    ///
    /// # Errors
    ///
    /// If it cannot be opened; the next record begins a new one then.
    pub fn resume_last_segment(&mut self) -> Result<(), LogError> {
        self.remove_leftovers();
        let unfinished = self.unfinished.take();
        let Some(segment) = self.segments.last().filter(|last| unfinished == Some(last.number)) else {
            return Ok(());
        };
        if self.active.is_none() && self.end.segment == segment.number {
            let path = self.directory.segment(segment.number);
            let file = self.directory.fs.open(&path).map_err(LogError::at("open", &path))?;
            let at = self.end.offset;
            self.active = Some(ActiveSegment {
                file,
                path,
                written: at,
                committed: at,
                synced: at,
                bytes: segment.bytes,
            });
        }
        Ok(())
    }

    /// Goes on in a new segment with room for a record of so many bytes.
    fn roll(&mut self, record_bytes: u64) -> Result<(), LogError> {
        self.remove_leftovers();
        // Whatever is in a later segment says that all before it was synced.
        self.sync()?;
        self.end = self.position();
        let first = self.active.take().is_none();
        let wanted = if first { self.segment_bytes.min(FIRST_SEGMENT_BYTES) } else { self.segment_bytes };
        let least = (RECORDS_START + record_bytes).next_multiple_of(RECORDS_START);
        let wanted = wanted.max(least);
        let number = self.end.segment + 1;
        // If this fails half-way, what is left of it must not be taken for the segment that comes in its place.
        self.end = LogPosition::start_of(number, self.next_seq);
        let spare = match self.spare.take_if(|spare| spare.bytes >= wanted) {
            Some(spare) => spare,
            None => self.make_spare(wanted, least)?,
        };
        let header = Header { number, first_seq: self.next_seq, salt: self.salts.u32(..) };
        let bytes = spare.bytes;
        let (file, path) = self.install(spare, &header)?;
        let (written, committed, synced) = (RECORDS_START, RECORDS_START, RECORDS_START);
        self.active = Some(ActiveSegment { file, path, written, committed, synced, bytes });
        let seqs = self.next_seq..self.next_seq;
        self.segments.push(Segment { number, salt: header.salt, seqs, bytes });
        Ok(())
    }

    /// Makes a file for the next segment. Where there is no room for one of the usual size, a smaller one is better
    /// than none.
    fn make_spare(&self, wanted: u64, least: u64) -> Result<Spare, LogError> {
        let mut bytes = wanted;
        loop {
            match self.spare_job(bytes).run() {
                Err(error) if error.is_no_room() && bytes > least => bytes = (bytes / SMALLER_BY).max(least),
                made => return made,
            }
        }
    }

    /// Makes a spare file the segment of this header, durably.
    fn install(&self, spare: Spare, header: &Header) -> Result<(Arc<dyn LogFile>, PathBuf), LogError> {
        let fs = &self.directory.fs;
        let path = self.directory.segment(header.number);
        let from = spare.path.clone();
        self.write_header_and_name(spare, header, &path).inspect_err(|_| {
            // The first error is the one to tell. A file that stays is empty, and another takes its place.
            let _ = fs.remove(&from).or_else(|_| fs.remove(&path));
        })
    }

    fn write_header_and_name(
        &self,
        spare: Spare,
        header: &Header,
        path: &Path,
    ) -> Result<(Arc<dyn LogFile>, PathBuf), LogError> {
        let mark = [&header.encode()[..], &header.encode_size(spare.bytes)].concat();
        let Spare { file, path: from, .. } = spare;
        for place in HEADER_PLACES {
            file.write_at(&mark, place).map_err(LogError::at("write to", &from))?;
        }
        file.sync().map_err(LogError::at("sync", &from))?;
        let LogDirectory { fs, path: directory } = &self.directory;
        fs.rename(&from, path).map_err(LogError::at("make", path))?;
        // Sync the directory too: without it a crash can lose the new segment's name.
        fs.sync_directory(directory).map_err(LogError::at("sync", directory))?;
        Ok((file, path.to_owned()))
    }

    /// Where the next record comes.
    pub fn position(&self) -> LogPosition {
        let active = self.active.as_ref().zip(self.segments.last());
        active.map_or(LogPosition { seq: self.next_seq, ..self.end }, |(active, segment)| LogPosition {
            segment: segment.number,
            offset: active.written + self.pending.len() as u64,
            seq: self.next_seq,
        })
    }

    /// Keeps `state` for the next start, and lets the segments with these numbers go: nothing in them is needed
    /// any more, as `state` says. They are removed once it is on stable storage.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or if it was and a segment could not be removed: [`Log::segments`] tells. Either way
    /// the next start may find it, and nothing is removed before it is on stable storage.
    pub fn checkpoint(&mut self, state: Vec<u8>, settled: &[u64]) -> Result<(), LogError> {
        let old = self.save_checkpoint(state, settled)?;
        self.release(&old)
    }

    /// The first half of a checkpoint: keeps `state` for the next start, and returns the segments that can go.
    ///
    /// If there is no room for it, the file that was to be the next segment goes first.
    ///
    /// # Errors
    ///
    /// If it cannot be written. The next start may find it all the same.
    pub fn save_checkpoint(&mut self, state: Vec<u8>, settled: &[u64]) -> Result<Vec<Segment>, LogError> {
        self.remove_leftovers();
        // One that fails may be found all the same, and the last segment may be settled in it.
        self.unfinished = None;
        self.commit(Durability::Synced)?;
        let (old, segments) = self.without(settled);
        let checkpoint = Checkpoint { position: self.position(), segments, state };
        let mut written = self.write_checkpoint(&checkpoint);
        if written.as_ref().is_err_and(LogError::is_no_room) && self.give_up_spare() {
            written = self.write_checkpoint(&checkpoint);
        }
        written?;
        self.segments = checkpoint.segments;
        Ok(old)
    }

    /// A start changes nothing, so that a directory that is not understood stays as it is; the first one to write
    /// removes what no start needs. A file that stays, on a disk that cannot be written, does no harm.
    fn remove_leftovers(&mut self) {
        for path in self.leftovers.drain(..) {
            let _ = self.directory.fs.remove(&path);
        }
    }

    fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let LogDirectory { fs, path } = &self.directory;
        let written = self.slots.write(fs.as_ref(), path, checkpoint);
        written.map_err(LogError::at("write a checkpoint in", path))
    }

    /// Removes the file that was to be the next segment, to make room. Returns whether there was one.
    pub fn give_up_spare(&mut self) -> bool {
        let Some(spare) = self.spare.take() else { return false };
        self.directory.fs.remove(&spare.path).is_ok()
    }

    /// Lets the segments with these numbers go without keeping any state: a log that is always read as a whole needs
    /// no checkpoint.
    ///
    /// # Errors
    ///
    /// What the system says; they do not count any more, and what stays of them is found again at the next start.
    pub fn discard(&mut self, numbers: &[u64]) -> Result<(), LogError> {
        self.remove_leftovers();
        let (old, segments) = self.without(numbers);
        self.segments = segments;
        self.release(&old)
    }

    /// The segments with these numbers, but for the one that is written to, and all others.
    fn without(&self, numbers: &[u64]) -> (Vec<Segment>, Vec<Segment>) {
        let active = self.active();
        let goes = |segment: &Segment| numbers.contains(&segment.number) && Some(segment.number) != active;
        self.segments.iter().cloned().partition(goes)
    }

    /// The second half of a checkpoint: the files of these segments are used again, or removed. Each is tried,
    /// whatever happens to the others; what stays is removed at the next start.
    ///
    /// # Errors
    ///
    /// The first thing that the system did not do.
    pub fn release(&mut self, old: &[Segment]) -> Result<(), LogError> {
        old.iter().map(|segment| self.release_segment(segment)).fold(Ok(()), Result::and)
    }

    /// Uses the file of a segment that is not needed any more as the next one, or removes it.
    fn release_segment(&mut self, segment: &Segment) -> Result<(), LogError> {
        let fs = &self.directory.fs;
        let path = self.directory.segment(segment.number);
        if self.spare.is_some() || segment.bytes < self.segment_bytes {
            return fs.remove(&path).map_err(LogError::at("remove", &path));
        }
        // Its blocks are written already, and writing over them is what the disk does best. One that was cut short since
        // has not all of them.
        let file = fs.open(&path).map_err(LogError::at("open", &path))?;
        if file.size().map_err(LogError::at("read", &path))? < segment.bytes {
            return fs.remove(&path).map_err(LogError::at("remove", &path));
        }
        let to = self.spare_job(segment.bytes).path;
        fs.rename(&path, &to).map_err(LogError::at("rename", &path))?;
        self.spare = Some(Spare { file, path: to, bytes: segment.bytes });
        Ok(())
    }

    /// The work of making the next segment's file, which may be done elsewhere meanwhile; `None` while there is no
    /// need.
    pub fn wants_spare(&self) -> Option<SpareJob> {
        let active = self.active.as_ref()?;
        (self.spare.is_none() && active.written > active.bytes / 2)
            .then(|| self.spare_job(self.segment_bytes))
    }

    fn spare_job(&self, bytes: u64) -> SpareJob {
        SpareJob::new(&self.directory, self.spares_named.fetch_add(1, Ordering::Relaxed), bytes)
    }

    /// Takes what [`SpareJob::run`] made. If there is one already, its file is removed.
    pub fn give_spare(&mut self, spare: Spare) {
        if self.spare.is_some() {
            // A file that stays is removed at the next start.
            let _ = self.directory.fs.remove(&spare.path);
        } else {
            self.spare = Some(spare);
        }
    }

    /// The segments that are needed, the oldest first, with the records that are committed or written.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The number of the segment that is written to; `None` after a start or a failure, until the next record.
    pub fn active(&self) -> Option<u64> {
        self.active.as_ref().and(self.segments.last()).map(|segment| segment.number)
    }

    /// Where the files are, to read them.
    pub fn directory(&self) -> &LogDirectory {
        &self.directory
    }

    /// Bytes of all files of segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether everything that was committed is on stable storage.
    pub fn is_synced(&self) -> bool {
        self.synced_seq == self.committed_seq
    }
}
