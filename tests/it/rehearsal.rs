//! The promises of `forebay check --try`, and of the examples in docs/src/transforms/examples.md.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;

use crate::support::process::{Finished, directory, forebay, run};
use crate::support::{FakeNode, Reading, TestGateway, eventually, to_ndjson};
use forebay::metrics::{PREFIX, TABLE};
use forebay_transform::KINDS;
use forebay_transform::settings::{SettingValue, Settings};
use serde_json::json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const HOUSEHOLD: &str = "tests/data/household_power_2007-02.csv";
/// The page whose examples are tried.
const TRANSFORMS: &str = "docs/src/transforms/examples.md";

/// Runs the transforms of a settings file over a file.
fn rehearse(directory: &Path, toml: &str, file: &Path) -> Finished {
    fs::write(directory.join("transforms.toml"), toml).expect("written");
    let file = file.display().to_string();
    run(forebay(directory, &["check", "--config", "transforms.toml", "--try", &file], &[]))
}

/// The blocks of a language in a document, each with the one that follows it.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((language.to_owned(), text.join("\n")));
        }
    }
    blocks
}

#[test]
fn the_examples_of_the_document_do_what_it_says() {
    let document = fs::read_to_string(Path::new(ROOT).join(TRANSFORMS)).expect("a document");
    let household = Path::new(ROOT).join(HOUSEHOLD);
    let directory = directory();
    let text = fs::read_to_string(&household).expect("readings");
    let twice = directory.path().join("twice.csv");
    let (_, rows) = text.split_once('\n').expect("a head");
    fs::write(&twice, format!("{text}{rows}")).expect("written");
    let blocks = blocks(&document);
    let mut tried = 0;
    for (index, (language, toml)) in blocks.iter().enumerate() {
        if language != "toml" {
            continue;
        }
        let file = if toml.contains("\"dedupe\"") { &twice } else { &household };
        let printed = rehearse(directory.path(), toml, file).expect_status(0).stdout;
        let quoted: Vec<_> =
            blocks[index + 1..].iter().take_while(|(language, _)| language == "text").collect();
        assert!(!quoted.is_empty(), "{toml}");
        assert!(
            printed.trim_end().ends_with(&quoted[0].1),
            "{toml}\nprints\n{}",
            &printed[printed.len().saturating_sub(600)..]
        );
        for (_, lines) in &quoted[1..] {
            assert!(printed.contains(lines.as_str()), "{lines}");
        }
        tried += 1;
    }
    assert_eq!(tried, 7);
}

#[test]
fn a_file_is_read_by_the_format_of_its_name_and_faults_are_reported() {
    let directory = directory();
    let toml = "[[transform]]\nkind = \"filter\"\nkeep = 'value > 1.0'\n";
    let check = |name: &str, content: &str, status: i32, expected: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("written");
        let ended = rehearse(directory.path(), toml, &path).expect_status(status);
        let said = if status == 0 { &ended.stdout } else { &ended.stderr };
        assert!(said.contains(expected), "{expected} in {said}");
    };
    let one = r#"{"device":"d","sensor":"s","value":2,"time":"2007-02-01T00:00:00Z"}"#;
    let sends = format!("sends {one}\n");
    check("a.json", &format!("[{one}]"), 0, &sends);
    check(
        "a.ndjson",
        &format!("{one}\n{}\n", one.replace("\"value\":2", "\"value\":0")),
        0,
        "filters {\"device\":\"d\",\"sensor\":\"s\",\"value\":0,",
    );
    check("a.ndjson", &format!("{one}\n{}\n", one.replace("value", "valeu")), 0, "valeu");
    check("a.lp", "s,device=d value=2i 1170288000000000000\n", 0, &sends);
    check("a.senml", r#"[{"bn":"d:","n":"s","v":2,"t":1170288000}]"#, 0, &sends);
    check("a.json", "[{", 1, "a.json, line 1");
    check("a.txt", one, 1, "must end in .csv, .json, .ndjson, .jsonl, .senml, .lp or .line");
    let missing = rehearse(directory.path(), toml, Path::new("missing.json")).expect_status(1);
    assert!(missing.stderr.contains("missing.json"), "{}", missing.stderr);
    let faulty = rehearse(
        directory.path(),
        "[[transform]]\nkind = \"filter\"\nkeep = 'valeu > 1'\n",
        Path::new("a.json"),
    );
    let said = faulty.expect_status(2).stderr;
    let document = fs::read_to_string(Path::new(ROOT).join(TRANSFORMS)).expect("a document");
    assert!(document.contains(&format!("```console\n{said}```")), "the document has {said}");
    assert!(
        said.contains("transforms.toml:3: transform filter-1: keep: ")
            && said.contains("did you mean `value`"),
        "{said}"
    );
}

#[test]
fn rejected_failing_and_late_readings_are_named_and_counted() {
    let directory = directory();
    let toml = "[[transform]]
kind = 'filter'
keep = 'tags.site == \"north\"'
sensors = ['door']

[[transform]]
name = 'idle'
kind = 'map'
set = { value = 'value' }

[[transform]]
kind = 'aggregate'
every = '10s'
functions = ['count']
sensors = ['power']
max_series = 1
";
    let at = |sensor: &str, second: u32, device: &str| json!({"device": device, "sensor": sensor, "value": 1, "time": format!("2007-02-01T00:00:{second:02}Z")});
    let mut readings =
        vec![at("door", 0, "a"), at("power", 1, "a"), at("power", 11, "a"), at("power", 2, "a")];
    // There is room for the windows of one series only.
    readings.push(at("power", 3, "b"));
    let path = directory.path().join("a.ndjson");
    let rejected: String = (0..102).map(|_| "{\"device\":\"a\"}\n").collect();
    fs::write(&path, [to_ndjson(&readings), rejected.into_bytes()].concat()).expect("written");
    let printed = rehearse(directory.path(), toml, &path).expect_status(0).stdout;
    let door = &readings[0];
    let has = |expected: &str| assert!(printed.contains(expected), "{expected} in {printed}");
    has("rejects the reading with the index 5, /5");
    has("rejects 2 more\n");
    has(&format!("cannot apply filter-1 to {}: goes on without it\nsends", canonical(door)));
    let (_, summary) = printed.split_once("\nfilter-1: ").expect("a summary");
    let lines: Vec<_> = summary.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "could not be applied to 1",
            "idle: leaves everything as it is",
            "aggregate-3: merges 4, makes 4, late 1, forgotten or closed early 2",
            "rejects 102",
        ]
    );
    assert!(lines[4].starts_with("5 readings of ") && lines.len() == 5, "{summary}");

    let printed = rehearse(directory.path(), "", &path).expect_status(0).stdout;
    assert!(printed.contains("\nno transforms are configured\nrejects 102\n5 readings"), "{printed}");
}

/// A reading without unit and tags in canonical form; the members of a JSON value are in no order of ours.
fn canonical(reading: &Reading) -> String {
    let members = ["device", "sensor", "value", "time"].map(|key| format!("\"{key}\":{}", reading[key]));
    format!("{{{}}}", members.join(","))
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let directory = directory();
    let household = Path::new(ROOT).join(HOUSEHOLD);
    let file = household.display().to_string();
    let mut command = forebay(directory.path(), &["check", "--try", &file], &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut line = String::new();
    // More follows than a pipe holds, so that the program is still writing when nobody reads any more.
    BufReader::with_capacity(64, child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("sends {\"device\":\"household_power_2007-02\""), "{line}");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
    assert_eq!((child.wait().expect("an end").code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_gateway_sends_the_readings_that_the_rehearsal_printed() {
    let toml = "[[transform]]
kind = 'filter'
keep = 'sensor != \"voltage\" || value <= 241.0'

[[transform]]
kind = 'map'
set = { value = 'value * 1000.0', unit = '\"W\"', 'tags.meter' = '\"main\"' }
sensors = ['global_*_power']

[[transform]]
kind = 'deadband'
percent = 5
heartbeat = '15m'
sensors = ['global_*', 'voltage']
";
    let household = fs::read_to_string(Path::new(ROOT).join(HOUSEHOLD)).expect("readings");
    let readings = of_csv(&household);
    let directory = directory();
    let path = directory.path().join("household.ndjson");
    fs::write(&path, to_ndjson(&readings)).expect("written");
    let printed = rehearse(directory.path(), toml, &path).expect_status(0).stdout;
    let said = printed.lines().filter_map(|line| line.strip_prefix("sends "));
    let said = said.map(|line| line.split_once(" in the place of ").map_or(line, |(sent, _)| sent));
    let said: Vec<Reading> = said.map(|line| serde_json::from_str(line).expect("JSON")).collect();

    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).file(toml).start().await;
    for request in readings.chunks(5000) {
        gateway.post(request).await.expect_status(202);
    }
    eventually("all is settled", || async { gateway.account("buffered").await == 0 }).await;
    let (said, sent) = (counted(&said), counted(&node.readings()));
    assert!(said.len() > 1000 && said.len() < readings.len(), "{} readings", said.len());
    let different: Vec<_> =
        said.iter().filter(|(text, count)| sent.get(*text) != Some(count)).take(3).collect();
    assert!(different.is_empty() && said.len() == sent.len(), "{different:?}, {} {}", said.len(), sent.len());
}

/// The first 2,000 lines of a CSV file, as readings of one device.
fn of_csv(text: &str) -> Vec<Reading> {
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let reading = |sensor: &str, cell: &str, time: &str| {
        let value: serde_json::Value = serde_json::from_str(cell).expect("a number");
        json!({"device": "household", "sensor": sensor, "value": value, "time": time})
    };
    let row = |cells: Vec<&str>| {
        let named = head.iter().zip(&cells).skip(1);
        named.map(|(sensor, cell)| reading(sensor, cell, cells[0])).collect::<Vec<_>>()
    };
    lines.take(2000).flat_map(row).collect()
}

/// How often each reading is there.
fn counted(readings: &[Reading]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    readings.iter().for_each(|reading| *counts.entry(reading.to_string()).or_default() += 1);
    counts
}

#[test]
fn the_metrics_in_the_document_are_there() {
    let rows = table(TRANSFORMS, "| metric | what it tells |");
    let documented: Vec<_> = rows.iter().flat_map(|cells| names(&cells[0])).collect();
    assert!(!documented.is_empty());
    for name in documented {
        let known = TABLE.iter().find(|row| format!("{PREFIX}{}", row.name) == name);
        assert!(known.is_some_and(|row| row.labels.contains(&"transform")), "{name}");
    }
}

#[test]
fn the_functions_in_the_document_are_those_of_the_code() {
    let list = |texts: &[&str]| {
        SettingValue::List(texts.iter().map(|text| SettingValue::Text((*text).to_owned())).collect())
    };
    let settings = [("functions".to_owned(), list(&["none"]))];
    let mut settings = Settings::new(settings.into());
    let read = KINDS.find("aggregate").expect("a kind");
    let _ = read(&mut settings);
    let faults = settings.finish();
    let fault = faults.iter().find(|fault| fault.key == "functions").expect("a fault");
    let (_, known) = fault.problem.split_once("known: ").expect("those that are known");
    let rows = table(TRANSFORMS, "| function | result |");
    let documented: Vec<_> = rows.iter().flat_map(|cells| names(&cells[0])).collect();
    assert_eq!(documented, known.split(", ").collect::<Vec<_>>());
}

/// The cells of the table's rows that begin with this head.
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).expect("a document");
    let rows = text.lines().skip_while(|line| *line != head).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// The names in backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_kinds_and_their_settings_in_the_documents_are_those_of_the_code() {
    let mut code: Vec<(String, Vec<String>)> = Vec::new();
    for (kind, read) in KINDS.members {
        let mut settings = Settings::default();
        let _ = read(&mut settings);
        code.push(((*kind).to_owned(), settings.known().iter().map(|key| (*key).to_owned()).collect()));
    }
    let overview = table(
        "docs/src/transforms/overview.md",
        "| kind | what it does | settings beside `kind`, `name`, `devices`, `sensors` |",
    );
    let overview: Vec<_> =
        overview.iter().map(|cells| (names(&cells[0]).remove(0), names(&cells[2]))).collect();
    assert_eq!(overview, code);
    let mut document: Vec<(String, Vec<String>)> = Vec::new();
    for cells in table(TRANSFORMS, "| kind | setting | default | allowed |") {
        if let Some(kind) = names(&cells[0]).pop() {
            document.push((kind, Vec::new()));
        }
        document.last_mut().expect("the first row has a kind").1.extend(names(&cells[1]));
    }
    assert_eq!(document, code);
}
