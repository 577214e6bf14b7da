//! The log of SQLite, and the note of what was answered.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tracing::warn;

use crate::node::answered::{Answered, Marks};
use crate::node::database::StoreSettings;

/// What stands in the log of SQLite alone, and what is noted of it.
pub(super) struct Log {
    pub(super) answered: Answered,
    pub(super) marks: Marks,
    pub(super) settings: StoreSettings,
    /// When the log was last moved into the file, or that was tried.
    pub(super) looked_at: Instant,
    /// Whether the last note could not be written.
    pub(super) notes_fail: bool,
}

impl Log {
    /// Notes that readings with these ids are stored, before they are answered.
    pub(super) fn note(&mut self, ids: Ids) {
        let Some((first, last)) = ids else { return };
        if first <= self.marks.last {
            // Readings were deleted by hand, and their ids are used again.
            self.marks.checkpointed = self.marks.checkpointed.min(first - 1);
        }
        self.marks.last = last;
        self.write(|answered, marks| answered.note(marks));
    }

    /// Moves the log of SQLite into the file and cuts it to nothing, if that is due.
    pub(super) fn look(&mut self, connection: &Connection) {
        if self.marks.checkpointed < self.marks.last
            && self.looked_at.elapsed() >= self.settings.checkpoint_every
        {
            self.checkpoint(connection);
        }
    }

    pub(super) fn checkpoint(&mut self, connection: &Connection) {
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
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Answered, Marks) -> std::io::Result<()>) {
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
pub(super) type Ids = Option<(i64, i64)>;
