//! Which readings may go into one batch, and which batches wait for each other, where every device has its own node.
//!
//! A device's **home** is the node that leads its ranking ([`crate::routing::shard`]). Its readings go to its
//! **target**: that is the home, or, while the home is not to be used and `cluster.shard.failover` is `next`, the
//! best-ranked node that is. The devices of a home take **turns**: each device has one of a few numbers, by its hash,
//! and a batch has readings of one home, one target and one turn only.

use std::collections::HashSet;

use forebay_reading::ReadingRef;

use crate::buffer::Part;
use crate::routing::shard::{home, name_hash};

/// Batches of one home that may be on their way at the same time, unless `cluster.max_in_flight` allows fewer.
const TURNS_MAX: usize = 8;

/// What happens to the readings of a node that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// They go to the next node in their device's ranking, until theirs is up again.
    Next,
    /// They wait until it is up again.
    Wait,
}

/// Where a reading goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// The node that leads the ranking of its device.
    pub home: usize,
    /// The node that it is sent to.
    pub target: usize,
    /// The turn of its device.
    pub turn: u64,
}

/// What a batch has to wait for.
///
/// **Invariant**: the readings of a device arrive in the order in which they were accepted, also through retries and
/// failover: of the batches of one home and turn, the oldest one goes, and all others wait until it is settled
/// (`whatever_nodes_and_network_do_acknowledged_readings_arrive_in_order_and_the_ledger_adds_up` in
/// `tests/simulation/main.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing: the route promises no order.
    Free,
    /// Older batches that may have readings of the same devices.
    Of {
        /// Counts changes of the nodes; devices may have had other homes before one.
        generation: u64,
        /// The home of its devices.
        home: usize,
        /// Their turn.
        turn: u64,
    },
    /// All older batches: its readings were put together by other rules.
    Mixed,
}

impl Class {
    /// Whether two batches may have readings of the same device, so that the younger waits for the older.
    pub fn conflicts(self, other: Class) -> bool {
        match (self, other) {
            (Class::Free, _) | (_, Class::Free) => false,
            (Class::Mixed, _) | (_, Class::Mixed) => true,
            (
                Class::Of { generation, home, turn },
                Class::Of { generation: other_generation, home: other_home, turn: other_turn },
            ) => turn == other_turn && (generation != other_generation || home == other_home),
        }
    }
}

/// What older batches are of: asked of every batch in each turn, so the usual case is one look.
#[derive(Debug, Default)]
pub struct Classes {
    /// All of them but [`Class::Free`].
    all: HashSet<Class>,
    /// The generations among them.
    generations: Vec<u64>,
    has_mixed: bool,
}

impl Classes {
    /// One more batch is of this class.
    pub fn insert(&mut self, class: Class) {
        match class {
            Class::Free => return,
            Class::Mixed => self.has_mixed = true,
            Class::Of { generation, .. } if !self.generations.contains(&generation) => {
                self.generations.push(generation);
            }
            Class::Of { .. } => {}
        }
        self.all.insert(class);
    }

    /// Whether a batch of this class has to wait for one of them.
    pub fn conflict(&self, class: Class) -> bool {
        match class {
            Class::Free => false,
            Class::Mixed => !self.all.is_empty(),
            Class::Of { generation, .. } if self.generations.iter().all(|other| *other == generation) => {
                self.has_mixed || self.all.contains(&class)
            }
            Class::Of { .. } => self.all.iter().any(|older| older.conflicts(class)),
        }
    }
}

/// A node and the hash of its name.
pub type NodeHash = (usize, u64);

/// How devices are divided at present.
#[derive(Debug)]
pub struct Shards {
    turns: u64,
    /// All nodes.
    homes: Vec<NodeHash>,
    /// Those that may be sent to.
    targets: Vec<NodeHash>,
    generation: u64,
}

impl Shards {
    /// Knows no nodes yet. No more than `in_flight_max` batches are to be on their way to one of them.
    pub fn new(in_flight_max: usize) -> Shards {
        let turns = in_flight_max.clamp(1, TURNS_MAX) as u64;
        Shards { turns, homes: Vec::new(), targets: Vec::new(), generation: 0 }
    }

    /// Divides the devices among `homes`, of which `targets` may be sent to; all of them if none may. Returns whether
    /// anything has changed.
    pub fn divide(&mut self, homes: Vec<NodeHash>, targets: Vec<NodeHash>) -> bool {
        let targets = if targets.is_empty() { homes.clone() } else { targets };
        let has_moved = homes != self.homes;
        let has_changed = has_moved || targets != self.targets;
        self.generation += u64::from(has_moved);
        self.homes = homes;
        self.targets = targets;
        has_changed
    }

    /// Batches that may be on their way to one node at the same time.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether readings go to this node.
    pub fn is_target(&self, node: usize) -> bool {
        self.targets.iter().any(|(target, _)| *target == node)
    }

    /// What the batches of a lane wait for.
    pub fn class(&self, lane: LaneId) -> Class {
        Class::Of { generation: self.generation, home: lane.home, turn: lane.turn }
    }

    /// Takes readings of the same lane off the front of `part`, as many as follow each other; `None` if there are no
    /// nodes, or no readings.
    pub fn split_run(&self, part: &mut Part) -> Option<(LaneId, Part)> {
        let mut iter = part.iter();
        let first = iter.next()?;
        let mut device = first.device_bytes();
        let lane = self.lane(first)?;
        let mut end = iter.position();
        while let Some(reading) = iter.next() {
            if reading.device_bytes() != device {
                if self.lane(reading) != Some(lane) {
                    break;
                }
                device = reading.device_bytes();
            }
            end = iter.position();
        }
        let run = part.split_to(end);
        Some((lane, run))
    }

    /// The lane of readings that are a batch already, and what they wait for; `None` if there are no nodes.
    pub fn lane_of_all(&self, parts: &[Part]) -> Option<(LaneId, Class)> {
        let mut lanes = parts.iter().flat_map(Part::iter).map(|reading| self.lane(reading));
        let first = lanes.next()??;
        let is_one = lanes.all(|lane| lane == Some(first));
        Some((first, if is_one { self.class(first) } else { Class::Mixed }))
    }

    fn lane(&self, reading: ReadingRef<'_>) -> Option<LaneId> {
        let device = name_hash(reading.device_bytes());
        let home_of = |nodes: &[NodeHash]| home(device, nodes.iter().copied());
        let home = home_of(&self.homes)?;
        let target = if self.is_target(home) { home } else { home_of(&self.targets)? };
        Some(LaneId { home, target, turn: device % self.turns })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use super::*;
    use crate::buffer::lease::{Record, RecordParts};
    use crate::buffer::tests::readings_of;
    use crate::buffer::waiters::Waiters;
    use tokio::time::Instant;

    fn nodes(count: usize) -> Vec<NodeHash> {
        (0..count).map(|node| (node, name_hash(format!("node-{node}")))).collect()
    }

    fn part(devices: &[&str]) -> Part {
        let readings = readings_of(devices);
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

    fn lane(shards: &Shards, device: &str) -> LaneId {
        shards.lane_of_all(&[part(&[device])]).expect("there are nodes").0
    }

    fn devices() -> Vec<String> {
        (0..200).map(|number| format!("meter-{number}")).collect()
    }

    #[test]
    fn a_device_goes_home_and_to_its_next_node_only_while_that_is_not_to_be_used() {
        let mut shards = Shards::new(16);
        assert!(shards.divide(nodes(3), nodes(3)));
        assert!(!shards.divide(nodes(3), nodes(3)), "nothing has changed");
        let before: Vec<LaneId> = devices().iter().map(|device| lane(&shards, device)).collect();
        assert!(before.iter().all(|lane| lane.home == lane.target));
        assert!(shards.divide(nodes(3), vec![nodes(3)[0], nodes(3)[2]]));
        for (device, before) in devices().iter().zip(&before) {
            let now = lane(&shards, device);
            assert_eq!((now.home, now.turn), (before.home, before.turn));
            assert_eq!(now.target == now.home, before.home != 1, "only the devices of node 1 move");
        }
        assert!(shards.divide(nodes(3), Vec::new()));
        assert_eq!(devices().iter().map(|device| lane(&shards, device)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn batches_wait_for_those_of_the_same_home_and_turn_and_of_other_nodes() {
        let mut shards = Shards::new(16);
        shards.divide(nodes(3), nodes(3));
        let lane = |home, target, turn| LaneId { home, target, turn };
        let class = shards.class(lane(1, 1, 3));
        assert!(class.conflicts(shards.class(lane(1, 2, 3))), "the same devices, whatever the target");
        assert!(
            !class.conflicts(shards.class(lane(1, 1, 4))) && !class.conflicts(shards.class(lane(2, 2, 3)))
        );
        assert!(class.conflicts(Class::Mixed) && !class.conflicts(Class::Free));
        shards.divide(nodes(2), nodes(2));
        assert!(class.conflicts(shards.class(lane(0, 0, 3))), "it may have been another's device");
        assert!(!class.conflicts(shards.class(lane(0, 0, 4))), "a device keeps its turn");
    }

    #[test]
    fn many_classes_conflict_as_each_of_them_does() {
        let of = |generation, home, turn| Class::Of { generation, home, turn };
        let mut all = vec![Class::Free, Class::Mixed];
        all.extend((0..12).map(|number| of(number / 6, number as usize / 2 % 3, number % 2)));
        for chosen in 0..1_u32 << all.len() {
            // All of one, two and three: more add nothing.
            if chosen.count_ones() > 3 {
                continue;
            }
            let older: Vec<Class> = all
                .iter()
                .enumerate()
                .filter(|(n, _)| chosen & (1 << n) != 0)
                .map(|(_, class)| *class)
                .collect();
            let mut classes = Classes::default();
            older.iter().for_each(|class| classes.insert(*class));
            for class in &all {
                let expected = older.iter().any(|older| older.conflicts(*class));
                assert_eq!(classes.conflict(*class), expected, "{class:?} after {older:?}");
            }
        }
    }

    #[test]
    fn a_request_is_cut_where_the_lane_changes() {
        let mut shards = Shards::new(16);
        assert!(shards.split_run(&mut part(&["a"])).is_none(), "there are no nodes");
        shards.divide(nodes(3), nodes(3));
        let devices = devices();
        let a = devices[0].as_str();
        let b =
            devices.iter().find(|device| lane(&shards, device) != lane(&shards, a)).expect("another lane");
        let mut whole = part(&[a, a, b, a]);
        let mut runs = Vec::new();
        while let Some((id, run)) = shards.split_run(&mut whole) {
            runs.push((id, run.len()));
        }
        let (lane_a, lane_b) = (lane(&shards, a), lane(&shards, b));
        assert_eq!(runs, [(lane_a, 2), (lane_b, 1), (lane_a, 1)]);
        assert!(whole.is_empty());
        assert_eq!(shards.lane_of_all(&[part(&[a, b])]).map(|(_, class)| class), Some(Class::Mixed));
    }
}
