//! The delivery's half: from memory what is young, from the log what is not, and notes into it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_wal::{LogDirectory, LogError, SegmentNumber};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, warn};

use super::cursor::{Chunk, Cursor, ReadRequest};
use super::entry::{Note, Settlement};
use super::handover::{Handover, Next, ReadFrom, View};
use super::inbox::{Closed, Command, Inbox};
use super::lock::Lock;
use super::recovery::{lendable, record, report};
use super::trouble::Trouble;
use crate::buffer::Amount;
use crate::buffer::accounts::Accounts;
use crate::buffer::hold::{Hold, settle};
use crate::buffer::lease::{Part, Record};
use crate::buffer::ledger::{DeadLetterReason, Outcome};
use crate::buffer::outlet::{Derivation, Deriving, Fate, Kept, NoteId, Noting, Outlet, Resumed};
use crate::buffer::span::{Place, Span, SpanSet};
use crate::metrics::Metrics;
use crate::tasks;

/// Pause after the log could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Tries to read on before the rest of a segment is left where it is.
const TRIES_MAX: u32 = 5;

/// What an outlet is made from.
#[derive(Debug)]
pub struct OutletParts {
    /// From the log's thread.
    pub handover: Arc<Handover>,
    /// To the log's thread.
    pub inbox: Arc<Inbox>,
    /// Where it says what is wrong.
    pub trouble: Arc<Trouble>,
    /// The room and the ledger.
    pub accounts: Arc<Accounts>,
    /// What others see.
    pub metrics: Arc<Metrics>,
    /// Where the log is.
    pub directory: LogDirectory,
    /// Says whether that is still the directory that was opened.
    pub lock: Arc<Lock>,
    /// Where it is for people.
    pub path: PathBuf,
    /// Most bytes that its files may take.
    pub bytes_max: u64,
    /// The answers to notes and derivations.
    pub kept: Option<mpsc::UnboundedReceiver<Kept>>,
    /// Batches to be sent again.
    pub resumed: Vec<Resumed>,
    /// The requests of those batches.
    pub records: HashMap<u64, Arc<Record>>,
    /// What was settled or in a batch at the start; it is not read again.
    pub taken: SpanSet,
    /// The number of the first request that may be read; `None` if nothing is.
    pub unread_from: Option<u64>,
}

/// The delivery's half of a buffer on disk.
#[derive(Debug)]
pub struct DiskOutlet {
    parts: OutletParts,
    /// What was read and is not handed out yet.
    read: VecDeque<Part>,
    /// All requests of the start before this number were read.
    read_to: u64,
    cursor: Option<Cursor>,
    /// A read that is under way, on a thread where it may block.
    reading: Option<JoinHandle<(Cursor, Chunk, Arc<View>)>>,
    /// When reading is tried again after an error.
    retry_at: Option<Instant>,
    tries: u32,
}

impl DiskOutlet {
    /// Starts with what was found.
    pub fn new(parts: OutletParts) -> DiskOutlet {
        let read_to = parts.unread_from.unwrap_or(u64::MAX);
        DiskOutlet {
            parts,
            read: VecDeque::new(),
            read_to,
            cursor: None,
            reading: None,
            retry_at: None,
            tries: 0,
        }
    }

    async fn pull(&mut self, parts: &mut Vec<Part>, most: usize) -> usize {
        loop {
            if !self.read.is_empty() {
                let count = self.read.len().min(most);
                parts.extend(self.read.drain(..count));
                return count;
            }
            if let Some(reading) = &mut self.reading {
                let done = tasks::outcome(reading.await).await;
                self.reading = None;
                self.on_read(done);
                continue;
            }
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
                self.retry_at = None;
            }
            match self.parts.handover.next(parts, most) {
                Next::HandedOut(count) => return count,
                Next::Read { from, to, view } => self.start_reading(from, to, view),
                Next::Nothing => self.parts.handover.filled().await,
                Next::Closed => return 0,
            }
        }
    }

    fn start_reading(&mut self, from: ReadFrom, to: Option<u64>, view: Arc<View>) {
        let directory = || self.parts.directory.clone();
        let mut cursor = self.cursor.take().unwrap_or_else(|| Cursor::new(directory(), from));
        let lock = Arc::clone(&self.parts.lock);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let chunk = match lock.check() {
                Ok(()) => cursor.read(&view, to),
                Err(error) => Chunk { error: Some(error), ..Chunk::default() },
            };
            (cursor, chunk, view)
        }));
    }

    fn on_read(&mut self, (mut cursor, chunk, view): (Cursor, Chunk, Arc<View>)) {
        let Chunk { requests, damaged, lost, left, caught_up, error } = chunk;
        for (damage, set_aside) in &damaged {
            report(&self.parts.path, damage, set_aside);
        }
        for request in requests {
            self.take(request);
        }
        // What could not be set aside must stay where it is.
        if damaged.iter().all(|(_, set_aside)| set_aside.is_ok()) {
            self.lose(&lost);
        }
        for segment in left {
            self.leave(segment, cursor.number());
        }
        match error {
            Some(error) => self.on_error(&error, &mut cursor, &view),
            None if self.tries > 0 => {
                self.tries = 0;
                self.parts.trouble.set_reading(None);
            }
            None => {}
        }
        self.read_to = self.read_to.max(cursor.number());
        self.cursor = Some(cursor);
        if caught_up {
            self.on_caught_up(&view);
        }
    }

    /// Lends the readings of a request that was read.
    fn take(&mut self, request: ReadRequest) {
        let number = request.number;
        let count = u32::try_from(request.readings.len()).unwrap_or(u32::MAX);
        let lendable = lendable(&self.parts.taken, number, count);
        let unsettled: usize = lendable.iter().map(ExactSizeIterator::len).sum();
        if unsettled == 0 {
            return;
        }
        let record = match self.parts.records.get(&number) {
            Some(record) => Arc::clone(record),
            None => {
                let amount = Amount { readings: unsettled as u64, ..request.amount };
                let waiters = self.parts.handover.on_read(request.segment, number, amount);
                Arc::new(record(request, unsettled as u64, waiters))
            }
        };
        self.read.extend(lendable.into_iter().map(|indexes| Part::range(&record, indexes)));
    }

    /// Requests that nobody has any more are settled, so that their segment can go.
    fn lose(&mut self, lost: &[Range<u64>]) {
        for numbers in lost {
            let requests = self.parts.taken.open_records(numbers.clone());
            if requests == 0 {
                continue;
            }
            self.parts.metrics.buffer_damaged_records.inc_by(requests);
            error!(requests, "requests on disk cannot be read; their readings are lost");
            let spans = vec![Span::of_records(numbers.clone())];
            // They are not sent again, whatever becomes of this.
            self.settle_on_disk(Settlement { notes: Vec::new(), spans }, 0);
        }
    }

    /// What should have been in a segment and was not read is in no account but this one.
    fn leave(&mut self, segment: SegmentNumber, number: u64) {
        let missing = self.parts.handover.on_left(segment, number);
        self.settle_missing(missing);
    }

    fn settle_missing(&self, missing: Amount) {
        if missing.readings > 0 {
            let outcome = Outcome::DeadLettered(DeadLetterReason::Damaged);
            self.parts.accounts.settle(missing, outcome, Instant::now());
        }
    }

    fn on_error(&mut self, error: &LogError, cursor: &mut Cursor, view: &View) {
        self.tries += 1;
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.parts.trouble.set_reading(Some(error.to_string()));
        if self.tries < TRIES_MAX {
            warn!(%error, tries = self.tries, "the buffer on disk cannot be read; trying again");
            return;
        }
        error!(%error, "the rest of a segment cannot be read; it stays where it is for the next start");
        self.tries = 0;
        let segment = cursor.skip_segment(view);
        // Its readings stay in the books as buffered: they are on disk, and may be read after a start.
        self.parts.handover.on_left(segment, cursor.number());
    }

    /// All there was to read is read.
    fn on_caught_up(&mut self, view: &Arc<View>) {
        let number = self.cursor.as_ref().map_or(0, Cursor::number);
        let missing = self.parts.handover.on_caught_up(view, number);
        let Some(missing) = missing else { return };
        self.settle_missing(missing);
        self.read_to = u64::MAX;
        self.cursor = None;
        self.parts.records = HashMap::new();
        self.parts.taken = SpanSet::default();
    }

    fn settle_on_disk(&self, settlement: Settlement, readings: u64) {
        // Once the log's thread has ended, nothing is kept any more.
        let _ = self.parts.inbox.put_small(Command::Settle(settlement, readings));
    }
}

impl Outlet for DiskOutlet {
    fn resumed(&mut self) -> Vec<Resumed> {
        std::mem::take(&mut self.parts.resumed)
    }

    fn pull<'a>(&'a mut self, parts: &'a mut Vec<Part>, most: usize) -> BoxFuture<'a, usize> {
        self.pull(parts, most).boxed()
    }

    fn handed_out_to(&self) -> Place {
        let next = self.read.front().and_then(Part::span);
        next.map_or(Place::start_of(self.read_to), |span| span.from)
    }

    fn try_pull(&mut self) -> Option<Part> {
        if let Some(part) = self.read.pop_front() {
            return Some(part);
        }
        if self.reading.is_some() {
            return None;
        }
        let mut parts = Vec::new();
        match self.parts.handover.next(&mut parts, 1) {
            Next::HandedOut(_) => parts.pop(),
            Next::Read { .. } | Next::Nothing | Next::Closed => None,
        }
    }

    fn note(&mut self, number: u64, key: &str, parts: &[Part]) -> Noting {
        let note = Note { key: key.to_owned(), spans: spans(parts.iter().filter_map(Part::span)) };
        if note.spans.is_empty() {
            // Acknowledged in memory when the disk was full: there is nothing on disk to note.
            return Noting::NotNeeded;
        }
        match self.parts.inbox.put_small(Command::Note { number, note }) {
            Ok(()) => Noting::UnderWay,
            // The log's thread has ended: at most the batch is sent again after the next start, under another key.
            Err(Closed) => Noting::NotNeeded,
        }
    }

    fn derive(&mut self, derivation: Derivation, now: Instant) -> Deriving {
        let merged: SpanSet = derivation.merged.iter().filter_map(Hold::span).collect();
        if derivation.readings.is_empty() {
            let Derivation { transform, merged: holds, .. } = derivation;
            let outcome = Outcome::Merged { transform };
            self.settle(vec![Fate { holds, outcome }], None, now);
            return Deriving::Done;
        }
        match self.parts.inbox.put_small(Command::Derive(derivation, merged.iter().collect())) {
            Ok(()) => Deriving::UnderWay,
            // The log's thread has ended: what it was made of stays on disk for the next start.
            Err(Closed) => Deriving::Done,
        }
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn keeps_all(&self) -> bool {
        self.parts.trouble.unwritten() == 0
    }

    fn is_nearly_full(&self) -> bool {
        self.parts.trouble.disk_bytes() > self.parts.bytes_max / 4 * 3
    }

    #[expect(clippy::disallowed_methods, reason = "nobody sends into it")]
    fn kept(&mut self) -> mpsc::UnboundedReceiver<Kept> {
        self.parts.kept.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    fn settle(&mut self, fates: Vec<Fate>, note: Option<NoteId>, now: Instant) {
        let is_whole_batch = fates.iter().any(|fate| matches!(fate.outcome, Outcome::Delivered { .. }));
        let holds = || fates.iter().flat_map(|fate| &fate.holds);
        let settlement = match note {
            Some(NoteId(seq)) if is_whole_batch => Settlement { notes: vec![seq], spans: Vec::new() },
            _ => Settlement { notes: Vec::new(), spans: spans(holds().filter_map(Hold::span)) },
        };
        let written = holds().filter(|hold| hold.span().is_some()).map(Hold::len).sum::<usize>();
        self.settle_on_disk(settlement, written as u64);
        let unwritten = holds().filter(|hold| hold.span().is_none()).map(Hold::len).sum::<usize>();
        if unwritten > 0 {
            self.parts.trouble.settle_unwritten(unwritten as u64);
        }
        for Fate { holds, outcome } in fates {
            settle(&holds, &self.parts.accounts, outcome, now);
        }
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.parts.accounts
    }
}

/// The places of readings, in their order; those that touch are one span.
fn spans(places: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for span in places {
        match spans.last_mut() {
            Some(last) if last.to == span.from => last.to = span.to,
            _ => spans.push(span),
        }
    }
    spans
}
