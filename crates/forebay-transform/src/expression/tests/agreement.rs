//! The fast path gives exactly the results of the crate.

use forebay_reading::{ReadingParts, Readings, Tag, Value};
use proptest::prelude::*;

use super::*;
use crate::expression::{fast, syntax};

/// An expression of any shape that the fast path knows. Most parts have the right type, some another one.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![number_leaf(), text_leaf(), truth_leaf()];
    leaf.prop_recursive(5, 48, 3, |inner| {
        let any = inner.boxed();
        prop_oneof![
            4 => number(any.clone()),
            1 => text(any.clone()),
            5 => truth(any),
        ]
    })
}

fn number_leaf() -> BoxedStrategy<String> {
    let literals = ["0", "1", "-3", "20", "9007199254740993", "0.0", "-0.0", "1.5", "20.5", "1e308", "-40.0"];
    prop_oneof![3 => Just("value".to_owned()), 2 => prop::sample::select(literals.to_vec()).prop_map(str::to_owned)]
        .boxed()
}

fn text_leaf() -> BoxedStrategy<String> {
    let leaves = [
        "device",
        "sensor",
        "unit",
        "value",
        "''",
        "'a'",
        "'north'",
        "'té'",
        "'20'",
        "tags.a",
        "tags.b",
        "tags['a']",
        "tags[sensor]",
        "tags[value]",
    ];
    prop::sample::select(leaves.to_vec()).prop_map(str::to_owned).boxed()
}

fn truth_leaf() -> BoxedStrategy<String> {
    let leaves = ["true", "false", "has(tags.a)", "has(tags.b)", "('a' in tags)", "(value in tags)", "value"];
    prop::sample::select(leaves.to_vec()).prop_map(str::to_owned).boxed()
}

fn number(any: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let number = prop_oneof![8 => number_leaf(), 2 => any.clone()];
    prop_oneof![
        6 => (number.clone(), prop::sample::select(&["+", "-", "*", "/"]), number.clone())
            .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
        1 => number.clone().prop_map(|number| format!("-({number})")),
        2 => (any, number.clone(), number)
            .prop_map(|(condition, then, otherwise)| format!("(({condition}) ? {then} : {otherwise})")),
    ]
    .boxed()
}

fn text(any: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let text = prop_oneof![9 => text_leaf(), 1 => any.clone()];
    prop_oneof![
        (text.clone(), text.clone()).prop_map(|(left, right)| format!("({left} + {right})")),
        (any, text.clone(), text)
            .prop_map(|(condition, then, otherwise)| format!("(({condition}) ? {then} : {otherwise})")),
    ]
    .boxed()
}

fn truth(any: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let number = prop_oneof![4 => number_leaf(), 1 => number(any.clone()), 1 => any.clone()];
    let text = prop_oneof![9 => text_leaf(), 1 => any.clone()];
    let truth = prop_oneof![2 => truth_leaf(), 6 => any.clone()];
    let operator = || prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let binary = |(left, operator, right): (String, &str, String)| format!("({left} {operator} {right})");
    prop_oneof![
        4 => (number.clone(), operator(), number.clone()).prop_map(binary),
        3 => (text.clone(), operator(), text.clone()).prop_map(binary),
        1 => (any.clone(), operator(), any).prop_map(binary),
        6 => (truth.clone(), prop::sample::select(&["&&", "||"][..]), truth.clone()).prop_map(binary),
        1 => truth.clone().prop_map(|truth| format!("!({truth})")),
        1 => (text.clone(), prop::sample::select(&["startsWith", "endsWith", "contains"][..]), text.clone())
            .prop_map(|(text, test, argument)| format!("{text}.{test}({argument})")),
        1 => (text.clone(), prop::sample::select(&["^n.*h$", "é", "", "[0-9]{2}"][..]))
            .prop_map(|(text, pattern)| format!("{text}.matches('{pattern}')")),
        1 => text.clone().prop_map(|text| format!("matches({text}, 'a|th')")),
        1 => (prop_oneof![number, text], prop::collection::vec(literal(), 0..4))
            .prop_map(|(value, literals)| format!("({value} in [{}])", literals.join(", "))),
    ]
    .boxed()
}

fn literal() -> impl Strategy<Value = String> {
    let literals = ["0", "20", "1.5", "20.5", "'a'", "'north'", "true", "false", "-3", "9007199254740993"];
    prop::sample::select(literals.to_vec()).prop_map(str::to_owned)
}

#[derive(Clone, Debug)]
enum Measured {
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Text(&'static str),
}

fn measured() -> impl Strategy<Value = Measured> {
    prop_oneof![
        2 => prop::sample::select(&[0, 1, -3, 20, 9_007_199_254_740_993, i64::MIN][..]).prop_map(Measured::Integer),
        3 => prop::sample::select(&[0.0, -0.0, 1.5, 20.5, 1e308, -1e308, 5e-324][..]).prop_map(Measured::Double),
        1 => any::<bool>().prop_map(Measured::Boolean),
        2 => prop::sample::select(&["", "a", "north", "20", "té"][..]).prop_map(Measured::Text),
    ]
}

fn readings() -> impl Strategy<Value = Readings> {
    let tag = || prop::option::of(prop::sample::select(&["", "a", "north", "té"][..]));
    (measured(), prop::sample::select(&["a", "north", "té"][..]), tag(), tag(), tag()).prop_map(
        |(measured, sensor, unit, first, second)| {
            let value = match measured {
                Measured::Integer(number) => Value::Integer(number),
                Measured::Double(number) => Value::Double(number),
                Measured::Boolean(truth) => Value::Boolean(truth),
                Measured::Text(text) => Value::Text(text),
            };
            let tags = [("a", first), ("b", second)];
            let tags = tags.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
            let tags: Vec<Tag<'_>> = tags.collect();
            let time = Timestamp::MIN;
            let parts =
                ReadingParts { device: "north", sensor, value: value.into(), time, unit, tags: &tags };
            let mut readings = Readings::default();
            readings.push(&parts).expect("a reading");
            readings
        },
    )
}

/// Whether two values are identical, including NaN and the sign of zero.
fn agree(left: &Option<ExpressionValue<'_>>, right: &Option<ExpressionValue<'_>>) -> bool {
    match (left, right) {
        (Some(ExpressionValue::Double(left)), Some(ExpressionValue::Double(right))) => {
            left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan())
        }
        _ => left == right,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_fast_path_gives_the_results_of_the_crate(
        text in expression(),
        readings in prop::collection::vec(readings(), 8),
    ) {
        let Ok(program) = syntax::parse(&text) else { return Err(TestCaseError::reject("too deep")) };
        let fast = fast::compile(program.expression());
        prop_assert!(fast.is_some(), "{} is not fast", text);
        let expression = Expression { text, program, fast };
        for readings in &readings {
            let reading = readings.iter().next().expect("one");
            let fast = expression.evaluate(&ReadingFields::of(reading)).ok();
            let slow = expression.interpret(reading).ok();
            prop_assert!(agree(&fast, &slow), "{}\non {:?}: fast {:?}, slow {:?}", expression.text, reading, fast, slow);
        }
    }
}
