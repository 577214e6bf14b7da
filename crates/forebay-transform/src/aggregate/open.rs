//! The open windows of one series, and the choice of a reading's window.

use forebay_reading::timestamp::Timestamp;

use super::slots::{WindowSlots, WindowStart, time_of};
use super::window::OpenWindow;
use crate::WindowId;

/// The open windows of a series.
///
/// **Invariant**: at the time `latest` only the late window is past. The others start at or before it, no two at the same
/// time. So there are at most lateness / every + 2 of them, rounded down, beside the late one
/// (`a_series_has_no_more_open_windows_than_promised`).
#[derive(Debug)]
pub struct SeriesWindows {
    /// Greatest time of the series' readings since it has open windows.
    latest: Timestamp,
    /// The window that starts last. It has a field of its own because nearly all readings go into it.
    newest: Option<OpenWindow>,
    /// The windows before it, in order; empty without a newest one.
    earlier: Vec<OpenWindow>,
    /// The window that is past.
    late: Option<Box<OpenWindow>>,
}

/// Whether a window's slot is past for its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The slot is not past.
    InTime,
    /// The slot is past.
    Late,
}

/// Whether a reading has the greatest time of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It has, so that other windows may be past now.
    Ahead,
    /// An earlier reading had it.
    Behind,
}

impl SeriesWindows {
    /// No open windows, for a series whose first reading has this time.
    pub fn new(time: Timestamp) -> SeriesWindows {
        SeriesWindows { latest: time, newest: None, earlier: Vec::new(), late: None }
    }

    /// Records the time of a reading.
    pub fn advance(&mut self, time: Timestamp) -> Advance {
        if time <= self.latest {
            return Advance::Behind;
        }
        self.latest = time;
        Advance::Ahead
    }

    /// Whether a reading of this slot comes in time.
    pub fn arrival(&self, slots: &WindowSlots, start: WindowStart) -> Arrival {
        if slots.is_past(start, self.latest) { Arrival::Late } else { Arrival::InTime }
    }

    /// The open window of this slot.
    pub fn find(&mut self, start: WindowStart, arrival: Arrival) -> Option<&mut OpenWindow> {
        if arrival == Arrival::Late {
            return self.late.as_deref_mut().filter(|late| late.start == start);
        }
        self.newest.iter_mut().chain(&mut self.earlier).find(|window| window.start == start)
    }

    /// Adds a window. Gives the late window that it replaces.
    pub fn add(&mut self, new: OpenWindow, arrival: Arrival) -> Option<OpenWindow> {
        if arrival == Arrival::Late {
            return self.late.replace(Box::new(new)).map(|late| *late);
        }
        let Some(newest) = &mut self.newest else {
            self.newest = Some(new);
            return None;
        };
        let earlier = if newest.start < new.start { std::mem::replace(newest, new) } else { new };
        let place = self.earlier.partition_point(|window| window.start < earlier.start);
        // For a while there is one beside the newest, and rarely more.
        self.earlier.reserve_exact(1);
        self.earlier.insert(place, earlier);
        None
    }

    /// Removes the earliest window if it is past now. The newest never is.
    pub fn take_past(&mut self, slots: &WindowSlots) -> Option<OpenWindow> {
        let first = self.earlier.first()?;
        slots.is_past(first.start, self.latest).then(|| self.take_earlier(0))
    }

    /// Removes an open window.
    ///
    /// If only a late window is left, it becomes the newest, and its start the latest time. So a series whose clock jumped
    /// ahead and was set back is in time again once the window in the future is closed.
    pub fn take(&mut self, id: WindowId) -> Option<OpenWindow> {
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

    /// Whether no window is open.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && self.late.is_none()
    }

    /// Removes all windows.
    pub fn take_all(&mut self) -> impl Iterator<Item = OpenWindow> + use<> {
        let late = self.late.take().map(|late| *late);
        std::mem::take(&mut self.earlier).into_iter().chain(self.newest.take()).chain(late)
    }

    fn take_earlier(&mut self, place: usize) -> OpenWindow {
        let window = self.earlier.remove(place);
        if self.earlier.is_empty() {
            // Most series have a single window most of the time, and need no memory here.
            self.earlier = Vec::new();
        }
        window
    }
}
