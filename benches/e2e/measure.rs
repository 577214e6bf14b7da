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

use crate::contenders::{Contender, Start};
use crate::load::{self, Client, Plan, Tally, Workload};
use crate::process::{Memory, Server};
use crate::report::{Delivered, Measured, Round};
use crate::tls::Handshake;
use crate::{Arguments, Role};

/// Longest time for the answers to a load, on top of the time that its spacing takes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// A server with its clients, and what it needs to do its work.
pub(crate) struct Site {
    contender: &'static Contender,
    /// The server.
    pub(crate) server: Server,
    /// Its clients.
    pub(crate) clients: Vec<Client>,
    /// The server that it asks, whose cost is counted as its own.
    upstream: Option<Server>,
    /// The nodes that it forwards to; empty if it forwards nothing.
    nodes: Vec<Server>,
    acknowledged: Cell<u64>,
    idle: Memory,
    /// The server's files; removed with the site.
    _directory: TempDir,
}

/// The choices in setting a site up.
#[derive(Clone, Copy)]
pub(crate) struct SiteOptions<'a> {
    /// Nodes that a gateway forwards to.
    pub(crate) nodes: u64,
    /// How many clients there are.
    pub(crate) clients: u64,
    /// The handshake that each of their connections begins with, if that matters.
    pub(crate) handshake: Option<Handshake>,
    /// Settings of a gateway, beside those of the contender.
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

impl SiteOptions<'_> {
    /// As the command line says.
    pub(crate) fn of(workload: &Workload, arguments: &Arguments) -> SiteOptions<'static> {
        let Arguments { nodes, connections: clients, .. } = *arguments;
        SiteOptions { nodes, clients, handshake: workload.handshake, settings: &[] }
    }
}

/// Measures the servers that `workload` suits.
pub(crate) async fn run(workload: &Workload, arguments: &Arguments) -> anyhow::Result<Vec<Measured>> {
    let mut sites = Vec::new();
    for contender in arguments.servers_for(workload) {
        let site = Site::start(contender, SiteOptions::of(workload, arguments)).await;
        let site = site.context(contender.name)?;
        let requests = workload.render(|number| site.header(number));
        sites.push((site, requests));
    }
    let readings = arguments.readings.unwrap_or(workload.readings_a_round);
    let plan = Plan { requests: readings.div_ceil(workload.readings_a_request), spacing: Duration::ZERO };
    let mut rounds = vec![Vec::new(); sites.len()];
    for number in 0..=arguments.rounds {
        for index in order(number, sites.len()) {
            let (site, requests) = &sites[index];
            let round = site.round(workload, requests, plan).await?;
            // The first one of each fills caches and pools.
            if number > 0 {
                rounds[index].push(round);
            }
        }
        eprintln!("{}: round {number} of {} done", workload.name, arguments.rounds);
    }
    let mut measured = Vec::new();
    for ((site, _), rounds) in sites.iter().zip(rounds) {
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
    /// Starts a server, and its upstream or its nodes if it has them.
    pub(crate) async fn start(
        contender: &'static Contender,
        options: SiteOptions<'_>,
    ) -> anyhow::Result<Site> {
        // Beside cargo's output, which is on a disk; the system's own place may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let credentials = contender.approach.prepare(directory.path())?;
        let (mut nodes, mut upstream) = (Vec::new(), None);
        let server = match contender.start {
            Start::Baseline => Server::start_role(Role::Baseline)?,
            Start::Nginx => {
                let handler = upstream.insert(Server::start_role(Role::Baseline)?);
                Server::start_nginx(directory.path(), handler).await?
            }
            Start::Gateway(settings) => {
                for _ in 0..options.nodes {
                    nodes.push(Server::start_role(Role::CountingNode)?);
                }
                let settings = [settings, options.settings].concat();
                Server::start_gateway(directory.path(), &nodes, &settings).await?
            }
        };
        let clients = (0..options.clients).map(|_| credentials.client(server.address, options.handshake));
        let clients = clients.collect::<anyhow::Result<_>>()?;
        let idle = [Some(&server), upstream.as_ref()].into_iter().flatten().map(Server::memory);
        let (acknowledged, idle) = (Cell::new(0), idle.sum::<anyhow::Result<_>>()?);
        Ok(Site { contender, server, clients, upstream, nodes, acknowledged, idle, _directory: directory })
    }

    /// The lines that the contender wants in the head of the `number`-th request.
    pub(crate) fn header(&self, number: u64) -> String {
        self.contender.approach.header(number)
    }

    async fn round(&self, workload: &Workload, requests: &[Vec<u8>], plan: Plan) -> anyhow::Result<Round> {
        let before = self.cpu_seconds()?;
        let tally = self.send(workload, requests, plan).await?;
        let cpu_seconds = self.cpu_seconds()? - before;
        Ok(Round { readings: tally.readings, elapsed: tally.elapsed, cpu_seconds })
    }

    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.servers().map(Server::cpu_seconds).sum()
    }

    fn memory(&self) -> anyhow::Result<Memory> {
        self.servers().map(Server::memory).sum()
    }

    /// Those whose cost is measured.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.server).chain(&self.upstream)
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
        let sending = load::send(&self.clients, workload, requests, plan);
        let Ok(sent) = tokio::time::timeout(within, sending).await else {
            bail!("the answers to the load were not there after {within:?}")
        };
        let tally = sent?;
        self.acknowledge(tally.readings).await?;
        Ok(tally)
    }

    /// Notes readings that the server has acknowledged, and waits until all of them are forwarded.
    pub(crate) async fn acknowledge(&self, readings: u64) -> anyhow::Result<()> {
        self.acknowledged.set(self.acknowledged.get() + readings);
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
        let (idle, after, delivered) = (self.idle, self.memory()?, self.delivered().await?);
        let Contender { name, beside, .. } = *self.contender;
        Ok(Measured { name, beside, rounds, idle, after, delivered })
    }
}
