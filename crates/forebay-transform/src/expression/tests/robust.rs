//! No expression and no reading causes a panic.

use proptest::prelude::*;

use super::*;
use crate::expression::syntax;

/// Pieces of expressions, well-formed and not.
const PIECES: [&str; 72] = [
    "device",
    "sensor",
    "value",
    "time",
    "unit",
    "tags",
    "x",
    "int",
    "double",
    "size",
    "string",
    "(",
    ")",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ".?",
    "[?",
    "?",
    ":",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    "=",
    "&&",
    "||",
    "in",
    "has(",
    "true",
    "false",
    "null",
    "0",
    "1",
    "-1",
    "2u",
    "1.5",
    "1e999",
    "0x1F",
    "9223372036854775808",
    "'a'",
    "\"b\"",
    "''",
    "'''",
    "b'x'",
    "r'\\'",
    "'\\u0041'",
    "'\\",
    "tags.site",
    ".all(x, ",
    ".map(x, ",
    ".exists(x,",
    "timestamp('2026-02-01T12:00:00Z')",
    "duration('10s')",
    ".getHours('+99:99')",
    ".startsWith(",
    "matches('(a+)+$')",
    "\u{0}é",
    "optional.of(",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_the_compiler_panic(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24),
        noise in "\\PC{0,3}",
        space in prop::sample::select(&["", " ", "\n"][..]),
    ) {
        let text = pieces.join(space) + &noise;
        for wanted in [ResultType::Truth, ResultType::Value, ResultType::Time] {
            match Expression::compile(&text, wanted) {
                Ok(expression) => for value in [Value::Integer(i64::MIN), Value::Double(1e308), Value::Text("\u{0}é")] {
                    let readings = reading(value);
                    let _ = expression.interpret(readings.iter().next().expect("one"));
                },
                Err(problem) => prop_assert!(!problem.contains("has failed"), "{}: {}", text, problem),
            }
        }
    }
}

/// Any expression of the grammar, whether its types fit or not.
fn expression() -> impl Strategy<Value = String> {
    let leaves = [
        "device",
        "value",
        "time",
        "unit",
        "tags",
        "tags.site",
        "'a'",
        "''",
        "'é\\u0000'",
        "'-9223372036854775808'",
        "b'x'",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615u",
        "0u",
        "0.0",
        "-0.0",
        "1e308",
        "9.3e18",
        "true",
        "null",
        "int",
        "timestamp('9999-12-31T23:59:59.999999999Z')",
        "timestamp('0001-01-01T00:00:00Z')",
        "duration('315576000000s')",
        "duration('-1ns')",
        "optional.none()",
    ];
    let leaf = prop::sample::select(leaves.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            4 => (two.clone(), prop::sample::select(BINARY.to_vec()))
                .prop_map(|((left, right), operator)| format!("({left} {operator} {right})")),
            1 => inner.clone().prop_map(|inner| format!("!({inner})")),
            1 => inner.clone().prop_map(|inner| format!("-({inner})")),
            1 => (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("(({a}) ? ({b}) : ({c}))")),
            1 => two.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => two.clone().prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            1 => two.clone().prop_map(|(a, b)| format!("({a})[{b}]")),
            3 => (inner.clone(), prop::sample::select(FUNCTIONS.to_vec()))
                .prop_map(|(argument, function)| format!("{function}({argument})")),
            2 => (inner.clone(), prop::sample::select(METHODS.to_vec()))
                .prop_map(|(target, method)| format!("({target}).{method}")),
            1 => (two.clone(), prop::sample::select(MACROS.to_vec()))
                .prop_map(|((target, body), name)| format!("({target}).{name}(x, {body})")),
        ]
    })
}

const BINARY: [&str; 14] = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"];
const FUNCTIONS: [&str; 12] = [
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "size",
    "timestamp",
    "duration",
    "type",
    "dyn",
    "optional.of",
];
const METHODS: [&str; 14] = [
    "size()",
    "getHours()",
    "getHours('+99:99')",
    "getDayOfYear('Asia/Kolkata')",
    "getFullYear('-23:59')",
    "getMilliseconds()",
    "startsWith('a')",
    "contains('é')",
    "matches('(a|b)*$')",
    "value()",
    "hasValue()",
    "orValue(1)",
    "?site",
    "site",
];
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "map", "filter", "optMap"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_expression_panics_on_any_reading(text in expression()) {
        let Ok(program) = syntax::parse(&text) else { return Ok(()) };
        let expression = Expression { text, program, fast: None };
        for value in [Value::Integer(i64::MIN), Value::Double(1e308), Value::Boolean(true), Value::Text("\u{0}é")] {
            let readings = reading(value);
            let _ = expression.interpret(readings.iter().next().expect("one"));
        }
        for wanted in [ResultType::Truth, ResultType::Value] {
            let _ = Expression::compile(&expression.text, wanted);
        }
    }
}
