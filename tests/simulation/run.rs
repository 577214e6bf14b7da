//! One run: the gateway, its nodes and its clients, each a host of a simulated network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay::buffer::Rest;
use forebay::config::Config;
use forebay::delivery::Uplink;
use forebay::gateway::{Gateway, GatewayParts, StopOutcome};
use forebay::listener::Listener;
use forebay::metrics::Metrics;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

use super::clients::{self, GATEWAY, GATEWAY_PORT};
use super::node::{self, Node};
use super::plan::{Plan, TROUBLE, Trouble};
use super::record::{Record, Seen};
use super::support::TestGateway;
use super::wire::SimulatedWire;

/// How much time passes at once.
const TICK: Duration = Duration::from_millis(5);
/// Longest that a run may take.
const RUN_MAX: Duration = Duration::from_secs(90);

/// Where the gateway listens.
struct Door(TcpListener);

impl Listener for Door {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// Runs a plan to its end, and returns the record.
pub fn run(plan: &Plan) -> Seen {
    let mut sim = turmoil::Builder::new()
        .rng_seed(plan.seed)
        .tick_duration(TICK)
        .simulation_duration(RUN_MAX)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.latency_max)
        .tcp_capacity(1024)
        .enable_random_order()
        .build();
    let record = Record::default();
    let names: Vec<String> = (0..plan.nodes.len()).map(|number| format!("node-{number}")).collect();
    for (number, temper) in plan.nodes.iter().enumerate() {
        let node = Node::new(number, *temper, record.clone());
        sim.host(names[number].as_str(), move || node.clone().serve());
    }
    let stop = CancellationToken::new();
    let gateway = gateway(config(plan, &names), plan.seed, stop.clone(), record.clone());
    sim.client(GATEWAY, gateway);
    sim.client("clients", clients::run(plan.clone(), stop, record.clone()));

    let mut troubles = Troubles { plan, names, record: record.clone(), next: 0, coming_back: Vec::new() };
    loop {
        troubles.inflict(&mut sim);
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                record.fault(error);
                break;
            }
        }
    }
    drop(sim);
    std::mem::take(&mut *record.seen())
}

fn config(plan: &Plan, names: &[String]) -> Config {
    let gateway = TestGateway::new().set("cluster.route", plan.route);
    let gateway = plan.settings.iter().fold(gateway, |gateway, (key, value)| gateway.set(key, value));
    let url = |name: &String| format!("http://{name}:{}/v1/batches", node::PORT);
    names.iter().map(url).fold(gateway, TestGateway::node_at).config()
}

/// The gateway itself, until it is to stop.
async fn gateway(config: Config, seed: u64, stop: CancellationToken, record: Record) -> turmoil::Result {
    let address = SocketAddr::from(([0, 0, 0, 0], GATEWAY_PORT));
    let metrics = Arc::new(Metrics::new());
    let parts = GatewayParts {
        listener: Door(TcpListener::bind(address).await?),
        address,
        buffer: (config.buffer.kind().open)(&config.buffer, config.delivery.nodes.len(), &metrics)?,
        uplink: Uplink::new(Arc::new(SimulatedWire::default()), &config.delivery, |_| &[])?,
        random: fastrand::Rng::with_seed(seed),
        metrics,
    };
    let mut gateway = Gateway::start_with(parts, &config);
    tokio::select! { biased;
        () = stop.cancelled() => {}
        () = gateway.failed() => record.fault("a part of the gateway ended by itself"),
    }
    let ended = gateway.stop().await;
    if ended != (StopOutcome { undelivered: 0, rest: Rest::Lost, failed: false }) {
        record.fault(format_args!("the gateway stopped with {ended:?}"));
    }
    Ok(())
}

/// Inflicts the faults of the plan on nodes and links, and the nodes' own.
struct Troubles<'a> {
    plan: &'a Plan,
    names: Vec<String>,
    record: Record,
    /// The next trouble of the plan.
    next: usize,
    /// Dead nodes, and when they are started again.
    coming_back: Vec<(Duration, usize)>,
}

impl Troubles<'_> {
    /// Does everything that is due before the next step.
    fn inflict(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let deaths = std::mem::take(&mut self.record.seen().deaths);
        for (node, back_after) in deaths {
            self.coming_back.push((now + back_after, node));
            self.apply(sim, Trouble::Crash(node));
        }
        while let Some((_, trouble)) = self.plan.troubles.get(self.next).filter(|(at, _)| *at <= now) {
            self.next += 1;
            self.apply(sim, *trouble);
        }
        let (due, later) = std::mem::take(&mut self.coming_back).into_iter().partition(|(at, _)| *at <= now);
        self.coming_back = later;
        due.into_iter().for_each(|(_, node)| self.apply(sim, Trouble::Bounce(node)));
        if now >= TROUBLE && now < TROUBLE + TICK {
            self.end_all(sim);
        }
    }

    /// From here on all is well.
    fn end_all(&mut self, sim: &mut Sim<'_>) {
        self.next = self.plan.troubles.len();
        self.coming_back.clear();
        for node in 0..self.names.len() {
            self.apply(sim, Trouble::Release(node));
            self.apply(sim, Trouble::Bounce(node));
        }
    }

    fn apply(&self, sim: &mut Sim<'_>, trouble: Trouble) {
        let name = |node: usize| self.names[node].as_str();
        match trouble {
            Trouble::Partition(node) => sim.partition(GATEWAY, name(node)),
            Trouble::Deaf(node) => sim.partition_oneway(GATEWAY, name(node)),
            Trouble::Mute(node) => sim.partition_oneway(name(node), GATEWAY),
            Trouble::Heal(node) => sim.repair(GATEWAY, name(node)),
            Trouble::Hold(node) => sim.hold(GATEWAY, name(node)),
            Trouble::Release(node) => sim.release(GATEWAY, name(node)),
            Trouble::Crash(node) => sim.crash(name(node)),
            Trouble::Bounce(node) if sim.is_host_running(name(node)) => {}
            Trouble::Bounce(node) => sim.bounce(name(node)),
        }
        let mut seen = self.record.seen();
        seen.count(trouble.name());
        seen.trace.push(format!("{:?}: {trouble:?}", sim.elapsed()));
    }
}
