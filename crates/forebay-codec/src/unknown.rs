//! Errors for unknown fields, with the field that the sender probably meant.

use forebay_reading::Field;

use crate::quote::shorten;

/// Most letters in which a misspelt name may differ from the name of a field.
const DISTANCE_MAX: usize = 2;
/// Longest name that is compared with [`ALIASES`], in bytes.
const ALIAS_BYTES_MAX: usize = 32;

/// Names that other systems give the fields of a reading, in lower case and without punctuation.
const ALIASES: &[(Field, &[&str])] = &[
    (
        Field::Time,
        &[
            "timestamp",
            "ts",
            "t",
            "datetime",
            "date",
            "when",
            "epoch",
            "at",
            "createdat",
            "measuredat",
            "recordedat",
            "eventtime",
            "timestampms",
            "unixtime",
        ],
    ),
    (
        Field::Device,
        &[
            "deviceid",
            "devicename",
            "deviceuid",
            "deveui",
            "devid",
            "dev",
            "id",
            "uid",
            "serial",
            "serialnumber",
            "host",
            "hostname",
            "clientid",
            "node",
            "nodeid",
            "source",
            "thing",
            "thingid",
            "station",
            "stationid",
            "asset",
            "assetid",
            "meter",
            "meterid",
        ],
    ),
    (
        Field::Sensor,
        &[
            "name",
            "n",
            "metric",
            "metricname",
            "sensorid",
            "sensorname",
            "measurement",
            "channel",
            "parameter",
            "param",
            "quantity",
            "key",
            "signal",
            "variable",
            "property",
            "point",
            "tagname",
            "sensortype",
            "type",
        ],
    ),
    (Field::Value, &["val", "v", "valuenumber", "reading", "measure", "result", "number", "state"]),
    (Field::Unit, &["units", "u", "uom", "unitofmeasurement", "unitofmeasure"]),
    (
        Field::Tags,
        &[
            "tag",
            "labels",
            "label",
            "attributes",
            "attrs",
            "metadata",
            "meta",
            "dimensions",
            "properties",
            "context",
            "location",
        ],
    ),
    (Field::Values, &["measurements", "metrics", "fields", "sensors", "channels", "payload", "parameters"]),
];

/// Names that other systems give the array of readings inside an object.
const WRAPPERS: &[&str] =
    &["readings", "data", "records", "items", "events", "points", "batch", "messages", "series"];

/// The error for the unknown field `name`.
pub(super) fn detail(name: &str) -> String {
    let hint = match meant(name) {
        Meant::Field(field) => format!(", did you mean `{}`?", field.name()),
        Meant::Array => {
            "; to send several readings, send the array itself, and several sensors of a device in \
                         `values`"
                .to_owned()
        }
        Meant::Nothing => {
            let known: Vec<_> = Field::NAMES.iter().map(|(known, _)| format!("`{known}`")).collect();
            format!("; a reading has {}", known.join(", "))
        }
    };
    format!("unknown field `{}`{hint}", shorten(name))
}

enum Meant {
    Field(Field),
    /// An array of readings as the whole body.
    Array,
    Nothing,
}

fn meant(name: &str) -> Meant {
    if name.len() <= ALIAS_BYTES_MAX {
        let plain: String =
            name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        if WRAPPERS.contains(&plain.as_str()) {
            return Meant::Array;
        }
        // A field's own name in another spelling, such as `Device`, counts as an alias.
        let is_called =
            |field: &Field, aliases: &[&str]| plain == field.name() || aliases.contains(&plain.as_str());
        if let Some((field, _)) = ALIASES.iter().find(|(field, aliases)| is_called(field, aliases)) {
            return Meant::Field(*field);
        }
    }
    nearest(name).map_or(Meant::Nothing, Meant::Field)
}

/// The field whose misspelt name this probably is.
fn nearest(name: &str) -> Option<Field> {
    // A much longer name is near to no field, and comparing it would cost time.
    let near = Field::NAMES.iter().filter(|(known, _)| known.len().abs_diff(name.len()) <= DISTANCE_MAX);
    let nearest = near.map(|(known, field)| (strsim::osa_distance(name, known), *known, *field));
    let (distance, _, field) = nearest.min_by_key(|(distance, known, _)| (*distance, *known))?;
    (distance <= DISTANCE_MAX).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, field: &str) {
        assert_eq!(detail(name), format!("unknown field `{name}`, did you mean `{field}`?"));
    }

    #[test]
    fn names_of_fields_in_other_systems_are_known_in_every_spelling() {
        for name in ["timestamp", "ts", "t", "Timestamp", "@timestamp", "time_stamp", "TIME", "created_at"] {
            check(name, "time");
        }
        for name in ["device_id", "deviceId", "DeviceID", "device-id", "id", "devEui", "host", "Device"] {
            check(name, "device");
        }
        for name in ["name", "metric", "sensor_id", "sensorName", "measurement"] {
            check(name, "sensor");
        }
        for name in ["val", "v", "Value"] {
            check(name, "value");
        }
        for (name, field) in
            [("uom", "unit"), ("units", "unit"), ("labels", "tags"), ("measurements", "values")]
        {
            check(name, field);
        }
    }

    #[test]
    fn the_error_of_a_misspelt_field_names_the_nearest_field() {
        for (name, field) in [
            ("valeu", "value"),
            ("sensr", "sensor"),
            ("devcie", "device"),
            ("tiem", "time"),
            ("vlaues", "values"),
        ] {
            check(name, field);
        }
    }

    #[test]
    fn the_error_of_an_object_around_an_array_of_readings_asks_for_the_array_itself() {
        for name in ["readings", "data", "Records"] {
            let detail = detail(name);
            assert!(detail.starts_with(&format!("unknown field `{name}`; ")), "{detail}");
            assert!(detail.contains("send the array itself") && detail.contains("`values`"), "{detail}");
        }
    }

    #[test]
    fn the_error_of_a_name_near_no_field_lists_all_fields() {
        let all = "a reading has `device`, `sensor`, `value`, `time`, `unit`, `tags`, `values`";
        for name in ["humidity", "", "日本", &"x".repeat(10_000)] {
            let detail = detail(name);
            assert!(detail.ends_with(all) && detail.len() < 300, "{detail}");
        }
    }

    #[test]
    fn every_alias_belongs_to_one_field_and_is_in_the_compared_spelling() {
        let mut seen = std::collections::BTreeSet::new();
        let all = ALIASES.iter().flat_map(|(_, aliases)| *aliases).chain(WRAPPERS);
        for alias in all {
            assert!(seen.insert(alias), "{alias} is there twice");
            assert!(Field::named(alias).is_none() && alias.len() <= ALIAS_BYTES_MAX, "{alias}");
            assert!(alias.bytes().all(|byte| byte.is_ascii_lowercase()), "{alias}");
        }
        for (_, field) in Field::NAMES {
            assert!(ALIASES.iter().any(|(known, _)| known == field), "{field:?}");
        }
    }
}
