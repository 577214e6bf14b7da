//! From the buffer into batches: pulling, gathering, noting.

use tokio::time::Instant;

use super::pending::{Pending, State};
use super::sending::Gate;
use super::{CLOSE_MAX, PULL_MAX, PULL_PAUSE, RESUME_LOOK_EVERY, Worker};
use crate::buffer::span::Place;
use crate::buffer::{Amount, Noted, Noting, Part, Resumed};
use crate::delivery::batch::{Batch, BatchId};
use crate::delivery::lanes::Urgency;
use crate::delivery::resumption::{Epoch, Resumption, device_places};
use crate::delivery::shards::{Class, LaneId};
use crate::routing::Placement;

impl Worker {
    pub(super) fn may_pull(&self, now: Instant) -> bool {
        self.wants_more() && (self.next_pull <= now || self.draining)
    }

    pub(super) fn wants_more(&self) -> bool {
        // For somebody who waits for room, what came meanwhile may be given up too.
        let someone_waits = || self.accounts.shortfall() != Amount::default();
        // While what was made fills the buffer it is to go out before more is made.
        let may_wait = || self.untransformed.len() < PULL_MAX && self.is_overfull();
        let has_none =
            self.pulled.is_empty() && self.made.is_empty() && (self.untransformed.is_empty() || may_wait());
        !self.exhausted && (has_none || someone_waits())
    }

    /// So many requests were pulled; none means that nothing more will come.
    pub(super) fn on_pulled(&mut self, count: usize) {
        self.exhausted = count == 0;
        self.take_fresh();
        if count < PULL_MAX {
            self.next_pull = Instant::now() + PULL_PAUSE;
        }
        // Requests that came for dropped readings are now the oldest, and more may wait behind them.
        self.evict();
    }

    /// Whether all that was pulled has been through the transforms.
    pub(super) fn is_transformed(&self) -> bool {
        self.untransformed.is_empty() && self.made.is_empty()
    }

    /// Takes what the outlet has handed out: to the transforms first, if there are any.
    pub(super) fn take_fresh(&mut self) {
        if self.transforms.is_empty() {
            return self.pulled.extend(self.fresh.drain(..));
        }
        for part in self.fresh.drain(..) {
            let to = if part.made_by().is_some() { &mut self.made } else { &mut self.untransformed };
            to.push_back(part);
        }
    }

    /// Whether one more batch may be out of the buffer.
    pub(super) fn has_place(&self) -> bool {
        let places = self.nodes.present_count() * self.config.max_in_flight;
        self.batches.len() < places.div_ceil(self.copies().max(1))
    }

    /// Whether one more batch of a lane may be out of the buffer.
    pub(super) fn has_room(&self, lane: LaneId) -> bool {
        match self.placement {
            Placement::Anywhere | Placement::Copies => self.has_place(),
            Placement::ByDevice => self.lanes.has_room(lane),
        }
    }

    /// Moves pulled readings into batches. Returns whether there is more to be done at once.
    pub(super) fn fill(&mut self, now: Instant) -> bool {
        let closed = match self.placement {
            Placement::Anywhere | Placement::Copies => self.fill_one_lane(now),
            Placement::ByDevice => self.fill_lanes(now),
        };
        let nothing_more = self.draining && self.pulled.is_empty() && self.is_transformed();
        let due: Vec<LaneId> = self
            .lanes
            .due()
            .filter(|(lane, due)| (*due <= now || nothing_more) && self.has_room(*lane))
            .map(|(lane, _)| lane)
            .collect();
        for lane in due {
            let batch = self.lanes.close(lane);
            batch.into_iter().for_each(|batch| self.enqueue(lane, batch, now));
        }
        closed >= CLOSE_MAX
    }

    fn fill_one_lane(&mut self, now: Instant) -> usize {
        let mut closed = 0;
        while closed < CLOSE_MAX && self.has_place() {
            let Some(part) = self.pulled.front_mut() else { break };
            let batch = self.lanes.add(LaneId::default(), Epoch::FIRST, part, now);
            if part.is_empty() {
                self.pulled.pop_front();
            }
            if let Some(batch) = batch {
                self.enqueue(LaneId::default(), batch, now);
                closed += 1;
            }
        }
        closed
    }

    fn fill_lanes(&mut self, now: Instant) -> usize {
        let mut closed = 0;
        for lane in self.lanes.with_parked() {
            while closed < CLOSE_MAX {
                let Some(batch) = self.lanes.add_parked(lane, now) else { break };
                self.enqueue(lane, batch, now);
                closed += 1;
            }
        }
        while closed < CLOSE_MAX {
            let Some(part) = self.pulled.front_mut() else { break };
            if part.is_empty() {
                self.pulled.pop_front();
                continue;
            }
            let is_last = part.span().is_none_or(|span| self.resumption.is_behind(span.from));
            if self.lanes.is_full(if is_last { Urgency::Normal } else { Urgency::BeforeResumed }) {
                break;
            }
            // Without nodes there is no place to go.
            let Some((lane, run)) = self.shards.split_run(part) else { break };
            closed += match is_last {
                true => self.fill_lane(lane, self.resumption.last_epoch(), run, now),
                false => self.fill_lane_by_epochs(lane, run, now),
            };
        }
        closed
    }

    fn fill_lane_by_epochs(&mut self, lane: LaneId, mut run: Part, now: Instant) -> usize {
        let mut closed = 0;
        while !run.is_empty() {
            let (epoch, front) = self.resumption.split_run(&mut run);
            closed += self.fill_lane(lane, epoch, front, now);
        }
        closed
    }

    /// Adds readings to a lane, and parks what finds no room. Returns how many batches were closed.
    fn fill_lane(&mut self, lane: LaneId, epoch: Epoch, mut run: Part, now: Instant) -> usize {
        let mut closed = 0;
        while !run.is_empty() && self.lanes.has_room_for(lane, epoch) && !self.lanes.has_parked(lane) {
            if let Some(batch) = self.lanes.add(lane, epoch, &mut run, now) {
                self.enqueue(lane, batch, now);
                closed += 1;
            }
        }
        if !run.is_empty() {
            self.lanes.park(lane, epoch, run);
        }
        closed
    }

    fn enqueue(&mut self, lane: LaneId, batch: Batch, now: Instant) {
        self.observe_batch(&batch);
        let class = match self.placement {
            Placement::Anywhere | Placement::Copies => Class::Free,
            Placement::ByDevice => self.shards.class(lane),
        };
        self.keep(Some(lane), class, batch, now);
    }

    /// Keeps a closed batch: to be noted first, and sent when `due` has come.
    pub(super) fn keep(&mut self, lane: Option<LaneId>, class: Class, batch: Batch, due: Instant) {
        let state = self.note(&batch, due);
        self.insert(Pending { lane, class, ..Pending::new(batch, None, state) });
    }

    /// Has it noted what a batch is made of. Returns what it has to wait for: that, and `due` in any case.
    pub(super) fn note(&mut self, batch: &Batch, due: Instant) -> State {
        match self.outlet.note(batch.id.0, &batch.key, &batch.parts) {
            Noting::NotNeeded => State::Waiting { due },
            Noting::UnderWay => State::Noting { due },
        }
    }

    fn insert(&mut self, pending: Pending) {
        pending.counted_lane().into_iter().for_each(|lane| self.lanes.on_closed(lane));
        self.batches.insert(pending.batch.id, pending);
    }

    /// Takes a batch out: it is settled, or becomes another one.
    pub(super) fn take(&mut self, number: BatchId) -> Option<Pending> {
        let pending = self.batches.remove(&number)?;
        pending.counted_lane().into_iter().for_each(|lane| self.lanes.on_settled(lane));
        Some(pending)
    }

    /// Lets a batch go on that has its note, or will not get one. If another batch has its number by now, nothing
    /// happens: that one has a note of its own to wait for.
    pub(super) fn on_noted(&mut self, Noted { number, key, note }: Noted) {
        if let Some(pending) = self.batches.get_mut(&BatchId(number)) {
            pending.on_noted(&key, note);
        }
    }

    /// Takes up the batches that were noted before the last stop, ahead of all new ones; where every device has its own
    /// node, in the order that its readings ask for.
    pub(super) fn resume(&mut self, now: Instant) {
        let mut resumed = self.outlet.resumed();
        for batch in &mut resumed {
            batch.parts = self.transform_again(std::mem::take(&mut batch.parts), now);
        }
        let mut order: Vec<usize> = (0..resumed.len()).collect();
        if self.placement == Placement::ByDevice {
            let places_of = |batch: &Resumed| batch.parts.iter().flat_map(device_places).collect();
            (order, self.resumption) = Resumption::of(&resumed.iter().map(places_of).collect::<Vec<_>>());
        }
        let mut resumed: Vec<_> = resumed.into_iter().map(Some).collect();
        for (nth, index) in order.into_iter().enumerate() {
            let Some(Resumed { key, note, parts }) = resumed[index].take() else { continue };
            let mut batch = self.lanes.resume(key, parts);
            let mut behind = None;
            if self.placement == Placement::ByDevice {
                batch.id = self.resumption.batch_id_of(nth, batch.id);
                behind = Some(nth);
            }
            self.observe_batch(&batch);
            let place = self.place_of(&batch.parts);
            let (lane, class) = place.map_or((None, Class::Mixed), |(lane, class)| (Some(lane), class));
            let pending = Pending::new(batch, Some(note), State::Waiting { due: now });
            self.insert(Pending { lane, class, resumed: behind, ..pending });
        }
    }

    /// When to look again whether a resumed batch may go.
    pub(super) fn resumption_alarm(&self, now: Instant) -> Option<Instant> {
        self.has_resumed_waiting().then_some(now + RESUME_LOOK_EVERY)
    }

    /// Whether a resumed batch waits for readings that are not in lanes yet.
    pub(super) fn has_resumed_waiting(&self) -> bool {
        let Some(gate) = self.gate() else { return false };
        let waits = |nth: usize| gate.batched_to < self.resumption.end(nth);
        self.batches.values().filter_map(|pending| pending.resumed).any(waits)
    }

    /// What resumed batches wait for; `None` if there are none.
    pub(super) fn gate(&self) -> Option<Gate> {
        if self.placement != Placement::ByDevice {
            return None;
        }
        let first = self.batches.values().find_map(|pending| pending.resumed)?;
        let waiting = self.untransformed.iter().chain(&self.made).chain(&self.pulled);
        let waiting = waiting.filter_map(Part::span).map(|span| span.from);
        let batched_to = waiting.chain([self.outlet.handed_out_to()]).min().unwrap_or(Place::END);
        let lanes = self.lanes.epochs().map(|(lane, epoch)| (self.shards.class(lane), epoch)).collect();
        let is_stuck = self.lanes.is_full(Urgency::BeforeResumed);
        Some(Gate { batched_to, lanes, forced: is_stuck.then_some(first) })
    }

    /// The lane of readings that are a batch already; `None` if no node is known yet.
    pub(super) fn place_of(&self, parts: &[Part]) -> Option<(LaneId, Class)> {
        match self.placement {
            Placement::Anywhere | Placement::Copies => Some((LaneId::default(), Class::Free)),
            Placement::ByDevice => self.shards.lane_of_all(parts),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms hold doubles")]
    pub(super) fn observe_batch(&self, batch: &Batch) {
        self.metrics.batch_readings.observe(batch.readings as f64);
        self.metrics.batch_bytes.observe(batch.body.len() as f64);
    }
}
