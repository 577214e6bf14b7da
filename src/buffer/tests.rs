//! The contract that every kind of buffer keeps.

use std::ops::Range;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Value};
use tempfile::TempDir;
use tokio::time::Instant;

use super::ledger::{DropReason, Outcome};
use super::*;
use crate::node_id::NodeIndex;

/// Readings whose values are these numbers.
pub(crate) fn numbered(numbers: Range<i64>) -> Readings {
    let mut readings = Readings::default();
    for number in numbers {
        let time = Timestamp::from_nanos(1_170_288_000_000_000_000).expect("2007");
        let value = Value::Integer(number);
        let parts =
            ReadingParts { device: "d", sensor: "s", value: value.into(), time, unit: None, tags: &[] };
        readings.push(&parts).expect("good parts");
    }
    readings
}

/// One reading of each of these devices.
pub(crate) fn readings_of(devices: &[&str]) -> Readings {
    let mut readings = Readings::default();
    for device in devices {
        let time = Timestamp::from_nanos(1_170_288_000_000_000_000).expect("2007");
        let value = Value::Integer(0);
        let parts = ReadingParts { device, sensor: "s", value: value.into(), time, unit: None, tags: &[] };
        readings.push(&parts).expect("good parts");
    }
    readings
}

/// The numbers of [`numbered`] readings.
pub(crate) fn numbers(part: &Part) -> Vec<i64> {
    let number = |value| match value {
        Value::Integer(number) => number,
        Value::Double(_) | Value::Boolean(_) | Value::Text(_) => panic!("{value:?} is no whole number"),
    };
    part.iter().map(|reading| number(reading.value())).collect()
}

/// An empty buffer, and the directory of one on disk.
fn open(kind: &'static str, readings: u64, bytes: u64) -> (Opened, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let limit = Amount { readings, bytes };
    let config = BufferConfig {
        kind,
        ack: Ack::Memory,
        limit,
        on_full: OnFull::Reject,
        path: directory.path().to_owned(),
        fsync: Fsync::Always,
        memos_kept: Duration::from_secs(600),
    };
    ((config.kind().open)(&config, 1, &Arc::default()).expect("it opens"), directory)
}

fn request(numbers: Range<i64>, ack: Ack) -> Request {
    Request { readings: numbered(numbers), format: 0, counter: None, ack, until_taken: None, memo: None }
}

async fn pull(outlet: &mut Box<dyn Outlet>, most: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let count = outlet.pull(&mut parts, most).await;
    assert_eq!(count, parts.len());
    parts
}

fn deliver(outlet: &mut Box<dyn Outlet>, parts: Vec<Part>) {
    outlet.settle(vec![Fate::of(parts, Outcome::Delivered { node: NodeIndex(0) })], None, Instant::now());
}

#[test]
fn who_cannot_open_a_buffer_is_told_the_place_and_what_to_do() {
    let path = PathBuf::from("data/buffer");
    let locked = OpenError::Locked { path: path.clone() };
    assert_eq!(
        locked.to_string(),
        "data/buffer is in use by another gateway; stop that one, or give each gateway a `buffer.path` of its own"
    );
    let broken = OpenError::Io { path, error: io::Error::other("no space") };
    assert_eq!(broken.to_string(), "cannot use data/buffer: no space");
}

#[tokio::test]
async fn what_goes_in_comes_out_in_the_same_order_once() {
    for kind in KINDS.names() {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 100, 1 << 20);
        for first in 0..20 {
            buffer.push(request(first * 3..first * 3 + 3, Ack::Memory)).await.expect("room");
        }
        let mut parts = pull(&mut outlet, 7).await;
        assert_eq!(parts.len(), 7, "{kind}");
        parts.extend(outlet.try_pull());
        parts.extend(pull(&mut outlet, 1000).await);
        assert!(outlet.try_pull().is_none(), "{kind}");
        let all: Vec<_> = parts.iter().flat_map(numbers).collect();
        assert_eq!(all, (0..60).collect::<Vec<_>>(), "{kind}");
        deliver(&mut outlet, parts);
        assert_eq!(buffer.accounts().buffered(), 0, "{kind}");
    }
}

#[tokio::test]
async fn what_is_handed_out_counts_until_it_is_settled() {
    for kind in KINDS.names() {
        let (empty, _directory) = open(kind, 10, 1 << 20);
        empty.buffer.push(request(0..6, Ack::Memory)).await.expect("room");
        let held = empty.buffer.accounts().snapshot().held_bytes;
        // Once the count is the bound, once the bytes are.
        for (readings, bytes) in [(10, 1 << 20), (1000, 2 * held - 1)] {
            let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, readings, bytes);
            buffer.push(request(0..6, Ack::Memory)).await.expect("room");
            let parts = pull(&mut outlet, 1).await;
            let full = buffer.push(request(6..12, Ack::Memory)).await;
            assert!(matches!(full, Err(PushError::Full { .. })), "{kind}: {full:?}");
            deliver(&mut outlet, parts);
            buffer.push(request(6..12, Ack::Memory)).await.expect("room again");
            let too_large = buffer.push(request(0..1001, Ack::Memory)).await;
            assert!(matches!(too_large, Err(PushError::TooLarge { .. })), "{kind}: {too_large:?}");
            let snapshot = buffer.accounts().snapshot();
            assert_eq!((snapshot.ledger.accepted[0], snapshot.ledger.buffered), (12, 6), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_receipt_says_what_was_promised_and_delivered_waits_for_every_part() {
    for (kind, row) in KINDS.members {
        for ack in row.acks {
            let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 100, 1 << 20);
            let push = tokio::spawn({
                let (buffer, ack) = (Arc::clone(&buffer), *ack);
                async move { buffer.push(request(0..4, ack)).await }
            });
            let mut parts = pull(&mut outlet, 1).await;
            let front = parts[0].split_first(1);
            deliver(&mut outlet, parts);
            if *ack == Ack::Delivered {
                tokio::task::yield_now().await;
                assert!(!push.is_finished(), "{kind}: one reading is still to come");
            }
            deliver(&mut outlet, vec![front]);
            assert_eq!(push.await.expect("no panic"), Ok(Receipt { ack: *ack }), "{kind}");
        }
    }
}

#[tokio::test]
async fn who_waits_for_delivery_is_told_when_it_will_not_come() {
    for kind in KINDS.names().filter(|name| KINDS.find(name).is_ok_and(|k| k.acks.contains(&Ack::Delivered)))
    {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 100, 1 << 20);
        let push = |numbers| {
            let buffer = Arc::clone(&buffer);
            tokio::spawn(async move { buffer.push(request(numbers, Ack::Delivered)).await })
        };
        let given_up = push(0..4);
        let mut parts = pull(&mut outlet, 1).await;
        let front = parts[0].split_first(1);
        let fate = Fate::of(vec![front], Outcome::Dropped(DropReason::Full));
        outlet.settle(vec![fate], None, Instant::now());
        deliver(&mut outlet, parts);
        assert_eq!(given_up.await.expect("no panic"), Err(PushError::Dropped), "{kind}");

        let undelivered = push(4..8);
        let parts = pull(&mut outlet, 1).await;
        buffer.close();
        drop((parts, outlet));
        assert_eq!(undelivered.await.expect("no panic"), Err(PushError::Undelivered), "{kind}");
        assert_eq!(buffer.accounts().buffered(), 4, "{kind}: never settled, never lost from the books");
    }
}

#[tokio::test]
async fn a_push_that_is_dropped_leaves_all_of_its_readings_or_none() {
    for kind in KINDS.names().filter(|name| KINDS.find(name).is_ok_and(|k| k.acks.contains(&Ack::Delivered)))
    {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 100, 1 << 20);
        let push = buffer.push(request(0..4, Ack::Delivered));
        let parts = tokio::select! {
            done = push => panic!("nothing is delivered yet: {done:?}"),
            parts = pull(&mut outlet, 1) => parts,
        };
        assert_eq!(parts.iter().flat_map(numbers).collect::<Vec<_>>(), [0, 1, 2, 3], "{kind}");
        deliver(&mut outlet, parts);
        drop(buffer.push(request(4..8, Ack::Memory)));
        assert!(outlet.try_pull().is_none(), "{kind}");
        let snapshot = buffer.accounts().snapshot();
        assert!(snapshot.ledger.balances() && snapshot.held_bytes == 0, "{kind}: {snapshot:?}");
    }
}

#[tokio::test]
async fn a_closed_buffer_hands_out_what_it_has_and_then_says_that_nothing_more_comes() {
    for kind in KINDS.names() {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 100, 1 << 20);
        buffer.push(request(0..2, Ack::Memory)).await.expect("room");
        buffer.push(request(2..4, Ack::Memory)).await.expect("room");
        buffer.close();
        assert_eq!(buffer.push(request(4..6, Ack::Memory)).await, Err(PushError::Closed), "{kind}");
        let parts = pull(&mut outlet, 100).await;
        assert_eq!(parts.iter().flat_map(numbers).collect::<Vec<_>>(), [0, 1, 2, 3], "{kind}");
        assert!(pull(&mut outlet, 100).await.is_empty(), "{kind}");
        deliver(&mut outlet, parts);
        assert_eq!(buffer.accounts().buffered(), 0, "{kind}");
    }
}

#[tokio::test]
async fn what_is_made_of_readings_takes_their_place_and_who_waits_for_them_waits_for_it() {
    for kind in KINDS.names() {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 4, 1 << 20);
        let mut kept = outlet.kept();
        let push = tokio::spawn({
            let buffer = Arc::clone(&buffer);
            async move { buffer.push(request(0..4, Ack::Delivered)).await }
        });
        let parts = pull(&mut outlet, 1).await;
        let full = buffer.push(request(4..6, Ack::Memory)).await;
        assert!(matches!(full, Err(PushError::Full { .. })), "{kind}");
        let merged = parts.into_iter().map(Hold::from).collect();
        let (made_by, readings) = (Arc::from("mean"), numbered(100..101));
        let derivation = Derivation { transform: 0, made_by, readings, merged };
        match outlet.derive(derivation, Instant::now()) {
            Deriving::Done => {}
            Deriving::UnderWay => assert!(matches!(kept.recv().await, Some(Kept::Derivation)), "{kind}"),
        }
        let ledger = buffer.accounts().snapshot().ledger;
        assert!(ledger.balances(), "{kind}: {ledger:?}");
        assert_eq!(
            (&ledger.merged[..], &ledger.derived[..], ledger.buffered),
            (&[4][..], &[1][..], 1),
            "{kind}"
        );
        buffer.push(request(4..6, Ack::Memory)).await.expect("room again");
        let parts = pull(&mut outlet, 1).await;
        assert_eq!((numbers(&parts[0]), parts[0].made_by()), (vec![100], Some("mean")), "{kind}");
        assert!(!push.is_finished(), "{kind}: what was made of it is not delivered");
        deliver(&mut outlet, parts);
        assert_eq!(push.await.expect("no panic"), Ok(Receipt { ack: Ack::Delivered }), "{kind}");
        let parts = pull(&mut outlet, 1).await;
        deliver(&mut outlet, parts);
        assert_eq!(buffer.accounts().snapshot().held_bytes, 0, "{kind}");
    }
}

#[tokio::test]
async fn readings_of_which_nothing_is_made_are_settled_with_it() {
    for kind in KINDS.names() {
        let (Opened { buffer, mut outlet, .. }, _directory) = open(kind, 10, 1 << 20);
        buffer.push(request(0..4, Ack::Memory)).await.expect("room");
        let merged = pull(&mut outlet, 1).await.into_iter().map(Hold::from).collect();
        let (made_by, readings) = (Arc::from("mean"), Readings::default());
        let derivation = Derivation { transform: 2, made_by, readings, merged };
        assert!(matches!(outlet.derive(derivation, Instant::now()), Deriving::Done), "{kind}");
        let snapshot = buffer.accounts().snapshot();
        assert_eq!(
            (snapshot.ledger.merged[2], snapshot.ledger.buffered, snapshot.held_bytes),
            (4, 0, 0),
            "{kind}"
        );
    }
}
