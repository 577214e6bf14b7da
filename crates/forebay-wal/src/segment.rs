//! A segment: one file of the log, a header with records behind it.

use std::ops::Range;

use bytes::Buf as _;

use crate::checksum::{crc32c, crc32c_from};
use crate::number::{SegmentNumber, Seq};
use crate::version::{self, VERSION};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Bytes behind the header with the size at which the file was made.
pub const SIZE_BYTES: usize = 12;
/// The two places of the header: one damaged sector does not cost a segment.
pub const HEADER_PLACES: [u64; 2] = [0, 2048];
/// The place of the first record.
pub const RECORDS_START: u64 = 4096;

/// The first bytes of a segment in every version, before the byte with the version.
pub const NAME: &[u8; 7] = b"FBYLOG\x00";
const SUFFIX: &str = ".segment";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the segment.
    pub number: SegmentNumber,
    /// The sequence number of its first record.
    pub first_seq: Seq,
    /// Starts the checksum of every record, so that the remains of an older segment in the same file, or bytes that a
    /// client sent as a reading, are never taken for a record.
    pub salt: u32,
}

impl Header {
    /// The bytes at the front of the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..7].copy_from_slice(NAME);
        bytes[7] = VERSION;
        bytes[8..16].copy_from_slice(&self.number.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_seq.get().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`; `None` if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut rest = bytes.strip_prefix(NAME)?.strip_prefix(&[VERSION])?;
        let header = Header {
            number: SegmentNumber::new(rest.get_u64_le()),
            first_seq: Seq::new(rest.get_u64_le()),
            salt: rest.get_u32_le(),
        };
        is_checked(bytes).then_some(header)
    }

    /// The bytes behind the header with the size at which the file was made.
    pub fn encode_size(&self, bytes: u64) -> [u8; SIZE_BYTES] {
        let mut mark = [0; SIZE_BYTES];
        mark[..8].copy_from_slice(&bytes.to_le_bytes());
        mark[8..].copy_from_slice(&self.size_checksum(bytes).to_le_bytes());
        mark
    }

    /// The size at which the file was made; `None` if `mark` is damaged, or an older version made the file.
    pub fn decode_size(&self, mark: &[u8]) -> Option<u64> {
        let mut rest = mark.get(..SIZE_BYTES)?;
        let bytes = rest.get_u64_le();
        (self.size_checksum(bytes) == rest.get_u32_le()).then_some(bytes)
    }

    fn size_checksum(&self, bytes: u64) -> u32 {
        // Without the header's own checksum: a CRC over data and its CRC is the same for every header.
        crc32c_from(self.salt, &[&self.encode()[..HEADER_BYTES - 4], &bytes.to_le_bytes()])
    }
}

/// Whether the bytes of a header match the checksum behind them.
fn is_checked(header: &[u8]) -> bool {
    header
        .get(HEADER_BYTES - 4..HEADER_BYTES)
        .is_some_and(|checksum| crc32c(&header[..28]).to_le_bytes() == checksum)
}

/// The unknown version of a segment: one of its two headers is whole and has one, or both headers have the same. Anything
/// else is a damaged header of our own version.
pub fn foreign_version(headers: [&[u8]; 2]) -> Option<u8> {
    let foreign = headers.map(|header| version::foreign(NAME, header));
    let whole = headers.iter().zip(foreign).find_map(|(header, found)| found.filter(|_| is_checked(header)));
    match foreign {
        [Some(first), Some(second)] if first == second => Some(first),
        _ => whole,
    }
}

/// The file name of a segment.
pub fn file_name(number: SegmentNumber) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number of the segment that has this file name.
pub fn number_of(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(SegmentNumber::new)
}

/// A segment that the log still needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of the segment.
    pub number: SegmentNumber,
    /// The start of the checksums of its records.
    pub salt: u32,
    /// The sequence numbers of its records. Anything behind them was never acknowledged.
    pub seqs: Range<Seq>,
    /// Size of the file in bytes.
    pub bytes: u64,
}

impl Segment {
    /// Forgets all records from this sequence number on.
    pub fn cut(&mut self, seq: Seq) {
        self.seqs.end = self.seqs.end.min(seq).max(self.seqs.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_found() {
        let header = Header { number: SegmentNumber::new(3), first_seq: Seq::new(70_000), salt: 0xdead_beef };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..HEADER_BYTES - 1]), None);
        let mark = header.encode_size(4096);
        assert_eq!(header.decode_size(&mark), Some(4096));
        assert_eq!(
            Header { number: SegmentNumber::new(4), ..header }.decode_size(&mark),
            None,
            "it is another header's"
        );
        assert_eq!(header.decode_size(&[0; SIZE_BYTES]), None, "older versions write none");
    }

    #[test]
    fn a_later_version_is_told_from_a_damaged_one() {
        let known = Header { number: SegmentNumber::new(3), first_seq: Seq::new(7), salt: 9 }.encode();
        let mut later = known;
        later[7] = 2;
        let damaged = later;
        let checksum = crc32c(&later[..28]);
        later[28..].copy_from_slice(&checksum.to_le_bytes());
        let check = |first: &[u8], second: &[u8], expected| {
            assert_eq!(foreign_version([first, second]), expected);
            assert_eq!(foreign_version([second, first]), expected);
        };
        check(&known, &known, None);
        check(&later, &later, Some(2));
        check(&later, &known, Some(2));
        check(&later, &[], Some(2));
        check(&damaged, &damaged, Some(2));
        check(&damaged, &known, None);
        check(&damaged, &[0; HEADER_BYTES], None);
        check(&[], &[], None);
    }

    #[test]
    fn names_sort_like_their_numbers_and_other_names_have_no_number() {
        assert_eq!(file_name(SegmentNumber::new(17)), "00000000000000000017.segment");
        for number in [0, 1, 17, u64::MAX].map(SegmentNumber::new) {
            assert_eq!(number_of(&file_name(number)), Some(number));
        }
        for name in
            ["", ".segment", "17.segment", "0000000000000000001x.segment", "99999999999999999999.segment"]
        {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
