//! The readings that a window results in.

use forebay_reading::{NAME_BYTES_MAX, Parts, Readings, TAGS_MAX, Tag};

use super::function::{Function, Functions};
use super::slots::time_of;
use super::window::OpenWindow;
use crate::WINDOW_TAG;
use crate::series::SeriesIdentity;

/// Writes the results of windows.
#[derive(Debug)]
pub struct ResultWriter {
    functions: Functions,
    /// The length of a window, as the settings write it.
    window: String,
    /// Longest name of a sensor whose results have allowed names, in bytes.
    sensor_bytes_max: usize,
    /// A buffer for the names of results.
    sensor: String,
}

impl ResultWriter {
    /// Makes a writer for windows whose length is written `window`.
    pub fn new(functions: Functions, window: String) -> ResultWriter {
        let suffix = functions.iter().map(|(name, _)| "_".len() + name.len()).max().unwrap_or_default();
        ResultWriter { functions, window, sensor_bytes_max: NAME_BYTES_MAX - suffix, sensor: String::new() }
    }

    /// Whether results can be named after a sensor with a name of this length.
    pub fn can_name(&self, sensor_bytes: usize) -> bool {
        sensor_bytes <= self.sensor_bytes_max
    }

    /// Appends the results of a window of this series. Gives the number of results that lack a tag of the series, because
    /// the tag `window` took its place.
    pub fn write(&mut self, series: SeriesIdentity<'_>, mut window: OpenWindow, out: &mut Readings) -> u64 {
        window.summary.finish();
        let ResultTags { tags, are_all } = ResultTags::of(series, &self.window);
        let (device, sensor) = (series.device, series.sensor);
        for (name, function) in &self.functions {
            self.sensor.clear();
            self.sensor.extend([sensor, "_", name.as_str()]);
            let unit = window.unit().filter(|_| *function != Function::Count);
            let result = Parts {
                device,
                sensor: self.sensor.as_str(),
                value: window.summary.result(*function).into(),
                time: time_of(window.start),
                unit,
                tags: &tags,
            };
            let pushed = out.push(&result);
            debug_assert_eq!(
                pushed,
                Ok(()),
                "names, unit and tags come from readings, and the value is finite"
            );
        }
        if are_all { 0 } else { self.functions.len() as u64 }
    }
}

/// The tags of a window's results: the tags of the series, and then one with the length of the window.
struct ResultTags<'a> {
    tags: Vec<Tag<'a>>,
    are_all: bool,
}

impl<'a> ResultTags<'a> {
    /// The window's tag replaces one of the same name, or the last one if there would be too many.
    fn of(series: SeriesIdentity<'a>, window: &'a str) -> ResultTags<'a> {
        let mut tags: Vec<Tag<'a>> = series.tags().filter(|(name, _)| *name != WINDOW_TAG).collect();
        let are_all = tags.len() < TAGS_MAX;
        tags.truncate(TAGS_MAX - 1);
        tags.push((WINDOW_TAG.into(), window.into()));
        ResultTags { tags, are_all }
    }
}
