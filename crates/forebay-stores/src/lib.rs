//! The stores that batches go to: what each of them takes, what it says of it in a way of its own, and how to try it
//! without storing anything.
//!
//! A [`Store`] is named by `cluster.format`, after what it takes: an [`Encoder`] writes that. What is common to all, such as
//! the page of a proxy in the place of an answer, is not a matter of one store: [`judge`] asks it.
//!
//! A store is added as a file here and a row in [`STORES`]; what writes the bodies that it takes stands in `forebay-codec`.

mod any;
mod clickhouse;
mod diagnosis;
mod elasticsearch;
mod influx;
mod judge;
mod remote_write;
mod report;

use std::fmt::Debug;
use std::sync::Arc;

use forebay_reading::registry::Registry;
use http::HeaderMap;

pub use diagnosis::diagnose_status;
pub use judge::{Judgement, is_page, judge};

use forebay_codec::{ElasticsearchConfig, Encoder, InfluxConfig, Json, Ndjson};

/// The stores, by the names that `cluster.format` gives what they take.
pub const STORES: Registry<MakeStore> = Registry {
    what: "format",
    members: &[
        ("ndjson", |_| Arc::new(any::AnyProgram::new(Ndjson, b""))),
        ("json", |_| Arc::new(any::AnyProgram::new(Json, b"[]"))),
        ("elasticsearch", |config| Arc::new(elasticsearch::Elasticsearch::new(&config.elasticsearch))),
        ("clickhouse", |config| Arc::new(clickhouse::Clickhouse::new(&config.clickhouse))),
        ("influx", |config| Arc::new(influx::InfluxDb::new(config.influx))),
        ("remote-write", |_| Arc::new(remote_write::Prometheus::new())),
    ],
};

/// Makes a store of one kind.
pub type MakeStore = fn(&StoreConfig) -> Arc<dyn Store>;

/// Settings of all stores. Each looks at its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreConfig {
    /// Of `clickhouse`.
    pub clickhouse: ClickhouseConfig,
    /// Of `elasticsearch`.
    pub elasticsearch: ElasticsearchConfig,
    /// Of `influx`.
    pub influx: InfluxConfig,
}

/// Settings of ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickhouseConfig {
    /// The database.
    pub database: String,
    /// The table that readings are inserted into.
    pub table: String,
    /// Whether each insert has its batch's key as `insert_deduplication_token`.
    pub deduplication_token: bool,
}

impl Default for ClickhouseConfig {
    fn default() -> ClickhouseConfig {
        ClickhouseConfig {
            database: "default".to_owned(),
            table: "readings".to_owned(),
            deduplication_token: true,
        }
    }
}

/// A kind of store: what it takes, and what it says in a way of its own.
pub trait Store: Send + Sync + Debug {
    /// The encoder of the bodies that the store takes.
    fn encoder(&self) -> Arc<dyn Encoder>;

    /// The ways to compress a body, by their configuration names, that it can undo.
    fn compressions(&self) -> &'static [&'static str] {
        &["gzip", "zstd"]
    }

    /// Headers that every request to it has, apart from those of the body, in lower case.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// What the query of a node's address gets for a batch under `key`, before what stands there: `name=value` pairs joined
    /// by `&`, encoded.
    fn query(&self, _key: &str) -> Option<String> {
        None
    }

    /// Most bytes of an answer that speaks of so many readings one by one; `None` if answers do not.
    fn item_answer_bytes_max(&self, _readings: usize) -> Option<usize> {
        None
    }

    /// Reads an answer of success that speaks of readings one by one: which of them the node does not have, and why, in
    /// their order.
    ///
    /// # Errors
    ///
    /// In words for people, why the answer cannot be understood. The batch is sent again then.
    fn failed_items(&self, _body: &[u8], _readings: usize) -> Result<Vec<FailedItem>, String> {
        Ok(Vec::new())
    }

    /// Says whose fault an error is, where the store tells it otherwise than by the status. Answers of success are
    /// shown here too, unless they speak of readings one by one: some stores begin one and then fail. What is common to all
    /// stores is not repeated here: [`judge()`] asks this.
    fn blame(&self, _answer: &NodeAnswer<'_>) -> Option<Blame> {
        None
    }

    /// What can be posted to a node, one after the other, that stores nothing there, and shows whether it would take
    /// batches. Empty if nothing of the kind is known.
    fn trials(&self) -> Vec<Trial> {
        Vec::new()
    }

    /// What the answer to one of [`Store::trials`] says of the node.
    ///
    /// # Errors
    ///
    /// In words for people, what is wrong and what to do about it.
    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnose_status(answer)
    }
}

/// A request that stores nothing. It goes to a node's address with all the headers that batches have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// What the query of the address gets, as in [`Store::query`].
    pub query: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// What it means that no answer comes.
    pub silence: Silence,
}

/// What it means that a node does not answer a [`Trial`] in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// It would not answer batches either.
    #[default]
    Fault,
    /// Nothing: nodes of the format may be any program, and need not answer what has no readings in it.
    Allowed,
}

/// A reading that a node does not have although it took the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedItem {
    /// Its place among the readings that were written.
    pub index: usize,
    /// The HTTP status that the node gives it.
    pub status: u16,
    /// What the node says of it; the beginning is kept.
    pub detail: String,
    /// Whose fault it is, where the status does not tell.
    pub blame: Option<Blame>,
}

/// An answer of a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeAnswer<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The beginning of its body.
    pub body: &'a str,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The node refuses these readings, at any time.
    Readings,
    /// The node or the gateway is set up wrongly: any batch would meet the same.
    Setup,
    /// The node cannot do it now.
    Node,
}
