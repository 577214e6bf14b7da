//! In which order the batches go that were noted before the last stop, and the readings around them that were not, where
//! every device has its own node.
//!
//! A stop may find some readings in noted batches, which go out again as they are, and others **loose**: never noted, or
//! in a batch that was taken apart and not put together again by then. A loose reading may be older than one of the same
//! device in a noted batch. So the noted batches are put into an order, and the loose readings go between them, in
//! **epochs**: those of epoch 0 before the first noted batch, those of epoch 1 behind it and before the second, and so
//! on. What comes in after the start is of the last epoch.
//!
//! Everything here is decided from places in the log and names of devices; nothing waits, and no clock is read.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::buffer::Part;
use crate::buffer::span::Place;
use crate::routing::shard::name_hash;

/// Bits of a batch's number that count the batches of this run: more than it makes in fifty years.
const COUNT_BITS: u32 = 44;
/// The largest number before these bits. Where more batches are resumed, the rest of them is ordered by the count alone.
const RANK_MAX: u64 = u64::MAX >> COUNT_BITS;

/// Where loose readings go: behind so many of the resumed batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(usize);

impl Epoch {
    /// Before all resumed batches; where there are none, the epoch of everything.
    pub const FIRST: Epoch = Epoch(0);

    /// The number of a batch of such readings; `count` is its number in this run.
    pub fn number(self, count: u64) -> u64 {
        numbered(self.0 as u64 * 2, count)
    }

    /// Whether such readings may have to go before a resumed batch.
    pub fn is_before(self, batch: usize) -> bool {
        self.0 <= batch
    }
}

fn numbered(rank: u64, count: u64) -> u64 {
    rank.min(RANK_MAX) << COUNT_BITS | count
}

/// A reading as the order of a device sees it: the hash of the device's name, and its place in the log.
pub type Stand = (u64, Place);

/// The resumed batches in their order, and where other readings go between them.
///
/// **Invariant**: of two readings of a device, the one that was accepted first is not sent after the other, wherever the
/// stop left them (`over_any_number_of_stops_each_devices_readings_are_sent_in_their_order`, and over kills of the real
/// process `over_any_number_of_kills_each_devices_readings_arrive_in_their_order`). What it takes:
///
/// - [`Resumption::of`] orders the noted batches by what their devices sent;
/// - [`Resumption::epoch`] puts a loose reading between those that have earlier and those that have later readings of its
///   device;
/// - a batch gets a number that sorts by that order ([`Epoch::number`], [`Resumption::number_of`]); of batches that may
///   have readings of the same devices the lowest number goes ([`super::shards::Class`]);
/// - a noted batch waits until all loose readings are in batches that may have to go before it ([`Resumption::end`]).
#[derive(Debug, Default)]
pub struct Resumption {
    /// For each device in a resumed batch, by the hash of its name: in which batches it is, and from which place on.
    devices: HashMap<u64, Vec<(Place, usize)>>,
    /// For each resumed batch, the place behind its last reading and those of all batches before it.
    ends: Vec<Place>,
}

impl Resumption {
    /// Puts batches into their order: returns their indexes in it, and what follows for other readings.
    ///
    /// A batch goes behind all that have earlier readings of one of its devices; of those that may go, the one that ends
    /// first. Batches that were noted by this rule contradict each other nowhere. Where batches do (the settings were
    /// others, or the log is damaged), one goes all the same, so that the start ends.
    pub fn of(batches: &[Vec<Stand>]) -> (Vec<usize>, Resumption) {
        let firsts: Vec<HashMap<u64, Place>> = batches.iter().map(|batch| firsts(batch)).collect();
        let ends: Vec<_> = batches.iter().map(|batch| (end(batch), Reverse(batch.len()))).collect();
        let order = sort(&firsts, &ends);
        let mut resumption = Resumption::default();
        for (nth, batch) in order.iter().enumerate() {
            for (device, first) in &firsts[*batch] {
                resumption.devices.entry(*device).or_default().push((*first, nth));
            }
            let before = resumption.ends.last().copied().unwrap_or(Place::start_of(0));
            resumption.ends.push(before.max(ends[*batch].0));
        }
        (order, resumption)
    }

    /// The number of the `nth` of the resumed batches; `count` is its number in this run.
    pub fn number_of(&self, nth: usize, count: u64) -> u64 {
        numbered(nth as u64 * 2 + 1, count)
    }

    /// All loose readings that may have to go before the `nth` of the resumed batches lie before this place.
    pub fn end(&self, nth: usize) -> Place {
        self.ends.get(nth).copied().unwrap_or(Place::start_of(0))
    }

    /// Whether readings at this place and behind it are all of the last epoch.
    pub fn is_behind(&self, place: Place) -> bool {
        self.ends.last().is_none_or(|end| *end <= place)
    }

    /// The epoch of what comes in after the start.
    pub fn last_epoch(&self) -> Epoch {
        Epoch(self.ends.len())
    }

    /// The epoch of a loose reading. Of the readings of a device, a later one has the same or a later one.
    pub fn epoch(&self, (device, place): Stand) -> Epoch {
        if self.is_behind(place) {
            return self.last_epoch();
        }
        // Its place says where it goes, unless its device says more.
        let by_place = self.ends.partition_point(|end| *end <= place);
        let mut behind = 0;
        let mut before = self.ends.len();
        for (first, nth) in self.devices.get(&device).into_iter().flatten() {
            if *first <= place {
                behind = behind.max(nth + 1);
            } else {
                before = before.min(*nth);
            }
        }
        Epoch(by_place.min(before).max(behind))
    }

    /// Takes readings of the same epoch off the front of `part`, as many as follow each other.
    pub fn split_run(&self, part: &mut Part) -> (Epoch, Part) {
        let epoch = stands(part).next().map_or(self.last_epoch(), |first| self.epoch(first));
        let count = stands(part).take_while(|next| self.epoch(*next) == epoch).count();
        (epoch, part.split_first(count))
    }
}

/// The readings of a part, as they are to go on. What is in no log stands behind all that is.
pub fn stands(part: &Part) -> impl Iterator<Item = Stand> {
    let from = part.span().map(|span| span.from);
    let place = move |index: u32| match from {
        Some(Place { seq, index: first }) => Place { seq, index: first.saturating_add(index) },
        None => Place::END,
    };
    (0..).zip(part.iter()).map(move |(index, reading)| (name_hash(reading.device_bytes()), place(index)))
}

/// The first place of each device.
fn firsts(batch: &[Stand]) -> HashMap<u64, Place> {
    let mut firsts = HashMap::new();
    for (device, place) in batch {
        let first = firsts.entry(*device).or_insert(*place);
        *first = (*first).min(*place);
    }
    firsts
}

/// The place behind the last reading.
fn end(batch: &[Stand]) -> Place {
    let last = batch.iter().map(|(_, place)| *place).max();
    last.map_or(Place::start_of(0), |Place { seq, index }| Place { seq, index: index.saturating_add(1) })
}

/// Sorts batches so that each goes behind those that have an earlier first reading of one of its devices, and else by
/// where they end.
fn sort(firsts: &[HashMap<u64, Place>], ends: &[(Place, Reverse<usize>)]) -> Vec<usize> {
    let mut chains: HashMap<u64, Vec<(Place, usize)>> = HashMap::new();
    for (batch, firsts) in firsts.iter().enumerate() {
        for (device, first) in firsts {
            chains.entry(*device).or_default().push((*first, batch));
        }
    }
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); firsts.len()];
    let mut leaders = vec![0_usize; firsts.len()];
    for chain in chains.values_mut() {
        chain.sort_unstable();
        for pair in chain.windows(2) {
            followers[pair[0].1].push(pair[1].1);
            leaders[pair[1].1] += 1;
        }
    }
    let key = |batch: usize| (ends[batch], batch);
    let mut ready: BTreeSet<_> = (0..firsts.len()).filter(|batch| leaders[*batch] == 0).map(key).collect();
    let mut left: BTreeSet<_> = (0..firsts.len()).map(key).collect();
    let mut order = Vec::with_capacity(firsts.len());
    // Where batches contradict each other, the one that ends first breaks the circle.
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(&next);
        order.push(next.1);
        for follower in followers[next.1].drain(..) {
            leaders[follower] -= 1;
            if leaders[follower] == 0 && left.contains(&key(follower)) {
                ready.insert(key(follower));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests;
