//! Reads `cluster.headers`: headers whose values stand in the settings, or in files that are named there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::layers::{Layers, TableMember};
use crate::delivery::credentials::{HeaderFile, HeadersConfig};
use crate::delivery::is_reserved;

const TABLE: &str = "cluster.headers";
/// Schemes of `Authorization`, which a blank parts from what follows.
const SCHEMES: [&str; 5] = ["ApiKey", "Basic", "Bearer", "Splunk", "Token"];
/// The message for a header that must not be set.
const RESERVED: &str = "must not be set here: HTTP, the format of the bodies or Forebay itself sets this header; allowed are \
    others, such as authorization or x-api-key";

/// A member of the table, with its key as it is written there: a header, or one of the two keys of a header whose value stands
/// in a file.
#[derive(Debug)]
struct HeaderPart {
    key: String,
    name: HeaderName,
    said: Said,
}

/// What a member of the table says of its header.
#[derive(Debug)]
enum Said {
    Value(HeaderValue),
    File(PathBuf),
    Prefix(String),
}

/// Reads the table.
pub(super) fn read(layers: &mut Layers) -> HeadersConfig {
    let mut headers = HeadersConfig::default();
    let (mut named, mut prefixes) = (BTreeSet::new(), BTreeMap::new());
    for HeaderPart { key, name, said } in layers.get_table(TABLE, part) {
        if !matches!(said, Said::Prefix(_)) && !named.insert(name.as_str().to_owned()) {
            let problem = format!("sets the header `{name}` a second time; remove one of them");
            layers.fault(&format!("{TABLE}.{key}"), problem);
        }
        match said {
            Said::Value(value) => _ = headers.fixed.insert(name, value),
            Said::File(path) => headers.files.push(HeaderFile { name, path, prefix: String::new() }),
            Said::Prefix(prefix) => _ = prefixes.insert(name.as_str().to_owned(), (key, prefix)),
        }
    }
    for file in &mut headers.files {
        file.prefix = prefixes.remove(file.name.as_str()).map(|(_, prefix)| prefix).unwrap_or_default();
    }
    for (key, _) in prefixes.into_values() {
        let file = key.replace(".prefix", ".file");
        layers.fault(&format!("{TABLE}.{key}"), format!("needs {TABLE}.{file}, which is not set"));
    }
    headers
}

fn part(key: &str, text: &str) -> Result<TableMember<HeaderPart>, String> {
    let (name, said, shown) = match key.split_once('.') {
        None => (key, Said::Value(visible(text)?), None),
        Some((name, "file")) => (name, Said::File(PathBuf::from(text)), Some(text.to_owned())),
        Some((name, "prefix")) => (name, Said::Prefix(prefix(text)?), Some(text.to_owned())),
        Some((_, other)) => {
            return Err(format!(
                "`{other}` is not known of a header whose value stands in a file; known: file, prefix"
            ));
        }
    };
    let name = header_name(name)?;
    Ok(TableMember { member: HeaderPart { key: key.to_owned(), name, said }, shown })
}

fn visible(text: &str) -> Result<HeaderValue, String> {
    let mut value: HeaderValue = text.parse().map_err(|_| "must be visible ASCII".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A text before the value of a file. A scheme without its blank would make one word with the value.
fn prefix(text: &str) -> Result<String, String> {
    visible(text)?;
    match SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(text)) {
        true => Err(format!("must end in a blank: `{text} `")),
        false => Ok(text.to_owned()),
    }
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
            "[cluster.headers]\nhost = { file = \"x\" }\nx-key = { prefix = \"Key=\" }\n\
             Authorization = { file = \"secrets/token\" }\n",
            &[("FOREBAY__CLUSTER__HEADERS__AUTHORIZATION", "Bearer x")],
            &[
                &format!("FILE:2: cluster.headers.host.file: {RESERVED}"),
                "environment variable FOREBAY__CLUSTER__HEADERS__AUTHORIZATION: cluster.headers.authorization: sets the \
                 header `authorization` a second time; remove one of them",
                "FILE:3: cluster.headers.x-key.prefix: needs cluster.headers.x-key.file, which is not set",
            ],
        );
    }

    #[test]
    fn what_is_misspelt_in_the_table_of_a_header_is_a_fault() {
        check_faults(
            "[cluster.headers]\nauthorization = { files = \"secrets/token\" }\n\
             x-key = { file = \"secrets/key\", prefix = \"Bearer\" }\n",
            &[],
            &[
                "FILE:2: cluster.headers.authorization.files: `files` is not known of a header whose value stands in a file; \
                 known: file, prefix",
                "FILE:3: cluster.headers.x-key.prefix: must end in a blank: `Bearer `",
            ],
        );
    }
}
