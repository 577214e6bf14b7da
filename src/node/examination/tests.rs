#![expect(
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    reason = "numbers of a test are small, and its threads have no runtime"
)]

use std::time::Duration;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Value};

use super::*;
use crate::node::database::StoreSettings;
use crate::node::reader::{Order, ReadingFilter};
use crate::node::store::ReadingStore;
use crate::node::writer::StoreBatch;

const FILES: [&str; 3] = ["readings.db", "readings.db-wal", "readings.db-answered"];
const LOG: &str = "readings.db-wal";
const BATCHES: i64 = 30;
const READINGS: i64 = 20;
const ALL: u64 = (BATCHES * READINGS) as u64;

/// All readings stay in SQLite's log until the stop.
fn late() -> StoreSettings {
    StoreSettings { checkpoint_every: Duration::from_secs(3600), ..StoreSettings::default() }
}

/// A batch whose readings are neighbours in the index, away from those of other batches.
fn batch(number: i64) -> StoreBatch {
    StoreBatch {
        key: Some(format!("key-{number}")),
        readings: readings(number * 200..number * 200 + READINGS),
    }
}

/// A reading for each of these milliseconds.
fn readings(millis: std::ops::Range<i64>) -> Readings {
    let mut readings = Readings::default();
    for place in millis {
        let device = format!("device-{}", place % 7);
        let parts = ReadingParts {
            device: &device,
            sensor: "s",
            value: Value::Integer(place).into(),
            time: Timestamp::from_nanos(place * 1_000_000).expect("after 1970"),
            unit: None,
            tags: &[],
        };
        readings.push(&parts).expect("a reading");
    }
    readings
}

fn open(directory: &Path, settings: StoreSettings) -> Result<ReadingStore, StoreError> {
    ReadingStore::open(&directory.join("readings.db"), settings).map(|(store, _thread)| store)
}

/// A store with all batches.
async fn filled(directory: &Path, settings: StoreSettings) -> ReadingStore {
    let store = open(directory, settings).expect("it opens");
    for number in 0..BATCHES {
        store.put(batch(number)).await.expect("stored");
    }
    store
}

/// A copy of the files in the state that a kill would leave.
fn killed(directory: &Path) -> tempfile::TempDir {
    let killed = tempfile::tempdir().expect("a directory");
    for file in FILES {
        std::fs::copy(directory.join(file), killed.path().join(file)).expect("copied");
    }
    killed
}

fn length(directory: &Path, file: &str) -> usize {
    usize::try_from(std::fs::metadata(directory.join(file)).expect("a file").len()).expect("it is small")
}

fn flip(directory: &Path, file: &str, byte: usize, bit: u32) {
    let path = directory.join(file);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[byte] ^= 1 << bit;
    std::fs::write(path, bytes).expect("written");
}

/// The number of readings, on which all ways to query must agree.
async fn found(store: &ReadingStore) -> u64 {
    let counted = store.count(ReadingFilter::default()).await.expect("counted");
    let of_sensor = ReadingFilter { sensor: Some("s".to_owned()), ..ReadingFilter::default() };
    assert_eq!(store.count(of_sensor.clone()).await.expect("counted"), counted);
    let mut rows = store.read(of_sensor, Order::OldestFirst, None).await.expect("rows");
    let mut lines = 0;
    while let Some(part) = rows.next().await {
        lines += part.expect("a part").iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines as u64, counted);
    counted
}

/// Bytes of a log in which to flip a bit: some of its header and the first frame's header, and fewer of the rest.
fn places(log_bytes: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..56).step_by(5).chain((56..log_bytes).step_by(step))
}

#[tokio::test]
async fn a_kill_loses_nothing_and_reports_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let _store = filled(directory.path(), late()).await;
    let killed = killed(directory.path());
    let store = open(killed.path(), late()).expect("it opens");
    assert_eq!((found(&store).await, store.health()), (ALL, &StoreHealth::default()));
}

#[tokio::test]
async fn a_bit_flip_in_the_log_after_a_kill_loses_nothing_or_the_loss_is_reported_with_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let _store = filled(directory.path(), late()).await;
    let log_bytes = length(directory.path(), LOG);
    let mut lost_at_most = 0;
    for (number, byte) in places(log_bytes, log_bytes / 40).chain([log_bytes - 1]).enumerate() {
        let killed = killed(directory.path());
        flip(killed.path(), LOG, byte, number as u32 % 8);
        let store = open(killed.path(), late()).expect("it opens");
        let health = store.health().clone();
        assert_eq!(found(&store).await + health.lost_readings, ALL, "byte {byte} of {log_bytes}");
        assert_eq!(health.damage, None, "byte {byte}");
        lost_at_most = lost_at_most.max(health.lost_readings);
        // The store goes on, and the next start reports the same loss, not a second one.
        store.put(batch(BATCHES)).await.expect("stored");
        assert_eq!(found(&store).await + health.lost_readings, ALL + READINGS as u64);
        let again = open(self::killed(killed.path()).path(), late()).expect("it opens");
        assert_eq!(again.health(), &health, "byte {byte}");
    }
    assert!(lost_at_most > 0, "no flip did any harm: the test sees nothing");
}

#[tokio::test]
async fn the_loss_by_a_truncated_or_missing_log_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let _store = filled(directory.path(), late()).await;
    let log_bytes = length(directory.path(), LOG);
    for left in [log_bytes - 1, log_bytes / 2, 31, 0] {
        let killed = killed(directory.path());
        let log = std::fs::read(killed.path().join(LOG)).expect("read");
        std::fs::write(killed.path().join(LOG), &log[..left]).expect("cut");
        let store = open(killed.path(), late()).expect("it opens");
        let lost = store.health().lost_readings;
        assert!(lost >= READINGS as u64, "{lost} with {left} bytes left");
        assert_eq!(found(&store).await + lost, ALL, "{left} bytes left");
    }
}

#[tokio::test]
async fn damage_by_a_log_that_was_already_checkpointed_is_found() {
    const OLD: i64 = 6000;
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), late()).expect("it opens");
    store.put(StoreBatch { key: None, readings: readings(0..OLD) }).await.expect("stored");
    let shell = Connection::open(directory.path().join("readings.db")).expect("it opens");
    shell.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("moved");
    for number in 0..BATCHES {
        store.put(batch(number)).await.expect("stored");
    }
    // A checkpoint without truncation: a kill in the middle of one leaves the files like this.
    shell.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("moved");
    let log_bytes = length(directory.path(), LOG);
    let all = OLD as u64 + ALL;
    let mut whole = 0;
    for (number, byte) in places(log_bytes, log_bytes / 40).enumerate() {
        let killed = killed(directory.path());
        flip(killed.path(), LOG, byte, number as u32 % 8);
        // Old pages beside new ones may be invalid; then the start fails, which reports it.
        let Ok(store) = open(killed.path(), late()) else { continue };
        let health = store.health().clone();
        if health.damage.is_none() {
            whole += 1;
            assert_eq!(found(&store).await + health.lost_readings, all, "byte {byte} of {log_bytes}");
        }
    }
    assert!(whole >= 25, "only {whole} of the files were whole or could be mended");
}

#[tokio::test]
async fn readings_move_from_the_log_into_the_file_soon() {
    let directory = tempfile::tempdir().expect("a directory");
    let soon = StoreSettings { checkpoint_every: Duration::from_millis(20), ..StoreSettings::default() };
    let store = filled(directory.path(), soon).await;
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while length(directory.path(), LOG) > 0 {
        assert!(std::time::Instant::now() < until, "the log is emptied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The file alone has everything.
    let alone = tempfile::tempdir().expect("a directory");
    std::fs::copy(directory.path().join(FILES[0]), alone.path().join(FILES[0])).expect("copied");
    assert_eq!(found(&open(alone.path(), late()).expect("it opens")).await, ALL);
    assert_eq!(found(&store).await, ALL);
}

#[tokio::test]
async fn a_lasting_reader_delays_no_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let soon = StoreSettings { checkpoint_every: Duration::from_millis(1), ..StoreSettings::default() };
    let store = filled(directory.path(), soon).await;
    let shell = Connection::open(directory.path().join("readings.db")).expect("it opens");
    let snapshot = shell.unchecked_transaction().expect("a transaction");
    snapshot.query_row("SELECT count(*) FROM readings", [], |_| Ok(())).expect("counted");
    let begun = std::time::Instant::now();
    for number in 0..10 {
        store.put(batch(BATCHES + number)).await.expect("stored");
    }
    assert!(begun.elapsed() < StoreSettings::default().busy_timeout);
    assert_eq!(found(&store).await, ALL + 10 * READINGS as u64);
}

#[tokio::test]
async fn readings_deleted_by_hand_are_not_reported_as_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = filled(directory.path(), late()).await;
    let shell = Connection::open(directory.path().join("readings.db")).expect("it opens");
    shell.execute_batch("DELETE FROM readings").expect("deleted");
    store.put(batch(BATCHES)).await.expect("stored");
    let killed = killed(directory.path());
    let again = open(killed.path(), late()).expect("it opens");
    assert_eq!((found(&again).await, again.health()), (READINGS as u64, &StoreHealth::default()));
}

#[tokio::test]
async fn damage_of_the_file_itself_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, thread) =
        ReadingStore::open(&directory.path().join("readings.db"), late()).expect("it opens");
    for number in 0..BATCHES {
        store.put(batch(number)).await.expect("stored");
    }
    drop(store);
    thread.join().expect("it ends");
    let bytes = length(directory.path(), FILES[0]);
    let mut reported = 0;
    // The number of cells of each page but the first.
    for page in 1..bytes / 4096 {
        let damaged = tempfile::tempdir().expect("a directory");
        std::fs::copy(directory.path().join(FILES[0]), damaged.path().join(FILES[0])).expect("copied");
        flip(damaged.path(), FILES[0], page * 4096 + 4, 5);
        reported +=
            usize::from(open(damaged.path(), late()).map_or(true, |store| store.health().damage.is_some()));
    }
    assert!(reported * 10 >= (bytes / 4096 - 1) * 8, "{reported} of {} pages", bytes / 4096 - 1);
}
