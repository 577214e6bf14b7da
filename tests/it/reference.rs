//! The reference pages of the book are written from the code:
//!
//! ```sh
//! FOREBAY_WRITE_DOCS=1 cargo test --locked --test it reference
//! ```
//!
//! Without the variable nothing is written, and a page that differs fails its test.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use forebay::buffer::{Ack, OVERFLOW_POLICIES};
use forebay::cli;
use forebay::config::Config;
use forebay::ingest::{REFUSALS, STATUSES};
use forebay::metrics::{MetricKind, PREFIX, TABLE};
use forebay_codec::Reason;

/// The variable that has the pages written.
const WRITE: &str = "FOREBAY_WRITE_DOCS";
/// The command that writes them.
const COMMAND: &str = "FOREBAY_WRITE_DOCS=1 cargo test --locked --test it reference";
/// The folder of the pages.
const FOLDER: &str = "docs/src/reference";
/// Every page that is written here.
const PAGES: &[&str] = &["acks.md", "commands.md", "metrics.md", "settings.md", "statuses.md"];

/// The settings file of which all defaults are.
const DEFAULTS: &str = "config/default.toml";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Writes the page, or compares it with the existing one.
#[track_caller]
fn write_or_compare(name: &str, text: &str) {
    assert!(PAGES.contains(&name), "{name} is a page of the list");
    let path: PathBuf = root().join(FOLDER).join(name);
    if std::env::var_os(WRITE).is_some_and(|value| value == "1") {
        fs::create_dir_all(root().join(FOLDER)).expect("the folder");
        return fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    if let Some(difference) = first_difference(&there, text) {
        panic!("{FOLDER}/{name} is not what the code says. {difference}\nWrite the pages anew: {COMMAND}");
    }
}

/// The first line in which two texts differ, for people.
fn first_difference(there: &str, expected: &str) -> Option<String> {
    let (mut left, mut right) = (there.lines(), expected.lines());
    for number in 1.. {
        let (left, right) = (left.next(), right.next());
        if left == right && left.is_some() {
            continue;
        }
        // Texts with the same lines may still differ in the line feed at their end.
        if left.is_none() && right.is_none() && there == expected {
            return None;
        }
        let shown = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
        return Some(format!(
            "Line {number} is\n  {}\nand would be written as\n  {}",
            shown(left),
            shown(right)
        ));
    }
    None
}

/// A page's beginning. `source` is where its facts come from.
fn page(title: &str, source: &str, introduction: &str) -> String {
    format!("<!-- Written by `{COMMAND}` from {source}. -->\n\n# {title}\n\n{introduction}\n")
}

/// Appends a table to `text`.
fn table<const N: usize>(text: &mut String, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push('\n');
    text.push_str(&line(&head.map(str::to_owned)));
    text.push_str(&format!("|{}\n", "---|".repeat(N)));
    for row in rows {
        text.push_str(&line(&row.map(|cell| cell.replace('|', "\\|"))));
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The settings as the file of defaults has them: key, default, comment. A table without keys is one row.
fn settings() -> Vec<[String; 3]> {
    let (mut rows, mut table, mut comment) = (Vec::new(), String::new(), Vec::new());
    for line in read(DEFAULTS).lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
        } else if let Some((key, value)) = line.split_once(" = ") {
            rows.push([format!("{table}.{key}"), value.to_owned(), comment.join(" ")]);
            comment.clear();
        } else if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
            if !comment.is_empty() {
                rows.push([table.clone(), String::new(), comment.join(" ")]);
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    rows
}

fn settings_page() -> String {
    let introduction = "Each setting with its default. [Where settings come from](../operating/settings.md) says how \
                        to set one; as a variable of the environment, `server.listen` is `FOREBAY__SERVER__LISTEN`. \
                        Durations are whole numbers with `ms`, `s`, `m`, `h` or `d`; sizes with `B`, `KiB`, `MiB`, \
                        `GiB` or `TiB`.";
    let mut text = page("Settings", DEFAULTS, introduction);
    let rows = settings();
    let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    let mut sections: Vec<String> = rows.iter().map(|[key, ..]| section(key)).collect();
    sections.dedup();
    for name in sections {
        write!(text, "\n## {name}\n").expect("a text");
        let rows = rows.iter().filter(|[key, ..]| section(key) == name).map(|[key, value, meaning]| {
            let value = if value.is_empty() { "(empty)".to_owned() } else { code(value) };
            [code(key), value, meaning.clone()]
        });
        table(&mut text, ["key", "default", "meaning"], rows);
    }
    text + "\n## transform\n\nA list of `[[transform]]`, empty by default: [their settings](../transforms/examples.md#the-settings).\n"
}

#[test]
fn the_settings_are_those_of_the_file_of_defaults() {
    write_or_compare("settings.md", &settings_page());
}

#[test]
fn the_file_of_defaults_has_every_setting_that_the_program_reads() {
    let config = Config::read(None, &[]).expect("the defaults are good");
    let read: BTreeSet<_> =
        config.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect();
    let bare = |value: &str| value.trim_matches(['[', ']']).replace('"', "");
    let documented: BTreeSet<_> = settings()
        .iter()
        .filter(|[_, value, _]| !value.is_empty())
        .map(|[key, value, _]| (key.clone(), bare(value)))
        .collect();
    assert_eq!(documented, read, "{DEFAULTS} and what the program reads");
}

#[test]
fn the_metrics_are_those_of_their_table() {
    let introduction = "`GET /metrics` gives them in the text format of Prometheus. No label carries a device's name. \
                        Families with the label `transform` have a line for each transform, and none where none is \
                        configured. The usual `process_*` come beside them.";
    let mut text = page("Metrics", "the table in src/metrics.rs", introduction);
    let rows = TABLE.iter().map(|row| {
        let kind = match row.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<_> = row.labels.iter().map(|label| code(label)).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
        [code(&format!("{PREFIX}{}", row.name)), kind.to_owned(), labels, row.help.to_owned()]
    });
    table(&mut text, ["name", "kind", "labels", "help"], rows);
    write_or_compare("metrics.md", &text);
}

#[test]
fn the_statuses_and_reasons_are_those_of_the_front() {
    let introduction = "What the paths that take readings answer. Every answer of `/v1/readings` but 202 is a problem, \
                        `application/problem+json` (RFC 9457); the clients of InfluxDB get \
                        [answers of their own](../sending/line-protocol.md). More on 403 and 421: \
                        [Web pages and names](../sending/web-pages.md); on 409: [Sending again](../sending/again.md); \
                        on 422 with `ack=delivered`: [Dead letters](../delivering/dead-letters.md).";
    let mut text = page("Statuses", "the tables in src/ingest/ and crates/forebay-codec/", introduction);
    let rows =
        STATUSES.iter().map(|row| [row.status.to_string(), row.when.to_owned(), row.remedy.to_owned()]);
    table(&mut text, ["status", "when", "what to do"], rows);

    text += "\n## Reasons of requests\n\nWhy nothing of a request was taken, in `forebay_requests_refused_total` and at \
             `/status/rejections`:\n";
    table(
        &mut text,
        ["reason", "what it means"],
        REFUSALS.iter().map(|(name, what)| [code(name), (*what).to_owned()]),
    );

    text += "\n## Reasons of readings\n\nWhy a reading was turned away, in `forebay_readings_rejected_total` and at \
             `/status/rejections`:\n";
    let docs = docs_of_variants("crates/forebay-codec/src/lib.rs", "Reason");
    assert_eq!(docs.len(), Reason::NAMES.len(), "each reason has a name");
    let rows = Reason::NAMES.iter().zip(docs).map(|((name, reason), (variant, doc))| {
        assert_eq!(format!("{reason:?}"), variant, "the names are in the order of the reasons");
        [code(name), doc]
    });
    table(&mut text, ["reason", "what it means"], rows);
    write_or_compare("statuses.md", &text);
}

#[test]
fn acknowledgements_and_overflow_policies_are_documented_in_the_words_of_the_code() {
    let introduction = "The promises of `buffer.ack` and `?ack=`, and what `buffer.on_full` chooses between. \
                        [What an acknowledgement promises](../promises/acknowledgements.md) and \
                        [Overload](../promises/overload.md) say more.";
    let mut text = page("Acknowledgements and overflow policies", "src/buffer/mod.rs", introduction);
    let rows = |name: &str, names: Vec<&str>| {
        let docs = docs_of_variants("src/buffer/mod.rs", name);
        let variants: Vec<_> = docs.iter().map(|(variant, _)| snake_case(variant)).collect();
        assert_eq!(variants, names, "the names are those of the variants");
        docs.into_iter().map(|(variant, doc)| [code(&snake_case(&variant)), doc])
    };
    text += "\n## Acknowledgements\n";
    table(&mut text, ["ack", "what it promises"], rows("Ack", Ack::NAMES.names().collect()));
    text += "\n## A full buffer\n";
    table(&mut text, ["on_full", "what happens"], rows("OnFull", OVERFLOW_POLICIES.names().collect()));
    write_or_compare("acks.md", &text);
}

/// The variants of an enum with their docs, each as one line.
#[track_caller]
fn docs_of_variants(source: &str, name: &str) -> Vec<(String, String)> {
    let head = format!("pub enum {name} {{");
    let text = read(source);
    let body = text.lines().skip_while(|line| *line != head).skip(1).take_while(|line| *line != "}");
    let (mut found, mut doc) = (Vec::new(), Vec::new());
    for line in body {
        // Fields of a variant are indented further.
        let Some(line) = line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}'])) else {
            continue;
        };
        match line.strip_prefix("///") {
            Some(text) => doc.push(text.trim().to_owned()),
            None => {
                let variant: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
                found.push((variant, std::mem::take(&mut doc).join(" ")));
            }
        }
    }
    assert!(!found.is_empty(), "{source} has {head}");
    found
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[test]
fn the_commands_are_those_of_the_command_line() {
    let introduction = "What `forebay COMMAND --help` says. `forebay` alone is `forebay serve`. Logs go to standard \
                        error. [Exit status](../operating/stopping.md#exit-status) has what 0, 1 and 2 mean.";
    let mut text = page("Commands", "src/cli/", introduction);
    let mut root = cli::command();
    root.build();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(&mut text, command, "forebay", 2);
    }
    write_or_compare("commands.md", &text);
}

/// A section on a command, and one on each of its own.
fn describe(text: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let heading = "#".repeat(level);
    write!(text, "\n{heading} {name}\n\n{}\n\n```text\n{usage}\n```\n", sentence(&about)).expect("a text");
    let arguments: Vec<_> = command
        .get_arguments()
        .filter(|argument| argument.get_id() != "help" && !argument.is_hide_set())
        .collect();
    if !arguments.is_empty() {
        let rows = arguments.into_iter().map(|argument| {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            [code(&spelled(argument)), default(argument), sentence(&help)]
        });
        table(text, ["argument", "default", "what it does"], rows);
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        describe(text, inner, &name, level + 1);
    }
}

/// An argument as it is given: `--rate <R>`, `[URL]`.
fn spelled(argument: &Arg) -> String {
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let names = argument.get_value_names().unwrap_or_default();
    let value = names.first().map(ToString::to_string).unwrap_or_else(|| argument.get_id().to_string());
    match argument.get_long() {
        Some(long) if takes_value => format!("--{long} <{value}>"),
        Some(long) => format!("--{long}"),
        None if argument.is_required_set() => format!("<{value}>"),
        None => format!("[{value}]"),
    }
}

fn default(argument: &Arg) -> String {
    let values = argument.get_default_values().iter();
    let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
    match argument.get_action() {
        ArgAction::Set | ArgAction::Append if !values.is_empty() => code(&values.join(", ")),
        _ => "–".to_owned(),
    }
}

/// A text of the command line, which has no full stop.
fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() || text.ends_with('.') { text } else { text + "." }
}

#[test]
fn every_page_of_the_folder_is_written_here() {
    let entries = fs::read_dir(root().join(FOLDER)).expect("the folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    // The first run writes them in any order.
    if std::env::var_os(WRITE).is_none() {
        assert_eq!(names, PAGES);
    }
}

#[test]
fn the_first_line_that_differs_is_found() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    let told = |there: &str| first_difference(there, "a\nb\n").expect("a difference");
    assert!(told("a\nc\n").starts_with("Line 2 is\n  c\nand would be written as\n  b"));
    assert!(told("a\n").contains("Line 2 is\n  (the end)"));
    assert!(told("a\nb\nc\n").contains("Line 3 is\n  c\nand would be written as\n  (the end)"));
    assert!(told("a\nb").contains("Line 3"));
    assert!(told("").starts_with("Line 1 is"));
}
