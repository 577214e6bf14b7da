//! Checks that the names and functions of an expression are known.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::CelString;
use cel::{Context, ExecutionError, Value};

use super::LANGUAGE;
use super::fault::{ExpressionFault, nearest};
use super::shape::parts;
use super::variables::NAMES;

/// The functions of the language, for suggestions.
pub(super) const FUNCTIONS: [&str; 29] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "int",
    "matches",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "value",
];

/// Macros, which look like functions and have a syntax of their own.
const MACROS: [(&str, &str); 8] = [
    ("has", "has(tags.name)"),
    ("all", "list.all(x, condition)"),
    ("exists", "list.exists(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("filter", "list.filter(x, condition)"),
    ("map", "list.map(x, result)"),
    ("optMap", "optional.optMap(x, result)"),
    ("optFlatMap", "optional.optFlatMap(x, result)"),
];

/// Checks that every name and every function of a tree is known.
pub(super) fn names(tree: &IdedExpr) -> Result<(), ExpressionFault> {
    names_within(tree, &mut Vec::new())
}

/// Like [`names`], within loops that have these variables.
fn names_within<'a>(tree: &'a IdedExpr, variables: &mut Vec<&'a str>) -> Result<(), ExpressionFault> {
    let fault = |problem: String| Err(ExpressionFault { id: tree.id, problem });
    match &tree.expr {
        Expr::Unspecified => fault("cannot be understood".to_owned()),
        Expr::Struct(made) => fault(format!("there is no message `{}` to make", made.type_name)),
        Expr::Ident(_) | Expr::Select(_) => match root(tree) {
            Some((id, name)) if !is_known(name, variables) && !is_defined(tree) => {
                Err(ExpressionFault { id, problem: unknown_field(name) })
            }
            _ => names_of_parts(tree, variables),
        },
        Expr::Call(call) => {
            function(call, variables).or_else(fault)?;
            let parts = parts(tree);
            let names_a_function = call.target.is_some() && qualified_function(call, variables).is_some();
            let parts = &parts[usize::from(names_a_function)..];
            parts.iter().try_for_each(|part| names_within(part, variables))
        }
        Expr::Comprehension(looped) => names_of_loop(looped, variables),
        Expr::List(_) | Expr::Map(_) | Expr::Literal(_) => names_of_parts(tree, variables),
    }
}

fn names_of_parts<'a>(tree: &'a IdedExpr, variables: &mut Vec<&'a str>) -> Result<(), ExpressionFault> {
    // The first part of a qualified name is a name only together with the rest.
    if root(tree).is_some() {
        return Ok(());
    }
    parts(tree).into_iter().try_for_each(|part| names_within(part, variables))
}

fn names_of_loop<'a>(
    looped: &'a ComprehensionExpr,
    variables: &mut Vec<&'a str>,
) -> Result<(), ExpressionFault> {
    names_within(&looped.iter_range, variables)?;
    names_within(&looped.accu_init, variables)?;
    let outside = variables.len();
    variables.extend([looped.iter_var.as_str(), looped.accu_var.as_str()]);
    variables.extend(looped.iter_var2.as_deref());
    for part in [&looped.loop_cond, &looped.loop_step, &looped.result] {
        names_within(part, variables)?;
    }
    variables.truncate(outside);
    Ok(())
}

/// The first name of `a`, `a.b`, `a.b.c`, and its number in the tree; `None` for anything else.
pub(super) fn root(tree: &IdedExpr) -> Option<(u64, &str)> {
    match &tree.expr {
        Expr::Ident(name) => Some((tree.id, name)),
        Expr::Select(select) => root(&select.operand),
        _ => None,
    }
}

fn is_known(name: &str, variables: &[&str]) -> bool {
    // A leading dot excludes the variables of loops.
    let (is_absolute, plain) = name.strip_prefix('.').map_or((false, name), |plain| (true, plain));
    NAMES.contains(&plain) || (!is_absolute && variables.contains(&plain))
}

/// Whether the language itself defines the name, such as `int`.
fn is_defined(tree: &IdedExpr) -> bool {
    Value::resolve_val(tree, &Context::with_env(LANGUAGE.clone())).is_ok()
}

fn unknown_field(name: &str) -> String {
    let hint = nearest(name, NAMES).map_or(String::new(), |nearest| format!(", did you mean `{nearest}`?"));
    let stop = if hint.is_empty() { ";" } else { "" };
    format!("unknown field `{name}`{hint}{stop} known: {}", NAMES.join(", "))
}

/// Checks that the called function is known, and called in the right form.
fn function(call: &CallExpr, variables: &[&str]) -> Result<(), String> {
    let name = call.func_name.as_str();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    // Operators are calls too.
    if !name.bytes().all(is_name) || qualified_function(call, variables).is_some() {
        return pattern(call);
    }
    match (call.target.is_some(), is_function(name), is_method(name)) {
        (true, _, true) | (false, true, _) => pattern(call),
        (true, true, false) => Err(format!("`{name}` is called as `{name}(x)`")),
        (false, false, true) => Err(format!("`{name}` is called as `x.{name}(…)`")),
        (_, false, false) => Err(unknown_function(name)),
    }
}

fn unknown_function(name: &str) -> String {
    if let Some(form) = macro_form(name) {
        return form;
    }
    let known = FUNCTIONS.into_iter().chain(MACROS.map(|(known, _)| known));
    match nearest(name, known) {
        Some(nearest) => format!("unknown function `{name}`, did you mean `{nearest}`?"),
        None => format!("unknown function `{name}`; known: {}", FUNCTIONS.join(", ")),
    }
}

/// The syntax of the macro with this name.
pub(super) fn macro_form(name: &str) -> Option<String> {
    let (_, form) = MACROS.iter().find(|(known, _)| *known == name)?;
    Some(format!("`{name}` is written as `{form}`"))
}

/// Checks that the pattern of `matches` is a literal: compiling patterns from readings would take too long.
fn pattern(call: &CallExpr) -> Result<(), String> {
    let is_text = |argument: &IdedExpr| matches!(argument.expr, Expr::Literal(LiteralValue::String(_)));
    if call.func_name == "matches" && !call.args.last().is_some_and(is_text) {
        return Err("the pattern of `matches` must be written as a string".to_owned());
    }
    Ok(())
}

/// The name of the function if the target is not a value but the first half of the name: `optional.of`.
fn qualified_function(call: &CallExpr, variables: &[&str]) -> Option<String> {
    let target = call.target.as_deref()?;
    let Expr::Ident(first) = &target.expr else { return None };
    let name = format!("{first}.{}", call.func_name);
    (!is_known(first, variables) && is_function(&name)).then_some(name)
}

pub(super) fn is_function(name: &str) -> bool {
    is_callable(CallExpr { func_name: name.to_owned(), target: None, args: Vec::new() })
}

pub(super) fn is_method(name: &str) -> bool {
    let text = Expr::Literal(LiteralValue::String(CelString::from("")));
    let target = Some(Box::new(IdedExpr { id: 0, expr: text }));
    is_callable(CallExpr { func_name: name.to_owned(), target, args: Vec::new() })
}

/// Calls the function in the crate, whose errors distinguish an unknown function from one with other arguments.
fn is_callable(call: CallExpr) -> bool {
    let tree = IdedExpr { id: 0, expr: Expr::Call(call) };
    let result = Value::resolve_val(&tree, &Context::with_env(LANGUAGE.clone())).map(|_| ());
    !matches!(result, Err(ExecutionError::UndeclaredReference(_)))
}
