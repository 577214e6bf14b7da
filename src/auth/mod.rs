//! Who a request is from: keys, which are identities.
//!
//! The file `auth.keys` names each key, says what its owner may do, and holds SHA-256 hashes of the key, never the key
//! itself. A [`Keyring`] is that file as a table: [`Keyring::find`] takes the hash of what a request presented
//! ([`Presented`]) and the names in its client certificate, and says which key it is. Nothing here knows HTTP statuses; which
//! answer a refusal gets is for `ingest/` to say.
//!
//! | limit | value |
//! |---|---|
//! | keys in a file | [`KEYS_MAX`] |
//! | hashes of a key | [`HASHES_MAX`] |
//! | globs in a list | [`forebay_reading::globs::GLOBS_MAX`] |
//! | bytes of a key that is presented | [`PRESENTED_BYTES_MAX`] |
//! | addresses that are remembered for their wrong keys | [`addresses::ADDRESSES_MAX`] |
//!
//! A plain hash is enough because keys are 32 random bytes ([`secret`]): there is nothing to guess. A hash costs 50 ns and
//! a look-up the same with one key and with ten thousand.

pub mod addresses;
mod file;
mod key;
mod keyring;
pub mod presented;
pub mod secret;
pub mod usage;

pub use file::{KeyFileFault, describe, parse, parse_rate};
pub use key::{HoldPeriod, Key, Rate, Role};
pub use keyring::{CallerError, Keyring};
pub use presented::{PRESENTED_BYTES_MAX, Presented};

/// Most keys in a file.
pub const KEYS_MAX: usize = 100_000;
/// Most hashes of one key.
pub const HASHES_MAX: usize = 16;
/// Longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
