//! Whether a node is taken to be up: a circuit breaker.
//!
//! Closed, the node is in use. It opens after a number of failures in a row, when too large a share of the latest
//! answers were failures, or at once when an answer says that the node is set up wrongly. Open, it blocks for a
//! pause; then one real batch is the trial, and the breaker is half open until its answer is there. A delivery closes
//! it. A failed trial opens it again for twice as long, up to eight times the first pause.
//!
//! A node that failed and is not blocked yet is owed a trial too, one each `probe`: a failure makes it so costly that
//! it would hardly be chosen, and would be neither found to be down nor used again.
//!
//! The states and their names are those of Nygard, *Release It!*, 2007: open means that nothing flows.

use std::time::Duration;

use tokio::time::Instant;

/// How far back answers count for the share of failures.
const WINDOW: Duration = Duration::from_secs(10);
/// Parts of the window; what is older than the window leaves it part by part.
const WINDOW_PARTS: u32 = 10;
/// Fewest answers within the window that say anything about a share.
const ANSWERS_MIN: u32 = 20;
/// The pause grows up to this many times the first one.
const PAUSE_FACTOR_MAX: u32 = 8;

/// When a node counts as down, how often it is tried then, and how many may be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthConfig {
    /// Failures in a row after which a node is down, at least one.
    pub failures: u32,
    /// Share of failures among the latest answers from which on a node is down; 1 turns this off.
    pub failure_ratio: f64,
    /// Pause before the first trial of a node that is down, and time between trials of one that failed and is not.
    pub probe: Duration,
    /// Largest share of the nodes that are left out at once because they are down.
    pub max_ejected: f64,
}

/// A change that people want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is down now.
    WentDown,
    /// The node is up again.
    CameUp,
}

/// What the breaker does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// The node is in use.
    Closed,
    /// The node is blocked until a trial is due.
    Open {
        /// When the trial is due.
        until: Instant,
    },
    /// The trial is on its way.
    HalfOpen,
}

impl BreakerState {
    /// Its name for people.
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
enum Cause {
    /// Failures in a row, or an answer that any batch would get: one delivery shows that it is over.
    Steady,
    /// Too large a share of failures: deliveries among them are no news.
    Ratio,
}

/// The breaker of one node.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: HealthConfig,
    state: BreakerState,
    cause: Cause,
    /// Failures in a row.
    failures: u32,
    /// How long it blocks when it opens next.
    pause: Duration,
    /// When a trial is due while it is closed; `None` since the last answer that was no failure.
    suspect_until: Option<Instant>,
    window: Window,
}

impl Breaker {
    /// Takes a node to be up until it fails.
    pub fn new(config: HealthConfig, now: Instant) -> Breaker {
        Breaker {
            config,
            state: BreakerState::Closed,
            cause: Cause::Steady,
            failures: 0,
            pause: config.probe,
            suspect_until: None,
            window: Window::new(now),
        }
    }

    /// What it does at present.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether the node is taken to be up.
    pub fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next trial is due; `None` if none is needed, or one is on its way.
    pub fn trial_at(&self) -> Option<Instant> {
        match self.state {
            BreakerState::Closed => self.suspect_until,
            BreakerState::Open { until } => Some(until),
            BreakerState::HalfOpen => None,
        }
    }

    /// Notes that a batch was sent. If a trial was due, this is it.
    pub fn on_sent(&mut self, now: Instant) {
        match self.state {
            BreakerState::Open { until } if until <= now => self.state = BreakerState::HalfOpen,
            BreakerState::Closed if self.suspect_until.is_some() => {
                self.suspect_until = Some(now + self.config.probe);
            }
            BreakerState::Closed | BreakerState::Open { .. } | BreakerState::HalfOpen => {}
        }
    }

    /// Notes a delivery.
    pub fn on_delivered(&mut self, now: Instant) -> Option<Change> {
        self.window.note(Heard::Delivery, now);
        self.on_answered(now)
    }

    /// Notes an answer that speaks of the batch and not of the node: it is well, and that is all.
    pub fn on_answered(&mut self, now: Instant) -> Option<Change> {
        self.failures = 0;
        self.suspect_until = None;
        match (self.state, self.cause) {
            (BreakerState::Closed, _) | (BreakerState::Open { .. }, Cause::Ratio) => None,
            // Also an answer that was on its way when the breaker opened.
            (BreakerState::HalfOpen, _) | (BreakerState::Open { .. }, Cause::Steady) => {
                *self = Breaker::new(self.config, now);
                Some(Change::CameUp)
            }
        }
    }

    /// Notes a failure that may pass. A pause that follows is at most `pause_max`.
    pub fn on_failure(&mut self, now: Instant, pause_max: Duration) -> Option<Change> {
        self.note_failure(now);
        let cause = if self.failures >= self.config.failures {
            Cause::Steady
        } else if self.window.is_failing(self.config.failure_ratio) {
            Cause::Ratio
        } else {
            self.cause
        };
        match self.state {
            BreakerState::HalfOpen => self.open(self.cause, now, pause_max),
            BreakerState::Closed if self.failures >= self.config.failures || cause == Cause::Ratio => {
                self.open(cause, now, pause_max)
            }
            // What was on its way when it opened is no news.
            BreakerState::Closed | BreakerState::Open { .. } => None,
        }
    }

    /// Notes an answer that says that the node is set up wrongly. A pause that follows is at most `pause_max`.
    pub fn on_misconfigured(&mut self, now: Instant, pause_max: Duration) -> Option<Change> {
        self.note_failure(now);
        match self.state {
            BreakerState::Closed | BreakerState::HalfOpen => self.open(Cause::Steady, now, pause_max),
            BreakerState::Open { .. } => None,
        }
    }

    /// Ends the pause: a trial is due now, and the next pauses start from the shortest again.
    pub fn end_pause(&mut self, now: Instant) {
        self.pause = self.config.probe;
        if let BreakerState::Open { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    fn note_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.suspect_until = Some(now + self.config.probe);
        self.window.note(Heard::Failure, now);
    }

    fn open(&mut self, cause: Cause, now: Instant, pause_max: Duration) -> Option<Change> {
        let was_closed = self.is_closed();
        let until = now + self.pause.min(pause_max);
        (self.state, self.cause) = (BreakerState::Open { until }, cause);
        self.pause = (self.pause * 2).min(self.config.probe * PAUSE_FACTOR_MAX);
        was_closed.then_some(Change::WentDown)
    }
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    Delivery,
    Failure,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answers: u32,
    failures: u32,
}

/// The latest answers, counted in parts of the window.
#[derive(Clone, Debug)]
struct Window {
    start: Instant,
    /// Number of the newest part since the start.
    newest: u64,
    parts: [Tally; WINDOW_PARTS as usize],
}

impl Window {
    fn new(now: Instant) -> Window {
        Window { start: now, newest: 0, parts: [Tally::default(); WINDOW_PARTS as usize] }
    }

    fn note(&mut self, heard: Heard, now: Instant) {
        let part = self.advance(now);
        part.answers = part.answers.saturating_add(1);
        match heard {
            Heard::Delivery => {}
            Heard::Failure => part.failures = part.failures.saturating_add(1),
        }
    }

    /// Empties what has left the window; returns the newest part.
    fn advance(&mut self, now: Instant) -> &mut Tally {
        let length = WINDOW / WINDOW_PARTS;
        let number = now.saturating_duration_since(self.start).as_secs_f64() / length.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut to whole parts")]
        let newest = self.newest.max(number as u64);
        for emptied in (self.newest + 1..=newest).take(WINDOW_PARTS as usize) {
            self.parts[index(emptied)] = Tally::default();
        }
        self.newest = newest;
        &mut self.parts[index(newest)]
    }

    fn is_failing(&self, ratio: f64) -> bool {
        let sum = |count: fn(&Tally) -> u32| self.parts.iter().map(count).fold(0, u32::saturating_add);
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

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Change> {
        breaker.on_failure(now, Duration::MAX)
    }

    fn fail_often(breaker: &mut Breaker, failures: usize, now: Instant) {
        for _ in 0..failures {
            fail(breaker, now);
        }
    }

    /// Sends a trial that fails when it is due; returns how long the next one is off.
    fn fail_trial(breaker: &mut Breaker, now: &mut Instant) -> Duration {
        *now = breaker.trial_at().expect("a trial is due");
        breaker.on_sent(*now);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!((breaker.trial_at(), fail(breaker, *now)), (None, None), "one at a time");
        breaker.trial_at().expect("another trial") - *now
    }

    #[test]
    fn a_node_is_down_after_failures_in_a_row_and_up_with_the_first_delivery() {
        let (mut breaker, now) = breaker(CONFIG);
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(breaker.on_delivered(now), None);
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(breaker.on_answered(now), None, "an answer that speaks of the batch ends the row too");
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert_eq!(fail(&mut breaker, now), Some(Change::WentDown));
        assert_eq!((fail(&mut breaker, now), breaker.is_closed()), (None, false));
        assert_eq!(breaker.state(), BreakerState::Open { until: now + PROBE });
        breaker.on_sent(now + PROBE);
        assert_eq!(breaker.on_delivered(now + PROBE), Some(Change::CameUp));
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
    }

    #[test]
    fn a_node_that_is_set_up_wrongly_is_down_at_once() {
        let (mut breaker, now) = breaker(CONFIG);
        assert_eq!(breaker.on_misconfigured(now, Duration::MAX), Some(Change::WentDown));
        assert_eq!(breaker.on_misconfigured(now, Duration::MAX), None);
    }

    #[test]
    fn pauses_double_with_each_failed_trial_up_to_eight_times_the_first_and_a_delivery_resets_them() {
        let (mut breaker, mut now) = breaker(CONFIG);
        fail_often(&mut breaker, 3, now);
        let pauses: Vec<_> = (0..5).map(|_| fail_trial(&mut breaker, &mut now).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 8, 8]);
        // Whoever has little time waits no longer than that.
        breaker.on_sent(now + PROBE * 8);
        breaker.on_failure(now, PROBE);
        assert_eq!(breaker.trial_at(), Some(now + PROBE));
        breaker.end_pause(now);
        assert_eq!(breaker.trial_at(), Some(now));
        breaker.on_sent(now);
        assert_eq!(breaker.on_delivered(now), Some(Change::CameUp));
        fail_often(&mut breaker, 3, now);
        assert_eq!(breaker.trial_at(), Some(now + PROBE));
    }

    #[test]
    fn what_was_sent_before_it_opened_neither_lengthens_the_pause_nor_is_a_trial() {
        let (mut breaker, now) = breaker(CONFIG);
        fail_often(&mut breaker, 9, now);
        fail_often(&mut breaker, 9, now + PROBE * 3);
        assert_eq!(breaker.state(), BreakerState::Open { until: now + PROBE });
        assert_eq!(breaker.on_delivered(now), Some(Change::CameUp), "a late delivery closes it");
    }

    #[test]
    fn a_node_is_down_when_too_large_a_share_of_its_latest_answers_are_failures() {
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
    fn answers_leave_the_window_and_those_that_speak_of_the_batch_never_enter_it() {
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
        assert_eq!(fail(&mut breaker, later), Some(Change::WentDown), "twenty of twenty");
    }

    #[test]
    fn a_delivery_among_failures_is_no_news_where_their_share_opened_it_and_a_trial_is() {
        let (mut breaker, now) = breaker(CONFIG);
        for _ in 0..10 {
            breaker.on_delivered(now);
            fail(&mut breaker, now);
        }
        assert!(!breaker.is_closed());
        assert_eq!((breaker.on_delivered(now), breaker.is_closed()), (None, false));
        breaker.on_sent(now + PROBE);
        assert_eq!(breaker.on_delivered(now + PROBE), Some(Change::CameUp));
        assert_eq!(fail(&mut breaker, now + PROBE), None, "it begins afresh");
    }

    #[test]
    fn a_node_that_failed_and_is_not_down_is_owed_a_trial_each_interval_until_it_delivers() {
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
