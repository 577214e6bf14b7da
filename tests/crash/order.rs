//! Where every device has its own node, its readings arrive in the order in which they were accepted, over any number
//! of kills.
//!
//! Three nodes come and go all the time, so that batches are taken apart and put together anew when the kill comes.
//! `FOREBAY_TEST_KILLS` says how many kills there are, `FOREBAY_BIN` which binary is killed; CONTRIBUTING.md has the
//! command for a long run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::support::arrivals::{assert_keys_carry_the_same, reading_of, received};
use crate::support::process::{Process, directory, forebay};
use crate::support::{Answer, FakeNode, LIMIT, ReceivedBatch, eventually, rounds, seed, to_ndjson};
use crate::victim::{check_log, sound_ledger};

/// Longest life between a start and its kill.
const LIFE_MAX: Duration = Duration::from_millis(150);
const NODES: usize = 3;
/// Clients that post at the same time, each readings of its own devices.
const CLIENTS: usize = 5;
const DEVICES_OF_A_CLIENT: usize = 8;

/// Small batches of many devices, nodes that go out of use with the first failure, and come back soon.
const SETTINGS: [(&str, &str); 15] = [
    ("server.listen", "127.0.0.1:0"),
    ("buffer.path", "buffer"),
    ("buffer.max_bytes", "1MiB"),
    ("batch.max_readings", "7"),
    ("batch.max_age", "4ms"),
    ("cluster.route", "shard"),
    ("cluster.timeout", "250ms"),
    ("cluster.max_in_flight", "2"),
    ("cluster.retry.initial", "3ms"),
    ("cluster.retry.max", "20ms"),
    ("cluster.health.failures", "1"),
    ("cluster.health.probe", "8ms"),
    ("cluster.health.max_ejected", "1.0"),
    ("dead_letter.path", "dead-letters"),
    ("log.level", "info"),
];

/// A reading, by its device and its place among the readings of that device.
type Name = (String, u64);

/// The answer to the request of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is on disk.
    Accepted,
    /// It was not taken.
    Refused,
    /// Nothing.
    Nothing,
}

/// The broken promises of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// Readings that arrived after a later one of their device.
    inversions: Vec<Name>,
    /// Readings that were acknowledged and did not arrive.
    lost: Vec<Name>,
    /// Readings that were stored under two keys.
    doubled: Vec<Name>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_any_number_of_kills_each_devices_readings_arrive_in_their_order() {
    let mut random = fastrand::Rng::with_seed(seed());
    let kills = std::env::var("FOREBAY_TEST_KILLS").ok();
    let kills = kills.map_or_else(|| rounds(10, 24), |text| text.parse().expect("a whole number"));
    let is_up: Arc<[AtomicBool; NODES]> = Arc::default();
    let mut nodes = Vec::new();
    for index in 0..NODES {
        nodes.push(node(index, &is_up, random.fork()).await);
    }
    let directory = directory();
    let urls = nodes.iter().map(FakeNode::url).collect::<Vec<_>>().join(",");
    let settings = [&SETTINGS[..], &[("cluster.nodes", urls.as_str())]].concat();
    let start = || start(|| Process::launch(forebay(directory.path(), &["serve"], &settings)));

    let (address, receiver) = watch::channel(None);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(post(client, receiver.clone(), Arc::clone(&over), random.fork())))
        .collect();
    let flapping = tokio::spawn(flap(Arc::clone(&is_up), random.fork()));
    for kill in 0..kills {
        let process = start().await;
        address.send_replace(Some(process.address()));
        sleep(LIFE_MAX.mul_f64(random.f64())).await;
        check_log(&process.kill().await);
        address.send_replace(None);
        if kill % 100 == 99 {
            println!("{} kills", kill + 1);
        }
    }
    flapping.abort();
    is_up.iter().for_each(|is_up| is_up.store(true, Ordering::Relaxed));
    let process = start().await;
    over.store(true, Ordering::Relaxed);
    address.send_replace(Some(process.address()));
    let told = timeout(LIMIT, join_all(clients)).await.expect("every client gets its answer");
    let told: BTreeMap<Name, Told> = told.into_iter().flat_map(|told| told.expect("no panic")).collect();
    let gateway = process.gateway();
    eventually("all is delivered", || async { sound_ledger(&gateway).await["buffered"] == 0 }).await;
    process.terminate();
    check_log(&process.ended().await.expect_status(0));

    let batches = received(&nodes.iter().collect::<Vec<_>>());
    assert_keys_carry_the_same(&batches);
    let wrong = Wrong::in_run(&told, &batches);
    println!(
        "{kills} kills, {} readings, {} inversions, {} lost, {} doubled",
        told.len(),
        wrong.inversions.len(),
        wrong.lost.len(),
        wrong.doubled.len()
    );
    assert_eq!(wrong, Wrong::default());
    assert!(told.len() > 10 * kills, "too little has happened");
}

/// A node that takes batches, some slowly, while it is up, and none while it is not.
async fn node(index: usize, is_up: &Arc<[AtomicBool; NODES]>, mut random: fastrand::Rng) -> FakeNode {
    let is_up = Arc::clone(is_up);
    FakeNode::choosing(move || match is_up[index].load(Ordering::Relaxed) {
        true => Answer::status(200).after(Duration::from_micros(random.u64(..4000))),
        false if random.u8(..4) == 0 => Answer::hang_up(),
        false => Answer::status(503),
    })
    .await
}

/// Has nodes go and come, one at a time.
async fn flap(is_up: Arc<[AtomicBool; NODES]>, mut random: fastrand::Rng) {
    loop {
        let node = &is_up[random.usize(..NODES)];
        node.fetch_not(Ordering::Relaxed);
        sleep(Duration::from_micros(random.u64(1_000..25_000))).await;
    }
}

/// Starts the gateway and waits until it listens.
async fn start(launch: impl Fn() -> Process) -> Process {
    let mut process = launch();
    let until = Instant::now() + LIMIT;
    while !process.is_listening() {
        assert!(Instant::now() < until, "it listens in time: {}", process.log());
        sleep(Duration::from_millis(1)).await;
    }
    process
}

/// Posts readings, one request after the other; each device counts upwards. Returns the answer for each reading.
async fn post(
    client: usize,
    mut address: watch::Receiver<Option<SocketAddr>>,
    over: Arc<AtomicBool>,
    mut random: fastrand::Rng,
) -> Vec<(Name, Told)> {
    let http = forebay_load::client::builder().build().expect("a client");
    let mut next = [0_usize; DEVICES_OF_A_CLIENT];
    let mut told = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let mut readings = Vec::new();
        let mut names = Vec::new();
        for _ in 0..random.usize(1..30) {
            let device = random.usize(..DEVICES_OF_A_CLIENT);
            let name = format!("meter-{client}-{device}");
            readings.push(reading_of(&name, next[device]));
            names.push((name, next[device] as u64));
            next[device] += 1;
        }
        let at = *address.wait_for(Option::is_some).await.expect("there is another round");
        let url = format!("http://{}/v1/readings", at.expect("it is there"));
        let request = http.post(url).header("content-type", "application/x-ndjson");
        let answer = timeout(LIMIT, request.body(to_ndjson(&readings)).send()).await.expect("an end");
        let fate = match answer.map(|answer| answer.status().as_u16()) {
            Ok(202) => Told::Accepted,
            Ok(503) => Told::Refused,
            Ok(other) => panic!("{other}"),
            Err(_) => Told::Nothing,
        };
        told.extend(names.into_iter().map(|name| (name, fate)));
        let pause = if fate == Told::Refused { 5_000 } else { random.u64(..4_000) };
        sleep(Duration::from_micros(pause)).await;
    }
    told
}

impl Wrong {
    /// Compares the answers to clients with the readings that nodes stored.
    fn in_run(told: &BTreeMap<Name, Told>, batches: &[ReceivedBatch]) -> Wrong {
        let mut stored: Vec<_> = batches.iter().filter(|batch| batch.is_stored()).collect();
        stored.sort_by_key(|batch| batch.at);
        let mut wrong = Wrong::default();
        let mut keys = BTreeSet::new();
        let mut arrived: HashMap<Name, usize> = HashMap::new();
        let mut last: HashMap<String, u64> = HashMap::new();
        for batch in stored.into_iter().filter(|batch| keys.insert(batch.key())) {
            for reading in batch.readings() {
                let device = reading["device"].as_str().expect("a name").to_owned();
                let number = reading["value"].as_u64().expect("a number");
                let name = (device.clone(), number);
                let times = arrived.entry(name.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    wrong.doubled.push(name);
                    continue;
                }
                let last = last.entry(device).or_default();
                if number < *last {
                    wrong.inversions.push(name);
                }
                *last = number.max(*last);
            }
        }
        let is_lost =
            |(name, told): &(&Name, &Told)| **told == Told::Accepted && !arrived.contains_key(*name);
        wrong.lost = told.iter().filter(is_lost).map(|(name, _)| name.clone()).collect();
        wrong
    }
}
