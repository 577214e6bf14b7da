//! The statements of the writer, and the row of a reading.

use std::collections::HashMap;

use forebay_reading::{ReadingRef, Value};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement};
use serde::Serializer as _;

/// Most bytes of the cache of series.
const SERIES_CACHED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Approximate bytes of a cache entry besides its key.
const SERIES_ENTRY_BYTES: usize = 64;

pub(super) struct Statements<'c> {
    pub(super) insert_key: Statement<'c>,
    pub(super) prune_keys: Statement<'c>,
    pub(super) find_series: Statement<'c>,
    pub(super) insert_series: Statement<'c>,
    pub(super) insert_reading: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> Result<Statements<'c>, rusqlite::Error> {
        Ok(Statements {
            insert_key: connection.prepare("INSERT OR IGNORE INTO batches (key) VALUES (?1)")?,
            prune_keys: connection
                .prepare("DELETE FROM batches WHERE id <= (SELECT max(id) FROM batches) - ?1")?,
            find_series: connection.prepare(
                "SELECT id FROM series WHERE device = ?1 AND sensor = ?2 AND unit = ?3 AND tags = ?4",
            )?,
            insert_series: connection
                .prepare("INSERT INTO series (device, sensor, unit, tags) VALUES (?1, ?2, ?3, ?4)")?,
            insert_reading: connection
                .prepare("INSERT INTO readings (series, time, value) VALUES (?1, ?2, ?3)")?,
        })
    }
}

pub(super) fn to_sql(value: Value<'_>) -> ValueRef<'_> {
    match value {
        Value::Integer(number) => ValueRef::Integer(number),
        Value::Double(number) => ValueRef::Real(number),
        Value::Boolean(false) => ValueRef::Blob(&[0]),
        Value::Boolean(true) => ValueRef::Blob(&[1]),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
    }
}

/// The ids of series by their names. The cache is cleared at [`SERIES_CACHED_BYTES_MAX`].
///
/// **Invariant**: every id in it is committed, or part of the open transaction
/// (`a_failed_batch_leaves_nothing_behind`).
#[derive(Default)]
pub(super) struct SeriesCache {
    ids: HashMap<Box<[u8]>, i64>,
    bytes: usize,
    /// The key of the current look-up, reused so that a hit allocates nothing.
    key: Vec<u8>,
}

impl SeriesCache {
    pub(super) fn id(
        &mut self,
        reading: ReadingRef<'_>,
        statements: &mut Statements<'_>,
    ) -> Result<i64, rusqlite::Error> {
        self.set_key(reading);
        if let Some(id) = self.ids.get(self.key.as_slice()) {
            return Ok(*id);
        }
        let tags = tags_to_json(reading);
        let unit = reading.unit().unwrap_or_default();
        let series = (reading.device(), reading.sensor(), unit, tags.as_str());
        let found = statements.find_series.query_row(series, |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => statements.insert_series.insert(series)?,
        };
        if self.bytes > SERIES_CACHED_BYTES_MAX {
            self.clear();
        }
        self.bytes += self.key.len() + SERIES_ENTRY_BYTES;
        self.ids.insert(self.key.as_slice().into(), id);
        Ok(id)
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.bytes = 0;
    }

    /// Sets the key: the texts of a series, each with its length, so that no two series share a key.
    fn set_key(&mut self, reading: ReadingRef<'_>) {
        self.key.clear();
        let names =
            [reading.device_bytes(), reading.sensor_bytes(), reading.unit_bytes().unwrap_or_default()];
        let tags = reading.tags_bytes().flat_map(|(name, value)| [name, value]);
        for text in names.into_iter().chain(tags) {
            self.key.extend_from_slice(&text.len().to_le_bytes());
            self.key.extend_from_slice(text);
        }
    }
}

fn tags_to_json(reading: ReadingRef<'_>) -> String {
    let mut tags = reading.tags().peekable();
    if tags.peek().is_none() {
        return String::new();
    }
    let mut json = Vec::new();
    let written = serde_json::Serializer::new(&mut json).collect_map(tags);
    written.expect("texts are written to memory");
    String::from_utf8(json).expect("JSON is UTF-8")
}
