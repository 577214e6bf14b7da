//! The window of a reading, and the closing of windows.

use super::*;

const YEAR: i64 = 366 * 86_400;

#[test]
fn a_reading_at_the_end_of_a_window_closes_it() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    let (one, two) = (trial.read(1000, 1), trial.read(1009, 2));
    assert_eq!((one, trial.sums()), (two, vec![]));
    assert_ne!(trial.read(1010, 4), one);
    assert_eq!(trial.sums(), ["1000: 3"]);
    trial.read(1045, 8);
    assert_eq!(trial.sums(), ["1010: 4"]);
    assert_eq!(trial.all(), ["d t_sum 8 @1040 window=10s"]);
}

#[test]
fn a_window_stays_open_for_the_lateness() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 15s");
    for (seconds, value) in [(1009, 1), (1024, 2), (1011, 4), (1000, 8)] {
        trial.read(seconds, value);
    }
    assert_eq!((trial.sums(), trial.stats().open_windows), (vec![], 3));
    trial.read(1025, 16);
    assert_eq!(trial.sums(), ["1000: 9"]);
    trial.read(1034, 32);
    assert_eq!(trial.sums(), Vec::<String>::new());
    trial.read(1100, 64);
    let mut sums = trial.sums();
    sums.sort();
    assert_eq!(sums, ["1010: 4", "1020: 18", "1030: 32"]);
    assert_eq!(trial.stats().late, 0);
}

#[test]
fn windows_of_a_series_are_closed_in_order_of_their_starts() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 40s");
    for (seconds, value) in [(1040, 1), (1010, 2), (1030, 4), (1000, 8), (1020, 16)] {
        trial.read(seconds, value);
    }
    trial.read(1060, 32);
    assert_eq!(trial.sums(), ["1000: 8", "1010: 2"]);
    trial.read(1200, 64);
    assert_eq!(trial.sums(), ["1020: 16", "1030: 4", "1040: 1", "1060: 32"]);
}

#[test]
fn series_do_not_close_each_others_windows() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    trial.read_of("a", 1000, 1);
    trial.read_of("b", 1010, 2);
    trial.apply(Given { device: "a", sensor: "other", nanos: 1020 * NANOS, ..Given::default() });
    assert_eq!((trial.sums(), trial.stats().remembered), (vec![], 3));
}

#[test]
fn late_readings_of_a_device_are_aggregated_window_by_window_between_live_ones() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    trial.read(1000, 1);
    for second in 0..30 {
        trial.read(500 + second, 100);
        trial.read(1001 + second / 10, 1);
    }
    assert_eq!(trial.sums(), ["500: 1000", "510: 1000"]);
    assert_eq!(trial.stats().late, 30);
    trial.read(1010, 1);
    assert_eq!(trial.sums(), ["1000: 31"]);
    assert_eq!(trial.stats().open_windows, 2);
    assert_eq!(trial.transform.stats().remembered, 1);
    let mut all = trial.all();
    all.sort();
    assert_eq!(all, ["d t_sum 1 @1010 window=10s", "d t_sum 1000 @520 window=10s"]);
    assert_eq!(trial.stats().remembered, 0);
}

#[test]
fn a_series_without_open_windows_is_forgotten() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    trial.read(1000, 1);
    trial.wait(10);
    trial.close_due();
    assert_eq!(trial.stats(), Stats::default());
    trial.read(500, 2);
    assert_eq!(trial.stats().late, 0);
}

#[test]
fn a_window_is_closed_by_the_clock_when_no_reading_comes() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 2s");
    assert_eq!(trial.due_in(), None);
    trial.wait(4);
    trial.read(1003, 1);
    assert_eq!(trial.due_in(), Some(8.0));
    trial.read_of("offline", 10, 2);
    trial.read_of("ahead", 5000, 4);
    trial.wait(7);
    trial.close_due();
    assert_eq!(trial.sums(), Vec::<String>::new());
    trial.wait(1);
    trial.close_due();
    assert_eq!((trial.sums(), trial.due_in()), (vec!["1000: 1".to_owned()], Some(4.0)));
    trial.wait(4);
    trial.close_due();
    let mut sums = trial.sums();
    sums.sort();
    assert_eq!((sums, trial.due_in()), (vec!["10: 2".to_owned(), "5000: 4".to_owned()], None));
}

#[test]
fn at_most_the_given_number_of_windows_is_closed_at_once() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    for (second, device) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        trial.read_of(device, 10 + i64::try_from(second).unwrap(), 1);
        trial.wait(1);
    }
    let devices = |trial: &mut Trial| {
        let results = trial.transform.take_closed().results;
        results.iter().map(|result| result.device().to_owned()).collect::<String>()
    };
    trial.transform.close_oldest(2);
    assert_eq!(devices(&mut trial), "ab");
    trial.wait(8);
    let now = trial.now().instant;
    trial.transform.close_due(now, 1);
    assert_eq!(devices(&mut trial), "c");
    trial.transform.close_due(now, 10);
    assert_eq!(devices(&mut trial), "de");
    assert_eq!(trial.due_in(), Some(1.0));
}

#[test]
fn a_device_clock_that_jumped_ahead_and_back_loses_no_reading_and_recovers() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 2s");
    trial.read(1000, 1);
    trial.read(1001 + YEAR, 1000);
    assert_eq!(trial.sums(), ["1000: 1"]);
    let mut sums = Vec::new();
    for second in 2..24 {
        trial.wait(1);
        trial.close_due();
        trial.read(1000 + second, 1);
        sums.extend(trial.sums());
    }
    let future = format!("{}: 1000", (1001 + YEAR) / 10 * 10);
    // The window in the future was due after 12 s; then 1010 was in time, and is closed at 1022 by the next reading.
    assert_eq!(sums, ["1000: 8".to_owned(), future, "1010: 10".to_owned()]);
    let late = trial.stats().late;
    assert!((8..=12).contains(&late), "{late}");
    trial.read(1025, 1);
    assert_eq!(trial.stats().late, late);
}

#[test]
fn a_jump_of_the_gateway_clock_delays_no_window_beyond_a_whole_one() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 2s");
    let start = trial.start;
    for (device, wall) in [("a", 1000), ("b", 1000 + YEAR), ("c", 0), ("d", 1011), ("e", 1013), ("f", 990)] {
        trial.wall = wall;
        trial.read_of(device, 1000, 1);
        assert!(trial.due_in().is_some_and(|seconds| seconds <= 12.0));
    }
    let mut order = String::new();
    while let Some(due) = trial.transform.next_due() {
        assert!(due <= start + Duration::from_secs(12));
        trial.transform.close_due(due, usize::MAX);
        let results = trial.transform.take_closed().results;
        let mut devices: Vec<_> = results.iter().map(|result| result.device().to_owned()).collect();
        devices.sort();
        order += &format!("{} ", devices.concat());
    }
    assert_eq!(order, "d abcef ");
}

#[test]
fn the_least_recently_used_series_is_evicted_and_its_windows_are_closed() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 10s, max_series = 2");
    trial.read_of("a", 1000, 1);
    trial.read_of("a", 1010, 2);
    trial.read_of("a", 980, 4);
    // A series with a second reading outlives one with a single reading.
    trial.read_of("b", 1000, 8);
    trial.read_of("b", 1001, 8);
    assert_eq!(trial.closed(), Vec::<String>::new());
    trial.read_of("c", 1000, 16);
    let mut closed = trial.closed();
    closed.sort();
    assert_eq!(
        closed,
        ["a t_sum 1 @1000 window=10s", "a t_sum 2 @1010 window=10s", "a t_sum 4 @980 window=10s"]
    );
    let stats = trial.stats();
    assert_eq!((stats.evicted, stats.remembered, stats.open_windows, stats.late), (3, 2, 2, 1));
    assert_eq!(trial.all().len(), 2);
}

#[test]
fn the_number_of_a_closed_window_is_not_reused_until_it_was_handed_out() {
    let mut trial = Trial::new("every = 10s, functions = sum");
    let windows: Vec<_> = (0..5).map(|number| trial.read(1000 + 10 * number, 1)).collect();
    let closed = trial.transform.take_closed().windows;
    assert_eq!(closed, windows[..4]);
    let again: Vec<_> = (5..9).map(|number| trial.read(1000 + 10 * number, 1)).collect();
    assert!(again.iter().all(|window| closed.contains(window)), "numbers stay small: {again:?}");
}

#[test]
fn windows_at_both_ends_of_time_open_and_close() {
    let mut trial = Trial::new("every = 366d, functions = sum, lateness = 366d");
    for nanos in [0, i64::MAX, i64::MAX, 0] {
        trial.apply(Given { nanos, ..Given::default() });
    }
    assert_eq!(trial.sums(), ["0: 1"]);
    assert_eq!(trial.due_in(), Some(2.0 * 366.0 * 86_400.0 - 1000.0));
    assert_eq!(trial.stats().late, 1);
    assert_eq!(trial.all().len(), 2);
}

#[test]
fn a_series_has_no_more_open_windows_than_promised() {
    let mut trial = Trial::new("every = 10s, functions = sum, lateness = 140s");
    for second in (0..10_000).rev().step_by(7).chain((0..10_000).step_by(3)) {
        trial.read(second, 1);
        assert!(trial.stats().open_windows <= 17);
    }
}
