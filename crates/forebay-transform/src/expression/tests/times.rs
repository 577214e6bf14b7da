//! Times and durations, with the cases of the specification's conformance tests (`timestamps.textproto`) and others.

use super::*;

/// 2009-02-13 was a Friday, the 44th day of its year.
const FRIDAY: &str = "timestamp('2009-02-13T23:31:30Z')";

#[track_caller]
fn gives(expression: &str, number: i64) {
    check(expression, Value::Integer(1), Some(ExpressionValue::Integer(number)));
}

#[track_caller]
fn holds(expression: &str) {
    check(expression, Value::Integer(1), truth(true));
}

#[track_caller]
fn is_refused(expression: &str) {
    let wanted = [ResultType::Truth, ResultType::Value, ResultType::Text, ResultType::Time];
    let compiled = wanted.map(|wanted| Expression::compile(expression, wanted).is_ok());
    assert_eq!(compiled, [false; 4], "{expression}");
}

#[test]
fn a_duration_gives_its_milliseconds_part_and_all_of_its_greater_units() {
    for (text, [hours, minutes, seconds, milliseconds]) in [
        ("1.234s", [0, 0, 1, 234]),
        ("1s500ms", [0, 0, 1, 500]),
        ("123.321456789s", [0, 2, 123, 321]),
        ("10000s", [2, 166, 10_000, 0]),
        ("3730s", [1, 62, 3730, 0]),
        ("25h", [25, 1500, 90_000, 0]),
        ("2h45m", [2, 165, 9900, 0]),
        ("-1.234s", [0, 0, -1, -234]),
        ("-90m", [-1, -90, -5400, 0]),
        ("1.001s", [0, 0, 1, 1]),
        ("0.29s", [0, 0, 0, 290]),
        ("1ms", [0, 0, 0, 1]),
        ("999us", [0, 0, 0, 0]),
        ("+.5s", [0, 0, 0, 500]),
        ("0", [0, 0, 0, 0]),
    ] {
        gives(&format!("duration('{text}').getHours()"), hours);
        gives(&format!("duration('{text}').getMinutes()"), minutes);
        gives(&format!("duration('{text}').getSeconds()"), seconds);
        gives(&format!("duration('{text}').getMilliseconds()"), milliseconds);
    }
    gives("(time - timestamp('2007-02-01T12:29:58.766Z')).getMilliseconds()", 234);
}

#[test]
fn a_duration_is_read_to_the_end_of_the_text_and_exactly() {
    holds("duration('1.000000001s') - duration('1s') == duration('1ns')");
    holds("duration('1.1s') == duration('1100ms') && duration('0.3h') == duration('18m')");
    holds("duration('1µs') == duration('1000ns') && duration('1us') == duration('0.001ms')");
    holds("string(duration('1000000s')) == '1000000s'");
    holds("duration(duration('123s')) == duration('123s')");
    for text in
        ["", "s", "1", "1d", "1 s", "1s ", "1h garbage", "--1s", "1h-30m", "1e3s", "infs", "nans", ".s", "-"]
    {
        is_refused(&format!("duration('{text}')"));
    }
    for text in ["-320000000000s", "320000000000s", "9223372036854775808ns", "99999999999999999999h"] {
        is_refused(&format!("duration('{text}')"));
    }
    holds("duration('-9223372036854775808ns') < duration('9223372036854775807ns')");
    is_refused("duration(1)");
}

#[test]
fn a_timestamp_gives_its_parts_in_utc() {
    gives(&format!("{FRIDAY}.getDate()"), 13);
    gives(&format!("{FRIDAY}.getDayOfMonth()"), 12);
    gives(&format!("{FRIDAY}.getDayOfWeek()"), 5);
    gives(&format!("{FRIDAY}.getDayOfYear()"), 43);
    gives(&format!("{FRIDAY}.getFullYear()"), 2009);
    gives(&format!("{FRIDAY}.getHours()"), 23);
    gives(&format!("{FRIDAY}.getMinutes()"), 31);
    gives(&format!("{FRIDAY}.getMonth()"), 1);
    gives(&format!("{FRIDAY}.getSeconds()"), 30);
    gives("timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds()", 123);
    // Also for a text with another offset.
    let offset = "timestamp('2009-12-31T23:31:30.5-08:00')";
    gives(&format!("{offset}.getHours()"), 7);
    gives(&format!("{offset}.getFullYear()"), 2010);
    gives(&format!("{offset}.getDayOfYear()"), 0);
    gives(&format!("{offset}.getMilliseconds()"), 500);
    gives("timestamp('2012-12-31T00:00:00Z').getDayOfYear()", 365);
    gives("timestamp('2009-02-15T00:00:00Z').getDayOfWeek()", 0);
}

#[test]
fn a_timestamp_gives_its_parts_in_a_time_zone() {
    for (function, zone, expected) in [
        ("getDate", "Australia/Sydney", 14),
        ("getDayOfMonth", "US/Central", 12),
        ("getDayOfMonth", "+11:00", 13),
        ("getDayOfWeek", "UTC", 5),
        ("getDayOfYear", "US/Central", 43),
        ("getFullYear", "-09:30", 2009),
        ("getHours", "02:00", 1),
        ("getHours", "Europe/Berlin", 0),
        ("getMinutes", "Asia/Kathmandu", 16),
        ("getMinutes", "-00:30", 1),
        ("getMonth", "UTC", 1),
        ("getSeconds", "-00:00", 30),
        ("getMilliseconds", "Europe/Berlin", 0),
    ] {
        gives(&format!("{FRIDAY}.{function}('{zone}')"), expected);
    }
    gives("timestamp('2009-02-13T02:00:00Z').getDayOfMonth('-02:30')", 11);
    gives("timestamp('2009-02-13T02:00:00Z').getDayOfMonth('America/St_Johns')", 11);
    // Summer time.
    gives("timestamp('2026-07-01T12:00:00Z').getHours('Europe/Berlin')", 14);
    is_refused(&format!("{FRIDAY}.getHours('Mars/Base')"));
    is_refused(&format!("{FRIDAY}.getHours('+24:00')"));
}

#[test]
fn timestamps_are_made_converted_and_compared() {
    gives("int(timestamp('2009-02-13T23:31:30Z'))", 1_234_567_890);
    holds("string(timestamp('2009-02-13T23:31:30Z')) == '2009-02-13T23:31:30Z'");
    holds("string(timestamp('2009-02-14T01:31:30+02:00')) == '2009-02-13T23:31:30Z'");
    holds("string(timestamp('9999-12-31T23:59:59.999999999Z')) == '9999-12-31T23:59:59.999999999Z'");
    holds("timestamp(1234567890) == timestamp('2009-02-13T23:31:30Z')");
    holds("timestamp(timestamp('2009-02-13T23:31:30Z')) != timestamp('2009-02-13T23:31:29Z')");
    holds("timestamp('2009-02-13T23:00:00Z') + duration('240s') == timestamp('2009-02-13T23:04:00Z')");
    holds("duration('120s') + timestamp('2009-02-13T23:01:00Z') == timestamp('2009-02-13T23:03:00Z')");
    holds(
        "timestamp('0001-01-01T00:00:01.000000001Z') + duration('-999999999ns') == \
         timestamp('0001-01-01T00:00:00.000000002Z')",
    );
    holds("timestamp('2009-02-13T23:31:00Z') - timestamp('2009-02-13T23:29:00Z') == duration('120s')");
    holds("duration('900s') - duration('42s') == duration('858s')");
    for text in
        ["0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "2016-12-31T23:59:60Z"]
    {
        is_refused(&format!("timestamp('{text}')"));
    }
    is_refused("timestamp(253402300800)");
    is_refused("timestamp('0001-01-01T00:00:00Z') + duration('-1ns')");
    is_refused("timestamp('9999-12-31T23:59:59.999999999Z') + duration('1ns')");
    is_refused("timestamp('9999-12-31T23:59:59Z') - timestamp('0001-01-01T00:00:00Z')");
}
