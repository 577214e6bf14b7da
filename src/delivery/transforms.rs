//! Runs readings from the buffer through the transforms, and keeps the members of open windows.
//!
//! A part is split by the fate of its readings: some pass, changed or not; some are filtered; some are merged into a window.
//! A window holds its readings unsettled until its results are in the buffer; only their places stay in memory. Time is
//! passed in; nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use forebay_reading::{Position, Readings};
use forebay_transform::{Chain, ChainOutcome, Fold, Moment, Stats, StepWindows, TransformConfig};
use tokio::time::Instant;

use super::node_status::TransformStatus;
use crate::buffer::lease::OpenWindows;
use crate::buffer::ledger::Outcome;
use crate::buffer::{Amount, Derivation, Hold, Part};

/// Most windows of each transform that are closed in one call.
const CLOSE_MAX: usize = 500;
/// Number of results at which they go into the buffer at once.
const RESULTS_MAX: usize = 1000;
/// Number of merged readings at which the results go into the buffer at once.
const MERGED_MAX: usize = 100_000;
/// Longest wait of results for further ones to go into the buffer together.
const GATHER_MAX: Duration = Duration::from_millis(50);

/// The transforms, and the readings in their windows.
#[derive(Debug)]
pub struct Transforms {
    chain: Chain,
    names: Vec<Arc<str>>,
    /// The members of each open window, by the transform and the window's number.
    windows: Vec<Vec<WindowMembers>>,
    /// Number of readings that windows hold.
    held: u64,
    /// The results that are not in the buffer yet, by transform.
    results: Vec<PendingResults>,
    /// Number of windows closed early to make room in the buffer, by transform.
    closed_early: Vec<u64>,
}

/// The readings in a window.
#[derive(Debug, Default)]
struct WindowMembers {
    /// The readings that did not pass.
    merged: Vec<Hold>,
    /// The tokens of readings that also passed: they stay unsettled until the results are in the buffer.
    kept: Vec<Arc<OpenWindows>>,
}

/// The results of closed windows that wait to go into the buffer.
#[derive(Debug, Default)]
struct PendingResults {
    members: WindowMembers,
    /// Number of merged readings.
    merged: usize,
    readings: Readings,
    /// When the first result was made.
    since: Option<Instant>,
}

/// A part, split by the fate of its readings.
#[derive(Debug, Default)]
pub struct TransformOutput {
    /// The readings that passed.
    pub passed: Vec<Part>,
    /// The readings that did not pass and are to be settled.
    pub removed: Vec<Removal>,
    /// The readings that windows hold from now on, so that they cannot be dropped.
    pub departed: Amount,
}

/// Readings that did not pass and that no window holds unsettled.
#[derive(Debug)]
pub struct Removal {
    /// The readings.
    pub hold: Hold,
    /// Their outcome.
    pub outcome: Outcome,
    /// The open windows that kept the readings before they were removed; they must be settled after these windows.
    pub windows: Option<Arc<OpenWindows>>,
}

/// Results of windows that are to go into the buffer.
#[derive(Debug)]
pub struct WindowResults {
    /// The results, and the merged readings that are settled with them.
    pub derivation: Derivation,
    /// The tokens of readings that also passed; they can be settled once the results are in the buffer.
    pub kept: Vec<Arc<OpenWindows>>,
}

/// Whether readings go through the transforms for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    First,
    /// The readings passed before a stop, and may have been sent.
    Repeat,
}

/// Consecutive readings with the same fate.
struct Run {
    to: Position,
    fate: ChainOutcome,
    /// Whether windows have the readings too.
    in_windows: bool,
    /// End of the changed readings that replace these.
    changed_to: Position,
}

impl PendingResults {
    fn are_many(&self) -> bool {
        self.readings.len() >= RESULTS_MAX || self.merged >= MERGED_MAX
    }
}

impl Transforms {
    /// Makes the transforms, with empty state.
    pub fn new(configs: &[TransformConfig]) -> Transforms {
        Transforms {
            chain: Chain::new(configs),
            names: configs.iter().map(|config| config.name.as_str().into()).collect(),
            windows: configs.iter().map(|_| Vec::new()).collect(),
            held: 0,
            results: configs.iter().map(|_| PendingResults::default()).collect(),
            closed_early: vec![0; configs.len()],
        }
    }

    /// Whether there is no transform.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Runs the readings of a part through the transforms.
    pub fn apply(&mut self, part: Part, now: Moment, into: &mut TransformOutput) {
        self.run(Pass::First, part, now, into);
    }

    /// Runs readings again that passed before a stop and may have been sent: all of them pass.
    pub fn apply_again(&mut self, part: Part, now: Moment, into: &mut TransformOutput) {
        self.run(Pass::Repeat, part, now, into);
    }

    fn run(&mut self, pass: Pass, part: Part, now: Moment, into: &mut TransformOutput) {
        let first = part.made_by().map_or(0, |name| self.chain.behind(name));
        let mut changed = Readings::default();
        let mut token: Option<Arc<OpenWindows>> = None;
        let mut runs: Vec<Run> = Vec::new();
        let mut folds = Vec::new();
        let mut iter = part.iter();
        while let Some(reading) = iter.next() {
            let fate = match pass {
                Pass::First => self.chain.apply(first, reading, now, &mut changed, &mut folds),
                Pass::Repeat => self.chain.apply_again(first, reading, now, &mut changed, &mut folds),
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
        self.split(&part, runs, &Arc::new(changed), token.as_ref(), into);
        self.gather(now.instant);
    }

    /// Splits a part into its runs.
    fn split(
        &mut self,
        part: &Part,
        runs: Vec<Run>,
        changed: &Arc<Readings>,
        token: Option<&Arc<OpenWindows>>,
        into: &mut TransformOutput,
    ) {
        let mut from = part.start();
        let mut changed_from = Position::default();
        for Run { to, fate, in_windows, changed_to } in runs {
            let range = from..to;
            from = to;
            let changed_range = changed_from..changed_to;
            changed_from = changed_to;
            match fate {
                ChainOutcome::Passed | ChainOutcome::Changed => {
                    let mut piece = part.piece(range);
                    if fate == ChainOutcome::Changed {
                        piece = piece.changed_to(Arc::clone(changed), changed_range);
                    }
                    into.passed.push(piece.kept_for(token.filter(|_| in_windows).cloned()));
                }
                ChainOutcome::Filtered(transform) => into.removed.push(Removal {
                    hold: part.hold(range),
                    outcome: Outcome::Filtered { transform },
                    windows: token.filter(|_| in_windows).cloned(),
                }),
                ChainOutcome::Merged(fold) => match token.filter(|_| in_windows) {
                    None => into.departed += self.hold(fold, part.hold(range)),
                    // Earlier windows need the readings too, and may close after this one.
                    Some(token) => {
                        self.keep(fold, token);
                        into.removed.push(Removal {
                            hold: part.hold(range),
                            outcome: Outcome::Merged { transform: fold.transform },
                            windows: Some(Arc::clone(token)),
                        });
                    }
                },
            }
        }
    }

    /// Adds merged readings to a window. Returns the amount that cannot be dropped from now on.
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

    /// Adds the token of readings that also pass to a window.
    fn keep(&mut self, fold: Fold, token: &Arc<OpenWindows>) {
        let kept = &mut self.window(fold).kept;
        if !kept.last().is_some_and(|last| Arc::ptr_eq(last, token)) {
            token.open();
            kept.push(Arc::clone(token));
        }
    }

    fn window(&mut self, Fold { transform, window }: Fold) -> &mut WindowMembers {
        let windows = &mut self.windows[transform];
        let index = window.0 as usize;
        if windows.len() <= index {
            windows.resize_with(index + 1, WindowMembers::default);
        }
        &mut windows[index]
    }

    /// Adds the results of closed windows to the pending results.
    fn gather(&mut self, now: Instant) {
        for StepWindows { transform, windows } in self.chain.take_closed() {
            let results = &mut self.results[transform];
            results.readings.append(&windows.results);
            results.since.get_or_insert(now);
            for window in windows.windows {
                let Some(window) = self.windows[transform].get_mut(window.0 as usize) else { continue };
                let WindowMembers { merged, kept } = std::mem::take(window);
                results.merged += merged.iter().map(Hold::len).sum::<usize>();
                results.members.merged.extend(merged);
                results.members.kept.extend(kept);
            }
        }
    }

    /// When a window or pending results are next due, even without new readings.
    pub fn next_due(&self) -> Option<Instant> {
        let gathered = self.results.iter().filter_map(|results| Some(results.since? + GATHER_MAX));
        self.chain.next_due().into_iter().chain(gathered).min()
    }

    /// Closes windows that are due, at most `CLOSE_MAX` of each transform.
    pub fn close_due(&mut self, now: Instant) {
        if self.chain.next_due().is_some_and(|due| due <= now) {
            self.chain.close_due(now, CLOSE_MAX);
            self.gather(now);
        }
    }

    /// Closes the oldest windows before their time, at most `CLOSE_MAX` of each transform, since no more readings will come.
    pub fn close_for_good(&mut self, now: Instant) {
        self.chain.close_oldest(CLOSE_MAX);
        self.gather(now);
    }

    /// As [`Transforms::close_for_good`], only for transforms whose readings also pass.
    pub fn close_kept_for_good(&mut self, now: Instant) {
        self.chain.close_oldest_kept(CLOSE_MAX);
        self.gather(now);
    }

    /// Closes the oldest windows before their time, at most `CLOSE_MAX` of each transform, since the buffer needs the room of
    /// their readings.
    pub fn close_early(&mut self, now: Instant) {
        let before: Vec<u64> = self.chain.stats().map(|stats| stats.open_windows).collect();
        self.chain.close_oldest(CLOSE_MAX);
        for ((closed, before), after) in self.closed_early.iter_mut().zip(before).zip(self.chain.stats()) {
            *closed += before.saturating_sub(after.open_windows);
        }
        self.gather(now);
    }

    /// Number of readings that windows hold.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether any window is open.
    pub fn has_windows(&self) -> bool {
        self.chain.stats().any(|stats| stats.open_windows > 0)
    }

    /// Whether any window with readings that also passed is open.
    pub fn has_kept_windows(&self) -> bool {
        self.windows.iter().flatten().any(|window| !window.kept.is_empty())
    }

    /// Whether there are so many pending results that they must go into the buffer at once.
    pub fn has_much(&self) -> bool {
        self.results.iter().any(PendingResults::are_many)
    }

    /// Whether there are pending results.
    pub fn has_results(&self) -> bool {
        self.results.iter().any(|results| results.since.is_some())
    }

    /// Takes the pending results that have waited long enough, or all of them.
    pub fn take_results(&mut self, all: bool, now: Instant) -> Vec<WindowResults> {
        let mut batches = Vec::new();
        for (transform, results) in self.results.iter_mut().enumerate() {
            let Some(since) = results.since else { continue };
            if !all && !results.are_many() && now < since + GATHER_MAX {
                continue;
            }
            let PendingResults { members, merged, readings, .. } = std::mem::take(results);
            self.held -= merged as u64;
            let made_by = Arc::clone(&self.names[transform]);
            let derivation = Derivation { transform, made_by, readings, merged: members.merged };
            batches.push(WindowResults { derivation, kept: members.kept });
        }
        batches
    }

    /// The status of each transform.
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
