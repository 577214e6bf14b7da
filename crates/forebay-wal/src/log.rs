//! The log: appends records to the youngest segment, makes them durable, and releases old segments.

use std::fmt;
use std::path::PathBuf;

use crate::active::{ActiveSegment, UnsyncedTail};
use crate::checkpoint::{Checkpoint, CheckpointSlots, LogPosition};
use crate::directory::LogDirectory;
use crate::error::LogError;
use crate::frame;
use crate::fs::renew;
use crate::number::{SegmentNumber, Seq};
use crate::segment::{Header, RECORDS_START, Segment};
use crate::spare::{Spare, SpareFiles, SpareJob};

/// Memory that stays allocated for the pending records of the next commit.
const PENDING_BYTES_KEPT: usize = 4 * 1024 * 1024;
/// Size of the first segment after a start: a request waits while it is made.
const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Appended records survive a crash of the process.
    Written,
    /// Appended records survive power loss.
    Synced,
}

/// An open log. One thread owns it.
pub struct Log {
    pub(super) directory: LogDirectory,
    pub(super) segment_bytes: u64,
    pub(super) copied_bytes_max: usize,
    /// The segments that are needed, the oldest first; an active segment is the last.
    pub(super) segments: Vec<Segment>,
    pub(super) active: Option<ActiveSegment>,
    /// The last segment found at the start, if records can be appended to it.
    pub(super) unfinished: Option<SegmentNumber>,
    /// Files from before the start that are not needed. They are removed before anything is written.
    pub(super) leftovers: Vec<PathBuf>,
    /// Committed bytes of an earlier segment that no sync has confirmed.
    pub(super) unsynced_tail: Option<UnsyncedTail>,
    /// Records that were appended and are not written yet.
    pub(super) pending: Vec<u8>,
    /// The place of the next record while there is no active segment.
    pub(super) end: LogPosition,
    /// The sequence number of the next record.
    pub(super) next_seq: Seq,
    /// The sequence number of the first uncommitted record.
    pub(super) committed_seq: Seq,
    /// Records below this sequence number are on stable storage.
    pub(super) synced_seq: Seq,
    pub(super) slots: CheckpointSlots,
    pub(super) spares: SpareFiles,
    pub(super) salts: fastrand::Rng,
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
    /// The record counts only after [`Log::commit`].
    ///
    /// # Errors
    ///
    /// If a new segment is needed and cannot be made, or a large record cannot be written. All records since the last
    /// commit are void then; the next one begins in a new segment.
    ///
    /// # Panics
    ///
    /// If the payload is empty or has 4 GiB and more.
    pub fn append(&mut self, payload: &[&[u8]]) -> Result<Seq, LogError> {
        let payload_bytes = payload.iter().map(|part| part.len()).sum();
        let bytes = frame::size(payload_bytes);
        if self.room() < bytes {
            let rolled = self.roll(bytes);
            self.or_void(rolled)?;
        }
        let seq = self.next_seq;
        let salt = self.segments.last().expect("there is an active segment").salt;
        self.next_seq = seq.next();
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

    /// Writes the pending records and then `parts`, without copying these.
    fn write_through(&mut self, parts: &[&[u8]]) -> Result<(), LogError> {
        self.flush()?;
        let active = self.active.as_mut().expect("there is an active segment");
        parts.iter().try_for_each(|part| active.write(part))
    }

    /// Makes all appended records survive the process, or power loss.
    ///
    /// # Errors
    ///
    /// If they cannot be written or synced. How much reached the disk is unknown, and all records since the last commit
    /// are void: the next record begins in a new segment, under the first of their sequence numbers, so that their
    /// remains do not count. Records of earlier commits stay; if they are not synced yet, the next segment begins only
    /// after they are.
    pub fn commit(&mut self, durability: Durability) -> Result<(), LogError> {
        let result = match durability {
            Durability::Written => self.flush(),
            Durability::Synced => self.sync(),
        };
        self.or_void(result)?;
        self.committed_seq = self.next_seq;
        if let Some(active) = &mut self.active {
            active.committed = active.written;
        }
        Ok(())
    }

    /// Passes the result on; after a failure nothing since the last commit counts.
    fn or_void(&mut self, result: Result<(), LogError>) -> Result<(), LogError> {
        if result.is_err() {
            if let Some(segment) = self.active() {
                // Not behind the void records of this segment: a later start would append there, and a reader of the
                // whole segment would meet the void records first.
                self.end = LogPosition::start_of(segment.next(), self.committed_seq);
            }
            self.unsynced_tail =
                self.active.take().and_then(ActiveSegment::close).or(self.unsynced_tail.take());
            self.pending.clear();
            self.next_seq = self.committed_seq;
            self.synced_seq = self.synced_seq.min(self.next_seq);
            self.segments.iter_mut().for_each(|segment| segment.cut(self.committed_seq));
        }
        result
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
        // A commit of large requests must not hold its memory for ever.
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

    /// Appends to the last segment found at the start from now on, unless bytes were begun behind its records: a log
    /// with few records should not begin a file at every start. Without this call, and once a checkpoint was tried, the
    /// next record begins a new segment.
    ///
    /// The segment's records were made durable when the log was opened, and it holds nothing that could be taken for a
    /// record behind them.
    ///
    /// # Errors
    ///
    /// If the segment cannot be opened; the next record begins a new one then.
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

    /// Begins a new segment with room for a record of so many bytes.
    fn roll(&mut self, record_bytes: u64) -> Result<(), LogError> {
        self.remove_leftovers();
        // Readers take a later segment as proof that everything before it was synced.
        self.sync()?;
        self.end = self.position();
        let first = self.active.take().is_none();
        let wanted = if first { self.segment_bytes.min(FIRST_SEGMENT_BYTES) } else { self.segment_bytes };
        let least = (RECORDS_START + record_bytes).next_multiple_of(RECORDS_START);
        let wanted = wanted.max(least);
        let number = self.end.segment.next();
        // If this fails half-way, its remains must not be taken for the segment that replaces it.
        self.end = LogPosition::start_of(number, self.next_seq);
        let spare = self.spares.take_or_make(wanted, least)?;
        let header = Header { number, first_seq: self.next_seq, salt: self.salts.u32(..) };
        let bytes = spare.bytes;
        let (file, path) = spare.install(&self.directory, &header)?;
        let (written, committed, synced) = (RECORDS_START, RECORDS_START, RECORDS_START);
        self.active = Some(ActiveSegment { file, path, written, committed, synced, bytes });
        let seqs = self.next_seq..self.next_seq;
        self.segments.push(Segment { number, salt: header.salt, seqs, bytes });
        Ok(())
    }

    /// The place of the next record.
    pub fn position(&self) -> LogPosition {
        let active = self.active.as_ref().zip(self.segments.last());
        active.map_or(LogPosition { seq: self.next_seq, ..self.end }, |(active, segment)| LogPosition {
            segment: segment.number,
            offset: active.written + self.pending.len() as u64,
            seq: self.next_seq,
        })
    }

    /// Saves `state` for the next start, then releases the settled segments: according to `state`, nothing in them is
    /// needed any more.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written, or a segment cannot be removed afterwards: [`Log::segments`] shows which of
    /// the two. The next start may find the checkpoint in either case. No segment is removed before the checkpoint is on
    /// stable storage.
    pub fn checkpoint(&mut self, state: Vec<u8>, settled: &[SegmentNumber]) -> Result<(), LogError> {
        let old = self.save_checkpoint(state, settled)?;
        self.release(&old)
    }

    /// The first half of a checkpoint: saves `state` for the next start. Returns the segments to release.
    ///
    /// A full disk first loses the spare file of the next segment.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written. The next start may find it all the same.
    pub fn save_checkpoint(
        &mut self,
        state: Vec<u8>,
        settled: &[SegmentNumber],
    ) -> Result<Vec<Segment>, LogError> {
        self.remove_leftovers();
        // A failed checkpoint may be found all the same, and the last segment may be settled in it.
        self.unfinished = None;
        self.commit(Durability::Synced)?;
        let (old, segments) = self.without(settled);
        let checkpoint = Checkpoint { position: self.position(), segments, state };
        let mut written = self.write_checkpoint(&checkpoint);
        if written.as_ref().is_err_and(LogError::is_no_room) && self.spares.give_up() {
            written = self.write_checkpoint(&checkpoint);
        }
        written?;
        self.segments = checkpoint.segments;
        Ok(old)
    }

    /// Removes the files that no start needs. Opening a log changes nothing, so that an unknown directory stays as it
    /// is; the first write cleans up. A leftover on a disk that cannot be written does no harm.
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

    /// Removes the spare file of the next segment to make room. Returns whether there was one.
    pub fn give_up_spare(&mut self) -> bool {
        self.spares.give_up()
    }

    /// Releases segments without a checkpoint, for a log that is always read as a whole.
    ///
    /// # Errors
    ///
    /// The first I/O error. The segments do not count any more, but the next start finds every file that remains.
    pub fn discard(&mut self, numbers: &[SegmentNumber]) -> Result<(), LogError> {
        self.remove_leftovers();
        let (old, segments) = self.without(numbers);
        self.segments = segments;
        self.release(&old)
    }

    /// Splits the segments into those with these numbers, without the active one, and all others.
    fn without(&self, numbers: &[SegmentNumber]) -> (Vec<Segment>, Vec<Segment>) {
        let active = self.active();
        let goes = |segment: &Segment| numbers.contains(&segment.number) && Some(segment.number) != active;
        self.segments.iter().cloned().partition(goes)
    }

    /// The second half of a checkpoint: reuses or removes the files of these segments. A failure at one file does not
    /// stop the others; the next start removes every file that remains.
    ///
    /// # Errors
    ///
    /// The first I/O error.
    pub fn release(&mut self, old: &[Segment]) -> Result<(), LogError> {
        old.iter().map(|segment| self.release_segment(segment)).fold(Ok(()), Result::and)
    }

    /// Reuses the file of a settled segment as the spare one, or removes it.
    fn release_segment(&mut self, segment: &Segment) -> Result<(), LogError> {
        if segment.bytes >= self.segment_bytes && self.spares.reuse(segment)? {
            return Ok(());
        }
        let path = self.directory.segment(segment.number);
        self.directory.fs.remove(&path).map_err(LogError::at("remove", &path))
    }

    /// The job of making the next segment's file, for any thread; `None` while no spare file is needed.
    pub fn wants_spare(&self) -> Option<SpareJob> {
        let active = self.active.as_ref()?;
        (self.spares.is_empty() && active.written > active.bytes / 2)
            .then(|| self.spares.job(self.segment_bytes))
    }

    /// Takes the result of [`SpareJob::run`]. A second spare file is removed.
    pub fn give_spare(&mut self, spare: Spare) {
        self.spares.give(spare);
    }

    /// The segments that are needed, the oldest first, with their committed or written records.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The active segment; `None` after a start or a failure, until the next record.
    pub fn active(&self) -> Option<SegmentNumber> {
        self.active.as_ref().and(self.segments.last()).map(|segment| segment.number)
    }

    /// The directory of the files, for reading them.
    pub fn directory(&self) -> &LogDirectory {
        &self.directory
    }

    /// Bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether every committed record is on stable storage.
    pub fn is_synced(&self) -> bool {
        self.synced_seq == self.committed_seq
    }
}
