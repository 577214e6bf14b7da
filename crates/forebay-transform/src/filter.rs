//! `filter`: readings for which an expression is true pass, the others go no further.
//!
//! A reading on which the expression fails (a tag is missing, a type does not fit) passes unchanged and is counted: in
//! doubt a reading is delivered.

use std::sync::Arc;

use forebay_reading::{ReadingRef, Readings};

use crate::expression::{Expression, ResultType};
use crate::settings::Settings;
use crate::{Moment, Stats, Transform, TransformKind, Verdict};

const KEEP: &str = "keep";

/// A configured filter.
#[derive(Debug)]
struct FilterKind {
    keep: Arc<Expression>,
}

/// The instance of a filter.
#[derive(Debug)]
struct FilterTransform {
    keep: Arc<Expression>,
    failed: u64,
}

/// Reads `keep`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    let Some(text) = settings.text(KEEP) else {
        settings.require(KEEP, "an expression that is true for what passes, such as 'value < 125.0'");
        return None;
    };
    match Expression::compile(&text, ResultType::Truth) {
        Ok(keep) => Some(Arc::new(FilterKind { keep: Arc::new(keep) })),
        Err(problem) => {
            settings.fault(KEEP, problem);
            None
        }
    }
}

impl TransformKind for FilterKind {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(FilterTransform { keep: Arc::clone(&self.keep), failed: 0 })
    }

    fn why(&self) -> String {
        format!("`keep` is false for it: {}", self.keep.text())
    }
}

impl Transform for FilterTransform {
    fn apply(&mut self, reading: ReadingRef<'_>, _now: Moment, _out: &mut Readings) -> Verdict {
        match self.keep.holds(reading) {
            Ok(true) => Verdict::Pass,
            Ok(false) => Verdict::Filter,
            Err(_) => {
                self.failed += 1;
                Verdict::Pass
            }
        }
    }

    fn stats(&self) -> Stats {
        Stats { failed: self.failed, ..Stats::default() }
    }
}

#[cfg(test)]
mod tests;
