//! What was answered with 2xx, in a small file beside `readings.db`: `readings.db-answered`.
//!
//! SQLite cannot tell whether the end of its log is missing. So the highest id of a reading that was answered is noted
//! here before the answer goes out, and at a start it is seen whether the readings up to it are there.
//!
//! The file has two places of 64 bytes, which are written in turn, so that one that is torn or damaged leaves the note
//! before it. A place is, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FBANSWR1` |
//! | 8 | number of the note; the highest is the latest |
//! | 8 | id of the last reading that was answered |
//! | 8 | id of the last reading that is known to be in `readings.db` itself, and not in its log alone |
//! | 8 | readings that were told as lost |
//! | 4 | CRC32C of the bytes before |
//! | 20 | zeros |
//!
//! A note is not synced by itself: after a kill the latest is there, after a power cut perhaps an older one, so that
//! what is told then is the least that is lost. It is synced when the log of SQLite is moved into the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use forebay_wal::private_files;

const MAGIC: &[u8; 8] = b"FBANSWR1";
const PLACE_BYTES: usize = 64;
/// What the checksum covers.
const NOTE_BYTES: usize = 40;
const FILE_BYTES: usize = 2 * PLACE_BYTES;

/// What a note says. The ids of readings follow each other without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Id of the last reading that was answered.
    pub(super) last: i64,
    /// Id of the last reading that is known to be in `readings.db` itself; not above `last`.
    pub(super) checkpointed: i64,
    /// Readings that were told as lost.
    pub(super) lost: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct Answered {
    file: File,
    /// The number of the latest note.
    number: u64,
}

/// What the file says at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// Nothing: it was not there.
    New,
    /// This.
    Of(Marks),
    /// Nothing that can be read.
    Damaged,
}

impl Answered {
    /// Opens the file, or makes it, for its user alone.
    pub(super) fn open(path: &Path) -> io::Result<(Answered, Note)> {
        let file = private_files::make_or_open(path, File::options().read(true).write(true))?;
        let is_new = file.metadata()?.len() == 0;
        // Room for both places, so that a full disk keeps no note from being written.
        file.set_len(FILE_BYTES as u64)?;
        if is_new {
            file.write_all_at(&[0; FILE_BYTES], 0)?;
            file.sync_all()?;
            return Ok((Answered { file, number: 0 }, Note::New));
        }
        let mut bytes = [0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let latest = bytes.chunks_exact(PLACE_BYTES).filter_map(decode).max_by_key(|(number, _)| *number);
        Ok(match latest {
            Some((number, marks)) => (Answered { file, number }, Note::Of(marks)),
            // Made by a start that was ended before its first note.
            None if bytes.iter().all(|byte| *byte == 0) => (Answered { file, number: 0 }, Note::New),
            None => (Answered { file, number: 0 }, Note::Damaged),
        })
    }

    /// Writes a note. It survives a kill when this returns, and a power cut after [`Answered::sync`].
    pub(super) fn note(&mut self, marks: Marks) -> io::Result<()> {
        let number = self.number + 1;
        self.file.write_all_at(&encode(number, marks), (number % 2) * PLACE_BYTES as u64)?;
        self.number = number;
        Ok(())
    }

    /// Brings the latest note to stable storage.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(number: u64, marks: Marks) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    place[..8].copy_from_slice(MAGIC);
    place[8..16].copy_from_slice(&number.to_le_bytes());
    place[16..24].copy_from_slice(&marks.last.to_le_bytes());
    place[24..32].copy_from_slice(&marks.checkpointed.to_le_bytes());
    place[32..40].copy_from_slice(&marks.lost.to_le_bytes());
    let checksum = checksum(&place[..NOTE_BYTES]);
    place[NOTE_BYTES..NOTE_BYTES + 4].copy_from_slice(&checksum);
    place
}

fn decode(place: &[u8]) -> Option<(u64, Marks)> {
    let (note, rest) = place.split_at(NOTE_BYTES);
    if !note.starts_with(MAGIC) || rest[..4] != checksum(note) {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(note[at..at + 8].try_into().expect("eight bytes"));
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
    fn the_latest_note_is_found_again_and_the_one_before_it_if_it_is_damaged() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("answered");
        let (mut answered, note) = Answered::open(&path).expect("made");
        assert_eq!(note, Note::New);
        assert_eq!(Answered::open(&path).expect("opened").1, Note::New);
        for last in 1..=5 {
            answered.note(marks(last)).expect("written");
            assert_eq!(Answered::open(&path).expect("opened").1, Note::Of(marks(last)));
        }
        let whole = std::fs::read(&path).expect("read");
        for bit in 0..8 * (NOTE_BYTES + 4) {
            let mut bytes = whole.clone();
            bytes[PLACE_BYTES + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Answered::open(&path).expect("opened").1, Note::Of(marks(4)), "bit {bit}");
            bytes[20] ^= 1;
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Answered::open(&path).expect("opened").1, Note::Damaged, "bit {bit}");
        }
        std::fs::write(&path, &whole[..40]).expect("cut");
        assert_eq!(Answered::open(&path).expect("opened").1, Note::Damaged);
    }
}
