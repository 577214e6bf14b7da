//! Transforms that remember something of each series or reading: what they add to a reading's way through a chain, and
//! the memory that it takes.
//!
//! Once without tags, and once with three on each reading, always in one order, as devices send them.
//!
//! The readings come round robin from all series, so that nothing that is remembered of one is near the processor when
//! its next reading comes. The memory is printed if this is asked for by name: `cargo bench --bench transform --
//! remembering`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Tag, Value};
use forebay_transform::scope::Scope;
use forebay_transform::settings::{SettingValue as Setting, Settings};
use forebay_transform::{Chain, ChainOutcome, KINDS, Moment, TransformConfig};
use tokio::time::Instant;

const SENSORS: usize = 100;
/// A thousand devices.
const SERIES: usize = 1_000 * SENSORS;
/// Different readings of each series; then they begin anew.
const ROUNDS: usize = 10;
/// So much later comes each round: a window of ten minutes is over when one comes again.
const ROUND_LATER: Duration = Duration::from_secs(61);
/// Series, or readings, of which the memory is measured.
const REMEMBERED: usize = 1_000_000;

const TAGS: &[(&str, &str)] = &[("building", "north-3"), ("floor", "2"), ("room", "2.114")];

/// A name, and the kind of the one transform with its settings.
type Case = (&'static str, Option<(&'static str, fn() -> Values)>);
type Values = BTreeMap<String, Setting>;

const CASES: &[Case] = &[
    ("no transform", None),
    ("deadband", Some(("deadband", || [("delta".to_owned(), Setting::Number(0.5))].into()))),
    // Remembers one round.
    ("dedupe 1m", Some(("dedupe", || window("1m")))),
    // Remembers a million readings, the ten rounds.
    ("dedupe 10m", Some(("dedupe", || window("10m")))),
];

fn window(window: &str) -> Values {
    [("window".to_owned(), Setting::Text(window.to_owned()))].into()
}

pub fn bench(criterion: &mut Criterion) {
    // First, while no memory is left over from anything else.
    if std::env::args().any(|argument| argument == "remembering") {
        let chains: Vec<Chain> = CASES.iter().map(print_memory).collect();
        drop(chains);
    }
    let mut group = criterion.benchmark_group("remembering");
    group.throughput(Throughput::Elements(SERIES as u64));
    for (suffix, tags) in [("", &[][..]), (", three tags", TAGS)] {
        bench_with(&mut group, suffix, tags);
    }
    group.finish();
}

fn bench_with(group: &mut BenchmarkGroup<'_, WallTime>, suffix: &str, tags: &[(&str, &str)]) {
    let rounds = rounds(tags);
    for case in CASES {
        let mut chain = chain(case);
        let (start, number) = (Instant::now(), Cell::new(0));
        let mut next_round = || {
            let round = &rounds[number.get() % ROUNDS];
            number.set(number.get() + 1);
            push_through(&mut chain, black_box(round), start + ROUND_LATER * number.get() as u32)
        };
        // All that can be known is known when it begins.
        (0..ROUNDS).for_each(|_| _ = black_box(next_round()));
        group.bench_function(format!("{}{suffix}", case.0), |bencher| bencher.iter(&mut next_round));
    }
}

/// How many go on.
fn push_through(chain: &mut Chain, readings: &Readings, instant: Instant) -> usize {
    let now = Moment { instant, wall: Timestamp::MAX };
    let (mut out, mut folds) = (Readings::default(), Vec::new());
    let fates = readings.iter().map(|reading| chain.apply(0, reading, now, &mut out, &mut folds));
    fates.filter(|fate| *fate == ChainOutcome::Passed).count()
}

fn chain((name, kind): &Case) -> Chain {
    let Some((kind, settings)) = kind else { return Chain::new(&[]) };
    let read = KINDS.find(kind).expect("a known kind");
    let kind = read(&mut Settings::new(settings())).expect("settings without fault");
    Chain::new(&[TransformConfig { name: (*name).to_owned(), scope: Scope::default(), kind }])
}

/// A reading of every series each, whose values walk at random.
fn rounds(tags: &[(&str, &str)]) -> Vec<Readings> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut watts = vec![20_000; SERIES];
    let mut round = || {
        let mut readings = Readings::default();
        for (number, watts) in watts.iter_mut().enumerate() {
            *watts += random.i32(-300..=300);
            push(number, f64::from(*watts) / 1_000.0, tags, &mut readings);
        }
        readings
    };
    (0..ROUNDS).map(|_| round()).collect()
}

/// Appends a reading of a series, whose names have twenty bytes together.
fn push(series: usize, value: f64, tags: &[(&str, &str)], out: &mut Readings) {
    let device = format!("device-{:06}", series / SENSORS);
    let sensor = format!("pow-{:03}", series % SENSORS);
    let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + series as i64).expect("a good time");
    let value = Value::Double(value).into();
    let tags: Vec<Tag<'_>> = tags.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let parts =
        ReadingParts { device: &*device, sensor: &*sensor, value, time, unit: Some("kW"), tags: &tags };
    out.push(&parts).expect("a reading");
}

/// Prints by how much the process grows for each series or reading that is remembered. Gives the chain that remembers
/// them: if it were dropped, the next one would have its memory.
fn print_memory(case: &Case) -> Chain {
    let mut chain = chain(case);
    let mut readings = Readings::default();
    let before = resident_bytes();
    for series in 0..REMEMBERED {
        readings.truncate(Default::default());
        push(series, 1.0, &[], &mut readings);
        push_through(&mut chain, &readings, Instant::now());
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let remembered: u64 = chain.stats().map(|stats| stats.remembered).sum();
        let each = after.saturating_sub(before) / remembered.max(1) as usize;
        println!("{}: {remembered} remembered, {each} bytes each", case.0);
    }
    chain
}

/// Linux only.
fn resident_bytes() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}
