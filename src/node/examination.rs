//! What a start finds of the readings that were answered before it, and of the file itself.
//!
//! The order matters: the log of SQLite is looked at before SQLite opens the file, because SQLite cuts off what it
//! cannot read; what was answered is compared with what is there before the first batch is taken.
//!
//! The readings that stood in the log alone are counted in the file. A log that breaks can do more harm than that: pages
//! of its beginning may be older than those of the file, if the log had been moved into it already. So after a broken
//! log the whole file is checked, and its one index is made anew if it is the index that is wrong. A small file is
//! looked through at every start. What is not seen: a value that changed in the file and is a value still.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tracing::{error, info, warn};

use super::answered::{Answered, Marks, Note};
use super::database::{Health, StoreError};
use super::journal::{self, Journal};

/// Largest file that is looked through at every start: that takes about a tenth of a second.
const LOOKED_THROUGH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest file that is checked after its log broke: that may take a minute.
const CHECKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What was seen before SQLite opened the file.
#[derive(Debug)]
pub(super) struct Before {
    answered: Answered,
    note: Note,
    journal: Journal,
    bytes: u64,
}

/// What is known once the file is open.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) answered: Answered,
    pub(super) marks: Marks,
    pub(super) health: Health,
}

impl Before {
    /// Looks at the files as they are.
    pub(super) fn look(path: &Path) -> Result<Before, StoreError> {
        let answered_path = beside(path, "-answered");
        let (answered, note) = Answered::open(&answered_path)
            .map_err(|source| StoreError::Answered { path: answered_path, source: Arc::new(source) })?;
        // What cannot be read SQLite cannot read either, and says so.
        let journal = journal::inspect(&beside(path, "-wal")).unwrap_or(Journal::Broken);
        let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        Ok(Before { answered, note, journal, bytes })
    }

    /// Compares what was answered with what is there, and tells what is not.
    pub(super) fn examine(self, connection: &Connection) -> Result<Examined, rusqlite::Error> {
        let Before { answered, note, journal, bytes } = self;
        let damage = damage(connection, journal, bytes);
        let last =
            connection.query_row("SELECT max(id) FROM readings", [], |row| row.get::<_, Option<i64>>(0))?;
        let last = last.unwrap_or(0);
        let before = match note {
            Note::Of(marks) => marks,
            Note::New => Marks { last, checkpointed: last, lost: 0 },
            Note::Damaged => {
                warn!(
                    "readings.db-answered is damaged: whether a reading that was answered is gone is not known"
                );
                Marks { last, checkpointed: last, lost: 0 }
            }
        };
        let gone = gone(connection, before)?;
        tell(before, gone, last, journal);
        let marks = Marks { last, checkpointed: before.checkpointed.min(last), lost: before.lost + gone };
        let health = Health { lost_readings: marks.lost, damage };
        Ok(Examined { answered, marks, health })
    }
}

/// How many readings of those that stood in the log alone are not in the file.
fn gone(connection: &Connection, marks: Marks) -> Result<u64, rusqlite::Error> {
    let sql = "SELECT count(*) FROM readings WHERE id > ?1 AND id <= ?2";
    let there: i64 = connection.query_row(sql, [marks.checkpointed, marks.last], |row| row.get(0))?;
    let answered = (marks.last - marks.checkpointed).max(0);
    Ok(u64::try_from(answered - there).unwrap_or(0))
}

fn tell(before: Marks, gone: u64, last: i64, journal: Journal) {
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
    // Readings that were deleted by hand look the same, so they are not counted as lost.
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

/// What is wrong with the file itself, as far as it is looked at.
fn damage(connection: &Connection, journal: Journal, bytes: u64) -> Option<String> {
    match journal {
        Journal::Whole if bytes <= LOOKED_THROUGH_BYTES_MAX => problem(connection, "PRAGMA quick_check(1)"),
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

/// Checks the whole file. An index that does not agree with its table is made anew, because queries go by it.
fn check_and_mend(connection: &Connection) -> Option<String> {
    const CHECK: &str = "PRAGMA integrity_check(1)";
    problem(connection, CHECK)?;
    if connection.execute_batch("REINDEX").is_ok() {
        info!("the indexes of readings.db were made anew after its log broke");
    }
    problem(connection, CHECK)
}

/// The first thing that a check finds.
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
