//! What clients sent, made harmless for whoever looks at it: a terminal, a page, a log.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Most of what was sent that a sample shows, in bytes.
pub const SAMPLE_BYTES_MAX: usize = 200;
/// What stands in a sample in the place of a secret.
const HIDDEN: &str = "***";
/// Names whose values are not shown, in lower case, whatever stands before them.
const SECRET_NAMES: &[&str] =
    &["password", "passwd", "passkey", "secret", "token", "authorization", "api_key", "api-key", "apikey"];

/// How `bytes` begin, as text: what is not UTF-8 is replaced, control characters are written out, and the values of names
/// that speak of secrets are hidden.
pub fn sample(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SAMPLE_BYTES_MAX)];
    // A character that the cut goes through is left out.
    let whole = match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() && cut.len() < bytes.len() => &cut[..error.valid_up_to()],
        _ => cut,
    };
    harmless(&without_secrets(&String::from_utf8_lossy(whole)))
}

/// Writes control characters, and those that change the direction of a text, as escapes.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => out.extend(character.escape_default()),
            _ if is_harmful(character) => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out
}

/// Control characters of both kinds (C0, C1), the separators of lines and paragraphs, and what turns a text around or
/// hides in it (Unicode Standard Annex 9, Trojan Source).
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Hides what follows a name that speaks of a secret.
fn without_secrets(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, name)) = next_name(&lower, at) {
        at = start + name.len();
        let Some(value) = value_after(&text[at..]) else { continue };
        out.push_str(&text[copied..at + value.start]);
        out.push_str(HIDDEN);
        at += value.end;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn next_name<'a>(lower: &str, from: usize) -> Option<(usize, &'a str)> {
    let found = SECRET_NAMES.iter().filter_map(|name| Some((from + lower[from..].find(name)?, *name)));
    found.min()
}

/// Where the value stands in what follows its name: `": "value"`, `=value`, `: value`.
fn value_after(rest: &str) -> Option<std::ops::Range<usize>> {
    let gap = rest.find(|character: char| !matches!(character, '"' | '\'' | '\\' | ' ' | '\t'))?;
    let separator = rest[gap..].chars().next().filter(|character| matches!(character, ':' | '='))?;
    let after = gap + separator.len_utf8();
    let start = after + rest[after..].find(|character: char| !matches!(character, ' ' | '\t'))?;
    let value = &rest[start..];
    let (start, length) = match value.strip_prefix(['"', '\'']) {
        Some(quoted) => (start + 1, quoted.find(['"', '\'']).unwrap_or(quoted.len())),
        None => {
            let is_end = |character| match character {
                ',' | '&' | '}' | '\n' | '\r' => true,
                // In line protocol a space ends the tags; in a header it is part of the value.
                ' ' => separator == '=',
                _ => false,
            };
            (start, value.find(is_end).unwrap_or(value.len()))
        }
    };
    (length > 0).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sample_is_how_it_begins_and_harmless() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(sample(bytes), expected);
        check(b"{\"device\":\"d\"}", "{\"device\":\"d\"}");
        check("grün\u{1b}[31m\u{9b}\u{202e}\n\0".as_bytes(), "grün\\u{1b}[31m\\u{9b}\\u{202e}\\n\\u{0}");
        check(b"\xff\xfed", "\u{fffd}\u{fffd}d");
        check("ä".repeat(500).as_bytes(), &"ä".repeat(100));
        // The cut goes through a character.
        check(format!("x{}", "ä".repeat(500)).as_bytes(), &format!("x{}", "ä".repeat(99)));
        check(b"", "");
    }

    #[test]
    fn the_values_of_names_that_speak_of_secrets_are_hidden() {
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
