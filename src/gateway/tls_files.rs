//! The files of the listener's TLS, under watch in groups that do not wait for each other.
//!
//! | group | files |
//! |---|---|
//! | `server.tls.certificate` | `certificate` and `key`, which belong together |
//! | `server.tls.client_ca` | `client_ca` |
//! | `server.tls.crl` | `crl` |
//!
//! A revocation must not wait for a certificate that somebody forgot to renew, nor for a file of authorities that cannot be
//! read. Only authorities and revocation lists depend on each other: a list has to be signed by the authority whose name it
//! has. So a changed file of one kind is taken with what the other says now, or else with what is in force of the other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use forebay_reading::clock::wall_time;

use crate::metrics::Metrics;
use crate::tls::server::{ServerTls, ServerTlsConfig, ServerTlsError};
use crate::watched::{Subject, Watched};

/// What new connections of the listener are accepted with; it is replaced when its files change.
pub(super) type CurrentTls = Arc<ArcSwap<ServerTls>>;

/// One group of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsFileGroup {
    Certificate,
    ClientCa,
    Crl,
}

/// The groups that `config` has files for, under watch. `contents` has the content in force of each of its paths.
pub(super) fn watched(
    config: ServerTlsConfig,
    contents: &[Vec<u8>],
    current: CurrentTls,
    metrics: &Metrics,
) -> Vec<Watched> {
    let content = |path: &PathBuf| {
        let position = config.paths().position(|known| known == path);
        position.and_then(|position| contents.get(position)).cloned().unwrap_or_default()
    };
    let file = |path: &Option<PathBuf>| Arc::new(path.as_ref().map(content).unwrap_or_default());
    let clients = ClientFiles { authorities: file(&config.client_ca), lists: file(&config.crl) };
    let (newest, in_force) = (clients.clone(), clients);
    let files = Arc::new(Mutex::new(TlsFiles { config: config.clone(), current, newest, in_force }));
    let groups = [TlsFileGroup::Certificate, TlsFileGroup::ClientCa, TlsFileGroup::Crl];
    let subjects = groups.map(|group| TlsSubject { group, files: Arc::clone(&files) });
    let counter = |result| metrics.tls_reloads.with_label_values(&[result]);
    let watch = |subject: TlsSubject| {
        let contents: Vec<_> = subject.paths().iter().map(content).collect();
        Watched::new(subject, &contents, counter("taken"), counter("refused"))
    };
    subjects.into_iter().filter(|subject| !subject.paths().is_empty()).map(watch).collect()
}

/// A group of the files, as the watch knows it.
#[derive(Debug)]
struct TlsSubject {
    group: TlsFileGroup,
    /// All groups change the same value; held for one change.
    files: Arc<Mutex<TlsFiles>>,
}

impl TlsSubject {
    fn files(&self) -> MutexGuard<'_, TlsFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for TlsSubject {
    fn name(&self) -> &'static str {
        match self.group {
            TlsFileGroup::Certificate => "server.tls.certificate",
            TlsFileGroup::ClientCa => "server.tls.client_ca",
            TlsFileGroup::Crl => "server.tls.crl",
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let ServerTlsConfig { certificate, key, client_ca, crl, client_certificates: _ } =
            self.files().config.clone();
        match self.group {
            TlsFileGroup::Certificate => vec![certificate, key],
            TlsFileGroup::ClientCa => client_ca.into_iter().collect(),
            TlsFileGroup::Crl => crl.into_iter().collect(),
        }
    }

    fn take(&mut self, contents: &[Vec<u8>]) -> Result<(), String> {
        self.files().take(self.group, contents).map_err(|error| error.to_string())
    }
}

/// The contents of the files that say which clients are trusted.
#[derive(Clone, Debug)]
struct ClientFiles {
    authorities: Arc<Vec<u8>>,
    lists: Arc<Vec<u8>>,
}

/// What the groups share.
#[derive(Debug)]
struct TlsFiles {
    config: ServerTlsConfig,
    current: CurrentTls,
    /// What was seen last.
    newest: ClientFiles,
    in_force: ClientFiles,
}

impl TlsFiles {
    /// Puts the changed files of a group in force.
    fn take(&mut self, group: TlsFileGroup, contents: &[Vec<u8>]) -> Result<(), ServerTlsError> {
        let first = || Arc::new(contents.first().cloned().unwrap_or_default());
        match group {
            TlsFileGroup::Certificate => self.take_certificate(contents),
            TlsFileGroup::ClientCa => {
                self.newest.authorities = first();
                let lists = Arc::clone(&self.in_force.lists);
                self.take_first_that_fits([self.newest.clone(), ClientFiles { lists, ..self.newest.clone() }])
            }
            TlsFileGroup::Crl => {
                self.newest.lists = first();
                let authorities = Arc::clone(&self.in_force.authorities);
                self.take_first_that_fits([
                    self.newest.clone(),
                    ClientFiles { authorities, ..self.newest.clone() },
                ])
            }
        }
    }

    fn take_certificate(&self, contents: &[Vec<u8>]) -> Result<(), ServerTlsError> {
        let content = |path: &Path| {
            let is_key = path != self.config.certificate;
            contents.get(usize::from(is_key)).map(Vec::as_slice).unwrap_or_default()
        };
        let new = self.current.load_full().with_identity(&self.config, content, wall_time())?;
        self.put_in_force(new);
        Ok(())
    }

    fn take_first_that_fits(&mut self, candidates: [ClientFiles; 2]) -> Result<(), ServerTlsError> {
        let mut outcome = Ok(());
        let old = self.current.load_full();
        for clients in candidates {
            let content = |path: &Path| match self.config.crl.as_deref() == Some(path) {
                true => clients.lists.as_slice(),
                false => clients.authorities.as_slice(),
            };
            match old.with_clients(&self.config, content) {
                Ok(new) => {
                    self.put_in_force(new);
                    self.in_force = clients;
                    return Ok(());
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn put_in_force(&self, new: ServerTls) {
        let new = Arc::new(new);
        let old = self.current.swap(Arc::clone(&new));
        new.supersede(&old);
    }
}
