//! Reads the records of one segment in order, and finds the next sound record behind damage.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::frame::{self, ALIGNMENT, HEAD_BYTES, RecordHead};
use crate::fs::LogFile;
use crate::number::{SegmentNumber, Seq};
use crate::segment::{RECORDS_START, Segment};

/// Bytes of one read from the file; a larger record is read in one piece.
const WINDOW_BYTES: usize = 256 * 1024;

/// Where the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// All records below this sequence number were written; the others do not count.
    Below(Seq),
    /// Unknown: this is the last segment, and records may have been torn at its end.
    Unknown {
        /// Records below this were on stable storage: a missing one is damage. Later ones may never have been written.
        proven: Seq,
    },
}

/// The next part of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum SegmentItem<'a> {
    /// A sound record.
    Record(LogRecord<'a>),
    /// Records that cannot be read.
    Damage(Damage),
}

/// A sound record.
#[derive(Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// The sequence number.
    pub seq: Seq,
    /// The segment.
    pub segment: SegmentNumber,
    /// The byte of the file at which the record begins.
    pub offset: u64,
    /// The bytes that were appended.
    pub payload: &'a [u8],
}

/// Records that were acknowledged and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentNumber,
    /// The bytes of the file without a sound record.
    pub bytes: Range<u64>,
    /// The sequence numbers that are missing.
    pub seqs: Range<Seq>,
}

impl Damage {
    /// How many records are missing.
    pub fn records(&self) -> u64 {
        self.seqs.end.get().saturating_sub(self.seqs.start.get())
    }
}

/// The beginning of a record in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordStart {
    /// The byte of the file.
    pub offset: u64,
    /// The sequence number of the record.
    pub seq: Seq,
}

/// Reads the records of one segment.
#[derive(Debug)]
pub struct SegmentReader {
    file: Arc<dyn LogFile>,
    number: SegmentNumber,
    salt: u32,
    size: u64,
    next: RecordStart,
    window: Vec<u8>,
    window_start: u64,
    torn: bool,
}

impl SegmentReader {
    /// Reads from the first record on, or from `start`.
    ///
    /// # Errors
    ///
    /// If the size of the file cannot be read.
    pub fn new(
        file: Arc<dyn LogFile>,
        segment: &Segment,
        start: Option<RecordStart>,
    ) -> io::Result<SegmentReader> {
        let first = RecordStart { offset: RECORDS_START, seq: segment.seqs.start };
        Ok(SegmentReader {
            size: file.size()?,
            file,
            number: segment.number,
            salt: segment.salt,
            next: start.unwrap_or(first),
            window: Vec::new(),
            window_start: 0,
            torn: false,
        })
    }

    /// Bytes of the file when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The place of the next record, whether or not there is one.
    pub fn position(&self) -> RecordStart {
        self.next
    }

    /// Whether an unacknowledged record was begun behind the end.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// The next record or damage; `None` at the end.
    ///
    /// # Errors
    ///
    /// Any I/O error; the reader does not move then.
    pub fn next(&mut self, limit: SegmentEnd) -> io::Result<Option<SegmentItem<'_>>> {
        if matches!(limit, SegmentEnd::Below(end) if self.next.seq >= end) {
            return Ok(None);
        }
        let RecordStart { offset, seq } = self.next;
        let Some(head) = self.record_at(offset, seq..seq.next())? else {
            return Ok(self.skip_damage(limit)?.map(SegmentItem::Damage));
        };
        self.next = RecordStart { offset: offset + head.size(), seq: seq.next() };
        let start = index(offset - self.window_start) + HEAD_BYTES;
        let payload = &self.window[start..start + head.length as usize];
        Ok(Some(SegmentItem::Record(LogRecord { seq, segment: self.number, offset, payload })))
    }

    /// Moves from a place without a sound record to the next sound one.
    fn skip_damage(&mut self, limit: SegmentEnd) -> io::Result<Option<Damage>> {
        let RecordStart { offset, seq } = self.next;
        let (end, mut proven) = match limit {
            SegmentEnd::Below(end) => (end, end),
            SegmentEnd::Unknown { proven } => (Seq::MAX, proven),
        };
        // Each record takes some bytes, so the size of the file bounds the sequence numbers.
        let end = end.min(seq.saturating_add(self.size.saturating_sub(offset) / HEAD_BYTES as u64 + 1));
        let mut sound = None;
        let mut at = offset;
        while at.saturating_add(HEAD_BYTES as u64) <= self.size {
            let Some(head) = self.record_at(at, seq.next()..end)? else {
                at += ALIGNMENT as u64;
                continue;
            };
            sound.get_or_insert(RecordStart { offset: at, seq: head.seq });
            proven = proven.max(head.synced);
            // Later records prove more syncs. The first proof that covers the missing record is enough.
            if proven > seq {
                break;
            }
            at += head.size();
        }
        if proven <= seq {
            // Never synced, so never acknowledged.
            self.torn = sound.is_some() || self.is_begun(offset, seq)?;
            return Ok(None);
        }
        let next = sound.unwrap_or(RecordStart { offset: self.size.max(offset), seq: proven });
        self.next = next;
        Ok(Some(Damage { segment: self.number, bytes: offset..next.offset, seqs: seq..next.seq }))
    }

    /// Whether the head of this record is here, sound or not.
    fn is_begun(&mut self, offset: u64, seq: Seq) -> io::Result<bool> {
        Ok(self.head_at(offset)?.is_some_and(|head| head.seq == seq))
    }

    /// The head of a sound record that begins here and has one of these sequence numbers. The window holds the record.
    fn record_at(&mut self, offset: u64, seqs: Range<Seq>) -> io::Result<Option<RecordHead>> {
        let Some(head) = self.head_at(offset)?.filter(|head| seqs.contains(&head.seq)) else {
            return Ok(None);
        };
        if head.size() > self.size.saturating_sub(offset) || !self.load(offset, index(head.size()))? {
            return Ok(None);
        }
        let start = index(offset - self.window_start);
        Ok(head.checks(self.salt, &self.window[start..]).then_some(head))
    }

    fn head_at(&mut self, offset: u64) -> io::Result<Option<RecordHead>> {
        if !self.load(offset, HEAD_BYTES)? {
            return Ok(None);
        }
        Ok(RecordHead::read(&self.window[index(offset - self.window_start)..]))
    }

    /// Reads so many bytes from `offset` on into the window; false if the file has fewer.
    fn load(&mut self, offset: u64, bytes: usize) -> io::Result<bool> {
        let end = offset.saturating_add(bytes as u64);
        let window_end = self.window_start + self.window.len() as u64;
        if offset >= self.window_start && end <= window_end {
            return Ok(true);
        }
        if end > self.size {
            return Ok(false);
        }
        self.window.resize(bytes.max(WINDOW_BYTES), 0);
        self.window_start = offset;
        let filled = self.file.read_at(&mut self.window, offset);
        // After an error the window holds nothing.
        self.window.truncate(*filled.as_ref().unwrap_or(&0));
        filled?;
        Ok(self.window.len() >= bytes)
    }

    /// Forgets the bytes that were read ahead: the file has grown since.
    pub fn refresh(&mut self) {
        self.window.clear();
    }
}

/// A number of bytes in a window.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a window fits in memory")
}

/// Bytes of a record with a payload of this length.
pub fn record_bytes(payload_bytes: usize) -> u64 {
    frame::size(payload_bytes)
}
