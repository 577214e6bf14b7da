//! ClickHouse: canonical readings as JSONEachRow into a table, over its HTTP interface.
//!
//! The insert is put before the query of the node's address. ClickHouse uses the last value of a setting that is there twice,
//! so the address overrides the gateway's settings; of `query` it uses the first value.
//!
//! - `date_time_input_format=best_effort` lets a column `time` of any time type accept RFC 3339, in any time zone of the server
//!   or the column. Without it, `Z` is refused.
//! - `input_format_skip_unknown_fields=0` makes ClickHouse refuse readings whose unit or tags have no column; newer versions
//!   would drop unit and tags silently.
//! - `insert_deduplication_token` makes a batch that is sent again the same insert.

mod diagnosis;
mod errors;
mod table;

use std::fmt::Write as _;
use std::sync::Arc;

use forebay_codec::{Encoder, Ndjson};
use url::form_urlencoded;

use crate::{Blame, ClickhouseConfig, NodeAnswer, Store, TrialRequest};
use diagnosis::TableName;

/// The key of the insert that stores nothing.
const TRIAL_KEY: &str = "forebay-check";

/// The store behind the format `clickhouse`.
#[derive(Debug)]
pub struct Clickhouse {
    place: TableName,
    /// The query of an insert, apart from its token.
    insert: String,
    has_token: bool,
}

impl Clickhouse {
    pub(super) fn new(config: &ClickhouseConfig) -> Clickhouse {
        let place = TableName { database: quote(&config.database), table: quote(&config.table) };
        let insert = query(&format!("INSERT INTO {} FORMAT JSONEachRow", place.name()));
        Clickhouse { place, insert, has_token: config.deduplication_token }
    }

    /// A query with the token of a batch.
    fn with_token(&self, mut query: String, key: &str) -> String {
        if self.has_token {
            query.push_str("&insert_deduplication_token=");
            query.extend(form_urlencoded::byte_serialize(key.as_bytes()));
        }
        query
    }
}

impl Store for Clickhouse {
    fn encoder(&self) -> Arc<dyn Encoder> {
        Arc::new(Ndjson)
    }

    fn query(&self, key: &str) -> Option<String> {
        Some(self.with_token(self.insert.clone(), key))
    }

    fn blame(&self, answer: &NodeAnswer<'_>) -> Option<Blame> {
        errors::blame(answer)
    }

    /// A description of the table, and an insert of nothing: no other request shows whether the user may insert.
    fn trials(&self) -> Vec<TrialRequest> {
        let describe = query(&format!("DESCRIBE TABLE {} FORMAT JSONEachRow", self.place.name()));
        let trial = |query| TrialRequest {
            query: Some(self.with_token(query, TRIAL_KEY)),
            ..TrialRequest::default()
        };
        vec![trial(describe), trial(self.insert.clone())]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnosis::diagnose(&self.place, answer)
    }
}

/// The query of an address for a statement, with the settings that every statement has.
fn query(statement: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("query", statement);
    query.append_pair("date_time_input_format", "best_effort");
    query.append_pair("input_format_skip_unknown_fields", "0");
    query.finish()
}

/// A name of a database or a table as an identifier.
fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    for character in name.chars() {
        match character {
            '`' | '\\' => write!(quoted, "\\{character}").expect("writing to memory does not fail"),
            _ => quoted.push(character),
        }
    }
    format!("`{quoted}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_reading::timestamp::Timestamp;
    use forebay_reading::{ReadingParts, Readings, Tag, Value};

    fn clickhouse(database: &str, table: &str, deduplication_token: bool) -> Clickhouse {
        let (database, table) = (database.to_owned(), table.to_owned());
        Clickhouse::new(&ClickhouseConfig { database, table, deduplication_token })
    }

    #[test]
    fn rows_are_canonical_readings_one_a_line() {
        let lines = concat!(
            r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00.500Z","unit":"V","tags":{"a":"b"}}"#,
            "\n",
            r#"{"device":"d","sensor":"s","value":"on","time":"2007-02-01T00:00:00Z"}"#,
            "\n",
        );
        let time = |nanos: i64| Timestamp::from_nanos(1_170_288_000_000_000_000 + nanos).expect("2007");
        let tags: [Tag<'_>; 1] = [("a".into(), "b".into())];
        let (device, sensor) = ("d", "s");
        let mut readings = Readings::default();
        let (value, unit) = (Value::Integer(1).into(), Some("V"));
        let parts = ReadingParts { device, sensor, value, time: time(500_000_000), unit, tags: &tags };
        readings.push(&parts).expect("a good one");
        let value = Value::Text("on").into();
        let parts = ReadingParts { device, sensor, value, time: time(0), unit: None, tags: &[] };
        readings.push(&parts).expect("a good one");
        let encoder = clickhouse("default", "readings", true).encoder();
        let mut body = Vec::new();
        for (index, reading) in readings.iter().enumerate() {
            encoder.write(index, reading, &mut body).expect("it holds every reading");
        }
        encoder.finish("key", &mut body);
        assert_eq!(String::from_utf8(body).expect("UTF-8"), lines);
    }

    #[test]
    fn the_query_has_the_insert_and_the_token() {
        let check = |database: &str, table: &str, key: &str, insert: &str| {
            for has_token in [true, false] {
                let query = clickhouse(database, table, has_token).query(key).expect("a query");
                let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let token = has_token.then_some(("insert_deduplication_token", key));
                let expected = [
                    ("query", insert),
                    ("date_time_input_format", "best_effort"),
                    ("input_format_skip_unknown_fields", "0"),
                ];
                let expected: Vec<_> = expected.into_iter().chain(token).collect();
                let pairs: Vec<_> =
                    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(pairs, expected);
            }
        };
        check("default", "readings", "k-1", "INSERT INTO `default`.`readings` FORMAT JSONEachRow");
        check("a`b", "c\\d.e &=%?#", "k &=+%\"é", "INSERT INTO `a\\`b`.`c\\\\d.e &=%?#` FORMAT JSONEachRow");
    }
}
