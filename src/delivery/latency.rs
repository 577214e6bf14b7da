//! The present latency of a node: a peak-sensitive moving average that fades.
//!
//! As in Finagle's and tower's "peak EWMA", a slower answer counts at once and a faster one gradually. The estimate fades
//! while no answers arrive, so that the node is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// Time in which an estimate fades to about a third.
const DECAY: Duration = Duration::from_secs(10);
/// Assumed latency of a node without any answer yet.
const UNKNOWN_SECONDS: f64 = 0.001;

/// The latency of one node.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// Starts with an assumed latency.
    pub fn new(now: Instant) -> Latency {
        Latency { seconds: UNKNOWN_SECONDS, at: now }
    }

    /// Records the duration of a request, or the penalty for a failed one.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let weight = self.weight(now);
        self.seconds = if took > self.seconds { took } else { self.seconds * weight + took * (1.0 - weight) };
        self.at = now;
    }

    /// The estimate in seconds.
    pub fn seconds(&self, now: Instant) -> f64 {
        (self.seconds * self.weight(now)).max(f64::MIN_POSITIVE)
    }

    fn weight(&self, now: Instant) -> f64 {
        (-now.duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

/// The latency of one node that people see: a moving average of its answers, without penalties.
#[derive(Clone, Copy, Debug, Default)]
pub struct MeasuredLatency {
    seconds: Option<f64>,
}

/// Weight of a new answer in this average.
const MEASURED_WEIGHT: f64 = 0.2;

impl MeasuredLatency {
    /// Records the duration of an answer.
    pub fn observe(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.seconds = Some(self.seconds.map_or(took, |known| known + MEASURED_WEIGHT * (took - known)));
    }

    /// The average in seconds; `None` before the first answer.
    pub fn seconds(self) -> Option<f64> {
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_fades_while_no_answer_comes() {
        let start = Instant::now();
        let mut latency = Latency::new(start);
        latency.observe(Duration::from_secs(2), start);
        assert!((latency.seconds(start) - 2.0).abs() < 1e-9);
        latency.observe(Duration::from_millis(1), start + Duration::from_millis(10));
        assert!(latency.seconds(start + Duration::from_millis(10)) > 1.9);
        assert!(latency.seconds(start + DECAY * 3) < 0.1);
    }

    #[test]
    fn people_see_the_average_of_answers_and_none_before_the_first() {
        let mut measured = MeasuredLatency::default();
        assert_eq!(measured.seconds(), None);
        measured.observe(Duration::from_millis(100));
        assert_eq!(measured.seconds(), Some(0.1));
        measured.observe(Duration::from_millis(200));
        assert!((measured.seconds().expect("measured") - 0.12).abs() < 1e-9);
    }
}
