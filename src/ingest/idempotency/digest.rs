//! Keys and bodies in sixteen bytes.

use sha2::{Digest as _, Sha256};

use crate::codec::DECODERS;
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

    /// The digest of a body as it was received, and of all that decides what it means: two requests with the same
    /// one ask for the same. Others get a turn while a large body is hashed.
    pub(in crate::ingest) async fn of_request(content: Content, body: &[u8]) -> Digest {
        let mut sha = Sha256::new();
        // Names, not numbers: tables may be in another order after a restart with another version.
        for word in meaning(content) {
            sha.update(word);
            sha.update(b"\0");
        }
        let mut pieces = body.chunks(STEP_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            sha.update(piece);
            if pieces.peek().is_some() {
                tokio::task::yield_now().await;
            }
        }
        Digest::cut(sha)
    }

    fn cut(sha: Sha256) -> Digest {
        let whole: [u8; 32] = sha.finalize().into();
        let mut half = [0; Digest::BYTES];
        half.copy_from_slice(&whole[..Digest::BYTES]);
        Digest(half)
    }
}

fn meaning(content: Content) -> [&'static str; 5] {
    let strictness = match content.strictness {
        Strictness::EachByItself => "each",
        Strictness::AllOrNone => "strict",
    };
    let format = DECODERS.members[content.format].0;
    [format, content.encoding.name(), content.precision.name(), strictness, content.ack.name()]
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
        Content::read(&head, dialect, Ack::Memory, acks).expect("a request that is taken")
    }

    #[tokio::test]
    async fn whatever_decides_the_meaning_of_a_request_changes_its_digest() {
        let large = vec![b' '; 3 * STEP_BYTES];
        let mut larger = large.clone();
        larger.push(b' ');
        let ndjson = &[("content-type", "application/x-ndjson")][..];
        let gzip = &[("content-encoding", "gzip")][..];
        let requests: [(&str, &[_], &[u8]); 11] = [
            ("/", &[], b""),
            ("/", &[], b"[]"),
            ("/", ndjson, b""),
            ("/", gzip, b""),
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
            let digest = Digest::of_request(content(path, headers), body).await;
            assert!(!seen.contains(&digest), "{path} {headers:?} {}", body.len());
            seen.push(digest);
        }
    }

    #[tokio::test]
    async fn what_only_looks_different_is_the_same_request() {
        let same = [
            content("/", &[]),
            content("/?ack=memory&strict=false&precision=ms&else=1", &[]),
            content("/", &[("content-type", "application/json; charset=utf-8")]),
            content("/", &[("content-encoding", "identity")]),
        ];
        let first = Digest::of_request(same[0], b"{}").await;
        for content in same {
            assert_eq!(Digest::of_request(content, b"{}").await, first, "{content:?}");
        }
        let (v1, v2) = (content("/write?db=a&precision=u", &[]), content("/api/v2/write?precision=us", &[]));
        assert_eq!(Digest::of_request(v1, b"").await, Digest::of_request(v2, b"").await);
    }

    #[test]
    fn a_digest_of_a_key_is_half_of_its_sha_256() {
        // The whole one is ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad.
        let expected = 0xba78_16bf_8f01_cfea_4141_40de_5dae_2223_u128;
        assert_eq!(Digest::of_key(b"abc"), Digest(expected.to_be_bytes()));
    }
}
