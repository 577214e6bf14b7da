//! Readings to the body of a batch.

use std::fmt::Debug;
use std::sync::Arc;

use forebay_reading::ReadingRef;
use thiserror::Error;

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

/// Makes the encoder of one format, with its settings as they are if nothing is set.
pub type MakeEncoder = fn() -> Arc<dyn Encoder>;

/// Writes one format of batch bodies.
pub trait Encoder: Send + Sync + Debug {
    /// The `Content-Type` of the body.
    fn content_type(&self) -> &'static str;

    /// The `Content-Encoding` of a body that is compressed as part of the format; there is no other compression then.
    fn content_encoding(&self) -> Option<&'static str> {
        None
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
