//! Parses the header `Idempotency-Key` of a request.

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, without its quotes and escapes.
pub(super) const KEY_BYTES_MAX: usize = 255;

/// Why a header is not a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum KeyError {
    #[error("it is there {got} times")]
    Lines { got: usize },
    #[error("it has {got} bytes")]
    Length { got: usize },
    #[error("it has the byte {byte:#04x}")]
    Character { byte: u8 },
    #[error("its quotes are not closed at its end")]
    Quotes,
    #[error("a backslash in quotes stands before something else than `\"` or `\\`")]
    Escape,
}

/// Reads the key of a request, if it has one: an sf-string (RFC 8941, section 3.3.3) as the draft of the header
/// says, or the bare text. `"a"` and `a` are the same key.
///
/// # Errors
///
/// [`KeyError`] unless there is one line with 1 to [`KEY_BYTES_MAX`] bytes of visible ASCII and spaces.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Vec<u8>>, KeyError> {
    let Some(given) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let lines = headers.get_all(IDEMPOTENCY_KEY).iter().count();
    if lines > 1 {
        return Err(KeyError::Lines { got: lines });
    }
    parse(given).map(Some)
}

fn parse(given: &HeaderValue) -> Result<Vec<u8>, KeyError> {
    let text = given.as_bytes().trim_ascii();
    if let Some(byte) = text.iter().find(|byte| !matches!(byte, b' '..=b'~')) {
        return Err(KeyError::Character { byte: *byte });
    }
    let key = match text.strip_prefix(b"\"") {
        Some(rest) => unquote(rest)?,
        None => text.to_owned(),
    };
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(key),
        got => Err(KeyError::Length { got }),
    }
}

/// The text of an sf-string whose first quote is gone.
fn unquote(rest: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut key = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next().ok_or(KeyError::Quotes)? {
            b'"' if bytes.as_slice().is_empty() => return Ok(key),
            b'"' => return Err(KeyError::Quotes),
            b'\\' => match bytes.next().ok_or(KeyError::Quotes)? {
                escaped @ (b'"' | b'\\') => key.push(*escaped),
                _ => return Err(KeyError::Escape),
            },
            byte => key.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| HeaderValue::from_bytes(line).expect("a header value");
        lines.iter().map(|line| (IDEMPOTENCY_KEY, value(line))).collect()
    }

    #[track_caller]
    fn check(given: impl AsRef<[u8]>, expected: Result<&str, KeyError>) {
        let expected = expected.map(|key| Some(key.as_bytes().to_vec()));
        assert_eq!(read(&headers(&[given.as_ref()])), expected);
    }

    #[test]
    fn quoted_and_bare_keys_are_read_alike() {
        assert_eq!(read(&HeaderMap::new()), Ok(None));
        for (given, key) in [
            ("\"a\"", "a"),
            ("a", "a"),
            ("  a \t", "a"),
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\" a b \"", " a b "),
            ("a b", "a b"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b\c"#, r#"a"b\c"#),
            ("~!#$%&'()*+,-./:;<=>?@[]^_`{|}", "~!#$%&'()*+,-./:;<=>?@[]^_`{|}"),
        ] {
            check(given, Ok(key));
        }
    }

    #[test]
    fn an_invalid_key_is_refused_with_its_reason() {
        for (given, error) in [
            ("", KeyError::Length { got: 0 }),
            ("\"\"", KeyError::Length { got: 0 }),
            ("\"", KeyError::Quotes),
            ("\"a", KeyError::Quotes),
            ("\"a\\\"", KeyError::Quotes),
            ("\"a\\", KeyError::Quotes),
            ("\"a\"b", KeyError::Quotes),
            ("\"a\", \"b\"", KeyError::Quotes),
            ("\"a\";p=1", KeyError::Quotes),
            (r#""a\nb""#, KeyError::Escape),
            ("a\tb", KeyError::Character { byte: b'\t' }),
            ("schlüssel", KeyError::Character { byte: 0xc3 }),
            ("\"\u{e9}\"", KeyError::Character { byte: 0xc3 }),
        ] {
            check(given, Err(error));
        }
        check(b"a\xff", Err(KeyError::Character { byte: 0xff }));
        assert_eq!(read(&headers(&[b"a", b"a"])), Err(KeyError::Lines { got: 2 }));
    }

    #[test]
    fn a_key_has_at_most_255_bytes_without_quotes_and_escapes() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        check(&longest, Ok(&longest));
        check(format!("\"{longest}\""), Ok(&longest));
        let quotes = "\"".repeat(KEY_BYTES_MAX);
        check(format!("\"{}\"", quotes.replace('"', "\\\"")), Ok(&quotes));
        check(format!("{longest}k"), Err(KeyError::Length { got: 256 }));
        check(format!("\"{longest}k\""), Err(KeyError::Length { got: 256 }));
    }
}
