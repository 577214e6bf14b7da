//! Processes under measurement: their start, their cost, and their end, so that none is left behind.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::Role;

/// Clock ticks a second in `/proc/PID/stat`: Linux always shows hundredths to programs.
const TICKS_A_SECOND: f64 = 100.0;
const START_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Where the gateway's log goes.
const LOG: &str = "log";
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A running server; it is killed when this is dropped.
pub(crate) struct Server {
    process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
}

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Its memory now (`VmRSS`).
    pub(crate) resident: f64,
    /// The most that it ever had (`VmHWM`).
    pub(crate) peak: f64,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is the aim.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts this binary again in another role, which prints its address.
    pub(crate) fn start_role(role: Role) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        // The role ends when its standard input does, so it cannot outlive this process.
        command.args(["--run", "--role", role.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().with_context(|| format!("starting {}", role.name()))?);
        let stdout = process.0.stdout.take().context("standard output is not piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.with_context(|| format!("{} printed {line:?} for an address", role.name()))?;
        Ok(Server { process, address, client: client()? })
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.arg("serve").current_dir(directory).env_clear();
        command.env("FOREBAY__SERVER__LISTEN", address.to_string());
        command.env("FOREBAY__CLUSTER__NODES", urls.join(","));
        command.envs(settings.iter().map(|(key, value)| (format!("FOREBAY__{key}"), value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(directory.join(LOG))?);
        let process = Process(command.spawn().context("starting the gateway")?);
        Ok(Server { process, address, client: client()? })
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
            if let Some(status) = self.process.0.try_wait()? {
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
        let answer = self.client.get(format!("http://{}/{path}", self.address)).send().await?;
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

    /// User and system time that the process has used, in seconds; it moves in steps of 10 ms.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.proc_file("stat")?)
    }

    /// Memory of the process.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let status = self.proc_file("status")?;
        let mebibytes = |name: &str| {
            let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
            let kibibytes: f64 = kibibytes.with_context(|| format!("no {name} in status"))?.trim().parse()?;
            anyhow::Ok(kibibytes / 1024.0)
        };
        Ok(Memory { resident: mebibytes("VmRSS:")?, peak: mebibytes("VmHWM:")? })
    }

    fn proc_file(&self, name: &str) -> anyhow::Result<String> {
        proc_file(&self.process.0.id().to_string(), name)
    }
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
