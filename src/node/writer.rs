//! The one thread that writes: it takes all batches that wait, stores them in one transaction, answers all.
//!
//! Before it answers it notes up to which reading it has answered ([`answered`](super::answered)). About every
//! [`StoreSettings::checkpoint_every`] it moves the log of SQLite into the file, if there is anything in it; a task
//! wakes it for that when no batch comes.

#![expect(
    clippy::disallowed_types,
    reason = "the thread that writes has no runtime, and its deadlines none of a test's time"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_reading::{ReadingRef, Readings, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior};
use serde::Serializer as _;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::answered::{Answered, Marks};
use super::database::{Health, StoreError, StoreSettings, open_writable};
use super::examination::{Before, Examined};

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
enum Job {
    /// Store a batch.
    Put(Put),
    /// See whether the log of SQLite is to be moved into the file.
    Look,
}

#[derive(Debug)]
struct Put {
    batch: Batch,
    answer: Answer,
}

/// What [`Writer::start`] gives.
pub(super) struct Started {
    pub(super) writer: Writer,
    pub(super) thread: JoinHandle<()>,
    /// What was found wrong.
    pub(super) health: Health,
}

impl Writer {
    /// Opens the file in a thread of its own and returns when it is ready to write. To be called within a runtime.
    pub(super) fn start(path: &Path, settings: StoreSettings) -> Result<Started, StoreError> {
        let (jobs, queue) = mpsc::channel(BATCHES_QUEUED_MAX);
        let before = Before::look(path)?;
        let connection = open_writable(path, settings.busy_timeout)?;
        let Examined { answered, marks, health } = before.examine(&connection)?;
        let mut log = Log { answered, marks, settings, looked_at: Instant::now(), notes_fail: false };
        // Written in any case: what was told now is not to be found anew.
        log.write(|answered, marks| answered.note(marks));
        log.checkpoint(&connection);
        // Shows before the start that the tables are what this program expects.
        drop(Statements::prepare(&connection)?);
        let thread = std::thread::Builder::new().name("node-writer".to_owned());
        let thread = thread
            .spawn(move || {
                let writing = Statements::prepare(&connection).map(|statements| {
                    Writing { connection: &connection, statements, log }.run(queue);
                });
                if let Err(error) = writing {
                    error!(error = %error, "store cannot be written");
                }
            })
            .map_err(|error| StoreError::Thread(Arc::new(error)))?;
        tokio::spawn(wake(jobs.downgrade(), settings.checkpoint_every));
        Ok(Started { writer: Writer { jobs }, thread, health })
    }

    pub(super) async fn put(&self, batch: Batch) -> Result<Stored, StoreError> {
        let (answer, answered) = oneshot::channel();
        let put = Job::Put(Put { batch, answer });
        self.jobs.send(put).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    pub(super) fn is_open(&self) -> bool {
        !self.jobs.is_closed()
    }
}

/// Has the thread look at its log again and again, until nobody can put batches any more.
async fn wake(jobs: mpsc::WeakSender<Job>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(jobs) = jobs.upgrade() else { return };
        // A queue that is full wakes it, too.
        let _ = jobs.try_send(Job::Look);
    }
}

struct Writing<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    log: Log,
}

/// What stands in the log of SQLite alone, and what is noted of it.
struct Log {
    answered: Answered,
    marks: Marks,
    settings: StoreSettings,
    /// When the log was last moved into the file, or that was tried.
    looked_at: Instant,
    /// Whether the last note could not be written.
    notes_fail: bool,
}

impl Log {
    /// Notes that readings with these ids are stored, before they are answered.
    fn note(&mut self, ids: Ids) {
        let Some((first, last)) = ids else { return };
        if first <= self.marks.last {
            // Readings were deleted by hand, and their ids are used again.
            self.marks.checkpointed = self.marks.checkpointed.min(first - 1);
        }
        self.marks.last = last;
        self.write(|answered, marks| answered.note(marks));
    }

    /// Moves the log of SQLite into the file and cuts it to nothing, if that is due.
    fn look(&mut self, connection: &Connection) {
        if self.marks.checkpointed < self.marks.last
            && self.looked_at.elapsed() >= self.settings.checkpoint_every
        {
            self.checkpoint(connection);
        }
    }

    fn checkpoint(&mut self, connection: &Connection) {
        self.looked_at = Instant::now();
        match empty_log(connection, self.settings.busy_timeout) {
            Ok(Emptied::Yes) => {
                self.marks.checkpointed = self.marks.last;
                self.write(|answered, marks| answered.note(marks).and_then(|()| answered.sync()));
            }
            // Somebody reads: as much as could be was moved, and the rest is at the next time.
            Ok(Emptied::No) => {}
            Err(error) => warn!(error = %error, "the log of SQLite cannot be moved into readings.db"),
        }
    }

    /// Writes to the file of notes. What is stored is stored without it; only a loss could not be told.
    fn write(&mut self, write: impl FnOnce(&mut Answered, Marks) -> std::io::Result<()>) {
        let written = write(&mut self.answered, self.marks);
        if let Err(error) = &written
            && !self.notes_fail
        {
            warn!(error = %error, "readings.db-answered cannot be written: a loss of readings could not be told");
        }
        self.notes_fail = written.is_err();
    }
}

/// Whether the log of SQLite has nothing in it any more.
enum Emptied {
    Yes,
    No,
}

/// Never waits for those who read: whoever put a batch waits for this thread.
fn empty_log(connection: &Connection, busy_timeout: Duration) -> Result<Emptied, rusqlite::Error> {
    connection.busy_timeout(Duration::ZERO)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(busy_timeout)?;
    Ok(if busy? == 0 { Emptied::Yes } else { Emptied::No })
}

/// The ids of the first and of the last reading of a commit; `None` if it had none.
type Ids = Option<(i64, i64)>;

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
            if !batches.is_empty() {
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
            self.log.look(self.connection);
        }
        self.log.checkpoint(self.connection);
    }

    /// Stores all batches or none. An error leaves the store as it was.
    fn commit(
        &mut self,
        batches: &[Batch],
        series: &mut SeriesCache,
    ) -> Result<Vec<Stored>, rusqlite::Error> {
        let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
        let mut stored = Vec::with_capacity(batches.len());
        let mut ids = None;
        for batch in batches {
            stored.push(self.store(batch, series, &mut ids)?);
        }
        self.statements.prune_keys.execute([self.log.settings.keys_max])?;
        transaction.commit()?;
        self.log.note(ids);
        Ok(stored)
    }

    fn store(
        &mut self,
        batch: &Batch,
        series: &mut SeriesCache,
        ids: &mut Ids,
    ) -> Result<Stored, rusqlite::Error> {
        if let Some(key) = &batch.key
            && self.statements.insert_key.execute([key])? == 0
        {
            return Ok(Stored::Before);
        }
        for reading in &batch.readings {
            let series = series.id(reading, &mut self.statements)?;
            let value = ToSqlOutput::Borrowed(to_sql(reading.value()));
            let id = self.statements.insert_reading.insert((series, reading.time().nanos(), value))?;
            *ids = Some((ids.map_or(id, |(first, _)| first), id));
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

/// Takes the batches of the first job and of those that wait behind it, up to a commit's worth.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<Batch>, Vec<Answer>) {
    let mut readings = 0;
    let (mut batches, mut answers) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(job) = next {
        if let Job::Put(Put { batch, answer }) = job {
            readings += batch.readings.len();
            batches.push(batch);
            answers.push(answer);
        }
        let has_room = readings < COMMIT_READINGS && batches.len() < BATCHES_QUEUED_MAX;
        next = has_room.then(|| queue.try_recv().ok()).flatten();
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
