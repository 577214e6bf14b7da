//! The settings of the HTTP front that have rules of their own.

use forebay_codec::DeviceTags;
use forebay_reading::TAG_BYTES_MAX;
use forebay_reading::timestamp::{TimeError, Timestamp};

use super::layers::{Layers, list};

/// Most tags that may name a device.
const DEVICE_TAGS_MAX: usize = 16;

/// The tags that name the device of a line of line protocol.
pub(super) fn device_tags(layers: &mut Layers) -> DeviceTags {
    layers.get("ingest.influx_device_tags", |value| check(list(value)?))
}

/// The time before which readings are refused.
pub(super) fn earliest(layers: &mut Layers) -> Timestamp {
    layers.get("ingest.earliest", |value| parse_earliest(value.text()?))
}

fn parse_earliest(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| match error {
        TimeError::Range { .. } => format!("must be from 1970-01-01 to 2262-04-11, got `{text}`"),
        TimeError::Syntax | TimeError::Calendar => format!(
            "must be an RFC 3339 date and time with an offset, such as 2001-01-01T00:00:00Z, got `{text}`"
        ),
    })
}

fn check(names: Vec<String>) -> Result<DeviceTags, String> {
    if !(1..=DEVICE_TAGS_MAX).contains(&names.len()) {
        return Err(format!("must have from 1 to {DEVICE_TAGS_MAX} names, got {}", names.len()));
    }
    for (place, name) in names.iter().enumerate() {
        if !(1..=TAG_BYTES_MAX).contains(&name.len()) {
            return Err(format!("a name must be 1 to {TAG_BYTES_MAX} bytes long, got {}", name.len()));
        }
        if names[..place].contains(name) {
            return Err(format!("`{name}` is there twice"));
        }
    }
    Ok(DeviceTags::new(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_names(names: &[&str], expected: Result<(), &str>) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let tags = check(names.clone());
        let found = tags.as_ref().map(|tags| assert!(tags.names().eq(names.iter()), "{tags:?}"));
        assert_eq!(found.map_err(String::as_str), expected);
    }

    #[test]
    fn device_tags_are_a_few_different_names() {
        check_names(&["device", "host"], Ok(()));
        check_names(&["host"], Ok(()));
        let many: Vec<_> = (0..17).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        check_names(&many[..16], Ok(()));
        check_names(&many, Err("must have from 1 to 16 names, got 17"));
        check_names(&[], Err("must have from 1 to 16 names, got 0"));
        check_names(&["host", ""], Err("a name must be 1 to 256 bytes long, got 0"));
        check_names(&["host", "device", "host"], Err("`host` is there twice"));
    }

    #[test]
    fn the_earliest_time_is_an_rfc_3339_text() {
        for (text, expected) in [
            ("2020-02-29T01:00:00.5+01:00", "2020-02-29T00:00:00.500Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_earliest(text).map(|time| time.to_string()), Ok(expected.to_owned()));
        }
        for text in ["", "0s", "2001", "2020-01-01", "2020-13-01T00:00:00Z", "2020-01-01T00:00:00"] {
            let problem = "must be an RFC 3339 date and time with an offset, such as 2001-01-01T00:00:00Z";
            assert_eq!(parse_earliest(text), Err(format!("{problem}, got `{text}`")));
        }
        for text in ["1969-12-31T23:59:59Z", "2263-01-01T00:00:00Z"] {
            let problem = format!("must be from 1970-01-01 to 2262-04-11, got `{text}`");
            assert_eq!(parse_earliest(text), Err(problem));
        }
    }
}
