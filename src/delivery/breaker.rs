//! Decides whether a node is up: a circuit breaker.
//!
//! While the breaker is closed, the node is in use. The breaker opens after a number of failures in a row, when too large a
//! share of the latest answers are failures, or at once when an answer shows that the node is set up wrongly. An open breaker
//! blocks the node for a pause. Then one real batch is the trial, and the breaker is half open until its answer arrives. A
//! delivery closes the breaker. A failed trial opens it again for twice as long, up to eight times the first pause.
//!
//! A node that failed but is not blocked gets trials too, one each `probe`: its failure makes it so costly that the route
//! would hardly choose it, so that it could neither go down nor recover.
//!
//! States and names follow Nygard, *Release It!*, 2007: open means that nothing flows.

use std::time::Duration;

use tokio::time::Instant;

/// Age up to which answers count for the share of failures.
const WINDOW: Duration = Duration::from_secs(10);
/// Parts of the window; old answers leave it one part at a time.
const WINDOW_PARTS: u32 = 10;
/// Fewest answers in the window for which the share of failures counts.
const ANSWERS_MIN: u32 = 20;
/// Longest pause, as a multiple of the first one.
const PAUSE_FACTOR_MAX: u32 = 8;

/// The settings of health: when a node is down, how often it is tried then, and how many nodes may be ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthConfig {
    /// Failures in a row after which a node is down, at least one.
    pub failures: u32,
    /// Smallest share of failures among the latest answers at which a node is down; 1 turns this off.
    pub failure_ratio: f64,
    /// Pause before the first trial of a node that is down, and between trials of a node that failed but is not down.
    pub probe: Duration,
    /// Largest share of the nodes that may be ejected at once.
    pub max_ejected: f64,
}

/// A change of a node's state, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerChange {
    /// The node has gone down.
    WentDown,
    /// The node is up again.
    CameUp,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// The node is in use.
    Closed,
    /// The node is blocked until a trial is due.
    Open {
        /// When the trial is due.
        until: Instant,
    },
    /// The trial is in flight.
    HalfOpen,
}

impl BreakerState {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenCause {
    /// Failures in a row, or a wrong setup: one delivery proves that the node has recovered.
    Steady,
    /// Too large a share of failures: a single delivery proves nothing.
    Ratio,
}

/// The breaker of one node.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: HealthConfig,
    state: BreakerState,
    cause: OpenCause,
    /// Failures in a row.
    failures: u32,
    /// The pause when the breaker opens next.
    pause: Duration,
    /// When a trial is due while the breaker is closed; `None` if the last answer was not a failure.
    suspect_until: Option<Instant>,
    window: AnswerWindow,
}

impl Breaker {
    /// Starts closed.
    pub fn new(config: HealthConfig, now: Instant) -> Breaker {
        Breaker {
            config,
            state: BreakerState::Closed,
            cause: OpenCause::Steady,
            failures: 0,
            pause: config.probe,
            suspect_until: None,
            window: AnswerWindow::new(now),
        }
    }

    /// The present state.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether the node is up.
    pub fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next trial is due; `None` if no trial is needed, or one is in flight.
    pub fn trial_at(&self) -> Option<Instant> {
        match self.state {
            BreakerState::Closed => self.suspect_until,
            BreakerState::Open { until } => Some(until),
            BreakerState::HalfOpen => None,
        }
    }

    /// Records that a batch was sent. If a trial was due, the batch is the trial.
    pub fn on_sent(&mut self, now: Instant) {
        match self.state {
            BreakerState::Open { until } if until <= now => self.state = BreakerState::HalfOpen,
            BreakerState::Closed if self.suspect_until.is_some() => {
                self.suspect_until = Some(now + self.config.probe);
            }
            BreakerState::Closed | BreakerState::Open { .. } | BreakerState::HalfOpen => {}
        }
    }

    /// Records a delivery.
    pub fn on_delivered(&mut self, now: Instant) -> Option<BreakerChange> {
        self.window.record(AnswerSample::Delivery, now);
        self.on_answered(now)
    }

    /// Records an answer that blames the batch: the node is up, but the share of failures does not change.
    pub fn on_answered(&mut self, now: Instant) -> Option<BreakerChange> {
        self.failures = 0;
        self.suspect_until = None;
        match (self.state, self.cause) {
            (BreakerState::Closed, _) | (BreakerState::Open { .. }, OpenCause::Ratio) => None,
            // This includes an answer to a batch that was in flight when the breaker opened.
            (BreakerState::HalfOpen, _) | (BreakerState::Open { .. }, OpenCause::Steady) => {
                *self = Breaker::new(self.config, now);
                Some(BreakerChange::CameUp)
            }
        }
    }

    /// Records a failure that may pass. `pause_max` limits any pause that follows.
    pub fn on_failure(&mut self, now: Instant, pause_max: Duration) -> Option<BreakerChange> {
        self.record_failure(now);
        let cause = if self.failures >= self.config.failures {
            OpenCause::Steady
        } else if self.window.is_failing(self.config.failure_ratio) {
            OpenCause::Ratio
        } else {
            self.cause
        };
        match self.state {
            BreakerState::HalfOpen => self.open(self.cause, now, pause_max),
            BreakerState::Closed if self.failures >= self.config.failures || cause == OpenCause::Ratio => {
                self.open(cause, now, pause_max)
            }
            // An answer to a batch that was in flight when the breaker opened changes nothing.
            BreakerState::Closed | BreakerState::Open { .. } => None,
        }
    }

    /// Records an answer that shows a wrong setup of the node. `pause_max` limits any pause that follows.
    pub fn on_misconfigured(&mut self, now: Instant, pause_max: Duration) -> Option<BreakerChange> {
        self.record_failure(now);
        match self.state {
            BreakerState::Closed | BreakerState::HalfOpen => self.open(OpenCause::Steady, now, pause_max),
            BreakerState::Open { .. } => None,
        }
    }

    /// Ends the pause: a trial is due now, and the next pause is the shortest again.
    pub fn end_pause(&mut self, now: Instant) {
        self.pause = self.config.probe;
        if let BreakerState::Open { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    fn record_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.suspect_until = Some(now + self.config.probe);
        self.window.record(AnswerSample::Failure, now);
    }

    fn open(&mut self, cause: OpenCause, now: Instant, pause_max: Duration) -> Option<BreakerChange> {
        let was_closed = self.is_closed();
        let until = now + self.pause.min(pause_max);
        (self.state, self.cause) = (BreakerState::Open { until }, cause);
        self.pause = (self.pause * 2).min(self.config.probe * PAUSE_FACTOR_MAX);
        was_closed.then_some(BreakerChange::WentDown)
    }
}

#[derive(Clone, Copy, Debug)]
enum AnswerSample {
    Delivery,
    Failure,
}

#[derive(Clone, Copy, Debug, Default)]
struct AnswerCounts {
    answers: u32,
    failures: u32,
}

/// The counts of the latest answers, by part of the window.
#[derive(Clone, Debug)]
struct AnswerWindow {
    start: Instant,
    /// Number of the newest part, counted from the start.
    newest: u64,
    parts: [AnswerCounts; WINDOW_PARTS as usize],
}

impl AnswerWindow {
    fn new(now: Instant) -> AnswerWindow {
        AnswerWindow { start: now, newest: 0, parts: [AnswerCounts::default(); WINDOW_PARTS as usize] }
    }

    fn record(&mut self, sample: AnswerSample, now: Instant) {
        let part = self.advance(now);
        part.answers = part.answers.saturating_add(1);
        match sample {
            AnswerSample::Delivery => {}
            AnswerSample::Failure => part.failures = part.failures.saturating_add(1),
        }
    }

    /// Clears the parts that have left the window; returns the newest part.
    fn advance(&mut self, now: Instant) -> &mut AnswerCounts {
        let length = WINDOW / WINDOW_PARTS;
        let number = now.saturating_duration_since(self.start).as_secs_f64() / length.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to whole parts")]
        let newest = self.newest.max(number as u64);
        for part in (self.newest + 1..=newest).take(WINDOW_PARTS as usize) {
            self.parts[index(part)] = AnswerCounts::default();
        }
        self.newest = newest;
        &mut self.parts[index(newest)]
    }

    fn is_failing(&self, ratio: f64) -> bool {
        let sum = |count: fn(&AnswerCounts) -> u32| self.parts.iter().map(count).fold(0, u32::saturating_add);
        let (answers, failures) = (sum(|part| part.answers), sum(|part| part.failures));
        ratio < 1.0 && answers >= ANSWERS_MIN && f64::from(failures) >= f64::from(answers) * ratio
    }
}

#[expect(clippy::cast_possible_truncation, reason = "smaller than the number of parts")]
fn index(part: u64) -> usize {
    (part % u64::from(WINDOW_PARTS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Duration = Duration::from_secs(1);
    const CONFIG: HealthConfig =
        HealthConfig { failures: 3, failure_ratio: 0.5, probe: PROBE, max_ejected: 0.9 };

    fn breaker(config: HealthConfig) -> (Breaker, Instant) {
        let now = Instant::now();
        (Breaker::new(config, now), now)
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<BreakerChange> {
        breaker.on_failure(now, Duration::MAX)
    }

    fn fail_often(breaker: &mut Breaker, failures: usize, now: Instant) {
        for _ in 0..failures {
            fail(breaker, now);
        }
    }

    /// Sends a trial when it is due, and lets it fail; returns the time until the next trial.
    fn fail_trial(breaker: &mut Breaker, now: &mut Instant) -> Duration {
        *now = breaker.trial_at().expect("a trial is due");
        breaker.on_sent(*now);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!((breaker.trial_at(), fail(breaker, *now)), (None, None), "one at a time");
        breaker.trial_at().expect("another trial") - *now
    }

    #[test]
    fn a_node_is_down_after_failures_in_a_row_and_up_after_the_first_delivery() {
        let (mut breaker, now) = breaker(CONFIG);
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(breaker.on_delivered(now), None);
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(breaker.on_answered(now), None, "an answer that speaks of the batch ends the row too");
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(fail(&mut breaker, now), Some(BreakerChange::WentDown));
        assert_eq!((fail(&mut breaker, now), breaker.is_closed()), (None, false));
        assert_eq!(breaker.state(), BreakerState::Open { until: now + PROBE });
        breaker.on_sent(now + PROBE);
        assert_eq!(breaker.on_delivered(now + PROBE), Some(BreakerChange::CameUp));
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
    }

    #[test]
    fn a_misconfigured_node_is_down_at_once() {
        let (mut breaker, now) = breaker(CONFIG);
        assert_eq!(breaker.on_misconfigured(now, Duration::MAX), Some(BreakerChange::WentDown));
        assert_eq!(breaker.on_misconfigured(now, Duration::MAX), None);
    }

    #[test]
    fn pauses_double_with_each_failed_trial_up_to_eightfold_and_a_delivery_resets_them() {
        let (mut breaker, mut now) = breaker(CONFIG);
        fail_often(&mut breaker, 3, now);
        let pauses: Vec<_> = (0..5).map(|_| fail_trial(&mut breaker, &mut now).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 8, 8]);
        // A shorter limit for the pause wins.
        breaker.on_sent(now + PROBE * 8);
        breaker.on_failure(now, PROBE);
        assert_eq!(breaker.trial_at(), Some(now + PROBE));
        breaker.end_pause(now);
        assert_eq!(breaker.trial_at(), Some(now));
        breaker.on_sent(now);
        assert_eq!(breaker.on_delivered(now), Some(BreakerChange::CameUp));
        fail_often(&mut breaker, 3, now);
        assert_eq!(breaker.trial_at(), Some(now + PROBE));
    }

    #[test]
    fn a_batch_sent_before_the_breaker_opened_is_no_trial_and_does_not_lengthen_the_pause() {
        let (mut breaker, now) = breaker(CONFIG);
        fail_often(&mut breaker, 9, now);
        fail_often(&mut breaker, 9, now + PROBE * 3);
        assert_eq!(breaker.state(), BreakerState::Open { until: now + PROBE });
        assert_eq!(breaker.on_delivered(now), Some(BreakerChange::CameUp), "a late delivery closes it");
    }

    #[test]
    fn a_node_is_down_when_too_large_a_share_of_its_latest_answers_fail() {
        let run = |config: HealthConfig, answers: u32, every: u32, apart: Duration| {
            let (mut breaker, start) = breaker(config);
            let mut opened = None;
            for answer in 1..=answers {
                let now = start + apart * answer;
                let change = match answer % every {
                    0 => fail(&mut breaker, now),
                    _ => breaker.on_delivered(now),
                };
                opened = opened.or(change.map(|_| answer));
            }
            opened
        };
        let short = Duration::from_millis(100);
        assert_eq!(run(CONFIG, 100, 2, short), Some(20), "with the twentieth answer, and not before");
        assert_eq!(run(CONFIG, 100, 3, short), None, "a third is less than half");
        assert_eq!(run(HealthConfig { failure_ratio: 0.3, ..CONFIG }, 100, 3, short), Some(21));
        assert_eq!(run(HealthConfig { failures: 1000, ..CONFIG }, 100, 1, short), Some(20));
        let off = HealthConfig { failures: 1000, failure_ratio: 1.0, ..CONFIG };
        assert_eq!(run(off, 100, 1, short), None, "off, even if all fail");
        assert_eq!(run(CONFIG, 100, 2, PROBE), None, "never twenty within the window");
    }

    #[test]
    fn answers_leave_the_window_and_answers_that_blame_the_batch_never_enter_it() {
        let (mut breaker, now) = breaker(CONFIG);
        for _ in 0..18 {
            assert_eq!(fail(&mut breaker, now), None);
            breaker.on_answered(now);
        }
        let later = now + WINDOW + PROBE;
        for _ in 0..18 {
            assert_eq!(fail(&mut breaker, later), None, "the first eighteen have left");
            breaker.on_answered(later);
        }
        assert_eq!(fail(&mut breaker, later), None);
        breaker.on_answered(later);
        assert_eq!(fail(&mut breaker, later), Some(BreakerChange::WentDown), "twenty of twenty");
    }

    #[test]
    fn a_breaker_opened_by_the_share_of_failures_is_closed_only_by_a_trial() {
        let (mut breaker, now) = breaker(CONFIG);
        for _ in 0..10 {
            breaker.on_delivered(now);
            fail(&mut breaker, now);
        }
        assert!(!breaker.is_closed());
        assert_eq!((breaker.on_delivered(now), breaker.is_closed()), (None, false));
        breaker.on_sent(now + PROBE);
        assert_eq!(breaker.on_delivered(now + PROBE), Some(BreakerChange::CameUp));
        assert_eq!(fail(&mut breaker, now + PROBE), None, "it begins afresh");
    }

    #[test]
    fn a_failed_node_that_is_not_down_gets_a_trial_each_interval_until_it_delivers() {
        let (mut breaker, now) = breaker(CONFIG);
        assert_eq!(breaker.trial_at(), None);
        fail(&mut breaker, now);
        assert_eq!((breaker.is_closed(), breaker.trial_at()), (true, Some(now + PROBE)));
        breaker.on_sent(now + PROBE);
        assert_eq!(breaker.trial_at(), Some(now + PROBE * 2));
        breaker.on_delivered(now + PROBE);
        assert_eq!(breaker.trial_at(), None);
    }
}
