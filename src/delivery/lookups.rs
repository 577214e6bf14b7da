//! Periodic look-ups of the nodes' DNS names, with one task for each name.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::own_address::is_own;
use super::source::NodeSource;
use crate::tasks;

/// Longest that one look-up may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Time between look-ups while no address is known, unless `cluster.resolve_every` is shorter.
const FIRST_EVERY: Duration = Duration::from_secs(1);
/// Most results in the queue to the worker; a full queue delays the next look-up.
const RESULTS_MAX: usize = 16;

/// Resolves a DNS name.
pub trait Resolve: Debug + Send + Sync {
    /// Returns all addresses of `host`, with this port.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
    }
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolution {
    /// The index of the name in `cluster.nodes`.
    pub(super) source: usize,
    /// The addresses of the name: at least one, without duplicates.
    pub(super) addresses: Vec<SocketAddr>,
}

/// The tasks that look up names. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Lookups {
    resolutions: mpsc::Receiver<Resolution>,
    tasks: JoinSet<()>,
}

impl Lookups {
    /// Starts to look up every name among the sources: now, and then each `every`.
    ///
    /// Addresses at which this gateway itself listens (`own`) are left out of the results.
    pub(super) fn start(
        sources: &[NodeSource],
        every: Duration,
        resolver: &Arc<dyn Resolve>,
        own: Option<SocketAddr>,
    ) -> Lookups {
        let (sender, resolutions) = mpsc::channel(RESULTS_MAX);
        let mut tasks = JoinSet::new();
        for (source, name) in sources.iter().enumerate() {
            match name {
                NodeSource::Address(_) => {}
                NodeSource::Name(_) => {
                    let lookup = NameLookup {
                        source,
                        name: name.clone(),
                        every,
                        resolver: Arc::clone(resolver),
                        own,
                        has_own: false,
                        resolutions: sender.clone(),
                        is_known: false,
                        has_trouble: false,
                    };
                    tasks.spawn(lookup.run());
                }
            }
        }
        Lookups { resolutions, tasks }
    }

    /// Waits for the next result; for ever if there is no name. No result is lost if the future is dropped.
    ///
    /// # Panics
    ///
    /// If a task panicked.
    pub(super) async fn next(&mut self) -> Resolution {
        if self.tasks.is_empty() {
            return std::future::pending().await;
        }
        tokio::select! { biased;
            Some(resolution) = self.resolutions.recv() => resolution,
            Some(Err(error)) = self.tasks.join_next() => tasks::outcome(Err(error)).await,
            else => std::future::pending().await,
        }
    }
}

/// The periodic look-up of one name.
struct NameLookup {
    source: usize,
    name: NodeSource,
    every: Duration,
    resolver: Arc<dyn Resolve>,
    own: Option<SocketAddr>,
    /// Whether the last result included this gateway itself.
    has_own: bool,
    resolutions: mpsc::Sender<Resolution>,
    /// Whether any look-up has succeeded.
    is_known: bool,
    /// Whether the last look-up failed.
    has_trouble: bool,
}

impl NameLookup {
    /// Looks up the name until the receiver is dropped.
    async fn run(mut self) {
        loop {
            match self.look_up().await {
                Ok(addresses) => {
                    self.on_resolved();
                    if self.resolutions.send(Resolution { source: self.source, addresses }).await.is_err() {
                        return;
                    }
                }
                Err(problem) => self.on_failed(&problem),
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    async fn look_up(&mut self) -> Result<Vec<SocketAddr>, String> {
        let (host, port) = self.name.host_and_port();
        let addresses = match tokio::time::timeout(LOOKUP_MAX, self.resolver.resolve(host, port)).await {
            Ok(found) => found.map_err(|error| error.to_string())?,
            Err(_elapsed) => return Err(format!("no answer within {LOOKUP_MAX:?}")),
        };
        let addresses: BTreeSet<_> = addresses.into_iter().collect();
        if addresses.is_empty() {
            return Err("no address".to_owned());
        }
        let (own, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| self.is_own(*address));
        self.log_own(&own);
        if others.is_empty() { Err("no address but this gateway's own".to_owned()) } else { Ok(others) }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.is_some_and(|own| is_own(address, own))
    }

    /// Logs when this gateway appears among its own nodes, and when it disappears from them.
    fn log_own(&mut self, found: &[SocketAddr]) {
        let had_own = std::mem::replace(&mut self.has_own, !found.is_empty());
        match (had_own, found.first()) {
            (false, Some(address)) => {
                tracing::warn!(name = %self.name, %address, "this gateway is among its own nodes, and is not sent to");
            }
            (true, None) => {
                tracing::info!(name = %self.name, "this gateway is no longer among its own nodes")
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn on_resolved(&mut self) {
        self.is_known = true;
        if std::mem::take(&mut self.has_trouble) {
            tracing::info!(name = %self.name, "the name of nodes is found again");
        }
    }

    /// Logs the first failure in a row. The addresses of the last success stay in use.
    fn on_failed(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.has_trouble, true) {
            let known = self.is_known;
            tracing::warn!(name = %self.name, reason, known, "the name of nodes is not found");
        }
    }

    fn pause(&self) -> Duration {
        if self.is_known { self.every } else { self.every.min(FIRST_EVERY) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    /// The result of a scripted look-up; `None`: it never ends.
    type Script = Option<Result<Vec<&'static str>, &'static str>>;

    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Script>>);

    impl Resolve for Scripted {
        fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            assert_eq!((host, port), ("store", 9000));
            let next = self.0.lock().expect("not poisoned").pop_front();
            let socket = |text: &str| text.parse().expect("an address");
            match next.expect("no more look-ups than that") {
                Some(Ok(found)) => std::future::ready(Ok(found.into_iter().map(socket).collect())).boxed(),
                Some(Err(error)) => std::future::ready(Err(io::Error::other(error))).boxed(),
                None => std::future::pending().boxed(),
            }
        }
    }

    fn lookups(script: impl IntoIterator<Item = Script>) -> Lookups {
        let resolver: Arc<dyn Resolve> = Arc::new(Scripted(Mutex::new(script.into_iter().collect())));
        let sources = ["http://fixed:1/x", "http://store:9000/x"].map(|url| url.parse().expect("a URL"));
        let [fixed, named] = sources;
        let own = "10.0.0.9:9000".parse().ok();
        Lookups::start(&[NodeSource::Address(fixed), NodeSource::Name(named)], EVERY, &resolver, own)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_at_once_and_at_each_interval() {
        let start = Instant::now();
        let (one, two) = ("10.0.0.1:9000", "10.0.0.2:9000");
        let mut lookups = lookups([Some(Ok(vec![two, one, two])), Some(Ok(vec![one]))]);
        let found = lookups.next().await;
        let addresses = [one, two].map(|text| text.parse().expect("an address")).to_vec();
        assert_eq!((found, start.elapsed()), (Resolution { source: 1, addresses }, Duration::ZERO));
        assert_eq!((lookups.next().await.addresses.len(), start.elapsed()), (1, EVERY));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_name_is_retried_each_second_and_a_known_one_keeps_its_addresses() {
        let start = Instant::now();
        let found = || Some(Ok(vec!["10.0.0.1:9000"]));
        let failed = || Some(Err("no such name"));
        let mut lookups = lookups([failed(), Some(Ok(vec![])), None, found(), failed(), found()]);
        lookups.next().await;
        assert_eq!(
            start.elapsed(),
            FIRST_EVERY * 3 + LOOKUP_MAX,
            "an empty answer is none, and none is waited for"
        );
        let first = Instant::now();
        lookups.next().await;
        assert_eq!(first.elapsed(), EVERY * 2, "what is known holds on meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn the_gateways_own_address_is_not_a_node() {
        let (own, other) = ("10.0.0.9:9000", "10.0.0.1:9000");
        let start = Instant::now();
        let mut lookups = lookups([Some(Ok(vec![own])), Some(Ok(vec![own, other])), Some(Ok(vec![other]))]);
        let found = lookups.next().await;
        assert_eq!(found.addresses, [other.parse().expect("an address")]);
        assert_eq!(start.elapsed(), FIRST_EVERY, "what was found first was none");
        assert_eq!(lookups.next().await, found);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_name_there_is_never_a_result() {
        let resolver: Arc<dyn Resolve> = Arc::new(SystemResolver);
        let mut lookups = Lookups::start(&[], EVERY, &resolver, None);
        assert!(tokio::time::timeout(EVERY * 9, lookups.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "no more look-ups than that")]
    async fn a_panic_of_a_task_reaches_the_worker() {
        lookups([]).next().await;
    }
}
