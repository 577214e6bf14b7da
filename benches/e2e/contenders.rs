//! The servers that are measured, a row each, and how their clients come to them.

use std::net::SocketAddr;
use std::path::Path;

use crate::keys::KeyFile;
use crate::load::Client;
use crate::nginx;
use crate::tls::{CERTIFICATE, Certificate, Handshake, KEY};

/// A server that is measured.
pub(crate) struct Contender {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// How it is started.
    pub(crate) start: Start,
    /// How clients come to it.
    pub(crate) approach: Approach,
    /// The name of the server that its cost and its rate are compared with.
    pub(crate) beside: Option<&'static str>,
}

/// How a server is started.
pub(crate) enum Start {
    /// This binary as a bare axum handler.
    Baseline,
    /// nginx, which ends TLS and asks a bare axum handler.
    Nginx,
    /// `forebay serve` with these settings: names after `FOREBAY__`, and values.
    Gateway(&'static [(&'static str, &'static str)]),
}

/// The way in which clients come to a server.
pub(crate) enum Approach {
    /// Nothing.
    Open,
    /// A key out of this file.
    WithKey(KeyFile),
    /// TLS.
    OverTls,
}

const MEMORY: &str = "forebay, memory buffer";
const IN_MEMORY: &[(&str, &str)] = &[("BUFFER__KIND", "memory"), ("BUFFER__ACK", "memory")];
const WITH_KEYS: &[(&str, &str)] =
    &[("BUFFER__KIND", "memory"), ("BUFFER__ACK", "memory"), ("AUTH__KEYS", KeyFile::NAME)];

/// Every server, a row each; the others' ratios are to the first of those that a workload suits.
pub(crate) const SERVERS: &[Contender] = &[
    Contender { name: "bare axum handler", start: Start::Baseline, approach: Approach::Open, beside: None },
    Contender {
        name: "nginx with TLS, bare axum handler",
        start: Start::Nginx,
        approach: Approach::OverTls,
        beside: None,
    },
    Contender { name: MEMORY, start: Start::Gateway(IN_MEMORY), approach: Approach::Open, beside: None },
    Contender {
        name: "forebay, disk buffer, ack=disk",
        start: Start::Gateway(&[("BUFFER__KIND", "disk"), ("BUFFER__ACK", "disk")]),
        approach: Approach::Open,
        beside: Some(MEMORY),
    },
    Contender {
        name: "forebay, one key",
        start: Start::Gateway(WITH_KEYS),
        approach: Approach::WithKey(KeyFile { keys: 1, rights: "" }),
        beside: Some(MEMORY),
    },
    Contender {
        name: "forebay, 10,000 keys",
        start: Start::Gateway(WITH_KEYS),
        approach: Approach::WithKey(KeyFile { keys: 10_000, rights: "" }),
        beside: Some(MEMORY),
    },
    Contender {
        name: "forebay, 10,000 keys for some devices",
        start: Start::Gateway(WITH_KEYS),
        approach: Approach::WithKey(KeyFile { keys: 10_000, rights: "devices = [\"meter-*\"]\n" }),
        beside: Some(MEMORY),
    },
    Contender {
        name: "forebay, TLS",
        start: Start::Gateway(&[
            ("BUFFER__KIND", "memory"),
            ("BUFFER__ACK", "memory"),
            ("SERVER__TLS__CERTIFICATE", CERTIFICATE),
            ("SERVER__TLS__KEY", KEY),
        ]),
        approach: Approach::OverTls,
        beside: Some(MEMORY),
    },
];

/// The means by which clients are let in at a server that was started.
pub(crate) struct Credentials {
    certificate: Option<Certificate>,
}

impl Contender {
    /// Whether its programs are installed.
    pub(crate) fn is_there(&self) -> bool {
        match self.start {
            Start::Nginx => nginx::is_installed(),
            Start::Baseline | Start::Gateway(_) => true,
        }
    }

    /// Whether a workload suits it whose connections begin so.
    pub(crate) fn suits(&self, handshake: Option<Handshake>) -> bool {
        handshake.is_none() || matches!(self.approach, Approach::OverTls)
    }
}

impl Approach {
    /// Writes what the server needs for it into `directory`.
    pub(crate) fn prepare(&self, directory: &Path) -> anyhow::Result<Credentials> {
        let certificate = match self {
            Approach::Open => None,
            Approach::WithKey(file) => {
                file.write(directory)?;
                None
            }
            Approach::OverTls => Some(Certificate::write(directory)?),
        };
        Ok(Credentials { certificate })
    }

    /// The lines in the head of the `number`-th request.
    pub(crate) fn header(&self, number: u64) -> String {
        match self {
            Approach::Open | Approach::OverTls => String::new(),
            Approach::WithKey(file) => file.header(number),
        }
    }
}

impl Credentials {
    /// A client of the server at `address`.
    pub(crate) fn client(&self, address: SocketAddr, handshake: Option<Handshake>) -> anyhow::Result<Client> {
        let tls = self.certificate.as_ref().map(|certificate| certificate.client(handshake)).transpose()?;
        Ok(Client { address, tls })
    }
}
