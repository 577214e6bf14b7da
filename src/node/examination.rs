//! The examination at a start: whether all acknowledged readings are there, and whether the file is intact.
//!
//! The order matters: SQLite's log is inspected before SQLite opens the file, because SQLite cuts off the unreadable
//! part; the marks are compared with the readings before the first batch is stored.
//!
//! The readings that were only in the log are counted in the file. A broken log can do more harm: if it had already been
//! moved into the file, pages at its beginning may be older than the file's. So after a broken log the whole file is
//! checked, and its index is rebuilt if only the index is wrong. A small file is checked at every start. One damage is
//! not found: a value that has changed into another valid value.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tracing::{error, info, warn};

use super::database::{StoreError, StoreHealth};
use super::journal::{self, Journal};
use super::marks::{EarlierMarks, Marks, MarksFile};

/// Largest file that is checked at every start: that takes about a tenth of a second.
const ALWAYS_CHECKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest file that is checked after its log broke: that may take a minute.
const CHECKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The state of the files before SQLite opens them.
#[derive(Debug)]
pub(super) struct Inspection {
    file: MarksFile,
    earlier: EarlierMarks,
    journal: Journal,
    bytes: u64,
}

/// The result of the examination.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) file: MarksFile,
    pub(super) marks: Marks,
    pub(super) health: StoreHealth,
}

impl Inspection {
    /// Inspects the files.
    pub(super) fn of(path: &Path) -> Result<Inspection, StoreError> {
        let marks_path = beside(path, "-answered");
        let (file, earlier) = MarksFile::open(&marks_path)
            .map_err(|source| StoreError::Marks { path: marks_path, source: Arc::new(source) })?;
        // SQLite cannot read an unreadable log either, and reports it.
        let journal = journal::inspect(&beside(path, "-wal")).unwrap_or(Journal::Broken);
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        Ok(Inspection { file, earlier, journal, bytes })
    }

    /// Compares the marks with the readings in the file, and reports the missing ones.
    pub(super) fn examine(self, connection: &Connection) -> Result<Findings, rusqlite::Error> {
        let Inspection { file, earlier, journal, bytes } = self;
        let damage = damage(connection, journal, bytes);
        let last =
            connection.query_row("SELECT max(id) FROM readings", [], |row| row.get::<_, Option<i64>>(0))?;
        let last = last.unwrap_or(0);
        let before = match earlier {
            EarlierMarks::Of(marks) => marks,
            EarlierMarks::None => Marks { last, checkpointed: last, lost: 0 },
            EarlierMarks::Damaged => {
                warn!(
                    "readings.db-answered is damaged: whether a reading that was answered is gone is not known"
                );
                Marks { last, checkpointed: last, lost: 0 }
            }
        };
        let gone = gone(connection, before)?;
        report(before, gone, last, journal);
        let marks = Marks { last, checkpointed: before.checkpointed.min(last), lost: before.lost + gone };
        let health = StoreHealth { lost_readings: marks.lost, damage };
        Ok(Findings { file, marks, health })
    }
}

/// The number of readings that were only in the log and are not in the file.
fn gone(connection: &Connection, marks: Marks) -> Result<u64, rusqlite::Error> {
    let sql = "SELECT count(*) FROM readings WHERE id > ?1 AND id <= ?2";
    let there: i64 = connection.query_row(sql, [marks.checkpointed, marks.last], |row| row.get(0))?;
    let acknowledged = (marks.last - marks.checkpointed).max(0);
    Ok(u64::try_from(acknowledged - there).unwrap_or(0))
}

fn report(before: Marks, gone: u64, last: i64, journal: Journal) {
    if gone > 0 {
        let lost_in_all = before.lost + gone;
        error!(
            readings = gone,
            lost_in_all,
            log_is_broken = journal == Journal::Broken,
            "readings that were answered with 2xx are gone: the log of SQLite (readings.db-wal) has lost its end"
        );
    } else if journal == Journal::Broken {
        warn!("readings.db-wal is damaged, but every reading that was answered is there");
    }
    // Deletion by hand looks the same, so these readings are not counted as lost.
    let missing = before.checkpointed - last;
    if missing > 0 {
        warn!(
            readings = missing,
            "readings.db has fewer readings than were in it: they are lost, unless they were deleted by hand"
        );
    }
    if gone == 0 && before.lost > 0 {
        warn!(
            readings = before.lost,
            "readings that were answered with 2xx were found gone at an earlier start"
        );
    }
}

/// The damage of the file itself, as far as it is checked.
fn damage(connection: &Connection, journal: Journal, bytes: u64) -> Option<String> {
    match journal {
        Journal::Whole if bytes <= ALWAYS_CHECKED_BYTES_MAX => problem(connection, "PRAGMA quick_check(1)"),
        Journal::Broken if bytes <= CHECKED_BYTES_MAX => check_and_mend(connection),
        Journal::Broken => {
            warn!(
                "readings.db is not checked, because it is large: PRAGMA integrity_check in sqlite3 does it"
            );
            None
        }
        Journal::Whole => None,
    }
    .inspect(|damage| error!(%damage, "readings.db is damaged: look at it with the sqlite3 shell (.recover)"))
}

/// Checks the whole file. An index that disagrees with its table is rebuilt, because queries rely on it.
fn check_and_mend(connection: &Connection) -> Option<String> {
    const CHECK: &str = "PRAGMA integrity_check(1)";
    problem(connection, CHECK)?;
    if connection.execute_batch("REINDEX").is_ok() {
        info!("the indexes of readings.db were made anew after its log broke");
    }
    problem(connection, CHECK)
}

/// The first problem that a check finds.
fn problem(connection: &Connection, check: &str) -> Option<String> {
    let found = connection.query_row(check, [], |row| row.get::<_, String>(0));
    let found = found.unwrap_or_else(|error| error.to_string());
    (found != "ok").then_some(found)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
