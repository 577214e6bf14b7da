//! What a window's readings say alike beside their values: the unit, and the tags that all of them share.

use std::borrow::Cow;

use crate::reading::{ReadingRef, TAGS_MAX, Tag};
use crate::transform::WINDOW_TAG;

/// Unit and tags in one piece of memory; none is taken if there are none.
///
/// One byte for the length of the unit, the unit, then for each tag the length of the name and of the value (two bytes
/// each, little-endian), the name, and the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    bytes: Box<[u8]>,
}

type TagBytes<'a> = (&'a [u8], &'a [u8]);

impl Labels {
    /// Those of a reading.
    pub fn of(reading: ReadingRef<'_>) -> Labels {
        Labels::encode(reading.unit_bytes(), reading.tags_bytes())
    }

    /// Keeps what another reading has as well. A unit that differs is none from then on.
    pub fn keep_shared(&mut self, reading: ReadingRef<'_>) {
        let has_unit = self.unit_bytes() == reading.unit_bytes();
        if has_unit && self.are_among(reading) {
            return;
        }
        let is_shared = |tag: &TagBytes<'_>| reading.tags_bytes().any(|other| other == *tag);
        let unit = self.unit_bytes().filter(|_| has_unit);
        *self = Labels::encode(unit, self.tags_bytes().filter(is_shared));
    }

    /// The unit, if all readings had the same one.
    pub fn unit(&self) -> Option<&str> {
        self.unit_bytes().map(text)
    }

    /// The shared tags and behind them one that tells the length of the window. It takes the place of one of the same
    /// name, and of the last one if there were too many.
    pub fn tags_with_window<'a>(&'a self, window: &'a str) -> Vec<Tag<'a>> {
        let shared = self.tags_bytes().map(|(name, value)| (text(name), text(value)));
        let kept = shared.filter(|(name, _)| *name != WINDOW_TAG).take(TAGS_MAX - 1);
        let all = kept.chain([(WINDOW_TAG, window)]);
        all.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))).collect()
    }

    fn encode<'a>(unit: Option<&[u8]>, tags: impl Iterator<Item = TagBytes<'a>>) -> Labels {
        let mut bytes = Vec::new();
        let unit = unit.unwrap_or_default();
        let length = u8::try_from(unit.len()).expect("the lengths of a reading's unit are checked");
        bytes.push(length);
        bytes.extend_from_slice(unit);
        for (name, value) in tags {
            for part in [name, value] {
                let length = u16::try_from(part.len()).expect("the lengths of a reading's tags are checked");
                bytes.extend_from_slice(&length.to_le_bytes());
            }
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        if bytes.len() == 1 && unit.is_empty() { Labels::default() } else { Labels { bytes: bytes.into() } }
    }

    /// Whether the reading has all of these tags, in this order: one look at each suffices mostly.
    fn are_among(&self, reading: ReadingRef<'_>) -> bool {
        let mut others = reading.tags_bytes();
        self.tags_bytes().all(|tag| others.any(|other| other == tag))
    }

    fn unit_bytes(&self) -> Option<&[u8]> {
        let (length, rest) = self.bytes.split_first()?;
        rest.get(..usize::from(*length)).filter(|unit| !unit.is_empty())
    }

    fn tags_bytes(&self) -> impl Iterator<Item = TagBytes<'_>> {
        let unit = self.bytes.first().map_or(0, |length| 1 + usize::from(*length));
        let mut rest = &self.bytes[unit..];
        std::iter::from_fn(move || {
            let (lengths, after) = rest.split_first_chunk::<4>()?;
            let [name, value] = [[lengths[0], lengths[1]], [lengths[2], lengths[3]]].map(u16::from_le_bytes);
            let (name, after) = after.split_at(usize::from(name));
            let (value, after) = after.split_at(usize::from(value));
            rest = after;
            Some((name, value))
        })
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the texts of a reading are UTF-8")
}
