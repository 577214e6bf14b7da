//! The promises of the buffer on disk, on a disk that fills up, fails, and loses power.

mod order;
mod power_losses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::support::records::numbers;
use crate::support::site::{Running, Site, numbered};
use crate::support::{eventually, rounds, seed};
use bytes::Bytes;
use forebay::buffer::{
    Ack, Fsync, NoteId, Noting, OpenError, Part, PushError, Receipt, Request, Rest, Resumed, SentAgain,
};
use forebay_wal::faulty_fs::FaultRates;
use forebay_wal::{Event, Log, LogOptions};
use futures_util::FutureExt as _;

#[tokio::test]
async fn a_full_disk_refuses_requests_and_is_used_again_when_there_is_room() {
    let site = Site::new(1);
    let mut running = site.open(1 << 20);
    running.push(0..1, Ack::Disk).await.expect("room");
    site.fs.set_free(Some(0));
    let mut taken = 1;
    let error = loop {
        match running.push(taken..taken + 1, Ack::Disk).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "a segment has room for fewer");
    };
    let PushError::Storage { reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.to_lowercase().contains("no storage space") || reason.contains("No space"), "{reason}");
    let trouble = running.buffer.trouble().expect("the operator is told");
    assert!(trouble.contains("spare-") && trouble.contains(&reason), "{trouble}");
    let refused = running.push(0..1, Ack::Memory).await;
    assert!(matches!(refused, Err(PushError::Storage { .. })), "{refused:?}");

    // The readings that it holds are delivered meanwhile.
    let (found, parts) = running.pull_readings(usize::try_from(taken).expect("few")).await;
    assert_eq!(found, (0..taken).collect::<Vec<_>>());
    running.deliver(parts, None);
    assert_eq!(running.buffer.accounts().buffered(), 0);

    site.fs.set_free(None);
    running.recovers_from_trouble().await;
    running.push(taken..taken + 1, Ack::Disk).await.expect("room again");
    running.close().await;
    let running = site.open(1 << 20);
    assert_eq!(running.recovered(), 1, "what was delivered is not sent again");
    running.close().await;
}

#[tokio::test]
async fn a_disk_that_the_log_itself_has_filled_is_used_again_once_its_readings_are_delivered() {
    let site = Site::new(21);
    let mut running = site.open(1 << 20);
    running.push(0..1, Ack::Disk).await.expect("room");
    // Nobody else has anything on this disk that could go.
    site.fs.set_free(Some(0));
    let mut taken = 1;
    while running.push(taken..taken + 1, Ack::Disk).await.is_ok() {
        taken += 1;
        assert!(taken < 10_000, "a segment has room for fewer");
    }
    let (_, parts) = running.pull_readings(usize::try_from(taken).expect("few")).await;
    running.deliver(parts, None);
    running.recovers_from_trouble().await;
    running.push(taken..taken + 1, Ack::Disk).await.expect("room again");
    running.close().await;
}

#[tokio::test]
async fn readings_delivered_while_the_disk_was_full_are_not_sent_again_after_a_crash() {
    let site = Site::new(22);
    let mut running = site.open(1 << 20);
    running.push(0..8, Ack::Disk).await.expect("room");
    site.fs.set_free(Some(0));
    let mut taken = 8;
    while running.push(taken..taken + 1, Ack::Disk).await.is_ok() {
        taken += 1;
        assert!(taken < 10_000, "a segment has room for fewer");
    }
    let (_, mut parts) = running.pull_readings(usize::try_from(taken).expect("few")).await;
    // The first checkpoint is on stable storage when the second is written.
    for part in [parts.remove(0), parts.remove(0)] {
        let before = site.checkpoints();
        running.deliver(vec![part], None);
        eventually("a checkpoint", || async { site.checkpoints() != before }).await;
    }
    site.lose_power(running).await;
    let running = site.open(1 << 20);
    assert!(running.recovered() <= taken.unsigned_abs() - 8, "what the first request had is settled");
    running.close().await;
}

#[tokio::test]
async fn a_checkpoint_of_another_version_stops_the_start_and_nothing_is_removed() {
    let site = Site::new(23);
    let mut state = Vec::new();
    {
        let config = LogOptions::new(site.path(), 1 << 16);
        let running = site.open(1 << 20);
        running.push(0..3, Ack::Disk).await.expect("room");
        running.close().await;
        let mut log = Log::open(Arc::new(site.fs.clone()), config, 1, &mut |event| {
            if let Event::Checkpoint { state: found } = event {
                state = found.to_vec();
            }
        })
        .expect("it opens");
        state.push(0);
        log.checkpoint(state, &[]).expect("a sound disk");
    }
    for _ in 0..2 {
        let error = site.try_open(1 << 20).expect_err("it does not open").to_string();
        assert!(error.contains("understand the checkpoint") && error.contains("another version"), "{error}");
        assert_eq!(site.segments(), 1);
    }
}

#[tokio::test]
async fn a_request_whose_sync_failed_is_refused_and_its_readings_never_appear() {
    let site = Site::new(2);
    let mut running = site.open(1 << 20);
    running.push(0..2, Ack::Disk).await.expect("room");
    site.fs.set_faults(FaultRates { sync: 1.0, ..FaultRates::default() });
    let refused = running.push(2..4, Ack::Disk).await;
    assert!(matches!(refused, Err(PushError::Storage { .. })), "{refused:?}");
    site.fs.set_faults(FaultRates::default());
    running.recovers_from_trouble().await;
    running.push(4..6, Ack::Disk).await.expect("a sound disk");
    let (found, _) = running.pull_readings(4).await;
    assert_eq!(found, [0, 1, 4, 5]);
    site.lose_power(running).await;
    let mut running = site.open(1 << 20);
    let (found, parts) = running.pull_readings(4).await;
    assert_eq!((found, running.recovered()), (vec![0, 1, 4, 5], 4));
    running.deliver(parts, None);
    running.close().await;
}

#[tokio::test]
async fn readings_acknowledged_in_memory_are_delivered_from_memory_when_the_disk_fails() {
    let site = Site::new(3);
    let mut running = site.open(1 << 20);
    site.fs.set_faults(FaultRates { write: 1.0, ..FaultRates::default() });
    assert_eq!(running.push(0..3, Ack::Memory).await, Ok(Receipt { ack: Ack::Memory }));
    let (found, parts) = running.pull_readings(3).await;
    assert_eq!(found, [0, 1, 2]);
    assert_eq!(running.outlet.note(1, "key", &parts), Noting::NotNeeded, "there is nothing on disk to note");
    running.deliver(parts, None);
    let ledger = running.buffer.accounts().snapshot().ledger;
    assert!(ledger.balances() && ledger.delivered[0] == 3, "{ledger:?}");
    running.close().await;
}

#[tokio::test]
async fn undelivered_readings_that_were_only_in_memory_are_reported_as_lost_at_the_end() {
    let site = Site::new(24);
    let mut running = site.open(1 << 20);
    running.push(0..2, Ack::Disk).await.expect("room");
    site.fs.set_faults(FaultRates { write: 1.0, ..FaultRates::default() });
    assert_eq!(running.push(2..5, Ack::Memory).await, Ok(Receipt { ack: Ack::Memory }));
    running.pull_readings(5).await;
    running.buffer.close();
    drop(running.outlet);
    assert_eq!(
        running.buffer.finish().await,
        Rest::KeptBut { lost: 3, sent_again: SentAgain::default(), is_elsewhere: false }
    );
}

#[tokio::test]
async fn a_disk_that_fails_holds_up_no_delivery() {
    let site = Site::new(4);
    let mut running = site.open(1 << 20);
    running.push(0..3, Ack::Disk).await.expect("room");
    let (_, parts) = running.pull_readings(3).await;
    site.fs.set_faults(FaultRates { write: 1.0, sync: 1.0, ..FaultRates::default() });
    assert_eq!(running.note("key", &parts).await, None);
    running.deliver(parts, None);
    site.fs.set_faults(FaultRates::default());
    running.recovers_from_trouble().await;
    running.close().await;
    let running = site.open(1 << 20);
    assert_eq!(running.recovered(), 0, "what was settled meanwhile was kept in the end");
    running.close().await;
}

#[tokio::test]
async fn a_batch_that_was_noted_goes_out_again_as_it_was_and_the_rest_after_it() {
    let site = Site::new(5);
    let mut running = site.open(1 << 20);
    for first in [0, 4, 8] {
        running.push(first..first + 4, Ack::Disk).await.expect("room");
    }
    // The batch ends within the second request.
    let (_, mut parts) = running.pull_readings(12).await;
    let front = parts[1].split_first(2);
    let batch = vec![parts.remove(0), front];
    assert!(running.note("the-key", &batch).await.is_some());
    site.lose_power(running).await;

    for round in 0..2 {
        let mut running = site.open(1 << 20);
        assert_eq!(running.recovered(), 12, "round {round}");
        let resumed = running.outlet.resumed();
        let [Resumed { key, note, parts }] = &resumed[..] else { panic!("{resumed:?}") };
        assert_eq!(key, "the-key");
        assert_eq!(parts.iter().flat_map(numbers).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        let note = *note;
        let (found, rest) = running.pull_readings(6).await;
        assert_eq!(found, [6, 7, 8, 9, 10, 11]);
        if round == 0 {
            site.lose_power(running).await;
            continue;
        }
        let parts = resumed.into_iter().flat_map(|resumed| resumed.parts).collect();
        running.deliver(parts, Some(note));
        running.deliver(rest, None);
        assert_eq!(running.buffer.accounts().buffered(), 0);
        assert_eq!(running.buffer.accounts().snapshot().held_bytes, 0);
        running.close().await;
    }
    let running = site.open(1 << 20);
    assert_eq!(running.recovered(), 0);
    running.close().await;
}

#[tokio::test]
async fn a_backlog_larger_than_memory_is_read_from_disk_in_order_while_more_comes_in() {
    // 9 MiB wait, of which 8 are in memory.
    const REQUESTS: i64 = 130;
    const READINGS: i64 = 1_000;
    let site = Site::new(6);
    let mut running = site.open(1 << 30);
    for request in 0..REQUESTS {
        running.push(request * READINGS..(request + 1) * READINGS, Ack::Disk).await.expect("room");
    }
    assert!(running.buffer.accounts().snapshot().held_bytes > 9 << 20);
    let mut next = 0;
    let mut pushed = REQUESTS;
    while next < pushed * READINGS {
        let parts = running.pull().await;
        for number in parts.iter().flat_map(numbers) {
            assert_eq!(number, next);
            next += 1;
        }
        running.deliver(parts, None);
        if pushed < 2 * REQUESTS {
            running.push(pushed * READINGS..(pushed + 1) * READINGS, Ack::Disk).await.expect("room");
            pushed += 1;
        }
    }
    let snapshot = running.buffer.accounts().snapshot();
    assert_eq!((snapshot.ledger.buffered, snapshot.held_bytes), (0, 0));
    assert!(snapshot.ledger.balances(), "{:?}", snapshot.ledger);
    running.close().await;
}

#[tokio::test]
async fn settled_segments_go() {
    let site = Site::new(7);
    let mut running = site.open(1 << 20);
    for round in 0..200 {
        running.push(round * 50..(round + 1) * 50, Ack::Disk).await.expect("room");
        let (_, parts) = running.pull_readings(50).await;
        let note = running.note(&format!("key-{round}"), &parts).await;
        running.deliver(parts, note);
    }
    // 200 times 5 KiB were written, 64 KiB a segment.
    eventually("settled segments go", || async { site.segments() <= 3 }).await;
    running.close().await;
}

#[tokio::test]
async fn a_memo_is_kept_with_its_readings_and_after_they_are_gone() {
    let site = Site::new(8);
    let mut running = site.open(1 << 20);
    let memo = Some(Bytes::from_static(b"a memo"));
    let request = Request {
        readings: numbered(0..1),
        format: 0,
        counter: None,
        ack: Ack::Disk,
        until_taken: None,
        memo,
    };
    running.buffer.push(request).await.expect("room");
    let (_, parts) = running.pull_readings(1).await;
    running.deliver(parts, None);
    for round in 1..100 {
        running.push(0..100, Ack::Disk).await.expect("room");
        let (_, parts) = running.pull_readings(100).await;
        running.deliver(parts, None);
        assert!(round < 10 || site.segments() < 10);
    }
    site.lose_power(running).await;
    for _ in 0..2 {
        let running = site.open(1 << 20);
        assert!(running.memos.contains(&Bytes::from_static(b"a memo")));
        site.lose_power(running).await;
    }
}

#[tokio::test]
async fn an_ended_buffer_releases_its_directory_although_handles_on_it_remain() {
    let site = Site::new(7);
    let running = site.open(1 << 30);
    running.push(0..3, Ack::Disk).await.expect("a sound disk");
    assert!(matches!(site.try_open(1 << 30), Err(OpenError::Locked { .. })));
    running.buffer.finish().await;
    let next = site.try_open(1 << 30);
    assert!(next.is_ok(), "{next:?}");
    drop(running);
}

/// A fault of a disk that takes nothing for a while, and its end.
type Trouble = (&'static str, fn(&Site), fn(&Site));

const TROUBLES: [Trouble; 4] = [
    ("the directory is moved away", Site::move_away, Site::move_back),
    ("its lock is removed", Site::hide_lock, Site::show_lock),
    (
        "writes fail",
        |site| site.fs.set_faults(FaultRates { write: 1.0, ..FaultRates::default() }),
        |site| site.fs.set_faults(FaultRates::default()),
    ),
    (
        "syncs fail",
        |site| site.fs.set_faults(FaultRates { sync: 1.0, directory_sync: 1.0, ..FaultRates::default() }),
        |site| site.fs.set_faults(FaultRates::default()),
    ),
];

#[tokio::test]
async fn settlements_during_disk_trouble_are_written_as_soon_as_it_is_over() {
    for (what, begin, end) in TROUBLES {
        let site = Site::new(25);
        let mut running = site.open(1 << 20);
        running.push(0..100, Ack::Disk).await.expect("room");
        let (_, parts) = running.pull_readings(100).await;
        begin(&site);
        running.deliver(parts, None);
        eventually("the trouble is noticed", || async { running.buffer.trouble().is_some() }).await;
        end(&site);
        running.recovers_from_trouble().await;
        // Long after, in the same segment.
        running.push(100..150, Ack::Disk).await.expect("a sound disk");
        let killed = site.killed();
        running.buffer.finish().await;
        let running = killed.open(1 << 20);
        assert_eq!(running.recovered(), 50, "{what}");
        running.close().await;
    }
}

#[tokio::test]
async fn an_end_that_leaves_delivered_readings_to_the_next_start_says_how_many() {
    let site = Site::new(26);
    let mut running = site.open(1 << 20);
    running.push(0..10, Ack::Disk).await.expect("room");
    let (_, parts) = running.pull_readings(10).await;
    site.fs.set_calls_left(Some(0));
    running.deliver(parts, None);
    running.buffer.close();
    drop(running.outlet);
    let sent_again = SentAgain { readings: 10, under_other_keys: 10 };
    assert_eq!(running.buffer.finish().await, Rest::KeptBut { lost: 0, sent_again, is_elsewhere: false });
    site.fs.set_calls_left(None);
    let running = site.open(1 << 20);
    assert_eq!(running.recovered(), 10);
    running.close().await;
}

#[tokio::test]
async fn a_missing_directory_or_lock_is_noticed_without_a_write_and_reported_with_a_remedy() {
    for ((what, begin, end), advice) in TROUBLES.into_iter().zip(["put the directory back", "restart"]) {
        let site = Site::new(29);
        let running = site.open(1 << 20);
        running.push(0..1, Ack::Disk).await.expect("room");
        begin(&site);
        eventually("it is noticed", || async { running.buffer.is_failing() }).await;
        assert!(running.buffer.advice().is_some_and(|told| told.contains(advice)), "{what}");
        end(&site);
        running.recovers_from_trouble().await;
        assert_eq!(running.buffer.advice(), None);
        running.close().await;
    }
}

#[tokio::test]
async fn an_end_without_the_directory_reports_which_readings_are_sent_again_by_whom_and_under_which_keys() {
    for ((what, begin, end), is_elsewhere) in TROUBLES.into_iter().zip([true, false]) {
        let site = Site::new(30);
        let mut running = site.open(1 << 20);
        running.push(0..15, Ack::Disk).await.expect("room");
        let (_, mut parts) = running.pull_readings(15).await;
        let mut late = parts.remove(0);
        let (noted, unnoted) = (late.split_first(10), late.split_first(2));
        let note = running.note("its-key", std::slice::from_ref(&noted)).await;
        begin(&site);
        eventually("it is noticed", || async { running.buffer.is_failing() }).await;
        running.deliver(vec![noted], note);
        running.deliver(vec![unnoted], None);
        drop(late);
        running.buffer.close();
        drop(running.outlet);
        let sent_again = SentAgain { readings: 12, under_other_keys: 2 };
        let rest = running.buffer.finish().await;
        assert_eq!(rest, Rest::KeptBut { lost: 0, sent_again, is_elsewhere }, "{what}");
        end(&site);
        let mut running = site.open(1 << 20);
        assert_eq!(running.recovered(), 15, "{what}");
        let resumed = running.outlet.resumed();
        assert_eq!(resumed.iter().map(|batch| batch.key.as_str()).collect::<Vec<_>>(), ["its-key"]);
        drop(resumed);
        running.close().await;
    }
}

#[tokio::test]
async fn with_an_interval_nothing_reaches_an_idempotent_node_twice_whatever_a_power_cut_takes() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    // Nothing is synced for the interval's sake.
    let mut site = Site::new(seed);
    site.fsync = Fsync::Every(Duration::from_secs(3600));
    let (mut keys, mut stored) = (BTreeMap::<String, Vec<i64>>::new(), BTreeSet::new());
    let mut send = |key: &str, parts: &[Part]| {
        let numbers: Vec<i64> = parts.iter().flat_map(numbers).collect();
        if let Some(known) = keys.get(key) {
            return assert_eq!(*known, numbers, "{key} has other readings now");
        }
        for number in &numbers {
            assert!(stored.insert(*number), "{number} arrived twice, the second time under {key}");
        }
        keys.insert(key.to_owned(), numbers);
    };
    let mut next = 0;
    for round in 0..rounds(16, 40) {
        let mut running = site.open(1 << 20);
        for Resumed { key, note, parts } in running.outlet.resumed() {
            send(&key, &parts);
            if random.bool() {
                running.deliver(parts, Some(note));
            }
        }
        for step in 0..random.usize(1..12) {
            let count = random.i64(1..100);
            running.push(next..next + count, Ack::Disk).await.expect("a sound disk");
            next += count;
            if random.bool() {
                continue;
            }
            let parts = running.pull().await;
            let key = format!("key-{round}-{step}");
            let note = running.note(&key, &parts).await;
            assert!(note.is_some(), "a sound disk");
            send(&key, &parts);
            if random.bool() {
                running.deliver(parts, note);
            }
        }
        if random.u8(..4) > 0 { site.lose_power(running).await } else { running.close().await }
    }
}

#[test]
fn a_runtime_that_ends_while_a_backlog_is_read_ends_without_a_panic() {
    let site = Site::new(27);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut running = runtime.block_on(async {
        let running = site.open(1 << 20);
        running.push(0..3, Ack::Disk).await.expect("room");
        running.close().await;
        site.open(1 << 20)
    });
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    // The delivery may still run on another thread; whatever blocks is cancelled from now on.
    let _entered = handle.enter();
    let mut parts = Vec::new();
    assert!(running.outlet.pull(&mut parts, 1).now_or_never().is_none(), "it waits, and is dropped soon");
}

/// A file of a later version: the words of the error, and how the file is made.
type Later = (&'static str, &'static str, fn(&Site));

/// Every file of a buffer, by its path below the buffer's.
fn content(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let names = |directory: &str| {
        let names = forebay_wal::Fs::list(&site.fs, &site.path().join(directory)).unwrap_or_default();
        names.into_iter().map(|name| format!("{directory}{name}")).collect::<Vec<_>>()
    };
    let all = names("").into_iter().chain(names("keys/"));
    all.map(|name| (name.clone(), site.fs.content(&site.path().join(name)))).collect()
}

#[tokio::test]
async fn files_of_a_later_version_stop_the_start_with_an_explanation_and_stay_as_they_are() {
    let later: [Later; 4] = [
        ("segments", "version 2, and this program knows version 1", |site| {
            let path = site.path().join("00000000000000000001.segment");
            [7, 2048 + 7].into_iter().for_each(|place| site.fs.flip(&path, place, 3));
        }),
        ("segments of keys", "version 2, and this program knows version 1", |site| {
            let path = site.path().join("keys/00000000000000000001.segment");
            [7, 2048 + 7].into_iter().for_each(|place| site.fs.flip(&path, place, 3));
        }),
        ("checkpoints", "version 2, and this program knows version 1", |site| {
            ["checkpoint-a", "checkpoint-b"]
                .into_iter()
                .for_each(|name| site.fs.flip(&site.path().join(name), 7, 3));
        }),
        ("a record", "is of kind 99, and this program knows 1 to", |site| {
            let config = LogOptions::new(site.path(), 1 << 16);
            let mut log = Log::open(Arc::new(site.fs.clone()), config, 1, &mut |_| {}).expect("it opens");
            log.append(&[&[99; 40]]).expect("room");
            log.commit(forebay_wal::Durability::Synced).expect("a sound disk");
        }),
    ];
    for (what, words, write) in later {
        let site = Site::new(28);
        let mut running = site.open(1 << 20);
        running.push_with_memo(0..3, Bytes::from_static(b"a memo")).await.expect("room");
        let (_, parts) = running.pull_readings(3).await;
        running.note("key", &parts).await.expect("a sound disk");
        running.close().await;
        write(&site);
        let before = content(&site);
        for _ in 0..2 {
            let error = site.try_open(1 << 20).expect_err("it does not open").to_string();
            assert!(error.contains(words), "{what}: {error}");
            assert!(error.contains("start that version again"), "{what}: {error}");
            assert!(content(&site) == before, "{what}: nothing has changed");
        }
    }
}
