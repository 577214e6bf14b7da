//! Expressions over the fields of a reading, in the Common Expression Language.
//!
//! The language is that of the [CEL specification](https://github.com/google/cel-spec/blob/master/doc/langdef.md) with
//! its standard macros, functions and optional values, as the crate `cel` reads and runs it. An expression sees
//! `device`, `sensor` and `unit` (strings; `unit` is "" if there is none), `value`, `time` (a timestamp) and `tags` (a
//! map of string to string).
//!
//! Where this differs from the specification, or adds to it:
//!
//! - A reading's number is always a double, however it was sent, so `value * 2.0` is right and `value * 2` is an error:
//!   CEL multiplies no double with an int. It does compare them: `value > 2` is right.
//! - There is no type checker. Names and functions are looked up at start, and each part of an expression is tried on
//!   sample readings with a number, a boolean and a text; one that cannot work on any of them stops the start.
//! - Durations and timestamps are the specification's, also where the crate's are not (`times.rs`). One leaves out what
//!   the specification takes and Go does not: there is no leap second.
//! - `<` and its kin fail on NaN, where the specification says false (the crate's doing).
//! - `tags` is never equal to a map literal that stands on the left of `==` (it is, on the right).
//! - An expression has at most [`TEXT_BYTES_MAX`] bytes, [`DEPTH_MAX`] levels and two loops (`all`, `exists`, `map`,
//!   `filter`, …) within one another, which go round no more than [`ROUNDS_MAX`] times in all; the pattern of
//!   `matches` must be written out. What an expression costs is bounded by its text, then, and not by a reading.
//!
//! Most expressions compare, calculate and test a few fields. Those are evaluated by `fast` without allocating; all
//! others by the crate, for several hundred nanoseconds more, or tens of microseconds where it compiles the pattern of
//! `matches` for each reading. Both give the same.

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

use fast::Node;
use scalar::{Miss, Scalar};
use variables::Variables;

/// Longest expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most levels of an expression: `a + b` has two.
pub const DEPTH_MAX: usize = 64;
/// Most rounds of all loops of an expression, as far as its text tells.
pub const ROUNDS_MAX: usize = 10_000;

/// The functions, types and macros of the language.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(times::language()));

/// An expression that was checked and can be evaluated.
pub struct Expression {
    text: String,
    program: Program,
    fast: Option<Node>,
}

/// What an expression has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// True or false.
    Truth,
    /// A string.
    Text,
    /// What a reading can have as its value: a number, true or false, or a string.
    Value,
    /// A timestamp.
    Time,
}

/// What an expression gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// True or false.
    Boolean(bool),
    /// An int.
    Integer(i64),
    /// A uint.
    Unsigned(u64),
    /// A double; perhaps not a finite one.
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
pub struct Failed;

/// The fields of a reading, for any number of expressions: its number is read once.
#[derive(Debug)]
pub struct Fields<'a> {
    reading: ReadingRef<'a>,
    value: Cell<Option<Scalar<'a>>>,
}

impl Expression {
    /// Takes an expression that is to give what is wanted.
    ///
    /// # Errors
    ///
    /// What is wrong with it, where, and what would be right, in words for people.
    pub fn compile(text: &str, wanted: Wanted) -> Result<Expression, String> {
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

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is one of the common shapes, which need neither the crate nor memory.
    pub fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// Its value.
    ///
    /// # Errors
    ///
    /// [`Failed`] if it has none.
    pub fn evaluate<'a>(&'a self, fields: &Fields<'a>) -> Result<Outcome<'a>, Failed> {
        match self.fast.as_ref().map(|fast| fast.evaluate(fields)) {
            Some(Ok(scalar)) => Ok(Outcome::from(scalar)),
            Some(Err(Miss::Failed)) => Err(Failed),
            Some(Err(Miss::Undecided)) | None => self.interpret(fields.reading),
        }
    }

    /// Whether it is true.
    ///
    /// # Errors
    ///
    /// [`Failed`] if it has no value, or neither true nor false.
    pub fn holds(&self, reading: ReadingRef<'_>) -> Result<bool, Failed> {
        match self.evaluate(&Fields::of(reading))? {
            Outcome::Boolean(truth) => Ok(truth),
            _ => Err(Failed),
        }
    }

    /// Its value, as the crate alone finds it.
    ///
    /// # Errors
    ///
    /// [`Failed`] if it has none.
    pub fn interpret(&self, reading: ReadingRef<'_>) -> Result<Outcome<'static>, Failed> {
        interpret(self.program.expression(), &Variables::of(reading)).map_err(|_| Failed)
    }
}

fn interpret(tree: &cel::IdedExpr, variables: &Variables<'_>) -> Result<Outcome<'static>, ExecutionError> {
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    context.set_variable_resolver(variables);
    cel::Value::resolve_val(tree, &context).map(|value| Outcome::of(&*value))
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Expression");
        debug.field("text", &self.text).field("is_fast", &self.is_fast()).finish()
    }
}

impl<'a> Fields<'a> {
    /// Takes a reading.
    pub fn of(reading: ReadingRef<'a>) -> Fields<'a> {
        Fields { reading, value: Cell::new(None) }
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
            Token::Literal(_) => {
                Scalar::Double(self.reading.value_as_double().expect("what is no text is a number"))
            }
        };
        self.value.set(Some(value));
        value
    }

    fn tag(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.reading.tags_bytes().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

impl<'a> From<Scalar<'a>> for Outcome<'a> {
    fn from(scalar: Scalar<'a>) -> Outcome<'a> {
        match scalar {
            Scalar::Boolean(truth) => Outcome::Boolean(truth),
            Scalar::Integer(number) => Outcome::Integer(number),
            Scalar::Double(number) => Outcome::Double(number),
            Scalar::Text(text) => Outcome::Text(String::from_utf8_lossy(text)),
        }
    }
}

impl Outcome<'_> {
    fn of(value: &dyn Val) -> Outcome<'static> {
        if let Some(truth) = value.downcast_ref::<CelBool>() {
            Outcome::Boolean(*truth.inner())
        } else if let Some(number) = value.downcast_ref::<CelDouble>() {
            Outcome::Double(*number.inner())
        } else if let Some(text) = value.downcast_ref::<CelString>() {
            Outcome::Text(Cow::Owned(text.inner().to_owned()))
        } else if let Some(number) = value.downcast_ref::<CelInt>() {
            Outcome::Integer(*number.inner())
        } else if let Some(number) = value.downcast_ref::<CelUInt>() {
            Outcome::Unsigned(*number.inner())
        } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
            Outcome::Time(time.inner().timestamp_nanos_opt().and_then(Timestamp::from_nanos))
        } else {
            Outcome::Other(value.get_type().name().to_owned())
        }
    }

    /// Its type, as CEL calls it.
    fn type_name(&self) -> &str {
        match self {
            Outcome::Boolean(_) => "bool",
            Outcome::Integer(_) => "int",
            Outcome::Unsigned(_) => "uint",
            Outcome::Double(_) => "double",
            Outcome::Text(_) => "string",
            Outcome::Time(_) => "timestamp",
            Outcome::Other(name) => name,
        }
    }
}

impl Wanted {
    fn takes(self, outcome: &Outcome<'_>) -> bool {
        match outcome {
            Outcome::Boolean(_) => matches!(self, Wanted::Truth | Wanted::Value),
            Outcome::Integer(_) | Outcome::Unsigned(_) | Outcome::Double(_) => self == Wanted::Value,
            Outcome::Text(_) => matches!(self, Wanted::Text | Wanted::Value),
            Outcome::Time(_) => self == Wanted::Time,
            Outcome::Other(_) => false,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Wanted::Truth => "true or false",
            Wanted::Text => "a string",
            Wanted::Value => "a number, true or false, or a string",
            Wanted::Time => "a timestamp",
        }
    }
}

#[cfg(test)]
mod tests;
