//! The SQL of queries, and the readings made from its rows.

use std::collections::HashMap;
use std::fmt;

use forebay_codec::write_reading;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Tag, Value};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::de::{Deserializer as _, MapAccess, Visitor};

use super::{Order, ReadingFilter, Recipient, Sink};
use crate::node::database::StoreError;

/// Readings in one part of an answer.
const PART_READINGS: usize = 256;
/// Most series in the cache of a query.
const SERIES_CACHED_MAX: usize = 1000;

/// The SQL between `SELECT …` and `ORDER BY`, with its parameters.
fn from_where(filter: &ReadingFilter) -> (String, Vec<rusqlite::types::Value>) {
    let first = filter.from.unwrap_or(Timestamp::MIN).nanos();
    let last = filter.to.map_or(i64::MAX, |to| to.nanos() - 1);
    let mut parameters = vec![first.into(), last.into()];
    parameters.extend([&filter.device, &filter.sensor].into_iter().flatten().map(|name| name.clone().into()));
    let names = match (&filter.device, &filter.sensor) {
        (None, None) => "",
        (Some(_), None) => "AND series IN (SELECT id FROM series WHERE device = ?)",
        (None, Some(_)) => "AND series IN (SELECT id FROM series WHERE sensor = ?)",
        (Some(_), Some(_)) => "AND series IN (SELECT id FROM series WHERE device = ? AND sensor = ?)",
    };
    let sql = format!("FROM readings INDEXED BY readings_by_time WHERE time BETWEEN ? AND ? {names}");
    (sql, parameters)
}

pub(super) fn count(connection: &Connection, filter: &ReadingFilter) -> Result<u64, StoreError> {
    let (source, parameters) = if *filter == ReadingFilter::default() {
        // SQLite counts a whole table without reading its rows.
        ("FROM readings".to_owned(), Vec::new())
    } else {
        from_where(filter)
    };
    let sql = format!("SELECT count(*) {source}");
    let counted: i64 = connection.query_row(&sql, params_from_iter(parameters), |row| row.get(0))?;
    Ok(u64::try_from(counted).unwrap_or(0))
}

/// Sends the readings that match, in parts, until their end or until the client has gone.
pub(super) fn read(
    connection: &Connection,
    filter: &ReadingFilter,
    order: Order,
    limit: Option<u64>,
    sink: &Sink,
) -> Result<(), StoreError> {
    // One snapshot: it has the names of all its series, and no batch is seen twice or in part.
    let _snapshot = connection.unchecked_transaction()?;
    let (source, mut parameters) = from_where(filter);
    // To SQLite a negative limit is no limit.
    parameters.push(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)).into());
    let order = match order {
        Order::OldestFirst => "time, id",
        Order::NewestFirst => "time DESC, id DESC",
    };
    let sql = format!("SELECT id, series, time, value {source} ORDER BY {order} LIMIT ?");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut names = SeriesLookup { statement: connection.prepare(SeriesLookup::SQL)?, known: HashMap::new() };
    let mut readings = Readings::default();
    while let Some(row) = rows.next()? {
        push(row, &mut names, &mut readings)?;
        if readings.len() == PART_READINGS && send(&mut readings, sink) == Recipient::Gone {
            return Ok(());
        }
    }
    if !readings.is_empty() {
        send(&mut readings, sink);
    }
    Ok(())
}

fn send(readings: &mut Readings, sink: &Sink) -> Recipient {
    let mut part = Vec::with_capacity(4 * readings.bytes_held());
    for reading in &*readings {
        write_reading(reading, &mut part);
        part.push(b'\n');
    }
    *readings = Readings::with_capacity(readings.bytes_held());
    sink.send(Ok(part.into()))
}

/// Turns a row of `id, series, time, value` into a reading.
fn push(row: &Row<'_>, names: &mut SeriesLookup<'_>, readings: &mut Readings) -> Result<(), StoreError> {
    let id: i64 = row.get(0)?;
    let broken = |detail: &str| StoreError::Row { id, detail: detail.to_owned() };
    let series = names.find(row.get(1)?)?.ok_or_else(|| broken("its series is unknown"))?;
    let time = Timestamp::from_nanos(row.get(2)?).ok_or_else(|| broken("its time is before 1970"))?;
    let value = value(row.get_ref(3)?).ok_or_else(|| broken("its value is of no known kind"))?;
    let parts = ReadingParts {
        device: &series.device,
        sensor: &series.sensor,
        value: value.into(),
        time,
        unit: (!series.unit.is_empty()).then_some(&series.unit),
        tags: &series.tags,
    };
    readings.push(&parts).map_err(|error| broken(&error.to_string()))
}

fn value(value: ValueRef<'_>) -> Option<Value<'_>> {
    match value {
        ValueRef::Integer(number) => Some(Value::Integer(number)),
        ValueRef::Real(number) => Some(Value::Double(number)),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Value::Text),
        ValueRef::Blob([0]) => Some(Value::Boolean(false)),
        ValueRef::Blob([1]) => Some(Value::Boolean(true)),
        ValueRef::Blob(_) | ValueRef::Null => None,
    }
}

/// The common part of the readings of a series.
struct SeriesRow {
    device: String,
    sensor: String,
    unit: String,
    tags: Vec<Tag<'static>>,
}

/// The series of a query by their ids, read as they are needed. The cache is cleared at [`SERIES_CACHED_MAX`] entries.
struct SeriesLookup<'c> {
    statement: rusqlite::Statement<'c>,
    known: HashMap<i64, SeriesRow>,
}

impl SeriesLookup<'_> {
    const SQL: &'static str = "SELECT device, sensor, unit, tags FROM series WHERE id = ?";

    fn find(&mut self, id: i64) -> Result<Option<&SeriesRow>, StoreError> {
        if !self.known.contains_key(&id) {
            let found = self.statement.query_row([id], |row| {
                let tags: String = row.get(3)?;
                Ok(SeriesRow {
                    device: row.get(0)?,
                    sensor: row.get(1)?,
                    unit: row.get(2)?,
                    tags: tags_from_json(&tags).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(
                            3,
                            rusqlite::types::Type::Text,
                            error.into(),
                        )
                    })?,
                })
            });
            let Some(series) = found.optional()? else { return Ok(None) };
            if self.known.len() >= SERIES_CACHED_MAX {
                self.known.clear();
            }
            self.known.insert(id, series);
        }
        Ok(self.known.get(&id))
    }
}

/// Reads a JSON object of texts in its order.
fn tags_from_json(json: &str) -> Result<Vec<Tag<'static>>, serde_json::Error> {
    struct TagsVisitor;
    impl<'de> Visitor<'de> for TagsVisitor {
        type Value = Vec<Tag<'static>>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tags = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                tags.push((name.into(), value.into()));
            }
            Ok(tags)
        }
    }
    if json.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::Deserializer::from_str(json).deserialize_map(TagsVisitor)
}
