//! The layout of one record in a segment: a head with a checksum, then the payload.

use bytes::Buf as _;

use crate::checksum::crc32c_from;
use crate::number::Seq;

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 24;
/// Records begin at multiples of this many bytes in their segment.
pub const ALIGNMENT: usize = 8;

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    checksum: u32,
    /// Bytes of the payload; at least one.
    pub length: u32,
    /// Sequence number of the record.
    pub seq: Seq,
    /// All records below this sequence number were on stable storage when this one was written.
    pub synced: Seq,
}

/// Bytes of a record with a payload of this length.
pub fn size(payload_bytes: usize) -> u64 {
    (HEAD_BYTES + payload_bytes).next_multiple_of(ALIGNMENT) as u64
}

/// The head of a record whose payload is the concatenation of `payload`, at least one byte in all.
///
/// # Panics
///
/// If the payload is empty or has 4 GiB and more.
pub fn head(salt: u32, seq: Seq, synced: Seq, payload: &[&[u8]]) -> [u8; HEAD_BYTES] {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    assert!(length > 0, "a payload has at least one byte");
    let length = u32::try_from(length).expect("a payload is smaller than 4 GiB");
    let mut head = [0; HEAD_BYTES];
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&seq.get().to_le_bytes());
    head[16..24].copy_from_slice(&synced.get().to_le_bytes());
    let checksum = crc32c_from(crc32c_from(salt, &[&head[4..]]), payload);
    head[..4].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// The zeros behind a payload of this length.
pub fn padding(payload_bytes: usize) -> &'static [u8] {
    let bytes = HEAD_BYTES + payload_bytes;
    &[0; ALIGNMENT][..bytes.next_multiple_of(ALIGNMENT) - bytes]
}

/// Appends a record to `buffer`: head, payload and padding.
///
/// # Panics
///
/// As [`head`].
pub fn write(buffer: &mut Vec<u8>, salt: u32, seq: Seq, synced: Seq, payload: &[&[u8]]) {
    let start = buffer.len();
    buffer.extend_from_slice(&head(salt, seq, synced, payload));
    payload.iter().for_each(|part| buffer.extend_from_slice(part));
    let payload_bytes = buffer.len() - start - HEAD_BYTES;
    buffer.extend_from_slice(padding(payload_bytes));
}

impl RecordHead {
    /// The head at the front of `bytes`; `None` if the bytes are too few or cannot be a head.
    pub fn read(bytes: &[u8]) -> Option<RecordHead> {
        let mut bytes = bytes.get(..HEAD_BYTES)?;
        let head = RecordHead {
            checksum: bytes.get_u32_le(),
            length: bytes.get_u32_le(),
            seq: Seq::new(bytes.get_u64_le()),
            synced: Seq::new(bytes.get_u64_le()),
        };
        (head.length > 0 && head.synced <= head.seq).then_some(head)
    }

    /// Bytes of the whole record.
    pub fn size(&self) -> u64 {
        size(self.length as usize)
    }

    /// Whether `bytes`, head and payload, match the checksum in the head.
    pub fn checks(&self, salt: u32, bytes: &[u8]) -> bool {
        let end = HEAD_BYTES + self.length as usize;
        bytes.get(4..end).is_some_and(|bytes| crc32c_from(salt, &[bytes]) == self.checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written_and_is_aligned() {
        for length in 1..40 {
            let payload: Vec<u8> = (0..length).collect();
            let (first, second) = payload.split_at(payload.len() / 2);
            let mut buffer = vec![9; 16];
            write(&mut buffer, 5, Seq::new(7), Seq::new(6), &[first, second]);
            let record = &buffer[16..];
            let head = RecordHead::read(record).expect("a head");
            assert_eq!((head.length, head.seq, head.synced), (u32::from(length), Seq::new(7), Seq::new(6)));
            assert_eq!(head.size(), record.len() as u64);
            assert_eq!(record.len() % ALIGNMENT, 0);
            assert!(head.checks(5, record) && !head.checks(6, record), "the salt is part of the checksum");
            assert_eq!(&record[HEAD_BYTES..][..payload.len()], payload);
        }
    }

    #[test]
    fn any_flipped_bit_of_head_or_payload_is_found() {
        let mut buffer = Vec::new();
        write(&mut buffer, 1, Seq::new(300), Seq::new(200), &[b"a reading"]);
        let length = HEAD_BYTES + b"a reading".len();
        for bit in 0..8 * length {
            let mut bytes = buffer.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!RecordHead::read(&bytes).is_some_and(|head| head.checks(1, &bytes)), "bit {bit}");
        }
    }

    #[test]
    fn truncated_or_zeroed_bytes_are_not_a_record() {
        let mut buffer = Vec::new();
        write(&mut buffer, 1, Seq::new(3), Seq::new(2), &[b"a reading"]);
        for length in 0..HEAD_BYTES + b"a reading".len() {
            let bytes = &buffer[..length];
            assert!(!RecordHead::read(bytes).is_some_and(|head| head.checks(1, bytes)), "{length} bytes");
        }
        assert_eq!(RecordHead::read(&[0; 64]), None);
    }
}
