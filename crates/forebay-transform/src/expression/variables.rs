//! The fields of a reading as variables of the crate `cel`.

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as ValueIterator, Sizer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelMap, CelString, CelTimestamp, CelUInt, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingRef, Value};

/// The names that an expression knows, in the order in which people should see them.
pub(super) const NAMES: [&str; 6] = ["device", "sensor", "value", "time", "unit", "tags"];

/// The fields of a reading, or of a sample for trials.
#[derive(Debug)]
pub(super) struct Variables<'a> {
    pub(super) device: CelString<'a>,
    pub(super) sensor: CelString<'a>,
    pub(super) value: Box<dyn Val + 'a>,
    pub(super) time: CelTimestamp,
    pub(super) unit: CelString<'a>,
    pub(super) tags: TagsMap<'a>,
}

impl<'a> Variables<'a> {
    pub(super) fn of(reading: ReadingRef<'a>) -> Variables<'a> {
        Variables {
            device: CelString::from(reading.device()),
            sensor: CelString::from(reading.sensor()),
            value: value(reading),
            time: time(reading.time()),
            unit: CelString::from(reading.unit().unwrap_or_default()),
            tags: TagsMap::of(reading),
        }
    }
}

fn value(reading: ReadingRef<'_>) -> Box<dyn Val + '_> {
    match reading.value() {
        Value::Boolean(truth) => Box::new(CelBool::from(truth)),
        Value::Text(text) => Box::new(CelString::from(text)),
        // Every number is a double, so that expressions do not depend on whether a device sends 20 or 20.0.
        #[expect(clippy::cast_precision_loss, reason = "the nearest double is meant")]
        Value::Integer(number) => Box::new(CelDouble::from(number as f64)),
        Value::Double(number) => Box::new(CelDouble::from(number)),
    }
}

pub(super) fn time(time: Timestamp) -> CelTimestamp {
    CelTimestamp::from(chrono::DateTime::from_timestamp_nanos(time.nanos()).fixed_offset())
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        Some(CowVal::Borrowed(match name {
            "device" => &self.device,
            "sensor" => &self.sensor,
            "value" => &*self.value,
            "time" => &self.time,
            "unit" => &self.unit,
            "tags" => &self.tags,
            _ => return None,
        }))
    }
}

/// The tags of a reading as a map. Unlike the crate's map it has an order, so that a loop over the tags gives the same
/// result on every run.
#[derive(Clone, Debug)]
pub(super) struct TagsMap<'a> {
    tags: Vec<(CelString<'a>, CelString<'a>)>,
    /// The value of every other tag, in a sample.
    any: Option<CelString<'a>>,
}

impl<'a> TagsMap<'a> {
    fn of(reading: ReadingRef<'a>) -> TagsMap<'a> {
        let tags = reading.tags().map(|(name, value)| (CelString::from(name), CelString::from(value)));
        TagsMap { tags: tags.collect(), any: None }
    }

    /// No tags.
    pub(super) fn none() -> TagsMap<'a> {
        TagsMap { tags: Vec::new(), any: None }
    }

    /// One tag, and every other that an expression reads, with the same value.
    pub(super) fn whatever(name: &'a str, value: &'a str) -> TagsMap<'a> {
        TagsMap {
            tags: vec![(CelString::from(name), CelString::from(value))],
            any: Some(CelString::from(value)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    fn find(&self, name: &dyn Val) -> Option<&CelString<'a>> {
        let name = name.downcast_ref::<CelString>()?;
        let tag = self.tags.iter().find(|(known, _)| known == name);
        tag.map(|(_, value)| value).or(self.any.as_ref())
    }
}

impl<'a> Val for TagsMap<'a> {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(other) = other.downcast_ref::<CelMap>() else { return false };
        let has = |(name, value): &(CelString<'a>, CelString<'a>)| {
            Indexer::get(other, name).is_ok_and(|found| found.equals(value))
        };
        other.inner().len() == self.tags.len() && self.tags.iter().all(has)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for TagsMap<'_> {
    fn contains(&self, name: &dyn Val) -> Result<bool, ExecutionError> {
        let could_be_key = name.downcast_ref::<CelString>().is_some()
            || name.downcast_ref::<CelBool>().is_some()
            || name.downcast_ref::<CelDouble>().is_some()
            || name.downcast_ref::<CelInt>().is_some()
            || name.downcast_ref::<CelUInt>().is_some();
        if could_be_key { Ok(self.find(name).is_some()) } else { Err(no_key(name)) }
    }
}

impl Indexer for TagsMap<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match (self.find(name), name.downcast_ref::<CelString>()) {
            (Some(value), _) => Ok(CowVal::Borrowed(value)),
            (None, Some(name)) => Err(ExecutionError::no_such_key(name)),
            (None, None) => Err(no_key(name)),
        }
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

fn no_key(name: &dyn Val) -> ExecutionError {
    ExecutionError::UnexpectedType { got: name.get_type().name().to_owned(), want: "string".to_owned() }
}

impl Iterable for TagsMap<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValueIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(TagNames(self.tags.iter()))
    }
}

struct TagNames<'b, 'a>(std::slice::Iter<'b, (CelString<'a>, CelString<'a>)>);

impl<'b, 'a: 'v, 'v> ValueIterator<'b, 'v> for TagNames<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|(name, _)| name as &(dyn Val + 'v))
    }
}

impl Sizer for TagsMap<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.tags.len()).unwrap_or(i64::MAX))
    }
}
