//! The configured transforms, one after the other.

use forebay_reading::{ReadingRef, Readings};
use tokio::time::Instant;

use crate::scope::Scope;
use crate::{ClosedWindows, Moment, Stats, Transform, TransformConfig, Verdict, WindowId};

/// The configured transforms, in their order. They are named by their places in it.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<Step>,
    /// Where a reading is encoded anew on its way.
    changed: [Readings; 2],
}

#[derive(Debug)]
struct Step {
    name: String,
    scope: Scope,
    transform: Box<dyn Transform>,
    /// Readings in whose place another one went on.
    changes: u64,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Passed,
    /// The reading that was appended to `out` goes on in its place.
    Changed,
    /// This transform took it out.
    Filtered(usize),
    /// It is part of a window's result, and goes no further.
    Merged(Fold),
}

/// A reading is part of the result of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fold {
    /// The transform that has the window.
    pub transform: usize,
    /// The window.
    pub window: WindowId,
}

/// Windows that a transform closed.
#[derive(Debug)]
pub struct Closed {
    /// The transform.
    pub transform: usize,
    /// Which windows, and what they resulted in.
    pub windows: ClosedWindows,
}

/// Whether a reading comes for the first time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Again,
}

impl Chain {
    /// Makes the transforms; they have seen nothing yet.
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

    /// The place behind the transform of this name. A reading that one made which is not configured any more has been
    /// through all of them.
    pub fn behind(&self, name: &str) -> usize {
        self.steps.iter().position(|step| step.name == name).map_or(self.steps.len(), |place| place + 1)
    }

    /// Runs a reading through the transforms from the place `from` on. If it is changed, what goes on in its place is
    /// appended to `out`. The windows that it is part of beside going on are appended to `folds`.
    pub fn apply(
        &mut self,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> Fate {
        self.run(Turn::First, from, reading, now, out, folds)
    }

    /// The same for a reading that had passed all of them before a stop.
    pub fn apply_again(
        &mut self,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> Fate {
        self.run(Turn::Again, from, reading, now, out, folds)
    }

    fn run(
        &mut self,
        turn: Turn,
        from: usize,
        reading: ReadingRef<'_>,
        now: Moment,
        out: &mut Readings,
        folds: &mut Vec<Fold>,
    ) -> Fate {
        let Chain { steps, changed: [current, next] } = self;
        let mut is_changed = false;
        for (transform, step) in steps.iter_mut().enumerate().skip(from) {
            let seen = if is_changed { current.iter().next().unwrap_or(reading) } else { reading };
            if !step.scope.contains(seen) {
                continue;
            }
            next.truncate(Default::default());
            let verdict = match turn {
                Turn::First => step.transform.apply(seen, now, next),
                Turn::Again => step.transform.apply_again(seen, now, next),
            };
            match verdict {
                Verdict::Pass => {}
                Verdict::Change => {
                    std::mem::swap(current, next);
                    is_changed = true;
                    step.changes += 1;
                }
                Verdict::Filter => return Fate::Filtered(transform),
                Verdict::Merge(window) => return Fate::Merged(Fold { transform, window }),
                Verdict::MergeAndPass(window) => folds.push(Fold { transform, window }),
            }
        }
        if !is_changed {
            return Fate::Passed;
        }
        out.append(current);
        Fate::Changed
    }

    /// When a window is to be closed although no reading comes.
    pub fn next_due(&self) -> Option<Instant> {
        self.steps.iter().filter_map(|step| step.transform.next_due()).min()
    }

    /// Closes windows that are due, but no more than so many of each transform at once.
    pub fn close_due(&mut self, now: Instant, most: usize) {
        self.steps.iter_mut().for_each(|step| step.transform.close_due(now, most));
    }

    /// Closes the windows of each transform that were opened first, whether due or not, but no more than so many at
    /// once.
    pub fn close_oldest(&mut self, most: usize) {
        self.steps.iter_mut().for_each(|step| step.transform.close_oldest(most));
    }

    /// The same, for transforms whose readings go on as well as into windows.
    pub fn close_oldest_kept(&mut self, most: usize) {
        let keeping = self.steps.iter_mut().filter(|step| step.transform.keeps_raw());
        keeping.for_each(|step| step.transform.close_oldest(most));
    }

    /// Hands out what was closed since the last time, transform by transform.
    pub fn take_closed(&mut self) -> Vec<Closed> {
        let steps = self.steps.iter_mut().enumerate();
        let closed =
            steps.map(|(transform, step)| Closed { transform, windows: step.transform.take_closed() });
        closed.filter(|closed| !closed.windows.windows.is_empty()).collect()
    }

    /// How many readings each transform changed, in their order.
    pub fn changes(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|step| step.changes)
    }

    /// What the transforms count and hold, in their order.
    pub fn stats(&self) -> impl Iterator<Item = Stats> {
        self.steps.iter().map(|step| step.transform.stats())
    }
}
