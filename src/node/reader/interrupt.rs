//! Interrupts a query whose client has gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, InterruptHandle};

use super::Recipient;

/// The state that both ends of a query share.
///
/// The lock keeps an interrupt from coming after the query's end, where it could hit the connection's next query.
type SharedState = Arc<Mutex<QueryState>>;

enum QueryState {
    Waiting,
    Running(InterruptHandle),
    Over,
}

pub(super) fn interrupt() -> (InterruptOnDrop, Interruptible) {
    let running = Arc::new(Mutex::new(QueryState::Waiting));
    (InterruptOnDrop(Arc::clone(&running)), Interruptible(running))
}

/// The client's end: dropping it interrupts the query, or prevents its start. A query that is about to take its first
/// step goes on until it sends a part.
pub(super) struct InterruptOnDrop(SharedState);

impl fmt::Debug for InterruptOnDrop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InterruptOnDrop")
    }
}

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let QueryState::Running(handle) = &*state {
            handle.interrupt();
        }
        *state = QueryState::Over;
    }
}

/// The thread's end of a query.
pub(super) struct Interruptible(SharedState);

impl Interruptible {
    pub(super) fn begin(&self, connection: &Connection) -> Recipient {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, QueryState::Over) {
            return Recipient::Gone;
        }
        *state = QueryState::Running(connection.get_interrupt_handle());
        Recipient::Waiting
    }

    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = QueryState::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_whose_client_has_gone_does_not_begin() {
        let (interrupt, interruptible) = interrupt();
        drop(interrupt);
        let connection = Connection::open_in_memory().expect("it opens");
        assert!(interruptible.begin(&connection) == Recipient::Gone);
    }
}
