//! The faults of lines, in words.

use std::borrow::Cow;

use forebay_reading::Field;

use super::{DeviceTags, Reason};
use crate::grant::GrantError;
use crate::quote::{pointer_token, shorten};

/// A fault of a line.
#[derive(Debug)]
pub(super) struct LineFault {
    /// Place of the fault in the text, in bytes.
    pub(super) at: usize,
    pub(super) reason: Reason,
    pub(super) detail: Cow<'static, str>,
    pub(super) scope: FaultScope,
}

/// The part of a line that a fault costs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FaultScope {
    /// The whole line.
    Line,
    /// One field alone; its key, as a token of a JSON pointer.
    Field(String),
}

impl LineFault {
    pub(super) fn new(at: usize, reason: Reason, detail: impl Into<Cow<'static, str>>) -> LineFault {
        LineFault { at, reason, detail: detail.into(), scope: FaultScope::Line }
    }

    /// The same fault, where it costs the field `key` alone.
    pub(super) fn of_field(self, key: &str) -> LineFault {
        LineFault { scope: FaultScope::Field(pointer_token(key)), ..self }
    }

    pub(super) fn field_twice(at: usize, key: &str) -> LineFault {
        LineFault::new(at, Reason::Field, format!("the field `{}` is there twice", shorten(key)))
    }

    /// A required part is missing.
    pub(super) fn missing(at: usize, detail: impl Into<Cow<'static, str>>) -> LineFault {
        LineFault::new(at, Reason::Field, detail)
    }

    pub(super) fn tag_without_value(at: usize, tag: &str) -> LineFault {
        LineFault::missing(at, format!("the tag `{}` has no value", shorten(tag)))
    }

    pub(super) fn equals_in_tag(at: usize, tag: &str) -> LineFault {
        let detail =
            format!("the value of the tag `{}` has an `=`; it takes a backslash before it", shorten(tag));
        LineFault::new(at, Reason::Type, detail)
    }

    pub(super) fn tag_twice(at: usize, tag: &str) -> LineFault {
        LineFault::new(at, Reason::Field, format!("the tag `{}` is there twice", shorten(tag)))
    }

    pub(super) fn no_device(at: usize, tags: &DeviceTags) -> LineFault {
        let names: Vec<_> = tags.names().map(|name| format!("`{}`", shorten(name))).collect();
        let detail = format!(
            "the line has no tag that names its device; known: {}, the first one counts",
            names.join(", ")
        );
        LineFault::missing(at, detail)
    }

    pub(super) fn field_without_value(at: usize, key: &str) -> LineFault {
        LineFault::missing(at, format!("the field `{}` has no value", shorten(key)))
    }

    pub(super) fn no_value(at: usize, key: &str, got: &str) -> LineFault {
        let detail = format!(
            "the field `{}` is `{}`; allowed: a number, a whole number with `i` or `u` behind it, true, false, or a \
             text in double quotes",
            shorten(key),
            shorten(got)
        );
        LineFault::new(at, Reason::Type, detail).of_field(key)
    }

    pub(super) fn empty_value(at: usize, key: &str) -> LineFault {
        LineFault::field_without_value(at, key).of_field(key)
    }

    pub(super) fn not_whole(at: usize, key: &str, got: &str) -> LineFault {
        let detail = format!(
            "the field `{}` is `{}`; a whole number fits in 64 bits signed, or a larger one with `u` is exactly a double",
            shorten(key),
            shorten(got)
        );
        LineFault::new(at, Reason::Number, detail).of_field(key)
    }

    pub(super) fn not_finite(at: usize, key: &str, got: &str) -> LineFault {
        let detail = format!("the field `{}` is `{}`, which is no finite number", shorten(key), shorten(got));
        LineFault::new(at, Reason::Number, detail).of_field(key)
    }

    pub(super) fn not_closed(at: usize, key: &str) -> LineFault {
        LineFault::new(at, Reason::Type, format!("the text of the field `{}` is not closed", shorten(key)))
    }

    pub(super) fn after_field(at: usize, key: &str) -> LineFault {
        let detail = format!(
            "after the field `{}`, a comma, a space or the end of the line must follow",
            shorten(key)
        );
        LineFault::new(at, Reason::Type, detail)
    }

    pub(super) fn no_time(at: usize, got: &str) -> LineFault {
        LineFault::new(at, Reason::Time, format!("the time is `{}`; it must be a whole number", shorten(got)))
    }

    pub(super) fn reading(at: usize, error: &GrantError) -> LineFault {
        LineFault::new(at, Reason::from(error), error.to_string())
    }

    /// Why a field is not a reading: a fault of the field, or of a part that the whole line shares.
    pub(super) fn reading_of(at: usize, key: &str, error: &GrantError) -> LineFault {
        let fault = LineFault::reading(at, error);
        match error.field() {
            Field::Value | Field::Values => {
                let detail = format!("the field `{}`: {}", shorten(key), fault.detail);
                LineFault { detail: detail.into(), ..fault }.of_field(key)
            }
            Field::Sensor => fault.of_field(key),
            Field::Device | Field::Time | Field::Unit | Field::Tags => fault,
        }
    }
}
