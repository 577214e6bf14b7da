//! Transforms that remember nothing: `filter` and `map`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Tag, Value};
use forebay_transform::expression::{Expression, ResultType};
use forebay_transform::scope::Scope;
use forebay_transform::settings::{self, Settings};
use forebay_transform::{Chain, ChainOutcome, KINDS, Moment, TransformConfig};
use tokio::time::Instant;

const READINGS: usize = 10_000;
const SENSORS: [(&str, &str); 4] =
    [("temperature", "Cel"), ("humidity", "%"), ("voltage", "V"), ("current", "A")];
const RANGE: &str = r#"sensor != "temperature" || (value > -40.0 && value < 125.0)"#;
const TAG: &str = "has(tags.site) && tags.site in ['north', 'south']";

pub fn bench(criterion: &mut Criterion) {
    let readings = readings();
    let mut group = criterion.benchmark_group("stateless");
    group.throughput(Throughput::Elements(READINGS as u64));

    let mut chain = |name: &str, configs: &[TransformConfig]| {
        let (mut chain, mut out) = (Chain::new(configs), Readings::default());
        group
            .bench_function(name, |bencher| bencher.iter(|| run(&mut chain, black_box(&readings), &mut out)));
    };
    chain("none", &[]);
    chain("filter/range", &[filter(RANGE)]);
    chain("filter/tag", &[filter(TAG)]);
    chain("filter/matches", &[filter("sensor.matches('^temp')")]);
    chain("map/value and unit", &[map(&[("value", "value * 1.8 + 32.0"), ("unit", "'degF'")])]);
    chain("map/joined sensor", &[map(&[("sensor", "device + '/' + sensor")])]);

    for (name, text) in [
        ("range", RANGE),
        ("tag", TAG),
        ("time", "time > timestamp('2020-01-01T00:00:00Z')"),
        ("matches", "sensor.matches('^temp')"),
    ] {
        let expression = Expression::compile(text, ResultType::Truth).expect("an expression");
        group.bench_function(format!("crate alone/{name}"), |bencher| {
            bencher.iter(|| {
                let outcomes = black_box(&readings).iter().map(|reading| expression.interpret(reading));
                outcomes.filter(Result::is_ok).count()
            });
        });
    }
    group.finish();
}

/// How many readings go on.
fn run(chain: &mut Chain, readings: &Readings, out: &mut Readings) -> usize {
    let now = Moment { instant: Instant::now(), wall: Timestamp::MIN };
    let mut folds = Vec::new();
    out.truncate(Default::default());
    let fates = readings.iter().map(|reading| chain.apply(0, reading, now, out, &mut folds));
    fates.filter(|fate| matches!(fate, ChainOutcome::Passed | ChainOutcome::Changed)).count()
}

/// Readings of four sensors with two tags each; a hundredth of the values lie outside of any range.
fn readings() -> Readings {
    let mut readings = Readings::default();
    for number in 0..READINGS {
        let (sensor, unit) = SENSORS[number % SENSORS.len()];
        let device = format!("meter-{:05}", number % 977);
        let hundredths = u32::try_from(number * 7919 % 12_000).expect("it is small");
        let value = f64::from(hundredths) / 100.0 + if number % 100 == 0 { 1000.0 } else { 0.0 };
        let tags: [Tag<'_>; 2] =
            [("floor".into(), "3".into()), ("site".into(), ["north", "east"][number / 4 % 2].into())];
        let parts = ReadingParts {
            device: &device,
            sensor,
            value: Value::Double(value).into(),
            time: Timestamp::MIN.saturating_add_nanos(1_700_000_000_000_000_000),
            unit: Some(unit),
            tags: &tags,
        };
        readings.push(&parts).expect("a reading");
    }
    readings
}

fn filter(keep: &str) -> TransformConfig {
    config("filter", "keep", settings::SettingValue::Text(keep.to_owned()))
}

fn map(set: &[(&str, &str)]) -> TransformConfig {
    let text = |text: &str| settings::SettingValue::Text(text.to_owned());
    let set = set.iter().map(|(field, expression)| ((*field).to_owned(), text(expression)));
    config("map", "set", settings::SettingValue::Table(set.collect()))
}

fn config(kind: &str, key: &str, value: settings::SettingValue) -> TransformConfig {
    let mut settings = Settings::new(BTreeMap::from([(key.to_owned(), value)]));
    let read = KINDS.find(kind).expect("a kind");
    let kind: Arc<_> = read(&mut settings).expect("well set");
    TransformConfig { name: "bench".to_owned(), scope: Scope::default(), kind }
}
