//! The promises for the files that the gateway makes: they are for its user alone, whatever the umask, and run as root
//! in a directory of somebody else, they belong to its owner.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{Process, directory, forebay, run};
use crate::support::{self, Answer, FakeNode, eventually, readings};

/// Runs a command with another umask.
fn with_umask(umask: &str, command: &Command) -> Command {
    let mut other = Command::new("sh");
    other.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    other.args(command.get_args()).current_dir(command.get_current_dir().expect("it has one"));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// Everything below a directory.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| {
            let mut all = if path.is_dir() { below(&path) } else { Vec::new() };
            all.push(path);
            all
        })
        .collect()
}

/// Runs the gateway with every setting that makes files, and returns the files, also those of a running one.
async fn made(directory: &Path, umask: &str) -> Vec<(PathBuf, fs::Metadata)> {
    let settings = [("server.listen", "127.0.0.1:0"), ("batch.max_age", "1ms")];
    let embedded = Process::start(with_umask(umask, &forebay(directory, &["serve"], &settings)));
    let client = forebay_load::client::builder().build().expect("a client");
    let url = embedded.gateway().url("/v1/readings");
    let sent =
        client.post(&url).header("Idempotency-Key", "\"a\"").body(support::to_json(&readings(3))).send();
    assert_eq!(sent.await.expect("an answer").status(), 202);
    eventually("all is delivered", || async { embedded.gateway().account("delivered").await == 3 }).await;
    let seen = |path: PathBuf| fs::metadata(&path).ok().map(|found| (path, found));
    let mut all: Vec<_> = below(directory).into_iter().filter_map(seen).collect();
    embedded.terminate();
    embedded.ended().await.expect_status(0);

    let node = FakeNode::always(Answer::status(422)).await;
    let url = node.url();
    let settings = [&settings[..], &[("cluster.nodes", &url)]].concat();
    let refusing = Process::start(with_umask(umask, &forebay(directory, &["serve"], &settings)));
    refusing.gateway().post(&readings(2)).await.expect_status(202);
    eventually("letters are written", || async { refusing.gateway().account("dead_lettered").await == 2 })
        .await;
    refusing.terminate();
    refusing.ended().await.expect_status(0);
    run(with_umask(umask, &forebay(directory, &["dead-letters", "list"], &settings))).expect_status(0);
    run(with_umask(umask, &forebay(directory, &["buffer", "repair"], &settings))).expect_status(0);
    all.extend(below(directory).into_iter().filter_map(seen));
    let names =
        ["lock", "00000000000000000001.segment", "checkpoint-a", "keys", "readings.db", "00000001.ndjson"];
    for name in names.into_iter().chain(["readings.db-wal", "readings.db-shm"]) {
        assert!(all.iter().any(|(path, _)| path.ends_with(name)), "{name} is not in {all:?}");
    }
    all
}

#[tokio::test]
async fn files_are_for_the_gateways_user_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let directory = directory();
        for (path, found) in made(directory.path(), umask).await {
            let expected = if found.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(found.mode() & 0o777, expected, "umask {umask}: {}", path.display());
        }
    }
}

#[tokio::test]
async fn files_that_root_makes_in_a_directory_of_somebody_else_belong_to_its_owner() {
    let directory = directory();
    if chown(directory.path(), Some(10_001), Some(10_002)).is_err() {
        return;
    }
    for (path, found) in made(directory.path(), "022").await {
        assert_eq!((found.uid(), found.gid()), (10_001, 10_002), "{}", path.display());
    }
}
