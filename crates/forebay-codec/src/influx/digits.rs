//! Reads digits eight at a time: the time of most lines has nineteen.
//!
//! The arithmetic comes from "Faster integer parsing" by Ivan Marinov: pairs, then fours, then all eight together.

/// Any number of up to this many digits fits in 64 bits unsigned.
const DIGITS_MAX: usize = 19;

/// The number of the digits at the beginning of `text`, and their count. `None` for no digits, or for more than fit.
pub(super) fn at_start_of(text: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut length) = (0, 0);
    while length + 8 <= DIGITS_MAX
        && let Some(eight) = text.get(length..).and_then(|rest| rest.first_chunk()).copied().and_then(eight)
    {
        number = number * 100_000_000 + eight;
        length += 8;
    }
    while let Some(digit @ b'0'..=b'9') = text.get(length) {
        if length == DIGITS_MAX {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
        length += 1;
    }
    (length > 0).then_some((number, length))
}

/// The number of eight digits; `None` if a byte is not a digit.
fn eight(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    // The upper half of a digit is 3, and stays 3 when 6 is added.
    let upper = |word: u64| word & 0xf0f0_f0f0_f0f0_f0f0;
    if (upper(word) | upper(word.wrapping_add(0x0606_0606_0606_0606)) >> 4) != 0x3333_3333_3333_3333 {
        return None;
    }
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(10 * 256 + 1) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(100 * 65_536 + 1) >> 16;
    Some((fours & 0x0000_ffff_0000_ffff).wrapping_mul(10_000 * 4_294_967_296 + 1) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Option<(u64, usize)>) {
        assert_eq!(at_start_of(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn digits_are_read_up_to_the_most_that_fit() {
        check("", None);
        check("x1", None);
        check("0", Some((0, 1)));
        check("12345678", Some((12_345_678, 8)));
        check("1234567\n", Some((1_234_567, 7)));
        check("12345678901234567890", None);
        check("9999999999999999999", Some((9_999_999_999_999_999_999, 19)));
        check("1170288000000000000\n", Some((1_170_288_000_000_000_000, 19)));
    }

    proptest! {
        #[test]
        fn reading_eight_digits_at_a_time_agrees_with_reading_one_by_one(text in "[0-9]{0,19}[ -~]{0,3}", place: prop::sample::Index, byte: u8) {
            let by_one = |text: &[u8]| {
                let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let digits = std::str::from_utf8(&text[..length]).expect("digits");
                digits.parse().ok().filter(|_| length <= DIGITS_MAX).map(|number| (number, length))
            };
            let mut text = text.into_bytes();
            prop_assert_eq!(at_start_of(&text), by_one(&text));
            if !text.is_empty() {
                let place = place.index(text.len());
                text[place] = byte;
                prop_assert_eq!(at_start_of(&text), by_one(&text));
            }
        }
    }
}
