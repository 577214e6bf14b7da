//! The settings of the formats in which nodes receive readings.

use forebay_codec::{ElasticsearchConfig, InfluxConfig, Integers};
use forebay_reading::registry::Registry;
use forebay_reading::setting::SettingValue;
use forebay_stores::{ClickhouseConfig, StoreConfig};

use super::layers::Layers;
use super::{choice, truth};

/// Longest name of a database, table or index, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The ways to write whole numbers in line protocol.
const INTEGERS: Registry<Integers> = Registry {
    what: "way to write whole numbers",
    members: &[("integer", Integers::Integer), ("float", Integers::Float)],
};

pub(super) fn read(layers: &mut Layers) -> StoreConfig {
    StoreConfig {
        clickhouse: ClickhouseConfig {
            database: layers.get("cluster.clickhouse.database", name),
            table: layers.get("cluster.clickhouse.table", name),
            deduplication_token: truth(layers, "cluster.clickhouse.deduplication_token"),
        },
        elasticsearch: ElasticsearchConfig { index: layers.get("cluster.elasticsearch.index", index) },
        influx: InfluxConfig { integers: *choice(layers, "cluster.influx.integers", &INTEGERS) },
    }
}

/// The format that a setting belongs to, by its section.
pub(super) fn format_of(key: &str) -> Option<&'static str> {
    let section = key.strip_prefix("cluster.")?.split('.').next()?;
    ["clickhouse", "elasticsearch", "influx"].into_iter().find(|format| *format == section)
}

fn name(value: &SettingValue) -> Result<String, String> {
    let name = value.text()?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let got = name.len();
        return Err(format!(
            "must be 1 to {NAME_BYTES_MAX} bytes without control characters, got {got} bytes"
        ));
    }
    Ok(name.to_owned())
}

/// The name of an index, alias or data stream, by the rules of Elasticsearch.
fn index(value: &SettingValue) -> Result<String, String> {
    let name = name(value)?;
    let is_forbidden = |character: char| {
        character.is_uppercase() || character.is_whitespace() || "\\/*?\"<>|,#:".contains(character)
    };
    if let Some(character) = name.chars().find(|character| is_forbidden(*character)) {
        return Err(format!(
            "must be the name of an index, without upper case, spaces and any of \\ / * ? \" < > | , # :, got `{character}`"
        ));
    }
    match name.starts_with(['-', '_', '+', '.']) {
        true => Err(format!("must not begin with - _ + or ., got `{name}`")),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use forebay_stores::StoreConfig;

    #[test]
    fn the_defaults_of_the_settings_and_of_the_formats_agree() {
        assert_eq!(super::read(&mut super::Layers::read(None, &[])), StoreConfig::default());
    }

    #[test]
    fn names_that_every_store_would_refuse_are_faults() {
        let check = |key: &str, value: &str, expected: &str| {
            let variable = format!("FOREBAY__CLUSTER__{}", key.to_uppercase().replace('.', "__"));
            let faults = Config::read(None, &[(variable, value.to_owned())]).expect_err("a fault");
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:?}");
        };
        let bytes = "must be 1 to 255 bytes without control characters, got";
        check("clickhouse.table", "", &format!("{bytes} 0 bytes"));
        check("clickhouse.database", "a\nb", &format!("{bytes} 3 bytes"));
        check("clickhouse.deduplication_token", "maybe", "must be true or false, got `maybe`");
        check("elasticsearch.index", &"x".repeat(256), &format!("{bytes} 256 bytes"));
        check("elasticsearch.index", "Readings", "got `R`");
        check("elasticsearch.index", "a/b", "got `/`");
        check("elasticsearch.index", "_all", "must not begin with - _ + or ., got `_all`");
        check("influx.integers", "double", "is no way to write whole numbers; known: integer, float");
    }
}
