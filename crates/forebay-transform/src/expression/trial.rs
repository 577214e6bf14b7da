//! Tries an expression on sample readings with a number, a boolean and a text as their value.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBool, CelDouble, CelString};
use cel::common::value::Val;
use cel::{ExecutionError, Value};
use forebay_reading::timestamp::Timestamp;

use super::check::root;
use super::fault::ExpressionFault;
use super::shape::parts;
use super::variables::{NAMES, TagsMap, Variables, time};
use super::{ExpressionValue, ResultType, interpret};

/// Operators by their names in the crate.
const OPERATORS: [(&str, &str); 5] = [("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/"), ("rem", "%")];

/// The result of an expression on a sample.
enum SampleResult {
    /// It has this value.
    Value(ExpressionValue<'static>),
    /// Its types do not fit together.
    Misfit(ExecutionError),
    /// It has no value on this sample, but may have one on another reading.
    Dependent,
    /// It reads a tag, and the sample has none.
    WithoutTag,
}

/// Tries each part of an expression and then the type of the whole.
///
/// A part is at fault if it fails on every sample: `value * 2` multiplies a double, a bool and a string with an int, and
/// no such product exists. A missing tag is never a fault.
pub(super) fn run(tree: &IdedExpr, wanted: ResultType) -> Result<(), ExpressionFault> {
    let samples = samples();
    try_parts(tree, &samples)?;
    let outcomes = samples.iter().map(|sample| attempt(tree, sample)).collect::<Vec<_>>();
    let is_fine = |trial: &SampleResult| match trial {
        SampleResult::Value(outcome) => wanted.takes(outcome),
        SampleResult::Misfit(_) | SampleResult::WithoutTag => false,
        SampleResult::Dependent => true,
    };
    if outcomes.iter().any(is_fine) {
        return Ok(());
    }
    let gave = outcomes.iter().find_map(|trial| match trial {
        SampleResult::Value(outcome) => Some(outcome.type_name()),
        SampleResult::Misfit(_) | SampleResult::Dependent | SampleResult::WithoutTag => None,
    });
    let problem = format!("must give {}, got {}", wanted.noun(), gave.map_or("an error", plain));
    Err(ExpressionFault { id: tree.id, problem })
}

/// Sample readings: each value with every tag that an expression may read, and without tags.
fn samples() -> Vec<Variables<'static>> {
    let values: [fn() -> Box<dyn Val>; 3] = [
        || Box::new(CelDouble::from(1.0)),
        || Box::new(CelBool::from(true)),
        || Box::new(CelString::from("text")),
    ];
    let tags = [TagsMap::whatever("tag", "text"), TagsMap::none()];
    let sample = |value: Box<dyn Val>, tags: &TagsMap<'static>| Variables {
        device: CelString::from("device"),
        sensor: CelString::from("sensor"),
        value,
        time: time(Timestamp::MIN),
        unit: CelString::from("unit"),
        tags: tags.clone(),
    };
    tags.iter().flat_map(|tags| values.map(|value| sample(value(), tags))).collect()
}

/// Reports the innermost part that fails on every sample. The body of a loop is tried with the loop.
fn try_parts(tree: &IdedExpr, samples: &[Variables<'_>]) -> Result<(), ExpressionFault> {
    match &tree.expr {
        Expr::Comprehension(looped) => try_parts(&looped.iter_range, samples)?,
        // The first part of the name of a type is not a value.
        Expr::Select(_) if root(tree).is_some_and(|(_, name)| !NAMES.contains(&name)) => {}
        _ => parts(tree).into_iter().try_for_each(|part| try_parts(part, samples))?,
    }
    if matches!(tree.expr, Expr::Ident(_) | Expr::Literal(_)) {
        return Ok(());
    }
    let mut first = None;
    for sample in samples {
        match attempt(tree, sample) {
            SampleResult::Value(_) | SampleResult::Dependent => return Ok(()),
            SampleResult::Misfit(error) => first = first.or(Some(error)),
            SampleResult::WithoutTag => {}
        }
    }
    let problem = first.map_or(String::new(), |error| explain(tree, &error));
    Err(ExpressionFault { id: tree.id, problem })
}

fn attempt(tree: &IdedExpr, sample: &Variables<'_>) -> SampleResult {
    match interpret(tree, sample) {
        Ok(outcome) => SampleResult::Value(outcome),
        Err(ExecutionError::NoSuchKey(_)) if sample.tags.is_empty() => SampleResult::WithoutTag,
        Err(error) if is_about_types(&error) || is_constant(tree) || has_constant_pattern(tree) => {
            SampleResult::Misfit(error)
        }
        Err(_) => SampleResult::Dependent,
    }
}

/// Whether an error does not depend on the contents of a reading.
fn is_about_types(error: &ExecutionError) -> bool {
    !matches!(
        error,
        ExecutionError::NoSuchKey(_)
            | ExecutionError::FunctionError { .. }
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::InternalError(_)
    )
}

fn is_constant(tree: &IdedExpr) -> bool {
    !matches!(tree.expr, Expr::Ident(_)) && parts(tree).into_iter().all(is_constant)
}

/// A malformed pattern of `matches` fails on every text.
fn has_constant_pattern(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Call(call) if call.func_name == "matches")
}

/// The error in words for people.
fn explain(tree: &IdedExpr, error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            misfit(tree, sign(overload.function()), overload.argument_types())
        }
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            let operator = OPERATORS.iter().find(|(known, _)| known == name).map_or(*name, |(_, sign)| sign);
            misfit(tree, operator, &[type_of(left), type_of(right)])
        }
        ExecutionError::UnexpectedType { got, want } => format!("must be {want}, got {got}"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::FunctionError { function, message } => match function.as_str() {
            "duration" => "no duration; one is written as '10s' or '1h30m'".to_owned(),
            "timestamp" => "no timestamp; one is written as '2026-02-01T12:00:00Z'".to_owned(),
            _ => one_line(message),
        },
        other => one_line(&other.to_string()),
    }
}

/// The message for an operator or a function that does not exist for these types.
fn misfit(tree: &IdedExpr, operator: &str, types: &[String]) -> String {
    let types = types.iter().map(|name| plain(name)).collect::<Vec<_>>();
    match &tree.expr {
        Expr::Select(select) => format!("{} has no field `{}`", types.first().unwrap_or(&""), select.field),
        Expr::Call(call) if OPERATORS.iter().any(|(_, sign)| *sign == operator) => {
            let hint = if types.contains(&"double") && types.contains(&"int") {
                double_hint(call)
            } else {
                String::new()
            };
            format!("`{operator}` does not work on {}{hint}", types.join(" and "))
        }
        _ => format!("`{operator}` does not work on {}", types.join(" and ")),
    }
}

/// `_+_` is written `+`.
fn sign(operator: &str) -> &str {
    match operator {
        "_[_]" | "_[?_]" => "[]",
        "_?_:_" => "?",
        "_._" | "_?._" => ".",
        // The names of our own functions begin with an `@`.
        other => other.trim_matches('_').trim_start_matches('@'),
    }
}

/// The name of a type in an expression.
fn plain(name: &str) -> &str {
    match name {
        "google.protobuf.Timestamp" => "timestamp",
        "google.protobuf.Duration" => "duration",
        "null_type" => "null",
        "float" => "double",
        other => other,
    }
}

/// The hint for an int that meets a double.
fn double_hint(call: &CallExpr) -> String {
    let integer = call.args.iter().find_map(|argument| match &argument.expr {
        Expr::Literal(LiteralValue::Int(number)) => Some(*number.inner()),
        _ => None,
    });
    match integer {
        Some(number) => format!(": a number is a double, write {number}.0"),
        None => ": convert the int with double(…)".to_owned(),
    }
}

fn type_of(value: &Value) -> String {
    value.type_of().to_string()
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
