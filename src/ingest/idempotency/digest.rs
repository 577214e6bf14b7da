//! Keys and bodies in sixteen bytes.

use forebay_codec::DECODERS;
use sha2::{Digest as _, Sha256};

use crate::ingest::content::{Content, Strictness};

/// Bytes of a body that are hashed before others get a turn: about 0.2 ms where the processor has no instructions
/// for it.
const STEP_BYTES: usize = 64 * 1024;

/// The first half of a SHA-256: 128 bits, of which nobody finds two texts by chance. One who spends 2^64 tries on it
/// fools only requests that he sends himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::ingest) struct Digest(pub(super) [u8; Digest::BYTES]);

impl Digest {
    /// How many bytes it takes.
    pub(super) const BYTES: usize = 16;

    /// The digest of a key.
    pub(super) fn of_key(key: &[u8]) -> Digest {
        Digest::cut(Sha256::new_with_prefix(key))
    }

    fn cut(sha: Sha256) -> Digest {
        let whole: [u8; 32] = sha.finalize().into();
        let mut half = [0; Digest::BYTES];
        half.copy_from_slice(&whole[..Digest::BYTES]);
        Digest(half)
    }
}

/// What a request asks for: its body, decompressed, and all that decides what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Fingerprint {
    pub(super) digest: Digest,
    pub(super) came: Came,
}

/// How a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// As it is.
    Plain,
    /// Compressed.
    Compressed,
}

/// The digest of an earlier request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) of: Of,
}

/// What the digest of an earlier request was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The body, decompressed.
    Content,
    /// The body as it was sent, with the name of its encoding, as version 0.1 had it.
    Transfer,
}

impl Fingerprint {
    /// Of a body that came as it is. Others get a turn while a large body is hashed.
    pub(in crate::ingest) async fn of_plain(content: Content, body: &[u8]) -> Fingerprint {
        let mut sha = meaning(content);
        let mut pieces = body.chunks(STEP_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            sha.update(piece);
            if pieces.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        Fingerprint { digest: Digest::cut(sha), came: Came::Plain }
    }

    /// Of a body that came compressed. It takes as long as the body takes; call it where blocking is allowed.
    pub(in crate::ingest) fn of_decompressed(content: Content, body: &[u8]) -> Fingerprint {
        Fingerprint { digest: Digest::cut(meaning(content).chain_update(body)), came: Came::Compressed }
    }

    /// Whether the earlier request asked for the same, as far as anybody can tell: what 0.1 kept of a compressed body
    /// cannot be compared, because the same body compressed anew has other bytes.
    pub(super) fn is_same_as(self, kept: Kept) -> bool {
        self.digest == kept.digest || (kept.of == Of::Transfer && self.came == Came::Compressed)
    }
}

/// Begins with what decides the meaning of a body. Names, not numbers: tables may be in another order after a restart
/// with another version.
fn meaning(content: Content) -> Sha256 {
    let strictness = match content.strictness {
        Strictness::EachByItself => "each",
        Strictness::AllOrNone => "strict",
    };
    let format = DECODERS.members[content.format].0;
    // Where the encoding's name stood in 0.1: so the keys that it kept of bodies without one can be compared.
    let words = [format, "identity", content.precision.name(), strictness, content.ack.name()];
    words.iter().fold(Sha256::new(), |sha, word| sha.chain_update(word).chain_update(b"\0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Ack;
    use crate::ingest::Dialect;

    fn content(path: &str, headers: &[(&str, &str)]) -> Content {
        let mut request = http::Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let acks = &[Ack::Memory, Ack::Delivered];
        let dialect = Dialect::at(head.uri.path()).unwrap_or(Dialect::Own);
        let mut content = Content::read(&head, dialect, Ack::Memory).expect("a type that is taken");
        content.ask(head.uri.query(), dialect, acks).expect("parameters that are known");
        content
    }

    #[tokio::test]
    async fn whatever_decides_the_meaning_of_a_request_changes_its_digest() {
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
    async fn what_only_looks_different_is_the_same_request() {
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
    async fn what_0_1_kept_is_compared_where_it_can_be_and_is_the_same_where_it_cannot() {
        let plain = content("/", &[]);
        // `printf 'json\0identity\0ms\0each\0memory\0{}' | sha256sum`
        let expected = 0x4c35_b4dc_39eb_06b5_3e09_c5e4_9d71_1305_u128;
        let kept = Kept { digest: Digest(expected.to_be_bytes()), of: Of::Transfer };
        assert!(Fingerprint::of_plain(plain, b"{}").await.is_same_as(kept));
        assert!(!Fingerprint::of_plain(plain, b"[]").await.is_same_as(kept));
        let compressed = Fingerprint::of_decompressed(content("/", &[("content-encoding", "gzip")]), b"[]");
        assert!(compressed.is_same_as(kept));
        assert!(!compressed.is_same_as(Kept { of: Of::Content, ..kept }));
    }

    #[test]
    fn a_digest_of_a_key_is_half_of_its_sha_256() {
        // The whole one is ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad.
        let expected = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223_u128;
        assert_eq!(Digest::of_key(b"abc"), Digest(expected.to_be_bytes()));
    }
}
