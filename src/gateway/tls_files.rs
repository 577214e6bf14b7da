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

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use forebay_reading::clock::wall_time;

use crate::metrics::Metrics;
use crate::tls::server::{ServerTls, ServerTlsConfig, ServerTlsError};
use crate::watched::{FileContents, Subject, Watched};

/// The TLS settings of the listener's new connections. A change of their files replaces them.
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
    contents: FileContents,
    current: CurrentTls,
    metrics: &Metrics,
) -> Vec<Watched> {
    let (newest, in_force) = (contents.clone(), contents.clone());
    let files = Arc::new(Mutex::new(TlsFiles { config, current, newest, in_force }));
    let groups = [TlsFileGroup::Certificate, TlsFileGroup::ClientCa, TlsFileGroup::Crl];
    let subjects = groups.map(|group| TlsSubject { group, files: Arc::clone(&files) });
    let counter = |result: &str| metrics.tls_reloads.with_label_values(&[result]);
    let watch = |subject| Watched::new(subject, &contents, counter);
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

    fn take(&mut self, contents: &FileContents) -> Result<(), String> {
        self.files().take(self.group, contents).map_err(|error| error.to_string())
    }
}

/// What the groups share.
#[derive(Debug)]
struct TlsFiles {
    config: ServerTlsConfig,
    current: CurrentTls,
    /// The contents that were seen last.
    newest: FileContents,
    /// Of the authorities and the lists, the contents in force.
    in_force: FileContents,
}

impl TlsFiles {
    /// Puts the changed files of a group in force.
    fn take(&mut self, group: TlsFileGroup, changed: &FileContents) -> Result<(), ServerTlsError> {
        match group {
            TlsFileGroup::Certificate => self.take_certificate(changed),
            TlsFileGroup::ClientCa | TlsFileGroup::Crl => self.take_clients(changed),
        }
    }

    fn take_certificate(&self, changed: &FileContents) -> Result<(), ServerTlsError> {
        let old = self.current.load_full();
        let new = old.with_identity(&self.config, |path| changed.of(path), wall_time())?;
        self.put_in_force(new);
        Ok(())
    }

    /// Takes a changed file with what the other one says now, or else with what is in force of the other.
    fn take_clients(&mut self, changed: &FileContents) -> Result<(), ServerTlsError> {
        self.newest = self.newest.with(changed);
        let mut outcome = Ok(());
        let old = self.current.load_full();
        for contents in [self.newest.clone(), self.in_force.with(changed)] {
            match old.with_clients(&self.config, |path| contents.of(path)) {
                Ok(new) => {
                    self.put_in_force(new);
                    self.in_force = contents;
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
