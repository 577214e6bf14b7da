//! Splits names into device and sensor.
//!
//! A SenML name is the base name followed by the name. It identifies the source of a measurement, but does not mark which
//! part is the device:
//!
//! - With both, the base name without its trailing separators is the device, and the name is the sensor.
//! - With one alone, a name under `urn:dev:` (RFC 9039) is split at its last `_`, another name at its last `/`, or else at its
//!   last `:`, into device and sensor.
//! - A name that cannot be split is the device, without its trailing separators, so that records with and without a name
//!   agree on the device. An empty sensor becomes `value`.
//! - A record without any name is of the default device of its sender, if that one has any, and its sensor is `value`.
//!
//! The name as a whole begins with a letter or a digit and has no other characters than letters, digits and
//! `-:./_` (RFC 8428, section 4.5.1).

use forebay_reading::text::{Text, is_plain, is_plain_ascii};

use crate::Reason;

/// The sensor of a name without a part for the sensor.
pub(super) const SENSOR: &str = "value";
const DEVICE_URN: &str = "urn:dev:";
const SEPARATORS: [char; 5] = [':', '/', '-', '.', '_'];

/// The device and the sensor of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameParts<'a> {
    pub(super) device: &'a str,
    pub(super) sensor: &'a str,
}

/// The device and the sensor of a name in two parts, each of which may be empty; `None` if both are.
pub(super) fn split<'a>(base_name: &'a str, name: &'a str) -> Option<NameParts<'a>> {
    match (base_name, name) {
        ("", "") => None,
        ("", alone) | (alone, "") => Some(split_alone(alone)),
        (device, sensor) => Some(NameParts { device: device.trim_end_matches(SEPARATORS), sensor }),
    }
}

fn split_alone(name: &str) -> NameParts<'_> {
    let parts = if name.starts_with(DEVICE_URN) {
        name.rsplit_once('_')
    } else {
        name.rsplit_once('/').or_else(|| name.rsplit_once(':'))
    };
    // The device is never empty: a name begins with a letter or a digit.
    let (device, sensor) = parts.unwrap_or((name.trim_end_matches(SEPARATORS), ""));
    NameParts { device, sensor: if sensor.is_empty() { SENSOR } else { sensor } }
}

/// Checks a part of a name; `is_start` marks the part that begins the name.
pub(super) fn check(part: &str, is_start: bool) -> Result<(), (Reason, String)> {
    let starts_well = !is_start || part.bytes().next().is_none_or(|first| first.is_ascii_alphanumeric());
    // No early return: the compiler then checks many bytes at a time.
    let all_allowed = part.bytes().fold(true, |all, byte| all & is_allowed(byte));
    if starts_well && all_allowed { Ok(()) } else { Err(fault(part)) }
}

/// Letters, digits and `-./:_`; from `-` to `:` they are one range of ASCII.
fn is_allowed(byte: u8) -> bool {
    (byte | 0x20).is_ascii_lowercase() | (b'-'..=b':').contains(&byte) | (byte == b'_')
}

#[cold]
fn fault(part: &str) -> (Reason, String) {
    let is_allowed = |character: char| u8::try_from(character).is_ok_and(is_allowed);
    let detail = match part.char_indices().find(|(_, character)| !is_allowed(*character)) {
        Some((at, found)) => format!(
            "a name must have letters, digits and `-:./_` only, found {found:?} (U+{:04X}) at byte {at}",
            u32::from(found)
        ),
        None => format!(
            "a name must begin with a letter or a digit, found {:?}",
            part.chars().next().unwrap_or_default()
        ),
    };
    (Reason::Limit, detail)
}

/// A text of a record, which may be a checked name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word<'a> {
    /// A checked name: all its characters are allowed in names.
    Name(&'a str),
    /// A text with any characters.
    Any(&'a str),
}

impl<'a> Text<'a> for Word<'a> {
    fn as_str(self) -> &'a str {
        match self {
            Word::Name(text) | Word::Any(text) => text,
        }
    }

    fn is_plain(self) -> bool {
        match self {
            Word::Name(_) => true,
            Word::Any(text) => is_plain(text.as_bytes()),
        }
    }

    fn is_plain_ascii(self) -> bool {
        match self {
            Word::Name(_) => true,
            Word::Any(text) => is_plain_ascii(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_split(base_name: &str, name: &str, expected: (&str, &str)) {
        let source = split(base_name, name).expect("a name");
        assert_eq!((source.device, source.sensor), expected, "{base_name} {name}");
    }

    #[test]
    fn with_both_names_the_base_without_its_trailing_separators_is_the_device() {
        check_split("urn:dev:ow:10e2073a01080063:", "voltage", ("urn:dev:ow:10e2073a01080063", "voltage"));
        check_split("2001:db8::2/", "temperature", ("2001:db8::2", "temperature"));
        check_split("a-b_:/-.", "x", ("a-b", "x"));
        check_split("a", "b/c:d_e", ("a", "b/c:d_e"));
        check_split("urn:dev:ow:10e2", "_temp", ("urn:dev:ow:10e2", "_temp"));
        check_split("a", "/", ("a", "/"));
    }

    #[test]
    fn a_device_urn_alone_is_the_device_and_its_last_subcomponent_the_sensor() {
        for [base_name, name] in [["", "urn:dev:ow:10e2_temp"], ["urn:dev:ow:10e2_temp", ""]] {
            check_split(base_name, name, ("urn:dev:ow:10e2", "temp"));
        }
        check_split("", "urn:dev:ow:10e2073a01080063", ("urn:dev:ow:10e2073a01080063", "value"));
        check_split("", "urn:dev:mac:0024befffe804ff1_a_b/c", ("urn:dev:mac:0024befffe804ff1_a", "b/c"));
        check_split("", "urn:dev:ow:10e2_", ("urn:dev:ow:10e2", "value"));
        check_split("urn:dev:ow:10e2:", "", ("urn:dev:ow:10e2", "value"));
    }

    #[test]
    fn any_other_name_alone_is_split_at_its_last_slash_or_else_its_last_colon() {
        check_split("", "house/kitchen:2/temp", ("house/kitchen:2", "temp"));
        check_split("house:kitchen:temp", "", ("house:kitchen", "temp"));
        check_split("", "2001:db8::3", ("2001:db8:", "3"));
        check_split("", "urn:device:7", ("urn:device", "7"));
        check_split("2001:db8::2/", "", ("2001:db8::2", "value"));
        check_split("", "a:", ("a", "value"));
        check_split("", "meter-7", ("meter-7", "value"));
        check_split("meter-7-", "", ("meter-7", "value"));
        assert_eq!(split("", ""), None);
    }

    #[test]
    fn a_name_has_the_characters_of_the_rfc_and_begins_with_a_letter_or_a_digit() {
        let allowed =
            ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("-:./_".chars()).collect::<String>();
        for character in '\0'..='\u{ff}' {
            let name = format!("a{character}");
            assert_eq!(check(&name, true).is_ok(), allowed.contains(character), "{name:?}");
            let start = character.is_ascii_alphanumeric();
            assert_eq!(check(&character.to_string(), true).is_ok(), start, "{character:?}");
        }
        assert_eq!(check("-:./_", false), Ok(()));
        assert_eq!(check("", true), Ok(()));
        let (_, detail) = check("temp é", true).expect_err("a space");
        assert_eq!(detail, "a name must have letters, digits and `-:./_` only, found ' ' (U+0020) at byte 4");
        let (_, detail) = check("_t", true).expect_err("an underscore");
        assert_eq!(detail, "a name must begin with a letter or a digit, found '_'");
    }

    proptest! {
        #[test]
        fn a_good_name_never_gives_an_empty_device_or_sensor(base_name in "([A-Za-z0-9][-A-Z:./_]{0,6}){0,2}", name in "[a-z:./_-]{0,6}") {
            if check(&base_name, true).and_then(|()| check(&name, base_name.is_empty())).is_ok()
                && let Some(source) = split(&base_name, &name)
            {
                prop_assert!(!source.device.is_empty() && !source.sensor.is_empty());
                prop_assert!(is_plain_ascii(source.device.as_bytes()) && is_plain_ascii(source.sensor.as_bytes()));
            }
        }
    }
}
