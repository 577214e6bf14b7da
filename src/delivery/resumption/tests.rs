use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::delivery::shards::{Class, Classes};
use crate::node_id::NodeIndex;

/// Devices of a history. Their turns differ, so that some batches may overtake others.
const DEVICES: u64 = 5;
const TURNS: u64 = 2;
/// Most readings of a request, and of a batch.
const REQUEST_MAX: u32 = 6;
const BATCH_MAX: usize = 3;

/// Steps of a history are numbers below this.
const STEP_MAX: u8 = 16;
/// Steps at the end of a history that make and send the remaining batches: more than there can be.
const STEPS_TO_THE_END: usize = 1000;

fn place(seq: u64, index: u32) -> Place {
    Place { seq, index }
}

/// One record of the log. A stop leaves a prefix of the log.
#[derive(Clone, Debug)]
enum Entry {
    Accepted(Vec<DevicePlace>),
    Noted(Vec<DevicePlace>),
    Settled(Vec<DevicePlace>),
}

/// A batch that is out of the buffer.
#[derive(Clone, Debug)]
struct Out {
    readings: Vec<DevicePlace>,
    class: Class,
    resumed: Option<usize>,
    may_be_stored: bool,
    /// Number of records that must be synced before the batch is sent.
    noted_at: usize,
}

/// A minimal model of the delivery: the log, the batches, and the readings that nodes have seen.
#[derive(Debug)]
struct Gateway {
    log: Vec<Entry>,
    /// Number of records that survive any stop.
    synced: usize,
    next_seq: u64,
    /// The readings in no batch, in the order of their places.
    loose: VecDeque<DevicePlace>,
    batches: BTreeMap<BatchId, Out>,
    resumption: Resumption,
    count: u64,
    generation: u64,
    /// The home of each device.
    homes: Vec<NodeIndex>,
    rule: Rule,
    /// The readings in the order in which they were first sent.
    sent: Vec<DevicePlace>,
}

/// The order of batches after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The order of [`Resumption`].
    Epochs,
    /// Noted batches go first, and loose readings after them: wrong.
    NotedFirst,
}

impl Gateway {
    fn new(rule: Rule) -> Gateway {
        Gateway {
            log: Vec::new(),
            synced: 0,
            next_seq: 1,
            loose: VecDeque::new(),
            batches: BTreeMap::new(),
            resumption: Resumption::of(&[]).1,
            count: 0,
            generation: 0,
            homes: vec![NodeIndex(0); usize::try_from(DEVICES).expect("few")],
            rule,
            sent: Vec::new(),
        }
    }

    fn live(&mut self, steps: &[u8], random: &mut fastrand::Rng) {
        for step in steps {
            match step {
                0..3 => self.accept(random),
                3..8 => self.gather(random),
                8..11 => self.send(random),
                11..14 => self.regroup(random),
                _ => self.crash(random),
            }
        }
    }

    fn end(&mut self, random: &mut fastrand::Rng) {
        for _ in 0..STEPS_TO_THE_END {
            self.gather(random);
            self.send(random);
        }
    }

    fn accept(&mut self, random: &mut fastrand::Rng) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let readings: Vec<_> = (0..random.u32(1..=REQUEST_MAX))
            .map(|index| (random.u64(..DEVICES), place(seq, index)))
            .collect();
        self.loose.extend(&readings);
        self.log.push(Entry::Accepted(readings));
        self.synced = self.log.len();
    }

    fn class(&self, device: u64) -> Class {
        let home = self.homes[usize::try_from(device).expect("few")];
        Class::Of { generation: self.generation, home, turn: device % TURNS }
    }

    /// Makes a batch of the first readings of a random class, and notes it.
    fn gather(&mut self, random: &mut fastrand::Rng) {
        let Some(lead) = random.choice(self.loose.iter().copied().collect::<Vec<_>>()) else { return };
        let class = self.class(lead.0);
        let of_class = |reading: &&DevicePlace| self.class(reading.0) == class;
        let Some(first) = self.loose.iter().find(of_class) else { return };
        let epoch_of = |reading: &DevicePlace| match self.rule {
            Rule::Epochs => self.resumption.epoch(*reading),
            Rule::NotedFirst => self.resumption.last_epoch(),
        };
        let epoch = epoch_of(first);
        let same = self.loose.iter().filter(of_class).take_while(|reading| epoch_of(reading) == epoch);
        let readings: Vec<_> = same.take(random.usize(1..=BATCH_MAX)).copied().collect();
        self.loose.retain(|reading| !readings.contains(reading));
        self.log.push(Entry::Noted(readings.clone()));
        self.count += 1;
        let out = Out { readings, class, resumed: None, may_be_stored: false, noted_at: self.log.len() };
        self.batches.insert(epoch.batch_id(BatchId(self.count)), out);
    }

    /// The batches that may be sent.
    fn due(&self) -> Vec<BatchId> {
        let mut older = Classes::default();
        let mut due = Vec::new();
        for (id, out) in &self.batches {
            let is_ahead =
                |reading: &DevicePlace| out.resumed.is_some_and(|nth| reading.1 < self.resumption.end(nth));
            let is_held = self.rule == Rule::Epochs && self.loose.iter().any(is_ahead);
            if !older.conflict(out.class) && !is_held {
                due.push(*id);
            }
            older.insert(out.class);
        }
        due
    }

    /// Sends a batch; its node stores it, and the answer arrives or is lost.
    fn send(&mut self, random: &mut fastrand::Rng) {
        let Some(id) = random.choice(self.due()) else { return };
        let Some(out) = self.batches.get_mut(&id) else { return };
        // Its note, and all records before it, are synced first.
        self.synced = self.synced.max(out.noted_at);
        let news = out.readings.iter().filter(|reading| !self.sent.contains(reading)).copied();
        let news: Vec<_> = news.collect();
        self.sent.extend(news);
        out.may_be_stored = true;
        if random.bool() {
            let out = self.batches.remove(&id).expect("it is there");
            self.log.push(Entry::Settled(out.readings));
        }
    }

    /// Takes some batches apart, as after a change of the nodes, and sometimes gives devices other homes.
    fn regroup(&mut self, random: &mut fastrand::Rng) {
        if random.u8(..4) == 0 {
            self.generation += 1;
            self.homes = self.homes.iter().map(|_| NodeIndex(random.usize(..2))).collect();
        }
        let mut classes = Classes::default();
        let mut back = Vec::new();
        for (id, out) in self.batches.iter().filter(|(_, out)| !out.may_be_stored) {
            if random.bool() || classes.conflict(out.class) {
                back.push(*id);
                classes.insert(out.class);
            }
        }
        for id in back {
            self.loose.extend(self.batches.remove(&id).expect("it is there").readings);
        }
        self.loose.make_contiguous().sort_by_key(|(_, place)| *place);
    }

    /// Stops at any point, and starts again from the log.
    fn crash(&mut self, random: &mut fastrand::Rng) {
        self.log.truncate(random.usize(self.synced..=self.log.len()));
        self.synced = self.log.len();
        let mut unsettled = BTreeSet::new();
        let mut notes: Vec<Vec<DevicePlace>> = Vec::new();
        for entry in &self.log {
            match entry {
                Entry::Accepted(readings) => {
                    unsettled.extend(readings.iter().map(|(device, place)| (*place, *device)))
                }
                Entry::Noted(readings) => {
                    notes.retain(|other| other.iter().all(|reading| !readings.contains(reading)));
                    notes.push(readings.clone());
                }
                Entry::Settled(readings) => {
                    notes.retain(|other| other.iter().all(|reading| !readings.contains(reading)));
                    readings.iter().for_each(|(device, place)| {
                        unsettled.remove(&(*place, *device));
                    });
                }
            }
        }
        let noted: BTreeSet<_> = notes.iter().flatten().map(|(device, place)| (*place, *device)).collect();
        self.loose = unsettled.difference(&noted).map(|(place, device)| (*device, *place)).collect();
        let (order, resumption) = Resumption::of(&notes);
        self.resumption = resumption;
        self.batches.clear();
        for (nth, index) in order.into_iter().enumerate() {
            let readings = notes[index].clone();
            let mut classes: Vec<_> = readings.iter().map(|(device, _)| self.class(*device)).collect();
            classes.dedup();
            let class = if let [one] = classes[..] { one } else { Class::Mixed };
            self.count += 1;
            let out = Out { readings, class, resumed: Some(nth), may_be_stored: true, noted_at: 0 };
            self.batches.insert(self.resumption.batch_id_of(nth, BatchId(self.count)), out);
        }
    }

    /// Whether the readings of each device were sent in order.
    fn is_in_order(&self) -> bool {
        let mut last = BTreeMap::new();
        self.sent.iter().all(|(device, place)| last.insert(*device, *place) < Some(*place))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn over_any_number_of_stops_each_devices_readings_are_sent_in_their_order(
        seed: u64,
        steps in prop::collection::vec(0..STEP_MAX, 1..80),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut gateway = Gateway::new(Rule::Epochs);
        gateway.live(&steps, &mut random);
        prop_assert!(gateway.is_in_order(), "{gateway:#?}");
        gateway.end(&mut random);
        // No batch waits for ever, and no reading is left behind.
        prop_assert!(gateway.batches.is_empty() && gateway.loose.is_empty(), "{gateway:#?}");
        prop_assert!(gateway.is_in_order(), "{gateway:#?}");
    }
}

#[test]
fn histories_detect_a_wrong_order() {
    let broken = (0..512).filter(|seed| {
        let mut random = fastrand::Rng::with_seed(*seed);
        let steps: Vec<u8> = (0..80).map(|_| random.u8(..STEP_MAX)).collect();
        let mut gateway = Gateway::new(Rule::NotedFirst);
        gateway.live(&steps, &mut random);
        gateway.end(&mut random);
        !gateway.is_in_order()
    });
    assert!(broken.count() > 10, "the histories are too tame to prove anything");
}

#[test]
fn a_noted_batch_goes_behind_loose_readings_accepted_before_it() {
    let (a, b) = (1, 2);
    let later = vec![(a, place(5, 0)), (b, place(6, 0))];
    let (order, resumption) = Resumption::of(std::slice::from_ref(&later));
    assert_eq!(order, [0]);
    let check = |reading: DevicePlace, is_before: bool| {
        assert_eq!(resumption.epoch(reading).is_before(0), is_before, "{reading:?}");
    };
    check((a, place(4, 9)), true);
    check((b, place(5, 7)), true);
    // For another device between these places, the place decides.
    check((3, place(5, 7)), true);
    check((3, place(6, 1)), false);
    check((a, place(7, 0)), false);
    // It cannot be behind one and before the other: the noted batch goes first.
    check((a, place(5, 7)), false);
    assert!(resumption.is_behind(place(6, 1)) && !resumption.is_behind(place(6, 0)));
}

#[test]
fn ids_sort_by_the_order_however_many_there_are() {
    let batches: Vec<Vec<DevicePlace>> = (0..3).map(|seq| vec![(seq, place(seq, 0))]).collect();
    let (_, resumption) = Resumption::of(&batches);
    let ids = [
        Epoch(0).batch_id(BatchId(900)),
        resumption.batch_id_of(0, BatchId(1)),
        Epoch(1).batch_id(BatchId(7)),
        resumption.batch_id_of(1, BatchId(2)),
        Epoch(2).batch_id(BatchId(5)),
        resumption.batch_id_of(2, BatchId(3)),
        resumption.last_epoch().batch_id(BatchId(4)),
        resumption.last_epoch().batch_id(BatchId(5)),
    ];
    assert!(ids.is_sorted_by(|one, other| one < other), "{ids:?}");
    assert_eq!(
        Epoch::FIRST.batch_id(BatchId(17)),
        BatchId(17),
        "without resumed batches the count is the id"
    );
    assert!(Epoch(usize::MAX / 4).batch_id(BatchId(1)) < Epoch(usize::MAX / 4).batch_id(BatchId(2)));
}

#[test]
fn batches_that_contradict_each_other_are_all_sent() {
    let (a, b) = (1, 2);
    let one = vec![(a, place(1, 0)), (b, place(4, 0))];
    let other = vec![(a, place(3, 0)), (b, place(2, 0))];
    let (order, _) = Resumption::of(&[one, other]);
    assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
}
