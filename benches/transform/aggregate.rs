//! `aggregate`: 100,000 series with a reading a second each, in windows of ten seconds
//! that stay open for two more.
//!
//! A run is the ten seconds of one window: a million readings go through a chain in batches, and after each batch what
//! was closed is taken. So a run closes as many windows as it opens, and what that costs is part of the time.
//!
//! The memory of a series with one open window is printed if this is asked for by name: `cargo bench --bench transform
//! -- aggregate`.

use std::collections::BTreeMap;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{Parts, Readings, Value};
use forebay_transform::scope::Scope;
use forebay_transform::settings::{SettingValue as Setting, Settings};
use forebay_transform::{Chain, ChainOutcome, KINDS, Moment, TransformConfig};
use tokio::time::Instant;

const EVERY_SECONDS: u64 = 10;
const SERIES: usize = 100_000;
/// Readings between two looks at what was closed.
const BATCH: usize = 1000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// 2026-01-01, at the start of a window.
const START_SECONDS: i64 = 1_767_225_600;

const MOMENTS: &[&str] = &["mean", "min", "max", "count"];
const PERCENTILES: &[&str] = &["p50", "p95", "p99"];

pub fn bench(criterion: &mut Criterion) {
    // First, while no memory is left over from anything else.
    if std::env::args().any(|argument| argument == "aggregate") {
        let cases = [(MOMENTS, 10), (PERCENTILES, 10), (PERCENTILES, 200)];
        let chains: Vec<Chain> = cases.into_iter().map(print_memory).collect();
        drop(chains);
    }
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(EVERY_SECONDS * SERIES as u64)).sample_size(10);
    let chains: [(&str, &[&str]); 4] = [
        ("no_transform", &[]),
        ("count", &["count"]),
        ("mean_min_max_count", MOMENTS),
        ("p50_p95_p99", PERCENTILES),
    ];
    for (name, functions) in chains {
        let mut run = Run::new(functions);
        group.bench_function(name, |bencher| {
            bencher.iter(|| (0..EVERY_SECONDS).map(|_| run.second()).sum::<usize>());
        });
    }
    group.finish();
}

/// Prints by how much the process grows for each series whose window holds so many readings. Gives the chain that holds
/// them: if it were dropped, the next one would have its memory.
fn print_memory((functions, readings): (&[&str], i64)) -> Chain {
    let mut chain = Chain::new(&config(functions, "1h"));
    let start = Instant::now();
    let before = resident_bytes();
    for (second, number) in (0..readings).flat_map(|second| (0..SERIES).map(move |number| (second, number))) {
        // One at a time, so that nothing else takes memory or gives it back.
        push_through(&mut chain, &mut batch(&[number]), moment(start, second));
    }
    let windows: u64 = chain.stats().map(|stats| stats.open_windows).sum();
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let each = after.saturating_sub(before) / windows.max(1) as usize;
        println!("{functions:?}: {windows} windows of {readings} readings, {each} bytes each");
    }
    chain
}

/// So many seconds after the start.
fn moment(start: Instant, seconds: i64) -> Moment {
    let wall = Timestamp::from_nanos((START_SECONDS + seconds) * NANOS_PER_SECOND).expect("a time");
    Moment { instant: start + Duration::from_secs(seconds.unsigned_abs()), wall }
}

/// Passes readings through that are of this moment, and gives how many go on.
fn push_through(chain: &mut Chain, readings: &mut Readings, now: Moment) -> usize {
    readings.set_time_after(Default::default(), now.wall);
    let (mut out, mut folds) = (Readings::default(), Vec::new());
    let fates = readings.iter().map(|reading| chain.apply(0, reading, now, &mut out, &mut folds));
    fates.filter(|fate| *fate == ChainOutcome::Passed).count()
}

/// Linux only.
fn resident_bytes() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

/// A chain and the readings of one second, whose time is moved on.
struct Run {
    chain: Chain,
    batches: Vec<Readings>,
    start: Instant,
    seconds: i64,
}

impl Run {
    fn new(functions: &[&str]) -> Run {
        let chain = Chain::new(&config(functions, "10s"));
        let numbers: Vec<_> = (0..SERIES).collect();
        let batches = numbers.chunks(BATCH).map(batch).collect();
        Run { chain, batches, start: Instant::now(), seconds: 0 }
    }

    /// Passes a second of readings through, and gives how many went on or came out.
    fn second(&mut self) -> usize {
        let (now, mut count) = (moment(self.start, self.seconds), 0);
        for batch in &mut self.batches {
            count += push_through(&mut self.chain, batch, now);
            self.chain.close_due(now.instant, BATCH);
            let closed = self.chain.take_closed();
            count += closed.iter().map(|closed| closed.windows.results.len()).sum::<usize>();
        }
        self.seconds += 1;
        count
    }
}

fn config(functions: &[&str], every: &str) -> Vec<TransformConfig> {
    if functions.is_empty() {
        return Vec::new();
    }
    let text = |text: &str| Setting::Text(text.to_owned());
    let functions = Setting::List(functions.iter().map(|name| text(name)).collect());
    let values = [("every", text(every)), ("lateness", text("2s")), ("functions", functions)];
    let values: BTreeMap<_, _> = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut settings = Settings::new(values);
    let kind =
        KINDS.find("aggregate").ok().and_then(|read| read(&mut settings)).expect("settings without faults");
    vec![TransformConfig { name: "aggregate".to_owned(), scope: Scope::default(), kind }]
}

/// A reading of each of these series; no two neighbours have the same value.
fn batch(numbers: &[usize]) -> Readings {
    let mut readings = Readings::default();
    for number in numbers {
        let (device, thousandths) = (format!("meter-{:05}", number / 4), number * 104_729 % 1_000_000);
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let value = Value::Double(thousandths as f64 / 1000.0 + 0.0005);
        let sensor = ["active_power", "reactive_power", "voltage", "intensity"][number % 4];
        let (time, unit) = (Timestamp::MIN, Some(["kW", "kvar", "V", "A"][number % 4]));
        let parts = Parts { device: device.as_str(), sensor, value: value.into(), time, unit, tags: &[] };
        readings.push(&parts).expect("a sound reading");
    }
    readings
}
