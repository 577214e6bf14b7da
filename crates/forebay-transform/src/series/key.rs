//! The key of a series: how it is made from a reading, stored and compared.
//!
//! The key of a series is its device and its sensor and, unless tags are left out, the set of its tags: the same tags in
//! another order are the same set. Readings of one sensor mostly have their tags in one order, so encoded tags that are
//! sorted are used directly, and others are sorted in a buffer.

use std::borrow::Cow;

use forebay_reading::registry::Registry;
use forebay_reading::{ReadingRef, TAGS_MAX, Tag, TagBytes, append_tag, tags_of};

use crate::settings::Settings;

/// The separator between device, sensor and tags. Names have no control characters.
pub(super) const SEPARATOR: &[u8] = b"\n";
/// The key in the settings.
const BY: &str = "by";

/// The parts of a reading that tell series apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// Device, sensor and the set of tags.
    #[default]
    Series,
    /// Device and sensor; tags do not count.
    Sensor,
}

/// The ways to tell series apart, by their configuration names.
pub(crate) const BYS: Registry<By> =
    Registry { what: "way to tell series apart", members: &[("series", By::Series), ("sensor", By::Sensor)] };

impl By {
    /// Reads `by`; without it, tags count.
    pub fn read(settings: &mut Settings) -> By {
        let Some(name) = settings.text(BY) else { return By::default() };
        match BYS.find(&name) {
            Ok(by) => *by,
            Err(unknown) => {
                settings.fault(BY, unknown.to_string());
                By::default()
            }
        }
    }

    /// The tags of a reading that count, encoded and in order. `sorted` is the buffer for tags that must be sorted.
    pub fn tags<'a>(self, reading: ReadingRef<'a>, sorted: &'a mut Vec<u8>) -> &'a [u8] {
        let encoded = match self {
            By::Series => reading.tags_encoded(),
            By::Sensor => return &[],
        };
        if tags_of(encoded).is_sorted() {
            return encoded;
        }
        sort(encoded, sorted);
        sorted
    }
}

/// Sorts tags by name, and by value where names are the same.
fn sort(encoded: &[u8], sorted: &mut Vec<u8>) {
    let mut tags = [TagBytes::default(); TAGS_MAX];
    let mut count = 0;
    for (place, tag) in tags.iter_mut().zip(tags_of(encoded)) {
        *place = tag;
        count += 1;
    }
    let tags = &mut tags[..count];
    tags.sort_unstable();
    sorted.clear();
    tags.iter().for_each(|tag| append_tag(*tag, sorted));
}

/// The stored key of a series: device, separator, sensor, and if it has tags a separator and the tags.
#[derive(Debug)]
pub(super) struct SeriesKey(Box<[u8]>);

/// The names and tags of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesIdentity<'a> {
    /// The device.
    pub device: &'a str,
    /// The sensor.
    pub sensor: &'a str,
    /// The tags, encoded and in order.
    tags: &'a [u8],
}

impl SeriesKey {
    /// Makes a key.
    pub fn of(device: &[u8], sensor: &[u8], tags: &[u8]) -> SeriesKey {
        let separator: &[u8] = if tags.is_empty() { b"" } else { SEPARATOR };
        SeriesKey([device, SEPARATOR, sensor, separator, tags].concat().into_boxed_slice())
    }

    /// Whether the key has these parts.
    pub fn has(&self, device: &[u8], sensor: &[u8], tags: &[u8]) -> bool {
        let rest = self.0.strip_prefix(device).and_then(|rest| rest.strip_prefix(SEPARATOR));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(sensor)) else { return false };
        match rest.strip_prefix(SEPARATOR) {
            Some(rest) => rest == tags,
            None => rest.is_empty() && tags.is_empty(),
        }
    }

    /// The names and tags.
    pub fn parts(&self) -> SeriesIdentity<'_> {
        let (device, rest) = split(&self.0);
        let (sensor, tags) = split(rest);
        SeriesIdentity { device: text(device), sensor: text(sensor), tags }
    }
}

impl<'a> SeriesIdentity<'a> {
    /// The tags, in the order of their names.
    pub fn tags(self) -> impl Iterator<Item = Tag<'a>> {
        tags_of(self.tags).map(|(name, value)| (Cow::Borrowed(text(name)), Cow::Borrowed(text(value))))
    }

    /// The tags, encoded and in order.
    pub fn tags_encoded(self) -> &'a [u8] {
        self.tags
    }
}

fn split(names: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(SEPARATOR[0], names).unwrap_or(names.len());
    (&names[..end], names.get(end + 1..).unwrap_or_default())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the texts of a reading are UTF-8")
}
