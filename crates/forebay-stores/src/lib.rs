//! The stores that batches go to: the bodies and headers that each expects, the meaning of its answers, and a way to try it
//! without storing anything.
//!
//! `cluster.format` names a [`Store`] by the format of its bodies, which an [`Encoder`] of `forebay-codec` writes. Answers that
//! any server may give, such as the web page of a proxy, are handled once for all stores: [`judge`] checks them, and then asks
//! the store.
//!
//! A new store is a file here and a row in [`STORES`].

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

/// The stores, by their formats in `cluster.format`.
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

/// Settings of all stores. Each store reads its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreConfig {
    /// Settings of `clickhouse`.
    pub clickhouse: ClickhouseConfig,
    /// Settings of `elasticsearch`.
    pub elasticsearch: ElasticsearchConfig,
    /// Settings of `influx`.
    pub influx: InfluxConfig,
}

/// Settings of ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickhouseConfig {
    /// The database.
    pub database: String,
    /// The table that readings are inserted into.
    pub table: String,
    /// Whether each insert carries the key of its batch as `insert_deduplication_token`.
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

/// A kind of store.
pub trait Store: Send + Sync + Debug {
    /// The encoder of the store's bodies.
    fn encoder(&self) -> Arc<dyn Encoder>;

    /// The compressions that the store understands, by their names in the configuration.
    fn compressions(&self) -> &'static [&'static str] {
        &["gzip", "zstd"]
    }

    /// Headers of every request, apart from those of the body; names in lower case.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Parameters for a batch under `key`, to be put before the query of the node's address: encoded `name=value` pairs, joined
    /// by `&`.
    fn query(&self, _key: &str) -> Option<String> {
        None
    }

    /// Most bytes of an answer with one item per reading; `None` if answers have no items.
    fn item_answer_bytes_max(&self, _readings: usize) -> Option<usize> {
        None
    }

    /// Reads a successful answer with one item per reading: the readings that the node did not store, and why, in their
    /// order.
    ///
    /// # Errors
    ///
    /// Why the answer cannot be understood, for people. The batch is sent again then.
    fn failed_items(&self, _body: &[u8], _readings: usize) -> Result<Vec<FailedItem>, String> {
        Ok(Vec::new())
    }

    /// Whose fault an error is, where the store's answer says more than its status. Successful answers without items are
    /// checked too: some stores start a successful answer and then fail. [`judge()`] calls this after the checks that are the
    /// same for all stores.
    fn blame(&self, _answer: &NodeAnswer<'_>) -> Option<Blame> {
        None
    }

    /// Requests that store nothing and show, one after the other, whether the node would accept batches. Empty if the store
    /// has no such requests.
    fn trials(&self) -> Vec<TrialRequest> {
        Vec::new()
    }

    /// The finding about the node from the answer to one of [`Store::trials`], for people.
    ///
    /// # Errors
    ///
    /// The problem, and what to do about it.
    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnose_status(answer)
    }
}

/// A request that stores nothing. It goes to a node's address with all the headers of batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialRequest {
    /// Parameters for the query of the address, as in [`Store::query`].
    pub query: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The meaning of a missing answer.
    pub silence: Silence,
}

/// The meaning of a [`TrialRequest`] without an answer in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// The node would not answer batches either.
    #[default]
    Fault,
    /// None: nodes of the format may be any program, which need not answer a body without readings.
    Allowed,
}

/// A reading that a node did not store although it accepted the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedItem {
    /// Its place among the readings of the body.
    pub index: usize,
    /// The HTTP status that the node gives it.
    pub status: u16,
    /// The beginning of the node's words about it.
    pub detail: String,
    /// Whose fault it is, where the status does not say.
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
    /// The node will never accept these readings.
    Readings,
    /// The node or the gateway is set up wrongly: every batch would fail the same way.
    Setup,
    /// The node cannot accept the batch now.
    Node,
}
