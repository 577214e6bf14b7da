//! The wall clock: what people call the time.

use std::time::SystemTime;

/// The time that this machine takes it to be. People and protocols set it, so it may jump, back as well: it says when
/// something was, and never how long something takes.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
pub fn wall_time() -> SystemTime {
    SystemTime::now()
}
