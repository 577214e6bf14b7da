//! Digests of keys and requests, 16 bytes each.

use forebay_codec::DECODERS;
use sha2::{Digest as _, Sha256};

use crate::ingest::content::{RequestContent, Strictness};

/// Bytes of a body that are hashed before the task yields: about 0.2 ms on a processor without instructions for SHA.
const STEP_BYTES: usize = 64 * 1024;

/// The first half of a SHA-256: 128 bits, which never collide by chance. A client that spends 2^64 tries on a collision
/// can only confuse its own requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::ingest) struct Digest(pub(super) [u8; Digest::BYTES]);

impl Digest {
    /// Bytes of a digest.
    pub(super) const BYTES: usize = 16;

    /// The digest of an idempotency key. Each `owner`, named by its access key, has a key space of its own.
    pub(super) fn of_key(owner: Option<&str>, key: &[u8]) -> Digest {
        let mut sha = Sha256::new();
        if let Some(owner) = owner {
            // Neither a name nor a key has a zero byte in it.
            sha.update(owner.as_bytes());
            sha.update([0]);
        }
        sha.update(key);
        Digest::cut(sha)
    }

    fn cut(sha: Sha256) -> Digest {
        let whole: [u8; 32] = sha.finalize().into();
        let mut half = [0; Digest::BYTES];
        half.copy_from_slice(&whole[..Digest::BYTES]);
        Digest(half)
    }
}

/// Identifies a request: a digest of its decompressed body and of everything that decides the body's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Fingerprint {
    pub(super) digest: Digest,
    pub(super) form: BodyForm,
}

/// The form in which a body was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// Not compressed.
    Plain,
    /// Compressed in any way.
    Compressed,
}

/// The stored digest of an earlier request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredFingerprint {
    pub(super) digest: Digest,
    pub(super) kind: DigestKind,
}

/// The bytes that a stored digest was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DigestKind {
    /// The decompressed body.
    Content,
    /// The body as it was sent and the name of its encoding, as in version 0.1.
    Transfer,
}

impl Fingerprint {
    /// The fingerprint of a body that was sent plain. The task yields while it hashes a large body.
    pub(in crate::ingest) async fn of_plain(content: RequestContent, body: &[u8]) -> Fingerprint {
        let mut sha = meaning(content);
        let mut pieces = body.chunks(STEP_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            sha.update(piece);
            if pieces.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        Fingerprint { digest: Digest::cut(sha), form: BodyForm::Plain }
    }

    /// The fingerprint of a body that was sent compressed. It blocks in proportion to the body: call it where that is
    /// allowed.
    pub(in crate::ingest) fn of_decompressed(content: RequestContent, body: &[u8]) -> Fingerprint {
        Fingerprint { digest: Digest::cut(meaning(content).chain_update(body)), form: BodyForm::Compressed }
    }

    /// Whether the earlier request was the same, as far as can be known: a digest of compressed bytes from version 0.1
    /// cannot be compared, because the same body compressed again has other bytes.
    pub(super) fn is_same_as(self, earlier: StoredFingerprint) -> bool {
        self.digest == earlier.digest
            || (earlier.kind == DigestKind::Transfer && self.form == BodyForm::Compressed)
    }
}

/// Starts a hash with everything that decides the meaning of a body. It takes names and not indices, because tables may
/// have another order in another version.
fn meaning(content: RequestContent) -> Sha256 {
    let strictness = match content.strictness {
        Strictness::EachByItself => "each",
        Strictness::AllOrNone => "strict",
    };
    let format = DECODERS.members[content.format].0;
    // Version 0.1 hashed the encoding's name in this place: so its digests of plain bodies can be compared.
    let words = [format, "identity", content.precision.name(), strictness, content.ack.name()];
    words.iter().fold(Sha256::new(), |sha, word| sha.chain_update(word).chain_update(b"\0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Ack;
    use crate::ingest::Dialect;

    fn content(path: &str, headers: &[(&str, &str)]) -> RequestContent {
        let mut request = http::Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let acks = &[Ack::Memory, Ack::Delivered];
        let dialect = Dialect::at(head.uri.path()).unwrap_or(Dialect::Own);
        let mut content = RequestContent::read(&head, dialect, Ack::Memory).expect("a type that is taken");
        content.ask(head.uri.query(), dialect, acks).expect("parameters that are known");
        content
    }

    #[tokio::test]
    async fn everything_that_decides_the_meaning_of_a_request_changes_its_digest() {
        let large = vec![b' '; 3 * STEP_BYTES];
        let mut larger = large.clone();
        larger.push(b' ');
        let ndjson = &[("content-type", "application/x-ndjson")][..];
        let requests: [(&str, &[_], &[u8]); 10] = [
            ("/", &[], b""),
            ("/", &[], b"[]"),
            ("/", ndjson, b""),
            ("/?precision=s", &[], b""),
            ("/write", &[], b""),
            ("/write?precision=m", &[], b""),
            ("/?strict=true", &[], b""),
            ("/?ack=delivered", &[], b""),
            ("/", &[], &large),
            ("/", &[], &larger),
        ];
        let mut seen = Vec::new();
        for (path, headers, body) in requests {
            let content = content(path, headers);
            let digest = Fingerprint::of_plain(content, body).await.digest;
            assert!(!seen.contains(&digest), "{path} {headers:?} {}", body.len());
            assert_eq!(Fingerprint::of_decompressed(content, body).digest, digest, "whoever hashes it");
            seen.push(digest);
        }
    }

    #[tokio::test]
    async fn different_spellings_of_one_request_have_the_same_digest() {
        let same = [
            content("/", &[]),
            content("/?ack=memory&strict=false&precision=ms", &[]),
            content("/", &[("content-type", "application/json; charset=utf-8")]),
            content("/", &[("content-encoding", "identity")]),
            content("/", &[("content-encoding", "gzip")]),
            content("/", &[("content-encoding", "zstd")]),
        ];
        let first = Fingerprint::of_plain(same[0], b"{}").await;
        for content in same {
            assert_eq!(Fingerprint::of_plain(content, b"{}").await, first, "{content:?}");
        }
        let (v1, v2) = (content("/write?db=a&precision=u", &[]), content("/api/v2/write?precision=us", &[]));
        assert_eq!(Fingerprint::of_plain(v1, b"").await, Fingerprint::of_plain(v2, b"").await);
    }

    #[tokio::test]
    async fn digests_of_version_0_1_are_compared_where_possible_and_match_otherwise() {
        let plain = content("/", &[]);
        // `printf 'json\0identity\0ms\0each\0memory\0{}' | sha256sum`
        let expected = 0x4c35_b4dc_39eb_06b5_3e09_c5e4_9d71_1305_u128;
        let earlier =
            StoredFingerprint { digest: Digest(expected.to_be_bytes()), kind: DigestKind::Transfer };
        assert!(Fingerprint::of_plain(plain, b"{}").await.is_same_as(earlier));
        assert!(!Fingerprint::of_plain(plain, b"[]").await.is_same_as(earlier));
        let compressed = Fingerprint::of_decompressed(content("/", &[("content-encoding", "gzip")]), b"[]");
        assert!(compressed.is_same_as(earlier));
        assert!(!compressed.is_same_as(StoredFingerprint { kind: DigestKind::Content, ..earlier }));
    }

    #[test]
    fn a_digest_of_a_key_is_half_of_its_sha_256() {
        // The whole hash is ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad.
        let expected = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223_u128;
        assert_eq!(Digest::of_key(None, b"abc"), Digest(expected.to_be_bytes()));
    }
}
