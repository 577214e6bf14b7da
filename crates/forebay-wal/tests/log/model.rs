//! The log against a model, on a file system that fails, crashes and loses unsynced writes.
//!
//! A failed run prints its seed; `FOREBAY_TEST_SEED=…` repeats the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use forebay_wal::faulty_fs::{FaultRates, FaultyFs};
use forebay_wal::{
    Durability, Event, Log, LogError, LogOptions, Segment, SegmentEnd, SegmentItem, SegmentNumber, Seq,
    Spare, SpareJob,
};

const SEGMENT_BYTES: u64 = 16 * 1024;
const OPERATIONS: usize = 400;

fn config() -> LogOptions {
    // Small, so that copied and uncopied records come in every order.
    LogOptions { copied_bytes_max: 1000, ..LogOptions::new("/log".into(), SEGMENT_BYTES) }
}

/// A record in the model; its payload follows from its id and size.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    id: u64,
    bytes: usize,
    segment: SegmentNumber,
    synced: bool,
}

impl Entry {
    fn payload(&self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.id);
        std::iter::repeat_with(|| random.u8(..)).take(self.bytes).collect()
    }
}

/// An attempted checkpoint, durable or not.
#[derive(Clone, Debug, Default)]
struct Attempt {
    /// The sequence number of the next record at that time.
    seq: Seq,
    /// All segments that were settled by then.
    settled: BTreeSet<SegmentNumber>,
}

/// The expected content of the log.
#[derive(Debug)]
struct Model {
    /// The committed records.
    live: BTreeMap<Seq, Entry>,
    /// The records appended since the last commit.
    group: BTreeMap<Seq, Entry>,
    /// The records of a failed commit. A reopen may bring them back until a later segment is on disk.
    void: BTreeMap<Seq, Entry>,
    attempts: Vec<Attempt>,
    /// The last attempt that is surely durable; a later one may be.
    durable: usize,
    /// No reopen may end below this.
    synced_seq: Seq,
    /// Whether the log has a segment that it appends to.
    active: bool,
    /// Whether there was a power loss since the log was last opened.
    crashed: bool,
    ids: u64,
}

impl Model {
    fn new() -> Model {
        Model {
            live: BTreeMap::new(),
            group: BTreeMap::new(),
            void: BTreeMap::new(),
            attempts: vec![Attempt { seq: Seq::FIRST, settled: BTreeSet::new() }],
            durable: 0,
            synced_seq: Seq::FIRST,
            active: false,
            crashed: false,
            ids: 0,
        }
    }

    fn next_seq(&self) -> Seq {
        let last = self.group.last_key_value().or(self.live.last_key_value());
        last.map_or(Seq::FIRST, |(seq, _)| seq.next()).max(self.synced_seq)
    }

    fn committed(&mut self) {
        self.live.append(&mut self.group);
    }

    fn synced(&mut self) {
        self.committed();
        self.live.values_mut().for_each(|entry| entry.synced = true);
        self.synced_seq = self.next_seq();
    }

    fn failed(&mut self) {
        self.active = false;
        if !self.group.is_empty() {
            self.void = std::mem::take(&mut self.group);
        }
    }

    /// Checks the findings at a reopening, and takes them over.
    fn reopened(&mut self, findings: &Findings, end: Seq) {
        assert!(findings.wrong.is_empty(), "false alarms: {:?}", findings.wrong);
        let found = findings.checkpoint.unwrap_or(0);
        assert!(found >= self.durable, "checkpoint {found} came back instead of {}", self.durable);
        let Attempt { seq: start, settled } = self.attempts[found].clone();
        assert_eq!(
            end,
            start.saturating_add(findings.records.len() as u64),
            "all sequence numbers from {start} on, once"
        );
        assert!(end >= self.synced_seq, "it ends at {end}, and {} was next to be synced", self.synced_seq);
        let lost = self.live.range(end..).find(|(_, entry)| entry.synced || !self.crashed);
        assert_eq!(lost, None, "a record is lost from {end} on, after a crash: {}", self.crashed);
        self.live.split_off(&end);
        for ((seq, segment, payload), expected) in findings.records.iter().zip(start.get()..) {
            assert_eq!(seq.get(), expected, "in their order");
            let maybe = self.group.get(seq).or(self.void.get(seq));
            let entry =
                *self.live.entry(*seq).or_insert_with(|| *maybe.expect("it was appended and not voided"));
            assert!(entry.payload() == *payload, "record {seq} is not {entry:?}");
            assert_eq!(entry.segment, *segment, "record {seq}");
        }
        self.group.clear();
        self.void.clear();
        (self.durable, self.active, self.crashed) = (found, false, false);
        self.live.retain(|_, entry| !settled.contains(&entry.segment));
        self.synced_seq = end;
        self.synced();
    }

    /// The expected records of a segment below a sequence number.
    fn in_segment(&self, number: SegmentNumber, below: Seq) -> BTreeMap<Seq, Entry> {
        let records = self.live.range(..below).filter(|(_, entry)| entry.segment == number);
        records.map(|(seq, entry)| (*seq, *entry)).collect()
    }
}

/// The findings at an opening.
#[derive(Debug, Default)]
struct Findings {
    checkpoint: Option<usize>,
    records: Vec<(Seq, SegmentNumber, Vec<u8>)>,
    wrong: Vec<String>,
}

fn open(fs: &FaultyFs, seed: u64) -> (Result<Log, LogError>, Findings) {
    let mut findings = Findings::default();
    let visit = &mut |event: Event<'_>| match event {
        Event::Checkpoint { state } => {
            let number = u64::from_le_bytes(state[..8].try_into().expect("eight bytes"));
            findings.checkpoint = Some(usize::try_from(number).expect("small"));
        }
        Event::Record(record) => findings.records.push((record.seq, record.segment, record.payload.to_vec())),
        Event::TornTail { .. } => {}
        Event::CheckpointDamaged | Event::Damage(_) | Event::Missing(_) | Event::Truncation(_) => {
            findings.wrong.push(format!("{event:?}"))
        }
    };
    let log = Log::open(Arc::new(fs.clone()), config(), seed, visit);
    (log, findings)
}

/// The log, its model, and the state of the disk and the process.
struct Run {
    random: fastrand::Rng,
    fs: FaultyFs,
    log: Log,
    model: Model,
    job: Option<SpareJob>,
    spare: Option<Spare>,
    faults: FaultRates,
    disk_full: bool,
    /// Whether the process is about to be killed.
    dying: bool,
    /// Whether anything failed since the log was opened.
    ever_failed: bool,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = fastrand::Rng::with_seed(seed);
        let fs = FaultyFs::new(random.u64(..));
        let (log, findings) = open(&fs, random.u64(..));
        assert!(findings.records.is_empty());
        Run {
            random,
            fs,
            log: log.expect("nothing fails"),
            model: Model::new(),
            job: None,
            spare: None,
            faults: FaultRates::default(),
            disk_full: false,
            dying: false,
            ever_failed: false,
        }
    }

    fn step(&mut self) {
        if self.random.u8(..8) == 0 {
            self.resume_last_segment();
        }
        match self.random.u32(..100) {
            0..38 => self.append(),
            38..42 => self.die(),
            42..54 => self.commit(Durability::Written),
            54..70 => self.commit(Durability::Synced),
            70..76 => self.checkpoint(),
            76..82 => self.spare(),
            82..86 => self.read_back_one(),
            86..90 => self.change_faults(),
            90..94 => self.crash(),
            94..97 => self.reopen(),
            97..99 => self.reopen_under_faults(),
            _ => self.use_a_file_with_void_records(),
        }
        self.check_spares();
    }

    /// The value of a success; `None` after a failure, which is allowed only while something can fail.
    fn worked<T>(&mut self, result: Result<T, LogError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let sound = self.faults == FaultRates::default() && !self.disk_full && !self.dying;
                assert!(!sound, "nothing fails, and yet: {error}");
                self.ever_failed = true;
                None
            }
        }
    }

    /// Appends to the last segment found at the start from now on, if there is one.
    fn resume_last_segment(&mut self) {
        let result = self.log.resume_last_segment();
        println!("resume the last segment: {result:?}, {:?}", self.log.active());
        self.worked(result);
        self.model.active = self.log.active().is_some();
    }

    fn append(&mut self) {
        let bytes = match self.random.u8(..32) {
            0..12 => 100,
            12..20 => self.random.usize(1..200),
            20..30 => self.random.usize(1..4000),
            30 => self.random.usize(4000..16_000),
            _ => self.random.usize(16_000..50_000),
        };
        self.append_of(bytes);
    }

    fn append_of(&mut self, bytes: usize) {
        self.model.ids += 1;
        let mut entry = Entry { id: self.model.ids, bytes, segment: SegmentNumber::default(), synced: false };
        let payload = entry.payload();
        let (front, back) = payload.split_at(bytes / 3);
        let before = self.log.segments().last().map(|segment| segment.number);
        let result = self.log.append(&[front, back]);
        println!("append {bytes} bytes: {result:?}");
        let Some(seq) = self.worked(result) else { return self.model.failed() };
        assert_eq!(seq, self.model.next_seq(), "sequence numbers have no holes");
        entry.segment = self.log.segments().last().expect("it is in a segment").number;
        if before.is_some_and(|before| entry.segment > before) {
            // A later segment proves that everything before it was synced.
            self.model.live.values_mut().for_each(|entry| entry.synced = true);
        }
        // The next segment is on disk by now, so void records cannot come back.
        self.model.void.clear();
        self.model.active = true;
        self.model.group.insert(seq, entry);
    }

    fn commit(&mut self, durability: Durability) {
        let result = self.log.commit(durability);
        println!("commit {durability:?}: {result:?}");
        match (self.worked(result), durability) {
            (None, _) => self.model.failed(),
            (Some(()), Durability::Written) => self.model.committed(),
            (Some(()), Durability::Synced) => self.model.synced(),
        }
        assert_eq!(self.log.position().seq, self.model.next_seq());
    }

    fn checkpoint(&mut self) {
        let part = self.random.f64();
        self.settle(part);
    }

    /// Writes a checkpoint that settles about this part of the segments.
    fn settle(&mut self, part: f64) {
        let mut numbers: Vec<_> = self.log.segments().iter().map(|segment| segment.number).collect();
        let active = if self.model.active { numbers.pop() } else { None };
        numbers.retain(|_| self.random.f64() < part);
        let mut settled = self.model.attempts[self.model.durable].settled.clone();
        settled.extend(&numbers);
        let goes = numbers.first().copied();
        // The active segment stays, even if it is called settled.
        numbers.extend(active.filter(|_| self.random.bool()));
        let mut state = (self.model.attempts.len() as u64).to_le_bytes().to_vec();
        state.resize(if self.random.u8(..8) == 0 { self.random.usize(8..30_000) } else { 8 }, 7);
        let next_seq = self.model.next_seq();
        let result = self.log.checkpoint(state, &numbers);
        println!("checkpoint {} settles {settled:?}: {result:?}", self.model.attempts.len());
        let worked = self.worked(result).is_some();
        if self.log.position().seq < next_seq || !self.log.is_synced() {
            assert!(!worked, "a checkpoint syncs all records before it");
            return self.model.failed();
        }
        self.model.synced();
        self.model.attempts.push(Attempt { seq: next_seq, settled: settled.clone() });
        // A failed checkpoint may be durable if only the removal of segments has failed.
        let gone = |number| self.log.segments().iter().all(|segment| segment.number != number);
        if worked || goes.is_some_and(gone) {
            self.model.durable = self.model.attempts.len() - 1;
            self.model.live.retain(|_, entry| !settled.contains(&entry.segment));
        }
    }

    /// Settles a segment with void records, and reuses its file for records with the same sequence numbers, so that a
    /// void record lies where the next record would begin.
    fn use_a_file_with_void_records(&mut self) {
        self.no_faults();
        self.reopen();
        (0..self.random.u8(4..20)).for_each(|_| self.append_of(104));
        self.faults = FaultRates { sync: 1.0, ..FaultRates::default() };
        self.fs.set_faults(self.faults);
        self.commit(Durability::Synced);
        self.no_faults();
        self.append_of(104);
        self.settle(1.0);
        // A record of this size gets a segment of its own.
        self.append_of(17_000);
        let bytes = [232, 360, 488][self.random.usize(..3)];
        self.append_of(bytes);
        self.commit(Durability::Synced);
        self.reopen();
    }

    fn spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            println!("give {spare:?}");
            return self.log.give_spare(spare);
        }
        match self.job.take() {
            Some(job) => {
                let made = job.run();
                println!("run a job: {made:?}");
                self.spare = self.worked(made);
            }
            None => {
                self.job = self.log.wants_spare();
                println!("ask for a job: {:?}", self.job);
            }
        }
    }

    /// Reads a segment in the same way as a running gateway.
    fn read_back_one(&mut self) {
        if let Some(segment) = self.random.choice(self.log.segments().to_vec()) {
            let committed = self.model.live.last_key_value().map_or(Seq::default(), |(seq, _)| seq.next());
            let result = self.read_back(&segment, segment.seqs.end.min(committed));
            self.worked(result);
        }
    }

    fn read_back(&self, segment: &Segment, below: Seq) -> Result<(), LogError> {
        let expected = self.model.in_segment(segment.number, below);
        let mut reader = self.log.directory().reader(segment, None)?;
        let mut found = BTreeMap::new();
        let path = || Path::new("/log").join(segment.number.to_string());
        let failed = |error| LogError { action: "read", path: path(), error };
        while let Some(next) = reader.next(SegmentEnd::Below(below)).map_err(failed)? {
            match next {
                SegmentItem::Record(record) => found.insert(record.seq, record.payload.to_vec()),
                SegmentItem::Damage(damage) => {
                    panic!("false alarm: {damage:?} below {below}, expected {expected:?}")
                }
            };
        }
        let expected: BTreeMap<_, _> = expected.iter().map(|(seq, entry)| (*seq, entry.payload())).collect();
        assert!(found == expected, "{segment:?} has {:?}, not {:?}", found.keys(), expected.keys());
        Ok(())
    }

    fn change_faults(&mut self) {
        let random = &mut self.random;
        let mut probability =
            |often: u8| if random.u8(..8) < often { [0.02, 0.2, 1.0][random.usize(..3)] } else { 0.0 };
        self.faults = match probability(4) > 0.0 {
            true => FaultRates {
                write: probability(2),
                sync: probability(2),
                read: probability(1),
                name: probability(2),
                directory_sync: probability(2),
            },
            false => FaultRates::default(),
        };
        self.disk_full = self.random.u8(..4) == 0;
        self.fs.set_free(self.disk_full.then(|| self.random.usize(..80_000)));
        self.fs.set_faults(self.faults);
        println!("{:?}, disk full: {}", self.faults, self.disk_full);
    }

    fn no_faults(&mut self) {
        (self.faults, self.disk_full) = (FaultRates::default(), false);
        self.fs.set_faults(self.faults);
        self.fs.set_free(None);
    }

    /// Runs a few operations, is killed during one of them, perhaps together with a power loss, and starts again.
    fn die(&mut self) {
        self.dying = true;
        self.fs.set_calls_left(Some(self.random.u32(..40)));
        for _ in 0..self.random.u8(..8) {
            match self.random.u8(..8) {
                0..4 => self.append(),
                4 => self.commit(Durability::Written),
                5 => self.commit(Durability::Synced),
                _ => self.checkpoint(),
            }
        }
        if self.random.bool() {
            self.crash_only();
        }
        self.reopen_while_dying();
    }

    /// Is killed a few times while it opens the log, then opens it.
    fn reopen_while_dying(&mut self) {
        for _ in 0..self.random.u8(..3) {
            self.fs.set_calls_left(Some(self.random.u32(..20)));
            let (log, findings) = open(&self.fs, self.random.u64(..));
            assert_eq!(findings.wrong, Vec::<String>::new(), "an I/O error is no damage");
            println!("die while opening: {log:?}");
            if self.random.bool() {
                self.crash_only();
            }
        }
        self.dying = false;
        self.fs.set_calls_left(None);
        self.reopen();
    }

    fn crash_only(&mut self) {
        println!("crash");
        self.fs.crash();
        self.model.crashed = true;
    }

    fn crash(&mut self) {
        self.crash_only();
        self.no_faults();
        self.reopen();
    }

    /// Reopens the log as after a kill: all written bytes are there.
    fn reopen(&mut self) {
        (self.job, self.spare) = (None, None);
        loop {
            let (log, findings) = open(&self.fs, self.random.u64(..));
            let seqs =
                findings.records.first().zip(findings.records.last()).map(|(first, last)| first.0..=last.0);
            println!(
                "open, crashed {}: {log:?}, checkpoint {:?}, {seqs:?}",
                self.model.crashed, findings.checkpoint
            );
            let Some(log) = self.worked(log) else {
                assert_eq!(findings.wrong, Vec::<String>::new(), "an I/O error is no damage");
                self.after_a_failed_open();
                continue;
            };
            self.model.reopened(&findings, log.position().seq);
            self.log = log;
            break;
        }
        self.ever_failed = self.faults != FaultRates::default();
        self.read_back_all();
    }

    fn after_a_failed_open(&mut self) {
        if self.random.u8(..3) == 0 {
            self.crash_only();
        }
        if self.random.u8(..3) == 0 {
            self.no_faults();
        }
    }

    fn reopen_under_faults(&mut self) {
        self.change_faults();
        self.reopen();
    }

    fn read_back_all(&mut self) {
        let faults = std::mem::take(&mut self.faults);
        self.fs.set_faults(self.faults);
        let segments = self.log.segments().to_vec();
        for segment in &segments {
            self.read_back(segment, segment.seqs.end).expect("nothing fails");
        }
        let listed = |entry: &Entry| segments.iter().any(|segment| segment.number == entry.segment);
        let lost = self.model.live.iter().find(|(_, entry)| !listed(entry));
        assert_eq!(lost, None, "every record is in a segment of {segments:?}");
        self.faults = faults;
        self.fs.set_faults(faults);
    }

    /// Spare files do not pile up.
    fn check_spares(&self) {
        if !self.ever_failed && self.faults == FaultRates::default() && !self.dying {
            let names = forebay_wal::Fs::list(&self.fs, Path::new("/log")).expect("nothing fails");
            let spares = names.iter().filter(|name| name.starts_with("spare-")).count();
            assert!(spares <= 2, "{names:?}");
        }
    }
}

/// Prints the seed and the operation of a failed run.
struct Progress {
    seed: u64,
    operation: usize,
    before: usize,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Progress { seed, operation, before } = self;
            eprintln!(
                "FOREBAY_TEST_SEED={seed}, operation {operation}, after {before} operations of other runs"
            );
        }
    }
}

fn check(seed: u64, before: usize) {
    let mut progress = Progress { seed, operation: 0, before };
    let mut run = Run::new(seed);
    for operation in 1..=OPERATIONS {
        progress.operation = operation;
        run.step();
    }
    run.no_faults();
    run.reopen();
}

#[test]
fn the_log_holds_what_its_model_holds_through_faults_and_crashes() {
    if let Ok(seed) = std::env::var("FOREBAY_TEST_SEED") {
        return check(seed.parse().expect("a whole number"), 0);
    }
    let first: u64 = fastrand::u64(..1 << 48);
    for run in 0..crate::runs(50, 200) {
        check(first + run, usize::try_from(run).expect("small") * OPERATIONS);
    }
}

/// A log without a model, for defects that were found once.
fn opened(fs: &FaultyFs) -> (Log, Findings) {
    let (log, findings) = open(fs, 7 + fastrand::u64(..));
    (log.expect("nothing fails"), findings)
}

/// Appends records of so many bytes in one commit.
fn append(log: &mut Log, count: u64, bytes: usize, durability: Durability) {
    for _ in 0..count {
        log.append(&[&vec![b'x'; bytes]]).expect("room");
    }
    log.commit(durability).expect("nothing fails");
}

fn checkpoint(log: &mut Log, number: u64, settled: &[SegmentNumber]) -> Result<(), LogError> {
    log.checkpoint(number.to_le_bytes().to_vec(), settled)
}

fn numbers(log: &Log) -> Vec<SegmentNumber> {
    log.segments().iter().map(|segment| segment.number).collect()
}

/// All records that a running gateway can read. None of them may be damaged.
fn readable(log: &Log) -> Vec<u64> {
    let mut seqs = Vec::new();
    for segment in log.segments() {
        let mut reader = log.directory().reader(segment, None).expect("it is there");
        while let Some(found) = reader.next(SegmentEnd::Below(segment.seqs.end)).expect("nothing fails") {
            let SegmentItem::Record(record) = found else { panic!("{found:?} in {segment:?}") };
            seqs.push(record.seq.get());
        }
    }
    seqs
}

/// Runs a case with different losses of unsynced writes.
fn for_some_seeds(case: impl Fn(u64, &FaultyFs)) {
    for seed in 0..40 {
        println!("seed {seed}");
        case(seed, &FaultyFs::new(seed));
    }
}

#[test]
fn the_file_of_a_large_record_gets_another_name_than_the_spare_file() {
    // Both were named after the next segment: making the larger file emptied the spare one, which was then renamed as
    // that segment, and the header of the segment after it was written into the same file.
    let fs = FaultyFs::new(1);
    let (mut log, _) = opened(&fs);
    append(&mut log, 3, 4000, Durability::Synced);
    let spare = log.wants_spare().expect("the segment is half full").run().expect("room");
    log.give_spare(spare);
    append(&mut log, 1, 40_000, Durability::Synced);
    append(&mut log, 5, 4000, Durability::Synced);
    assert_eq!(readable(&log), (1..=9).collect::<Vec<_>>());
    let (_, findings) = opened(&fs);
    assert_eq!((findings.records.len(), findings.wrong.len()), (9, 0), "{:?}", findings.wrong);
}

#[test]
fn the_old_records_of_a_reused_file_are_not_read_as_part_of_the_new_segment() {
    let fs = FaultyFs::new(1);
    let (mut log, _) = opened(&fs);
    append(&mut log, 1, 104, Durability::Synced);
    (0..8).for_each(|_| _ = log.append(&[&[b'v'; 104]]).expect("room"));
    fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
    log.commit(Durability::Synced).expect_err("the disk fails");
    fs.set_faults(FaultRates::default());
    append(&mut log, 1, 17_000, Durability::Synced);
    checkpoint(&mut log, 1, &[SegmentNumber::new(1)]).expect("nothing fails");
    // It goes into the file of the first segment, and is as long as the first three records there.
    append(&mut log, 1, 360, Durability::Synced);
    drop(log);
    let (_, findings) = opened(&fs);
    assert_eq!(findings.records.last().map(|(seq, ..)| seq.get()), Some(3));
}

#[test]
fn two_jobs_make_two_files() {
    // Both files had one name, so the header of the next segment was written into the current one.
    let fs = FaultyFs::new(1);
    let (mut log, _) = opened(&fs);
    append(&mut log, 3, 4000, Durability::Synced);
    let jobs = [log.wants_spare(), log.wants_spare()].map(|job| job.expect("the segment is half full"));
    let [first, second] = jobs.map(|job| job.run().expect("room"));
    log.give_spare(first);
    append(&mut log, 1, 4000, Durability::Synced);
    log.give_spare(second);
    append(&mut log, 6, 4000, Durability::Synced);
    assert_eq!(readable(&log), (1..=10).collect::<Vec<_>>());
}

#[test]
fn records_written_before_a_failed_commit_are_synced_with_the_next_commit() {
    // The file was closed without a sync, and the next segment claimed that everything before it was durable.
    for faults in [
        FaultRates { write: 1.0, ..FaultRates::default() },
        FaultRates { sync: 1.0, ..FaultRates::default() },
    ] {
        for_some_seeds(|_, fs| {
            let (mut log, _) = opened(fs);
            append(&mut log, 2, 100, Durability::Written);
            log.append(&[b"void"]).expect("room");
            fs.set_faults(faults);
            log.commit(Durability::Synced).expect_err("the disk fails");
            assert!(!log.is_synced());
            fs.set_faults(FaultRates::default());
            append(&mut log, 1, 100, Durability::Synced);
            fs.crash();
            let (_, findings) = opened(fs);
            assert_eq!((findings.records.len(), findings.wrong.len()), (3, 0), "{:?}", findings.wrong);
        });
    }
}

#[test]
fn records_read_at_a_start_are_durable_even_after_an_earlier_failed_sync() {
    // A failed sync leaves pages that read well, and the next sync finds nothing to do.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 3, 100, Durability::Synced);
        log.append(&[&[b'x'; 2000]]).expect("room");
        fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
        log.commit(Durability::Synced).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        drop(log);
        let (mut log, findings) = opened(fs);
        assert_eq!(findings.records.len(), 4, "it was written, and nothing makes it void");
        append(&mut log, 1, 100, Durability::Synced);
        fs.crash();
        let (_, findings) = opened(fs);
        assert_eq!((findings.records.len(), findings.wrong.len()), (5, 0), "{:?}", findings.wrong);
    });
}

#[test]
fn no_start_appends_behind_the_void_records_of_a_segment() {
    // The checkpoint put the next record behind the void one, and a start appended there: a reader of the segment met
    // the void record first, and reported everything behind it as damaged.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 2, 100, Durability::Synced);
        log.append(&[&[b'v'; 4000]]).expect("room");
        fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
        log.commit(Durability::Synced).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        checkpoint(&mut log, 1, &[]).expect("nothing fails");
        fs.crash();
        let (mut log, findings) = opened(fs);
        assert_eq!((findings.records.len(), findings.wrong.len()), (0, 0), "{:?}", findings.wrong);
        log.resume_last_segment().expect("nothing fails");
        append(&mut log, 2, 100, Durability::Synced);
        assert_eq!(readable(&log), [1, 2, 3, 4]);
    });
}

#[test]
fn a_checkpoint_that_was_written_but_not_synced_removes_no_segment() {
    // The start removed the segments that the checkpoint settled, and a crash brought the older checkpoint back.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 10, 4000, Durability::Synced);
        checkpoint(&mut log, 1, &[]).expect("nothing fails");
        fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
        let settled = numbers(&log)[..1].to_vec();
        checkpoint(&mut log, 2, &settled).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        drop(log);
        let _ = opened(fs);
        fs.crash();
        let (_, findings) = opened(fs);
        assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    });
}

#[test]
fn the_first_checkpoint_removes_no_segment_before_its_file_names_are_durable() {
    // Only the call that made the files had synced the directory.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 10, 4000, Durability::Synced);
        fs.set_faults(FaultRates { directory_sync: 1.0, ..FaultRates::default() });
        checkpoint(&mut log, 1, &[SegmentNumber::new(1)]).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        checkpoint(&mut log, 2, &[SegmentNumber::new(1)]).expect("nothing fails");
        fs.crash();
        let (_, findings) = opened(fs);
        assert_eq!((findings.checkpoint, findings.wrong.len()), (Some(2), 0), "{:?}", findings.wrong);
    });
}

#[test]
fn a_torn_first_checkpoint_is_not_reported_as_damage() {
    for_some_seeds(|seed, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 2, 100, Durability::Synced);
        fs.set_calls_left(Some(u32::try_from(seed).expect("small") % 16));
        let mut state = 1_u64.to_le_bytes().to_vec();
        state.resize(3000, 1);
        let _ = log.checkpoint(state, &[]);
        fs.crash();
        let (_, findings) = opened(fs);
        assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    });
}

#[test]
fn a_half_made_segment_is_ignored_after_a_checkpoint() {
    // It began behind a record that was void by then, so the record was reported as lost.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 2, 4000, Durability::Synced);
        checkpoint(&mut log, 0, &[]).expect("nothing fails");
        log.append(&[&[b'x'; 100]]).expect("room");
        fs.set_faults(FaultRates { directory_sync: 1.0, ..FaultRates::default() });
        log.append(&[&[b'x'; 10_000]]).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        checkpoint(&mut log, 1, &[]).expect("nothing fails");
        fs.crash();
        let (log, findings) = opened(fs);
        assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
        assert_eq!(log.position().seq, Seq::new(3));
    });
}

#[test]
fn a_removed_half_made_segment_does_not_come_back_after_the_next_start() {
    // A crash undid its removal, and it made the records before it void again, after a start had read them.
    for_some_seeds(|_, fs| {
        let (mut log, _) = opened(fs);
        append(&mut log, 1, 100, Durability::Synced);
        log.append(&[&[b'x'; 100]]).expect("room");
        fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
        log.commit(Durability::Synced).expect_err("the disk fails");
        fs.set_faults(FaultRates { directory_sync: 1.0, ..FaultRates::default() });
        log.append(&[&[b'x'; 100]]).expect_err("the disk fails");
        fs.set_faults(FaultRates::default());
        drop(log);
        let (log, findings) = opened(fs);
        drop(log);
        fs.crash();
        let (_, again) = opened(fs);
        assert_eq!(findings.records.len(), again.records.len());
    });
}

#[test]
fn no_record_is_appended_to_a_segment_that_a_failed_checkpoint_may_have_settled() {
    let fs = FaultyFs::new(1);
    let (log, _) = open(&fs, 1);
    let mut log = log.expect("nothing fails");
    log.append(&[b"a record"]).expect("nothing fails");
    (0..2).for_each(|_| log.checkpoint(vec![0; 8], &[]).expect("nothing fails"));
    drop(log);
    let (log, _) = open(&fs, 2);
    let mut log = log.expect("nothing fails");
    fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
    log.checkpoint(vec![0; 8], &[SegmentNumber::new(1)]).expect_err("the disk fails");
    fs.set_faults(FaultRates::default());
    log.resume_last_segment().expect("nothing fails");
    log.append(&[b"another"]).expect("nothing fails");
    log.commit(Durability::Synced).expect("nothing fails");
    drop(log);
    let (_, findings) = open(&fs, 3);
    assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    assert_eq!(findings.records.last().map(|(seq, segment, _)| (seq.get(), segment.get())), Some((2, 2)));
}

#[test]
fn seeds_that_once_found_a_defect_pass() {
    let found = [
        (1, "a checkpoint that a start had read was lost in the next crash"),
        (135, "the same, with the first checkpoint"),
        (9, "a second spare file had the name of the first"),
        (120, "the same, for a record larger than a segment"),
        (128, "records written before a failed commit were never synced"),
        (10, "records that a start had read were lost after an earlier failed sync"),
        (61, "segments were removed for a checkpoint that was written but not synced"),
        (107, "the first checkpoint was torn, and reported as damaged"),
    ];
    for (seed, what) in found {
        println!("{what}");
        check(seed, 0);
    }
}
