//! `forebay load`: drives a gateway with readings over HTTP, measures it, and checks what arrived.
//!
//! # How it measures
//!
//! The load is closed-loop: each of `--connections` connections waits for its answer before it sends the next
//! request. A schedule says when readings are due, for all connections together; a connection that is late
//! sends at once. There are two latencies: from sending a request to its 202, and from its due time to its
//! 202. The second includes the time that requests waited behind a slow one, which the first leaves out.
//! Percentiles come from a histogram of fixed size.
//!
//! # What it counts
//!
//! A reading is *acknowledged* once a 202 counts it as accepted, *refused* while it has had other answers only, and
//! *unknown* if the answer was lost. A request that got 429 or 503 is sent again until the time is up. The audit then
//! looks for each acknowledged reading on the nodes. A run passes, with exit status 0, if every request was taken whole
//! at its first try, and the audit, unless it is left out, finds each reading once. Simulated devices have new names in
//! every run. A file's readings may be on the nodes already: they are counted before the run, and only copies that the
//! run adds are judged.
//!
//! # Limits
//!
//! Memory is two bits for each reading that was sent (up to 1 GiB, then there is no audit), and a few megabytes.
//! A CSV file is never held in memory.

pub mod access;
pub mod advice;
mod audit;
pub mod call_failure;
pub mod client;
mod csv_error;
pub mod csv_source;
mod fates;
mod histogram;
mod http;
mod node;
mod pacer;
mod plan;
mod progress;
mod report;
mod sender;
mod simulate;
mod source;
mod tally;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use forebay_reading::clock::wall_time;
use forebay_reading::quantity::parse_duration;
use forebay_reading::timestamp::Timestamp;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::access::ServerAccess;
use self::audit::{Auditor, WINDOW_READINGS};
use self::csv_source::{CsvError, CsvFile};
use self::fates::{FATES_MAX, Fates};
use self::http::HttpError;
use self::node::{NodeReader, PAGE_READINGS};
use self::pacer::Pacer;
use self::plan::Plan;
use self::progress::{Length, note, say};
pub use self::report::grouped;
use self::report::{LedgerChange, LoadReport};
use self::sender::RunState;
use self::simulate::Simulation;
use self::tally::LoadTally;
use crate::client::{READINGS, parse_address};
use forebay_reading::text::EscapingWriter;

/// The name that servers are told.
const NAME: &str = "forebay-load";
/// Exit status of a run that was interrupted twice.
const INTERRUPTED: i32 = 1;
/// How long simulated devices send without `--duration`.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// Sends readings to a gateway, measures it, and checks what arrived.
#[derive(Clone, Debug, Args)]
pub struct LoadArguments {
    /// The gateway; readings go to URL/v1/readings
    #[arg(default_value = "http://127.0.0.1:8080", value_parser = parse_address)]
    url: Url,
    /// The listener for the operator of a gateway that has one: /status is there alone
    #[arg(long, value_name = "URL", value_parser = parse_address)]
    operator: Option<Url>,
    /// Simulated devices
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Readings a second, over all connections; 0 is as fast as it can
    #[arg(long, value_name = "R", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    rate: u64,
    /// How long to send, such as 500ms, 10s or 5m; 10s if not given, with --csv to the end of the file
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Readings a request; 1 sends single objects
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    batch: u32,
    /// Connections, each of which waits for its answer before it sends more
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Send this file, once through, instead of the simulation: the first column is the time, each other one a
    /// sensor; empty cells and ? hold no reading
    #[arg(long, value_name = "FILE", conflicts_with = "devices")]
    csv: Option<PathBuf>,
    /// The device of the file's readings; the file's name without extension if not given
    #[arg(long, value_name = "NAME", requires = "csv")]
    device: Option<String>,
    /// How long to wait for one answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Do not look afterwards whether the readings arrived
    #[arg(long)]
    no_audit: bool,
    /// An embedded node to look at, instead of those in the gateway's /status; may be given several times
    #[arg(long, value_name = "URL", value_parser = parse_address, conflicts_with = "no_audit")]
    node: Vec<Url>,
    /// How long the gateway may take to deliver what it has accepted, before the audit begins
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    settle: Duration,
}

/// How the servers of a run are reached.
#[derive(Clone, Debug, Default)]
pub struct LoadAccess {
    /// The gateway, for readings.
    pub gateway: ServerAccess,
    /// The gateway or its operator's listener, for `/status`.
    pub status: ServerAccess,
    /// The nodes, which are given no key.
    pub nodes: ServerAccess,
}

/// A run could not begin, or not go on.
#[derive(Debug, Error)]
enum LoadError {
    /// No gateway answers at the address.
    #[error("no gateway: {0}")]
    Unreachable(HttpError),
    /// The gateway does not show its status, which the audit needs.
    #[error("no audit: {0}{advice}; --no-audit sends without one", advice = .0.advice_on_status())]
    NoStatus(HttpError),
    /// The file cannot be sent.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The runtime could not be set up.
    #[error("the runtime could not be set up: {0}")]
    Runtime(std::io::Error),
}

/// The state of a run whose sending has ended.
#[derive(Debug)]
struct SendingEnd {
    shared: Arc<RunState>,
    /// Connections that were used: at most one for each simulated device.
    connections: usize,
    elapsed: Duration,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// Every reading was taken, and found by the audit.
    Passed,
    /// Some reading was not, or no gateway answered.
    Failed,
    /// The arguments or the file have a fault, and nothing was sent.
    Misused,
}

/// Sends readings as the arguments say, and writes the summary to standard output.
pub fn run(arguments: &LoadArguments, access: &LoadAccess) -> LoadOutcome {
    let plan = match arguments.plan() {
        Ok(plan) => plan,
        Err(error) => {
            say(&format!("forebay: {error}"));
            return LoadOutcome::Misused;
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LoadError::Runtime);
    let report = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let stop = CancellationToken::new();
            tokio::spawn(stop_on_interrupt(stop.clone()));
            drive(arguments, access, &plan, stop).await
        })
    });
    match report {
        Ok(report) => {
            // A closed standard output is no fault: the exit status still has the result.
            let _ = write!(EscapingWriter::new(std::io::stdout()), "{report}");
            if report.passed() { LoadOutcome::Passed } else { LoadOutcome::Failed }
        }
        Err(error) => {
            say(&format!("forebay: {error}"));
            LoadOutcome::Failed
        }
    }
}

/// The first interrupt ends the sending, and the readings are still audited; the second ends the process.
async fn stop_on_interrupt(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

/// Sends the plan's readings until their end, the end of the time, or `stop`; then audits them.
async fn drive(
    arguments: &LoadArguments,
    access: &LoadAccess,
    plan: &Plan,
    stop: CancellationToken,
) -> Result<LoadReport, LoadError> {
    let auditor = arguments.auditor(access)?;
    let before = match auditor.status().await {
        Ok(status) => Some(status),
        Err(error @ HttpError::Exchange { .. }) => return Err(LoadError::Unreachable(error)),
        Err(error) if !arguments.no_audit => return Err(LoadError::NoStatus(error)),
        Err(_) => None,
    };
    let baseline = if arguments.no_audit { Ok(Default::default()) } else { auditor.baseline(plan).await };

    let SendingEnd { shared, connections, elapsed } = send(arguments, access, plan, stop).await?;
    let audit = match (arguments.no_audit, baseline) {
        (true, _) => None,
        (false, Err(error)) => Some(Err(error)),
        (false, Ok(baseline)) => {
            note("auditing: waiting for the gateway to deliver, then reading back from the nodes");
            let fates = shared.take_fates();
            Some(auditor.audit(plan, &fates, &baseline).await)
        }
    };
    let after = auditor.status().await.ok();
    let ledger =
        before.zip(after).map(|(before, after)| LedgerChange { before: before.ledger, after: after.ledger });
    let tally = shared.tally(|tally| tally.clone());
    Ok(LoadReport { elapsed, connections, rate: arguments.rate, tally, audit, ledger })
}

/// Runs all connections to their ends.
async fn send(
    arguments: &LoadArguments,
    access: &LoadAccess,
    plan: &Plan,
    stop: CancellationToken,
) -> Result<SendingEnd, LoadError> {
    let sources = plan.sources(arguments.connections as usize)?;
    let connections = sources.len();
    let (started, limit) = (Instant::now(), arguments.limit(plan));
    let deadline = limit.and_then(|limit| started.checked_add(limit));
    let shared = Arc::new(RunState {
        client: access.gateway.client(NAME, connections, arguments.timeout)?,
        url: client::join(&arguments.url, READINGS),
        batch: arguments.batch as usize,
        pacer: Pacer::new(arguments.rate),
        started,
        deadline,
        stop: stop.clone(),
        tally: Mutex::new(LoadTally::new()),
        fates: Mutex::new(Fates::new(FATES_MAX)),
    });
    let length = limit.map_or(Length::Readings(plan.readings().unwrap_or(0)), Length::Time);
    let done = CancellationToken::new();
    let progress = tokio::spawn(progress::show(shared.clone(), length, done.clone()));
    let mut senders = JoinSet::new();
    for source in sources {
        senders.spawn(sender::run(source, shared.clone()));
    }
    let timer = deadline.map(|deadline| tokio::spawn(stop_at(deadline, stop)));
    let mut result = Ok(());
    while let Some(sender) = senders.join_next().await {
        result = result.and(sender.expect("a sender does not panic"));
    }
    let elapsed = shared.started.elapsed();
    if let Some(timer) = timer {
        timer.abort();
    }
    done.cancel();
    // The bar is cleared before anything else is written.
    let _ = progress.await;
    result?;
    Ok(SendingEnd { shared, connections, elapsed })
}

async fn stop_at(deadline: Instant, stop: CancellationToken) {
    tokio::time::sleep_until(deadline).await;
    stop.cancel();
}

impl LoadArguments {
    /// Where readings go.
    pub fn gateway(&self) -> &Url {
        &self.url
    }

    /// Where `/status` is asked for.
    pub fn status_at(&self) -> &Url {
        self.operator.as_ref().unwrap_or(&self.url)
    }

    /// The nodes that are named.
    pub fn nodes(&self) -> &[Url] {
        &self.node
    }

    fn plan(&self) -> Result<Plan, CsvError> {
        let Some(path) = &self.csv else {
            let run = format!("{:08x}", fastrand::u32(..));
            let now = Timestamp::from_system(wall_time());
            // Times from a whole millisecond on are shorter and easier to read.
            let start = now.saturating_add_nanos(-(now.nanos() % 1_000_000));
            return Ok(Plan::Simulation(Simulation::new(&run, self.devices as usize, self.rate, start)));
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let device = self.device.as_deref().unwrap_or(&stem);
        Ok(Plan::Csv(Arc::new(CsvFile::open(path, device)?)))
    }

    /// Longest time of the sending.
    fn limit(&self, plan: &Plan) -> Option<Duration> {
        match plan {
            Plan::Simulation(_) => Some(self.duration.unwrap_or(DURATION_DEFAULT)),
            Plan::Csv(_) => self.duration,
        }
    }

    fn auditor(&self, access: &LoadAccess) -> Result<Auditor, reqwest::Error> {
        let nodes = access.nodes.client(NAME, 1, self.timeout)?;
        Ok(Auditor {
            reader: NodeReader { client: nodes, page: PAGE_READINGS },
            client: access.status.client(NAME, 1, self.timeout)?,
            status_at: self.status_at().clone(),
            nodes: self.node.clone(),
            settle: self.settle,
            window: WINDOW_READINGS,
        })
    }
}
