//! The open windows of one series, and which of them a reading belongs to.

use forebay_reading::timestamp::Timestamp;

use super::slots::{Slots, Start, time_of};
use super::window::Window;
use crate::WindowId;

/// The open windows of a series.
///
/// **Invariant**: at the time `latest` none of them is past but the late one. They start at or before it, no two at the
/// same time. So there are at most lateness / every + 2 of them, rounded down, beside the late one
/// (`a_series_has_no_more_open_windows_than_promised`).
#[derive(Debug)]
pub struct OpenWindows {
    /// Greatest time of its readings since it has open windows.
    latest: Timestamp,
    /// The one that starts last. It lies here because nearly all readings go into it.
    newest: Option<Window>,
    /// Those before it, in their order; none if there is no newest one.
    earlier: Vec<Window>,
    /// The one that is past.
    late: Option<Box<Window>>,
}

/// Whether a window's slot is past for its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is not.
    InTime,
    /// It is.
    Late,
}

/// Whether a reading has the greatest time of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It has, so other windows may be past now.
    Ahead,
    /// Another one had it.
    Behind,
}

impl OpenWindows {
    /// Those of a series whose first reading has this time: none yet.
    pub fn new(time: Timestamp) -> OpenWindows {
        OpenWindows { latest: time, newest: None, earlier: Vec::new(), late: None }
    }

    /// Notes the time of a reading.
    pub fn advance(&mut self, time: Timestamp) -> Advance {
        if time <= self.latest {
            return Advance::Behind;
        }
        self.latest = time;
        Advance::Ahead
    }

    /// Whether a reading of this slot comes in time.
    pub fn arrival(&self, slots: &Slots, start: Start) -> Arrival {
        if slots.is_past(start, self.latest) { Arrival::Late } else { Arrival::InTime }
    }

    /// The open window of this slot.
    pub fn find(&mut self, start: Start, arrival: Arrival) -> Option<&mut Window> {
        if arrival == Arrival::Late {
            return self.late.as_deref_mut().filter(|late| late.start == start);
        }
        self.newest.iter_mut().chain(&mut self.earlier).find(|window| window.start == start)
    }

    /// Adds a window. Gives the late one whose place it takes.
    pub fn add(&mut self, new: Window, arrival: Arrival) -> Option<Window> {
        if arrival == Arrival::Late {
            return self.late.replace(Box::new(new)).map(|late| *late);
        }
        let Some(newest) = &mut self.newest else {
            self.newest = Some(new);
            return None;
        };
        let earlier = if newest.start < new.start { std::mem::replace(newest, new) } else { new };
        let place = self.earlier.partition_point(|window| window.start < earlier.start);
        // There is one more than the newest for a while, and rarely are there more.
        self.earlier.reserve_exact(1);
        self.earlier.insert(place, earlier);
        None
    }

    /// Takes out a window that is past now, the first one first. The newest never is.
    pub fn take_past(&mut self, slots: &Slots) -> Option<Window> {
        let first = self.earlier.first()?;
        slots.is_past(first.start, self.latest).then(|| self.take_earlier(0))
    }

    /// Takes out an open window.
    ///
    /// If a late one is all that is left, its time is the latest that is known. So a series whose clock had jumped ahead
    /// and was set back is in time again once the window in the future is closed.
    pub fn take(&mut self, id: WindowId) -> Option<Window> {
        if self.late.as_ref().is_some_and(|late| late.id == id) {
            return self.late.take().map(|late| *late);
        }
        if let Some(place) = self.earlier.iter().position(|window| window.id == id) {
            return Some(self.take_earlier(place));
        }
        let next = match self.earlier.len() {
            0 => self.late.take().map(|late| *late).inspect(|late| self.latest = time_of(late.start)),
            count => Some(self.take_earlier(count - 1)),
        };
        std::mem::replace(&mut self.newest, next)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && self.late.is_none()
    }

    /// Takes out all of them.
    pub fn take_all(&mut self) -> impl Iterator<Item = Window> + use<> {
        let late = self.late.take().map(|late| *late);
        std::mem::take(&mut self.earlier).into_iter().chain(self.newest.take()).chain(late)
    }

    fn take_earlier(&mut self, place: usize) -> Window {
        let window = self.earlier.remove(place);
        if self.earlier.is_empty() {
            // Most series have a single window most of the time.
            self.earlier = Vec::new();
        }
        window
    }
}
