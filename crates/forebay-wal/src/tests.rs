//! The promises of the log, on a real directory. `tests/log/model.rs` compares it with a model on a failing file system.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;

const SEGMENT_BYTES: u64 = 64 * 1024;

fn config(directory: &Path) -> LogOptions {
    LogOptions::new(directory.to_owned(), SEGMENT_BYTES)
}

/// A summary of the findings at an opening.
#[derive(Debug, Default, PartialEq)]
struct Findings {
    records: Vec<(Seq, Vec<u8>)>,
    damaged: Vec<std::ops::Range<u64>>,
    state: Option<Vec<u8>>,
    missing: Vec<SegmentNumber>,
    truncation: Option<Truncation>,
    other: Vec<&'static str>,
}

impl Findings {
    fn seqs(&self) -> Vec<u64> {
        self.records.iter().map(|(seq, _)| seq.get()).collect()
    }
}

fn open(directory: &Path) -> (Log, Findings) {
    let mut findings = Findings::default();
    let visit = &mut |event: Event<'_>| match event {
        Event::Checkpoint { state } => findings.state = Some(state.to_vec()),
        Event::CheckpointDamaged => findings.other.push("checkpoint damaged"),
        Event::Record(record) => findings.records.push((record.seq, record.payload.to_vec())),
        Event::Damage(damage) => findings.damaged.push(damage.seqs.start.get()..damage.seqs.end.get()),
        Event::Missing(segment) => findings.missing.push(segment.number),
        Event::Truncation(truncation) => findings.truncation = Some(truncation),
        Event::TornTail { .. } => findings.other.push("torn"),
    };
    let log = Log::open(Arc::new(OsFs), config(directory), 7, visit).expect("it opens");
    (log, findings)
}

/// Appends records of `bytes` bytes, each with a commit of its own.
fn append(log: &mut Log, count: u64, bytes: usize) {
    for _ in 0..count {
        let seq = log.append(&[&vec![b'x'; bytes]]).expect("room");
        assert_eq!(log.position().seq, seq.next());
        log.commit(Durability::Synced).expect("a sound disk");
    }
}

fn segment_files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name.ends_with(".segment"))
        .collect();
    names.sort();
    names
}

/// Changes a byte of a file.
fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

#[test]
fn appended_records_come_back_in_order_over_many_segments_and_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    for start in 0..4_u8 {
        let (mut log, findings) = open(directory.path());
        assert_eq!(findings.records, expected);
        assert_eq!((findings.damaged.len(), findings.other.len()), (0, 0), "start {start}: {findings:?}");
        for number in 0..30_u8 {
            let payload = vec![number; 1 + 700 * usize::from(number)];
            let seq = log.append(&[&[start], &payload]).expect("room");
            expected.push((seq, [&[start], &payload[..]].concat()));
        }
        log.commit(Durability::Synced).expect("a sound disk");
    }
    assert_eq!(expected.iter().map(|(seq, _)| seq.get()).collect::<Vec<_>>(), (1..=120).collect::<Vec<_>>());
    assert!(segment_files(directory.path()).len() > 4);
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 1, 10);
    append(&mut log, 1, 3 * SEGMENT_BYTES as usize);
    append(&mut log, 1, 10);
    let (_, findings) = open(directory.path());
    let sizes: Vec<_> = findings.records.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(sizes, [10, 3 * SEGMENT_BYTES as usize, 10]);
}

#[test]
fn a_start_reads_from_the_checkpoint_on_and_settled_segments_are_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 50, 4000);
    let settled: Vec<_> = log.segments()[..2].iter().map(|segment| segment.number).collect();
    let kept = log.segments().len() - 2;
    log.checkpoint(b"half".to_vec(), &settled).expect("a sound disk");
    assert_eq!(log.segments().len(), kept);
    assert_eq!(segment_files(directory.path()).len(), kept);
    append(&mut log, 3, 10);
    drop(log);
    let (log, findings) = open(directory.path());
    assert_eq!(findings.state.as_deref(), Some(&b"half"[..]));
    assert_eq!(findings.seqs(), [51, 52, 53]);
    assert_eq!((findings.missing.len(), findings.damaged.len()), (0, 0));
    assert_eq!(log.segments().len(), kept);
    assert_eq!(log.segments()[0].seqs.start, Seq::new(31));
}

#[test]
fn the_file_of_a_settled_segment_is_reused_and_its_old_records_never_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    for round in 0..10_u64 {
        append(&mut log, 20, 4000);
        let settled: Vec<_> = log.segments().iter().map(|segment| segment.number).collect();
        log.checkpoint(Vec::new(), &settled).expect("a sound disk");
        append(&mut log, 1, 4000);
        drop(log);
        let findings;
        (log, findings) = open(directory.path());
        assert_eq!(findings.seqs(), [21 * (round + 1)], "round {round}");
        assert_eq!((findings.missing.len(), findings.damaged.len()), (0, 0), "round {round}");
    }
}

#[test]
fn a_torn_tail_is_cut_and_earlier_records_survive() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 3, 100);
    // One group of two, the first of which did not reach the disk.
    log.append(&[&[b'y'; 100]]).expect("room");
    log.append(&[&[b'z'; 100]]).expect("room");
    let offset = usize::try_from(log.position().offset).expect("small") - 2 * 128;
    log.commit(Durability::Written).expect("a sound disk");
    drop(log);
    flip(&directory.path().join(&segment_files(directory.path())[0]), offset + 40);
    let (mut log, findings) = open(directory.path());
    assert_eq!((findings.seqs(), findings.damaged.len()), (vec![1, 2, 3], 0));
    assert_eq!(findings.other, ["torn"]);
    // The torn record does not come back behind new records of the same size.
    log.append(&[&[b'n'; 100]]).expect("room");
    log.commit(Durability::Synced).expect("a sound disk");
    drop(log);
    let (_, findings) = open(directory.path());
    assert_eq!((findings.seqs(), findings.damaged.len(), findings.other.len()), (vec![1, 2, 3, 4], 0, 0));
    assert_eq!(findings.records[3].1, [b'n'; 100]);
}

#[test]
fn a_damaged_record_is_reported_and_all_others_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 40, 4000);
    let position = log.position();
    drop(log);
    let files = segment_files(directory.path());
    // The length, the sequence number, the payload, each of another record; a header; padding does not matter.
    for (record, byte) in [(2, 4), (5, 10), (9, 2000)] {
        flip(&directory.path().join(&files[0]), 4096 + record * 4024 + byte);
    }
    flip(&directory.path().join(&files[1]), 3);
    let (log, findings) = open(directory.path());
    assert_eq!(findings.damaged, [3..4, 6..7, 10..11]);
    assert_eq!(findings.seqs(), (1..=40).filter(|seq| ![3, 6, 10].contains(seq)).collect::<Vec<_>>());
    assert_eq!(log.position().seq, position.seq);
}

#[test]
fn a_missing_or_truncated_segment_is_reported_and_all_others_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 60, 4000);
    log.checkpoint(Vec::new(), &[]).expect("a sound disk");
    append(&mut log, 60, 4000);
    let segments = log.segments().to_vec();
    drop(log);
    let files = segment_files(directory.path());
    fs::remove_file(directory.path().join(&files[1])).expect("removed");
    fs::remove_file(directory.path().join(&files[5])).expect("removed");
    let cut = fs::File::options().write(true).open(directory.path().join(&files[4])).expect("a file");
    cut.set_len(4096 + 2 * 4024 + 100).expect("cut");
    let (_, findings) = open(directory.path());
    assert_eq!(findings.missing, [SegmentNumber::new(2)]);
    let lost = segments[4].seqs.start.get() + 2..segments[5].seqs.end.get();
    assert_eq!(findings.damaged, std::slice::from_ref(&lost), "cut off, then gone");
    assert_eq!(findings.records.last().map(|(seq, _)| seq.get()), Some(120));
}

#[test]
fn one_damaged_checkpoint_falls_back_to_the_other_and_two_to_the_records() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 2, 10);
    log.checkpoint(b"first".to_vec(), &[]).expect("a sound disk");
    append(&mut log, 2, 10);
    log.checkpoint(b"second".to_vec(), &[]).expect("a sound disk");
    append(&mut log, 2, 10);
    drop(log);
    let seqs = |findings: &Findings| findings.seqs();
    let (_, findings) = open(directory.path());
    assert_eq!((findings.state.as_deref(), seqs(&findings)), (Some(&b"second"[..]), vec![5, 6]));
    // Only trying shows which file is the younger one.
    let [a, b] = checkpoint::NAMES.map(|name| directory.path().join(name));
    let whole = fs::read(&a).expect("a file");
    flip(&a, 30);
    let (_, one) = open(directory.path());
    fs::write(&a, whole).expect("written");
    flip(&b, 30);
    let (_, other) = open(directory.path());
    let mut states = [one.state.clone(), other.state.clone()].map(|state| state.expect("a state"));
    states.sort();
    assert_eq!(states, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(one.other.len() + other.other.len(), 0, "a torn checkpoint is no damage");
    flip(&a, 30);
    let (_, findings) = open(directory.path());
    assert_eq!((findings.state.as_ref(), findings.seqs()), (None, vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(findings.other, ["checkpoint damaged"]);
}

#[test]
fn damaged_bytes_are_copied_unchanged_to_the_quarantine() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(directory.path());
    append(&mut log, 3, 100);
    let damage = Damage {
        segment: SegmentNumber::new(1),
        bytes: 4096 + 128..4096 + 256,
        seqs: Seq::new(2)..Seq::new(3),
    };
    let path = log.directory().set_aside(&damage).expect("a sound disk").expect("some bytes");
    let segment = fs::read(directory.path().join(&segment_files(directory.path())[0])).expect("a file");
    assert_eq!(fs::read(path).expect("a file"), segment[4096 + 128..4096 + 256]);
}

#[test]
fn a_truncated_youngest_segment_is_reported_once_at_every_length() {
    for checkpoints in [0, 1] {
        let directory = tempfile::tempdir().expect("a directory");
        let name = {
            let (mut log, _) = open(directory.path());
            append(&mut log, 4, 100);
            (0..checkpoints).for_each(|_| log.checkpoint(b"state".to_vec(), &[]).expect("a sound disk"));
            append(&mut log, 4, 100);
            segment_files(directory.path()).pop().expect("a segment")
        };
        let whole = fs::read(directory.path().join(&name)).expect("a segment");
        let records = 4096 + 8 * 128;
        let lengths =
            (0..records + 200).step_by(61).chain([32, 44, 4096, records, whole.len() - 1, whole.len()]);
        for length in lengths {
            let what = format!("{length} bytes of {} are left, {checkpoints} checkpoints", whole.len());
            fs::write(directory.path().join(&name), &whole[..length]).expect("written");
            for name in ["checkpoint-a", "checkpoint-b"] {
                // For every length from the same checkpoint: the next one has the shorter size.
                let _ = fs::copy(directory.path().join(name), directory.path().join(format!("kept-{name}")));
            }
            let (mut log, findings) = open(directory.path());
            if length == whole.len() {
                assert_eq!(
                    (findings.truncation, findings.damaged.len(), findings.records.len()),
                    (None, 0, 8 - 4 * checkpoints)
                );
                continue;
            }
            let is_reported =
                findings.truncation.is_some_and(|Truncation { segment, bytes, made_bytes, seq }| {
                    let read =
                        findings.records.last().map_or(1 + 4 * checkpoints as u64, |(seq, _)| seq.get() + 1);
                    segment == SegmentNumber::new(1)
                        && (bytes, seq) == (length as u64, Seq::new(read))
                        && (made_bytes == whole.len() as u64 || (length < 44 && made_bytes > bytes))
                });
            assert!(
                is_reported || (length < 32 && checkpoints == 0 && findings.damaged.len() == 1),
                "{what}: {findings:?}"
            );
            assert!(!findings.other.contains(&"torn"), "{what}: {findings:?}");
            log.checkpoint(b"state".to_vec(), &[]).expect("a sound disk");
            drop(log);
            let (_, again) = open(directory.path());
            assert!(again.truncation.is_none() && again.damaged.is_empty(), "{what}, again: {again:?}");
            for name in ["checkpoint-a", "checkpoint-b"] {
                let (path, kept) =
                    (directory.path().join(name), directory.path().join(format!("kept-{name}")));
                fs::rename(kept, &path).or_else(|_| fs::remove_file(&path)).expect("a sound disk");
            }
        }
        if checkpoints > 0 {
            fs::remove_file(directory.path().join(&name)).expect("it was there");
            let (_, findings) = open(directory.path());
            assert_eq!(
                (findings.missing.len(), findings.truncation.map(|cut| (cut.bytes, cut.seq))),
                (1, Some((0, Seq::new(5))))
            );
        }
    }
}
