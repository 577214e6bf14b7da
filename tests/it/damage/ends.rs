//! Segments whose end is not as it was made.

use super::*;

#[tokio::test]
async fn a_cut_youngest_segment_is_reported_as_damage_by_verify_and_by_one_start() {
    for length in [0, 20, 100, 4095, 4096, 4096 + 700, 5000, 20_000] {
        let directory = twenty_readings_and_a_kill().await;
        let path = directory.path().join("buffer/00000000000000000001.segment");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_len(length)).expect("a segment");
        let settings = [&SETTINGS[..], &[("cluster.nodes", "http://127.0.0.1:9/")]].concat();
        let verify = || run(forebay(directory.path(), &["buffer", "verify"], &settings));
        let told = verify().expect_status(1).stdout;
        let words = format!("segment 1: CUT SHORT to {length} of at least 65536 bytes");
        assert!(told.contains(&words), "{length}: {told}");

        let node = FakeNode::start().await;
        let start = || Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1ms")]));
        let process = start();
        let damaged = process.gateway().metric("forebay_buffer_damaged_records_total").await;
        assert!(damaged.is_some_and(|damaged| damaged >= 1.0), "{length}: {damaged:?}");
        process.terminate();
        let log = process.ended().await.expect_status(0).stderr;
        assert!(log.contains("ERROR") && log.contains("shorter than it was made"), "{length}: {log}");
        assert!(!log.contains("never acknowledged") && !log.contains("panicked"), "{length}: {log}");
        let process = start();
        let damaged = process.gateway().metric("forebay_buffer_damaged_records_total").await;
        assert_eq!(damaged, Some(0.0), "{length}: it is told once");
        process.terminate();
        let log = process.ended().await.expect_status(0).stderr;
        assert!(!log.contains("ERROR"), "{length}: {log}");
        verify().expect_status(0);
    }
}

#[tokio::test]
async fn a_segment_that_is_longer_than_it_was_made_loses_nothing() {
    let directory = twenty_readings_and_a_kill().await;
    let path = directory.path().join("buffer/00000000000000000001.segment");
    let mut bytes = fs::read(&path).expect("a segment");
    bytes.extend(std::iter::repeat_n(7, 5000));
    fs::write(&path, bytes).expect("a segment");
    let node = FakeNode::start().await;
    let process = Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1ms")]));
    eventually("all arrive", || async { node.count() == 20 }).await;
    process.terminate();
    let log = process.ended().await.expect_status(0).stderr;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn an_incomplete_last_record_is_reported_with_its_possible_causes() {
    let directory = twenty_readings_and_a_kill().await;
    let segment = Segment::read(directory.path().join("buffer/00000000000000000001.segment"));
    let last = segment.records.last().expect("records").bytes.clone();
    let mut segment = segment;
    segment.flip(last.end - 20);
    let node = FakeNode::start().await;
    let process = Process::start(command(directory.path(), &node.url(), &[("batch.max_age", "1ms")]));
    process.terminate();
    let log = process.ended().await.expect_status(0).stderr;
    assert!(log.contains("or the disk has damaged it since") && !log.contains("never acknowledged"), "{log}");
}
