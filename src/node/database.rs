//! The readings in one SQLite file, `readings.db`.
//!
//! - `series`: what readings have in common (device, sensor, unit, tags), once each. An absent unit is `''`, absent
//!   tags are `''`, others a JSON object in the order in which they came.
//! - `readings`: a row each, only ever appended: series, time in nanoseconds, value. No constraint spans rows, which
//!   is what makes it fast. The kind of a value is its storage class: INTEGER, REAL, TEXT, and for booleans a BLOB of
//!   one byte. The column is `ANY` in a strict table, so that SQLite never turns 20.0 into 20 or 20 into 20.0.
//!   The one index is by time, then series. Every query walks it in the order of its answer, and one that asks for
//!   a device passes over the others inside the index. An index by series first would answer that faster, but each
//!   batch would change a page of every series: with 1,000 devices it stored 30,000 to 190,000 readings a second
//!   where this one stores 400,000.
//! - `batches`: the keys of the batches that were stored, the oldest pruned.
//! - `readings_by_name`: a view for people with a shell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use thiserror::Error;

use crate::filesystem;

/// Version of the schema, kept in the file's `user_version`.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    sensor TEXT NOT NULL,
    unit TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (device, sensor, unit, tags)
) STRICT;
CREATE TABLE readings (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value ANY NOT NULL
) STRICT;
CREATE INDEX readings_by_time ON readings (time, series);
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE
) STRICT;
-- Booleans read as true and false here; `readings.value` tells them from texts.
CREATE VIEW readings_by_name AS
    SELECT device, sensor,
        CASE typeof(value) WHEN 'blob' THEN iif(value = x'01', 'true', 'false') ELSE value END AS value,
        time AS time_ns, nullif(unit, '') AS unit, nullif(tags, '') AS tags
    FROM readings JOIN series ON series.id = readings.series;
";

/// What a store allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreSettings {
    /// Keys of batches that are remembered.
    pub(super) keys_max: i64,
    /// How long a writer waits for one of another process.
    pub(super) busy_timeout: Duration,
    /// How long readings stand in the log of SQLite alone.
    pub(super) checkpoint_every: Duration,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            keys_max: 1_000_000,
            busy_timeout: Duration::from_secs(5),
            checkpoint_every: Duration::from_secs(1),
        }
    }
}

/// What was found wrong at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Readings that were answered with 2xx, at any time, and could not be found at a later start.
    pub(super) lost_readings: u64,
    /// What is wrong with the file itself.
    pub(super) damage: Option<String>,
}

/// Why the store did not do as it was told.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// SQLite, or the disk below it, refused.
    #[error("the store failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The file is of a later version of this program.
    #[error("the file has version {found}, this program knows {VERSION}; use the program that wrote it")]
    Version {
        /// The file's version.
        found: i64,
    },
    /// A row that no version of this program has written.
    #[error("reading {id} in the store is not one: {detail}; look at it with the sqlite3 shell")]
    Row {
        /// Its `id`.
        id: i64,
        /// What is wrong with it.
        detail: String,
    },
    /// The file beside it, which says what was answered, cannot be had.
    #[error("cannot use {}: {source}{}", path.display(), filesystem::advice_on_file(path, source))]
    Answered {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The system would not start the thread that writes.
    #[error("no thread could be started: {0}")]
    Thread(Arc<io::Error>),
    /// Every reader is at work.
    #[error("too many queries at a time, try again later")]
    Busy,
    /// The thread that writes has ended.
    #[error("the store has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError::Sqlite(Arc::new(error))
    }
}

/// Opens the file for writing and brings it to the current schema.
pub(super) fn open_writable(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(busy_timeout)?;
    connection.execute_batch(
        // A checkpoint every 32 MiB instead of every 4, if none is due by the clock: pages of the indexes that change
        // again and again are written to the file once.
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 8192;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -65536;",
    )?;
    // Immediate, so that of two processes that open a new file one waits for the other's schema.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        found => return Err(StoreError::Version { found }),
    }
    transaction.commit()?;
    Ok(connection)
}

/// Opens the file for one reader at a time.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA cache_size = -8192")?;
    Ok(connection)
}
