//! Reads `cluster.headers`: headers whose values stand in the settings, or in files that are named there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::layers::{Layers, TableMember};
use crate::delivery::credentials::{HeaderFile, HeadersConfig};
use crate::delivery::is_reserved;

const TABLE: &str = "cluster.headers";
/// The message for a header that must not be set.
const RESERVED: &str = "must not be set here: HTTP, the format of the bodies or Forebay itself sets this header; allowed are \
    others, such as authorization or x-api-key";

/// A member of the table: a header, or one of the two keys of a header whose value stands in a file.
#[derive(Debug)]
enum HeaderPart {
    Value(HeaderName, HeaderValue),
    File(HeaderName, PathBuf),
    Prefix(HeaderName, String),
}

/// Reads the table.
pub(super) fn read(layers: &mut Layers) -> HeadersConfig {
    let mut headers = HeadersConfig::default();
    let mut prefixes = BTreeMap::new();
    for part in layers.get_table(TABLE, part) {
        match part {
            HeaderPart::Value(name, value) => _ = headers.fixed.insert(name, value),
            HeaderPart::File(name, path) => {
                headers.files.push(HeaderFile { name, path, prefix: String::new() });
            }
            HeaderPart::Prefix(name, prefix) => _ = prefixes.insert(name.as_str().to_owned(), prefix),
        }
    }
    for file in &mut headers.files {
        file.prefix = prefixes.remove(file.name.as_str()).unwrap_or_default();
        if headers.fixed.contains_key(&file.name) {
            let problem = "is set twice, with a value and with a file; remove one of them".to_owned();
            layers.fault(&format!("{TABLE}.{}.file", file.name), problem);
        }
    }
    for name in prefixes.keys() {
        let problem = format!("needs {TABLE}.{name}.file, which is not set");
        layers.fault(&format!("{TABLE}.{name}.prefix"), problem);
    }
    headers
}

fn part(key: &str, text: &str) -> Result<TableMember<HeaderPart>, String> {
    if let Some(name) = key.strip_suffix(".file") {
        let path = HeaderPart::File(header_name(name)?, PathBuf::from(text));
        return Ok(TableMember { member: path, shown: Some(text.to_owned()) });
    }
    let (name, prefix) = match key.strip_suffix(".prefix") {
        Some(name) => (name, true),
        None => (key, false),
    };
    let name = header_name(name)?;
    let mut value: HeaderValue = text.parse().map_err(|_| "must be visible ASCII".to_owned())?;
    value.set_sensitive(true);
    Ok(match prefix {
        true => {
            TableMember { member: HeaderPart::Prefix(name, text.to_owned()), shown: Some(text.to_owned()) }
        }
        false => TableMember { member: HeaderPart::Value(name, value), shown: None },
    })
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| "is not the name of an HTTP header".to_owned())?;
    if is_reserved(&name) {
        return Err(RESERVED.to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_faults, read};
    use super::*;

    #[test]
    fn the_value_of_a_header_stands_in_the_settings_or_in_a_file() {
        let file = "[cluster.headers]\nx-scope = \"plant\"\n\
                    authorization = { file = \"secrets/token\", prefix = \"Bearer \" }\n\
                    x-api-key = { file = \"secrets/key\" }\n";
        let config = read(file, &[]).expect("good settings");
        let headers = &config.delivery.headers;
        assert_eq!(headers.fixed.get("x-scope").expect("a header"), "plant");
        let header = |name: &'static str, path: &str, prefix: &str| HeaderFile {
            name: HeaderName::from_static(name),
            path: path.into(),
            prefix: prefix.to_owned(),
        };
        let expected =
            [header("authorization", "secrets/token", "Bearer "), header("x-api-key", "secrets/key", "")];
        assert_eq!(headers.files, expected);
        let shown =
            |key: &str| config.settings.iter().find(|setting| setting.key == key).map(|it| &*it.value);
        assert_eq!(shown("cluster.headers.x-scope"), Some("(hidden)"));
        assert_eq!(shown("cluster.headers.authorization.file"), Some("secrets/token"));
        let variable = [("FOREBAY__CLUSTER__HEADERS__X-API-KEY__FILE", "other")];
        let config = read("", &variable).expect("good settings");
        assert_eq!(config.delivery.headers.files, [header("x-api-key", "other", "")]);
    }

    #[test]
    fn a_header_with_two_values_and_a_prefix_without_a_file_are_faults() {
        check_faults(
            "[cluster.headers]\nhost = { file = \"x\" }\nx-key = { prefix = \"Bearer \" }\n\
             authorization = { file = \"secrets/token\" }\n",
            &[("FOREBAY__CLUSTER__HEADERS__AUTHORIZATION", "Bearer x")],
            &[
                &format!("FILE:2: cluster.headers.host.file: {RESERVED}"),
                "FILE:4: cluster.headers.authorization.file: is set twice, with a value and with a file; remove one of them",
                "FILE:3: cluster.headers.x-key.prefix: needs cluster.headers.x-key.file, which is not set",
            ],
        );
    }
}
