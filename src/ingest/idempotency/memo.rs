//! What the buffer keeps of a request with a key, so that its answer is known after a restart.
//!
//! All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 2, or 1 as version 0.1 of the program wrote it |
//! | 16 | digest of the key |
//! | 16 | digest of the request: of its body decompressed, or with version 1 as it was sent |
//! | 8 | time of receipt, in nanoseconds since the Unix epoch |
//! | 4 | readings accepted |
//! | 4 | readings turned away |
//! | 1 | acknowledgement: 0 memory, 1 disk, 2 delivered |
//! | the rest | the listed errors as a JSON array; nothing if there were none |

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_codec::REJECTIONS_LISTED_MAX;
use forebay_reading::timestamp::Timestamp;
use thiserror::Error;

use super::digest::{Digest, Kept, Of};
use super::keys::Answer;
use crate::buffer::Ack;
use crate::problem::ReadingFault;

const VERSION: u8 = 2;
/// Of version 0.1, which compared compressed bodies by their compressed bytes.
const VERSION_OF_TRANSFER: u8 = 1;

/// A key, the request that it came with, and what is answered to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memo {
    pub(super) key: Digest,
    pub(super) fingerprint: Kept,
    pub(super) received_at: Timestamp,
    pub(super) answer: Answer,
}

/// Why bytes are no memo.
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
        bytes.extend_from_slice(&[match self.fingerprint.of {
            Of::Content => VERSION,
            Of::Transfer => VERSION_OF_TRANSFER,
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
    /// [`MemoError`] for whatever [`Memo::encode`] does not write.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Memo, MemoError> {
        let of = match take(&mut bytes)? {
            [VERSION] => Of::Content,
            [VERSION_OF_TRANSFER] => Of::Transfer,
            [got] => return Err(MemoError::Version { got }),
        };
        let key = Digest(take(&mut bytes)?);
        let fingerprint = Kept { digest: Digest(take(&mut bytes)?), of };
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
        let answer = Answer { accepted, rejected, ack, errors: bytes.into() };
        Ok(Memo { key, fingerprint, received_at, answer })
    }

    /// What is left of `window` at `now`. The clock may have jumped since: never more than the window.
    pub(super) fn left(&self, window: Duration, now: Timestamp) -> Duration {
        let passed_nanos = u64::try_from(now.nanos() - self.received_at.nanos()).unwrap_or(0);
        window.saturating_sub(Duration::from_nanos(passed_nanos))
    }

    /// The answer as it may be given after a restart: whether all was delivered by then is not known, but it was on
    /// disk.
    pub(super) fn restored_answer(self) -> Answer {
        let ack = match self.answer.ack {
            Ack::Delivered => Ack::Disk,
            ack @ (Ack::Memory | Ack::Disk) => ack,
        };
        Answer { ack, ..self.answer }
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
            fingerprint: Kept { digest: Digest([2; 16]), of: Of::Content },
            received_at: Timestamp::from_nanos(received_nanos).expect("after 1970"),
            answer: Answer { accepted: 3, rejected: 200, ack, errors: errors.into() },
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
            key: [u8; 16], fingerprint: [u8; 16], of in prop::sample::select(vec![Of::Content, Of::Transfer]), nanos in 0..i64::MAX, accepted: u32,
            ack in prop::sample::select(vec![Ack::Memory, Ack::Disk, Ack::Delivered]),
            texts in prop::collection::vec(".{0,40}", 0..100),
        ) {
            let faults: Vec<_> = texts.iter().enumerate().map(|(index, text)| fault(index, text)).collect();
            let mut memo = memo(ack, &faults, nanos);
            let fingerprint = Kept { digest: Digest(fingerprint), of };
            (memo.key, memo.fingerprint, memo.answer.accepted) = (Digest(key), fingerprint, accepted);
            prop_assert_eq!(decode(&memo.encode()), Ok(memo));
        }

        #[test]
        fn no_bytes_can_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // With the right version, so that not all end at the first byte.
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
    fn what_is_no_memo_is_told_why() {
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
    fn what_is_left_of_the_window_is_never_more_than_the_window() {
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
    fn after_a_restart_nothing_is_said_of_delivery() {
        for (ack, restored) in
            [(Ack::Memory, Ack::Memory), (Ack::Disk, Ack::Disk), (Ack::Delivered, Ack::Disk)]
        {
            assert_eq!(memo(ack, &[], 1).restored_answer().ack, restored);
        }
    }
}
