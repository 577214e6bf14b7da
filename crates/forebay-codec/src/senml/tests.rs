//! Each rule of RFC 8428 by itself; its examples and the properties have files of their own.

mod examples;
mod faults;
mod properties;

use forebay_reading::timestamp::{Precision, Timestamp};

use super::Senml;
use crate::{DecodeError, Decoded, Decoder as _, Rules, UnknownFields, tests};

/// The time of receipt in these tests, 2007-02-01T00:00:00Z, in seconds.
const NOW: i64 = 1_170_288_000;

fn decode(body: &str, rules: &Rules) -> Result<Decoded, DecodeError> {
    Senml.decode(body.as_bytes(), rules)
}

fn show(body: &str, rules: &Rules) -> String {
    tests::show(&decode(body, rules).expect("JSON"))
}

#[track_caller]
fn check(body: &str, expected: &str) {
    assert_eq!(show(body, &tests::rules()).trim_end(), expected.trim_end(), "{body}");
}

/// Checks the reading of one record with these fields and a name: the canonical fields after the sensor.
#[track_caller]
fn check_record(fields: &str, expected: &str) {
    check(&format!(r#"[{{"n":"d/s",{fields}}}]"#), &format!(r#"{{"device":"d","sensor":"s",{expected}}}"#));
}

/// The canonical line of a reading of the device `d` and the sensor `s`.
fn line(value: &str, second: u32) -> String {
    format!(r#"{{"device":"d","sensor":"s","value":{value},"time":"2007-02-01T00:00:{second:02}Z"}}"#)
}

// 4.1, 4.5: base fields

#[test]
fn base_fields_hold_for_their_own_record_and_later_ones_until_they_are_set_again() {
    check(
        r#"[{"bn":"a:","n":"x","bt":1170288010,"bu":"V","bv":10,"v":1},
            {"n":"y","t":1,"v":2},
            {"bn":"b:","n":"x","v":3},
            {"bt":1170288020,"bu":"A","bv":-1,"n":"y","v":4},
            {"bt":0,"bu":"","bv":0,"bn":"","n":"c:x","v":5}]"#,
        concat!(
            r#"{"device":"a","sensor":"x","value":11,"time":"2007-02-01T00:00:10Z","unit":"V"}"#,
            "\n",
            r#"{"device":"a","sensor":"y","value":12,"time":"2007-02-01T00:00:11Z","unit":"V"}"#,
            "\n",
            r#"{"device":"b","sensor":"x","value":13,"time":"2007-02-01T00:00:10Z","unit":"V"}"#,
            "\n",
            r#"{"device":"b","sensor":"y","value":3,"time":"2007-02-01T00:00:20Z","unit":"A"}"#,
            "\n",
            r#"{"device":"c","sensor":"x","value":5,"time":"2007-02-01T00:00:00Z"}"#,
        ),
    );
}

#[test]
fn regular_fields_hold_for_their_own_record_alone() {
    check(
        r#"[{"n":"d/s","u":"V","t":5,"v":1},{"n":"d/s","v":2},{"v":3}]"#,
        concat!(
            r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:05Z","unit":"V"}"#,
            "\n",
            r#"{"device":"d","sensor":"s","value":2,"time":"2007-02-01T00:00:00Z"}"#,
            "\n",
            "2 /2/n: a record needs a name: `n`, or a base name (`bn`) that holds for it",
        ),
    );
}

#[test]
fn a_base_field_may_come_after_the_fields_that_it_holds_for() {
    check(r#"[{"v":1,"t":1,"n":"s","bv":1,"bt":1,"bn":"d"}]"#, &line("2", 2));
}

#[test]
fn a_record_with_base_fields_only_is_neither_a_reading_nor_a_fault() {
    check(r#"[{"bn":"d/"},{"bt":5,"bv":1,"bs":2,"bu":"","bver":10},{"n":"s","v":1}]"#, &line("2", 5));
    check(r#"[{"bx":1},{"bn":"d/","else":1},{"n":"s","v":1}]"#, &line("1", 0));
}

// 4.2, 4.5.4: values

#[test]
fn numbers_booleans_and_strings_are_values() {
    let time = r#""time":"2007-02-01T00:00:00Z""#;
    for (field, value) in [
        (r#""v":230.10"#, "230.1"),
        (r#""v":9223372036854775807"#, "9223372036854775807"),
        (r#""v":-9223372036854775808"#, "-9223372036854775808"),
        (r#""v":9223372036854775808"#, "9.223372036854776e+18"),
        (r#""v":1e3"#, "1000.0"),
        (r#""v":1E3"#, "1000.0"),
        (r#""v":-0"#, "-0.0"),
        (r#""vb":true"#, "true"),
        (r#""vb":false"#, "false"),
        (r#""vs":"Machine Room""#, r#""Machine Room""#),
        (r#""vs":"on\u00e9\"""#, r#""oné\"""#),
        (r#""vs":"""#, r#""""#),
    ] {
        check_record(field, &format!(r#""value":{value},{time}"#));
    }
}

#[test]
fn the_base_value_is_added_to_numbers_exactly_while_both_are_whole_and_fit() {
    for (base, own, value) in [
        ("9007199254740993", "1", "9007199254740994"),
        ("9223372036854775807", "-1", "9223372036854775806"),
        ("9223372036854775807", "1", "9.223372036854776e+18"),
        ("0.5", "1", "1.5"),
        ("20", "0.25", "20.25"),
        ("0", "5", "5"),
    ] {
        check(
            &format!(r#"[{{"bv":{base},"n":"d/s","v":{own}}},{{"n":"d/s","v":{own}}}]"#),
            &format!("{}\n{}", line(value, 0), line(value, 0)),
        );
    }
}

#[test]
fn the_base_value_does_not_change_booleans_and_strings() {
    check(
        r#"[{"bv":5,"n":"d/s","vb":true},{"n":"d/s","vs":"x"}]"#,
        &format!("{}\n{}", line("true", 0), line("\"x\"", 0)),
    );
}

#[test]
fn a_sum_is_ignored_beside_a_value_and_rejected_without_one() {
    check(
        r#"[{"n":"d/s","v":1,"s":500,"bs":7},{"n":"d/s","v":2}]"#,
        &format!("{}\n{}", line("1", 0), line("2", 0)),
    );
    check(
        r#"[{"n":"d/s","s":1}]"#,
        "0 /0/s: a sum (`s`) alone is not taken: a reading needs a value: `v`, `vb` or `vs`",
    );
    check(
        r#"[{"n":"d/s","s":1,"bs":1},{"n":"d/s"}]"#,
        concat!(
            "0 /0/s: a sum (`s`) alone is not taken: a reading needs a value: `v`, `vb` or `vs`\n",
            "1 /1/v: a base sum (`bs`) alone is not taken: a reading needs a value: `v`, `vb` or `vs`",
        ),
    );
}

#[test]
fn a_record_without_a_value_is_rejected_even_with_a_base_value() {
    for body in [
        r#"[{"n":"d/s"}]"#,
        r#"[{"bn":"d/","bv":1,"n":"s"}]"#,
        r#"[{"bn":"d/","ut":1}]"#,
        "[{}]",
        r#"[{"x":1}]"#,
    ] {
        check(body, "0 /0/v: `v` is missing: a reading needs a value: `v`, `vb` or `vs`");
    }
}

#[test]
fn a_record_with_two_values_is_rejected() {
    check(
        r#"[{"n":"d/s","vs":"x","v":1},{"n":"d/s","v":1,"vd":"aGkgCg"}]"#,
        concat!(
            "0 /0/vs: a record has one value, and `v` and `vs` are there\n",
            "1 /1/vd: a record has one value, and `v` and `vd` are there",
        ),
    );
}

#[test]
fn binary_data_is_rejected() {
    check(
        r#"[{"n":"d/s","vd":"aGkgCg"}]"#,
        "0 /0/vd: binary data (`vd`) is not taken: a value is a number (`v`), a boolean (`vb`) or a string (`vs`)",
    );
}

#[test]
fn the_update_time_is_ignored() {
    check(r#"[{"n":"d/s","v":1,"ut":60}]"#, &line("1", 0));
}

// 4.4: extensions and versions

#[test]
fn unknown_labels_are_ignored_under_every_setting() {
    for unknown_fields in [UnknownFields::Reject, UnknownFields::Ignore] {
        let rules = Rules { unknown_fields, ..tests::rules() };
        let body = r#"[{"n":"d/s","v":1,"V":2,"bx":{"v":[1,{}]},"_x":null,"":1e999,"vv":1,"vw":2}]"#;
        assert_eq!(show(body, &rules).trim_end(), line("1", 0));
    }
}

#[test]
fn an_unknown_label_that_must_be_understood_rejects_its_record() {
    let detail = "the label `x/_` ends in `_`: the record must not be read by who does not know it, and it is not known here";
    check(
        r#"[{"n":"d/s","v":1,"x/_":2,"y_":1},{"n":"d/s","v":2}]"#,
        &format!("{}\n0 /0/x~1_: {detail}", line("2", 0)),
    );
}

#[test]
fn an_unknown_base_label_that_must_be_understood_rejects_its_record_and_all_later_ones() {
    let detail = "the label `bx_` ends in `_`: the record must not be read by who does not know it, and it is not known here";
    check(
        r#"[{"n":"d/s","v":1},{"bx_":2},{"n":"d/s","v":2},{"by":1,"n":"d/s","v":3}]"#,
        &format!(
            "{}\n1 /1/bx_: {detail}\n2 /1/bx_: {detail} (in record 1, and it holds for this one)\n3 /1/bx_: {detail} (in record 1, and it holds for this one)",
            line("1", 0)
        ),
    );
}

#[test]
fn a_version_above_10_in_any_record_rejects_the_whole_pack() {
    for (version, index, pack) in [
        ("11", 0, r#"[{"bver":11,"n":"d/s","v":1},{"n":"d/s","v":2},5]"#),
        ("26", 2, r#"[{"n":"d/s","v":1},{"n":"d/s","x_":2},{"bver":26}]"#),
        ("1e999", 1, r#"[{"n":"d/s","v":1},{"bver":1e999},{"bver":10}]"#),
        ("10.5", 2, r#"[{"n":"d/s","v":1},{},{"bver":10.5,"n":7}]"#),
    ] {
        let decoded = decode(pack, &tests::rules()).expect("JSON");
        assert!(decoded.readings.is_empty());
        assert_eq!(decoded.rejections.count(), 3);
        check(
            pack,
            &format!(
                "{index} /{index}/bver: the pack has the SenML version {version}, and only those up to 10 are known: none of it can be taken"
            ),
        );
    }
}

#[test]
fn versions_up_to_10_are_accepted() {
    for version in ["1", "5", "10", "10.0", "1e1"] {
        check(&format!(r#"[{{"bver":{version},"n":"d/s","v":1}},{{"bver":{version}}}]"#), &line("1", 0));
    }
    for version in ["0", "-5", "1.5"] {
        check(
            &format!(r#"[{{"bver":{version},"n":"d/s","v":1}}]"#),
            "0 /0/bver: `bver` must be a whole number from 1 to 10",
        );
    }
}

#[test]
fn all_records_must_have_the_same_version() {
    let detail = |before| {
        format!(
            "`bver` must be the same in the whole pack, got 5 after records of version {before}; it is 10 where it is left out"
        )
    };
    check(
        r#"[{"n":"d/s","v":1},{"bver":5,"n":"d/s","v":2},{"n":"d/s","v":3},{"bver":10,"n":"d/s","v":4}]"#,
        &format!(
            "{}\n{}\n1 /1/bver: {}\n2 /1/bver: {} (in record 1, and it holds for this one)",
            line("1", 0),
            line("4", 0),
            detail(10),
            detail(10)
        ),
    );
    check(r#"[{"bver":9},{"bver":5,"n":"d/s","v":2}]"#, &format!("1 /1/bver: {}", detail(9)));
}

// 4.5.1: names

#[test]
fn device_and_sensor_come_from_the_base_name_and_the_name() {
    for (names, device, sensor) in [
        (r#""bn":"urn:dev:ow:10e2073a01080063:","n":"voltage""#, "urn:dev:ow:10e2073a01080063", "voltage"),
        (r#""bn":"house/","n":"kitchen/temp""#, "house", "kitchen/temp"),
        (r#""bn":"urn:dev:ow:10e2_temp""#, "urn:dev:ow:10e2", "temp"),
        (r#""bn":"","n":"urn:dev:ow:10e2""#, "urn:dev:ow:10e2", "value"),
        (r#""bn":"house/kitchen:2/","n":"""#, "house/kitchen:2", "value"),
        (r#""n":"house:kitchen:temp""#, "house:kitchen", "temp"),
        (r#""n":"meter-7""#, "meter-7", "value"),
        (r#""n":"a\u002fb""#, "a", "b"),
    ] {
        check(
            &format!(r#"[{{{names},"v":1}}]"#),
            &format!(
                r#"{{"device":"{device}","sensor":"{sensor}","value":1,"time":"2007-02-01T00:00:00Z"}}"#
            ),
        );
    }
}

#[test]
fn the_joined_name_has_the_characters_of_the_rfc_and_begins_with_a_letter_or_a_digit() {
    check(
        r#"[{"n":"d s","v":1},{"n":"_d","v":1},{"bn":"d","n":"_s","v":1},{"bn":"é/","n":"s","v":1},{"n":"t","v":1},{"bn":"/3303/"}]"#,
        concat!(
            r#"{"device":"d","sensor":"_s","value":1,"time":"2007-02-01T00:00:00Z"}"#,
            "\n",
            "0 /0/n: a name must have letters, digits and `-:./_` only, found ' ' (U+0020) at byte 1\n",
            "1 /1/n: a name must begin with a letter or a digit, found '_'\n",
            "3 /3/bn: a name must have letters, digits and `-:./_` only, found 'é' (U+00E9) at byte 0\n",
            "4 /3/bn: a name must have letters, digits and `-:./_` only, found 'é' (U+00E9) at byte 0 (in record 3, and it holds for this one)\n",
            "5 /5/bn: a name must begin with a letter or a digit, found '/'",
        ),
    );
}

// 4.5.2: units

#[test]
fn the_unit_of_a_record_overrides_the_base_unit() {
    check(
        r#"[{"bn":"d/","bu":"V","n":"s","v":1,"u":"\u00b5V"},{"n":"s","v":1,"u":""}]"#,
        &format!(
            "{}\n{}",
            r#"{"device":"d","sensor":"s","value":1,"time":"2007-02-01T00:00:00Z","unit":"µV"}"#,
            line("1", 0)
        ),
    );
}

// 4.5.3: times

#[test]
fn times_below_2_to_the_28_are_relative_to_the_time_of_receipt() {
    for (time, expected) in [
        (r#""t":0"#, "2007-02-01T00:00:00Z"),
        (r#""t":-5"#, "2007-01-31T23:59:55Z"),
        (r#""t":0.1"#, "2007-02-01T00:00:00.100Z"),
        (r#""t":-0.000000001"#, "2007-01-31T23:59:59.999999999Z"),
        (r#""t":268435455.999999999"#, "2015-08-04T21:24:15.999999999Z"),
        (r#""t":268435456"#, "1978-07-04T21:24:16Z"),
        (r#""t":-1170288000"#, "1970-01-01T00:00:00Z"),
        (r#""bt":268435450,"t":6"#, "1978-07-04T21:24:16Z"),
        (r#""bt":268435460,"t":-5"#, "2015-08-04T21:24:15Z"),
    ] {
        check_record(&format!(r#""v":1,{time}"#), &format!(r#""value":1,"time":"{expected}""#));
    }
}

#[test]
fn times_are_added_and_kept_exactly_to_the_nanosecond() {
    for (time, expected) in [
        (r#""bt":1.276020076001e+09"#, "2010-06-08T18:01:16.001Z"),
        (r#""bt":1.276020076001e+09,"t":-5"#, "2010-06-08T18:01:11.001Z"),
        (r#""t":1276020076.123456789"#, "2010-06-08T18:01:16.123456789Z"),
        (r#""t":1276020076.1234567899"#, "2010-06-08T18:01:16.123456789Z"),
        (r#""bt":1276020076.9,"t":0.100000001"#, "2010-06-08T18:01:17.000000001Z"),
        (r#""bt":9999999999999,"t":-9998723979921.999"#, "2010-06-08T18:01:17.001Z"),
        (r#""t":9223372036.854775807"#, "2262-04-11T23:47:16.854775807Z"),
    ] {
        check_record(&format!(r#""v":1,{time}"#), &format!(r#""value":1,"time":"{expected}""#));
    }
}

#[test]
fn times_must_lie_in_the_window_and_in_the_range_of_timestamps() {
    let rules = Rules {
        precision: Precision::Nanos,
        earliest: Timestamp::parse("2007-01-01T00:00:00Z").expect("a time"),
        latest: Timestamp::parse("2007-03-01T00:00:00Z").expect("a time"),
        ..tests::rules()
    };
    let body = format!(
        r#"[{{"n":"d/s","v":1,"t":{NOW}}},{{"n":"d/s","v":1,"t":1e9}},{{"n":"d/s","v":1,"t":86400000}},
            {{"n":"d/s","v":1,"t":-1170288000.000000001}},{{"bt":9223372036.854775808,"n":"d/s","v":1}},{{"n":"d/s","v":1}}]"#
    );
    let range = "`bt` and `t` must add up to a time from 1970-01-01 to 2262-04-11, in seconds; below 2^28 they count from the time of receipt";
    assert_eq!(
        show(&body, &rules),
        format!(
            "{}\n1 /1/t: the time 2001-09-09T01:46:40Z is earlier than 2007-01-01T00:00:00Z, the earliest taken now\n\
             2 /2/t: the time 2009-10-28T00:00:00Z is later than 2007-03-01T00:00:00Z, the latest taken now\n\
             3 /3/t: {range}\n4 /4/bt: {range}\n5 /4/bt: {range}\n",
            line("1", 0)
        )
    );
}
