//! The checkpoints of SQLite's log, and the marks that belong to them.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tracing::warn;

use crate::node::database::StoreSettings;
use crate::node::marks::{Marks, MarksFile};

/// SQLite's log and the marks of acknowledged readings.
pub(super) struct SqliteLog {
    pub(super) file: MarksFile,
    pub(super) marks: Marks,
    pub(super) settings: StoreSettings,
    /// The time of the last checkpoint, even if it failed.
    pub(super) checkpointed_at: Instant,
    /// Whether the last write of the marks failed.
    pub(super) write_failed: bool,
}

impl SqliteLog {
    /// Writes the marks of committed readings, before they are acknowledged.
    pub(super) fn mark(&mut self, ids: CommitIds) {
        let Some((first, last)) = ids else { return };
        if first <= self.marks.last {
            // Readings were deleted by hand, and SQLite uses their ids again.
            self.marks.checkpointed = self.marks.checkpointed.min(first - 1);
        }
        self.marks.last = last;
        self.write(|file, marks| file.write(marks));
    }

    /// Moves SQLite's log into the file and truncates it, if that is due.
    pub(super) fn checkpoint_if_due(&mut self, connection: &Connection) {
        if self.marks.checkpointed < self.marks.last
            && self.checkpointed_at.elapsed() >= self.settings.checkpoint_every
        {
            self.checkpoint(connection);
        }
    }

    pub(super) fn checkpoint(&mut self, connection: &Connection) {
        self.checkpointed_at = Instant::now();
        match truncate_log(connection, self.settings.busy_timeout) {
            Ok(LogTruncation::Done) => {
                self.marks.checkpointed = self.marks.last;
                self.write(|file, marks| file.write(marks).and_then(|()| file.sync()));
            }
            // A query holds a snapshot: part of the log was moved, and the rest follows next time.
            Ok(LogTruncation::Blocked) => {}
            Err(error) => warn!(error = %error, "the log of SQLite cannot be moved into readings.db"),
        }
    }

    /// Writes the marks. Readings are stored without them; only a loss could not be reported.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut MarksFile, Marks) -> std::io::Result<()>) {
        let written = write(&mut self.file, self.marks);
        if let Err(error) = &written
            && !self.write_failed
        {
            warn!(error = %error, "readings.db-answered cannot be written: a loss of readings could not be told");
        }
        self.write_failed = written.is_err();
    }
}

/// Whether SQLite's log is empty now.
enum LogTruncation {
    Done,
    Blocked,
}

/// Never waits for queries, because batches wait for this thread.
fn truncate_log(connection: &Connection, busy_timeout: Duration) -> Result<LogTruncation, rusqlite::Error> {
    connection.busy_timeout(Duration::ZERO)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(busy_timeout)?;
    Ok(if busy? == 0 { LogTruncation::Done } else { LogTruncation::Blocked })
}

/// The ids of the first and last reading of a commit; `None` if it had no readings.
pub(super) type CommitIds = Option<(i64, i64)>;
