//! Makes text from clients harmless for terminals, pages and logs.

use std::fmt::Write as _;

use forebay_reading::text::is_obeyed;

use super::masker::without_secrets;

/// Longest sample, in bytes of the body.
pub const SAMPLE_BYTES_MAX: usize = 200;
/// Most characters of a text that are searched for secrets.
const READ_CHARS_MAX: usize = 2000;

/// The beginning of `bytes` as text: invalid UTF-8 is replaced, control characters are escaped, and secrets are hidden.
pub fn sample(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SAMPLE_BYTES_MAX)];
    // A character that the cut splits is left out.
    let whole = match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() && cut.len() < bytes.len() => &cut[..error.valid_up_to()],
        _ => cut,
    };
    harmless(&without_secrets(&String::from_utf8_lossy(whole)))
}

/// The beginning of a text, at most `chars_max` characters before escaping, with secrets hidden.
pub(super) fn beginning(text: &str, chars_max: usize) -> String {
    // Secrets are hidden before the text is cut: half a secret may not be recognized.
    let read: String = text.chars().take(READ_CHARS_MAX).collect();
    harmless(&without_secrets(&read).chars().take(chars_max).collect::<String>())
}

/// Escapes control characters and invisible ones ([`is_obeyed`]).
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => out.extend(character.escape_default()),
            _ if is_obeyed(character) => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sample_is_the_beginning_of_the_bytes_with_control_characters_escaped() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(sample(bytes), expected);
        check(b"{\"device\":\"d\"}", "{\"device\":\"d\"}");
        check("grün\u{1b}[31m\u{9b}\u{202e}\n\0".as_bytes(), "grün\\u{1b}[31m\\u{9b}\\u{202e}\\n\\u{0}");
        check(b"\xff\xfed", "\u{fffd}\u{fffd}d");
        check("ä".repeat(500).as_bytes(), &"ä".repeat(100));
        // The cut splits a character.
        check(format!("x{}", "ä".repeat(500)).as_bytes(), &format!("x{}", "ä".repeat(99)));
        check(b"", "");
    }

    #[test]
    fn the_values_of_names_of_secrets_are_hidden() {
        let check = |text: &str, expected: &str| assert_eq!(sample(text.as_bytes()), expected);
        check(r#"{"device":"d","token":"abc","value":1}"#, r#"{"device":"d","token":"***","value":1}"#);
        check(r#"{"api_key" : "abc", "x":1}"#, r#"{"api_key" : "***", "x":1}"#);
        check("PASSKEY=ABC&tempf=70", "PASSKEY=***&tempf=70");
        check("Authorization: Bearer abc", "Authorization: ***");
        check(r#"{"password":123}"#, r#"{"password":***}"#);
        check(r#"{"password":"cut off in the mid"#, r#"{"password":"***"#);
        check("m,token=a value=1", "m,token=*** value=1");
        check(r#"{"sensor":"token","value":1}"#, r#"{"sensor":"token","value":1}"#);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_leave_a_control_character(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!sample(&bytes).chars().any(char::is_control));
        }

        #[test]
        fn no_text_around_a_secret_makes_it_panic(text in "(token|ü|\"|:|=| |\\\\|,|Secret){0,40}") {
            sample(text.as_bytes());
        }
    }
}
