//! Gathers readings into batches in lanes: each lane has an open batch, and parked readings that wait behind it.
//!
//! Most routes have a single lane. If every device has its own node ([`super::shards`]), a node that takes nothing must not
//! hold up the others: the readings of a lane with enough batches are parked, and the readings behind them go to their own
//! lanes. Parked readings are in memory, so they are bounded: when their requests take 16 MiB, everything waits. The limit is
//! twice that for readings that may have to go before resumed batches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use forebay_codec::Encoder;
use tokio::time::Instant;

use super::batch::{Batch, BatchId, BatchKeys};
use super::batcher::{BatchConfig, Batcher};
use super::resumption::Epoch;
use super::shards::LaneId;
use crate::buffer::Part;

/// Most bytes of requests that have parked readings.
const PARKED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most unsettled closed batches of a lane: one in flight, and one ready to follow it.
const LANE_BATCHES_MAX: usize = 2;

#[derive(Debug)]
struct Lane {
    open: Batcher,
    /// The epoch of all readings in the open batch.
    epoch: Epoch,
    /// The readings that go behind the open batch.
    parked: VecDeque<(Epoch, Part)>,
    /// Number of unsettled closed batches.
    closed: usize,
    /// The latest epoch of the unsettled closed batches.
    closed_to: Epoch,
    /// Value of [`Lanes::takes`] when the age of the open batch was set.
    takes: u64,
}

/// Whether batches may wait for some readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// No batch waits for these readings.
    Normal,
    /// Resumed batches may wait for these readings.
    BeforeResumed,
}

impl Lane {
    fn add(&mut self, epoch: Epoch, part: &mut Part, now: Instant) -> Option<Batch> {
        if self.epoch != epoch && self.open.due().is_some() {
            return self.close();
        }
        self.epoch = epoch;
        let batch = self.open.add(part, now)?;
        Some(self.placed(batch))
    }

    fn close(&mut self) -> Option<Batch> {
        let batch = self.open.close()?;
        Some(self.placed(batch))
    }

    /// Gives a closed batch the id of its epoch.
    fn placed(&mut self, batch: Batch) -> Batch {
        self.closed_to = self.closed_to.max(self.epoch);
        Batch { id: self.epoch.batch_id(batch.id), ..batch }
    }

    /// Takes the first parked readings, if one more batch of their epoch may be out of the buffer.
    fn next_parked(&mut self) -> Option<(Epoch, Part)> {
        let (epoch, _) = self.parked.front()?;
        if self.has_room_for(*epoch) { self.parked.pop_front() } else { None }
    }

    /// Whether one more batch of an epoch may be out of the buffer. An earlier epoch always has room, since batches that are
    /// out may wait for it.
    fn has_room_for(&self, epoch: Epoch) -> bool {
        self.closed < LANE_BATCHES_MAX || epoch < self.closed_to
    }
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    config: BatchConfig,
    encoder: Arc<dyn Encoder>,
    keys: BatchKeys,
    lanes: BTreeMap<LaneId, Lane>,
    /// Bytes of the requests that have parked readings.
    parked_bytes: u64,
    /// Makes batches of readings that were batched before.
    renderer: Batcher,
    /// How many times [`Lanes::take_all`] was called.
    takes: u64,
    /// When the oldest of the batches that were last taken apart was opened. Its readings may come into another lane, and must
    /// not wait longer because of that.
    since: Option<Instant>,
}

impl Lanes {
    /// Starts without readings.
    pub fn new(config: BatchConfig, encoder: Arc<dyn Encoder>, keys: BatchKeys) -> Lanes {
        let renderer = Batcher::new(config, Arc::clone(&encoder), keys.clone());
        Lanes {
            config,
            encoder,
            keys,
            lanes: BTreeMap::new(),
            parked_bytes: 0,
            renderer,
            takes: 0,
            since: None,
        }
    }

    fn lane(&mut self, id: LaneId) -> &mut Lane {
        let Lanes { config, encoder, keys, lanes, takes, since, .. } = self;
        let lane = lanes.entry(id).or_insert_with(|| Lane {
            open: Batcher::new(*config, Arc::clone(encoder), keys.clone()),
            epoch: Epoch::default(),
            parked: VecDeque::new(),
            closed: 0,
            closed_to: Epoch::FIRST,
            takes: 0,
        });
        if lane.takes != *takes {
            lane.takes = *takes;
            lane.open.set_since(*since);
        }
        lane
    }

    /// Moves readings from the front of `part`, which has a single epoch, into the open batch of a lane, as [`Batcher::add`]
    /// does. An open batch of another epoch is first closed and returned.
    pub fn add(&mut self, id: LaneId, epoch: Epoch, part: &mut Part, now: Instant) -> Option<Batch> {
        self.lane(id).add(epoch, part, now)
    }

    /// Moves parked readings into the open batch until it is full, if one more batch may be out of the buffer.
    pub fn add_parked(&mut self, id: LaneId, now: Instant) -> Option<Batch> {
        let lane = self.lanes.get_mut(&id)?;
        while let Some((epoch, mut part)) = lane.next_parked() {
            let full = lane.add(epoch, &mut part, now);
            if part.is_empty() {
                self.parked_bytes -= part.unpark();
            } else {
                lane.parked.push_front((epoch, part));
            }
            if full.is_some() {
                return full;
            }
        }
        None
    }

    /// Parks readings behind all parked readings of the same or an earlier epoch.
    pub fn park(&mut self, id: LaneId, epoch: Epoch, part: Part) {
        self.parked_bytes += part.park();
        let parked = &mut self.lane(id).parked;
        let behind = parked.iter().rev().take_while(|(other, _)| epoch < *other).count();
        parked.insert(parked.len() - behind, (epoch, part));
    }

    /// Whether a lane has parked readings, so that further ones must go behind them.
    pub fn has_parked(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|lane| !lane.parked.is_empty())
    }

    /// The lanes with parked readings.
    pub fn with_parked(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| !lane.parked.is_empty()).map(|(id, _)| *id).collect()
    }

    /// Whether the limit for parked readings is reached. Readings that resumed batches may wait for have twice the limit.
    pub fn is_full(&self, ahead: Urgency) -> bool {
        let bytes_max = match ahead {
            Urgency::Normal => PARKED_BYTES_MAX,
            Urgency::BeforeResumed => 2 * PARKED_BYTES_MAX,
        };
        self.parked_bytes >= bytes_max
    }

    /// The lanes with readings, and the earliest epoch of each.
    pub fn epochs(&self) -> impl Iterator<Item = (LaneId, Epoch)> {
        let earliest = |lane: &Lane| {
            let open = lane.open.due().map(|_| lane.epoch);
            open.into_iter().chain(lane.parked.iter().map(|(epoch, _)| *epoch)).min()
        };
        self.lanes.iter().filter_map(move |(id, lane)| Some((*id, earliest(lane)?)))
    }

    /// Whether the open batch of a lane may leave the buffer too.
    pub fn has_room(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_none_or(|lane| lane.has_room_for(lane.epoch))
    }

    /// Whether one more batch of a lane and an epoch may be out of the buffer.
    pub fn has_room_for(&self, id: LaneId, epoch: Epoch) -> bool {
        self.lanes.get(&id).is_none_or(|lane| lane.has_room_for(epoch))
    }

    /// Records that a batch of a lane is out of the buffer.
    pub fn on_closed(&mut self, id: LaneId) {
        self.lane(id).closed += 1;
    }

    /// Records that a batch of a lane is settled or dissolved.
    pub fn on_settled(&mut self, id: LaneId) {
        let lane = self.lane(id);
        lane.closed -= 1;
        if lane.closed == 0 {
            lane.closed_to = Epoch::FIRST;
        }
    }

    /// Closes the open batch of a lane, if it has readings.
    pub fn close(&mut self, id: LaneId) -> Option<Batch> {
        self.lanes.get_mut(&id)?.close()
    }

    /// The lanes whose open batch has readings, and when each must close.
    pub fn due(&self) -> impl Iterator<Item = (LaneId, Instant)> {
        self.lanes.iter().filter_map(|(id, lane)| Some((*id, lane.open.due()?)))
    }

    /// Whether there are no readings, neither in open batches nor parked.
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.parked.is_empty() && lane.open.due().is_none())
    }

    /// When the oldest reading in the lanes was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.oldest_of_each().map(|(_, oldest)| oldest).min()
    }

    /// When the oldest reading of each lane was accepted.
    pub fn oldest_of_each(&self) -> impl Iterator<Item = (LaneId, Instant)> {
        let parked = |lane: &Lane| lane.parked.front().map(|(_, part)| part.accepted_at());
        let oldest = move |lane: &Lane| lane.open.oldest().or_else(|| parked(lane));
        self.lanes.iter().filter_map(move |(id, lane)| Some((*id, oldest(lane)?)))
    }

    /// Takes all readings out of the lanes: of each lane first the open batch and then the parked readings, and among the
    /// lanes always the oldest part first.
    pub fn take_all(&mut self) -> Vec<Part> {
        if self.lanes.values().any(|lane| lane.takes == self.takes) {
            // Otherwise no readings have arrived since the last time.
            self.since = self.lanes.values().filter_map(|lane| lane.open.since()).min();
        }
        self.takes += 1;
        let mut queues: Vec<VecDeque<Part>> = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes.values_mut() {
            self.parked_bytes -= lane.parked.iter().map(|(_, part)| part.unpark()).sum::<u64>();
            let parked = lane.parked.drain(..).map(|(_, part)| part);
            queues.push(lane.open.take_open().into_iter().chain(parked).collect());
            // From now on, the time of all lanes applies.
            lane.open.set_since(None);
        }
        let age = |lane: usize, queue: &VecDeque<Part>| Some(Reverse((queue.front()?.accepted_at(), lane)));
        let mut oldest: BinaryHeap<_> =
            queues.iter().enumerate().filter_map(|(lane, queue)| age(lane, queue)).collect();
        let mut parts = Vec::new();
        while let Some(Reverse((_, lane))) = oldest.pop() {
            parts.extend(queues[lane].pop_front());
            oldest.extend(age(lane, &queues[lane]));
        }
        parts
    }

    /// Removes the lanes without readings and without unsettled batches.
    pub fn forget_unused(&mut self) {
        self.lanes.retain(|_, lane| lane.closed > 0 || !lane.parked.is_empty() || lane.open.due().is_some());
    }

    /// A new key.
    pub fn new_key(&mut self) -> String {
        self.keys.next_key().1
    }

    /// As [`Batcher::rebatch`].
    pub fn rebatch(&mut self, id: BatchId, parts: Vec<Part>) -> Batch {
        self.renderer.rebatch(id, parts)
    }

    /// As [`Batcher::piece`].
    pub fn piece(&mut self, id: BatchId, key: String, parts: Vec<Part>) -> Batch {
        self.renderer.piece(id, key, parts)
    }

    /// As [`Batcher::resume`].
    pub fn resume(&mut self, key: String, parts: Vec<Part>) -> Batch {
        self.renderer.resume(key, parts)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use std::time::Duration;

    use super::*;
    use crate::buffer::lease::{Record, RecordParts};
    use crate::buffer::tests::{numbered, numbers};
    use crate::buffer::waiters::Waiters;
    use crate::node_id::NodeIndex;
    use forebay_codec::ENCODERS;

    const A: LaneId = LaneId { home: NodeIndex(0), target: NodeIndex(0), turn: 0 };
    const FIRST: Epoch = Epoch::FIRST;
    const B: LaneId = LaneId { home: NodeIndex(1), target: NodeIndex(1), turn: 0 };

    fn lanes(max_readings: usize) -> Lanes {
        let config = BatchConfig { max_readings, max_bytes: 1 << 20, max_age: Duration::from_secs(1) };
        let keys = BatchKeys::new(&mut fastrand::Rng::with_seed(7));
        Lanes::new(config, ENCODERS.find("ndjson").expect("a format")(), keys)
    }

    fn part(from: i64, to: i64) -> Part {
        let readings = numbered(from..to);
        let held_bytes = Record::amount(&readings).bytes;
        let parts = RecordParts {
            readings,
            seq: None,
            made_by: None,
            held_bytes,
            accepted_at: Instant::now(),
            waiters: Waiters::default(),
        };
        Part::whole(Record::new(parts))
    }

    fn contents(parts: &[Part]) -> Vec<i64> {
        parts.iter().flat_map(numbers).collect()
    }

    #[test]
    fn parked_readings_follow_the_open_batch_in_their_order() {
        let (mut lanes, now) = (lanes(4), Instant::now());
        assert!(lanes.add(A, FIRST, &mut part(0, 3), now).is_none());
        [part(3, 6), part(6, 9)].into_iter().for_each(|part| lanes.park(A, FIRST, part));
        assert!(lanes.has_parked(A) && !lanes.has_parked(B) && lanes.with_parked() == [A]);
        let full = lanes.add_parked(A, now).expect("four readings");
        assert_eq!(contents(&full.parts), [0, 1, 2, 3]);
        assert_eq!(contents(&lanes.add_parked(A, now).expect("four more").parts), [4, 5, 6, 7]);
        assert!(lanes.add_parked(A, now).is_none() && !lanes.has_parked(A) && lanes.parked_bytes == 0);
        lanes.park(A, FIRST, part(9, 10));
        assert_eq!(contents(&lanes.take_all()), [8, 9]);
        assert!(lanes.is_empty() && lanes.parked_bytes == 0);
    }

    #[test]
    fn the_bytes_of_a_request_count_once_however_many_of_its_readings_are_parked() {
        let mut lanes = lanes(4);
        let mut whole = part(0, 4);
        let held = Record::amount(&numbered(0..4)).bytes;
        lanes.park(A, FIRST, whole.split_first(1));
        lanes.park(B, FIRST, whole.split_first(2));
        lanes.park(A, FIRST, whole);
        assert_eq!(lanes.parked_bytes, held);
        lanes.add_parked(A, Instant::now());
        assert_eq!(lanes.parked_bytes, held, "one is left");
        lanes.add_parked(B, Instant::now());
        assert_eq!(lanes.parked_bytes, 0);
    }

    #[test]
    fn a_reading_does_not_wait_longer_however_often_lanes_change() {
        let (mut lanes, start) = (lanes(4), Instant::now());
        let mut waiting = part(0, 1);
        for step in 0..5 {
            let id = LaneId { target: NodeIndex(step), ..A };
            lanes.add(id, FIRST, &mut waiting, start + Duration::from_millis(700) * step as u32);
            let due: Vec<_> = lanes.due().map(|(_, due)| due).collect();
            assert_eq!(due, [start + Duration::from_secs(1)], "step {step}");
            waiting = lanes.take_all().remove(0);
            lanes.forget_unused();
        }
        let later = start + Duration::from_secs(60);
        lanes.add(A, FIRST, &mut part(1, 2), later);
        assert!(lanes.close(A).is_some(), "it is overdue");
        lanes.add(A, FIRST, &mut part(2, 3), later);
        assert_eq!(lanes.due().next(), Some((A, later + Duration::from_secs(1))), "the next one is young");
    }

    #[test]
    fn a_lane_has_room_for_two_unsettled_batches() {
        let mut lanes = lanes(4);
        assert!(lanes.has_room(A));
        (0..2).for_each(|_| lanes.on_closed(A));
        assert!(!lanes.has_room(A) && lanes.has_room(B));
        lanes.on_settled(A);
        assert!(lanes.has_room(A));
    }
}
