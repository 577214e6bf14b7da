//! The promises of the log, on a file system that fails, crashes and loses unsynced writes.

mod damage;
mod model;

/// The number of runs of a randomized test: `short`, or `long` with `FOREBAY_TEST_LONG=1`.
fn runs(short: u64, long: u64) -> u64 {
    if std::env::var_os("FOREBAY_TEST_LONG").is_some_and(|value| value == "1") { long } else { short }
}
