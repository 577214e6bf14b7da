//! The writer's thread: it stores all waiting batches in one transaction, then answers them.
//!
//! Before the answers it writes the id of the last reading to the marks ([`marks`](super::marks)). About every
//! [`StoreSettings::checkpoint_every`] it moves SQLite's log into the file, unless the log is empty; a task wakes it for
//! that if no batch comes.

#![expect(
    clippy::disallowed_types,
    reason = "the writer's thread has no runtime, and its deadlines do not follow the time of tests"
)]

mod rows;
mod sqlite_log;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_reading::Readings;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::database::{StoreError, StoreHealth, StoreSettings, open_writable};
use super::examination::{Findings, Inspection};
use rows::{SeriesCache, Statements, to_sql};
use sqlite_log::{CommitIds, SqliteLog};

/// Most batches in the queue of the thread; others wait in their requests.
const BATCHES_QUEUED_MAX: usize = 64;
/// A commit takes no more batches once it has this many readings.
const COMMIT_READINGS: usize = 50_000;

/// A batch, which is stored whole or not at all.
#[derive(Debug)]
pub(super) struct StoreBatch {
    /// The `Idempotency-Key`.
    pub(super) key: Option<String>,
    pub(super) readings: Readings,
}

/// The outcome of a successful put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutOutcome {
    /// The batch was stored.
    Stored,
    /// A batch with the same key was stored before.
    Duplicate,
}

/// The queue of the writer's thread, which ends when the last clone of this is dropped.
#[derive(Clone, Debug)]
pub(super) struct StoreWriter {
    jobs: mpsc::Sender<Job>,
}

type PutAnswer = oneshot::Sender<Result<PutOutcome, StoreError>>;

#[derive(Debug)]
enum Job {
    /// Store a batch.
    Put(PutJob),
    /// Checkpoint SQLite's log if that is due.
    Checkpoint,
}

#[derive(Debug)]
struct PutJob {
    batch: StoreBatch,
    answer: PutAnswer,
}

/// A started writer.
pub(super) struct RunningWriter {
    pub(super) writer: StoreWriter,
    pub(super) thread: JoinHandle<()>,
    /// The damage that was found at the start.
    pub(super) health: StoreHealth,
}

impl StoreWriter {
    /// Opens and examines the file, and starts the thread. Call it within a runtime.
    pub(super) fn start(path: &Path, settings: StoreSettings) -> Result<RunningWriter, StoreError> {
        let (jobs, queue) = mpsc::channel(BATCHES_QUEUED_MAX);
        let before = Inspection::of(path)?;
        let connection = open_writable(path, settings.busy_timeout)?;
        let Findings { file, marks, health } = before.examine(&connection)?;
        let mut log =
            SqliteLog { file, marks, settings, checkpointed_at: Instant::now(), write_failed: false };
        // Written in any case, so that the next start does not report the same loss again.
        log.write(|file, marks| file.write(marks));
        log.checkpoint(&connection);
        // Fails here, before the thread starts, if the tables are not the expected ones.
        drop(Statements::prepare(&connection)?);
        let thread = std::thread::Builder::new().name("node-writer".to_owned());
        let thread = thread
            .spawn(move || {
                let writing = Statements::prepare(&connection).map(|statements| {
                    WriterLoop { connection: &connection, statements, log }.run(queue);
                });
                if let Err(error) = writing {
                    error!(error = %error, "store cannot be written");
                }
            })
            .map_err(|error| StoreError::Thread(Arc::new(error)))?;
        tokio::spawn(wake(jobs.downgrade(), settings.checkpoint_every));
        Ok(RunningWriter { writer: StoreWriter { jobs }, thread, health })
    }

    pub(super) async fn put(&self, batch: StoreBatch) -> Result<PutOutcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        let put = Job::Put(PutJob { batch, answer });
        self.jobs.send(put).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    pub(super) fn is_open(&self) -> bool {
        !self.jobs.is_closed()
    }
}

/// Wakes the thread for checkpoints, until the last [`StoreWriter`] is dropped.
async fn wake(jobs: mpsc::WeakSender<Job>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(jobs) = jobs.upgrade() else { return };
        // A full queue wakes the thread, too.
        let _ = jobs.try_send(Job::Checkpoint);
    }
}

struct WriterLoop<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    log: SqliteLog,
}

impl WriterLoop<'_> {
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
                    // Some of its ids were lost with the transaction.
                    series.clear();
                }
                answer(answers, outcome);
            }
            self.log.checkpoint_if_due(self.connection);
        }
        self.log.checkpoint(self.connection);
    }

    /// Stores all batches or none. An error leaves the store as it was.
    fn commit(
        &mut self,
        batches: &[StoreBatch],
        series: &mut SeriesCache,
    ) -> Result<Vec<PutOutcome>, rusqlite::Error> {
        let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
        let mut stored = Vec::with_capacity(batches.len());
        let mut ids = None;
        for batch in batches {
            stored.push(self.store(batch, series, &mut ids)?);
        }
        self.statements.prune_keys.execute([self.log.settings.keys_max])?;
        transaction.commit()?;
        self.log.mark(ids);
        Ok(stored)
    }

    fn store(
        &mut self,
        batch: &StoreBatch,
        series: &mut SeriesCache,
        ids: &mut CommitIds,
    ) -> Result<PutOutcome, rusqlite::Error> {
        if let Some(key) = &batch.key
            && self.statements.insert_key.execute([key])? == 0
        {
            return Ok(PutOutcome::Duplicate);
        }
        for reading in &batch.readings {
            let series = series.id(reading, &mut self.statements)?;
            let value = ToSqlOutput::Borrowed(to_sql(reading.value()));
            let id = self.statements.insert_reading.insert((series, reading.time().nanos(), value))?;
            *ids = Some((ids.map_or(id, |(first, _)| first), id));
        }
        Ok(PutOutcome::Stored)
    }
}

/// Answers each batch; requests that have gone get no answer.
fn answer(answers: Vec<PutAnswer>, outcome: Result<Vec<PutOutcome>, rusqlite::Error>) {
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

/// Collects the batches of the first job and of those behind it, up to the size of a commit.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<StoreBatch>, Vec<PutAnswer>) {
    let mut readings = 0;
    let (mut batches, mut answers) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(job) = next {
        if let Job::Put(PutJob { batch, answer }) = job {
            readings += batch.readings.len();
            batches.push(batch);
            answers.push(answer);
        }
        let has_room = readings < COMMIT_READINGS && batches.len() < BATCHES_QUEUED_MAX;
        next = has_room.then(|| queue.try_recv().ok()).flatten();
    }
    (batches, answers)
}
