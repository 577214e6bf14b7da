//! `POST /api/v2/write` and `POST /write`: line protocol, as Telegraf and the clients of InfluxDB send it.
//!
//! Requests are read as on `/v1/readings`, apart from the format, the names of the precisions, and parameters that mean
//! nothing here (`org`, `bucket`, `db`, `rp`, `consistency`, `u`, `p`), which are passed over. Answers have the shape
//! that the clients know:
//!
//! | what | answer |
//! |---|---|
//! | every line was taken, or there was none | 204 without a body |
//! | some lines or fields were turned away, the others taken | 400, `partial write: …`; no key remembers it |
//! | all lines were turned away, or one was and the request is strict | 400, nothing was taken |
//! | any other refusal | the status that `/v1/readings` gives |
//!
//! Clients give up what is answered with 400 and send again what is answered with 503, so a partial write is not sent
//! for ever, and what was not taken is told, line by line, in their logs. Telegraf (`plugins/outputs/influxdb`,
//! `influxdb_v2`) and influxdb-java also look for the words `partial write` and `unable to parse`.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use forebay_codec::Rejections;
use forebay_reading::timestamp::Precision;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::accepted::Accepted;
use super::error::IngestError;
use crate::problem::{ReadingFault, json_line};

/// The path of InfluxDB 2 and later.
pub(super) const V2_PATH: &str = "/api/v2/write";
/// The path of InfluxDB 1.
pub(super) const V1_PATH: &str = "/write";
/// The format that is taken there.
pub(super) const FORMAT: &str = "influx";

/// The error once more, where clients of InfluxDB 1 look for it.
const X_INFLUXDB_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");
/// Longest text in that header, in bytes, as InfluxDB 1 has it.
const HEADER_BYTES_MAX: usize = 1024;

/// The names of the units up to `h`; those of InfluxDB 2 come first.
const PRECISIONS: &[(&str, Precision)] = &[
    ("ns", Precision::Nanos),
    ("n", Precision::Nanos),
    ("us", Precision::Micros),
    ("u", Precision::Micros),
    ("ms", Precision::Millis),
    ("s", Precision::Seconds),
    ("m", Precision::Minutes),
    ("h", Precision::Hours),
];
/// How many of them InfluxDB 2 has.
const V2_PRECISIONS: usize = 6;

/// Whose clients are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluxApi {
    /// Those of InfluxDB 1.
    V1,
    /// Those of InfluxDB 2 and later.
    V2,
}

/// An error as clients of InfluxDB 2 know it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorV2 {
    /// What kind of error it is.
    #[schema(example = "invalid")]
    code: &'static str,
    /// What was wrong: the lines and fields at fault, at most 100 of them, each with the number of its line from 1.
    message: String,
    /// The line, from 1, if a single one was turned away.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

/// An error as clients of InfluxDB 1 know it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorV1 {
    /// What was wrong: the lines and fields at fault, at most 100 of them, each with the number of its line from 1.
    #[schema(
        example = "partial write: 99 readings were taken; unable to parse or take 1 line: line 3, column 5: …"
    )]
    error: String,
}

impl InfluxApi {
    /// The units of times, by their names.
    pub(super) fn precisions(self) -> &'static [(&'static str, Precision)] {
        match self {
            InfluxApi::V1 => PRECISIONS,
            InfluxApi::V2 => &PRECISIONS[..V2_PRECISIONS],
        }
    }

    /// The answer to a request whose lines were taken, all or some of them.
    pub(super) fn taken(self, accepted: &Accepted) -> Response {
        if accepted.rejected == 0 {
            return StatusCode::NO_CONTENT.into_response();
        }
        let faults = accepted.errors.iter().map(|ReadingFault { index, pointer, detail }| Named {
            index: *index,
            pointer,
            detail,
        });
        let lines = Lines::new(accepted.rejected, faults);
        let readings = if accepted.accepted == 1 { "reading was" } else { "readings were" };
        let message = format!("partial write: {} {readings} taken; {lines}", accepted.accepted);
        self.error(StatusCode::BAD_REQUEST, message, lines.single)
    }

    /// The answer to a request that was refused.
    pub(super) fn refused(self, error: &IngestError) -> Response {
        let (nothing_taken, rejections) = match error {
            IngestError::AllRejected(rejections) => ("", rejections),
            IngestError::Strict(rejections) => {
                ("the request is strict, and nothing of it was taken; ", rejections)
            }
            error => {
                let mut response = self.error(error.status(), error.to_string(), None);
                response.headers_mut().extend(error.header());
                return response;
            }
        };
        let lines = Lines::of(rejections);
        self.error(StatusCode::BAD_REQUEST, format!("{nothing_taken}{lines}"), lines.single)
    }

    /// An error with this status.
    pub(super) fn error(self, status: StatusCode, message: String, line: Option<usize>) -> Response {
        let header = header_text(&message);
        let body = match self {
            InfluxApi::V1 => json_line(&ErrorV1 { error: message }),
            InfluxApi::V2 => json_line(&ErrorV2 { code: code(status), message, line }),
        };
        let mut response = (status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == InfluxApi::V1 {
            response.headers_mut().insert(X_INFLUXDB_ERROR, header);
        }
        response
    }
}

/// What InfluxDB 2 calls a status.
fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        409 => "conflict",
        413 => "request too large",
        415 => "unsupported media type",
        422 => "unprocessable entity",
        429 => "too many requests",
        // It has none for a body that came too slowly: the request may be sent again.
        408 | 503 => "unavailable",
        500.. => "internal error",
        _ => "invalid",
    }
}

/// As much of a message as a header may have: visible ASCII and spaces.
fn header_text(message: &str) -> HeaderValue {
    let visible = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
    let text: String = message.chars().take(HEADER_BYTES_MAX).map(visible).collect();
    HeaderValue::from_str(&text).expect("visible ASCII")
}

/// The lines and fields that were turned away, in words.
struct Lines {
    text: String,
    /// The number of the line, if there is one alone.
    single: Option<usize>,
}

/// A line or a field that was turned away.
#[derive(Clone, Copy)]
struct Named<'a> {
    index: usize,
    pointer: &'a str,
    detail: &'a str,
}

impl Named<'_> {
    /// Whether it is one field of a line that was taken otherwise.
    fn is_field(self) -> bool {
        self.pointer.bytes().filter(|byte| *byte == b'/').count() > 1
    }
}

impl Lines {
    fn new<'a>(count: u64, listed: impl Iterator<Item = Named<'a>>) -> Lines {
        let (mut text, mut named, mut fields, mut first) = (String::new(), 0, 0, None);
        for fault in listed {
            let before = if named == 0 { ": " } else { "; " };
            let _ = write!(text, "{before}line {}, {}", fault.index + 1, fault.detail);
            first.get_or_insert(fault.index + 1);
            named += 1;
            fields += u64::from(fault.is_field());
        }
        if count > named && named > 0 {
            let _ = write!(text, "; and {} more", count - named);
        }
        let what = match (count, fields) {
            (1, 0) => "line",
            (1, _) => "field",
            (_, 0) => "lines",
            _ if fields == named => "fields",
            _ => "lines or fields",
        };
        let text = format!("unable to parse or take {count} {what}{text}");
        Lines { text, single: first.filter(|_| count == 1) }
    }

    fn of(rejections: &Rejections) -> Lines {
        let listed = rejections.listed.iter();
        let named =
            listed.map(|fault| Named { index: fault.index, pointer: &fault.pointer, detail: &fault.detail });
        // Readings that went with a line of a strict request stand in no line that is at fault.
        Lines::new(rejections.count_at_fault(), named)
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_and_cleaned_for_its_header() {
        assert_eq!(header_text("line 1, column 2: `ä\n`"), "line 1, column 2: `??`");
        assert_eq!(header_text(&"é".repeat(3000)).len(), HEADER_BYTES_MAX);
    }

    #[test]
    fn lines_are_named_up_to_those_that_are_listed() {
        let check = |count, listed: &[(usize, &'static str)], expected: (&str, Option<usize>)| {
            let named =
                |(index, detail): &(usize, &'static str)| Named { index: *index, pointer: "/3", detail };
            let lines = Lines::new(count, listed.iter().map(named));
            assert_eq!((lines.text.as_str(), lines.single), expected);
        };
        check(1, &[(2, "a")], ("unable to parse or take 1 line: line 3, a", Some(3)));
        check(2, &[(0, "a"), (2, "b")], ("unable to parse or take 2 lines: line 1, a; line 3, b", None));
        check(
            9,
            &[(0, "a"), (2, "b")],
            ("unable to parse or take 9 lines: line 1, a; line 3, b; and 7 more", None),
        );
        check(9, &[], ("unable to parse or take 9 lines", None));
    }

    #[test]
    fn fields_are_told_apart_from_lines() {
        let told = |count: u64, pointers: &[&'static str]| {
            let named = pointers.iter().map(|pointer| Named { index: 0, pointer, detail: "a" });
            Lines::new(count, named).text.split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(told(1, &["/0/b"]), "unable to parse or take 1 field");
        assert_eq!(told(2, &["/0/b", "/0/c"]), "unable to parse or take 2 fields");
        assert_eq!(told(2, &["/0/b", "/1"]), "unable to parse or take 2 lines or fields");
    }

    #[test]
    fn every_status_has_a_code_that_influxdb_knows() {
        let check = |status: u16, expected: &str| {
            assert_eq!(code(StatusCode::from_u16(status).expect("a status")), expected, "{status}");
        };
        check(400, "invalid");
        check(405, "method not allowed");
        check(408, "unavailable");
        check(409, "conflict");
        check(413, "request too large");
        check(415, "unsupported media type");
        check(422, "unprocessable entity");
        check(429, "too many requests");
        check(500, "internal error");
        check(503, "unavailable");
    }
}
