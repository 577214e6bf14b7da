//! The one thread that writes: it takes all batches that wait, stores them in one transaction, answers all.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior};
use serde::Serializer as _;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::store::{StoreError, StoreSettings, open_writable};
use crate::reading::{ReadingRef, Readings, Value};

/// Batches that wait for the thread; more wait in their requests.
const BATCHES_QUEUED_MAX: usize = 64;
/// A commit takes no further batch once it has this many readings.
const COMMIT_READINGS: usize = 50_000;
/// Memory for the names of series that were seen.
const SERIES_CACHED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What an entry of the cache occupies besides its key, roughly.
const SERIES_ENTRY_BYTES: usize = 64;

/// What is stored whole or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its `Idempotency-Key`.
    pub(super) key: Option<String>,
    pub(super) readings: Readings,
}

/// What became of a batch that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is in the store now.
    New,
    /// It was there already, by its key.
    Before,
}

/// The way to the thread that writes, which ends when the last clone of this is dropped.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

type Answer = oneshot::Sender<Result<Stored, StoreError>>;

#[derive(Debug)]
struct Job {
    batch: Batch,
    answer: Answer,
}

impl Writer {
    /// Opens the file in a thread of its own and returns when it is ready to write.
    pub(super) fn start(
        path: &Path,
        settings: StoreSettings,
    ) -> Result<(Writer, JoinHandle<()>), StoreError> {
        let (jobs, queue) = mpsc::channel(BATCHES_QUEUED_MAX);
        let connection = open_writable(path, settings.busy_timeout)?;
        // Shows before the start that the tables are what this program expects.
        drop(Statements::prepare(&connection)?);
        let thread = std::thread::Builder::new().name("node-writer".to_owned());
        let thread = thread
            .spawn(move || {
                let writing = Statements::prepare(&connection).map(|statements| {
                    Writing { connection: &connection, statements, keys_max: settings.keys_max }.run(queue);
                });
                if let Err(error) = writing {
                    error!(error = %error, "store cannot be written");
                }
            })
            .map_err(|error| StoreError::Thread(Arc::new(error)))?;
        Ok((Writer { jobs }, thread))
    }

    pub(super) async fn put(&self, batch: Batch) -> Result<Stored, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { batch, answer }).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    pub(super) fn is_open(&self) -> bool {
        !self.jobs.is_closed()
    }
}

struct Writing<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    keys_max: i64,
}

struct Statements<'c> {
    insert_key: Statement<'c>,
    prune_keys: Statement<'c>,
    find_series: Statement<'c>,
    insert_series: Statement<'c>,
    insert_reading: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> Result<Statements<'c>, rusqlite::Error> {
        Ok(Statements {
            insert_key: connection.prepare("INSERT OR IGNORE INTO batches (key) VALUES (?1)")?,
            prune_keys: connection
                .prepare("DELETE FROM batches WHERE id <= (SELECT max(id) FROM batches) - ?1")?,
            find_series: connection.prepare(
                "SELECT id FROM series WHERE device = ?1 AND sensor = ?2 AND unit = ?3 AND tags = ?4",
            )?,
            insert_series: connection
                .prepare("INSERT INTO series (device, sensor, unit, tags) VALUES (?1, ?2, ?3, ?4)")?,
            insert_reading: connection
                .prepare("INSERT INTO readings (series, time, value) VALUES (?1, ?2, ?3)")?,
        })
    }
}

impl Writing<'_> {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut series = SeriesCache::default();
        let mut refusing = false;
        while let Some(first) = queue.blocking_recv() {
            let (batches, answers) = gather(first, &mut queue);
            let outcome = self.commit(&batches, &mut series);
            match &outcome {
                Ok(_) if refusing => info!("store takes batches again"),
                Err(error) if !refusing => error!(error = %error, "store refuses batches"),
                Ok(_) | Err(_) => {}
            }
            refusing = outcome.is_err();
            if refusing {
                // Some of its ids went with the transaction.
                series.clear();
            }
            answer(answers, outcome);
        }
    }

    /// Stores all batches or none. An error leaves the store as it was.
    fn commit(
        &mut self,
        batches: &[Batch],
        series: &mut SeriesCache,
    ) -> Result<Vec<Stored>, rusqlite::Error> {
        let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
        let mut stored = Vec::with_capacity(batches.len());
        for batch in batches {
            stored.push(self.store(batch, series)?);
        }
        self.statements.prune_keys.execute([self.keys_max])?;
        transaction.commit()?;
        Ok(stored)
    }

    fn store(&mut self, batch: &Batch, series: &mut SeriesCache) -> Result<Stored, rusqlite::Error> {
        if let Some(key) = &batch.key
            && self.statements.insert_key.execute([key])? == 0
        {
            return Ok(Stored::Before);
        }
        for reading in &batch.readings {
            let series = series.id(reading, &mut self.statements)?;
            let value = ToSqlOutput::Borrowed(to_sql(reading.value()));
            self.statements.insert_reading.execute((series, reading.time().nanos(), value))?;
        }
        Ok(Stored::New)
    }
}

/// Answers each job; a request that has gone does not need its answer.
fn answer(answers: Vec<Answer>, outcome: Result<Vec<Stored>, rusqlite::Error>) {
    match outcome {
        Ok(stored) => {
            for (answer, stored) in answers.into_iter().zip(stored) {
                let _ = answer.send(Ok(stored));
            }
        }
        Err(error) => {
            let error = StoreError::from(error);
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// Takes what waits behind the first job, up to a commit's worth.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<Batch>, Vec<Answer>) {
    let mut readings = first.batch.readings.len();
    let (mut batches, mut answers) = (vec![first.batch], vec![first.answer]);
    while readings < COMMIT_READINGS
        && batches.len() < BATCHES_QUEUED_MAX
        && let Ok(job) = queue.try_recv()
    {
        readings += job.batch.readings.len();
        batches.push(job.batch);
        answers.push(job.answer);
    }
    (batches, answers)
}

fn to_sql(value: Value<'_>) -> ValueRef<'_> {
    match value {
        Value::Integer(number) => ValueRef::Integer(number),
        Value::Double(number) => ValueRef::Real(number),
        Value::Boolean(false) => ValueRef::Blob(&[0]),
        Value::Boolean(true) => ValueRef::Blob(&[1]),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
    }
}

/// The ids of series that were seen; emptied when it has grown to [`SERIES_CACHED_BYTES_MAX`].
///
/// **Invariant**: every id in it is committed, or part of the transaction that is open. Held by
/// `a_batch_that_failed_leaves_nothing_behind`.
#[derive(Default)]
struct SeriesCache {
    ids: HashMap<Box<[u8]>, i64>,
    bytes: usize,
    /// The key that is looked for, kept so that a hit allocates nothing.
    key: Vec<u8>,
}

impl SeriesCache {
    fn id(
        &mut self,
        reading: ReadingRef<'_>,
        statements: &mut Statements<'_>,
    ) -> Result<i64, rusqlite::Error> {
        self.set_key(reading);
        if let Some(id) = self.ids.get(self.key.as_slice()) {
            return Ok(*id);
        }
        let tags = tags_to_json(reading);
        let unit = reading.unit().unwrap_or_default();
        let series = (reading.device(), reading.sensor(), unit, tags.as_str());
        let found = statements.find_series.query_row(series, |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => statements.insert_series.insert(series)?,
        };
        if self.bytes > SERIES_CACHED_BYTES_MAX {
            self.clear();
        }
        self.bytes += self.key.len() + SERIES_ENTRY_BYTES;
        self.ids.insert(self.key.as_slice().into(), id);
        Ok(id)
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.bytes = 0;
    }

    /// The texts of a series one after the other, each with its length, so that no two series share a key.
    fn set_key(&mut self, reading: ReadingRef<'_>) {
        self.key.clear();
        let names =
            [reading.device_bytes(), reading.sensor_bytes(), reading.unit_bytes().unwrap_or_default()];
        let tags = reading.tags_bytes().flat_map(|(name, value)| [name, value]);
        for text in names.into_iter().chain(tags) {
            self.key.extend_from_slice(&text.len().to_le_bytes());
            self.key.extend_from_slice(text);
        }
    }
}

fn tags_to_json(reading: ReadingRef<'_>) -> String {
    let mut tags = reading.tags().peekable();
    if tags.peek().is_none() {
        return String::new();
    }
    let mut json = Vec::new();
    let written = serde_json::Serializer::new(&mut json).collect_map(tags);
    written.expect("texts are written to memory");
    String::from_utf8(json).expect("JSON is UTF-8")
}
