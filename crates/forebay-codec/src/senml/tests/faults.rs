//! Rejected records, failing packs, and the records beside a fault.

use super::{check, decode, line, show};
use crate::{Reason, Rules, tests};

#[track_caller]
fn check_error(body: &str, expected: &str) {
    let error = decode(body, &tests::rules()).expect_err("no JSON");
    assert_eq!(error.to_string(), expected, "{body:.80}");
}

#[test]
fn a_pack_is_an_array_of_objects() {
    check("[]", "");
    check(" [ ] ", "");
    for (body, found) in [
        (r#"{"n":"d/s","v":1}"#, "an object"),
        ("5", "a number"),
        ("1e999", "a number"),
        ("null", "null"),
        ("\"x\"", "a string"),
        (" true ", "a boolean"),
    ] {
        check(body, &format!("0 : the body must be a SenML pack, an array of records, got {found}"));
    }
    check(
        r#"[1e999,{"n":"d/s","v":1},null,[[]],"x",false]"#,
        &format!(
            "{}\n0 /0: a record must be an object, got a number\n2 /2: a record must be an object, got null\n3 /3: a record must be an object, got an array\n4 /4: a record must be an object, got a string\n5 /5: a record must be an object, got a boolean",
            line("1", 0)
        ),
    );
}

#[test]
fn each_label_has_its_type() {
    for label in ["bn", "bu", "n", "u", "vs", "vd"] {
        check(
            &format!(r#"[{{"{label}":5}}]"#),
            &format!("0 /0/{label}: `{label}` must be a string, got a number"),
        );
    }
    for label in ["bt", "bv", "bs", "bver", "v", "s", "t", "ut"] {
        check(
            &format!(r#"[{{"{label}":"5"}}]"#),
            &format!("0 /0/{label}: `{label}` must be a number, got a string"),
        );
    }
    check(r#"[{"vb":null}]"#, "0 /0/vb: `vb` must be a boolean, got null");
    check(r#"[{"vb":[1,2]}]"#, "0 /0/vb: `vb` must be a boolean, got an array");
    check(r#"[{"v":{"v":1}}]"#, "0 /0/v: `v` must be a number, got an object");
    check(r#"[{"v":true}]"#, "0 /0/v: `v` must be a number, got a boolean");
}

#[test]
fn a_label_that_is_there_twice_rejects_its_record() {
    for label in ["n", "v", "t", "ut", "bn", "bver"] {
        let json = if ["n", "bn"].contains(&label) { "\"d/s\"" } else { "1" };
        check(
            &format!(r#"[{{"{label}":{json},"{label}":{json}}}]"#),
            &format!("0 /0/{label}: `{label}` is there twice"),
        );
    }
    check(r#"[{"n":"d/s","v":1,"\u0076":2}]"#, "0 /0/v: `v` is there twice");
    check(r#"[{"n":"d/s","v":1,"x":1,"y":2,"x":1}]"#, "0 /0/x: `x` is there twice");
}

#[test]
fn the_first_fault_of_a_record_is_reported_and_the_record_counts_once() {
    let body = r#"[{"t":"x","v":[],"v":1,"x_":1,"bt":null}]"#;
    check(body, "0 /0/t: `t` must be a number, got a string");
    assert_eq!(decode(body, &tests::rules()).expect("JSON").rejections.count(), 1);
}

#[test]
fn good_base_fields_of_a_rejected_record_hold_for_later_records() {
    check(
        r#"[{"bn":"d/","bt":5,"bv":1,"n":"s","v":"one"},{"n":"s","v":1},{"bt":6,"n":"s","vd":""},{"n":"s","v":1}]"#,
        &format!(
            "{}\n{}\n0 /0/v: `v` must be a number, got a string\n2 /2/vd: binary data (`vd`) is not taken: a value is a number (`v`), a boolean (`vb`) or a string (`vs`)",
            line("2", 5),
            line("2", 6)
        ),
    );
}

#[test]
fn a_faulty_base_field_rejects_all_records_that_need_it_until_it_is_set_again() {
    for (base, fault) in [
        (r#""bt":"5""#, "`bt` must be a number, got a string"),
        (r#""bt":1,"bt":1"#, "`bt` is there twice"),
        (r#""bt":1e999"#, "`bt` must be a finite number, got a number that no double can hold"),
        (r#""bt":1e100"#, "`bt` is too many seconds for any time from 1970 to 2262"),
    ] {
        check(
            &format!(
                r#"[{{"bn":"d/"}},{{{base},"n":"s","v":1}},{{"n":"s","v":2,"t":5}},{{"bu":"","n":"s","v":3}},{{"bt":4,"n":"s","v":4}}]"#
            ),
            &format!(
                "{}\n1 /1/bt: {fault}\n2 /1/bt: {fault} (in record 1, and it holds for this one)\n3 /1/bt: {fault} (in record 1, and it holds for this one)",
                line("4", 4)
            ),
        );
    }
}

#[test]
fn records_that_do_not_need_a_faulty_base_field_are_accepted() {
    check(
        r#"[{"bn":"d/","bu":1},{"n":"s","v":1},{"n":"s","v":2,"u":""}]"#,
        &format!(
            "{}\n0 /0/bu: `bu` must be a string, got a number\n1 /0/bu: `bu` must be a string, got a number (in record 0, and it holds for this one)",
            line("2", 0)
        ),
    );
    check(
        r#"[{"bn":"d/","bv":true},{"n":"s","v":1},{"n":"s","vb":true},{"n":"s","vs":"x"}]"#,
        &format!(
            "{}\n{}\n0 /0/bv: `bv` must be a number, got a boolean\n1 /0/bv: `bv` must be a number, got a boolean (in record 0, and it holds for this one)",
            line("true", 0),
            line("\"x\"", 0)
        ),
    );
    check(
        r#"[{"bn":"d/","bs":"1"},{"n":"s","v":1}]"#,
        &format!("{}\n0 /0/bs: `bs` must be a number, got a string", line("1", 0)),
    );
    check(
        r#"[{"bn":7},{"n":"d/s","v":1},{"bt":"x"},{"bn":"d/","bt":1}, {"n":"s","v":1}]"#,
        &format!(
            "{}\n0 /0/bn: `bn` must be a string, got a number\n1 /0/bn: `bn` must be a string, got a number (in record 0, and it holds for this one)\n2 /2/bt: `bt` must be a number, got a string",
            line("1", 1)
        ),
    );
}

#[test]
fn a_number_beyond_all_doubles_costs_its_record_alone() {
    for label in ["v", "t", "s", "ut"] {
        let own = if label == "v" { "" } else { r#""v":2,"# };
        check(
            &format!(r#"[{{"n":"d/s","v":1}},{{{own}"n":"d/s","{label}":-1e999}},{{"n":"d/s","v":3}}]"#),
            &format!(
                "{}\n{}\n1 /1/{label}: `{label}` must be a finite number, got a number that no double can hold",
                line("1", 0),
                line("3", 0)
            ),
        );
    }
    check(
        r#"[{"bv":1e308,"n":"d/s","v":1e308},{"n":"d/s","v":-1e308}]"#,
        &format!("{}\n0 /0/v: `bv` and `v` must add up to a finite number", line("0.0", 0)),
    );
    check(r#"[{"n":"d/s","v":[1e999]}]"#, "0 /0/v: `v` must be a number, got an array");
}

#[test]
fn an_invalid_escape_costs_its_record_and_the_records_that_need_it() {
    let detail = |escape: &str| format!("a string has the escape `{escape}`, which stands for no character");
    check(
        r#"[{"n":"d/s","v":1},{"n":"d/s","vs":"\ud800"},{"n":"\q","v":2},{"n":"d/s","v":3}]"#,
        &format!(
            "{}\n{}\n1 /1/vs: {}\n2 /2/n: {}",
            line("1", 0),
            line("3", 0),
            detail("\\ud800"),
            detail("\\q")
        ),
    );
    check(
        r#"[{"bn":"d/"},{"bn":"\x"},{"n":"s","v":1},{"bn":"d/","n":"s","v":2}]"#,
        &format!(
            "{}\n1 /1/bn: {1}\n2 /1/bn: {1} (in record 1, and it holds for this one)",
            line("2", 0),
            detail("\\x")
        ),
    );
    // An unreadable label is a base field only if it begins like one.
    check(
        r#"[{"\ud800":1,"n":"d/s","v":1},{"n":"d/s","v":2},{"n":"d/s","v":3,"x\q\n":1}]"#,
        &format!("{}\n0 /0: {}\n2 /2: {}", line("2", 0), detail("\\ud800"), detail("\\q")),
    );
    for name in [r"b\q", r"\u0062\q"] {
        check(
            &format!(r#"[{{"{name}":1,"v":"x","n":"d/s"}},{{"n":"d/s","v":2}}]"#),
            &format!("0 /0: {0}\n1 /0: {0} (in record 0, and it holds for this one)", detail("\\q")),
        );
    }
    // An invalid escape under an ignored label is a fault of its record, too.
    check(r#"[{"n":"d/s","v":1,"x":"\q"}]"#, &format!("0 /0/x: {}", detail("\\q")));
}

#[test]
fn a_fault_that_leaves_the_pack_whole_costs_its_record_alone() {
    let number = |number: &str| format!("`{number}` is no number of JSON");
    let word = |word: &str| {
        format!(
            "`{word}` is no JSON; a value is a number, true, false, null, a string in double quotes, an array or an object"
        )
    };
    let tab = "a string has the control character U+0009 in it; JSON writes it as `\\u0009`";
    let deep = format!("{}1{}", "[".repeat(130), "]".repeat(130));
    let too_deep = "the nesting goes too deep; at most 127 arrays and objects, the outermost one among them, may stand in one another";
    for (field, told) in [
        ("\"v\":NaN", format!("/v: {}", word("NaN"))),
        ("\"v\":-nan", format!("/v: {}", number("-nan"))),
        ("\"v\":01", format!("/v: {}", number("01"))),
        ("\"vb\":True", format!("/vb: {}", word("True"))),
        ("\"vs\":\"a\tb\"", format!("/vs: {tab}")),
        (&format!("\"v\":1,\"x\":{deep}"), format!("/x: {too_deep}")),
        ("\"v\":1,\"x\t\":1", format!(": {tab}")),
    ] {
        // The base fields beside the fault still hold.
        check(
            &format!(r#"[{{"n":"d/s","v":1}},{{"bt":5,"n":"d/s",{field}}},{{"n":"d/s","v":3}}]"#),
            &format!("{}\n{}\n1 /1{told}", line("1", 0), line("3", 5)),
        );
        assert!(decode(&format!(r#"[{{"n":"d/s",{field}}}]"#), &tests::rules()).is_err(), "{field}");
    }
    check(r#"[{"n":"d/s","v":1},NaN]"#, &format!("{}\n1 /1: {}", line("1", 0), word("NaN")));
    // A faulty base field costs the records that need it; so does a record without one readable label.
    check(
        r#"[{"bt":NaN,"n":"d/s","v":1},{"n":"d/s","v":2},{"bt":0,"n":"d/s","v":3}]"#,
        &format!(
            "{}\n0 /0/bt: {1}\n1 /0/bt: {1} (in record 0, and it holds for this one)",
            line("3", 0),
            word("NaN")
        ),
    );
    let unreadable = "the element is no JSON: expected value";
    check(
        r#"[{"n":"d/s","v":1},{"n":"d/s","v":},{"n":"d/s","v":2}]"#,
        &format!(
            "{}\n1 /1: {unreadable}\n2 /1: {unreadable} (in record 1, and it holds for this one)",
            line("1", 0)
        ),
    );
    check_error(r#"[{"n":"d/s","v":1},{"v":NaN} {}]"#, "line 1, column 25: expected value");
}

#[test]
fn the_limits_of_a_reading_hold_and_the_pointer_leads_to_the_field() {
    let long = "x".repeat(257);
    for (pack, pointer, field) in [
        (
            format!(r#"[{{"bn":"{long}/","n":"s","v":1}}]"#),
            "/0/bn",
            "`device` must be 1 to 256 bytes long, got 257",
        ),
        (format!(r#"[{{"n":"{long}/s","v":1}}]"#), "/0/n", "`device` must be 1 to 256 bytes long, got 257"),
        (
            format!(r#"[{{"bn":"d","n":"{long}","v":1}}]"#),
            "/0/n",
            "`sensor` must be 1 to 256 bytes long, got 257",
        ),
        (format!(r#"[{{"bn":"d/{long}","v":1}}]"#), "/0/bn", "`sensor` must be 1 to 256 bytes long, got 257"),
        (format!(r#"[{{"n":"d","v":1,"u":"{long}"}}]"#), "/0/u", "`unit` must be at most 64 bytes, got 257"),
        (
            format!(r#"[{{"n":"d","v":1,"bu":"{long}"}}]"#),
            "/0/bu",
            "`unit` must be at most 64 bytes, got 257",
        ),
    ] {
        let shown = show(&pack, &tests::rules());
        assert_eq!(
            shown.replace("bytes long, got", "bytes, got"),
            format!("0 {pointer}: {field}\n").replace("bytes long, got", "bytes, got")
        );
    }
    let text = "x".repeat(4097);
    check(
        &format!(r#"[{{"n":"d","vs":"{text}"}}]"#),
        "0 /0/vs: `value` must be at most 4096 bytes long as a string, got 4097",
    );
    // The pointer to a base field leads to the earlier record that has it.
    let pack = format!(r#"[{{"bu":"{long}"}},{{"n":"d","v":1}}]"#);
    assert!(show(&pack, &tests::rules()).starts_with("1 /0/bu: `unit` must be"));
}

#[test]
fn errors_repeat_only_a_part_of_the_input() {
    let name = "x".repeat(10_000);
    for pack in [
        format!(r#"[{{"{name}_":1}}]"#),
        format!(r#"[{{"n":"é{name}"}}]"#),
        format!(r#"[{{"bver":1{}}}]"#, "0".repeat(10_000)),
    ] {
        let shown = show(&pack, &tests::rules());
        assert!(shown.len() < 400, "{shown}");
    }
}

#[test]
fn all_rejections_are_counted_by_their_reason_and_the_first_hundred_listed() {
    let body = format!("[{}{{\"n\":\"d/s\"}}]", "null,".repeat(249));
    let rejections = decode(&body, &tests::rules()).expect("JSON").rejections;
    assert_eq!((rejections.count(), rejections.listed.len()), (250, 100));
    let counts: Vec<_> = rejections.counts().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts, [(Reason::Type, 249), (Reason::Field, 1)]);
}

#[test]
fn readings_that_a_base_name_makes_much_longer_than_their_records_are_bounded() {
    let body = format!(r#"[{{"bn":"{}/"}}{}]"#, "x".repeat(200), r#",{"v":1}"#.repeat(100));
    let rules = Rules { encoded_bytes_max: 1000, ..tests::rules() };
    let decoded = decode(&body, &rules).expect("JSON");
    assert!(decoded.overflowed);
    assert!(decoded.readings.encoded_bytes() < 1500);
    assert!(!decode(&body, &tests::rules()).expect("JSON").overflowed);
}

#[test]
fn broken_json_is_reported_with_line_and_column() {
    check_error(
        "",
        "line 1, column 1: EOF while parsing a value; the body is empty; send a SenML pack, an array of records such as [{\"n\":\"device/sensor\",\"v\":1}]",
    );
    check_error("[{\"n\":\n\"d\"", "line 2, column 3: EOF while parsing an object");
    check_error(r#"[{"v":NaN}]"#, "line 1, column 7: expected value");
    check_error(r#"[{"v":1},]"#, "line 1, column 10: trailing comma");
    check_error(r#"[{"v":01}]"#, "line 1, column 8: invalid number");
    check_error("[] []", "line 1, column 4: trailing characters");
    check_error("{} x", "line 1, column 4: trailing characters");
    check_error("\u{feff}\u{feff}[]", "line 1, column 1: expected value");
    check_error(r#"[{"n":"d/s","vs":"\ud800"},"#, "line 1, column 27: EOF while parsing a value");
    check_error(&"[".repeat(100_000), "line 1, column 128: recursion limit exceeded");
    check_error(
        &format!("[{{\"x\":\n{}{}}}]", "[".repeat(1000), "]".repeat(1000)),
        "line 2, column 126: recursion limit exceeded",
    );
}
