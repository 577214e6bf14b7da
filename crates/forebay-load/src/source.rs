//! Batches that connections send, and windows of readings that the audit expects: readings have ordinals.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::write_reading;
use forebay_reading::Readings;
use forebay_reading::timestamp::Timestamp;

use crate::csv_error::CsvError;

/// The readings of one request.
#[derive(Debug, Default)]
pub(super) struct LoadBatch {
    pub(super) readings: Readings,
    /// The ordinal of each reading: its place in the list of fates.
    pub(super) ordinals: Vec<usize>,
}

/// The batches of one connection.
pub(super) trait BatchSource: Send + Debug {
    /// The next readings, at most `most`; `None` at the end.
    ///
    /// # Errors
    ///
    /// The rest of the file could not be read.
    fn next_batch(&mut self, most: usize) -> Result<Option<LoadBatch>, CsvError>;
}

/// A reading that the audit expects on the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedReading {
    pub(super) ordinal: usize,
    pub(super) sensor: Arc<str>,
    pub(super) time: Timestamp,
}

/// The readings of one device within a span of time. Every reading of the plan is in exactly one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuditWindow {
    pub(super) device: Arc<str>,
    /// The first instant of the window; `None` if it has no beginning.
    pub(super) from: Option<Timestamp>,
    /// The first instant after the window; `None` if it has no end.
    pub(super) to: Option<Timestamp>,
    pub(super) wanted: Vec<ExpectedReading>,
}

impl LoadBatch {
    /// The body of the request: one object if `most`, the size of a full batch, is one, an array otherwise.
    pub(super) fn body(&self, most: usize) -> Bytes {
        let mut body = Vec::with_capacity(self.readings.len() * 128);
        for (index, reading) in self.readings.iter().enumerate() {
            if most > 1 {
                body.push(if index == 0 { b'[' } else { b',' });
            }
            write_reading(reading, &mut body);
        }
        if most > 1 {
            body.push(b']');
        }
        body.into()
    }
}
