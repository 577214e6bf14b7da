//! The room in the buffer and the ledger, behind one lock, because they change together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::drain_rate::DrainRate;
use super::ledger::{Ledger, Outcome};
use super::{Amount, OnFull, PushError};
use crate::node_id::NodeIndex;

/// What a kind of buffer may hold, in its own way of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most that may be held, in flight included.
    pub limit: Amount,
    /// The least that any record takes: with less room than this the buffer is full.
    pub least: Amount,
}

/// What the buffer may hold, what it holds, and what became of the rest.
#[derive(Debug)]
pub struct Accounts {
    bounds: Bounds,
    /// Guards all that changes when readings come or go. Held for a few additions, never across an await.
    books: Mutex<Books>,
    /// Wakes the delivery loop when the oldest readings must make room.
    eviction: Notify,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger,
    /// Bytes of the records of buffered readings.
    held_bytes: u64,
    /// Room that is promised to requests and not yet filled.
    reserved: Amount,
    /// Requests that wait for room, the oldest first.
    waiting: VecDeque<Waiting>,
    drain_rate: DrainRate,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    need: Amount,
    on_full: OnFull,
    granted: oneshot::Sender<Reservation>,
}

/// One consistent view.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The accounts.
    pub ledger: Ledger,
    /// Bytes held for buffered readings.
    pub held_bytes: u64,
    /// What may be held.
    pub limit: Amount,
    /// Whether not even the least record would find room.
    pub full: bool,
}

/// Room in the buffer that one request may fill. Dropped unfilled, it is given back.
#[derive(Debug)]
pub struct Reservation {
    accounts: Arc<Accounts>,
    amount: Amount,
    /// Counts the readings beside the ledger.
    counter: Option<IntCounter>,
}

impl Reservation {
    fn new(accounts: &Arc<Accounts>, amount: Amount) -> Reservation {
        Reservation { accounts: Arc::clone(accounts), amount, counter: None }
    }

    /// The same room, whose readings `counter` counts at the moment when the ledger does.
    #[must_use]
    pub fn counted_by(mut self, counter: Option<IntCounter>) -> Reservation {
        self.counter = counter;
        self
    }

    /// Counts the readings as accepted. The room is given back when they are settled.
    pub fn accept(mut self, format: usize) {
        let amount = std::mem::take(&mut self.amount);
        let mut books = self.accounts.lock();
        self.counter.iter().for_each(|counter| counter.inc_by(amount.readings));
        books.reserved -= amount;
        books.held_bytes += amount.bytes;
        books.ledger.accept(format, amount.readings);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount != Amount::default() {
            let grants = {
                let mut books = self.accounts.lock();
                books.reserved -= self.amount;
                books.grants(&self.accounts)
            };
            send(grants);
        }
    }
}

/// A turn in the queue for room. Whoever leaves it, also a client that hung up, lets those behind go on.
#[derive(Debug)]
struct Turn {
    accounts: Arc<Accounts>,
    granted: oneshot::Receiver<Reservation>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.granted.close();
        let grants = self.accounts.lock().grants(&self.accounts);
        send(grants);
    }
}

impl Accounts {
    /// Opens the books for a number of nodes.
    pub fn new(bounds: Bounds, nodes: usize, now: Instant) -> Arc<Accounts> {
        Arc::new(Accounts {
            bounds,
            books: Mutex::new(Books {
                ledger: Ledger::new(nodes),
                held_bytes: 0,
                reserved: Amount::default(),
                waiting: VecDeque::new(),
                drain_rate: DrainRate::new(now),
                closed: false,
            }),
            eviction: Notify::new(),
        })
    }

    /// Counts readings that were found at the start. They are held whatever the limit is: beyond it the buffer is full
    /// until enough of them are settled.
    pub fn recover(&self, amount: Amount) {
        let mut books = self.lock();
        books.held_bytes += amount.bytes;
        books.ledger.recover(amount.readings);
    }

    /// Finds room for `need`, as the policy says.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] for what never fits, [`PushError::Full`] for what does not fit now, or not within
    /// the wait that the policy allows, [`PushError::Closed`] once the buffer takes no more.
    ///
    /// Dropped half-way, it leaves nothing behind.
    pub async fn reserve(self: &Arc<Self>, need: Amount, on_full: OnFull) -> Result<Reservation, PushError> {
        let (mut turn, wait) = {
            let mut books = self.lock();
            if books.closed {
                return Err(PushError::Closed);
            }
            if !need.fits(self.bounds.limit) {
                return Err(PushError::TooLarge { need, limit: self.bounds.limit });
            }
            books.forget_who_left();
            // Behind others that wait, even what would fit waits: a large request is not starved by small ones.
            if books.waiting.is_empty() && books.has_room(need, self.bounds.limit) {
                books.reserved += need;
                return Ok(Reservation::new(self, need));
            }
            let wait = match on_full {
                OnFull::Reject => return Err(books.full(need, self.bounds.limit)),
                OnFull::Wait { up_to } | OnFull::DropOldest { up_to } => up_to,
            };
            let (sender, granted) = oneshot::channel();
            books.waiting.push_back(Waiting { need, on_full, granted: sender });
            (Turn { accounts: Arc::clone(self), granted }, wait)
        };
        if matches!(on_full, OnFull::DropOldest { .. }) {
            self.eviction.notify_one();
        }
        match tokio::time::timeout(wait, &mut turn.granted).await {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(_closed)) => Err(PushError::Closed),
            Err(_elapsed) => {
                turn.granted.close();
                // What was granted at the last moment is kept.
                turn.granted.try_recv().map_err(|_| self.lock().full(need, self.bounds.limit))
            }
        }
    }

    /// Moves readings to the account of their outcome and gives their room to those who wait.
    pub fn settle(self: &Arc<Self>, amount: Amount, outcome: Outcome, now: Instant) {
        let grants = {
            let mut books = self.lock();
            books.ledger.settle(outcome, amount.readings);
            books.held_bytes -= amount.bytes;
            books.drain_rate.record(now, amount);
            books.grants(self)
        };
        send(grants);
    }

    /// Moves readings that a transform made something of to its account, and takes that in in their place, all at once.
    /// What is made needs no room that was asked for: it comes in the place of what goes.
    pub fn derive(self: &Arc<Self>, transform: usize, merged: Amount, derived: Amount, now: Instant) {
        let grants = {
            let mut books = self.lock();
            books.ledger.derive(transform, derived.readings);
            books.held_bytes += derived.bytes;
            books.ledger.settle(Outcome::Merged { transform }, merged.readings);
            books.held_bytes -= merged.bytes;
            books.drain_rate.record(now, merged.saturating_sub(derived));
            books.grants(self)
        };
        send(grants);
    }

    /// Opens an account for one more node.
    pub fn add_node(&self) {
        self.lock().ledger.add_node();
    }

    /// Closes the account of a node that has gone; another node gets its index.
    pub fn close_node(&self, node: NodeIndex) {
        self.lock().ledger.close_node(node);
    }

    /// Takes no more readings; whoever waits for room is told so.
    pub fn close(&self) {
        let waiting = {
            let mut books = self.lock();
            books.closed = true;
            std::mem::take(&mut books.waiting)
        };
        drop(waiting);
    }

    /// Returns when somebody waits for the oldest readings to make room.
    pub async fn eviction_wanted(&self) {
        self.eviction.notified().await;
    }

    /// How many of the oldest readings must be given up so that the first request that waits finds room; none if
    /// nobody waits, or for no such thing.
    pub fn shortfall(&self) -> Amount {
        let mut books = self.lock();
        books.forget_who_left();
        let first = books.waiting.front().filter(|first| matches!(first.on_full, OnFull::DropOldest { .. }));
        first.map_or(Amount::default(), |first| books.shortfall(first.need, self.bounds.limit))
    }

    /// One consistent view.
    pub fn snapshot(&self) -> Snapshot {
        let books = self.lock();
        Snapshot {
            ledger: books.ledger.clone(),
            held_bytes: books.held_bytes,
            limit: self.bounds.limit,
            full: !books.waiting.is_empty() || !books.has_room(self.bounds.least, self.bounds.limit),
        }
    }

    /// What is held, and what may be.
    pub fn usage(&self) -> (Amount, Amount) {
        (self.lock().used(), self.bounds.limit)
    }

    /// Readings that are not settled yet.
    pub fn buffered(&self) -> u64 {
        self.lock().ledger.buffered
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic inside would be a broken invariant of ours; the numbers are whole at every step.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn used(&self) -> Amount {
        let held = Amount { readings: self.ledger.buffered, bytes: self.held_bytes };
        held + self.reserved
    }

    fn has_room(&self, need: Amount, limit: Amount) -> bool {
        (self.used() + need).fits(limit)
    }

    /// Takes those out of the front of the queue who wait no longer.
    fn forget_who_left(&mut self) {
        while self.waiting.front().is_some_and(|first| first.granted.is_closed()) {
            self.waiting.pop_front();
        }
    }

    fn shortfall(&self, need: Amount, limit: Amount) -> Amount {
        (self.used() + need).saturating_sub(limit)
    }

    fn full(&self, need: Amount, limit: Amount) -> PushError {
        let missing = self.shortfall(need, limit);
        PushError::Full { retry_after: self.drain_rate.retry_after(Instant::now(), missing) }
    }

    /// Reserves room for those who wait, in their order, as long as it lasts.
    ///
    /// The grants are sent after the lock is released: one that nobody takes any more locks again to give its
    /// room back.
    fn grants(&mut self, accounts: &Arc<Accounts>) -> Vec<(oneshot::Sender<Reservation>, Reservation)> {
        let mut grants = Vec::new();
        loop {
            self.forget_who_left();
            if !self.waiting.front().is_some_and(|first| self.has_room(first.need, accounts.bounds.limit)) {
                return grants;
            }
            let Some(Waiting { need, granted, .. }) = self.waiting.pop_front() else { return grants };
            self.reserved += need;
            grants.push((granted, Reservation::new(accounts, need)));
        }
    }
}

fn send(grants: Vec<(oneshot::Sender<Reservation>, Reservation)>) {
    for (granted, reservation) in grants {
        // Whoever hung up gives the room back by dropping the reservation.
        let _ = granted.send(reservation);
    }
}

#[cfg(test)]
mod tests;
