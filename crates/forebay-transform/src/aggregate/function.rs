//! The functions over a window's readings, by their names in the settings and in the sensors of the results.

use forebay_reading::registry::Registry;

/// The known functions, in the order in which people should see them.
pub const FUNCTIONS: Registry<Function> = Registry {
    what: "function",
    members: &[
        ("mean", Function::Mean),
        ("min", Function::Min),
        ("max", Function::Max),
        ("count", Function::Count),
        ("sum", Function::Sum),
        ("first", Function::First),
        ("last", Function::Last),
        ("stddev", Function::StandardDeviation),
        ("p50", Function::Percentile(50)),
        ("p95", Function::Percentile(95)),
        ("p99", Function::Percentile(99)),
    ],
};

/// One number made of the readings of a window. A boolean counts as the integer 0 or 1 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Arithmetic mean, a double.
    Mean,
    /// The least value; an integer stays one.
    Min,
    /// The greatest value; an integer stays one.
    Max,
    /// The number of readings, an integer without a unit.
    Count,
    /// The sum: an integer if all values are integers and it fits in 64 bits signed, else a double. A sum beyond the range
    /// of doubles is given as the greatest or least double.
    Sum,
    /// The value of the earliest reading by its own time; if there are several, of the one that came first.
    First,
    /// The value of the latest reading by its own time; if there are several, of the one that came last.
    Last,
    /// Standard deviation of a sample (the sum of squares is divided by one less than the count), a double; 0 for a
    /// single reading.
    StandardDeviation,
    /// The least value that at least this percentage of the readings does not exceed, a double: of n readings, that of
    /// rank ⌈percent · n / 100⌉; see [`super::quantiles`].
    Percentile(u8),
}

/// The functions of one transform, in the order of the settings, each with its name.
pub type Functions = Vec<(String, Function)>;

/// The statistics that a window needs beside count, extremes and sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The first and the last value with their times.
    pub ends: bool,
    /// Mean and squares.
    pub spread: bool,
    /// The distribution of the values.
    pub quantiles: bool,
}

impl Needs {
    /// The statistics that these functions need.
    pub fn of(functions: &Functions) -> Needs {
        let any = |is_one: fn(Function) -> bool| functions.iter().any(|(_, function)| is_one(*function));
        Needs {
            ends: any(|function| matches!(function, Function::First | Function::Last)),
            spread: any(|function| function == Function::StandardDeviation),
            quantiles: any(|function| matches!(function, Function::Percentile(_))),
        }
    }

    /// Whether count, extremes and sum are enough.
    pub fn is_nothing(self) -> bool {
        self == Needs::default()
    }
}
