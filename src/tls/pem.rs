//! Certificates, keys and revocation lists out of PEM files, each read whole or not at all.
//!
//! A file that is being replaced may be seen half written. Every block must therefore be whole, also one of a kind that
//! is not asked for, and [`PemError::is_half_written`] tells such a file from one that is wrong.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use thiserror::Error;

use super::x509;

/// Most bytes of a PEM file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The contents of a PEM file, with its path for messages.
#[derive(Clone, Copy)]
pub struct PemFile<'a> {
    /// Where it was read from.
    pub path: &'a Path,
    /// All its bytes.
    pub contents: &'a [u8],
}

/// Why a PEM file cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{} {fault}", path.display())]
pub struct PemError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub fault: PemFault,
}

impl PemError {
    /// Whether someone may just be writing the file, so that it is worth another look soon.
    pub fn is_half_written(&self) -> bool {
        match self.fault {
            PemFault::Empty | PemFault::Unfinished { .. } | PemFault::Damaged { .. } => true,
            PemFault::TooLarge { .. }
            | PemFault::Binary
            | PemFault::Missing { .. }
            | PemFault::SeveralKeys { .. }
            | PemFault::EncryptedKey { .. } => false,
        }
    }
}

/// The causes of a [`PemError`]; each is the rest of a sentence that begins with the file's path.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PemFault {
    /// More than [`FILE_BYTES_MAX`].
    #[error("has {bytes} bytes; at most {FILE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No bytes but white space.
    #[error("is empty")]
    Empty,
    /// The file ends within a block.
    #[error("ends within the block that begins in line {line}: it is half written, or was cut")]
    Unfinished {
        /// Where the block begins, from 1.
        line: usize,
    },
    /// A block that cannot be decoded.
    #[error("has a damaged block, which begins in line {line}")]
    Damaged {
        /// Where the block begins, from 1.
        line: usize,
    },
    /// DER, PKCS #12 or the like.
    #[error("is binary; it must be PEM, that is text with `-----BEGIN …-----` (`openssl` converts it)")]
    Binary,
    /// No block of the kind that is needed.
    #[error("has no {kind} ({}); its blocks: {}", kind.markers(), listed(found))]
    Missing {
        /// The kind that is needed.
        kind: PemKind,
        /// The labels of the blocks that are there; at most `LABELS_MAX`.
        found: Vec<String>,
    },
    /// More keys than one.
    #[error("has {count} private keys; it must have one")]
    SeveralKeys {
        /// How many.
        count: usize,
    },
    /// A key that needs a passphrase.
    #[error(
        "has an encrypted private key, in line {line}; it must have no passphrase (`openssl pkey -in FILE -out FILE` takes it away)"
    )]
    EncryptedKey {
        /// Where the block begins, from 1.
        line: usize,
    },
}

/// Most labels that a message names.
const LABELS_MAX: usize = 5;

fn listed(labels: &[String]) -> String {
    match labels.is_empty() {
        true => "none".to_owned(),
        false => format!("`{}`", labels.join("`, `")),
    }
}

/// The kinds of blocks that Forebay reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemKind {
    /// An X.509 certificate.
    Certificate,
    /// A key in PKCS #8, PKCS #1 or SEC1.
    PrivateKey,
    /// A certificate revocation list.
    RevocationList,
}

impl PemKind {
    fn markers(self) -> &'static str {
        match self {
            PemKind::Certificate => "`-----BEGIN CERTIFICATE-----`",
            PemKind::PrivateKey => {
                "`-----BEGIN PRIVATE KEY-----`, or with `RSA PRIVATE KEY` or `EC PRIVATE KEY`"
            }
            PemKind::RevocationList => "`-----BEGIN X509 CRL-----`",
        }
    }
}

impl std::fmt::Display for PemKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PemKind::Certificate => "certificate",
            PemKind::PrivateKey => "private key",
            PemKind::RevocationList => "revocation list",
        })
    }
}

/// Reads all certificates, in the order of the file; there is at least one.
///
/// It checks the encoding, not the contents of the certificates.
///
/// # Errors
///
/// The file is too large, not whole, no PEM, or has no certificate.
pub fn certificates(file: PemFile<'_>) -> Result<Vec<CertificateDer<'static>>, PemError> {
    items(file, PemKind::Certificate)
}

/// Reads all revocation lists, in the order of the file; there is at least one.
///
/// # Errors
///
/// The file is too large, not whole, no PEM, or has no revocation list.
pub fn revocation_lists(file: PemFile<'_>) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    items(file, PemKind::RevocationList)
}

/// Reads the one private key of the file.
///
/// # Errors
///
/// The file is too large, not whole, no PEM, has no key or more than one, or the key is encrypted.
pub fn private_key(file: PemFile<'_>) -> Result<PrivateKeyDer<'static>, PemError> {
    let blocks = blocks(file)?;
    if let Some(Block { line, .. }) = blocks.iter().find(|block| block.is_encrypted) {
        return Err(file.error(PemFault::EncryptedKey { line: *line }));
    }
    let mut keys = decoded(&blocks);
    let count = keys.len();
    match (keys.pop(), count) {
        (Some(key), 1) => Ok(key),
        (None, _) => Err(missing(file, PemKind::PrivateKey, &blocks)),
        (Some(_), count) => Err(file.error(PemFault::SeveralKeys { count })),
    }
}

/// Checks that every block of the file is whole, of whichever kind it is.
///
/// # Errors
///
/// The file is too large, not whole, or no PEM. A text without blocks is whole.
pub fn check_whole(file: PemFile<'_>) -> Result<(), PemError> {
    blocks(file).map(|_| ())
}

fn items<T: PemObject>(file: PemFile<'_>, kind: PemKind) -> Result<Vec<T>, PemError> {
    let blocks = blocks(file)?;
    let items = decoded(&blocks);
    match items.is_empty() {
        true => Err(missing(file, kind, &blocks)),
        false => Ok(items),
    }
}

fn decoded<T: PemObject>(blocks: &[Block<'_>]) -> Vec<T> {
    blocks.iter().filter_map(|block| T::pem_slice_iter(block.text).next()?.ok()).collect()
}

fn missing(file: PemFile<'_>, kind: PemKind, blocks: &[Block<'_>]) -> PemError {
    let mut found = Vec::new();
    for block in blocks {
        if found.len() < LABELS_MAX && !found.contains(&block.label) {
            found.push(block.label.clone());
        }
    }
    file.error(PemFault::Missing { kind, found })
}

impl PemFile<'_> {
    fn error(self, fault: PemFault) -> PemError {
        PemError { path: self.path.to_owned(), fault }
    }
}

/// One whole block.
struct Block<'a> {
    label: String,
    /// From the line of its beginning to that of its end.
    text: &'a [u8],
    /// The line of its beginning, from 1.
    line: usize,
    is_encrypted: bool,
}

/// All blocks of the file, each of which is whole.
fn blocks(file: PemFile<'_>) -> Result<Vec<Block<'_>>, PemError> {
    let contents = file.contents;
    if contents.len() > FILE_BYTES_MAX {
        return Err(file.error(PemFault::TooLarge { bytes: contents.len() }));
    }
    let contents = contents.strip_prefix("\u{feff}".as_bytes()).unwrap_or(contents);
    if contents.trim_ascii().is_empty() {
        return Err(file.error(PemFault::Empty));
    }
    // No text has a NUL. DER has, or begins with a SEQUENCE of a long form.
    if contents.contains(&0) || contents.starts_with(&[0x30, 0x82]) {
        return Err(file.error(PemFault::Binary));
    }
    scan(contents).map_err(|fault| file.error(fault))
}

/// A block whose end has not been seen yet.
struct OpenBlock {
    label: Vec<u8>,
    start: usize,
    line: usize,
    is_encrypted: bool,
}

fn scan(contents: &[u8]) -> Result<Vec<Block<'_>>, PemFault> {
    let mut found = Vec::new();
    let mut opened: Option<OpenBlock> = None;
    let (mut start, mut number) = (0, 0);
    for raw in contents.split_inclusive(|byte| *byte == b'\n') {
        let end = start + raw.len();
        let text = raw.trim_ascii_end();
        number += 1;
        if let Some(label) = label_of(text, BEGIN) {
            if let Some(unfinished) = opened {
                return Err(PemFault::Damaged { line: unfinished.line });
            }
            let is_encrypted = label.starts_with(b"ENCRYPTED ");
            opened = Some(OpenBlock { label: label.to_vec(), start, line: number, is_encrypted });
        } else if let Some(label) = label_of(text, END) {
            match opened.take() {
                Some(block) if block.label == label => found.push(close(contents, block, end)?),
                Some(block) => return Err(PemFault::Damaged { line: block.line }),
                None => return Err(PemFault::Damaged { line: number }),
            }
        } else if let Some(block) = &mut opened {
            block.is_encrypted |= text.starts_with(b"Proc-Type:") && text.ends_with(b"ENCRYPTED");
        } else if text.starts_with(BEGIN.trim_ascii_end()) || is_cut(raw) {
            let is_last = end == contents.len();
            return Err(match is_last {
                true => PemFault::Unfinished { line: number },
                false => PemFault::Damaged { line: number },
            });
        }
        start = end;
    }
    match opened {
        Some(OpenBlock { line, .. }) => Err(PemFault::Unfinished { line }),
        None => Ok(found),
    }
}

/// The label of a line that is a whole marker.
fn label_of<'a>(line: &'a [u8], marker: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(marker)?.strip_suffix(DASHES)
}

/// Whether the file ends with this line, within the first word of a marker.
fn is_cut(line: &[u8]) -> bool {
    !line.is_empty() && BEGIN.starts_with(line)
}

/// The block that ends before `end`, decoded once to see that it is whole.
fn close(contents: &[u8], block: OpenBlock, end: usize) -> Result<Block<'_>, PemFault> {
    let OpenBlock { label, start, line, is_encrypted } = block;
    let text = &contents[start..end];
    let label = String::from_utf8_lossy(&label).into_owned();
    if !is_encrypted {
        match <(SectionKind, Vec<u8>)>::pem_slice_iter(text).next() {
            Some(Ok((kind, der))) if is_der(kind) && !x509::is_one_sequence(&der) => {
                return Err(PemFault::Damaged { line });
            }
            Some(Err(_)) => return Err(PemFault::Damaged { line }),
            // A kind that nobody reads, such as `EC PARAMETERS`, is left alone.
            Some(Ok(_)) | None => {}
        }
    }
    Ok(Block { label, text, line, is_encrypted })
}

/// Whether a block of this kind is read, and must be a SEQUENCE.
fn is_der(kind: SectionKind) -> bool {
    matches!(
        kind,
        SectionKind::Certificate
            | SectionKind::PrivateKey
            | SectionKind::RsaPrivateKey
            | SectionKind::EcPrivateKey
            | SectionKind::Crl
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PKCS_RSA_SHA256};
    use rustls_pki_types::{PrivatePkcs8KeyDer, pem};
    use x509_parser::asn1_rs::{Any, FromDer};

    use super::super::provider;
    use super::super::tests::{Authority, DAY};
    use super::*;

    fn file(contents: &[u8]) -> PemFile<'_> {
        PemFile { path: Path::new("tls/file.pem"), contents }
    }

    fn certificate() -> String {
        Authority::new("here").gateway().certificate
    }

    /// One byte of Base64 from six bits.
    fn digit(bits: u32) -> char {
        let bits = u8::try_from(bits & 63).expect("six bits");
        char::from(match bits {
            0..26 => b'A' + bits,
            26..52 => b'a' + bits - 26,
            52..62 => b'0' + bits - 52,
            62 => b'+',
            _ => b'/',
        })
    }

    fn encoded(label: &str, der: &[u8]) -> String {
        let mut text = format!("-----BEGIN {label}-----\n");
        for part in der.chunks(48) {
            for triple in part.chunks(3) {
                let byte = |index: usize| u32::from(triple.get(index).copied().unwrap_or_default());
                let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                let digits: String = [18, 12, 6, 0].map(|shift| digit(bits >> shift)).iter().collect();
                text += &format!("{:=<4}", &digits[..=triple.len()]);
            }
            text.push('\n');
        }
        text + &format!("-----END {label}-----\n")
    }

    /// What PKCS #8 wraps: PKCS #1 or SEC1.
    fn unwrapped(pkcs8: &[u8]) -> Vec<u8> {
        let (_, whole) = Any::from_der(pkcs8).expect("a sequence");
        let (rest, _version) = Any::from_der(whole.data).expect("a version");
        let (rest, _algorithm) = Any::from_der(rest).expect("an algorithm");
        Any::from_der(rest).expect("a key").1.data.to_vec()
    }

    #[test]
    fn keys_are_taken_as_pkcs_8_pkcs_1_and_sec1() {
        let (ec, rsa) = (KeyPair::generate(), KeyPair::generate_for(&PKCS_RSA_SHA256));
        let (ec, rsa) = (ec.expect("a key"), rsa.expect("a key"));
        let cases = [
            encoded("PRIVATE KEY", ec.serialized_der()),
            encoded("PRIVATE KEY", rsa.serialized_der()),
            encoded("EC PRIVATE KEY", &unwrapped(ec.serialized_der())),
            encoded("RSA PRIVATE KEY", &unwrapped(rsa.serialized_der())),
            // As `openssl ecparam -genkey` writes it.
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n".to_owned()
                + &encoded("EC PRIVATE KEY", &unwrapped(ec.serialized_der())),
            // Beside its certificate, from a system that ends lines otherwise.
            certificate().replace('\n', "\r\n") + &ec.serialize_pem().replace('\n', "\r\n"),
            format!("\u{feff}{}", ec.serialize_pem()),
            format!("My key:\n{}", ec.serialize_pem()),
        ];
        for case in cases {
            let key = private_key(file(case.as_bytes())).unwrap_or_else(|error| panic!("{case}: {error}"));
            provider().key_provider.load_private_key(key).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }

    #[track_caller]
    fn check<T>(read: Result<T, PemError>, expected: &str) -> PemError {
        let Err(error) = read else { panic!("it was taken, and should have been: {expected}") };
        assert_eq!(error.to_string(), format!("tls/file.pem {expected}"));
        error
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_in_words() {
        let key = || KeyPair::generate().expect("a key").serialize_pem();
        let keys = key() + &key();
        check(private_key(file(keys.as_bytes())), "has 2 private keys; it must have one");
        check(
            private_key(file(certificate().as_bytes())),
            "has no private key (`-----BEGIN PRIVATE KEY-----`, or with `RSA PRIVATE KEY` or `EC PRIVATE KEY`); its blocks: \
             `CERTIFICATE`",
        );
        check(
            certificates(file(key().as_bytes())),
            "has no certificate (`-----BEGIN CERTIFICATE-----`); its blocks: `PRIVATE KEY`",
        );
        check(
            revocation_lists(file(b"nothing\n")),
            "has no revocation list (`-----BEGIN X509 CRL-----`); its blocks: none",
        );
        let encrypted = "has an encrypted private key, in line 1; it must have no passphrase (`openssl pkey -in FILE -out \
                         FILE` takes it away)";
        let pkcs8 = encoded("ENCRYPTED PRIVATE KEY", b"\x30\x00");
        check(private_key(file(pkcs8.as_bytes())), encrypted);
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n\
                      -----END RSA PRIVATE KEY-----\n";
        check(private_key(file(legacy.as_bytes())), encrypted);
        let der = Authority::new("here").der().to_vec();
        let binary =
            "is binary; it must be PEM, that is text with `-----BEGIN …-----` (`openssl` converts it)";
        assert!(!check(certificates(file(&der)), binary).is_half_written());
        let large = vec![b'x'; FILE_BYTES_MAX + 1];
        check(certificates(file(&large)), "has 1048577 bytes; at most 1048576 are allowed");
    }

    #[test]
    fn a_damaged_block_is_told_by_its_line() {
        let (first, second) = (certificate(), certificate());
        let lines = first.lines().count();
        let check = |contents: String, line: usize| {
            let expected = format!("has a damaged block, which begins in line {line}");
            assert!(check(certificates(file(contents.as_bytes())), &expected).is_half_written());
        };
        check(first.clone() + &second.replacen("\nM", "\n*", 1), lines + 1);
        // A line of Base64 is missing, so that the rest is still Base64.
        let short: Vec<&str> =
            first.lines().enumerate().filter(|(n, _)| *n != 3).map(|(_, line)| line).collect();
        check(short.join("\n") + "\n" + &second, 1);
        check(first.replace("-----END CERTIFICATE-----", "") + &second, 1);
        check(first.replace("END CERTIFICATE", "END PRIVATE KEY") + &second, 1);
        check(first.clone() + "-----END CERTIFICATE-----\n" + &second, lines + 1);
        check(first + "-----BEGIN CERTIFI\n" + &second, lines + 1);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_half_written_or_ends_between_blocks() {
        let chain = certificate() + &certificate();
        let whole = certificates(file(chain.as_bytes())).expect("whole");
        for end in 0..chain.len() {
            match certificates(file(&chain.as_bytes()[..end])) {
                Ok(some) => {
                    assert_eq!(some, whole[..some.len()]);
                    assert!(chain[..end].trim_end().ends_with("-----END CERTIFICATE-----"), "cut at {end}");
                }
                Err(error) => assert!(error.is_half_written(), "cut at {end}: {error}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_file_panics_and_what_is_taken_is_what_it_has(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            is_pem in any::<bool>(),
        ) {
            if is_pem {
                bytes = encoded("CERTIFICATE", &bytes).into_bytes();
                for (place, byte) in places {
                    *place.get_mut(&mut bytes) = byte;
                }
            }
            let file = file(&bytes);
            let _ = (private_key(file), revocation_lists(file));
            if let Ok(found) = certificates(file) {
                let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, pem::Error>>();
                prop_assert_eq!(found, all.expect("whole"));
                prop_assert!(check_whole(file).is_ok());
            }
        }
    }

    #[test]
    fn a_revocation_list_is_read() {
        let list = Authority::new("here").crl(&[], forebay_reading::clock::wall_time() + DAY);
        assert_eq!(revocation_lists(file(list.as_bytes())).expect("a list").len(), 1);
        assert!(PrivatePkcs8KeyDer::from_pem_slice(list.as_bytes()).is_err());
    }
}
