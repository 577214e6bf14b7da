//! What is done to readings between the buffer and the batches: fewer of them, or better ones.
//!
//! A [`Chain`] runs each reading that the buffer hands out through the configured transforms, in their order. Each
//! looks at a borrowed [`ReadingRef`] and gives a [`Verdict`]; only what one changes is encoded anew. A transform sees
//! a reading as the ones before it left it.
//!
//! - One file per kind, and a row in [`KINDS`]. A kind reads its settings from a table ([`settings`]), and every fault
//!   in them is told with its key before anything starts.
//! - [`scope`] narrows a transform to devices and sensors.
//! - [`expression`] is what filters and maps are written in: CEL over the fields of a reading.
//! - `series` is what is known of each device, sensor and set of tags, for kinds that remember: bounded, the oldest
//!   first out.
//!
//! Everything here is a plain function of readings and time: no clock is read, nothing waits. What becomes of the
//! readings, and when what a window holds is settled, is left to `delivery/`.

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

pub use chain::{Chain, Closed, Fate, Fold};
use scope::Scope;
use settings::Settings;

/// Most transforms in a chain.
pub const TRANSFORMS_MAX: usize = 64;
/// Longest name of a transform, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The tag of the readings that aggregation makes; its value is the length of the window.
pub const WINDOW_TAG: &str = "window";

/// Reads the settings of a kind. Faults are noted there, and `None` is given if it cannot go on without what is at fault.
pub type Read = fn(&mut Settings) -> Option<Arc<dyn Kind>>;

/// The kinds of transforms by their configuration names.
pub const KINDS: Registry<Read> = Registry {
    what: "kind of transform",
    members: &[
        ("filter", filter::read),
        ("map", map::read),
        ("dedupe", dedupe::read),
        ("deadband", deadband::read),
        ("aggregate", aggregate::read),
    ],
};

/// A transform as it is configured: its settings are checked, and it can be made as often as it is needed.
pub trait Kind: fmt::Debug + Send + Sync {
    /// Makes one that has seen nothing yet.
    fn make(&self) -> Box<dyn Transform>;

    /// Why a reading does not go on as it is, in words for people: "its value moved by less than 0.2".
    fn why(&self) -> String;
}

/// A transform's place in the configuration.
#[derive(Clone, Debug)]
pub struct TransformConfig {
    /// Its name in metrics; no other has it.
    pub name: String,
    /// The readings that it looks at; others pass it by.
    pub scope: Scope,
    /// What it does.
    pub kind: Arc<dyn Kind>,
}

/// When something happens, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock that never jumps.
    pub instant: Instant,
    /// By the gateway's clock of the day, which readings' times can be compared with.
    pub wall: Timestamp,
}

/// What one transform makes of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// The reading that was appended to `out` goes on in its place.
    Change,
    /// It goes no further.
    Filter,
    /// It is part of a window's result from now on, and goes no further.
    Merge(WindowId),
    /// It is part of a window's result from now on, and goes on as well.
    MergeAndPass(WindowId),
}

/// An open window of a transform. The same number names another one once the window was handed out by
/// [`Transform::take_closed`], and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId(pub u32);

/// What a transform counts and holds, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Readings that passed unchanged because the transform could not be applied to them.
    pub failed: u64,
    /// Readings that were later than `lateness` and went into a window of their own.
    pub late: u64,
    /// Series or readings that were forgotten, or windows that were closed early, to make room for others.
    pub evicted: u64,
    /// Results of windows that lack a tag of their series, because the tag `window` took its place.
    pub tags_cut: u64,
    /// Series, or readings, that are remembered now.
    pub remembered: u64,
    /// Windows that are open now.
    pub open_windows: u64,
}

/// Windows that a transform closed.
#[derive(Debug, Default)]
pub struct ClosedWindows {
    /// What they resulted in.
    pub results: Readings,
    /// Which they were.
    pub windows: Vec<WindowId>,
}

/// A transform at work.
pub trait Transform: Send + fmt::Debug {
    /// Looks at a reading. If it is changed, the new one is appended to `out`, and nothing else ever is.
    fn apply(&mut self, reading: ReadingRef<'_>, now: Moment, out: &mut Readings) -> Verdict;

    /// Looks at a reading that had passed before a stop and may have been sent: it goes on, so that what is made of it
    /// depends on nothing but the reading and the settings. Gives [`Verdict::Pass`], [`Verdict::Change`] or
    /// [`Verdict::MergeAndPass`].
    fn apply_again(&mut self, _reading: ReadingRef<'_>, _now: Moment, _out: &mut Readings) -> Verdict {
        Verdict::Pass
    }

    /// When a window is to be closed although no reading comes; `None` if none is open.
    fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Closes windows that are due, but no more than so many at once.
    fn close_due(&mut self, _now: Instant, _most: usize) {}

    /// Closes the windows that were opened first, whether due or not, but no more than so many at once.
    fn close_oldest(&mut self, _most: usize) {}

    /// Whether readings that are merged go on as well.
    fn keeps_raw(&self) -> bool {
        false
    }

    /// Hands out what was closed since the last time.
    fn take_closed(&mut self) -> ClosedWindows {
        ClosedWindows::default()
    }

    /// What it counts and holds.
    fn stats(&self) -> Stats;
}
