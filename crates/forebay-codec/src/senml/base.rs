//! The base fields that hold for a record: its own, or the last ones of earlier records (RFC 8428, section 4).

use std::borrow::Cow;

use forebay_reading::timestamp::{Precision, decimal};
use forebay_reading::{Value, is_beyond_doubles};

use super::VERSION;
use super::label::{Label, Labels};
use super::name;
use super::record::{RecordFault, RecordFields};
use crate::Reason;

/// The number of base fields; they come first among the labels.
const BASES: usize = Label::Version as usize + 1;

/// The base fields in force at the current record.
#[derive(Debug, Default)]
pub(super) struct Base<'de> {
    /// Empty without a base name.
    pub(super) name: Cow<'de, str>,
    /// The base time in nanoseconds; zero without one.
    pub(super) nanos: i128,
    pub(super) unit: Option<Cow<'de, str>>,
    pub(super) value: Option<Value<'static>>,
    pub(super) has_sum: bool,
    /// The version of all records; known after the first record.
    version: Option<u32>,
    /// The index of the record that set each base field, by label.
    set_by: [usize; BASES],
    /// The base fields whose last setting was faulty.
    faulty: Labels,
    faults: Vec<(Label, RecordFault)>,
    /// A version that rejects the whole pack.
    pub(super) too_new: Option<RecordFault>,
}

impl<'de> Base<'de> {
    /// Takes over the base fields of a record. A fault of a field is noted in the record, and here until the field is set
    /// again.
    pub(super) fn take(&mut self, record: &mut RecordFields<'de>) {
        for label in record.seen.and(Labels::BASE).known() {
            self.take_field(label, record);
        }
        if record.seen.has(Label::UnknownBase)
            && let Some(fault) = record.fault_of(Label::UnknownBase)
        {
            // The label would hold for all later records.
            self.spoil(Label::UnknownBase, fault.clone());
        }
        if self.version.is_none() && !self.faulty.has(Label::Version) {
            self.version = Some(VERSION);
        }
    }

    fn take_field(&mut self, label: Label, record: &mut RecordFields<'de>) {
        self.set_by[label as usize] = record.index;
        if record.fault_of(label).is_none()
            && let Err((reason, detail)) = self.set(label, record)
        {
            record.fault(label, reason, detail);
        }
        match record.fault_of(label) {
            Some(fault) => self.spoil(label, fault.clone()),
            None => self.mend(label),
        }
    }

    fn set(&mut self, label: Label, record: &mut RecordFields<'de>) -> Result<(), (Reason, String)> {
        let text = record.text(label);
        let beyond = || (Reason::Number, beyond(label));
        match label {
            Label::BaseName => {
                name::check(&text, true)?;
                self.name = text;
            }
            Label::BaseTime => self.nanos = seconds(&text).map_err(|_| time_beyond(label, &text))?,
            Label::BaseUnit => self.unit = Some(text),
            Label::BaseValue => self.value = Some(Value::of_number(&text).ok_or_else(beyond)?),
            Label::BaseSum => {
                self.has_sum = true;
                Value::of_number(&text).ok_or_else(beyond)?;
            }
            Label::Version => self.set_version(&text, record.index)?,
            _ => {}
        }
        Ok(())
    }

    /// All records have the same version (section 4.4), which is [`VERSION`] where none is written.
    fn set_version(&mut self, text: &str, record: usize) -> Result<(), (Reason, String)> {
        // A number beyond all doubles is infinite, and larger than any known version.
        let version: f64 = text.parse().unwrap_or(f64::INFINITY);
        if version > f64::from(VERSION) {
            let detail = format!(
                "the pack has the SenML version {}, and only those up to {VERSION} are known: none of it can be taken",
                crate::quote::shorten(text)
            );
            let fault = RecordFault::new(record, Label::Version, Reason::Field, detail.clone());
            self.too_new.get_or_insert(fault);
            return Err((Reason::Field, detail));
        }
        let known = (1..=VERSION).find(|known| f64::from(*known) == version).ok_or_else(|| {
            let detail = format!("`bver` must be a whole number from 1 to {VERSION}");
            (Reason::Field, detail)
        })?;
        match self.version {
            Some(before) if before != known => {
                let detail = format!(
                    "`bver` must be the same in the whole pack, got {known} after records of version {before}; it is {VERSION} where it is left out"
                );
                Err((Reason::Field, detail))
            }
            _ => {
                self.version = Some(known);
                Ok(())
            }
        }
    }

    fn spoil(&mut self, label: Label, fault: RecordFault) {
        self.mend(label);
        self.faulty.insert(label);
        self.faults.push((label, fault));
    }

    fn mend(&mut self, label: Label) {
        if self.faulty.has(label) {
            self.faulty.remove(label);
            self.faults.retain(|(faulty, _)| *faulty != label);
        }
    }

    /// Fails if the record needs a faulty base field.
    pub(super) fn check(&self, record: &RecordFields<'_>) -> Result<(), RecordFault> {
        if self.faulty.is_empty() { Ok(()) } else { self.check_each(record) }
    }

    #[cold]
    fn check_each(&self, record: &RecordFields<'_>) -> Result<(), RecordFault> {
        let needs = |label: Label| match label {
            Label::BaseUnit => !record.seen.has(Label::Unit),
            Label::BaseValue => record.seen.has(Label::Value),
            // Sums are ignored.
            Label::BaseSum => false,
            _ => true,
        };
        let Some((_, fault)) = self.faults.iter().find(|(label, _)| needs(*label)) else { return Ok(()) };
        let mut fault = fault.clone();
        fault.detail = format!("{} (in record {}, and it holds for this one)", fault.detail, fault.record);
        Err(fault)
    }

    /// The index of the record that set a base field.
    pub(super) fn set_by(&self, label: Label) -> usize {
        self.set_by.get(label as usize).copied().unwrap_or_default()
    }
}

/// A time of SenML, which counts seconds (section 4.5.3), in nanoseconds.
pub(super) fn seconds(text: &str) -> Result<i128, decimal::TimeOutOfRange> {
    decimal::nanos(text, Precision::Seconds)
}

/// The words for a number that no double can hold.
pub(super) fn beyond(label: Label) -> String {
    format!("`{}` must be a finite number, got a number that no double can hold", label.name())
}

/// The reason and the words for a time that is too large to add up.
pub(super) fn time_beyond(label: Label, text: &str) -> (Reason, String) {
    match is_beyond_doubles(text) {
        true => (Reason::Number, beyond(label)),
        false => {
            (Reason::Time, format!("`{}` is too many seconds for any time from 1970 to 2262", label.name()))
        }
    }
}
