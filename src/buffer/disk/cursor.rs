//! Reads readings back from the log, in their order.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_reading::Readings;
use forebay_wal::{
    Damage, LogDirectory, LogError, RecordStart, Segment, SegmentEnd, SegmentItem, SegmentNumber,
    SegmentReader,
};

use super::entry::{Accepted, Entry};
use super::handover::{ReadFrom, View};
use crate::buffer::Amount;

/// Bytes of readings that are read at once; a single request may be larger.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// Bytes of a segment that are looked at at once, whatever is found in them.
const LOOK_BYTES: u64 = 16 * 1024 * 1024;

/// A request that was read.
#[derive(Debug)]
pub struct ReadRequest {
    /// The number of its segment.
    pub segment: SegmentNumber,
    /// Its number.
    pub number: u64,
    /// When it was accepted, nanoseconds since the Unix epoch.
    pub accepted_at: i64,
    /// Its readings and the bytes of its record.
    pub amount: Amount,
    /// Its readings.
    pub readings: Readings,
    /// The transform that made them; `None` if they came from outside.
    pub made_by: Option<Arc<str>>,
}

/// What was read at once.
#[derive(Debug, Default)]
pub struct Chunk {
    /// The requests.
    pub requests: Vec<ReadRequest>,
    /// What could not be read, and where it is set aside.
    pub damaged: Vec<(Damage, Result<Option<PathBuf>, LogError>)>,
    /// Numbers of requests that nobody has any more.
    pub lost: Vec<Range<u64>>,
    /// Segments of which nothing more will be read.
    pub left: Vec<SegmentNumber>,
    /// Whether all of the view was read.
    pub caught_up: bool,
    /// Why reading stopped.
    pub error: Option<LogError>,
}

/// How much was read at once.
#[derive(Default)]
struct Bytes {
    of_readings: u64,
    looked_at: u64,
}

/// Why reading in a segment ended.
enum End {
    /// It was enough for once.
    Full,
    /// The request was reached that is not to be read.
    To,
    /// Nothing more counts in it.
    OfSegment,
}

/// Reads the log from one place on.
#[derive(Debug)]
pub struct Cursor {
    directory: LogDirectory,
    segment: SegmentNumber,
    start: Option<RecordStart>,
    /// The number of the request that comes next.
    number: u64,
    reader: Option<SegmentReader>,
}

impl Cursor {
    /// Starts there.
    pub fn new(directory: LogDirectory, from: ReadFrom) -> Cursor {
        let ReadFrom { segment, start, number } = from;
        Cursor { directory, segment, start, number, reader: None }
    }

    /// The number of the request that comes next.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads on, up to some number of bytes, and before the request `to`. It blocks.
    pub fn read(&mut self, view: &View, to: Option<u64>) -> Chunk {
        let mut chunk = Chunk::default();
        // It may have grown since.
        if let Some(reader) = &mut self.reader {
            reader.refresh();
        }
        match self.fill(view, to, &mut chunk) {
            Ok(caught_up) => chunk.caught_up = caught_up,
            Err(error) => {
                self.start = self.reader.take().map(|reader| reader.position()).or(self.start);
                chunk.error = Some(error);
            }
        }
        chunk
    }

    /// Leaves the rest of a segment, which cannot be read, where it is. Returns the segment's number.
    pub fn skip_segment(&mut self, view: &View) -> SegmentNumber {
        let skipped = self.segment;
        if let Some((_, numbers)) = view.segments.iter().find(|(segment, _)| segment.number == skipped) {
            self.number = self.number.max(numbers.end);
        }
        self.reader = None;
        self.start = None;
        self.segment = self.segment.next();
        skipped
    }

    fn fill(&mut self, view: &View, to: Option<u64>, chunk: &mut Chunk) -> Result<bool, LogError> {
        let mut bytes = Bytes::default();
        loop {
            let index = view.segments.partition_point(|(segment, _)| segment.number < self.segment);
            let Some((segment, numbers)) = view.segments.get(index) else { return Ok(true) };
            if segment.number > self.segment {
                self.move_to(segment.number, chunk);
            }
            match self.read_segment(segment, to, &mut bytes, chunk)? {
                End::Full => return Ok(false),
                End::To => return Ok(true),
                // What is in memory is not lost, whatever becomes of it here.
                End::OfSegment => self.lose_up_to(to.map_or(numbers.end, |to| to.min(numbers.end)), chunk),
            }
            if index + 1 == view.segments.len() {
                return Ok(true);
            }
            self.move_to(segment.number.next(), chunk);
        }
    }

    /// Reads on in one segment.
    fn read_segment(
        &mut self,
        segment: &Segment,
        to: Option<u64>,
        bytes: &mut Bytes,
        chunk: &mut Chunk,
    ) -> Result<End, LogError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.directory.reader(segment, self.start)?,
        };
        let limit = SegmentEnd::Below(segment.seqs.end);
        let end = loop {
            if to.is_some_and(|to| self.number >= to) {
                break Ok(End::To);
            }
            if bytes.of_readings >= CHUNK_BYTES || bytes.looked_at >= LOOK_BYTES {
                break Ok(End::Full);
            }
            match reader.next(limit) {
                Err(error) => break Err(self.directory.unreadable(segment, error)),
                Ok(None) => break Ok(End::OfSegment),
                Ok(Some(SegmentItem::Record(record))) => {
                    bytes.looked_at += forebay_wal::record_bytes(record.payload.len());
                    if let Some(accepted) = Entry::readings(record.payload) {
                        let number = accepted.number;
                        if let Some(to) = to.filter(|to| number >= *to) {
                            // Those between are gone. This one is in memory, or else it is read the next time.
                            self.lose_up_to(to, chunk);
                            self.start = Some(RecordStart { offset: record.offset, seq: record.seq });
                            return Ok(End::To);
                        }
                        let request = request(segment.number, record.payload.len(), accepted);
                        bytes.of_readings += self.on_request(number, request, chunk);
                    }
                }
                Ok(Some(SegmentItem::Damage(damage))) => {
                    bytes.looked_at += damage.bytes.end - damage.bytes.start;
                    if !self.directory.is_set_aside(&damage) {
                        let set_aside = self.directory.set_aside(&damage);
                        chunk.damaged.push((damage, set_aside));
                    }
                }
            }
        };
        self.reader = Some(reader);
        end
    }

    /// Takes a request, or counts it as lost if its readings are none.
    fn on_request(&mut self, number: u64, request: Option<ReadRequest>, chunk: &mut Chunk) -> u64 {
        if number < self.number {
            return 0;
        }
        self.lose_up_to(number, chunk);
        let Some(request) = request else { return 0 };
        self.number = number + 1;
        let bytes = request.amount.bytes;
        chunk.requests.push(request);
        bytes
    }

    fn lose_up_to(&mut self, number: u64, chunk: &mut Chunk) {
        if self.number < number {
            chunk.lost.push(self.number..number);
            self.number = number;
        }
    }

    fn move_to(&mut self, segment: SegmentNumber, chunk: &mut Chunk) {
        chunk.left.push(self.segment);
        self.segment = segment;
        self.start = None;
        self.reader = None;
    }
}

/// The request of a record; `None` if its readings are none.
pub fn request(segment: SegmentNumber, payload_bytes: usize, accepted: Accepted<'_>) -> Option<ReadRequest> {
    let Accepted { number, accepted_at, count, made_by, readings, .. } = accepted;
    let amount = Amount { readings: u64::from(count), bytes: forebay_wal::record_bytes(payload_bytes) };
    let readings = Readings::from_encoded(readings, usize::try_from(count).ok()?)?;
    let made_by = (!made_by.is_empty()).then(|| made_by.into());
    Some(ReadRequest { segment, number, accepted_at, amount, readings, made_by })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::buffer::tests::numbered;
    use forebay_wal::{Durability, Log, LogOptions, OsFs};

    #[test]
    fn what_is_in_memory_is_not_read_too_although_the_request_before_it_is_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = LogOptions::new(directory.path().to_owned(), 64 * 1024);
        let mut log = Log::open(Arc::new(OsFs), config, 1, &mut |_| {}).expect("it opens");
        let mut damaged_at = 0;
        for number in 1..=3 {
            let readings = numbered(0..2);
            let readings_bytes = readings.as_bytes();
            let head = Accepted {
                number,
                accepted_at: 0,
                count: 2,
                made_by: "",
                memo: &[],
                readings: readings_bytes,
            }
            .head();
            log.append(&[&head, readings.as_bytes()]).expect("room");
            if number == 2 {
                damaged_at = usize::try_from(log.position().offset).expect("small") - 8;
            }
        }
        log.commit(Durability::Synced).expect("a sound disk");
        let path = directory.path().join("00000000000000000001.segment");
        let mut bytes = fs::read(&path).expect("a segment");
        bytes[damaged_at] ^= 1;
        fs::write(&path, bytes).expect("a sound disk");

        let view = View { segments: vec![(log.segments()[0].clone(), 1..4)] };
        let from = ReadFrom { segment: SegmentNumber::new(1), start: None, number: 1 };
        let mut cursor = Cursor::new(log.directory().clone(), from);
        let chunk = cursor.read(&view, Some(3));
        let numbers = |chunk: &Chunk| chunk.requests.iter().map(|request| request.number).collect::<Vec<_>>();
        let lost: Vec<_> = chunk.lost.iter().map(|lost| (lost.start, lost.end)).collect();
        assert_eq!((numbers(&chunk), lost, chunk.caught_up), (vec![1], vec![(2, 3)], true));
        assert_eq!((cursor.number(), chunk.damaged.len()), (3, 1));
        // If it is not kept in memory after all, it is read.
        let chunk = cursor.read(&view, None);
        assert_eq!((numbers(&chunk), chunk.lost.is_empty(), chunk.caught_up), (vec![3], true, true));
    }
}
