//! Giving up the oldest readings for newer ones (`on_full = "drop_oldest"`).

use std::collections::VecDeque;

use tokio::time::Instant;
use tracing::debug;

use super::{Pending, Worker};
use crate::buffer::ledger::{DropReason, Outcome};
use crate::buffer::{Amount, Fate, NoteId, Part};
use crate::delivery::batch::{Batch, BatchId};

impl Worker {
    /// Gives up the oldest readings that are not on their way, until the first request that waits finds room.
    pub(super) fn evict(&mut self) {
        let mut helped = true;
        while helped {
            let missing = self.missing();
            helped = missing != Amount::default()
                && (self.evict_from_batches(missing)
                    || self.evict_from_open(missing)
                    || self.evict_from_queue(missing));
        }
    }

    /// What is to be dropped so that the first request that waits finds room; nothing if all that can be dropped
    /// is not enough, for then it would be dropped in vain.
    fn missing(&self) -> Amount {
        let missing = self.accounts.shortfall();
        if missing == Amount::default() {
            return missing;
        }
        let held = self.accounts.snapshot();
        let droppable =
            Amount { readings: held.ledger.buffered, bytes: held.held_bytes }.saturating_sub(self.in_flight);
        if missing.fits(droppable) { missing } else { Amount::default() }
    }

    /// Drops from the oldest batch that waits, to be noted or to be sent. Returns whether there was one.
    fn evict_from_batches(&mut self, missing: Amount) -> bool {
        // A batch in pieces is nearly settled.
        let helps = |(_, pending): &(&BatchId, &Pending)| {
            let is_whole = pending.is_idle() && pending.rest.is_empty();
            is_whole && pending.batch.parts.iter().any(|part| helps(part, missing))
        };
        let Some(number) = self.batches.iter().find(helps).map(|(number, _)| *number) else { return false };
        let Some(Pending { batch, note, state, lane, class, .. }) = self.take(number) else { return false };
        let mut parts = VecDeque::from(batch.parts);
        if batch.may_be_stored {
            // The rest under another key could be stored twice.
            self.drop_parts(parts.into(), note);
            return true;
        }
        self.drop_from_front(&mut parts, note);
        if !parts.is_empty() {
            let rest = self.lanes.rebatch(number, parts.into());
            let batch = Batch { failures: batch.failures, tried: batch.tried, ..rest };
            // What is left is another batch, and is noted as such.
            self.keep(lane, class, batch, state.due().unwrap_or_else(Instant::now));
        }
        true
    }

    fn evict_from_open(&mut self, missing: Amount) -> bool {
        let mut parts = VecDeque::from(self.lanes.take_all());
        let any = parts.iter().any(|part| helps(part, missing));
        if any {
            self.drop_from_front(&mut parts, None);
        }
        // They go in again ahead of what was pulled after them.
        parts.extend(self.pulled.drain(..));
        self.pulled = parts;
        any
    }

    fn evict_from_queue(&mut self, missing: Amount) -> bool {
        if !self.pulled.iter().chain(&self.made).chain(&self.untransformed).any(|part| helps(part, missing)) {
            let Some(part) = self.outlet.try_pull() else { return false };
            self.fresh.push(part);
            self.take_fresh();
        }
        let mut parts = std::mem::take(&mut self.pulled);
        self.drop_from_front(&mut parts, None);
        self.pulled = parts;
        let mut parts = std::mem::take(&mut self.untransformed);
        self.drop_from_front(&mut parts, None);
        self.untransformed = parts;
        let mut parts = std::mem::take(&mut self.made);
        self.drop_from_front(&mut parts, None);
        self.made = parts;
        true
    }

    /// Drops readings from the front until there is room or nothing is left that helps. `note` is that of their batch.
    fn drop_from_front(&mut self, parts: &mut VecDeque<Part>, note: Option<NoteId>) {
        loop {
            let missing = self.missing();
            if missing == Amount::default() {
                return;
            }
            let Some(oldest) = parts.iter().position(|part| helps(part, missing)) else { return };
            let part = &mut parts[oldest];
            // Bytes come back only with a whole record.
            let whole = missing.bytes > 0 || missing.readings >= part.len() as u64;
            let dropped =
                if whole { parts.remove(oldest) } else { Some(part.split_first(usize_of(missing.readings))) };
            self.drop_parts(dropped.into_iter().collect(), note);
        }
    }

    fn drop_parts(&mut self, parts: Vec<Part>, note: Option<NoteId>) {
        debug!(
            readings = parts.iter().map(Part::len).sum::<usize>(),
            "oldest readings dropped for newer ones"
        );
        // A window that some of them are in as well has them nevertheless.
        let fate = Fate::of(parts, Outcome::Dropped(DropReason::Full));
        self.outlet.settle(vec![fate], note, Instant::now());
    }
}

/// Whether dropping this part, with the rest of its record, gives back some of what is missing.
fn helps(part: &Part, missing: Amount) -> bool {
    missing.bytes == 0 || !part.is_record_in_flight()
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
