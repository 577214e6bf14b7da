//! The promises for readings that are derived from others in the buffer on disk: after a crash either the
//! sources or the results are there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::support::records::numbers;
use crate::support::site::{Running, Site, numbered};
use crate::support::{LIMIT, eventually, rounds};
use forebay::buffer::{Ack, Derivation, Deriving, Hold, Kept, Part};
use forebay_wal::faulty_fs::FaultRates;
use tokio::time::{Instant, timeout};

/// Room for everything.
const BYTES: u64 = 1 << 30;

fn derivation(made: Range<i64>, of: Vec<Part>) -> Derivation {
    Derivation {
        transform: 1,
        made_by: "mean".into(),
        readings: numbered(made),
        merged: of.into_iter().map(Hold::from).collect(),
    }
}

/// Begins to put readings with the values `made` into the place of others.
fn derive(running: &mut Running, made: Range<i64>, of: Vec<Part>) {
    let deriving = running.outlet.derive(derivation(made, of), Instant::now());
    assert!(matches!(deriving, Deriving::UnderWay), "{deriving:?}");
}

/// The next event of the log.
async fn kept(running: &mut Running) -> Kept {
    timeout(LIMIT, running.kept.recv()).await.expect("an answer in time").expect("the log's thread runs")
}

/// The sources of a reading in the end.
fn sources(number: i64, made_of: &BTreeMap<i64, BTreeSet<i64>>, each: &mut impl FnMut(i64)) {
    match made_of.get(&number) {
        Some(of) => of.iter().for_each(|number| sources(*number, made_of, each)),
        None => each(number),
    }
}

/// The numbers of the readings that were found at a start, and who made them.
async fn found(running: &mut Running) -> Vec<(i64, bool)> {
    let (_, parts) = running.pull_readings(usize::try_from(running.recovered()).expect("few")).await;
    let made = |part: &Part| part.made_by().is_some_and(|name| name == "mean");
    parts.iter().flat_map(|part| numbers(part).into_iter().map(move |number| (number, made(part)))).collect()
}

#[tokio::test]
async fn after_a_power_loss_the_derived_reading_is_found_and_its_sources_are_not() {
    let site = Site::new(31);
    let mut running = site.open(BYTES);
    running.push(0..4, Ack::Disk).await.expect("room");
    running.push(4..8, Ack::Disk).await.expect("room");
    let (_, mut parts) = running.pull_readings(8).await;
    // From the middle of both requests.
    let (mut first, mut second) = (parts.remove(0), parts.remove(0));
    let rest = first.split_first(1);
    derive(&mut running, 100..102, vec![first, second.split_first(2)]);
    assert!(matches!(kept(&mut running).await, Kept::Derivation));
    let ledger = running.buffer.accounts().snapshot().ledger;
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((&ledger.merged[..], &ledger.derived[..], ledger.buffered), (&[0, 5][..], &[0, 2][..], 5));
    let (made, parts) = running.pull_readings(2).await;
    assert_eq!((made, parts[0].made_by()), (vec![100, 101], Some("mean")));
    // A note syncs everything before it.
    assert!(running.note("key", &parts).await.is_some());
    drop((rest, second));
    site.lose_power(running).await;

    let mut running = site.open(BYTES);
    assert_eq!(running.recovered(), 5);
    let resumed = running.outlet.resumed().remove(0);
    assert_eq!((resumed.parts[0].made_by(), numbers(&resumed.parts[0])), (Some("mean"), vec![100, 101]));
    let (left, parts) = running.pull_readings(3).await;
    assert_eq!(left, [0, 6, 7]);
    running.deliver(resumed.parts, Some(resumed.note));
    running.deliver(parts, None);
    let snapshot = running.buffer.accounts().snapshot();
    assert!(snapshot.ledger.balances() && snapshot.held_bytes == 0, "{snapshot:?}");
    running.close().await;
    assert_eq!(site.open(BYTES).recovered(), 0);
}

#[tokio::test]
async fn whenever_power_is_lost_a_reading_is_there_or_in_its_derived_reading_and_never_both() {
    for seed in 0..rounds(20, 60) as u64 {
        let site = Site::new(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut running = site.open(1 << 20);
        let mut next = 0;
        let mut made_of: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        let mut lent: Vec<Part> = Vec::new();
        for _ in 0..random.usize(1..40) {
            match random.u8(..4) {
                0..=1 => {
                    let count = random.i64(1..6);
                    running.push(next..next + count, Ack::Disk).await.expect("room");
                    let (_, parts) = running.pull_readings(usize::try_from(count).expect("small")).await;
                    lent.extend(parts);
                    next += count;
                }
                2 if !lent.is_empty() => {
                    let mut of = Vec::new();
                    for part in &mut lent {
                        of.push(part.split_first(random.usize(0..3)));
                    }
                    lent.retain(|part| !part.is_empty());
                    of.retain(|part| !part.is_empty());
                    if of.is_empty() {
                        continue;
                    }
                    let id = 1_000_000 + i64::try_from(made_of.len()).expect("few");
                    made_of.insert(id, of.iter().flat_map(numbers).collect());
                    derive(&mut running, id..id + 1, of);
                    if random.bool() {
                        assert!(matches!(kept(&mut running).await, Kept::Derivation));
                    }
                }
                // Events that sync the log.
                _ => {
                    running.push(next..next + 1, Ack::Disk).await.expect("room");
                    next += 1;
                }
            }
        }
        // Derived readings come back by the same way, and others may be derived from them.
        drop(lent);
        site.lose_power(running).await;

        let mut running = site.open(1 << 20);
        let mut counted: BTreeMap<i64, u32> = BTreeMap::new();
        for (number, is_made) in found(&mut running).await {
            assert_eq!(is_made, number >= 1_000_000, "seed {seed}");
            sources(number, &made_of, &mut |number| *counted.entry(number).or_default() += 1);
        }
        let all: BTreeMap<i64, u32> = (0..next).map(|number| (number, 1)).collect();
        assert_eq!(counted, all, "seed {seed}");
        let ledger = running.buffer.accounts().snapshot().ledger;
        assert!(ledger.balances(), "seed {seed}: {ledger:?}");
    }
}

#[tokio::test]
async fn derivations_that_a_failing_disk_refuses_are_tried_again_and_stored_later() {
    let site = Site::new(32);
    let mut running = site.open(BYTES);
    running.push(0..4, Ack::Disk).await.expect("room");
    let (_, parts) = running.pull_readings(4).await;
    site.fs.set_faults(FaultRates { write: 1.0, ..FaultRates::default() });
    derive(&mut running, 100..101, parts);
    let Kept::NotNow(again) = kept(&mut running).await else { panic!("it cannot be kept") };
    assert_eq!((again.merged.len(), again.readings.len()), (1, 1));
    let ledger = running.buffer.accounts().snapshot().ledger;
    assert!(ledger.merged.is_empty() && ledger.buffered == 4, "{ledger:?}");
    site.fs.set_faults(FaultRates::default());
    running.recovers_from_trouble().await;
    let Deriving::UnderWay = running.outlet.derive(again, Instant::now()) else { panic!("it is written") };
    assert!(matches!(kept(&mut running).await, Kept::Derivation));
    let (made, parts) = running.pull_readings(1).await;
    assert_eq!(made, [100]);
    running.deliver(parts, None);
    assert_eq!(running.buffer.accounts().snapshot().held_bytes, 0);
    running.close().await;
    assert_eq!(site.open(BYTES).recovered(), 0);
}

#[tokio::test]
async fn a_reading_derived_from_readings_in_memory_is_on_disk() {
    let site = Site::new(33);
    let mut running = site.open(BYTES);
    site.fs.set_faults(FaultRates { write: 1.0, ..FaultRates::default() });
    running.push(0..3, Ack::Memory).await.expect("room");
    let (_, parts) = running.pull_readings(3).await;
    site.fs.set_faults(FaultRates::default());
    running.recovers_from_trouble().await;
    derive(&mut running, 100..101, parts);
    assert!(matches!(kept(&mut running).await, Kept::Derivation));
    running.close().await;
    let mut running = site.open(BYTES);
    assert_eq!(found(&mut running).await, [(100, true)]);
}

#[tokio::test]
async fn a_derived_reading_in_a_backlog_is_read_from_disk_and_still_known_as_derived() {
    let site = Site::new(34);
    let mut running = site.open(BYTES);
    running.push(0..1, Ack::Disk).await.expect("room");
    let (_, parts) = running.pull_readings(1).await;
    // More than is handed on from memory.
    for request in 1..130 {
        running.push(request * 1000..(request + 1) * 1000, Ack::Disk).await.expect("room");
    }
    derive(&mut running, 1_000_000..1_000_002, parts);
    assert!(matches!(kept(&mut running).await, Kept::Derivation));
    let mut made = Vec::new();
    let mut count = 0;
    while count < 129_002 {
        let parts = running.pull().await;
        count += parts.iter().map(Part::len).sum::<usize>();
        made.extend(parts.iter().filter(|part| part.made_by() == Some("mean")).flat_map(numbers));
        running.deliver(parts, None);
    }
    assert_eq!(made, [1_000_000, 1_000_001]);
    let accounts = Arc::clone(running.buffer.accounts());
    eventually("all is settled", || async { accounts.buffered() == 0 }).await;
    running.close().await;
}
