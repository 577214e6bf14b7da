//! Ends a query whose asker has gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, InterruptHandle};

use super::Reader;

/// The handle of a query while it runs.
///
/// The lock holds interrupting and ending apart: a late interrupt could otherwise hit the connection's next query.
type Running = Arc<Mutex<State>>;

enum State {
    Waiting,
    Running(InterruptHandle),
    Over,
}

pub(super) fn interrupt() -> (InterruptOnDrop, Interruptible) {
    let running = Arc::new(Mutex::new(State::Waiting));
    (InterruptOnDrop(Arc::clone(&running)), Interruptible(running))
}

/// The asker's end: dropping it interrupts the query, or keeps it from beginning. One that is just about to take its
/// first step goes on until it has something to send.
pub(super) struct InterruptOnDrop(Running);

impl fmt::Debug for InterruptOnDrop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InterruptOnDrop")
    }
}

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(handle) = &*state {
            handle.interrupt();
        }
        *state = State::Over;
    }
}

/// The query's end.
pub(super) struct Interruptible(Running);

impl Interruptible {
    pub(super) fn begin(&self, connection: &Connection) -> Reader {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Over) {
            return Reader::Gone;
        }
        *state = State::Running(connection.get_interrupt_handle());
        Reader::There
    }

    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_whose_asker_has_gone_does_not_begin() {
        let (interrupt, interruptible) = interrupt();
        drop(interrupt);
        let connection = Connection::open_in_memory().expect("it opens");
        assert!(interruptible.begin(&connection) == Reader::Gone);
    }
}
