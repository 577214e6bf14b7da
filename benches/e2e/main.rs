//! The gateway's cost: CPU seconds per million readings beside a bare axum handler that only parses, and beside nginx where
//! clients come over TLS.
//!
//! `cargo bench --bench e2e -- --run` measures, `-- --help` lists the options; without `--run` nothing happens,
//! so that `cargo test --benches` stays short. It needs Linux, for `/proc`. nginx is left out where it is not installed.
//!
//! Every server is a process of its own and its CPU time is the kernel's account of that process; that of nginx includes
//! its workers and the handler behind it. The gateway's includes forwarding all it took to a counting node. Rounds of the
//! servers take turns, in alternating order, so that a busy moment of the machine hits all of them; the first round of
//! each is not counted. A server that is to be compared is a row in [`contenders::SERVERS`], a
//! workload a row in [`load::WORKLOADS`].

mod backlog;
mod baseline;
mod contenders;
mod counting_node;
mod delayed_node;
mod distinct;
mod idle;
mod keys;
mod load;
mod measure;
mod nginx;
mod numbered;
mod outage_node;
mod process;
mod report;
#[path = "../support/sample.rs"]
mod sample;
mod slow_node;
mod steady;
mod tls;
#[path = "../support/typed.rs"]
mod typed;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use contenders::{Contender, SERVERS};
use load::{WORKLOADS, Workload};
use tokio::net::TcpListener;

/// As in the gateway's binary, for the baseline.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The part of this binary when it has started itself.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Role {
    /// The bare axum handler.
    Baseline,
    /// nginx, which this process becomes.
    Nginx,
    /// A node that counts.
    CountingNode,
    /// A node that is away at first.
    OutageNode,
    /// A node that takes 5 ms over every answer.
    #[value(name = "5-ms-node")]
    NodeOf5Ms,
    /// A node that takes 500 ms.
    #[value(name = "500-ms-node")]
    NodeOf500Ms,
}

impl Role {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Baseline => "baseline",
            Role::Nginx => "nginx",
            Role::CountingNode => "counting-node",
            Role::OutageNode => "outage-node",
            Role::NodeOf5Ms => "5-ms-node",
            Role::NodeOf500Ms => "500-ms-node",
        }
    }

    fn run(self) -> anyhow::Result<()> {
        if let Role::Nginx = self {
            return nginx::become_nginx();
        }
        // The parent holds the other end of standard input, which closes when the parent ends in any way.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
            match self {
                Role::Baseline => baseline::serve(listener).await?,
                Role::CountingNode => counting_node::serve(listener).await?,
                Role::OutageNode => outage_node::serve(listener).await?,
                Role::NodeOf5Ms => delayed_node::serve(listener, delayed_node::WELL).await?,
                Role::NodeOf500Ms => delayed_node::serve(listener, delayed_node::SLOW).await?,
                Role::Nginx => bail!("nginx listens by itself"),
            }
            Ok(())
        })
    }
}

/// CPU per reading of the gateway beside a bare axum handler.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench e2e --")]
pub(crate) struct Arguments {
    /// Measure; without it nothing happens
    #[arg(long)]
    run: bool,
    /// Only this workload; may be given several times
    #[arg(long, value_name = "WORKLOAD", value_parser = PossibleValuesParser::new(WORKLOADS.iter().map(|w| w.name)))]
    only: Vec<String>,
    /// Only servers with this in their name; may be given several times; ratios are to the first that is left
    #[arg(long, value_name = "TEXT")]
    server: Vec<String>,
    /// Rounds of each server that count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) rounds: u64,
    /// Readings in a round [default: some seconds of CPU time, by workload]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) readings: Option<u64>,
    /// Connections that send at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) connections: u64,
    /// Nodes that the gateway forwards to
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) nodes: u64,
    /// Instead: a steady load for so many seconds, to see whether the gateway's memory stays flat
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steady: Option<u64>,
    /// Instead: an outage that leaves so many MiB in the buffer on disk, a kill and a start, and the delivery
    #[arg(long, value_name = "MIB", num_args = 0..=1, default_missing_value = "1024", value_parser = clap::value_parser!(u64).range(1..))]
    backlog: Option<u64>,
    /// Instead: the throughput with a node of 500 ms beside two of 5 ms, and its share
    #[arg(long)]
    slow_node: bool,
    /// Instead: the gateway's memory with so many connections that do nothing
    #[arg(long, value_name = "CONNECTIONS", num_args = 0..=1, default_missing_value = "10000", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    idle: Option<u64>,
    /// Readings a second of the steady load, or while a backlog is delivered
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// Seconds between two looks at the memory under the steady load
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample_every: u64,
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// An argument that cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        WORKLOADS.iter().filter(move |workload| wanted(workload.name))
    }

    /// The servers to measure, in the order of the table.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &'static Contender> {
        let wanted =
            |name: &str| self.server.is_empty() || self.server.iter().any(|text| name.contains(text));
        SERVERS.iter().filter(move |contender| wanted(contender.name))
    }

    /// Those of them that a workload suits and that are there.
    pub(crate) fn servers_for(&self, workload: &Workload) -> impl Iterator<Item = &'static Contender> {
        let handshake = workload.handshake;
        self.servers().filter(move |contender| contender.is_there() && contender.suits(handshake))
    }
}

fn main() -> ExitCode {
    // Looked for by hand: a test runner passes options that are not ours.
    if !std::env::args().any(|argument| argument == "--run" || argument == "--help" || argument == "-h") {
        println!("e2e: nothing measured; `cargo bench --bench e2e -- --run` does, `-- --help` says more");
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Some(role) => role.run(),
        None => run(&arguments),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Measures and prints the requested figures.
fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        arguments.servers().next().is_some(),
        "no server has `{}` in its name",
        arguments.server.join("`, `")
    );
    // One thread: the load must leave the processor to the servers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exact = runtime.block_on(async {
        match (arguments.backlog, arguments.steady, arguments.idle) {
            _ if arguments.slow_node => slow_node::run(arguments).await,
            (Some(mebibytes), ..) => backlog::run(mebibytes, arguments).await,
            (None, Some(seconds), _) => watch_all(seconds, arguments).await,
            (None, None, Some(connections)) => idle::run(connections, arguments).await,
            (None, None, None) => measure_all(arguments).await,
        }
    })?;
    println!("{}", report::machine());
    ensure!(exact, "the nodes did not count what was acknowledged");
    Ok(())
}

async fn watch_all(seconds: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    let mut exact = true;
    for workload in arguments.workloads() {
        exact &= steady::run(workload, seconds, arguments).await.context(workload.name)?;
    }
    Ok(exact)
}

async fn measure_all(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.servers().any(|contender| !contender.is_there()) {
        println!("{}\n", nginx::MISSING);
    }
    let mut exact = true;
    let mut table = vec![report::HEAD.to_owned()];
    let mut notes = vec!["CPU s per million readings, round by round:".to_owned()];
    let mut arrivals = Vec::new();
    for workload in arguments.workloads() {
        let measured = measure::run(workload, arguments).await.context(workload.name)?;
        table.extend(report::rows(workload.name, &measured));
        for server in &measured {
            notes.push(report::spread(workload.name, server, &measured));
            let Some(delivered) = server.delivered else { continue };
            arrivals.push(format!("{}, {}", workload.name, report::delivered(server.name, delivered)));
            exact &= delivered.is_exact();
        }
    }
    for paragraph in [table, arrivals, notes].iter().filter(|lines| !lines.is_empty()) {
        println!("{}\n", paragraph.join("\n"));
    }
    Ok(exact)
}
