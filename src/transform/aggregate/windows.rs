//! Windows by their numbers.

use super::labels::Labels;
use super::slots::Start;
use super::summary::Summary;
use crate::transform::WindowId;
use crate::transform::series::SeriesId;

/// Windows that lie beside each other in memory, which is never moved as more are opened.
const CHUNK: usize = 1024;

/// An open window.
#[derive(Debug)]
pub struct Window {
    /// The series that it is of.
    pub series: SeriesId,
    /// When it starts.
    pub start: Start,
    /// The open window of the series before this one, if this one is not a late one.
    pub earlier: Option<WindowId>,
    /// What its readings say alike.
    pub labels: Labels,
    /// What their values come to.
    pub summary: Summary,
}

/// All windows of a transform. The number of one that was closed is used again only after [`Windows::release`].
#[derive(Debug, Default)]
pub struct Windows {
    chunks: Vec<Vec<Option<Window>>>,
    free: Vec<WindowId>,
    open: usize,
}

impl Windows {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Puts in a window and gives its number.
    pub fn insert(&mut self, window: Window) -> WindowId {
        self.open += 1;
        if let Some(id) = self.free.pop() {
            *self.place(id) = Some(window);
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first one grows as it is filled, so that few windows take little.
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK }));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("there is one now");
        chunk.push(Some(window));
        let number = before + chunk.len() - 1;
        WindowId(u32::try_from(number).expect("2^32 windows do not fit in memory"))
    }

    /// Takes out an open window; its number stays taken.
    pub fn close(&mut self, id: WindowId) -> Window {
        self.open -= 1;
        self.place(id).take().expect("the number of an open window")
    }

    /// Lets the numbers of closed windows be used again.
    pub fn release(&mut self, closed: &[WindowId]) {
        self.free.extend_from_slice(closed);
    }

    /// An open window.
    pub fn get(&self, id: WindowId) -> &Window {
        let number = id.0 as usize;
        self.chunks[number / CHUNK][number % CHUNK].as_ref().expect("the number of an open window")
    }

    /// An open window, to be changed.
    pub fn get_mut(&mut self, id: WindowId) -> &mut Window {
        self.place(id).as_mut().expect("the number of an open window")
    }

    fn place(&mut self, id: WindowId) -> &mut Option<Window> {
        let number = id.0 as usize;
        &mut self.chunks[number / CHUNK][number % CHUNK]
    }
}
