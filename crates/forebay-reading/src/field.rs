//! The fields of a reading.

/// A field of a reading, by its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `device`
    Device,
    /// `sensor`
    Sensor,
    /// `value`
    Value,
    /// `time`
    Time,
    /// `unit`
    Unit,
    /// `tags`
    Tags,
    /// `values`
    Values,
}

impl Field {
    /// Every field with its name, in the canonical order.
    pub const NAMES: &[(&str, Field)] = &[
        ("device", Field::Device),
        ("sensor", Field::Sensor),
        ("value", Field::Value),
        ("time", Field::Time),
        ("unit", Field::Unit),
        ("tags", Field::Tags),
        ("values", Field::Values),
    ];

    /// The field of this name.
    pub fn named(name: &str) -> Option<Field> {
        Some(match name.as_bytes() {
            b"device" => Field::Device,
            b"sensor" => Field::Sensor,
            b"value" => Field::Value,
            b"time" => Field::Time,
            b"unit" => Field::Unit,
            b"tags" => Field::Tags,
            b"values" => Field::Values,
            _ => return None,
        })
    }

    /// The field's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Field::Device => "device",
            Field::Sensor => "sensor",
            Field::Value => "value",
            Field::Time => "time",
            Field::Unit => "unit",
            Field::Tags => "tags",
            Field::Values => "values",
        }
    }
}
