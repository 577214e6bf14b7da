//! Keys of clients: the file that the gateway has of them, and what they send.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// Prime to the number of keys, so that neighbours among the requests have keys from all over the file.
const STRIDE: u64 = 7919;

/// A file of keys.
pub(crate) struct KeyFile {
    /// How many it has.
    pub(crate) keys: u64,
    /// The further lines of each entry, after its name and its hash.
    pub(crate) rights: &'static str,
}

impl KeyFile {
    /// Its name in the gateway's directory.
    pub(crate) const NAME: &'static str = "keys.toml";

    /// Writes it into `directory`.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let mut text = String::new();
        for number in 0..self.keys {
            let hash = Sha256::digest(key(number));
            write!(text, "[[key]]\nname = \"client-{number}\"\nhashes = [\"sha256:")?;
            hash.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
            write!(text, "\"]\n{}", self.rights)?;
        }
        fs::write(directory.join(KeyFile::NAME), text).context("writing the file of keys")
    }

    /// The line with a key in the head of the `number`-th request.
    pub(crate) fn header(&self, number: u64) -> String {
        format!("Authorization: Bearer {}\r\n", key(number * STRIDE % self.keys))
    }
}

/// As long as those that the gateway draws.
fn key(number: u64) -> String {
    format!("fb_{number:043}")
}
