//! The parts of a reading before they are checked and encoded.

use std::borrow::Cow;

use crate::timestamp::Timestamp;
use crate::value::NewValue;

/// The name and the value of a tag in a request.
pub type Tag<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The parts of one reading before they are checked.
pub type ReadingParts<'a> = Parts<'a, &'a str>;

/// The parts of one reading before they are checked. Names and unit are some kind of [`Text`](crate::text::Text): if it is
/// known to be plain, only its length is checked.
#[derive(Clone, Debug)]
pub struct Parts<'a, T> {
    /// The device.
    pub device: T,
    /// The sensor.
    pub sensor: T,
    /// The measured value.
    pub value: NewValue<'a>,
    /// The time of the measurement.
    pub time: Timestamp,
    /// The unit, if one is given.
    pub unit: Option<T>,
    /// The tags.
    pub tags: &'a [Tag<'a>],
}
