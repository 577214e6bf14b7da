//! The schema of `readings.db`, the SQLite file of the readings.
//!
//! - `series`: the common part of readings (device, sensor, unit, tags), once each. An absent unit is `''`; tags are a
//!   JSON object in the order of the reading, or `''`.
//! - `readings`: one row a reading, append-only: series, time in nanoseconds, value. It is fast because no constraint
//!   spans rows. The kind of a value is its storage class: INTEGER, REAL, TEXT, and for booleans a BLOB of
//!   one byte. The column is `ANY` in a strict table, so that SQLite never turns 20.0 into 20 or 20 into 20.0.
//!   The only index is by time, then series. Every query walks it in the order of its answer, and a query for one
//!   device skips the other devices inside the index. An index by series first would answer that faster, but each batch
//!   would change a page of every series: with 1,000 devices it stored 30,000 to 190,000 readings a second, where this
//!   one stores 400,000.
//! - `batches`: the keys of the stored batches; the oldest are pruned.
//! - `readings_by_name`: a view for people with a shell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use thiserror::Error;

use crate::filesystem;

/// Version of the schema, in the file's `user_version`.
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

/// The settings of a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreSettings {
    /// Most keys of batches in the file.
    pub(super) keys_max: i64,
    /// How long a writer waits for a writer of another process.
    pub(super) busy_timeout: Duration,
    /// How often readings move from SQLite's log into the file.
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

/// The damage that was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreHealth {
    /// Acknowledged readings that were missing at a start, in all starts together.
    pub(super) lost_readings: u64,
    /// The damage of the file itself.
    pub(super) damage: Option<String>,
}

/// Why the store failed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// SQLite, or the disk below it, failed.
    #[error("the store failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// A later version of this program wrote the file.
    #[error("the file has version {found}, this program knows {VERSION}; use the program that wrote it")]
    Version {
        /// The file's version.
        found: i64,
    },
    /// A row that no version of this program writes.
    #[error("reading {id} in the store is not one: {detail}; look at it with the sqlite3 shell")]
    Row {
        /// The `id` of the row.
        id: i64,
        /// What is wrong with it.
        detail: String,
    },
    /// The file of the marks cannot be used.
    #[error("cannot use {}: {source}{}", path.display(), filesystem::advice_on_file(path, source))]
    Marks {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The system did not start the writer's thread.
    #[error("no thread could be started: {0}")]
    Thread(Arc<io::Error>),
    /// Too many queries run already.
    #[error("too many queries at a time, try again later")]
    Busy,
    /// The writer's thread has ended.
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
        // A checkpoint every 32 MiB instead of every 4, unless the clock demands one: pages of the index that change
        // often are then written to the file once.
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 8192;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -65536;",
    )?;
    // Immediate: if two processes open a new file, one waits for the other's schema.
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

/// Opens the file for one query at a time.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA cache_size = -8192")?;
    Ok(connection)
}
