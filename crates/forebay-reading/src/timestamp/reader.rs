//! A reader for many times that lie close together, like those of one request.

use super::{TimeError, Timestamp, parse_fraction, two};

/// Bytes of a time including its minute: `2007-02-01T12:00`.
const MINUTE_BYTES: usize = 16;
/// Most digits of a fraction that this reader accepts.
const FRACTION_DIGITS_MAX: usize = 9;

/// Reads times and remembers the minute of the last one: for the next time in the same minute, only the seconds are
/// parsed.
///
/// **Invariant**: it returns the same times as [`Timestamp::parse`]
/// (`timestamp::reader::tests::it_agrees_with_reading_each_time_alone`).
#[derive(Debug)]
pub struct TimeReader {
    minute: [u8; MINUTE_BYTES],
    /// Seconds from the Unix epoch to the minute, read as UTC.
    starts_at: i64,
}

impl Default for TimeReader {
    fn default() -> TimeReader {
        TimeReader { minute: *b"1970-01-01T00:00", starts_at: 0 }
    }
}

impl TimeReader {
    /// Reads an RFC 3339 date and time.
    ///
    /// # Errors
    ///
    /// As [`Timestamp::parse`].
    pub fn parse(&mut self, text: &str) -> Result<Timestamp, TimeError> {
        let (time, local) = Timestamp::parse_with_local(text)?;
        if let Some(minute) = text.as_bytes().first_chunk() {
            *self = TimeReader { minute: *minute, starts_at: local.seconds_since_epoch() - local.second };
        }
        Ok(time)
    }

    /// Reads the UTC time at the beginning of `text`. Returns its length as well; `None` if the time is not in the minute
    /// of the last one, or has an unusual form.
    pub fn at_start_of(&self, text: &[u8]) -> Option<(Timestamp, usize)> {
        let (minute, rest) = text.split_first_chunk()?;
        let [b':', _, _, after_seconds @ ..] = rest else { return None };
        if *minute != self.minute {
            return None;
        }
        let second = two(rest, 1).ok().filter(|second| *second < 60)?;
        let (nanos, rest) = parse_fraction(after_seconds).ok()?;
        let fraction_bytes = after_seconds.len() - rest.len();
        if rest.first() != Some(&b'Z') || fraction_bytes > 1 + FRACTION_DIGITS_MAX {
            return None;
        }
        let time = Timestamp::from_parts(self.starts_at + second, nanos).ok()?;
        Some((time, MINUTE_BYTES + 3 + fraction_bytes + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_in_the_minute_of_the_last_one_is_read_by_its_seconds_alone() {
        let mut times = TimeReader::default();
        let next = |times: &TimeReader, text: &str| {
            times.at_start_of(text.as_bytes()).map(|(time, length)| (time.to_string(), length))
        };
        assert_eq!(next(&times, "2007-02-01T00:00:07Z"), None);
        assert!(times.parse("2007-02-01T01:00:59.5+01:00").is_ok());
        assert_eq!(next(&times, "2007-02-01T01:00:07Z\","), Some(("2007-02-01T01:00:07Z".to_owned(), 20)));
        let expected = Some(("2007-02-01T01:00:07.250Z".to_owned(), 23));
        assert_eq!(next(&times, "2007-02-01T01:00:07.25Z"), expected);
        for unusual in [
            "",
            "2007-02-01T01:00",
            "2007-02-01T01:00:0",
            "2007-02-01T01:00:07",
            "2007-02-01T01:00:07z",
            "2007-02-01T01:00:07+01:00",
            "2007-02-01T01:00:60Z",
            "2007-02-01T01:00:7Z",
            "2007-02-01T01:00:07.Z",
            "2007-02-01T01:00:07.1234567890Z",
            "2007-02-01T01:01:07Z",
        ] {
            assert_eq!(next(&times, unusual), None, "{unusual}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_reading_each_time_alone(
            texts in prop::collection::vec(
                "(1969|1970|2007|2262)-(01|02|04|12)-(01|11|29|31)[T ](00|23):(00|47|59):[0-6][0-9](\\.[0-9]{0,11})?(Z|z|[+-]0[01]:00)?",
                1..8,
            )
        ) {
            let mut times = TimeReader::default();
            for text in &texts {
                let expected = Timestamp::parse(text);
                // Twice: the second time its minute is known.
                for _ in 0..2 {
                    if let Some((time, length)) = times.at_start_of(text.as_bytes()) {
                        prop_assert_eq!((&Ok(time), length), (&expected, text.len()), "{}", text);
                    }
                    prop_assert_eq!(&times.parse(text), &expected, "{}", text);
                }
            }
        }
    }
}
