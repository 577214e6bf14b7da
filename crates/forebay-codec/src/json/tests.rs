//! Bodies of the format `json`, and the agreement of scanner and careful reader.

use forebay_reading::timestamp::{Precision, Timestamp};
use proptest::strategy::Strategy as _;

use super::*;
use crate::{UnknownFields, tests};

fn show(body: &str, rules: &Rules) -> String {
    tests::show(&Json.decode(body.as_bytes(), rules).expect("JSON"))
}

#[track_caller]
fn check(body: &str, expected: &str) {
    assert_eq!(show(body, &tests::rules()).trim_end(), expected, "{body}");
}

#[track_caller]
fn check_error(body: &str, expected: &str) {
    let error = Json.decode(body.as_bytes(), &tests::rules()).expect_err("no JSON");
    assert_eq!(error.to_string(), expected, "{body:.80}");
}

#[test]
fn an_object_is_one_reading_and_a_missing_time_is_the_time_of_receipt() {
    check(
        r#" {"value":230.10,"sensor":"voltage","device":"m7"} "#,
        r#"{"device":"m7","sensor":"voltage","value":230.1,"time":"2007-02-01T00:00:00Z"}"#,
    );
}

#[test]
fn values_are_kept_as_they_are() {
    for (value, kept) in [
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9.223372036854776e+18"),
        ("1e3", "1000.0"),
        ("-0", "-0.0"),
        ("true", "true"),
        (r#""on\u00e9\"""#, r#""oné\"""#),
        (r#""""#, r#""""#),
    ] {
        check(
            &format!(r#"{{"device":"d","sensor":"s","value":{value}}}"#),
            &format!(r#"{{"device":"d","sensor":"s","value":{kept},"time":"2007-02-01T00:00:00Z"}}"#),
        );
    }
}

#[test]
fn values_hold_several_sensors_and_each_is_judged_by_itself() {
    check(
        r#"[{"values":{"t":1,"a/b":null,"h":2},"device":"d","time":1170288000000,"unit":"K","tags":{"a":"b"}}]"#,
        concat!(
            r#"{"device":"d","sensor":"t","value":1,"time":"2007-02-01T00:00:00Z","unit":"K","tags":{"a":"b"}}"#,
            "\n",
            r#"{"device":"d","sensor":"h","value":2,"time":"2007-02-01T00:00:00Z","unit":"K","tags":{"a":"b"}}"#,
            "\n0 /0/values/a~1b: a value must be a number, a boolean or a string, got null"
        ),
    );
    check(r#"{"device":"d","values":{}}"#, "0 /values: `values` must name at least one sensor");
    check(
        r#"{"device":"d","values":{"a":1},"value":1}"#,
        "0 /values: `values` stands instead of `sensor` and `value`, not beside them",
    );
    let decoded = Json.decode(br#"{"values":{"a":1,"b":2}}"#, &tests::rules()).expect("JSON");
    assert_eq!(decoded.rejections.count(), 2);
}

#[test]
fn each_fault_is_reported_with_its_pointer_and_what_to_do() {
    let object = |fields: &str| format!(r#"{{"device":"d","sensor":"s",{fields}}}"#);
    check(&object(r#""valeu":1"#), "0 /valeu: unknown field `valeu`, did you mean `value`?");
    check(
        &object(r#""value":1,"humidity":2"#),
        "0 /humidity: unknown field `humidity`; a reading has `device`, `sensor`, `value`, `time`, `unit`, `tags`, `values`",
    );
    check(r#"{"sensor":"s","value":1}"#, "0 /device: `device` is missing");
    check(r#"{"device":"d","value":1}"#, "0 /sensor: `sensor` is missing");
    check(r#"{"device":"d","sensor":"s"}"#, "0 /value: `value` is missing");
    check(&object(r#""value":null"#), "0 /value: a value must be a number, a boolean or a string, got null");
    check(
        &object(r#""value":[1]"#),
        "0 /value: a value must be a number, a boolean or a string, got an array",
    );
    check(&object(r#""value":1,"value":2"#), "0 /value: `value` is there twice");
    check(&object(r#""value":1,"unit":5"#), "0 /unit: `unit` must be a string, got a number");
    check(
        &object(r#""value":1,"time":true"#),
        "0 /time: `time` must be an RFC 3339 string or a number, got a boolean",
    );
    check(&object(r#""value":1,"tags":[]"#), "0 /tags: `tags` must be an object, got an array");
    check(&object(r#""value":1,"tags":{"a":1}"#), "0 /tags/a: a tag must be a string, got a number");
    check(&object(r#""value":1,"tags":{"a":"1","a":"2"}"#), "0 /tags/a: the tag `a` is there twice");
    check(r#"{"device":7,"sensor":"s","value":1}"#, "0 /device: `device` must be a string, got a number");
    check(
        "[1,null,[[]]]",
        concat!(
            "0 /0: a reading must be an object, got a number\n",
            "1 /1: a reading must be an object, got null\n",
            "2 /2: a reading must be an object, got an array"
        ),
    );
    check("5", "0 : the body must be a reading, as an object, or an array of them, got a number");
    check(
        r#"{"device":"","sensor":"s","value":1}"#,
        "0 /device: `device` must be 1 to 256 bytes long, got 0",
    );
}

#[test]
fn errors_repeat_only_a_part_of_the_input() {
    let name = "x".repeat(10_000);
    let shown = show(&format!(r#"{{"{name}":1}}"#), &tests::rules());
    assert!(shown.len() < 400, "{shown}");
}

#[test]
fn unknown_fields_can_be_ignored() {
    let rules = Rules { unknown_fields: UnknownFields::Ignore, ..tests::rules() };
    assert_eq!(
        show(r#"{"device":"d","sensor":"s","value":1,"x":{"y":[1]}}"#, &rules).trim_end(),
        r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#
    );
}

#[test]
fn times_count_in_the_requested_unit_and_must_lie_in_the_window() {
    let rules = Rules {
        precision: Precision::Seconds,
        earliest: Timestamp::parse("2007-01-01T00:00:00Z").expect("a time"),
        latest: Timestamp::parse("2007-03-01T00:00:00Z").expect("a time"),
        ..tests::rules()
    };
    let body = r#"[{"device":"d","sensor":"s","value":1,"time":1170288000.25},
                   {"device":"d","sensor":"s","value":1,"time":"2006-12-31T23:59:59Z"},
                   {"device":"d","sensor":"s","value":1,"time":1170288000000}]"#;
    assert_eq!(
        show(body, &rules),
        concat!(
            r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00.250Z"}"#,
            "\n",
            "1 /1/time: `time` 2006-12-31T23:59:59Z is earlier than 2007-01-01T00:00:00Z, the earliest taken now\n",
            "2 /2/time: time must be from 1970-01-01 to 2262-04-11; a number counts seconds unless `precision` says otherwise; 1170288000000 fits as milliseconds: did you mean `precision=ms`?\n",
        )
    );
}

#[test]
fn a_number_beyond_all_doubles_costs_its_reading_alone() {
    let good = r#"{"device":"d","sensor":"s","value":1}"#;
    let line = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;
    check(
        &format!(r#"[{good},{{"device":"d","sensor":"s","value":-1e999}},{good}]"#),
        &format!(
            "{line}\n{line}\n1 /1/value: a value must be a finite number, got a number that no double can hold"
        ),
    );
    check(
        r#"{"device":"d","values":{"a":1e999}}"#,
        "0 /values/a: a value must be a finite number, got a number that no double can hold",
    );
    check(
        r#"{"device":"d","sensor":"s","value":1,"tags":1e999}"#,
        "0 /tags: `tags` must be an object, got a number that no double can hold",
    );
    check("[1e999]", "0 /0: a reading must be an object, got a number");
    check("1e999", "0 : the body must be a reading, as an object, or an array of them, got a number");
    check(
        r#"{"device":"d","sensor":"s","value":[1e999]}"#,
        "0 /value: a value must be a finite number, got a number that no double can hold",
    );
    check_error(r#"[{"value":1e999},"#, "line 1, column 17: EOF while parsing a value");
}

#[test]
fn times_keep_every_digit_down_to_the_nanosecond() {
    for (precision, time, expected) in [
        (Precision::Seconds, "1700000000.123456789", "2023-11-14T22:13:20.123456789Z"),
        (Precision::Seconds, "1.700000000123456789e9", "2023-11-14T22:13:20.123456789Z"),
        (Precision::Seconds, "1.7E9", "2023-11-14T22:13:20Z"),
        (Precision::Millis, "1700000000123.456789", "2023-11-14T22:13:20.123456789Z"),
        (Precision::Micros, "1700000000123456.7899", "2023-11-14T22:13:20.123456789Z"),
        (Precision::Nanos, "1700000000123456789", "2023-11-14T22:13:20.123456789Z"),
        (Precision::Nanos, "17000000001234567890e-1", "2023-11-14T22:13:20.123456789Z"),
    ] {
        let rules = Rules { precision, ..tests::rules() };
        let line = format!(r#"{{"device":"d","sensor":"s","value":1,"time":"{expected}"}}"#);
        // By the scanner; and with care, because of the escape of an ASCII letter.
        for device in ["d", "\\u0064"] {
            let body = format!(r#"{{"device":"{device}","sensor":"s","value":1,"time":{time}}}"#);
            assert_eq!(show(&body, &rules).trim_end(), line, "{body}");
        }
    }
    for time in ["-1", "-0.5", "1e999", "1e30", "99999999999999999999999"] {
        let shown =
            show(&format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#), &tests::rules());
        assert!(shown.starts_with("0 /time: time must be from 1970-01-01 to 2262-04-11; "), "{shown}");
    }
}

#[test]
fn an_optional_field_that_is_null_counts_as_absent() {
    let line = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;
    for fields in [
        r#""sensor":"s","value":1,"time":null"#,
        r#""sensor":"s","value":1,"unit":null"#,
        r#""sensor":"s","value":1,"tags":null"#,
        r#""sensor":"s","value":1,"values":null"#,
        r#""sensor":"s","value":1,"time":null,"unit":null,"tags":null,"values":null"#,
        r#""values":{"s":1},"sensor":null"#,
        r#""values":{"s":1},"value":null"#,
        r#""value":null,"sensor":null,"values":{"s":1},"unit": null "#,
    ] {
        check(&format!(r#"{{"device":"d",{fields}}}"#), line);
    }
    for (body, told) in [
        (r#"{"device":"d","sensor":null,"value":1}"#, "0 /sensor: `sensor` is missing"),
        (r#"{"device":"d","values":null}"#, "0 /sensor: `sensor` is missing"),
        (r#"{"device":null,"sensor":"s","value":1}"#, "0 /device: `device` must be a string, got null"),
        (r#"{"device":"d","sensor":"s","value":1,"time":null,"time":5}"#, "0 /time: `time` is there twice"),
    ] {
        check(body, told);
    }
}

#[test]
fn a_name_that_is_there_twice_rejects_its_reading_even_if_escapes_hide_it() {
    let object = |fields: &str| format!(r#"{{"device":"d","sensor":"s","value":1,{fields}}}"#);
    for field in ["device", "sensor", "value"] {
        check(&object(&format!(r#""{field}":"x""#)), &format!("0 /{field}: `{field}` is there twice"));
    }
    for (field, json) in [("unit", "\"V\""), ("time", "5"), ("tags", "{}")] {
        let fields = format!(r#""{field}":{json},"{field}":{json}"#);
        check(&object(&fields), &format!("0 /{field}: `{field}` is there twice"));
    }
    check(&object(r#""\u0076alue":2"#), "0 /value: `value` is there twice");
    check(&object(r#""tags":{"a":"1","b":"2","\u0061":"1"}"#), "0 /tags/a: the tag `a` is there twice");
    check(&object(r#""tags":{"a":"1","a":1}"#), "0 /tags/a: the tag `a` is there twice");
    let values = |members: &str| format!(r#"{{"device":"d","values":{{{members}}}}}"#);
    for members in [r#""a":1,"a":1"#, r#""a":1,"b":2,"\u0061":3"#, r#""b":0,"a":1,"c":2,"a":null"#] {
        check(&values(members), "0 /values/a: the sensor `a` is there twice");
    }
    check(r#"{"device":"d","values":{"a":1},"values":{"b":1}}"#, "0 /values: `values` is there twice");
    let many: Vec<_> = (0..500).map(|number| format!(r#""n{number}":1"#)).collect();
    let body = values(&format!(r#"{},"n7":2"#, many.join(",")));
    check(&body, "0 /values/n7: the sensor `n7` is there twice");
    let decoded = Json.decode(body.as_bytes(), &tests::rules()).expect("JSON");
    assert_eq!((decoded.readings.len(), decoded.rejections.count()), (0, 501));
    let rules = Rules { unknown_fields: UnknownFields::Ignore, ..tests::rules() };
    assert_eq!(show(&object(r#""x":1,"y":2,"x":3"#), &rules).trim_end(), "0 /x: `x` is there twice");
}

#[test]
fn an_invalid_escape_costs_its_element_alone() {
    let good = r#"{"device":"d","sensor":"s","value":1}"#;
    let line = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;
    for (element, told) in [
        (r#"{"device":"\q","sensor":"s","value":1}"#, r"/1/device: a string has the escape `\q`"),
        (r#"{"device":"d","sensor":"s","value":"\ud800"}"#, r"/1/value: a string has the escape `\ud800`"),
        (
            r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"\udc00"}}"#,
            r"/1/tags: a string has the escape `\udc00`",
        ),
        (r#"{"device":"d","values":{"a":1e999,"b":"\x41"}}"#, r"/1/values: a string has the escape `\x`"),
        (
            r#"{"device":"d","sensor":"s","value":1,"time":"\u12"}"#,
            r#"/1/time: a string has the escape `\u12"}`"#,
        ),
        (r#"{"dev\ice":"d","sensor":"s","value":1}"#, r"/1: a string has the escape `\i`"),
        (r#""\q""#, r"/1: a string has the escape `\q`"),
        (r#"[["\'"]]"#, r"/1: a string has the escape `\'`"),
    ] {
        check(
            &format!("[{good},\n{element},{good}]"),
            &format!("{line}\n{line}\n1 {told}, which stands for no character"),
        );
    }
    // A reading that is the whole body has no others to save; broken structure is an error of the body.
    check_error(r#"{"device":"\q"}"#, "line 1, column 13: invalid escape");
    check_error(r#"[{"device":"\q"},"#, "line 1, column 17: EOF while parsing a value");
    check_error(r#"[{"device":"\q"} {}]"#, "line 1, column 18: expected `,` or `]`");
    check_error(r#"[{"device":"\q","value":NaN}]"#, "line 1, column 25: expected value");
}

#[test]
fn a_fault_that_leaves_the_array_whole_costs_its_element_alone() {
    let good = r#"{"device":"d","sensor":"s","value":1}"#;
    let line = r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z"}"#;
    let word = |word: &str| {
        format!(
            "/1/value: `{word}` is no JSON; a value is a number, true, false, null, a string in double quotes, an array or an object"
        )
    };
    let number = |number: &str| format!("/1/value: `{number}` is no number of JSON");
    let reading = |value: &str| format!(r#"{{"device":"d","sensor":"s","value":{value}}}"#);
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    let control = |code: &str| {
        format!(
            "a string has the control character U+{code} in it; JSON writes it as `\\u{}`",
            code.to_lowercase()
        )
    };
    let mut cases: Vec<(String, String)> = Vec::new();
    for bare in ["NaN", "Infinity", "True", "None", "undefined", "nan", "é"] {
        cases.push((reading(bare), word(bare)));
    }
    for bare in ["-nan", "-Infinity", "01", ".5", "+1", "0x10", "1.", "1e", "-", "1_000"] {
        cases.push((reading(bare), number(bare)));
    }
    cases.extend([
        (reading("\"a\tb\""), format!("/1/value: {}", control("0009"))),
        (reading("\"a\nb\""), format!("/1/value: {}", control("000A"))),
        (r#"{"device":"d","sensor":"s","value":1,"tags":{"a":"\u{1}"}}"#.replace("\\u{1}", "\u{1}"), format!("/1/tags: {}", control("0001"))),
        (reading(&deep), "/1/value: the nesting goes too deep; at most 127 arrays and objects, the outermost one among them, may stand in one another".to_owned()),
        ("NaN".to_owned(), word("NaN").replace("/value", "")),
        (reading(""), "/1: the element is no JSON: expected value".to_owned()),
        (reading("1,"), "/1: the element is no JSON: key must be a string".to_owned()),
        (reading("1").replace("\"value\"", "value"), "/1: the element is no JSON: key must be a string".to_owned()),
        (reading("1 2"), "/1: the element is no JSON: expected `,` or `}`".to_owned()),
    ]);
    for (element, told) in cases {
        check(&format!("[{good},\n{element},{good}]"), &format!("{line}\n{line}\n1 {told}"));
        // A body without one element of JSON is not JSON.
        assert!(Json.decode(format!("[{element}]").as_bytes(), &tests::rules()).is_err(), "{element}");
        // One element of JSON is enough, even if it is not a reading.
        assert!(Json.decode(format!("[{element},{{}}]").as_bytes(), &tests::rules()).is_ok(), "{element}");
        // The fault also spares the other elements if some of these have numbers beyond doubles or invalid escapes.
        let beside = format!("[{},{good},{element},{}]", reading("1e999"), reading(r#""\q""#));
        let decoded = Json.decode(beside.as_bytes(), &tests::rules()).expect("JSON");
        assert_eq!((decoded.readings.len(), decoded.rejections.count()), (1, 3), "{element}");
    }
}

#[test]
fn an_array_with_broken_structure_gives_no_readings_and_an_error_with_line_and_column() {
    let good = r#"{"device":"d","sensor":"s","value":1}"#;
    for broken in [
        format!("[{good},{{\"value\":NaN}}"),
        format!("[{good},{{\"value\":NaN,{good}]"),
        format!("[{good},{{\"value\":NaN}} {good}]"),
        format!("[{good} {good},NaN]"),
        format!("[{good},{{\"device\":\"d,\"value\":NaN}},{good}]"),
        format!("[{good},{{\"value\":[NaN}}]"),
        format!("[{good},NaN,]"),
        format!("[{good},NaN] {good}"),
    ] {
        let error = Json.decode(broken.as_bytes(), &tests::rules()).expect_err(&broken);
        assert_eq!(error.line, 1);
    }
    check_error(r#"[{"value":NaN}]"#, "line 1, column 11: expected value");
}

#[test]
fn broken_json_is_reported_with_line_and_column() {
    check_error(
        "",
        "line 1, column 1: EOF while parsing a value; the body is empty; send a reading as a JSON object, such as {\"device\":\"d\",\"sensor\":\"s\",\"value\":1}, or an array of them",
    );
    check_error("[{\"device\":\n\"d\"", "line 2, column 3: EOF while parsing an object");
    check_error(r#"{"value":NaN}"#, "line 1, column 10: expected value");
    check_error("[] []", "line 1, column 4: trailing characters");
    check_error("\u{feff}\u{feff}[]", "line 1, column 1: expected value");
    check_error(&"[".repeat(100_000), "line 1, column 128: recursion limit exceeded");
    check_error(
        &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        "line 1, column 128: recursion limit exceeded",
    );
    check_error(
        &format!(r#"{{"tags":{}"#, r#"{"a":"#.repeat(100_000)),
        "line 1, column 639: recursion limit exceeded",
    );
}

/// Whether two results have the same readings and rejections.
pub(crate) fn same(scanned: &Decoded, read: &Decoded) -> bool {
    let told = |decoded: &Decoded| {
        let rejections = decoded.rejections.listed.iter();
        rejections.map(|r| format!("{} {} {}", r.index, r.pointer, r.detail)).collect::<Vec<_>>()
    };
    scanned.readings == read.readings && told(scanned) == told(read)
}

/// An object that is a reading, or almost one.
pub(crate) fn fragment() -> impl proptest::strategy::Strategy<Value = String> {
    let scalar = proptest::sample::select(vec![
        "1",
        "-0",
        "0",
        "-0.0",
        "01",
        "1.",
        ".5",
        "1.50",
        "-12.25e3",
        "1E+2",
        "1e",
        "1e999",
        "-1e-999",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        "tru",
        "\"\"",
        "\"a\"",
        "\"\\n\"",
        "\"\\u00b0C\\/\"",
        "\"\\ud83d\\ude00\"",
        "\"é\"",
        "\"\u{7f}\"",
        "\"\u{85}\"",
        "\"2007-02-01T00:00:00.5Z\"",
        "[1]",
        "{}",
        "{\"a\":\"b\"}",
        "{\"a\":1,\"b\":2.5}",
        "\"",
        "\"a\tb\"",
        " 1 ",
        "1 2",
        "NaN",
        "1170288000000",
    ]);
    let name = proptest::sample::select(vec![
        "device",
        "sensor",
        "value",
        "time",
        "unit",
        "tags",
        "values",
        "x",
        "valu\\u0065",
    ]);
    let member = (name, scalar).prop_map(|(name, scalar)| format!("\"{name}\":{scalar}"));
    let good = proptest::strategy::Just("\"device\":\"d\",\"sensor\":\"s\",\"value\":2.5".to_owned());
    let members = proptest::collection::vec(proptest::prop_oneof![member, good], 0..4);
    let space = proptest::sample::select(vec!["", " ", "\n", ",", "\t\r"]);
    (members, space).prop_map(|(members, space)| format!("{{{space}{}}}", members.join(&format!(",{space}"))))
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4000))]

    #[test]
    fn the_scanner_agrees_with_the_careful_reader(
        objects in proptest::collection::vec(fragment(), 0..4),
        frame in proptest::sample::select(vec![("[", "]"), ("", ""), ("[", ""), ("", "]"), (" [ ", " ] "), ("[", "] x")]),
    ) {
        let body = format!("{}{}{}", frame.0, objects.join(","), frame.1);
        if let Ok(scanned) = scan(&body, &tests::rules()) {
            let read = read_with_care(&body, &tests::rules()).expect("what the scanner takes is JSON");
            proptest::prop_assert!(same(&scanned, &read), "{} {:?} {:?}", body, scanned, read);
        }
    }
}

#[test]
fn the_common_form_is_scanned() {
    for object in [
        r#"{"device":"meter-1","sensor":"voltage","value":230.1}"#,
        r#" {"device":"d","sensor":"s","value":-1,"time":"2007-02-01T00:00:00Z","unit":"°C","tags":{"a":"b"}} "#,
        r#"{"device":"d","values":{"a":1e3,"b":true,"c":"x"},"time":1170288000000}"#,
    ] {
        let mut readings = Readings::default();
        Scanner::new(object).object(&tests::rules(), &mut readings).expect(object);
        assert!(!readings.is_empty());
    }
}

#[test]
fn all_rejections_are_counted_and_the_first_hundred_listed() {
    let body = format!("[{}null]", "null,".repeat(249));
    let decoded = Json.decode(body.as_bytes(), &tests::rules()).expect("JSON");
    assert_eq!(decoded.rejections.count(), 250);
    assert_eq!(decoded.rejections.listed.len(), 100);
}
