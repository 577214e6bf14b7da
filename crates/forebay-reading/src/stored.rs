//! Decoding of stored readings: bytes from outside are checked as strictly as a request.

use std::borrow::Cow;

use crate::layout::{HEAD_BYTES, LENGTH_BYTES, number};
use crate::limits::TAGS_MAX;
use crate::number::NumberText;
use crate::parts::{ReadingParts, Tag};
use crate::readings::Readings;
use crate::timestamp::Timestamp;
use crate::value::{BOOLEAN_KINDS, DOUBLE, INTEGER, NewValue, TEXT, Value};

impl Readings {
    /// The encoded readings, for [`Readings::from_encoded`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes `count` readings; `None` unless encoding them again gives the same bytes.
    pub fn from_encoded(bytes: &[u8], count: usize) -> Option<Readings> {
        let mut readings = Readings::with_capacity(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = number(rest.get(..LENGTH_BYTES)?);
            let (reading, after) = rest.split_at_checked(LENGTH_BYTES.checked_add(length)?)?;
            push(&mut readings, reading)?;
            rest = after;
        }
        (readings.count == count && readings.bytes == bytes).then_some(readings)
    }
}

/// Decodes a reading and encodes it again.
fn push(readings: &mut Readings, reading: &[u8]) -> Option<()> {
    let (head, mut rest) = reading.split_at_checked(HEAD_BYTES)?;
    let nanos = i64::from_le_bytes(head[4..12].try_into().ok()?);
    let device = take(&mut rest, number(&head[16..18]))?;
    let sensor = take(&mut rest, number(&head[18..20]))?;
    let unit = take(&mut rest, usize::from(head[14]))?;
    let text = take(&mut rest, number(&head[20..22]))?;
    let count = usize::from(head[15]);
    let mut tags: Vec<Tag<'_>> = Vec::with_capacity(count.min(TAGS_MAX));
    for _ in 0..count {
        let lengths = rest.get(..4)?;
        let (name, value) = (number(&lengths[..2]), number(&lengths[2..]));
        rest = &rest[4..];
        tags.push((Cow::Borrowed(take(&mut rest, name)?), Cow::Borrowed(take(&mut rest, value)?)));
    }
    let parts = ReadingParts {
        device,
        sensor,
        value: value(head[12], text)?,
        time: Timestamp::from_nanos(nanos)?,
        unit: (!unit.is_empty()).then_some(unit),
        tags: &tags,
    };
    readings.push(&parts).ok()
}

fn value(kind: u8, text: &str) -> Option<NewValue<'_>> {
    if kind == TEXT {
        return Some(Value::Text(text).into());
    }
    if let Some(truth) = BOOLEAN_KINDS.iter().position(|known| *known == kind) {
        return text.is_empty().then_some(Value::Boolean(truth == 1).into());
    }
    // A number that is not in canonical form is found when the bytes are compared.
    match NumberText::at_start_of(text).filter(|(_, length)| *length == text.len()) {
        Some((number, _)) if number.is_integer() == (kind == INTEGER) => Some(NewValue::Number(number)),
        _ if kind == INTEGER => Some(Value::Integer(text.parse().ok()?).into()),
        _ if kind == DOUBLE => Some(Value::Double(text.parse().ok()?).into()),
        _ => None,
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a str> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Readings {
        let mut readings = Readings::default();
        let tags = [(Cow::Borrowed("site"), Cow::Borrowed("north \"1\""))];
        let values = [
            Value::Integer(-7),
            Value::Integer(i64::MIN),
            Value::Double(1e300),
            Value::Double(230.1),
            Value::Boolean(true),
            Value::Boolean(false),
            Value::Text("tür"),
        ];
        for (index, value) in values.into_iter().enumerate() {
            let parts = ReadingParts {
                device: "meter-1",
                sensor: "voltage",
                value: value.into(),
                time: Timestamp::from_nanos(1_170_288_000_000_000_001).expect("2007"),
                unit: (index % 2 == 0).then_some("V"),
                tags: if index % 3 == 0 { &tags } else { &[] },
            };
            readings.push(&parts).expect("good parts");
        }
        readings
    }

    #[test]
    fn encoded_readings_are_accepted_again() {
        let readings = sample();
        assert_eq!(Readings::from_encoded(readings.as_bytes(), readings.len()), Some(readings.clone()));
        assert_eq!(Readings::from_encoded(readings.as_bytes(), readings.len() + 1), None);
        assert_eq!(Readings::from_encoded(&[], 0), Some(Readings::default()));
    }

    #[test]
    fn a_number_that_is_not_valid_json_is_refused() {
        let mut readings = Readings::default();
        let value = Value::Double(1.5);
        let time = Timestamp::from_nanos(0).expect("1970");
        let parts =
            ReadingParts { device: "d", sensor: "s", value: value.into(), time, unit: None, tags: &[] };
        readings.push(&parts).expect("good parts");
        for other in ["nan", "inf", "+.5", "01.", "1.0", "\"x\""] {
            let mut bytes = readings.as_bytes().to_vec();
            let length = bytes.len();
            bytes.splice(length - 3.., other.bytes().take(3));
            assert_eq!(Readings::from_encoded(&bytes, 1).is_some(), other == "1.0", "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn no_bytes_cause_a_panic_and_accepted_bytes_read_back(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let readings = sample();
            let mut bytes = readings.as_bytes().to_vec();
            for (index, byte) in flips {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(accepted) = Readings::from_encoded(&bytes, readings.len()) {
                prop_assert_eq!(format!("{accepted:?}").is_empty(), false);
                prop_assert_eq!(accepted.as_bytes(), &bytes[..]);
            }
            bytes.truncate(cut.index(bytes.len()));
            prop_assert_eq!(Readings::from_encoded(&bytes, readings.len()), None);
        }
    }
}
