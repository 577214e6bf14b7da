//! The slots of windows: when they start, close and are due, by plain arithmetic on nanoseconds since the Unix epoch.
//!
//! Times are below 2^63, and the settings add less than 2^60: no sum overflows 64 bits without a sign.

use std::time::Duration;

use forebay_reading::timestamp::Timestamp;
use tokio::time::Instant;

use crate::Moment;

/// A window's start, in nanoseconds since the Unix epoch.
pub type WindowStart = u64;

/// The division of time into windows.
#[derive(Clone, Copy, Debug)]
pub struct WindowSlots {
    /// Length of a window, in nanoseconds.
    every: u64,
    /// Time for which a window stays open after its end, in nanoseconds.
    lateness: u64,
}

impl WindowSlots {
    /// Windows of the length `every`, which stay open for `lateness` after their end.
    pub fn new(every: Duration, lateness: Duration) -> WindowSlots {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> 2);
        WindowSlots { every: nanos(every).max(1), lateness: nanos(lateness) }
    }

    /// The start of the window that a reading of this time belongs to.
    pub fn start_of(&self, time: Timestamp) -> WindowStart {
        let time = nanos(time);
        time - time % self.every
    }

    /// Whether a window is closed for a series once it had a reading of the time `latest`.
    pub fn is_past(&self, start: WindowStart, latest: Timestamp) -> bool {
        self.closes_at(start) <= nanos(latest)
    }

    /// The instant at which a window that is opened now is closed by the clock: when the gateway's clock passes its end and
    /// the lateness. If the clock has passed that already, the readings are from the past, and the window stays open as
    /// long as one of the present. It never stays open longer than that, whatever the wall clocks say.
    pub fn due(&self, start: WindowStart, now: Moment) -> Instant {
        let longest = self.every + self.lateness;
        let wait = match self.closes_at(start).saturating_sub(nanos(now.wall)) {
            0 => longest,
            left => left.min(longest),
        };
        now.instant + Duration::from_nanos(wait)
    }

    fn closes_at(&self, start: WindowStart) -> u64 {
        start + self.every + self.lateness
    }
}

/// The instant at which a window starts.
pub fn time_of(start: WindowStart) -> Timestamp {
    i64::try_from(start).ok().and_then(Timestamp::from_nanos).unwrap_or(Timestamp::MAX)
}

fn nanos(time: Timestamp) -> u64 {
    time.nanos().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos).unwrap()
    }

    #[test]
    fn a_window_starts_at_a_multiple_of_its_length_since_1970() {
        let check = |every: Duration, time: i64, start: u64| {
            assert_eq!(WindowSlots::new(every, Duration::ZERO).start_of(at(time)), start, "{every:?} {time}");
        };
        check(Duration::from_secs(10), 0, 0);
        check(Duration::from_secs(10), 9_999_999_999, 0);
        check(Duration::from_secs(10), 10_000_000_000, 10_000_000_000);
        check(Duration::from_secs(7), 20_000_000_000, 14_000_000_000);
        check(Duration::from_millis(1), i64::MAX, 9_223_372_036_854_000_000);
        check(366 * DAY, i64::MAX, 291 * 366 * 86_400_000_000_000);
    }

    #[test]
    fn a_window_is_past_when_its_end_and_the_lateness_are_reached() {
        let check = |lateness: Duration, start: u64, latest: i64, expected: bool| {
            let slots = WindowSlots::new(Duration::from_secs(10), lateness);
            assert_eq!(slots.is_past(start, at(latest)), expected, "{lateness:?} {start} {latest}");
        };
        check(Duration::ZERO, 0, 9_999_999_999, false);
        check(Duration::ZERO, 0, 10_000_000_000, true);
        check(Duration::from_secs(2), 0, 11_999_999_999, false);
        check(Duration::from_secs(2), 0, 12_000_000_000, true);
        check(14 * 366 * DAY, 9_223_372_030_000_000_000, i64::MAX, false);
    }

    #[test]
    fn a_window_is_due_when_the_clock_passes_it_and_never_later_than_a_whole_one() {
        let instant = Instant::now();
        let check = |start: u64, wall: u64, expected: Duration| {
            let slots = WindowSlots::new(Duration::from_secs(10), Duration::from_secs(2));
            let now = Moment { instant, wall: at(i64::try_from(wall).unwrap()) };
            assert_eq!(slots.due(start, now) - instant, expected, "{start} {wall}");
        };
        let second = 1_000_000_000;
        let seconds = Duration::from_secs;
        check(100 * second, 100 * second, seconds(12));
        check(100 * second, 105 * second, seconds(7));
        check(100 * second, 112 * second - 1, Duration::from_nanos(1));
        check(100 * second, 112 * second, seconds(12));
        check(100 * second, 9_000_000 * second, seconds(12));
        check(100 * second, 95 * second, seconds(12));
        check(9_000_000_000 * second, 0, seconds(12));
        check(9_223_372_036 * second, 9_223_372_036 * second, seconds(12));
    }
}
