//! Writes the checkpoint of a buffer. It waits for nothing else: without it no segment goes, and a disk that the log
//! itself has filled would stay full.
//!
//! What a checkpoint leaves behind is not read again at the next start, so the memos behind the last one are written
//! before it. If there is no room for them, the order is:
//!
//! 1. Nothing is gained by a checkpoint: there is none, and the memos stay with their readings.
//! 2. The checkpoint is written, and the settled segments go. The memos take the room.
//! 3. The oldest memos go for the youngest, if they are fewer.
//! 4. The memos wait in memory. They are told and counted if the process ends before there is room.

use forebay_wal::{Log, LogError, SegmentNumber};

use super::memos::Memos;
use super::state::State;

/// What a checkpoint is written from.
#[derive(Debug)]
pub struct Books<'a> {
    /// The log.
    pub log: &'a mut Log,
    /// What is known of the readings in it.
    pub state: &'a State,
    /// What the front wants to be kept.
    pub memos: &'a mut Memos,
}

/// Whether something is gained by a checkpoint beside a shorter start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// A segment goes, or something is settled that the log does not say.
    Room,
    /// The next start reads less.
    Time,
}

/// What became of a checkpoint.
#[derive(Debug)]
pub enum Checkpointed {
    /// It is on stable storage. Whether all files that are not needed any more have gone.
    Written(Result<(), LogError>),
    /// There was no room for the memos that it would have left behind, and nothing to gain.
    NotNow,
}

impl Books<'_> {
    /// Writes a checkpoint that lets the settled segments go.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the one before it counts then.
    pub fn checkpoint(self, settled: &[SegmentNumber], gain: Gain) -> Result<Checkpointed, LogError> {
        let Books { log, state, memos } = self;
        let flushed = memos.flush();
        match &flushed {
            Ok(()) => memos.tell_written(),
            Err(error) if gain == Gain::Time => {
                memos.tell(error);
                return Ok(Checkpointed::NotNow);
            }
            Err(_) => {}
        }
        let mut kept = log.save_checkpoint(state.encode(settled), settled);
        while kept.as_ref().is_err_and(LogError::is_no_room) && memos.give_up_room() {
            kept = log.save_checkpoint(state.encode(settled), settled);
        }
        let gone = kept?;
        if flushed.is_err() {
            memos.left_alone();
        }
        let removed = log.release(&gone);
        if flushed.is_err() {
            flush_late(log, memos);
        }
        Ok(Checkpointed::Written(removed))
    }
}

/// Writes the memos in the room that a checkpoint has made.
fn flush_late(log: &mut Log, memos: &mut Memos) {
    let mut flushed = memos.flush();
    // What has gone may serve as the log's next segment; the memos come first.
    if flushed.as_ref().is_err_and(LogError::is_no_room) && log.give_up_spare() {
        flushed = memos.flush();
    }
    while flushed.as_ref().is_err_and(LogError::is_no_room) && memos.forget_oldest_for_youngest() {
        flushed = memos.flush();
    }
    match &flushed {
        Ok(()) => memos.tell_written(),
        Err(error) => memos.tell(error),
    }
}
