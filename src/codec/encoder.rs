//! Readings to the body of a batch, and what else has to be known of nodes that take such bodies.

use std::fmt::Debug;
use std::sync::Arc;

use forebay_reading::ReadingRef;
use http::HeaderMap;
use thiserror::Error;

use super::diagnose_status;

/// Settings of all formats. Each looks at its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormatConfig {
    /// Of `clickhouse`.
    pub clickhouse: ClickhouseConfig,
    /// Of `elasticsearch`.
    pub elasticsearch: ElasticsearchConfig,
    /// Of `influx`.
    pub influx: InfluxConfig,
}

/// Settings of the format `clickhouse`.
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

/// Settings of the format `elasticsearch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticsearchConfig {
    /// The index, alias or data stream that documents are created in.
    pub index: String,
}

impl Default for ElasticsearchConfig {
    fn default() -> ElasticsearchConfig {
        ElasticsearchConfig { index: "readings".to_owned() }
    }
}

/// Settings of the format `influx`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InfluxConfig {
    /// How whole numbers are written.
    pub integers: Integers,
}

/// How whole numbers are written in line protocol, where a field has either whole numbers or others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integers {
    /// As integers, exactly. A sensor that sends 230 and later 230.5 is refused by the store.
    #[default]
    Integer,
    /// As floats: a sensor may send both. Whole numbers beyond 2^53 lose their last digits.
    Float,
}

/// Makes the encoder of one format.
pub type MakeEncoder = fn(&FormatConfig) -> Arc<dyn Encoder>;

/// Writes one format of batch bodies, and reads what nodes that take it say in a way of their own.
pub trait Encoder: Send + Sync + Debug {
    /// The `Content-Type` of the body.
    fn content_type(&self) -> &'static str;

    /// The `Content-Encoding` of a body that is compressed as part of the format; there is no other compression then.
    fn content_encoding(&self) -> Option<&'static str> {
        None
    }

    /// The ways to compress a body, by their configuration names, that nodes of this kind can undo.
    fn compressions(&self) -> &'static [&'static str] {
        &["gzip", "zstd"]
    }

    /// Headers that every request of this format has, apart from those of the body, in lower case.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Appends one reading, with whatever stands before it. `index` readings of the batch were appended before.
    ///
    /// # Errors
    ///
    /// [`Unwritable`] if the format cannot hold the reading; nothing is appended then.
    fn write(&self, index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable>;

    /// Puts what was appended in order, before [`Encoder::finish`], and takes out the readings that the format cannot hold
    /// beside others of them. Returns their places among those that were appended, in their order, and why.
    fn arrange(&self, _body: &mut Vec<u8>) -> Vec<(usize, Unwritable)> {
        Vec::new()
    }

    /// Makes a whole body of what was appended. The batch goes under `key`.
    fn finish(&self, key: &str, body: &mut Vec<u8>);

    /// How many bytes [`Encoder::finish`] appends, at most.
    fn finish_bytes(&self) -> usize {
        0
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

    /// Says whose fault an error is, where nodes of this kind tell it otherwise than by the status. Answers of success are
    /// shown here too, unless they speak of readings one by one: some stores begin one and then fail. What is common to all
    /// formats is not repeated here: [`super::judge`] asks this.
    fn blame(&self, _answer: &NodeAnswer<'_>) -> Option<Blame> {
        None
    }

    /// What can be posted to a node, one after the other, that stores nothing there, and shows whether it would take
    /// batches. Empty if nothing of the kind is known.
    fn trials(&self) -> Vec<Trial> {
        Vec::new()
    }

    /// What the answer to one of [`Encoder::trials`] says of the node.
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
    /// What the query of the address gets, as in [`Encoder::query`].
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

/// Why a format cannot hold a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// It holds numbers only, and the value is a text.
    #[error("the format of the nodes holds numbers only")]
    NotNumeric,
    /// It has no way to write one of the names or tags.
    #[error("the format of the nodes cannot hold this {0}")]
    NoSuchText(&'static str),
    /// It holds one value of a series a millisecond, and the batch has another one before.
    #[error(
        "the format of the nodes holds one value of a series a millisecond, and another one came with it"
    )]
    SameTime,
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
