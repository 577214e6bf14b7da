//! Checks whether SQLite's log beside a file is whole, before SQLite opens it.
//!
//! SQLite reads its log up to the first frame with a wrong checksum and silently ignores the rest: to it, a torn write
//! after a power cut and a flipped bit look alike. This check tells them apart as far as possible. All frames of one log
//! carry the two salts of its header; frames of an earlier log, which may follow them, carry others. So a frame with the
//! right salts, at or behind the break in the chain of checksums, was written to this log and is lost to SQLite.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit is set if checksums are over big-endian words.
const MAGIC: u32 = 0x377f_0682;
/// The page sizes of SQLite.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// The state of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    /// Every frame can be read, as far as there are traces of them.
    Whole,
    /// Frames behind a break cannot be read.
    Broken,
}

/// Two sums over words of 32 bits.
type Sums = [u32; 2];

/// Checks the log at `path`; a missing log is whole.
pub(super) fn inspect(path: &Path) -> io::Result<Journal> {
    match File::open(path) {
        Ok(file) => inspect_all(BufReader::with_capacity(1 << 16, file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Journal::Whole),
        Err(error) => Err(error),
    }
}

fn inspect_all(mut log: impl Read) -> io::Result<Journal> {
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut log, &mut header)? {
        return Ok(Journal::Whole);
    }
    let words = match word(&header, 0) ^ MAGIC {
        0 => u32::from_le_bytes,
        1 => u32::from_be_bytes,
        _ => return with_broken_header(&mut log),
    };
    let page_bytes = word(&header, 8) as usize;
    let mut sums = sum([0, 0], &header[..24], words);
    if sums != sums_at(&header, 24) || !PAGE_BYTES.contains(&page_bytes) {
        return with_broken_header(&mut log);
    }
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut is_chained = true;
    while read_whole(&mut log, &mut frame)? {
        let is_of_this_log = frame[8..16] == header[16..24];
        let (head, page) = frame.split_at(FRAME_HEADER_BYTES);
        sums = sum(sum(sums, &head[..8], words), page, words);
        is_chained &= is_of_this_log && sums == sums_at(head, 16);
        if !is_chained && is_of_this_log {
            return Ok(Journal::Broken);
        }
    }
    Ok(Journal::Whole)
}

/// A log with a broken header is lost as a whole, if it has a frame.
fn with_broken_header(log: &mut impl Read) -> io::Result<Journal> {
    let mut first = [0; FRAME_HEADER_BYTES];
    Ok(if read_whole(log, &mut first)? { Journal::Broken } else { Journal::Whole })
}

/// Fills `bytes`; false if the log ends before.
fn read_whole(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Continues the sums over more bytes, a multiple of eight.
fn sum([mut first, mut second]: Sums, bytes: &[u8], word: fn([u8; 4]) -> u32) -> Sums {
    for pair in bytes.chunks_exact(8) {
        let [one, two] =
            [[pair[0], pair[1], pair[2], pair[3]], [pair[4], pair[5], pair[6], pair[7]]].map(word);
        first = first.wrapping_add(one).wrapping_add(second);
        second = second.wrapping_add(two).wrapping_add(first);
    }
    [first, second]
}

fn sums_at(bytes: &[u8], at: usize) -> Sums {
    [word(bytes, at), word(bytes, at + 4)]
}

/// A big-endian number in a header.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with three transactions of several pages each.
    fn log() -> Vec<u8> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        let connection = rusqlite::Connection::open(&path).expect("it opens");
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE a (b BLOB)").expect("made");
        for _ in 0..3 {
            connection.execute("INSERT INTO a VALUES (randomblob(10000))", []).expect("written");
        }
        std::fs::read(directory.path().join("a.db-wal")).expect("a log")
    }

    #[test]
    fn an_intact_log_and_a_truncated_one_are_whole() {
        let log = log();
        assert!(log.len() > 40_000, "{} bytes", log.len());
        for length in [0, 10, 32, 40, log.len() / 2, log.len() - 1, log.len()] {
            assert_eq!(inspect_all(&log[..length]).expect("read"), Journal::Whole, "{length} bytes");
        }
        // Frames of an older log follow, with other salts.
        let mut behind = log.clone();
        behind.extend(std::iter::repeat_n(7, 3 * (FRAME_HEADER_BYTES + 4096)));
        assert_eq!(inspect_all(&*behind).expect("read"), Journal::Whole);
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(inspect(&directory.path().join("none")).expect("none"), Journal::Whole);
    }

    #[test]
    fn a_log_with_a_flipped_bit_anywhere_is_broken() {
        let mut log = log();
        let last_frame = log.len() - FRAME_HEADER_BYTES - 4096;
        for at in (0..last_frame).step_by(97).chain(0..60) {
            log[at] ^= 0x10;
            assert_eq!(inspect_all(&*log).expect("read"), Journal::Broken, "byte {at}");
            log[at] ^= 0x10;
        }
        log[last_frame + 3000] ^= 1;
        assert_eq!(inspect_all(&*log).expect("read"), Journal::Broken);
    }
}
