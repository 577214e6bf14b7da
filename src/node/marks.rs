//! The marks of acknowledged readings, in a small file beside `readings.db`: `readings.db-answered`.
//!
//! SQLite does not notice if the end of its log is missing. So the highest id of the acknowledged readings is written
//! here before their answer is sent, and a start checks whether all readings up to it are there.
//!
//! The file has two slots of 64 bytes, which are written in turn, so that a torn or damaged slot leaves the marks before
//! it. All numbers of a slot are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `FBANSWR1` |
//! | 8 | number of the slot's version; the highest is the latest |
//! | 8 | id of the last acknowledged reading |
//! | 8 | id of the last reading that is known to be in `readings.db` itself, not only in its log |
//! | 8 | readings that were reported as lost |
//! | 4 | CRC32C of the bytes before |
//! | 20 | zeros |
//!
//! Marks are synced only at a checkpoint of SQLite's log. After a kill the latest are there; after a power cut perhaps
//! only older ones, so that the reported loss is a lower bound.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use forebay_wal::private_files;

const MAGIC: &[u8; 8] = b"FBANSWR1";
const SLOT_BYTES: usize = 64;
/// The bytes below the checksum.
const MARKS_BYTES: usize = 40;
const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// The marks. Ids of readings have no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Id of the last acknowledged reading.
    pub(super) last: i64,
    /// Id of the last reading that is known to be in `readings.db` itself; not above `last`.
    pub(super) checkpointed: i64,
    /// Readings that were reported as lost.
    pub(super) lost: u64,
}

/// The file of the marks.
#[derive(Debug)]
pub(super) struct MarksFile {
    file: File,
    /// The number of the latest version.
    number: u64,
}

/// The marks in the file at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierMarks {
    /// The file is new.
    None,
    /// The latest ones.
    Of(Marks),
    /// No slot can be read.
    Damaged,
}

impl MarksFile {
    /// Opens or creates the file, for its user alone.
    pub(super) fn open(path: &Path) -> io::Result<(MarksFile, EarlierMarks)> {
        let file = private_files::make_or_open(path, File::options().read(true).write(true))?;
        let is_new = file.metadata()?.len() == 0;
        // Allocates both slots, so that a full disk cannot prevent a write later.
        file.set_len(FILE_BYTES as u64)?;
        if is_new {
            file.write_all_at(&[0; FILE_BYTES], 0)?;
            file.sync_all()?;
            return Ok((MarksFile { file, number: 0 }, EarlierMarks::None));
        }
        let mut bytes = [0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let latest = bytes.chunks_exact(SLOT_BYTES).filter_map(decode).max_by_key(|(number, _)| *number);
        Ok(match latest {
            Some((number, marks)) => (MarksFile { file, number }, EarlierMarks::Of(marks)),
            // An earlier start was ended before its first write.
            None if bytes.iter().all(|byte| *byte == 0) => {
                (MarksFile { file, number: 0 }, EarlierMarks::None)
            }
            None => (MarksFile { file, number: 0 }, EarlierMarks::Damaged),
        })
    }

    /// Writes the marks. They survive a kill when this returns, and a power cut after [`MarksFile::sync`].
    pub(super) fn write(&mut self, marks: Marks) -> io::Result<()> {
        let number = self.number + 1;
        self.file.write_all_at(&encode(number, marks), (number % 2) * SLOT_BYTES as u64)?;
        self.number = number;
        Ok(())
    }

    /// Brings the latest marks to stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(number: u64, marks: Marks) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&number.to_le_bytes());
    slot[16..24].copy_from_slice(&marks.last.to_le_bytes());
    slot[24..32].copy_from_slice(&marks.checkpointed.to_le_bytes());
    slot[32..40].copy_from_slice(&marks.lost.to_le_bytes());
    let checksum = checksum(&slot[..MARKS_BYTES]);
    slot[MARKS_BYTES..MARKS_BYTES + 4].copy_from_slice(&checksum);
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Marks)> {
    let (marks_bytes, rest) = slot.split_at(MARKS_BYTES);
    if !marks_bytes.starts_with(MAGIC) || rest[..4] != checksum(marks_bytes) {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(marks_bytes[at..at + 8].try_into().expect("eight bytes"));
    let marks =
        Marks { last: number(16).cast_signed(), checkpointed: number(24).cast_signed(), lost: number(32) };
    Some((number(8), marks))
}

#[expect(clippy::cast_possible_truncation, reason = "the crate gives checksums of 32 bits in 64")]
fn checksum(bytes: &[u8]) -> [u8; 4] {
    (crc_fast::checksum(Crc32Iscsi, bytes) as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(last: i64) -> Marks {
        Marks { last, checkpointed: last / 2, lost: 7 }
    }

    #[test]
    fn the_latest_marks_are_read_back_or_the_ones_before_if_they_are_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("answered");
        let (mut file, earlier) = MarksFile::open(&path).expect("made");
        assert_eq!(earlier, EarlierMarks::None);
        assert_eq!(MarksFile::open(&path).expect("opened").1, EarlierMarks::None);
        for last in 1..=5 {
            file.write(marks(last)).expect("written");
            assert_eq!(MarksFile::open(&path).expect("opened").1, EarlierMarks::Of(marks(last)));
        }
        let whole = std::fs::read(&path).expect("read");
        for bit in 0..8 * (MARKS_BYTES + 4) {
            let mut bytes = whole.clone();
            bytes[SLOT_BYTES + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(MarksFile::open(&path).expect("opened").1, EarlierMarks::Of(marks(4)), "bit {bit}");
            bytes[20] ^= 1;
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(MarksFile::open(&path).expect("opened").1, EarlierMarks::Damaged, "bit {bit}");
        }
        std::fs::write(&path, &whole[..40]).expect("cut");
        assert_eq!(MarksFile::open(&path).expect("opened").1, EarlierMarks::Damaged);
    }
}
