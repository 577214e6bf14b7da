//! Reads `Retry-After`: how long a node asks to be left alone.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// Longest wait that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, also with a fraction as some servers send them, or a date in one
/// of the three forms of HTTP. Any other value is ignored.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match seconds(text) {
        Some(wait) => wait,
        None => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Parses seconds in decimal digits, with or without a fraction. A number too large for a `Duration` becomes the longest wait.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }

    fn read(text: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_bytes(text.as_bytes()).ok()?)]);
        retry_after(&headers, now())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_five_minutes() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(read(text), millis.map(Duration::from_millis), "{text}");
        };
        check("7", Some(7_000));
        check(" 7 ", Some(7_000));
        check("0", Some(0));
        check("007", Some(7_000));
        check("1.5", Some(1_500));
        check("0.25", Some(250));
        check("2.000", Some(2_000));
        check("299.9", Some(299_900));
        check("300.1", Some(300_000));
        for huge in
            ["99999999999", "18446744073709551616", &"9".repeat(400), &format!("1{}.5", "0".repeat(350))]
        {
            check(huge, Some(300_000));
        }
        check(&httpdate::fmt_http_date(now() + Duration::from_secs(20)), Some(20_000));
        check(&httpdate::fmt_http_date(now() - Duration::from_secs(20)), Some(0));
        check(&httpdate::fmt_http_date(now() + Duration::from_secs(100_000)), Some(300_000));
        // `now` is 01:46:40 on 9 September 2001.
        check("Sun, 09 Sep 2001 01:46:50 GMT", Some(10_000));
        check("Sunday, 09-Sep-01 01:46:51 GMT", Some(11_000));
        check("Sun Sep  9 01:46:52 2001", Some(12_000));
        for text in [
            "-1",
            "-0.5",
            "+5",
            "soon",
            "",
            ".",
            "5.",
            ".5",
            "1,5",
            "1.5s",
            "1e3",
            "NaN",
            "inf",
            "infinity",
            "0x10",
            "1 2",
            "1.2.3",
            "٣",
            "Sun, 99 Sep 2001 01:46:50 GMT",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic_or_a_longer_wait(text in "[-+0-9.eENainfGMT:, ]{0,40}") {
            prop_assert!(read(&text).is_none_or(|wait| wait <= RETRY_AFTER_MAX));
        }
    }
}
