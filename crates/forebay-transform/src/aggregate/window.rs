//! An open window.

use forebay_reading::ReadingRef;

use super::function::Needs;
use super::number::Number;
use super::slots::WindowStart;
use super::summary::Summary;
use crate::WindowId;

/// An open window, with at least one reading.
#[derive(Debug)]
pub struct OpenWindow {
    /// Its number.
    pub id: WindowId,
    /// The start of its slot.
    pub start: WindowStart,
    /// The unit that all its readings have. Mostly there is none, which takes no memory.
    unit: Option<Box<str>>,
    /// The statistics of their values.
    pub summary: Summary,
}

impl OpenWindow {
    /// Opens a window with a first reading.
    pub fn open(
        id: WindowId,
        start: WindowStart,
        needs: Needs,
        reading: ReadingRef<'_>,
        number: Number,
    ) -> OpenWindow {
        let summary = Summary::new(needs, reading.time(), number);
        OpenWindow { id, start, unit: reading.unit().map(Box::from), summary }
    }

    /// Adds another reading. If its unit differs, the window has no unit from then on.
    pub fn add(&mut self, reading: ReadingRef<'_>, number: Number) {
        if self.unit().map(str::as_bytes) != reading.unit_bytes() {
            self.unit = None;
        }
        self.summary.add(reading.time(), number);
    }

    /// The unit, if all readings have the same one.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }
}
