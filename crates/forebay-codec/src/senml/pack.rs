//! Makes readings of records and the base fields that hold for them.

use forebay_reading::timestamp::{Precision, Timestamp};
use forebay_reading::{Field, NewValue, Parts, Readings, Value, is_beyond_doubles};

use super::base::{Base, beyond, seconds, time_beyond};
use super::label::{Label, Labels};
use super::name::{self, Word};
use super::number;
use super::record::{RecordFault, RecordFields};
use crate::grant::GrantError;
use crate::{Decoded, Reason, Rejections, Rules};

/// Times below this are relative to the time of receipt (RFC 8428, section 4.5.3): 2^28 seconds.
const ABSOLUTE_FROM_NANOS: i128 = (1 << 28) * 1_000_000_000;

/// The state of reading a pack.
#[derive(Debug)]
pub(super) struct Pack<'a, 'de> {
    rules: &'a Rules,
    base: Base<'de>,
    /// The number of records so far.
    records: usize,
    decoded: Decoded,
}

impl<'a, 'de> Pack<'a, 'de> {
    /// Makes room for the pack in `text`: encoded readings are mostly shorter than two records.
    pub(super) fn new(text: &str, rules: &'a Rules) -> Pack<'a, 'de> {
        let decoded = Decoded { readings: Readings::with_capacity(text.len()), ..Decoded::default() };
        Pack { rules, base: Base::default(), records: 0, decoded }
    }

    /// The index of the next record.
    pub(super) fn next(&self) -> usize {
        self.records
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, record: &mut RecordFields<'de>) {
        self.records += 1;
        self.base.take(record);
        let resolved = match record.first_fault() {
            Some(fault) => Err(fault.clone()),
            None => self.resolve(record),
        };
        if let Err(fault) = resolved {
            self.reject(record.index, 1, fault);
        }
    }

    /// Rejects an element that is not a record.
    pub(super) fn take_other(&mut self, detail: String) {
        let index = self.records;
        self.records += 1;
        self.reject(index, 1, RecordFault::new(index, Label::Unknown, Reason::Type, detail));
    }

    /// Rejects a body that is not an array.
    pub(super) fn refuse(&mut self, found: &str) {
        let detail = format!("the body must be a SenML pack, an array of records, got {found}");
        self.decoded.rejections.add(0, Reason::Type, 1, || (String::new(), detail));
    }

    /// The content of the pack.
    pub(super) fn finish(mut self) -> Decoded {
        if let Some(fault) = self.base.too_new.take() {
            self.decoded = Decoded { rejections: Rejections::default(), ..Decoded::default() };
            self.reject(fault.record, self.records, fault);
        }
        self.decoded
    }

    fn reject(&mut self, index: usize, records: usize, fault: RecordFault) {
        let reason = fault.reason;
        self.decoded.rejections.add(index, reason, records, || (fault.pointer(), fault.detail));
    }

    /// Adds the reading of a record, if it has one.
    fn resolve(&mut self, record: &RecordFields<'de>) -> Result<(), RecordFault> {
        if record.seen.and(Labels::REGULAR).is_empty() && record.seen.has_base() {
            return Ok(());
        }
        self.base.check(record)?;
        let value = self.value(record)?;
        let time = self.time(record)?;
        let name = record.get(Label::Name).unwrap_or_default();
        let at_fault = |label, (reason, detail)| RecordFault::new(record.index, label, reason, detail);
        name::check(name, self.base.name.is_empty()).map_err(|fault| at_fault(Label::Name, fault))?;
        let source = name::split(&self.base.name, name);
        let (device, sensor) = match (source, self.rules.default_device()) {
            (Some(source), _) => (Word::Name(source.device), source.sensor),
            (None, Some(device)) => (Word::Any(device), name::SENSOR),
            (None, None) => {
                let detail = "a record needs a name: `n`, or a base name (`bn`) that holds for it".to_owned();
                return Err(at_fault(Label::Name, (Reason::Field, detail)));
            }
        };
        if self.decoded.readings.encoded_bytes() > self.rules.encoded_bytes_max {
            self.decoded.overflowed = true;
            return Ok(());
        }
        let parts = Parts {
            device,
            sensor: Word::Name(sensor),
            value,
            time,
            unit: record.get(Label::Unit).or(self.base.unit.as_deref()).map(Word::Any),
            tags: &[],
        };
        let pushed = self.rules.push(&parts, &mut self.decoded.readings);
        pushed.map_err(|error| self.reading_fault(&error, record))
    }

    /// The one value of a record (section 4.2).
    fn value<'r>(&self, record: &'r RecordFields<'de>) -> Result<NewValue<'r>, RecordFault> {
        self.check_sum(record)?;
        let fault = |label, reason, detail| RecordFault::new(record.index, label, reason, detail);
        let mut values = record.seen.and(Labels::VALUES).known();
        let Some(label) = values.next() else { return Err(self.no_value(record)) };
        if let Some(other) = values.next() {
            let detail =
                format!("a record has one value, and `{}` and `{}` are there", label.name(), other.name());
            return Err(fault(other, Reason::Field, detail));
        }
        let text = record.get(label).unwrap_or_default();
        match (label, self.base.value) {
            (Label::BooleanValue, _) => Ok(Value::Boolean(text == "true").into()),
            (Label::StringValue, _) => Ok(Value::Text(text).into()),
            (Label::DataValue, _) => {
                let detail = "binary data (`vd`) is not taken: a value is a number (`v`), a boolean (`vb`) or a string (`vs`)";
                Err(fault(label, Reason::Type, detail.to_owned()))
            }
            (_, None) => NewValue::of_number(text).ok_or_else(|| fault(label, Reason::Number, beyond(label))),
            (_, Some(base)) => {
                let own =
                    Value::of_number(text).ok_or_else(|| fault(label, Reason::Number, beyond(label)))?;
                number::sum(base, own).map(NewValue::from).ok_or_else(|| {
                    let detail = "`bv` and `v` must add up to a finite number".to_owned();
                    fault(label, Reason::Number, detail)
                })
            }
        }
    }

    /// Checks the ignored numbers of a record.
    fn check_sum(&self, record: &RecordFields<'de>) -> Result<(), RecordFault> {
        for label in [Label::Sum, Label::UpdateTime] {
            if record.get(label).is_some_and(is_beyond_doubles) {
                return Err(RecordFault::new(record.index, label, Reason::Number, beyond(label)));
            }
        }
        Ok(())
    }

    #[cold]
    fn no_value(&self, record: &RecordFields<'de>) -> RecordFault {
        let needed = "a reading needs a value: `v`, `vb` or `vs`";
        let (label, detail) = if record.seen.has(Label::Sum) {
            (Label::Sum, format!("a sum (`s`) alone is not taken: {needed}"))
        } else if self.base.has_sum {
            (Label::Value, format!("a base sum (`bs`) alone is not taken: {needed}"))
        } else {
            (Label::Value, format!("`v` is missing: {needed}"))
        };
        RecordFault::new(record.index, label, Reason::Field, detail)
    }

    /// The sum of base time and time (section 4.5.3).
    fn time(&self, record: &RecordFields<'de>) -> Result<Timestamp, RecordFault> {
        let own = record.get(Label::Time).map(|text| {
            seconds(text).map_err(|_| {
                let (reason, detail) = time_beyond(Label::Time, text);
                RecordFault::new(record.index, Label::Time, reason, detail)
            })
        });
        // `seconds` bounds both, so that neither their sum nor the sum with the time of receipt overflows.
        let sum = self.base.nanos + own.transpose()?.unwrap_or_default();
        let nanos =
            if sum < ABSOLUTE_FROM_NANOS { i128::from(self.rules.received_at.nanos()) + sum } else { sum };
        let time = i64::try_from(nanos).ok().and_then(Timestamp::from_nanos);
        match time {
            Some(time) if self.rules.takes_time(time) => Ok(time),
            _ => Err(self.time_fault(sum, time, record)),
        }
    }

    #[cold]
    fn time_fault(&self, sum: i128, time: Option<Timestamp>, record: &RecordFields<'de>) -> RecordFault {
        let mut detail = match time {
            None => "`bt` and `t` must add up to a time from 1970-01-01 to 2262-04-11, in seconds; below 2^28 they count from the time of receipt".to_owned(),
            Some(time) => format!("the time {}", self.rules.outside(time)),
        };
        // In milliseconds, for example, the same number is a thousandth of the time.
        let in_unit = |unit: Precision| {
            let nanos = sum / (i128::from(Precision::Seconds.nanos()) / i128::from(unit.nanos()));
            i64::try_from(nanos).ok().and_then(Timestamp::from_nanos)
        };
        if let Some(unit) = self.rules.unit_that_fits(in_unit).filter(|unit| *unit != Precision::Seconds) {
            detail += &format!("; it would fit as {}, but SenML counts seconds", unit.noun());
        }
        let label = if record.seen.has(Label::Time) { Label::Time } else { Label::BaseTime };
        self.fault_of_field(label, record, Reason::Time, detail)
    }

    /// A fault of a field of the record, or of a base field that holds for it.
    fn fault_of_field(
        &self,
        label: Label,
        record: &RecordFields<'de>,
        reason: Reason,
        detail: String,
    ) -> RecordFault {
        let index = if record.seen.has(label) { record.index } else { self.base.set_by(label) };
        RecordFault::new(index, label, reason, detail)
    }

    /// The fault of a record whose parts break a rule of readings.
    #[cold]
    fn reading_fault(&self, error: &GrantError, record: &RecordFields<'de>) -> RecordFault {
        let has_base_name = !self.base.name.is_empty();
        let has_name = record.get(Label::Name).is_some_and(|name| !name.is_empty());
        let label = match error.field() {
            Field::Device if has_base_name => Label::BaseName,
            Field::Sensor if !has_name => Label::BaseName,
            Field::Device | Field::Sensor => Label::Name,
            Field::Unit if !record.seen.has(Label::Unit) => Label::BaseUnit,
            Field::Unit => Label::Unit,
            Field::Value | Field::Values => {
                record.seen.and(Labels::VALUES).known().next().unwrap_or(Label::Value)
            }
            Field::Time => Label::Time,
            Field::Tags => Label::Unknown,
        };
        self.fault_of_field(label, record, Reason::from(error), error.to_string())
    }
}
