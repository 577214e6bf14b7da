//! What the log says of each kind of trouble: how bad it is, in which words, and what to do.

use std::time::Duration;

use tracing::{Level, error, info, warn};

use super::condition::{Due, Phase};

/// What can go wrong for a while. A quota that is exceeded will be one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no room for readings, and requests get 503.
    BufferFull,
    /// Accepted readings are given up for newer ones.
    Dropped,
    /// Readings become dead letters.
    DeadLettered,
    /// No node takes batches.
    NoNodeUp,
    /// Readings cannot be stored.
    StorageFailing,
    /// Dead letters cannot be written.
    DeadLettersFailing,
    /// Readings, or requests of clients who ask for what cannot be, are turned away.
    TurnedAway,
}

/// The facts of a line.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// What it is about, in words.
    pub(super) detail: Option<String>,
    /// Readings in the buffer, where they matter.
    pub(super) buffered: Option<u64>,
    /// What to do, if it is not the usual.
    pub(super) to_do: Option<&'static str>,
}

/// What a trouble is told in.
struct Words {
    /// How bad it is while it lasts.
    level: Level,
    begins: &'static str,
    lasts: &'static str,
    ends: &'static str,
    to_do: &'static str,
}

/// What comes and goes by the tens of seconds, as the senders' own intervals have it, is one trouble.
const QUIET_OF_EVENTS: Duration = Duration::from_secs(12);
/// A state that changed and stayed so for a while has changed.
const QUIET_OF_STATES: Duration = Duration::from_secs(5);

impl Trouble {
    /// Every one.
    pub(super) const ALL: [Trouble; 7] = [
        Trouble::StorageFailing,
        Trouble::NoNodeUp,
        Trouble::BufferFull,
        Trouble::Dropped,
        Trouble::DeadLettersFailing,
        Trouble::DeadLettered,
        Trouble::TurnedAway,
    ];

    /// How long it must not be seen to have ended.
    pub(super) fn quiet(self) -> Duration {
        match self {
            Trouble::BufferFull | Trouble::Dropped | Trouble::DeadLettered | Trouble::TurnedAway => {
                QUIET_OF_EVENTS
            }
            Trouble::NoNodeUp | Trouble::StorageFailing | Trouble::DeadLettersFailing => QUIET_OF_STATES,
        }
    }

    /// Its name in the log.
    fn name(self) -> &'static str {
        match self {
            Trouble::BufferFull => "buffer_full",
            Trouble::Dropped => "readings_dropped",
            Trouble::DeadLettered => "dead_lettered",
            Trouble::NoNodeUp => "no_node_up",
            Trouble::StorageFailing => "storage_failing",
            Trouble::DeadLettersFailing => "dead_letters_failing",
            Trouble::TurnedAway => "turned_away",
        }
    }

    fn words(self) -> Words {
        let words = |level, begins, lasts, ends, to_do| Words { level, begins, lasts, ends, to_do };
        match self {
            Trouble::BufferFull => words(
                Level::WARN,
                "the buffer is full, requests that find no room get 503",
                "the buffer is still full, requests that find no room get 503",
                "the buffer has room again",
                "the nodes take less than comes in: look at them in /status, add some, or raise `buffer.max_readings` \
                 and `buffer.max_bytes`",
            ),
            Trouble::Dropped => words(
                Level::ERROR,
                "accepted readings are given up for newer ones, they are lost",
                "accepted readings are still given up for newer ones, they are lost",
                "no more readings are given up",
                "the buffer is full and `buffer.on_full` is `drop_oldest`: add nodes, or raise `buffer.max_readings` \
                 and `buffer.max_bytes`",
            ),
            Trouble::DeadLettered => words(
                Level::WARN,
                "readings become dead letters: nodes refuse them, or their format cannot hold them",
                "readings still become dead letters: nodes refuse them, or their format cannot hold them",
                "no more readings become dead letters",
                "look at them with `forebay dead-letters list`, mend the cause, then `forebay dead-letters replay`",
            ),
            Trouble::NoNodeUp => words(
                Level::WARN,
                "no node is up that could take what waits, readings stay in the buffer",
                "still no node is up that could take what waits, readings stay in the buffer",
                "nodes are up again and take what waits",
                "look at the nodes, and at `cluster` in the settings: `forebay check` tries each node",
            ),
            Trouble::StorageFailing => words(
                Level::ERROR,
                "nothing can be written to the buffer on disk, requests get 503 until it can",
                "still nothing can be written to the buffer on disk, requests get 503 until it can",
                "the buffer on disk can be written again",
                "make room on the disk or mend it; the gateway tries again by itself, every second",
            ),
            Trouble::DeadLettersFailing => words(
                Level::ERROR,
                "dead letters cannot be written, refused readings stay in the buffer",
                "dead letters still cannot be written, refused readings stay in the buffer",
                "dead letters can be written again",
                "make `dead_letter.path` a directory that can be written, or make room; the gateway tries again by itself",
            ),
            Trouble::TurnedAway => words(
                Level::WARN,
                "readings or requests are turned away",
                "readings or requests are still turned away",
                "no more readings or requests are turned away",
                "look at the last ones in /status/rejections, and mend their senders",
            ),
        }
    }

    /// Writes a line.
    pub(super) fn tell(self, due: Due, facts: &Facts) {
        let words = self.words();
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
        // The level of a line has to be known to the compiler.
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

    /// What the count of a line means.
    fn counts(self, due: Due) -> Counts {
        let none = Counts::default();
        match self {
            Trouble::BufferFull => Counts { requests: Some(due.count), ..none },
            Trouble::Dropped | Trouble::DeadLettered => Counts { readings: Some(due.count), ..none },
            Trouble::TurnedAway => Counts { turned_away: Some(due.count), ..none },
            Trouble::NoNodeUp | Trouble::StorageFailing | Trouble::DeadLettersFailing => none,
        }
    }
}

/// What fell victim to a trouble, under the name that says what was counted.
#[derive(Default)]
struct Counts {
    requests: Option<u64>,
    readings: Option<u64>,
    /// Readings, and requests of which no reading is known.
    turned_away: Option<u64>,
}
