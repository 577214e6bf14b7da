//! Rounds of load on all servers in turn.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::load::{self, Plan, Tally, Workload};
use crate::process::{Memory, Server};
use crate::report::{Delivered, Measured, Round};
use crate::{Arguments, Contender, Role, Start};

/// Longest time for the answers to a load, on top of the time that its spacing takes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// A server with the nodes that it forwards to.
pub(crate) struct Site {
    contender: &'static Contender,
    /// The server.
    pub(crate) server: Server,
    /// Empty if it forwards nothing.
    nodes: Vec<Server>,
    acknowledged: Cell<u64>,
    idle: Memory,
    /// The server's files; removed with the site.
    _directory: TempDir,
}

/// Measures the servers under `workload`.
pub(crate) async fn run(workload: &Workload, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let mut sites = Vec::new();
    for contender in arguments.servers() {
        sites.push(Site::start(contender, arguments.nodes).await.context(contender.name)?);
    }
    let readings = arguments.readings.unwrap_or(workload.readings_a_round);
    let plan = Plan {
        requests: readings.div_ceil(workload.readings_a_request),
        connections: usize::try_from(arguments.connections)?,
        spacing: Duration::ZERO,
    };
    let requests = workload.render();
    let mut rounds = vec![Vec::new(); sites.len()];
    for number in 0..=arguments.rounds {
        for index in order(number, sites.len()) {
            let round = sites[index].round(workload, &requests, plan).await?;
            // The first one of each fills caches and pools.
            if number > 0 {
                rounds[index].push(round);
            }
        }
        eprintln!("{}: round {number} of {} done", workload.name, arguments.rounds);
    }
    let mut measured = Vec::new();
    for (site, rounds) in sites.iter().zip(rounds) {
        measured.push(site.measured(rounds).await?);
    }
    Ok(measured)
}

/// The order within a round: forwards and backwards in turn.
pub(crate) fn order(round: u64, count: usize) -> Vec<usize> {
    let forwards = 0..count;
    if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
}

impl Site {
    /// Starts a server and, if it forwards, its nodes.
    pub(crate) async fn start(contender: &'static Contender, nodes: u64) -> anyhow::Result<Site> {
        // Beside cargo's output, which is on a disk; the system's own place may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let (server, nodes) = match contender.start {
            Start::Baseline => (Server::start_role(Role::Baseline)?, Vec::new()),
            Start::Gateway(settings) => {
                let nodes = (0..nodes).map(|_| Server::start_role(Role::CountingNode));
                let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
                (Server::start_gateway(directory.path(), &nodes, settings).await?, nodes)
            }
        };
        let idle = server.memory()?;
        Ok(Site { contender, server, nodes, acknowledged: Cell::new(0), idle, _directory: directory })
    }

    async fn round(&self, workload: &Workload, requests: &[Vec<u8>], plan: Plan) -> anyhow::Result<Round> {
        let before = self.server.cpu_seconds()?;
        let tally = self.send(workload, requests, plan).await?;
        let cpu_seconds = self.server.cpu_seconds()? - before;
        Ok(Round { readings: tally.readings, elapsed: tally.elapsed, cpu_seconds })
    }

    /// Sends the load and waits until all of it is forwarded.
    pub(crate) async fn send(
        &self,
        workload: &Workload,
        requests: &[Vec<u8>],
        plan: Plan,
    ) -> anyhow::Result<Tally> {
        self.send_all(workload, requests, plan).await.context(self.contender.name)
    }

    async fn send_all(&self, workload: &Workload, requests: &[Vec<u8>], plan: Plan) -> anyhow::Result<Tally> {
        let within = ANSWERS_WITHIN + plan.spacing.mul_f64(plan.requests as f64);
        let sending = load::send(self.server.address, workload, requests, plan);
        let Ok(sent) = tokio::time::timeout(within, sending).await else {
            bail!("the answers to the load were not there after {within:?}")
        };
        let tally = sent?;
        self.acknowledged.set(self.acknowledged.get() + tally.readings);
        self.wait_until_forwarded().await?;
        Ok(tally)
    }

    async fn wait_until_forwarded(&self) -> anyhow::Result<()> {
        let started_at = Instant::now();
        while !self.nodes.is_empty() && self.buffered().await? > 0 {
            ensure!(started_at.elapsed() < DRAIN_WITHIN, "still not forwarded after {DRAIN_WITHIN:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Readings that the gateway still holds.
    pub(crate) async fn buffered(&self) -> anyhow::Result<u64> {
        let status = self.server.get("status").await?;
        status["ledger"]["buffered"].as_u64().context("/status has no ledger.buffered")
    }

    /// The readings that were acknowledged, and those that nodes counted; `None` without nodes.
    pub(crate) async fn delivered(&self) -> anyhow::Result<Option<Delivered>> {
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let mut counted = 0;
        for node in &self.nodes {
            counted += node.get("count").await?.as_u64().context("the node's count is no number")?;
        }
        Ok(Some(Delivered { acknowledged: self.acknowledged.get(), counted }))
    }

    async fn measured(&self, rounds: Vec<Round>) -> anyhow::Result<Measured> {
        let (idle, after, delivered) = (self.idle, self.server.memory()?, self.delivered().await?);
        let Contender { name, beside, .. } = *self.contender;
        Ok(Measured { name, beside, rounds, idle, after, delivered })
    }
}
