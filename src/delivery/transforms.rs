//! Runs what the buffer hands out through the transforms, and keeps what their windows hold.
//!
//! A part comes apart by what becomes of its readings: some go on, as they are or changed; some are filtered; some are
//! in a window, which holds them, unsettled, until what it makes of them is in the buffer. Of those, nothing is kept
//! in memory but their places. Time is passed in; nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use forebay_reading::{Position, Readings};
use forebay_transform::{Chain, Closed, Fate, Fold, Moment, Stats, TransformConfig};
use tokio::time::Instant;

use super::node_status::TransformStatus;
use crate::buffer::lease::OpenWindows;
use crate::buffer::ledger::Outcome;
use crate::buffer::{Amount, Derivation, Hold, Part};

/// Windows of each transform that are closed at once.
const CLOSE_MAX: usize = 500;
/// With so many results, or so many readings that they are made of, they are put into the buffer at once.
const RESULTS_MAX: usize = 1000;
const MERGED_MAX: usize = 100_000;
/// Longest time that results wait for others to be put into the buffer with them.
const GATHER_MAX: Duration = Duration::from_millis(50);

/// The transforms, and the readings that are in their windows.
#[derive(Debug)]
pub struct Transforms {
    chain: Chain,
    names: Vec<Arc<str>>,
    /// What each open window holds, by the transform and the window's number.
    windows: Vec<Vec<Window>>,
    /// Readings that windows hold.
    held: u64,
    /// Results that are not in the buffer yet, by transform.
    results: Vec<Results>,
    /// Windows that were closed before their time, so that the buffer has room.
    closed_early: Vec<u64>,
}

/// What an open window holds.
#[derive(Debug, Default)]
struct Window {
    /// Readings that went no further.
    merged: Vec<Hold>,
    /// Those that went on as well.
    kept: Vec<Arc<OpenWindows>>,
}

/// What closed windows made, and of what.
#[derive(Debug, Default)]
struct Results {
    window: Window,
    /// How many readings were merged.
    merged: usize,
    readings: Readings,
    /// Since when the first of them waits.
    since: Option<Instant>,
}

/// What became of a part.
#[derive(Debug, Default)]
pub struct Transformed {
    /// These go on.
    pub passed: Vec<Part>,
    /// These went no further, and are to be settled.
    pub taken_out: Vec<TakenOut>,
    /// These are in windows from now on, and cannot be given up.
    pub departed: Amount,
}

/// Readings that went no further and that no window holds.
#[derive(Debug)]
pub struct TakenOut {
    /// The readings.
    pub hold: Hold,
    /// What became of them.
    pub outcome: Outcome,
    /// The open windows that they are in all the same: they went on from there. They are settled after these.
    pub windows: Option<Arc<OpenWindows>>,
}

/// Results that are to be put into the buffer.
#[derive(Debug)]
pub struct Batch {
    /// What is to be put there, and what is settled with it.
    pub derivation: Derivation,
    /// Those that went on as well; they can be settled then.
    pub kept: Vec<Arc<OpenWindows>>,
}

/// Whether readings come for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    /// They had passed before a stop, and may have been sent.
    Again,
}

/// Readings that follow each other and have the same fate.
struct Run {
    to: Position,
    fate: Fate,
    /// Whether they are in windows as well.
    in_windows: bool,
    /// Behind the last of them, of what goes on in their place.
    changed_to: Position,
}

impl Results {
    fn are_many(&self) -> bool {
        self.readings.len() >= RESULTS_MAX || self.merged >= MERGED_MAX
    }
}

impl Transforms {
    /// Makes the transforms; they have seen nothing yet.
    pub fn new(configs: &[TransformConfig]) -> Transforms {
        Transforms {
            chain: Chain::new(configs),
            names: configs.iter().map(|config| config.name.as_str().into()).collect(),
            windows: configs.iter().map(|_| Vec::new()).collect(),
            held: 0,
            results: configs.iter().map(|_| Results::default()).collect(),
            closed_early: vec![0; configs.len()],
        }
    }

    /// Whether there is no transform.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Runs the readings of a part through the transforms.
    pub fn apply(&mut self, part: Part, now: Moment, into: &mut Transformed) {
        self.run(Turn::First, part, now, into);
    }

    /// Runs readings through again that had passed before a stop and may have been sent: all of them go on.
    pub fn apply_again(&mut self, part: Part, now: Moment, into: &mut Transformed) {
        self.run(Turn::Again, part, now, into);
    }

    fn run(&mut self, turn: Turn, part: Part, now: Moment, into: &mut Transformed) {
        let first = part.made_by().map_or(0, |name| self.chain.behind(name));
        let mut changed = Readings::default();
        let mut token: Option<Arc<OpenWindows>> = None;
        let mut runs: Vec<Run> = Vec::new();
        let mut folds = Vec::new();
        let mut iter = part.iter();
        while let Some(reading) = iter.next() {
            let fate = match turn {
                Turn::First => self.chain.apply(first, reading, now, &mut changed, &mut folds),
                Turn::Again => self.chain.apply_again(first, reading, now, &mut changed, &mut folds),
            };
            let in_windows = !folds.is_empty();
            for fold in folds.drain(..) {
                self.keep(fold, token.get_or_insert_default());
            }
            let (to, changed_to) = (iter.position(), changed.end());
            match runs.last_mut() {
                Some(run) if run.fate == fate && run.in_windows == in_windows => {
                    (run.to, run.changed_to) = (to, changed_to);
                }
                _ => runs.push(Run { to, fate, in_windows, changed_to }),
            }
        }
        self.take_apart(&part, runs, &Arc::new(changed), token.as_ref(), into);
        self.gather(now.instant);
    }

    /// Deals with the runs of a part.
    fn take_apart(
        &mut self,
        part: &Part,
        runs: Vec<Run>,
        changed: &Arc<Readings>,
        token: Option<&Arc<OpenWindows>>,
        into: &mut Transformed,
    ) {
        let mut from = part.start();
        let mut changed_from = Position::default();
        for Run { to, fate, in_windows, changed_to } in runs {
            let range = from..to;
            from = to;
            let changed_range = changed_from..changed_to;
            changed_from = changed_to;
            match fate {
                Fate::Passed | Fate::Changed => {
                    let mut piece = part.piece(range);
                    if fate == Fate::Changed {
                        piece = piece.changed_to(Arc::clone(changed), changed_range);
                    }
                    into.passed.push(piece.kept_for(token.filter(|_| in_windows).cloned()));
                }
                Fate::Filtered(transform) => into.taken_out.push(TakenOut {
                    hold: part.hold(range),
                    outcome: Outcome::Filtered { transform },
                    windows: token.filter(|_| in_windows).cloned(),
                }),
                Fate::Merged(fold) => match token.filter(|_| in_windows) {
                    None => into.departed += self.hold(fold, part.hold(range)),
                    // Windows before this one need them, too, and may close after it.
                    Some(token) => {
                        self.keep(fold, token);
                        into.taken_out.push(TakenOut {
                            hold: part.hold(range),
                            outcome: Outcome::Merged { transform: fold.transform },
                            windows: Some(Arc::clone(token)),
                        });
                    }
                },
            }
        }
    }

    /// Has a window hold readings. Returns what cannot be given up from now on.
    fn hold(&mut self, fold: Fold, hold: Hold) -> Amount {
        let readings = hold.len() as u64;
        self.held += readings;
        let merged = &mut self.window(fold).merged;
        let hold = match merged.last_mut() {
            None => hold,
            Some(last) => match last.join(hold) {
                Ok(()) => return Amount { readings, bytes: 0 },
                Err(hold) => hold,
            },
        };
        let departed = hold.depart();
        merged.push(hold);
        departed
    }

    /// Has a window remember that readings are in it which go on as well.
    fn keep(&mut self, fold: Fold, token: &Arc<OpenWindows>) {
        let kept = &mut self.window(fold).kept;
        if !kept.last().is_some_and(|last| Arc::ptr_eq(last, token)) {
            token.open();
            kept.push(Arc::clone(token));
        }
    }

    fn window(&mut self, Fold { transform, window }: Fold) -> &mut Window {
        let windows = &mut self.windows[transform];
        let index = window.0 as usize;
        if windows.len() <= index {
            windows.resize_with(index + 1, Window::default);
        }
        &mut windows[index]
    }

    /// Adds what closed windows made to the results that wait.
    fn gather(&mut self, now: Instant) {
        for Closed { transform, windows } in self.chain.take_closed() {
            let results = &mut self.results[transform];
            results.readings.append(&windows.results);
            results.since.get_or_insert(now);
            for window in windows.windows {
                let Some(window) = self.windows[transform].get_mut(window.0 as usize) else { continue };
                let Window { merged, kept } = std::mem::take(window);
                results.merged += merged.iter().map(Hold::len).sum::<usize>();
                results.window.merged.extend(merged);
                results.window.kept.extend(kept);
            }
        }
    }

    /// When something is to be done although no reading comes.
    pub fn next_due(&self) -> Option<Instant> {
        let gathered = self.results.iter().filter_map(|results| Some(results.since? + GATHER_MAX));
        self.chain.next_due().into_iter().chain(gathered).min()
    }

    /// Closes windows that are due, as many as are closed at once.
    pub fn close_due(&mut self, now: Instant) {
        if self.chain.next_due().is_some_and(|due| due <= now) {
            self.chain.close_due(now, CLOSE_MAX);
            self.gather(now);
        }
    }

    /// Closes windows before their time, as many as are closed at once, the oldest first: nothing more will come.
    pub fn close_for_good(&mut self, now: Instant) {
        self.chain.close_oldest(CLOSE_MAX);
        self.gather(now);
    }

    /// The same, for transforms whose readings go on as well as into windows.
    pub fn close_kept_for_good(&mut self, now: Instant) {
        self.chain.close_oldest_kept(CLOSE_MAX);
        self.gather(now);
    }

    /// Closes windows before their time, as many as are closed at once, the oldest first, because the buffer needs what
    /// they hold.
    pub fn close_early(&mut self, now: Instant) {
        let before: Vec<u64> = self.chain.stats().map(|stats| stats.open_windows).collect();
        self.chain.close_oldest(CLOSE_MAX);
        for ((closed, before), after) in self.closed_early.iter_mut().zip(before).zip(self.chain.stats()) {
            *closed += before.saturating_sub(after.open_windows);
        }
        self.gather(now);
    }

    /// Readings that windows hold.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether a window is open.
    pub fn has_windows(&self) -> bool {
        self.chain.stats().any(|stats| stats.open_windows > 0)
    }

    /// Whether a window is open of a transform whose readings go on as well.
    pub fn has_kept_windows(&self) -> bool {
        self.windows.iter().flatten().any(|window| !window.kept.is_empty())
    }

    /// Whether so much waits to be put into the buffer that it is to be done at once.
    pub fn has_much(&self) -> bool {
        self.results.iter().any(Results::are_many)
    }

    /// Whether there are results that are not in the buffer.
    pub fn has_results(&self) -> bool {
        self.results.iter().any(|results| results.since.is_some())
    }

    /// Takes the results that have waited long enough, or all of them.
    pub fn take_results(&mut self, all: bool, now: Instant) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (transform, results) in self.results.iter_mut().enumerate() {
            let Some(since) = results.since else { continue };
            if !all && !results.are_many() && now < since + GATHER_MAX {
                continue;
            }
            let Results { window, merged, readings, .. } = std::mem::take(results);
            self.held -= merged as u64;
            let made_by = Arc::clone(&self.names[transform]);
            let derivation = Derivation { transform, made_by, readings, merged: window.merged };
            batches.push(Batch { derivation, kept: window.kept });
        }
        batches
    }

    /// What others may know.
    pub fn status(&self) -> Vec<TransformStatus> {
        let stats = self.chain.stats().zip(&self.names).zip(&self.closed_early);
        stats
            .map(|((stats, name), closed_early)| TransformStatus {
                name: Arc::clone(name),
                stats: Stats { evicted: stats.evicted + closed_early, ..stats },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
