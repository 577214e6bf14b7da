//! The statistics of a window's values, as far as its functions need them.

use forebay_reading::Value;
use forebay_reading::timestamp::Timestamp;

use super::function::{Function, Needs};
use super::number::Number;
use super::quantiles::Quantiles;
use super::sum::{Deviation, Sum};

/// The statistics of a window's values, of which there is at least one.
#[derive(Debug)]
pub struct Summary {
    count: u64,
    least: Number,
    greatest: Number,
    sum: Sum,
    more: Option<Box<Extras>>,
}

/// Statistics that few functions need.
#[derive(Debug)]
struct Extras {
    needs: Needs,
    first: (Timestamp, Number),
    last: (Timestamp, Number),
    spread: Deviation,
    quantiles: Quantiles,
}

impl Summary {
    /// Begins with a first number.
    pub fn new(needs: Needs, time: Timestamp, number: Number) -> Summary {
        let more = (!needs.is_nothing()).then(|| {
            Box::new(Extras {
                needs,
                first: (time, number),
                last: (time, number),
                spread: Deviation::default(),
                quantiles: Quantiles::default(),
            })
        });
        let mut summary = Summary { count: 0, least: number, greatest: number, sum: Sum::default(), more };
        summary.add(time, number);
        summary
    }

    /// Adds another number.
    pub fn add(&mut self, time: Timestamp, number: Number) {
        self.count += 1;
        if number.is_below(self.least) {
            self.least = number;
        }
        if self.greatest.is_below(number) {
            self.greatest = number;
        }
        self.sum.add(number);
        let count = self.count_as_double();
        if let Some(more) = &mut self.more {
            more.add(time, number, count);
        }
    }

    /// Sorts the values for percentiles, which must come before [`Summary::result`].
    pub fn finish(&mut self) {
        if let Some(more) = &mut self.more {
            more.quantiles.sort();
        }
    }

    /// The result of a function that the summary was made for; always a finite number.
    pub fn result(&self, function: Function) -> Value<'static> {
        let more = self.more.as_deref();
        let number = match function {
            Function::Mean => self.within(self.sum.mean(self.count_as_double())),
            Function::Min => self.least,
            Function::Max => self.greatest,
            Function::Count => Number::Integer(i64::try_from(self.count).unwrap_or(i64::MAX)),
            Function::Sum => self.sum.total(),
            Function::First => more.map_or(self.least, |more| more.first.1),
            Function::Last => more.map_or(self.greatest, |more| more.last.1),
            Function::StandardDeviation => {
                let deviation = more.map(|more| more.spread.standard_deviation(self.count_as_double()));
                Number::Double(deviation.unwrap_or_default())
            }
            Function::Percentile(percent) => {
                self.within(more.map_or(0.0, |more| more.quantiles.percentile(percent)))
            }
        };
        number.as_value()
    }

    /// Limits a result to the extremes of the values, which rounding and the sketch may exceed.
    fn within(&self, double: f64) -> Number {
        Number::Double(double.max(self.least.as_double()).min(self.greatest.as_double()))
    }

    #[expect(clippy::cast_precision_loss, reason = "no window has 2^53 readings")]
    fn count_as_double(&self) -> f64 {
        self.count as f64
    }
}

impl Extras {
    fn add(&mut self, time: Timestamp, number: Number, count: f64) {
        if time < self.first.0 {
            self.first = (time, number);
        }
        if time >= self.last.0 {
            self.last = (time, number);
        }
        if self.needs.spread {
            self.spread.add(number.as_double(), count);
        }
        if self.needs.quantiles {
            self.quantiles.add(number.as_double());
        }
    }
}
