use super::super::check::{FUNCTIONS, is_function, is_method};
use super::*;

#[track_caller]
fn check(text: &str, wanted: ResultType, problem: &str) {
    let fault = Expression::compile(text, wanted).expect_err(text);
    assert_eq!(fault, problem, "{text}");
}

#[track_caller]
fn fits(text: &str, wanted: ResultType) {
    assert_eq!(Expression::compile(text, wanted).err(), None, "{text}");
}

#[test]
fn a_text_that_is_not_an_expression_is_refused_with_its_place() {
    let check = |text: &str, problem: &str| check(text, ResultType::Truth, problem);
    check("", "line 1, column 1: unexpected end, expected a name, a value or `(`");
    check("value >", "line 1, column 8: unexpected end, expected a name, a value or `(`");
    check("value >\n  * 3", "line 2, column 3: unexpected `*`, expected a name, a value or `(`");
    check("value > 1.0 sensor", "line 1, column 13: unexpected `sensor`, expected the end");
    check("value == 1,5", "line 1, column 11: unexpected `,`, expected an operator or the end");
    check("sensor in ('a', 'b')", "line 1, column 15: unexpected `,`, expected an operator or `)`");
    check("(value > 1.0", "line 1, column 13: missing `)` at the end");
    check("[1, 2", "line 1, column 6: unexpected end, expected `]` or `,`");
    check("value ? 1", "line 1, column 10: unexpected end, expected an operator or `:`");
    check("value = 3", "line 1, column 7: `=` is no operator, `==` compares");
    check("true & true", "line 1, column 6: `&` is no operator, `&&` is");
    check("true | true", "line 1, column 6: `|` is no operator, `||` is");
    check("value > 1 $ 2", "line 1, column 11: `$` means nothing here");
    check("sensor == 'abc", "line 1, column 11: a string that does not end");
    check("sensor == '\\q'", "line 1, column 11: a string that does not end, or with an unknown escape");
    check("99999999999999999999", "line 1, column 1: invalid int literal");
    check("has(tags['x'])", "line 1, column 9: `has` is written as `has(tags.name)`");
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_known_one() {
    let check = |text: &str, problem: &str| check(text, ResultType::Truth, problem);
    let known = "known: device, sensor, value, time, unit, tags";
    let valeu = format!("unknown field `valeu`, did you mean `value`? {known}");
    check("valeu > 1.0", &format!("line 1, column 1: {valeu}"));
    check("sensor == 'é' &&\n valeu > 1.0", &format!("line 2, column 2: {valeu}"));
    check("true ? true : [valeu] == []", &format!("line 1, column 16: {valeu}"));
    check("temperature > 1.0", &format!("line 1, column 1: unknown field `temperature`; {known}"));
    check("tag.site == 'x'", &format!("line 1, column 1: unknown field `tag`, did you mean `tags`? {known}"));
    check("tags.all(k, v == '')", &format!("line 1, column 13: unknown field `v`; {known}"));
    check("tags.all(k, true) && k == ''", &format!("line 1, column 22: unknown field `k`; {known}"));
    check("a{b: 1} == 1", "line 1, column 2: there is no message `a` to make");
    fits("tags.all(k, k != '' && value == value)", ResultType::Truth);
    fits("type(value) == double || type(time) == google.protobuf.Timestamp", ResultType::Truth);
}

#[test]
fn an_unknown_function_is_refused_with_the_nearest_known_one() {
    let check = |text: &str, problem: &str| check(text, ResultType::Truth, problem);
    check(
        "sensor == 'x' && sensor.startWith('a')",
        "line 1, column 34: unknown function `startWith`, did you mean `startsWith`?",
    );
    check("startsWith(sensor, 'a')", "line 1, column 11: `startsWith` is called as `x.startsWith(…)`");
    check("sensor.double()", "line 1, column 14: `double` is called as `double(x)`");
    check("tags.exists(x)", "line 1, column 12: `exists` is written as `list.exists(x, condition)`");
    check("sensor.matches(unit)", "line 1, column 15: the pattern of `matches` must be written as a string");
    let all = format!("unknown function `abs`; known: {}", FUNCTIONS.join(", "));
    check("abs(value) > 1.0", &format!("line 1, column 4: {all}"));
    fits("optional.of(1).hasValue() && tags.?a.optMap(x, x == '').orValue(true)", ResultType::Truth);
}

#[test]
fn the_suggested_functions_exist() {
    for name in FUNCTIONS {
        assert!(is_function(name) || is_method(name), "{name}");
    }
    assert!(!is_function("abs") && !is_method("abs"));
}

#[test]
fn a_part_that_fails_on_every_reading_is_a_fault() {
    let check = |text: &str, problem: &str| check(text, ResultType::Truth, problem);
    let write = "`*` does not work on double and int: a number is a double, write 2.0";
    check("value * 2 > 3.0", &format!("line 1, column 7: {write}"));
    check("sensor == 'x' && value * 2 > 3.0", &format!("line 1, column 24: {write}"));
    check("sensor == 'x' ? value * 2 > 3.0 : true", &format!("line 1, column 23: {write}"));
    check(
        "value + size(sensor) > 1.0",
        "line 1, column 7: `+` does not work on double and int: convert the int with double(…)",
    );
    check("sensor > 1", "line 1, column 8: `>` does not work on string and int");
    check("value % 2.0 == 0.0", "line 1, column 7: `%` does not work on double and double");
    check("-sensor == ''", "line 1, column 1: `-` does not work on string");
    check("sensor && true", "line 1, column 8: `&&` does not work on string and bool");
    check("sensor ? true : false", "line 1, column 8: must be bool, got string");
    check("tags.site * 2 > 1", "line 1, column 11: `*` does not work on string and int");
    check("tags[1] == ''", "line 1, column 5: `[]` does not work on map and int");
    check("value.x.y == ''", "line 1, column 6: double has no field `x`");
    check("time + 1 > time", "line 1, column 6: `+` does not work on timestamp and int");
    check("sensor in 'abc'", "line 1, column 8: `in` does not work on string and string");
    check("sensor.startsWith(1)", "line 1, column 18: `startsWith` does not work on string and int");
    check("1 / 0 == 1", "line 1, column 3: division by zero");
    check(
        "timestamp('junk') < time",
        "line 1, column 10: no timestamp; one is written as '2026-02-01T12:00:00Z'",
    );
    check(
        "duration('junk') == duration('1s')",
        "line 1, column 9: no duration; one is written as '10s' or '1h30m'",
    );
    check(
        "sensor.matches('(')",
        "line 1, column 15: '(' not a valid regex: regex parse error: ( ^ error: unclosed group",
    );
}

#[test]
fn a_failure_that_depends_on_the_reading_is_not_a_fault() {
    for text in [
        "tags.site == 'north'",
        "double(tags.offset) + value > 1.0",
        "timestamp(tags.start) < time",
        "{'temperature': true}[sensor]",
        "has(tags.a) ? 1 : true",
        "has(tags.a) ? true : 1",
        "type(value) == string ? size(value) > 1 : value > 1.0",
        "value == 'on' || value > 1.0",
        "int(value) % 2 == 0",
        "value",
    ] {
        fits(text, ResultType::Truth);
    }
}

#[test]
fn the_value_of_an_expression_must_have_the_wanted_type() {
    check("sensor", ResultType::Truth, "line 1, column 1: must give true or false, got string");
    check("value * 2.0", ResultType::Truth, "line 1, column 7: must give true or false, got double");
    check("time - time", ResultType::Truth, "line 1, column 6: must give true or false, got duration");
    check("value > 1.0", ResultType::Text, "line 1, column 7: must give a string, got bool");
    let value = "must give a number, true or false, or a string";
    check("[value]", ResultType::Value, &format!("line 1, column 1: {value}, got list"));
    check("time", ResultType::Value, &format!("line 1, column 1: {value}, got timestamp"));
    check("null", ResultType::Value, &format!("line 1, column 1: {value}, got null"));
    check("value", ResultType::Time, "line 1, column 1: must give a timestamp, got double");
    fits("value", ResultType::Text);
    fits("1u", ResultType::Value);
    fits("time + duration('1h')", ResultType::Time);
}

#[test]
fn an_expression_that_would_cost_too_much_is_a_fault() {
    let check = |text: &str, problem: &str| check(text, ResultType::Truth, problem);
    let deep = "is nested too deeply: at most 64 levels are allowed";
    let nested = |depth: usize| "!(".repeat(depth) + "true" + &")".repeat(depth);
    fits(&nested(62), ResultType::Truth);
    check(&nested(64), &format!("line 1, column 1: {deep}"));
    check(&nested(1000), &format!("line 1, column 193: {deep}"));
    // The deepest nesting that fits into the length.
    let long = "1".to_owned() + &"+1".repeat(2047);
    check(&long, &format!("line 1, column 4094: {deep}"));
    check(&("tags".to_owned() + &".a".repeat(2000)), &format!("line 1, column 4003: {deep}"));
    check(&" ".repeat(4097), "must be at most 4096 bytes long, got 4097");
    check(
        "[1].all(x, [1].all(y, [1].all(z, true)))",
        "line 1, column 8: has too many loops within one another: at most 2 are allowed",
    );
    check(
        "['a'].map(x, x + x).map(x, x + x).map(x, x + x) == []",
        "line 1, column 49: has too many loops within one another: at most 2 are allowed",
    );
    let list = format!("[{}1]", "1,".repeat(200));
    check(
        &format!("{list}.all(x, {list}.all(y, true))"),
        "line 1, column 408: may go round its loops 40602 times: at most 10000 are allowed",
    );
    fits(&format!("{list}.all(x, tags.all(y, true))"), ResultType::Truth);
}
