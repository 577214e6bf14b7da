//! Orders the batches noted before the last stop, and the readings around them, if every device has its own node.
//!
//! At a stop, some readings are in noted batches, which are sent again unchanged. Others are **loose**: never noted, or in a
//! batch that was taken apart and not rebuilt. A loose reading may be older than one of the same device in a noted batch. So
//! the noted batches are sorted, and the loose readings go between them in **epochs**: epoch 0 before the first noted batch,
//! epoch 1 between the first and the second, and so on. Readings accepted after the start have the last epoch.
//!
//! All decisions follow from places in the log and names of devices; nothing waits, and no clock is read.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::batch::BatchId;
use crate::buffer::Part;
use crate::buffer::span::Place;
use crate::routing::shard::name_hash;

/// Bits of a batch's id that count the batches of this run: more than it makes in fifty years.
const COUNT_BITS: u32 = 44;
/// Largest rank above these bits. With more resumed batches, the rest is ordered by the count alone.
const RANK_MAX: u64 = u64::MAX >> COUNT_BITS;

/// The place of loose readings among the resumed batches: the number of batches before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(usize);

impl Epoch {
    /// The epoch before all resumed batches; the only one if there are none.
    pub const FIRST: Epoch = Epoch(0);

    /// The id of a batch of this epoch; `counted` is its id in the order of this run.
    pub fn batch_id(self, counted: BatchId) -> BatchId {
        ranked(self.0 as u64 * 2, counted)
    }

    /// Whether readings of this epoch may have to go before a resumed batch.
    pub fn is_before(self, batch: usize) -> bool {
        self.0 <= batch
    }
}

fn ranked(rank: u64, BatchId(count): BatchId) -> BatchId {
    BatchId(rank.min(RANK_MAX) << COUNT_BITS | count)
}

/// A reading's position in its device's order: the hash of the device's name, and the place in the log.
pub type DevicePlace = (u64, Place);

/// The order of the resumed batches, and the epochs of other readings between them.
///
/// **Invariant**: of two readings of a device, the one accepted first is never sent after the other, over any number of stops
/// (`over_any_number_of_stops_each_devices_readings_are_sent_in_their_order`, and with kills of the real process
/// `over_any_number_of_kills_each_devices_readings_arrive_in_their_order`). It holds because:
///
/// - [`Resumption::of`] sorts the noted batches by the readings of their devices;
/// - [`Resumption::epoch`] puts a loose reading behind batches with earlier readings of its device, and before batches with
///   later ones;
/// - the ids of batches sort by that order ([`Epoch::batch_id`], [`Resumption::batch_id_of`]), and of batches that may have
///   readings of the same devices, the one with the lowest id is sent ([`super::shards::Class`]);
/// - a noted batch waits until all loose readings that may have to go before it are in batches ([`Resumption::end`]).
#[derive(Debug, Default)]
pub struct Resumption {
    /// For each device in a resumed batch, by the hash of its name: its first place in each of its batches, and the batch.
    devices: HashMap<u64, Vec<(Place, usize)>>,
    /// For each resumed batch, the place behind the last reading of all batches up to it.
    ends: Vec<Place>,
}

impl Resumption {
    /// Sorts batches: returns their indices in order, and the resulting epochs.
    ///
    /// A batch goes behind all batches with earlier readings of one of its devices, and among equals, the batch that ends first
    /// leads. Batches noted by this rule never contradict each other. If batches do (after a change of the settings, or
    /// damage to the log), one of them goes first anyway, so that the start does not hang.
    pub fn of(batches: &[Vec<DevicePlace>]) -> (Vec<usize>, Resumption) {
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

    /// The id of the `nth` resumed batch; `counted` is its id in the order of this run.
    pub fn batch_id_of(&self, nth: usize, counted: BatchId) -> BatchId {
        ranked(nth as u64 * 2 + 1, counted)
    }

    /// The place before which all loose readings lie that may have to go before the `nth` resumed batch.
    pub fn end(&self, nth: usize) -> Place {
        self.ends.get(nth).copied().unwrap_or(Place::start_of(0))
    }

    /// Whether all readings from this place on have the last epoch.
    pub fn is_behind(&self, place: Place) -> bool {
        self.ends.last().is_none_or(|end| *end <= place)
    }

    /// The epoch of readings accepted after the start.
    pub fn last_epoch(&self) -> Epoch {
        Epoch(self.ends.len())
    }

    /// The epoch of a loose reading. It never falls from one reading of a device to a later one.
    pub fn epoch(&self, (device, place): DevicePlace) -> Epoch {
        if self.is_behind(place) {
            return self.last_epoch();
        }
        // The place decides, within the limits that the device's batches set.
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

    /// Splits the readings of one epoch off the front of `part`.
    pub fn split_run(&self, part: &mut Part) -> (Epoch, Part) {
        let epoch = device_places(part).next().map_or(self.last_epoch(), |first| self.epoch(first));
        let count = device_places(part).take_while(|next| self.epoch(*next) == epoch).count();
        (epoch, part.split_first(count))
    }
}

/// The positions of a part's readings. Readings that are in no log come behind all others.
pub fn device_places(part: &Part) -> impl Iterator<Item = DevicePlace> {
    let from = part.span().map(|span| span.from);
    let place = move |index: u32| match from {
        Some(Place { seq, index: first }) => Place { seq, index: first.saturating_add(index) },
        None => Place::END,
    };
    (0..).zip(part.iter()).map(move |(index, reading)| (name_hash(reading.device_bytes()), place(index)))
}

/// The first place of each device in a batch.
fn firsts(batch: &[DevicePlace]) -> HashMap<u64, Place> {
    let mut firsts = HashMap::new();
    for (device, place) in batch {
        let first = firsts.entry(*device).or_insert(*place);
        *first = (*first).min(*place);
    }
    firsts
}

/// The place behind the last reading of a batch.
fn end(batch: &[DevicePlace]) -> Place {
    let last = batch.iter().map(|(_, place)| *place).max();
    last.map_or(Place::start_of(0), |Place { seq, index }| Place { seq, index: index.saturating_add(1) })
}

/// Sorts batches so that each goes behind all batches with an earlier first reading of one of its devices, and otherwise by
/// their ends.
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
    // If batches contradict each other, the one that ends first breaks the cycle.
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
