//! When the log speaks of something that goes wrong for a while: once when it begins, once a minute while it lasts, and
//! once when it has ended.

use std::time::Duration;

use tokio::time::Instant;

/// How often the log says that something lasts.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(60);

/// Something that goes wrong for a while.
///
/// It ends when it was not seen for a while, so that what comes and goes many times a second is one trouble and not
/// many. Each occurrence is told in exactly one line: the counts of all lines of a trouble add up.
#[derive(Debug)]
pub(super) struct Condition {
    quiet: Duration,
    lasting: Option<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    began: Instant,
    seen: Instant,
    told: Instant,
    untold: u64,
}

/// What a look found since the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing is wrong.
    Nothing,
    /// It is wrong, and so many readings or requests fell victim to it.
    Wrong(u64),
}

/// Which of its lines is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has begun.
    Begins,
    /// It lasts, for another minute.
    Lasts,
    /// It has ended.
    Ends,
}

/// A line that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Which one.
    pub(super) phase: Phase,
    /// Readings or requests since the line before.
    pub(super) count: u64,
    /// From when it began until it was seen last.
    pub(super) lasted: Duration,
}

impl Condition {
    /// One that has ended when it was not seen for `quiet`.
    pub(super) fn new(quiet: Duration) -> Condition {
        Condition { quiet, lasting: None }
    }

    /// Notes what a look found, and says which line is due.
    pub(super) fn observe(&mut self, seen: Seen, now: Instant) -> Option<Due> {
        let Some(lasting) = &mut self.lasting else {
            let Seen::Wrong(count) = seen else { return None };
            self.lasting = Some(Lasting { began: now, seen: now, told: now, untold: 0 });
            return Some(Due { phase: Phase::Begins, count, lasted: Duration::ZERO });
        };
        if let Seen::Wrong(count) = seen {
            lasting.seen = now;
            lasting.untold += count;
        }
        let phase = if now.duration_since(lasting.seen) >= self.quiet {
            Phase::Ends
        } else if now.duration_since(lasting.told) >= TELL_EVERY {
            Phase::Lasts
        } else {
            return None;
        };
        let due = lasting.tell(phase, now);
        if phase == Phase::Ends {
            self.lasting = None;
        }
        Some(due)
    }

    /// The last line, if something was not told: there will be no more looks.
    pub(super) fn close(&mut self, now: Instant) -> Option<Due> {
        let lasting = self.lasting.as_mut().filter(|lasting| lasting.untold > 0)?;
        Some(lasting.tell(Phase::Lasts, now))
    }
}

impl Lasting {
    fn tell(&mut self, phase: Phase, now: Instant) -> Due {
        self.told = now;
        let count = std::mem::take(&mut self.untold);
        Due { phase, count, lasted: self.seen.duration_since(self.began) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks once a second; each look is a number of victims, or `-` for nothing. Says in which second which line came.
    fn lines(looks: &[(u64, Option<u64>)]) -> Vec<(u64, Phase, u64)> {
        let start = Instant::now();
        let mut condition = Condition::new(Duration::from_secs(10));
        let mut lines = Vec::new();
        for (second, victims) in looks {
            let seen = victims.map_or(Seen::Nothing, Seen::Wrong);
            let due = condition.observe(seen, start + Duration::from_secs(*second));
            lines.extend(due.map(|due| (*second, due.phase, due.count)));
        }
        lines
    }

    #[test]
    fn it_is_told_once_when_it_begins_once_a_minute_and_once_when_it_has_ended() {
        let (begins, lasts, ends) = (Phase::Begins, Phase::Lasts, Phase::Ends);
        let check = |looks: Vec<(u64, Option<u64>)>, expected: &[(u64, Phase, u64)]| {
            assert_eq!(lines(&looks), expected, "{looks:?}");
        };
        let seconds = |range: std::ops::Range<u64>, victims| range.map(move |second| (second, victims));
        check(seconds(0..100, None).collect(), &[]);
        check(seconds(0..20, Some(0)).collect(), &[(0, begins, 0)]);
        check(
            seconds(0..130, Some(2)).chain(seconds(130..200, None)).collect(),
            &[(0, begins, 2), (60, lasts, 120), (120, lasts, 120), (139, ends, 18)],
        );
        // It comes and goes: one trouble.
        let flapping = (0..60).map(|second| (second, (second % 9 == 0).then_some(1)));
        check(
            flapping.chain(seconds(60..70, None)).collect(),
            &[(0, begins, 1), (60, lasts, 6), (64, ends, 0)],
        );
        // It comes back later: another one.
        check(
            seconds(0..1, Some(1)).chain(seconds(1..30, None)).chain(seconds(30..31, Some(5))).collect(),
            &[(0, begins, 1), (10, ends, 0), (30, begins, 5)],
        );
    }

    #[test]
    fn what_was_not_told_is_told_at_the_end() {
        let now = Instant::now();
        let mut condition = Condition::new(Duration::from_secs(10));
        assert_eq!(condition.close(now), None);
        condition.observe(Seen::Wrong(3), now);
        assert_eq!(condition.close(now), None);
        condition.observe(Seen::Wrong(4), now + Duration::from_secs(1));
        let due = condition.close(now + Duration::from_secs(2));
        let lasted = Duration::from_secs(1);
        assert_eq!(due, Some(Due { phase: Phase::Lasts, count: 4, lasted }));
        assert_eq!(condition.close(now), None);
    }

    proptest! {
        #[test]
        fn every_victim_is_told_once_and_lines_are_few(
            looks in prop::collection::vec(prop::option::of(0_u64..100), 0..500),
        ) {
            let start = Instant::now();
            let mut condition = Condition::new(Duration::from_secs(10));
            let (mut told, mut lines) = (0, 0);
            for (second, victims) in looks.iter().enumerate() {
                let seen = victims.map_or(Seen::Nothing, Seen::Wrong);
                let due = condition.observe(seen, start + Duration::from_secs(second as u64));
                lines += due.iter().len();
                told += due.map_or(0, |due| due.count);
            }
            told += condition.close(start + Duration::from_secs(500)).map_or(0, |due| due.count);
            prop_assert_eq!(told, looks.iter().flatten().sum::<u64>());
            prop_assert!(lines <= 2 + looks.len() / 5, "{} lines", lines);
        }
    }
}
