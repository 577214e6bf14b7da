//! The commands that call a gateway (`load`, `dead-letters replay`, `healthcheck` with an address), against one with TLS,
//! required client certificates, keys, and a listener for its operator.

use std::path::Path;
use std::process::Command;

use forebay::auth::secret::KeyHash;
use tempfile::TempDir;

use crate::support::process::{Finished, Process, directory, forebay, run};
use crate::support::{RunningGateway, TestGateway};
use crate::tls::{Authority, later};

const WRITE: &str = "fb_key-for-writing";
const READ: &str = "fb_key-for-reading";
/// A short run of `load` that passes or fails for one reason.
const SHORT: &[&str] = &["--duration", "200ms", "--rate", "200", "--devices", "5", "--settle", "10s"];
const LETTER: &str = r#"{"reading":{"device":"meter-7","sensor":"voltage","value":239.8,"time":"2026-02-01T12:00:00Z"},"reason":"refused","status":422,"node":"10.0.0.1:9000","body":"no such sensor","at":"2026-02-01T12:00:01.250Z"}"#;

/// A gateway of which everything is asked for, an embedded node behind it, and the files of both and of their clients.
struct Setup {
    gateway: RunningGateway,
    _node: Process,
    directory: TempDir,
    /// The settings that name the gateway's files.
    settings: Vec<(&'static str, String)>,
}

impl Setup {
    async fn start() -> Setup {
        let directory = directory();
        let place = directory.path();
        let authority = Authority::new("ours");
        write(place, "ca.pem", &authority.pem());
        for (authority, file, name) in [
            (&authority, "gateway", "localhost"),
            (&authority, "device", "device.example"),
            (&Authority::new("others"), "stranger", "device.example"),
        ] {
            let pair = authority.issue(name, later());
            write(place, &format!("{file}.pem"), &pair.certificate);
            write(place, &format!("{file}-key.pem"), &pair.key);
        }
        let entry = |name: &str, key: &str, role: &str| {
            let hash = KeyHash::of(key.as_bytes());
            format!("[[key]]\nname = \"{name}\"\nhashes = [\"{hash}\"]\nrole = \"{role}\"\n")
        };
        write(place, "keys.toml", &(entry("writes", WRITE, "write") + &entry("reads", READ, "read")));
        let file = |name: &str| place.join(name).display().to_string();
        let settings = vec![
            ("server.tls.certificate", file("gateway.pem")),
            ("server.tls.key", file("gateway-key.pem")),
            ("server.tls.client_ca", file("ca.pem")),
            ("server.tls.client_certificates", "required".to_owned()),
            ("auth.keys", file("keys.toml")),
        ];
        let node = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
        let node = Process::start(forebay(place, &node, &[]));
        let gateway = TestGateway::new()
            .node_at(format!("http://{}/v1/batches", node.address()))
            .set("server.operator.listen", "127.0.0.1:0")
            .set("server.operator.keys", true);
        let gateway = settings.iter().fold(gateway, |gateway, (key, value)| gateway.set(key, value));
        Setup { gateway: gateway.start().await, _node: node, directory, settings }
    }

    /// The gateway by the name in its certificate.
    fn url(&self) -> String {
        format!("https://localhost:{}", self.gateway.address().port())
    }

    fn operator(&self) -> String {
        format!("http://{}", self.gateway.operator().address())
    }

    /// A command in the directory of the files, with these keys in its environment.
    fn command(&self, arguments: &[&str], keys: &[(&str, &str)]) -> Command {
        let mut command = forebay(self.directory.path(), arguments, &[]);
        command.envs(keys.iter().copied());
        command
    }

    async fn run(&self, arguments: &[&str], keys: &[(&str, &str)]) -> Finished {
        finished(self.command(arguments, keys)).await
    }

    fn write_letter(&self) {
        std::fs::create_dir_all(self.directory.path().join("data/dead-letters")).expect("made");
        write(self.directory.path(), "data/dead-letters/00000001.ndjson", &format!("{LETTER}\n"));
    }
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).expect("written");
}

/// Runs a command while a gateway runs in this process. No key stands in what it prints.
async fn finished(command: Command) -> Finished {
    let finished = tokio::task::spawn_blocking(|| run(command)).await.expect("no panic");
    let printed = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!printed.contains("fb_"), "{printed}");
    finished
}

/// The files that the gateway asks for.
const FILES: [&str; 6] = ["--tls-ca", "ca.pem", "--cert", "device.pem", "--cert-key", "device-key.pem"];
const KEYS: [(&str, &str); 2] = [("FOREBAY_KEY", WRITE), ("FOREBAY_READ_KEY", READ)];

#[tokio::test]
async fn load_measures_and_audits_a_gateway_that_asks_for_everything() {
    let setup = Setup::start().await;
    let (url, operator) = (setup.url(), setup.operator());
    let load = [&["load", &url, "--operator", &operator], &FILES[..], SHORT].concat();
    let passed = setup.run(&load, &KEYS).await.expect_status(0);
    assert!(passed.stdout.contains(" 0 missing, 0 more than once"), "{}", passed.stdout);
    assert_eq!(passed.stderr, "");
    // The options win over the environment.
    let keys = ["--key", WRITE, "--read-key", READ];
    let wrong = KEYS.map(|(name, _)| (name, "fb_wrong"));
    setup.run(&[&load[..], &keys].concat(), &wrong).await.expect_status(0);
}

#[tokio::test]
async fn replay_reaches_a_named_gateway_and_the_one_of_the_settings() {
    let setup = Setup::start().await;
    let url = setup.url();
    setup.write_letter();
    let replay = [&["dead-letters", "replay", "--gateway", &url], &FILES[..]].concat();
    let done = setup.run(&replay, &KEYS).await.expect_status(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("replayed 1 dead letter\n", ""));

    // That of the settings is known by its certificate, and shown the same one: it needs a key alone.
    setup.write_letter();
    let address = setup.gateway.address().to_string();
    let listen = [("server.listen", address.as_str())];
    let settings: Vec<_> = setup.settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut own =
        forebay(setup.directory.path(), &["dead-letters", "replay"], &[&listen[..], &settings].concat());
    own.env("FOREBAY_KEY", WRITE);
    let done = finished(own).await.expect_status(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("replayed 1 dead letter\n", ""));
}

#[tokio::test]
async fn healthcheck_asks_an_address_over_tls_and_with_a_key() {
    let setup = Setup::start().await;
    let (healthz, status) = (format!("{}/healthz", setup.url()), format!("{}/status", setup.operator()));
    setup.run(&[&["healthcheck", &healthz], &FILES[..]].concat(), &[]).await.expect_status(0);
    setup.run(&["healthcheck", &status], &[("FOREBAY_KEY", READ)]).await.expect_status(0);
    let refused = setup.run(&["healthcheck", &status], &[("FOREBAY_KEY", WRITE)]).await.expect_status(1);
    assert!(
        refused.stderr.contains("403 Forbidden; ") && refused.stderr.contains("--key"),
        "{}",
        refused.stderr
    );
    let unknown = setup.run(&["healthcheck", &healthz], &[]).await.expect_status(1);
    assert!(unknown.stderr.contains("--tls-ca"), "{}", unknown.stderr);
    let without = setup.run(&[&["healthcheck"], &FILES[..]].concat(), &[]).await.expect_status(2);
    assert!(without.stderr.contains("--tls-ca and --cert go with the address"), "{}", without.stderr);
}

#[tokio::test]
async fn whatever_the_gateway_refuses_ends_in_words_that_name_the_option() {
    let setup = Setup::start().await;
    setup.write_letter();
    let (url, port) = (setup.url(), setup.gateway.address().port());
    let (by_number, plain) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let (only_ca, ca) = (&FILES[..2], &["--tls-ca", "stranger.pem"][..]);
    let stranger = [&FILES[..2], &["--cert", "stranger.pem", "--cert-key", "stranger-key.pem"]].concat();
    let wrong = [("FOREBAY_KEY", "fb_wrong")];
    let (right, reading) = ([KEYS[0]], [("FOREBAY_KEY", READ)]);
    for (url, files, keys, expected) in [
        (&url, ca, &right[..], "--tls-ca names the file of its authority"),
        (&url, only_ca, &right, "--cert and --cert-key"),
        (&url, &stranger, &right, "--cert"),
        (&by_number, &FILES, &right, "the server's certificate is not for `127.0.0.1`; it has "),
        (&plain, &FILES, &right, "its address begins with https://"),
        (&url, &FILES, &wrong, "--key or FOREBAY_KEY"),
        (&url, &FILES, &[], "--key or FOREBAY_KEY"),
        (&url, &FILES, &reading, "--key or FOREBAY_KEY"),
    ] {
        for command in [&["load", url, "--no-audit"], &["dead-letters", "replay", "--gateway", url][..]] {
            let more = if command[0] == "load" { SHORT } else { &[] };
            let failed = setup.run(&[command, files, more].concat(), keys).await.expect_status(1);
            let told = format!("{}{}", failed.stdout, failed.stderr);
            assert!(
                told.contains(expected),
                "{command:?} {files:?} {keys:?} does not say {expected}:\n{told}"
            );
        }
    }
    // What the audit needs beside it.
    let operator = setup.operator();
    let load = [&["load", &url], &FILES[..], SHORT].concat();
    let at_operator = [&load[..], &["--operator", &operator]].concat();
    for (arguments, keys, expected) in [
        (&load, &KEYS[..], "name it with --operator"),
        (&at_operator, &KEYS[..1], "--read-key or FOREBAY_READ_KEY"),
        (&at_operator, &[], "--read-key or FOREBAY_READ_KEY"),
    ] {
        let failed = setup.run(arguments, keys).await.expect_status(1);
        assert!(failed.stderr.contains(expected), "{arguments:?} does not say {expected}: {}", failed.stderr);
        assert_eq!(failed.stdout, "", "nothing was sent");
    }
}

#[tokio::test]
async fn a_key_is_neither_shown_by_help_nor_repeated_where_it_is_wrong() {
    let home = directory();
    let run = |arguments: &[&str]| {
        let mut command = forebay(home.path(), arguments, &[]);
        command.env("FOREBAY_KEY", "fb_\u{7}").env("FOREBAY_READ_KEY", "fb_\u{7}");
        finished(command)
    };
    for command in [&["load"][..], &["dead-letters", "replay"], &["healthcheck"]] {
        let help = run(&[command, &["--help"]].concat()).await.expect_status(0);
        assert!(help.stdout.contains("FOREBAY_KEY"), "{}", help.stdout);
    }
    let refused = run(&["load"]).await.expect_status(2);
    assert!(refused.stderr.contains("--key or FOREBAY_KEY: the key has a character"), "{}", refused.stderr);
    let refused = run(&["load", "--key", "right"]).await.expect_status(2);
    assert!(refused.stderr.contains("--read-key or FOREBAY_READ_KEY: "), "{}", refused.stderr);
    let half = run(&["load", "--cert", "a.pem"]).await.expect_status(2);
    assert!(half.stderr.contains("--cert-key"), "{}", half.stderr);
}

#[tokio::test]
async fn a_key_that_others_could_read_on_its_way_is_warned_of() {
    let home = directory();
    // Beyond loopback by its number, and yet this machine. Nobody listens there.
    for (url, is_warned) in
        [("http://0.0.0.0:9", true), ("http://127.0.0.1:9", false), ("https://0.0.0.0:9", false)]
    {
        let arguments = ["healthcheck", url, "--key", WRITE];
        let failed = finished(forebay(home.path(), &arguments, &[])).await;
        assert_eq!(
            failed.stderr.contains("warning: the key goes over plain HTTP"),
            is_warned,
            "{}",
            failed.stderr
        );
    }
}
