//! The chain: readings go through the configured transforms, one after another.

use forebay_reading::{ReadingRef, Readings};
use tokio::time::Instant;

use crate::scope::Scope;
use crate::{ClosedWindows, Moment, Stats, Transform, TransformConfig, Verdict, WindowId};

/// The configured transforms, in their order. A transform is named by its place in it, from 0.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<Step>,
    /// Two buffers for changed readings: one holds the current reading, the other the next change.
    changed: [Readings; 2],
}

#[derive(Debug)]
struct Step {
    name: String,
    scope: Scope,
    transform: Box<dyn Transform>,
    /// Readings that it changed.
    changes: u64,
}

/// The outcome of a reading's way through the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainOutcome {
    /// It goes on unchanged.
    Passed,
    /// The reading that was appended to `out` goes on in its place.
    Changed,
    /// This transform filtered it.
    Filtered(usize),
    /// It is part of a window's result, and goes no further.
    Merged(Fold),
}

/// The window that a reading was merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fold {
    /// The transform that has the window.
    pub transform: usize,
    /// The window.
    pub window: WindowId,
}

/// Windows that a transform closed.
#[derive(Debug)]
pub struct StepWindows {
    /// The transform.
    pub transform: usize,
    /// The windows and their results.
    pub windows: ClosedWindows,
}

/// Whether a reading goes through the chain for the first time, or again after a stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encounter {
    First,
    Again,
}

impl Chain {
    /// Makes the transforms; they have seen no reading yet.
    pub fn new(configs: &[TransformConfig]) -> Chain {
        let step = |config: &TransformConfig| Step {
            name: config.name.clone(),
            scope: config.scope.clone(),
            transform: config.kind.make(),
            changes: 0,
        };
        Chain { steps: configs.iter().map(step).collect(), changed: Default::default() }
    }

    /// Whether there is no transform.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The name of a transform.
    pub fn name(&self, transform: usize) -> &str {
        &self.steps[transform].name
    }

    /// The place behind the transform of this name. The readings of a transform that is not configured any more skip the
    /// whole chain.
    pub fn behind(&self, name: &str) -> usize {
        self.steps.iter().position(|step| step.name == name).map_or(self.steps.len(), |place| place + 1)
    }

    /// Runs a reading through the transforms from the place `from` on. If it is changed, the new reading is appended to
    /// `out`. Windows that it was merged into although it went on are appended to `folds`.
    pub fn apply(
        &mut self,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> ChainOutcome {
        self.run(Encounter::First, from, reading, now, out, folds)
    }

    /// Like [`Chain::apply`], for a reading that passed the chain before a stop and may have been sent.
    pub fn apply_again(
        &mut self,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> ChainOutcome {
        self.run(Encounter::Again, from, reading, now, out, folds)
    }

    fn run(
        &mut self,
        encounter: Encounter,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> ChainOutcome {
        let Chain { steps, changed: [current, next] } = self;
        let mut is_changed = false;
        for (transform, step) in steps.iter_mut().enumerate().skip(from) {
            let seen = if is_changed { current.iter().next().unwrap_or(reading) } else { reading };
            if !step.scope.contains(seen) {
                continue;
            }
            next.truncate(Default::default());
            let verdict = match encounter {
                Encounter::First => step.transform.apply(seen, now, next),
                Encounter::Again => step.transform.apply_again(seen, now, next),
            };
            match verdict {
                Verdict::Pass => {}
                Verdict::Change => {
                    std::mem::swap(current, next);
                    is_changed = true;
                    step.changes += 1;
                }
                Verdict::Filter => return ChainOutcome::Filtered(transform),
                Verdict::Merge(window) => return ChainOutcome::Merged(Fold { transform, window }),
                Verdict::MergeAndPass(window) => folds.push(Fold { transform, window }),
            }
        }
        if !is_changed {
            return ChainOutcome::Passed;
        }
        out.append(current);
        ChainOutcome::Changed
    }

    /// The instant at which the next window is due to be closed by the clock.
    pub fn next_due(&self) -> Option<Instant> {
        self.steps.iter().filter_map(|step| step.transform.next_due()).min()
    }

    /// Closes windows that are due, at most `most` of each transform.
    pub fn close_due(&mut self, now: Instant, most: usize) {
        self.steps.iter_mut().for_each(|step| step.transform.close_due(now, most));
    }

    /// Closes the windows of each transform that are due first, at most `most`, although they may not be due yet.
    pub fn close_oldest(&mut self, most: usize) {
        self.steps.iter_mut().for_each(|step| step.transform.close_oldest(most));
    }

    /// Like [`Chain::close_oldest`], only for transforms whose merged readings also go on.
    pub fn close_oldest_kept(&mut self, most: usize) {
        let keeping = self.steps.iter_mut().filter(|step| step.transform.keeps_raw());
        keeping.for_each(|step| step.transform.close_oldest(most));
    }

    /// Hands out the windows that were closed since the last call, by transform.
    pub fn take_closed(&mut self) -> Vec<StepWindows> {
        let steps = self.steps.iter_mut().enumerate();
        let closed =
            steps.map(|(transform, step)| StepWindows { transform, windows: step.transform.take_closed() });
        closed.filter(|closed| !closed.windows.windows.is_empty()).collect()
    }

    /// Readings that each transform changed, in the order of the chain.
    pub fn changes(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|step| step.changes)
    }

    /// Counts and sizes of the transforms, in their order.
    pub fn stats(&self) -> impl Iterator<Item = Stats> {
        self.steps.iter().map(|step| step.transform.stats())
    }
}
