//! Readings made of a window.

use super::function::{Function, Functions};
use super::slots::time_of;
use super::window::Window;
use crate::reading::{NAME_BYTES_MAX, Parts, Readings};

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

    /// Appends the results of a window.
    pub fn write(&mut self, (device, sensor): (&str, &str), mut window: Window, out: &mut Readings) {
        window.summary.finish();
        let tags = window.labels.tags_with_window(&self.window);
        for (name, function) in &self.functions {
            self.sensor.clear();
            self.sensor.extend([sensor, "_", name.as_str()]);
            let unit = window.labels.unit().filter(|_| *function != Function::Count);
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
    }
}
