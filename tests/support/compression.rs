//! Bodies as clients compress them, and bodies that are small until they are decompressed.

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, FlushCompress};

/// Compresses with gzip.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("written");
    encoder.finish().expect("written")
}

/// Compresses with deflate in the zlib format, which HTTP calls `deflate`.
pub fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("written");
    encoder.finish().expect("written")
}

/// Compresses with deflate alone, as some clients do.
pub fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("written");
    encoder.finish().expect("written")
}

/// Compresses with zstd.
pub fn zstd(body: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(body, 3).expect("written")
}

/// One MiB of blanks, of which bombs are made.
const PIECE: &[u8] = &[b' '; 1 << 20];

/// About 1 KiB for each MiB of blanks, in one gzip file of many members.
pub fn gzip_bomb(mebibytes: usize) -> Vec<u8> {
    gzip(PIECE).repeat(mebibytes)
}

/// Compresses into a single deflate stream in the zlib format.
pub fn deflate_bomb(mebibytes: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), true);
    let mut piece = |out: &mut Vec<u8>| {
        let before = compress.total_in();
        out.reserve(64 * 1024);
        compress.compress_vec(PIECE, out, FlushCompress::Full).expect("compressed");
        assert_eq!(compress.total_in() - before, PIECE.len() as u64);
    };
    let (mut bomb, mut again) = (Vec::new(), Vec::new());
    piece(&mut bomb);
    // After a full flush a piece knows nothing of those before it.
    piece(&mut again);
    bomb.extend(again.repeat(mebibytes - 1));
    bomb
}

/// Compresses into many zstd frames.
pub fn zstd_bomb(mebibytes: usize) -> Vec<u8> {
    zstd(PIECE).repeat(mebibytes)
}
