//! What a start finds in the log: the state, the batches that may have been sent, and where the rest is to be read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use forebay_wal::{
    Damage, Event, Fs, Log, LogError, LogOptions, Segment, SegmentEnd, SegmentItem, SegmentNumber, Seq,
    Truncation,
};
use tokio::time::Instant;
use tracing::{error, warn};

use super::cursor::{self, ReadRequest};
use super::entry::{Accepted, Entry, KINDS, Note, Settlement};
use super::handover::ReadFrom;
use super::state::State;
use crate::buffer::Amount;
use crate::buffer::lease::{Part, Record, RecordParts};
use crate::buffer::outlet::{NoteId, Resumed};
use crate::buffer::span::{Place, Span, SpanSet};
use crate::buffer::waiters::Waiters;

/// What a start finds.
#[derive(Debug)]
pub struct Recovered {
    /// The log, open.
    pub log: Log,
    /// What is known of the readings in it.
    pub state: State,
    /// Batches that may have been sent, to be sent again.
    pub resumed: Vec<Resumed>,
    /// The requests of those batches: what else they have is lent from the same records.
    pub records: HashMap<u64, Arc<Record>>,
    /// Where the readings begin that are in no batch; `None` if there are none.
    pub unread_from: Option<ReadFrom>,
    /// How much of those is in each segment.
    pub unread: BTreeMap<SegmentNumber, Amount>,
    /// The readings that are not settled.
    pub amount: Amount,
    /// What the front wants back, and when it came, in nanoseconds since the Unix epoch.
    pub memos: Vec<(i64, Bytes)>,
    /// Requests that were acknowledged and that nobody has any more.
    pub lost_requests: u64,
    /// What could not be read.
    pub damaged: Vec<Damage>,
    /// Whether there was a checkpoint, and it could not be read.
    pub checkpoint_damaged: bool,
    /// The segments that were needed and are not there.
    pub missing: Vec<SegmentNumber>,
    /// The youngest segment, if it is shorter than it was made.
    pub cut_short: Option<Truncation>,
}

/// Opens the log in `directory` and finds out what is in it. It blocks.
///
/// # Errors
///
/// What the system says, or that another version has written something here that this one does not know: what is
/// settled cannot be told then, and segments would look as if nothing in them were needed. Nothing is changed in that
/// case. Damage is no error: it is logged and counted; [`Recovered::set_aside`] sets it aside.
pub fn recover(fs: Arc<dyn Fs>, config: LogOptions, seed: u64) -> Result<Recovered, LogError> {
    let path = config.directory.clone();
    let state = State { next_number: 1, ..State::default() };
    let mut replay = Replay { path: path.clone(), state, ..Replay::default() };
    let log = Log::open(fs, config, seed, &mut |event| replay.on(event))?;
    if replay.is_state_unknown {
        let error = forebay_wal::refusal(&path, "its state is none that this program knows");
        return Err(LogError { action: "understand the checkpoint in", ..error });
    }
    if let Some(foreign) = replay.foreign {
        return Err(foreign.refusal(&path));
    }
    let lost_in_replay = replay.lost_requests();
    let Replay { mut state, mut damaged, memos, checkpoint_damaged, missing, cut_short, .. } = replay;
    state.contents.retain(|number, _| log.segments().iter().any(|segment| segment.number == *number));
    let mut walk = Walk::new(&mut state, cut_short);
    for segment in log.segments() {
        walk.through(&log, segment)?;
    }
    let Walk { requests, mut unread, damaged: found_again, lost_requests: lost_in_walk, .. } = walk;
    let is_new = |found: &Damage| {
        let same = |known: &Damage| (known.segment, known.bytes.start) == (found.segment, found.bytes.start);
        !damaged.iter().any(same) && !log.directory().is_set_aside(found)
    };
    let new: Vec<_> = found_again.into_iter().filter(is_new).collect();
    damaged.extend(new);
    let (resumed, records) = resume(&mut state, requests, &mut unread);
    let held = records.values().map(|(_, amount)| *amount);
    let amount = held.chain(unread.values().copied()).fold(Amount::default(), |sum, amount| sum + amount);
    let records: HashMap<_, _> = records.into_iter().map(|(number, (record, _))| (number, record)).collect();
    let unread_from = unread.keys().next().and_then(|segment| {
        let number = state.contents.get(segment)?.numbers.start;
        Some(ReadFrom { segment: *segment, start: None, number })
    });
    Ok(Recovered {
        log,
        state,
        resumed,
        records,
        unread_from,
        unread,
        amount,
        memos,
        lost_requests: lost_in_replay + lost_in_walk,
        damaged,
        checkpoint_damaged,
        missing,
        cut_short,
    })
}

impl Recovered {
    /// Requests that are to be counted as damaged. Where nobody knows how many were in what is gone, one is counted, so
    /// that it shows.
    pub fn damaged_requests(&self) -> u64 {
        self.lost_requests.max(u64::from(self.cut_short.is_some()))
    }

    /// Copies what could not be read to where it stays, and says so. Returns the segments of which something could not
    /// be copied.
    pub fn set_aside(&self, path: &Path) -> Vec<SegmentNumber> {
        let mut failed = Vec::new();
        for damage in &self.damaged {
            let set_aside = self.log.directory().set_aside(damage);
            report(path, damage, &set_aside);
            failed.extend(set_aside.is_err().then_some(damage.segment));
        }
        failed
    }
}

/// Says what could not be read, and where it is.
pub fn report(log: &Path, damage: &Damage, set_aside: &Result<Option<PathBuf>, LogError>) {
    let (segment, bytes, records) = (damage.segment.get(), &damage.bytes, damage.records());
    match set_aside {
        Ok(None) => error!(
            log = %log.display(), segment, records,
            "records are missing on disk, and nothing of them is left; everything around them is read"
        ),
        Ok(Some(path)) => error!(
            log = %log.display(), segment, ?bytes, records, set_aside = %path.display(),
            "records on disk are damaged; everything around them is read"
        ),
        Err(error) => error!(
            log = %log.display(), segment, ?bytes, records, %error,
            "records on disk are damaged and cannot be set aside; everything around them is read"
        ),
    }
}

#[derive(Default)]
struct Replay {
    path: PathBuf,
    state: State,
    damaged: Vec<Damage>,
    memos: Vec<(i64, Bytes)>,
    lost_requests: u64,
    checkpoint_damaged: bool,
    missing: Vec<SegmentNumber>,
    gaps_are_settled: bool,
    /// Whether nobody knows what was in a segment, and no gap behind it has told since.
    has_unknown_segment: bool,
    /// Whether the checkpoint is sound and its state is none that this version writes.
    is_state_unknown: bool,
    /// The first record that another version has written.
    foreign: Option<Foreign>,
    cut_short: Option<Truncation>,
}

/// A record of a kind that this version does not know.
struct Foreign {
    segment: SegmentNumber,
    seq: Seq,
    kind: u8,
}

impl Foreign {
    fn refusal(&self, log: &Path) -> LogError {
        let Foreign { segment, seq, kind } = self;
        let (first, last) = (KINDS.start(), KINDS.end());
        forebay_wal::refusal(
            log,
            &format!(
                "record {seq} in segment {segment} is of kind {kind}, and this program knows {first} to {last}"
            ),
        )
    }
}

impl Replay {
    /// Where nobody knows how many there were, one is counted, so that it shows.
    fn lost_requests(&self) -> u64 {
        self.lost_requests + u64::from(self.has_unknown_segment)
    }

    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Checkpoint { state } => match State::decode(state) {
                Some(state) => self.state = state,
                None => self.is_state_unknown = true,
            },
            Event::CheckpointDamaged => {
                self.gaps_are_settled = true;
                self.checkpoint_damaged = true;
                warn!("the checkpoint on disk is damaged: what was delivered before may be sent again");
            }
            Event::Record(record) => self.on_record(&record),
            Event::Damage(damage) => {
                self.has_unknown_segment |= damage.seqs.is_empty() && !damage.bytes.is_empty();
                self.damaged.push(damage);
            }
            Event::Missing(segment) => self.on_missing(&segment),
            Event::Truncation(cut_short) => {
                tell_of(&self.path, &cut_short);
                self.cut_short = Some(cut_short);
            }
            Event::TornTail { segment, offset } => {
                warn!(
                    segment = segment.get(),
                    offset,
                    "the last record on disk is begun and not whole, and nothing says that it was ever synced: either \
                     it was being written at the last stop and was not acknowledged as stored, or the disk has \
                     damaged it since; it does not count"
                );
            }
        }
    }

    fn on_record(&mut self, record: &forebay_wal::LogRecord<'_>) {
        match Entry::read(record.payload) {
            Ok(Entry::Accepted(accepted)) => self.on_readings(record, &accepted),
            Ok(Entry::Derived(accepted, merged)) => {
                self.on_readings(record, &accepted);
                self.state.settle(&Settlement { notes: Vec::new(), spans: merged });
            }
            Ok(Entry::Batch(note)) => self.state.note(record.seq.get(), note),
            Ok(Entry::Settled(settlement)) => self.state.settle(&settlement),
            Err(_) if Entry::foreign_kind(record.payload).is_some() => {
                let kind = record.payload[0];
                self.foreign.get_or_insert(Foreign { segment: record.segment, seq: record.seq, kind });
            }
            Err(error) => {
                warn!(seq = record.seq.get(), segment = record.segment.get(), %error, "passing over a record")
            }
        }
    }

    fn on_readings(&mut self, record: &forebay_wal::LogRecord<'_>, accepted: &Accepted<'_>) {
        let bytes = forebay_wal::record_bytes(record.payload.len());
        let amount = Amount { readings: u64::from(accepted.count), bytes };
        let missing = self.state.accept(record.segment, accepted.number, amount);
        if self.gaps_are_settled {
            // Whether they were settled or lost was in the checkpoint.
            self.gaps_are_settled = false;
        } else {
            self.lost_requests += missing;
            self.has_unknown_segment &= missing == 0;
        }
        if !accepted.memo.is_empty() {
            self.memos.push((accepted.accepted_at, Bytes::copy_from_slice(accepted.memo)));
        }
    }

    fn on_missing(&mut self, segment: &Segment) {
        self.missing.push(segment.number);
        let Some(content) = self.state.contents.remove(&segment.number) else { return };
        let span = Span::of_records(content.numbers.clone());
        if self.state.settled.contains_all(span) {
            return;
        }
        let (requests, readings) = (content.numbers.end - content.numbers.start, content.amount.readings);
        self.state.settle(&Settlement { notes: Vec::new(), spans: vec![span] });
        if self.checkpoint_damaged {
            warn!(
                segment = segment.number.get(),
                requests,
                readings,
                "a segment is not there; the checkpoint that would say whether it was still needed is damaged"
            );
            return;
        }
        self.lost_requests += requests;
        error!(
            segment = segment.number.get(),
            requests, readings, "a segment is missing on disk; its readings are lost"
        );
    }
}

/// Says that a segment is shorter than it was made.
pub fn tell_of(log: &Path, cut_short: &Truncation) {
    let Truncation { segment, bytes, made_bytes, seq } = cut_short;
    error!(
        log = %log.display(), segment = segment.get(), bytes, made_bytes, first_record = seq.get(),
        "a segment on disk is shorter than it was made; what stood at its end is lost: nobody knows whether that was \
         records, from this one on"
    );
}

/// Finds what is not settled, segment by segment.
struct Walk<'a> {
    state: &'a mut State,
    /// The requests that have readings in a noted batch.
    requests: BTreeMap<u64, ReadRequest>,
    /// The readings that are in no batch, by segment.
    unread: BTreeMap<SegmentNumber, Amount>,
    damaged: Vec<Damage>,
    lost_requests: u64,
    cut_short: Option<Truncation>,
}

impl Walk<'_> {
    fn new(state: &mut State, cut_short: Option<Truncation>) -> Walk<'_> {
        let (requests, unread) = (BTreeMap::new(), BTreeMap::new());
        Walk { state, requests, unread, damaged: Vec::new(), lost_requests: 0, cut_short }
    }

    /// Only segments are read that have something in a batch, or something that is settled and something that is
    /// not, or that are shorter than they were made: of the others it is known what they hold.
    fn through(&mut self, log: &Log, segment: &Segment) -> Result<(), LogError> {
        let Some(content) = self.state.contents.get(&segment.number).cloned() else { return Ok(()) };
        if self.state.is_settled(segment.number) {
            return Ok(());
        }
        let is_whole = self.cut_short.is_none_or(|cut_short| cut_short.segment != segment.number);
        if is_whole && self.state.is_untouched(segment.number) {
            self.unread.insert(segment.number, content.amount);
            return Ok(());
        }
        let noted: SpanSet = self.state.notes.values().flat_map(|note| note.spans.iter().copied()).collect();
        let mut reader = log.directory().reader(segment, None)?;
        let mut expected = content.numbers.start;
        loop {
            let found = reader.next(SegmentEnd::Below(segment.seqs.end));
            let found = found.map_err(|error| log.directory().unreadable(segment, error))?;
            let record = match found {
                None => break,
                Some(SegmentItem::Record(record)) => record,
                Some(SegmentItem::Damage(damage)) => {
                    self.damaged.push(damage);
                    continue;
                }
            };
            let Some(accepted) = Entry::readings(record.payload) else { continue };
            self.lose(expected..accepted.number);
            expected = accepted.number + 1;
            let span = Span::of_record(accepted.number);
            let amount = Amount {
                readings: open_readings(&self.state.settled, accepted.number, accepted.count),
                bytes: forebay_wal::record_bytes(record.payload.len()),
            };
            if amount.readings == 0 {
                continue;
            }
            if !noted.intersects(span) {
                *self.unread.entry(segment.number).or_default() += amount;
            } else if let Some(request) = cursor::request(segment.number, record.payload.len(), accepted) {
                self.requests.insert(accepted.number, request);
            } else {
                self.lose(accepted.number..accepted.number + 1);
            }
        }
        self.lose(expected..content.numbers.end);
        Ok(())
    }

    /// Requests that nobody has any more are settled. Those that were settled before are no loss.
    fn lose(&mut self, numbers: Range<u64>) {
        let requests = self.state.settled.open_records(numbers.clone());
        if requests > 0 {
            self.lost_requests += requests;
            error!(requests, "requests on disk cannot be read; their readings are lost");
            self.state.settle(&Settlement { notes: Vec::new(), spans: vec![Span::of_records(numbers)] });
        }
    }
}

/// How many readings of a request are in none of the spans.
fn open_readings(taken: &SpanSet, number: u64, count: u32) -> u64 {
    lendable(taken, number, count).iter().map(|indexes| indexes.len() as u64).sum()
}

/// The indexes of the readings of a request that are in none of the spans.
pub fn lendable(taken: &SpanSet, number: u64, count: u32) -> Vec<Range<usize>> {
    let index = |place: Place| if place.seq > number { count } else { place.index.min(count) } as usize;
    let gaps = taken.gaps(Span::of_record(number));
    gaps.into_iter().map(|gap| index(gap.from)..index(gap.to)).filter(|range| !range.is_empty()).collect()
}

/// The requests of noted batches, with what they count for.
type Records = HashMap<u64, (Arc<Record>, Amount)>;

/// Makes the batches that may have been sent. One that is not whole is none: its readings go back to the others.
fn resume(
    state: &mut State,
    requests: BTreeMap<u64, ReadRequest>,
    unread: &mut BTreeMap<SegmentNumber, Amount>,
) -> (Vec<Resumed>, Records) {
    let is_whole = |note: &Note| {
        let mut numbers = note.spans.iter().flat_map(|span| span.records());
        numbers.all(|number| requests.contains_key(&number))
    };
    state.notes.retain(|seq, note| {
        let whole = is_whole(note);
        if !whole {
            warn!(
                seq,
                key = note.key,
                "a batch on disk is not whole; what is left of it goes under other keys"
            );
        }
        whole
    });
    let noted: SpanSet = state.notes.values().flat_map(|note| note.spans.iter().copied()).collect();
    let mut records = HashMap::new();
    for (number, request) in requests {
        let count = u32::try_from(request.readings.len()).unwrap_or(u32::MAX);
        let amount = Amount { readings: open_readings(&state.settled, number, count), ..request.amount };
        if noted.intersects(Span::of_record(number)) {
            // Its other readings, if there are any, come in their turn: the segment is to be read.
            unread.entry(request.segment).or_default();
            records.insert(number, (Arc::new(record(request, amount.readings, Waiters::default())), amount));
        } else {
            *unread.entry(request.segment).or_default() += amount;
        }
    }
    let resumed = state.notes.iter().map(|(seq, note)| Resumed {
        key: note.key.clone(),
        note: NoteId(*seq),
        parts: parts(note, &records),
    });
    (resumed.collect(), records)
}

fn parts(note: &Note, records: &Records) -> Vec<Part> {
    let touched = note.spans.iter().flat_map(|span| span.records().map(move |number| (*span, number)));
    let lend = |(span, number): (Span, u64)| {
        let (record, _) = records.get(&number)?;
        let from = if number == span.from.seq { span.from.index as usize } else { 0 };
        let to = if number == span.to.seq { span.to.index as usize } else { usize::MAX };
        Some(Part::range(record, from..to))
    };
    touched.filter_map(lend).filter(|part| !part.is_empty()).collect()
}

/// A request that was read, to be lent; so many of its readings are not settled.
pub fn record(request: ReadRequest, unsettled: u64, waiters: Waiters) -> Record {
    let parts = RecordParts {
        seq: Some(request.number),
        held_bytes: request.amount.bytes,
        accepted_at: instant(request.accepted_at),
        made_by: request.made_by,
        waiters,
        readings: request.readings,
    };
    Record::with_unsettled(parts, unsettled)
}

/// The moment of a time in nanoseconds since the Unix epoch: now, if the clock was set back since.
pub fn instant(nanos: i64) -> Instant {
    let now = Instant::now();
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
    let age = wall_time().duration_since(at).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}
