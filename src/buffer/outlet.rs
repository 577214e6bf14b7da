//! The delivery's half of a buffer: readings out, and what became of them back in.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::accounts::Accounts;
use super::lease::Part;
use super::ledger::Outcome;

/// The delivery's half of the buffer.
pub trait Outlet: Send + fmt::Debug {
    /// Hands out the oldest readings that wait, up to `most` requests of them, at the end of `parts`. Returns how
    /// many requests that were: none means that nothing more will come.
    ///
    /// Dropped half-way, nothing is handed out.
    fn pull<'a>(&'a mut self, parts: &'a mut Vec<Part>, most: usize) -> BoxFuture<'a, usize>;

    /// Hands out the oldest request that waits, if there is one at hand.
    fn try_pull(&mut self) -> Option<Part>;

    /// Says what became of the readings of `parts`.
    fn settle(&mut self, parts: Vec<Part>, outcome: Outcome, now: Instant);

    /// The room and the ledger.
    fn accounts(&self) -> &Arc<Accounts>;
}
