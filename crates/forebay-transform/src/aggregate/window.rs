//! An open window.

use forebay_reading::ReadingRef;

use super::function::Needs;
use super::number::Number;
use super::slots::Start;
use super::summary::Summary;
use crate::WindowId;

/// What is known of the readings of a window; at least one.
#[derive(Debug)]
pub struct Window {
    /// Its number.
    pub id: WindowId,
    /// When it starts.
    pub start: Start,
    /// The unit that all its readings have. Mostly it is none, which takes no memory.
    unit: Option<Box<str>>,
    /// What their values come to.
    pub summary: Summary,
}

impl Window {
    /// Opens a window with a first reading.
    pub fn open(id: WindowId, start: Start, needs: Needs, reading: ReadingRef<'_>, number: Number) -> Window {
        let summary = Summary::new(needs, reading.time(), number);
        Window { id, start, unit: reading.unit().map(Box::from), summary }
    }

    /// Takes another reading. A unit that differs is none from then on.
    pub fn add(&mut self, reading: ReadingRef<'_>, number: Number) {
        if self.unit().map(str::as_bytes) != reading.unit_bytes() {
            self.unit = None;
        }
        self.summary.add(reading.time(), number);
    }

    /// The unit, if all readings had the same one.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }
}
