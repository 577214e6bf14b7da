//! The checkpoint: the caller's state at one moment, in one of two files that are written in turn.
//!
//! Both files are large enough from the start, so that a checkpoint can be written on a full disk: without it no segment
//! may be removed to free space.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `FBYCKP`, 0, version 1 |
//! | 4 | CRC32C over all that follows |
//! | 4 | length of everything after the generation |
//! | 8 | generation; the higher one is the younger |
//! | 8, 8, 8 | the place of the next record: number of its segment, offset, sequence number |
//! | 4 | number of segments |
//! | 8, 4, 8, 8, 8 | of each: number, salt, first sequence number, the one after its last, bytes of the file |
//! | … | the caller's state |

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Buf as _;

use crate::checksum::crc32c;
use crate::fs::{Fs, LogFile, renew};
use crate::number::{SegmentNumber, Seq};
use crate::segment::{RECORDS_START, Segment};
use crate::version::{self, VERSION};

/// The names of the two files.
pub const NAMES: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// The first bytes of a checkpoint in every version, before the byte with the version.
const NAME: &[u8; 7] = b"FBYCKP\x00";
const HEAD_BYTES: usize = 24;
/// Smallest size of a file.
const FILE_BYTES_MIN: usize = 64 * 1024;
/// A file has room for a checkpoint so many times as large as the last one, if the disk allows it.
const HEADROOM: usize = 2;
/// Largest checkpoint that is read: far more than any real one.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The place of a record in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The segment.
    pub segment: SegmentNumber,
    /// The byte of its file.
    pub offset: u64,
    /// The sequence number.
    pub seq: Seq,
}

impl LogPosition {
    /// The first record of a segment.
    pub(super) fn start_of(segment: SegmentNumber, seq: Seq) -> LogPosition {
        LogPosition { segment, offset: RECORDS_START, seq }
    }
}

/// The content of a checkpoint file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// All records before this place are on stable storage, and `state` includes their effect.
    pub position: LogPosition,
    /// The segments that were needed at that time.
    pub segments: Vec<Segment>,
    /// The caller's state.
    pub state: Vec<u8>,
}

/// The state of both files together, as found at a start.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// No checkpoint was ever written.
    Absent,
    /// The youngest checkpoint is sound.
    Sound(Checkpoint),
    /// The only sound checkpoint. The other file may hold a younger one that is torn or damaged.
    MaybeStale(Checkpoint),
    /// The files were written, but hold no sound checkpoint.
    Damaged,
}

/// The two files.
#[derive(Debug)]
pub struct CheckpointSlots {
    generation: u64,
    files: [Option<Slot>; 2],
    /// Whether the names of both files are on stable storage.
    named: bool,
}

#[derive(Debug)]
struct Slot {
    file: Arc<dyn LogFile>,
    bytes: u64,
}

impl CheckpointSlots {
    /// Reads both files, whose names are on stable storage, and makes the youngest checkpoint durable: after a kill or a
    /// failed sync it may only have been written, and the start relies on it.
    ///
    /// # Errors
    ///
    /// If the files cannot be read or synced.
    pub fn open(
        fs: &dyn Fs,
        directory: &Path,
        names: &[String],
    ) -> io::Result<(CheckpointSlots, CheckpointState)> {
        let mut slots = CheckpointSlots { generation: 0, files: [None, None], named: true };
        let mut youngest = None;
        let mut contents = [SlotContent::Absent, SlotContent::Absent];
        for (index, name) in NAMES.iter().enumerate() {
            if !names.iter().any(|found| found == name) {
                continue;
            }
            let slot = Slot::open(fs.open(&directory.join(name))?)?;
            let bytes = slot.read()?;
            contents[index] = match decode(&bytes) {
                Some((generation, checkpoint)) => {
                    if generation > slots.generation {
                        slots.generation = generation;
                        youngest = Some((index, checkpoint));
                    }
                    SlotContent::Sound
                }
                None if bytes.iter().all(|byte| *byte == 0) => SlotContent::Empty,
                None => SlotContent::Unsound,
            };
            slots.files[index] = Some(slot);
        }
        let Some((index, checkpoint)) = youngest else {
            return Ok((slots, without_sound(contents)));
        };
        if let Some(Slot { file, bytes }) = &slots.files[index] {
            renew(file.as_ref(), 0..*bytes)?;
        }
        let is_alone = contents.contains(&SlotContent::Unsound);
        let stored = if is_alone {
            CheckpointState::MaybeStale(checkpoint)
        } else {
            CheckpointState::Sound(checkpoint)
        };
        Ok((slots, stored))
    }

    /// Writes a checkpoint over the older one and returns once it is on stable storage.
    ///
    /// # Errors
    ///
    /// Any I/O error. The previous checkpoint still counts then, unless this one reached the disk.
    pub fn write(&mut self, fs: &dyn Fs, directory: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
        // The first goes into both files: see `without_sound`.
        let copies = if self.generation == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let generation = self.generation + 1;
            let bytes = encode(generation, checkpoint);
            let index = usize::from(generation.is_multiple_of(2));
            self.make_large_enough(fs, directory, index, bytes.len())?;
            let slot = self.files[index].as_ref().expect("it was just made");
            slot.file.write_at(&bytes, 0)?;
            slot.file.sync()?;
            self.generation = generation;
        }
        Ok(())
    }

    /// Makes both files, larger than needed if the disk has room, so that the next checkpoint fits on a full disk. Only
    /// the file that is written next has to be large enough.
    fn make_large_enough(
        &mut self,
        fs: &dyn Fs,
        directory: &Path,
        next: usize,
        bytes: usize,
    ) -> io::Result<()> {
        for (index, (slot, name)) in self.files.iter_mut().zip(NAMES).enumerate() {
            let slot = match slot {
                Some(slot) => slot,
                None => {
                    self.named = false;
                    slot.insert(Slot { file: fs.create(&directory.join(name))?, bytes: 0 })
                }
            };
            if slot.bytes < (HEADROOM * bytes) as u64 {
                let grown = slot.grow((2 * HEADROOM * bytes).max(FILE_BYTES_MIN) as u64);
                if grown.is_err() && index == next && slot.bytes < bytes as u64 {
                    slot.grow(bytes as u64)?;
                }
            }
        }
        if !self.named {
            fs.sync_directory(directory)?;
            self.named = true;
        }
        Ok(())
    }
}

impl Slot {
    fn open(file: Arc<dyn LogFile>) -> io::Result<Slot> {
        Ok(Slot { bytes: file.size()?, file })
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(self.bytes.min(BYTES_MAX)).expect("64 MiB fit in memory")];
        let read = self.file.read_at(&mut content, 0)?;
        content.truncate(read);
        Ok(content)
    }

    fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(bytes - self.bytes).expect("a checkpoint fits in memory")];
        // Bytes behind a checkpoint do not matter, so a file that has grown only in part is good enough.
        self.file.write_at(&zeros, self.bytes)?;
        self.file.sync()?;
        self.bytes = bytes;
        Ok(())
    }
}

/// The content of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotContent {
    Absent,
    /// The file was made and never written.
    Empty,
    Sound,
    Unsound,
}

/// Judges two files without a sound checkpoint. The first checkpoint is written to both files before it counts, so a
/// torn one beside an empty file never counted.
fn without_sound(contents: [SlotContent; 2]) -> CheckpointState {
    match contents {
        [SlotContent::Unsound, SlotContent::Empty] => CheckpointState::Absent,
        [SlotContent::Unsound, _] | [_, SlotContent::Unsound] => CheckpointState::Damaged,
        [SlotContent::Absent | SlotContent::Empty | SlotContent::Sound, _] => CheckpointState::Absent,
    }
}

/// The unknown version of these checkpoints: both have one, or one of them differs from ours by more than a flipped bit.
pub fn foreign_version(checkpoints: [&[u8]; 2]) -> Option<u8> {
    let found = checkpoints.map(|checkpoint| version::foreign(NAME, checkpoint));
    match found {
        [Some(first), Some(second)] => Some(first.max(second)),
        [Some(alone), None] | [None, Some(alone)] => ((alone ^ VERSION).count_ones() > 1).then_some(alone),
        [None, None] => None,
    }
}

fn encode(generation: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { position, segments, state } = checkpoint;
    let mut bytes = vec![0; 16];
    let mut put = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    [generation, position.segment.get(), position.offset, position.seq.get()].into_iter().for_each(&mut put);
    bytes.extend_from_slice(&u32::try_from(segments.len()).expect("fewer than 2^32 segments").to_le_bytes());
    for Segment { number, salt, seqs, bytes: size } in segments {
        bytes.extend_from_slice(&number.get().to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        for number in [seqs.start.get(), seqs.end.get(), *size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes.extend_from_slice(state);
    bytes[..7].copy_from_slice(NAME);
    bytes[7] = VERSION;
    let length = u32::try_from(bytes.len() - HEAD_BYTES).expect("a checkpoint is small");
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Checkpoint)> {
    let mut rest = bytes.strip_prefix(NAME)?.strip_prefix(&[VERSION])?;
    let checksum = rest.try_get_u32_le().ok()?;
    let length = u32::from_le_bytes(rest.get(..4)?.try_into().expect("four bytes"));
    let checked = rest.get(..12 + length as usize)?;
    if crc32c(checked) != checksum {
        return None;
    }
    let mut rest = &checked[4..];
    let mut next = || rest.try_get_u64_le().ok();
    let generation = next()?;
    let position =
        LogPosition { segment: SegmentNumber::new(next()?), offset: next()?, seq: Seq::new(next()?) };
    let count = rest.try_get_u32_le().ok()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let (number, salt) = (rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
        let mut next = || rest.try_get_u64_le().ok();
        let (number, seqs) = (SegmentNumber::new(number), Seq::new(next()?)..Seq::new(next()?));
        segments.push(Segment { number, salt, seqs, bytes: next()? });
    }
    Some((generation, Checkpoint { position, segments, state: rest.to_vec() }))
}
