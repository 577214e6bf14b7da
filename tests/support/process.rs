//! The binary itself, as a process in a directory of its own.

#![expect(clippy::disallowed_types, reason = "processes take real time")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LIMIT;
use super::gateway::{Reply, RunningGateway};

/// A directory that goes away.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Puts a file in the place of a directory that a gateway has made at its start: nothing can be written below it from now
/// on. The gateway may be at work in it, so that it is not emptied but moved away.
pub fn block(directory: &Path) {
    std::fs::rename(directory, directory.with_extension("away")).expect("made at the start");
    std::fs::write(directory, "a file").expect("written");
}

/// The binary, to be run in `directory`: the one that was just built, or what `FOREBAY_BIN` names, to see how another
/// version fares. Settings of the environment are not passed on.
pub fn forebay(directory: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let binary = std::env::var_os("FOREBAY_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_forebay").into());
    let mut command = Command::new(binary);
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY") {
            command.env_remove(name);
        }
    }
    for (key, value) in settings {
        command.env(format!("FOREBAY__{}", key.to_uppercase().replace('.', "__")), value);
    }
    command
}

/// Runs a command to its end, which must come in time.
pub fn run(mut command: Command) -> Finished {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let limit = Guard { pid: pid(&child), disarmed: Arc::default() };
    let watch = limit.watch();
    let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
    *limit.disarmed.lock().expect("not poisoned") = true;
    watch.thread().unpark();
    watch.join().expect("the watch ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Finished { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails if the exit status is another one.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Finished {
        assert_eq!(self.status, Some(status), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// A process that serves: `forebay`, `forebay serve` or `forebay node`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    address: SocketAddr,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it and waits until its log says where it listens.
    pub fn start(command: Command) -> Process {
        let mut process = Process::launch(command);
        let until = Instant::now() + LIMIT;
        while !process.is_listening() {
            assert!(Instant::now() < until, "it listens in time: {}", process.log());
            if let Some(status) = process.child.try_wait().expect("a status") {
                panic!("it ended with {status}: {}", process.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        process
    }

    /// Starts it, and waits for nothing.
    pub fn launch(mut command: Command) -> Process {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let (stdout, stderr): (Arc<Mutex<String>>, Arc<Mutex<String>>) = Default::default();
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), &stdout),
            collect(child.stderr.take().expect("a pipe"), &stderr),
        ];
        Process { child, address: ([127, 0, 0, 1], 0).into(), stdout, stderr, readers }
    }

    /// Starts a server that will listen on `address`, with `log` as its standard error.
    pub fn launch_logging_to(log: File, mut command: Command, address: SocketAddr) -> Process {
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs");
        Process { child, address, stdout: Arc::default(), stderr: Arc::default(), readers: Vec::new() }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// Whether its log has said where it listens.
    pub fn is_listening(&mut self) -> bool {
        if self.address.port() == 0
            && let Some(address) = self.log().lines().find_map(listening_at)
        {
            self.address = address;
        }
        self.address.port() != 0
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It as a gateway, over HTTP.
    pub fn gateway(&self) -> RunningGateway {
        RunningGateway::at(self.address)
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Reply {
        self.gateway().get(path).await
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&self) {
        kill_process(pid(&self.child), Signal::TERM).expect("it runs");
    }

    /// Asks it to stop, as Ctrl-C does.
    pub fn interrupt(&self) {
        kill_process(pid(&self.child), Signal::INT).expect("it runs");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("it runs");
    }

    /// Ends it as a crash does: it does nothing more, whatever it was doing.
    pub async fn kill(self) -> Finished {
        kill_process(pid(&self.child), Signal::KILL).expect("it is there until it is waited for");
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Finished {
        let until = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                break status.code();
            }
            assert!(Instant::now() < until, "it ends in time: {}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        for reader in std::mem::take(&mut self.readers) {
            reader.join().expect("its output is read");
        }
        let stdout = self.stdout.lock().expect("not poisoned").clone();
        Finished { status, stdout, stderr: self.log() }
    }

    /// Processor time that it has used so far, in clock ticks of a hundredth of a second.
    pub fn processor_ticks(&self) -> u64 {
        let path = PathBuf::from(format!("/proc/{}/stat", self.child.id()));
        let text = std::fs::read_to_string(path).expect("it runs");
        // The fields after the name, which may have spaces in it, from the third on: proc_pid_stat(5).
        let (_, fields) = text.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        [11, 12].map(|field| fields[field].parse::<u64>().expect("a number")).into_iter().sum()
    }

    /// Most memory that it has had at a time, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a process that does not end by itself in time.
struct Guard {
    pid: Pid,
    disarmed: Arc<Mutex<bool>>,
}

impl Guard {
    fn watch(&self) -> JoinHandle<()> {
        let (pid, disarmed) = (self.pid, Arc::clone(&self.disarmed));
        std::thread::spawn(move || {
            let until = Instant::now() + LIMIT;
            while !*disarmed.lock().expect("not poisoned") {
                let Some(left) = until.checked_duration_since(Instant::now()) else {
                    let _ = kill_process(pid, Signal::KILL);
                    return;
                };
                std::thread::park_timeout(left);
            }
        })
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id")
}

fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let line = line.expect("UTF-8");
            into.lock().expect("not poisoned").push_str(&format!("{line}\n"));
        }
    })
}

/// The address in a line that says that the gateway or the node listens, in either log format.
fn listening_at(line: &str) -> Option<SocketAddr> {
    // The embedded node of a gateway says nothing of the kind.
    if !line.contains("listening") {
        return None;
    }
    let rest = line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?.1;
    rest.split([' ', '"']).next()?.parse().ok()
}
