//! Many connections at once that do nothing: the memory that the gateway holds for them.

#![expect(clippy::cast_precision_loss, reason = "figures are rounded for people")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Arguments;
use crate::contenders::{Approach, Start};
use crate::load::{Connection, WORKLOADS};
use crate::measure::{Site, SiteOptions};
use crate::report::thousands;

/// Handshakes and requests at the same time.
const AT_ONCE: usize = 64;
/// Open files and connections that are needed beside the idle ones.
const OTHERS: u64 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks at the memory until it has to be settled.
const LOOKS_MAX: u32 = 40;
/// The memory is settled when two looks differ by no more, in MiB.
const SETTLED: f64 = 0.1;
const KIBIBYTES: f64 = 1024.0;

/// Opens the connections to each gateway in turn and prints its memory. Returns whether the nodes counted the acknowledged
/// readings.
pub(crate) async fn run(connections: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    allow_files(connections + OTHERS)?;
    println!("RSS of the gateway with {} connections:\n", thousands(connections));
    println!(
        "| server | none | all idle after the handshake | idle after a reading each | KiB a connection |"
    );
    println!("|---|---:|---:|---:|---:|");
    let most = (connections + OTHERS).to_string();
    let settings = [("SERVER__MAX_CONNECTIONS", most.as_str()), ("SERVER__IDLE_TIMEOUT", "1h")];
    let options = SiteOptions { clients: 1, nodes: arguments.nodes, handshake: None, settings: &settings };
    let gateways = arguments.servers().filter(|contender| matches!(contender.start, Start::Gateway(_)));
    let mut exact = true;
    for contender in gateways.filter(|contender| !matches!(contender.approach, Approach::WithKey(_))) {
        let site = Site::start(contender, options).await.context(contender.name)?;
        let row = fill(&site, connections).await.context(contender.name)?;
        println!("| {} | {row} |", contender.name);
        exact &= site.delivered().await?.is_none_or(|delivered| delivered.is_exact());
    }
    println!();
    Ok(exact)
}

/// Opens the connections, sends a reading over each, and looks at the memory.
async fn fill(site: &Site, connections: u64) -> anyhow::Result<String> {
    let none = settled(site).await?;
    let client = site.clients.first().context("a site has clients")?;
    let opened = stream::iter(0..connections).map(|_| client.connect()).buffer_unordered(AT_ONCE);
    let opened: Vec<Connection> = opened.try_collect().await?;
    let after_handshake = settled(site).await?;
    let requests = WORKLOADS[0].render(|number| site.header(number));
    let sent = stream::iter(opened.into_iter().zip(requests.iter().cycle())).map(
        |(mut connection, request)| async move {
            connection.write(request).await?;
            let accepted = connection.read_answer().await?;
            ensure!(accepted == Some(1), "{accepted:?} of 1 reading was accepted");
            anyhow::Ok(connection)
        },
    );
    let idle: Vec<Connection> = sent.buffer_unordered(AT_ONCE).try_collect().await?;
    site.acknowledge(connections).await?;
    let after_reading = settled(site).await?;
    drop(idle);
    let each = (after_handshake.max(after_reading) - none) * KIBIBYTES / connections as f64;
    Ok(format!("{none:.1} MiB | {after_handshake:.1} MiB | {after_reading:.1} MiB | {each:.1}"))
}

/// The memory of the gateway in MiB, once it does not change any more.
async fn settled(site: &Site) -> anyhow::Result<f64> {
    let mut last = site.server.memory()?.resident;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = site.server.memory()?.resident;
        if (now - last).abs() <= SETTLED {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

/// Raises this process's limit of open files. Gateways raise their own.
fn allow_files(files: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    ensure!(
        limit.maximum.is_none_or(|maximum| files <= maximum),
        "{files} files would be open, and the system allows {:?}",
        limit.maximum
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum })?;
    Ok(())
}
