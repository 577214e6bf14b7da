//! The log of what goes wrong for a while: full, failing, dropped, refused, turned away.
//!
//! Twice a second the state and the counters are looked at, and for each [`Trouble`] a [`Condition`] decides whether a
//! line is due: when it begins, once a minute while it lasts, and when it has ended. So the number of lines does not grow
//! with the load, and whatever is counted is told: what was given up since the last line is told when the watch ends, too.
//!
//! Limits: at most [`DEVICES_PER_MINUTE_MAX`] devices are named a minute, the others summed up; a line begins at most
//! half a second late.

mod condition;
mod trouble;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::readiness::Readiness;
use super::{Status, View};
use crate::buffer::ledger::DeadLetterReason;
use condition::{Condition, Due, Phase, Seen, TELL_EVERY};
use trouble::{Facts, Trouble};

/// How often it looks. What is wrong with a disk lasts for a second at least.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most devices that are named a minute.
const DEVICES_PER_MINUTE_MAX: usize = 20;

/// Watches a gateway until it is dropped, which tells what was not told yet.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Mutex<Watcher>>,
    task: AbortHandle,
}

impl Watch {
    /// Begins to watch, in the runtime that this is called in.
    pub fn start(status: Arc<Status>) -> Watch {
        let watcher = Arc::new(Mutex::new(Watcher::new(status, Instant::now())));
        let watched = Arc::downgrade(&watcher);
        let task = tokio::spawn(async move {
            let mut turn = interval(LOOK_EVERY);
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turn.tick().await;
                let Some(watcher) = watched.upgrade() else { return };
                let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
                watcher.look(Instant::now());
                let dead_letters = &watcher.status.dead_letters;
                if dead_letters.takes_care() {
                    let dead_letters = dead_letters.clone();
                    drop(tokio::task::spawn_blocking(move || dead_letters.look_after()));
                }
            }
        });
        Watch { watcher, task: task.abort_handle() }
    }

    /// Has the directory of the dead letters looked after, at the next look for the first time.
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
    status: Arc<Status>,
    conditions: [(Trouble, Condition); Trouble::ALL.len()],
    counted: Counted,
    naming: Naming,
}

/// What was counted since the start, when it was looked at last.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    refused_for_room: u64,
    dropped: u64,
    dead_lettered: u64,
    turned_away: u64,
}

/// How many devices may still be named in this minute.
#[derive(Debug)]
struct Naming {
    since: Instant,
    left: usize,
}

impl Naming {
    fn left(&mut self, now: Instant) -> usize {
        if now.duration_since(self.since) >= TELL_EVERY {
            *self = Naming { since: now, left: DEVICES_PER_MINUTE_MAX };
        }
        self.left
    }
}

impl Watcher {
    fn new(status: Arc<Status>, now: Instant) -> Watcher {
        let condition = |trouble: Trouble| (trouble, Condition::new(trouble.quiet()));
        Watcher {
            status,
            conditions: Trouble::ALL.map(condition),
            counted: Counted::default(),
            naming: Naming { since: now, left: DEVICES_PER_MINUTE_MAX },
        }
    }

    /// Looks at everything, and writes the lines that are due.
    fn look(&mut self, now: Instant) {
        let view = self.status.view();
        let counted = self.count(&view);
        let before = std::mem::replace(&mut self.counted, counted);
        for place in 0..self.conditions.len() {
            let (trouble, condition) = &mut self.conditions[place];
            let (trouble, seen) = (*trouble, seen(*trouble, &view, before, counted));
            if let Some(due) = condition.observe(seen, now) {
                self.tell(trouble, due, &view, now);
            }
        }
    }

    /// Writes what was not told yet.
    fn close(&mut self, now: Instant) {
        let view = self.status.view();
        for place in 0..self.conditions.len() {
            let (trouble, condition) = &mut self.conditions[place];
            let trouble = *trouble;
            if let Some(due) = condition.close(now) {
                self.tell(trouble, due, &view, now);
            }
        }
    }

    fn count(&self, view: &View) -> Counted {
        let ledger = &view.snapshot.ledger;
        let set_aside = DeadLetterReason::NAMES.iter().zip(&ledger.dead_lettered);
        // What cannot be read from disk is told where it is found.
        let set_aside = set_aside.filter(|((_, reason), _)| *reason != DeadLetterReason::Damaged);
        Counted {
            refused_for_room: self.status.metrics.requests_refused.with_label_values(&["full"]).get(),
            dropped: ledger.dropped.iter().sum(),
            dead_lettered: set_aside.map(|(_, readings)| readings).sum(),
            turned_away: self.status.rejections.count(),
        }
    }

    fn tell(&mut self, trouble: Trouble, due: Due, view: &View, now: Instant) {
        let facts = self.facts(trouble, due.phase, view, now);
        trouble.tell(due, &facts);
    }

    /// What a line has to say beside its counts.
    fn facts(&mut self, trouble: Trouble, phase: Phase, view: &View, now: Instant) -> Facts {
        let is_over = phase == Phase::Ends;
        let detail = match trouble {
            Trouble::TurnedAway => self.turned_away(now),
            _ if is_over => None,
            Trouble::BufferFull => view.full.clone(),
            Trouble::DeadLettered => {
                self.status.dead_letters.latest().map(|last| format!("the last one: {last}"))
            }
            Trouble::NoNodeUp => Readiness::of(view).checks.nodes.reason,
            Trouble::StorageFailing => view.trouble.clone(),
            Trouble::DeadLettersFailing => view.dead_letter_trouble.clone(),
            Trouble::Dropped => None,
        };
        let is_about_buffer = !matches!(trouble, Trouble::TurnedAway | Trouble::DeadLettered);
        let to_do = view.advice.filter(|_| trouble == Trouble::StorageFailing);
        Facts { detail, buffered: is_about_buffer.then_some(view.snapshot.ledger.buffered), to_do }
    }

    /// Of which devices readings were turned away since the last line, and why.
    fn turned_away(&mut self, now: Instant) -> Option<String> {
        let left = self.naming.left(now);
        let hide = |device: &str, is_cut| self.status.hide(device, is_cut);
        let (words, named) = self.status.rejections.take_tally().words(left, hide);
        self.naming.left -= named;
        (!words.is_empty()).then_some(words)
    }
}

/// Whether there is trouble, and what fell victim to it since the last look.
fn seen(trouble: Trouble, view: &View, before: Counted, counted: Counted) -> Seen {
    let since = |of: fn(&Counted) -> u64| of(&counted).saturating_sub(of(&before));
    let (victims, lasts) = match trouble {
        Trouble::BufferFull => (since(|counted| counted.refused_for_room), view.full.is_some()),
        Trouble::Dropped => (since(|counted| counted.dropped), false),
        Trouble::DeadLettered => (since(|counted| counted.dead_lettered), false),
        Trouble::TurnedAway => (since(|counted| counted.turned_away), false),
        Trouble::NoNodeUp => (0, !Readiness::of(view).checks.nodes.ok),
        Trouble::StorageFailing => (0, view.is_failing),
        Trouble::DeadLettersFailing => (0, view.dead_letter_trouble.is_some()),
    };
    if lasts || victims > 0 { Seen::Wrong(victims) } else { Seen::Nothing }
}
