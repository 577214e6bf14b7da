//! Queries: a few read-only connections, each in a blocking thread while it is asked something.
//!
//! A long answer goes through a bounded channel in parts, so that memory stays flat; the thread waits for the reader
//! of the answer. A reader that goes away interrupts its query, also one that is still searching.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use forebay_codec::write_reading;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Tag, Value};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params_from_iter};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use super::database::{StoreError, open_read_only};

/// Queries at a time, and connections that are kept for them.
const READERS_MAX: usize = 4;
/// How long a query waits for one of them.
const READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Readings in one part of an answer.
const PART_READINGS: usize = 256;
/// Parts that wait for the reader of an answer.
const PARTS_QUEUED_MAX: usize = 4;
/// How long an answer waits for its reader to take the next part.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Series whose names a query remembers.
const SERIES_CACHED_MAX: usize = 1000;

/// Which readings are asked for; an absent part lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) device: Option<String>,
    pub(super) sensor: Option<String>,
    /// The first instant.
    pub(super) from: Option<Timestamp>,
    /// The first instant that is too late.
    pub(super) to: Option<Timestamp>,
}

/// In which order readings are given; those of one instant by when they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By the readings' own time.
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// The connections for queries.
pub(super) struct Readers {
    path: PathBuf,
    slots: Arc<Semaphore>,
    /// Open connections that nobody uses; the lock protects nothing else.
    idle: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readers").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A running query; dropping it ends the query.
#[derive(Debug)]
pub(super) struct Rows {
    parts: mpsc::Receiver<Result<Bytes, StoreError>>,
    first: Option<Bytes>,
    _interrupt: InterruptOnDrop,
}

impl Rows {
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

    pub(super) async fn count(self: &Arc<Self>, filter: Filter) -> Result<u64, StoreError> {
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

    /// Starts a query and returns when its first part, or its end, is there.
    pub(super) async fn read(
        self: &Arc<Self>,
        filter: Filter,
        order: Order,
        limit: Option<u64>,
    ) -> Result<Rows, StoreError> {
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
        Ok(Rows { parts, first, _interrupt: interrupt })
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
        if interruptible.begin(&connection) == Reader::Gone {
            return Err(StoreError::Stopped);
        }
        let answer = query(&connection);
        interruptible.end();
        // After an error it is opened anew.
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

/// The handle of a query while it runs.
///
/// The lock holds interrupting and ending apart: a late interrupt could otherwise hit the connection's next query.
type Running = Arc<Mutex<State>>;

enum State {
    Waiting,
    Running(InterruptHandle),
    Over,
}

fn interrupt() -> (InterruptOnDrop, Interruptible) {
    let running = Arc::new(Mutex::new(State::Waiting));
    (InterruptOnDrop(Arc::clone(&running)), Interruptible(running))
}

/// The asker's end: dropping it interrupts the query, or keeps it from beginning. One that is just about to take its
/// first step goes on until it has something to send.
struct InterruptOnDrop(Running);

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
struct Interruptible(Running);

impl Interruptible {
    fn begin(&self, connection: &Connection) -> Reader {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Over) {
            return Reader::Gone;
        }
        *state = State::Running(connection.get_interrupt_handle());
        Reader::There
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Over;
    }
}

/// Where the parts of an answer go.
struct Sink {
    runtime: Handle,
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
}

/// Whether anybody still reads.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

impl Sink {
    fn send(&self, part: Result<Bytes, StoreError>) -> Reader {
        match self.runtime.block_on(async { timeout(STALL_MAX, self.sender.send(part)).await }) {
            Ok(Ok(())) => Reader::There,
            Ok(Err(_)) | Err(_) => Reader::Gone,
        }
    }
}

/// What stands between `SELECT …` and `ORDER BY`, with its parameters.
fn from_where(filter: &Filter) -> (String, Vec<rusqlite::types::Value>) {
    let first = filter.from.unwrap_or(Timestamp::MIN).nanos();
    let last = filter.to.map_or(i64::MAX, |to| to.nanos() - 1);
    let mut parameters = vec![first.into(), last.into()];
    parameters.extend([&filter.device, &filter.sensor].into_iter().flatten().map(|name| name.clone().into()));
    let names = match (&filter.device, &filter.sensor) {
        (None, None) => "",
        (Some(_), None) => "AND series IN (SELECT id FROM series WHERE device = ?)",
        (None, Some(_)) => "AND series IN (SELECT id FROM series WHERE sensor = ?)",
        (Some(_), Some(_)) => "AND series IN (SELECT id FROM series WHERE device = ? AND sensor = ?)",
    };
    let sql = format!("FROM readings INDEXED BY readings_by_time WHERE time BETWEEN ? AND ? {names}");
    (sql, parameters)
}

fn count(connection: &Connection, filter: &Filter) -> Result<u64, StoreError> {
    let (source, parameters) = if *filter == Filter::default() {
        // SQLite counts a whole table without looking at its rows.
        ("FROM readings".to_owned(), Vec::new())
    } else {
        from_where(filter)
    };
    let sql = format!("SELECT count(*) {source}");
    let counted: i64 = connection.query_row(&sql, params_from_iter(parameters), |row| row.get(0))?;
    Ok(u64::try_from(counted).unwrap_or(0))
}

/// Sends the readings that pass, in parts, until they end or nobody reads any more.
fn read(
    connection: &Connection,
    filter: &Filter,
    order: Order,
    limit: Option<u64>,
    sink: &Sink,
) -> Result<(), StoreError> {
    // One snapshot: the names of its series are all there, and nothing is seen twice or half.
    let _snapshot = connection.unchecked_transaction()?;
    let (source, mut parameters) = from_where(filter);
    // A negative limit is none.
    parameters.push(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)).into());
    let order = match order {
        Order::OldestFirst => "time, id",
        Order::NewestFirst => "time DESC, id DESC",
    };
    let sql = format!("SELECT id, series, time, value {source} ORDER BY {order} LIMIT ?");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut names = SeriesNames { statement: connection.prepare(SeriesNames::SQL)?, known: HashMap::new() };
    let mut readings = Readings::default();
    while let Some(row) = rows.next()? {
        push(row, &mut names, &mut readings)?;
        if readings.len() == PART_READINGS && send(&mut readings, sink) == Reader::Gone {
            return Ok(());
        }
    }
    if !readings.is_empty() {
        send(&mut readings, sink);
    }
    Ok(())
}

fn send(readings: &mut Readings, sink: &Sink) -> Reader {
    let mut part = Vec::with_capacity(4 * readings.bytes_held());
    for reading in &*readings {
        write_reading(reading, &mut part);
        part.push(b'\n');
    }
    *readings = Readings::with_capacity(readings.bytes_held());
    sink.send(Ok(part.into()))
}

/// Turns a row of `id, series, time, value` into a reading.
fn push(row: &Row<'_>, names: &mut SeriesNames<'_>, readings: &mut Readings) -> Result<(), StoreError> {
    let id: i64 = row.get(0)?;
    let broken = |detail: &str| StoreError::Row { id, detail: detail.to_owned() };
    let series = names.find(row.get(1)?)?.ok_or_else(|| broken("its series is unknown"))?;
    let time = Timestamp::from_nanos(row.get(2)?).ok_or_else(|| broken("its time is before 1970"))?;
    let value = value(row.get_ref(3)?).ok_or_else(|| broken("its value is of no known kind"))?;
    let parts = ReadingParts {
        device: &series.device,
        sensor: &series.sensor,
        value: value.into(),
        time,
        unit: (!series.unit.is_empty()).then_some(&series.unit),
        tags: &series.tags,
    };
    readings.push(&parts).map_err(|error| broken(&error.to_string()))
}

fn value(value: ValueRef<'_>) -> Option<Value<'_>> {
    match value {
        ValueRef::Integer(number) => Some(Value::Integer(number)),
        ValueRef::Real(number) => Some(Value::Double(number)),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Value::Text),
        ValueRef::Blob([0]) => Some(Value::Boolean(false)),
        ValueRef::Blob([1]) => Some(Value::Boolean(true)),
        ValueRef::Blob(_) | ValueRef::Null => None,
    }
}

/// What the readings of a series have in common.
struct Series {
    device: String,
    sensor: String,
    unit: String,
    tags: Vec<Tag<'static>>,
}

/// The names of the series that a query came across; emptied when it has grown to [`SERIES_CACHED_MAX`].
struct SeriesNames<'c> {
    statement: rusqlite::Statement<'c>,
    known: HashMap<i64, Series>,
}

impl SeriesNames<'_> {
    const SQL: &'static str = "SELECT device, sensor, unit, tags FROM series WHERE id = ?";

    fn find(&mut self, id: i64) -> Result<Option<&Series>, StoreError> {
        if !self.known.contains_key(&id) {
            let found = self.statement.query_row([id], |row| {
                let tags: String = row.get(3)?;
                Ok(Series {
                    device: row.get(0)?,
                    sensor: row.get(1)?,
                    unit: row.get(2)?,
                    tags: tags_from_json(&tags).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(
                            3,
                            rusqlite::types::Type::Text,
                            error.into(),
                        )
                    })?,
                })
            });
            let Some(series) = found.optional()? else { return Ok(None) };
            if self.known.len() >= SERIES_CACHED_MAX {
                self.known.clear();
            }
            self.known.insert(id, series);
        }
        Ok(self.known.get(&id))
    }
}

/// Reads an object of texts and keeps its order.
fn tags_from_json(json: &str) -> Result<Vec<Tag<'static>>, serde_json::Error> {
    struct Tags;
    impl<'de> Visitor<'de> for Tags {
        type Value = Vec<Tag<'static>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tags = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                tags.push((name.into(), value.into()));
            }
            Ok(tags)
        }
    }
    if json.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::database::StoreSettings;
    use crate::node::store::Store;

    const ENDLESS: &str =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i = 1";

    #[tokio::test]
    async fn a_query_ends_when_its_asker_goes_and_the_next_is_not_disturbed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("readings.db");
        let (_store, _thread) = Store::open(&path, StoreSettings::default()).expect("it opens");
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
        assert_eq!(readers.count(Filter::default()).await.ok(), Some(0));
    }

    #[test]
    fn a_query_whose_asker_has_gone_does_not_begin() {
        let (interrupt, interruptible) = interrupt();
        drop(interrupt);
        let connection = Connection::open_in_memory().expect("it opens");
        assert!(interruptible.begin(&connection) == Reader::Gone);
    }
}
