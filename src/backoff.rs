//! Delay before the next try: exponential backoff with full jitter.
//!
//! The method is "full jitter" of Marc Brooker, *Exponential Backoff and Jitter* (AWS Architecture Blog, 2015):
//! a delay drawn evenly between zero and the exponential bound spreads clients best.

use std::time::Duration;

/// The bounds of the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub initial: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row; `random` is drawn evenly from 0 to 1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        self.bound(failures).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Upper bound of [`Backoff::delay`] after `failures` failures in a row.
    pub fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) };

    #[test]
    fn the_bound_doubles_with_each_failure_up_to_the_maximum() {
        let bounds: Vec<_> = (0..6).map(|failures| BACKOFF.bound(failures).as_millis()).collect();
        assert_eq!(bounds, [100, 100, 200, 400, 800, 1600]);
        assert_eq!(BACKOFF.bound(10), BACKOFF.max);
        assert_eq!(BACKOFF.bound(u32::MAX), BACKOFF.max);
    }

    #[test]
    fn the_delay_is_anywhere_between_nothing_and_the_bound() {
        assert_eq!(BACKOFF.delay(3, 0.0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(3, 0.5), Duration::from_millis(200));
        assert_eq!(BACKOFF.delay(3, 1.0), Duration::from_millis(400));
    }
}
