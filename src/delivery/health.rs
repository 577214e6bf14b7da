//! Whether a node is taken to be up.
//!
//! A node is down after a number of failures in a row, or at once when its answer says that it is set up wrongly.
//! While others are up, a node that failed gets one batch each `probe`, down or not yet: a failure makes it so
//! costly that it would hardly be chosen, and would be neither found to be down nor used again. The first delivery
//! says that it is well.

use std::time::Duration;

use tokio::time::Instant;

/// When a node counts as down, and how often it is probed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// Failures in a row after which a node is down, at least one.
    pub failures: u32,
    /// Time between probes of a node that failed and has delivered nothing since.
    pub probe: Duration,
}

/// A change that people want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is down now.
    WentDown,
    /// The node is up again.
    CameUp,
}

/// The health of one node.
#[derive(Clone, Debug)]
pub struct Health {
    config: HealthConfig,
    failures: u32,
    up: bool,
    /// When the next probe is due; `None` since the last delivery.
    probe_at: Option<Instant>,
}

impl Health {
    /// Takes a node to be up until it fails.
    pub fn new(config: HealthConfig) -> Health {
        Health { config, failures: 0, up: true, probe_at: None }
    }

    /// Whether the node is taken to be up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Failures since the last delivery.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a delivery.
    pub fn on_delivered(&mut self) -> Option<Change> {
        self.failures = 0;
        self.probe_at = None;
        let was_down = !std::mem::replace(&mut self.up, true);
        was_down.then_some(Change::CameUp)
    }

    /// Notes a failure that may pass.
    pub fn on_failure(&mut self, now: Instant) -> Option<Change> {
        self.note_failure(now);
        if self.failures >= self.config.failures { self.go_down() } else { None }
    }

    /// Notes an answer that says that the node is set up wrongly.
    pub fn on_misconfigured(&mut self, now: Instant) -> Option<Change> {
        self.note_failure(now);
        self.go_down()
    }

    /// Whether a probe is due; the next one is due a while after it.
    pub fn take_probe(&mut self, now: Instant) -> bool {
        let due = self.probe_at.is_some_and(|at| at <= now);
        if due {
            self.probe_at = Some(now + self.config.probe);
        }
        due
    }

    fn note_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + self.config.probe);
    }

    fn go_down(&mut self) -> Option<Change> {
        let was_up = std::mem::replace(&mut self.up, false);
        was_up.then_some(Change::WentDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(HealthConfig { failures: 3, probe: Duration::from_secs(1) })
    }

    #[test]
    fn a_node_is_down_after_failures_in_a_row_and_up_with_the_first_delivery() {
        let (now, mut health) = (Instant::now(), health());
        assert_eq!((health.on_failure(now), health.on_failure(now)), (None, None));
        assert_eq!(health.on_delivered(), None);
        assert_eq!((health.on_failure(now), health.on_failure(now)), (None, None));
        assert_eq!(health.on_failure(now), Some(Change::WentDown));
        assert_eq!(health.on_failure(now), None);
        assert!(!health.is_up());
        assert_eq!(health.on_delivered(), Some(Change::CameUp));
        assert!(health.is_up());
    }

    #[test]
    fn a_node_that_is_set_up_wrongly_is_down_at_once() {
        let (now, mut health) = (Instant::now(), health());
        assert_eq!(health.on_misconfigured(now), Some(Change::WentDown));
        assert_eq!(health.on_misconfigured(now), None);
    }

    #[test]
    fn a_node_that_failed_is_probed_once_an_interval_until_it_delivers() {
        for fail in [Health::on_failure, Health::on_misconfigured] {
            let (now, mut health) = (Instant::now(), health());
            assert!(!health.take_probe(now));
            fail(&mut health, now);
            assert!(!health.take_probe(now));
            let later = now + Duration::from_secs(1);
            assert!(health.take_probe(later));
            assert!(!health.take_probe(later));
            assert!(health.take_probe(later + Duration::from_secs(1)));
            health.on_delivered();
            assert!(!health.take_probe(later + Duration::from_secs(9)));
        }
    }
}
