//! Who hears what became of the readings of a request.
//!
//! A request that waits for delivery hears once, when all of its readings are settled, and what was made of them, too:
//! readings that a window has merged are delivered when the window's result is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Settled;

/// Those who hear when a record is settled.
#[derive(Debug, Default)]
pub struct Waiters(Vec<Arc<Waiter>>);

#[derive(Debug)]
struct Waiter(Mutex<Waiting>);

/// Held for a few steps at a time.
#[derive(Debug)]
struct Waiting {
    /// Records that are to be settled before it is told.
    records: usize,
    /// The worst that became of one that is settled.
    worst: Settled,
    sender: Option<oneshot::Sender<Settled>>,
}

/// Who is to be told now, and what.
#[derive(Debug, Default)]
pub struct Told(Vec<(oneshot::Sender<Settled>, Settled)>);

impl Told {
    /// Adds others.
    pub fn extend(&mut self, others: Told) {
        self.0.extend(others.0);
    }

    /// Tells them.
    pub fn tell(self) {
        for (sender, settled) in self.0 {
            // Whoever hung up does not want to know.
            let _ = sender.send(settled);
        }
    }
}

impl From<oneshot::Sender<Settled>> for Waiters {
    fn from(sender: oneshot::Sender<Settled>) -> Waiters {
        let waiting = Waiting { records: 1, worst: Settled::Delivered, sender: Some(sender) };
        Waiters(vec![Arc::new(Waiter(Mutex::new(waiting)))])
    }
}

impl Waiters {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has another record, which is made from this one, settled too before they are told. Who is among `sharers` already
    /// waits for that record.
    pub fn share_with(&self, sharers: &mut Waiters) {
        for waiter in &self.0 {
            if !sharers.0.iter().any(|sharer| Arc::ptr_eq(sharer, waiter)) {
                waiter.lock().records += 1;
                sharers.0.push(Arc::clone(waiter));
            }
        }
    }

    /// Their record is settled. Returns those who wait for no other.
    pub fn settle(self, settled: Settled) -> Told {
        let told = self.0.into_iter().filter_map(|waiter| waiter.settle(settled));
        Told(told.collect())
    }
}

impl Waiter {
    fn settle(&self, settled: Settled) -> Option<(oneshot::Sender<Settled>, Settled)> {
        let mut waiting = self.lock();
        waiting.worst = waiting.worst.max(settled);
        waiting.records -= 1;
        let worst = waiting.worst;
        let sender = if waiting.records == 0 { waiting.sender.take() } else { None };
        sender.map(|sender| (sender, worst))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // What is inside is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[test]
    fn a_waiter_hears_once_all_that_was_made_of_its_readings_is_settled_and_the_worst_of_it() {
        let (sender, mut heard) = oneshot::channel();
        let waiters = Waiters::from(sender);
        let mut of_a_window = Waiters::default();
        waiters.share_with(&mut of_a_window);
        waiters.share_with(&mut of_a_window);
        waiters.settle(Settled::Refused).tell();
        assert_eq!(heard.try_recv(), Err(TryRecvError::Empty));
        of_a_window.settle(Settled::Dropped).tell();
        assert_eq!(heard.try_recv(), Ok(Settled::Refused));
    }

    #[test]
    fn who_is_forgotten_hears_that_nobody_is_left_who_could_tell() {
        let (sender, mut heard) = oneshot::channel();
        let waiters = Waiters::from(sender);
        let mut of_a_window = Waiters::default();
        waiters.share_with(&mut of_a_window);
        drop(waiters);
        of_a_window.settle(Settled::Delivered).tell();
        assert_eq!(heard.try_recv(), Err(TryRecvError::Closed));
    }
}
