//! Durations counted in a fixed amount of memory, for percentiles that can be trusted.
//!
//! A small log-linear histogram after the idea of HdrHistogram (Gil Tene, hdrhistogram.org): microseconds below
//! 128 are counted exactly, and every doubling above is divided into 64 equal steps, so that a percentile is at
//! most 1.6 % too high and never too low. The largest duration is kept exactly.

use std::time::Duration;

/// Steps per doubling, as a power of two.
const STEP_BITS: u32 = 6;
/// Durations from 2^40 µs (twelve days) on are counted together.
const MICROS_BITS_MAX: u32 = 40;
const SLOTS: usize = ((MICROS_BITS_MAX - STEP_BITS + 1) as usize) << STEP_BITS;

/// How many durations there were of about each length; 18 KB, whatever their number.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { counts: vec![0; SLOTS], total: 0, longest: Duration::ZERO }
    }

    pub(super) fn add(&mut self, duration: Duration) {
        self.counts[slot(micros(duration))] += 1;
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    /// The duration that `percent` of all did not exceed; zero if there were none.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        // The rank is at least 1: the 0th percentile is the shortest duration.
        let rank = (self.total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut passed = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return Duration::from_micros(largest(slot)).min(self.longest);
            }
        }
        self.longest
    }

    /// The longest duration, exactly.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

/// Whole microseconds, rounded up so that no percentile is too low.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn slot(micros: u64) -> usize {
    let micros = micros.min((1 << MICROS_BITS_MAX) - 1);
    let bits = u64::BITS - micros.leading_zeros();
    let shift = bits.saturating_sub(STEP_BITS + 1);
    ((shift as usize) << STEP_BITS) + (micros >> shift) as usize
}

/// The largest number of microseconds that is counted in `slot`.
fn largest(slot: usize) -> u64 {
    let shift = (slot >> STEP_BITS).saturating_sub(1);
    let step = (slot - (shift << STEP_BITS)) as u64;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_slots_follow_each_other_without_gaps() {
        assert_eq!(slot(0), 0);
        for at in 0..SLOTS {
            assert_eq!(slot(largest(at)), at);
            assert_eq!(slot(largest(at) + 1), (at + 1).min(SLOTS - 1));
        }
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }

    #[test]
    fn an_empty_histogram_has_percentiles_of_zero() {
        assert_eq!(Histogram::new().percentile(99.0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_percentile_is_never_too_low_and_at_most_two_percent_too_high(
            mut nanos in prop::collection::vec(0..100_000_000_000_u64, 1..300),
            percent in 0.0..=100.0_f64,
        ) {
            let mut histogram = Histogram::new();
            for nanos in &nanos {
                histogram.add(Duration::from_nanos(*nanos));
            }
            nanos.sort_unstable();
            let rank = (nanos.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
            let exact = Duration::from_nanos(nanos[rank - 1]);
            let found = histogram.percentile(percent);
            prop_assert!(found >= exact, "{found:?} < {exact:?}");
            prop_assert!(found <= exact.mul_f64(1.02) + Duration::from_micros(1), "{found:?} > {exact:?}");
            prop_assert_eq!(histogram.longest(), Duration::from_nanos(nanos[nanos.len() - 1]));
        }
    }
}
