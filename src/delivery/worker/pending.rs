//! A batch that is out of the buffer, and what is known of it.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use crate::buffer::ledger::DeadLetterReason;
use crate::buffer::{NoteId, Part};
use crate::delivery::batch::Batch;
use crate::delivery::nodes::Attempt;
use crate::delivery::shards::{Class, LaneId};
use crate::delivery::transport::AnswerVerdict;
use crate::node_id::NodeIndex;

/// A batch until its readings are settled. If nodes refuse it, it is sent piece by piece, one after the other.
#[derive(Debug)]
pub(super) struct Pending {
    /// The batch, or the piece of it whose turn it is.
    pub(super) batch: Batch,
    /// What the log knows that by.
    pub(super) note: Option<NoteId>,
    pub(super) state: State,
    /// Where its readings were gathered; `None` if no node was known then.
    pub(super) lane: Option<LaneId>,
    /// Its place among the batches that were resumed; `None` if it was not. Others may have to go before it that are not
    /// made yet.
    pub(super) resumed: Option<usize>,
    /// What it waits for.
    pub(super) class: Class,
    /// The nodes that it is on its way to.
    pub(super) flights: Vec<NodeIndex>,
    /// The nodes that have it.
    pub(super) stored_on: Vec<NodeIndex>,
    /// The nodes that refuse its only reading.
    pub(super) refused_by: Vec<NodeIndex>,
    /// A node refuses it: what follows waits until it is on its way to no other.
    pub(super) refusal: Option<Refusal>,
    /// Those of its readings that are to become dead letters, by their places in it.
    pub(super) dead: BTreeMap<usize, Death>,
    /// Whether its letters could not be written since the stop began.
    pub(super) is_unburied: bool,
    /// The node that the others count as delivered to.
    pub(super) delivered_to: Option<NodeIndex>,
    /// The pieces that come after it, the next one first.
    pub(super) rest: VecDeque<Piece>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Not to be sent before the log has noted what it is made of; to wait until `due` then.
    Noting { due: Instant },
    /// To be sent when this moment has come and a node has a free place.
    Waiting { due: Instant },
    /// Some or all of its readings become dead letters; the others are delivered.
    Burying,
    /// Those letters could not be written; they are to be when this moment has come.
    ToBury { due: Instant },
}

/// What a node said that refuses a batch.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) node: NodeIndex,
    pub(super) verdict: AnswerVerdict,
    pub(super) status: u16,
    pub(super) body: String,
}

/// Why a reading becomes a dead letter.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) reason: DeadLetterReason,
    /// The node that refuses it; `None` if it never gets there.
    pub(super) node: Option<NodeIndex>,
    pub(super) status: u16,
    /// What the node said, or what is wrong with it.
    pub(super) detail: String,
}

/// A piece of a batch that was refused, not rendered yet.
#[derive(Debug)]
pub(super) struct Piece {
    /// The key under which it will go.
    pub(super) key: String,
    pub(super) parts: Vec<Part>,
    pub(super) noted: Noted,
    /// The nodes that have the whole batch.
    pub(super) stored_on: Vec<NodeIndex>,
    /// What they refuse of it, by the places in it.
    pub(super) dead: BTreeMap<usize, Death>,
}

/// Whether the log has noted what a piece is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noted {
    /// Not yet.
    UnderWay,
    /// As far as it ever will.
    Done(Option<NoteId>),
}

impl Pending {
    pub(super) fn new(batch: Batch, note: Option<NoteId>, state: State) -> Pending {
        Pending {
            batch,
            note,
            state,
            lane: Some(LaneId::default()),
            resumed: None,
            class: Class::Free,
            flights: Vec::new(),
            stored_on: Vec::new(),
            refused_by: Vec::new(),
            refusal: None,
            dead: BTreeMap::new(),
            is_unburied: false,
            delivered_to: None,
            rest: VecDeque::new(),
        }
    }

    /// The lane in which it takes up room. A resumed batch takes none: what has to go before it must find some.
    pub(super) fn counted_lane(&self) -> Option<LaneId> {
        self.lane.filter(|_| self.resumed.is_none())
    }

    /// Whether it may be sent to one more node, if so many are to have it.
    pub(super) fn is_due(&self, copies: usize, now: Instant) -> bool {
        let is_wanted = self.flights.len() + self.stored_on.len() < copies && self.refusal.is_none();
        is_wanted && matches!(self.state, State::Waiting { due } if due <= now)
    }

    /// Whether it is whole, and on its way to nobody: it can be taken apart.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.state.due().is_some()
    }

    /// Nothing will be noted any more: what waits for that goes without.
    pub(super) fn give_up_notes(&mut self) {
        if let State::Noting { due } = self.state {
            self.state = State::Waiting { due };
        }
        for piece in self.rest.iter_mut().filter(|piece| matches!(piece.noted, Noted::UnderWay)) {
            piece.noted = Noted::Done(None);
        }
    }

    pub(super) fn attempt(&self) -> Attempt {
        if self.batch.failures == 0 { Attempt::First } else { Attempt::Retry }
    }

    /// Notes that the log has, or will not have, what goes under `key`.
    pub(super) fn on_noted(&mut self, key: &str, note: Option<NoteId>) {
        match self.state {
            State::Noting { due } if self.batch.key == key => {
                self.note = note;
                self.state = State::Waiting { due };
            }
            State::Noting { .. } | State::Waiting { .. } | State::Burying | State::ToBury { .. } => {}
        }
        if let Some(piece) = self.rest.iter_mut().find(|piece| piece.key == key) {
            piece.noted = Noted::Done(note);
        }
    }

    /// All of its readings that are not settled, in their order.
    pub(super) fn into_parts(self) -> impl Iterator<Item = Part> {
        self.batch.parts.into_iter().chain(self.rest.into_iter().flat_map(|piece| piece.parts))
    }
}

impl State {
    /// When it is to be sent at the earliest; `None` if it will not be.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            State::Noting { due } | State::Waiting { due } => Some(due),
            State::Burying | State::ToBury { .. } => None,
        }
    }

    pub(super) fn due_mut(&mut self) -> Option<&mut Instant> {
        match self {
            State::Noting { due } | State::Waiting { due } => Some(due),
            State::Burying | State::ToBury { .. } => None,
        }
    }
}
