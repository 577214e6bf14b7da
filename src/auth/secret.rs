//! Keys and their hashes: how one is drawn, and what of it stands in a file.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The beginning of every generated key, by which people and secret scanners recognize it.
const PREFIX: &str = "fb_";
/// The beginning of a hash in a file.
const SCHEME: &str = "sha256:";
/// Random bytes of a key.
const RANDOM_BYTES: usize = 32;

/// Draws a key: `fb_` and 43 characters (Base64 for URLs, RFC 4648, section 5) from 32 random bytes of the system.
///
/// # Errors
///
/// The system has no random bytes.
pub fn draw() -> Result<String, getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// The SHA-256 of a key. It is compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> KeyHash {
        KeyHash(Sha256::digest(key).into())
    }

    /// The first eight bytes, for finding it in a table.
    pub(super) fn head(&self) -> u64 {
        self.words()[0]
    }

    fn words(&self) -> [u64; 4] {
        let (words, _) = self.0.as_chunks();
        std::array::from_fn(|place| u64::from_le_bytes(words[place]))
    }

    /// The first characters as a file shows them, for telling hashes apart.
    pub fn beginning(&self) -> String {
        self.to_string().chars().take(SCHEME.len() + 8).collect()
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &KeyHash) -> bool {
        // Word by word, which is as constant as byte by byte, and quicker.
        let words = self.words().into_iter().zip(other.words());
        words.fold(0, |difference, (own, others)| difference | (own ^ others)).ct_eq(&0).into()
    }
}

/// As it stands in a file: `sha256:` and 64 hexadecimal digits.
impl fmt::Display for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl FromStr for KeyHash {
    type Err = String;

    /// Reads `sha256:` with 64 hexadecimal digits, or with Base64 of either alphabet, with padding or without.
    fn from_str(text: &str) -> Result<KeyHash, String> {
        let allowed = "allowed: `sha256:` and 64 hexadecimal digits, as `forebay keys add` writes it";
        let Some(digest) = text.strip_prefix(SCHEME) else {
            return Err(format!("is not a hash; {allowed}"));
        };
        let bytes = if digest.len() == 64 { from_hex(digest) } else { from_base64(digest) };
        bytes.map(KeyHash).ok_or_else(|| format!("is not a SHA-256 hash; {allowed}"))
    }
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn from_base64(text: &str) -> Option<[u8; 32]> {
    let text = text.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_fb_and_43_characters_and_no_two_are_alike() {
        let (one, other) = (draw().expect("random bytes"), draw().expect("random bytes"));
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[..3]), (46, "fb_"));
        assert!(one[3..].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{one}");
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_in_base64() {
        let hash = KeyHash::of(b"abc");
        // FIPS 180-4's example.
        let written = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), written);
        for text in [
            written,
            &written.to_uppercase().replace("SHA256", "sha256"),
            "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha256:ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0",
        ] {
            assert_eq!(text.parse(), Ok(hash), "{text}");
        }
        assert_eq!(hash.beginning(), "sha256:ba7816bf");
    }

    #[test]
    fn what_is_not_a_hash_is_refused() {
        for text in
            ["", "sha256:", "md5:abc", "fb_secret", "sha256:zz", &format!("sha256:{}", "g".repeat(64))]
        {
            assert!(text.parse::<KeyHash>().is_err(), "{text}");
        }
    }
}
