//! `forebay keys`: the file that it makes and changes, and what it tells.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::eventually;
use crate::support::process::{Finished, Process, directory, forebay, run};

fn keys(directory: &Path, arguments: &[&str]) -> Finished {
    let settings = [("auth.keys", "keys.toml")];
    run(forebay(directory, &[&["keys"], arguments].concat(), &settings))
}

fn file(directory: &Path) -> String {
    fs::read_to_string(directory.join("keys.toml")).expect("the file")
}

#[test]
fn a_key_is_printed_once_and_only_its_hash_is_written() {
    let home = directory();
    let made =
        keys(home.path(), &["add", "plant-7", "--device", "plant-7/*", "--rate", "200/s"]).expect_status(0);
    let key = made.stdout.trim();
    assert!(key.starts_with("fb_") && key.len() == 46, "{key}");
    let text = file(home.path());
    assert!(!text.contains(key) && text.contains("sha256:"), "{text}");
    assert!(text.contains("devices = [\"plant-7/*\"]") && text.contains("rate = \"200/s\""), "{text}");
    let mode = fs::metadata(home.path().join("keys.toml")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = keys(home.path(), &["list"]).expect_status(0).stdout;
    assert!(listed.contains("plant-7") && listed.contains("plant-7/*") && !listed.contains(key), "{listed}");
    let again = keys(home.path(), &["add", "plant-7"]).expect_status(1);
    assert!(again.stderr.contains("there is a key `plant-7` already"), "{}", again.stderr);
    assert_eq!(file(home.path()), text, "nothing has changed");
}

#[test]
fn comments_and_mode_of_the_file_stay_as_they_are() {
    let home = directory();
    keys(home.path(), &["add", "a"]).expect_status(0);
    let path = home.path().join("keys.toml");
    let commented = format!("# The keys of the north.\n{}# The end.\n", file(home.path()));
    fs::write(&path, &commented).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
    keys(home.path(), &["add", "b", "--role", "read"]).expect_status(0);
    let rotated = keys(home.path(), &["rotate", "a", "--grace", "1h"]).expect_status(0);
    assert!(rotated.stdout.starts_with("fb_"), "{}", rotated.stdout);
    keys(home.path(), &["revoke", "b"]).expect_status(0);
    let text = file(home.path());
    assert!(text.starts_with("# The keys of the north.\n") && text.contains("# The end."), "{text}");
    assert!(text.contains("until = ") && !text.contains("name = \"b\""), "{text}");
    let mode = fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 1, "nothing else is left");
}

#[test]
fn what_cannot_be_done_is_told_and_changes_nothing() {
    let home = directory();
    assert!(keys(home.path(), &["list"]).expect_status(1).stderr.contains("keys.toml cannot be read"));
    keys(home.path(), &["add", "a b"]).expect_status(2);
    keys(home.path(), &["add", "a", "--rate", "fast"]).expect_status(2);
    assert!(!home.path().join("keys.toml").exists());
    let shown = keys(home.path(), &["add", "a", "--print"]).expect_status(0).stdout;
    assert!(shown.contains("fb_") && shown.contains("[[key]]"), "{shown}");
    assert!(!home.path().join("keys.toml").exists());
    fs::write(home.path().join("keys.toml"), "[[key]]\nname = \"a\"\n").expect("written");
    let refused = keys(home.path(), &["add", "b"]).expect_status(1);
    assert!(refused.stderr.contains("neither `hashes` nor `certificate`"), "{}", refused.stderr);
    assert!(keys(home.path(), &["revoke", "c"]).expect_status(1).stderr.contains("there is no key `c`"));
}

#[tokio::test]
async fn a_gateway_that_runs_takes_a_key_that_is_added() {
    let home = directory();
    let first = keys(home.path(), &["add", "first"]).expect_status(0).stdout.trim().to_owned();
    let settings = [("server.listen", "127.0.0.1:0"), ("auth.keys", "keys.toml"), ("buffer.kind", "memory")];
    let process = Process::start(forebay(home.path(), &["serve"], &settings));
    let gateway = process.gateway();
    let post = |key: String| {
        let request = gateway.request("/v1/readings").bearer_auth(key);
        gateway.send(request.body(r#"{"device":"d","sensor":"s","value":1}"#))
    };
    post(first).await.expect_status(202);
    let second = keys(home.path(), &["add", "second"]).expect_status(0).stdout.trim().to_owned();
    // The file is looked at every 10 s.
    eventually("the second key is taken", || async { post(second.clone()).await.status == 202 }).await;
}

#[test]
fn a_file_of_keys_with_faults_stops_the_start_with_a_line_for_each() {
    let home = directory();
    fs::write(home.path().join("keys.toml"), "[[key]]\nname = \"a\"\n[[key]]\nname = \"b c\"\n")
        .expect("written");
    let settings = [("server.listen", "127.0.0.1:0"), ("auth.keys", "keys.toml")];
    let ended = run(forebay(home.path(), &["serve"], &settings)).expect_status(2);
    assert!(ended.stderr.contains("keys.toml: line 1: key `a`: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("keys.toml: line 3: key `b c`: "), "{}", ended.stderr);
    let checked = run(forebay(home.path(), &["check"], &settings)).expect_status(1);
    assert!(checked.stdout.contains("keys.toml: line 1: key `a`: "), "{}", checked.stdout);
}

#[tokio::test]
async fn a_file_without_a_key_is_told_at_the_start_while_it_runs_and_by_check() {
    const TOLD: &str = "the file of keys has no key";
    let home = directory();
    keys(home.path(), &["add", "only"]).expect_status(0);
    let settings = [("server.listen", "127.0.0.1:0"), ("auth.keys", "keys.toml"), ("buffer.kind", "memory")];
    let process = Process::start(forebay(home.path(), &["serve"], &settings));
    assert!(!process.log().contains(TOLD), "{}", process.log());
    keys(home.path(), &["revoke", "only"]).expect_status(0);
    // The file is looked at every 10 s.
    eventually("it is told while the gateway runs", || async { process.log().contains(TOLD) }).await;
    process.kill().await;
    let process = Process::start(forebay(home.path(), &["serve"], &settings));
    assert!(process.log().contains(TOLD), "{}", process.log());
    let checked = run(forebay(home.path(), &["check"], &settings)).expect_status(0);
    assert!(checked.stdout.contains("note: auth.keys: the file has no key"), "{}", checked.stdout);
}
