//! The files that the front door is made of, read at the start and watched from then on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_reading::clock::wall_time;
use tracing::warn;

use super::tls_files::{self, CurrentTls};
use crate::auth::{self, Keyring};
use crate::config::Config;
use crate::door::Host;
use crate::ingest::Access;
use crate::metrics::Metrics;
use crate::tls::server::{ServerTls, ServerTlsConfig};
use crate::watched::{FileContents, Subject, Watched};

/// Notes for people about the files of keys and certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileNotes {
    /// How many keys there are; `None` without a file of keys.
    pub keys: Option<usize>,
    /// The faults of a certificate that is used nevertheless: it has ended, or it lacks a name of `server.hosts`.
    pub certificate: Vec<String>,
}

/// The content of the files at the start.
#[derive(Debug, Default)]
pub(super) struct FrontFiles {
    keys: Option<KeysAtStart>,
    tls: Option<TlsAtStart>,
}

#[derive(Debug)]
struct KeysAtStart {
    path: PathBuf,
    contents: FileContents,
    keyring: Keyring,
}

#[derive(Debug)]
struct TlsAtStart {
    config: ServerTlsConfig,
    contents: FileContents,
    tls: ServerTls,
}

impl FrontFiles {
    /// Reads every file that the settings name.
    ///
    /// # Errors
    ///
    /// A line for each fault.
    pub(super) fn read(config: &Config) -> Result<FrontFiles, String> {
        let keys = config.auth.keys.clone().map(read_keys).transpose();
        let tls = config.server.tls.clone().map(read_tls).transpose();
        let (keys, tls) = both(keys, tls)?;
        Ok(FrontFiles { keys, tls })
    }

    /// Notes for people about these files.
    pub(super) fn notes(&self, hosts: &[Host<'_>]) -> FileNotes {
        let tls = self.tls.as_ref().map(|files| &files.tls);
        let faults = tls.into_iter().flat_map(|tls| tls.faults(wall_time())).map(|fault| fault.to_string());
        let of_name = |host: &Host<'_>| tls?.identity().check_host(&host.name()).err();
        let names = hosts.iter().filter_map(of_name).map(|fault| fault.to_string());
        let keys = self.keys.as_ref().map(|keys| keys.keyring.keys().len());
        FileNotes { keys, certificate: faults.chain(names).collect() }
    }

    /// Puts the files in force. Returns the certificate in force, and the files to watch.
    pub(super) fn put_in_force(
        self,
        access: &Arc<Access>,
        metrics: &Metrics,
    ) -> (Option<CurrentTls>, Vec<Watched>) {
        let mut watched = Vec::new();
        if let Some(KeysAtStart { path, contents, keyring }) = self.keys {
            warn_of_nobody(&path, &keyring);
            access.set_keys(keyring);
            let counter = |result: &str| metrics.file_reloads.with_label_values(&["keys", result]);
            let subject = KeysFile { path, access: Arc::clone(access) };
            watched.push(Watched::new(subject, &contents, counter));
        }
        let Some(TlsAtStart { config, contents, tls }) = self.tls else { return (None, watched) };
        for fault in tls.faults(wall_time()) {
            warn!(%fault, "the certificate of the listener is used, and clients may refuse it");
        }
        let current = Arc::new(ArcSwap::from_pointee(tls));
        watched.extend(tls_files::watched(config, contents, Arc::clone(&current), metrics));
        (Some(current), watched)
    }
}

/// Both results, or a line for each fault.
pub(super) fn both<A, B>(one: Result<A, String>, other: Result<B, String>) -> Result<(A, B), String> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let problems: Vec<_> = one.err().into_iter().chain(other.err()).collect();
            Err(problems.join("\n"))
        }
    }
}

fn read_keys(path: PathBuf) -> Result<KeysAtStart, String> {
    let contents = FileContents::read([path.as_path()])?;
    let keyring = keyring(&path, contents.of(&path))?;
    Ok(KeysAtStart { path, contents, keyring })
}

fn keyring(path: &Path, content: &[u8]) -> Result<Keyring, String> {
    auth::parse(content).map_err(|faults| auth::describe(path, &faults))
}

/// Says that a file of keys has none. That is allowed: keys may be added while the gateway runs.
fn warn_of_nobody(path: &Path, keyring: &Keyring) {
    if keyring.keys().is_empty() {
        warn!(
            file = %path.display(),
            "the file of keys has no key, so that every request that needs one is refused: `forebay keys add` makes one"
        );
    }
}

fn read_tls(config: ServerTlsConfig) -> Result<TlsAtStart, String> {
    let contents = FileContents::read(config.paths())?;
    let tls = ServerTls::new(&config, |path| contents.of(path)).map_err(|error| error.to_string())?;
    Ok(TlsAtStart { config, contents, tls })
}

/// The file of keys, under watch.
#[derive(Debug)]
struct KeysFile {
    path: PathBuf,
    access: Arc<Access>,
}

impl Subject for KeysFile {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn take(&mut self, contents: &FileContents) -> Result<(), String> {
        let keyring = keyring(&self.path, contents.of(&self.path))?;
        warn_of_nobody(&self.path, &keyring);
        self.access.set_keys(keyring);
        Ok(())
    }
}
