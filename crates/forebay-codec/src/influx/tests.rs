#![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

mod properties;

use forebay_reading::Value;
use forebay_reading::timestamp::{Precision, Timestamp};

use super::*;
use crate::tests::rules;
use crate::write_reading;

fn decode(body: &[u8], rules: &Rules) -> Decoded {
    Influx.decode(body, rules).expect("no body is refused as a whole")
}

/// The readings in canonical form, a line each, then the rejections.
fn show(body: impl AsRef<[u8]>, rules: &Rules) -> String {
    let decoded = decode(body.as_ref(), rules);
    let mut out = Vec::new();
    for reading in &decoded.readings {
        write_reading(reading, &mut out);
        out.push(b'\n');
    }
    let mut out = String::from_utf8(out).expect("UTF-8");
    for fault in &decoded.rejections.listed {
        assert!(format!("{}/", fault.pointer).starts_with(&format!("/{}/", fault.index)));
        out.push_str(&format!("line {}, {}\n", fault.index + 1, fault.detail));
    }
    assert_eq!(decoded.rejections.count() as usize, decoded.rejections.listed.len());
    out
}

fn nanos() -> Rules {
    Rules { precision: Precision::Nanos, ..rules() }
}

#[track_caller]
fn check(body: impl AsRef<[u8]>, expected: &[&str]) {
    let shown = show(body, &nanos());
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

/// Checks the JSON of the value of the field `value`.
#[track_caller]
fn check_value(value: &str, expected: &str) {
    let line = format!(
        r#"{{"device":"h","sensor":"m","value":{expected},"time":"1970-01-01T00:00:00.000000001Z"}}"#
    );
    check(format!("m,host=h value={value} 1"), &[&line]);
}

#[track_caller]
fn check_fault(line: &str, expected: &str) {
    check(line, &[&format!("line 1, {expected}")]);
}

#[test]
fn measurement_tags_fields_and_time_become_device_sensors_tags_and_time() {
    check(
        "cpu,cpu=cpu0,host=web-1,region=eu usage_idle=98.25,usage_user=1i,on=t,note=\"ok\" 1170288000000000001\n\
         voltage,device=meter-7,host=gw value=239.8 1170288000000000000\n",
        &[
            r#"{"device":"web-1","sensor":"cpu_usage_idle","value":98.25,"time":"2007-02-01T00:00:00.000000001Z","tags":{"cpu":"cpu0","region":"eu"}}"#,
            r#"{"device":"web-1","sensor":"cpu_usage_user","value":1,"time":"2007-02-01T00:00:00.000000001Z","tags":{"cpu":"cpu0","region":"eu"}}"#,
            r#"{"device":"web-1","sensor":"cpu_on","value":true,"time":"2007-02-01T00:00:00.000000001Z","tags":{"cpu":"cpu0","region":"eu"}}"#,
            r#"{"device":"web-1","sensor":"cpu_note","value":"ok","time":"2007-02-01T00:00:00.000000001Z","tags":{"cpu":"cpu0","region":"eu"}}"#,
            r#"{"device":"meter-7","sensor":"voltage","value":239.8,"time":"2007-02-01T00:00:00Z","tags":{"host":"gw"}}"#,
        ],
    );
    // The order of the tags does not matter.
    check(
        "m,host=gw,device=d value=1i 0",
        &[r#"{"device":"d","sensor":"m","value":1,"time":"1970-01-01T00:00:00Z","tags":{"host":"gw"}}"#],
    );
}

#[test]
fn other_tags_may_name_the_device() {
    let set = DeviceTags::new(vec!["serial".to_owned(), "host".to_owned()]);
    let rules = Rules { device_tags: set, ..nanos() };
    assert_eq!(
        show(
            "m,device=d,host=h,serial=s value=1i 0\nm,device=d,host=h value=1i 0\nm,device=d value=1i 0",
            &rules
        ),
        concat!(
            r#"{"device":"s","sensor":"m","value":1,"time":"1970-01-01T00:00:00Z","tags":{"device":"d","host":"h"}}"#,
            "\n",
            r#"{"device":"h","sensor":"m","value":1,"time":"1970-01-01T00:00:00Z","tags":{"device":"d"}}"#,
            "\n",
            "line 3, column 11: the line has no tag that names its device; known: `serial`, `host`, the first one counts\n"
        )
    );
}

#[test]
fn lines_have_any_line_end_and_blank_lines_and_comments_are_skipped_and_counted() {
    let reading = r#"{"device":"h","sensor":"m","value":1,"time":"1970-01-01T00:00:00.000000005Z"}"#;
    for body in [
        "m,host=h value=1i 5",
        "m,host=h value=1i 5\n",
        "m,host=h value=1i 5\r\n",
        "m,host=h value=1i 5\r",
        " \t m,host=h   value=1i   5 \t \n",
        "\n\r\n \t\n# a comment with \"=\" and an open quote=\"\r\n#\nm,host=h value=1i 5\n\n#",
    ] {
        check(body, &[reading]);
    }
    check("", &[]);
    check("#", &[]);
    let received = r#"{"device":"h","sensor":"m","value":1,"time":"2007-02-01T00:00:00Z"}"#;
    for body in ["m,host=h value=1i", "m,host=h value=1i\r\n", "m,host=h value=1i  \n"] {
        check(body, &[received]);
    }
    check(
        "# one\n\nm\r\n# four\nm,host=h value=1i\nm x",
        &[
            received,
            "line 3, column 3: the line has no tag that names its device; known: `device`, `host`, the first one counts",
            "line 6, column 2: the line has no tag that names its device; known: `device`, `host`, the first one counts",
        ],
    );
}

#[test]
fn a_backslash_escapes_special_characters_and_stays_elsewhere() {
    let check_line = |line: &str, device: &str, sensor: &str, tags: &str| {
        let expected = format!(
            r#"{{"device":{device},"sensor":{sensor},"value":1,"time":"1970-01-01T00:00:00Z","tags":{tags}}}"#
        );
        check(line, &[&expected]);
    };
    // In a measurement: comma and space. An equals sign needs no escape, and a backslash before it stays.
    check_line(r"a\,b\ c=d\=e,host=h,t=v value=1i 0", r#""h""#, r#""a,b c=d\\=e""#, r#"{"t":"v"}"#);
    // In keys and values of tags, and in keys of fields: comma, space and equals sign.
    check_line(
        r"m,host=a\,b\ c\=d,k\,\ \==v\,\ \= f\,\ \==1i 0",
        r#""a,b c=d""#,
        r#""m_f, =""#,
        r#"{"k, =":"v, ="}"#,
    );
    // A backslash stays before other characters, before a backslash, and at the end.
    check_line(
        r"a\b\\c\,d,host=C:\\x\y,k\n=\q\ z fo\o=1i 0",
        r#""C:\\\\x\\y""#,
        r#""a\\b\\\\c,d_fo\\o""#,
        r#"{"k\\n":"\\q z"}"#,
    );
    // The key of a field may have quotes, and the value of a tag, too.
    check_line("m,host=\"h\",t=\"v f\"=1i 0", r#""\"h\"""#, r#""m_f\"""#, r#"{"t":"\"v"}"#);
    // Known names are found even if they are written with escapes.
    check_line(r"m,h\ost=x,host=h,t=v value=1i 0", r#""h""#, r#""m""#, r#"{"h\\ost":"x","t":"v"}"#);
    // A line feed ends the name even after a backslash.
    check(
        "m,host=h\\\nm,host=h\\ value=1i 0",
        &[
            "line 1, column 10: the line has no fields",
            "line 2, column 16: the value of the tag `host` has an `=`; it takes a backslash before it",
        ],
    );
}

#[test]
fn texts_hold_any_character_and_end_at_the_first_unescaped_quote() {
    check_value(r#""""#, r#""""#);
    check_value(r#""a, b = c #""#, r#""a, b = c #""#);
    check_value(r#""a\"b\\""#, r#""a\"b\\""#);
    check_value(r#""\\\"\n\,""#, r#""\\\"\\n\\,""#);
    check_value("\"one\ntwo\r\n# three\"", r#""one\ntwo\r\n# three""#);
    check_value("\"äöü € 𝄞\"", "\"äöü € 𝄞\"");
    check_value(&format!("\"{}\"", "x".repeat(4096)), &format!("\"{}\"", "x".repeat(4096)));
    check(
        "m,host=h a=\"1\n2\",b=3i 0\nm,host=h value=4i 0",
        &[
            r#"{"device":"h","sensor":"m_a","value":"1\n2","time":"1970-01-01T00:00:00Z"}"#,
            r#"{"device":"h","sensor":"m_b","value":3,"time":"1970-01-01T00:00:00Z"}"#,
            r#"{"device":"h","sensor":"m","value":4,"time":"1970-01-01T00:00:00Z"}"#,
        ],
    );
}

#[test]
fn numbers_and_booleans_are_kept_as_they_are() {
    for (value, expected) in [
        ("5", "5.0"),
        ("5.0", "5.0"),
        ("5.", "5.0"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("-0", "-0.0"),
        ("007", "7.0"),
        ("1.50", "1.5"),
        ("1e3", "1000.0"),
        ("1E+3", "1000.0"),
        ("-1.5e-3", "-0.0015"),
        ("5.e1", "50.0"),
        ("0.1234567890123456789", "0.12345678901234568"),
        ("1e-400", "0.0"),
        ("5i", "5"),
        ("-5i", "-5"),
        ("-0i", "0"),
        ("007i", "7"),
        ("9223372036854775807i", "9223372036854775807"),
        ("-9223372036854775808i", "-9223372036854775808"),
        ("5u", "5"),
        ("9223372036854775807u", "9223372036854775807"),
        ("9223372036854775808u", "9223372036854775808.0"),
        ("18446744073709549568u", "1.8446744073709550e19"),
        ("t", "true"),
        ("T", "true"),
        ("true", "true"),
        ("True", "true"),
        ("TRUE", "true"),
        ("f", "false"),
        ("F", "false"),
        ("false", "false"),
        ("False", "false"),
        ("FALSE", "false"),
    ] {
        let body = format!("m,host=h value={value} 0");
        let decoded = decode(body.as_bytes(), &nanos());
        let reading = decoded.readings.iter().next().unwrap_or_else(|| panic!("{value}: {decoded:?}"));
        match reading.value() {
            Value::Double(number) => {
                assert_eq!(number.to_bits(), expected.parse::<f64>().expect("a double").to_bits(), "{value}");
                assert!(expected.contains('.'), "{value} is a double");
            }
            Value::Integer(number) => assert_eq!(number.to_string(), expected, "{value}"),
            Value::Boolean(truth) => assert_eq!(truth.to_string(), expected, "{value}"),
            Value::Text(text) => panic!("{value} is no text: {text}"),
        }
    }
}

#[test]
fn an_invalid_value_is_rejected_with_the_reason_and_no_value_is_altered() {
    let no_value = |token: &str| {
        format!(
            "column 16: the field `value` is `{token}`; allowed: a number, a whole number with `i` or `u` behind it, \
             true, false, or a text in double quotes"
        )
    };
    for token in [
        "abc", "+5", "-", ".", "-.", "e5", "1e", "1e+", "1.2.3", "1i2", "1.5i", "1e3i", "-5u", "i", "u",
        "0x1f", "1_000", "tRUE", "yes", "'a'", "1;", "٣", "5ii", "--5", "é", "=",
    ] {
        check_fault(&format!("m,host=h value={token} 0"), &no_value(token));
    }
    let not_whole = |token: &str| {
        format!(
            "column 16: the field `value` is `{token}`; a whole number fits in 64 bits signed, or a larger one with `u` \
             is exactly a double"
        )
    };
    for token in [
        "9223372036854775808i",
        "-9223372036854775809i",
        "9223372036854775809u",
        "18446744073709551615u",
        "18446744073709551616u",
    ] {
        check_fault(&format!("m,host=h value={token} 0"), &not_whole(token));
    }
    for token in ["NaN", "nan", "Inf", "-inf", "+Inf", "infinity", "1e999", "-1e999"] {
        let expected = format!("column 16: the field `value` is `{token}`, which is no finite number");
        check_fault(&format!("m,host=h value={token} 0"), &expected);
    }
    // Errors repeat only a part of the input.
    let long = "é".repeat(1000);
    check_fault(&format!("m,host=h value={long}"), &no_value(&format!("{}…", "é".repeat(32))));
}

#[test]
fn a_missing_repeated_or_misplaced_part_is_reported_with_its_column() {
    for (line, expected) in [
        (",host=h value=1", "column 1: the measurement is missing"),
        ("m,=h value=1", "column 3: a tag has no name"),
        ("m, value=1", "column 3: a tag has no name"),
        ("m,host=h, value=1", "column 10: a tag has no name"),
        ("m,host value=1", "column 3: the tag `host` has no value"),
        ("m,host= value=1", "column 8: the tag `host` has no value"),
        ("m,host=,a=b value=1", "column 8: the tag `host` has no value"),
        (
            "m,host=h,a=b=c value=1",
            "column 13: the value of the tag `a` has an `=`; it takes a backslash before it",
        ),
        ("m,host=h,a=b,a=c value=1", "column 14: the tag `a` is there twice"),
        ("m,host=h,host=h value=1", "column 10: the tag `host` is there twice"),
        (
            "m value=1",
            "column 2: the line has no tag that names its device; known: `device`, `host`, the first one counts",
        ),
        ("m,host=h", "column 9: the line has no fields"),
        ("m,host=h ", "column 9: the line has no fields"),
        ("m,host=h =1", "column 10: a field has no name"),
        ("m,host=h a=1,", "column 14: a field has no name"),
        ("m,host=h a=1, 0", "column 14: a field has no name"),
        ("m,host=h a", "column 10: the field `a` has no value"),
        ("m,host=h a 0", "column 10: the field `a` has no value"),
        ("m,host=h a=", "column 12: the field `a` has no value"),
        ("m,host=h a=1,a=2", "column 14: the field `a` is there twice"),
        ("m,host=h a=x,b=1,a=1i 0", "column 18: the field `a` is there twice"),
        ("m,host=h value=1,value=1 0", "column 18: the field `value` is there twice"),
        (r"m,host=h a\,b=1,a\ b=2,a\,b=3", r"column 24: the field `a,b` is there twice"),
        (r"m,host=h,a\=b=1,a\=b=2 value=1", r"column 17: the tag `a=b` is there twice"),
        (
            "m,host=h a=\"x\"y",
            "column 15: after the field `a`, a comma, a space or the end of the line must follow",
        ),
        ("m,host=h a=1i 12x", "column 15: the time is `12x`; it must be a whole number"),
        ("m,host=h a=1i 1.5", "column 15: the time is `1.5`; it must be a whole number"),
        ("m,host=h a=1i -", "column 15: the time is `-`; it must be a whole number"),
        ("m,host=h a=1i b=2i", "column 15: the time is `b=2i`; it must be a whole number"),
        ("m,host=h a=1i 1 2", "column 17: after the time, the line must end"),
        ("m,host=h a=1i 1,2", "column 16: after the time, the line must end"),
    ] {
        check_fault(line, expected);
    }
}

#[test]
fn the_limits_of_readings_hold() {
    let long = "x".repeat(257);
    check_fault(
        &format!("m,host={long} value=1"),
        "column 266: `device` must be 1 to 256 bytes long, got 257",
    );
    check_fault(
        &format!("{long},host=h value=1"),
        "column 266: `sensor` must be 1 to 256 bytes long, got 257",
    );
    check_fault(
        &format!("{},host=h {}=1", &long[..128], &long[..128]),
        "column 137: `sensor` must be 1 to 256 bytes long, got 257",
    );
    check_fault(
        "m,host=h\u{7} value=1",
        "column 11: `device` must not contain control characters, found U+0007 at byte 1",
    );
    check_fault(
        &format!("m,host=h value=\"{}\"", "x".repeat(4097)),
        "column 10: the field `value`: `value` must be at most 4096 bytes long as a string, got 4097",
    );
    let tags = |count: usize| (0..count).map(|number| format!(",t{number:02}=v")).collect::<String>();
    assert_eq!(decode(format!("m,host=h{} value=1", tags(32)).as_bytes(), &nanos()).readings.len(), 1);
    check_fault(&format!("m,host=h{} value=1", tags(33)), "column 202: `tags` must be at most 32, got 33");
    // Without a tag for the device, the limit is the same.
    assert_eq!(decode(format!("m{} value=1", tags(33)).as_bytes(), &nanos()).readings.len(), 0);
}

#[test]
fn times_count_in_the_requested_unit_and_must_lie_in_the_window() {
    let time = |precision: Precision, text: &str| {
        let shown = show(format!("m,host=h value=1i {text}"), &Rules { precision, ..rules() });
        shown.trim_end().trim_start_matches(r#"{"device":"h","sensor":"m","value":1,"time":"#).to_owned()
    };
    assert_eq!(time(Precision::Nanos, "1"), r#""1970-01-01T00:00:00.000000001Z"}"#);
    assert_eq!(time(Precision::Micros, "1"), r#""1970-01-01T00:00:00.000001Z"}"#);
    assert_eq!(time(Precision::Millis, "1"), r#""1970-01-01T00:00:00.001Z"}"#);
    assert_eq!(time(Precision::Seconds, "1"), r#""1970-01-01T00:00:01Z"}"#);
    assert_eq!(time(Precision::Minutes, "1"), r#""1970-01-01T00:01:00Z"}"#);
    assert_eq!(time(Precision::Hours, "1"), r#""1970-01-01T01:00:00Z"}"#);
    for (precision, text) in [
        (Precision::Nanos, "-1"),
        (Precision::Nanos, "9223372036854775808"),
        (Precision::Hours, "9223372036854775807"),
    ] {
        let told = time(precision, text);
        assert!(
            told.starts_with("line 1, column 19: time must be from 1970-01-01 to 2262-04-11; "),
            "{told}"
        );
    }
    let rules = Rules {
        precision: Precision::Seconds,
        earliest: Timestamp::from_nanos(10_000_000_000).expect("a time"),
        latest: Timestamp::from_nanos(20_000_000_000).expect("a time"),
        ..rules()
    };
    assert_eq!(
        show("m,host=h value=1i 9\nm,host=h value=1i 21\nm,host=h a=1i,b=2i 20", &rules),
        concat!(
            r#"{"device":"h","sensor":"m_a","value":1,"time":"1970-01-01T00:00:20Z"}"#,
            "\n",
            r#"{"device":"h","sensor":"m_b","value":2,"time":"1970-01-01T00:00:20Z"}"#,
            "\n",
            "line 1, column 19: `time` 1970-01-01T00:00:09Z is earlier than 1970-01-01T00:00:10Z, the earliest taken now\n",
            "line 2, column 19: `time` 1970-01-01T00:00:21Z is later than 1970-01-01T00:00:20Z, the latest taken now\n",
        )
    );
}

#[test]
fn an_invalid_value_costs_its_field_and_any_other_fault_its_line() {
    let good = |sensor: &str, value: &str| {
        format!(r#"{{"device":"h","sensor":"m_{sensor}","value":{value},"time":"1970-01-01T00:00:00Z"}}"#)
    };
    let long = "x".repeat(4097);
    let body = format!(
        "m,host=h a=1i 0\nm,host=h a=2i,b=NaN,c=x,d=\"\n\",e=,f=9223372036854775808i 0\nm,host=h a=3i,b=\"{long}\" 0\n\
         m,host=h a=1i,b=x zero\nm,host=h a=x 0\nm,host=h a=4i 0\n"
    );
    let expected = [
        good("a", "1"),
        good("a", "2"),
        good("d", r#""\n""#),
        good("a", "3"),
        good("a", "4"),
        "line 2, column 17: the field `b` is `NaN`, which is no finite number".to_owned(),
        "line 2, column 23: the field `c` is `x`; allowed: a number, a whole number with `i` or `u` behind it, true, false, or a text in double quotes".to_owned(),
        "line 2, column 5 of line 3: the field `e` has no value".to_owned(),
        "line 2, column 8 of line 3: the field `f` is `9223372036854775808i`; a whole number fits in 64 bits signed, or a larger one with `u` is exactly a double".to_owned(),
        "line 4, column 15: the field `b`: `value` must be at most 4096 bytes long as a string, got 4097".to_owned(),
        "line 5, column 19: the time is `zero`; it must be a whole number".to_owned(),
        "line 6, column 12: the field `a` is `x`; allowed: a number, a whole number with `i` or `u` behind it, true, false, or a text in double quotes".to_owned(),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(&body, &expected);
    let pointers: Vec<_> =
        decode(body.as_bytes(), &nanos()).rejections.listed.into_iter().map(|fault| fault.pointer).collect();
    assert_eq!(pointers, ["/1/b", "/1/c", "/1/e", "/1/f", "/3/b", "/4", "/5/a"]);
    // A field fault also spares the other fields in a body with an invalid UTF-8 line.
    check(
        [b"m,host=\xff a=1\n", &b"m,host=h a=1i,b=x 0"[..]].concat(),
        &[
            &good("a", "1"),
            "line 1, column 8: the line is not UTF-8",
            "line 2, column 17: the field `b` is `x`; allowed: a number, a whole number with `i` or `u` behind it, true, false, or a text in double quotes",
        ],
    );
}

#[test]
fn all_faulty_fields_are_counted_and_the_first_hundred_listed() {
    let fields: Vec<_> =
        (0..1000).map(|number| format!("f{number}={}", if number % 2 == 0 { "x" } else { "NaN" })).collect();
    let decoded = decode(format!("m,host=h {},good=1", fields.join(",")).as_bytes(), &nanos());
    assert_eq!((decoded.readings.len(), decoded.rejections.listed.len()), (1, 100));
    let counts: Vec<_> = decoded.rejections.counts().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts, [(Reason::Type, 500), (Reason::Number, 500)]);
    // The faults of fields do not count in a line that is rejected as a whole.
    let decoded = decode(format!("m,host=h {} zero\nm,host=h a=1", fields.join(",")).as_bytes(), &nanos());
    assert_eq!((decoded.readings.len(), decoded.rejections.count()), (1, 1));
}

#[test]
fn an_unclosed_text_covers_the_next_lines_and_its_error_names_the_last_one() {
    check(
        "m,host=h a=1i 0\nm,host=h b=\"x 0\nm,host=h c=1i 0\n\n",
        &[
            r#"{"device":"h","sensor":"m_a","value":1,"time":"1970-01-01T00:00:00Z"}"#,
            "line 2, column 12, up to line 4: the text of the field `b` is not closed",
        ],
    );
    check(
        "m,host=h b=\"x 0\nm,host=h c=\"y\" 0\nm,host=h d=1i 0",
        &[
            r#"{"device":"h","sensor":"m_d","value":1,"time":"1970-01-01T00:00:00Z"}"#,
            "line 1, column 13 of line 2, up to line 2: after the field `b`, a comma, a space or the end of the line must follow",
        ],
    );
}

#[test]
fn a_line_that_is_not_utf8_costs_no_other_line() {
    let good = r#"{"device":"h","sensor":"m","value":1,"time":"1970-01-01T00:00:00Z"}"#;
    check(
        b"m,host=h value=1i 0\n\nm,host=\xff value=1i 0\nm,host=h value=1i 0\nm,host=h value=x",
        &[
            good,
            good,
            "line 3, column 8: the line is not UTF-8",
            "line 5, column 16: the field `value` is `x`; allowed: a number, a whole number with `i` or `u` behind it, true, false, or a text in double quotes",
        ],
    );
    check(
        b"m,host=h value=\"\xff\n\" 0\r\nm,host=h value=1i 0",
        &[good, "line 1, column 17, up to line 2: the line is not UTF-8"],
    );
}

#[test]
fn all_rejections_are_counted_and_the_first_hundred_listed() {
    let decoded = decode("m,host=h value=x\n".repeat(150).as_bytes(), &nanos());
    assert_eq!((decoded.rejections.count(), decoded.rejections.listed.len()), (150, 100));
    assert_eq!(decoded.rejections.listed[99].index, 99);
    let counts: Vec<_> = decoded.rejections.counts().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts, [(Reason::Type, 150)]);
}

#[test]
fn readings_beyond_the_limit_of_encoded_bytes_are_reported_as_overflow() {
    let fields = (0..1000).map(|number| format!("f{number}=1")).collect::<Vec<_>>().join(",");
    let line = format!("m,host={} {fields}", "h".repeat(256));
    let rules = Rules { encoded_bytes_max: 10_000, ..nanos() };
    let decoded = decode(line.as_bytes(), &rules);
    assert!(decoded.overflowed);
    assert!(decoded.readings.encoded_bytes() < 11_000, "{}", decoded.readings.encoded_bytes());
    assert!(!decode(line.as_bytes(), &nanos()).overflowed);
}
