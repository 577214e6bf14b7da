//! How fast the buffer empties, to tell a refused client when to come again.

use std::time::Duration;

use tokio::time::Instant;

use super::Amount;

/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// The window moves on in steps of this.
const STEP: Duration = Duration::from_secs(1);
/// Longest time that a client is told to wait; also what it is told while nothing leaves the buffer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Shortest time that a client is told to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// What left the buffer within the last [`WINDOW`].
#[derive(Debug)]
pub struct DrainRate {
    started_at: Instant,
    /// Amounts of the last steps, the slot being the step's number modulo their count.
    #[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
    slots: [(u64, Amount); (WINDOW.as_secs() / STEP.as_secs()) as usize],
}

impl DrainRate {
    /// Starts with nothing seen.
    pub fn new(now: Instant) -> DrainRate {
        DrainRate { started_at: now, slots: Default::default() }
    }

    /// Notes that something left the buffer.
    pub fn record(&mut self, now: Instant, amount: Amount) {
        let step = self.step(now);
        #[expect(clippy::cast_possible_truncation, reason = "less than the number of slots")]
        let slot = (step % self.slots.len() as u64) as usize;
        let slot = &mut self.slots[slot];
        if slot.0 != step {
            *slot = (step, Amount::default());
        }
        slot.1 += amount;
    }

    /// After how many whole seconds, 1 to 60, `missing` more will have left the buffer at the present rate.
    pub fn retry_after(&self, now: Instant, missing: Amount) -> Duration {
        let step = self.step(now);
        let oldest = (step + 1).saturating_sub(self.slots.len() as u64);
        let mut left = Amount::default();
        for (_, amount) in self.slots.iter().filter(|(slot_step, _)| (oldest..=step).contains(slot_step)) {
            left += *amount;
        }
        let span = now.duration_since(self.started_at).clamp(STEP, WINDOW).as_secs_f64();
        let seconds = |missing: u64, left: u64| match (missing, left) {
            (0, _) => 0.0,
            (_, 0) => f64::INFINITY,
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            (missing, left) => missing as f64 * span / left as f64,
        };
        let seconds = seconds(missing.readings, left.readings).max(seconds(missing.bytes, left.bytes));
        let whole = seconds.min(RETRY_AFTER_MAX.as_secs_f64()).ceil();
        Duration::from_secs_f64(whole).max(RETRY_AFTER_MIN)
    }

    fn step(&self, now: Instant) -> u64 {
        now.duration_since(self.started_at).as_secs() / STEP.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(readings: u64) -> Amount {
        Amount { readings, bytes: 0 }
    }

    #[test]
    fn the_wait_is_what_is_missing_at_the_present_rate() {
        let start = Instant::now();
        let mut rate = DrainRate::new(start);
        for second in 0..20 {
            rate.record(start + STEP * second, readings(100));
        }
        let now = start + STEP * 19;
        let wait = |missing| rate.retry_after(now, missing).as_secs();
        assert_eq!(wait(readings(1)), 1);
        assert_eq!(wait(readings(250)), 3);
        assert_eq!(wait(readings(1_000_000)), 60);
        assert_eq!(wait(Amount { readings: 0, bytes: 1 }), 60);
    }

    #[test]
    fn a_buffer_that_does_not_empty_asks_for_a_minute() {
        let start = Instant::now();
        let mut rate = DrainRate::new(start);
        assert_eq!(rate.retry_after(start, readings(1)).as_secs(), 60);
        rate.record(start, readings(1000));
        assert_eq!(rate.retry_after(start + STEP * 5, readings(1)).as_secs(), 1);
        assert_eq!(rate.retry_after(start + STEP * 10, readings(1)).as_secs(), 60);
    }

    #[test]
    fn nothing_missing_asks_for_a_second() {
        let start = Instant::now();
        assert_eq!(DrainRate::new(start).retry_after(start, readings(0)).as_secs(), 1);
    }
}
