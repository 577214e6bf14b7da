//! The promises of a buffer on disk whose files are damaged: the start goes on, readable readings are delivered,
//! and the others are counted, named and set aside.

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::support::process::{Finished, Process, directory, forebay, run};
use crate::support::{Answer, FakeNode, eventually, reading};

/// Requests in the backlog, each with so many readings.
const REQUESTS: usize = 80;
const READINGS: usize = 100;

/// Where records begin in a segment, and the length of the header before each payload.
const RECORDS_START: usize = 4096;
const HEAD_BYTES: usize = 24;
/// Where the two headers of a segment stand.
const HEADERS: [usize; 2] = [0, 2048];

/// Segments are small, so that there are several.
const SETTINGS: [(&str, &str); 6] = [
    ("server.listen", "127.0.0.1:0"),
    ("server.shutdown_timeout", "150ms"),
    ("buffer.path", "buffer"),
    ("buffer.max_bytes", "1MiB"),
    ("cluster.retry.initial", "5ms"),
    ("cluster.retry.max", "50ms"),
];

/// How a gateway ended that has left readings on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was killed before it had made a batch.
    Killed,
    /// It was killed when it had tried to send some batches.
    KilledWithBatches,
    /// It was told to stop, and the nodes took nothing.
    Stopped,
}

impl End {
    const ALL: [End; 3] = [End::Killed, End::KilledWithBatches, End::Stopped];
}

/// The directory that a gateway has left behind.
struct Backlog {
    end: End,
    directory: tempfile::TempDir,
}

impl Backlog {
    async fn make(end: End) -> Backlog {
        let directory = directory();
        let node = FakeNode::always(Answer::status(503)).await;
        let batches = match end {
            End::KilledWithBatches => [("batch.max_age", "1ms"), ("batch.max_readings", "150")],
            End::Killed | End::Stopped => [("batch.max_age", "1h"), ("batch.max_readings", "1000000")],
        };
        let process = Process::start(command(directory.path(), &node.url(), &batches));
        let gateway = process.gateway();
        for request in 0..REQUESTS {
            let readings: Vec<_> = readings_of(request).map(reading).collect();
            gateway.post(&readings).await.expect_status(202);
        }
        match end {
            End::Killed => drop(process.kill().await),
            End::KilledWithBatches => {
                eventually("batches are tried", || async { node.requests() > 20 }).await;
                drop(process.kill().await);
            }
            End::Stopped => {
                process.terminate();
                process.ended().await.expect_status(0);
            }
        }
        let backlog = Backlog { end, directory };
        let segments = backlog.segments().len();
        assert!(segments >= 5, "there are several segments: {segments}");
        backlog
    }

    /// Another one with the same files.
    fn copy(&self) -> Backlog {
        let directory = directory();
        fs::create_dir(directory.path().join("buffer")).expect("a directory");
        for entry in fs::read_dir(self.path()).expect("files") {
            let entry = entry.expect("a file");
            fs::copy(entry.path(), directory.path().join("buffer").join(entry.file_name())).expect("a copy");
        }
        Backlog { end: self.end, directory }
    }

    /// How many segments, from the first on, have an end that a later one or the checkpoint tells.
    fn segments_with_known_end(&self) -> usize {
        let count = self.segments().len();
        if self.end == End::Stopped { count } else { count - 1 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("buffer")
    }

    fn segment_paths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).expect("files").map(|entry| entry.expect("a file").path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect()
    }

    /// The segments with requests, the oldest first.
    fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<_> = self.segment_paths().into_iter().map(Segment::read).collect();
        segments.retain(|segment| segment.requests(..).count() > 0);
        segments.sort_by_key(|segment| segment.number);
        segments
    }

    /// Starts a gateway on the directory, with a node that takes everything, and waits until the buffer is empty.
    async fn recover(&self) -> Recovery {
        let node = FakeNode::start().await;
        let batch = [("batch.max_age", "5ms")];
        let process = Process::start(command(self.directory.path(), &node.url(), &batch));
        let gateway = process.gateway();
        eventually("all is settled", || async { gateway.account("buffered").await == 0 }).await;
        let ledger = gateway.ledger().await;
        let damaged = gateway.metric("forebay_buffer_damaged_records_total").await.expect("it is counted");
        let account = |name: &str| ledger[name].as_u64().expect("a number");
        let dead_lettered = account("dead_lettered");
        let metric = gateway.metric("forebay_readings_dead_lettered_total{reason=\"damaged\"}").await;
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        let expected = dead_lettered as f64;
        assert_eq!(metric, Some(expected), "all dead letters are damaged records");
        let recovered = account("recovered");
        process.terminate();
        let log = process.ended().await.expect_status(0).stderr;
        Recovery { arrived: arrived(&node), recovered, dead_lettered, damaged, log }
    }

    /// Recovers, and checks that just these requests are lost and reported.
    async fn expect_lost(&self, what: &str, lost: &BTreeSet<usize>) {
        let what = format!("{what}, {:?}", self.end);
        let recovery = self.recover().await;
        recovery.check(&what, lost);
        // It is reported once, and the quarantined file stays.
        let quarantine = self.quarantine();
        let again = self.recover().await;
        again.check(&format!("{what}, the second time"), &(0..REQUESTS).collect());
        assert_eq!(self.quarantine(), quarantine, "{what}: what was set aside stays");
    }

    /// The quarantined files, by their names.
    fn quarantine(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.path().join("quarantine")) else { return BTreeMap::new() };
        let paths = entries.map(|entry| entry.expect("a file").path());
        paths.map(|path| (name(&path), fs::read(path).expect("a file"))).collect()
    }

    /// Fails if these bytes of a segment were not set aside.
    #[track_caller]
    fn expect_set_aside(&self, segment: &Segment, bytes: Range<usize>) {
        let quarantine = self.quarantine();
        let kept = quarantine.get(&format!("{:020}-{}", segment.number, bytes.start));
        let names: Vec<_> = quarantine.keys().collect();
        assert!(
            kept.is_some_and(|kept| *kept == segment.bytes[bytes.clone()]),
            "{bytes:?} of {}, {:?}: {names:?}",
            segment.number,
            self.end
        );
    }
}

fn command(directory: &Path, nodes: &str, settings: &[(&str, &str)]) -> std::process::Command {
    let settings = [&SETTINGS[..], &[("cluster.nodes", nodes)], settings].concat();
    forebay(directory, &["serve"], &settings)
}

fn readings_of(request: usize) -> Range<usize> {
    request * READINGS..(request + 1) * READINGS
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// The requests that arrived, each of them whole and once.
fn arrived(node: &FakeNode) -> BTreeSet<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for found in node.readings() {
        let number = found["value"].as_u64().and_then(|number| number.try_into().ok()).expect("a number");
        assert_eq!(found, reading(number));
        assert!(seen.insert(number), "{number} arrived twice");
        *counts.entry(number / READINGS).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == READINGS), "requests are whole: {counts:?}");
    counts.into_keys().collect()
}

/// A file of the log.
#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// A record of a segment.
#[derive(Clone, Debug)]
struct Record {
    bytes: Range<usize>,
    /// The index of its request, if it has one.
    request: Option<usize>,
}

impl Segment {
    fn read(path: PathBuf) -> Segment {
        let bytes = fs::read(&path).expect("a segment");
        let number = name(&path).strip_suffix(".segment").expect("a segment").parse().expect("a number");
        let mut records = Vec::new();
        let mut at = RECORDS_START;
        let seq = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let first = bytes.get(16..24).map_or(0, seq);
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
            // Behind the last record stands whatever an earlier segment has left in the file.
            if length == 0 || seq(&head[8..16]) != first + records.len() as u64 {
                break;
            }
            let payload = &bytes[at + HEAD_BYTES..][..length];
            let request = (payload[0] == 1).then(|| payload[1..9].try_into().expect("eight bytes"));
            let request =
                request.map(|number| usize::try_from(u64::from_le_bytes(number)).expect("small") - 1);
            let end = (at + HEAD_BYTES + length).next_multiple_of(8);
            records.push(Record { bytes: at..end, request });
            at = end;
        }
        Segment { number, path, bytes, records }
    }

    /// The requests in a part of the file.
    fn requests(&self, bytes: impl std::ops::RangeBounds<usize>) -> impl Iterator<Item = usize> {
        let records = self.records.iter().filter(move |record| bytes.contains(&(record.bytes.end - 1)));
        records.filter_map(|record| record.request)
    }

    /// A request in the middle of it.
    fn middle(&self) -> &Record {
        let requests: Vec<_> = self.records.iter().filter(|record| record.request.is_some()).collect();
        requests[requests.len() / 2]
    }

    /// Flips bits of one byte.
    fn flip(&mut self, at: usize) {
        self.bytes[at] ^= 0x55;
        fs::write(&self.path, &self.bytes).expect("a segment");
    }

    fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
        fs::write(&self.path, &self.bytes).expect("a segment");
    }
}

/// The outcome of a start with damaged files.
#[derive(Debug)]
struct Recovery {
    arrived: BTreeSet<usize>,
    recovered: u64,
    dead_lettered: u64,
    damaged: f64,
    log: String,
}

impl Recovery {
    fn check(&self, what: &str, lost: &BTreeSet<usize>) {
        let Recovery { arrived, recovered, dead_lettered, damaged, log } = self;
        let expected: BTreeSet<_> = (0..REQUESTS).filter(|request| !lost.contains(request)).collect();
        let missing: Vec<_> = expected.difference(arrived).collect();
        assert_eq!(*arrived, expected, "{what}: missing {missing:?}\n{log}");
        assert_eq!(*recovered, (arrived.len() * READINGS) as u64 + dead_lettered, "{what}\n{log}");
        assert!(*dead_lettered <= (lost.len() * READINGS) as u64, "{what}: {dead_lettered}");
        let is_second_start = lost.len() == REQUESTS;
        if lost.is_empty() || is_second_start {
            assert_eq!((*damaged, *dead_lettered), (0.0, 0), "{what}\n{log}");
        } else {
            #[expect(clippy::cast_precision_loss, reason = "it is small")]
            let expected = lost.len() as f64;
            assert_eq!(*damaged, expected, "{what}\n{log}");
            assert!(log.contains("ERROR"), "{what}\n{log}");
        }
        assert!(!is_second_start || !log.contains("ERROR"), "{what}\n{log}");
        assert!(!log.contains("panicked"), "{what}\n{log}");
    }
}

#[tokio::test]
async fn a_damaged_record_loses_one_request_and_is_set_aside() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        // The checksum, the length, the sequence number, the synced position, the kind, the number, and the rest.
        let places = [0, 5, 8, 17, 24, 26, 300];
        for (index, place) in (0..backlog.segments_with_known_end()).cycle().zip(places) {
            let backlog = backlog.copy();
            let mut segment = backlog.segments().swap_remove(index);
            let Record { bytes, request } = segment.middle().clone();
            segment.flip(bytes.start + place);
            let what = format!("byte {place} of a record in segment {index}");
            backlog.expect_lost(&what, &request.into_iter().collect()).await;
            backlog.expect_set_aside(&segment, bytes);
        }
    }
}

#[tokio::test]
async fn a_damaged_note_loses_no_reading() {
    for end in [End::KilledWithBatches, End::Stopped] {
        let backlog = Backlog::make(end).await;
        let mut segments = backlog.segments();
        let segment = segments.iter_mut().find_map(|segment| {
            let note = segment.records.iter().find(|record| record.request.is_none())?.clone();
            Some((note, segment))
        });
        let (note, segment) = segment.expect("batches are noted");
        segment.flip(note.bytes.end - 9);
        backlog.expect_lost("a note", &BTreeSet::new()).await;
    }
}

#[tokio::test]
async fn damaged_headers_lose_nothing_where_the_checkpoint_knows_the_segment() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        let count = backlog.segments().len();
        for (index, headers) in
            [(1, &HEADERS[..1]), (2, &HEADERS[1..]), (1, &HEADERS[..]), (count - 1, &HEADERS[..1])]
        {
            let backlog = backlog.copy();
            let mut segment = backlog.segments().swap_remove(index);
            headers.iter().for_each(|header| segment.flip(header + 9));
            backlog.expect_lost(&format!("headers {headers:?} of {index}"), &BTreeSet::new()).await;
        }
    }
}

#[tokio::test]
async fn a_segment_without_a_header_that_nothing_else_knows_is_set_aside_whole() {
    let backlog = Backlog::make(End::Killed).await;
    let mut segment = backlog.segments().pop().expect("several");
    HEADERS.iter().for_each(|header| segment.flip(header + 9));
    // No checkpoint knows it either.
    remove_checkpoints(&backlog);
    let recovery = backlog.recover().await;
    let lost: BTreeSet<_> = segment.requests(..).collect();
    assert_eq!(recovery.arrived, (0..REQUESTS).filter(|request| !lost.contains(request)).collect());
    assert!(recovery.damaged >= 1.0, "how many is not known: {}", recovery.log);
    assert!(recovery.log.contains("ERROR"), "{}", recovery.log);
    backlog.expect_set_aside(&segment, 0..segment.bytes.len());
    let again = backlog.recover().await;
    again.check("the second time", &(0..REQUESTS).collect());
    backlog.expect_set_aside(&segment, 0..segment.bytes.len());
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_also_where_everything_around_it_is_settled() {
    // The node never answers to the first batch.
    let (directory, node) = (directory(), FakeNode::answering([Answer::never()]).await);
    let process = Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1ms")]));
    let gateway = process.gateway();
    for request in 0..10 {
        gateway.post(&readings_of(request).map(reading).collect::<Vec<_>>()).await.expect_status(202);
        eventually("it is sent", || async { node.requests() > request }).await;
    }
    eventually("the others are delivered", || async { gateway.account("delivered").await == 900 }).await;
    process.terminate();
    process.ended().await.expect_status(0);
    let backlog = Backlog { end: End::Stopped, directory };
    let mut segment = backlog.segments().swap_remove(0);
    let Record { bytes, request } = segment.records[0].clone();
    assert_eq!(request, Some(0));
    segment.flip(bytes.start + 300);
    let Recovery { arrived, recovered, damaged, log, .. } = backlog.recover().await;
    assert_eq!((arrived, recovered, damaged), (BTreeSet::new(), 0, 1.0), "{log}");
    assert!(log.contains("ERROR"), "{log}");
    backlog.expect_set_aside(&segment, bytes);
}

#[tokio::test]
async fn a_segment_that_is_cut_short_loses_only_the_part_that_was_cut_off() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        for index in [0, 2, backlog.segments_with_known_end() - 1] {
            let backlog = backlog.copy();
            let mut segment = backlog.segments().swap_remove(index);
            let middle = segment.middle().bytes.clone();
            segment.cut(middle.start + 40);
            let lost = segment.requests(middle.start..).collect();
            backlog.expect_lost(&format!("segment {index} is cut at {middle:?}"), &lost).await;
            backlog.expect_set_aside(&segment, middle.start..segment.bytes.len());
        }
        let backlog = backlog.copy();
        let mut segment = backlog.segments().swap_remove(1);
        segment.cut(100);
        let lost = segment.requests(..).collect();
        backlog.expect_lost("only its first header is left", &lost).await;
    }
}

#[tokio::test]
async fn the_records_of_a_missing_segment_are_counted_as_lost() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        for index in [0, 2, backlog.segments_with_known_end() - 1] {
            let backlog = backlog.copy();
            let segment = backlog.segments().swap_remove(index);
            fs::remove_file(&segment.path).expect("it was there");
            let lost = segment.requests(..).collect();
            backlog.expect_lost(&format!("segment {index} is gone"), &lost).await;
        }
    }
}

fn checkpoints(backlog: &Backlog) -> [PathBuf; 2] {
    ["checkpoint-a", "checkpoint-b"].map(|name| backlog.path().join(name))
}

fn remove_checkpoints(backlog: &Backlog) {
    checkpoints(backlog).iter().for_each(|path| fs::remove_file(path).expect("it was there"));
}

fn damage_checkpoint(path: &Path) {
    let mut bytes = fs::read(path).expect("a checkpoint");
    bytes[30] ^= 0x55;
    fs::write(path, bytes).expect("a checkpoint");
}

#[tokio::test]
async fn without_checkpoints_everything_is_delivered() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        for damaged in [&[0][..], &[1], &[0, 1]] {
            let backlog = backlog.copy();
            let paths = checkpoints(&backlog);
            damaged.iter().for_each(|index| damage_checkpoint(&paths[*index]));
            backlog.expect_lost(&format!("checkpoints {damaged:?}"), &BTreeSet::new()).await;
        }
        let backlog = backlog.copy();
        remove_checkpoints(&backlog);
        backlog.expect_lost("no checkpoint", &BTreeSet::new()).await;
    }
}

/// The older checkpoint is read, which knows segments that were settled and removed since.
#[tokio::test]
async fn a_damaged_checkpoint_does_not_count_settled_segments_as_lost() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let process = Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1ms")]));
    let gateway = process.gateway();
    let backlog = Backlog { end: End::Killed, directory };
    for request in 0..REQUESTS {
        gateway.post(&readings_of(request).map(reading).collect::<Vec<_>>()).await.expect_status(202);
    }
    eventually("settled segments go", || async { backlog.segment_paths().len() == 1 }).await;
    drop(process.kill().await);
    for checkpoint in checkpoints(&backlog) {
        let backlog = backlog.copy();
        damage_checkpoint(&backlog.path().join(name(&checkpoint)));
        let recovery = backlog.recover().await;
        assert_eq!((recovery.damaged, recovery.dead_lettered), (0.0, 0), "{}", recovery.log);
        assert!(!recovery.log.contains("lost"), "{}", recovery.log);
    }
}

#[tokio::test]
async fn files_of_others_stay_where_they_are() {
    let backlog = Backlog::make(End::Killed).await;
    let rubbish = ["notes.txt", "1.segment", "00000000000000000001.segment.bak", "checkpoint-c", ".hidden"];
    for name in rubbish {
        fs::write(backlog.path().join(name), name).expect("a file");
    }
    fs::create_dir(backlog.path().join("a directory")).expect("a directory");
    backlog.expect_lost("rubbish", &BTreeSet::new()).await;
    for name in rubbish {
        assert_eq!(fs::read(backlog.path().join(name)).expect("it stays"), name.as_bytes());
    }
    assert!(backlog.path().join("a directory").is_dir());
}

#[tokio::test]
async fn an_empty_segment_and_one_of_zeros_lose_nothing() {
    for end in End::ALL {
        let backlog = Backlog::make(end).await;
        for content in [vec![], vec![0; 100], vec![0; 64 * 1024]] {
            let backlog = backlog.copy();
            let number = backlog.segments().last().expect("several").number + 1;
            let path = backlog.path().join(format!("{number:020}.segment"));
            fs::write(&path, &content).expect("a segment");
            let what = format!("{} zeros, {end:?}", content.len());
            let recovery = backlog.recover().await;
            assert_eq!(recovery.arrived, (0..REQUESTS).collect(), "{what}");
            // Whether there was something in it, nobody knows.
            assert_eq!(recovery.damaged, if content.is_empty() { 0.0 } else { 1.0 }, "{what}");
            assert!(recovery.log.contains("ERROR"), "{what}: {}", recovery.log);
            let again = backlog.recover().await;
            again.check(&format!("{what}, the second time"), &(0..REQUESTS).collect());
        }
    }
}

/// The error of a start that fails.
fn start_fails(directory: &Path) -> Finished {
    run(command(directory, "http://127.0.0.1:9/", &[])).expect_status(1)
}

#[tokio::test]
async fn a_directory_that_another_gateway_uses_stops_the_start() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let process = Process::start(command(directory.path(), &node.url(), &[]));
    let failed = start_fails(directory.path());
    let errors: Vec<_> = failed.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{}", failed.stderr);
    assert!(errors[0].contains("buffer") && errors[0].contains("another"), "{}", errors[0]);
    process.gateway().post(&[reading(0)]).await.expect_status(202);
    assert_eq!(errors[0].matches("in use").count(), 1, "it is said once: {}", errors[0]);
    eventually("the first one goes on", || async { node.count() == 1 }).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_stops_the_start() {
    for path in ["file", "file/buffer"] {
        let directory = directory();
        let file = directory.path().join("file");
        fs::write(&file, "a file").expect("a file");
        let command = command(directory.path(), "http://127.0.0.1:9/", &[("buffer.path", path)]);
        let failed = run(command).expect_status(1);
        let errors: Vec<_> = failed.stderr.lines().filter(|line| line.contains("ERROR")).collect();
        let [error] = errors[..] else { panic!("{}", failed.stderr) };
        assert!(error.contains(&format!("cannot make the directory {path}: ")), "{error}");
        assert_eq!(error.matches("os error").count(), 1, "it is said once: {error}");
        assert_eq!(fs::read(&file).expect("it stays"), b"a file");
    }
}

/// Twenty requests of a reading, and a kill.
async fn twenty_readings_and_a_kill() -> tempfile::TempDir {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let process = Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1h")]));
    for number in 0..20 {
        process.gateway().post(&[reading(number)]).await.expect_status(202);
    }
    drop(process.kill().await);
    directory
}

#[tokio::test]
async fn files_of_a_later_version_stop_the_start_with_one_explanation() {
    let directory = twenty_readings_and_a_kill().await;
    let mut segment = Segment::read(directory.path().join("buffer/00000000000000000001.segment"));
    HEADERS.iter().for_each(|header| segment.bytes[header + 7] = 2);
    fs::write(&segment.path, &segment.bytes).expect("a segment");
    let failed = start_fails(directory.path());
    let errors: Vec<_> = failed.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    let [error] = errors[..] else { panic!("{}", failed.stderr) };
    assert_eq!(error.matches("it is of version 2, and this program knows version 1").count(), 1, "{error}");
    assert!(fs::read(&segment.path).expect("it stays") == segment.bytes);
    assert!(!directory.path().join("buffer/quarantine").exists());
}
