//! What can be made of a window's readings, by its name in the settings and in the sensors of the results.

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
    /// How many readings there are, an integer without a unit.
    Count,
    /// The sum: an integer if all values are integers and it fits in 64 bits signed, else a double. One that is beyond
    /// what a double can hold is given as the greatest or least double.
    Sum,
    /// The value of the earliest reading by its own time, of the one that came first if there are several.
    First,
    /// The value of the latest reading by its own time, of the one that came last if there are several.
    Last,
    /// Standard deviation of a sample (the sum of squares is divided by one less than the count), a double; 0 for a
    /// single reading.
    StandardDeviation,
    /// The least value that at least so many percent of the readings do not exceed, a double: of n readings the one of
    /// rank ⌈percent · n / 100⌉; see [`super::quantiles`].
    Percentile(u8),
}

/// The functions of one transform, in the order of the settings, each with its name.
pub type Functions = Vec<(String, Function)>;

/// What has to be kept of a window beside count, extremes and sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The first and the last value with their times.
    pub ends: bool,
    /// Mean and squares.
    pub spread: bool,
    /// How the values are distributed.
    pub quantiles: bool,
}

impl Needs {
    /// What these functions need.
    pub fn of(functions: &Functions) -> Needs {
        let any = |is_one: fn(Function) -> bool| functions.iter().any(|(_, function)| is_one(*function));
        Needs {
            ends: any(|function| matches!(function, Function::First | Function::Last)),
            spread: any(|function| function == Function::StandardDeviation),
            quantiles: any(|function| matches!(function, Function::Percentile(_))),
        }
    }

    /// Whether that is nothing.
    pub fn is_nothing(self) -> bool {
        self == Needs::default()
    }
}
