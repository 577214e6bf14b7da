//! Crates that others have written: the lists of `deny.toml`, held without a network and without cargo-deny.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

/// A package that is compiled on this platform, for the gateway or for its tests.
struct Package {
    name: String,
    version: String,
    /// As SPDX has it; empty if the package does not say.
    license: String,
    /// Empty for one of ours.
    source: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of Cargo.lock for this platform, from `cargo metadata`.
fn packages() -> Vec<Package> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let used: BTreeSet<_> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
    let packages =
        list(&metadata["packages"]).into_iter().filter(|package| used.contains(&text(&package["id"])));
    let package = |package: Value| Package {
        name: text(&package["name"]),
        version: text(&package["version"]),
        license: text(&package["license"]),
        source: text(&package["source"]),
    };
    packages.map(package).collect()
}

/// A list in a table of `deny.toml`: texts, or the crates of tables that each give a reason.
fn denied(table: &str, key: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let document = DeTable::parse(&text).expect("TOML");
    let DeValue::Table(table) = document.get_ref()[table].get_ref() else { panic!("{table} is no table") };
    let DeValue::Array(items) = table[key].get_ref() else { panic!("{key} is no list") };
    let item = |item: &DeValue<'_>| match item {
        DeValue::Table(skip) => {
            assert!(skip["reason"].get_ref().as_str().is_some_and(|reason| !reason.is_empty()));
            skip["crate"].get_ref().as_str().expect("a text").to_owned()
        }
        other => other.as_str().expect("a text").to_owned(),
    };
    items.iter().map(|spanned| item(spanned.get_ref())).collect()
}

/// The licences among `allowed` by which a package may be used, or none if it may not. Of those that it offers to choose
/// from, the first is chosen.
fn chosen<'a>(license: &str, allowed: &'a BTreeSet<String>) -> Option<BTreeSet<&'a str>> {
    // No package has a choice between licences that belong together.
    let needed = license.split(" AND ").map(|part| part.trim_matches(['(', ')']));
    let choose = |part: &str| {
        let offered: BTreeSet<_> =
            part.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect();
        allowed.iter().map(String::as_str).find(|name| offered.contains(name))
    };
    needed.map(choose).collect()
}

#[test]
fn every_crate_has_a_licence_that_is_allowed_and_no_other_is_allowed() {
    let allowed = denied("licenses", "allow");
    let (mut used, mut faults) = (BTreeSet::new(), Vec::new());
    for Package { name, version, license, source } in packages() {
        match chosen(&license, &allowed) {
            Some(licenses) => used.extend(licenses),
            None => faults.push(format!("{name} {version} has the licence `{license}`")),
        }
        let is_known = source.is_empty() || source.starts_with("registry+");
        if !is_known {
            faults.push(format!("{name} {version} is from {source}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let unused: Vec<_> = allowed.iter().filter(|name| !used.contains(name.as_str())).collect();
    assert!(unused.is_empty(), "deny.toml allows what nobody needs: {unused:?}");
}

#[test]
fn a_crate_that_is_there_twice_is_listed_with_its_reason() {
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for Package { name, version, .. } in packages() {
        versions.entry(name).or_default().push(version);
    }
    let number = |version: &String| -> Vec<u64> {
        version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    let mut older = BTreeSet::new();
    for (name, mut versions) in versions {
        versions.sort_by_key(number);
        versions.pop();
        older.extend(versions.into_iter().map(|version| format!("{name}@{version}")));
    }
    let listed = denied("bans", "skip");
    let (new, gone): (Vec<_>, Vec<_>) =
        (older.difference(&listed).collect(), listed.difference(&older).collect());
    assert!(new.is_empty(), "there is a newer version of these, too: {new:?}");
    assert!(gone.is_empty(), "these are not doubled any more, take them out of deny.toml: {gone:?}");
}

#[test]
fn licences_are_chosen_and_belong_together_as_spdx_has_them() {
    let allowed: BTreeSet<String> = ["Apache-2.0", "MIT", "Zlib"].map(str::to_owned).into();
    let check = |license: &str, expected: Option<&[&'static str]>| {
        let expected = expected.map(|names| names.iter().copied().collect());
        assert_eq!(chosen(license, &allowed), expected, "{license}");
    };
    check("MIT", Some(&["MIT"]));
    check("Unlicense OR MIT", Some(&["MIT"]));
    check("MIT/Apache-2.0", Some(&["Apache-2.0"]));
    check("(MIT OR GPL-3.0) AND Zlib", Some(&["MIT", "Zlib"]));
    check("MIT AND GPL-3.0", None);
    check("GPL-3.0", None);
    check("", None);
}
