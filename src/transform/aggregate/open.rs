//! The open windows of one series, and which of them a reading belongs to.
//!
//! **Invariant**: at the time `latest`, no window of the list is past; all start at or before it, and no two at the same
//! time. So there are at most lateness / every + 2 of them, rounded down, beside the late one.

use super::slots::{Slots, Start};
use super::windows::Windows;
use crate::timestamp::Timestamp;
use crate::transform::WindowId;

/// The open windows of a series.
#[derive(Clone, Copy, Debug)]
pub struct OpenWindows {
    /// Greatest time of its readings since it has open windows.
    pub latest: Timestamp,
    /// The one that starts last of those that are not past; each knows the one before it.
    newest: Option<WindowId>,
    /// The one of a slot that is past.
    late: Option<WindowId>,
}

/// Whether a window's slot is past for its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is not.
    InTime,
    /// It is.
    Late,
}

impl OpenWindows {
    /// A series whose first reading has this time.
    pub fn new(time: Timestamp) -> OpenWindows {
        OpenWindows { latest: time, newest: None, late: None }
    }

    /// Whether a reading of this slot comes in time.
    pub fn arrival(&self, slots: &Slots, start: Start) -> Arrival {
        if slots.is_past(start, self.latest) { Arrival::Late } else { Arrival::InTime }
    }

    /// The open window of this slot.
    pub fn find(&self, windows: &Windows, start: Start, arrival: Arrival) -> Option<WindowId> {
        match arrival {
            Arrival::Late => self.late.filter(|late| windows.get(*late).start == start),
            Arrival::InTime => self.in_time(windows).find(|window| windows.get(*window).start == start),
        }
    }

    /// Adds a window that was opened just now. Gives the late one whose place it takes.
    pub fn add(&mut self, windows: &mut Windows, new: WindowId, arrival: Arrival) -> Option<WindowId> {
        if arrival == Arrival::Late {
            return self.late.replace(new);
        }
        let start = windows.get(new).start;
        let later = self.in_time(windows).take_while(|window| windows.get(*window).start > start).last();
        match later {
            None => windows.get_mut(new).earlier = self.newest.replace(new),
            Some(later) => {
                let earlier = windows.get_mut(later).earlier.replace(new);
                windows.get_mut(new).earlier = earlier;
            }
        }
        None
    }

    /// A window that is past now.
    pub fn past(&self, windows: &Windows, slots: &Slots) -> Option<WindowId> {
        self.in_time(windows).find(|window| slots.is_past(windows.get(*window).start, self.latest))
    }

    /// Takes out a window that is still open.
    ///
    /// If a late one is all that is left, its time is the latest that is known. So a series whose clock had jumped ahead
    /// and was set back is in time again once the window in the future is closed.
    pub fn remove(&mut self, windows: &mut Windows, gone: WindowId) {
        if self.late == Some(gone) {
            self.late = None;
            return;
        }
        let earlier = windows.get(gone).earlier;
        let later = self.in_time(windows).find(|window| windows.get(*window).earlier == Some(gone));
        match later {
            None => self.newest = earlier,
            Some(later) => windows.get_mut(later).earlier = earlier,
        }
        if self.newest.is_none()
            && let Some(late) = self.late.take()
        {
            self.latest = super::slots::time_of(windows.get(late).start);
            self.newest = Some(late);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && self.late.is_none()
    }

    /// All of them, the late one last.
    pub fn all(&self, windows: &Windows) -> impl Iterator<Item = WindowId> {
        self.in_time(windows).chain(self.late)
    }

    /// Those that are not late, the newest first.
    fn in_time(&self, windows: &Windows) -> impl Iterator<Item = WindowId> {
        std::iter::successors(self.newest, |window| windows.get(*window).earlier)
    }
}
