//! The settings, the reason, and readings from before a stop.

use super::*;

const KNOWN: &str = "known: mean, min, max, count, sum, first, last, stddev, p50, p95, p99";

#[test]
fn every_fault_in_the_settings_is_reported() {
    let check = |line: &str, expected: &[&str]| {
        let mut settings = read_line(line);
        assert!(
            super::super::read(&mut settings).is_none() || !line.starts_with("every = 10s, functions = mean")
        );
        let faults: Vec<_> =
            settings.finish().iter().map(|fault| format!("{}: {}", fault.key, fault.problem)).collect();
        let expected: Vec<_> = expected.iter().map(|text| text.replace("KNOWN", KNOWN)).collect();
        assert_eq!(faults, expected, "{line}");
    };
    check(
        "",
        &[
            "every: is missing: the length of a window, such as 10s",
            "functions: is missing: a list of what to make of the readings of a window; KNOWN",
        ],
    );
    check("every = 0s, functions = sum", &["every: must be from 1ms to 366d, got 0s"]);
    check("every = 367d, functions = sum", &["every: must be from 1ms to 366d, got 367d"]);
    check("every = 10s, functions = ", &["functions: must have at least one function; KNOWN"]);
    check(
        "every = 10s, functions = sum median sum",
        &["functions: `median` is no function; KNOWN", "functions: has `sum` more than once"],
    );
    check(
        "every = 10s, functions = sum, lateness = 141s",
        &["lateness: must be at most 14 times `every`, 140s, got 141s"],
    );
    check("every = 366d, functions = sum, lateness = 367d", &["lateness: must be from 0s to 366d, got 367d"]);
    check("every = 10s, functions = sum, max_series = 0", &["max_series: must be from 1 to 10000000, got 0"]);
    check(
        "every = 10s, functions = sum, max_series = 10000001",
        &["max_series: must be from 1 to 10000000, got 10000001"],
    );
    check(
        "by = tags, every = 10s, functions = sum",
        &["by: `tags` is no way to tell series apart; known: series, sensor"],
    );
    check("every = 10s, functions = sum, latenes = 1s", &["latenes: unknown key, did you mean `lateness`?"]);
}

#[test]
fn the_reason_names_the_length_of_the_window() {
    let mut settings = read_line("every = 10s, functions = mean");
    let kind = super::super::read(&mut settings).unwrap();
    assert_eq!(kind.why(), "it is part of the readings that `aggregate` makes every 10s");
}

#[test]
fn a_reading_that_passed_before_a_stop_counts_only_with_keep_raw() {
    let readings = Given::default().encode();
    let check = |settings: &str, expected: fn(Verdict) -> bool, keeps_raw: bool| {
        let mut trial = Trial::new(settings);
        let now = trial.now();
        let verdict = trial.transform.apply_again(first(&readings), now, &mut Readings::default());
        assert!(expected(verdict), "{settings}: {verdict:?}");
        assert_eq!(trial.transform.keeps_raw(), keeps_raw);
        assert_eq!(trial.stats().open_windows, u64::from(keeps_raw));
    };
    check("every = 10s, functions = sum", |verdict| verdict == Verdict::Pass, false);
    let merges = |verdict| matches!(verdict, Verdict::MergeAndPass(_));
    check("every = 10s, functions = sum, keep_raw = true", merges, true);
    let mut trial = Trial::new("every = 10s, functions = sum, keep_raw = true");
    assert!(matches!(trial.apply(Given::default()), Verdict::MergeAndPass(_)));
}
