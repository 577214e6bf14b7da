//! Elasticsearch's answers to bulk requests, with one item per document.
//!
//! `{"took":3,"errors":true,"items":[{"create":{"_id":"…","status":201,…}},{"create":{"status":400,"error":{"type":"…",
//! "reason":"…","caused_by":{…}}}},…]}`, the items in the order of the actions.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::diagnosis::may_blame_readings;
use crate::report::members;
use crate::{Blame, FailedItem, NodeAnswer};

/// Most kept bytes of the words about one document.
const DETAIL_BYTES_MAX: usize = 1024;
/// Room for an answer apart from its items, in bytes.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Room for an item in bytes: an error may repeat a text of 4 KiB more than once.
const ITEM_BYTES_MAX: usize = 16 * 1024;
/// Room for an item in bytes in a very long answer: most items report a success, in some 300 bytes.
const ITEM_OF_MANY_BYTES_MAX: usize = 1024;
/// Up to this length of an answer, every item may have a long error, in bytes.
const LONG_ITEMS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The type of the error for a document that exists already.
const CONFLICT: &str = "version_conflict_engine_exception";

/// Most bytes of an answer about this many documents.
pub(super) fn bytes_max(readings: usize) -> usize {
    let long = readings.saturating_mul(ITEM_BYTES_MAX).min(LONG_ITEMS_BYTES_MAX);
    long.max(readings.saturating_mul(ITEM_OF_MANY_BYTES_MAX)).saturating_add(FRAME_BYTES_MAX)
}

/// Reads the answer to a bulk request: the documents that are not stored.
pub(super) fn failed_items(body: &[u8], readings: usize) -> Result<Vec<FailedItem>, String> {
    let bulk: Bulk<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("it is no answer to a bulk request: {error}"))?;
    let Items { count, failed } = match bulk.items {
        // With `filter_path` in the address, an answer without failures may have no items.
        None if !bulk.errors => return Ok(Vec::new()),
        Some(items) => items,
        None => return Err("it tells of errors, and not of which".to_owned()),
    };
    if count != readings {
        return Err(format!("it speaks of {count} documents, and {readings} were sent"));
    }
    failed.iter().map(|(index, outcome)| outcome.failed(*index)).collect()
}

/// Whose fault the failure of a whole request is; `None` leaves the judgement to the status.
pub(super) fn blame(answer: &NodeAnswer<'_>) -> Option<Blame> {
    let words = ["explicit index in bulk is not allowed", "Malformed action/metadata line"];
    if answer.status == 400 && words.iter().any(|words| answer.body.contains(words)) {
        return Some(Blame::Setup);
    }
    let error =
        members(answer.body.as_bytes()).find(|(name, _)| *name == b"error").map(|(_, value)| value)?;
    // An error that was cut off says no more than the status.
    let cause = serde_json::Deserializer::from_slice(error).into_iter::<ErrorCause>().next()?.ok()?;
    cause.blame(answer.status)
}

#[derive(serde::Deserialize)]
struct Bulk<'a> {
    errors: bool,
    #[serde(borrow)]
    items: Option<Items<'a>>,
}

/// The number of items, and the documents that are not stored, with their places.
struct Items<'a> {
    count: usize,
    failed: Vec<(usize, ItemOutcome<'a>)>,
}

/// The result for one document.
#[derive(serde::Deserialize)]
struct ItemOutcome<'a> {
    status: Option<u16>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct ErrorCause {
    #[serde(rename = "type")]
    kind: Option<String>,
    reason: Option<String>,
    caused_by: Option<Box<ErrorCause>>,
}

impl ItemOutcome<'_> {
    fn is_stored(&self) -> bool {
        match self.status {
            Some(200..=299) => true,
            Some(409) => self.cause().and_then(|cause| cause.kind).is_none_or(|kind| kind == CONFLICT),
            _ => false,
        }
    }

    fn cause(&self) -> Option<ErrorCause> {
        serde_json::from_str(self.error?.get()).ok()
    }

    fn failed(&self, index: usize) -> Result<FailedItem, String> {
        let status = self.status.filter(|status| (100..1000).contains(status));
        let Some(status) = status else { return Err(format!("item {index} has no status")) };
        let cause = self.cause();
        let told = || self.error.map_or_else(|| "no reason given".to_owned(), |error| error.get().to_owned());
        let detail = cause.as_ref().map_or_else(told, ErrorCause::to_string);
        let blame = cause.as_ref().and_then(|cause| cause.blame(status));
        Ok(FailedItem { index, status, detail: beginning(detail), blame })
    }
}

impl ErrorCause {
    /// Whose fault an error is, where the status does not say.
    fn blame(&self, status: u16) -> Option<Blame> {
        if self.is_setup() {
            return Some(Blame::Setup);
        }
        (may_blame_readings(status) && self.is_document()).then_some(Blame::Readings)
    }

    /// Whether Elasticsearch will never accept this document: it was read, and does not fit. Pipelines and plugins give such
    /// errors the status 500.
    fn is_document(&self) -> bool {
        let kinds =
            ["mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"];
        self.kind.as_deref().is_some_and(|kind| kinds.contains(&kind))
            || self.caused_by.as_ref().is_some_and(|cause| cause.is_document())
    }

    /// Whether every document would fail the same way until someone changes the setup, although the status of the item blames
    /// the document.
    ///
    /// Errors repeat contents of documents, so only words in places that no document reaches are examined.
    fn is_setup(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.kind.as_deref().unwrap_or_default() {
            "index_closed_exception" | "invalid_index_name_exception" => true,
            "illegal_argument_exception" => {
                let beginnings = [
                    "pipeline with id [",
                    "no write index is defined for alias [",
                    "Number of documents in the index can't exceed",
                    "number of documents in the index cannot exceed",
                ];
                reason == "data stream timestamp field [@timestamp] is missing"
                    || beginnings.iter().any(|beginning| reason.starts_with(beginning))
            }
            // There is no room for the shards of a new index.
            "validation_exception" => reason.starts_with("Validation Failed: 1: this action would add ["),
            _ => self.caused_by.as_ref().is_some_and(|cause| cause.is_setup()),
        }
    }
}

/// `type: reason; caused by type: reason`.
impl fmt::Display for ErrorCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = self;
        loop {
            let kind = cause.kind.as_deref().unwrap_or("error");
            let reason = cause.reason.as_deref().unwrap_or("no reason given");
            write!(formatter, "{kind}: {reason}")?;
            let Some(next) = &cause.caused_by else { return Ok(()) };
            formatter.write_str("; caused by ")?;
            cause = next;
        }
    }
}

/// The kept beginning of a text.
fn beginning(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    text
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<'a>, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Items<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Items<'de>, A::Error> {
                let mut items = Items { count: 0, failed: Vec::new() };
                while let Some(Item(outcome)) = array.next_element()? {
                    if !outcome.is_stored() {
                        items.failed.push((items.count, outcome));
                    }
                    items.count += 1;
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

/// An object with one member, named after the action.
struct Item<'a>(ItemOutcome<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item<'a>, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Item<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an item with one action")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Item<'de>, A::Error> {
                let one = || A::Error::custom("an item must have one action");
                let (_, outcome) = object.next_entry::<IgnoredAny, ItemOutcome<'de>>()?.ok_or_else(one)?;
                match object.next_key::<IgnoredAny>()? {
                    Some(_) => Err(one()),
                    None => Ok(Item(outcome)),
                }
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests;
