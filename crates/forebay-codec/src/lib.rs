//! Bytes to readings and back: one file per format, in and out.
//!
//! A [`Decoder`] reads the body of a request into readings in the internal encoding, and a [`Rejection`] for each reading
//! that breaks a rule. It looks at each byte of a good body once, allocates nothing per accepted reading, and either fails as
//! a whole (the body is not of the format) or gives both lists. An [`Encoder`] writes the body of a batch one reading at a
//! time, so that a batch can stop at a number of bytes. The answers of the stores to such bodies are read by the crate
//! `forebay-stores`.
//!
//! Limits: the caller bounds the body; nesting deeper than 128 is an error; at most
//! [`REJECTIONS_LISTED_MAX`] rejections are listed, all are counted.
//!
//! A new format is a file here and a row in [`DECODERS`] or [`ENCODERS`]; the tests at the end of this file then check the
//! promises that all formats make.

mod body;
mod canonical;
mod device_tag;
mod elasticsearch;
mod elements;
mod encoder;
mod escape;
mod excerpt;
pub mod grant;
mod influx;
mod json;
mod layout;
mod mended;
mod names;
mod ndjson;
mod object;
mod parse;
mod quote;
mod remote_write;
mod scan;
mod senml;
mod time;
mod tokens;
mod unknown;
mod value;

use std::fmt::Debug;
use std::sync::Arc;

use forebay_reading::registry::Registry;
use forebay_reading::timestamp::{Precision, Timestamp};
use forebay_reading::{ReadingError, Readings};
use thiserror::Error;

pub use body::Looks;
pub use canonical::write_reading;
pub use elasticsearch::ElasticsearchEncoder;
pub use encoder::{ElasticsearchConfig, Encoder, InfluxConfig, Integers, MakeEncoder, Unwritable};
pub use excerpt::Excerpt;
pub use influx::{DeviceTags, InfluxEncoder};
pub use json::Json;
pub use layout::Layout;
pub use ndjson::Ndjson;
pub use remote_write::RemoteWriteEncoder;
pub use senml::labels as senml_labels;

/// Most rejections of one request that are listed.
pub const REJECTIONS_LISTED_MAX: usize = 100;

/// The formats that requests may have, by the name that metrics give them.
pub const DECODERS: Registry<&dyn Decoder> = Registry {
    what: "format",
    members: &[("json", &Json), ("ndjson", &Ndjson), ("senml", &senml::Senml), ("influx", &influx::Influx)],
};

/// The formats that batches may have.
pub const ENCODERS: Registry<MakeEncoder> = Registry {
    what: "format",
    members: &[
        ("ndjson", || Arc::new(Ndjson)),
        ("json", || Arc::new(Json)),
        ("elasticsearch", || Arc::new(ElasticsearchEncoder::new(&ElasticsearchConfig::default()))),
        ("influx", || Arc::new(InfluxEncoder::new(InfluxConfig::default()))),
        ("remote-write", || Arc::new(RemoteWriteEncoder::default())),
    ],
};

/// Reads one format of request bodies.
pub trait Decoder: Sync + Debug {
    /// The media types of this format, in lower case; empty if the format has paths of its own, which take any type.
    fn media_types(&self) -> &'static [&'static str];

    /// Advice for the sender of a body that gave no readings and looks like this; `None` for no advice.
    fn advice(&self, looks: Looks) -> Option<&'static str>;

    /// The places of the readings in a body, for showing rejected ones.
    fn layout(&self) -> Layout;

    /// Reads a whole body without a byte order mark.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the body is not of this format; nothing of it may be taken then.
    fn read(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError>;

    /// Reads a whole body.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the body is not of this format; nothing of it may be taken then.
    fn decode(&self, body: &[u8], rules: &Rules) -> Result<Decoded, DecodeError> {
        let body = body::unmarked(body)?;
        body::advise(self.read(body, rules), body, |looks| self.advice(looks))
    }
}

/// How to treat a field that no reading has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// The reading is turned away, and the message names the field and the nearest known one.
    Reject,
    /// The field is passed over.
    Ignore,
}

/// Rules for readings that depend on settings and on the request; the fixed limits are in `forebay-reading`.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How to treat a field that no reading has.
    pub unknown_fields: UnknownFields,
    /// The unit of times that are numbers.
    pub precision: Precision,
    /// The time of a reading that does not say its time.
    pub received_at: Timestamp,
    /// Earliest time of a reading.
    pub earliest: Timestamp,
    /// Latest time of a reading.
    pub latest: Timestamp,
    /// Most bytes of a body's readings once they are encoded. Each member of `values` repeats the device and tags of its
    /// object, and each field those of its line, so the readings can be much larger than the body.
    pub encoded_bytes_max: usize,
    /// Which tag names the device, in formats where it is a tag.
    pub device_tags: DeviceTags,
    /// The rights of the sender; `None` if the sender may write every reading, and readings stay as they are.
    pub grant: Option<Arc<grant::Grant>>,
}

/// The content of a body.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The accepted readings.
    pub readings: Readings,
    /// The rejected readings.
    pub rejections: Rejections,
    /// The fault of the first malformed line, in formats where a malformed line spares the other lines.
    pub malformed: Option<DecodeError>,
    /// Whether the readings exceed [`Rules::encoded_bytes_max`]; they are incomplete then.
    pub overflowed: bool,
}

/// The rejected readings of one request.
#[derive(Debug, Default)]
pub struct Rejections {
    /// The number of rejected readings by [`Reason`].
    counts: [u64; Reason::NAMES.len()],
    /// The first [`REJECTIONS_LISTED_MAX`] rejections.
    pub listed: Vec<Rejection>,
}

/// A rejected reading, or several that share the fault.
#[derive(Debug)]
pub struct Rejection {
    /// Place of the reading in the request, from 0: in the array, or among the lines. Blank lines count in line protocol
    /// only.
    pub index: usize,
    /// JSON pointer (RFC 6901) to the fault.
    pub pointer: String,
    /// The fault, and what is allowed.
    pub detail: String,
    /// The kind of fault.
    pub reason: Reason,
    /// The number of readings that this fault costs.
    pub readings: usize,
}

/// Why a reading is rejected, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not an object or a line, or a field has the wrong type.
    Type,
    /// A field is missing, is there twice, or contradicts another.
    Field,
    /// A field that no reading has.
    Unknown,
    /// A name, text or tag is empty, too long, or has a forbidden character.
    Limit,
    /// The time is invalid, or too far from the clock.
    Time,
    /// A number is not finite, or cannot be held.
    Number,
    /// Its key does not cover it.
    Key,
    /// The request was `strict`, and another of its readings was rejected.
    Strict,
}

impl Reason {
    /// Every reason with its name.
    pub const NAMES: &[(&str, Reason)] = &[
        ("type", Reason::Type),
        ("field", Reason::Field),
        ("unknown_field", Reason::Unknown),
        ("limit", Reason::Limit),
        ("time", Reason::Time),
        ("number", Reason::Number),
        ("key", Reason::Key),
        ("strict", Reason::Strict),
    ];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        Reason::NAMES[self as usize].0
    }
}

impl From<&ReadingError> for Reason {
    fn from(error: &ReadingError) -> Reason {
        match error {
            ReadingError::NameLength { .. }
            | ReadingError::ControlCharacter { .. }
            | ReadingError::TextLength { .. }
            | ReadingError::UnitLength { .. }
            | ReadingError::TagCount { .. }
            | ReadingError::TagLength { .. } => Reason::Limit,
            ReadingError::NotFinite => Reason::Number,
            ReadingError::Time(_) => Reason::Time,
        }
    }
}

impl Rejections {
    /// The number of rejected readings.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The number of rejected readings by reason, in the order of [`Reason::NAMES`].
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::NAMES.iter().map(|(_, reason)| *reason).zip(self.counts)
    }

    /// Counts a rejection of `readings` readings and lists it if there is room.
    ///
    /// `describe` gives the pointer and the detail; it is called only if they are listed.
    pub fn add(
        &mut self,
        index: usize,
        reason: Reason,
        readings: usize,
        describe: impl FnOnce() -> (String, String),
    ) {
        self.counts[reason as usize] += readings as u64;
        if self.listed.len() < REJECTIONS_LISTED_MAX {
            let (pointer, detail) = describe();
            self.listed.push(Rejection { index, pointer, detail, reason, readings });
        }
    }

    /// Counts readings without listing them.
    pub fn count_unlisted(&mut self, reason: Reason, readings: u64) {
        self.counts[reason as usize] += readings;
    }

    /// Whether there are some, and all for this reason.
    pub fn are_all_of(&self, reason: Reason) -> bool {
        let count = self.counts[reason as usize];
        count > 0 && count == self.count()
    }

    /// The number of readings with a fault of their own: all but those that a `strict` request lost to another reading.
    pub fn count_at_fault(&self) -> u64 {
        self.count() - self.counts[Reason::Strict as usize]
    }
}

/// Why a body is not of its format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {detail}")]
pub struct DecodeError {
    /// Line of the body, from 1.
    pub line: usize,
    /// Column in the line, in bytes from 1.
    pub column: usize,
    /// The fault at this place.
    pub detail: String,
}

impl DecodeError {
    /// An error at byte `at` of `body`.
    fn at(body: &[u8], at: usize, detail: &str) -> DecodeError {
        let before = &body[..at];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        DecodeError {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before.len() - line_start,
            detail: detail.to_owned(),
        }
    }

    /// An error of serde_json; its place counts in the text that was parsed.
    fn of_parser(error: &serde_json::Error) -> DecodeError {
        let text = error.to_string();
        let detail = text.split(" at line ").next().unwrap_or_default().to_owned();
        DecodeError { line: error.line().max(1), column: error.column().max(1), detail }
    }
}

/// The body as text.
fn utf8(body: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(body)
        .map_err(|error| DecodeError::at(body, error.valid_up_to(), "the body is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_reading::{ReadingParts, Tag, Value};
    use proptest::prelude::*;

    pub(crate) fn rules() -> Rules {
        Rules {
            unknown_fields: UnknownFields::Reject,
            precision: Precision::Millis,
            received_at: Timestamp::from_nanos(1_170_288_000_000_000_000).expect("2007"),
            earliest: Timestamp::MIN,
            latest: Timestamp::MAX,
            encoded_bytes_max: usize::MAX,
            device_tags: DeviceTags::default(),
            grant: None,
        }
    }

    /// The outcome for people: a canonical line for each reading, then `index pointer: detail` for each rejection.
    pub(crate) fn show(decoded: &Decoded) -> String {
        let mut text = Vec::new();
        for reading in &decoded.readings {
            write_reading(reading, &mut text);
            text.push(b'\n');
        }
        let mut text = String::from_utf8(text).expect("UTF-8");
        for rejection in &decoded.rejections.listed {
            text += &format!("{} {}: {}\n", rejection.index, rejection.pointer, rejection.detail);
        }
        text
    }

    #[derive(Clone, Debug)]
    enum Kind {
        Integer(i64),
        Double(f64),
        Boolean(bool),
        Text(String),
    }

    type Row = (String, String, Kind, i64, Option<String>, Vec<(String, String)>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let kind = prop_oneof![
            any::<i64>().prop_map(Kind::Integer),
            (-1e300..1e300).prop_map(Kind::Double),
            prop::num::f64::NORMAL.prop_map(Kind::Double),
            any::<bool>().prop_map(Kind::Boolean),
            "(?s).{0,20}".prop_map(Kind::Text),
        ];
        let name = prop_oneof![4 => "\\PC{1,8}", 1 => "(exported_){0,2}device"];
        let tags = prop::collection::btree_map(name, "(?s).{0,8}", 0..3);
        let row =
            ("[^\\p{C}]{1,20}", "[^\\p{C}]{1,20}", kind, 0..i64::MAX, prop::option::of("[A-Z\"]{1,4}"), tags);
        let row = row.prop_map(|(d, s, k, t, u, tags)| (d, s, k, t, u, tags.into_iter().collect()));
        prop::collection::vec(row, 1..20)
    }

    fn readings<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Readings {
        let mut readings = Readings::default();
        for (device, sensor, kind, nanos, unit, tags) in rows {
            let tags: Vec<Tag<'_>> =
                tags.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
            let parts = ReadingParts {
                device,
                sensor,
                value: match kind {
                    Kind::Integer(number) => Value::Integer(*number),
                    Kind::Double(number) => Value::Double(*number),
                    Kind::Boolean(truth) => Value::Boolean(*truth),
                    Kind::Text(text) => Value::Text(text),
                }
                .into(),
                time: Timestamp::from_nanos(*nanos).expect("not negative"),
                unit: unit.as_deref(),
                tags: &tags,
            };
            readings.push(&parts).expect("within the limits");
        }
        readings
    }

    pub(crate) fn encode(encoder: &dyn Encoder, readings: &Readings) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, reading) in readings.iter().enumerate() {
            encoder.write(index, reading, &mut body).expect("the format holds all readings");
        }
        assert_eq!(encoder.arrange(&mut body), [], "the format holds all readings");
        encoder.finish("key", &mut body);
        body
    }

    /// The rows that the format can hold, and their body.
    fn encode_held<'a>(encoder: &dyn Encoder, rows: &'a [Row]) -> (Vec<u8>, Vec<&'a Row>) {
        let mut body = Vec::new();
        let mut held = Vec::new();
        for (row, reading) in rows.iter().zip(&readings(rows)) {
            if encoder.write(held.len(), reading, &mut body).is_ok() {
                held.push(row);
            }
        }
        let unfit: Vec<_> = encoder.arrange(&mut body).into_iter().map(|(place, _)| place).collect();
        let mut places = 0..;
        held.retain(|_| places.next().is_some_and(|place| !unfit.contains(&place)));
        encoder.finish("key", &mut body);
        (body, held)
    }

    /// The parts of a row that the format with this name promises to keep.
    fn as_held(format: &str, row: &Row) -> Row {
        let mut row = row.clone();
        if format == "influx" {
            let (_, _, _, _, unit, tags) = &mut row;
            *unit = None;
            // Line protocol has no empty tags, and sorts tags by name.
            tags.retain(|(_, value)| !value.is_empty());
            for (name, _) in tags.iter_mut() {
                *name = device_tag::beside_device(name.clone().into()).into_owned();
            }
            tags.sort();
        }
        row
    }

    proptest! {
        #[test]
        fn every_format_reads_back_what_it_writes(rows in rows()) {
            for (name, decoder) in DECODERS.members {
                let Ok(make) = ENCODERS.find(name) else { continue };
                let (body, held) = encode_held(&*make(), &rows);
                // Line protocol has its times as numbers.
                let rules = Rules { precision: Precision::Nanos, ..rules() };
                let decoded = decoder.decode(&body, &rules).expect("it reads what it wrote");
                prop_assert_eq!(decoded.rejections.count(), 0, "{:?}", decoded.rejections.listed);
                let held: Vec<_> = held.into_iter().map(|row| as_held(name, row)).collect();
                prop_assert_eq!(&decoded.readings, &readings(&held));
            }
        }

        #[test]
        fn an_encoder_appends_nothing_of_a_reading_that_its_format_cannot_hold(rows in rows()) {
            for (name, make) in ENCODERS.members {
                let encoder = make();
                let mut body = b"before".to_vec();
                for (index, reading) in readings(&rows).iter().enumerate() {
                    let before = body.clone();
                    let is_written = encoder.write(index, reading, &mut body).is_ok();
                    prop_assert!(body.starts_with(&before), "{}", name);
                    prop_assert_eq!(body.len() > before.len(), is_written, "{}", name);
                }
            }
        }

        #[test]
        fn no_body_can_cause_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, decoder) in DECODERS.members {
                let _ = decoder.decode(&body, &rules());
            }
        }

        #[test]
        fn no_mangled_body_can_cause_a_panic_or_break_a_rule(rows in rows(), at in any::<prop::sample::Index>(), byte: u8) {
            for (name, decoder) in DECODERS.members {
                let Ok(make) = ENCODERS.find(name) else { continue };
                let (mut body, held) = encode_held(&*make(), &rows);
                if held.is_empty() {
                    continue;
                }
                let at = at.index(body.len());
                body[at] = byte;
                let Ok(decoded) = decoder.decode(&body, &rules()) else { continue };
                prop_assert_eq!(decoded.readings.iter().count(), decoded.readings.len());
                body.truncate(at);
                let _ = decoder.decode(&body, &rules());
            }
        }
    }

    #[test]
    fn every_format_but_line_protocol_names_its_media_types_and_no_two_share_one() {
        // Line protocol has paths of its own; `ingest::dialect` checks that some path takes each format.
        let mut seen = std::collections::BTreeSet::new();
        for (name, decoder) in DECODERS.members {
            assert_eq!(decoder.media_types().is_empty(), *name == "influx", "{name}");
            for media_type in decoder.media_types() {
                assert!(seen.insert(*media_type), "{media_type}");
            }
        }
    }

    #[test]
    fn every_format_names_the_first_byte_that_is_not_utf8_and_takes_no_reading_from_there() {
        for (name, decoder) in DECODERS.members {
            let told = match decoder.decode(b"{}\n{ \xff", &rules()) {
                Err(error) => error.to_string(),
                // A line that is not UTF-8 costs only itself.
                Ok(decoded) => {
                    assert!(decoded.readings.is_empty(), "{name}");
                    let last = decoded.rejections.listed.last().expect("a rejection");
                    let line =
                        if *name == "influx" { format!("line {}, ", last.index + 1) } else { String::new() };
                    line + &last.detail
                }
            };
            let line = if matches!(*name, "influx" | "ndjson") { "line" } else { "body" };
            assert_eq!(told, format!("line 2, column 3: the {line} is not UTF-8"), "{name}");
        }
    }
}
