//! What the log promises, on a file system that fails, crashes and loses what was not synced.

mod damage;
mod model;

/// How many runs a test makes that never goes the same way twice: `short`, or `long` with `FOREBAY_TEST_LONG=1`.
fn runs(short: u64, long: u64) -> u64 {
    if std::env::var_os("FOREBAY_TEST_LONG").is_some_and(|value| value == "1") { long } else { short }
}
