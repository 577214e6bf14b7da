//! Decides when a lasting condition is logged: once at its beginning, once a minute while it lasts, and once at its end.

use std::time::Duration;

use tokio::time::Instant;

/// Interval of the lines while a condition lasts.
pub(super) const LOG_EVERY: Duration = Duration::from_secs(60);

/// Tracks one condition.
///
/// It ends after a quiet time, so that a condition which comes and goes many times a second is one episode and not many.
/// Each occurrence is counted in exactly one line, so the counts of an episode's lines add up.
#[derive(Debug)]
pub(super) struct Condition {
    quiet: Duration,
    episode: Option<Episode>,
}

#[derive(Debug)]
struct Episode {
    began: Instant,
    seen: Instant,
    logged: Instant,
    unlogged: u64,
}

/// The result of a look, for the time since the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observation {
    /// Nothing is wrong.
    Nothing,
    /// The condition holds, and it affected so many readings or requests.
    Wrong(u64),
}

/// The phase of a condition that a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has begun.
    Begins,
    /// It lasts, for another minute.
    Lasts,
    /// It has ended.
    Ends,
}

/// A line that must be logged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueLine {
    /// The phase.
    pub(super) phase: Phase,
    /// Readings or requests since the previous line.
    pub(super) count: u64,
    /// Time from the beginning to the last occurrence.
    pub(super) lasted: Duration,
}

impl Condition {
    /// Creates a condition that ends after `quiet` without an occurrence.
    pub(super) fn new(quiet: Duration) -> Condition {
        Condition { quiet, episode: None }
    }

    /// Records an observation, and returns the line that is due.
    pub(super) fn observe(&mut self, observed: Observation, now: Instant) -> Option<DueLine> {
        let Some(episode) = &mut self.episode else {
            let Observation::Wrong(count) = observed else { return None };
            self.episode = Some(Episode { began: now, seen: now, logged: now, unlogged: 0 });
            return Some(DueLine { phase: Phase::Begins, count, lasted: Duration::ZERO });
        };
        if let Observation::Wrong(count) = observed {
            episode.seen = now;
            episode.unlogged += count;
        }
        let phase = if now.duration_since(episode.seen) >= self.quiet {
            Phase::Ends
        } else if now.duration_since(episode.logged) >= LOG_EVERY {
            Phase::Lasts
        } else {
            return None;
        };
        let due = episode.line(phase, now);
        if phase == Phase::Ends {
            self.episode = None;
        }
        Some(due)
    }

    /// Returns a last line if there are counts that were not logged, because no more looks follow.
    pub(super) fn close(&mut self, now: Instant) -> Option<DueLine> {
        let episode = self.episode.as_mut().filter(|episode| episode.unlogged > 0)?;
        Some(episode.line(Phase::Lasts, now))
    }
}

impl Episode {
    fn line(&mut self, phase: Phase, now: Instant) -> DueLine {
        self.logged = now;
        let count = std::mem::take(&mut self.unlogged);
        DueLine { phase, count, lasted: self.seen.duration_since(self.began) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Observes a number of occurrences, or nothing, at each second, and returns the lines with their seconds.
    fn lines(looks: &[(u64, Option<u64>)]) -> Vec<(u64, Phase, u64)> {
        let start = Instant::now();
        let mut condition = Condition::new(Duration::from_secs(10));
        let mut lines = Vec::new();
        for (second, affected) in looks {
            let seen = affected.map_or(Observation::Nothing, Observation::Wrong);
            let due = condition.observe(seen, start + Duration::from_secs(*second));
            lines.extend(due.map(|due| (*second, due.phase, due.count)));
        }
        lines
    }

    #[test]
    fn a_condition_is_logged_at_its_beginning_once_a_minute_and_at_its_end() {
        let (begins, lasts, ends) = (Phase::Begins, Phase::Lasts, Phase::Ends);
        let check = |looks: Vec<(u64, Option<u64>)>, expected: &[(u64, Phase, u64)]| {
            assert_eq!(lines(&looks), expected, "{looks:?}");
        };
        let seconds = |range: std::ops::Range<u64>, affected| range.map(move |second| (second, affected));
        check(seconds(0..100, None).collect(), &[]);
        check(seconds(0..20, Some(0)).collect(), &[(0, begins, 0)]);
        check(
            seconds(0..130, Some(2)).chain(seconds(130..200, None)).collect(),
            &[(0, begins, 2), (60, lasts, 120), (120, lasts, 120), (139, ends, 18)],
        );
        // It comes and goes: one episode.
        let flapping = (0..60).map(|second| (second, (second % 9 == 0).then_some(1)));
        check(
            flapping.chain(seconds(60..70, None)).collect(),
            &[(0, begins, 1), (60, lasts, 6), (64, ends, 0)],
        );
        // It comes back later: another episode.
        check(
            seconds(0..1, Some(1)).chain(seconds(1..30, None)).chain(seconds(30..31, Some(5))).collect(),
            &[(0, begins, 1), (10, ends, 0), (30, begins, 5)],
        );
    }

    #[test]
    fn counts_that_were_not_logged_are_logged_at_the_end() {
        let now = Instant::now();
        let mut condition = Condition::new(Duration::from_secs(10));
        assert_eq!(condition.close(now), None);
        condition.observe(Observation::Wrong(3), now);
        assert_eq!(condition.close(now), None);
        condition.observe(Observation::Wrong(4), now + Duration::from_secs(1));
        let due = condition.close(now + Duration::from_secs(2));
        let lasted = Duration::from_secs(1);
        assert_eq!(due, Some(DueLine { phase: Phase::Lasts, count: 4, lasted }));
        assert_eq!(condition.close(now), None);
    }

    proptest! {
        #[test]
        fn every_occurrence_is_counted_in_one_line_and_lines_are_few(
            looks in prop::collection::vec(prop::option::of(0_u64..100), 0..500),
        ) {
            let start = Instant::now();
            let mut condition = Condition::new(Duration::from_secs(10));
            let (mut logged, mut lines) = (0, 0);
            for (second, affected) in looks.iter().enumerate() {
                let seen = affected.map_or(Observation::Nothing, Observation::Wrong);
                let due = condition.observe(seen, start + Duration::from_secs(second as u64));
                lines += due.iter().len();
                logged += due.map_or(0, |due| due.count);
            }
            logged += condition.close(start + Duration::from_secs(500)).map_or(0, |due| due.count);
            prop_assert_eq!(logged, looks.iter().flatten().sum::<u64>());
            prop_assert!(lines <= 2 + looks.len() / 5, "{} lines", lines);
        }
    }
}
