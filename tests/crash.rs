//! What is acknowledged is never lost, however often and whenever the gateway is killed.
//!
//! The real binary is killed again and again, under load, while it starts and while it stops. The nodes stand in
//! this process and outlive it: they answer as nodes do, and remember what came under which key.
//!
//! A run prints its seed; `FOREBAY_TEST_SEED=…` repeats it, as far as two processes can be repeated.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use support::process::{Finished, Process, directory, forebay};
use support::{
    Answer, FakeNode, LIMIT, ReceivedBatch, RunningGateway, eventually, reading, readings, to_json, to_ndjson,
};

const ROUNDS: usize = 26;
const NODES: usize = 3;
/// Clients that post at the same time.
const CLIENTS: usize = 6;
/// Longest that a client waits for an answer before it hangs up.
const PATIENCE: Duration = Duration::from_millis(400);

/// Small bounds, so that segments begin, are settled and go again all the time.
const SETTINGS: [(&str, &str); 13] = [
    ("server.listen", "127.0.0.1:0"),
    ("server.shutdown_timeout", "400ms"),
    ("buffer.path", "buffer"),
    ("buffer.max_bytes", "1MiB"),
    ("batch.max_readings", "40"),
    ("batch.max_bytes", "3KiB"),
    ("batch.max_age", "15ms"),
    ("cluster.timeout", "250ms"),
    ("cluster.max_in_flight", "4"),
    ("cluster.retry.initial", "5ms"),
    ("cluster.retry.max", "40ms"),
    ("cluster.health.probe", "20ms"),
    ("log.level", "info"),
];

/// How the nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Weather {
    /// They take everything.
    Fair,
    /// They do anything.
    Foul,
    /// They take nothing.
    Away,
}

/// The weather that all nodes have.
#[derive(Clone, Debug, Default)]
struct Sky(Arc<AtomicU8>);

impl Sky {
    fn set(&self, weather: Weather) {
        self.0.store(weather as u8, Ordering::Relaxed);
    }

    fn answer(&self, random: &mut fastrand::Rng) -> Answer {
        let millis = |range| Duration::from_millis(range);
        match self.0.load(Ordering::Relaxed) {
            0 => Answer::status(200),
            1 => match random.u8(..20) {
                0..=7 => Answer::status(200),
                8..=9 => Answer::status(200).after(millis(random.u64(1..60))),
                // Later than the gateway waits.
                10 => Answer::status(200).after(millis(300)),
                11..=12 => Answer::status(503),
                13..=15 => Answer::status(500).after_storing(),
                16 => Answer::hang_up(),
                17 => Answer::hang_up().after(millis(random.u64(1..30))),
                _ => Answer::hang_up().after_storing(),
            },
            _ if random.u8(..3) == 0 => Answer::hang_up(),
            _ => Answer::status(503).after(millis(random.u64(..10))),
        }
    }
}

/// How a round ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is killed as soon as it was started.
    KilledAtStart,
    /// It is killed at work.
    Killed,
    /// It is told to stop, and killed while it does.
    KilledAtStop,
    /// It is told to stop, and does.
    Stopped,
}

#[derive(Debug)]
struct Round {
    end: End,
    /// The weather in the first and in the second half.
    weather: [Weather; 2],
    half: Duration,
    /// From the start, or from the signal to stop, to the kill.
    grace: Duration,
}

impl Round {
    fn choose(random: &mut fastrand::Rng) -> Round {
        let weathers = [Weather::Fair, Weather::Foul, Weather::Foul, Weather::Away, Weather::Away];
        let end = match random.u8(..10) {
            0..=1 => End::KilledAtStart,
            2..=6 => End::Killed,
            7..=8 => End::KilledAtStop,
            _ => End::Stopped,
        };
        let mut weather = || weathers[random.usize(..weathers.len())];
        let weather = [weather(), weather()];
        let half = Duration::from_millis(random.u64(10..500));
        Round { end, weather, half, grace: Duration::from_micros(random.u64(..200_000)) }
    }
}

/// What a client asks to be promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Memory,
    Disk,
    Delivered,
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
struct Request {
    numbers: Range<usize>,
    promise: Promise,
    lines: bool,
    key: Option<String>,
    fate: Fate,
}

/// What a client knows of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was told that this promise holds.
    Promised { promise: Promise, at: Instant },
    /// It was told that nothing was taken.
    Refused,
    /// It was told nothing, or not for sure.
    Unknown,
}

impl Request {
    fn body(&self) -> (&'static str, Vec<u8>) {
        let readings: Vec<_> = self.numbers.clone().map(reading).collect();
        match &readings[..] {
            _ if self.lines => ("application/x-ndjson", to_ndjson(&readings)),
            [single] => ("application/json", single.to_string().into_bytes()),
            all => ("application/json", to_json(all)),
        }
    }

    fn path(&self) -> &'static str {
        match self.promise {
            Promise::Memory => "/v1/readings?ack=memory",
            Promise::Disk => "/v1/readings",
            Promise::Delivered => "/v1/readings?ack=delivered",
        }
    }
}

/// Where the gateway is at present, and whether the load goes on.
#[derive(Clone, Debug)]
struct Stage {
    address: watch::Receiver<Option<SocketAddr>>,
    over: Arc<AtomicBool>,
    /// The number of the next reading.
    next: Arc<AtomicUsize>,
}

/// Posts one request after the other.
struct Client {
    stage: Stage,
    random: fastrand::Rng,
    http: reqwest::Client,
    requests: Vec<Request>,
}

impl Client {
    fn new(stage: &Stage, seed: u64) -> Client {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Client { stage: stage.clone(), random: fastrand::Rng::with_seed(seed), http, requests: Vec::new() }
    }

    async fn run(mut self) -> Vec<Request> {
        while !self.stage.over.load(Ordering::Relaxed) {
            let request = self.choose();
            let fate = match request.key {
                Some(_) => self.post_until_promised(&request).await,
                None => self.post(&request).await,
            };
            if fate == Fate::Refused {
                sleep(Duration::from_millis(5)).await;
            }
            self.requests.push(Request { fate, ..request });
            if self.random.u8(..10) == 0 {
                self.repeat().await;
            }
        }
        self.requests
    }

    fn choose(&mut self) -> Request {
        let count = if self.random.bool() { 1 } else { self.random.usize(2..60) };
        let first = self.stage.next.fetch_add(count, Ordering::Relaxed);
        let promise = match self.random.u8(..10) {
            0 => Promise::Memory,
            1 => Promise::Delivered,
            _ => Promise::Disk,
        };
        let keyed = promise != Promise::Memory && self.random.u8(..4) == 0;
        let key = keyed.then(|| format!("client-{first}"));
        let lines = self.random.bool();
        Request { numbers: first..first + count, promise, lines, key, fate: Fate::Unknown }
    }

    /// Sends a request with a key again and again, also to the gateways to come.
    async fn post_until_promised(&mut self, request: &Request) -> Fate {
        let until = Instant::now() + 3 * LIMIT;
        loop {
            let fate = self.post(request).await;
            if matches!(fate, Fate::Promised { .. }) {
                return fate;
            }
            assert!(Instant::now() < until, "it is answered in time: {request:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a request with a key once more whose answer is known.
    async fn repeat(&mut self) {
        let keyed = self.requests.iter().filter(|request| request.key.is_some());
        let keyed: Vec<_> = keyed.collect();
        let Some(request) = self.random.choice(keyed).cloned() else { return };
        self.post(&request).await;
    }

    async fn post(&mut self, request: &Request) -> Fate {
        let address = *self.stage.address.wait_for(Option::is_some).await.expect("there is another round");
        let url = format!("http://{}{}", address.expect("it is there"), request.path());
        let (media_type, body) = request.body();
        let mut post = self.http.post(url).header("content-type", media_type).body(body);
        if let Some(key) = &request.key {
            post = post.header("idempotency-key", format!("\"{key}\""));
        }
        let answer = async {
            let response = post.send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.bytes().await?))
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok((status, body))) => fate(request, status, &body),
            Ok(Err(_)) | Err(_) => Fate::Unknown,
        }
    }
}

/// What an answer says.
fn fate(request: &Request, status: u16, body: &Bytes) -> Fate {
    let text = String::from_utf8_lossy(body);
    match status {
        202 => {
            let answer: Value = serde_json::from_slice(body).expect("JSON");
            assert_eq!(answer["accepted"], request.numbers.len(), "{text}");
            let promise = match answer["ack"].as_str() {
                Some("memory") => Promise::Memory,
                Some("disk") => Promise::Disk,
                Some("delivered") => Promise::Delivered,
                _ => panic!("{text}"),
            };
            Fate::Promised { promise, at: Instant::now() }
        }
        // It may be in the buffer and was not delivered before the stop.
        503 if request.promise == Promise::Delivered => Fate::Unknown,
        // An earlier attempt may have been taken.
        503 if request.key.is_some() => Fate::Unknown,
        503 => Fate::Refused,
        409 if request.key.is_some() => Fate::Unknown,
        other => panic!("{other} to {request:?}: {text}"),
    }
}

/// Everything that was seen.
struct Evidence {
    route: Route,
    requests: Vec<Request>,
    received: Vec<ReceivedBatch>,
}

impl Evidence {
    fn check(&self) {
        let bodies = self.bodies();
        let sent: HashSet<usize> = bodies.values().flat_map(|body| numbers(body)).collect();
        self.check_keys(&bodies);
        let arrived = self.arrived(&bodies);
        for Request { numbers, fate, key, promise, .. } in &self.requests {
            let there = numbers.clone().filter(|number| arrived.contains_key(number)).count();
            let what = format!("{numbers:?}, {promise:?}, {key:?}, {fate:?}");
            assert!(there == 0 || there == numbers.len(), "a request is taken whole: {there} of {what}");
            match *fate {
                Fate::Promised { promise: Promise::Delivered, at } => {
                    let in_time = |number: usize| arrived.get(&number).is_some_and(|stored| *stored <= at);
                    assert!(numbers.clone().all(in_time), "said to be delivered: {what}");
                }
                Fate::Promised { promise: Promise::Disk, .. } => {
                    assert_eq!(there, numbers.len(), "said to be on disk: {what}");
                }
                Fate::Refused => {
                    let is_sent = numbers.clone().any(|number| sent.contains(&number));
                    assert!(!is_sent, "refused, and sent: {what}");
                }
                Fate::Promised { promise: Promise::Memory, .. } | Fate::Unknown => {}
            }
        }
    }

    /// What came under each key, which is always the same.
    fn bodies(&self) -> HashMap<String, &Bytes> {
        let mut bodies: HashMap<String, &Bytes> = HashMap::new();
        for batch in &self.received {
            let known = *bodies.entry(batch.key()).or_insert(&batch.body);
            assert!(*known == batch.body, "the key {} carries other readings", batch.key());
        }
        bodies
    }

    /// Each reading has one key, so a node that honours keys stores none twice. Where devices have their own nodes, what
    /// no node has stored may come under another key later, after a node went out of use.
    fn check_keys(&self, bodies: &HashMap<String, &Bytes>) {
        let counts = |batch: &&ReceivedBatch| batch.is_stored() || self.route != SHARD;
        let stored = self.received.iter().filter(counts).map(ReceivedBatch::key);
        let mut keys = HashMap::new();
        for key in stored.collect::<HashSet<_>>() {
            for number in numbers(bodies[&key]) {
                let other = keys.insert(number, key.clone());
                assert!(other.is_none(), "the reading {number} has the keys {key} and {other:?}");
            }
        }
    }

    /// When each reading was stored first.
    fn arrived(&self, bodies: &HashMap<String, &Bytes>) -> HashMap<usize, Instant> {
        let mut stored: HashMap<String, Instant> = HashMap::new();
        for batch in self.received.iter().filter(|batch| batch.is_stored()) {
            let at = stored.entry(batch.key()).or_insert(batch.at);
            *at = batch.at.min(*at);
        }
        let numbers = |key: &String| numbers(bodies[key]);
        stored.iter().flat_map(|(key, at)| numbers(key).into_iter().map(|number| (number, *at))).collect()
    }
}

/// The numbers of the readings of a batch, which are as they were sent.
fn numbers(body: &Bytes) -> Vec<usize> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let number = |line: &[u8]| {
        let found: Value = serde_json::from_slice(line).expect("a line of JSON");
        let number = found["value"].as_u64().and_then(|number| number.try_into().ok()).expect("a number");
        assert_eq!(found, reading(number));
        number
    };
    lines.map(number).collect()
}

/// The gateway that is started again and again.
struct Victim<'a> {
    directory: &'a Path,
    nodes: String,
    route: Route,
}

impl Victim<'_> {
    fn launch(&self) -> Process {
        let settings = [&SETTINGS[..], self.route, &[("cluster.nodes", &self.nodes)]].concat();
        Process::launch(forebay(self.directory, &["serve"], &settings))
    }

    /// Starts it and looks at its books. Returns how many readings it found, too.
    async fn start(&self) -> (Process, u64) {
        let process = Mutex::new(self.launch());
        let listening = || std::future::ready(process.lock().expect("not poisoned").is_listening());
        eventually("it listens", listening).await;
        let process = process.into_inner().expect("not poisoned");
        let ledger = sound_ledger(&process.gateway()).await;
        (process, ledger["recovered"].as_u64().expect("a number"))
    }
}

/// The ledger, which adds up; nothing is damaged, and nothing is given up.
async fn sound_ledger(gateway: &RunningGateway) -> Value {
    let ledger = gateway.ledger().await;
    assert_eq!((&ledger["dead_lettered"], &ledger["dropped"]), (&0.into(), &0.into()), "{ledger}");
    let damaged = gateway.metric("forebay_buffer_damaged_records_total").await;
    assert_eq!(damaged, Some(0.0), "a crash is no damage");
    ledger
}

/// A crash is no reason to worry anybody, and nothing else has happened.
fn check_log(ended: &Finished) {
    for sign in ["ERROR", "panicked", "not whole", "passing over"] {
        assert!(!ended.stderr.contains(sign), "{sign} in\n{}", ended.stderr);
    }
}

/// One life of the gateway. Returns how many readings it found at its start.
async fn live(
    victim: &Victim<'_>,
    round: &Round,
    sky: &Sky,
    address: &watch::Sender<Option<SocketAddr>>,
) -> u64 {
    sky.set(round.weather[0]);
    if matches!(round.end, End::KilledAtStart) {
        let process = victim.launch();
        sleep(round.grace).await;
        check_log(&process.kill().await);
        return 0;
    }
    let (process, recovered) = victim.start().await;
    address.send_replace(Some(process.address()));
    sleep(round.half).await;
    sky.set(round.weather[1]);
    sleep(round.half).await;
    let ended = match round.end {
        End::KilledAtStart | End::Killed => process.kill().await,
        End::KilledAtStop => {
            process.terminate();
            sleep(round.grace).await;
            process.kill().await
        }
        End::Stopped => {
            process.terminate();
            process.ended().await.expect_status(0)
        }
    };
    address.send_replace(None);
    check_log(&ended);
    recovered
}

/// Numbers of the segments on disk.
fn segments(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory.join("buffer")).expect("the directory of the buffer");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.filter_map(|name| name.strip_suffix(".segment")?.parse().ok()).collect()
}

fn seed() -> u64 {
    let seed = std::env::var("FOREBAY_TEST_SEED").ok().map(|text| text.parse().expect("a whole number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FOREBAY_TEST_SEED={seed}");
    seed
}

/// The settings of a route.
type Route = &'static [(&'static str, &'static str)];

const SHARD: Route = &[("cluster.route", "shard")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_any_number_of_kills_and_arrives_under_one_key() {
    survive(&[("cluster.route", "balance")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_devices_have_their_own_nodes_kills_lose_nothing_either() {
    survive(SHARD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_batches_have_copies_kills_lose_nothing_either() {
    survive(&[("cluster.route", "replicate")]).await;
}

async fn survive(route: Route) {
    let mut random = fastrand::Rng::with_seed(seed());
    let sky = Sky::default();
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let (sky, mut random) = (sky.clone(), random.fork());
        nodes.push(FakeNode::choosing(move || sky.answer(&mut random)).await);
    }
    let directory = directory();
    let urls: Vec<_> = nodes.iter().map(FakeNode::url).collect();
    let victim = Victim { directory: directory.path(), nodes: urls.join(","), route };
    let (address, receiver) = watch::channel(None);
    let stage = Stage { address: receiver, over: Arc::default(), next: Arc::default() };
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(Client::new(&stage, random.u64(..)).run())).collect();

    let mut recovered = 0;
    for number in 0..ROUNDS {
        let round = Round::choose(&mut random);
        println!("round {number}: {round:?}");
        recovered += live(&victim, &round, &sky, &address).await;
    }

    sky.set(Weather::Fair);
    let (process, found) = victim.start().await;
    address.send_replace(Some(process.address()));
    stage.over.store(true, Ordering::Relaxed);
    let requests = timeout(3 * LIMIT, join_all(clients)).await.expect("every client gets its answer");
    let requests: Vec<_> = requests.into_iter().flat_map(|requests| requests.expect("no panic")).collect();
    let gateway = process.gateway();
    eventually("all is delivered", || async { sound_ledger(&gateway).await["buffered"] == 0 }).await;
    process.terminate();
    check_log(&process.ended().await.expect_status(0));
    let numbers = segments(directory.path());
    assert!(numbers.iter().all(|number| *number > ROUNDS as u64 / 2), "segments come and go: {numbers:?}");

    let received: Vec<_> = nodes.iter().flat_map(FakeNode::received).collect();
    let evidence = Evidence { route, requests, received };
    evidence.check();
    tell(&evidence, recovered + found);
    keys_are_known_after_the_last_start(&victim, &nodes, &evidence).await;
}

/// What the run was made of, and that it was not for nothing.
fn tell(evidence: &Evidence, recovered: u64) {
    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
    for request in &evidence.requests {
        let fate = match request.fate {
            Fate::Promised { promise, .. } => format!("{promise:?}"),
            Fate::Refused => "Refused".to_owned(),
            Fate::Unknown => "Unknown".to_owned(),
        };
        *fates.entry(fate).or_default() += 1;
    }
    let keys: HashSet<_> = evidence.received.iter().map(ReceivedBatch::key).collect();
    let received = evidence.received.len();
    println!("requests {fates:?}, batches {} sent {received} times, recovered {recovered}", keys.len());
    assert!(fates["Disk"] > 100 && recovered > 100 && received > keys.len(), "too little has happened");
}

/// Everything is settled on disk, too, and what was answered is answered again.
async fn keys_are_known_after_the_last_start(victim: &Victim<'_>, nodes: &[FakeNode], evidence: &Evidence) {
    let (process, recovered) = victim.start().await;
    assert_eq!(recovered, 0, "nothing is left");
    let (_address, receiver) = watch::channel(Some(process.address()));
    let stage = Stage { address: receiver, over: Arc::default(), next: Arc::default() };
    let mut client = Client::new(&stage, 0);
    for request in evidence.requests.iter().filter(|request| request.key.is_some()) {
        let fate = client.post(request).await;
        assert!(matches!(fate, Fate::Promised { .. }), "{fate:?} to {request:?}");
    }
    assert_eq!(sound_ledger(&process.gateway()).await["accepted"], 0, "nothing is taken again");
    process.terminate();
    check_log(&process.ended().await.expect_status(0));
    let received: usize = nodes.iter().map(FakeNode::requests).sum();
    assert_eq!(received, evidence.received.len(), "nothing is sent again");
}

#[tokio::test]
async fn a_key_is_known_after_two_kills_with_a_checkpoint_between_them() {
    let (directory, node) = (directory(), FakeNode::start().await);
    let victim = Victim { directory: directory.path(), nodes: node.url(), route: &[] };
    let post = async |process: &Process| {
        let gateway = process.gateway();
        let post = gateway.request("/v1/readings").header("idempotency-key", "\"once\"");
        gateway.send(post.body(to_json(&[reading(0)]))).await.expect_status(202);
    };
    let (process, _) = victim.start().await;
    post(&process).await;
    process.kill().await;

    let (process, _) = victim.start().await;
    let begun = segments(directory.path()).into_iter().max();
    let others = readings(1000);
    while segments(directory.path()).into_iter().max() <= begun.map(|begun| begun + 3) {
        process.gateway().post(&others).await.expect_status(202);
    }
    process.kill().await;

    let (process, _) = victim.start().await;
    post(&process).await;
    assert_eq!(process.gateway().account("accepted").await, 0, "it is not taken a second time");
}
