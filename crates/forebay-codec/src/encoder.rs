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

/// Makes the encoder of one format with its default settings.
pub type MakeEncoder = fn() -> Arc<dyn Encoder>;

/// Writes one format of batch bodies.
pub trait Encoder: Send + Sync + Debug {
    /// The `Content-Type` of the body.
    fn content_type(&self) -> &'static str;

    /// The `Content-Encoding` of a format that compresses its bodies itself; such a body is not compressed again.
    fn content_encoding(&self) -> Option<&'static str> {
        None
    }

    /// Appends one reading, with its separator before it. `index` is the number of readings already in the batch.
    ///
    /// # Errors
    ///
    /// [`Unwritable`] if the format cannot hold the reading; nothing is appended then.
    fn write(&self, index: usize, reading: ReadingRef<'_>, body: &mut Vec<u8>) -> Result<(), Unwritable>;

    /// Puts the appended readings in order, before [`Encoder::finish`], and removes readings that the format cannot hold
    /// together with others of the batch. Returns the places of these among the appended readings, ascending, and why.
    fn arrange(&self, _body: &mut Vec<u8>) -> Vec<(usize, Unwritable)> {
        Vec::new()
    }

    /// Makes the appended readings a complete body. `key` is the key of the batch.
    fn finish(&self, key: &str, body: &mut Vec<u8>);

    /// Most bytes that [`Encoder::finish`] appends.
    fn finish_bytes(&self) -> usize {
        0
    }
}

/// Why a format cannot hold a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// The format holds numbers only, and the value is a text.
    #[error("the format of the nodes holds numbers only")]
    NotNumeric,
    /// The format cannot express a name or tag of the reading.
    #[error("the format of the nodes cannot hold this {0}")]
    NoSuchText(&'static str),
    /// The format holds one value of a series per millisecond, and the batch has an earlier one.
    #[error(
        "the format of the nodes holds one value of a series a millisecond, and another one came with it"
    )]
    SameTime,
}
