//! Readings that are to be settled, without what they say, and what is given back with them.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use super::Amount;
use super::accounts::Accounts;
use super::ledger::Outcome;
use super::span::Span;
use super::tally::Tally;
use super::waiters::{Told, Waiters};

/// Some readings of one record, without what they say: all that is needed to settle them.
#[derive(Debug)]
pub struct Hold {
    tally: Arc<Tally>,
    /// Index of the first.
    from: u32,
    /// Index behind the last.
    to: u32,
}

impl Hold {
    /// Readings with these indexes.
    ///
    /// # Panics
    ///
    /// If the record has more than `u32::MAX` readings; the bounds on a request's body allow no such thing.
    pub(super) fn of(tally: Arc<Tally>, indexes: Range<usize>) -> Hold {
        let index = |index| u32::try_from(index).expect("a request has fewer readings");
        let (from, to) = (index(indexes.start), index(indexes.end));
        Hold { tally, from, to }
    }

    /// How many readings it has.
    pub fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The places of the readings in the log; `None` if there is none, or no log has their record.
    pub fn span(&self) -> Option<Span> {
        self.tally.span(self.from as usize..self.to as usize)
    }

    /// Adds readings that follow these in their record. Gives them back if they do not.
    ///
    /// # Errors
    ///
    /// The others, if they are of another record or do not follow.
    pub fn join(&mut self, next: Hold) -> Result<(), Hold> {
        if !Arc::ptr_eq(&self.tally, &next.tally) || self.to != next.from {
            return Err(next);
        }
        self.to = next.to;
        Ok(())
    }

    /// Notes that these readings cannot be given up, as [`super::Part::depart`] does.
    pub fn depart(&self) -> Amount {
        self.tally.depart(self.len())
    }

    /// Notes that they can be again.
    pub fn come_back(&self) -> Amount {
        self.tally.come_back(self.len())
    }
}

/// What is given back with readings that are settled.
#[derive(Debug, Default)]
struct Returned {
    /// The readings, and the bytes of the records of which they were the last.
    amount: Amount,
    /// Who is to be told once the books say so.
    told: Told,
}

/// Takes readings off their records.
fn give_back(holds: &[Hold], outcome: Outcome) -> Returned {
    let mut returned = Returned::default();
    for hold in holds {
        returned.amount.readings += hold.len() as u64;
        let Some(done) = hold.tally.settle(hold.len() as u64, outcome) else { continue };
        returned.amount.bytes += done.bytes;
        returned.told.extend(done.told);
    }
    returned
}

/// Whoever waits for some readings waits for those of another record, too, which are made of them.
pub fn share_waiters(holds: &[Hold]) -> Waiters {
    let mut sharers = Waiters::default();
    holds.iter().for_each(|hold| hold.tally.share_waiters(&mut sharers));
    sharers
}

/// Says that what a transform made of readings has taken their place, and takes so much room.
pub fn derive(holds: &[Hold], accounts: &Arc<Accounts>, transform: usize, made: Amount, now: Instant) {
    let Returned { amount, told } = give_back(holds, Outcome::Merged { transform });
    accounts.derive(transform, amount, made, now);
    told.tell();
}

/// Says what became of readings.
pub fn settle(holds: &[Hold], accounts: &Arc<Accounts>, outcome: Outcome, now: Instant) {
    let Returned { amount, told } = give_back(holds, outcome);
    accounts.settle(amount, outcome, now);
    // Told last: who hears that readings were delivered finds them in the ledger.
    told.tell();
}
