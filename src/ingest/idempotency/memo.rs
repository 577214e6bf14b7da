//! The memo of a request with a key: the buffer stores it with the readings, so that the answer survives a restart.
//!
//! All numbers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version: 2, or 1 from version 0.1 of the program |
//! | 16 | digest of the key |
//! | 16 | digest of the request: with version 2 of the decompressed body, with version 1 of the body as it was sent |
//! | 8 | time of receipt, in nanoseconds since the Unix epoch |
//! | 4 | readings accepted |
//! | 4 | readings rejected |
//! | 1 | acknowledgement: 0 memory, 1 disk, 2 delivered |
//! | the rest | the listed errors as a JSON array; empty if there were none |

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_codec::REJECTIONS_LISTED_MAX;
use forebay_reading::timestamp::Timestamp;
use thiserror::Error;

use super::digest::{Digest, DigestKind, StoredFingerprint};
use super::keys::StoredAnswer;
use crate::buffer::Ack;
use crate::problem::ReadingFault;

const VERSION: u8 = 2;
/// The memo version of program version 0.1, which compared compressed bodies by their compressed bytes.
const VERSION_OF_TRANSFER: u8 = 1;

/// A key, the digest of its request, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memo {
    pub(super) key: Digest,
    pub(super) fingerprint: StoredFingerprint,
    pub(super) received_at: Timestamp,
    pub(super) answer: StoredAnswer,
}

/// Why bytes are not a memo.
#[derive(Debug, Error)]
pub(super) enum MemoError {
    #[error("it has version {got}; this program reads the versions {VERSION_OF_TRANSFER} and {VERSION}")]
    Version { got: u8 },
    #[error("it ends too early")]
    Short,
    #[error("its time of receipt lies before 1970")]
    Time,
    #[error("it has the acknowledgement {got}; known: 0 to 2")]
    Ack { got: u8 },
    #[error("its errors cannot be read: {0}")]
    Errors(#[from] serde_json::Error),
    #[error(
        "it lists {got} errors; at most {REJECTIONS_LISTED_MAX}, and no more than were turned away, are possible"
    )]
    TooManyErrors { got: usize },
}

impl Memo {
    /// The memo as bytes.
    pub(super) fn encode(&self) -> Bytes {
        let answer = &self.answer;
        let mut bytes = BytesMut::with_capacity(50 + answer.errors.len());
        bytes.extend_from_slice(&[match self.fingerprint.kind {
            DigestKind::Content => VERSION,
            DigestKind::Transfer => VERSION_OF_TRANSFER,
        }]);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.fingerprint.digest.0);
        bytes.extend_from_slice(&self.received_at.nanos().to_le_bytes());
        bytes.extend_from_slice(&answer.accepted.to_le_bytes());
        bytes.extend_from_slice(&answer.rejected.to_le_bytes());
        bytes.extend_from_slice(&[match answer.ack {
            Ack::Memory => 0,
            Ack::Disk => 1,
            Ack::Delivered => 2,
        }]);
        bytes.extend_from_slice(&answer.errors);
        bytes.freeze()
    }

    /// Reads a memo.
    ///
    /// # Errors
    ///
    /// [`MemoError`] unless the bytes are what [`Memo::encode`] writes.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Memo, MemoError> {
        let kind = match take(&mut bytes)? {
            [VERSION] => DigestKind::Content,
            [VERSION_OF_TRANSFER] => DigestKind::Transfer,
            [got] => return Err(MemoError::Version { got }),
        };
        let key = Digest(take(&mut bytes)?);
        let fingerprint = StoredFingerprint { digest: Digest(take(&mut bytes)?), kind };
        let received_at = Timestamp::from_nanos(i64::from_le_bytes(take(&mut bytes)?));
        let received_at = received_at.ok_or(MemoError::Time)?;
        let accepted = u32::from_le_bytes(take(&mut bytes)?);
        let rejected = u32::from_le_bytes(take(&mut bytes)?);
        let ack = match take(&mut bytes)? {
            [0] => Ack::Memory,
            [1] => Ack::Disk,
            [2] => Ack::Delivered,
            [got] => return Err(MemoError::Ack { got }),
        };
        check_errors(bytes, rejected)?;
        let answer = StoredAnswer { accepted, rejected, ack, errors: bytes.into() };
        Ok(Memo { key, fingerprint, received_at, answer })
    }

    /// The time left of `window` at `now`; never more than the window, even if the clock was set back.
    pub(super) fn left(&self, window: Duration, now: Timestamp) -> Duration {
        let passed_nanos = u64::try_from(now.nanos() - self.received_at.nanos()).unwrap_or(0);
        window.saturating_sub(Duration::from_nanos(passed_nanos))
    }

    /// The answer after a restart. Whether everything was delivered is not known by then, but it was on disk.
    pub(super) fn restored_answer(self) -> StoredAnswer {
        let ack = match self.answer.ack {
            Ack::Delivered => Ack::Disk,
            ack @ (Ack::Memory | Ack::Disk) => ack,
        };
        StoredAnswer { ack, ..self.answer }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MemoError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(MemoError::Short)?;
    *bytes = rest;
    Ok(*taken)
}

fn check_errors(json: &[u8], rejected: u32) -> Result<(), MemoError> {
    if json.is_empty() {
        return Ok(());
    }
    let got = serde_json::from_slice::<Vec<ReadingFault>>(json)?.len();
    if got > REJECTIONS_LISTED_MAX.min(rejected as usize) {
        return Err(MemoError::TooManyErrors { got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memo(ack: Ack, errors: &[ReadingFault], received_nanos: i64) -> Memo {
        let errors = if errors.is_empty() { Vec::new() } else { serde_json::to_vec(errors).expect("JSON") };
        Memo {
            key: Digest([1; 16]),
            fingerprint: StoredFingerprint { digest: Digest([2; 16]), kind: DigestKind::Content },
            received_at: Timestamp::from_nanos(received_nanos).expect("after 1970"),
            answer: StoredAnswer { accepted: 3, rejected: 200, ack, errors: errors.into() },
        }
    }

    fn fault(index: usize, text: &str) -> ReadingFault {
        ReadingFault { index, pointer: format!("/{index}/{text}"), detail: text.to_owned() }
    }

    fn decode(bytes: &[u8]) -> Result<Memo, String> {
        Memo::decode(bytes).map_err(|error| error.to_string())
    }

    proptest! {
        #[test]
        fn a_memo_reads_back_as_it_was_written(
            key: [u8; 16], fingerprint: [u8; 16], kind in prop::sample::select(vec![DigestKind::Content, DigestKind::Transfer]), nanos in 0..i64::MAX, accepted: u32,
            ack in prop::sample::select(vec![Ack::Memory, Ack::Disk, Ack::Delivered]),
            texts in prop::collection::vec(".{0,40}", 0..100),
        ) {
            let faults: Vec<_> = texts.iter().enumerate().map(|(index, text)| fault(index, text)).collect();
            let mut memo = memo(ack, &faults, nanos);
            let fingerprint = StoredFingerprint { digest: Digest(fingerprint), kind };
            (memo.key, memo.fingerprint, memo.answer.accepted) = (Digest(key), fingerprint, accepted);
            prop_assert_eq!(decode(&memo.encode()), Ok(memo));
        }

        #[test]
        fn no_bytes_can_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // The right version leads beyond the first byte.
            let _ = Memo::decode(&bytes);
            let _ = Memo::decode(&[&[VERSION], &bytes[..]].concat());
        }

        #[test]
        fn no_mangled_memo_can_cause_a_panic(place in 0_usize..120, byte: u8) {
            let mut bytes = memo(Ack::Disk, &[fault(0, "a"), fault(1, "b")], 1).encode().to_vec();
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Ok(memo) = Memo::decode(&bytes) {
                prop_assert_eq!(&memo.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn an_invalid_memo_is_refused_with_its_reason() {
        let good = memo(Ack::Memory, &[fault(0, "a")], 1).encode().to_vec();
        for length in 0..50 {
            assert_eq!(decode(&good[..length]), Err("it ends too early".to_owned()), "{length}");
        }
        let with = |place: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[place..place + bytes.len()].copy_from_slice(bytes);
            decode(&changed).expect_err("it is no memo")
        };
        assert_eq!(with(0, &[3]), "it has version 3; this program reads the versions 1 and 2");
        assert_eq!(with(33, &(-1_i64).to_le_bytes()), "its time of receipt lies before 1970");
        assert_eq!(with(49, &[3]), "it has the acknowledgement 3; known: 0 to 2");
        assert!(with(50, b"{").starts_with("its errors cannot be read: "));
        assert!(with(45, &0_u32.to_le_bytes()).starts_with("it lists 1 errors"));
        let faults: Vec<_> = (0..101).map(|index| fault(index, "a")).collect();
        let too_many = decode(&memo(Ack::Memory, &faults, 1).encode());
        assert!(too_many.is_err_and(|error| error.starts_with("it lists 101 errors")));
    }

    #[test]
    fn the_time_left_is_never_more_than_the_window() {
        let (window, second) = (Duration::from_secs(10), 1_000_000_000);
        let left = |received: i64, now: i64| {
            let now = Timestamp::from_nanos(now).expect("after 1970");
            memo(Ack::Disk, &[], received).left(window, now)
        };
        assert_eq!(left(100 * second, 100 * second), window);
        assert_eq!(left(100 * second, 104 * second), Duration::from_secs(6));
        assert_eq!(left(100 * second, 110 * second), Duration::ZERO);
        assert_eq!(left(100 * second, 500 * second), Duration::ZERO);
        // The clock was set back.
        assert_eq!(left(100 * second, 50 * second), window);
        assert_eq!(left(i64::MAX, 0), window);
        assert_eq!(left(0, i64::MAX), Duration::ZERO);
    }

    #[test]
    fn after_a_restart_no_answer_claims_delivery() {
        for (ack, restored) in
            [(Ack::Memory, Ack::Memory), (Ack::Disk, Ack::Disk), (Ack::Delivered, Ack::Disk)]
        {
            assert_eq!(memo(ack, &[], 1).restored_answer().ack, restored);
        }
    }
}
