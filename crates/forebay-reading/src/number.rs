//! Numbers of JSON (RFC 8259, section 6): their grammar, their values, and their canonical text. A number that arrives in
//! canonical text is neither parsed nor formatted.

use crate::layout;

/// Most digits that every decimal keeps through a double and back (`DBL_DIG` of C).
const DOUBLE_DIGITS_MAX: usize = 15;
/// Most digits of which every integer fits in 64 bits signed.
const INTEGER_DIGITS_MAX: usize = 18;
/// Fractions with more leading zeros than this may be written with an exponent.
const LEADING_ZEROS_MAX: usize = 2;
/// Minus zero is a double: as an integer it would become zero.
const MINUS_ZERO: &str = "-0";
/// A number of up to this many bytes and without an exponent is within the range of doubles.
const PLAIN_BYTES_MAX: usize = 300;

/// The JSON number at the beginning of `text`.
pub fn number_at_start_of(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let digits_from = |at: usize| bytes.get(at..).map(digits).filter(|count| *count > 0);
    let start = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits_from(start)?;
    if whole > 1 && bytes[start] == b'0' {
        return None;
    }
    let mut end = start + whole;
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits_from(end + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        end += 1 + sign + digits_from(end + 1 + sign)?;
    }
    text.get(..end)
}

/// The integer that a JSON number is written as, if it fits in 64 bits signed.
pub(super) fn integer(number: &str) -> Option<i64> {
    if number == MINUS_ZERO { None } else { number.parse().ok() }
}

/// The double nearest to a JSON number; `None` beyond the range of doubles.
pub(super) fn finite_double(number: &str) -> Option<f64> {
    number.parse().ok().filter(|double: &f64| double.is_finite())
}

/// Whether a JSON number is beyond the range of doubles.
pub fn is_beyond_doubles(number: &str) -> bool {
    let is_plain = number.len() <= PLAIN_BYTES_MAX && !number.contains(['e', 'E']);
    !is_plain && finite_double(number).is_none()
}

/// A JSON number in canonical text: the text that our encoders would write for it.
///
/// **Invariant**: an integer has the text that `i64` displays; a double has the shortest text that reads back as the same
/// double (`number::tests::an_accepted_text_is_the_text_that_would_be_written`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberText<'a> {
    text: &'a str,
    is_integer: bool,
}

impl<'a> NumberText<'a> {
    /// The number at the beginning of `text`, with its length there, if its canonical form is known without parsing it.
    /// Trailing zeros of a fraction belong to the length, but not to the number.
    ///
    /// This holds for most numbers: a decimal of up to 15 digits without superfluous zeros is the shortest text of its
    /// double, because no two such decimals share a double.
    pub fn at_start_of(text: &'a str) -> Option<(NumberText<'a>, usize)> {
        let bytes = text.as_bytes();
        let start = usize::from(bytes.first() == Some(&b'-'));
        let point = start + digits(bytes.get(start..)?);
        let leading_zero = bytes.get(start) == Some(&b'0');
        if point == start || (leading_zero && point > start + 1) {
            return None;
        }
        let is_integer = bytes.get(point) != Some(&b'.');
        let (end, length) = if is_integer {
            if point - start > INTEGER_DIGITS_MAX || &text[..point] == MINUS_ZERO {
                return None;
            }
            (point, point)
        } else {
            let fraction = &bytes[point + 1..];
            let length = digits(fraction);
            let fraction = without_zeros(&fraction[..length]);
            if !is_canonical(fraction, leading_zero) || point - start + fraction.len() > DOUBLE_DIGITS_MAX {
                return None;
            }
            (point + 1 + fraction.len(), point + 1 + length)
        };
        match bytes.get(length) {
            Some(b'e' | b'E' | b'.') => None,
            _ => Some((NumberText { text: text.get(..end)?, is_integer }, length)),
        }
    }

    /// The text.
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// Whether it is a whole number that fits in 64 bits signed.
    pub fn is_integer(self) -> bool {
        self.is_integer
    }
}

/// The nearest double of a number in canonical text.
pub(super) fn nearest_double(text: &[u8]) -> f64 {
    plain_double(text)
        .unwrap_or_else(|| layout::text(text).parse().expect("only numbers are encoded as numbers"))
}

/// The double of up to 15 digits without an exponent: the digits as an integer and the power of ten are exact doubles, so
/// that their quotient is rounded only once (Clinger, *How to Read Floating Point Numbers Accurately*, 1990).
fn plain_double(text: &[u8]) -> Option<f64> {
    let (sign, text) = match text {
        [b'-', rest @ ..] => (-1.0, rest),
        _ => (1.0, text),
    };
    if text.len() > DOUBLE_DIGITS_MAX + 1 {
        return None;
    }
    let (mut digits, mut number, mut point) = (0, 0u64, None);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                number = number * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            _ => return None,
        }
    }
    let places = point.map_or(0, |before| digits - before);
    #[allow(clippy::cast_precision_loss, reason = "it has at most 15 digits")]
    let double = number as f64 / POWERS_OF_TEN.get(places)?;
    (1..=DOUBLE_DIGITS_MAX).contains(&digits).then_some(sign * double)
}

const POWERS_OF_TEN: [f64; DOUBLE_DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// A fraction without its trailing zeros; a single zero stays.
fn without_zeros(mut fraction: &[u8]) -> &[u8] {
    while let [front @ .., b'0'] = fraction
        && !front.is_empty()
    {
        fraction = front;
    }
    fraction
}

/// Whether a fraction without trailing zeros is in canonical form.
fn is_canonical(fraction: &[u8], whole_is_zero: bool) -> bool {
    match fraction {
        [] => false,
        [_] => true,
        _ if whole_is_zero => fraction.iter().take(LEADING_ZEROS_MAX + 1).any(|digit| *digit != b'0'),
        _ => true,
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewValue, Value};
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<(&str, bool, &str)>) {
        let accepted = NumberText::at_start_of(text);
        let accepted =
            accepted.map(|(number, length)| (number.as_str(), number.is_integer(), &text[length..]));
        assert_eq!(accepted, expected, "{text}");
    }

    #[test]
    fn canonical_numbers_are_accepted_and_others_are_left_to_the_parser() {
        check("230.1,", Some(("230.1", false, ",")));
        check("0", Some(("0", true, "")));
        check("-12}", Some(("-12", true, "}")));
        check("0.0]", Some(("0.0", false, "]")));
        check("-0.0", Some(("-0.0", false, "")));
        check("0.001", Some(("0.001", false, "")));
        check("999999999999999999", Some(("999999999999999999", true, "")));
        check("1.50,", Some(("1.5", false, ",")));
        check("-100.00", Some(("-100.0", false, "")));
        check("0.0000}", Some(("0.0", false, "}")));
        for other in [
            "",
            "-",
            "-0",
            "01",
            "1.",
            "0.0001",
            "1e3",
            "1.5E3",
            "1.0e3",
            "1.50.",
            ".5",
            "+1",
            "1.2.3",
            "9999999999999999999",
            "0.1234567890123456",
            "1234567890.1234567",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn doubles_at_the_edges_of_the_fast_path_are_the_nearest_ones_too() {
        for text in [
            "0",
            "0.0",
            "-0.0",
            "999999999999999",
            "9007199254740993",
            "0.999999999999999",
            "123456789012345.6",
            "-9223372036854775808",
            "5e-324",
            "1.7976931348623157e+308",
            "0.1",
            "230.125",
        ] {
            let expected: f64 = text.parse().expect("a number");
            assert_eq!(nearest_double(text.as_bytes()).to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn numbers_beyond_all_doubles_are_known() {
        for (text, expected) in
            [("1e999", true), ("-1E400", true), ("1e308", false), ("1e-999", false), ("5", false)]
        {
            assert_eq!(is_beyond_doubles(text), expected, "{text}");
            assert_eq!(Value::of_number(text).is_none(), expected, "{text}");
        }
        assert!(is_beyond_doubles(&"9".repeat(400)));
        assert!(!is_beyond_doubles(&format!("0.{}", "9".repeat(400))));
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(20_000))]

        #[test]
        fn no_number_can_cause_a_panic(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][-+]?[0-9]{1,25})?") {
            let _ = (Value::of_number(&text), is_beyond_doubles(&text), NewValue::of_number(&text));
        }

        #[test]
        fn grammar_and_values_of_numbers_agree_with_serde_json(
            text in "-?[0-9]{0,3}(\\.?[0-9]{0,2}|[-+.eE1é]{0,4}|[0-9]{15,17})([eE][-+]?[0-9]{0,2})?"
        ) {
            let number = number_at_start_of(&text);
            prop_assert_eq!(number == Some(&text), serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{}", text);
            if let Some(number) = number {
                let expected: serde_json::Number = serde_json::from_str(number).expect(number);
                let expected = expected.as_i64().map_or_else(|| expected.as_f64().map(Value::Double), |integer| Some(Value::Integer(integer)));
                prop_assert_eq!(format!("{:?}", Value::of_number(number)), format!("{expected:?}"));
            }
        }

        #[test]
        fn the_nearest_double_agrees_with_the_standard_library(
            text in prop_oneof![
                "-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,18})?",
                any::<i64>().prop_map(|number| number.to_string()),
                prop::num::f64::NORMAL.prop_map(|number| zmij::Buffer::new().format_finite(number).to_owned()),
            ]
        ) {
            let expected: f64 = text.parse().expect("a number");
            prop_assert_eq!(nearest_double(text.as_bytes()).to_bits(), expected.to_bits(), "{}", text);
        }

        #[test]
        fn an_accepted_text_is_the_text_that_would_be_written(text in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,15})?") {
            if let Some((number, length)) = NumberText::at_start_of(&text) {
                prop_assert_eq!(length, text.len());
                if number.is_integer() {
                    let written = text.parse::<i64>().expect("it fits").to_string();
                    prop_assert_eq!(written, text);
                } else {
                    let double: f64 = text.parse().expect("a double");
                    let mut buffer = zmij::Buffer::new();
                    prop_assert_eq!(buffer.format_finite(double), number.as_str());
                }
            }
        }
    }
}
