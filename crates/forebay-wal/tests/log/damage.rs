//! Damage to a closed log: flipped bits, truncated files, removed files.
//!
//! The log opens, reads every sound record, and reports every lost one, unless nothing is left that proves that the record
//! existed. A failed run prints its seed; `FOREBAY_TEST_SEED=…` repeats the run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_wal::faulty_fs::FaultyFs;
use forebay_wal::{
    Durability, Event, Fs as _, Log, LogOptions, SegmentEnd, SegmentItem, SegmentNumber, Seq, Truncation,
    record_bytes,
};

/// How many times each log is damaged, each time from its undamaged state.
const DAMAGES: usize = 40;

fn open(fs: &FaultyFs, seed: u64, visit: &mut dyn FnMut(Event<'_>)) -> Log {
    let config = LogOptions::new("/log".into(), 16 * 1024);
    Log::open(Arc::new(fs.clone()), config, seed, visit).expect("damage is no error")
}

fn names(fs: &FaultyFs) -> Vec<String> {
    fs.list(Path::new("/log")).expect("nothing fails")
}

fn path(name: &str) -> PathBuf {
    Path::new("/log").join(name)
}

fn segment_name(number: SegmentNumber) -> String {
    format!("{number:020}.segment")
}

fn numbers(log: &Log) -> BTreeSet<SegmentNumber> {
    log.segments().iter().map(|segment| segment.number).collect()
}

/// The sequence numbers of a range, one by one.
fn each(seqs: Range<Seq>) -> impl Iterator<Item = Seq> {
    (seqs.start.get()..seqs.end.get()).map(Seq::new)
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

/// Damages one file and returns its name.
fn damage(random: &mut fastrand::Rng, fs: &FaultyFs) -> Option<String> {
    let name = random.choice(names(fs))?;
    let path = path(&name);
    let size = fs.content(&path).len();
    // Headers and the first records are hit as often as all the rest.
    let offset = match random.u8(..4) {
        0 => random.usize(..64),
        1 => random.usize(2000..5000),
        _ => random.usize(..size.max(1)),
    };
    match random.u8(..8) {
        0 => fs.remove(&path).expect("nothing fails"),
        1 => fs.cut(&path, offset),
        _ if offset < size => fs.flip(&path, offset, 1 << random.u8(..8)),
        _ => return None,
    }
    println!("{name} is damaged at {offset} of {size}");
    Some(name)
}

/// A record and its place.
#[derive(Debug)]
struct Written {
    segment: SegmentNumber,
    bytes: Range<usize>,
    payload: Vec<u8>,
    /// Every record below this was on stable storage before this one was written.
    synced: Seq,
}

/// A log that was synced and closed.
struct Closed {
    fs: FaultyFs,
    records: BTreeMap<Seq, Written>,
    /// The segments that are not settled.
    needed: BTreeSet<SegmentNumber>,
    /// The needed segments in the last checkpoint.
    named: BTreeSet<SegmentNumber>,
    /// The number of checkpoints, and the next sequence number at the last one.
    checkpoints: u8,
    checkpoint_seq: Seq,
}

impl Closed {
    fn make(random: &mut fastrand::Rng) -> Closed {
        let fs = FaultyFs::new(random.u64(..));
        let mut log = open(&fs, random.u64(..), &mut |_| {});
        let (records, none) = (BTreeMap::new(), BTreeSet::new());
        let mut closed = Closed {
            fs,
            records,
            needed: none.clone(),
            named: none,
            checkpoints: 0,
            checkpoint_seq: Seq::FIRST,
        };
        let mut synced = Seq::FIRST;
        for _ in 0..random.usize(1..80) {
            let mut payload = vec![0; random.usize(1..3000)];
            random.fill(&mut payload);
            let last_segment = log.segments().last().map(|segment| segment.number);
            let seq = log.append(&[&payload]).expect("nothing fails");
            let at = log.position();
            if last_segment != Some(at.segment) {
                synced = seq;
            }
            let bytes = index(at.offset - record_bytes(payload.len()))..index(at.offset);
            closed.records.insert(seq, Written { segment: at.segment, bytes, payload, synced });
            if random.u8(..4) > 0 {
                log.commit(Durability::Synced).expect("nothing fails");
                synced = seq.next();
            }
            if random.u8(..20) == 0 {
                closed.checkpoint(&mut log, random);
                synced = seq.next();
            }
        }
        log.commit(Durability::Synced).expect("nothing fails");
        closed.needed = numbers(&log);
        closed.named.retain(|number| closed.needed.contains(number));
        closed
    }

    fn checkpoint(&mut self, log: &mut Log, random: &mut fastrand::Rng) {
        let mut settled: Vec<_> = numbers(log).into_iter().collect();
        settled.pop();
        settled.retain(|_| random.bool());
        self.checkpoints += 1;
        log.checkpoint(vec![self.checkpoints], &settled).expect("nothing fails");
        (self.named, self.checkpoint_seq) = (numbers(log), log.position().seq);
    }

    fn in_segment(&self, number: SegmentNumber) -> impl Iterator<Item = (Seq, &Written)> {
        self.records
            .iter()
            .filter(move |(_, record)| record.segment == number)
            .map(|(seq, record)| (*seq, record))
    }
}

/// The findings at a damaged log, from opening it and from reading all its segments.
#[derive(Debug, Default)]
struct Salvage {
    checkpoint: u8,
    checkpoint_damaged: bool,
    records: BTreeMap<Seq, Vec<u8>>,
    /// Records reported as lost.
    lost: BTreeSet<Seq>,
    /// Segments reported as unreadable.
    unknown: BTreeSet<SegmentNumber>,
    truncation: Option<Truncation>,
}

impl Salvage {
    fn of(fs: &FaultyFs, seed: u64) -> (Log, Salvage) {
        let mut salvage = Salvage::default();
        let log = open(fs, seed, &mut |event| salvage.take(event));
        for segment in log.segments() {
            let mut reader = log.directory().reader(segment, None).expect("it is there");
            while let Some(found) = reader.next(SegmentEnd::Below(segment.seqs.end)).expect("nothing fails") {
                salvage.take(match found {
                    SegmentItem::Record(record) => Event::Record(record),
                    SegmentItem::Damage(damage) => Event::Damage(damage),
                });
            }
        }
        (log, salvage)
    }

    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Checkpoint { state } => self.checkpoint = state[0],
            Event::CheckpointDamaged => self.checkpoint_damaged = true,
            Event::Record(record) => _ = self.records.insert(record.seq, record.payload.to_vec()),
            Event::Damage(damage) if damage.seqs.is_empty() => _ = self.unknown.insert(damage.segment),
            Event::Damage(damage) => self.lost.extend(each(damage.seqs)),
            Event::Missing(segment) => self.lost.extend(each(segment.seqs)),
            Event::Truncation(truncation) => self.truncation = Some(truncation),
            Event::TornTail { .. } => {}
        }
    }
}

/// The undamaged part of a log.
struct Remains {
    /// The whole records in segments that a header or the checkpoint describes.
    whole: BTreeSet<Seq>,
    /// Something proves that all records below this were on stable storage.
    proven: Seq,
}

impl Remains {
    fn of(closed: &Closed, fs: &FaultyFs, named: &BTreeSet<SegmentNumber>, checkpoint_seq: Seq) -> Remains {
        let mut remains = Remains { whole: BTreeSet::new(), proven: checkpoint_seq };
        let names = names(fs);
        for number in &closed.needed {
            let name = segment_name(*number);
            if !names.contains(&name) {
                continue;
            }
            let (before, after) = (closed.fs.content(&path(&name)), fs.content(&path(&name)));
            let same = |bytes: Range<usize>| after.get(bytes.clone()) == Some(&before[bytes]);
            if same(0..32) || same(2048..2080) {
                let first = closed.in_segment(*number).next().map_or(Seq::FIRST, |(seq, _)| seq);
                remains.proven = remains.proven.max(first);
            } else if !named.contains(number) {
                continue;
            }
            for (seq, record) in closed.in_segment(*number).filter(|(_, record)| same(record.bytes.clone())) {
                remains.whole.insert(seq);
                remains.proven = remains.proven.max(record.synced);
            }
        }
        remains
    }

    /// Whether nothing proves that this record was ever synced.
    fn ends_before(&self, seq: Seq) -> bool {
        each(self.proven..seq.next()).any(|seq| !self.whole.contains(&seq))
    }
}

fn check_damaged(closed: &Closed, random: &mut fastrand::Rng) {
    let fs = closed.fs.copy();
    let damaged: Vec<_> = (0..random.usize(1..4)).filter_map(|_| damage(random, &fs)).collect();
    let remains_of = fs.copy();
    let (log, salvage) = Salvage::of(&fs, random.u64(..));
    let last = salvage.checkpoint == closed.checkpoints;
    let checkpoint_hit = damaged.iter().any(|name| name.starts_with("checkpoint"));
    assert!(last || checkpoint_hit, "checkpoint {} was used", salvage.checkpoint);
    let other = closed.checkpoints.saturating_sub(1).max(closed.checkpoints.min(1));
    assert!(damaged.len() > 1 || salvage.checkpoint >= other, "one damaged file leaves the other checkpoint");
    let none = BTreeSet::new();
    let (named, seq) = if last { (&closed.named, closed.checkpoint_seq) } else { (&none, Seq::FIRST) };
    let remains = Remains::of(closed, &remains_of, named, seq);
    for (seq, payload) in &salvage.records {
        assert!(closed.records[seq].payload == *payload, "record {seq} has another payload");
        assert!(!salvage.lost.contains(seq), "record {seq} is read, and reported as lost");
    }
    for (seq, record) in closed.records.iter().filter(|(_, record)| closed.needed.contains(&record.segment)) {
        let is_cut_off = is_cut_off(closed, &remains_of, named, record);
        if salvage.records.contains_key(seq) || (remains.ends_before(*seq) && !is_cut_off) {
            continue;
        }
        assert!(
            !remains.whole.contains(seq) || is_cut_off,
            "record {seq} in {} is whole, but not read",
            record.segment
        );
        let is_behind_cut =
            salvage.truncation.is_some_and(|cut| cut.segment == record.segment && cut.seq <= *seq);
        let is_reported =
            salvage.lost.contains(seq) || salvage.unknown.contains(&record.segment) || is_behind_cut;
        // Without a checkpoint nobody knows which segments existed.
        assert!(
            is_reported || salvage.checkpoint_damaged,
            "record {seq} in {} is lost without a report",
            record.segment
        );
    }
    goes_on(log, &fs, &remains_of, &salvage);
}

/// Whether a record is in the lost end of the youngest segment, and something proves the segment's original size.
fn is_cut_off(closed: &Closed, fs: &FaultyFs, named: &BTreeSet<SegmentNumber>, record: &Written) -> bool {
    let name = segment_name(record.segment);
    if closed.needed.last() != Some(&record.segment) || !names(fs).contains(&name) {
        return false;
    }
    let (before, after) = (closed.fs.content(&path(&name)), fs.content(&path(&name)));
    let same = |bytes: Range<usize>| after.get(bytes.clone()) == Some(&before[bytes]);
    let says_size = named.contains(&record.segment) || same(0..44) || same(2048..2092);
    says_size && record.bytes.start >= after.len()
}

/// A damaged log takes new records, and does not overwrite unreadable segments.
fn goes_on(mut log: Log, fs: &FaultyFs, before: &FaultyFs, salvage: &Salvage) {
    let seq = log.append(&[b"after the damage"]).expect("nothing fails");
    log.commit(Durability::Synced).expect("nothing fails");
    // A start removes the segments that the checkpoint does not list. The unreadable ones must stay.
    let settled = numbers(&log).into_iter().collect::<Vec<_>>();
    log.checkpoint(vec![200], &settled[..settled.len() - 1]).expect("nothing fails");
    drop(log);
    let log = open(fs, 3, &mut |_| {});
    drop(log);
    for number in &salvage.unknown {
        let path = path(&segment_name(*number));
        assert!(fs.content(&path) == before.content(&path), "segment {number} was written over");
    }
    fs.crash();
    let (_, again) = Salvage::of(fs, 5);
    assert_eq!((again.checkpoint, &again.records[&seq][..]), (200, &b"after the damage"[..]));
}

/// Prints the seed of a failed run.
struct Progress(u64);

impl Drop for Progress {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FOREBAY_TEST_SEED={}", self.0);
        }
    }
}

fn check(seed: u64) {
    let _progress = Progress(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let closed = Closed::make(&mut random);
    for number in 0..DAMAGES {
        println!("damage {number}");
        check_damaged(&closed, &mut random);
    }
}

#[test]
fn every_record_that_damage_spares_is_read_and_every_other_is_reported() {
    if let Ok(seed) = std::env::var("FOREBAY_TEST_SEED") {
        return check(seed.parse().expect("a whole number"));
    }
    let first = fastrand::u64(..1 << 48);
    (first..first + crate::runs(15, 60)).for_each(check);
}
