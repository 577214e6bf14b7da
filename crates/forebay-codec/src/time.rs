//! Times of readings: the window that they must lie in, and the unit that the sender of another time probably meant.

use forebay_reading::timestamp::{Precision, Timestamp};

use crate::Rules;
use crate::quote::shorten;

impl Rules {
    /// Whether a reading may have this time.
    pub(super) fn takes_time(&self, time: Timestamp) -> bool {
        (self.earliest..=self.latest).contains(&time)
    }

    /// Reads a time in RFC 3339.
    ///
    /// # Errors
    ///
    /// The words for a text that is not a time, or for a time outside the window.
    pub(super) fn time_of_text(&self, text: &str) -> Result<Timestamp, String> {
        let time = Timestamp::parse(text).map_err(|error| error.to_string())?;
        if self.takes_time(time) { Ok(time) } else { Err(format!("`time` {}", self.outside(time))) }
    }

    /// Reads a time that is a JSON number in the unit of [`Rules::precision`].
    ///
    /// # Errors
    ///
    /// The words for a time outside the window, with the unit in which the number would fit.
    pub(super) fn time_of_number(&self, number: &str) -> Result<Timestamp, String> {
        let detail = match Timestamp::from_decimal(number, self.precision) {
            Ok(time) if self.takes_time(time) => return Ok(time),
            Ok(time) => format!("`time` {}", self.outside(time)),
            Err(error) => error.to_string(),
        };
        match self.unit_that_fits(|unit| Timestamp::from_decimal(number, unit).ok()) {
            Some(unit) if unit != self.precision => Err(format!(
                "{detail}; {} fits as {}: did you mean `precision={}`?",
                shorten(number),
                unit.noun(),
                unit.name()
            )),
            _ => Err(detail),
        }
    }

    /// The words for a time outside the window.
    pub(super) fn outside(&self, time: Timestamp) -> String {
        if time < self.earliest {
            format!("{time} is earlier than {}, the earliest taken now", self.earliest)
        } else {
            format!("{time} is later than {}, the latest taken now", self.latest)
        }
    }

    /// The unit in which a number is a time inside the window; of several units, the one nearest to the time of receipt.
    pub(super) fn unit_that_fits(&self, read: impl Fn(Precision) -> Option<Timestamp>) -> Option<Precision> {
        let distance = |time: Timestamp| time.nanos().abs_diff(self.received_at.nanos());
        let fitting = Precision::NAMES
            .iter()
            .filter_map(|(_, unit)| Some((read(*unit).filter(|time| self.takes_time(*time))?, *unit)));
        fitting.min_by_key(|(time, _)| distance(*time)).map(|(_, unit)| unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests;

    /// The time of a number in this unit, or the error, with a window from 2001 until an hour after the time of receipt.
    fn told(number: &str, precision: Precision) -> String {
        let rules = Rules {
            precision,
            received_at: Timestamp::parse("2026-11-28T11:02:33Z").expect("a time"),
            earliest: Timestamp::parse("2001-01-01T00:00:00Z").expect("a time"),
            latest: Timestamp::parse("2026-11-28T12:02:33Z").expect("a time"),
            ..tests::rules()
        };
        rules.time_of_number(number).map_or_else(|detail| detail, |time| time.to_string())
    }

    #[track_caller]
    fn check_hint(number: &str, precision: Precision, unit: Option<(&str, &str)>) {
        let told = told(number, precision);
        let expected =
            unit.map(|(noun, name)| format!("; {number} fits as {noun}: did you mean `precision={name}`?"));
        match expected {
            Some(hint) => assert!(told.ends_with(&hint), "{told}"),
            None => assert!(!told.contains("did you mean"), "{told}"),
        }
    }

    #[test]
    fn the_error_of_a_number_outside_the_window_names_the_unit_that_fits() {
        assert_eq!(
            told("1795863753", Precision::Millis),
            "`time` 1970-01-21T18:51:03.753Z is earlier than 2001-01-01T00:00:00Z, the earliest taken now; \
             1795863753 fits as seconds: did you mean `precision=s`?"
        );
        let units = [
            ("s", "seconds", "1795863753"),
            ("ms", "milliseconds", "1795863753000"),
            ("us", "microseconds", "1795863753000000"),
            ("ns", "nanoseconds", "1795863753000000000"),
        ];
        for (name, noun, number) in units {
            for (sent_as, precision) in Precision::NAMES {
                let hint = (*sent_as != name).then_some((noun, name));
                check_hint(number, *precision, hint);
            }
            check_hint(number, Precision::Hours, Some((noun, name)));
        }
        check_hint("1.795863753e9", Precision::Millis, Some(("seconds", "s")));
        check_hint("1795863753.25", Precision::Micros, Some(("seconds", "s")));
    }

    #[test]
    fn the_error_of_a_number_that_fits_in_no_unit_names_no_unit() {
        for number in ["0", "-1", "5", "1e999", "99999999999999999999999999", "1e-9"] {
            for (_, precision) in Precision::NAMES {
                check_hint(number, *precision, None);
            }
        }
    }
}
