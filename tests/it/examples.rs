//! The recipes in docs/src/stores/ and the stacks in examples/ hold together: their settings are settings of the
//! gateway, and two copies of a text are the same. Whether the stores take the readings is tested by tests/stores.sh.

use std::fs;
use std::path::{Path, PathBuf};

use forebay::config::Config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files in `folder`, by their paths from the root, in order.
fn inside(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let mut paths: Vec<_> =
        entries.map(|entry| Path::new(folder).join(entry.expect("an entry").file_name())).collect();
    paths.sort();
    paths
}

/// The blocks of `document` in `language`.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    document.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// `text` with each run of white space as one space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads `settings` as the gateway would, which finds no fault and nothing that has no effect.
#[track_caller]
fn check_settings(place: &str, settings: &str) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("forebay.toml");
    fs::write(&file, settings).expect("a file");
    match Config::read(Some(&file), &[]) {
        Ok(config) => assert_eq!(config.without_effect, [], "{place}"),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            panic!("{place}:\n{}", faults.join("\n"));
        }
    }
}

#[test]
fn every_recipe_has_settings_that_the_gateway_takes() {
    let mut recipes = inside("docs/src/stores");
    // The page that lists them.
    recipes.retain(|page| !page.ends_with("overview.md"));
    assert!(recipes.len() >= 5, "{recipes:?}");
    for recipe in recipes {
        let document = read(&recipe);
        let settings = blocks(&document, "toml");
        assert!(!settings.is_empty(), "{} shows no settings", recipe.display());
        for block in settings {
            check_settings(&recipe.display().to_string(), block);
        }
    }
}

#[test]
fn every_example_has_settings_that_the_gateway_takes_and_mounts_existing_files() {
    let examples = inside("examples");
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        let settings = example.join("forebay.toml");
        check_settings(&settings.display().to_string(), &read(&settings));
        read(example.join("README.md"));
        let stack = read(example.join("docker-compose.yml"));
        let mounts: Vec<_> = stack.lines().filter_map(|line| line.trim().strip_prefix("- ./")).collect();
        assert!(mounts.iter().any(|mount| mount.starts_with("forebay.toml:")), "{}", example.display());
        for mount in mounts {
            let source = example.join(mount.split(':').next().unwrap_or_default());
            assert!(
                root().join(&source).exists(),
                "{} mounts {mount}, which is not there",
                example.display()
            );
        }
    }
}

#[test]
fn every_image_of_an_example_has_a_version() {
    for example in inside("examples") {
        let stack = read(example.join("docker-compose.yml"));
        for image in stack.lines().filter_map(|line| line.trim().strip_prefix("image: ")) {
            let is_pinned = image.split_once(':').is_some_and(|(_, tag)| tag.contains('.'));
            assert!(is_pinned || image == "forebay", "{} takes any {image}", example.display());
        }
    }
}

#[test]
fn the_tables_of_the_clickhouse_recipe_are_those_that_are_tried_and_shown() {
    let recipe = read("docs/src/stores/clickhouse.md");
    let [current, old] = blocks(&recipe, "sql")[..] else { panic!("two tables") };
    let example = read("examples/clickhouse/readings.sql");
    let made = words(&example).replace("IF NOT EXISTS default.readings", "readings");
    assert_eq!(made.trim_end_matches(';'), words(current));
    assert!(words(&read("tests/stores.sh")).contains(&words(old)), "tests/stores.sh makes another table");
}

#[test]
fn the_dashboard_of_grafana_is_json() {
    let dashboard = read("examples/influxdb-grafana/provisioning/dashboards/readings.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
}
