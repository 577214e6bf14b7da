//! Signals.

use super::*;

#[tokio::test]
async fn signals_that_do_not_ask_to_stop_end_nothing() {
    let directory = directory();
    let node = FakeNode::start().await;
    let gateway = serve(directory.path(), &node.url(), &[("log.level", "debug")]);
    let arguments = ["node", "--listen", "127.0.0.1:0", "--data", "node"];
    let alone = Process::start(forebay(directory.path(), &arguments, &[]));
    for process in [gateway, alone] {
        for signal in [Signal::USR1, Signal::USR2, Signal::HUP, Signal::HUP] {
            process.signal(signal);
        }
        let told = line(&process, "SIGHUP").await;
        assert!(
            told.contains("WARN") && told.contains("no reload yet") && told.contains("restart"),
            "{told}"
        );
        process.get("/healthz").await.expect_status(200);
        assert_eq!(lines(&process.log(), "WARN SIGUSR"), 0, "{}", process.log());
        process.terminate();
        process.ended().await.expect_status(0);
    }
}

#[tokio::test]
async fn a_hang_up_while_it_starts_or_stops_ends_nothing() {
    let directory = directory();
    let node = FakeNode::always(Answer::status(503)).await;
    let process = serve(directory.path(), &node.url(), &[("server.shutdown_timeout", "2s")]);
    let gateway = process.gateway();
    gateway.post(&readings(3)).await.expect_status(202);
    process.terminate();
    eventually("it is draining", || async { gateway.get("/readyz").await.status == 503 }).await;
    process.signal(Signal::HUP);
    node.answer_otherwise(Answer::status(200));
    process.ended().await.expect_status(0);
    assert_eq!(node.readings(), readings(3));
}

/// The signals that a process catches, as bits from SIGHUP on: proc_pid_status(5).
fn caught_signals(process: &Process) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).expect("a mask"))
}

#[tokio::test]
async fn signals_end_nothing_from_before_the_settings_are_read() {
    let signals = [Signal::HUP, Signal::USR1, Signal::USR2];
    let bits = signals.iter().fold(0, |bits, signal| bits | 1 << (signal.as_raw() - 1));
    let node = FakeNode::start().await;
    let (url, mut windows) = (node.url(), Vec::new());
    for round in 0..15 {
        let directory = directory();
        let file = directory.path().join("settings");
        // A reader of the settings waits until somebody writes them.
        mknodat(CWD, &file, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        let path = file.to_str().expect("UTF-8");
        let all = ["serve", "--config", path];
        // `forebay` alone is `serve`.
        let arguments = &all[round % 2..];
        let settings = [ANY_PORT, ("cluster.nodes", &*url), MEMORY];
        let mut process = Process::launch(forebay(directory.path(), arguments, &settings));
        let started = Instant::now();
        while caught_signals(&process) & bits != bits {
            assert!(
                started.elapsed() < crate::support::LIMIT,
                "they are listened to before the settings are read"
            );
        }
        windows.push(started.elapsed());
        signals.iter().for_each(|signal| process.signal(*signal));
        std::fs::write(&file, "").expect("it reads");
        eventually("it listens", || std::future::ready(process.is_listening())).await;
        line(&process, "SIGHUP").await;
        process.terminate();
        process.ended().await.expect_status(0);
    }
    // Until the system has loaded the program, nobody can listen.
    windows.sort_unstable();
    let (least, median, most) = (windows[0], windows[windows.len() / 2], windows[windows.len() - 1]);
    println!("a signal ends the process in its first {least:?} (median {median:?}, at most {most:?})");
}
