//! CRC32C (Castagnoli, RFC 3720 appendix B.4), the checksum of everything in the log.

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use crc_fast::Digest;

/// The checksum of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_from(0, &[bytes])
}

/// The checksum of the concatenation of `parts`. It continues from `start`, the checksum of the bytes before, or a salt.
#[expect(clippy::cast_possible_truncation, reason = "the crate gives checksums of 32 bits in 64")]
pub fn crc32c_from(start: u32, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new_with_init_state(Crc32Iscsi, u64::from(!start));
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_standard_crc32c_for_every_split_of_the_bytes() {
        // The examples of RFC 3720, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [0, 1, 7, 8, 255, 256, 4999, 5000] {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(crc32c_from(0, &[front, back]), crc32c(&bytes), "cut at {cut}");
            assert_eq!(crc32c_from(crc32c(front), &[back]), crc32c(&bytes), "cut at {cut}");
        }
        assert_ne!(crc32c_from(1, &[&bytes]), crc32c(&bytes), "the salt is part of it");
    }
}
