//! `filter`: readings for which an expression is true pass, others go no further.
//!
//! One on which the expression fails (a tag is missing, a type does not fit) passes as it is and is counted: what is in
//! doubt is kept.

use std::sync::Arc;

use forebay_reading::{ReadingRef, Readings};

use crate::expression::{Expression, Wanted};
use crate::settings::Settings;
use crate::{Kind, Moment, Stats, Transform, Verdict};

const KEEP: &str = "keep";

/// The filter of a configuration.
#[derive(Debug)]
struct Filter {
    keep: Arc<Expression>,
}

/// A filter at work.
#[derive(Debug)]
struct Filtering {
    keep: Arc<Expression>,
    failed: u64,
}

/// Reads `keep`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn Kind>> {
    let Some(text) = settings.text(KEEP) else {
        settings.require(KEEP, "an expression that is true for what passes, such as 'value < 125.0'");
        return None;
    };
    match Expression::compile(&text, Wanted::Truth) {
        Ok(keep) => Some(Arc::new(Filter { keep: Arc::new(keep) })),
        Err(problem) => {
            settings.fault(KEEP, problem);
            None
        }
    }
}

impl Kind for Filter {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(Filtering { keep: Arc::clone(&self.keep), failed: 0 })
    }

    fn why(&self) -> String {
        format!("`keep` is false for it: {}", self.keep.text())
    }
}

impl Transform for Filtering {
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
