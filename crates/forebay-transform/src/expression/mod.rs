//! Expressions over the fields of a reading, in the Common Expression Language.
//!
//! The language is the [CEL specification](https://github.com/google/cel-spec/blob/master/doc/langdef.md) with its
//! standard macros, functions and optional values, parsed and run by the crate `cel`. An expression sees
//! `device`, `sensor` and `unit` (strings; `unit` is "" if there is none), `value`, `time` (a timestamp) and `tags` (a
//! map of string to string).
//!
//! Differences from the specification, and additions:
//!
//! - A reading's number is always a double, however it was sent, so `value * 2.0` is right and `value * 2` is an error:
//!   CEL does not multiply a double with an int. It does compare them: `value > 2` is right.
//! - There is no type checker. Names and functions are looked up at start, and each part of an expression is tried on
//!   sample readings with a number, a boolean and a text; a part that fails on all of them stops the start.
//! - Durations and timestamps follow the specification, also where the crate does not (`times.rs`). Like Go, they lack
//!   the leap second that the specification allows.
//! - `<`, `<=`, `>` and `>=` fail on NaN, where the specification says false (as in the crate).
//! - `tags` is never equal to a map literal on the left of `==`; on the right it can be.
//! - An expression has at most [`TEXT_BYTES_MAX`] bytes, [`DEPTH_MAX`] levels and two loops (`all`, `exists`, `map`,
//!   `filter`, …) within one another, which go round at most [`ROUNDS_MAX`] times in all; the pattern of `matches`
//!   must be a literal. So the cost of an expression is bounded by its text, not by readings.
//!
//! Most expressions compare, calculate and test a few fields. `fast` evaluates them without allocating. The crate
//! evaluates all others, which takes several hundred nanoseconds more, or tens of microseconds where it compiles the
//! pattern of `matches` for each reading. Both give the same results.

mod check;
mod fast;
mod fault;
mod scalar;
mod shape;
mod syntax;
mod times;
mod trial;
mod variables;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, CelTimestamp, CelUInt};
use cel::common::value::Val;
use cel::{Context, Env, ExecutionError, Program};
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingRef, Token};
use thiserror::Error;

use fast::FastNode;
use scalar::{Miss, Scalar};
use variables::Variables;

/// Longest expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most levels of an expression: `a + b` has two.
pub const DEPTH_MAX: usize = 64;
/// Most rounds of all loops of an expression, by its text.
pub const ROUNDS_MAX: usize = 10_000;

/// The functions, types and macros of the language.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(times::language()));

/// An expression that was checked and can be evaluated.
pub struct Expression {
    text: String,
    program: Program,
    fast: Option<FastNode>,
}

/// The type that an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultType {
    /// True or false.
    Truth,
    /// A string.
    Text,
    /// A type of a reading's value: a number, true or false, or a string.
    Value,
    /// A timestamp.
    Time,
}

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpressionValue<'a> {
    /// True or false.
    Boolean(bool),
    /// An int.
    Integer(i64),
    /// A uint.
    Unsigned(u64),
    /// A double; may be infinite or NaN.
    Double(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A timestamp; `None` if it lies before 1970 or after 2262.
    Time(Option<Timestamp>),
    /// Anything else, by the name of its type.
    Other(String),
}

/// An expression has no value on this reading: a tag is missing, a type does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the expression has no value on this reading")]
pub struct NoValue;

/// The fields of a reading, for any number of expressions: its number is parsed once.
#[derive(Debug)]
pub struct ReadingFields<'a> {
    reading: ReadingRef<'a>,
    value: Cell<Option<Scalar<'a>>>,
}

impl Expression {
    /// Compiles an expression that must give the wanted type.
    ///
    /// # Errors
    ///
    /// The fault, its place, and the remedy, in words for people.
    pub fn compile(text: &str, wanted: ResultType) -> Result<Expression, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("must be at most {TEXT_BYTES_MAX} bytes long, got {}", text.len()));
        }
        let program = syntax::parse(text)?;
        check::names(program.expression())
            .and_then(|()| trial::run(program.expression(), wanted))
            .map_err(|fault| fault.with_place(program.source_info()))?;
        let fast = fast::compile(program.expression());
        Ok(Expression { text: text.to_owned(), program, fast })
    }

    /// The text of the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has one of the common shapes, which need neither the crate nor memory.
    pub fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// The value on a reading.
    ///
    /// # Errors
    ///
    /// [`NoValue`] if it has none.
    pub fn evaluate<'a>(&'a self, fields: &ReadingFields<'a>) -> Result<ExpressionValue<'a>, NoValue> {
        match self.fast.as_ref().map(|fast| fast.evaluate(fields)) {
            Some(Ok(scalar)) => Ok(ExpressionValue::from(scalar)),
            Some(Err(Miss::Failed)) => Err(NoValue),
            Some(Err(Miss::Undecided)) | None => self.interpret(fields.reading),
        }
    }

    /// Whether it is true for a reading.
    ///
    /// # Errors
    ///
    /// [`NoValue`] if it has no value, or neither true nor false.
    pub fn holds(&self, reading: ReadingRef<'_>) -> Result<bool, NoValue> {
        match self.evaluate(&ReadingFields::of(reading))? {
            ExpressionValue::Boolean(truth) => Ok(truth),
            _ => Err(NoValue),
        }
    }

    /// The value on a reading, evaluated by the crate alone.
    ///
    /// # Errors
    ///
    /// [`NoValue`] if it has none.
    pub fn interpret(&self, reading: ReadingRef<'_>) -> Result<ExpressionValue<'static>, NoValue> {
        interpret(self.program.expression(), &Variables::of(reading)).map_err(|_| NoValue)
    }
}

fn interpret(
    tree: &cel::IdedExpr,
    variables: &Variables<'_>,
) -> Result<ExpressionValue<'static>, ExecutionError> {
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    context.set_variable_resolver(variables);
    cel::Value::resolve_val(tree, &context).map(|value| ExpressionValue::of(&*value))
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Expression");
        debug.field("text", &self.text).field("is_fast", &self.is_fast()).finish()
    }
}

impl<'a> ReadingFields<'a> {
    /// Takes a reading.
    pub fn of(reading: ReadingRef<'a>) -> ReadingFields<'a> {
        ReadingFields { reading, value: Cell::new(None) }
    }

    /// The reading.
    pub fn reading(&self) -> ReadingRef<'a> {
        self.reading
    }

    /// The value, if it is a number.
    pub fn number(&self) -> Option<f64> {
        match self.value() {
            Scalar::Double(number) => Some(number),
            Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Text(_) => None,
        }
    }

    fn value(&self) -> Scalar<'a> {
        if let Some(value) = self.value.get() {
            return value;
        }
        let value = match self.reading.value_token() {
            Token::Text(text) => Scalar::Text(text),
            Token::Literal(b"true") => Scalar::Boolean(true),
            Token::Literal(b"false") => Scalar::Boolean(false),
            Token::Literal(_) => Scalar::Double(
                self.reading.value_as_double().expect("a literal that is not a boolean is a number"),
            ),
        };
        self.value.set(Some(value));
        value
    }

    fn tag(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.reading.tags_bytes().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl<'a> From<Scalar<'a>> for ExpressionValue<'a> {
    fn from(scalar: Scalar<'a>) -> ExpressionValue<'a> {
        match scalar {
            Scalar::Boolean(truth) => ExpressionValue::Boolean(truth),
            Scalar::Integer(number) => ExpressionValue::Integer(number),
            Scalar::Double(number) => ExpressionValue::Double(number),
            Scalar::Text(text) => ExpressionValue::Text(String::from_utf8_lossy(text)),
        }
    }
}

impl ExpressionValue<'_> {
    fn of(value: &dyn Val) -> ExpressionValue<'static> {
        if let Some(truth) = value.downcast_ref::<CelBool>() {
            ExpressionValue::Boolean(*truth.inner())
        } else if let Some(number) = value.downcast_ref::<CelDouble>() {
            ExpressionValue::Double(*number.inner())
        } else if let Some(text) = value.downcast_ref::<CelString>() {
            ExpressionValue::Text(Cow::Owned(text.inner().to_owned()))
        } else if let Some(number) = value.downcast_ref::<CelInt>() {
            ExpressionValue::Integer(*number.inner())
        } else if let Some(number) = value.downcast_ref::<CelUInt>() {
            ExpressionValue::Unsigned(*number.inner())
        } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
            ExpressionValue::Time(time.inner().timestamp_nanos_opt().and_then(Timestamp::from_nanos))
        } else {
            ExpressionValue::Other(value.get_type().name().to_owned())
        }
    }

    /// The name of its type in CEL.
    fn type_name(&self) -> &str {
        match self {
            ExpressionValue::Boolean(_) => "bool",
            ExpressionValue::Integer(_) => "int",
            ExpressionValue::Unsigned(_) => "uint",
            ExpressionValue::Double(_) => "double",
            ExpressionValue::Text(_) => "string",
            ExpressionValue::Time(_) => "timestamp",
            ExpressionValue::Other(name) => name,
        }
    }
}

impl ResultType {
    fn takes(self, outcome: &ExpressionValue<'_>) -> bool {
        match outcome {
            ExpressionValue::Boolean(_) => matches!(self, ResultType::Truth | ResultType::Value),
            ExpressionValue::Integer(_) | ExpressionValue::Unsigned(_) | ExpressionValue::Double(_) => {
                self == ResultType::Value
            }
            ExpressionValue::Text(_) => matches!(self, ResultType::Text | ResultType::Value),
            ExpressionValue::Time(_) => self == ResultType::Time,
            ExpressionValue::Other(_) => false,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            ResultType::Truth => "true or false",
            ResultType::Text => "a string",
            ResultType::Value => "a number, true or false, or a string",
            ResultType::Time => "a timestamp",
        }
    }
}

#[cfg(test)]
mod tests;
