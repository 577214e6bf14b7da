//! Limits the retries to a node: a budget that deliveries fill.
//!
//! When nodes fail, their batches return as retries on top of the usual load, and that can keep a node from recovering. So
//! each retry costs a token, and most tokens come from deliveries. First attempts are free.
//!
//! The rule and its figures (a fifth of the deliveries, at least ten a second, saved for ten seconds) come from Finagle's
//! `RetryBudget`; tower's `TpsBudget` has the same rule.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens for a delivery: in the long run one retry for five deliveries.
const TOKENS_PER_DELIVERY: f64 = 0.2;
/// Tokens for each second, so that a node without deliveries gets retries too.
const TOKENS_PER_SECOND: f64 = 10.0;
/// Most tokens that are saved: those of ten seconds.
const TOKENS_MAX: f64 = 100.0;
/// Price of a retry, with a tolerance for sums of doubles.
const TOKEN: f64 = 1.0 - 1e-6;

/// The retry budget of one node.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// Starts full.
    pub fn new(now: Instant) -> Budget {
        Budget { tokens: TOKENS_MAX, at: now }
    }

    /// Whether a retry may be sent.
    pub fn has_retry(&self, now: Instant) -> bool {
        self.tokens(now) >= TOKEN
    }

    /// When the next retry may be sent; `None` if one may be sent now.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        let missing = (1.0 - self.tokens(now)) / TOKENS_PER_SECOND;
        (!self.has_retry(now)).then(|| now + Duration::from_secs_f64(missing.max(0.0)))
    }

    /// Records a retry, even one without a token.
    pub fn on_retry(&mut self, now: Instant) {
        self.set((self.tokens(now) - 1.0).max(0.0), now);
    }

    /// Records a delivery.
    pub fn on_delivered(&mut self, now: Instant) {
        self.set(self.tokens(now) + TOKENS_PER_DELIVERY, now);
    }

    fn set(&mut self, tokens: f64, now: Instant) {
        *self = Budget { tokens, at: now };
    }

    fn tokens(&self, now: Instant) -> f64 {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * TOKENS_PER_SECOND;
        (self.tokens + earned).min(TOKENS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spends all tokens; returns the number of retries.
    fn spend(budget: &mut Budget, now: Instant) -> usize {
        let mut spent = 0;
        while budget.has_retry(now) {
            budget.on_retry(now);
            spent += 1;
        }
        spent
    }

    #[test]
    fn retries_are_at_most_a_fifth_of_the_deliveries_plus_ten_a_second() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!(spend(&mut budget, now), 100, "what is saved up at the start");
        (0..50).for_each(|_| budget.on_delivered(now));
        assert_eq!(spend(&mut budget, now), 10);
        assert_eq!(spend(&mut budget, now + Duration::from_secs(3)), 30);
        (0..10_000).for_each(|_| budget.on_delivered(now + Duration::from_secs(3)));
        assert_eq!(spend(&mut budget, now + Duration::from_secs(3)), 100, "no more is saved up");
        assert_eq!(spend(&mut budget, now + Duration::from_secs(3600)), 100, "nor by time");
    }

    #[test]
    fn the_budget_knows_when_the_next_retry_may_be_sent() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!(budget.next_retry(now), None);
        spend(&mut budget, now);
        let next = budget.next_retry(now).expect("later");
        assert!(next > now && next <= now + Duration::from_millis(101), "{:?}", next - now);
        assert!(budget.has_retry(next), "when it says so, there is one");
        budget.on_retry(now);
        assert!(budget.has_retry(now + Duration::from_millis(100)), "one without a token makes no debt");
    }
}
