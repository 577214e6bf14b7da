//! The store of a node's readings. [`database`](super::database) has the schema of its file.
//!
//! One thread writes ([`writer`](super::writer)); queries run on a few read-only connections
//! ([`reader`](super::reader)). The journal is a write-ahead log with `synchronous = FULL`: a commit is on stable storage
//! when it returns. A checkpoint at every start, about every second, and at a stop moves the log into the file and
//! truncates it, so that a flipped bit in the log costs at most a second of readings. Acknowledged readings that are
//! missing are reported at the next start ([`marks`](super::marks)). Another process may have the file open, too: SQLite's
//! locks order the writers, and a writer that waits longer than [`StoreSettings::busy_timeout`] gets an error.

use std::path::Path;
use std::sync::Arc;

use super::database::{StoreError, StoreHealth, StoreSettings};
use super::reader::{Order, QueryRows, Readers, ReadingFilter};
use super::writer::{PutOutcome, RunningWriter, StoreBatch, StoreWriter};

/// The store of a node. The writer's thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct ReadingStore {
    writer: StoreWriter,
    readers: Arc<Readers>,
    health: Arc<StoreHealth>,
}

impl ReadingStore {
    /// Opens or creates the file and starts the writer's thread.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file cannot be opened, written, or understood.
    pub(super) fn open(
        path: &Path,
        settings: StoreSettings,
    ) -> Result<(ReadingStore, std::thread::JoinHandle<()>), StoreError> {
        let RunningWriter { writer, thread, health } = StoreWriter::start(path, settings)?;
        let (readers, health) = (Arc::new(Readers::new(path)), Arc::new(health));
        Ok((ReadingStore { writer, readers, health }, thread))
    }

    /// The damage that was found at the start.
    pub(super) fn health(&self) -> &StoreHealth {
        &self.health
    }

    /// The connections for queries.
    pub(super) fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Stores a batch, unless its key was stored before, and returns when it is on stable storage.
    ///
    /// If the future is dropped, the batch may be stored or not; a retry with its key finds out.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing of the batch was stored then.
    pub(super) async fn put(&self, batch: StoreBatch) -> Result<PutOutcome, StoreError> {
        self.writer.put(batch).await
    }

    /// Whether batches can still be put.
    pub(super) fn is_open(&self) -> bool {
        self.writer.is_open()
    }

    /// Counts the readings that pass the filter.
    pub(super) async fn count(&self, filter: ReadingFilter) -> Result<u64, StoreError> {
        self.readers.count(filter).await
    }

    /// Reads the readings that pass the filter.
    pub(super) async fn read(
        &self,
        filter: ReadingFilter,
        order: Order,
        limit: Option<u64>,
    ) -> Result<QueryRows, StoreError> {
        self.readers.read(filter, order, limit).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        clippy::disallowed_types,
        reason = "numbers of a test are small, and one measures"
    )]

    use std::time::Duration;

    use rusqlite::Connection;

    use super::*;
    use forebay_reading::timestamp::Timestamp;
    use forebay_reading::{NewValue, ReadingParts, Readings, Tag, Value};
    use std::thread::JoinHandle;

    struct TestStore {
        store: ReadingStore,
        thread: JoinHandle<()>,
        directory: tempfile::TempDir,
    }

    impl TestStore {
        fn open() -> TestStore {
            TestStore::open_in(tempfile::tempdir().expect("a directory"), StoreSettings::default())
        }

        fn open_in(directory: tempfile::TempDir, settings: StoreSettings) -> TestStore {
            let opened = ReadingStore::open(&directory.path().join("readings.db"), settings);
            let (store, thread) = opened.expect("it opens");
            TestStore { store, thread, directory }
        }

        fn reopen(self) -> TestStore {
            drop(self.store);
            self.thread.join().expect("the writer ends well");
            TestStore::open_in(self.directory, StoreSettings::default())
        }

        /// A connection like one of another process.
        fn shell(&self) -> Connection {
            Connection::open(self.directory.path().join("readings.db")).expect("it opens")
        }

        async fn put(&self, key: Option<&str>, readings: Readings) -> Result<PutOutcome, StoreError> {
            self.store.put(StoreBatch { key: key.map(str::to_owned), readings }).await
        }

        async fn count(&self) -> u64 {
            self.store.count(ReadingFilter::default()).await.expect("a number")
        }

        async fn read(&self, filter: ReadingFilter, limit: Option<u64>) -> Vec<String> {
            let mut rows = self.store.read(filter, Order::OldestFirst, limit).await.expect("rows");
            let mut text = Vec::new();
            while let Some(part) = rows.next().await {
                text.extend_from_slice(&part.expect("a part"));
            }
            String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
        }
    }

    const PLAIN: ReadingParts<'static> = ReadingParts {
        device: "d",
        sensor: "s",
        value: NewValue::Value(Value::Integer(1)),
        time: Timestamp::MIN,
        unit: None,
        tags: &[],
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000).expect("after 1970")
    }

    fn readings<'a>(parts: impl IntoIterator<Item = ReadingParts<'a>>) -> Readings {
        let mut readings = Readings::default();
        for parts in parts {
            readings.push(&parts).expect("within the limits");
        }
        readings
    }

    fn lines(readings: &Readings) -> Vec<String> {
        let line = |reading| {
            let mut line = Vec::new();
            forebay_codec::write_reading(reading, &mut line);
            String::from_utf8(line).expect("text")
        };
        readings.iter().map(line).collect()
    }

    #[tokio::test]
    async fn a_key_stores_once_also_after_a_restart() {
        let store = TestStore::open();
        let three = || readings([PLAIN, PLAIN, PLAIN]);
        assert_eq!(store.put(Some("a"), three()).await.ok(), Some(PutOutcome::Stored));
        assert_eq!(store.put(Some("a"), three()).await.ok(), Some(PutOutcome::Duplicate));
        assert_eq!(store.put(None, three()).await.ok(), Some(PutOutcome::Stored));
        let store = store.reopen();
        assert_eq!(store.put(Some("a"), three()).await.ok(), Some(PutOutcome::Duplicate));
        assert_eq!(store.put(Some("b"), three()).await.ok(), Some(PutOutcome::Stored));
        assert_eq!(store.count().await, 9);
    }

    #[tokio::test]
    async fn one_key_put_many_times_at_once_stores_once() {
        let store = TestStore::open();
        let puts = (0..40).map(|_| store.put(Some("a"), readings([PLAIN])));
        let stored = futures_util::future::join_all(puts).await;
        let new = stored.into_iter().filter(|stored| matches!(stored, Ok(PutOutcome::Stored))).count();
        assert_eq!((new, store.count().await), (1, 1));
    }

    #[tokio::test]
    async fn every_kind_of_value_and_every_name_is_read_back_unchanged() {
        let text = "0\0\u{7f}\"é\n".repeat(100);
        let values = [
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Integer(20),
            Value::Double(20.0),
            Value::Double(-0.0),
            Value::Double(5e-324),
            Value::Double(f64::MAX),
            Value::Double(0.1),
            Value::Boolean(true),
            Value::Boolean(false),
            Value::Text(""),
            Value::Text("20"),
            Value::Text("true"),
            Value::Text(&text),
        ];
        let mut kept = readings(values.map(|value| ReadingParts { value: value.into(), ..PLAIN }));
        let tags: Vec<Tag<'_>> = vec![("z".into(), "\"1\"".into()), ("a".into(), "".into())];
        let turned: Vec<Tag<'_>> = tags.iter().rev().cloned().collect();
        for parts in [
            ReadingParts { unit: Some("Cel"), ..PLAIN },
            ReadingParts { tags: &tags, ..PLAIN },
            ReadingParts { tags: &turned, ..PLAIN },
            ReadingParts { unit: Some("Cel"), tags: &tags, ..PLAIN },
            ReadingParts { time: Timestamp::MAX, ..PLAIN },
        ] {
            kept.push(&parts).expect("within the limits");
        }
        let store = TestStore::open();
        store.put(None, kept.clone()).await.expect("stored");
        let store = store.reopen();
        assert_eq!(store.read(ReadingFilter::default(), None).await, lines(&kept));
    }

    #[tokio::test]
    async fn readings_come_oldest_first_and_by_arrival_within_an_instant() {
        let store = TestStore::open();
        let mut expected = Vec::new();
        let mut random = fastrand::Rng::with_seed(7);
        for batch in 0..5 {
            let of = |number: i64| ReadingParts {
                device: if number % 3 == 0 { "even" } else { "odd" },
                value: Value::Integer(batch * 1000 + number).into(),
                time: at(random.i64(0..100)),
                ..PLAIN
            };
            let kept = readings((0..1000).map(of));
            expected.extend(kept.iter().map(|reading| reading.time()).zip(lines(&kept)));
            store.put(None, kept).await.expect("stored");
        }
        // A stable sort keeps readings of one instant in the order of their arrival.
        expected.sort_by_key(|(time, _)| *time);
        let expected: Vec<String> = expected.into_iter().map(|(_, line)| line).collect();
        assert_eq!(store.read(ReadingFilter::default(), None).await, expected);
        assert_eq!(store.read(ReadingFilter::default(), Some(300)).await, expected[..300]);
        let even = ReadingFilter { device: Some("even".into()), ..ReadingFilter::default() };
        let of_even: Vec<String> = expected.into_iter().filter(|line| line.contains("even")).collect();
        assert_eq!(store.read(even, None).await, of_even);
    }

    #[tokio::test]
    async fn filters_apply_to_reading_and_counting() {
        let store = TestStore::open();
        let mut all = Vec::new();
        for (device, sensor) in [("a", "x"), ("a", "y"), ("b", "x")] {
            for millis in 0..10 {
                all.push(ReadingParts { device, sensor, time: at(millis), ..PLAIN });
            }
        }
        store.put(None, readings(all)).await.expect("stored");
        let filter = |device: &str, sensor: &str, from: i64, to: i64| ReadingFilter {
            device: (!device.is_empty()).then(|| device.to_owned()),
            sensor: (!sensor.is_empty()).then(|| sensor.to_owned()),
            from: (from >= 0).then(|| at(from)),
            to: (to >= 0).then(|| at(to)),
        };
        for (filter, expected) in [
            (filter("", "", -1, -1), 30),
            (filter("", "", 3, -1), 21),
            (filter("", "", -1, 3), 9),
            (filter("", "", -1, 0), 0),
            (filter("", "", 5, 3), 0),
            (filter("a", "", -1, -1), 20),
            (filter("a", "", 3, 4), 2),
            (filter("", "x", 3, 4), 2),
            (filter("a", "x", -1, -1), 10),
            (filter("a", "x", 3, 5), 2),
            (filter("c", "", -1, -1), 0),
            (filter("b", "y", -1, -1), 0),
        ] {
            assert_eq!(store.store.count(filter.clone()).await.ok(), Some(expected), "{filter:?}");
            assert_eq!(store.read(filter.clone(), None).await.len() as u64, expected, "{filter:?}");
        }
    }

    #[tokio::test]
    async fn a_failed_batch_leaves_nothing_behind() {
        let store = TestStore::open();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON readings WHEN NEW.value = 13
            BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
        store.shell().execute_batch(refuse).expect("a trigger");
        let new_series = ReadingParts { device: "new", ..PLAIN };
        let bad = ReadingParts { value: Value::Integer(13).into(), ..new_series.clone() };
        let error = store.put(Some("a"), readings([new_series.clone(), bad])).await.expect_err("refused");
        assert_eq!(error.to_string(), "the store failed: the disk is full");
        assert_eq!(store.count().await, 0);
        // The key was not stored, and the series of the failed batch is inserted again.
        let good = readings([new_series]);
        assert_eq!(store.put(Some("a"), good.clone()).await.ok(), Some(PutOutcome::Stored));
        assert_eq!(store.read(ReadingFilter::default(), None).await, lines(&good));
    }

    #[tokio::test]
    async fn a_store_refuses_batches_while_another_process_locks_the_file() {
        let settings = StoreSettings { busy_timeout: Duration::from_millis(20), ..StoreSettings::default() };
        let store = TestStore::open_in(tempfile::tempdir().expect("a directory"), settings);
        let other = store.shell();
        other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        let error = store.put(Some("a"), readings([PLAIN])).await.expect_err("locked");
        assert_eq!(error.to_string(), "the store failed: database is locked");
        other.execute_batch("COMMIT").expect("unlocked");
        assert_eq!(store.put(Some("a"), readings([PLAIN])).await.ok(), Some(PutOutcome::Stored));
    }

    #[tokio::test]
    async fn two_stores_on_one_file_share_series_and_keys() {
        let first = TestStore::open();
        let path = first.directory.path().join("readings.db");
        let (second, _thread) = ReadingStore::open(&path, StoreSettings::default()).expect("it opens");
        for round in 0..10 {
            let key = format!("key-{round}");
            let batch = || StoreBatch { key: Some(key.clone()), readings: readings([PLAIN]) };
            let (one, other) = tokio::join!(first.store.put(batch()), second.put(batch()));
            assert_ne!(one.expect("stored"), other.expect("stored"));
        }
        assert_eq!(first.count().await, 10);
        let series = "SELECT count(*) FROM series";
        assert_eq!(first.shell().query_row(series, [], |row| row.get::<_, i64>(0)), Ok(1));
    }

    #[tokio::test]
    async fn the_oldest_keys_are_forgotten_beyond_the_limit() {
        let settings = StoreSettings { keys_max: 3, ..StoreSettings::default() };
        let store = TestStore::open_in(tempfile::tempdir().expect("a directory"), settings);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(store.put(Some(key), readings([PLAIN])).await.ok(), Some(PutOutcome::Stored));
        }
        for (key, expected) in
            [("b", PutOutcome::Duplicate), ("d", PutOutcome::Duplicate), ("a", PutOutcome::Stored)]
        {
            assert_eq!(store.put(Some(key), readings([PLAIN])).await.ok(), Some(expected), "{key}");
        }
    }

    #[tokio::test]
    async fn the_view_shows_readings_to_people() {
        let store = TestStore::open();
        let tags: Vec<Tag<'_>> = vec![("room".into(), "1".into())];
        let full = ReadingParts { unit: Some("Cel"), tags: &tags, ..PLAIN };
        let truth = ReadingParts { value: Value::Boolean(true).into(), time: at(1), ..PLAIN };
        store.put(None, readings([full, truth])).await.expect("stored");
        let shell = store.shell();
        let sql = "SELECT concat_ws('|', device, sensor, value, time_ns, unit, tags) FROM readings_by_name
            ORDER BY time_ns";
        let mut statement = shell.prepare(sql).expect("the view is there");
        let rows: Result<Vec<String>, _> = statement.query_map([], |row| row.get(0)).expect("rows").collect();
        let expected = ["d|s|1|0|Cel|{\"room\":\"1\"}", "d|s|true|1000000"];
        assert_eq!(rows.expect("texts"), expected);
    }

    #[tokio::test]
    async fn an_invalid_row_ends_the_answer_and_is_named() {
        let store = TestStore::open();
        store.put(None, readings([PLAIN])).await.expect("stored");
        let shell = store.shell();
        shell.execute_batch("INSERT INTO readings VALUES (99, 1, 5, x'0102')").expect("written");
        let error = store
            .store
            .read(ReadingFilter::default(), Order::OldestFirst, None)
            .await
            .expect_err("no reading");
        assert!(error.to_string().starts_with("reading 99 in the store is not one: its value is"), "{error}");
    }

    #[tokio::test]
    async fn a_file_of_a_later_version_is_refused() {
        let store = TestStore::open();
        store.shell().pragma_update(None, "user_version", 2).expect("written");
        let path = store.directory.path().join("readings.db");
        let error = ReadingStore::open(&path, StoreSettings::default()).expect_err("unknown");
        assert!(error.to_string().starts_with("the file has version 2, this program knows 1"), "{error}");
    }

    #[tokio::test]
    async fn stalled_queries_free_their_slots_when_they_are_dropped() {
        let store = TestStore::open();
        let many = readings((0..50_000).map(|millis| ReadingParts { time: at(millis), ..PLAIN }));
        store.put(None, many).await.expect("stored");
        for _ in 0..3 {
            let mut stalled = Vec::new();
            for _ in 0..4 {
                stalled.push(
                    store.store.read(ReadingFilter::default(), Order::OldestFirst, None).await.expect("rows"),
                );
            }
            drop(stalled);
        }
        assert_eq!(store.count().await, 50_000);
    }

    /// Run with `--ignored --nocapture`, best with optimisation.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "measures, promises nothing"]
    async fn rows_per_second() {
        for (batch, in_flight) in [(5000, 1), (1000, 1), (1000, 16)] {
            let store = TestStore::open();
            let devices: Vec<String> = (0..1000).map(|device| format!("device-{device:04}")).collect();
            let (rounds, begun) = (400_000 / batch, std::time::Instant::now());
            let make = |round: i64| {
                readings((0..batch).map(|number| ReadingParts {
                    device: &devices[(number % 1000) as usize],
                    value: Value::Double(number as f64 / 7.0).into(),
                    time: at(1_700_000_000_000 + round * batch + number),
                    ..PLAIN
                }))
            };
            let batches: Vec<Readings> = (0..rounds).map(make).collect();
            let made = begun.elapsed();
            use futures_util::StreamExt as _;
            let puts = batches.into_iter().map(|readings| store.put(None, readings));
            let puts = futures_util::stream::iter(puts).buffer_unordered(in_flight);
            puts.for_each(|stored| async move { assert!(stored.is_ok()) }).await;
            let took = (begun.elapsed() - made).as_secs_f64();
            let rows = (rounds * batch) as f64;
            println!("batch {batch}, {in_flight} in flight: {:.0} rows/s", rows / took);
            let begun = std::time::Instant::now();
            let read = store.read(ReadingFilter::default(), None).await.len() as f64;
            println!("  read back: {:.0} rows/s", read / begun.elapsed().as_secs_f64());
            let file = std::fs::metadata(store.directory.path().join("readings.db")).expect("a file");
            println!("  {:.1} bytes a row", file.len() as f64 / rows);
        }
    }
}
