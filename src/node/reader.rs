//! The queries of a node: a few read-only connections, each used by one query on a blocking thread.
//!
//! A long answer passes through a bounded channel in parts, so that memory stays flat: the thread waits for the client. A
//! client that hangs up interrupts its query, even during a search.

mod interrupt;
mod queries;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use forebay_reading::timestamp::Timestamp;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::database::{StoreError, open_read_only};
use interrupt::{InterruptOnDrop, Interruptible, interrupt};
use queries::{count, read};

/// Most queries at a time, and most idle connections.
const READERS_MAX: usize = 4;
/// How long a query waits for its turn.
const READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most parts that wait for the client.
const PARTS_QUEUED_MAX: usize = 4;
/// How long a query waits for the client to take the next part.
const STALL_MAX: Duration = Duration::from_secs(30);

/// The filter of a query; an absent part matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadingFilter {
    pub(super) device: Option<String>,
    pub(super) sensor: Option<String>,
    /// The earliest time, inclusive.
    pub(super) from: Option<Timestamp>,
    /// The end of the time, exclusive.
    pub(super) to: Option<Timestamp>,
}

/// The order of an answer. Readings of one instant are in the order of their arrival, or its reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By the readings' own time.
    OldestFirst,
    /// The reverse order.
    NewestFirst,
}

/// The connections for queries.
pub(super) struct Readers {
    path: PathBuf,
    slots: Arc<Semaphore>,
    /// Open connections that are not in use; the lock protects nothing else.
    idle: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readers").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A running query; dropping it ends the query.
#[derive(Debug)]
pub(super) struct QueryRows {
    parts: mpsc::Receiver<Result<Bytes, StoreError>>,
    first: Option<Bytes>,
    _interrupt: InterruptOnDrop,
}

impl QueryRows {
    /// The next part of the answer, canonical NDJSON; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        match self.first.take() {
            Some(part) => Some(Ok(part)),
            None => self.parts.recv().await,
        }
    }
}

impl Readers {
    pub(super) fn new(path: &Path) -> Readers {
        let slots = Arc::new(Semaphore::new(READERS_MAX));
        Readers { path: path.to_owned(), slots, idle: Mutex::new(Vec::new()) }
    }

    pub(super) async fn count(self: &Arc<Self>, filter: ReadingFilter) -> Result<u64, StoreError> {
        let slot = self.slot().await?;
        let (interrupt, interruptible) = interrupt();
        let readers = Arc::clone(self);
        let counted = spawn_blocking(move || {
            let _slot = slot;
            readers.with_connection(interruptible, |connection| count(connection, &filter))
        });
        let counted = counted.await.map_err(ended)?;
        drop(interrupt);
        counted
    }

    /// Starts a query, and returns when its first part or its end has arrived.
    pub(super) async fn read(
        self: &Arc<Self>,
        filter: ReadingFilter,
        order: Order,
        limit: Option<u64>,
    ) -> Result<QueryRows, StoreError> {
        let slot = self.slot().await?;
        let (interrupt, interruptible) = interrupt();
        let (sender, mut parts) = mpsc::channel(PARTS_QUEUED_MAX);
        let readers = Arc::clone(self);
        let runtime = Handle::current();
        spawn_blocking(move || {
            let _slot = slot;
            let sink = Sink { runtime, sender };
            let read = readers
                .with_connection(interruptible, |connection| read(connection, &filter, order, limit, &sink));
            if let Err(error) = read {
                sink.send(Err(error));
            }
        });
        let first = parts.recv().await.transpose()?;
        Ok(QueryRows { parts, first, _interrupt: interrupt })
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let slot = timeout(READER_WAIT_MAX, Arc::clone(&self.slots).acquire_owned()).await;
        let slot = slot.map_err(|_| StoreError::Busy)?;
        Ok(slot.expect("the semaphore is never closed"))
    }

    fn with_connection<T>(
        &self,
        interruptible: Interruptible,
        query: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_read_only(&self.path)?,
        };
        if interruptible.begin(&connection) == Recipient::Gone {
            return Err(StoreError::Stopped);
        }
        let answer = query(&connection);
        interruptible.end();
        // After an error the connection is closed, and the next query opens another.
        if answer.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer
    }
}

fn ended(error: JoinError) -> StoreError {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => StoreError::Stopped,
    }
}

/// The channel for the parts of an answer.
struct Sink {
    runtime: Handle,
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
}

/// Whether the client still waits for the answer.
#[derive(PartialEq, Eq)]
enum Recipient {
    Waiting,
    Gone,
}

impl Sink {
    fn send(&self, part: Result<Bytes, StoreError>) -> Recipient {
        match self.runtime.block_on(async { timeout(STALL_MAX, self.sender.send(part)).await }) {
            Ok(Ok(())) => Recipient::Waiting,
            Ok(Err(_)) | Err(_) => Recipient::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::database::StoreSettings;
    use crate::node::store::ReadingStore;

    const ENDLESS: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i = 1";

    #[tokio::test]
    async fn a_query_ends_when_its_client_goes_and_the_next_one_is_not_interrupted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("readings.db");
        let (_store, _thread) = ReadingStore::open(&path, StoreSettings::default()).expect("it opens");
        let readers = Arc::new(Readers::new(&path));

        let (interrupt, interruptible) = interrupt();
        let (searching, is_searching) = tokio::sync::oneshot::channel();
        let searcher = Arc::clone(&readers);
        let search = spawn_blocking(move || {
            searcher.with_connection(interruptible, |connection| {
                let mut statement = connection.prepare(ENDLESS)?;
                let mut rows = statement.query([])?;
                let first: Option<i64> = rows.next()?.map(|row| row.get(0)).transpose()?;
                searching.send(first).expect("the test waits");
                // There is no second row; the search for it has no end.
                rows.next()?;
                Ok(())
            })
        });
        assert_eq!(is_searching.await, Ok(Some(1)));
        drop(interrupt);
        let ended = timeout(Duration::from_secs(20), search).await.expect("it ends").expect("no panic");
        assert_eq!(ended.expect_err("interrupted").to_string(), "the store failed: interrupted");
        assert_eq!(readers.count(ReadingFilter::default()).await.ok(), Some(0));
    }
}
