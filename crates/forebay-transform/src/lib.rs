//! Transforms: they reduce or change readings between the buffer and the batches.
//!
//! A [`Chain`] runs each reading that the buffer hands out through the configured transforms, in their order. Each
//! transform reads a borrowed [`ReadingRef`] and gives a [`Verdict`]; only a changed reading is encoded anew. A
//! transform sees a reading with the changes of those before it.
//!
//! - One file per kind, and a row in [`KINDS`]. A kind reads its settings from a table ([`settings`]), and every fault
//!   in them is reported with its key before anything starts.
//! - [`scope`] narrows a transform to devices and sensors.
//! - [`expression`] is the language of filters and maps: CEL over the fields of a reading.
//! - `series` holds a state for each device, sensor and set of tags, for kinds that remember: bounded, the oldest is
//!   evicted first.
//!
//! Everything here is a plain function of readings and time: no clock is read, nothing waits. `delivery/` settles
//! the readings, also those of windows.

pub mod aggregate;
mod chain;
mod deadband;
mod dedupe;
pub mod expression;
mod filter;
mod map;
pub mod scope;
mod series;
pub mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use forebay_reading::registry::Registry;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingRef, Readings};
use tokio::time::Instant;

pub use chain::{Chain, ChainOutcome, Fold, StepWindows};
use scope::Scope;
use settings::Settings;

/// Most transforms in a chain.
pub const TRANSFORMS_MAX: usize = 64;
/// Longest name of a transform, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The tag of readings that `aggregate` makes; its value is the length of the window.
pub const WINDOW_TAG: &str = "window";

/// Reads the settings of a kind. Faults are recorded in the settings; `None` if a setting that the kind needs is at
/// fault.
pub type KindReader = fn(&mut Settings) -> Option<Arc<dyn TransformKind>>;

/// The kinds of transforms by their configuration names.
pub const KINDS: Registry<KindReader> = Registry {
    what: "kind of transform",
    members: &[
        ("filter", filter::read),
        ("map", map::read),
        ("dedupe", dedupe::read),
        ("deadband", deadband::read),
        ("aggregate", aggregate::read),
    ],
};

/// A configured transform with checked settings, of which instances can be made.
pub trait TransformKind: fmt::Debug + Send + Sync {
    /// Makes an instance that has seen no reading yet.
    fn make(&self) -> Box<dyn Transform>;

    /// The reason why a reading does not go on unchanged, in words for people: "its value moved by less than 0.2".
    fn why(&self) -> String;
}

/// A transform with its name and scope, as configured.
#[derive(Clone, Debug)]
pub struct TransformConfig {
    /// Its unique name, for metrics.
    pub name: String,
    /// The readings that it applies to; the others pass unchanged.
    pub scope: Scope,
    /// Its kind, with settings.
    pub kind: Arc<dyn TransformKind>,
}

/// An instant by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock that never jumps.
    pub instant: Instant,
    /// By the gateway's wall clock, for comparison with the times of readings.
    pub wall: Timestamp,
}

/// A transform's decision on a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on unchanged.
    Pass,
    /// The reading that was appended to `out` goes on in its place.
    Change,
    /// It goes no further.
    Filter,
    /// It becomes part of a window's result, and goes no further.
    Merge(WindowId),
    /// It becomes part of a window's result, and also goes on.
    MergeAndPass(WindowId),
}

/// The number of an open window of a transform. It is used for another window only after
/// [`Transform::take_closed`] has handed this one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId(pub u32);

/// Counts of a transform since it was made, and sizes of its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Readings that passed unchanged because the transform failed on them.
    pub failed: u64,
    /// Readings that were later than `lateness` and went into a late window.
    pub late: u64,
    /// Series or readings that were evicted, or windows that were closed early, to make room for others.
    pub evicted: u64,
    /// Results of windows that lack a tag of their series, because the tag `window` took its place.
    pub tags_cut: u64,
    /// Series or readings that are in memory now.
    pub remembered: u64,
    /// Windows that are open now.
    pub open_windows: u64,
}

/// Windows that a transform closed.
#[derive(Debug, Default)]
pub struct ClosedWindows {
    /// Their results.
    pub results: Readings,
    /// Their numbers.
    pub windows: Vec<WindowId>,
}

/// An instance of a transform, with its state.
pub trait Transform: Send + fmt::Debug {
    /// Applies the transform to a reading. A changed reading is appended to `out`, and nothing else ever is.
    fn apply(&mut self, reading: ReadingRef<'_>, now: Moment, out: &mut Readings) -> Verdict;

    /// Applies the transform to a reading that passed before a stop and may have been sent. It goes on, with changes
    /// that depend on nothing but the reading and the settings. Gives [`Verdict::Pass`], [`Verdict::Change`] or
    /// [`Verdict::MergeAndPass`].
    fn apply_again(&mut self, _reading: ReadingRef<'_>, _now: Moment, _out: &mut Readings) -> Verdict {
        Verdict::Pass
    }

    /// The instant at which the next window is due to be closed by the clock; `None` if no window is open.
    fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Closes windows that are due, at most `most`.
    fn close_due(&mut self, _now: Instant, _most: usize) {}

    /// Closes the windows that are due first, at most `most`, although they may not be due yet.
    fn close_oldest(&mut self, _most: usize) {}

    /// Whether readings that are merged also go on.
    fn keeps_raw(&self) -> bool {
        false
    }

    /// Hands out the windows that were closed since the last call.
    fn take_closed(&mut self) -> ClosedWindows {
        ClosedWindows::default()
    }

    /// Its counts and sizes.
    fn stats(&self) -> Stats;
}
