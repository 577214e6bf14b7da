//! The paths that take readings in the OpenAPI document: the shape of their requests and answers. A test holds it to the
//! fields that the decoders know.

use std::collections::BTreeMap;

use forebay_reading::TEXT_VALUE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

use super::accepted::Acceptance;
use super::influx::{ErrorV1, ErrorV2};

/// One value of one sensor of one device at one instant, or several sensors at one instant in `values`. An optional field
/// that is null counts as absent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Reading {
    /// Who measured; 1 to 256 bytes, no control characters.
    #[schema(min_length = 1, max_length = 256, example = "meter-7")]
    device: String,
    /// What was measured; 1 to 256 bytes, no control characters.
    #[schema(min_length = 1, max_length = 256, example = "voltage")]
    sensor: Option<String>,
    #[schema(schema_with = value)]
    value: Option<ValueSchema>,
    /// When; the time of receipt if absent.
    time: Option<Time>,
    /// The unit; UCUM or SenML names are the custom.
    #[schema(max_length = 64, example = "V")]
    unit: Option<String>,
    /// At most 32 tags, names and values at most 256 bytes.
    tags: Option<BTreeMap<String, String>>,
    #[schema(schema_with = values)]
    values: Option<BTreeMap<String, ValueSchema>>,
}

/// A value of any kind.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum ValueSchema {
    Number(f64),
    Boolean(bool),
    Text(String),
}

/// The schema of `value`.
fn value() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Number, Type::Boolean, Type::String]))
        .max_length(Some(TEXT_VALUE_BYTES_MAX))
        .description(Some(
            "What came out: a finite number (whole ones that fit in 64 bits signed are kept exactly, others are \
             doubles), true or false, or a text of at most 4096 bytes.",
        ))
        .build()
}

/// The schema of `values`.
fn values() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(Schema::Object(value())))
        .description(Some(
            "Instead of `sensor` and `value`: several sensors read at one instant; it counts as that many readings.",
        ))
        .build()
}

/// A time from `ingest.earliest` (2001 by default, 1970 at the earliest) to 2262.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Time {
    /// RFC 3339 with an offset.
    Text(String),
    /// A number since the Unix epoch, in the unit of `precision`; every digit counts, down to the nanosecond.
    Number(f64),
}

/// One reading or an array of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Readings)]
#[serde(untagged)]
pub(super) enum ReadingsSchema {
    /// One.
    One(Reading),
    /// Several.
    Several(Vec<Reading>),
}

/// A record of a SenML pack (RFC 8428): a measurement, or base fields for those after it. What begins with `b` holds
/// until it is set anew. Other labels are ignored, or turned away if they end in `_`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = SenmlRecord)]
pub(super) struct SenmlRecordSchema {
    /// Base name, in front of every name; without the separators at its end the device.
    #[schema(example = "urn:dev:ow:10e2073a01080063:")]
    bn: Option<String>,
    /// Base time, added to every time.
    #[schema(example = 1_276_020_076.001)]
    bt: Option<f64>,
    /// Unit of records without one.
    bu: Option<String>,
    /// Base value, added to every number.
    bv: Option<f64>,
    /// Base sum; passed over.
    bs: Option<f64>,
    /// Version, the same in the whole pack; a pack with one above 10 is turned away.
    #[schema(minimum = 1, maximum = 10)]
    bver: Option<u32>,
    /// Name, behind the base name: letters, digits and `-:./_`.
    #[schema(example = "voltage")]
    n: Option<String>,
    /// Unit.
    #[schema(max_length = 64, example = "V")]
    u: Option<String>,
    /// A number as the value; a record has one of `v`, `vs` and `vb`.
    #[schema(example = 120.1)]
    v: Option<f64>,
    /// A text as the value.
    #[schema(max_length = 4096)]
    vs: Option<String>,
    /// True or false as the value.
    vb: Option<bool>,
    /// Binary data; not taken.
    vd: Option<String>,
    /// Sum; passed over beside a value, and not taken alone.
    s: Option<f64>,
    /// Seconds: since the Unix epoch, or below 2^28 since the request was received.
    #[schema(example = -5)]
    t: Option<f64>,
    /// Update time; passed over.
    ut: Option<f64>,
}

/// The query parameters of the gateway's own path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document is made from the fields")]
pub(super) struct ReadingsParameters {
    /// Take all readings or none.
    strict: Option<bool>,
    /// What the answer promises: `disk` (where the buffer is on disk), `memory` or `delivered`.
    #[param(example = "disk")]
    ack: Option<String>,
    /// The unit of times that are numbers: `s`, `ms`, `us` or `ns`. SenML has its own, seconds.
    #[param(example = "ms")]
    precision: Option<String>,
}

/// The header fields of a request.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the fields")]
pub(super) struct KeyHeader {
    /// A text of the client's own, the same when it sends the same request again: in quotes, or bare; 1 to 255 bytes
    /// of visible ASCII and spaces. Within `ingest.idempotency_window` the first answer of 202 is given again.
    #[serde(rename = "Idempotency-Key")]
    #[param(example = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")]
    idempotency_key: Option<String>,
}

/// The query parameters of the paths of InfluxDB's clients. Others are ignored.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document is made from the fields")]
pub(super) struct InfluxParameters {
    /// Take all lines or none.
    strict: Option<bool>,
    /// What the answer promises: `disk` (where the buffer is on disk), `memory` or `delivered`.
    #[param(example = "disk")]
    ack: Option<String>,
    /// The unit of times: `ns`, `us`, `ms` or `s`, also as `n` and `u`; on `/write` also `m` and `h`.
    #[param(example = "ns")]
    precision: Option<String>,
}

/// Takes readings.
#[utoipa::path(
    post,
    path = "/v1/readings",
    tag = "readings",
    request_body(
        description = "One reading or an array of them; or one reading a line; or a SenML pack (RFC 8428), an array of records.",
        content(
            (ReadingsSchema = "application/json"),
            (Reading = "application/x-ndjson"),
            (Reading = "application/jsonl"),
            (Vec<SenmlRecordSchema> = "application/senml+json"),
        )
    ),
    params(ReadingsParameters, KeyHeader),
    responses(
        (status = 202, description = "At least one reading was accepted, or there was none.", body = Acceptance,
            headers(("Idempotency-Replayed" = String, description = "`true` if this is the answer to an earlier request with the same `Idempotency-Key`; nothing was taken again."))),
        (status = 400, description = "The body is not what it claims to be (of NDJSON: not one line is), a query parameter is not known or has no such value, or the `Idempotency-Key` or the `Host` is not valid.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No valid key came with the request, and the gateway wants one.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The request comes from a web page that `server.origins` does not list; or its key covers none of its readings, or is not for writing.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The first request with this `Idempotency-Key` is still under way; `Retry-After` says when to come again.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 411, description = "The request does not say how long its body is.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body, or the number of readings, is too large.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 415, description = "A media type or encoding that is not taken.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 421, description = "The gateway is not known by the name in `Host`.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests without a valid key have come from this address, or too many of this client are under way; `Retry-After` says when to come again.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every reading was turned away, or one was and the request is strict, or the `Idempotency-Key` came with another request. With `ack=delivered` also: nodes refused readings of the request, which are kept as dead letters; the others were delivered.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 501, description = "A `Transfer-Encoding` other than `chunked` alone.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The buffer is full, readings cannot be stored, or the gateway is shutting down; `Retry-After` says when to come again.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 508, description = "The request has come through this gateway before: `Forebay-Via` has its id.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
#[expect(dead_code, reason = "the document is made from it; the answer is `Front::post`")]
pub(super) fn post() {}

/// Takes line protocol, as clients of InfluxDB 2 and 3 send it.
#[utoipa::path(
    post,
    path = "/api/v2/write",
    tag = "influx",
    request_body(content = String, content_type = "text/plain", description = "One point a line; any media type is taken."),
    params(InfluxParameters, KeyHeader),
    responses(
        (status = 204, description = "Every line was taken, or there was none.",
            headers(("Idempotency-Replayed" = String, description = "`true` if this is the answer to an earlier request with the same `Idempotency-Key`; nothing was taken again."))),
        (status = 400, description = "Lines, or fields without a valid value, were turned away: some (`partial write`; the others were taken), all, or one of a strict request. Or a parameter has no such value, the body is not compressed as it claims to be, or the `Idempotency-Key` is not valid.", body = ErrorV2),
        (status = 401, description = "No valid key came with the request, and the gateway wants one.", body = ErrorV2),
        (status = 403, description = "The request comes from a web page that `server.origins` does not list; or its key covers none of its readings, or is not for writing.", body = ErrorV2),
        (status = 408, description = "The body did not arrive in time.", body = ErrorV2),
        (status = 409, description = "The first request with this `Idempotency-Key` is still under way; `Retry-After` says when to come again.", body = ErrorV2),
        (status = 411, description = "The request does not say how long its body is.", body = ErrorV2),
        (status = 413, description = "The body, or the number of readings, is too large.", body = ErrorV2),
        (status = 415, description = "An encoding that is not taken.", body = ErrorV2),
        (status = 421, description = "The gateway is not known by the name in `Host`.", body = ErrorV2),
        (status = 429, description = "Too many requests without a valid key have come from this address, or too many of this client are under way; `Retry-After` says when to come again.", body = ErrorV2),
        (status = 422, description = "The `Idempotency-Key` came with another request, or the acknowledgement cannot be given. With `ack=delivered` also: nodes refused readings of the request, which are kept as dead letters; the others were delivered.", body = ErrorV2),
        (status = 501, description = "A `Transfer-Encoding` other than `chunked` alone.", body = ErrorV2),
        (status = 503, description = "The buffer is full, readings cannot be stored, or the gateway is shutting down; `Retry-After` says when to come again.", body = ErrorV2),
        (status = 508, description = "The request has come through this gateway before: `Forebay-Via` has its id.", body = ErrorV2),
    )
)]
#[expect(dead_code, reason = "the document is made from it; the answer is `Front::post`")]
pub(super) fn write_v2() {}

/// Takes line protocol, as clients of InfluxDB 1 send it.
#[utoipa::path(
    post,
    path = "/write",
    tag = "influx",
    request_body(content = String, content_type = "text/plain", description = "One point a line; any media type is taken."),
    params(InfluxParameters, KeyHeader),
    responses(
        (status = 204, description = "Every line was taken, or there was none.",
            headers(("Idempotency-Replayed" = String, description = "`true` if this is the answer to an earlier request with the same `Idempotency-Key`; nothing was taken again."))),
        (status = 400, description = "Lines, or fields without a valid value, were turned away: some (`partial write`; the others were taken), all, or one of a strict request. Or a parameter has no such value, the body is not compressed as it claims to be, or the `Idempotency-Key` is not valid. `X-Influxdb-Error` has the beginning of the error.", body = ErrorV1),
        (status = 401, description = "No valid key came with the request, and the gateway wants one.", body = ErrorV1),
        (status = 403, description = "The request comes from a web page that `server.origins` does not list; or its key covers none of its readings, or is not for writing.", body = ErrorV1),
        (status = 408, description = "The body did not arrive in time.", body = ErrorV1),
        (status = 409, description = "The first request with this `Idempotency-Key` is still under way; `Retry-After` says when to come again.", body = ErrorV1),
        (status = 411, description = "The request does not say how long its body is.", body = ErrorV1),
        (status = 413, description = "The body, or the number of readings, is too large.", body = ErrorV1),
        (status = 415, description = "An encoding that is not taken.", body = ErrorV1),
        (status = 421, description = "The gateway is not known by the name in `Host`.", body = ErrorV1),
        (status = 429, description = "Too many requests without a valid key have come from this address, or too many of this client are under way; `Retry-After` says when to come again.", body = ErrorV1),
        (status = 422, description = "The `Idempotency-Key` came with another request, or the acknowledgement cannot be given. With `ack=delivered` also: nodes refused readings of the request, which are kept as dead letters; the others were delivered.", body = ErrorV1),
        (status = 501, description = "A `Transfer-Encoding` other than `chunked` alone.", body = ErrorV1),
        (status = 503, description = "The buffer is full, readings cannot be stored, or the gateway is shutting down; `Retry-After` says when to come again.", body = ErrorV1),
        (status = 508, description = "The request has come through this gateway before: `Forebay-Via` has its id.", body = ErrorV1),
    )
)]
#[expect(dead_code, reason = "the document is made from it; the answer is `Front::post`")]
pub(super) fn write_v1() {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use forebay_reading::Field;

    #[test]
    fn the_schema_has_the_fields_that_the_decoders_know() {
        check_fields::<Reading>(Field::NAMES.iter().map(|(name, _)| *name));
        check_fields::<SenmlRecordSchema>(forebay_codec::senml_labels());
    }

    #[track_caller]
    fn check_fields<T: utoipa::PartialSchema>(known: impl Iterator<Item = &'static str>) {
        let document = serde_json::to_value(T::schema()).expect("JSON");
        let documented = document["properties"].as_object().expect("properties").keys();
        let documented: BTreeSet<_> = documented.map(String::as_str).collect();
        assert_eq!(documented, known.collect());
    }
}
