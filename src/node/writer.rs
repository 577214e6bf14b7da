//! The one thread that writes: it takes all batches that wait, stores them in one transaction, answers all.
//!
//! Before it answers it notes up to which reading it has answered ([`answered`](super::answered)). About every
//! [`StoreSettings::checkpoint_every`] it moves the log of SQLite into the file, if there is anything in it; a task
//! wakes it for that when no batch comes.

#![expect(
    clippy::disallowed_types,
    reason = "the thread that writes has no runtime, and its deadlines none of a test's time"
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

use super::database::{Health, StoreError, StoreSettings, open_writable};
use super::examination::{Before, Examined};
use rows::{SeriesCache, Statements, to_sql};
use sqlite_log::{Ids, Log};

/// Batches that wait for the thread; more wait in their requests.
const BATCHES_QUEUED_MAX: usize = 64;
/// A commit takes no further batch once it has this many readings.
const COMMIT_READINGS: usize = 50_000;

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
