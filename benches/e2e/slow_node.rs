//! A slow node beside two healthy ones: the throughput, and the wait of the readings that go to the slow one.
//!
//! The nodes are to be the limit, not the taking in and not the processor. So batches are small (at most
//! [`BATCH_READINGS`]), which makes the places at the nodes scarce: 16 of them, 5 ms each, are 320,000 readings a
//! second for each node. The buffer is small too ([`HELD_READINGS`]) and lets senders wait, so that no more comes in
//! than the nodes let out, and no reading waits behind a backlog. How many places were taken, and how much
//! of the processor, stands below the table.
//!
//! When all places are taken, the slow node gets whatever its own places let through, whatever the route wants. So
//! there is a second load, one that the two others could carry alone: then the share is the route's doing.
//!
//! The rate counts the readings that nodes have answered when the last request is acknowledged. All that comes
//! after is in the books as well: every reading must be at one node, once.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;

use crate::contenders::{Approach, Contender, Start};
use crate::delayed_node::{Taken, Wait};
use crate::distinct::{Fingerprint, READINGS, Request};
use crate::load::{Connection, wait_until};
use crate::measure::order;
use crate::process::{Server, own_cpu_seconds};
use crate::report::{median, thousands};
use crate::{Arguments, Role};

const BATCH_READINGS: &str = "100";
const HELD_READINGS: &str = "20000";
const WITHIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The compared clusters, a row each.
const CASES: &[Case] = &[
    Case { load: Load::Full, nodes: TWO, beside: 0 },
    Case { load: Load::Full, nodes: THREE, beside: 0 },
    Case { load: Load::Part, nodes: TWO, beside: 2 },
    Case { load: Load::Part, nodes: THREE, beside: 2 },
];

const TWO: &[Role] = &[Role::NodeOf5Ms; 2];
const THREE: &[Role] = &[Role::NodeOf5Ms, Role::NodeOf5Ms, Role::NodeOf500Ms];

struct Case {
    load: Load,
    nodes: &'static [Role],
    /// The index of the cluster that this one's rate is compared with.
    beside: usize,
}

/// How much is sent.
#[derive(Clone, Copy)]
enum Load {
    /// As much as the nodes let through.
    Full,
    /// Less than two nodes could carry.
    Part,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Load::Full => "all they let through",
            Load::Part => "200,000 readings/s",
        }
    }

    /// Time from one request to the next, over all connections.
    fn spacing(self) -> Duration {
        match self {
            Load::Full => Duration::ZERO,
            Load::Part => Duration::from_secs(READINGS) / 200_000,
        }
    }

    /// Readings in a round, unless it is said: some seconds.
    fn readings_a_round(self) -> u64 {
        match self {
            Load::Full => 3_000_000,
            Load::Part => 1_500_000,
        }
    }
}

/// The result of a round.
struct Round {
    readings_a_second: f64,
    taken: Vec<Taken>,
    /// By their length.
    waits: Vec<Wait>,
    /// Batches under way at a node that is well, at a time.
    places: f64,
    /// Of the gateway, the nodes and the sender.
    cores: f64,
}

/// Measures every gateway and prints the figures.
///
/// # Errors
///
/// If anything fails, or a reading is not at one node once.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut notes = Vec::new();
    println!(
        "| gateway | load | nodes | readings/s | beside two nodes | share of batches | share of readings \
         | waited: p99 | longest |\n|---|---|---|---:|---:|---:|---:|---:|---:|"
    );
    for contender in arguments.servers() {
        let (Start::Gateway(settings), Approach::Open) = (&contender.start, &contender.approach) else {
            continue;
        };
        let rounds = rounds(settings, arguments).await.context(contender.name)?;
        for (case, of_case) in CASES.iter().zip(&rounds) {
            println!("{}", row(contender, case, of_case, &rounds[case.beside]));
            notes.push(note(contender, case, of_case, &rounds[case.beside]));
        }
    }
    println!("\n{}\n", notes.join("\n"));
    Ok(true)
}

/// The rounds of each case, in turns.
async fn rounds(settings: &[(&str, &str)], arguments: &Arguments) -> anyhow::Result<Vec<Vec<Round>>> {
    let mut rounds: Vec<Vec<Round>> = CASES.iter().map(|_| Vec::new()).collect();
    for number in 0..=arguments.rounds {
        for index in order(number, CASES.len()) {
            let done = round(settings, &CASES[index], arguments);
            let done = tokio::time::timeout(WITHIN, done).await.context("a round did not end in time")??;
            // The first one of each fills the caches of the machine.
            if number > 0 {
                rounds[index].push(done);
            }
        }
        eprintln!("round {number} of {} done", arguments.rounds);
    }
    Ok(rounds)
}

/// A round with a gateway and nodes of its own, which know nothing of each other yet.
async fn round(settings: &[(&str, &str)], case: &Case, arguments: &Arguments) -> anyhow::Result<Round> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let nodes =
        case.nodes.iter().map(|role| Server::start_role(*role)).collect::<anyhow::Result<Vec<_>>>()?;
    let of_all = [
        ("BATCH__MAX_READINGS", BATCH_READINGS),
        ("BUFFER__MAX_READINGS", HELD_READINGS),
        ("BUFFER__ON_FULL", "wait"),
    ];
    let gateway = Server::start_gateway(directory.path(), &nodes, &[settings, &of_all].concat()).await?;
    let requests = arguments.readings.unwrap_or(case.load.readings_a_round()).div_ceil(READINGS);
    let (started_at, cpu_before) = (Instant::now(), cpu_seconds(&gateway, &nodes)?);
    send(gateway.address, requests, case.load.spacing(), arguments.connections).await?;
    let elapsed = started_at.elapsed().as_secs_f64();
    let cores = (cpu_seconds(&gateway, &nodes)? - cpu_before) / elapsed;
    let by_then = get_all::<Taken>(&nodes, "taken").await?;
    wait_until_delivered(&gateway).await?;
    let taken = get_all::<Taken>(&nodes, "taken").await?;
    ensure_each_once(requests * READINGS, &taken)?;
    let mut waits = get_all::<Vec<Wait>>(&nodes, "waits").await?.concat();
    waits.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let well = case.nodes.iter().zip(&by_then).filter(|(role, _)| matches!(role, Role::NodeOf5Ms));
    let busy: Vec<f64> = well.map(|(_, node)| node.busy_seconds / elapsed).collect();
    let answered: u64 = by_then.iter().map(|node| node.fingerprint.readings).sum();
    Ok(Round {
        readings_a_second: answered as f64 / elapsed,
        taken,
        waits,
        places: busy.iter().sum::<f64>() / busy.len() as f64,
        cores,
    })
}

/// Sends so many requests, each when it is due and a connection has the answer to its last one.
async fn send(address: SocketAddr, requests: u64, spacing: Duration, connections: u64) -> anyhow::Result<()> {
    let (next, request, started_at) = (Cell::new(0), RefCell::new(Request::render()), Instant::now());
    let connections = (0..connections).map(|_| async {
        let mut connection = Connection::open(address).await?;
        while next.get() < requests {
            let index = next.replace(next.get() + 1);
            wait_until(started_at, spacing, index).await;
            let bytes = request.borrow_mut().with_numbers(index).to_vec();
            connection.write(&bytes).await?;
            let accepted = connection.read_answer().await?;
            ensure!(accepted == Some(READINGS), "{accepted:?} of {READINGS} readings were accepted");
        }
        anyhow::Ok(())
    });
    try_join_all(connections).await?;
    Ok(())
}

async fn wait_until_delivered(gateway: &Server) -> anyhow::Result<()> {
    while gateway.get("status").await?["ledger"]["buffered"].as_u64() != Some(0) {
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

async fn get_all<T: DeserializeOwned>(nodes: &[Server], path: &str) -> anyhow::Result<Vec<T>> {
    let answers = try_join_all(nodes.iter().map(|node| node.get(path))).await?;
    Ok(answers.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?)
}

fn ensure_each_once(sent: u64, taken: &[Taken]) -> anyhow::Result<()> {
    let arrived = taken.iter().fold(Fingerprint::default(), |all, node| all.and(node.fingerprint));
    let (expected, counts) = (Fingerprint::of(0..sent), taken.iter().map(|node| node.fingerprint.readings));
    ensure!(
        arrived == expected,
        "of {sent} readings not each is at one node once; the nodes counted {:?}",
        counts.collect::<Vec<_>>()
    );
    Ok(())
}

fn cpu_seconds(gateway: &Server, nodes: &[Server]) -> anyhow::Result<f64> {
    let servers = nodes.iter().chain([gateway]).map(Server::cpu_seconds).sum::<anyhow::Result<f64>>()?;
    Ok(servers + own_cpu_seconds()?)
}

impl Round {
    /// The part of the whole that each node took, in percent.
    fn shares(&self, figure: fn(&Taken) -> u64) -> Vec<f64> {
        let all: u64 = self.taken.iter().map(figure).sum();
        self.taken.iter().map(|node| 100.0 * figure(node) as f64 / all as f64).collect()
    }

    /// The longest wait of 99 of 100 readings.
    fn p99_seconds(&self) -> f64 {
        let mut longer = self.waits.iter().map(|wait| wait.readings).sum::<u64>() / 100;
        let is_beyond = |wait: &&Wait| {
            let is_beyond = longer >= wait.readings;
            longer = longer.saturating_sub(wait.readings);
            is_beyond
        };
        self.waits.iter().rev().skip_while(is_beyond).map(|wait| wait.seconds).next().unwrap_or(f64::NAN)
    }

    fn longest_seconds(&self) -> f64 {
        self.waits.last().map_or(f64::NAN, |wait| wait.seconds)
    }
}

fn row(contender: &Contender, case: &Case, rounds: &[Round], healthy: &[Round]) -> String {
    let rate = median(rounds.iter().map(|round| round.readings_a_second));
    let shares = |figure| {
        let of_node = |node: usize| median(rounds.iter().map(|round| round.shares(figure)[node]));
        (0..case.nodes.len()).map(|node| format!("{:.1}", of_node(node))).collect::<Vec<_>>().join(" / ")
    };
    format!(
        "| {} | {} | {} | {} | {:.0} % | {} % | {} % | {:.0} ms | {:.0} ms |",
        contender.name,
        case.load.name(),
        case.names(),
        thousands(rate as u64),
        100.0 * median(beside(rounds, healthy)),
        shares(|node| node.batches),
        shares(|node| node.fingerprint.readings),
        1e3 * median(rounds.iter().map(Round::p99_seconds)),
        1e3 * rounds.iter().map(Round::longest_seconds).fold(f64::NAN, f64::max),
    )
}

impl Case {
    fn names(&self) -> String {
        let names = self.nodes.iter().map(|role| match role {
            Role::NodeOf5Ms => "5 ms",
            Role::NodeOf500Ms => "500 ms",
            Role::Baseline | Role::Nginx | Role::CountingNode | Role::OutageNode => role.name(),
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Each round's rate, and the rate of the healthy cluster in the same turn.
fn beside(rounds: &[Round], healthy: &[Round]) -> impl Iterator<Item = f64> {
    rounds.iter().zip(healthy).map(|(round, healthy)| round.readings_a_second / healthy.readings_a_second)
}

/// Prints which limit was reached, and how far the figures can be trusted.
fn note(contender: &Contender, case: &Case, rounds: &[Round], healthy: &[Round]) -> String {
    let ratios: Vec<String> = beside(rounds, healthy).map(|ratio| format!("{ratio:.2}")).collect();
    format!(
        "{}, {}, {}: {:.1} places taken at a node of 5 ms, {:.2} cores used; round by round {}",
        contender.name,
        case.load.name(),
        case.names(),
        median(rounds.iter().map(|round| round.places)),
        median(rounds.iter().map(|round| round.cores)),
        ratios.join(" ")
    )
}
