//! `forebay healthcheck`: an exit status for Docker's health checks.
//!
//! A gateway with a listener for its operator is asked there, over plain HTTP. Otherwise it is asked at its own address,
//! over TLS if the settings have `server.tls`: its certificate must be the configured one, byte by byte
//! ([`crate::tls::pinned`]), and where the settings have `client_ca`, that certificate is shown to the gateway, too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use clap::Args;
use forebay_load::access::ServerAccess;
use forebay_load::advice::on_status;
use forebay_load::client::{self, causes, parse_address};
use url::Url;

use super::access::{AccessArguments, own_gateway};
use super::address_file::{self, ServerEntry, ServerKind};
use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED};
use crate::config::{ServerConfig, SettingOrigin};
use crate::tls::server::ServerTlsConfig;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks a gateway, or a node, whether it serves.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArguments {
    /// What to ask. If left out: the /healthz of the gateway with these settings, or of the one gateway or node that this
    /// user runs in this directory
    #[arg(value_parser = parse_address)]
    url: Option<Url>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Asks and returns the exit status: 0 if the answer is a success.
pub(super) fn run(arguments: &HealthcheckArguments) -> u8 {
    let Some(question) = arguments.question() else { return MISUSED };
    match question.ask() {
        Ok(()) => DONE,
        Err(error) => {
            complain(format_args!("{question}: {error:#}"));
            FAILED
        }
    }
}

impl HealthcheckArguments {
    /// What to ask, and how; `None` after printing why that cannot be said.
    fn question(&self) -> Option<HealthQuestion> {
        let Some(url) = &self.url else {
            let allowed = self.access.expect_no_files();
            return allowed.map_err(complain).ok().and_then(|()| self.question_to_own());
        };
        let access = self.access.to(url).map_err(|error| complain(format_args!("{error:#}"))).ok()?;
        Some(HealthQuestion::At(url.clone(), access))
    }

    /// What to ask if the user gives no URL; `None` if the settings have faults, which are printed.
    fn question_to_own(&self) -> Option<HealthQuestion> {
        let config = self.settings.read()?;
        let listen = config.settings.iter().find(|setting| setting.key == "server.listen");
        let target = ProbeTarget {
            listen: config.server.listen,
            listen_is_set: listen.is_some_and(|setting| !matches!(setting.origin, SettingOrigin::Default)),
            file_is_named: self.settings.name_a_file(),
        };
        let found = address_file::started_here();
        Some(match target.among(&found) {
            Some(entry) => HealthQuestion::to(entry, config.server.tls),
            None => HealthQuestion::by_settings(&config.server),
        })
    }
}

/// The address to ask, and how it is reached.
#[derive(Clone, Debug)]
enum HealthQuestion {
    /// A URL, and how it is reached.
    At(Url, ServerAccess),
    /// The `/healthz` of a gateway with these files, over TLS.
    OwnTls(SocketAddr, ServerTlsConfig),
}

impl fmt::Display for HealthQuestion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthQuestion::At(url, _) => formatter.write_str(&client::shown(url)),
            HealthQuestion::OwnTls(address, _) => write!(formatter, "https://{address}/healthz"),
        }
    }
}

impl HealthQuestion {
    /// The question to a server that was started here; `tls` has the files that the settings name, which only gateways use.
    fn to(entry: &ServerEntry, tls: Option<ServerTlsConfig>) -> HealthQuestion {
        match (entry.server, entry.operator) {
            (_, Some(operator)) => HealthQuestion::plain(operator),
            (ServerKind::Node, None) => HealthQuestion::plain(entry.address),
            (ServerKind::Gateway, None) => HealthQuestion::to_gateway(entry.address, tls),
        }
    }

    /// The question to the gateway that the settings describe, where no address of a process is known.
    fn by_settings(server: &ServerConfig) -> HealthQuestion {
        match server.operator {
            Some(operator) => HealthQuestion::plain(operator.listen),
            None => HealthQuestion::to_gateway(server.listen, server.tls.clone()),
        }
    }

    fn to_gateway(address: SocketAddr, tls: Option<ServerTlsConfig>) -> HealthQuestion {
        match tls {
            Some(tls) => HealthQuestion::OwnTls(reachable(address), tls),
            None => HealthQuestion::plain(address),
        }
    }

    fn plain(address: SocketAddr) -> HealthQuestion {
        let url = format!("http://{}/healthz", reachable(address)).parse().expect("an address makes a URL");
        HealthQuestion::At(url, ServerAccess::default())
    }

    fn ask(&self) -> anyhow::Result<()> {
        let access = match self {
            HealthQuestion::At(_, access) => access.clone(),
            // The certificate is compared, and the name is not. Whoever asks this needs no key.
            HealthQuestion::OwnTls(_, files) => ServerAccess { tls: Some(own_gateway(files)?), key: None },
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let http = access.client("forebay-healthcheck", 0, TIMEOUT)?;
            let url = match self {
                HealthQuestion::At(url, _) => url.to_string(),
                HealthQuestion::OwnTls(..) => self.to_string(),
            };
            let answer = http.get(url).send().await;
            let status = answer.map_err(|error| anyhow!(causes(&error)))?.status();
            let advice = on_status(status).map(|advice| format!("; {advice}")).unwrap_or_default();
            ensure!(status.is_success(), "the answer is {status}{advice}");
            Ok(())
        })
    }
}

/// The server that the settings describe.
#[derive(Clone, Copy, Debug)]
struct ProbeTarget {
    listen: SocketAddr,
    /// Whether `server.listen` was set, rather than left at its default.
    listen_is_set: bool,
    /// Whether a settings file is named. Only gateways have one.
    file_is_named: bool,
}

impl ProbeTarget {
    /// The process to ask among those that were started here; `None` if the choice is not clear.
    ///
    /// A gateway with the listen address of the settings is the one, even if it is dead. Otherwise it is the only live
    /// process: a gateway if no listen address is set, or a node if no settings file is named. A set listen address
    /// does not exclude a node, because the image sets `server.listen` for both.
    fn among(self, entries: &[ServerEntry]) -> Option<&ServerEntry> {
        let (alive, dead): (Vec<&ServerEntry>, Vec<_>) = entries.iter().partition(|entry| entry.is_alive());
        let is_meant =
            |entry: &&&ServerEntry| entry.server == ServerKind::Gateway && entry.listen == self.listen;
        if let Some(entry) = alive.iter().find(is_meant) {
            return Some(entry);
        }
        let ([entry], None) = (&alive[..], dead.iter().find(is_meant)) else { return None };
        let may_be_meant = match entry.server {
            ServerKind::Gateway => !self.listen_is_set,
            ServerKind::Node => !self.file_is_named,
        };
        may_be_meant.then_some(*entry)
    }
}

/// The address to reach a server at: loopback for one that listens on all addresses.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::super::address_file::Alive;
    use super::*;
    use crate::tls::trust::ClientCertificates;

    const GATEWAY: ServerKind = ServerKind::Gateway;
    const NODE: ServerKind = ServerKind::Node;

    /// Checks which address is asked, given a settings file and a listen address, or neither.
    #[track_caller]
    fn check(
        file: Option<&str>,
        listen: Option<&str>,
        entries: &[(ServerKind, &str, &str, Alive)],
        expected: Option<&str>,
    ) {
        let address = |text: &str| text.parse().expect("an address");
        let target = ProbeTarget {
            listen: address(listen.unwrap_or("127.0.0.1:8080")),
            listen_is_set: listen.is_some(),
            file_is_named: file.is_some(),
        };
        let example = |(server, listen, address, alive): &(ServerKind, &str, &str, Alive)| {
            ServerEntry::example(*server, listen, address, *alive)
        };
        let entries: Vec<_> = entries.iter().map(example).collect();
        assert_eq!(target.among(&entries).map(|entry| entry.address), expected.map(address));
    }

    #[test]
    fn the_gateway_of_the_settings_is_asked_or_else_the_only_process() {
        use Alive::{No, Yes};
        let (first, second) = ("127.0.0.1:8080", "127.0.0.1:8081");
        let (node, everywhere) = ("127.0.0.1:9000", "0.0.0.0:8080");
        // Two gateways on one machine, in one directory.
        let both = [(GATEWAY, first, first, Yes), (GATEWAY, second, second, Yes)];
        check(None, None, &both, Some(first));
        check(None, Some(second), &both, Some(second));
        check(None, Some(node), &both, None);
        // A container that runs a node: the image sets where a gateway would listen.
        check(None, Some(everywhere), &[(NODE, node, node, Yes)], Some(node));
        check(Some("a"), Some(everywhere), &[(NODE, node, node, Yes)], None);
        check(None, None, &[(NODE, node, node, Yes)], Some(node));
        // A gateway whose listen address is unset, or is any free port.
        check(None, None, &[(GATEWAY, node, node, Yes)], Some(node));
        check(None, Some("127.0.0.1:0"), &[(GATEWAY, "127.0.0.1:0", first, Yes)], Some(first));
        check(None, Some(first), &[(GATEWAY, second, second, Yes)], None);
        // A node is not asked instead of the gateway beside it.
        check(None, None, &[(GATEWAY, first, first, Yes), (NODE, node, node, Yes)], Some(first));
        check(None, None, &[(GATEWAY, first, first, No), (NODE, node, node, Yes)], None);
        check(None, Some(first), &[(GATEWAY, first, first, No)], None);
        // Files of dead processes do no harm.
        check(None, Some(first), &[(GATEWAY, first, second, No), (GATEWAY, first, first, Yes)], Some(first));
        check(None, None, &[(NODE, node, second, No), (NODE, node, node, Yes)], Some(node));
        check(None, None, &[], None);
    }

    #[test]
    fn tls_is_spoken_to_gateways_only_and_not_at_the_operators_listener() {
        let (at, operator) = ("127.0.0.1:8080", "0.0.0.0:9090".parse().expect("an address"));
        let tls = ServerTlsConfig {
            certificate: "chain.pem".into(),
            key: "key.pem".into(),
            client_ca: None,
            crl: None,
            client_certificates: ClientCertificates::Optional,
        };
        let check = |server, operator, tls: Option<&ServerTlsConfig>, expected: &str| {
            let mut entry = ServerEntry::example(server, at, at, Alive::Yes);
            entry.operator = operator;
            assert_eq!(HealthQuestion::to(&entry, tls.cloned()).to_string(), expected);
        };
        check(GATEWAY, None, None, "http://127.0.0.1:8080/healthz");
        check(GATEWAY, None, Some(&tls), "https://127.0.0.1:8080/healthz");
        check(GATEWAY, Some(operator), Some(&tls), "http://127.0.0.1:9090/healthz");
        check(NODE, None, Some(&tls), "http://127.0.0.1:8080/healthz");
    }

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
