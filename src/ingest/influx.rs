//! `POST /api/v2/write` and `POST /write`: line protocol, as Telegraf and the clients of InfluxDB send it.
//!
//! Requests are read as on `/v1/readings`, except for the format, the names of the precisions, and the parameters that
//! mean nothing here (`org`, `bucket`, `db`, `rp`, `consistency`, `u`, `p`), which are ignored. Answers have the form
//! that these clients know:
//!
//! | outcome | answer |
//! |---|---|
//! | every line was taken, or there was none | 204 without a body |
//! | some lines or fields were rejected, the others taken | 400, `partial write: …`; not stored for its key |
//! | all lines were rejected, or one was and the request is strict | 400, nothing was taken |
//! | any other refusal | the status that `/v1/readings` gives |
//!
//! Clients drop a request after 400 and retry it after 503. So a partial write is not retried for ever, and their logs
//! name the rejected lines. Telegraf (`plugins/outputs/influxdb`,
//! `influxdb_v2`) and influxdb-java also look for the words `partial write` and `unable to parse`.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use forebay_codec::Rejections;
use forebay_reading::timestamp::Precision;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::accepted::Acceptance;
use super::error::IngestError;
use crate::problem::{ReadingFault, json_line};

/// The path of InfluxDB 2 and later.
pub(super) const V2_PATH: &str = "/api/v2/write";
/// The path of InfluxDB 1.
pub(super) const V1_PATH: &str = "/write";
/// The only format of these paths.
pub(super) const FORMAT: &str = "influx";

/// Repeats the error where clients of InfluxDB 1 look for it.
const X_INFLUXDB_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");
/// Longest text in that header, in bytes, as in InfluxDB 1.
const HEADER_BYTES_MAX: usize = 1024;

/// The units of times by their names; the names of InfluxDB 2 come first.
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
/// The number of names that InfluxDB 2 has.
const V2_PRECISIONS: usize = 6;

/// A version of InfluxDB's API for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluxApi {
    /// `/write` of InfluxDB 1.
    V1,
    /// `/api/v2/write` of InfluxDB 2 and later.
    V2,
}

/// An error in the form of InfluxDB 2.
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

/// An error in the form of InfluxDB 1.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorV1 {
    /// What was wrong: the lines and fields at fault, at most 100 of them, each with the number of its line from 1.
    #[schema(
        example = "partial write: 99 readings were taken; unable to parse or take 1 line: line 3, column 5: …"
    )]
    error: String,
}

impl InfluxApi {
    /// The units of times by their names.
    pub(super) fn precisions(self) -> &'static [(&'static str, Precision)] {
        match self {
            InfluxApi::V1 => PRECISIONS,
            InfluxApi::V2 => &PRECISIONS[..V2_PRECISIONS],
        }
    }

    /// The answer to a request of which all or some lines were accepted.
    pub(super) fn accepted(self, accepted: &Acceptance) -> Response {
        if accepted.rejected == 0 {
            return StatusCode::NO_CONTENT.into_response();
        }
        let faults = accepted.errors.iter().map(|ReadingFault { index, pointer, detail }| LineRejection {
            index: *index,
            pointer,
            detail,
        });
        let lines = FaultSummary::new(accepted.rejected, faults);
        let readings = if accepted.accepted == 1 { "reading was" } else { "readings were" };
        let message = format!("partial write: {} {readings} taken; {lines}", accepted.accepted);
        self.error(StatusCode::BAD_REQUEST, message, lines.single)
    }

    /// The answer to a request that was refused.
    pub(super) fn refusal(self, error: &IngestError) -> Response {
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
        let lines = FaultSummary::of(rejections);
        // That a key covers none of the lines is not for the sender to correct in them.
        let status = match error.status() {
            StatusCode::FORBIDDEN => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        self.error(status, format!("{nothing_taken}{lines}"), lines.single)
    }

    /// An error answer with this status.
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

/// InfluxDB 2's code for a status.
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
        // InfluxDB has no code for a slow body; this one lets clients send the request again.
        408 | 503 => "unavailable",
        500.. => "internal error",
        _ => "invalid",
    }
}

/// The beginning of a message as a header value: visible ASCII and spaces.
fn header_text(message: &str) -> HeaderValue {
    let visible = |character: char| if matches!(character, ' '..='~') { character } else { '?' };
    let text: String = message.chars().take(HEADER_BYTES_MAX).map(visible).collect();
    HeaderValue::from_str(&text).expect("visible ASCII")
}

/// A description of the rejected lines and fields.
struct FaultSummary {
    text: String,
    /// The number of the line, if a single one was rejected.
    single: Option<usize>,
}

/// A rejected line or field.
#[derive(Clone, Copy)]
struct LineRejection<'a> {
    index: usize,
    pointer: &'a str,
    detail: &'a str,
}

impl LineRejection<'_> {
    /// Whether it is a field, and the rest of its line was accepted.
    fn is_field(self) -> bool {
        self.pointer.bytes().filter(|byte| *byte == b'/').count() > 1
    }
}

impl FaultSummary {
    fn new<'a>(count: u64, listed: impl Iterator<Item = LineRejection<'a>>) -> FaultSummary {
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
        FaultSummary { text, single: first.filter(|_| count == 1) }
    }

    fn of(rejections: &Rejections) -> FaultSummary {
        let listed = rejections.listed.iter();
        let named = listed.map(|fault| LineRejection {
            index: fault.index,
            pointer: &fault.pointer,
            detail: &fault.detail,
        });
        // The good lines of a strict request were rejected, too, but are not at fault.
        FaultSummary::new(rejections.count_at_fault(), named)
    }
}

impl std::fmt::Display for FaultSummary {
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
    fn only_listed_lines_are_named_and_the_rest_is_counted() {
        let check = |count, listed: &[(usize, &'static str)], expected: (&str, Option<usize>)| {
            let named = |(index, detail): &(usize, &'static str)| LineRejection {
                index: *index,
                pointer: "/3",
                detail,
            };
            let lines = FaultSummary::new(count, listed.iter().map(named));
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
    fn faulty_fields_and_faulty_lines_have_different_names() {
        let subject = |count: u64, pointers: &[&'static str]| {
            let named = pointers.iter().map(|pointer| LineRejection { index: 0, pointer, detail: "a" });
            FaultSummary::new(count, named).text.split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(subject(1, &["/0/b"]), "unable to parse or take 1 field");
        assert_eq!(subject(2, &["/0/b", "/0/c"]), "unable to parse or take 2 fields");
        assert_eq!(subject(2, &["/0/b", "/1"]), "unable to parse or take 2 lines or fields");
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
