//! `map`: expressions give fields of a reading new values.
//!
//! Every expression sees the reading as it came in, so two fields can change places. An empty string takes the unit, or
//! a tag, away. If one expression fails, or gives what no reading can hold, the reading passes as it came in, and is
//! counted: no reading is changed by halves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, ReadingRef, Readings, TAG_BYTES_MAX, TAGS_MAX, Tag, Value};

use crate::expression::{Expression, Failed, Fields, Outcome, Wanted};
use crate::settings::Settings;
use crate::{Kind, Moment, Stats, Transform, Verdict};

const SET: &str = "set";
/// What stands before the name of a tag.
const TAG_PREFIX: &str = "tags.";
const KNOWN: &str = "device, sensor, value, time, unit, tags.NAME";

/// The map of a configuration.
#[derive(Debug)]
struct Map {
    set: Arc<Set>,
}

/// A map at work.
#[derive(Debug)]
struct Mapping {
    set: Arc<Set>,
    failed: u64,
}

/// The fields that get new values.
#[derive(Debug, Default)]
struct Set {
    device: Option<Expression>,
    sensor: Option<Expression>,
    value: Option<Expression>,
    time: Option<Expression>,
    unit: Option<Expression>,
    tags: Vec<(String, Expression)>,
}

/// Reads `set`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn Kind>> {
    let members = settings.table(SET);
    let Some(members) = members.filter(|members| !members.is_empty()) else {
        settings.require(SET, "a table of fields and expressions, such as { value = 'value * 1.8 + 32.0' }");
        return None;
    };
    Set::read(settings, &members).map(|set| Arc::new(Map { set: Arc::new(set) }) as Arc<dyn Kind>)
}

impl Set {
    /// Notes every fault, and gives nothing if there is one.
    fn read(settings: &mut Settings, members: &BTreeMap<String, String>) -> Option<Set> {
        let mut set = Set::default();
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
            self.tags.push((tag.to_owned(), Expression::compile(text, Wanted::Text)?));
            return Ok(());
        }
        let (place, wanted) = match field {
            "device" => (&mut self.device, Wanted::Text),
            "sensor" => (&mut self.sensor, Wanted::Text),
            "value" => (&mut self.value, Wanted::Value),
            "time" => (&mut self.time, Wanted::Time),
            "unit" => (&mut self.unit, Wanted::Text),
            _ => return Err(format!("is no field that can be set; known: {KNOWN}")),
        };
        *place = Some(Expression::compile(text, wanted)?);
        Ok(())
    }
}

impl Kind for Map {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(Mapping { set: Arc::clone(&self.set), failed: 0 })
    }

    fn why(&self) -> String {
        "`set` gave its fields new values".to_owned()
    }
}

impl Transform for Mapping {
    fn apply(&mut self, reading: ReadingRef<'_>, _now: Moment, out: &mut Readings) -> Verdict {
        self.set.apply(reading, out).unwrap_or_else(|Failed| {
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

impl Set {
    /// Evaluates every expression, then appends the reading that results if it is another one.
    fn apply(&self, reading: ReadingRef<'_>, out: &mut Readings) -> Result<Verdict, Failed> {
        let fields = Fields::of(reading);
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
        out.push(&parts).map_err(|_| Failed)?;
        Ok(Verdict::Change)
    }

    /// The tags that the reading has then, in their order, new ones behind.
    fn new_tags<'a>(&'a self, fields: &Fields<'a>) -> Result<Vec<Tag<'a>>, Failed> {
        let mut tags: Vec<Tag<'a>> =
            fields.reading().tags().map(|(name, value)| (name.into(), value.into())).collect();
        for (name, expression) in &self.tags {
            let Outcome::Text(value) = expression.evaluate(fields)? else { return Err(Failed) };
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

fn text<'a>(expression: Option<&'a Expression>, fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, Failed> {
    let Some(expression) = expression else { return Ok(None) };
    match expression.evaluate(fields)? {
        Outcome::Text(text) => Ok(Some(text)),
        _ => Err(Failed),
    }
}

/// The value that a reading gets; `None` if it is the one that it has. A number that is the reading's own to an
/// expression leaves it as it is, so that a large integer keeps the digits that a double has not.
fn new_value<'a>(outcome: &'a Outcome<'_>, fields: &Fields<'_>) -> Result<Option<Value<'a>>, Failed> {
    let value = match outcome {
        Outcome::Boolean(truth) => Value::Boolean(*truth),
        Outcome::Integer(number) => Value::Integer(*number),
        Outcome::Unsigned(number) => Value::Integer(i64::try_from(*number).map_err(|_| Failed)?),
        Outcome::Double(number) => Value::Double(*number),
        Outcome::Text(text) => Value::Text(text),
        Outcome::Time(_) | Outcome::Other(_) => return Err(Failed),
    };
    let is_old = match value {
        Value::Double(number) => fields.number() == Some(number),
        Value::Integer(_) | Value::Boolean(_) | Value::Text(_) => value == fields.reading().value(),
    };
    Ok((!is_old).then_some(value))
}

fn new_time<'a>(expression: &'a Expression, fields: &Fields<'a>) -> Result<Timestamp, Failed> {
    match expression.evaluate(fields)? {
        Outcome::Time(Some(time)) => Ok(time),
        _ => Err(Failed),
    }
}

/// Whether a reading has these parts already, but for the value.
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
