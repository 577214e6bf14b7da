//! The plan of a run: all of it follows from the seed.

use std::time::Duration;

use super::Promise;
use super::record::Reading;

/// From here on all is well.
pub const TROUBLE: Duration = Duration::from_secs(4);
/// Longest that a node is away, or a link, at a time.
const AWAY_MAX_MS: u64 = 1500;
const DEVICES_OF_A_CLIENT: usize = 3;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of the plan.
    pub seed: u64,
    /// The route, by its name.
    pub route: &'static str,
    /// Nodes that have a reading once it is delivered.
    pub copies: usize,
    /// How the nodes are.
    pub nodes: Vec<Temper>,
    /// Settings of the gateway.
    pub settings: Vec<(&'static str, String)>,
    /// The requests of each client, one after the other.
    pub clients: Vec<Vec<Post>>,
    /// The faults of the network and the nodes, in the order of time.
    pub troubles: Vec<(Duration, Trouble)>,
    /// Longest that a message is on its way.
    pub latency_max: Duration,
}

/// How a node is while there is trouble.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Out of a hundred requests, so many go wrong.
    pub foul_percent: u8,
    /// The seed of its choices.
    pub seed: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Post {
    /// Time since the request before.
    pub pause: Duration,
    /// Its readings.
    pub readings: Vec<Reading>,
    /// The acknowledgement that it asks for.
    pub ack: &'static str,
    /// Whether it is a line for each reading, instead of an array.
    pub lines: bool,
}

/// A fault of a node or of its link to the gateway, by the number of the node.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Nothing gets through any more.
    Partition(usize),
    /// Nothing gets from the gateway to the node.
    Deaf(usize),
    /// Nothing gets from the node to the gateway.
    Mute(usize),
    /// The link is whole again.
    Heal(usize),
    /// Packets are held up.
    Hold(usize),
    /// Packets that were held up arrive.
    Release(usize),
    /// The node dies.
    Crash(usize),
    /// It is started again.
    Bounce(usize),
}

impl Trouble {
    /// All names.
    pub const NAMES: [&str; 8] = ["partition", "deaf", "mute", "heal", "hold", "release", "crash", "bounce"];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Partition(_) => "partition",
            Trouble::Deaf(_) => "deaf",
            Trouble::Mute(_) => "mute",
            Trouble::Heal(_) => "heal",
            Trouble::Hold(_) => "hold",
            Trouble::Release(_) => "release",
            Trouble::Crash(_) => "crash",
            Trouble::Bounce(_) => "bounce",
        }
    }
}

impl Plan {
    /// The run that follows from a seed.
    pub fn new(seed: u64, promise: &Promise) -> Plan {
        let mut random = fastrand::Rng::with_seed(seed);
        let random = &mut random;
        let nodes = random.usize(promise.nodes.clone());
        let foul = [0, 20, 50, 80];
        Plan {
            seed,
            route: promise.route,
            copies: promise.copies,
            nodes: (0..nodes)
                .map(|_| Temper { foul_percent: pick(random, &foul), seed: random.u64(..) })
                .collect(),
            settings: settings(random, promise),
            clients: (0..random.usize(1..=3)).map(|client| posts(random, client)).collect(),
            troubles: troubles(random, nodes),
            latency_max: millis(random, 5..60),
        }
    }
}

fn settings(random: &mut fastrand::Rng, promise: &Promise) -> Vec<(&'static str, String)> {
    let own = promise.settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
    let mut settings = vec![
        ("server.request_timeout", "2s".to_owned()),
        ("buffer.max_readings", random.usize(30..300).to_string()),
        ("buffer.on_full", pick(random, &["reject", "wait"]).to_owned()),
        ("batch.max_readings", random.usize(1..30).to_string()),
        ("batch.max_age", text(millis(random, 5..150))),
        ("cluster.format", pick(random, &["ndjson", "json"]).to_owned()),
        ("cluster.timeout", text(millis(random, 250..900))),
        ("cluster.max_in_flight", random.usize(1..5).to_string()),
        ("cluster.retry.initial", text(millis(random, 5..60))),
        ("cluster.retry.max", text(millis(random, 100..600))),
        ("cluster.health.failures", random.usize(1..6).to_string()),
        ("cluster.health.probe", text(millis(random, 50..300))),
    ];
    settings.extend(own);
    settings
}

/// A client's requests: readings of its own devices, each of which counts upwards.
fn posts(random: &mut fastrand::Rng, client: usize) -> Vec<Post> {
    let count = random.usize(10..40);
    let pause_ms_max = u64::try_from(TROUBLE.as_millis()).expect("it is short") * 3 / 2 / count as u64;
    let mut number = 0;
    (0..count)
        .map(|_| {
            let readings = (0..random.usize(1..10)).map(|_| {
                number += 1;
                let device = format!("meter-{client}-{}", random.usize(..DEVICES_OF_A_CLIENT));
                Reading { device, number }
            });
            Post {
                readings: readings.collect(),
                pause: millis(random, 0..pause_ms_max),
                ack: pick(random, &["memory", "memory", "memory", "delivered"]),
                lines: random.bool(),
            }
        })
        .collect()
}

fn troubles(random: &mut fastrand::Rng, nodes: usize) -> Vec<(Duration, Trouble)> {
    type Pair = (fn(usize) -> Trouble, fn(usize) -> Trouble);
    let kinds: [Pair; 5] = [
        (Trouble::Partition, Trouble::Heal),
        (Trouble::Deaf, Trouble::Heal),
        (Trouble::Mute, Trouble::Heal),
        (Trouble::Hold, Trouble::Release),
        (Trouble::Crash, Trouble::Bounce),
    ];
    let mut troubles = Vec::new();
    for _ in 0..random.usize(0..8) {
        let (begin, end) = pick(random, &kinds);
        let at = Duration::from_millis(random.u64(..3800));
        let away = millis(random, 20..AWAY_MAX_MS);
        // Sometimes the whole cluster at once.
        let chosen = random.usize(..nodes);
        let is_hit = |node: &usize| random.u8(..6) == 0 || *node == chosen;
        for node in (0..nodes).filter(is_hit).collect::<Vec<_>>() {
            troubles.push((at, begin(node)));
            troubles.push((at + away, end(node)));
        }
    }
    // Sometimes there is no node at all until all trouble ends.
    if random.u8(..3) == 0 {
        let at = millis(random, 500..3500);
        let (begin, _) = pick(random, &kinds);
        troubles.retain(|(begun, _)| *begun < at);
        troubles.extend((0..nodes).map(|node| (at, begin(node))));
    }
    troubles.sort_by_key(|(at, _)| *at);
    troubles
}

/// One of several.
pub fn pick<T: Copy>(random: &mut fastrand::Rng, among: &[T]) -> T {
    among[random.usize(..among.len())]
}

/// A time of so many milliseconds.
pub fn millis(random: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

fn text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
