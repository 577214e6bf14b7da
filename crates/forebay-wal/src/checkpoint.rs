//! The checkpoint: what was known at one moment, in one of two files that are written in turn.
//!
//! Both files are as large as they need to be from the start on, so that a checkpoint can be written when the disk
//! is full: only then may segments be removed and give room back.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FBYCKP`, 0, version 1 |
//! | 4 | CRC32C over all that follows |
//! | 4 | length of what follows the generation |
//! | 8 | generation; the higher one is the younger |
//! | 8, 8, 8 | where the next record would stand: number of its segment, offset, sequence number |
//! | 4 | number of segments |
//! | 8, 4, 8, 8, 8 | of each: number, salt, first sequence number, the one after its last, bytes of the file |
//! | … | the state that the caller wants back |

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Buf as _;

use crate::checksum::crc32c;
use crate::fs::{Fs, LogFile, renew};
use crate::segment::{RECORDS_START, Segment};
use crate::version::{self, VERSION};

/// The names of the two files.
pub const NAMES: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// What every version of a checkpoint begins with, before the byte with its version.
const NAME: &[u8; 7] = b"FBYCKP\x00";
const HEAD_BYTES: usize = 24;
/// Least size of a file.
const FILE_BYTES_MIN: usize = 64 * 1024;
/// A file has room for a checkpoint so many times as large as the last one, if the disk has.
const HEADROOM: usize = 2;
/// Largest checkpoint that is read: far more than any that was written.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where a record stands, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The number of the segment.
    pub segment: u64,
    /// The offset in its file.
    pub offset: u64,
    /// The sequence number.
    pub seq: u64,
}

impl LogPosition {
    /// The first record of a segment.
    pub(super) fn start_of(segment: u64, seq: u64) -> LogPosition {
        LogPosition { segment, offset: RECORDS_START, seq }
    }
}

/// What was known at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// All records before it are on stable storage, and their effect is in `state`.
    pub position: LogPosition,
    /// The segments that were needed.
    pub segments: Vec<Segment>,
    /// What the caller wants back.
    pub state: Vec<u8>,
}

/// What the two files hold.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// Neither was ever written.
    Absent,
    /// The younger of those that are sound.
    Sound(Checkpoint),
    /// The only sound one. The other file holds something that is none: perhaps a younger one, torn or damaged.
    MaybeStale(Checkpoint),
    /// Something, but no sound checkpoint.
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
    /// Reads what the files of a directory hold, whose names are on stable storage, and makes it durable: a process
    /// that was killed, or a sync that failed, may have left it written only, and now it is going to be relied on.
    ///
    /// # Errors
    ///
    /// If they cannot be read or synced.
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

    /// Writes a checkpoint in the place of the older one and returns when it is on stable storage.
    ///
    /// # Errors
    ///
    /// What the system says; the last one that was written still counts then, unless this one reached the disk.
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

    /// Makes both files, and makes them larger than they need to be while there is room, so that there is some for
    /// the next checkpoint when there is none left. Only the one that is written to next has to be large enough.
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
        // Where a checkpoint stands, what is behind it does not matter: a file that grew in part serves as it is.
        self.file.write_at(&zeros, self.bytes)?;
        self.file.sync()?;
        self.bytes = bytes;
        Ok(())
    }
}

/// What one of the files holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotContent {
    Absent,
    /// It was made and never written.
    Empty,
    Sound,
    Unsound,
}

/// What two files mean of which neither is sound. The first checkpoint is written to one after the other before it
/// counts: one that is torn beside an empty one never did.
fn without_sound(contents: [SlotContent; 2]) -> CheckpointState {
    match contents {
        [SlotContent::Unsound, SlotContent::Empty] => CheckpointState::Absent,
        [SlotContent::Unsound, _] | [_, SlotContent::Unsound] => CheckpointState::Damaged,
        [SlotContent::Absent | SlotContent::Empty | SlotContent::Sound, _] => CheckpointState::Absent,
    }
}

/// The version of checkpoints that this one does not know: both say that they are of another one, or one does, by more
/// than a flipped bit.
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
    [generation, position.segment, position.offset, position.seq].into_iter().for_each(&mut put);
    bytes.extend_from_slice(&u32::try_from(segments.len()).expect("fewer than 2^32 segments").to_le_bytes());
    for Segment { number, salt, seqs, bytes: size } in segments {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        for number in [seqs.start, seqs.end, *size] {
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
    let position = LogPosition { segment: next()?, offset: next()?, seq: next()? };
    let count = rest.try_get_u32_le().ok()?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let (number, salt) = (rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
        let mut next = || rest.try_get_u64_le().ok();
        segments.push(Segment { number, salt, seqs: next()?..next()?, bytes: next()? });
    }
    Some((generation, Checkpoint { position, segments, state: rest.to_vec() }))
}
