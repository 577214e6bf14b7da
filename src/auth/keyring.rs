//! A table of all keys. It finds the key of a request by the presented key or by the names in a client certificate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use hashbrown::HashTable;
use thiserror::Error;

use super::key::{HoldPeriod, Key};
use super::presented::{Presented, PresentedError};
use super::secret::KeyHash;

/// Why a request belongs to no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallerError {
    /// The request has no key.
    #[error("this gateway wants a key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")]
    NoKey,
    /// The request's key cannot be read, or the request has several keys.
    #[error(transparent)]
    Presented(#[from] PresentedError),
    /// A key that is not in the file.
    #[error("the key is not known here")]
    UnknownKey,
    /// The key, or the hash by which it was found, is not valid at this moment.
    #[error("the key does not hold now: it has expired, or it is not valid yet")]
    NotNow,
    /// The client certificate names other keys than the key that came with it.
    #[error(
        "the client certificate and the key name different keys; send one of them, or those of the same key"
    )]
    CertificateOfAnother,
    /// The client certificate names several keys.
    #[error("the client certificate names more than one key")]
    SeveralByCertificate,
}

/// The keys of a file.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<Arc<Key>>,
    /// By the heads of the hashes, which are as good as random: they are not hashed once more.
    by_hash: HashTable<HashEntry>,
    /// Positions among the keys, by a name in a client certificate.
    by_certificate: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
struct HashEntry {
    hash: KeyHash,
    validity: HoldPeriod,
    key: usize,
}

/// A hash or certificate name that two keys share, although each needs its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Twice {
    /// A hash; with the name of the other key.
    Hash(Arc<str>),
    /// The name in a certificate; with the name of the other key.
    Certificate(Arc<str>),
}

impl Keyring {
    /// Adds a key with its hashes, each with the time in which it holds, and the name in a certificate that is this key.
    pub(super) fn add(
        &mut self,
        key: Key,
        hashes: &[(KeyHash, HoldPeriod)],
        certificate: Option<String>,
    ) -> Result<(), Twice> {
        let position = self.keys.len();
        if let Some(certificate) = certificate {
            if let Some(other) = self.by_certificate.get(&certificate) {
                let name = self.keys.get(*other).map_or(&key.name, |other| &other.name);
                return Err(Twice::Certificate(Arc::clone(name)));
            }
            self.by_certificate.insert(certificate, position);
        }
        for (hash, validity) in hashes {
            if let Some(other) = self.by_hash.find(hash.head(), |entry| entry.hash == *hash) {
                let name = self
                    .keys
                    .get(other.key)
                    .map_or_else(|| Arc::clone(&key.name), |key| Arc::clone(&key.name));
                return Err(Twice::Hash(name));
            }
            let entry = HashEntry { hash: *hash, validity: *validity, key: position };
            self.by_hash.insert_unique(hash.head(), entry, |entry| entry.hash.head());
        }
        self.keys.push(Arc::new(key));
        Ok(())
    }

    /// All keys, in the order of the file.
    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// The position in [`Keyring::keys`] of the key that a request belongs to, given its presented key and the names in its
    /// client certificate.
    ///
    /// # Errors
    ///
    /// [`CallerError`]; a key that is unknown costs the same time as one that is known.
    pub fn find<'a>(
        &self,
        presented: Result<Option<Presented>, PresentedError>,
        certificate: impl IntoIterator<Item = &'a str>,
        now: SystemTime,
    ) -> Result<usize, CallerError> {
        let by_certificate = self.by_certificate(certificate)?;
        let by_key = match presented? {
            Some(presented) => Some(self.by_key(&presented, now)?),
            None => None,
        };
        let position = match (by_key, by_certificate) {
            (None, None) => return Err(CallerError::NoKey),
            (Some(key), Some(certificate)) if key != certificate => {
                return Err(CallerError::CertificateOfAnother);
            }
            (Some(position), _) | (None, Some(position)) => position,
        };
        if self.keys[position].validity.contains(now) { Ok(position) } else { Err(CallerError::NotNow) }
    }

    fn by_key(&self, presented: &Presented, now: SystemTime) -> Result<usize, CallerError> {
        let hash = presented.hash();
        let found = self.by_hash.find(hash.head(), |entry| entry.hash == hash);
        let found = found.ok_or(CallerError::UnknownKey)?;
        if found.validity.contains(now) { Ok(found.key) } else { Err(CallerError::NotNow) }
    }

    fn by_certificate<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<usize>, CallerError> {
        let mut found = None;
        for name in names {
            let Some(position) = self.by_certificate.get(name) else { continue };
            if found.replace(*position).is_some_and(|other| other != *position) {
                return Err(CallerError::SeveralByCertificate);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
