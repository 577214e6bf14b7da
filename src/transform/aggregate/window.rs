//! An open window.

use super::function::Needs;
use super::labels::Labels;
use super::number::Number;
use super::slots::Start;
use super::summary::Summary;
use crate::reading::ReadingRef;
use crate::transform::WindowId;

/// What is known of the readings of a window; at least one.
#[derive(Debug)]
pub struct Window {
    /// Its number.
    pub id: WindowId,
    /// When it starts.
    pub start: Start,
    /// What its readings say alike.
    pub labels: Labels,
    /// What their values come to.
    pub summary: Summary,
}

impl Window {
    /// Opens a window with a first reading.
    pub fn open(id: WindowId, start: Start, needs: Needs, reading: ReadingRef<'_>, number: Number) -> Window {
        let summary = Summary::new(needs, reading.time(), number);
        Window { id, start, labels: Labels::of(reading), summary }
    }

    /// Takes another reading.
    pub fn add(&mut self, reading: ReadingRef<'_>, number: Number) {
        self.labels.keep_shared(reading);
        self.summary.add(reading.time(), number);
    }
}
