//! The results of windows.

use super::*;

const ALL: &str = "mean min max count sum first last stddev p50 p95 p99";

/// The results of one window over these values, one a second.
fn aggregate(functions: &str, values: &[Value<'static>]) -> Vec<String> {
    let mut trial = Trial::new(&format!("every = 1h, functions = {functions}"));
    for (second, value) in (0..).zip(values) {
        trial.apply(Given { value: *value, nanos: second * NANOS, ..Given::default() });
    }
    trial.transform.close_oldest(1);
    let results = trial.transform.take_closed().results;
    let names: Vec<_> = functions.split(' ').map(|name| format!("t_{name}")).collect();
    assert_eq!(results.iter().map(|result| result.sensor().to_owned()).collect::<Vec<_>>(), names);
    results.iter().map(number).collect()
}

#[test]
fn each_function_gives_an_integer_or_a_double_as_documented() {
    use Value::{Boolean, Double, Integer};
    let check = |values: &[Value<'static>], expected: &str| {
        let expected: Vec<_> = expected.split(' ').map(str::to_owned).collect();
        assert_eq!(aggregate(ALL, values), expected, "{values:?}");
    };
    //                                 mean min max count sum first last stddev p50 p95 p99
    check(&[Integer(7)], "7.0 7 7 1 7 7 7 0.0 7.0 7.0 7.0");
    check(&[Integer(4), Integer(1), Integer(1)], "2.0 1 4 3 6 4 1 1.7320508075688772 1.0 4.0 4.0");
    check(&[Double(0.5), Double(-2.5)], "-1.0 -2.5 0.5 2 -2.0 0.5 -2.5 2.1213203435596424 -2.5 0.5 0.5");
    check(&[Integer(3), Double(0.0)], "1.5 0.0 3 2 3.0 3 0.0 2.1213203435596424 0.0 3.0 3.0");
    check(&[Boolean(true), Boolean(false), Boolean(true), Boolean(true)], "0.75 0 1 4 3 1 1 0.5 1.0 1.0 1.0");
    let (max, mean) = (Integer(i64::MAX), "9.223372036854775e18");
    assert_eq!(aggregate("sum min", &[max, Integer(1)]), ["9.223372036854776e18", "1"]);
    assert_eq!(aggregate("max first", &[max, Double(0.5)]), ["9223372036854775807", "9223372036854775807"]);
    assert_eq!(aggregate("mean", &[max, Integer(i64::MAX - 2046)]), [mean]);
}

#[test]
fn numbers_at_the_ends_of_the_range_have_results() {
    let results = aggregate(ALL, &[Value::Double(f64::MAX); 3]);
    let max = format!("{:?}", f64::MAX);
    let max = max.as_str();
    assert_eq!(results, [max, max, max, "3", max, max, max, "0.0", max, max, max]);
    let results = aggregate(ALL, &[Value::Double(f64::MAX), Value::Double(f64::MIN)]);
    let min = format!("{:?}", f64::MIN);
    let min = min.as_str();
    assert_eq!(results, ["0.0", min, max, "2", "0.0", max, min, max, min, max, max]);
    let many = [Value::Double(f64::MAX); 300];
    assert_eq!(aggregate("p50 p99 sum", &many), [max, max, max]);
}

#[test]
fn percentiles_of_one_to_ten_have_the_nearest_rank() {
    let values: Vec<_> = (1..=10).map(Value::Integer).collect();
    assert_eq!(aggregate("p50 p95 p99", &values), ["5.0", "10.0", "10.0"]);
    assert_eq!(aggregate("p50 p95 p99", &[Value::Integer(-3)]), ["-3.0", "-3.0", "-3.0"]);
    let below: Vec<_> = (-20..0).map(Value::Integer).collect();
    assert_eq!(aggregate("p50 p95 p99", &below), ["-11.0", "-2.0", "-1.0"]);
}

#[test]
fn percentiles_of_many_readings_are_within_one_percent_and_between_the_extremes() {
    let values: Vec<_> = (0..1000).map(|number| Value::Integer(number + 1)).collect();
    let results: Vec<f64> =
        aggregate("p50 p95 p99", &values).iter().map(|number| number.parse().unwrap()).collect();
    for (result, exact) in results.iter().zip([500.0, 950.0, 990.0]) {
        assert!((result - exact).abs() <= 0.01 * exact, "{results:?}");
    }
    assert_eq!(aggregate("p50 min max", &[Value::Double(0.1); 1000]), ["0.1", "0.1", "0.1"]);
}

#[test]
fn first_and_last_go_by_the_readings_own_time() {
    let mut trial = Trial::new("every = 10s, functions = first last");
    for (seconds, value) in [(1005, 1), (1002, 2), (1002, 3), (1007, 4), (1007, 5), (1006, 6)] {
        trial.read(seconds, value);
    }
    assert_eq!(trial.all(), ["d t_first 2 @1000 window=10s", "d t_last 5 @1000 window=10s"]);
}

#[test]
fn a_result_has_the_tags_of_its_series_and_the_shared_unit() {
    type Said<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)]);
    let check = |readings: &[Said<'_>], expected: [&str; 2]| {
        let mut trial = Trial::new("every = 10s, functions = max count");
        for (unit, tags) in readings {
            trial.apply(Given { unit: *unit, tags, ..Given::default() });
        }
        let count = readings.len();
        let [max, of_count] = expected;
        let expected = [format!("d t_max 1 {max}"), format!("d t_count {count} {of_count}")];
        assert_eq!(trial.all(), expected, "{readings:?}");
    };
    let (a, b): ((&str, &str), (&str, &str)) = (("a", "1"), ("b", "2"));
    check(&[(None, &[]), (None, &[])], ["@0 window=10s"; 2]);
    check(&[(Some("C"), &[]), (Some("C"), &[])], ["C @0 window=10s", "@0 window=10s"]);
    check(&[(Some("C"), &[]), (Some("K"), &[]), (Some("C"), &[])], ["@0 window=10s"; 2]);
    check(&[(Some("C"), &[]), (None, &[])], ["@0 window=10s"; 2]);
    check(&[(None, &[a]), (Some("C"), &[a])], ["@0 a=1 window=10s"; 2]);
    check(&[(None, &[a, b]), (None, &[a, b])], ["@0 a=1 b=2 window=10s"; 2]);
    check(&[(None, &[b, a]), (None, &[a, b]), (None, &[b, a])], ["@0 a=1 b=2 window=10s"; 2]);
    let windowed = ["C @0 a=1 b=2 window=10s", "@0 a=1 b=2 window=10s"];
    check(&[(Some("C"), &[a, ("window", "north"), b])], windowed);
}

#[test]
fn readings_that_differ_in_a_tag_go_into_windows_of_their_own() {
    let mut trial = Trial::new("every = 10s, functions = mean");
    let tags: [&[(&str, &str)]; 6] = [
        &[("mytag", "a")],
        &[("mytag", "b")],
        &[("mytag", "a"), ("room", "1")],
        &[("room", "1"), ("mytag", "a")],
        &[],
        &[("window", "1s")],
    ];
    for (number, tags) in (1_u32..).zip(tags) {
        trial.apply(Given { value: Value::Integer(i64::from(10 * number)), tags, ..Given::default() });
    }
    let mut all = trial.all();
    all.sort();
    let expected = [
        "d t_mean 10.0 @0 mytag=a window=10s",
        "d t_mean 20.0 @0 mytag=b window=10s",
        "d t_mean 35.0 @0 mytag=a room=1 window=10s",
        "d t_mean 50.0 @0 window=10s",
        "d t_mean 60.0 @0 window=10s",
    ];
    assert_eq!(all, expected);
}

#[test]
fn by_sensor_tags_do_not_count_and_results_have_none() {
    let mut trial = Trial::new("by = sensor, every = 10s, functions = mean count");
    for (value, tags) in [(10, &[("mytag", "a")]), (20, &[("mytag", "b")])] {
        trial.apply(Given { value: Value::Integer(value), tags, ..Given::default() });
    }
    assert_eq!(trial.all(), ["d t_mean 15.0 @0 window=10s", "d t_count 2 @0 window=10s"]);
}

#[test]
fn the_last_of_the_most_tags_gives_way_to_the_tag_of_the_window() {
    let names: Vec<_> = (0..32).map(|number| format!("tag-{number:02}")).collect();
    let tags: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let mut trial = Trial::new("every = 1500ms, functions = sum");
    trial.apply(Given { tags: &tags, ..Given::default() });
    trial.transform.close_oldest(1);
    let results = trial.transform.take_closed().results;
    let got: Vec<_> =
        first(&results).tags().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(got.len(), 32);
    assert_eq!(got[30], ("tag-30".to_owned(), "x".to_owned()));
    assert_eq!(got[31], ("window".to_owned(), "1500ms".to_owned()));
    assert_eq!(trial.stats().tags_cut, 1);
}

#[test]
fn only_results_that_lack_a_tag_are_counted() {
    let names: Vec<_> = (0..32).map(|number| format!("tag-{number:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let mut with_window = all.clone();
    with_window[7] = ("window", "1s");
    let check = |by: &str, tags: &[(&str, &str)], cut: u64| {
        let mut trial = Trial::new(&format!("by = {by}, every = 10s, functions = sum max"));
        trial.apply(Given { tags, ..Given::default() });
        let tags = |result: &String| result.matches('=').count();
        assert!(trial.all().iter().all(|result| tags(result) <= 32));
        assert_eq!(trial.stats().tags_cut, cut, "{by}, {} tags", all.len());
    };
    check("series", &all, 2);
    check("series", &all[..31], 0);
    check("series", &with_window, 0);
    check("sensor", &all, 0);
}

#[test]
fn readings_that_cannot_be_aggregated_pass_and_are_counted() {
    let mut trial = Trial::new("every = 10s, functions = max count");
    assert_eq!(trial.apply(Given { value: Value::Text("on"), ..Given::default() }), Verdict::Pass);
    let (fits, long) = ("s".repeat(256 - "_count".len()), "s".repeat(257 - "_count".len()));
    assert_eq!(trial.apply(Given { sensor: &long, ..Given::default() }), Verdict::Pass);
    assert!(matches!(trial.apply(Given { sensor: &fits, ..Given::default() }), Verdict::Merge(_)));
    let stats = trial.stats();
    assert_eq!((stats.failed, stats.open_windows), (2, 1));
    assert_eq!(trial.all().len(), 2);
}
