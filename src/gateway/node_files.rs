//! The files for calls to nodes, read at the start and watched from then on: certificates, and headers that are secrets.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use forebay_load::client;
use forebay_reading::clock::wall_time;
use rustls::ClientConfig;
use tracing::warn;

use super::StartError;
use crate::delivery::credentials::{Credentials, CredentialsInForce};
use crate::delivery::wire::{ClientLimits, HttpClient, Wire};
use crate::delivery::{DeliveryConfig, NodeSource, Uplink};
use crate::metrics::Metrics;
use crate::tls::client::{ClientTls, ClientTlsConfig};
use crate::watched::{FileContents, Subject, Watched};

/// The TLS settings of calls to nodes. A change of their files replaces them.
pub(super) type CurrentNodeTls = Arc<ArcSwap<ClientTls>>;

/// The files at the start.
#[derive(Debug)]
pub(super) struct NodeFiles {
    /// `None`: no node is called over TLS.
    tls: Option<CurrentNodeTls>,
    contents: FileContents,
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
        let headers = FileContents::read(config.headers.paths())?;
        if !config.has_tls() {
            return Ok(NodeFiles { tls: None, contents: headers });
        }
        let contents = headers.with(&FileContents::read(config.tls.paths())?);
        let tls = client_tls(&config.tls, &contents)?;
        Ok(NodeFiles { tls: Some(Arc::new(ArcSwap::from_pointee(tls))), contents })
    }

    /// The faults of an own certificate that is used nevertheless.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.tls.iter().flat_map(|tls| tls.load().faults(wall_time()));
        faults.map(|fault| fault.to_string()).collect()
    }

    /// The HTTP client for the nodes.
    pub(super) fn client(&self, config: &DeliveryConfig) -> Result<HttpClient, StartError> {
        let limits = ClientLimits { connect_timeout: config.timeout, idle_connections: config.max_in_flight };
        let nobody = || Arc::new(client::trusting_nobody());
        let tls = self.tls.as_ref().map_or_else(nobody, |tls| tls.load().config());
        Ok(HttpClient::new(limits, tls)?)
    }

    /// The way to the nodes, over `client` or another wire.
    pub(super) fn uplink(&self, wire: Arc<dyn Wire>, config: &DeliveryConfig) -> Result<Uplink, StartError> {
        let uplink = Uplink::new(wire, config, |path| self.contents.of(path));
        uplink.map_err(|error| StartError::Files(error.to_string()))
    }

    /// What the files come to, for `forebay check`.
    pub(super) fn check(&self, config: &DeliveryConfig) -> Result<NodeFilesCheck, StartError> {
        let uplink = self.uplink(Arc::new(self.client(config)?), config)?;
        let tls = self.tls.as_ref().map(|tls| tls.load().config());
        Ok(NodeFilesCheck { uplink, tls, faults: self.faults(), readable_at: readable_secrets(config) })
    }

    /// Warns of the faults of an own certificate. Returns the TLS settings in force, if a node is called over TLS, and the files
    /// to watch: each group by itself, so that a file that does not fit holds no other back.
    pub(super) fn put_in_force(
        self,
        config: &DeliveryConfig,
        http: &Arc<HttpClient>,
        credentials: &CredentialsInForce,
        metrics: &Metrics,
    ) -> (Option<CurrentNodeTls>, Vec<Watched>) {
        for fault in self.faults() {
            warn!(fault, "the certificate for nodes is used, and nodes may refuse it");
        }
        let NodeFiles { tls, contents } = self;
        let groups = groups(config, tls.is_some());
        let (config, client, credentials) = (config.clone(), Arc::clone(http), Arc::clone(credentials));
        let in_force =
            NodeFilesInForce { config, client, credentials, tls: tls.clone(), contents: contents.clone() };
        let in_force = Arc::new(Mutex::new(in_force));
        let watch = |(usage, paths)| {
            let subject = NodeFileGroup { usage, paths, in_force: Arc::clone(&in_force) };
            let name = subject.name();
            Watched::new(subject, &contents, |result| metrics.file_reloads.with_label_values(&[name, result]))
        };
        (tls, groups.into_iter().map(watch).collect())
    }
}

/// The files in the groups that are changed together: each file of a header; the authorities; the own certificate with its key.
fn groups(config: &DeliveryConfig, has_tls: bool) -> Vec<(FileUse, Vec<PathBuf>)> {
    let headers = config.headers.paths().map(|path| (FileUse::Headers, vec![path.to_owned()]));
    let ClientTlsConfig { ca, certificate, key } = config.tls.clone();
    let tls =
        [Vec::from_iter(ca), certificate.into_iter().chain(key).collect()].map(|paths| (FileUse::Tls, paths));
    let tls = tls.into_iter().filter(|(_, paths)| has_tls && !paths.is_empty());
    headers.chain(tls).collect()
}

fn client_tls(config: &ClientTlsConfig, contents: &FileContents) -> Result<ClientTls, String> {
    ClientTls::new(config, |path| contents.of(path)).map_err(|error| error.to_string())
}

/// The use of a file for calls to nodes.
#[derive(Clone, Copy, Debug)]
enum FileUse {
    Headers,
    Tls,
}

/// A group of the files, under watch.
#[derive(Debug)]
struct NodeFileGroup {
    usage: FileUse,
    paths: Vec<PathBuf>,
    in_force: Arc<Mutex<NodeFilesInForce>>,
}

impl Subject for NodeFileGroup {
    fn name(&self) -> &'static str {
        match self.usage {
            FileUse::Headers => "cluster.headers",
            FileUse::Tls => "cluster.tls",
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    fn take(&mut self, contents: &FileContents) -> Result<(), String> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner).take(self.usage, contents)
    }
}

/// What all groups share: the contents in force, and what is made of them.
#[derive(Debug)]
struct NodeFilesInForce {
    config: DeliveryConfig,
    client: Arc<HttpClient>,
    credentials: CredentialsInForce,
    /// `None`: no node is called over TLS.
    tls: Option<CurrentNodeTls>,
    contents: FileContents,
}

impl NodeFilesInForce {
    fn take(&mut self, usage: FileUse, changed: &FileContents) -> Result<(), String> {
        let contents = self.contents.with(changed);
        match usage {
            FileUse::Headers => self.take_headers(&contents)?,
            FileUse::Tls => self.take_tls(&contents)?,
        }
        self.contents = contents;
        Ok(())
    }

    fn take_headers(&self, contents: &FileContents) -> Result<(), String> {
        let urls = self.config.nodes.iter().map(NodeSource::url);
        let former = self.credentials.load();
        let new = Credentials::new(urls, &self.config.headers, |path| contents.of(path), &former);
        self.credentials.store(Arc::new(new.map_err(|error| error.to_string())?));
        Ok(())
    }

    fn take_tls(&self, contents: &FileContents) -> Result<(), String> {
        let current = self.tls.as_ref().expect("only files that a node needs are watched");
        let new = client_tls(&self.config.tls, contents)?;
        let new = current.load().replaced_by(new, wall_time()).map_err(|error| error.to_string())?;
        self.client.set_tls(new.config()).map_err(|error| error.to_string())?;
        current.store(Arc::new(new));
        Ok(())
    }
}

/// The first node that gets secrets over a network that others may listen to; `None` without such a node.
pub(super) fn readable_secrets(config: &DeliveryConfig) -> Option<String> {
    let has_headers = !config.headers.fixed.is_empty() || !config.headers.files.is_empty();
    let is_readable = |source: &&NodeSource| {
        let url = source.url();
        let has_secret = has_headers || url.password().is_some() || !url.username().is_empty();
        has_secret && !source.is_over_tls() && !client::is_loopback(url)
    };
    config.nodes.iter().find(is_readable).map(ToString::to_string)
}
