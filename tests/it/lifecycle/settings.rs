//! Settings: faults are listed all at once, sources are shown, and a start logs the settings.

use super::*;

#[test]
fn every_fault_of_the_settings_is_one_line_and_the_status_is_2() {
    let place = directory();
    let file = place.path().join("forebay.toml");
    std::fs::write(
        &file,
        "[server]\nlisten = 8080\n[bufer]\nkind = \"memory\"\n[batch]\nmax_age = \"1 hour\"\n",
    )
    .expect("written");
    let path = file.to_str().expect("UTF-8");
    let settings = [("batch.max_readings", "0"), ("batch.max_bites", "1MiB")];
    for arguments in [&["--config", path][..], &["serve", "--config", path], &["check", "--config", path]] {
        let ended = run(forebay(place.path(), arguments, &settings)).expect_status(2);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 5, "{}", ended.stderr);
        for (origin, key) in [
            (":2:", "server.listen"),
            (":4:", "bufer.kind"),
            (":6:", "batch.max_age"),
            ("FOREBAY__BATCH__MAX_READINGS", "batch.max_readings"),
            ("FOREBAY__BATCH__MAX_BITES", "batch.max_bites"),
        ] {
            let found = lines.iter().filter(|line| line.contains(origin) && line.contains(key)).count();
            assert_eq!(found, 1, "{origin} {key} in\n{}", ended.stderr);
        }
    }
    let mut command = forebay(place.path(), &["serve"], &[]);
    command.env("FOREBAY_CONFIG", place.path().join("nowhere.toml"));
    let ended = run(command).expect_status(2);
    assert!(ended.stderr.contains("nowhere.toml"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_shows_the_effective_settings_and_hides_secrets() {
    let place = directory();
    let node = FakeNode::start().await;
    let file = place.path().join("forebay.toml");
    let text = "[batch]\nmax_readings = 77\nmax_age = \"3s\"\n[cluster.headers]\nauthorization = \"Bearer s3cret\"\n";
    std::fs::write(&file, text).expect("written");
    let mut command = forebay(
        place.path(),
        &["check"],
        &[
            ANY_PORT,
            ("batch.max_age", "4s"),
            ("cluster.nodes", &node.url().replace("http://", "http://user:s3cret@")),
            ("cluster.headers.x-token", "s3cret"),
        ],
    );
    command.env("FOREBAY_CONFIG", &file);
    let ended = run(command).expect_status(0);
    let has = |start: &str, rest: &str| {
        let mut lines = ended.stdout.lines();
        assert!(
            lines.any(|line| line.starts_with(start) && line.contains(rest)),
            "{start} in\n{}",
            ended.stdout
        );
    };
    has("batch.max_readings = 77", "forebay.toml:2");
    has("batch.max_age = 4s", "FOREBAY__BATCH__MAX_AGE");
    has("batch.max_bytes = 1MiB", "default");
    has("cluster.headers.authorization", "hidden");
    assert!(ended.stdout.contains(&node.id()), "{}", ended.stdout);
    assert!(!(ended.stdout + &ended.stderr).contains("s3cret"));
}

#[test]
fn faults_do_not_show_secrets() {
    for node in [
        "ftp://user:s3cret@localhost/",
        "http://user:s3cret@",
        "http://user:s3cret@host:99999/",
        "user:s3cret@h",
        "dns+ftp://user:s3cret@h/",
        "dns+http://user:s3cret@host:99999/",
    ] {
        let settings = [("cluster.nodes", node), ("cluster.headers.x", "s3cret\u{e9}\n")];
        let ended = forebay_says(&["check"], &settings).expect_status(2);
        assert!(!(ended.stdout.clone() + &ended.stderr).contains("s3cret"), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tries_each_node_and_exits_with_1_if_one_is_dead() {
    let node = FakeNode::start().await;
    let dead = nobody();
    let nodes = format!("{},http://{dead}/v1/batches", node.url());
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &nodes)]).expect_status(1);
    let line = |id: &str| {
        let line = ended.stdout.lines().find(|line| line.starts_with("node ") && line.contains(id));
        line.unwrap_or_else(|| panic!("{id} in\n{}", ended.stdout)).to_owned()
    };
    assert!(line(&dead.to_string()).contains("refused"), "{}", ended.stdout);
    assert_ne!(line(&node.id()), line(&dead.to_string()));
    let is_empty = node.received().iter().all(|request| request.body.is_empty());
    assert!(is_empty, "a node that is tried is sent nothing that it could store");
    forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]).expect_status(0);
    // A name is looked up, and each of its addresses tried.
    let named = format!("dns+{}", node.url());
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &named)]).expect_status(0);
    let line = format!("node {named} at {}: takes connections", node.id());
    assert!(ended.stdout.contains(&line), "{}", ended.stdout);
    let nowhere = "dns+http://no-such-name.invalid:9000/x";
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", nowhere)]).expect_status(1);
    assert!(ended.stdout.contains(&format!("node {nowhere}: is not found: ")), "{}", ended.stdout);
}

/// The lines that `check` begins with this word.
fn found<'a>(ended: &'a Finished, word: &str) -> Vec<&'a str> {
    ended.stdout.lines().filter(|line| line.starts_with(&format!("{word}: "))).collect()
}

/// Fails unless `check` found a fault that says this.
#[track_caller]
fn expect_fault(ended: Finished, words: &[&str]) {
    let ended = ended.expect_status(1);
    let faults = found(&ended, "fault");
    let is_told = faults.iter().any(|fault| words.iter().all(|words| fault.contains(words)));
    assert!(is_told, "{words:?}: {}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_an_address_that_cannot_be_listened_on() {
    let node = FakeNode::start().await;
    let check = |listen: &str| {
        forebay_says(&["check"], &[("server.listen", listen), ("cluster.nodes", &node.url()), MEMORY])
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    expect_fault(check(&address), &["server.listen: ", &address, "in use", "another program"]);
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    expect_fault(check(&everywhere), &["server.listen: ", "another program"]);
    // Addresses for documents, which no machine has.
    expect_fault(check("192.0.2.1:0"), &["192.0.2.1 is no address of this machine"]);
    expect_fault(check("[2001:db8::1]:8080"), &["2001:db8::1 is no address of this machine"]);
    check(&nobody().to_string()).expect_status(0);
    let operator = ("server.operator.listen", address.as_str());
    let ended = forebay_says(&["check"], &[ANY_PORT, operator, ("cluster.nodes", &node.url()), MEMORY]);
    expect_fault(ended, &["server.operator.listen: ", &address, "another program"]);
    // Each of them is free, and both are not.
    let (one, both) = (nobody().to_string(), &["server.operator.listen: ", "another program"]);
    let everywhere = one.replace("127.0.0.1", "0.0.0.0");
    let listeners = [("server.listen", one.as_str()), ("server.operator.listen", &everywhere)];
    let nodes = node.url();
    let settings = [&listeners[..], &[("cluster.nodes", &*nodes), MEMORY]].concat();
    expect_fault(forebay_says(&["check"], &settings), both);
    let ended = forebay_says(&["serve"], &[("server.listen", "192.0.2.1:0"), MEMORY]).expect_status(1);
    assert!(ended.stderr.contains("192.0.2.1 is no address of this machine"), "{}", ended.stderr);

    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim() == "1024") {
        let (place, denied_run) = denied();
        let settings = [("server.listen", "127.0.0.1:81"), ("cluster.nodes", &node.url()), MEMORY];
        let ended = denied_run(place.path(), &["check"], &settings);
        expect_fault(ended, &["the system keeps port 81 for privileged programs"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_finds_no_fault_in_a_gateway_that_runs_here_and_disturbs_it_in_nothing() {
    let (place, elsewhere, node) = (directory(), directory(), FakeNode::start().await);
    for kind in [MEMORY, DISK] {
        let process = serve(place.path(), &node.url(), &[kind]);
        let address = process.address().to_string();
        let settings = [("server.listen", &*address), ("cluster.nodes", &node.url()), kind];
        let ended = run(forebay(place.path(), &["check"], &settings)).expect_status(0);
        let notes = found(&ended, "note").join("\n");
        let words = format!("server.listen: {address} is in use by the gateway that runs here");
        assert!(notes.contains(&words), "{}", ended.stdout);
        assert_eq!(
            notes.contains("buffer.path: data/buffer is in use by the gateway"),
            kind == DISK,
            "{notes}"
        );
        // Of another directory, it is another program.
        let ended = run(forebay(elsewhere.path(), &["check"], &settings));
        expect_fault(ended, &["server.listen: ", "another program"]);
        process.gateway().post(&readings(3)).await.expect_status(202);
        let settings =
            [ANY_PORT, ("server.operator.listen", &*address), ("cluster.nodes", &node.url()), kind];
        let ended = run(forebay(place.path(), &["check"], &settings)).expect_status(0);
        let notes = found(&ended, "note").join("\n");
        assert!(notes.contains("server.operator.listen: ") && notes.contains("that runs here"), "{notes}");
        // Nor does a port of another program become right by it.
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address").to_string();
        let settings = [("server.listen", &*address), ("cluster.nodes", &node.url()), kind];
        let ended = run(forebay(place.path(), &["check"], &settings));
        expect_fault(ended, &["server.listen: ", "another program"]);
        process.terminate();
        let ended = process.ended().await.expect_status(0);
        assert!(!ended.stderr.contains("ERROR") && !ended.stderr.contains("WARN"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_places_and_sizes_that_there_are_not_and_leaves_nothing_behind() {
    let (place, node) = (directory(), FakeNode::start().await);
    let file = place.path().join("file");
    std::fs::write(&file, "").expect("written");
    let check = |settings: &[(&str, &str)]| {
        let url = node.url();
        let settings = [&[ANY_PORT, ("cluster.nodes", &*url)], settings].concat();
        run(forebay(place.path(), &["check"], &settings))
    };
    check(&[]).expect_status(0);
    for path in ["/proc/nowhere", "file", "file/below"] {
        expect_fault(check(&[("buffer.path", path)]), &["buffer.path: ", path, "cannot be used"]);
    }
    let (much, words) = ("1000TiB", "1000 TiB is more than the ");
    expect_fault(check(&[("buffer.max_bytes", much)]), &["buffer.max_bytes: ", words, "are free"]);
    expect_fault(check(&[("dead_letter.max_bytes", much)]), &["dead_letter.max_bytes: ", words, "are free"]);
    expect_fault(check(&[MEMORY, ("buffer.max_bytes", much)]), &["buffer.max_bytes: ", words, "memory"]);
    // Settings that are not used are not checked.
    check(&[MEMORY, ("buffer.path", "/proc/nowhere")]).expect_status(0);
    let names = std::fs::read_dir(place.path()).expect("it is there").count();
    assert_eq!(names, 1, "the file alone is there");

    let (place, denied_run) = denied();
    let ended = denied_run(place.path(), &["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]);
    expect_fault(
        ended,
        &["buffer.path: data/buffer cannot be used", "this process runs as user ", "belongs to user "],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_no_to_a_path_that_a_node_does_not_know_whatever_the_format() {
    for format in forebay_stores::STORES.names() {
        for status in [404, 405] {
            let node = FakeNode::always(Answer::status(status)).await;
            let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &node.url()), ("cluster.format", format)];
            let ended = forebay_says(&["check"], &settings).expect_status(1);
            let line = ended.stdout.lines().find(|line| line.starts_with("node ")).expect("a line");
            let is_told = line.contains("path") || line.contains("the address must end in /_bulk");
            assert!(is_told && line.contains(&format!("({status})")), "{format}: {line}");
        }
    }
    for format in ["ndjson", "json", "influx", "remote-write"] {
        let node = FakeNode::always(Answer::status(200).body("<!DOCTYPE html><title>Sign in")).await;
        let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &node.url()), ("cluster.format", format)];
        let ended = forebay_says(&["check"], &settings).expect_status(1);
        assert!(ended.stdout.contains(": its answer is a web page"), "{format}: {}", ended.stdout);
    }
    // A node that may be any program need not answer a request without readings.
    for format in ["ndjson", "json"] {
        let node = FakeNode::always(Answer::never()).await;
        let url = node.url();
        let settings = [
            ANY_PORT,
            MEMORY,
            ("cluster.nodes", &*url),
            ("cluster.format", format),
            ("cluster.timeout", "100ms"),
        ];
        let ended = forebay_says(&["check"], &settings).expect_status(0);
        assert!(ended.stdout.contains(": takes connections, and answers nothing to"), "{}", ended.stdout);
    }
    // A real one, which stores nothing of it.
    let place = directory();
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let process = Process::start(forebay(place.path(), &arguments, &[]));
    let check = |path: &str, compression: &str, status| {
        let url = format!("http://{}{path}", process.address());
        let settings = [ANY_PORT, MEMORY, ("cluster.nodes", &*url), ("cluster.compression", compression)];
        forebay_says(&["check"], &settings).expect_status(status)
    };
    for compression in ["none", "gzip", "zstd"] {
        let ended = check("/v1/batches", compression, 0);
        assert!(
            ended.stdout.contains(": takes connections, and a batch without readings (200)"),
            "{}",
            ended.stdout
        );
    }
    check("/v1/batch", "none", 1);
    check("/v1/readings", "none", 1);
    let count = get_json(&format!("http://{}/v1/count", process.address())).await;
    assert_eq!(count, json!({ "count": 0 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_how_long_the_buffer_lasts() {
    let node = FakeNode::start().await;
    let ended = forebay_says(&["check"], &[ANY_PORT, ("cluster.nodes", &node.url())]).expect_status(0);
    let words = "at 1,000 readings a second, 2.8 hours (buffer.max_readings comes first)";
    assert!(found(&ended, "note").iter().any(|line| line.contains(words)), "{}", ended.stdout);
}

#[test]
fn check_ends_quietly_when_nobody_reads_on() {
    let place = directory();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = forebay(place.path(), &["check"], &[]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let ended = child.wait_with_output().expect("an end");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[tokio::test]
async fn healthcheck_exits_with_0_where_a_gateway_serves_and_with_1_where_none_does() {
    let directory = directory();
    let node = FakeNode::start().await;
    let process = serve(directory.path(), &node.url(), &[]);
    let address = process.address().to_string();
    forebay_says(&["healthcheck"], &[("server.listen", &address)]).expect_status(0);
    forebay_says(&["healthcheck", &format!("http://{address}/healthz")], &[]).expect_status(0);
    forebay_says(&["healthcheck", &format!("http://{address}/nowhere")], &[]).expect_status(1);
    let everywhere = format!("0.0.0.0:{}", process.address().port());
    forebay_says(&["healthcheck"], &[("server.listen", &everywhere)]).expect_status(0);
    let ended = forebay_says(&["healthcheck"], &[("server.listen", &nobody().to_string())]).expect_status(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn healthcheck_without_arguments_asks_the_program_of_its_user_in_this_directory() {
    let (first, second, third) = (directory(), directory(), directory());
    let (node, no_gateway) = (FakeNode::start().await, nobody().to_string());
    let says = |place: &Path, settings: &[(&str, &str)], status| {
        run(forebay(place, &["healthcheck"], settings)).expect_status(status);
    };
    // Two gateways on one machine, each on a port that only it knows.
    let one = serve(first.path(), &node.url(), &[]);
    let other = serve(second.path(), &node.url(), &[]);
    says(first.path(), &[ANY_PORT], 0);
    says(second.path(), &[ANY_PORT], 0);
    says(third.path(), &[("server.listen", &no_gateway)], 1);
    // The files of a killed gateway are not taken for a running one.
    one.kill().await;
    says(first.path(), &[ANY_PORT], 1);
    says(second.path(), &[ANY_PORT], 0);
    other.terminate();
    other.ended().await.expect_status(0);
    says(second.path(), &[ANY_PORT], 1);

    // A node, beside the setting for gateways that the image has.
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let process = Process::start(forebay(third.path(), &arguments, &[]));
    says(third.path(), &[("server.listen", &no_gateway)], 0);
    process.kill().await;
    says(third.path(), &[("server.listen", &no_gateway)], 1);
}

/// A self-signed certificate and its key, as two files, and the settings that name them.
fn certificate(place: &Path, name: &str) -> [(&'static str, String); 2] {
    let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).expect("a certificate");
    let write = |ending: &str, text: String| {
        let path = place.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    [("server.tls.certificate", write("pem", certificate)), ("server.tls.key", write("key", key))]
}

#[tokio::test]
async fn healthcheck_asks_over_tls_for_the_configured_certificate_and_shows_it() {
    let (place, elsewhere) = (directory(), directory());
    let node = FakeNode::start().await;
    let (own, other) = (certificate(place.path(), "own"), certificate(place.path(), "other"));
    let own = own.each_ref().map(|(key, path)| (*key, path.as_str()));
    let other = other.each_ref().map(|(key, path)| (*key, path.as_str()));
    let says = |place: &Path, settings: &[&[(&str, &str)]], status| {
        run(forebay(place, &["healthcheck"], &settings.concat())).expect_status(status)
    };
    let devices = ("server.tls.client_ca", other[0].1);
    let required = [devices, ("server.tls.client_certificates", "required")];
    for clients in [&[][..], &required] {
        let process = serve(place.path(), &node.url(), &[&own, clients].concat());
        let address = process.address().to_string();
        says(place.path(), &[&[ANY_PORT], &own, clients], 0);
        says(elsewhere.path(), &[&[("server.listen", &address)], &own, clients], 0);
        let ended = says(place.path(), &[&[ANY_PORT], &other, clients], 1);
        assert!(ended.stderr.contains(&format!("https://{address}/healthz: ")), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        process.terminate();
        process.ended().await.expect_status(0);
    }
    // Without a certificate, a client is refused by such a gateway.
    let process = serve(place.path(), &node.url(), &[&own[..], &required].concat());
    says(place.path(), &[&[ANY_PORT], &own, &required], 0);
    says(place.path(), &[&[ANY_PORT], &own], 1);
    process.kill().await;
    says(place.path(), &[&[ANY_PORT], &own, &required], 1);
}

#[tokio::test]
async fn healthcheck_asks_the_operators_listener_if_there_is_one() {
    let place = directory();
    let node = FakeNode::start().await;
    let (own, other) = (certificate(place.path(), "own"), certificate(place.path(), "other"));
    let own = own.each_ref().map(|(key, path)| (*key, path.as_str()));
    let other = other.each_ref().map(|(key, path)| (*key, path.as_str()));
    let check = |status| {
        let settings = [&[ANY_PORT], &other[..]].concat();
        run(forebay(place.path(), &["healthcheck"], &settings)).expect_status(status);
    };
    // The gateway's own listener has a certificate that `healthcheck` does not accept here.
    for (operator, status) in [(None, 1), (Some("0.0.0.0:0"), 0), (Some("127.0.0.1:0"), 0)] {
        let operator: Vec<_> =
            operator.map(|listen| ("server.operator.listen", listen)).into_iter().collect();
        let process = serve(place.path(), &node.url(), &[&own[..], &operator].concat());
        check(status);
        process.kill().await;
        check(1);
    }
    // From another directory nothing is known of the process but its settings.
    let (elsewhere, free) = (directory(), nobody().to_string());
    let operator = [("server.operator.listen", free.as_str())];
    let process = serve(place.path(), &node.url(), &[&own[..], &operator].concat());
    let listen = process.address().to_string();
    let settings = [&[("server.listen", listen.as_str())], &other[..], &operator].concat();
    run(forebay(elsewhere.path(), &["healthcheck"], &settings)).expect_status(0);
    process.kill().await;
    run(forebay(elsewhere.path(), &["healthcheck"], &settings)).expect_status(1);
}

/// A directory that the user of the processes of this test may not write to, and how to start one as that user.
#[expect(clippy::type_complexity, reason = "it is said once")]
fn denied() -> (tempfile::TempDir, impl Fn(&Path, &[&str], &[(&str, &str)]) -> Finished) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    use std::os::unix::process::CommandExt as _;

    let place = directory();
    let is_root = place.path().metadata().expect("it is there").uid() == 0;
    // Nothing is denied to root, so that it becomes somebody else.
    let mode = if is_root { 0o755 } else { 0o500 };
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).expect("it is ours");
    let denied_run = move |place: &Path, arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = forebay(place, arguments, settings);
        if is_root {
            command.uid(12345).gid(12345);
        }
        run(command)
    };
    (place, denied_run)
}

#[test]
fn a_denied_path_is_reported_with_its_owner_and_the_user_who_was_denied() {
    let (place, denied_run) = denied();
    let data = place.path().canonicalize().expect("it is there");
    let mine = data.join("mine");
    let unreadable = data.join("forebay.toml");
    let _ = std::fs::write(&unreadable, "");
    let nodes = ("cluster.nodes", "http://127.0.0.1:9/v1/batches");
    let path = mine.to_str().expect("UTF-8");
    for (arguments, settings, status) in [
        (&["serve"][..], &[ANY_PORT, nodes, ("buffer.path", path)][..], 1),
        (&["serve"], &[ANY_PORT, MEMORY], 1),
        (&["node", "--listen", "127.0.0.1:0", "--data", path], &[], 1),
    ] {
        let ended = denied_run(place.path(), arguments, settings).expect_status(status);
        let line = ended.stderr.lines().find(|line| line.contains("ERROR")).expect("an error line");
        for words in
            ["Permission denied", "this process runs as user ", "belongs to user ", "with the mode 0", "`ch"]
        {
            assert!(
                line.contains(words) || (words == "`ch" && line.contains("&& chown ")),
                "{words}: {line}"
            );
        }
        assert!(line.contains(data.to_str().expect("UTF-8")), "{line}");
    }
    assert!(!mine.exists());
}
