//! Readings made of a window.

use forebay_reading::{NAME_BYTES_MAX, Parts, Readings, TAGS_MAX, Tag};

use super::function::{Function, Functions};
use super::slots::time_of;
use super::window::Window;
use crate::WINDOW_TAG;
use crate::series::SeriesNames;

/// Writes the results of windows.
#[derive(Debug)]
pub struct ResultWriter {
    functions: Functions,
    /// Length of a window, as in the settings.
    window: String,
    /// Longest sensor whose results have names that are not too long, in bytes.
    sensor_bytes_max: usize,
    /// Where the names of results are made.
    sensor: String,
}

impl ResultWriter {
    /// Makes one for windows whose length is written `window`.
    pub fn new(functions: Functions, window: String) -> ResultWriter {
        let suffix = functions.iter().map(|(name, _)| "_".len() + name.len()).max().unwrap_or_default();
        ResultWriter { functions, window, sensor_bytes_max: NAME_BYTES_MAX - suffix, sensor: String::new() }
    }

    /// Whether the results can be named after this sensor, which is so many bytes long.
    pub fn can_name(&self, sensor_bytes: usize) -> bool {
        sensor_bytes <= self.sensor_bytes_max
    }

    /// Appends the results of a window of this series. Gives how many of them lack tags that the series has, because
    /// there is no room for more beside the tag `window`.
    pub fn write(&mut self, series: SeriesNames<'_>, mut window: Window, out: &mut Readings) -> u64 {
        window.summary.finish();
        let Tags { tags, are_all } = Tags::of(series, &self.window);
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
                "names, unit and tags are those of readings, and the value is finite"
            );
        }
        if are_all { 0 } else { self.functions.len() as u64 }
    }
}

/// The tags of a window's results: those of the series, and behind them one that tells the length of the window.
struct Tags<'a> {
    tags: Vec<Tag<'a>>,
    are_all: bool,
}

impl<'a> Tags<'a> {
    /// The window's tag takes the place of one of the same name, and of the last one if there were too many.
    fn of(series: SeriesNames<'a>, window: &'a str) -> Tags<'a> {
        let mut tags: Vec<Tag<'a>> = series.tags().filter(|(name, _)| *name != WINDOW_TAG).collect();
        let are_all = tags.len() < TAGS_MAX;
        tags.truncate(TAGS_MAX - 1);
        tags.push((WINDOW_TAG.into(), window.into()));
        Tags { tags, are_all }
    }
}
