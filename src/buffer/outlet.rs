//! The delivery's half of a buffer: readings out, notes on the batches they are in, what was made of them, and what
//! became of them.
//!
//! A kind that outlives the process **notes** which readings make up a batch, and under which key, before the batch
//! is sent for the first time. What was noted and not settled before a stop is **resumed** after it: the same
//! readings go out under the same key, and a node that honours the key stores nothing twice.
//!
//! What a transform makes of readings is **derived**: it takes their place in the buffer, in one step that a crash
//! cannot take apart.

use std::fmt;
use std::sync::Arc;

use forebay_reading::Readings;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::accounts::Accounts;
use super::hold::Hold;
use super::lease::Part;
use super::ledger::Outcome;
use super::span::Place;

/// Names the note on a batch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteId(pub u64);

/// Whether a batch has to wait for its note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Noting {
    /// The kind keeps no notes: the batch may be sent.
    NotNeeded,
    /// [`Outlet::kept`] will say when the note is kept.
    UnderWay,
}

/// A batch whose note is done with: it may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The batch's number.
    pub number: u64,
    /// Its key. Another batch may have taken its number meanwhile; that one has another key and a note of its own.
    pub key: String,
    /// The note; `None` if the log cannot be written now. The batch is sent all the same.
    pub note: Option<NoteId>,
}

/// A batch that was noted before the last stop and not settled.
#[derive(Debug)]
pub struct Resumed {
    /// The key under which it may have been sent.
    pub key: String,
    /// Its note.
    pub note: NoteId,
    /// All of its readings, in their order; at least one.
    pub parts: Vec<Part>,
}

/// Some readings, and what became of them.
#[derive(Debug)]
pub struct Fate {
    /// The readings.
    pub holds: Vec<Hold>,
    /// What became of them.
    pub outcome: Outcome,
}

impl Fate {
    /// The same for all of some parts.
    pub fn of(parts: Vec<Part>, outcome: Outcome) -> Fate {
        Fate { holds: parts.into_iter().map(Hold::from).collect(), outcome }
    }
}

/// Readings that a transform made of others, which are settled when these are in the buffer, and not before.
#[derive(Debug)]
pub struct Derivation {
    /// The transform's place among the transforms.
    pub transform: usize,
    /// Its name, which the readings are known by after a restart.
    pub made_by: Arc<str>,
    /// What it made; there may be none.
    pub readings: Readings,
    /// What it made them of.
    pub merged: Vec<Hold>,
}

/// What became of a derivation.
#[derive(Debug)]
#[must_use]
pub enum Deriving {
    /// It is in the buffer.
    Done,
    /// [`Outlet::kept`] will say when it is.
    UnderWay,
}

/// What the buffer has kept.
#[derive(Debug)]
pub enum Kept {
    /// The note on a batch, or it will not be.
    Note(Noted),
    /// A derivation: what it made will be handed out, and what it was made of is settled.
    Derivation,
    /// A derivation cannot be kept now; it is to be tried again.
    NotNow(Derivation),
}

/// The delivery's half of the buffer.
pub trait Outlet: Send + fmt::Debug {
    /// The batches that were noted before the last stop and of which nothing is settled, the oldest first. Asked
    /// once, before anything else; their readings are not handed out again.
    fn resumed(&mut self) -> Vec<Resumed>;

    /// Hands out the oldest readings that wait, up to `most` requests of them, at the end of `parts`. Returns how
    /// many requests that were: none means that nothing more will come.
    ///
    /// Dropped half-way, nothing is handed out.
    fn pull<'a>(&'a mut self, parts: &'a mut Vec<Part>, most: usize) -> BoxFuture<'a, usize>;

    /// What was there at the start and lies before this place was handed out, but for the batches that are resumed.
    fn handed_out_to(&self) -> Place {
        Place::END
    }

    /// Hands out the oldest request that waits, if there is one at hand.
    fn try_pull(&mut self) -> Option<Part>;

    /// Begins to note that the readings of `parts` make up a batch under `key`. It does not block.
    ///
    /// Readings that stand in an older note belong to this one from now on: what is left of the older batch is not
    /// sent again.
    fn note(&mut self, number: u64, key: &str, parts: &[Part]) -> Noting;

    /// Puts readings into the buffer that a transform made of others, and settles those with it: what survives of the
    /// buffer has either these or those. They are handed out like any others, and count against no limit. It does not
    /// block.
    fn derive(&mut self, derivation: Derivation, now: Instant) -> Deriving;

    /// Whether what is not settled outlives the process.
    fn outlives_process(&self) -> bool;

    /// Whether all that is not settled at present would outlive the process.
    fn keeps_all(&self) -> bool {
        self.outlives_process()
    }

    /// Whether what is kept takes nearly as much room as it may, although few readings need it.
    fn is_nearly_full(&self) -> bool {
        false
    }

    /// Where it is said when a note or a derivation that is under way is kept, so that it survives what the buffer
    /// survives, or cannot be kept. Each is answered once, in their order. Asked once; the channel is closed when
    /// nothing is kept any more.
    fn kept(&mut self) -> mpsc::UnboundedReceiver<Kept>;

    /// Says what became of readings. `note` is the note of their batch, if it has one. Where some of them were
    /// delivered, they are all that is left of the batch; else some of the batch's readings may be settled before others.
    fn settle(&mut self, fates: Vec<Fate>, note: Option<NoteId>, now: Instant);

    /// The room and the ledger.
    fn accounts(&self) -> &Arc<Accounts>;
}
