//! Processes under measurement: their start, their cost, and their end, so that none is left behind.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::iter::Sum;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::{Role, nginx};

/// Clock ticks a second in `/proc/PID/stat`: Linux always shows hundredths to programs.
const TICKS_A_SECOND: f64 = 100.0;
const START_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Where the gateway's log goes.
const LOG: &str = "log";
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A running server; it is ended when this is dropped.
pub(crate) struct Server {
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it says how it is; a gateway has a listener of its own for that, without TLS and keys.
    status_address: SocketAddr,
    /// Processes that it has started and that work for it.
    workers: Vec<u32>,
    client: reqwest::Client,
}

/// Memory of a process or of several, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The memory now (`VmRSS`).
    pub(crate) resident: f64,
    /// The most that there ever was (`VmHWM`).
    pub(crate) peak: f64,
}

struct Process {
    child: Child,
    /// How it is ended.
    end: Signal,
}

impl Process {
    fn start(command: &mut Command, end: Signal) -> std::io::Result<Process> {
        Ok(Process { child: command.spawn()?, end })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // All of it fails only if it has ended already, which is the aim.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), self.end);
        }
        let _ = self.child.wait();
    }
}

impl Server {
    fn new(process: Process, address: SocketAddr) -> anyhow::Result<Server> {
        Ok(Server { process, address, status_address: address, workers: Vec::new(), client: client()? })
    }

    /// Starts this binary again in another role, which prints its address.
    pub(crate) fn start_role(role: Role) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        // The role ends when its standard input does, so it cannot outlive this process.
        command.args(["--run", "--role", role.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = Process::start(&mut command, Signal::KILL);
        let mut process = process.with_context(|| format!("starting {}", role.name()))?;
        let stdout = process.child.stdout.take().context("standard output is not piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.with_context(|| format!("{} printed {line:?} for an address", role.name()))?;
        Server::new(process, address)
    }

    /// Starts nginx in `directory`, which has its certificate and key, in front of `upstream`, and waits until it listens.
    pub(crate) async fn start_nginx(directory: &Path, upstream: &Server) -> anyhow::Result<Server> {
        let address = free_address()?;
        nginx::write_settings(directory, address, upstream.address)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--run", "--role", Role::Nginx.name()]).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(directory.join(LOG))?);
        // Killed, it would leave its workers behind.
        let process = Process::start(&mut command, Signal::TERM).context("starting nginx")?;
        let mut nginx = Server::new(process, address)?;
        let listens = nginx.wait_until_it_listens().await;
        listens.with_context(|| fs::read_to_string(directory.join(LOG)).unwrap_or_default())?;
        Ok(nginx)
    }

    async fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let started_at = Instant::now();
        let id = self.process.child.id();
        while self.workers.len() < nginx::workers() || TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.process.child.try_wait()? {
                bail!("it ended at once, {status}");
            }
            ensure!(started_at.elapsed() < START_WITHIN, "it did not listen in {START_WITHIN:?}");
            tokio::time::sleep(POLL_EVERY).await;
            let workers = proc_file(&id.to_string(), &format!("task/{id}/children"))?;
            self.workers = workers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Starts the gateway in `directory` and waits until it is ready.
    ///
    /// `settings` are names after `FOREBAY__` and values; the log goes to a file in `directory`.
    pub(crate) async fn start_gateway(
        directory: &Path,
        nodes: &[Server],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let mut gateway = Server::spawn_gateway(directory, free_address()?, nodes, settings)?;
        gateway.wait_until_ready(directory).await?;
        Ok(gateway)
    }

    /// Starts the gateway as [`Server::start_gateway`] does, and does not wait.
    pub(crate) fn spawn_gateway(
        directory: &Path,
        address: SocketAddr,
        nodes: &[Server],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let urls: Vec<String> =
            nodes.iter().map(|node| format!("http://{}/v1/batches", node.address)).collect();
        let status_address = free_address()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("serve").current_dir(directory).env_clear();
        command.env("FOREBAY__SERVER__LISTEN", address.to_string());
        command.env("FOREBAY__SERVER__OPERATOR__LISTEN", status_address.to_string());
        command.env("FOREBAY__CLUSTER__NODES", urls.join(","));
        command.envs(settings.iter().map(|(key, value)| (format!("FOREBAY__{key}"), value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(directory.join(LOG))?);
        let process = Process::start(&mut command, Signal::KILL).context("starting the gateway")?;
        Ok(Server { status_address, ..Server::new(process, address)? })
    }

    /// Waits until it takes readings.
    ///
    /// # Errors
    ///
    /// If it ends or is not ready in time, with its log, which is in `directory`.
    pub(crate) async fn wait_until_ready(&mut self, directory: &Path) -> anyhow::Result<()> {
        let waited = self.poll_readyz().await;
        waited.with_context(|| fs::read_to_string(directory.join(LOG)).unwrap_or_default())
    }

    async fn poll_readyz(&mut self) -> anyhow::Result<()> {
        let started_at = Instant::now();
        while self.get("readyz").await.is_err() {
            if let Some(status) = self.process.child.try_wait()? {
                bail!("the gateway ended at once, {status}");
            }
            ensure!(started_at.elapsed() < START_WITHIN, "the gateway was not ready in {START_WITHIN:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// The server's answer to a `GET` of `path`, as JSON.
    ///
    /// # Errors
    ///
    /// No answer in ten seconds, or one that is not 2xx or not JSON.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let answer = self.client.get(format!("http://{}/{path}", self.status_address)).send().await?;
        let body = answer.error_for_status()?.bytes().await?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to GET /{path}"))
    }

    /// Posts nothing to `path`.
    ///
    /// # Errors
    ///
    /// No answer in ten seconds, or one that is not 2xx.
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<()> {
        self.client.post(format!("http://{}/{path}", self.address)).send().await?.error_for_status()?;
        Ok(())
    }

    /// User and system time that its processes have used, in seconds; it moves in steps of 10 ms.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes().map(|id| cpu_seconds(&proc_file(&id.to_string(), "stat")?)).sum()
    }

    /// Memory of its processes.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        self.processes().map(memory).sum()
    }

    fn processes(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.process.child.id()).chain(self.workers.iter().copied())
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Memory>>(all: I) -> Memory {
        all.fold(Memory { resident: 0.0, peak: 0.0 }, |sum, one| Memory {
            resident: sum.resident + one.resident,
            peak: sum.peak + one.peak,
        })
    }
}

fn memory(process: u32) -> anyhow::Result<Memory> {
    let status = proc_file(&process.to_string(), "status")?;
    let mebibytes = |name: &str| {
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
        let kibibytes: f64 = kibibytes.with_context(|| format!("no {name} in status"))?.trim().parse()?;
        anyhow::Ok(kibibytes / 1024.0)
    };
    Ok(Memory { resident: mebibytes("VmRSS:")?, peak: mebibytes("VmHWM:")? })
}

/// User and system time that this process has used, in seconds.
pub(crate) fn own_cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds(&proc_file("self", "stat")?)
}

fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    // The name in parentheses may have spaces; `utime` and `stime` are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks as f64 / TICKS_A_SECOND)
}

fn proc_file(process: &str, name: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{process}/{name}");
    fs::read_to_string(&path).with_context(|| format!("reading {path} (this needs Linux)"))
}

fn client() -> reqwest::Result<reqwest::Client> {
    forebay_load::client::builder().timeout(ANSWER_WITHIN).build()
}

/// An address that nobody listened on a moment ago.
pub(crate) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
