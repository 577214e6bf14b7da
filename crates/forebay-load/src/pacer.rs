//! The schedule of the readings: all connections together keep to one rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hands out places on the schedule to the connection that asks first.
///
/// A place whose time has passed is handed out too: after a stall the connections catch up, and the stall shows in
/// the latency since the readings were due.
#[derive(Debug)]
pub(super) struct Pacer {
    readings_per_second: u64,
    handed_out: AtomicU64,
}

impl Pacer {
    /// A schedule of `readings_per_second`; with 0 all readings are due at once.
    pub(super) fn new(readings_per_second: u64) -> Pacer {
        Pacer { readings_per_second, handed_out: AtomicU64::new(0) }
    }

    /// Takes the next `readings` places and gives the due time of the first, counted from the start.
    pub(super) fn take(&self, readings: usize) -> Duration {
        let before = self.handed_out.fetch_add(readings as u64, Ordering::Relaxed);
        due(before, self.readings_per_second)
    }
}

/// The due time of the reading that has `before` others before it.
fn due(before: u64, readings_per_second: u64) -> Duration {
    if readings_per_second == 0 {
        return Duration::ZERO;
    }
    let nanos = u128::from(before) * 1_000_000_000 / u128::from(readings_per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readings_are_due_at_even_distances() {
        let pacer = Pacer::new(1000);
        assert_eq!(pacer.take(10), Duration::ZERO);
        assert_eq!(pacer.take(1), Duration::from_millis(10));
        assert_eq!(pacer.take(1), Duration::from_millis(11));
        assert_eq!(due(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn without_a_rate_all_readings_are_due_at_once() {
        let pacer = Pacer::new(0);
        assert_eq!((pacer.take(1000), pacer.take(1)), (Duration::ZERO, Duration::ZERO));
    }

    proptest! {
        #[test]
        fn no_more_readings_are_due_within_a_time_than_the_rate_allows(rate in 1..1_000_000_u64, millis in 1..100_000_u64) {
            let allowed = u128::from(rate) * u128::from(millis) / 1000;
            let allowed = u64::try_from(allowed).expect("it fits");
            prop_assert!(due(allowed + 1, rate) >= Duration::from_millis(millis));
            prop_assert!(due(allowed.saturating_sub(1), rate) <= Duration::from_millis(millis));
        }
    }
}
