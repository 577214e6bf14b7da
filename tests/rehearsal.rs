//! What is promised of `forebay check --try`, and of the examples in docs/transforms.md.

mod support;

use std::fs;
use std::path::Path;

use forebay::transform::KINDS;
use forebay::transform::settings::Settings;
use support::process::{Finished, directory, forebay, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const HOUSEHOLD: &str = "tests/data/household_power_2007-02.csv";

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
    let document = fs::read_to_string(Path::new(ROOT).join("docs/transforms.md")).expect("a document");
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
    assert_eq!(tried, 6);
}

#[test]
fn a_file_is_read_as_its_name_says_and_what_cannot_be_is_told() {
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
        "[[transform]]\nkind = \"filter\"\nkeep = 'valeu > 1.0'\n",
        Path::new("a.json"),
    );
    let said = faulty.expect_status(2).stderr;
    assert!(
        said.contains("transforms.toml:3: transform filter-1: keep: ")
            && said.contains("did you mean `value`"),
        "{said}"
    );
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
    let readme =
        table("README.md", "| kind | what it does | settings beside `kind`, `name`, `devices`, `sensors` |");
    let readme: Vec<_> = readme.iter().map(|cells| (names(&cells[0]).remove(0), names(&cells[2]))).collect();
    assert_eq!(readme, code);
    let mut document: Vec<(String, Vec<String>)> = Vec::new();
    for cells in table("docs/transforms.md", "| kind | setting | default | allowed |") {
        if let Some(kind) = names(&cells[0]).pop() {
            document.push((kind, Vec::new()));
        }
        document.last_mut().expect("the first row has a kind").1.extend(names(&cells[1]));
    }
    assert_eq!(document, code);
}
