//! The thread that owns the log: it takes all that waits, appends, syncs once, and answers all.

#![expect(
    clippy::disallowed_types,
    reason = "the thread of the log has no runtime, and its deadlines none of a test's time"
)]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_reading::Readings;
use forebay_wal::{Durability, Log, LogError, LogPosition, RecordStart, SegmentNumber, Seq, Spare};
use tokio::sync::mpsc;
use tracing::warn;

use super::checkpoint::{Books, Checkpointed, Gain};
use super::entry::{Accepted, Note, Settlement};
use super::handover::{Handover, Putting, Stands, View};
use super::inbox::{Accept, Closing, Command, Done, Inbox, Pace, Sync, Taken};
use super::lock::{self, Lock};
use super::memos::Memos;
use super::state::State;
use super::trouble::{Left, Reason, Trouble};
use super::unix_nanos;
use crate::buffer::hold::{self, Hold};
use crate::buffer::lease::{Record, RecordParts};
use crate::buffer::outlet::{Derivation, Kept, NoteId, Noted};
use crate::buffer::span::Span;
use crate::buffer::waiters::Waiters;
use crate::buffer::{Accounts, Amount, Fsync, PushError, SentAgain};
use crate::directory_lock::LockLoss;
use crate::metrics::Metrics;

/// After a failure the disk is tried again this often.
pub const RETRY_EVERY: Duration = Duration::from_secs(1);
/// While nothing is written, the directory is looked at this often: that it is gone is to be known before the next request.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What nobody waits for is synced after this time at the latest.
const SYNC_WITHIN: Duration = Duration::from_secs(1);

/// Tells the requests of each group that they are kept. Waking them one by one from another thread costs more: half of
/// what the disk adds to a request of one reading.
pub async fn answer(mut groups: mpsc::UnboundedReceiver<Vec<Done>>) {
    while let Some(group) = groups.recv().await {
        for done in group {
            // Whoever hung up does not want to know.
            let _ = done.send(Ok(()));
        }
    }
}

/// The thread's work.
pub struct Writer {
    /// The log.
    pub log: Log,
    /// What is known of the readings in it.
    pub state: State,
    /// What the front wants to be kept after its readings are gone.
    pub memos: Memos,
    /// Where commands come from.
    pub inbox: Arc<Inbox>,
    /// Where committed requests go.
    pub handover: Arc<Handover>,
    /// Where it says what is wrong.
    pub trouble: Arc<Trouble>,
    /// The room and the ledger.
    pub accounts: Arc<Accounts>,
    /// Who is told of notes and derivations.
    pub kept: mpsc::UnboundedSender<Kept>,
    /// Who tells the requests of a group that they are kept.
    pub answers: mpsc::UnboundedSender<Vec<Done>>,
    /// When a commit is synced.
    pub fsync: Fsync,
    /// What others see.
    pub metrics: Arc<Metrics>,
    /// The next segment's file while it is made.
    pub spare: Option<JoinHandle<Result<Spare, LogError>>>,
    /// Segments that stay, whatever is settled: they have damaged bytes that could not be set aside.
    pub pinned: Vec<SegmentNumber>,
    /// What is settled and would be sent again after a start, because the disk took no more.
    pub behind: Behind,
    /// Says whether the directory is still the one that was opened.
    pub lock: Arc<Lock>,
}

/// What is settled and not known on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behind {
    /// Whether something is settled that neither the log nor a checkpoint has.
    is_unwritten: bool,
    /// Readings of that.
    unwritten: SentAgain,
    /// Readings whose settlement is in the log and was not synced yet.
    unsynced: SentAgain,
}

/// What is said when the thread ends, also by a panic: nothing is taken any more, and the delivery ends when it has
/// what is left, which ends the gateway.
struct Ending {
    inbox: Arc<Inbox>,
    handover: Arc<Handover>,
    trouble: Arc<Trouble>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let detail = "the thread that writes the buffer to disk has failed";
            let (detail, reason) = (detail.to_owned(), detail.to_owned());
            self.trouble.set(Reason { detail, reason, advice: Some("restart the gateway") });
        }
        self.inbox.close(Closing::Closed);
        self.inbox.abandon();
        self.handover.close();
    }
}

/// What the loop remembers between two turns.
struct Clock {
    pace: Pace,
    /// When what is written is to be synced, at the latest.
    sync_at: Option<Instant>,
    /// When the disk is tried again.
    retry_at: Option<Instant>,
    /// When the directory is looked at, if nothing is written before.
    look_at: Instant,
}

/// Where a command was appended.
struct Appended {
    seq: Seq,
    /// Behind it.
    position: LogPosition,
    /// Bytes of its record.
    bytes: u64,
}

/// Readings that are in the log.
struct Committed {
    /// What they take.
    amount: Amount,
    readings: Readings,
    made_by: Option<Arc<str>>,
    accepted_at: tokio::time::Instant,
    waiters: Waiters,
}

impl Writer {
    /// Works until the inbox is closed and everything in it is written. It blocks its thread.
    pub fn run(mut self) {
        let _ending = Ending {
            inbox: Arc::clone(&self.inbox),
            handover: Arc::clone(&self.handover),
            trouble: Arc::clone(&self.trouble),
        };
        self.begin();
        let retry_at = self.trouble.reason().map(|_| Instant::now() + RETRY_EVERY);
        let now = Instant::now();
        let mut clock = Clock { pace: Pace::new(now), sync_at: None, retry_at, look_at: now + LOOK_EVERY };
        loop {
            let taken = self.inbox.take(clock.pace, Some(clock.wake_at()));
            let closing = taken.closing;
            self.turn(taken, &mut clock);
            match closing {
                Closing::Open => {}
                Closing::NoReadings => self.handover.close(),
                Closing::Closed => break,
            }
        }
        self.handover.close();
        self.finish();
    }

    /// The first thing: what the start found is kept, so that the next one need not find it again. It shows whether the
    /// disk can be written, and makes the checkpoint's files while there is room for them.
    fn begin(&mut self) {
        let settled = self.settled_segments();
        if let Err(error) = self.checkpoint(&settled) {
            self.fail(&error);
        }
    }

    fn turn(&mut self, taken: Taken, clock: &mut Clock) {
        let Taken { commands, urgent, requests, sync, .. } = taken;
        let now = Instant::now();
        if clock.retry_at.is_some_and(|at| now < at) {
            let reason = self.trouble.reason().unwrap_or_default();
            self.refuse(commands, &reason);
            return;
        }
        clock.look_at = now + LOOK_EVERY;
        if commands.is_empty() && clock.nothing_is_due(now) {
            self.look(clock);
            return;
        }
        let durability = self.durability(sync, now, clock);
        match self.commit(commands, durability, clock.retry_at.is_some()) {
            Ok(()) => {
                clock.retry_at = None;
                self.trouble.clear();
            }
            Err(()) => clock.retry_at = Some(Instant::now() + RETRY_EVERY),
        }
        if self.log.is_synced() {
            clock.sync_at = None;
        } else {
            let within = match self.fsync {
                Fsync::Always => SYNC_WITHIN,
                Fsync::Every(interval) => interval,
            };
            clock.sync_at.get_or_insert(now + within);
        }
        if urgent {
            clock.pace.on_commit(Instant::now(), requests);
        }
    }

    /// Makes sure, while there is nothing to write, that the directory is still there.
    fn look(&mut self, clock: &mut Clock) {
        if let Err(error) = self.lock.check() {
            self.fail(&error);
            clock.retry_at = Some(Instant::now() + RETRY_EVERY);
        }
    }

    fn durability(&self, sync: Sync, now: Instant, clock: &Clock) -> Durability {
        let due = clock.sync_at.is_some_and(|at| at <= now);
        let asked = match sync {
            Sync::Later => false,
            Sync::AsSet => self.fsync == Fsync::Always,
            Sync::AtOnce => true,
        };
        if due || asked || clock.retry_at.is_some() { Durability::Synced } else { Durability::Written }
    }

    /// Writes a group, and answers everybody in it.
    fn commit(&mut self, commands: Vec<Command>, durability: Durability, probing: bool) -> Result<(), ()> {
        let started = Instant::now();
        let before = self.log.segments().len();
        let (places, appended) = self.append_all(&commands, probing);
        match appended.and_then(|()| self.log.commit(durability)) {
            Ok(()) => {
                self.observe(&commands, started);
                self.on_committed(commands, places);
                if self.log.is_synced() {
                    self.behind.unsynced = SentAgain::default();
                }
                self.prepare_spare();
                self.tidy(before)
            }
            Err(error) => {
                let reason = self.fail(&error);
                self.refuse(commands, &reason);
                self.make_room();
                Err(())
            }
        }
    }

    /// A disk that takes no more may have room once what is settled has gone, and a checkpoint needs none: without it a
    /// disk that the log itself has filled would stay full, and what was delivered meanwhile would be sent again.
    fn make_room(&mut self) {
        let settled = self.settled_segments();
        if self.behind.is_unwritten || !settled.is_empty() {
            // What is wrong with the disk is told already.
            let _ = self.checkpoint(&settled);
        }
    }

    /// Appends commands until one fails; returns the places of those before it.
    fn append_all(&mut self, commands: &[Command], probing: bool) -> (Vec<Appended>, Result<(), LogError>) {
        let mut places = Vec::with_capacity(commands.len());
        let (mut number, now) = (self.state.next_number, unix_nanos());
        let probe = |log: &mut Log| log.append(&[&Settlement::default().encode()]).map(drop);
        let ready = self.lock.check().and_then(|()| if probing { probe(&mut self.log) } else { Ok(()) });
        if let Err(error) = ready {
            return (places, Err(error));
        }
        for command in commands {
            match self.append(command, number, now) {
                Ok((seq, bytes)) => {
                    number += u64::from(command.has_readings());
                    places.push(Appended { seq, position: self.log.position(), bytes });
                }
                Err(error) => return (places, Err(error)),
            }
        }
        (places, Ok(()))
    }

    /// Appends a command. Returns the sequence number of its record, and the record's bytes.
    fn append(&mut self, command: &Command, number: u64, accepted_at: i64) -> Result<(Seq, u64), LogError> {
        let mut put = |payload: &[&[u8]]| {
            let bytes = forebay_wal::record_bytes(payload.iter().map(|part| part.len()).sum());
            Ok((self.log.append(payload)?, bytes))
        };
        match command {
            Command::Accept(accept) => {
                let count =
                    u32::try_from(accept.amount.readings).expect("the bound on bodies allows no more");
                let readings = accept.readings.as_bytes();
                let memo = &accept.memo;
                let accepted = Accepted { number, accepted_at, count, made_by: "", memo, readings };
                put(&[&accepted.head(), &accept.memo, readings])
            }
            Command::Note { note, .. } => put(&[&note.encode()]),
            Command::Settle(settlement, _) => put(&[&settlement.encode()]),
            Command::Derive(Derivation { made_by, readings, .. }, merged) => {
                let count = u32::try_from(readings.len()).expect("few windows are closed at once");
                let readings = readings.as_bytes();
                let accepted = Accepted { number, accepted_at, count, made_by, memo: &[], readings };
                put(&[&accepted.derived_head(merged), readings])
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms hold doubles")]
    fn observe(&self, commands: &[Command], started: Instant) {
        let readings: u64 = commands.iter().map(Command::readings).sum();
        if readings > 0 {
            self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            self.metrics.commit_readings.observe(readings as f64);
        }
    }

    /// Everything in the group is kept: the books first, then the delivery, then whoever waits.
    fn on_committed(&mut self, commands: Vec<Command>, places: Vec<Appended>) {
        let handover = Arc::clone(&self.handover);
        let mut putting = handover.begin();
        let mut told = Vec::with_capacity(commands.len());
        for (command, appended) in commands.into_iter().zip(places) {
            match command {
                Command::Accept(accept) => told.extend(self.on_accepted(accept, &appended, &mut putting)),
                Command::Note { number, note } => self.on_noted(number, note, appended.seq),
                Command::Settle(settlement, readings) => {
                    self.behind.unsynced.add(readings, !settlement.notes.is_empty());
                    self.state.settle(&settlement);
                }
                Command::Derive(derivation, merged) => {
                    self.on_derived(derivation, merged, &appended, &mut putting);
                }
            }
        }
        if putting.is_spilled() {
            putting.show(View::of(&self.log, &self.state));
        }
        drop(putting);
        if !told.is_empty() {
            // Nobody is left to hear of it once the gateway's runtime has ended.
            let _ = self.answers.send(told);
        }
    }

    fn on_accepted(
        &mut self,
        accept: Accept,
        appended: &Appended,
        putting: &mut Putting<'_>,
    ) -> Option<Done> {
        let Accept { readings, memo, amount, accepted_at, room, done, waiters, until_taken } = accept;
        if !memo.is_empty() {
            self.memos.keep(memo, unix_nanos());
        }
        if let Some((reservation, format)) = room {
            reservation.accept(format);
        }
        drop(until_taken);
        self.hand_on(Committed { amount, readings, made_by: None, accepted_at, waiters }, appended, putting);
        done
    }

    /// What a transform made is kept, and what it made that of is settled: in the log, and here.
    fn on_derived(
        &mut self,
        derivation: Derivation,
        merged: Vec<Span>,
        appended: &Appended,
        putting: &mut Putting<'_>,
    ) {
        let Derivation { transform, made_by, readings, merged: holds } = derivation;
        let amount = Amount { readings: readings.len() as u64, bytes: appended.bytes };
        self.state.settle(&Settlement { notes: Vec::new(), spans: merged });
        let waiters = hold::share_waiters(&holds);
        let unwritten = holds.iter().filter(|hold| hold.span().is_none()).map(Hold::len).sum::<usize>();
        if unwritten > 0 {
            self.trouble.settle_unwritten(unwritten as u64);
        }
        let now = tokio::time::Instant::now();
        hold::derive(&holds, &self.accounts, transform, amount, now);
        let made_by = Some(made_by);
        self.hand_on(Committed { amount, readings, made_by, accepted_at: now, waiters }, appended, putting);
        // Nobody is left to hear of it once the delivery has ended.
        let _ = self.kept.send(Kept::Derivation);
    }

    /// Hands on what is in the log, from memory or by its place.
    fn hand_on(&mut self, committed: Committed, appended: &Appended, putting: &mut Putting<'_>) {
        let Committed { amount, readings, made_by, accepted_at, waiters } = committed;
        let Appended { seq, position, .. } = *appended;
        let number = self.state.next_number;
        self.state.accept(position.segment, number, amount);
        let start = RecordStart { offset: position.offset - amount.bytes, seq };
        let stands = Stands { segment: position.segment, start, number };
        if putting.is_young(number, amount.bytes) {
            let held_bytes = amount.bytes;
            let seq = Some(number);
            let parts = RecordParts { readings, seq, made_by, held_bytes, accepted_at, waiters };
            putting.hand_on(Record::new(parts), stands, amount);
        } else {
            putting.leave(stands, amount, waiters);
        }
    }

    fn on_noted(&mut self, number: u64, note: Note, seq: Seq) {
        let key = note.key.clone();
        self.state.note(seq.get(), note);
        // Nobody is left to ask once the delivery has ended.
        let _ = self.kept.send(Kept::Note(Noted { number, key, note: Some(NoteId(seq.get())) }));
    }

    /// Nothing of the group was written: whoever waits for the disk hears why, and nothing else stops.
    fn refuse(&mut self, commands: Vec<Command>, reason: &str) {
        for command in commands {
            match command {
                Command::Accept(accept) if accept.done.is_some() => {
                    let Accept { room, done, .. } = accept;
                    // The room first: whoever hears of it may come again at once.
                    drop(room);
                    let error = PushError::Storage { reason: reason.to_owned(), retry_after: RETRY_EVERY };
                    let _ = done.map(|done| done.send(Err(error)));
                }
                Command::Accept(accept) => self.hand_on_unwritten(accept),
                Command::Note { number, note } => {
                    let _ = self.kept.send(Kept::Note(Noted { number, key: note.key, note: None }));
                }
                // The disk need not know it; without it these readings would be sent again after a crash.
                Command::Settle(settlement, readings) => {
                    let has_key = self.state.has_keys_of(&settlement);
                    self.state.settle(&settlement);
                    self.behind.is_unwritten = true;
                    self.behind.unwritten.add(readings, has_key);
                }
                Command::Derive(derivation, _) => {
                    let _ = self.kept.send(Kept::NotNow(derivation));
                }
            }
        }
    }

    /// Readings that were acknowledged and did not want to wait for the disk: they are delivered from memory.
    fn hand_on_unwritten(&self, accept: Accept) {
        let Accept { readings, amount, accepted_at, waiters, .. } = accept;
        self.trouble.add_unwritten(amount.readings);
        let (seq, made_by, held_bytes) = (None, None, amount.bytes);
        let parts = RecordParts { readings, seq, made_by, held_bytes, accepted_at, waiters };
        self.handover.begin().hand_on_unwritten(Record::new(parts));
    }

    /// Says what is wrong, to those who ask; the log of the gateway is one of them.
    fn fail(&mut self, error: &LogError) -> String {
        let reason = error.error.to_string();
        let advice = lock::lost(error).map(lock::advice);
        self.trouble.set(Reason { detail: error.to_string(), reason: reason.clone(), advice });
        reason
    }

    /// Has the next segment's file made elsewhere before it is needed.
    fn prepare_spare(&mut self) {
        if let Some(job) = self.spare.take_if(|job| job.is_finished()) {
            // If there is none, the next segment is made when it is needed, and what fails then is told.
            if let Ok(Ok(spare)) = job.join() {
                self.log.give_spare(spare);
            }
        }
        if self.spare.is_none()
            && let Some(job) = self.log.wants_spare()
        {
            let thread = std::thread::Builder::new().name("forebay-spare".to_owned());
            self.spare = thread.spawn(move || job.run()).ok();
        }
    }

    /// Lets settled segments go once there are some, and keeps the state: at every new segment, and as soon as the
    /// disk works again after something was settled that it did not take. An error here is an error of the disk as any
    /// other.
    fn tidy(&mut self, segments_before: usize) -> Result<(), ()> {
        let settled = self.settled_segments();
        let is_new = self.log.segments().len() > segments_before;
        if settled.is_empty() && !is_new && !self.behind.is_unwritten {
            return Ok(());
        }
        self.checkpoint(&settled).map_err(|error| {
            self.fail(&error);
        })
    }

    /// The segments, but the one that is written to, in which nothing is needed any more.
    fn settled_segments(&self) -> Vec<SegmentNumber> {
        let active = self.log.active();
        let goes = |number: &SegmentNumber| {
            Some(*number) != active && self.state.is_settled(*number) && !self.pinned.contains(number)
        };
        self.log.segments().iter().map(|segment| segment.number).filter(goes).collect()
    }

    fn checkpoint(&mut self, settled: &[SegmentNumber]) -> Result<(), LogError> {
        self.lock.check()?;
        let gain = if settled.is_empty() && !self.behind.is_unwritten { Gain::Time } else { Gain::Room };
        let books = Books { log: &mut self.log, state: &self.state, memos: &mut self.memos };
        let Checkpointed::Written(removed) = books.checkpoint(settled, gain)? else { return Ok(()) };
        self.behind = Behind::default();
        settled.iter().for_each(|number| {
            self.state.contents.remove(number);
        });
        self.trouble.set_disk_bytes(self.log.bytes());
        let mut putting = self.handover.begin();
        if putting.is_spilled() {
            // What has gone is not to be looked for.
            putting.show(View::of(&self.log, &self.state));
        }
        drop(putting);
        removed
    }

    /// The last thing: the next start finds everything at once, or it is told what it will not find.
    fn finish(mut self) {
        if let Some(spare) = self.spare.take() {
            let _ = spare.join();
        }
        let settled = self.settled_segments();
        let mut lost = None;
        if let Err(error) = self.checkpoint(&settled) {
            warn!(%error, "no checkpoint at the end; the next start reads more of the log");
            lost = lock::lost(&error);
        }
        // What is written is in files that are open, whatever they are called by now; another gateway's are left alone.
        if lost.is_some_and(|lost| lost != LockLoss::Relocked) {
            let _ = self.log.commit(Durability::Synced);
        }
        let Behind { unwritten, unsynced, .. } = self.behind;
        let sent_again = if self.log.is_synced() { unwritten } else { unwritten.and(unsynced) };
        self.trouble.set_left(Left { sent_again, is_elsewhere: lost.is_some_and(lock::is_elsewhere) });
        self.memos.end();
    }
}

impl Clock {
    /// When the thread is to wake at the latest.
    fn wake_at(&self) -> Instant {
        let due = self.sync_at.map_or(self.look_at, |at| at.min(self.look_at));
        self.retry_at.unwrap_or(due)
    }

    /// Whether neither a sync nor another try is due.
    fn nothing_is_due(&self, now: Instant) -> bool {
        self.retry_at.is_none() && self.sync_at.is_none_or(|at| now < at)
    }
}

impl Command {
    fn readings(&self) -> u64 {
        match self {
            Command::Accept(accept) => accept.amount.readings,
            Command::Note { .. } | Command::Settle(..) | Command::Derive(..) => 0,
        }
    }
}
