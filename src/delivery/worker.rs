//! The delivery loop: one task that owns the batches and decides; tasks of its own carry them out.

mod eviction;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::batch::{Batch, BatchKeys};
use super::batcher::Batcher;
use super::lookups::{Found, Lookups};
use super::nodes::{Attempt, Nodes, NodesConfig};
use super::transport::{Answer, Parcel, Transport, TransportConfig, Verdict};
use super::wire::{HttpClient, TransportError, Wire};
use super::{DeliveryConfig, DeliveryStatus};
use crate::buffer::ledger::Outcome;
use crate::buffer::{Accounts, Amount, NoteId, Noted, Noting, Outlet, Part, Resumed};
use crate::metrics::Metrics;

/// Requests that are pulled from the buffer at once.
const PULL_MAX: usize = 256;
/// Pause after a pull that emptied the buffer. Under load it spares a wake-up for every request; a lone reading is
/// pulled at once.
const PULL_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause before a retry once the gateway stops: whatever the node asked for, there is no later.
const DRAIN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Batches that are closed in one turn of the loop, so that a large request does not hold its thread for long.
const CLOSE_MAX: usize = 4;

/// How the worker is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Nothing more will come: batches no longer wait for more readings.
    pub drain: CancellationToken,
    /// Stop at once; what is not delivered stays unsettled.
    pub abort: CancellationToken,
}

/// Delivers what the buffer hands out.
#[derive(Debug)]
pub struct Worker {
    config: DeliveryConfig,
    outlet: Box<dyn Outlet>,
    accounts: Arc<Accounts>,
    metrics: Arc<Metrics>,
    transport: Transport,
    nodes: Nodes,
    lookups: Lookups,
    signals: Signals,
    random: fastrand::Rng,
    batcher: Batcher,
    /// Readings that were pulled and are in no batch yet, the oldest first.
    pulled: VecDeque<Part>,
    /// Where the outlet puts what it hands out.
    fresh: Vec<Part>,
    /// When the buffer may be asked again.
    next_pull: Instant,
    /// Whether the outlet said that nothing more will come.
    exhausted: bool,
    draining: bool,
    /// Closed batches by their number, the oldest first.
    batches: BTreeMap<u64, Pending>,
    sending: JoinSet<(Answer, Duration)>,
    /// Which batch goes to which node in which task.
    tasks: HashMap<Id, Sending>,
    /// Readings that are on their way, and the bytes of all records they belong to.
    in_flight: Amount,
}

#[derive(Debug)]
struct Pending {
    batch: Batch,
    /// What the log knows it by.
    note: Option<NoteId>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not to be sent before the log has noted what it is made of; to wait until `due` then.
    Noting { due: Instant },
    /// To be sent when this moment has come and a node has a free place.
    Waiting { due: Instant },
    /// On its way.
    Sending,
}

impl State {
    /// When it is to be sent at the earliest; `None` if it is on its way.
    fn due(self) -> Option<Instant> {
        match self {
            State::Noting { due } | State::Waiting { due } => Some(due),
            State::Sending => None,
        }
    }

    fn due_mut(&mut self) -> Option<&mut Instant> {
        match self {
            State::Noting { due } | State::Waiting { due } => Some(due),
            State::Sending => None,
        }
    }
}

/// What the outlet is asked for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Note,
    Readings,
}

/// What came of it.
#[derive(Debug)]
enum Heard {
    Noted(Noted),
    /// So many requests; none means that nothing more will come.
    Pulled(usize),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    number: u64,
    node: usize,
}

impl Worker {
    /// Sets the delivery up; [`Worker::run`] starts it.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if there is no HTTP client.
    pub fn new(
        config: DeliveryConfig,
        outlet: Box<dyn Outlet>,
        metrics: Arc<Metrics>,
        signals: Signals,
        random: fastrand::Rng,
    ) -> Result<Worker, TransportError> {
        let client = HttpClient::new(config.timeout, config.max_in_flight)?;
        Ok(Worker::over(Arc::new(client), config, outlet, metrics, signals, random))
    }

    /// Sets the delivery up over another wire than the real one.
    pub fn over(
        wire: Arc<dyn Wire>,
        config: DeliveryConfig,
        outlet: Box<dyn Outlet>,
        metrics: Arc<Metrics>,
        signals: Signals,
        mut random: fastrand::Rng,
    ) -> Worker {
        let transport = TransportConfig {
            timeout: config.timeout,
            compression: config.compression,
            content_type: config.format.content_type(),
            headers: config.headers.clone(),
        };
        let transport = Transport::new(transport, wire);
        let now = Instant::now();
        Worker {
            nodes: Nodes::new(
                &config.nodes,
                NodesConfig {
                    health: config.health,
                    max_in_flight: config.max_in_flight,
                    timeout: config.timeout,
                },
                now,
            ),
            lookups: Lookups::start(&config.nodes, config.resolve_every, &config.resolver),
            batcher: Batcher::new(config.batch, config.format, BatchKeys::new(&mut random)),
            accounts: Arc::clone(outlet.accounts()),
            config,
            outlet,
            metrics,
            transport,
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
        }
    }

    /// What others may know of the delivery.
    pub fn status(&self) -> Arc<DeliveryStatus> {
        Arc::clone(self.nodes.status())
    }

    /// Delivers until the buffer is closed and everything in it is settled, or until it is told to abort.
    ///
    /// Dropped half-way, batches on their way may have reached their node or not; nothing is settled that was not
    /// answered.
    pub async fn run(mut self) {
        self.resume(Instant::now());
        loop {
            let now = Instant::now();
            if self.is_noting() && self.may_pull(now) {
                self.pull_at_hand();
            }
            self.fill(now);
            self.dispatch(now);
            self.nodes.status().set_oldest(self.oldest());
            if self.is_done() {
                return;
            }
            let alarm = self.alarm(now);
            let wish = self.wish(now);
            // In this order: stop, make room, then take more. All futures here can be dropped without loss.
            tokio::select! { biased;
                () = self.signals.abort.cancelled() => return,
                Some(done) = self.sending.join_next_with_id(), if !self.sending.is_empty() => self.on_done(done),
                () = self.accounts.eviction_wanted() => self.evict(),
                () = self.signals.drain.cancelled(), if !self.draining => self.start_draining(Instant::now()),
                found = self.lookups.next() => self.on_found(&found),
                heard = hear(&mut *self.outlet, &mut self.fresh, wish), if wish.is_some() => self.on_heard(heard),
                () = std::future::ready(()), if !self.pulled.is_empty() && self.has_place() => {}
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
            if let Some(due) = state.due_mut() {
                batch.failures = 0;
                *due = now;
            }
        }
    }

    /// A name was looked up: nodes may have appeared, gone or come back.
    fn on_found(&mut self, Found { source, addresses }: &Found) {
        for gone in self.nodes.set_addresses(*source, addresses, &self.accounts, Instant::now()) {
            self.metrics.forget_node(gone.as_str());
        }
    }

    /// Longest that anything is left alone at present.
    fn pause_max(&self) -> Duration {
        if self.draining { DRAIN_PAUSE_MAX } else { Duration::MAX }
    }

    fn may_pull(&self, now: Instant) -> bool {
        self.wants_more() && (self.next_pull <= now || self.draining)
    }

    fn wants_more(&self) -> bool {
        // For somebody who waits for room, what came meanwhile may be given up too.
        let someone_waits = || self.accounts.shortfall() != Amount::default();
        !self.exhausted && (self.pulled.is_empty() || someone_waits())
    }

    /// Whether some batch waits for its note.
    fn is_noting(&self) -> bool {
        self.batches.values().any(|pending| matches!(pending.state, State::Noting { .. }))
    }

    /// What the outlet is asked for next. It does one thing at a time: while a batch waits for its note, what is at
    /// hand is pulled without waiting for more.
    fn wish(&self, now: Instant) -> Option<Wish> {
        if self.is_noting() { Some(Wish::Note) } else { self.may_pull(now).then_some(Wish::Readings) }
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Noted(noted) => self.on_noted(noted),
            Heard::Pulled(count) => {
                self.exhausted = count == 0;
                self.take_fresh();
            }
        }
    }

    fn pull_at_hand(&mut self) {
        let at_hand = std::iter::from_fn(|| self.outlet.try_pull());
        self.fresh.extend(at_hand.take(PULL_MAX));
        self.take_fresh();
    }

    fn take_fresh(&mut self) {
        let count = self.fresh.len();
        self.pulled.extend(self.fresh.drain(..));
        if count < PULL_MAX {
            self.next_pull = Instant::now() + PULL_PAUSE;
        }
        // Requests that came for dropped readings are now the oldest, and more may wait behind them.
        self.evict();
    }

    /// Whether one more batch may be out of the buffer.
    fn has_place(&self) -> bool {
        self.batches.len() < self.nodes.present_count() * self.config.max_in_flight
    }

    fn is_done(&self) -> bool {
        self.exhausted && self.pulled.is_empty() && self.batches.is_empty() && self.batcher.due().is_none()
    }

    /// Moves pulled readings into batches.
    fn fill(&mut self, now: Instant) {
        let mut closed = 0;
        while closed < CLOSE_MAX && self.has_place() {
            let Some(part) = self.pulled.front_mut() else { break };
            if let Some(batch) = self.batcher.add(part, now) {
                self.enqueue(batch, now);
                closed += 1;
            }
            if self.pulled.front().is_some_and(Part::is_empty) {
                self.pulled.pop_front();
            }
        }
        let nothing_more = self.draining && self.pulled.is_empty();
        if self.has_place() && self.batcher.due().is_some_and(|due| due <= now || nothing_more) {
            let batch = self.batcher.close();
            batch.into_iter().for_each(|batch| self.enqueue(batch, now));
        }
    }

    fn enqueue(&mut self, batch: Batch, now: Instant) {
        self.observe_batch(&batch);
        self.keep(batch, now);
    }

    /// Keeps a closed batch: to be noted first, and sent when `due` has come.
    fn keep(&mut self, batch: Batch, due: Instant) {
        let state = match self.outlet.note(batch.number, &batch.key, &batch.parts) {
            Noting::NotNeeded => State::Waiting { due },
            Noting::UnderWay => State::Noting { due },
        };
        self.batches.insert(batch.number, Pending { batch, note: None, state });
    }

    /// Lets a batch go on that has its note, or will not get one. If another batch has its number by now, nothing
    /// happens: that one has a note of its own to wait for.
    fn on_noted(&mut self, Noted { number, key, note }: Noted) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        let State::Noting { due } = pending.state else { return };
        if pending.batch.key == key {
            pending.note = note;
            pending.state = State::Waiting { due };
        }
    }

    /// Takes up the batches that were noted before the last stop, ahead of all new ones.
    fn resume(&mut self, now: Instant) {
        for Resumed { key, note, parts } in self.outlet.resumed() {
            let batch = self.batcher.resume(key, parts);
            self.observe_batch(&batch);
            let state = State::Waiting { due: now };
            self.batches.insert(batch.number, Pending { batch, note: Some(note), state });
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "histograms hold doubles")]
    fn observe_batch(&self, batch: &Batch) {
        self.metrics.batch_readings.observe(batch.readings as f64);
        self.metrics.batch_bytes.observe(batch.body.len() as f64);
    }

    /// Sends what is due to nodes that have a free place, the oldest first.
    fn dispatch(&mut self, now: Instant) {
        let due: Vec<u64> =
            self.batches.iter().filter(|(_, pending)| pending.is_due(now)).map(|(n, _)| *n).collect();
        for number in due {
            match self.choose(number, now) {
                Some(node) => self.send(number, node),
                // Another batch may be sent where this one has no retry.
                None if self.attempt(number) == Attempt::Retry => {}
                None => return,
            }
        }
    }

    fn attempt(&self, number: u64) -> Attempt {
        self.batches.get(&number).map_or(Attempt::First, |pending| attempt(&pending.batch))
    }

    /// The node for a batch; `None` if none has a free place.
    fn choose(&mut self, number: u64, now: Instant) -> Option<usize> {
        let batch = &self.batches.get(&number)?.batch;
        if let Some(node) = self.nodes.trial(&batch.tried, now) {
            return Some(node);
        }
        let candidates = self.nodes.candidates(&batch.tried, attempt(batch), now);
        let mut ranking = Vec::with_capacity(candidates.len());
        let random = &mut self.random;
        self.config.route.rank(&candidates, &mut || random.f64(), &mut ranking);
        // Rather wait for a place at a node that is up than bother one that is down.
        let any_up = self.nodes.any_up();
        ranking.first().copied().filter(|node| !any_up || self.nodes.get(*node).breaker.is_closed())
    }

    fn send(&mut self, number: u64, node: usize) {
        let Some(pending) = self.batches.get_mut(&number) else { return };
        pending.state = State::Sending;
        pending.batch.parts.iter().for_each(|part| self.in_flight += part.depart());
        let parcel = Parcel {
            url: self.nodes.get(node).url.clone(),
            host: self.nodes.get(node).host.clone(),
            key: pending.batch.key.clone(),
            readings: pending.batch.readings,
            body: pending.batch.body.clone(),
        };
        let attempt = attempt(&pending.batch);
        self.nodes.on_sent(node, attempt, Instant::now());
        let transport = self.transport.clone();
        let task = self.sending.spawn(async move {
            let started = Instant::now();
            let answer = transport.send(parcel).await;
            (answer, started.elapsed())
        });
        self.tasks.insert(task.id(), Sending { number, node });
    }

    fn on_done(&mut self, done: Result<(Id, (Answer, Duration)), JoinError>) {
        let (id, answer, took) = match done {
            Ok((id, (answer, took))) => (id, answer, took),
            Err(error) => {
                error!(%error, "sending a batch failed inside the gateway");
                (error.id(), Answer::internal(error.to_string()), Duration::ZERO)
            }
        };
        let Some(sending) = self.tasks.remove(&id) else { return };
        if let Some(Pending { batch, .. }) = self.batches.get(&sending.number) {
            batch.parts.iter().for_each(|part| self.in_flight -= part.come_back());
        }
        self.count(sending, answer.verdict, took);
        let now = Instant::now();
        let pause_max = self.pause_max();
        if self.nodes.on_answer(sending.node, &answer, took, now, pause_max) {
            self.hurry(now);
        }
        match answer.verdict {
            Verdict::Delivered => self.on_delivered(sending, now),
            _ => self.try_again(sending.number, sending.node, &answer, now),
        }
        // What is not on its way any more can be given up again, and less may be missing.
        self.evict();
    }

    fn count(&self, sending: Sending, verdict: Verdict, took: Duration) {
        let node = self.nodes.get(sending.node).id.as_str();
        self.metrics.batches.with_label_values(&[node, verdict.name()]).inc();
        self.metrics.delivery_seconds.with_label_values(&[node]).observe(took.as_secs_f64());
        if verdict != Verdict::Delivered {
            self.metrics.retries.with_label_values(&[node, verdict.reason()]).inc();
        }
    }

    fn on_delivered(&mut self, Sending { number, node }: Sending, now: Instant) {
        let Some(Pending { batch, note, .. }) = self.batches.remove(&number) else { return };
        debug!(node = %self.nodes.get(node).id, readings = batch.readings, failures = batch.failures, "batch delivered");
        self.outlet.settle(batch.parts, note, Outcome::Delivered { node }, now);
    }

    /// A node is back: what waits need not wait for its whole delay.
    fn hurry(&mut self, now: Instant) {
        for pending in self.batches.values_mut() {
            let soon = now + self.config.retry.delay(1, self.random.f64());
            if let Some(due) = pending.state.due_mut() {
                *due = soon.min(*due);
            }
        }
    }

    fn try_again(&mut self, number: u64, node: usize, answer: &Answer, now: Instant) {
        let all_nodes = self.nodes.present_count();
        let random = self.random.f64();
        let pause_max = self.pause_max();
        let Some(Pending { batch, state, .. }) = self.batches.get_mut(&number) else { return };
        batch.failures = batch.failures.saturating_add(1);
        batch.tried.push(node);
        if batch.tried.len() >= all_nodes {
            // Every node had its turn. The last one is still not the first to be asked again.
            batch.tried = vec![node];
        }
        let delay = self.config.retry.delay(batch.failures, random).min(pause_max);
        *state = State::Waiting { due: now + delay };
        if let Verdict::Retry(reason) = answer.verdict {
            batch.may_be_stored |= reason.may_be_stored();
        }
        let id = &self.nodes.get(node).id;
        let needs_person =
            matches!(answer.verdict, Verdict::Refused | Verdict::TooLarge) && batch.failures == 1;
        if needs_person {
            warn!(node = %id, readings = batch.readings, reason = answer.detail, "node refuses a batch, it is kept");
        } else {
            debug!(node = %id, failures = batch.failures, retry_in = ?delay, reason = answer.detail, "batch not delivered");
        }
    }

    /// When the oldest reading that is not settled was accepted.
    fn oldest(&self) -> Option<Instant> {
        let batches = self.batches.first_key_value().and_then(|(_, pending)| pending.batch.oldest);
        batches.or_else(|| self.batcher.oldest()).or_else(|| self.pulled.front().map(Part::accepted_at))
    }

    /// When something is to be done even if nothing happens.
    fn alarm(&self, now: Instant) -> Option<Instant> {
        let close = self.batcher.due().filter(|_| self.has_place());
        let retry = self.batches.values().filter_map(|pending| match pending.state {
            // Due already: a place at a node is what it waits for.
            State::Waiting { due } if due > now => Some(due),
            State::Waiting { .. } => self.nodes.next_change(now),
            State::Noting { .. } | State::Sending => None,
        });
        let pull = (self.wants_more() && self.next_pull > now).then_some(self.next_pull);
        retry.chain(close).chain(pull).min()
    }
}

impl Pending {
    fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { due } if due <= now)
    }
}

fn attempt(batch: &Batch) -> Attempt {
    if batch.failures == 0 { Attempt::First } else { Attempt::Retry }
}

/// Waits for what is wished for. Dropped half-way, nothing is lost.
async fn hear(outlet: &mut dyn Outlet, fresh: &mut Vec<Part>, wish: Option<Wish>) -> Heard {
    match wish {
        Some(Wish::Note) => Heard::Noted(outlet.noted().await),
        Some(Wish::Readings) => Heard::Pulled(outlet.pull(fresh, PULL_MAX).await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
