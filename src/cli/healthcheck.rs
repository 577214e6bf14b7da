//! `forebay healthcheck`: for Docker, which wants an exit status.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::settings::SettingsArguments;
use super::{DONE, FAILED, MISUSED};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks a gateway, or a node, whether it serves.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArguments {
    /// What to ask; the /healthz of the gateway with these settings if left out.
    url: Option<String>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Asks and returns the exit status: 0 if the answer is a success.
pub(super) fn run(arguments: &HealthcheckArguments) -> u8 {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => match arguments.settings.read() {
            Some(config) => format!("http://{}/healthz", reachable(config.server.listen)),
            None => return MISUSED,
        },
    };
    match ask(&url) {
        Ok(()) => DONE,
        Err(error) => {
            eprintln!("forebay: {url}: {error:#}");
            FAILED
        }
    }
}

/// Where a server that listens everywhere can be reached.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(url: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        let response = client.get(url).send().await.context("no answer")?;
        anyhow::ensure!(response.status().is_success(), "the answer is {}", response.status());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), expected);
        };
        check("0.0.0.0:80", "127.0.0.1:80");
        check("[::]:80", "[::1]:80");
        check("10.0.0.1:80", "10.0.0.1:80");
    }
}
