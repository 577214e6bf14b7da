//! The escapes of JSON strings (RFC 8259, section 7).

/// The text with escapes replaced by the characters that they stand for, so that the scanner can read it. `None` if no
/// escape is replaced.
///
/// Replaced are characters that a string may have as they are: those beyond ASCII, which Python's `json.dumps` escapes,
/// and those that other writers escape for the sake of HTML. None of them means anything to JSON outside of strings, so
/// a text that is not JSON does not become JSON. Other escapes stay.
pub(super) fn replaced(text: &str) -> Option<String> {
    let mut at = memchr::memchr(b'\\', text.as_bytes())?;
    let mut copy = String::new();
    let mut copied = 0;
    loop {
        let next = match read(&text.as_bytes()[at..]) {
            Some((character @ ('/' | '&' | '<' | '>' | '\'' | '\u{80}'..), length)) => {
                copy.reserve(text.len() - copied);
                copy.push_str(&text[copied..at]);
                copy.push(character);
                copied = at + length;
                copied
            }
            Some((_, length)) => at + length,
            None => at + 1,
        };
        match memchr::memchr(b'\\', &text.as_bytes()[next..]) {
            Some(distance) => at = next + distance,
            None => {
                copy.push_str(&text[copied..]);
                return (copied > 0).then_some(copy);
            }
        }
    }
}

/// The places of the backslashes in strings of `body` that begin no escape of JSON, and of those that are half of a
/// surrogate pair.
pub(super) fn faulty(body: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let (mut at, mut in_string) = (0, false);
    std::iter::from_fn(move || {
        loop {
            at += if in_string {
                memchr::memchr2(b'"', b'\\', body.get(at..)?)?
            } else {
                memchr::memchr(b'"', body.get(at..)?)?
            };
            if body[at] == b'"' {
                in_string = !in_string;
                at += 1;
                continue;
            }
            let backslash = at;
            match length(&body[at..]) {
                Some(length) => at += length,
                None => {
                    at += 1;
                    return Some(backslash);
                }
            }
        }
    })
}

/// The length of the escape at the beginning of `text`; `None` if it stands for no character.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    read(text).map(|(_, length)| length)
}

/// The character that the escape at the beginning of `text` stands for, and the length of the escape.
fn read(text: &[u8]) -> Option<(char, usize)> {
    let character = match text.get(1)? {
        byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return read_code_units(text),
        _ => return None,
    };
    Some((character, 2))
}

fn read_code_units(text: &[u8]) -> Option<(char, usize)> {
    let first = code_unit(text)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = text.get(6..).filter(|rest| rest.starts_with(b"\\u")).and_then(code_unit)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)?, 12))
}

/// The four hexadecimal digits of `\u0000`.
fn code_unit(escape: &[u8]) -> Option<u32> {
    let digits = escape.get(2..6)?;
    digits.iter().try_fold(0, |number, digit| Some(number * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_of_characters_without_a_meaning_in_json_are_replaced() {
        for (text, expected) in [
            (r#""\u00b0C""#, "\"°C\""),
            (r#""a\/b\u002F\u0026\u003c\u003E\u0027""#, r#""a/b/&<>'""#),
            (r#""\ud83d\ude00\u00E9""#, "\"😀é\""),
        ] {
            assert_eq!(replaced(text).as_deref(), Some(expected));
        }
        for text in [
            "\"plain\"",
            r#""\n\"""#,
            r#""\\u00b0""#,
            r#""\u0041""#,
            r#""\u007f""#,
            r#""\ud800""#,
            r#""\q""#,
            "[\\u0031]",
            "\\",
        ] {
            assert_eq!(replaced(text), None, "{text}");
        }
        assert_eq!(replaced(r#""\ud800\u00b0\n\/""#).as_deref(), Some(r#""\ud800°\n/""#));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_text_with_its_escapes_replaced_means_the_same_or_is_no_json_either(
            text in "([\\[\\]{},:\"1a é]|\\\\[\"\\\\/bfnrtuq]|\\\\u00[0-9a-f]{2}|\\\\ud83d\\\\ude0[0-9a-f]|\\\\ud8[0-9a-f]{2}){0,9}"
        ) {
            for text in [format!("\"{text}\""), format!("[{text}]"), text] {
                if let Some(copy) = replaced(&text) {
                    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
                    prop_assert_eq!(read(&text), read(&copy), "{} {}", text, copy);
                }
            }
        }
    }
}
