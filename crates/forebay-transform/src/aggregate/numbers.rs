//! The numbers of open windows, and the series of each.

use crate::WindowId;
use crate::series::SeriesId;

/// The numbers in use. They are used again after [`WindowNumbers::release`], so that they stay small.
#[derive(Debug, Default)]
pub struct WindowNumbers {
    /// The series by the window's number; arbitrary for a free number.
    series: Vec<SeriesId>,
    free: Vec<WindowId>,
}

impl WindowNumbers {
    /// Assigns a number to a window of this series.
    pub fn take(&mut self, series: SeriesId) -> WindowId {
        if let Some(id) = self.free.pop() {
            self.series[id.0 as usize] = series;
            return id;
        }
        let id = u32::try_from(self.series.len()).expect("2^32 windows do not fit in memory");
        self.series.push(series);
        WindowId(id)
    }

    /// The series of an open window.
    pub fn series(&self, id: WindowId) -> SeriesId {
        self.series[id.0 as usize]
    }

    /// Frees the numbers of closed windows.
    pub fn release(&mut self, closed: &[WindowId]) {
        self.free.extend_from_slice(closed);
    }
}
