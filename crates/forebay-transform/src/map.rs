//! `map`: expressions give fields of a reading new values.
//!
//! Every expression sees the unchanged reading, so that two fields can change places. An empty string removes the unit or
//! a tag. If one expression fails, or gives a value that no reading can have, the reading passes unchanged and is
//! counted: no reading is changed in part.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, ReadingRef, Readings, TAG_BYTES_MAX, TAGS_MAX, Tag, Value};

use crate::expression::{Expression, ExpressionValue, NoValue, ReadingFields, ResultType};
use crate::settings::Settings;
use crate::{Moment, Stats, Transform, TransformKind, Verdict};

const SET: &str = "set";
/// The prefix of a tag's name.
const TAG_PREFIX: &str = "tags.";
const KNOWN: &str = "device, sensor, value, time, unit, tags.NAME";

/// A configured map.
#[derive(Debug)]
struct MapKind {
    set: Arc<FieldSetters>,
}

/// The instance of a map.
#[derive(Debug)]
struct MapTransform {
    set: Arc<FieldSetters>,
    failed: u64,
}

/// The expressions of the fields that are set.
#[derive(Debug, Default)]
struct FieldSetters {
    device: Option<Expression>,
    sensor: Option<Expression>,
    value: Option<Expression>,
    time: Option<Expression>,
    unit: Option<Expression>,
    tags: Vec<(String, Expression)>,
}

/// Reads `set`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    let members = settings.table(SET);
    let Some(members) = members.filter(|members| !members.is_empty()) else {
        settings.require(SET, "a table of fields and expressions, such as { value = 'value * 1.8 + 32.0' }");
        return None;
    };
    FieldSetters::read(settings, &members)
        .map(|set| Arc::new(MapKind { set: Arc::new(set) }) as Arc<dyn TransformKind>)
}

impl FieldSetters {
    /// Records every fault; `None` if there is one.
    fn read(settings: &mut Settings, members: &BTreeMap<String, String>) -> Option<FieldSetters> {
        let mut set = FieldSetters::default();
        let mut is_whole = true;
        for (field, text) in members {
            if let Err(problem) = set.add(field, text) {
                settings.fault(&format!("{SET}.{field}"), problem);
                is_whole = false;
            }
        }
        if set.tags.len() > TAGS_MAX {
            let got = set.tags.len();
            settings.fault(SET, format!("must set at most {TAGS_MAX} tags, got {got}"));
            is_whole = false;
        }
        is_whole.then_some(set)
    }

    fn add(&mut self, field: &str, text: &str) -> Result<(), String> {
        if let Some(tag) = field.strip_prefix(TAG_PREFIX) {
            if !(1..=TAG_BYTES_MAX).contains(&tag.len()) {
                return Err(format!("the name of a tag must be 1 to {TAG_BYTES_MAX} bytes long"));
            }
            self.tags.push((tag.to_owned(), Expression::compile(text, ResultType::Text)?));
            return Ok(());
        }
        let (place, wanted) = match field {
            "device" => (&mut self.device, ResultType::Text),
            "sensor" => (&mut self.sensor, ResultType::Text),
            "value" => (&mut self.value, ResultType::Value),
            "time" => (&mut self.time, ResultType::Time),
            "unit" => (&mut self.unit, ResultType::Text),
            _ => return Err(format!("is no field that can be set; known: {KNOWN}")),
        };
        *place = Some(Expression::compile(text, wanted)?);
        Ok(())
    }
}

impl TransformKind for MapKind {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(MapTransform { set: Arc::clone(&self.set), failed: 0 })
    }

    fn why(&self) -> String {
        "`set` gave its fields new values".to_owned()
    }
}

impl Transform for MapTransform {
    fn apply(&mut self, reading: ReadingRef<'_>, _now: Moment, out: &mut Readings) -> Verdict {
        self.set.apply(reading, out).unwrap_or_else(|NoValue| {
            self.failed += 1;
            Verdict::Pass
        })
    }

    fn apply_again(&mut self, reading: ReadingRef<'_>, now: Moment, out: &mut Readings) -> Verdict {
        self.apply(reading, now, out)
    }

    fn stats(&self) -> Stats {
        Stats { failed: self.failed, ..Stats::default() }
    }
}

impl FieldSetters {
    /// Evaluates every expression, and appends the resulting reading unless it is the same.
    fn apply(&self, reading: ReadingRef<'_>, out: &mut Readings) -> Result<Verdict, NoValue> {
        let fields = ReadingFields::of(reading);
        let device = text(self.device.as_ref(), &fields)?;
        let sensor = text(self.sensor.as_ref(), &fields)?;
        let unit = text(self.unit.as_ref(), &fields)?;
        let outcome = self.value.as_ref().map(|value| value.evaluate(&fields)).transpose()?;
        let value = outcome.as_ref().map(|outcome| new_value(outcome, &fields)).transpose()?.flatten();
        let time = self.time.as_ref().map(|time| new_time(time, &fields)).transpose()?;
        let tags = self.new_tags(&fields)?;
        let parts = ReadingParts {
            device: device.as_deref().unwrap_or_else(|| reading.device()),
            sensor: sensor.as_deref().unwrap_or_else(|| reading.sensor()),
            value: value.unwrap_or_else(|| reading.value()).into(),
            time: time.unwrap_or_else(|| reading.time()),
            unit: unit.as_deref().or_else(|| reading.unit()),
            tags: &tags,
        };
        if value.is_none() && is_same(reading, &parts) {
            return Ok(Verdict::Pass);
        }
        out.push(&parts).map_err(|_| NoValue)?;
        Ok(Verdict::Change)
    }

    /// The tags of the resulting reading: the old ones in their order, then new ones.
    fn new_tags<'a>(&'a self, fields: &ReadingFields<'a>) -> Result<Vec<Tag<'a>>, NoValue> {
        let mut tags: Vec<Tag<'a>> =
            fields.reading().tags().map(|(name, value)| (name.into(), value.into())).collect();
        for (name, expression) in &self.tags {
            let ExpressionValue::Text(value) = expression.evaluate(fields)? else { return Err(NoValue) };
            let place = tags.iter().position(|(known, _)| known == name);
            match (place, value.is_empty()) {
                (Some(place), true) => {
                    tags.remove(place);
                }
                (Some(place), false) => tags[place].1 = value,
                (None, true) => {}
                (None, false) => tags.push((Cow::Borrowed(name), value)),
            }
        }
        Ok(tags)
    }
}

fn text<'a>(
    expression: Option<&'a Expression>,
    fields: &ReadingFields<'a>,
) -> Result<Option<Cow<'a, str>>, NoValue> {
    let Some(expression) = expression else { return Ok(None) };
    match expression.evaluate(fields)? {
        ExpressionValue::Text(text) => Ok(Some(text)),
        _ => Err(NoValue),
    }
}

/// The new value of a reading; `None` if it is the old one. The reading's own number, which expressions see as a double,
/// counts as the old one, so that a large integer keeps digits that a double lacks.
fn new_value<'a>(
    outcome: &'a ExpressionValue<'_>,
    fields: &ReadingFields<'_>,
) -> Result<Option<Value<'a>>, NoValue> {
    let value = match outcome {
        ExpressionValue::Boolean(truth) => Value::Boolean(*truth),
        ExpressionValue::Integer(number) => Value::Integer(*number),
        ExpressionValue::Unsigned(number) => Value::Integer(i64::try_from(*number).map_err(|_| NoValue)?),
        ExpressionValue::Double(number) => Value::Double(*number),
        ExpressionValue::Text(text) => Value::Text(text),
        ExpressionValue::Time(_) | ExpressionValue::Other(_) => return Err(NoValue),
    };
    let is_old = match value {
        Value::Double(number) => fields.number() == Some(number),
        Value::Integer(_) | Value::Boolean(_) | Value::Text(_) => value == fields.reading().value(),
    };
    Ok((!is_old).then_some(value))
}

fn new_time<'a>(expression: &'a Expression, fields: &ReadingFields<'a>) -> Result<Timestamp, NoValue> {
    match expression.evaluate(fields)? {
        ExpressionValue::Time(Some(time)) => Ok(time),
        _ => Err(NoValue),
    }
}

/// Whether a reading has these parts already; the value is not compared.
fn is_same(reading: ReadingRef<'_>, parts: &ReadingParts<'_>) -> bool {
    let unit = parts.unit.filter(|unit| !unit.is_empty());
    parts.device == reading.device()
        && parts.sensor == reading.sensor()
        && parts.time == reading.time()
        && unit == reading.unit()
        && reading.tags().eq(parts.tags.iter().map(|(name, value)| (&**name, &**value)))
}

#[cfg(test)]
mod tests;
