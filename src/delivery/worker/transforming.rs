//! From the buffer through the transforms, and what their windows make back into the buffer.
//!
//! Readings that a window holds are not settled before what it makes of them is in the buffer in their place; that is
//! handed out like any other reading, and goes on behind the transform that made it. Readings that go on although a
//! window has them are settled when both is done: they are delivered, and the window's result is in the buffer.

use std::sync::Arc;
use std::time::Duration;

use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use forebay_transform::Moment;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Worker;
use crate::buffer::lease::OpenWindows;
use crate::buffer::{Amount, Derivation, Deriving, Fate, Hold, Kept, NoteId, Part};
use crate::delivery::transforms::{Removal, TransformOutput, WindowResults};

/// Readings that are transformed in one turn of the loop, so that it does not hold its thread for long.
const TRANSFORM_MAX: usize = 1000;
/// Readings that are transformed before it is looked whether their windows have made much.
const PIECE_MAX: usize = 64;
/// Most results, put together, that are on their way into the buffer at once.
const DERIVING_MAX: usize = 2;
/// Pause before results are tried again that could not be put into the buffer.
const DERIVE_PAUSE: Duration = Duration::from_secs(1);
/// Shortest time between two updates of what others may know.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Delivered readings that a window still needs.
#[derive(Debug)]
pub(super) struct Needed {
    fates: Vec<Fate>,
    note: Option<NoteId>,
    windows: Vec<Arc<OpenWindows>>,
}

/// Results that could not be put into the buffer.
#[derive(Debug)]
pub(super) struct ToDerive {
    batch: WindowResults,
    due: Instant,
}

impl Worker {
    /// Runs what was pulled through the transforms. Returns whether there is more to be done at once.
    pub(super) fn transform(&mut self, now: Instant) -> bool {
        if self.transforms.is_empty() {
            return false;
        }
        let moment = moment(now);
        let mut transformed = TransformOutput::default();
        let mut left = if self.must_wait_for_room() { 0 } else { TRANSFORM_MAX };
        let is_waiting = left == 0;
        while left > 0 && !self.transforms.has_much() {
            let from = if self.made.is_empty() { &mut self.untransformed } else { &mut self.made };
            let Some(part) = from.front_mut() else { break };
            let front = part.split_first(left.min(PIECE_MAX));
            if part.is_empty() {
                from.pop_front();
            }
            left -= front.len();
            self.is_untold = true;
            self.transforms.apply(front, moment, &mut transformed);
        }
        self.take_transformed(transformed, now);
        self.transforms.close_due(now);
        self.make_room_in_windows(now);
        self.close_at_the_end(now);
        let all = self.draining;
        for batch in self.transforms.take_results(all, now) {
            self.derive(batch, now);
        }
        self.derive_again(now);
        self.tell_of_transforms(now);
        let has_more = !is_waiting && !self.is_transformed();
        has_more || self.transforms.next_due().is_some_and(|due| due <= now)
    }

    /// Whether no more is to be transformed now: results cannot be put into the buffer, or they have filled it and what
    /// is in it is on its way out. What one reading makes may be more than itself.
    fn must_wait_for_room(&self) -> bool {
        if !self.to_derive.is_empty() || self.deriving.len() >= DERIVING_MAX {
            return true;
        }
        // A batch of the last run waits until what lies before it has been through here, so nothing else would move.
        if self.has_resumed_waiting() {
            return false;
        }
        let is_moving = !self.pulled.is_empty() || !self.batches.is_empty() || !self.deriving.is_empty();
        is_moving && self.is_overfull()
    }

    /// Whether the buffer has more than it may have, because of what windows made.
    pub(super) fn is_overfull(&self) -> bool {
        let (used, limit) = self.accounts.usage();
        !used.fits(limit)
    }

    fn take_transformed(&mut self, transformed: TransformOutput, now: Instant) {
        let TransformOutput { passed, removed, departed } = transformed;
        self.in_flight += departed;
        self.pulled.extend(passed);
        let mut fates: Vec<Fate> = Vec::new();
        for Removal { hold, outcome, windows } in removed {
            if let Some(windows) = windows.filter(|windows| windows.are_open()) {
                let fate = Fate { holds: vec![hold], outcome };
                self.settle_or_keep(vec![fate], None, vec![windows], now);
                continue;
            }
            match fates.iter_mut().find(|fate| fate.outcome == outcome) {
                Some(fate) => fate.holds.push(hold),
                None => fates.push(Fate { holds: vec![hold], outcome }),
            }
        }
        if !fates.is_empty() {
            self.outlet.settle(fates, None, now);
        }
    }

    /// Closes windows before their time when they are what fills the buffer: there would be no room for what closes
    /// them.
    fn make_room_in_windows(&mut self, now: Instant) {
        let held = self.transforms.held() + self.needed_readings;
        if held == 0 || !self.deriving.is_empty() {
            return;
        }
        let (used, limit) = self.accounts.usage();
        let is_nearly_full = used.readings > limit.readings / 4 * 3 || used.bytes > limit.bytes / 4 * 3;
        // A few readings in windows may keep much on disk that is not needed otherwise.
        if (is_nearly_full && held > used.readings / 2) || self.outlet.is_nearly_full() {
            self.transforms.close_early(now);
            if self.told_of_full_windows.is_none_or(|at| now >= at + super::WINDOWS_TELL_EVERY) {
                self.told_of_full_windows = Some(now);
                warn!(held, "windows are closed before their time: what they hold fills the buffer");
            }
        }
    }

    /// Closes what is open once nothing more will come. Where the buffer outlives the process, windows go on after the
    /// next start; but what is delivered already must not be sent again then.
    fn close_at_the_end(&mut self, now: Instant) {
        if !(self.draining && self.exhausted && self.is_transformed()) {
            return;
        }
        match self.outlet.outlives_process() {
            false => self.transforms.close_for_good(now),
            // What was not delivered goes into its window again after the start.
            true if self.has_only_stragglers() => self.transforms.close_kept_for_good(now),
            true => {}
        }
    }

    fn derive(&mut self, batch: WindowResults, now: Instant) {
        let WindowResults { derivation, kept } = batch;
        derivation.merged.iter().for_each(|hold| self.in_flight -= hold.come_back());
        self.is_untold = true;
        let (readings, merged) = (derivation.readings.len(), derivation.merged.len());
        debug!(transform = %derivation.made_by, readings, merged, "windows closed");
        match self.outlet.derive(derivation, now) {
            Deriving::Done => self.on_derived(&kept, now),
            Deriving::UnderWay => self.deriving.push_back(kept),
        }
    }

    fn derive_again(&mut self, now: Instant) {
        let (due, later) =
            std::mem::take(&mut self.to_derive).into_iter().partition(|again| again.due <= now);
        self.to_derive = later;
        for ToDerive { batch, .. } in due {
            self.derive(batch, now);
        }
    }

    /// What the buffer has kept, or not.
    pub(super) fn on_kept(&mut self, kept: Option<Kept>, now: Instant) {
        match kept {
            Some(Kept::Note(noted)) => self.on_noted(noted),
            Some(Kept::Derivation) => {
                let kept = self.deriving.pop_front().unwrap_or_default();
                self.on_derived(&kept, now);
            }
            Some(Kept::NotNow(derivation)) => self.on_not_derived(derivation, now),
            None => self.on_nothing_kept(now),
        }
    }

    /// What windows made is in the buffer: it is handed out, and what they no longer need is settled.
    fn on_derived(&mut self, kept: &[Arc<OpenWindows>], now: Instant) {
        // Also if nothing more was to come.
        self.exhausted = false;
        kept.iter().for_each(|windows| windows.close());
        if kept.is_empty() {
            return;
        }
        let is_needed = |needed: &Needed| needed.windows.iter().any(|windows| windows.are_open());
        let (later, free) = std::mem::take(&mut self.needed).into_iter().partition(is_needed);
        self.needed = later;
        for Needed { fates, note, .. } in free {
            for hold in fates.iter().flat_map(|fate| &fate.holds) {
                self.in_flight -= hold.come_back();
                self.needed_readings -= hold.len() as u64;
            }
            self.outlet.settle(fates, note, now);
        }
    }

    fn on_not_derived(&mut self, derivation: Derivation, now: Instant) {
        let kept = self.deriving.pop_front().unwrap_or_default();
        derivation.merged.iter().for_each(|hold| self.in_flight += hold.depart());
        self.to_derive.push(ToDerive { batch: WindowResults { derivation, kept }, due: now + DERIVE_PAUSE });
    }

    /// The buffer keeps nothing any more. What is not settled stays in it for the next start.
    fn on_nothing_kept(&mut self, now: Instant) {
        self.keeps_nothing = true;
        self.to_derive.clear();
        for kept in std::mem::take(&mut self.deriving) {
            self.on_derived(&kept, now);
        }
        for pending in self.batches.values_mut() {
            pending.give_up_notes();
        }
    }

    /// Settles readings, now or when the windows that they are in do not need them any more.
    pub(super) fn settle_or_keep(
        &mut self,
        fates: Vec<Fate>,
        note: Option<NoteId>,
        windows: Vec<Arc<OpenWindows>>,
        now: Instant,
    ) {
        if windows.is_empty() {
            return self.outlet.settle(fates, note, now);
        }
        let holds = fates.iter().flat_map(|fate| &fate.holds);
        let departed = holds.map(Hold::depart).fold(Amount::default(), |sum, amount| sum + amount);
        self.in_flight += departed;
        self.needed_readings += departed.readings;
        self.needed.push(Needed { fates, note, windows });
    }

    /// Runs the readings of a batch through the transforms again that may have been sent before a stop.
    pub(super) fn transform_again(&mut self, parts: Vec<Part>, now: Instant) -> Vec<Part> {
        if self.transforms.is_empty() {
            return parts;
        }
        let moment = moment(now);
        let mut transformed = TransformOutput::default();
        parts.into_iter().for_each(|part| self.transforms.apply_again(part, moment, &mut transformed));
        transformed.passed
    }

    /// Whether nothing is to be done for the transforms before the end.
    pub(super) fn is_done_transforming(&self) -> bool {
        let has_windows = match self.outlet.outlives_process() {
            false => self.transforms.has_windows(),
            true => self.transforms.has_kept_windows(),
        };
        let is_deriving = !self.deriving.is_empty() || !self.to_derive.is_empty();
        let is_idle = self.is_transformed() && self.needed.is_empty() && !has_windows;
        is_idle && !is_deriving && !self.transforms.has_results()
    }

    /// When something is to be done for the transforms although nothing happens.
    pub(super) fn transform_alarm(&self) -> Option<Instant> {
        let again = self.to_derive.iter().map(|again| again.due);
        let tell = self.is_untold.then_some(self.tell_at);
        again.chain(self.transforms.next_due()).chain(tell).min()
    }

    fn tell_of_transforms(&mut self, now: Instant) {
        if self.is_untold && self.tell_at <= now {
            (self.is_untold, self.tell_at) = (false, now + TELL_EVERY);
            self.nodes.status().set_transforms(self.transforms.status());
        }
    }
}

/// This moment, by both clocks.
fn moment(now: Instant) -> Moment {
    Moment { instant: now, wall: Timestamp::from_system(wall_time()) }
}

/// The open windows that need some of these readings.
pub(super) fn open_windows(parts: &[Part]) -> Vec<Arc<OpenWindows>> {
    let mut windows: Vec<Arc<OpenWindows>> = Vec::new();
    for open in parts.iter().filter_map(Part::open_windows) {
        if !windows.last().is_some_and(|last| Arc::ptr_eq(last, open)) {
            windows.push(Arc::clone(open));
        }
    }
    windows
}
