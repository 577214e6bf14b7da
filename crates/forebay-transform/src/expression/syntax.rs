//! Parses any text into a syntax tree or an error for people.

use std::thread;

use cel::{ParseError, ParseErrors, Program};

use super::{LANGUAGE, check, shape};

/// Stack of the thread that parses, in bytes. The crate's parser recurses; the most that a text of 4 KiB took in tests is
/// between 768 KiB and 1 MiB (`1+1+1…`, or 90 parentheses, in a build that is not optimised).
const STACK_BYTES: usize = 32 << 20;

/// Parses an expression and checks its shape, on a thread of its own: the caller's stack may be too small for a hostile
/// text, and a panic of the parser becomes a message.
///
/// # Errors
///
/// The fault and its place.
pub(super) fn parse(text: &str) -> Result<Program, String> {
    let parse = || {
        let program = LANGUAGE.compile(text).map_err(|errors| explain(&errors))?;
        shape::check(program.expression())
            .map_err(|fault| fault.with_place(program.source_info()))
            .map(|()| program)
    };
    let parser = thread::Builder::new().name("expression".to_owned()).stack_size(STACK_BYTES);
    thread::scope(|scope| {
        let running = parser.spawn_scoped(scope, parse);
        let running = running.map_err(|error| format!("cannot be parsed: no thread for it: {error}"))?;
        running.join().unwrap_or_else(|_| Err("cannot be parsed: the parser has failed on it".to_owned()))
    })
}

/// The text of the first error that names the expected tokens, or else of the first.
fn explain(errors: &ParseErrors) -> String {
    let is_syntax = |error: &&ParseError| error.msg.starts_with("Syntax error");
    let Some(error) = errors.errors.iter().find(is_syntax).or(errors.errors.first()) else {
        return "is no expression".to_owned();
    };
    let (line, column) = error.pos;
    format!("line {line}, column {column}: {}", translate(&error.msg))
}

/// Translates the parser's message into words for people.
fn translate(message: &str) -> String {
    if message.contains("Recursion limit") {
        return shape::too_deep();
    }
    if message.contains("has() macro") {
        return check::macro_form("has").unwrap_or_default();
    }
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    if let Some(unknown) = message.strip_prefix("token recognition error at: ") {
        return unknown_token(unknown);
    }
    let (found, expected) = message.split_once(" expecting ").unwrap_or((message, ""));
    match expectation(expected) {
        Some(expected) => format!("{}, expected {expected}", finding(found)),
        None => finding(found),
    }
}

/// The unexpected token.
fn finding(found: &str) -> String {
    let unexpected = ["extraneous input ", "mismatched input ", "no viable alternative at input "];
    match unexpected.into_iter().find_map(|start| found.strip_prefix(start)) {
        Some("'<EOF>'") => "unexpected end".to_owned(),
        Some(token) => format!("unexpected `{}`", unquoted(token).escape_debug()),
        None => found.replace("'<EOF>'", "the end").replace('\'', "`"),
    }
}

fn unknown_token(token: &str) -> String {
    match unquoted(token).trim() {
        "=" => "`=` is no operator, `==` compares".to_owned(),
        "&" => "`&` is no operator, `&&` is".to_owned(),
        "|" => "`|` is no operator, `||` is".to_owned(),
        text if text.starts_with(['\'', '"']) && text.contains('\\') => {
            "a string that does not end, or with an unknown escape".to_owned()
        }
        text if text.starts_with(['\'', '"']) => "a string that does not end".to_owned(),
        other => format!("`{}` means nothing here", other.escape_debug()),
    }
}

/// A token without the quotation marks that the parser puts around it.
fn unquoted(token: &str) -> &str {
    token.strip_prefix('\'').and_then(|token| token.strip_suffix('\'')).unwrap_or(token)
}

/// The expected tokens, summed up if there are many.
fn expectation(tokens: &str) -> Option<String> {
    if tokens.is_empty() {
        return None;
    }
    Some(if tokens.contains("IDENTIFIER") && tokens.contains("NUM_FLOAT") {
        "a name, a value or `(`".to_owned()
    } else if tokens.contains("'&&'") {
        let closing = [")", "]", "}", ":"].into_iter().find(|token| tokens.contains(&format!("'{token}'")));
        closing.map_or("an operator or the end".to_owned(), |token| format!("an operator or `{token}`"))
    } else {
        let tokens = tokens.trim_matches(['{', '}'].as_slice()).replace("<EOF>", "the end");
        tokens.replace("', '", "' or '").replace('\'', "`")
    })
}
