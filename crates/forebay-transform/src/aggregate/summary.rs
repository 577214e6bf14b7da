//! What is kept of a window's values: enough for the functions that are asked for.

use forebay_reading::Value;
use forebay_reading::timestamp::Timestamp;

use super::function::{Function, Needs};
use super::number::Number;
use super::quantiles::Quantiles;
use super::sum::{Spread, Sum};

/// The values of a window, summed up; at least one.
#[derive(Debug)]
pub struct Summary {
    count: u64,
    least: Number,
    greatest: Number,
    sum: Sum,
    more: Option<Box<More>>,
}

/// What few ask for.
#[derive(Debug)]
struct More {
    needs: Needs,
    first: (Timestamp, Number),
    last: (Timestamp, Number),
    spread: Spread,
    quantiles: Quantiles,
}

impl Summary {
    /// Sums up a first number.
    pub fn new(needs: Needs, time: Timestamp, number: Number) -> Summary {
        let more = (!needs.is_nothing()).then(|| {
            Box::new(More {
                needs,
                first: (time, number),
                last: (time, number),
                spread: Spread::default(),
                quantiles: Quantiles::default(),
            })
        });
        let mut summary = Summary { count: 0, least: number, greatest: number, sum: Sum::default(), more };
        summary.add(time, number);
        summary
    }

    /// Takes another number.
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

    /// Puts in order what is in the way of it came, so that results can be asked for.
    pub fn finish(&mut self) {
        if let Some(more) = &mut self.more {
            more.quantiles.sort();
        }
    }

    /// The result of a function that it was made for; always a finite number.
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

    /// Rounding and the sketch may lead beyond the values themselves.
    fn within(&self, double: f64) -> Number {
        Number::Double(double.max(self.least.as_double()).min(self.greatest.as_double()))
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 readings")]
    fn count_as_double(&self) -> f64 {
        self.count as f64
    }
}

impl More {
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
