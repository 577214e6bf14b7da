//! The lasting conditions, and their log lines: level, message, and advice.

use std::time::Duration;

use tracing::{Level, error, info, warn};

use super::condition::{DueLine, Phase};

/// The conditions that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConditionKind {
    /// The buffer has no room, and requests get 503.
    BufferFull,
    /// Accepted readings are dropped for newer ones.
    Dropped,
    /// Readings become dead letters.
    DeadLettered,
    /// No node takes batches.
    NoNodeUp,
    /// Readings cannot be stored.
    StorageFailing,
    /// Dead letters cannot be written.
    DeadLettersFailing,
    /// Invalid readings or requests are turned away.
    TurnedAway,
}

/// The facts of a line.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Details, in words.
    pub(super) detail: Option<String>,
    /// Readings in the buffer, where they matter.
    pub(super) buffered: Option<u64>,
    /// Advice instead of the usual one.
    pub(super) to_do: Option<&'static str>,
}

/// The texts of a condition's lines.
struct Wording {
    /// Level of the lines, except the last one.
    level: Level,
    begins: &'static str,
    lasts: &'static str,
    ends: &'static str,
    to_do: &'static str,
}

/// Quiet time of conditions that are made of events. Senders with intervals of up to this time cause one episode.
const QUIET_OF_EVENTS: Duration = Duration::from_secs(12);
/// Quiet time of conditions that are states.
const QUIET_OF_STATES: Duration = Duration::from_secs(5);

impl ConditionKind {
    /// All conditions.
    pub(super) const ALL: [ConditionKind; 7] = [
        ConditionKind::StorageFailing,
        ConditionKind::NoNodeUp,
        ConditionKind::BufferFull,
        ConditionKind::Dropped,
        ConditionKind::DeadLettersFailing,
        ConditionKind::DeadLettered,
        ConditionKind::TurnedAway,
    ];

    /// Time without an occurrence after which it has ended.
    pub(super) fn quiet(self) -> Duration {
        match self {
            ConditionKind::BufferFull
            | ConditionKind::Dropped
            | ConditionKind::DeadLettered
            | ConditionKind::TurnedAway => QUIET_OF_EVENTS,
            ConditionKind::NoNodeUp | ConditionKind::StorageFailing | ConditionKind::DeadLettersFailing => {
                QUIET_OF_STATES
            }
        }
    }

    /// Its name in the log.
    fn name(self) -> &'static str {
        match self {
            ConditionKind::BufferFull => "buffer_full",
            ConditionKind::Dropped => "readings_dropped",
            ConditionKind::DeadLettered => "dead_lettered",
            ConditionKind::NoNodeUp => "no_node_up",
            ConditionKind::StorageFailing => "storage_failing",
            ConditionKind::DeadLettersFailing => "dead_letters_failing",
            ConditionKind::TurnedAway => "turned_away",
        }
    }

    fn wording(self) -> Wording {
        let words = |level, begins, lasts, ends, to_do| Wording { level, begins, lasts, ends, to_do };
        match self {
            ConditionKind::BufferFull => words(
                Level::WARN,
                "the buffer is full, requests that find no room get 503",
                "the buffer is still full, requests that find no room get 503",
                "the buffer has room again",
                "the nodes take less than comes in: look at them in /status, add some, or raise `buffer.max_readings` \
                 and `buffer.max_bytes`",
            ),
            ConditionKind::Dropped => words(
                Level::ERROR,
                "accepted readings are given up for newer ones, they are lost",
                "accepted readings are still given up for newer ones, they are lost",
                "no more readings are given up",
                "the buffer is full and `buffer.on_full` is `drop_oldest`: add nodes, or raise `buffer.max_readings` \
                 and `buffer.max_bytes`",
            ),
            ConditionKind::DeadLettered => words(
                Level::WARN,
                "readings become dead letters: nodes refuse them, or their format cannot hold them",
                "readings still become dead letters: nodes refuse them, or their format cannot hold them",
                "no more readings become dead letters",
                "look at them with `forebay dead-letters list`, mend the cause, then `forebay dead-letters replay`",
            ),
            ConditionKind::NoNodeUp => words(
                Level::WARN,
                "no node is up that could take what waits, readings stay in the buffer",
                "still no node is up that could take what waits, readings stay in the buffer",
                "nodes are up again and take what waits",
                "look at the nodes, and at `cluster` in the settings: `forebay check` tries each node",
            ),
            ConditionKind::StorageFailing => words(
                Level::ERROR,
                "nothing can be written to the buffer on disk, requests get 503 until it can",
                "still nothing can be written to the buffer on disk, requests get 503 until it can",
                "the buffer on disk can be written again",
                "make room on the disk or mend it; the gateway tries again by itself, every second",
            ),
            ConditionKind::DeadLettersFailing => words(
                Level::ERROR,
                "dead letters cannot be written, refused readings stay in the buffer",
                "dead letters still cannot be written, refused readings stay in the buffer",
                "dead letters can be written again",
                "make `dead_letter.path` a directory that can be written, or make room; the gateway tries again by itself",
            ),
            ConditionKind::TurnedAway => words(
                Level::WARN,
                "readings or requests are turned away",
                "readings or requests are still turned away",
                "no more readings or requests are turned away",
                "look at the last ones in /status/rejections, and mend their senders",
            ),
        }
    }

    /// Logs a line.
    pub(super) fn log(self, due: DueLine, facts: &Facts) {
        let words = self.wording();
        let (level, message) = match due.phase {
            Phase::Begins => (words.level, words.begins),
            Phase::Lasts => (words.level, words.lasts),
            Phase::Ends => (Level::INFO, words.ends),
        };
        let to_do = (due.phase != Phase::Ends).then_some(facts.to_do.unwrap_or(words.to_do));
        let condition = self.name();
        let lasted_seconds = (due.phase != Phase::Begins).then_some(due.lasted.as_secs());
        let Counts { requests, readings, turned_away } = self.counts(due);
        let (buffered, detail) = (facts.buffered, facts.detail.as_deref());
        // The level must be known at compile time.
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    condition,
                    requests,
                    readings,
                    turned_away,
                    buffered,
                    lasted_seconds,
                    detail,
                    to_do,
                    "{message}"
                )
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            _ => line!(info),
        }
    }

    /// The count of a line, under the name of what was counted.
    fn counts(self, due: DueLine) -> Counts {
        let none = Counts::default();
        match self {
            ConditionKind::BufferFull => Counts { requests: Some(due.count), ..none },
            ConditionKind::Dropped | ConditionKind::DeadLettered => {
                Counts { readings: Some(due.count), ..none }
            }
            ConditionKind::TurnedAway => Counts { turned_away: Some(due.count), ..none },
            ConditionKind::NoNodeUp | ConditionKind::StorageFailing | ConditionKind::DeadLettersFailing => {
                none
            }
        }
    }
}

/// The affected readings or requests; exactly one field is set for conditions with counts.
#[derive(Default)]
struct Counts {
    requests: Option<u64>,
    readings: Option<u64>,
    /// Readings, and requests whose readings are unknown.
    turned_away: Option<u64>,
}
