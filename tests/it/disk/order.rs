//! Where every device has its own node, its readings arrive in their order, whenever the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use forebay::buffer::disk;
use forebay::gateway::{Gateway, GatewayParts};
use forebay::metrics::Metrics;
use forebay_wal::faulty_fs::FaultyFs;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::support::arrivals::{assert_keys_carry_the_same, by_device, numbers, reading_of, received};
use crate::support::{
    Answer, FakeNode, Reading, RunningGateway, TestGateway, eventually, rounds, seed, uplink,
};

/// The power goes within so many calls of the file system: between two that a failover makes, at one time or another.
const CALLS_TO_THE_END: u32 = 30;
const NODES: usize = 3;
const CLIENTS: usize = 3;
const DEVICES_OF_A_CLIENT: usize = 8;
/// Set while a node takes batches.
const UP: u8 = 1;
/// Set while there is power.
const POWERED: u8 = 2;

async fn start(gateway: TestGateway, fs: &FaultyFs) -> Gateway {
    let config = gateway.config();
    let metrics = Arc::new(Metrics::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let buffer = disk::open_on(Arc::new(fs.clone()), &config.buffer, NODES, &metrics).expect("it opens");
    let (uplink, random) = (uplink(&config.delivery), fastrand::Rng::new());
    Gateway::start_with(GatewayParts { listener, address, buffer, uplink, random, metrics }, &config)
}

fn device_and_number(reading: &Reading) -> (String, u64) {
    let device = reading["device"].as_str().expect("a name");
    (device.to_owned(), numbers(std::slice::from_ref(reading))[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one history, told in its order")]
async fn over_many_power_losses_each_devices_readings_arrive_in_their_order() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let states: [Arc<AtomicU8>; NODES] = std::array::from_fn(|_| Arc::new(AtomicU8::new(UP | POWERED)));
    let fs = FaultyFs::new(seed);
    let mut nodes = Vec::new();
    for state in states.clone() {
        let fs = fs.clone();
        // The power is off when the disk is: a real process would not have sent anything from then on.
        let answer = move || match state.load(Ordering::Relaxed) {
            state if state == UP | POWERED && !fs.is_out_of_calls() => Answer::status(200),
            _ => Answer::hang_up(),
        };
        nodes.push(FakeNode::choosing(answer).await);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let gateway = || {
        let gateway = TestGateway::new()
            .on_disk(directory.path())
            .set("cluster.route", "shard")
            .set("batch.max_readings", 5)
            .set("batch.max_age", "3ms")
            .set("cluster.max_in_flight", 2)
            .set("cluster.retry.initial", "2ms")
            .set("cluster.retry.max", "10ms")
            .set("cluster.health.failures", 1)
            .set("cluster.health.probe", "5ms")
            .set("server.shutdown_timeout", "0s");
        nodes.iter().fold(gateway, TestGateway::node)
    };

    let (mut next, mut acknowledged) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
    for _ in 0..rounds(10, 20) {
        let running = start(gateway(), &fs).await;
        let front = RunningGateway::at(running.address());
        let steps = random.usize(2..40);
        for step in 0..steps {
            if step + 2 == steps {
                fs.set_calls_left(Some(random.u32(..CALLS_TO_THE_END)));
            }
            states[random.usize(..NODES)].fetch_xor(UP, Ordering::Relaxed);
            let mut requests = Vec::new();
            for client in 0..CLIENTS {
                let mut readings = Vec::new();
                for _ in 0..random.usize(1..25) {
                    let device = format!("meter-{client}-{}", random.usize(..DEVICES_OF_A_CLIENT));
                    let number = next.entry(device.clone()).or_default();
                    readings.push(reading_of(&device, *number));
                    *number += 1;
                }
                requests.push(readings);
            }
            let replies = join_all(requests.iter().map(|readings| front.post(readings))).await;
            for (readings, reply) in requests.iter().zip(replies) {
                if reply.status == 202 {
                    acknowledged.extend(readings.iter().map(device_and_number));
                } else {
                    assert!(fs.is_out_of_calls(), "{}", reply.text());
                    reply.expect_status(503);
                }
            }
            sleep(Duration::from_micros(random.u64(..3_000))).await;
        }
        // From here on nobody hears of anything that the gateway does.
        states.iter().for_each(|state| _ = state.fetch_and(!POWERED, Ordering::Relaxed));
        fs.crash();
        let _ = running.stop().await;
        states.iter().for_each(|state| _ = state.fetch_or(POWERED, Ordering::Relaxed));
    }
    states.iter().for_each(|state| state.store(UP | POWERED, Ordering::Relaxed));
    let running = start(gateway(), &fs).await;
    let front = RunningGateway::at(running.address());
    eventually("all is delivered", || async { front.account("buffered").await == 0 }).await;

    let batches = received(&nodes.iter().collect::<Vec<_>>());
    assert_keys_carry_the_same(&batches);
    let arrived = by_device(batches);
    for (device, numbers) in &arrived {
        assert!(numbers.is_sorted_by(|one, other| one < other), "{device}: {numbers:?}");
    }
    let arrived: BTreeSet<_> = arrived
        .into_iter()
        .flat_map(|(device, numbers)| numbers.into_iter().map(move |number| (device.clone(), number)))
        .collect();
    assert_eq!(acknowledged.difference(&arrived).collect::<Vec<_>>(), Vec::<&(String, u64)>::new());
}
