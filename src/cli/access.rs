//! How commands reach a gateway: the options for its key and for TLS.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use forebay_load::access::{BearerKey, BearerKeyError, ServerAccess};
use forebay_load::client;
use rustls::ClientConfig;
use url::Url;

use super::terminal::complain;
use crate::tls::client::{ClientTls, ClientTlsConfig, ClientTlsError};
use crate::tls::identity::{Side, TlsIdentity};
use crate::tls::pem::PemFile;
use crate::tls::pinned::{self, ShownCertificate};
use crate::tls::server::ServerTlsConfig;
use crate::watched::FileContents;

/// The key and the certificates of a client.
#[derive(Debug, Args)]
pub(super) struct AccessArguments {
    /// Key to send to the gateway. FOREBAY_KEY in the environment is the better place: others on this machine can see
    /// the arguments of a command
    #[arg(long, value_name = "KEY", env = "FOREBAY_KEY", hide_env_values = true)]
    key: Option<KeyArgument>,
    /// File with the authorities that issue the gateway's certificate, in PEM; the system's if not given
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// File with the certificate to show to a gateway that asks for one, in PEM, followed by its chain
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// File with the private key of --cert, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
}

/// A key as it was given. Any text is taken, so that no message about the arguments repeats one that is wrong.
#[derive(Clone)]
pub(super) struct KeyArgument(OsString);

impl From<OsString> for KeyArgument {
    fn from(text: OsString) -> KeyArgument {
        KeyArgument(text)
    }
}

impl fmt::Debug for KeyArgument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyArgument(***)")
    }
}

impl KeyArgument {
    /// The key; `names` are the option and the variable that it may have come from.
    ///
    /// # Errors
    ///
    /// No header can carry it.
    pub(super) fn read(&self, names: &str) -> anyhow::Result<BearerKey> {
        let key = self.0.to_str().ok_or(BearerKeyError::Unprintable).and_then(str::parse);
        key.with_context(|| names.to_owned())
    }
}

impl AccessArguments {
    /// What requests to this address need.
    ///
    /// # Errors
    ///
    /// The key or a file cannot be used.
    pub(super) fn to(&self, address: &Url) -> anyhow::Result<ServerAccess> {
        let access = ServerAccess { tls: self.tls([address])?, key: self.key()? };
        warn_of_readable_key(&access, address);
        Ok(access)
    }

    /// What requests need to the gateway that has these files, and runs on this machine.
    ///
    /// # Errors
    ///
    /// The key or a file cannot be used, or there are options that only go with an address.
    pub(super) fn to_own(&self, tls: Option<&ServerTlsConfig>) -> anyhow::Result<ServerAccess> {
        self.expect_no_files()?;
        Ok(ServerAccess { tls: tls.map(own_gateway).transpose()?, key: self.key()? })
    }

    /// Fails if there are files for TLS: without an address, the settings name the files.
    ///
    /// # Errors
    ///
    /// There are some.
    pub(super) fn expect_no_files(&self) -> anyhow::Result<()> {
        if self.files().paths().next().is_some() {
            bail!(
                "--tls-ca and --cert go with the address of a gateway; without one, the settings say how it is reached"
            );
        }
        Ok(())
    }

    /// The key, if there is one.
    ///
    /// # Errors
    ///
    /// No header can carry it.
    pub(super) fn key(&self) -> anyhow::Result<Option<BearerKey>> {
        self.key.as_ref().map(|key| key.read("--key or FOREBAY_KEY")).transpose()
    }

    /// TLS towards these addresses; `None` if none of them needs it and no file is named.
    ///
    /// # Errors
    ///
    /// A file cannot be used, or the system has no authorities.
    pub(super) fn tls<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a Url>,
    ) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        let files = self.files();
        let is_needed = files.paths().next().is_some()
            || addresses.into_iter().any(|address| address.scheme() == "https");
        if !is_needed {
            return Ok(None);
        }
        let contents = FileContents::read(files.paths()).map_err(anyhow::Error::msg)?;
        let tls = ClientTls::new(&files, |path| contents.of(path));
        let tls = tls.map_err(|error| match error {
            ClientTlsError::NoSystemAuthorities { reason } => anyhow!(
                "the system has no certificate authorities ({reason}): install its package `ca-certificates`, or name \
                 the gateway's with --tls-ca"
            ),
            error => error.into(),
        })?;
        Ok(Some(tls.config()))
    }

    fn files(&self) -> ClientTlsConfig {
        ClientTlsConfig {
            ca: self.tls_ca.clone(),
            certificate: self.cert.clone(),
            key: self.cert_key.clone(),
        }
    }
}

/// Warns if a key goes over plain HTTP to another machine.
pub(super) fn warn_of_readable_key(access: &ServerAccess, address: &Url) {
    if access.key.is_some() && address.scheme() == "http" && !client::is_loopback(address) {
        complain(format_args!(
            "warning: the key goes over plain HTTP to {}, and others on the way can read it; write https:// if the gateway speaks \
             TLS",
            address.host_str().unwrap_or_default()
        ));
    }
}

/// TLS towards the gateway that has these files: it has to show the certificate in them and no other, and where it asks
/// for certificates, it is shown its own.
pub(super) fn own_gateway(files: &ServerTlsConfig) -> anyhow::Result<Arc<ClientConfig>> {
    let contents =
        FileContents::read([files.certificate.as_path(), &files.key]).map_err(anyhow::Error::msg)?;
    let file = |path| PemFile { path, contents: contents.of(path) };
    let identity = TlsIdentity::new(file(&files.certificate), file(&files.key), Side::Server)?;
    let shown = match files.client_ca {
        Some(_) => ShownCertificate::Own,
        None => ShownCertificate::None,
    };
    Ok(Arc::new(pinned::client_config(&identity, shown)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        access: AccessArguments,
    }

    fn parse(arguments: &[&str]) -> Result<AccessArguments, String> {
        let words = std::iter::once("load").chain(arguments.iter().copied());
        Command::try_parse_from(words).map(|command| command.access).map_err(|error| error.to_string())
    }

    fn url(text: &str) -> Url {
        text.parse().expect("an address")
    }

    #[test]
    fn a_key_that_no_header_carries_is_refused_and_not_repeated() {
        for key in ["fb_secret\nfb_secret", "fb_secret\u{7}"] {
            let arguments = parse(&["--key", key]).expect("any text is taken");
            assert!(!format!("{arguments:?}").contains("fb_secret"), "{arguments:?}");
            let error = format!("{:#}", arguments.key().expect_err("no header carries it"));
            assert!(error.starts_with("--key or FOREBAY_KEY: the key has a character"), "{error}");
            assert!(!error.contains("fb_secret"), "{error}");
        }
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        for half in [["--cert", "a.pem"], ["--cert-key", "a.pem"]] {
            let error = parse(&half).expect_err("half of a pair");
            assert!(error.contains("required") && error.contains("--cert"), "{error}");
        }
        parse(&["--cert", "a.pem", "--cert-key", "b.pem"]).expect("a pair");
    }

    #[test]
    fn files_are_read_where_tls_is_spoken_or_they_are_named() {
        let plain = url("http://127.0.0.1:8080");
        assert!(parse(&[]).expect("none").tls([&plain]).expect("nothing to read").is_none());
        let arguments = parse(&["--tls-ca", "/nowhere/ca.pem"]).expect("a file");
        let error = arguments.tls([&plain]).expect_err("no such file").to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        let error = arguments.to_own(None).expect_err("only with an address").to_string();
        assert!(error.contains("--tls-ca"), "{error}");
    }
}
