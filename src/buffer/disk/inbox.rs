//! What waits for the thread that owns the log: bounded, and taken all at once.

use std::any::Any;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::entry::{Note, Settlement};
use crate::buffer::accounts::Reservation;
use crate::buffer::{Amount, PushError, Settled};
use crate::reading::Readings;

/// Most bytes of readings that wait to be written. A single request may be larger, alone.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest pause after a commit in which the next group gathers. A lone request never waits for it.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// Longest time that what nobody waits for stays unwritten: a crash within it costs no reading, only that some may be
/// sent again.
const LINGER_MAX: Duration = Duration::from_millis(100);

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
    /// What is settled.
    Settle(Settlement),
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
    pub done: Option<oneshot::Sender<Result<(), PushError>>>,
    /// Told when all are settled.
    pub waiter: Option<oneshot::Sender<Settled>>,
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
            Command::Settle(_) => false,
        }
    }

    /// Whether it has to be on stable storage before it is answered.
    fn is_to_be_synced(&self) -> bool {
        match self {
            Command::Accept(accept) => accept.done.is_some(),
            Command::Note { .. } => true,
            Command::Settle(_) => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Command::Accept(accept) => accept.readings.encoded_bytes(),
            Command::Note { .. } | Command::Settle(_) => 0,
        }
    }
}

/// How long the next group gathers.
///
/// One sync costs the processor as much as several requests, so the more come in, the more share one: a group waits
/// until as many have come as in the last ones, but at most [`GATHER_MAX`].
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    last_commit: Instant,
    expected: usize,
}

impl Pace {
    /// Expects nobody.
    pub fn new(now: Instant) -> Pace {
        Pace { last_commit: now, expected: 1 }
    }

    /// After a commit that so many had waited for.
    pub fn on_commit(&mut self, now: Instant, waiting: usize) {
        let fading = self.expected - self.expected.div_ceil(8);
        *self = Pace { last_commit: now, expected: waiting.max(fading).max(1) };
    }

    /// How much longer so many wait for others.
    fn rest(&self, now: Instant, waiting: usize) -> Duration {
        if waiting >= self.expected {
            return Duration::ZERO;
        }
        (self.last_commit + GATHER_MAX).saturating_duration_since(now)
    }
}

/// Nothing more of the kind is taken; the command is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What is still put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// How many of them somebody waits for.
    pub urgent: usize,
    /// Whether one of them has to be on stable storage before it is answered.
    pub to_be_synced: bool,
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
    urgent: usize,
    to_be_synced: bool,
    /// When what nobody waits for is to be written; `None` if there is nothing.
    due: Option<Instant>,
    /// The thread sleeps until so many are urgent; 0 while it does not sleep.
    wanted: usize,
    closing: Closing,
    /// Whether the thread has yet to hear of that.
    is_news: bool,
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
        contents.to_be_synced |= command.is_to_be_synced();
        let is_urgent = command.is_urgent();
        contents.urgent += usize::from(is_urgent);
        contents.commands.push(command);
        // The thread sleeps without an alarm, and now it needs one.
        let alarm = !is_urgent && contents.due.is_none();
        if alarm {
            contents.due = Some(Instant::now() + LINGER_MAX);
        }
        let wake = contents.wanted > 0 && (contents.urgent >= contents.wanted || alarm);
        if wake {
            contents.wanted = 0;
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
            let rest = match (contents.urgent, alarm) {
                (0, None) => None,
                (0, Some(alarm)) => Some(alarm.saturating_duration_since(now)),
                (urgent, _) => Some(pace.rest(now, urgent)),
            };
            if rest == Some(Duration::ZERO) {
                break;
            }
            contents.wanted = if contents.urgent == 0 { 1 } else { pace.expected };
            contents = match rest {
                None => self.filled.wait(contents).unwrap_or_else(PoisonError::into_inner),
                Some(rest) => {
                    self.filled.wait_timeout(contents, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            contents.wanted = 0;
        }
        contents.bytes = 0;
        let urgent = std::mem::take(&mut contents.urgent);
        let commands = std::mem::take(&mut contents.commands);
        contents.is_news = false;
        contents.due = None;
        let to_be_synced = std::mem::take(&mut contents.to_be_synced);
        let closing = contents.closing;
        drop(contents);
        self.emptied.notify_waiters();
        Taken { commands, urgent, to_be_synced, closing }
    }

    /// Takes less from now on.
    pub fn close(&self, closing: Closing) {
        {
            let mut contents = self.lock();
            contents.closing = closing;
            contents.is_news = true;
        }
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // What is inside is whole at every step.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
