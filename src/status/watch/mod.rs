//! Logs lasting conditions: full, failing, dropping, refusing, turning away.
//!
//! Twice a second the watcher reads the state and the counters. For each [`ConditionKind`] a [`Condition`] decides whether
//! a line is due: at its beginning, once a minute while it lasts, and at its end. So the number of lines does not grow
//! with the load. Every count is logged: the end of the watch logs the rest.
//!
//! Limits: at most [`DEVICES_PER_MINUTE_MAX`] devices are named a minute, the others summed up; a line begins at most
//! half a second late.

mod condition;
mod condition_kind;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::certificate;
use super::readiness::Readiness;
use super::{StatusSources, StatusView};
use crate::buffer::ledger::DeadLetterReason;
use condition::{Condition, DueLine, LOG_EVERY, Observation, Phase};
use condition_kind::{ConditionKind, Facts};

/// Interval of the looks. Trouble with a disk lasts for at least a second, so none is missed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most devices that are named in a minute.
const DEVICES_PER_MINUTE_MAX: usize = 20;

/// Watches a gateway until it is dropped. Dropping it logs the counts that were not logged yet.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Mutex<Watcher>>,
    task: AbortHandle,
}

impl Watch {
    /// Starts to watch, in the current runtime.
    pub fn start(status: Arc<StatusSources>) -> Watch {
        let watcher = Arc::new(Mutex::new(Watcher::new(status, Instant::now())));
        let watched = Arc::downgrade(&watcher);
        let task = tokio::spawn(async move {
            let mut certificate_due = Instant::now();
            let mut turn = interval(LOOK_EVERY);
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turn.tick().await;
                let Some(watcher) = watched.upgrade() else { return };
                let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
                watcher.look(Instant::now());
                if Instant::now() >= certificate_due {
                    certificate::tell(&watcher.status);
                    certificate_due = Instant::now() + certificate::TELL_EVERY;
                }
                let dead_letters = &watcher.status.dead_letters;
                if dead_letters.takes_care() {
                    let dead_letters = dead_letters.clone();
                    drop(tokio::task::spawn_blocking(move || dead_letters.look_after()));
                }
            }
        });
        Watch { watcher, task: task.abort_handle() }
    }

    /// Starts the care for the directory of dead letters, at the next look.
    pub fn look_after_dead_letters(&self) {
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        watcher.status.dead_letters.want_care();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        let now = Instant::now();
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        watcher.look(now);
        watcher.close(now);
    }
}

#[derive(Debug)]
struct Watcher {
    status: Arc<StatusSources>,
    conditions: [(ConditionKind, Condition); ConditionKind::ALL.len()],
    totals: Totals,
    naming: NamingBudget,
}

/// Counters since the start, as of the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    refused_for_room: u64,
    dropped: u64,
    dead_lettered: u64,
    turned_away: u64,
}

/// Devices that may still be named in this minute.
#[derive(Debug)]
struct NamingBudget {
    since: Instant,
    left: usize,
}

impl NamingBudget {
    fn left(&mut self, now: Instant) -> usize {
        if now.duration_since(self.since) >= LOG_EVERY {
            *self = NamingBudget { since: now, left: DEVICES_PER_MINUTE_MAX };
        }
        self.left
    }
}

impl Watcher {
    fn new(status: Arc<StatusSources>, now: Instant) -> Watcher {
        let condition = |kind: ConditionKind| (kind, Condition::new(kind.quiet()));
        Watcher {
            status,
            conditions: ConditionKind::ALL.map(condition),
            totals: Totals::default(),
            naming: NamingBudget { since: now, left: DEVICES_PER_MINUTE_MAX },
        }
    }

    /// Reads the state once, and logs the lines that are due.
    fn look(&mut self, now: Instant) {
        let view = self.status.view();
        let totals = self.totals(&view);
        let before = std::mem::replace(&mut self.totals, totals);
        for place in 0..self.conditions.len() {
            let (kind, condition) = &mut self.conditions[place];
            let (kind, observed) = (*kind, observation(*kind, &view, before, totals));
            if let Some(due) = condition.observe(observed, now) {
                self.log(kind, due, &view, now);
            }
        }
    }

    /// Logs the counts that were not logged yet.
    fn close(&mut self, now: Instant) {
        let view = self.status.view();
        for place in 0..self.conditions.len() {
            let (kind, condition) = &mut self.conditions[place];
            let kind = *kind;
            if let Some(due) = condition.close(now) {
                self.log(kind, due, &view, now);
            }
        }
    }

    fn totals(&self, view: &StatusView) -> Totals {
        let ledger = &view.snapshot.ledger;
        let set_aside = DeadLetterReason::NAMES.iter().zip(&ledger.dead_lettered);
        // Damaged readings are logged where they are found.
        let set_aside = set_aside.filter(|((_, reason), _)| *reason != DeadLetterReason::Damaged);
        Totals {
            refused_for_room: self.status.metrics.requests_refused.with_label_values(&["full"]).get(),
            dropped: ledger.dropped.iter().sum(),
            dead_lettered: set_aside.map(|(_, readings)| readings).sum(),
            turned_away: self.status.rejections.count(),
        }
    }

    fn log(&mut self, kind: ConditionKind, due: DueLine, view: &StatusView, now: Instant) {
        let facts = self.facts(kind, due.phase, view, now);
        kind.log(due, &facts);
    }

    /// The facts of a line beside its counts.
    fn facts(&mut self, kind: ConditionKind, phase: Phase, view: &StatusView, now: Instant) -> Facts {
        let is_over = phase == Phase::Ends;
        let detail = match kind {
            ConditionKind::TurnedAway => self.turned_away(now),
            _ if is_over => None,
            ConditionKind::BufferFull => view.full.clone(),
            ConditionKind::DeadLettered => {
                self.status.dead_letters.latest().map(|last| format!("the last one: {last}"))
            }
            ConditionKind::NoNodeUp => Readiness::of(view).checks.nodes.reason,
            ConditionKind::StorageFailing => view.trouble.clone(),
            ConditionKind::DeadLettersFailing => view.dead_letter_trouble.clone(),
            ConditionKind::Dropped => None,
        };
        let is_about_buffer = !matches!(kind, ConditionKind::TurnedAway | ConditionKind::DeadLettered);
        let to_do = view.advice.filter(|_| kind == ConditionKind::StorageFailing);
        Facts { detail, buffered: is_about_buffer.then_some(view.snapshot.ledger.buffered), to_do }
    }

    /// The devices whose readings were turned away since the last line, with reasons.
    fn turned_away(&mut self, now: Instant) -> Option<String> {
        let left = self.naming.left(now);
        let hide = |device: &str, is_cut| self.status.hide(device, is_cut);
        let (words, named) = self.status.rejections.take_tally().words(left, hide);
        self.naming.left -= named;
        (!words.is_empty()).then_some(words)
    }
}

/// Whether a condition holds, and how many readings or requests it affected since the last look.
fn observation(kind: ConditionKind, view: &StatusView, before: Totals, totals: Totals) -> Observation {
    let since = |of: fn(&Totals) -> u64| of(&totals).saturating_sub(of(&before));
    let (affected, lasts) = match kind {
        ConditionKind::BufferFull => (since(|totals| totals.refused_for_room), view.full.is_some()),
        ConditionKind::Dropped => (since(|totals| totals.dropped), false),
        ConditionKind::DeadLettered => (since(|totals| totals.dead_lettered), false),
        ConditionKind::TurnedAway => (since(|totals| totals.turned_away), false),
        ConditionKind::NoNodeUp => (0, !Readiness::of(view).checks.nodes.ok),
        ConditionKind::StorageFailing => (0, view.is_failing),
        ConditionKind::DeadLettersFailing => (0, view.dead_letter_trouble.is_some()),
    };
    if lasts || affected > 0 { Observation::Wrong(affected) } else { Observation::Nothing }
}
