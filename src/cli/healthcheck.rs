//! `forebay healthcheck`: an exit status for Docker's health checks.
//!
//! A gateway with a listener for its operator is asked there, over plain HTTP. Otherwise it is asked at its own address,
//! over TLS if the settings have `server.tls`: its certificate must be the configured one, byte by byte
//! ([`crate::tls::pinned`]), and where the settings have `client_ca`, that certificate is shown to the gateway, too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address_file::{self, ServerEntry, ServerKind};
use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED};
use crate::config::{ServerConfig, SettingOrigin};
use crate::tls::identity::{Side, TlsIdentity};
use crate::tls::pem::PemFile;
use crate::tls::pinned::{self, ShownCertificate};
use crate::tls::server::ServerTlsConfig;
use crate::watched;

const TIMEOUT: Duration = Duration::from_secs(3);
/// The request that is sent over TLS.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Longest status line that is read, in bytes.
const STATUS_LINE_BYTES_MAX: usize = 1024;

/// Asks a gateway, or a node, whether it serves.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArguments {
    /// What to ask. If left out: the /healthz of the gateway with these settings, or of the one gateway or node that this
    /// user runs in this directory
    url: Option<String>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Asks and returns the exit status: 0 if the answer is a success.
pub(super) fn run(arguments: &HealthcheckArguments) -> u8 {
    let question = match &arguments.url {
        Some(url) => Some(HealthQuestion::Plain(url.clone())),
        None => arguments.question(),
    };
    let Some(question) = question else { return MISUSED };
    match question.ask() {
        Ok(()) => DONE,
        Err(error) => {
            complain(format_args!("{question}: {error:#}"));
            FAILED
        }
    }
}

impl HealthcheckArguments {
    /// What to ask if the user gives no URL; `None` if the settings have faults, which are printed.
    fn question(&self) -> Option<HealthQuestion> {
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

/// The address to ask, and the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HealthQuestion {
    /// A URL, over plain HTTP.
    Plain(String),
    /// The `/healthz` of a gateway with these files, over TLS.
    Tls(SocketAddr, ServerTlsConfig),
}

impl fmt::Display for HealthQuestion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthQuestion::Plain(url) => formatter.write_str(url),
            HealthQuestion::Tls(address, _) => write!(formatter, "https://{address}/healthz"),
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
            Some(tls) => HealthQuestion::Tls(reachable(address), tls),
            None => HealthQuestion::plain(address),
        }
    }

    fn plain(address: SocketAddr) -> HealthQuestion {
        HealthQuestion::Plain(format!("http://{}/healthz", reachable(address)))
    }

    fn ask(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            HealthQuestion::Plain(url) => runtime.block_on(ask(url)),
            HealthQuestion::Tls(address, files) => {
                let connector = connector(files)?;
                let asked = async { timeout(TIMEOUT, ask_over_tls(*address, connector)).await };
                runtime.block_on(asked).context("no answer in time")?
            }
        }
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

async fn ask(url: &str) -> anyhow::Result<()> {
    let client = forebay_load::client::builder().timeout(TIMEOUT).build()?;
    let response = client.get(url).send().await.context("no answer")?;
    anyhow::ensure!(response.status().is_success(), "the answer is {}", response.status());
    Ok(())
}

/// Connects to gateways with the configured certificate.
fn connector(files: &ServerTlsConfig) -> anyhow::Result<TlsConnector> {
    let read = |path| watched::read(path).map_err(anyhow::Error::msg);
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    let certificate = PemFile { path: &files.certificate, contents: &certificate };
    let identity = TlsIdentity::new(certificate, PemFile { path: &files.key, contents: &key }, Side::Server)?;
    let shown = match files.client_ca {
        Some(_) => ShownCertificate::Own,
        None => ShownCertificate::None,
    };
    Ok(TlsConnector::from(Arc::new(pinned::client_config(&identity, shown))))
}

async fn ask_over_tls(address: SocketAddr, connector: TlsConnector) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    // The name is not compared: the certificate is.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = connector.connect(name, stream).await.context(
        "no connection over TLS with the configured certificate (the gateway may have another one in force)",
    )?;
    expect_success(stream).await
}

/// Sends the request and reads the status line of the answer.
async fn expect_success(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    stream.write_all(REQUEST).await.context("no answer")?;
    stream.flush().await.context("no answer")?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES_MAX {
        let read = (&mut stream).take(STATUS_LINE_BYTES_MAX as u64).read_buf(&mut answer).await;
        anyhow::ensure!(read.context("no answer")? > 0, "the connection was closed without an answer");
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status = words.next().and_then(|status| status.parse::<u16>().ok()).filter(|_| is_http);
    let status = status.context("the answer is not HTTP")?;
    anyhow::ensure!((200..300).contains(&status), "the answer is {status}");
    Ok(())
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

    #[tokio::test]
    async fn the_answer_over_tls_is_a_status_line_of_bounded_length() {
        let check = async |answer: &[u8], expected: Result<(), &str>| {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            far.write_all(answer).await.expect("there is room");
            far.shutdown().await.expect("an end");
            let found = expect_success(near).await.map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned));
        };
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(())).await;
        check(b"HTTP/1.1 204\r\n", Ok(())).await;
        check(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("the answer is 503")).await;
        check(b"HTTP/1.1 2", Err("the connection was closed without an answer")).await;
        check(b"", Err("the connection was closed without an answer")).await;
        check(b"SSH-2.0-x 200\r\n", Err("the answer is not HTTP")).await;
        check(&[b'x'; 8 << 10], Err("the answer is not HTTP")).await;
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
