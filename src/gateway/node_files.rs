//! The files for calls to nodes, read at the start and watched from then on: certificates, and headers that are secrets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_reading::clock::wall_time;
use rustls::ClientConfig;
use tracing::warn;

use super::StartError;
use crate::delivery::credentials::{Credentials, CredentialsInForce};
use crate::delivery::wire::{ClientLimits, HttpClient, Wire};
use crate::delivery::{DeliveryConfig, NodeSource, Uplink};
use crate::metrics::Metrics;
use crate::tls::client::{ClientTls, ClientTlsConfig, ClientTlsError, plain};
use crate::watched::{self, Subject, Watched};

/// The content of the files at the start.
#[derive(Debug)]
pub(super) struct NodeFiles {
    /// `None`: no node is called over TLS.
    tls: Option<ClientTls>,
    tls_contents: Vec<Vec<u8>>,
    header_contents: Vec<Vec<u8>>,
}

/// What the files for calls to nodes come to.
#[derive(Debug)]
pub struct NodeFilesCheck {
    /// The way to the nodes.
    pub uplink: Uplink,
    /// The settings of TLS; `None`: no node is called over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The faults of an own certificate that would be used nevertheless.
    pub faults: Vec<String>,
    /// A node that would get secrets over plain HTTP, beyond this machine.
    pub readable_at: Option<String>,
}

impl NodeFiles {
    /// Reads every file that the settings name. Files of TLS are read if a node is called over it.
    ///
    /// # Errors
    ///
    /// A sentence on the first fault.
    pub(super) fn read(config: &DeliveryConfig) -> Result<NodeFiles, String> {
        let header_contents = watched::read_all(&header_paths(config))?;
        let (tls, tls_contents) = match config.has_tls() {
            true => {
                let contents = watched::read_all(&tls_paths(&config.tls))?;
                let tls = client_tls(&config.tls, &contents).map_err(|error| error.to_string())?;
                (Some(tls), contents)
            }
            false => (None, Vec::new()),
        };
        Ok(NodeFiles { tls, tls_contents, header_contents })
    }

    /// The faults of an own certificate that is used nevertheless.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.tls.iter().flat_map(|tls| tls.faults(wall_time()));
        faults.map(|fault| fault.to_string()).collect()
    }

    /// The HTTP client for the nodes.
    pub(super) fn client(&self, config: &DeliveryConfig) -> Result<HttpClient, StartError> {
        let limits = ClientLimits { connect_timeout: config.timeout, idle_connections: config.max_in_flight };
        let tls: Arc<ClientConfig> = self.tls.as_ref().map_or_else(plain, ClientTls::config);
        Ok(HttpClient::new(limits, tls)?)
    }

    /// The way to the nodes, over `client` or another wire.
    pub(super) fn uplink(&self, wire: Arc<dyn Wire>, config: &DeliveryConfig) -> Result<Uplink, StartError> {
        Uplink::new(wire, config, &self.header_contents).map_err(|error| StartError::Files(error.to_string()))
    }

    /// What the files come to, for `forebay check`.
    pub(super) fn check(&self, config: &DeliveryConfig) -> Result<NodeFilesCheck, StartError> {
        let uplink = self.uplink(Arc::new(self.client(config)?), config)?;
        let tls = self.tls.as_ref().map(ClientTls::config);
        Ok(NodeFilesCheck { uplink, tls, faults: self.faults(), readable_at: readable_secrets(config) })
    }

    /// Warns of the faults of an own certificate, and lists the files to watch: each group by itself, so that a file that does
    /// not fit holds no other back.
    pub(super) fn watched(
        self,
        config: &DeliveryConfig,
        client: &Arc<HttpClient>,
        credentials: &CredentialsInForce,
        metrics: &Metrics,
    ) -> Vec<Watched> {
        for fault in self.faults() {
            warn!(fault, "the certificate for nodes is used, and nodes may refuse it");
        }
        let headers = HeadersInForce::by_file(config, credentials, &self.header_contents);
        let headers = headers.into_iter().zip(&self.header_contents);
        let mut groups: Vec<_> =
            headers.map(|(file, content)| watched(file, std::slice::from_ref(content), metrics)).collect();
        if let Some(tls) = self.tls {
            let in_force = TlsInForce::by_group(&config.tls, client, tls, self.tls_contents);
            groups.extend(in_force.into_iter().map(|group| {
                let contents = group.contents();
                watched(group, &contents, metrics)
            }));
        }
        groups
    }
}

fn watched(subject: impl Subject, contents: &[Vec<u8>], metrics: &Metrics) -> Watched {
    let files = subject.name();
    let counter = |result| metrics.file_reloads.with_label_values(&[files, result]);
    Watched::new(subject, contents, counter("taken"), counter("refused"))
}

fn header_paths(config: &DeliveryConfig) -> Vec<PathBuf> {
    config.headers.paths().map(Path::to_owned).collect()
}

fn tls_paths(config: &ClientTlsConfig) -> Vec<PathBuf> {
    config.paths().map(Path::to_owned).collect()
}

/// Takes the files; `contents` are in the order of their paths.
fn client_tls(config: &ClientTlsConfig, contents: &[Vec<u8>]) -> Result<ClientTls, ClientTlsError> {
    let by_path: HashMap<&Path, &[u8]> = config.paths().zip(contents.iter().map(Vec::as_slice)).collect();
    ClientTls::new(config, |path| by_path.get(path).copied().unwrap_or_default())
}

/// The contents of all files of headers that are in force.
#[derive(Debug)]
struct HeadersInForce {
    config: DeliveryConfig,
    credentials: CredentialsInForce,
    contents: Vec<Vec<u8>>,
}

/// One file of a header, under watch.
#[derive(Debug)]
struct WatchedHeader {
    index: usize,
    path: PathBuf,
    all: Arc<Mutex<HeadersInForce>>,
}

impl HeadersInForce {
    /// Each file by itself.
    fn by_file(
        config: &DeliveryConfig,
        credentials: &CredentialsInForce,
        contents: &[Vec<u8>],
    ) -> Vec<WatchedHeader> {
        let (config, credentials) = (config.clone(), Arc::clone(credentials));
        let paths = header_paths(&config);
        let all = Arc::new(Mutex::new(HeadersInForce { config, credentials, contents: contents.to_vec() }));
        let file = |(index, path)| WatchedHeader { index, path, all: Arc::clone(&all) };
        paths.into_iter().enumerate().map(file).collect()
    }

    fn take(&mut self, index: usize, content: &[u8]) -> Result<(), String> {
        let urls = || self.config.nodes.iter().map(NodeSource::url);
        let mut contents = self.contents.clone();
        if let Some(changed) = contents.get_mut(index) {
            content.clone_into(changed);
        }
        let new = Credentials::new(urls(), &self.config.headers, &contents);
        let new = new.map_err(|error| error.to_string())?.after(&self.credentials.load(), urls());
        self.credentials.store(Arc::new(new));
        self.contents = contents;
        Ok(())
    }
}

impl Subject for WatchedHeader {
    fn name(&self) -> &'static str {
        "cluster.headers"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn take(&mut self, contents: &[Vec<u8>]) -> Result<(), String> {
        let content = contents.first().map(Vec::as_slice).unwrap_or_default();
        self.all.lock().unwrap_or_else(PoisonError::into_inner).take(self.index, content)
    }
}

/// The files of TLS for calls to nodes that are in force.
#[derive(Debug)]
struct TlsInForce {
    config: ClientTlsConfig,
    client: Arc<HttpClient>,
    tls: ClientTls,
    /// In the order of the paths of `config`.
    contents: Vec<Vec<u8>>,
}

/// Files of TLS that belong together, under watch: the authorities, or the own certificate with its key.
#[derive(Debug)]
struct WatchedTls {
    paths: Vec<PathBuf>,
    all: Arc<Mutex<TlsInForce>>,
}

impl TlsInForce {
    /// The files in their groups.
    fn by_group(
        config: &ClientTlsConfig,
        client: &Arc<HttpClient>,
        tls: ClientTls,
        contents: Vec<Vec<u8>>,
    ) -> Vec<WatchedTls> {
        let ClientTlsConfig { ca, certificate, key } = config.clone();
        let (config, client) = (config.clone(), Arc::clone(client));
        let all = Arc::new(Mutex::new(TlsInForce { config, client, tls, contents }));
        let groups = [Vec::from_iter(ca), Vec::from_iter(certificate.into_iter().chain(key))];
        let group = |paths| WatchedTls { paths, all: Arc::clone(&all) };
        groups.into_iter().filter(|paths| !paths.is_empty()).map(group).collect()
    }

    fn take(&mut self, paths: &[PathBuf], changed: &[Vec<u8>]) -> Result<(), String> {
        let changed = |path: &Path| {
            paths.iter().zip(changed).find(|(known, _)| *known == path).map(|(_, content)| content)
        };
        let with_changes = self.config.paths().zip(&self.contents);
        let contents: Vec<Vec<u8>> =
            with_changes.map(|(path, content)| changed(path).unwrap_or(content).clone()).collect();
        let new = client_tls(&self.config, &contents).and_then(|new| self.tls.replaced_by(new, wall_time()));
        let new = new.map_err(|error| error.to_string())?;
        self.client.set_tls(new.config()).map_err(|error| error.to_string())?;
        (self.tls, self.contents) = (new, contents);
        Ok(())
    }
}

impl WatchedTls {
    fn in_force(&self) -> MutexGuard<'_, TlsInForce> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of its files.
    fn contents(&self) -> Vec<Vec<u8>> {
        let all = self.in_force();
        let own = |path: &Path| self.paths.iter().any(|known| known == path);
        let by_path = all.config.paths().zip(&all.contents);
        by_path.filter(|(path, _)| own(path)).map(|(_, content)| content.clone()).collect()
    }
}

impl Subject for WatchedTls {
    fn name(&self) -> &'static str {
        "cluster.tls"
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    fn take(&mut self, contents: &[Vec<u8>]) -> Result<(), String> {
        self.in_force().take(&self.paths, contents)
    }
}

/// The first node that gets secrets over a network that others may listen to; `None` without such a node.
pub(super) fn readable_secrets(config: &DeliveryConfig) -> Option<String> {
    let has_headers = !config.headers.fixed.is_empty() || !config.headers.files.is_empty();
    let is_readable = |source: &&NodeSource| {
        let (host, _) = source.host_and_port();
        let is_here = host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        let url = source.url();
        let has_secret = has_headers || url.password().is_some() || !url.username().is_empty();
        has_secret && !source.is_over_tls() && !is_here
    };
    config.nodes.iter().find(is_readable).map(ToString::to_string)
}
