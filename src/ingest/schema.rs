//! The shape of requests, for the OpenAPI document. A test holds it to the fields that the decoders know.

use std::collections::BTreeMap;

use forebay_reading::TEXT_VALUE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

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
    value: Option<Value>,
    /// When; the time of receipt if absent.
    time: Option<Time>,
    /// The unit; UCUM or SenML names are the custom.
    #[schema(max_length = 64, example = "V")]
    unit: Option<String>,
    /// At most 32 tags, names and values at most 256 bytes.
    tags: Option<BTreeMap<String, String>>,
    #[schema(schema_with = values)]
    values: Option<BTreeMap<String, Value>>,
}

/// A value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(f64),
    Boolean(bool),
    Text(String),
}

/// What a value may be.
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

/// What `values` may be.
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
#[serde(untagged)]
pub(super) enum Readings {
    /// One.
    One(Reading),
    /// Several.
    Several(Vec<Reading>),
}

/// A record of a SenML pack (RFC 8428): a measurement, or base fields for those after it. What begins with `b` holds
/// until it is set anew. Other labels are ignored, or turned away if they end in `_`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SenmlRecord {
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

/// What a request may ask for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the document is made from the fields")]
pub(super) struct Parameters {
    /// Take all readings or none.
    strict: Option<bool>,
    /// What the answer promises: `disk` (where the buffer is on disk), `memory` or `delivered`.
    #[param(example = "disk")]
    ack: Option<String>,
    /// The unit of times that are numbers: `s`, `ms`, `us` or `ns`. SenML has its own, seconds.
    #[param(example = "ms")]
    precision: Option<String>,
}

/// What a request may say in its head.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the document is made from the fields")]
pub(super) struct Headers {
    /// A text of the client's own, the same when it sends the same request again: in quotes, or bare; 1 to 255 bytes
    /// of visible ASCII and spaces. Within `ingest.idempotency_window` the first answer of 202 is given again.
    #[serde(rename = "Idempotency-Key")]
    #[param(example = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")]
    idempotency_key: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use forebay_reading::Field;

    #[test]
    fn the_schema_has_the_fields_that_the_decoders_know() {
        check_fields::<Reading>(Field::NAMES.iter().map(|(name, _)| *name));
        check_fields::<SenmlRecord>(forebay_codec::senml_labels());
    }

    #[track_caller]
    fn check_fields<T: utoipa::PartialSchema>(known: impl Iterator<Item = &'static str>) {
        let document = serde_json::to_value(T::schema()).expect("JSON");
        let documented = document["properties"].as_object().expect("properties").keys();
        let documented: BTreeSet<_> = documented.map(String::as_str).collect();
        assert_eq!(documented, known.collect());
    }
}
