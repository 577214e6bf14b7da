//! TLS: the gateway's certificate, the certificates of clients, and calls to nodes. Nothing here knows of HTTP or
//! settings. Files come in as bytes with their path; the caller reads them.
//!
//! # Promises
//!
//! - TLS 1.2 and 1.3, by rustls over aws-lc-rs. The provider is named (`provider`), so that no feature of another crate
//!   changes it.
//! - A file is taken whole or not at all ([`pem`]), key and certificate belong together ([`identity`]), and new files are
//!   checked before they replace those in force: certificate and key ([`server::ServerTls::with_identity`]) apart from
//!   authorities and revocation lists ([`server::ServerTls::with_clients`]).
//! - An expired certificate is told and does not keep the gateway from starting; it never replaces a valid one.
//! - A revoked or expired client certificate stays out: a resumed session is verified again ([`handshake`]), and a change of the
//!   authorities or of the revocation lists ends all sessions and connections ([`trust`]).
//! - A client with the gateway's own certificate is let in, and is nobody ([`pinned`]): `forebay healthcheck`.
//! - Revocation lists turn away the certificates that they name. A certificate that no list mentions, and a list past its end,
//!   lock nobody out ([`trust`]).
//!
//! # Limits
//!
//! | what | most |
//! |---|---|
//! | a PEM file | 1 MiB ([`pem::FILE_BYTES_MAX`]) |
//! | certificates in a chain of ours | 10 ([`identity::CHAIN_MAX`]) |
//! | authorities of clients | 100 ([`trust::AUTHORITIES_MAX`]) |
//! | bytes of one certificate | 64 KiB ([`x509::CERTIFICATE_BYTES_MAX`]) |
//! | names read of a certificate, and bytes of each | 100 and 256 ([`x509::NAMES_MAX`], [`x509::NAME_BYTES_MAX`]) |
//! | sessions kept for clients that know no tickets | 1,024 ([`server::SESSIONS_MAX`]) |
//! | life of a ticket | 12 hours; the keys change every 6 hours |
//!
//! # Left to others
//!
//! Reading and watching files, the limit of connections, the answer to a request, and the end of a connection whose
//! trust was replaced ([`server::ServerTls::trust_replaced`]).

pub mod client;
pub mod client_certificate;
pub mod failure;
mod first_bytes;
pub mod handshake;
pub mod identity;
pub mod pem;
pub mod pinned;
pub mod server;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod x509;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one protocol that is spoken inside of TLS.
const ALPN: &[u8] = b"http/1.1";

/// The cryptography of all connections. It is never the default of the process, which a feature of another crate could
/// make ambiguous at run time.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
