//! The numbers of windows, and which series each open one is of.

use crate::WindowId;
use crate::series::SeriesId;

/// The numbers that are taken. Small ones are used again, but only after [`WindowNumbers::release`].
#[derive(Debug, Default)]
pub struct WindowNumbers {
    /// By number; of one that is free, any series.
    series: Vec<SeriesId>,
    free: Vec<WindowId>,
}

impl WindowNumbers {
    /// Takes a number for a window of this series.
    pub fn take(&mut self, series: SeriesId) -> WindowId {
        if let Some(id) = self.free.pop() {
            self.series[id.0 as usize] = series;
            return id;
        }
        let id = u32::try_from(self.series.len()).expect("2^32 windows do not fit in memory");
        self.series.push(series);
        WindowId(id)
    }

    /// The series that an open window is of.
    pub fn series(&self, id: WindowId) -> SeriesId {
        self.series[id.0 as usize]
    }

    /// Lets the numbers of closed windows be used again.
    pub fn release(&mut self, closed: &[WindowId]) {
        self.free.extend_from_slice(closed);
    }
}
