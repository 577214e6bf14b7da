//! A histogram of durations in a fixed amount of memory, for percentiles with a bounded error.
//!
//! A percentile is at most 1 % too high and never too low. The longest duration is exact.

use std::time::Duration;

/// Durations from 2^40 µs (twelve days) on are counted together.
const MICROS_MAX: u64 = 1 << 40;
/// Significant decimal digits of a duration.
const DIGITS: u8 = 2;

/// Counts of durations by their approximate length; takes about 40 KB.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    micros: hdrhistogram::Histogram<u64>,
    longest: Duration,
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        let micros = hdrhistogram::Histogram::new_with_max(MICROS_MAX, DIGITS).expect("the bounds are sound");
        Histogram { micros, longest: Duration::ZERO }
    }

    pub(super) fn add(&mut self, duration: Duration) {
        // Rounded up, so that no percentile is too low.
        let micros = u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.micros.saturating_record(micros);
        self.longest = self.longest.max(duration);
    }

    /// The duration that `percent` of all durations did not exceed; zero for an empty histogram.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        // 0 % asks for the shortest duration, which the library would round down.
        let percent = percent.max(f64::EPSILON);
        Duration::from_micros(self.micros.value_at_percentile(percent)).min(self.longest)
    }

    /// The longest duration.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "numbers of a test are small"
    )]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_beyond_the_scale_is_counted_at_its_end() {
        let mut histogram = Histogram::new();
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(365 * 86_400));
        histogram.add(day);
        histogram.add(year);
        assert!(histogram.percentile(99.0) >= Duration::from_micros(MICROS_MAX));
        assert_eq!(histogram.longest(), year);
    }

    #[test]
    fn an_empty_histogram_has_percentiles_of_zero() {
        assert_eq!(Histogram::new().percentile(99.0), Duration::ZERO);
    }

    #[test]
    fn percentile_zero_is_the_shortest_duration_and_no_less() {
        let mut histogram = Histogram::new();
        [1_234_567, 2_000_000].into_iter().for_each(|micros| histogram.add(Duration::from_micros(micros)));
        let found = histogram.percentile(0.0);
        assert!((1_234_567..1_260_000).contains(&found.as_micros()), "{found:?}");
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
            let rank = (percent / 100.0 * nanos.len() as f64).ceil().max(1.0) as usize;
            let exact = Duration::from_nanos(nanos[rank - 1]);
            let found = histogram.percentile(percent);
            prop_assert!(found >= exact, "{found:?} < {exact:?}");
            prop_assert!(found <= exact.mul_f64(1.02) + Duration::from_micros(1), "{found:?} > {exact:?}");
            prop_assert_eq!(histogram.longest(), Duration::from_nanos(nanos[nanos.len() - 1]));
        }
    }
}
