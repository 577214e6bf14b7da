//! The promises of the buffer on disk without room, whichever call needs some: delivered readings are settled durably,
//! a disk that the log itself has filled is used again, and no key is forgotten without a word.

#![expect(clippy::cast_possible_wrap, reason = "numbers of a test are small")]

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::eventually;
use crate::support::records::numbers;
use crate::support::site::{Running, Site};
use bytes::Bytes;
use forebay::buffer::disk::inspect;
use forebay::buffer::{Ack, PushError, Rest};
use forebay_wal::faulty_fs::{FaultyFs, Shortage};
use forebay_wal::{Event, Fs as _, Log, LogOptions};
use futures_util::future::join_all;

/// Segments of 64 KiB.
const BUFFER_BYTES: u64 = 1 << 20;

fn memo(number: i64) -> Bytes {
    Bytes::from(format!("the key of request {number}"))
}

/// Requests of so many readings, each with a memo, until there is no room; returns the readings taken.
async fn fill(running: &Running, mut next: i64) -> i64 {
    loop {
        match running.push_with_memo(next..next + 20, memo(next)).await {
            Ok(_) => next += 20,
            Err(PushError::Storage { .. } | PushError::Full { .. }) => return next,
            Err(error) => panic!("{error:?}"),
        }
        assert!(next < 100_000, "the disk is smaller");
    }
}

/// Delivers so many readings as the delivery does it, and returns them.
async fn deliver_all(running: &mut Running, round: i64) -> Vec<i64> {
    let mut delivered = Vec::new();
    for resumed in running.outlet.resumed() {
        delivered.extend(resumed.parts.iter().flat_map(numbers));
        running.deliver(resumed.parts, Some(resumed.note));
    }
    while running.buffer.accounts().buffered() > 0 {
        let parts = running.pull().await;
        delivered.extend(parts.iter().flat_map(numbers));
        let note = running.note(&format!("key-{round}-{}", delivered.len()), &parts).await;
        running.deliver(parts, note);
    }
    delivered
}

#[tokio::test]
async fn a_start_on_a_disk_that_the_log_has_filled_delivers_goes_on_and_sends_nothing_again() {
    let site = Site::new(31);
    let running = site.open(BUFFER_BYTES);
    running.push(0..1, Ack::Disk).await.expect("room");
    site.fs.set_free(Some(300_000));
    let taken = fill(&running, 1).await;
    let site = {
        let killed = site.killed();
        running.buffer.finish().await;
        killed
    };
    // Not a byte is left, and no keys were ever written.
    site.fs.set_free(Some(0));
    let mut running = site.open(BUFFER_BYTES);
    assert_eq!(running.recovered(), taken.unsigned_abs());
    assert_eq!(deliver_all(&mut running, 1).await.len() as u64, taken.unsigned_abs());
    running.recovers_from_trouble().await;
    running.push_with_memo(taken..taken + 1, memo(taken)).await.expect("room again");
    running.close().await;
    let mut running = site.open(BUFFER_BYTES);
    assert_eq!((running.recovered(), running.memos.contains(&memo(taken))), (1, true));
    deliver_all(&mut running, 2).await;
    running.close().await;
    let running = site.open(BUFFER_BYTES);
    assert_eq!(running.recovered(), 0, "what was delivered before an orderly end is not sent again");
    running.close().await;
}

/// Requests that a gateway left behind, of 20 readings each.
const LEFT: i64 = 200;
/// The first so many are delivered.
const DELIVERED: i64 = 120;

/// A gateway was killed before the segments went in which all is delivered. Some of the rest is in a batch; each request
/// has a memo.
async fn left_behind() -> (Site, BTreeSet<i64>) {
    let site = Site::new(32);
    let mut running = site.open(BUFFER_BYTES);
    for request in 0..LEFT {
        running.push_with_memo(request * 20..request * 20 + 20, memo(request)).await.expect("room");
    }
    let (_, mut parts) = running.pull_readings(20 * usize::try_from(LEFT).expect("few")).await;
    let rest = parts.split_off(usize::try_from(DELIVERED).expect("few"));
    let note = running.note("sent", &parts).await;
    running.deliver(parts, note);
    // A write and a sync.
    site.fs.set_calls_left(Some(2));
    running.note("tried", &rest[..10]).await.expect("a sound disk");
    let killed = site.killed();
    running.buffer.finish().await;
    assert!(killed.segments() > 5, "{}", killed.segments());
    (killed, (DELIVERED * 20..LEFT * 20).collect())
}

/// A start, a delivery of everything and an orderly end; one call finds no room. Returns how many calls there were.
async fn start_without_room(left: &Site, owed: &BTreeSet<i64>, call: u32, full: Shortage) -> u32 {
    let what = format!("call {call}, {full:?}");
    let site = left.killed();
    site.fs.set_full_after(call, full);
    let mut running = match site.try_open(BUFFER_BYTES) {
        Ok(opened) => Running::from(opened),
        Err(error) => {
            // It says so, and the next start goes on.
            assert!(error.to_string().contains("no storage space"), "{what}: {error}");
            site.open(BUFFER_BYTES)
        }
    };
    let delivered: BTreeSet<i64> = deliver_all(&mut running, 1).await.into_iter().collect();
    assert_eq!(delivered, *owed, "{what}");
    running.recovers_from_trouble().await;
    eventually("there is room again", || async { running.push(5000..5001, Ack::Disk).await.is_ok() }).await;
    deliver_all(&mut running, 2).await;
    running.buffer.close();
    let Running { buffer, outlet, .. } = running;
    drop(outlet);
    assert_eq!(buffer.finish().await, Rest::Kept, "{what}");
    let calls = site.fs.roomy_calls();
    site.fs.set_full_after(u32::MAX, full);
    let running = site.open(BUFFER_BYTES);
    assert_eq!(running.recovered(), 0, "{what}: what was delivered before an orderly end");
    let known: BTreeSet<_> = running.memos.iter().cloned().collect();
    assert_eq!(known, (0..LEFT).map(memo).collect(), "{what}: keys");
    running.close().await;
    calls
}

#[tokio::test]
async fn whatever_call_of_a_start_finds_no_room_all_is_delivered_once_and_the_disk_is_used_again() {
    let (left, owed) = left_behind().await;
    let calls = start_without_room(&left, &owed, u32::MAX, Shortage::Once).await;
    assert!(calls > 10, "{calls}");
    for full in [Shortage::Once, Shortage::Lasting] {
        join_all((0..calls + 2).map(|call| start_without_room(&left, &owed, call, full))).await;
    }
}

#[tokio::test]
async fn whatever_call_of_a_repair_finds_no_room_nothing_is_lost_and_the_next_one_works() {
    let (left, owed) = left_behind().await;
    // It is delivered, and nobody knows.
    let path = left.path().join("00000000000000000002.segment");
    left.fs.flip(&path, 4096 + 100, 1);
    let lost: BTreeSet<i64> = {
        let site = left.killed();
        let mut running = site.open(BUFFER_BYTES);
        let found = deliver_all(&mut running, 1).await.into_iter().collect();
        running.close().await;
        owed.difference(&found).copied().collect()
    };
    let config = left.config(BUFFER_BYTES);
    for full in [Shortage::Once, Shortage::Lasting] {
        for call in 0.. {
            let what = format!("call {call}, {full:?}");
            let site = left.killed();
            site.fs.set_full_after(call, full);
            let config = forebay::buffer::BufferConfig { path: site.path(), ..config.clone() };
            let repaired = inspect::repair_on(Arc::new(site.fs.clone()), &config);
            let is_past = site.fs.roomy_calls() <= call;
            site.fs.set_full_after(u32::MAX, full);
            if let Err(error) = &repaired {
                assert!(error.to_string().contains("no storage space"), "{what}: {error}");
                site.fs.set_free(None);
                inspect::repair_on(Arc::new(site.fs.clone()), &config).expect("there is room");
            }
            let mut running = site.open(BUFFER_BYTES);
            let found: BTreeSet<i64> = deliver_all(&mut running, 1).await.into_iter().collect();
            assert_eq!(found, owed.difference(&lost).copied().collect(), "{what}");
            running.close().await;
            if is_past {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_repair_on_a_disk_that_the_log_has_filled_makes_room() {
    let (left, _) = left_behind().await;
    let site = left.killed();
    site.fs.set_free(Some(0));
    let before = site.segments();
    inspect::repair_on(Arc::new(site.fs.clone()), &site.config(BUFFER_BYTES)).expect("it needs none");
    assert!(site.segments() < before);
}

fn key_files(site: &Site) -> usize {
    let names = site.fs.list(&site.path().join("keys")).expect("a directory");
    names.iter().filter(|name| name.ends_with(".segment")).count()
}

#[tokio::test]
async fn keys_of_many_starts_fill_one_file_before_another_begins() {
    let mut site = Site::new(33);
    for start in 0..80 {
        let mut running = site.open(BUFFER_BYTES);
        assert_eq!(running.memos.len() as i64, start);
        running.push_with_memo(start..start + 1, memo(start)).await.expect("room");
        deliver_all(&mut running, start).await;
        if start % 2 == 0 {
            running.close().await;
        } else {
            let killed = site.killed();
            running.buffer.finish().await;
            site = killed;
        }
    }
    assert_eq!(key_files(&site), 1);
}

/// A log that is always read as a whole, as that of keys: it is opened, takes a record or some, and lets old segments
/// go.
fn use_log(fs: &FaultyFs, seed: u64, records: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let config = LogOptions::new("/log".into(), 16 * 1024);
    let opened = Log::open(Arc::new(fs.clone()), config, seed, &mut |event| match event {
        Event::Damage(damage) if !damage.bytes.is_empty() => wrong.push(format!("{damage:?}")),
        _ => {}
    });
    let Ok(mut log) = opened else { return wrong };
    let work = |log: &mut Log| {
        if records.is_multiple_of(2) {
            log.resume_last_segment()?;
        }
        (0..records).try_for_each(|_| log.append(&[&[7; 3000]]).map(drop))?;
        log.commit(forebay_wal::Durability::Synced)?;
        let active = log.active();
        let old: Vec<_> = log.segments().iter().map(|segment| segment.number).collect();
        log.discard(&old.into_iter().filter(|number| Some(*number) != active).collect::<Vec<_>>())
    };
    let _ = work(&mut log);
    wrong
}

#[test]
fn a_kill_between_the_making_of_a_file_and_its_first_record_is_no_damage() {
    for calls in 0..60 {
        for records in [1, 2, 6] {
            let fs = FaultyFs::new(u64::from(calls));
            use_log(&fs, 1, 2);
            fs.set_calls_left(Some(calls));
            use_log(&fs, 2, records);
            fs.set_calls_left(None);
            for start in 3..6 {
                let wrong = use_log(&fs, start, records);
                assert_eq!(wrong, Vec::<String>::new(), "killed after {calls} calls, start {start}");
            }
        }
    }
}
