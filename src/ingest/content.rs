//! The head of a request: media type, encoding, query parameters.

use std::borrow::Cow;

use forebay_codec::{DECODERS, Decoder};
use forebay_reading::timestamp::Precision;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use url::form_urlencoded;

use super::dialect::Dialect;
use super::encoding::{ENCODINGS, Encoding};
use super::error::IngestError;
use crate::buffer::Ack;

/// Longest quotation of a header or parameter in an error, in characters.
const QUOTE_CHARS_MAX: usize = 64;

const STRICT: &str = "strict";
const ACK: &str = "ack";
/// The query parameters that are known.
const PARAMETERS: &[&str] = &[STRICT, ACK, "precision"];

/// Whether one bad reading stops the others of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// The good readings are taken.
    EachByItself,
    /// All readings are taken or none.
    AllOrNone,
}

/// How a request wants its body to be read and acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestContent {
    pub(super) decoder: &'static dyn Decoder,
    /// Index of the decoder in its table.
    pub(super) format: usize,
    pub(super) encoding: Encoding,
    pub(super) strictness: Strictness,
    pub(super) ack: Ack,
    pub(super) precision: Precision,
}

impl RequestContent {
    /// Reads the header fields of a request in a `dialect`, whose acknowledgement is `default_ack` until
    /// [`ask`](RequestContent::ask) has read another.
    pub(super) fn read(
        head: &Parts,
        dialect: Dialect,
        default_ack: Ack,
    ) -> Result<RequestContent, IngestError> {
        let format = match dialect.format() {
            Some(name) => DECODERS.names().position(|known| known == name).ok_or(IngestError::Internal)?,
            None => find_format(head)?,
        };
        Ok(RequestContent {
            decoder: DECODERS.members[format].1,
            format,
            encoding: find_encoding(head)?,
            strictness: Strictness::EachByItself,
            ack: default_ack,
            precision: dialect.default_precision(),
        })
    }

    /// Reads the query parameters; the acknowledgement may be one of `acks`.
    pub(super) fn ask(
        &mut self,
        query: Option<&str>,
        dialect: Dialect,
        acks: &'static [Ack],
    ) -> Result<(), IngestError> {
        let mut asked = [false; PARAMETERS.len()];
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some(place) = PARAMETERS.iter().position(|known| *known == name) else {
                if dialect.passes_over_unknown() {
                    continue;
                }
                return Err(unknown_parameter(&name));
            };
            if std::mem::replace(&mut asked[place], true) {
                return Err(IngestError::QueryTwice { name: PARAMETERS[place] });
            }
            match PARAMETERS[place] {
                STRICT => self.strictness = find_strictness(&value)?,
                ACK => self.ack = find_ack(&value, acks)?,
                _ => self.precision = find_precision(&value, dialect)?,
            }
        }
        Ok(())
    }
}

/// The refusal of an unknown parameter.
fn unknown_parameter(name: &str) -> IngestError {
    let distance = |known: &&str| strsim::osa_distance(&name.to_ascii_lowercase(), known);
    let nearest = PARAMETERS.iter().copied().min_by_key(distance).unwrap_or_default();
    IngestError::UnknownQuery { name: shorten(name), nearest, known: PARAMETERS }
}

/// The index of the format in its table.
fn find_format(head: &Parts) -> Result<usize, IngestError> {
    let mut lines = head.headers.get_all(&CONTENT_TYPE).iter();
    let Some(content_type) = lines.next() else { return Ok(0) };
    if lines.next().is_some() {
        return Err(IngestError::MediaTypeTwice);
    }
    let content_type = String::from_utf8_lossy(content_type.as_bytes());
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let takes = |decoder: &dyn Decoder| {
        decoder.media_types().iter().any(|known| known.eq_ignore_ascii_case(media_type))
    };
    let found = DECODERS.members.iter().position(|(_, decoder)| takes(*decoder));
    found.ok_or_else(|| IngestError::MediaType { got: shorten(media_type) })
}

fn find_encoding(head: &Parts) -> Result<Encoding, IngestError> {
    let Some(encoding) = list(head, &CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    let name = encoding.trim().to_ascii_lowercase();
    // RFC 9110, section 8.4.1.3: `x-gzip` is another name of `gzip`.
    let name = if name == "x-gzip" { "gzip" } else { name.as_str() };
    match ENCODINGS.find(name) {
        Ok(encoding) => Ok(*encoding),
        Err(_) => Err(IngestError::Encoding { got: shorten(name) }),
    }
}

fn find_strictness(value: &str) -> Result<Strictness, IngestError> {
    match value {
        "true" | "1" | "" => Ok(Strictness::AllOrNone),
        "false" | "0" => Ok(Strictness::EachByItself),
        _ => {
            Err(IngestError::Query { name: "strict", got: shorten(value), allowed: "true, false".to_owned() })
        }
    }
}

fn find_ack(value: &str, acks: &'static [Ack]) -> Result<Ack, IngestError> {
    let known = Ack::NAMES.find(value).ok().filter(|ack| acks.contains(ack));
    known.copied().ok_or_else(|| IngestError::Ack { got: shorten(value), allowed: acks })
}

fn find_precision(value: &str, dialect: Dialect) -> Result<Precision, IngestError> {
    // Clients of InfluxDB send the parameter without a value if no precision is set.
    if value.is_empty() && dialect != Dialect::Own {
        return Ok(dialect.default_precision());
    }
    let found = dialect.precisions().iter().find(|(name, _)| *name == value);
    found.map(|(_, precision)| *precision).ok_or_else(|| {
        let allowed: Vec<_> = dialect.precisions().iter().map(|(name, _)| *name).collect();
        IngestError::Query { name: "precision", got: shorten(value), allowed: allowed.join(", ") }
    })
}

/// The value of a header that is a list; several lines of it are one list (RFC 9110, section 5.3).
fn list<'a>(head: &'a Parts, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut lines = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = lines.next()?;
    Some(lines.fold(first, |all, line| Cow::Owned(format!("{all}, {line}"))))
}

fn shorten(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}
