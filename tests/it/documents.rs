//! The documents agree with the code: README.md, ARCHITECTURE.md, the book in docs/ and the rest are compared with the
//! sources. `tests/it/reference.rs` writes the pages that can be made from the sources.
//!
//! A failure here names the document and the line that is missing or too many. Either the code has changed and its
//! document has not, or the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{self, TestGateway};
use forebay::ingest::{STATUSES, StatusRow};
use http::StatusCode;

/// The floors of the gateway, the highest first: a source file uses only lower ones, and its own folder. A folder ends in
/// `/`. The floors below are crates, and Cargo sees to it that they know nothing above.
const FLOORS: &[(u8, &[&str])] = &[
    (8, &["main.rs", "lib.rs", "cli/"]),
    (7, &["gateway.rs", "gateway/"]),
    (6, &["config.rs", "config/"]),
    (5, &["ingest/", "status/", "node/"]),
    (4, &["delivery/"]),
    (3, &["buffer/"]),
    (2, &["routing/"]),
    (1, &["rejections.rs", "rejections/", "listener.rs", "listener/", "auth/", "watched.rs"]),
    (
        0,
        &[
            "backoff.rs",
            "node_id.rs",
            "filesystem.rs",
            "metrics.rs",
            "problem.rs",
            "door.rs",
            "door/",
            "tasks.rs",
            "directory_lock.rs",
            "zstd_contexts.rs",
            "via.rs",
            "tls/",
        ],
    ),
];

/// Where HTTP statuses may appear; `load` and `dead-letters` are clients of the gateway.
const HTTP_IS_SPOKEN: &[&str] = &[
    "door.rs",
    "door/",
    "ingest/",
    "status/",
    "node/",
    "problem.rs",
    "delivery/transport.rs",
    "delivery/transport/",
    "forebay-load/",
    "cli/dead_letters/",
];

/// Policies, and other code that decides without acting.
const POLICIES: &[&str] = &[
    "backoff.rs",
    "routing/",
    // Expressions are parsed in a thread of their own, once, at the start.
    "forebay-transform/aggregate.rs",
    "forebay-transform/aggregate/",
    "forebay-transform/chain.rs",
    "forebay-transform/deadband.rs",
    "forebay-transform/deadband/",
    "forebay-transform/dedupe.rs",
    "forebay-transform/dedupe/",
    "forebay-transform/filter.rs",
    "forebay-transform/map.rs",
    "forebay-transform/series.rs",
    "forebay-transform/series/",
    "buffer/drain_rate.rs",
    "buffer/ledger.rs",
    "delivery/batcher.rs",
    "delivery/breaker.rs",
    "delivery/budget.rs",
    "delivery/lanes.rs",
    "delivery/latency.rs",
    "delivery/limit.rs",
    "delivery/resumption.rs",
    "delivery/nodes.rs",
    "delivery/shards.rs",
    "ingest/key_header.rs",
    "ingest/idempotency/keys.rs",
    "ingest/idempotency/memo.rs",
    "ingest/idempotency/store.rs",
    "status/watch/condition.rs",
];

/// Forbidden in policies: clocks, tasks, random numbers of its own, files, sockets, other threads.
const NOT_IN_POLICIES: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "wall_time",
    "async ",
    ".await",
    "spawn",
    "fastrand",
    "std::fs",
    "std::net",
    "tokio::net",
    "reqwest",
    "Mutex",
    "mpsc",
];

/// The log, and the files of it in which the system's files are called by their names.
const LOG: &str = "forebay-wal/";
const REACHES_FILES: &[&str] = &["forebay-wal/fs.rs", "forebay-wal/private_files.rs"];

/// The page of the invariants.
const INVARIANTS: &str = "docs/src/inside/invariants.md";

/// The pages of the book, and the one that lists them.
const BOOK: &str = "docs/src/";
const SUMMARY: &str = "SUMMARY.md";

/// Most lines and bytes of the documents that a stranger reads first.
const LENGTHS: &[(&str, usize, usize)] =
    &[("README.md", 170, 12 * 1024), ("ARCHITECTURE.md", 170, 10 * 1024)];

/// Most lines of a page of the book.
const PAGE_LINES_MAX: usize = 400;

/// Most characters of a paragraph, in those and in the book; rows of tables are not counted.
const PARAGRAPH_MAX: usize = 450;

/// Most lines of a source file.
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of the project below `folder`, by its path from the root, without build output, stored data and git's files.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = entry.path();
            let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").to_owned();
            if [".git", "target", "data", "docs/book", "fuzz/target", "fuzz/corpus", "fuzz/artifacts"]
                .contains(&name.as_str())
            {
                continue;
            }
            match entry.file_type().expect("a type").is_dir() {
                true => folders.push(path),
                false => found.push(name),
            }
        }
    }
    found.sort();
    found
}

/// The sources: those of the gateway by their paths below `src/`, those of a crate as `NAME/` and their paths below its.
fn sources() -> BTreeMap<String, String> {
    let place = |path: &str| match path.strip_prefix("src/") {
        Some(below) => Some(below.to_owned()),
        None => {
            let (name, below) = path.strip_prefix("crates/")?.split_once("/src/")?;
            Some(format!("{name}/{below}"))
        }
    };
    let rust = files("src").into_iter().chain(files("crates")).filter(|path| path.ends_with(".rs"));
    rust.filter_map(|path| Some((place(&path)?, read(&path)))).collect()
}

/// Whether a source is of a crate, and not of the gateway.
fn is_of_a_crate(path: &str) -> bool {
    path.starts_with("forebay-")
}

/// The sources without comments, and without the code that is compiled for tests alone.
pub(crate) fn programs() -> BTreeMap<String, String> {
    let is_program = |(path, _): &(String, String)| path.rsplit('/').next() != Some("tests.rs");
    sources().into_iter().filter(is_program).map(|(path, text)| (path, program(&text))).collect()
}

fn program(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = before_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Whether `path` is one of `places`, or in one that is a folder.
fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// The cells of the rows of the first table in `document` whose head is `head`.
#[track_caller]
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let mut lines = text.lines().skip_while(|line| *line != head);
    assert!(lines.next().is_some(), "{document} has a table with the head {head}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The texts between backticks, each of which is on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_table_of_statuses_has_those_that_the_front_answers() {
    let constant = |status: &StatusCode| {
        let name = status.canonical_reason().unwrap_or_default().to_uppercase();
        name.replace([' ', '-'], "_")
    };
    let known: BTreeMap<String, u16> = (100..600)
        .filter_map(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.canonical_reason().is_some())
        .map(|status| (constant(&status), status.as_u16()))
        .collect();
    let mut answered = BTreeSet::new();
    for (path, text) in programs().iter().filter(|(path, _)| is_in(path, &["ingest/", "door.rs", "door/"])) {
        for rest in text.split("StatusCode::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            // A function, such as `from_u16`, is no status.
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                answered.insert(*known.get(&name).unwrap_or_else(|| panic!("{path} has {name}")));
            }
        }
    }

    let (reserved, known): (Vec<&StatusRow>, Vec<_>) =
        STATUSES.iter().partition(|row| row.when.starts_with("reserved"));
    assert_eq!(reserved.iter().map(|row| row.status).collect::<Vec<_>>(), [0_u16; 0]);
    assert_eq!(known.iter().map(|row| row.status).collect::<BTreeSet<_>>(), answered);
    assert!(STATUSES.is_sorted_by_key(|row| row.status), "they stand in their order");
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_of_it() {
    let mut faults = Vec::new();
    for document in documents() {
        let folder = Path::new(&document).parent().map(PathBuf::from).unwrap_or_default();
        for target in links(&read(&document)) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { PathBuf::from(&document) } else { folder.join(path) };
            if !root().join(&file).exists() {
                faults.push(format!("{document} links to {target}, which is not there"));
            } else if !anchor.is_empty()
                && !anchors(&read(file.to_str().expect("UTF-8"))).iter().any(|known| known == anchor)
            {
                faults.push(format!("{document} links to {target}, and there is no such heading"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_page_of_the_book_is_in_its_summary_once() {
    let mut listed = links(&read(&format!("{BOOK}{SUMMARY}")));
    listed.sort();
    let pages: Vec<String> = documents()
        .iter()
        .filter_map(|document| document.strip_prefix(BOOK))
        .filter(|page| *page != SUMMARY)
        .map(str::to_owned)
        .collect();
    assert!(!pages.is_empty(), "there is a book");
    assert_eq!(listed, pages, "{BOOK}{SUMMARY} and the pages that are there");
}

#[test]
fn no_document_is_longer_than_people_read() {
    let mut faults = Vec::new();
    for document in documents() {
        let text = read(&document);
        let known = LENGTHS.iter().find(|(name, ..)| *name == document);
        let (lines, bytes) = match known {
            Some((_, lines, bytes)) => (*lines, *bytes),
            None if document.starts_with(BOOK) => (PAGE_LINES_MAX, usize::MAX),
            None => continue,
        };
        if text.lines().count() > lines || text.len() > bytes {
            let (has, size) = (text.lines().count(), text.len());
            faults.push(format!("{document} has {has} lines and {size} bytes; at most {lines} and {bytes}"));
        }
        for line in outside_of_blocks(&text).filter(|line| !line.starts_with('|')) {
            let characters = line.chars().count();
            if characters > PARAGRAPH_MAX {
                let beginning: String = line.chars().take(60).collect();
                faults.push(format!("{document} has a paragraph of {characters} characters: {beginning}…"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every document in Markdown, by its path from the root, in order.
fn documents() -> Vec<String> {
    files("").into_iter().filter(|path| path.ends_with(".md")).collect()
}

/// The lines of a document that are not in a block of code.
fn outside_of_blocks(document: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}

/// The relative links of a document, pictures included; text in backticks is not a link.
fn links(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in outside_of_blocks(document) {
        let prose: String = line.split('`').step_by(2).collect();
        for rest in prose.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.contains("://") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
fn anchors(document: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in outside_of_blocks(document).filter(|line| line.starts_with('#')) {
        let slug = slug(line);
        let before = seen.entry(slug.clone()).or_default();
        // A heading that is there again gets a number.
        found.push(if *before == 0 { slug } else { format!("{slug}-{before}") });
        *before += 1;
    }
    found
}

/// The anchor of a heading that is there once.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_and_anchors_are_found_as_markdown_has_them() {
    let document = "# A `b_c`: d, e!\n[x](y.md#z), `[no](no.md)` and ![p](p.svg)\n```sh\n# no heading\n[no](no)\n```\n\
                    ## Again\n## Again\n[far](https://example.org)\n";
    assert_eq!(links(document), ["y.md#z", "p.svg"]);
    assert_eq!(anchors(document), ["a-b_c-d-e", "again", "again-1"]);
}

#[test]
fn the_floors_in_the_document_are_those_that_the_test_holds() {
    let rows = table("ARCHITECTURE.md", "| floor | files | what stands there |");
    let documented: Vec<(u8, Vec<&str>)> =
        rows.iter().map(|row| (row[0].parse().expect("a number"), quoted(&row[1]).collect())).collect();
    let held: Vec<(u8, Vec<&str>)> = FLOORS.iter().map(|(floor, files)| (*floor, files.to_vec())).collect();
    assert_eq!(documented, held);
}

#[test]
fn every_source_uses_only_lower_floors_and_its_own_folder() {
    let place = |path: &str| {
        let found =
            FLOORS.iter().flat_map(|(floor, places)| places.iter().map(move |place| (*floor, *place)));
        found.into_iter().find(|(_, place)| is_in(path, &[place]))
    };
    let mut faults = Vec::new();
    for (path, text) in programs().into_iter().filter(|(path, _)| !is_of_a_crate(path)) {
        let Some((floor, _)) = place(&path) else {
            faults.push(format!("src/{path} stands on no floor"));
            continue;
        };
        let own = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        for rest in text.split("crate::").skip(1) {
            let used: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let below = place(&format!("{used}.rs")).or_else(|| place(&format!("{used}/")));
            match below {
                _ if used == own => {}
                Some((below, _)) if below < floor => {}
                Some((below, _)) => {
                    faults.push(format!("src/{path} (floor {floor}) uses {used} (floor {below})"));
                }
                None => faults.push(format!("src/{path} uses `crate::{used}`, which stands on no floor")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_test_that_an_invariant_names_exists() {
    let page = read(INVARIANTS);
    let mut faults = Vec::new();
    for name in quoted(&page).filter(|name| name.contains(".rs::")) {
        let (file, test) = name.split_once("::").expect("a file and a test");
        if !root().join(file).exists() || !has_test(&read(file), test) {
            faults.push(format!("{INVARIANTS} names {name}, which is not there"));
        }
    }
    // Where an invariant is held, its doc names the test too.
    let everywhere = ["src", "crates", "tests"].into_iter().flat_map(files);
    let tests: String = everywhere.filter(|path| path.ends_with(".rs")).map(|path| read(&path)).collect();
    for (path, text) in sources() {
        let docs = text.split("**Invariant**").skip(1).map(|rest| {
            rest.lines().enumerate().take_while(|(n, line)| *n == 0 || line.trim().starts_with("///"))
        });
        for doc in docs {
            let doc: String = doc.map(|(_, line)| line.trim().trim_start_matches("///")).collect();
            let mut names = quoted(&doc).map(|name| name.rsplit("::").next().unwrap_or(name));
            if !names.any(|name| has_test(&tests, name)) {
                faults.push(format!("{path} has an invariant that names no test that is there:{doc}"));
            }
        }
    }
    for (number, _) in page.match_indices("TODO(test)") {
        let left: String = page[number..].chars().take_while(|c| *c != '\n').collect();
        faults.push(format!("{INVARIANTS}: {left}"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether the source has a function of this name under a test attribute, or in a `proptest!`.
fn has_test(source: &str, name: &str) -> bool {
    let is_it = |line: &str| line.contains(&format!("fn {name}("));
    let lines: Vec<&str> = source.lines().collect();
    lines.windows(2).any(|pair| is_it(pair[1]) && pair[0].trim_start().starts_with("#["))
}

#[test]
fn http_statuses_appear_only_where_http_is_spoken() {
    let elsewhere: Vec<String> = programs()
        .into_iter()
        .filter(|(path, text)| text.contains("StatusCode") && !is_in(path, HTTP_IS_SPOKEN))
        .map(|(path, _)| path)
        .collect();
    assert!(elsewhere.is_empty(), "StatusCode is no business of {}", elsewhere.join(", "));
}

#[test]
fn policies_read_no_clock_and_do_no_input_or_output() {
    let programs = programs();
    for policy in POLICIES {
        assert!(programs.keys().any(|path| is_in(path, &[policy])), "{policy} is there");
    }
    for (path, text) in programs.iter().filter(|(path, _)| is_in(path, POLICIES)) {
        for word in NOT_IN_POLICIES {
            assert!(!text.contains(word), "{path} decides and must not use {word}");
        }
    }
}

#[test]
fn the_log_reaches_files_in_one_place() {
    let programs = programs();
    for path in REACHES_FILES {
        assert!(programs.contains_key(*path), "{path} is there");
    }
    for (path, text) in programs.iter().filter(|(path, _)| is_in(path, &[LOG])) {
        assert!(is_in(path, REACHES_FILES) || !text.contains("std::fs"), "{path} must use {REACHES_FILES:?}");
    }
}

#[test]
fn no_source_is_longer_than_people_read() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path} has {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX}: {}", long.join(", "));
}

#[tokio::test]
async fn the_openapi_document_has_every_path_that_is_served() {
    let document: serde_json::Value = serde_json::from_str(&forebay::gateway::openapi()).expect("JSON");
    let mut documented: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            documented.push((path.clone(), method.to_uppercase()));
        }
    }
    documented.sort();

    let taking = || forebay::ingest::PATHS.iter().map(|(path, _)| *path);
    for path in taking() {
        // Every request may get these answers before its path is looked at.
        for status in ["400", "403", "421", "501"] {
            assert!(document["paths"][path]["post"]["responses"][status].is_object(), "{path}: {status}");
        }
    }
    let served: BTreeSet<&str> = forebay::status::PATHS.iter().copied().chain(taking()).collect();
    assert_eq!(documented.iter().map(|(path, _)| path.as_str()).collect::<BTreeSet<_>>(), served);
    // No route beside those that the lists name.
    let routes: BTreeSet<String> = programs()
        .iter()
        .filter(|(path, _)| is_in(path, &["ingest/", "status/", "gateway.rs"]))
        .flat_map(|(_, text)| text.split(".route(\"").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
        .chain(taking().map(str::to_owned))
        .collect();
    assert_eq!(routes.iter().map(String::as_str).collect::<BTreeSet<_>>(), served);

    let mut rows: Vec<_> = table("docs/src/sending/http.md", "| path | method | what |")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone()))
        .collect();
    rows.sort();
    assert_eq!(rows, documented, "the page and the OpenAPI document");

    let node = support::FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    for (path, method) in documented {
        let reply = match method.as_str() {
            // Served where no nodes are configured (tests/it/lifecycle.rs).
            "GET" if path == forebay::ingest::READINGS_PATH => {
                gateway.get(&path).await.expect_status(405);
                continue;
            }
            "GET" => gateway.get(&path).await,
            "POST" if path == forebay::ingest::READINGS_PATH => {
                gateway.post_body("application/json", "[]").await
            }
            "POST" => gateway.send(gateway.request(&path)).await,
            other => panic!("{path} is documented with {other}"),
        };
        assert!(reply.status.is_success(), "{method} {path}: {}", reply.status);
    }
    assert_eq!(gateway.stop().await.undelivered, 0);
}

/// The request that curl sends with `--json` in the first minute, and the answer that stands under it.
#[tokio::test]
async fn the_answers_of_the_first_minute_are_those_of_the_gateway() {
    let node = support::FakeNode::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    let gateway = TestGateway::new().on_disk(directory.path()).node(&node).start().await;
    for document in ["README.md", "docs/src/start/first-minute.md"] {
        let text = read(document);
        let mut tried = 0;
        for rest in text.split("```sh\ncurl --json '").skip(1) {
            let (body, rest) =
                rest.split_once("' http://127.0.0.1:8080/v1/readings\n```\n").expect("a request");
            let (_, rest) = rest.split_once("```json\n").expect("an answer");
            let (answer, _) = rest.split_once("```").expect("an end");
            let reply = gateway.post_body("application/json", body.to_owned()).await.expect_status(202);
            assert_eq!(reply.text(), answer, "{document}: {body}");
            tried += 1;
        }
        assert_eq!(tried, 2, "{document}");
    }
    assert_eq!(gateway.stop().await.undelivered, 0);
}

#[test]
fn no_text_speaks_of_the_machine_it_was_written_on() {
    // Put together here, so that this file is not the first to be found.
    let forbidden = [["/wo", "rk/"].concat(), ["/ro", "ot"].concat()];
    for path in files("") {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for word in &forbidden {
            let line = text.lines().position(|line| line.contains(word.as_str()));
            assert_eq!(line.map(|line| line + 1), None, "{path} has {word} in this line");
        }
    }
}
