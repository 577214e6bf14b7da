//! The delivery loop: one task that owns the batches and decides; further tasks send requests and write dead letters.

mod burying;
mod eviction;
mod filling;
mod hope;
mod pending;
mod refusals;
mod regrouping;
mod sending;
mod stragglers;
mod transforming;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::batch::{BatchId, BatchKeys};
use super::dead_letter::DeadLetters;
use super::lanes::Lanes;
use super::lookups::{Lookups, Resolution};
use super::nodes::{ClusterNodes, NodesConfig};
use super::resumption::Resumption;
use super::shards::Shards;
use super::transforms::Transforms;
use super::transport::{Answer, Transport, TransportConfig};
use super::uplink::Uplink;
use super::{DeliveryConfig, DeliveryStatus};
use crate::buffer::lease::OpenWindows;
use crate::buffer::{Accounts, Amount, Kept, Outlet, Part};
use crate::metrics::Metrics;
use crate::node_id::NodeIndex;
use crate::routing::Placement;
use crate::tasks;
use crate::via::Via;
use burying::Buried;
use pending::{Pending, State};
use stragglers::Stragglers;
use transforming::{Needed, ToDerive};

/// Requests that are pulled from the buffer at once.
const PULL_MAX: usize = 256;
/// Pause after a pull that emptied the buffer. Under load it spares a wake-up for every request; a lone reading is
/// pulled at once.
const PULL_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause before a retry once the gateway stops: whatever the node asked for, there is no later.
const DRAIN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a stop goes on while nothing that waits could get on, if what is not delivered is kept for the next start. A second is
/// promised, and the rest of the stop is within it.
const HOPELESS_MAX: Duration = Duration::from_millis(700);
/// How often it is looked whether all is read that has to go before a batch that is resumed: reading what is settled
/// wakes nobody.
const RESUME_LOOK_EVERY: Duration = Duration::from_millis(5);
/// Batches that are closed in one turn of the loop, so that a large request does not hold its thread for long.
const CLOSE_MAX: usize = 4;
/// Shortest pause before a reading is tried again whose dead letter could not be written.
const BURY_PAUSE: Duration = Duration::from_secs(1);
/// Shortest time between two lines about windows that fill the buffer.
const WINDOWS_TELL_EVERY: Duration = Duration::from_secs(60);

/// The signals that stop the worker.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Drain: no more readings will arrive, so batches no longer wait for them.
    pub drain: CancellationToken,
    /// Abort: stop at once; undelivered readings stay unsettled.
    pub abort: CancellationToken,
}

/// Delivers the readings of the buffer.
#[derive(Debug)]
pub struct Worker {
    config: DeliveryConfig,
    outlet: Box<dyn Outlet>,
    accounts: Arc<Accounts>,
    metrics: Arc<Metrics>,
    transport: Transport,
    via: Arc<Via>,
    nodes: ClusterNodes,
    lookups: Lookups,
    signals: Signals,
    random: fastrand::Rng,
    /// What the route asks of the delivery.
    placement: Placement,
    /// How devices are divided among the nodes, for a route that does.
    shards: Shards,
    /// Which nodes were to be used when that was done.
    seen_availability: u64,
    /// Whether it may have to be done again all the same.
    must_regroup: bool,
    /// In which order the batches of the last run go, and what lies between them.
    resumption: Resumption,
    lanes: Lanes,
    dead_letters: DeadLetters,
    /// Readings that become dead letters.
    burying: JoinSet<Buried>,
    stragglers: Stragglers,
    straggler_bytes: usize,
    /// When the stop no longer waits for copies that are on their way, once all else is done.
    leave_at: Option<Instant>,
    /// Since when nothing that the stop waits for could get on.
    hopeless_since: Option<Instant>,
    transforms: Transforms,
    /// Readings that were pulled and have not been through the transforms, the oldest first.
    untransformed: VecDeque<Part>,
    /// The same of readings that transforms made; they go first, so that what is made does not pile up.
    made: VecDeque<Part>,
    /// What the buffer has kept, or not.
    kept: mpsc::UnboundedReceiver<Kept>,
    /// Whether it keeps nothing any more.
    keeps_nothing: bool,
    /// Results that are being put into the buffer, in their order: what their windows no longer need then.
    deriving: VecDeque<Vec<Arc<OpenWindows>>>,
    /// Results that could not be.
    to_derive: Vec<ToDerive>,
    /// Delivered readings that windows still need.
    needed: Vec<Needed>,
    /// How many they are.
    needed_readings: u64,
    /// When others are told again at the earliest what the transforms do.
    tell_at: Instant,
    /// Whether something may have changed since.
    is_untold: bool,
    /// When it was told last that windows fill the buffer.
    told_of_full_windows: Option<Instant>,
    /// Readings that are in no batch yet, the oldest first.
    pulled: VecDeque<Part>,
    /// Where the outlet puts what it hands out.
    fresh: Vec<Part>,
    /// When the buffer may be asked again.
    next_pull: Instant,
    /// Whether the outlet said that nothing more will come.
    exhausted: bool,
    draining: bool,
    /// Closed batches by their number, the oldest first.
    batches: BTreeMap<BatchId, Pending>,
    sending: JoinSet<(Answer, Duration)>,
    /// Which batch goes to which node in which task.
    tasks: HashMap<Id, Sending>,
    /// Readings that are on their way, and the bytes of all records they belong to.
    in_flight: Amount,
}

/// What is on its way in a task.
#[derive(Clone, Debug)]
struct Sending {
    /// The number of the batch.
    number: BatchId,
    node: NodeIndex,
    /// The key, by which a batch is told from another piece of it.
    key: String,
}

impl Worker {
    /// Sets the delivery up; [`Worker::run`] starts it.
    #[expect(clippy::too_many_lines, reason = "it makes all that the loop has")]
    pub fn new(
        uplink: Uplink,
        config: DeliveryConfig,
        mut outlet: Box<dyn Outlet>,
        metrics: Arc<Metrics>,
        signals: Signals,
        mut random: fastrand::Rng,
    ) -> Worker {
        let batch_keys = BatchKeys::new(&mut random);
        let via = Arc::new(Via::new(random.u128(..)));
        let Uplink { wire, credentials } = uplink;
        let transport =
            TransportConfig { via: Arc::clone(&via), ..TransportConfig::new(&config, credentials) };
        let transport = Transport::new(transport, wire);
        let now = Instant::now();
        let placement = config.route.placement();
        let needed = if placement == Placement::Copies { config.replicate.quorum } else { 1 };
        let worker = Worker {
            nodes: ClusterNodes::new(
                &config.nodes,
                NodesConfig {
                    health: config.health,
                    max_in_flight: config.max_in_flight,
                    timeout: config.timeout,
                },
                now,
            ),
            lookups: Lookups::start(
                &config.nodes,
                config.resolve_every,
                &config.resolver,
                config.own_address,
            ),
            placement,
            shards: Shards::new(config.max_in_flight),
            seen_availability: 0,
            must_regroup: true,
            resumption: Resumption::default(),
            lanes: Lanes::new(config.batch, config.store.encoder(), batch_keys),
            dead_letters: DeadLetters::new(config.dead_letter.clone()),
            burying: JoinSet::new(),
            stragglers: Stragglers::default(),
            straggler_bytes: 0,
            leave_at: None,
            hopeless_since: None,
            accounts: Arc::clone(outlet.accounts()),
            kept: outlet.kept(),
            keeps_nothing: false,
            transforms: Transforms::new(&config.transforms),
            untransformed: VecDeque::new(),
            made: VecDeque::new(),
            deriving: VecDeque::new(),
            to_derive: Vec::new(),
            needed: Vec::new(),
            needed_readings: 0,
            tell_at: now,
            is_untold: !config.transforms.is_empty(),
            told_of_full_windows: None,
            config,
            outlet,
            metrics,
            transport,
            via,
            signals,
            random,
            pulled: VecDeque::new(),
            fresh: Vec::new(),
            next_pull: now,
            exhausted: false,
            draining: false,
            batches: BTreeMap::new(),
            sending: JoinSet::new(),
            tasks: HashMap::new(),
            in_flight: Amount::default(),
        };
        worker.nodes.status().set_needed(needed);
        worker
    }

    /// The status of the delivery, for other modules.
    pub fn status(&self) -> Arc<DeliveryStatus> {
        Arc::clone(self.nodes.status())
    }

    /// Which way readings come, for those who take them in.
    pub fn via(&self) -> Arc<Via> {
        Arc::clone(&self.via)
    }

    /// Where readings go that nodes refuse.
    pub fn dead_letters(&self) -> DeadLetters {
        self.dead_letters.clone()
    }

    /// Delivers until the buffer is closed and everything in it is settled, until it is told to abort, or until it is
    /// told to drain and nothing that is left could get on, where the buffer keeps it.
    ///
    /// Dropped half-way, batches on their way may have reached their node or not; nothing is settled that was not
    /// answered.
    pub async fn run(mut self) {
        self.regroup();
        self.resume(Instant::now());
        loop {
            let now = Instant::now();
            self.regroup();
            let has_more = self.transform(now) | self.fill(now);
            self.bury_due(now);
            self.dispatch(now);
            self.dispatch_stragglers(now);
            self.show_oldest();
            if self.is_done(now) {
                return self.give_up_stragglers();
            }
            if self.is_hopeless(now) {
                info!("{}", self.why_hopeless());
                return self.give_up_stragglers();
            }
            let alarm = self.alarm(now);
            let may_pull = self.may_pull(now);
            // In this order: stop, make room, then take more. All futures here can be dropped without loss.
            tokio::select! { biased;
                () = self.signals.abort.cancelled() => return self.give_up_stragglers(),
                Some(done) = self.sending.join_next_with_id(), if !self.sending.is_empty() => {
                    self.on_done(tasks::unless_cancelled(done).await);
                }
                Some(done) = self.burying.join_next(), if !self.burying.is_empty() => {
                    self.on_buried(tasks::outcome(done).await, Instant::now());
                }
                () = self.accounts.eviction_wanted() => self.evict(),
                () = self.signals.drain.cancelled(), if !self.draining => self.start_draining(Instant::now()),
                found = self.lookups.next() => self.on_found(&found),
                kept = self.kept.recv(), if !self.keeps_nothing => self.on_kept(kept, Instant::now()),
                count = self.outlet.pull(&mut self.fresh, PULL_MAX), if may_pull => self.on_pulled(count),
                () = std::future::ready(()), if has_more => {}
                () = sleep_until(alarm), if alarm.is_some() => {}
            }
        }
    }

    /// Nothing more will come, and time is short: what waits is tried at once, also at nodes that asked to be left
    /// alone, and retries start from the shortest delay again. A node may have come back without anybody noticing.
    fn start_draining(&mut self, now: Instant) {
        self.draining = true;
        self.nodes.ask_all(now);
        for Pending { batch, state, .. } in self.batches.values_mut() {
            if let State::ToBury { due } = state {
                *due = now;
            }
            if let Some(due) = state.due_mut() {
                batch.failures = 0;
                *due = now;
            }
        }
    }

    /// A name was looked up: nodes may have appeared, gone or come back.
    fn on_found(&mut self, Resolution { source, addresses }: &Resolution) {
        self.must_regroup = true;
        for gone in self.nodes.set_addresses(*source, addresses, &self.accounts, Instant::now()) {
            self.metrics.forget_node(gone.as_str());
        }
        self.ask_refusers_again();
    }

    /// Longest that anything is left alone at present.
    fn pause_max(&self) -> Duration {
        if self.draining { DRAIN_PAUSE_MAX } else { Duration::MAX }
    }

    /// Whether everything is settled. Copies that are on their way then get a little more time.
    fn is_done(&mut self, now: Instant) -> bool {
        if !self.exhausted || !self.has_only_stragglers() || !self.is_done_transforming() {
            return false;
        }
        let leave_at = *self.leave_at.get_or_insert(now + DRAIN_PAUSE_MAX);
        leave_at <= now || !self.stragglers.are_on_their_way()
    }

    /// Whether nothing is to be settled.
    fn has_only_stragglers(&self) -> bool {
        self.pulled.is_empty() && self.batches.is_empty() && self.lanes.is_empty()
    }

    /// Shows others when the oldest reading was accepted that is not settled, and that waits for each node alone.
    fn show_oldest(&self) {
        let batches = self.batches.values().filter_map(|pending| pending.batch.oldest).min();
        let pulled = self.pulled.front().map(Part::accepted_at);
        let untransformed = self.untransformed.front().map(Part::accepted_at);
        let made = self.made.front().map(Part::accepted_at);
        let oldest = [batches, self.lanes.oldest(), pulled, untransformed, made].into_iter().flatten().min();
        self.nodes.status().set_oldest(oldest);
        if self.placement == Placement::ByDevice {
            let batches =
                self.batches.values().filter_map(|pending| Some((pending.lane?, pending.batch.oldest?)));
            let mut oldest: HashMap<NodeIndex, Instant> = HashMap::new();
            for (lane, accepted_at) in batches.chain(self.lanes.oldest_of_each()) {
                let known = oldest.entry(lane.target).or_insert(accepted_at);
                *known = accepted_at.min(*known);
            }
            self.nodes.set_oldest_waiting(|node| oldest.get(&node).copied());
        }
    }

    /// When something is to be done even if nothing happens.
    fn alarm(&self, now: Instant) -> Option<Instant> {
        let close = self.lanes.due().filter(|(lane, _)| self.has_room(*lane)).map(|(_, due)| due);
        let copies = self.copies();
        let has_due = self.batches.values().any(|pending| pending.is_due(copies, now));
        let next_change = if has_due { self.nodes.next_change(now) } else { None };
        let retry = self.batches.values().filter_map(|pending| match pending.state {
            // A place at a node is what it waits for.
            State::Waiting { .. } if pending.is_due(copies, now) => next_change,
            State::Waiting { due } => Some(due).filter(|due| *due > now),
            State::ToBury { due } => Some(due),
            State::Noting { .. } | State::Burying => None,
        });
        let pull = (self.wants_more() && self.next_pull > now).then_some(self.next_pull);
        let transform = self.transform_alarm();
        let resume = self.resumption_alarm(now);
        let leave = self.hopeless_since.map(|since| since + HOPELESS_MAX);
        retry
            .chain(close)
            .chain(pull)
            .chain(transform)
            .chain(leave)
            .chain(resume)
            .chain(self.straggler_alarm(now))
            .min()
    }
}

async fn sleep_until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
