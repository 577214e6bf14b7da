//! The promises of `forebay dead-letters`: it shows refused readings, sends them again without doubling any, and removes
//! only the selected ones.

mod replay;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::support::process::{Finished, Process, directory, forebay, run};
use crate::support::{Answer, FakeNode, Reading, RunningGateway, TestGateway, eventually, reading, readings};
use forebay::delivery::dead_letter::LetterOrigin;
use forebay::delivery::{DeadLetter, DeadLetterConfig, DeadLetters};
use forebay_reading::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where the settings have them, below a directory.
const PATH: &str = "data/dead-letters";

fn letter(reading: &Reading, reason: &'static str, at: &str) -> DeadLetter {
    DeadLetter {
        reading: serde_json::to_vec(reading).expect("JSON"),
        reason,
        status: 422,
        node: "10.0.0.1:9000".to_owned(),
        body: "no such\nsensor\u{1b}[2J".to_owned(),
        at: Timestamp::parse(at).expect("an instant"),
        origin: None,
    }
}

/// Keeps letters as a gateway does.
fn keep(directory: &Path, letters: &[DeadLetter]) {
    let config = DeadLetterConfig { path: directory.join(PATH), max_bytes: 1 << 30 };
    DeadLetters::new(config).append(letters).expect("a sound disk");
}

/// These readings were refused, one a second.
fn keep_refused(directory: &Path, refused: &[Reading]) {
    let at = |second: usize| format!("2026-02-01T12:{:02}:{:02}Z", second / 60 % 60, second % 60);
    let letters: Vec<_> =
        refused.iter().enumerate().map(|(n, reading)| letter(reading, "refused", &at(n))).collect();
    keep(directory, &letters);
}

fn dead_letters(directory: &Path, arguments: &[&str]) -> Finished {
    run(forebay(directory, &[&["dead-letters"], arguments].concat(), &[]))
}

/// Runs the command while a gateway runs in this process.
async fn dead_letters_meanwhile(directory: &Path, arguments: &[&str]) -> Finished {
    let command = forebay(directory, &[&["dead-letters"], arguments].concat(), &[]);
    tokio::task::spawn_blocking(|| run(command)).await.expect("no panic")
}

async fn replay(directory: &Path, gateway: &RunningGateway, more: &[&str]) -> Finished {
    let url = gateway.url("");
    dead_letters_meanwhile(directory, &[&["replay", "--gateway", &url], more].concat()).await
}

/// The readings of all letters that are there, in their order.
fn kept(directory: &Path) -> Vec<Reading> {
    let lines = dead_letters(directory, &["list", "--json"]).expect_status(0).stdout;
    lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["reading"].clone()).collect()
}

/// All files of letters, with their contents.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory.join(PATH)).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let letters = paths.filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    letters.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

#[track_caller]
fn expect(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in\n{text}");
}

async fn expect_delivered(node: &FakeNode, expected: &[Reading]) {
    eventually("the readings arrive", || async { node.count() >= expected.len() }).await;
    let arrived: Vec<_> = node.stored().iter().flat_map(|batch| batch.readings()).collect();
    assert_eq!(arrived, expected, "each once, in order");
}

#[test]
fn list_shows_a_line_for_each_and_counts_them() {
    let directory = directory();
    let [first, second, third] = [reading(0), reading(1), reading(2)];
    keep(directory.path(), &[letter(&first, "refused", "2026-02-01T12:00:00.5Z")]);
    keep(directory.path(), &[letter(&second, "too_large", "2026-02-01T12:00:01Z")]);
    keep(directory.path(), &[letter(&third, "refused", "2026-02-01T12:00:02Z")]);
    let before = files(directory.path());

    let listed = dead_letters(directory.path(), &["list"]).expect_status(0);
    assert_eq!(
        listed.stdout,
        "2026-02-01T12:00:00.500Z  meter-0/voltage  refused  422  10.0.0.1:9000  no such sensor\u{fffd}[2J\n\
         2026-02-01T12:00:01Z  meter-1/voltage  too_large  422  10.0.0.1:9000  no such sensor\u{fffd}[2J\n\
         2026-02-01T12:00:02Z  meter-2/voltage  refused  422  10.0.0.1:9000  no such sensor\u{fffd}[2J\n\
         3 dead letters\n"
    );
    let limited = dead_letters(directory.path(), &["list", "--limit", "1"]).expect_status(0);
    assert_eq!(limited.stdout.lines().count(), 2);
    expect(&limited.stdout, "1 of 3 dead letters");

    let json = dead_letters(directory.path(), &["list", "--json"]).expect_status(0);
    assert_eq!(json.stdout.as_bytes(), before.values().next().expect("one file").as_slice());
    assert_eq!(json.stderr, "3 dead letters\n");
    assert!(files(directory.path()) == before, "nothing has changed");
}

#[test]
fn filters_select_letters() {
    let directory = directory();
    let mut other = reading(9);
    other["sensor"] = json!("current");
    keep(directory.path(), &[letter(&reading(0), "refused", "2026-02-01T12:00:00Z")]);
    keep(directory.path(), &[letter(&reading(1), "too_large", "2026-02-01T12:00:01Z")]);
    keep(directory.path(), &[letter(&other, "refused", "2026-02-01T12:00:02Z")]);
    let check = |filter: &[&str], expected: &[Reading]| {
        let listed = dead_letters(directory.path(), &[&["list", "--json"], filter].concat()).expect_status(0);
        let found: Vec<Value> =
            listed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let found: Vec<_> = found.iter().map(|line| line["reading"].clone()).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    check(&["--reason", "too_large"], &[reading(1)]);
    check(&["--device", "meter-0"], &[reading(0)]);
    check(&["--sensor", "current"], std::slice::from_ref(&other));
    check(&["--before", "2026-02-01T13:00:01+01:00"], &[reading(0)]);
    check(&["--reason", "refused", "--sensor", "voltage"], &[reading(0)]);
    check(&["--device", "meter"], &[]);
    let wrong = dead_letters(directory.path(), &["list", "--before", "yesterday"]).expect_status(2);
    expect(&wrong.stderr, "RFC 3339");
}

#[test]
fn a_line_that_cannot_be_read_is_named_and_kept_and_fails_a_list_and_no_purge() {
    let directory = directory();
    keep_refused(directory.path(), &readings(1));
    let path = directory.path().join(PATH).join("00000001.ndjson");
    let mut file = OpenOptions::new().append(true).open(&path).expect("a file");
    file.write_all(b"\nno letter\n{\"reading\":{\"dev").expect("written");
    keep_refused(directory.path(), &[reading(1)]);

    let listed = dead_letters(directory.path(), &["list"]).expect_status(1);
    expect(&listed.stdout, "2 dead letters");
    expect(&listed.stderr, "00000001.ndjson:3: cannot be read");
    expect(&listed.stderr, "00000001.ndjson:4: cannot be read");
    expect(&listed.stderr, "2 lines cannot be read");

    let purged = dead_letters(directory.path(), &["purge", "--yes"]).expect_status(0);
    expect(&purged.stdout, "removed 2 dead letters");
    expect(&purged.stderr, "2 lines cannot be read");
    let left = files(directory.path());
    assert_eq!(left.into_values().collect::<Vec<_>>(), [b"\nno letter\n{\"reading\":{\"dev"]);
}

#[tokio::test]
async fn a_line_that_cannot_be_read_fails_a_replay_that_sends_the_others() {
    let directory = directory();
    keep_refused(directory.path(), &readings(1));
    let path = directory.path().join(PATH).join("00000001.ndjson");
    OpenOptions::new().append(true).open(&path).expect("a file").write_all(b"no letter\n").expect("written");
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    for expected in ["replayed 1 dead letter", "replayed no dead letters"] {
        let done = replay(directory.path(), &gateway, &[]).await.expect_status(1);
        expect(&done.stdout, expected);
        expect(&done.stderr, "1 line cannot be read");
    }
    assert_eq!(files(directory.path()).into_values().collect::<Vec<_>>(), [b"no letter\n"]);
}

#[test]
fn a_directory_of_something_else_is_no_directory_of_dead_letters() {
    let directory = directory();
    let make = |path: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, "").expect("written");
    };
    ["data/buffer/lock", "data/buffer/checkpoint-a", "log/00000000000000000001.segment", "etc/passwd"]
        .into_iter()
        .for_each(make);
    make("letters/lock");
    for command in [&["list"] as &[&str], &["list", "--json"], &["replay"], &["purge"], &["purge", "--yes"]] {
        let at = |path: &str| dead_letters(directory.path(), &[command, &["--path", path]].concat());
        for path in ["data/buffer", "log"] {
            expect(&at(path).expect_status(1).stderr, "is the directory of a buffer");
        }
        for path in ["data", "etc"] {
            let done = at(path).expect_status(1);
            expect(&done.stderr, "is no directory of dead letters");
            expect(&done.stderr, "`--path`");
        }
        at("letters").expect_status(0);
    }
}

#[test]
fn a_missing_directory_is_named_with_its_setting_and_not_made() {
    let directory = directory();
    let commands = [&["list"] as &[&str], &["list", "--json"], &["replay"], &["purge"], &["purge", "--yes"]];
    for command in commands {
        let done = dead_letters(directory.path(), command).expect_status(1);
        assert_eq!(done.stdout, "");
        for part in ["no directory data/dead-letters", "`dead_letter.path`", "--path"] {
            expect(&done.stderr, part);
        }
        let elsewhere = dead_letters(directory.path(), &[command, &["--path", "else/where"]].concat());
        expect(&elsewhere.expect_status(1).stderr, "no directory else/where");
    }
    assert!(fs::read_dir(directory.path()).expect("a directory").next().is_none());
    fs::write(directory.path().join("file"), "").expect("written");
    let file = dead_letters(directory.path(), &["list", "--path", "file"]).expect_status(1);
    expect(&file.stderr, "file is no directory");
    dead_letters(directory.path(), &["mend"]).expect_status(2);

    fs::create_dir_all(directory.path().join(PATH)).expect("made");
    for command in [&["list"] as &[&str], &["list", "--json"], &["replay"], &["purge"]] {
        let done = dead_letters(directory.path(), command).expect_status(0);
        expect(&(done.stdout + &done.stderr), "no dead letters");
    }
}

#[test]
fn a_filter_that_no_letter_can_match_is_wrong_use_and_the_choices_are_named() {
    let directory = directory();
    keep_refused(directory.path(), &readings(1));
    for command in ["list", "replay", "purge"] {
        let told = |option: &[&str]| {
            let done = dead_letters(directory.path(), &[&[command], option].concat()).expect_status(2);
            assert_eq!(done.stdout, "");
            done.stderr
        };
        let reason = told(&["--reason", "refusd"]);
        for part in ["refusd", "refused", "too_large", "not_numeric", "unwritable"] {
            expect(&reason, part);
        }
        expect(&told(&["--reason", "damaged"]), "no letter has this reason");
        expect(&told(&["--device", ""]), "1 to 256 bytes");
        expect(&told(&["--sensor", "a\nb"]), "control characters");
        told(&["--before", "yesterday"]);
    }
    assert_eq!(kept(directory.path()), readings(1));
}

/// Letters of a batch, as a crash between the lines and the settlement leaves them: the second and the third are there
/// twice, the third in another file.
fn keep_doubled(directory: &Path, of: &[Reading]) {
    let one = |number: usize, at: &str| DeadLetter {
        origin: Some(LetterOrigin { batch: "key-1".to_owned(), place: number as u64 }),
        ..letter(&of[number], "refused", at)
    };
    let first = "2026-02-01T12:00:00Z";
    keep(directory, &[one(0, first), one(1, first), one(2, first), one(1, "2026-02-01T12:00:07Z")]);
    fs::write(directory.join(PATH).join("00000002.ndjson"), "no letter").expect("written");
    keep(directory, &[one(2, "2026-02-01T12:00:08Z")]);
    fs::remove_file(directory.join(PATH).join("00000002.ndjson")).expect("it is there");
}

#[test]
fn a_letter_that_a_crash_wrote_twice_is_listed_once_and_purged_with_both_lines() {
    let directory = directory();
    keep_doubled(directory.path(), &readings(3));
    let listed = dead_letters(directory.path(), &["list", "--json"]).expect_status(0);
    expect(&listed.stderr, "3 dead letters");
    let line = listed.stdout.lines().nth(2).expect("three lines");
    expect(line, r#""batch":"key-1","place":2}"#);
    assert_eq!(listed.stdout.lines().count(), 3);
    expect(&dead_letters(directory.path(), &["list"]).expect_status(0).stdout, "3 dead letters");
    // Only the first line of each came before that, and both go.
    let before = ["--before", "2026-02-01T12:00:01Z", "--sensor", "voltage"];
    let would = dead_letters(directory.path(), &[&["purge"], &before[..]].concat()).expect_status(2);
    expect(&would.stdout, "would remove 3 dead letters");
    let purged =
        dead_letters(directory.path(), &[&["purge", "--yes"], &before[..]].concat()).expect_status(0);
    expect(&purged.stdout, "removed 3 dead letters");
    assert_eq!(kept(directory.path()), readings(0));
}

#[tokio::test]
async fn a_letter_that_a_crash_wrote_twice_is_replayed_once() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    let directory = directory();
    keep_doubled(directory.path(), &readings(3));
    let done = replay(directory.path(), &gateway, &[]).await.expect_status(0);
    expect(&done.stdout, "replayed 3 dead letters");
    expect_delivered(&node, &readings(3)).await;
    assert_eq!(gateway.account("accepted").await, 3);
    assert_eq!(kept(directory.path()), readings(0));
}

#[tokio::test]
async fn a_letter_names_the_batch_that_the_node_saw_and_the_place_in_it() {
    // Every third one is refused.
    let is_bad = |reading: &Reading| reading["value"].as_u64().is_some_and(|number| number % 3 == 0);
    let node = FakeNode::judging(move |batch| match batch.readings().iter().any(is_bad) {
        true => Answer::status(422),
        false => Answer::status(200),
    })
    .await;
    let directory = directory();
    let path = directory.path().join(PATH);
    let gateway = TestGateway::new().set("dead_letter.path", path.display()).node(&node).start().await;
    gateway.post(&readings(20)).await.expect_status(202);
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
    let listed = dead_letters_meanwhile(directory.path(), &["list", "--json"]).await.expect_status(0);
    assert_eq!(listed.stdout.lines().count(), 7);
    for line in listed.stdout.lines() {
        let letter: Reading = serde_json::from_str(line).expect("JSON");
        let batches = node.received();
        let batch = batches.iter().find(|batch| batch.key() == letter["batch"]).expect("the node saw it");
        let place = usize::try_from(letter["place"].as_u64().expect("a place")).expect("small");
        assert_eq!(batch.readings()[place], letter["reading"]);
    }
}

/// Whether a terminal shows all of a text, and obeys nothing but its line ends.
fn is_safe(text: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().all(|letter| letter == '\n' || !(letter.is_control() || turns(letter)))
}

#[test]
fn control_characters_are_escaped_in_every_output() {
    let directory = directory();
    let mut bad = reading(0);
    bad["sensor"] = "a\u{202e}b\u{2066}".into();
    let body = "no\u{9b}2J\u{1b}[2J\u{85}\u{7f}\u{2028}\u{61c}\u{200f}";
    let said = DeadLetter { body: body.to_owned(), ..letter(&bad, "refused", "2026-02-01T12:00:00Z") };
    keep(directory.path(), &[said]);
    let listed = dead_letters(directory.path(), &["list", "--json"]).expect_status(0).stdout;
    assert!(is_safe(&listed), "{listed:?}");
    let letter: Reading = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&letter["reading"], letter["body"].as_str()), (&bad, Some(body)));
    let listed = dead_letters(directory.path(), &["list"]).expect_status(0).stdout;
    assert!(is_safe(&listed), "{listed:?}");
    // Of a path, too.
    let told = dead_letters(directory.path(), &["list", "--path", "no\u{202e}where"]).expect_status(1);
    assert!(is_safe(&told.stderr) && told.stderr.contains("no\\u202ewhere"), "{:?}", told.stderr);
}

#[test]
fn a_directory_can_be_named_and_comes_from_the_settings_by_default() {
    let directory = directory();
    keep_refused(directory.path(), &readings(2));
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(directory.path().join(PATH), &elsewhere).expect("moved");
    expect(&dead_letters(directory.path(), &["list"]).expect_status(1).stderr, "no directory");
    let named = dead_letters(directory.path(), &["list", "--path", "elsewhere"]).expect_status(0);
    expect(&named.stdout, "2 dead letters");
    let set = [("dead_letter.path", elsewhere.to_str().expect("UTF-8"))];
    let listed = run(forebay(directory.path(), &["dead-letters", "list"], &set)).expect_status(0);
    expect(&listed.stdout, "2 dead letters");
    let file = directory.path().join("forebay.toml");
    fs::write(&file, "[dead_letter]\npath = \"elsewhere\"\n").expect("written");
    let listed = dead_letters(directory.path(), &["list", "--config", "forebay.toml"]).expect_status(0);
    expect(&listed.stdout, "2 dead letters");
}

#[test]
fn purge_removes_the_selected_letters_and_only_when_confirmed() {
    let directory = directory();
    keep_refused(directory.path(), &readings(10));
    let before = files(directory.path());
    let asked = dead_letters(directory.path(), &["purge", "--device", "meter-1"]).expect_status(2);
    expect(&asked.stdout, "would remove 2 dead letters");
    assert!(files(directory.path()) == before, "nothing has changed");
    let none = dead_letters(directory.path(), &["purge", "--device", "nobody"]).expect_status(0);
    expect(&none.stdout, "no dead letters");

    let purged = dead_letters(directory.path(), &["purge", "--device", "meter-1", "--yes"]).expect_status(0);
    expect(&purged.stdout, "removed 2 dead letters");
    let expected: Vec<_> =
        readings(10).into_iter().filter(|reading| reading["device"] != "meter-1").collect();
    assert_eq!(kept(directory.path()), expected);
    let purged = dead_letters(directory.path(), &["purge", "--yes"]).expect_status(0);
    expect(&purged.stdout, "removed 8 dead letters");
    assert!(files(directory.path()).is_empty());
}
