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
use forebay::reading::{Parts, Readings, Value};
use forebay::timestamp::Timestamp;
use forebay::transform::scope::Scope;
use forebay::transform::settings::{Settings, Value as Setting};
use forebay::transform::{Chain, KINDS, Moment, TransformConfig};
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
        let chains: Vec<Run> = cases.into_iter().map(print_memory).collect();
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
        let mut run = Run::new(functions, "10s");
        group.bench_function(name, |bencher| {
            bencher.iter(|| (0..EVERY_SECONDS).map(|_| run.second()).sum::<usize>());
        });
    }
    group.finish();
}

/// Prints by how much the process grows for each series whose window holds so many readings. Gives what holds them: if
/// it were dropped, the next one would have its memory.
fn print_memory((functions, readings): (&[&str], usize)) -> Run {
    let mut run = Run::new(functions, "1h");
    let before = resident_bytes();
    (0..readings).for_each(|_| _ = run.second());
    let windows: u64 = run.chain.stats().map(|stats| stats.open_windows).sum();
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let each = after.saturating_sub(before) / windows.max(1) as usize;
        println!("{functions:?}: {windows} windows of {readings} readings, {each} bytes each");
    }
    run
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
    fn new(functions: &[&str], every: &str) -> Run {
        let chain = Chain::new(&config(functions, every));
        let numbers: Vec<_> = (0..SERIES).collect();
        let batches = numbers.chunks(BATCH).map(batch).collect();
        Run { chain, batches, start: Instant::now(), seconds: 0 }
    }

    /// Passes a second of readings through, and gives how many went on or came out.
    fn second(&mut self) -> usize {
        let wall = Timestamp::from_nanos((START_SECONDS + self.seconds) * NANOS_PER_SECOND).expect("a time");
        let elapsed = Duration::from_secs(self.seconds.unsigned_abs());
        let now = Moment { instant: self.start + elapsed, wall };
        let (mut out, mut folds, mut count) = (Readings::default(), Vec::new(), 0);
        for batch in &mut self.batches {
            batch.set_time_after(Default::default(), wall);
            for reading in &*batch {
                let fate = self.chain.apply(0, reading, now, &mut out, &mut folds);
                count += usize::from(std::hint::black_box(fate) == forebay::transform::Fate::Passed);
            }
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
