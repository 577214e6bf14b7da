//! An outage: all nodes are away until the buffer on disk holds so much, the gateway is killed and started over it,
//! and it is delivered while new readings come in. Memory must stay flat, and everything arrive once, in order.

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
use tempfile::TempDir;

use crate::load::Connection;
use crate::numbered::{READINGS, Requests};
use crate::outage_node::Arrived;
use crate::process::{Server, free_address};
use crate::report::thousands;
use crate::{Arguments, Role};

const WITHIN: Duration = Duration::from_secs(600);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Pause between two tries to be heard by a gateway that starts.
const TRY_EVERY: Duration = Duration::from_millis(1);
const MEBIBYTE: u64 = 1 << 20;

/// Goes through an outage and prints the figures; whether everything arrived once.
pub(crate) async fn run(backlog_mib: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    let node = Server::start_role(Role::OutageNode)?;
    let outage = Outage {
        directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?,
        backlog_bytes: backlog_mib * MEBIBYTE,
        connections: usize::try_from(arguments.connections)?,
        rate: arguments.rate,
        requests: RefCell::new(Requests::render()),
        next: Cell::new(0),
    };
    let nodes = [node];
    println!("| figure | |\n|---|---:|");
    outage.fill(&nodes).await?;
    let gateway = outage.start_over_backlog(&nodes).await?;
    outage.drain(&gateway, &nodes[0]).await?;
    let arrived = arrived(&nodes[0]).await?;
    let sent = outage.next.get() * READINGS;
    println!("| readings sent | {} |", thousands(sent));
    println!("| readings that arrived | {} |", thousands(arrived.readings));
    println!("| requests that arrived again | {} |", arrived.twice);
    println!("| most requests that overtook another | {} |", arrived.overtaken_by);
    Ok(arrived.readings == sent && arrived.twice == 0)
}

struct Outage {
    directory: TempDir,
    backlog_bytes: u64,
    connections: usize,
    /// Readings a second that come in meanwhile.
    rate: u64,
    requests: RefCell<Requests>,
    /// The number of the next request.
    next: Cell<u64>,
}

impl Outage {
    fn start(&self, nodes: &[Server], address: SocketAddr) -> anyhow::Result<Server> {
        let (bytes, readings) = (format!("{}B", 2 * self.backlog_bytes), (1_u64 << 32).to_string());
        let settings = [
            ("BUFFER__KIND", "disk"),
            ("BUFFER__ACK", "disk"),
            ("BUFFER__MAX_BYTES", &bytes),
            ("BUFFER__MAX_READINGS", &readings),
        ];
        Server::spawn_gateway(self.directory.path(), address, nodes, &settings)
    }

    /// Fills the buffer of a gateway whose nodes are away, and kills it.
    async fn fill(&self, nodes: &[Server]) -> anyhow::Result<()> {
        let mut gateway = self.start(nodes, free_address()?)?;
        gateway.wait_until_ready(self.directory.path()).await?;
        let idle = gateway.memory()?.resident;
        println!("| RSS, idle | {idle:.1} MiB |");
        let started_at = Instant::now();
        let held = Cell::new(0);
        let watch = async {
            while held.get() < self.backlog_bytes {
                tokio::time::sleep(POLL_EVERY).await;
                held.set(buffered(&gateway).await?.bytes);
            }
            anyhow::Ok(())
        };
        let go_on = || held.get() < self.backlog_bytes;
        let done = async { tokio::try_join!(watch, self.send(gateway.address, Duration::ZERO, &go_on)) };
        tokio::time::timeout(WITHIN, done).await.context("the backlog was not there in time")??;
        let rate = (self.next.get() * READINGS) as f64 / started_at.elapsed().as_secs_f64();
        let (memory, held) = (gateway.memory()?, held.get() / MEBIBYTE);
        println!("| RSS at a backlog of {held} MiB | {:.1} MiB |", memory.resident);
        println!("| most RSS until then | {:.1} MiB |", memory.peak);
        println!("| readings a second into the backlog | {} |", thousands(rate as u64));
        Ok(())
    }

    /// Starts a gateway over the backlog, and takes the time until it has taken a request.
    async fn start_over_backlog(&self, nodes: &[Server]) -> anyhow::Result<Server> {
        let address = free_address()?;
        let started_at = Instant::now();
        let gateway = self.start(nodes, address)?;
        loop {
            ensure!(started_at.elapsed() < WITHIN, "the gateway took nothing over its backlog");
            match Connection::open(address).await {
                Ok(mut connection) => {
                    self.send_next(&mut connection).await?;
                    break;
                }
                Err(_refused) => tokio::time::sleep(TRY_EVERY).await,
            }
        }
        println!(
            "| from start to the first 202 over the backlog | {:.3} s |",
            started_at.elapsed().as_secs_f64()
        );
        println!("| RSS then | {:.1} MiB |", gateway.memory()?.resident);
        Ok(gateway)
    }

    /// Has the node come back, and waits until all is delivered, while new readings come in.
    async fn drain(&self, gateway: &Server, node: &Server) -> anyhow::Result<()> {
        let (before, started_at) = (buffered(gateway).await?.readings, Instant::now());
        let cpu_before = gateway.cpu_seconds()?;
        let left = Cell::new(before);
        node.post("back").await?;
        let spacing = Duration::from_secs(READINGS).div_f64(self.rate as f64);
        // The readings that come in meanwhile are seldom all delivered at once.
        let rest = self.rate;
        let watch = async {
            while left.get() > rest {
                tokio::time::sleep(POLL_EVERY).await;
                left.set(buffered(gateway).await?.readings);
            }
            let delivered = arrived(node).await?.readings as f64;
            anyhow::Ok(delivered / started_at.elapsed().as_secs_f64())
        };
        let go_on = || left.get() > rest;
        let done = async { tokio::try_join!(watch, self.send(gateway.address, spacing, &go_on)) };
        let (out, ()) =
            tokio::time::timeout(WITHIN, done).await.context("the backlog was not delivered in time")??;
        while buffered(gateway).await?.readings > 0 {
            ensure!(started_at.elapsed() < WITHIN, "the last readings were not delivered in time");
            tokio::time::sleep(POLL_EVERY).await;
        }
        let delivered = arrived(node).await?.readings as f64;
        let (memory, cpu) = (gateway.memory()?, gateway.cpu_seconds()? - cpu_before);
        println!("| readings in the backlog | {} |", thousands(before));
        println!("| readings a second that came in meanwhile | {} |", thousands(self.rate));
        println!("| readings a second out | {} |", thousands(out as u64));
        println!("| CPU s per million readings out | {:.2} |", cpu / delivered * 1e6);
        println!("| RSS after it | {:.1} MiB |", memory.resident);
        println!("| most RSS since the start | {:.1} MiB |", memory.peak);
        Ok(())
    }

    /// Sends requests over all connections as long as `go_on` says so.
    async fn send(
        &self,
        address: SocketAddr,
        spacing: Duration,
        go_on: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let started_at = Instant::now();
        let sent = Cell::new(0_u32);
        let connections = (0..self.connections).map(|_| async {
            let mut connection = Connection::open(address).await?;
            while go_on() {
                let ticket = sent.replace(sent.get() + 1);
                tokio::time::sleep_until((started_at + spacing * ticket).into()).await;
                self.send_next(&mut connection).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(connections).await?;
        Ok(())
    }

    async fn send_next(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let number = self.next.replace(self.next.get() + 1);
        let request = self.requests.borrow_mut().get(number).to_vec();
        connection.write(&request).await?;
        let accepted = connection.read_answer().await?;
        ensure!(accepted == Some(READINGS), "{accepted:?} of {READINGS} readings of a request were accepted");
        Ok(())
    }
}

/// The number of readings that a gateway holds.
struct Buffered {
    readings: u64,
    bytes: u64,
}

async fn buffered(gateway: &Server) -> anyhow::Result<Buffered> {
    let status = gateway.get("status").await?;
    let number = |name: &str| status["buffer"][name].as_u64().with_context(|| format!("no buffer.{name}"));
    Ok(Buffered { readings: number("readings")?, bytes: number("bytes")? })
}

async fn arrived(node: &Server) -> anyhow::Result<Arrived> {
    Ok(serde_json::from_value(node.get("arrived").await?)?)
}
