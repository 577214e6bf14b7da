//! What the connections send and the audit looks for: readings with ordinals.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use forebay_codec::write_reading;
use forebay_reading::Readings;
use forebay_reading::timestamp::Timestamp;

use crate::csv_error::CsvError;

/// Readings that go out in one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) readings: Readings,
    /// The ordinal of each reading, under which its fate is remembered.
    pub(super) ordinals: Vec<usize>,
}

/// Where one connection takes its batches from.
pub(super) trait Source: Send + Debug {
    /// The next readings, at most `most`; none at the end.
    ///
    /// # Errors
    ///
    /// The file could not be read on.
    fn next_batch(&mut self, most: usize) -> Result<Option<Batch>, CsvError>;
}

/// A reading that the audit looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ordinal: usize,
    pub(super) sensor: Arc<str>,
    pub(super) time: Timestamp,
}

/// The readings of one device within a span of time. Every reading of the plan is in exactly one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) device: Arc<str>,
    /// The earliest instant of the window; none: it has no beginning.
    pub(super) from: Option<Timestamp>,
    /// The first instant after the window; none: it has no end.
    pub(super) to: Option<Timestamp>,
    pub(super) wanted: Vec<Wanted>,
}

impl Batch {
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
