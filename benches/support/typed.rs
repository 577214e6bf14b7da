//! Readings as plain serde types: what a service writes that only wants to know that a body is well-formed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

/// A reading whose strings stay in the body wherever they can.
///
/// `value` takes numbers only, which is all that the samples have and cheaper than what the gateway must do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed and dropped: that is what is measured")]
pub(crate) struct Borrowed<'a> {
    #[serde(borrow)]
    device: Text<'a>,
    #[serde(borrow)]
    sensor: Text<'a>,
    value: f64,
    time: Option<&'a str>,
    #[serde(borrow)]
    unit: Option<Text<'a>>,
    #[serde(borrow)]
    tags: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

/// A string that is copied only if it has escapes.
///
/// A bare `Option<Cow<str>>` would always be copied: serde borrows a `Cow` only where it is the whole field.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON array of readings, or one of them alone.
///
/// # Errors
///
/// The body is not UTF-8, or not that JSON.
pub(crate) fn read_json(body: &[u8]) -> Result<Vec<Borrowed<'_>>, Box<dyn std::error::Error>> {
    let text = std::str::from_utf8(body)?;
    if text.trim_ascii_start().starts_with('[') {
        return Ok(serde_json::from_str(text)?);
    }
    Ok(vec![serde_json::from_str(text)?])
}

/// Readings one a line.
///
/// # Errors
///
/// The body is not UTF-8, or something in it is not a reading.
pub(crate) fn read_ndjson(body: &[u8]) -> Result<Vec<Borrowed<'_>>, Box<dyn std::error::Error>> {
    // One parser for all lines is cheaper than one for each.
    let readings = serde_json::Deserializer::from_str(std::str::from_utf8(body)?).into_iter();
    Ok(readings.collect::<Result<_, _>>()?)
}
