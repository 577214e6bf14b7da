//! The wall clock: the date and time of day.

use std::time::SystemTime;

/// The wall-clock time of this machine. People and protocols adjust it, so it may jump in both directions: use it for
/// timestamps, never for durations.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_time() -> SystemTime {
    SystemTime::now()
}
