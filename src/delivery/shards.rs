//! Decides which readings may share a batch, and which batches wait for each other, if every device has its own node.
//!
//! A device's **home** is the node that leads its ranking ([`crate::routing::shard`]). Its readings go to its **target**. The
//! target is the home, or, while the home is not usable and `cluster.shard.failover` is `next`, the usable node with the best
//! rank. The devices of a home take **turns**: the hash of a device is mapped to one of a few turns, and all readings of a
//! batch have the same home, target and turn.

use std::collections::HashSet;

use forebay_reading::ReadingRef;

use crate::buffer::Part;
use crate::node_id::NodeIndex;
use crate::routing::shard::{home, name_hash};

/// Most batches of one home in flight at the same time, unless `cluster.max_in_flight` is less.
const TURNS_MAX: usize = 8;

/// The handling of readings whose node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// The readings go to the next node in their device's ranking, until their own node is up again.
    Next,
    /// The readings wait until their node is up again.
    Wait,
}

/// A lane: the home, target and turn of a reading's device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    /// The node that leads the ranking of the device.
    pub home: NodeIndex,
    /// The node that gets the readings.
    pub target: NodeIndex,
    /// The turn of the device.
    pub turn: u64,
}

/// The order class of a batch: which older batches it waits for.
///
/// **Invariant**: the readings of a device arrive in the order in which they were accepted, also through retries and
/// failover: of the batches of one home and turn, the oldest one is sent, and all others wait until it is settled
/// (`whatever_nodes_and_network_do_acknowledged_readings_arrive_in_order_and_the_ledger_adds_up` in
/// `tests/simulation/main.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The batch waits for no other: the route promises no order.
    Free,
    /// The batch waits for older batches that may have readings of the same devices.
    Of {
        /// Number of changes of the nodes so far: devices may have had other homes in an earlier generation.
        generation: u64,
        /// The home of the devices.
        home: NodeIndex,
        /// The turn of the devices.
        turn: u64,
    },
    /// The batch waits for all older batches: its devices have different homes or turns.
    Mixed,
}

impl Class {
    /// Whether batches of two classes may have readings of the same device, so that the younger waits for the older.
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

/// The classes of older batches. The worker asks for every batch in each turn of its loop, so the usual case is one look-up.
#[derive(Debug, Default)]
pub struct Classes {
    /// All classes except [`Class::Free`].
    all: HashSet<Class>,
    /// The generations among them.
    generations: Vec<u64>,
    has_mixed: bool,
}

impl Classes {
    /// Adds the class of one more batch.
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

    /// Whether a batch of this class must wait for one of the older batches.
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

/// A node and the hash of its address.
pub type NodeHash = (NodeIndex, u64);

/// The present division of devices among nodes.
#[derive(Debug)]
pub struct Shards {
    turns: u64,
    /// All nodes.
    homes: Vec<NodeHash>,
    /// The usable nodes.
    targets: Vec<NodeHash>,
    generation: u64,
}

impl Shards {
    /// Starts without nodes. `in_flight_max` is the limit for batches in flight to one node.
    pub fn new(in_flight_max: usize) -> Shards {
        let turns = in_flight_max.clamp(1, TURNS_MAX) as u64;
        Shards { turns, homes: Vec::new(), targets: Vec::new(), generation: 0 }
    }

    /// Divides the devices among `homes`, of which `targets` are usable; without a usable node, all are targets. Returns
    /// whether the division has changed.
    pub fn divide(&mut self, homes: Vec<NodeHash>, targets: Vec<NodeHash>) -> bool {
        let targets = if targets.is_empty() { homes.clone() } else { targets };
        let has_moved = homes != self.homes;
        let has_changed = has_moved || targets != self.targets;
        self.generation += u64::from(has_moved);
        self.homes = homes;
        self.targets = targets;
        has_changed
    }

    /// Most batches in flight to one node at the same time.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether this node is a target.
    pub fn is_target(&self, node: NodeIndex) -> bool {
        self.targets.iter().any(|(target, _)| *target == node)
    }

    /// The class of a lane's batches.
    pub fn class(&self, lane: LaneId) -> Class {
        Class::Of { generation: self.generation, home: lane.home, turn: lane.turn }
    }

    /// Splits the readings of one lane off the front of `part`; `None` without nodes or readings.
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

    /// The lane and the class of an existing batch's readings; `None` without nodes or readings.
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
        (0..count).map(|node| (NodeIndex(node), name_hash(format!("node-{node}")))).collect()
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
    fn a_device_goes_to_its_home_and_to_its_next_node_only_while_the_home_is_not_usable() {
        let mut shards = Shards::new(16);
        assert!(shards.divide(nodes(3), nodes(3)));
        assert!(!shards.divide(nodes(3), nodes(3)), "nothing has changed");
        let before: Vec<LaneId> = devices().iter().map(|device| lane(&shards, device)).collect();
        assert!(before.iter().all(|lane| lane.home == lane.target));
        assert!(shards.divide(nodes(3), vec![nodes(3)[0], nodes(3)[2]]));
        for (device, before) in devices().iter().zip(&before) {
            let now = lane(&shards, device);
            assert_eq!((now.home, now.turn), (before.home, before.turn));
            assert_eq!(now.target == now.home, before.home.0 != 1, "only the devices of node 1 move");
        }
        assert!(shards.divide(nodes(3), Vec::new()));
        assert_eq!(devices().iter().map(|device| lane(&shards, device)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_batch_waits_for_batches_of_the_same_home_and_turn_or_of_an_earlier_generation() {
        let mut shards = Shards::new(16);
        shards.divide(nodes(3), nodes(3));
        let lane = |home, target, turn| LaneId { home: NodeIndex(home), target: NodeIndex(target), turn };
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
    fn a_set_of_classes_conflicts_exactly_if_one_of_them_does() {
        let of = |generation, home, turn| Class::Of { generation, home: NodeIndex(home), turn };
        let mut all = vec![Class::Free, Class::Mixed];
        all.extend((0..12).map(|number| of(number / 6, number as usize / 2 % 3, number % 2)));
        for chosen in 0..1_u32 << all.len() {
            // Sets of up to three classes cover all cases.
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
    fn a_request_is_split_where_the_lane_changes() {
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
