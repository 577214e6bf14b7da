//! The directory of a log: the paths of its segments, their headers, and readers of them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::LogError;
use crate::fs::Fs;
use crate::number::SegmentNumber;
use crate::reader::{RecordStart, SegmentReader};
use crate::segment::{self, HEADER_BYTES, HEADER_PLACES, Header, SIZE_BYTES, Segment};

/// The directory of a log, with the file system that it is on.
#[derive(Clone, Debug)]
pub struct LogDirectory {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) path: PathBuf,
}

impl LogDirectory {
    /// The path of a segment.
    pub(super) fn segment(&self, number: SegmentNumber) -> PathBuf {
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

    /// The error of a segment that could not be read.
    pub fn unreadable(&self, segment: &Segment, error: io::Error) -> LogError {
        LogError::at("read", &self.segment(segment.number))(error)
    }

    /// Whether the header has the size of the file. Older versions wrote none, and their checkpoints may point behind
    /// void records, where nothing can be appended.
    pub(super) fn says_its_size(&self, number: SegmentNumber) -> bool {
        let headers = self.headers(number);
        headers.is_ok_and(|headers| headers.found.iter().any(|(_, made_bytes)| made_bytes.is_some()))
    }

    pub(super) fn headers(&self, number: SegmentNumber) -> Result<SegmentHeaders, LogError> {
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

/// Both headers of a segment.
pub(super) struct SegmentHeaders {
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// The sound headers, each with the size at which the file was made, if it has that.
    pub(super) found: Vec<(Header, Option<u64>)>,
}
