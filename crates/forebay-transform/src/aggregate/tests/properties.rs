//! Properties over random readings.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    /// A reading of this device, this many seconds from the gateway's time, with this value.
    Read(u8, i64, Measured),
    /// Seconds go by, and due windows are closed, at most this many.
    Wait(u32, usize),
    /// The gateway's wall clock jumps.
    Jump(i64),
    CloseOldest(usize),
    Take,
}

#[derive(Clone, Copy, Debug)]
enum Measured {
    Integer(i64),
    Double(f64),
}

impl Measured {
    fn value(self) -> Value<'static> {
        match self {
            Measured::Integer(integer) => Value::Integer(integer),
            Measured::Double(double) => Value::Double(double),
        }
    }
}

fn measured() -> impl Strategy<Value = Measured> {
    prop_oneof![
        any::<i64>().prop_map(Measured::Integer),
        (-100_i64..100).prop_map(Measured::Integer),
        (-1e6..1e6).prop_map(Measured::Double),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![-3_i64..3, -40_i64..40, -10_000_i64..10_000, Just(YEAR)];
    prop_oneof![
        20 => (0_u8..6, offset, measured()).prop_map(|(device, seconds, value)| Step::Read(device, seconds, value)),
        5 => (0_u32..8, 0_usize..4).prop_map(|(seconds, most)| Step::Wait(seconds, most)),
        1 => (-2000_i64..2000).prop_map(Step::Jump),
        1 => (0_usize..4).prop_map(Step::CloseOldest),
        2 => Just(Step::Take),
    ]
}

const YEAR: i64 = 366 * 86_400;

/// Totals over all readings of a device, whatever their windows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Total {
    count: i128,
    integers: i128,
    doubles: f64,
    /// Sum of the values without their signs.
    magnitude: f64,
    least: f64,
    greatest: f64,
}

impl Total {
    fn extend(&mut self, least: f64, greatest: f64) {
        self.least = if self.count == 0 { least } else { self.least.min(least) };
        self.greatest = if self.count == 0 { greatest } else { self.greatest.max(greatest) };
    }
}

/// The transform and a model of it.
struct Checked {
    trial: Trial,
    /// Windows with readings that were not handed out yet.
    open: BTreeSet<WindowId>,
    /// By device, with integers and doubles apart.
    put_in: BTreeMap<String, Total>,
    got_out: BTreeMap<String, Total>,
    /// The instant of each window's first reading.
    opened: BTreeMap<WindowId, Duration>,
}

impl Checked {
    fn new(settings: &str) -> Checked {
        let trial = Trial::new(settings);
        Checked {
            trial,
            open: BTreeSet::new(),
            put_in: BTreeMap::new(),
            got_out: BTreeMap::new(),
            opened: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.trial.transform.stats().open_windows;
        match step {
            Step::Read(device, seconds, value) => self.read(*device, *seconds, *value),
            Step::Wait(seconds, most) => {
                self.trial.wait(*seconds);
                let now = self.trial.now().instant;
                self.trial.transform.close_due(now, *most);
                let closed = before - self.trial.stats().open_windows;
                prop_assert!(closed <= *most as u64);
                prop_assert!(
                    closed == *most as u64 || self.trial.transform.next_due().is_none_or(|due| due > now)
                );
            }
            Step::Jump(seconds) => self.trial.wall = (self.trial.wall + seconds).max(0),
            Step::CloseOldest(most) => {
                self.trial.transform.close_oldest(*most);
                prop_assert_eq!(before - self.trial.stats().open_windows, before.min(*most as u64));
            }
            Step::Take => self.take()?,
        }
        let stats = self.trial.stats();
        prop_assert!(stats.open_windows <= 18 * stats.remembered && stats.remembered <= stats.open_windows);
        prop_assert_eq!(self.trial.transform.next_due().is_none(), stats.open_windows == 0);
        Ok(())
    }

    fn read(&mut self, device: u8, seconds: i64, measured: Measured) {
        // Integers and doubles apart, so that sums of integers can be compared exactly.
        let (kind, integer, double) = match measured {
            Measured::Integer(integer) => ("integers", i128::from(integer), 0.0),
            Measured::Double(double) => ("doubles", 0, double),
        };
        let device = format!("{kind}-{device}");
        let nanos = (self.trial.wall + seconds).max(0) * NANOS;
        let given = Given { device: &device, value: measured.value(), nanos, ..Given::default() };
        let Verdict::Merge(window) = self.trial.apply(given) else { panic!("numbers are merged") };
        self.open.insert(window);
        let elapsed = self.trial.elapsed;
        self.opened.entry(window).or_insert(elapsed);
        let nearest = as_double(measured.value());
        let total = self.put_in.entry(device).or_default();
        total.extend(nearest, nearest);
        total.count += 1;
        total.integers += integer;
        total.doubles += double;
        total.magnitude += nearest.abs();
    }

    fn take(&mut self) -> Result<(), TestCaseError> {
        let closed = self.trial.transform.take_closed();
        for window in &closed.windows {
            prop_assert!(self.open.remove(window), "{:?} was not open, or handed out twice", window);
            self.opened.remove(window);
        }
        let results: Vec<_> = closed.results.iter().collect();
        prop_assert_eq!(results.len(), 4 * closed.windows.len());
        for window in results.chunks(4) {
            let [count, sum, least, greatest] = [0, 1, 2, 3].map(|place| window[place].value());
            let total = self.got_out.entry(window[0].device().to_owned()).or_default();
            total.extend(as_double(least), as_double(greatest));
            let Value::Integer(count) = count else { panic!("counts are integers") };
            total.count += i128::from(count);
            match sum {
                Value::Integer(sum) => total.integers += i128::from(sum),
                sum => total.doubles += as_double(sum),
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.trial.transform.close_oldest(usize::MAX);
        self.take()?;
        prop_assert!(self.open.is_empty(), "never handed out: {:?}", self.open);
        prop_assert_eq!(self.put_in.keys().collect::<Vec<_>>(), self.got_out.keys().collect::<Vec<_>>());
        for (device, put_in) in &self.put_in {
            let got_out = &self.got_out[device];
            let extremes = |total: &Total| (total.count, total.least, total.greatest);
            prop_assert_eq!(extremes(put_in), extremes(got_out));
            // A sum of integers beyond 64 bits is a double.
            #[expect(clippy::cast_precision_loss, reason = "the doubles are rounded as well")]
            let integers = (put_in.integers - got_out.integers) as f64;
            let is_exact = put_in.doubles == 0.0 && got_out.doubles == 0.0;
            let margin = if is_exact { 0.0 } else { 1e-9 * put_in.magnitude };
            let difference = integers + put_in.doubles - got_out.doubles;
            prop_assert!(difference.abs() <= margin, "{}: {}", device, difference);
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest double is what is compared")]
fn as_double(value: Value<'_>) -> f64 {
    match value {
        Value::Integer(integer) => integer as f64,
        Value::Double(double) => double,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn no_reading_is_lost_and_none_counts_twice(
        steps in prop::collection::vec(step(), 0..300),
        settings in prop_oneof![
            Just("every = 10s"), Just("every = 10s, lateness = 25s"), Just("every = 1s, lateness = 14s"),
            Just("every = 10s, lateness = 5s, max_series = 3"),
        ],
    ) {
        let mut checked = Checked::new(&format!("{settings}, functions = count sum min max"));
        for step in &steps {
            checked.step(step)?;
        }
        checked.finish()?;
    }

    #[test]
    fn no_window_stays_open_longer_than_a_whole_one(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut checked = Checked::new("every = 10s, lateness = 5s, functions = count sum min max");
        for step in &steps {
            checked.step(step)?;
            let now = checked.trial.now().instant;
            checked.trial.transform.close_due(now, usize::MAX);
            checked.take()?;
            for opened in checked.opened.values() {
                prop_assert!(checked.trial.elapsed - *opened < Duration::from_secs(15));
            }
        }
    }

    #[test]
    fn readings_in_order_give_each_slot_one_result_that_equals_a_naive_one(
        gaps in prop::collection::vec((0_usize..3, 0_i64..4_000, measured()), 1..1500),
        lateness in prop_oneof![Just("0s"), Just("7s"), Just("100s")],
    ) {
        let functions = "mean stddev p50 p95 p99 count min max";
        let mut trial = Trial::new(&format!("every = 10s, lateness = {lateness}, functions = {functions}"));
        let (mut times, mut model) = ([0_i64; 3], BTreeMap::<(String, i64), Vec<f64>>::new());
        for (device, millis, measured) in gaps {
            times[device] += millis;
            let (nanos, slot) = (times[device] * 1_000_000, times[device] / 10_000 * 10);
            let device = device.to_string();
            trial.apply(Given { device: &device, nanos, value: measured.value(), ..Given::default() });
            model.entry((device, slot)).or_default().push(as_double(measured.value()));
        }
        prop_assert_eq!(trial.stats().late, 0);
        trial.transform.close_oldest(usize::MAX);
        let results = trial.transform.take_closed().results;
        prop_assert_eq!(results.len(), 8 * model.len());
        let results: Vec<_> = results.iter().collect();
        for window in results.chunks(8) {
            let slot = (window[0].device().to_owned(), seconds(window[0]));
            let values = model.remove(&slot).expect("one result for each slot");
            let got: Vec<_> = window.iter().map(|result| as_double(result.value())).collect();
            is_naive(&got, values)?;
        }
    }
}

/// Compares mean, stddev, p50, p95, p99, count, min and max.
fn is_naive(got: &[f64], mut values: Vec<f64>) -> Result<(), TestCaseError> {
    #[expect(clippy::cast_precision_loss, reason = "there are not many")]
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let deviation = if count < 2.0 { 0.0 } else { (squares / (count - 1.0)).sqrt() };
    values.sort_by(f64::total_cmp);
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let close = |one: f64, two: f64, scale: f64| (one - two).abs() <= 1e-9 * scale;
    prop_assert!(close(got[0], mean, largest), "mean {} {}", got[0], mean);
    prop_assert!(close(got[1], deviation, largest), "stddev {} {}", got[1], deviation);
    for (place, percent) in [(2, 50), (3, 95), (4, 99)] {
        let exact = values[(percent * values.len()).div_ceil(100) - 1];
        prop_assert!(
            (got[place] - exact).abs() <= 0.010_001 * exact.abs(),
            "p{} {} {}",
            percent,
            got[place],
            exact
        );
    }
    prop_assert_eq!(&got[5..], &[count, values[0], values[values.len() - 1]]);
    Ok(())
}
