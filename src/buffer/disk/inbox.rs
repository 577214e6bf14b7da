//! What waits for the thread that owns the log: bounded, and taken all at once.

#![expect(
    clippy::disallowed_types,
    reason = "the thread of the log has no runtime, and its deadlines none of a test's time"
)]

use std::any::Any;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_reading::Readings;
use tokio::sync::{Notify, oneshot};

use super::entry::{Note, Settlement};
use crate::buffer::accounts::Reservation;
use crate::buffer::span::Span;
use crate::buffer::waiters::Waiters;
use crate::buffer::{Amount, Derivation, PushError};

/// Most bytes of readings that wait to be written. A single request may be larger, alone.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest pause after a commit in which the next group gathers. A lone request never waits for it.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// Most commands that room is made for before they come.
const COMMANDS_EXPECTED_MAX: usize = 1024;
/// Longest time that what nobody waits for stays unwritten: a crash within it costs no reading, only that some may be
/// sent again.
const LINGER_MAX: Duration = Duration::from_millis(100);

/// So many readings that a transform made are written at once.
const URGENT_RESULTS: usize = 256;

/// Where a request hears that it is kept, or why not.
pub type Done = oneshot::Sender<Result<(), PushError>>;

/// Something to write to the log.
#[derive(Debug)]
pub enum Command {
    /// The readings of a request.
    Accept(Accept),
    /// Which readings go under a key.
    Note {
        /// The number of the batch, for the answer.
        number: u64,
        /// What is to be noted.
        note: Note,
    },
    /// What is settled, and how many readings that are.
    Settle(Settlement, u64),
    /// Readings that a transform made, at least one, and the places of those that it made them of, in their order.
    Derive(Derivation, Vec<Span>),
}

/// When something has to be on stable storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// Nobody waits for it.
    #[default]
    Later,
    /// Before it is answered, or within the interval that is set.
    AsSet,
    /// Before it is answered, whatever is set.
    AtOnce,
}

/// The readings of a request that are to be kept.
pub struct Accept {
    /// The readings.
    pub readings: Readings,
    /// What the front wants to be kept with them.
    pub memo: Bytes,
    /// What they take on disk.
    pub amount: Amount,
    /// When they came.
    pub accepted_at: tokio::time::Instant,
    /// The room for them, and the index of their format; `None` if they are counted already, because the request
    /// did not want to wait for the disk.
    pub room: Option<(Reservation, usize)>,
    /// Told when they are on disk, or why not.
    pub done: Option<Done>,
    /// Told when all are settled.
    pub waiters: Waiters,
    /// Dropped when they are taken.
    pub until_taken: Option<Box<dyn Any + Send>>,
}

impl fmt::Debug for Accept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Accept {{ {:?} }}", self.amount)
    }
}

impl Command {
    /// Whether somebody waits for it: a client, or the delivery.
    fn is_urgent(&self) -> bool {
        match self {
            Command::Accept(_) | Command::Note { .. } => true,
            // More is made only when these are written.
            Command::Derive(derivation, _) => derivation.readings.len() >= URGENT_RESULTS,
            Command::Settle(..) => false,
        }
    }

    /// When it has to be on stable storage.
    fn sync(&self) -> Sync {
        match self {
            Command::Accept(accept) if accept.done.is_some() => Sync::AsSet,
            // A batch that is sent before its note is safe comes again under another key after a power cut, in other
            // company, and no node can tell. Its readings are before the note, and so they are safe, too.
            Command::Note { .. } => Sync::AtOnce,
            // What is made is synced with the note on its batch, before anybody sees it. What is settled and comes
            // again does so under the key of its note.
            Command::Accept(_) | Command::Settle(..) | Command::Derive(..) => Sync::Later,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Command::Accept(accept) => accept.readings.encoded_bytes(),
            Command::Derive(derivation, _) => derivation.readings.encoded_bytes(),
            Command::Note { .. } | Command::Settle(..) => 0,
        }
    }

    /// Whether it has readings, which get a number.
    pub fn has_readings(&self) -> bool {
        matches!(self, Command::Accept(_) | Command::Derive(..))
    }
}

/// How long the next group gathers.
///
/// One sync costs the processor as much as several requests, so the more come in, the more share one: a group waits
/// until as many requests have come as were in the last ones, but at most [`GATHER_MAX`] after the last commit. Notes
/// go with them and do not count: they come from the delivery, which waits for nobody, and if no request is expected,
/// they go at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    last_commit: Instant,
    /// Requests that the next group is expected to have.
    expected: usize,
}

impl Pace {
    /// Expects nobody.
    pub fn new(now: Instant) -> Pace {
        Pace { last_commit: now, expected: 0 }
    }

    /// After a commit of so many requests. Those who went away are forgotten in the course of some commits.
    pub fn on_commit(&mut self, now: Instant, requests: usize) {
        let fading = self.expected - self.expected.div_ceil(8);
        *self = Pace { last_commit: now, expected: requests.max(fading) };
    }

    /// How much longer a group of so many requests waits for others.
    fn rest(&self, now: Instant, requests: usize) -> Duration {
        if requests >= self.expected {
            return Duration::ZERO;
        }
        (self.last_commit + GATHER_MAX).saturating_duration_since(now)
    }

    /// How long the thread sleeps at most, and what ends its sleep before; no time at all if the group is complete.
    ///
    /// While a group gathers, its first request wakes nobody: one sleep serves until it is complete.
    fn sleep(&self, now: Instant, requests: usize, urgent: bool) -> (Option<Duration>, Sleep) {
        let rest = self.rest(now, requests);
        match (urgent, rest.is_zero()) {
            (false, true) => (None, Sleep::UntilUrgent),
            (true, _) | (false, false) => (Some(rest), Sleep::UntilRequests(self.expected)),
        }
    }
}

/// Nothing more of the kind is taken; the command is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What is still put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// Everything.
    #[default]
    Open,
    /// Notes and settlements, but no readings.
    NoReadings,
    /// Nothing.
    Closed,
}

/// What was taken out.
#[derive(Debug)]
pub struct Taken {
    /// What is to be written, in its order.
    pub commands: Vec<Command>,
    /// Whether somebody waits for one of them.
    pub urgent: bool,
    /// How many of them are readings of requests.
    pub requests: usize,
    /// When they have to be on stable storage.
    pub sync: Sync,
    /// What will still come.
    pub closing: Closing,
}

/// Where commands wait.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Held for putting in and taking out.
    contents: Mutex<Contents>,
    /// The log's thread waits for it.
    filled: Condvar,
    /// Those who find too much waiting wait for it.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    commands: Vec<Command>,
    bytes: usize,
    /// Whether somebody waits.
    urgent: bool,
    /// How many of the commands are readings of requests.
    requests: usize,
    sync: Sync,
    /// When what nobody waits for is to be written; `None` if there is nothing.
    due: Option<Instant>,
    sleeps: Sleep,
    closing: Closing,
    /// Whether the thread has yet to hear of that.
    is_news: bool,
}

/// Until when the log's thread sleeps; an alarm may come before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    /// It does not.
    #[default]
    Awake,
    /// Until somebody waits.
    UntilUrgent,
    /// Until somebody waits and so many requests have come.
    UntilRequests(usize),
}

impl Contents {
    /// Whether the thread has slept long enough.
    fn is_enough(&self) -> bool {
        match self.sleeps {
            Sleep::Awake => false,
            Sleep::UntilUrgent => self.urgent,
            Sleep::UntilRequests(count) => self.urgent && self.requests >= count,
        }
    }
}

impl Inbox {
    /// Puts a command in, when there is room.
    ///
    /// Dropped half-way, it was not put in.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub async fn put(&self, command: Command) -> Result<(), Closed> {
        let bytes = command.bytes();
        let mut command = Some(command);
        loop {
            let emptied = self.emptied.notified();
            {
                let contents = self.lock();
                if contents.bytes == 0 || contents.bytes + bytes <= WAITING_BYTES_MAX {
                    let Some(command) = command.take() else { return Ok(()) };
                    return self.push(contents, command);
                }
            }
            emptied.await;
        }
    }

    /// Puts a small command in at once.
    ///
    /// # Errors
    ///
    /// [`Closed`].
    pub fn put_small(&self, command: Command) -> Result<(), Closed> {
        self.push(self.lock(), command)
    }

    fn push(&self, mut contents: MutexGuard<'_, Contents>, mut command: Command) -> Result<(), Closed> {
        match (&mut command, contents.closing) {
            (Command::Accept(_), Closing::NoReadings) | (_, Closing::Closed) => {
                // What the command holds is let go without the lock.
                drop(contents);
                return Err(Closed);
            }
            (Command::Accept(accept), Closing::Open) if accept.done.is_none() => {
                // Who does not wait for the disk is told at once that they are taken, so they are counted at once.
                if let Some((reservation, format)) = accept.room.take() {
                    reservation.accept(format);
                }
            }
            _ => {}
        }
        contents.bytes += command.bytes();
        contents.sync = contents.sync.max(command.sync());
        let is_urgent = command.is_urgent();
        contents.urgent |= is_urgent;
        contents.requests += usize::from(matches!(command, Command::Accept(_)));
        contents.commands.push(command);
        let is_first = !is_urgent && contents.due.is_none();
        if is_first {
            contents.due = Some(Instant::now() + LINGER_MAX);
        }
        // The thread may sleep without an alarm, and now it needs one. While a group gathers it sleeps less than that.
        let alarm = is_first && contents.sleeps == Sleep::UntilUrgent;
        let wake = contents.sleeps != Sleep::Awake && (contents.is_enough() || alarm);
        if wake {
            contents.sleeps = Sleep::Awake;
        }
        drop(contents);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes all that waits: when somebody waits for it and enough have gathered, at `wake_at`, or when nothing more
    /// will come.
    pub fn take(&self, pace: Pace, wake_at: Option<Instant>) -> Taken {
        let mut contents = self.lock();
        while !contents.is_news {
            let now = Instant::now();
            let alarm = [wake_at, contents.due].into_iter().flatten().min();
            let alarm = alarm.map(|alarm| alarm.saturating_duration_since(now));
            let (gathering, sleep) = pace.sleep(now, contents.requests, contents.urgent);
            // A group that gathers is complete within the millisecond: the alarm can wait for it.
            let rest = if contents.urgent { gathering } else { gathering.into_iter().chain(alarm).min() };
            let is_due = alarm == Some(Duration::ZERO) && !contents.urgent;
            if rest == Some(Duration::ZERO) || is_due {
                break;
            }
            contents.sleeps = sleep;
            contents = match rest {
                None => self.filled.wait(contents).unwrap_or_else(PoisonError::into_inner),
                Some(rest) => {
                    self.filled.wait_timeout(contents, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            contents.sleeps = Sleep::Awake;
        }
        contents.bytes = 0;
        let urgent = std::mem::take(&mut contents.urgent);
        let requests = std::mem::take(&mut contents.requests);
        // The next group will be about as large: it need not grow while somebody holds the lock.
        let next = Vec::with_capacity(contents.commands.len().min(COMMANDS_EXPECTED_MAX));
        let commands = std::mem::replace(&mut contents.commands, next);
        contents.is_news = false;
        contents.due = None;
        let sync = std::mem::take(&mut contents.sync);
        let closing = contents.closing;
        drop(contents);
        self.emptied.notify_waiters();
        Taken { commands, urgent, requests, sync, closing }
    }

    /// Takes less from now on.
    pub fn close(&self, closing: Closing) {
        {
            let mut contents = self.lock();
            // What has ended does not begin again, whoever closes it last.
            contents.closing = contents.closing.max(closing);
            contents.is_news = true;
        }
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Drops what was not taken: whoever waits for it hears that nothing more is.
    pub fn abandon(&self) {
        let commands = std::mem::take(&mut self.lock().commands);
        drop(commands);
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // What is inside is whole at every step.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_micros(100);

    #[test]
    fn a_lone_request_never_waits_for_others() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..3 {
            assert_eq!(pace.rest(now, 1), Duration::ZERO);
            pace.on_commit(now, 1);
            now += MOMENT;
        }
    }

    #[test]
    fn a_group_waits_for_as_many_as_came_last_but_not_long() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.on_commit(now, 64);
        assert_eq!(pace.rest(now, 63), GATHER_MAX);
        assert_eq!(pace.rest(now + MOMENT, 63), GATHER_MAX.saturating_sub(MOMENT));
        assert_eq!(pace.rest(now + GATHER_MAX, 63), Duration::ZERO);
        assert_eq!(pace.rest(now, 64), Duration::ZERO);
    }

    #[test]
    fn clients_that_went_away_are_forgotten_and_a_note_goes_at_once_then() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.on_commit(now, 64);
        for _ in 0..32 {
            pace.on_commit(now, 0);
        }
        assert_eq!(pace.rest(now, 0), Duration::ZERO);
    }
}
