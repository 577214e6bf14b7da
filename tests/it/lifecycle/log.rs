//! The log's lines while something goes wrong.

use super::*;

#[tokio::test]
async fn a_full_buffer_and_a_dead_node_are_each_one_line_whatever_the_load() {
    let directory = directory();
    let settings = [
        ("buffer.max_readings", "5"),
        ("cluster.health.failures", "1"),
        ("server.shutdown_timeout", "100ms"),
    ];
    let process = serve(directory.path(), &format!("http://{}/", nobody()), &settings);
    let gateway = process.gateway();
    gateway.post(&readings(5)).await.expect_status(202);
    for _ in 0..200 {
        gateway.post(&readings(1)).await.expect_status(503);
    }
    let full = line(&process, "the buffer is full").await;
    assert!(
        full.contains("WARN") && full.contains("buffered=5") && full.contains("5 readings of 5"),
        "{full}"
    );
    assert!(full.contains("buffer.max_readings"), "what to do: {full}");
    let gone = line(&process, "no node is up").await;
    assert!(gone.contains("WARN") && gone.contains("refused") && gone.contains("forebay check"), "{gone}");
    process.terminate();
    let log = process.ended().await.stderr;
    assert_eq!((lines(&log, "condition=\"no_node_up\""), lines(&log, "the buffer is full")), (1, 1), "{log}");
    // Events that were not logged while it lasted are summed up at the end.
    let told = log.lines().filter(|line| line.contains("condition=\"buffer_full\""));
    let told = told.filter_map(|line| line.split_once("requests=")?.1.split(' ').next()?.parse::<u64>().ok());
    assert_eq!(told.sum::<u64>(), 200, "{log}");
}

#[tokio::test]
async fn no_accepted_reading_is_given_up_without_a_line_not_even_just_before_the_end() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let settings = [
        ("buffer.max_readings", "10"),
        ("buffer.on_full", "drop_oldest"),
        ("cluster.retry.initial", "1m"),
        ("cluster.retry.max", "1m"),
        ("server.shutdown_timeout", "100ms"),
    ];
    let process = serve(directory.path(), &node.url(), &settings);
    let gateway = process.gateway();
    for _ in 0..4 {
        gateway.post(&readings(10)).await.expect_status(202);
    }
    let dropped = gateway.account("dropped").await;
    assert!(dropped > 0);
    process.terminate();
    let log = process.ended().await.stderr;
    let told = log.lines().filter(|line| line.contains("ERROR") && line.contains("given up for newer ones"));
    let told = told.filter_map(|line| line.split_once("readings=")?.1.split(' ').next()?.parse::<u64>().ok());
    assert_eq!(told.sum::<u64>(), dropped, "{log}");
}

#[tokio::test]
async fn readings_that_nodes_refuse_or_the_gateway_rejects_are_logged_with_an_example() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(422).body("no such sensor")).await;
    let process = serve(directory.path(), &node.url(), &[]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    let refused = line(&process, "readings become dead letters").await;
    assert!(refused.contains("WARN") && refused.contains("no such sensor"), "{refused}");
    assert!(refused.contains(&node.id()) && refused.contains("dead-letters list"), "{refused}");

    let bad = |device: usize| json!({ "device": format!("pump-{device}"), "sensor": "s" });
    gateway.post(&(0..30).map(bad).collect::<Vec<_>>()).await.expect_status(422);
    gateway.post_body("application/json", "{").await.expect_status(400);
    let turned_away = line(&process, "are turned away").await;
    assert!(turned_away.contains("WARN") && turned_away.contains("/status/rejections"), "{turned_away}");
    assert!(
        turned_away.contains("turned_away=3") && turned_away.contains("pump-13: 1 (field)"),
        "{turned_away}"
    );
    process.terminate();
    let log = process.ended().await.stderr;
    let told = log.lines().filter(|line| line.contains("condition=\"turned_away\""));
    let told: String = told.collect();
    assert_eq!(told.matches("pump-").count(), 20, "{log}");
    assert!(told.contains("all others: 10 (field)") && told.contains("whole requests: 1 (body)"), "{log}");
}

#[tokio::test]
async fn a_failing_disk_is_logged_at_its_beginning_and_end_and_readyz_says_failing() {
    let directory = directory();
    let node = FakeNode::start().await;
    let process = serve(directory.path(), &node.url(), &[DISK, ("buffer.path", "buffer")]);
    let gateway = process.gateway();
    gateway.post(&readings(1)).await.expect_status(202);
    let (here, away) = (directory.path().join("buffer"), directory.path().join("away"));
    std::fs::rename(&here, &away).expect("moved");
    eventually("it is refused", || async { gateway.post(&readings(1)).await.status == 503 }).await;
    let begins = line(&process, "nothing can be written to the buffer on disk").await;
    assert!(begins.contains("ERROR") && begins.contains("buffer"), "{begins}");
    let answer = gateway.get("/readyz").await.expect_status(503).json();
    assert_eq!((&answer["status"], &answer["checks"]["storage"]["ok"]), (&json!("failing"), &json!(false)));
    assert_eq!(gateway.metric(r#"forebay_ready{check="storage"}"#).await, Some(0.0));
    std::fs::rename(&away, &here).expect("moved back");
    let ends = line(&process, "the buffer on disk can be written again").await;
    assert!(ends.contains("INFO") && ends.contains("lasted_seconds="), "{ends}");
    gateway.post(&readings(1)).await.expect_status(202);
    assert_eq!(lines(&process.log(), "nothing can be written"), 1, "{}", process.log());
}

#[tokio::test]
async fn a_lock_or_directory_taken_from_an_idle_gateway_is_logged_with_a_remedy_and_the_last_line_is_true() {
    let lock: (&str, _, _, _) = ("buffer/lock", "restart the gateway", "readings stay on disk", 0);
    let whole = ("buffer", "put the directory back", "the next start does not find them", 1);
    for (gone, to_do, ends, status) in [lock, whole] {
        let directory = directory();
        let settings = [DISK, ("buffer.path", "buffer")];
        let process = serve(directory.path(), &format!("http://{}/", nobody()), &settings);
        process.gateway().post(&readings(3)).await.expect_status(202);
        let away = directory.path().join("away");
        std::fs::rename(directory.path().join(gone), away).expect("moved");
        let told = line(&process, "nothing can be written to the buffer on disk").await;
        assert!(told.contains(to_do) && !told.contains("make room"), "{told}");
        process.get("/readyz").await.expect_status(503);
        process.terminate();
        let ended = process.ended().await.expect_status(status);
        assert!(ended.stderr.contains(ends) && !ended.stderr.contains("other keys"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn an_end_without_the_directory_is_logged_even_with_no_reading_left() {
    let directory = directory();
    let process =
        serve(directory.path(), &format!("http://{}/", nobody()), &[DISK, ("buffer.path", "buffer")]);
    std::fs::rename(directory.path().join("buffer"), directory.path().join("away")).expect("moved");
    line(&process, "nothing can be written to the buffer on disk").await;
    process.terminate();
    let ended = process.ended().await.expect_status(0);
    let told = ended.stderr.lines().find(|line| line.contains("stopped")).expect("the last line");
    assert!(told.contains("WARN") && told.contains("put the directory back"), "{told}");
    assert!(told.contains("knows no `Idempotency-Key` of before"), "{told}");
}

#[tokio::test]
async fn a_gateway_whose_log_cannot_be_written_serves_all_the_same() {
    let place = directory();
    let address = nobody();
    let listen = address.to_string();
    let settings = [("server.listen", &*listen), ("cluster.nodes", "http://127.0.0.1:9"), MEMORY];
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let command = forebay(place.path(), &["serve"], &settings);
    let mut process = Process::launch_logging_to(full, command, address);
    let gateway = process.gateway();
    eventually("it listens", || async { std::net::TcpStream::connect(address).is_ok() }).await;
    gateway.post(&readings(1)).await.expect_status(202);
    gateway.post_body("application/json", "[{}]").await.expect_status(422);
    gateway.post(&readings(1)).await.expect_status(202);
    assert!(process.is_running());
}

#[test]
fn a_command_whose_complaint_cannot_be_written_ends_with_its_status_all_the_same() {
    let place = directory();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = forebay(place.path(), &["check", "--config", "missing.toml"], &[]);
    let status = command.stderr(full).status().expect("the binary runs");
    assert_eq!(status.code(), Some(2));
}
