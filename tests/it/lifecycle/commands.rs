//! The other commands.

use super::*;

#[test]
fn the_version_says_of_which_commit_it_is_and_when_that_was_made() {
    let version = forebay_says(&["--version"], &[]).expect_status(0).stdout;
    let of =
        version.trim().strip_prefix(concat!("forebay ", env!("CARGO_PKG_VERSION"), " (")).expect("a version");
    let (build, rest) = of.split_once(')').expect("what was built");
    // Tests are run with builds that are not made anew at each commit.
    assert!(["", " or later"].contains(&rest), "{version}");
    let (commit, date) = build.split_once(' ').expect("a commit and a date");
    let is_commit = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown", "{version}");
    let is_date = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    assert!(is_date || date == "unknown", "{version}");
}

#[tokio::test]
async fn the_node_takes_batches_once_and_survives_a_restart() {
    let directory = directory();
    let client = forebay_load::client::builder().build().expect("a client");
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "here/node"];
    for round in 0..2 {
        let process = Process::start(forebay(directory.path(), &arguments, &[]));
        let url = format!("http://{}", process.address());
        for (key, status) in [("\"one\"", 200), ("\"one\"", 200), ("\"two\"", 200)] {
            let post = client.post(format!("{url}/v1/batches")).header("idempotency-key", key);
            let body = to_ndjson(&readings(if key == "\"one\"" { 5 } else { 7 }));
            let reply = post.header("content-type", "application/x-ndjson").body(body).send().await;
            assert_eq!(reply.expect("an answer").status(), status, "round {round}");
        }
        assert_eq!(get_json(&format!("{url}/v1/count")).await, json!({ "count": 12 }));
        assert_eq!(get_json(&format!("{url}/healthz")).await["status"], "ok");
        forebay_says(&["healthcheck", &format!("{url}/healthz")], &[]).expect_status(0);
        process.terminate();
        process.ended().await.expect_status(0);
    }
    assert!(directory.path().join("here/node/readings.db").is_file());
}

#[tokio::test]
async fn a_gateway_delivers_to_a_node_of_its_own_kind_through_a_restart_of_the_node() {
    let directory = directory();
    let listen = nobody().to_string();
    let arguments = ["node", "--listen", &listen, "--data", "node"];
    let node = Process::start(forebay(directory.path(), &arguments, &[]));
    let settings =
        [("batch.max_age", "5ms"), ("cluster.retry.initial", "5ms"), ("cluster.retry.max", "50ms")];
    let process = serve(directory.path(), &format!("http://{listen}/v1/batches"), &settings);
    let gateway = process.gateway();
    gateway.post(&readings(100)).await.expect_status(202);
    eventually("they arrive", || async { gateway.account("delivered").await == 100 }).await;
    node.terminate();
    node.ended().await.expect_status(0);
    gateway.post(&readings(50)).await.expect_status(202);
    let _node = Process::start(forebay(directory.path(), &arguments, &[]));
    eventually("the rest arrives", || async { gateway.account("delivered").await == 150 }).await;
    assert_eq!(get_json(&format!("http://{listen}/v1/count")).await, json!({ "count": 150 }));
}

#[test]
fn a_node_that_cannot_start_says_why_in_one_line_and_exits_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = forebay_says(&["node", "--listen", &address, "--data", "x"], &[]).expect_status(1);
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("in use"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let nowhere = ["node", "--listen", "127.0.0.1:0", "--data", "/proc/nowhere"];
    let ended = forebay_says(&nowhere, &[]).expect_status(1);
    assert!(ended.stderr.contains("/proc/nowhere"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn load_sends_a_file_through_and_its_audit_passes() {
    let directory = directory();
    let settings = [ANY_PORT, ("batch.max_age", "50ms")];
    let process = Process::start(forebay(directory.path(), &["serve"], &settings));
    let url = format!("http://{}", process.address());
    let rows = std::fs::read_to_string(CSV).expect("the file").lines().count() - 1;
    let readings = rows as u64 * 7;
    // The second time the node has the readings already.
    for round in 1..=2 {
        let ended = forebay_says(&["load", &url, "--csv", CSV, "--rate", "0"], &[]).expect_status(0);
        let audit = format!("{readings} acknowledged, {readings} found once, 0 missing, 0 more than once");
        assert!(ended.stdout.contains(&audit), "{}", ended.stdout);
        assert_eq!(process.gateway().account("accepted").await, round * readings);
    }
    process.terminate();
    process.ended().await.expect_status(0);
}

#[tokio::test]
async fn load_without_a_gateway_exits_with_1() {
    let ended = forebay_says(&["load", &format!("http://{}", nobody()), "--duration", "1s"], &[]);
    assert!(ended.expect_status(1).stderr.contains("no gateway"));
}

#[test]
fn wrong_use_exits_with_2_and_help_and_version_with_0() {
    for arguments in [
        &["serv"][..],
        &["--no-such-option"],
        &["serve", "--listen", "x"],
        &["node", "--listen", "nowhere"],
        &["load", "--csv"],
        &["check", "extra"],
    ] {
        let ended = forebay_says(arguments, &[]).expect_status(2);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{arguments:?}");
    }
    let help = forebay_says(&["--help"], &[]).expect_status(0);
    for command in ["serve", "node", "check", "healthcheck", "load", "completions"] {
        assert!(help.stdout.contains(command), "{command}");
        forebay_says(&[command, "--help"], &[]).expect_status(0);
    }
}

#[test]
fn completions_are_printed_for_each_shell_and_another_one_is_wrong_use() {
    let shells = ["bash", "zsh", "fish", "elvish", "powershell"];
    for shell in shells {
        let ended = forebay_says(&["completions", shell], &[]).expect_status(0);
        assert_eq!(ended.stderr, "", "{shell}");
        for word in ["forebay", "serve", "dead-letters", "healthcheck", "verify", "completions"] {
            assert!(ended.stdout.contains(word), "{shell} completes no {word}");
        }
    }
    let bash = forebay_says(&["completions", "bash"], &[]).expect_status(0).stdout;
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("{bash}\nCOMP_WORDS=(forebay dead)\nCOMP_CWORD=1\n_forebay forebay dead forebay\necho \"${{COMPREPLY[@]}}\"")]);
    assert_eq!(String::from_utf8_lossy(&shell.output().expect("bash runs").stdout), "dead-letters\n");
    let ended = forebay_says(&["completions", "nushell"], &[]).expect_status(2);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    for shell in shells {
        assert!(ended.stderr.contains(shell), "{shell}: {}", ended.stderr);
    }
    forebay_says(&["completions"], &[]).expect_status(2);
}
