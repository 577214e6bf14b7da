//! Finds the end of a secret's value.

use std::ops::Range;

/// Longest URL that is searched for a user, in bytes; a longer one is hidden with the rest of the text.
const ADDRESS_BYTES_MAX: usize = 512;

/// Longest number, in characters.
const NUMBER_CHARS_MAX: usize = 20;

/// A value without quotation marks that rarely is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainValue {
    /// `true`, `false` or `null`.
    Word,
    /// A number with digits only.
    Whole,
    /// A number with a sign or a fraction.
    Fraction,
}

/// The kind of plain value that begins at `start`, behind a separator; `None` if it is another value, or its end is
/// uncertain.
pub(super) fn plain(text: &str, start: usize, separator: char) -> Option<PlainValue> {
    let rest = &text[start..];
    let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '-'))?;
    let (value, after) = rest.split_at(length);
    let next = after.trim_start().bytes().next()?;
    let ends = match separator {
        ':' => is_json(text) && matches!(next, b',' | b'}' | b']') && is_followed_well(after, separator),
        '=' => match after.as_bytes()[0] {
            b'\n' => true,
            b',' | b'&' => is_pair(&after[1..]),
            b' ' => is_pair(&after[1..]) || is_time(&after[1..]),
            _ => false,
        },
        _ => false,
    };
    ends.then(|| plain_kind(value, separator))?
}

fn plain_kind(value: &str, separator: char) -> Option<PlainValue> {
    if matches!(value, "true" | "false" | "null") {
        return Some(PlainValue::Word);
    }
    let number = if separator == '=' { value.strip_suffix(['i', 'u']).unwrap_or(value) } else { value };
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if number.len() > NUMBER_CHARS_MAX || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    Some(if whole.len() == number.len() { PlainValue::Whole } else { PlainValue::Fraction })
}

/// Whether the rest of a line is a time of line protocol.
fn is_time(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().trim_end();
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
}

/// The range of the value that begins at `start`, behind a separator; `None` at the end of the text.
pub(super) fn after(text: &str, start: usize, separator: char) -> Option<Range<usize>> {
    let rest = &text[start..];
    let escapes = rest.len() - rest.trim_start_matches('\\').len();
    let first = *rest.as_bytes().get(escapes)?;
    let hidden_from = if matches!(first, b'"' | b'\'') { escapes + 1 } else { 0 };
    let found = match first {
        quote @ (b'"' | b'\'') => quoted(rest, escapes, quote, separator),
        b'[' | b'{' if escapes == 0 => brackets(rest, separator).map(|end| 0..end),
        _ => bare(rest, separator, is_json(text)).map(|end| 0..end),
    };
    // If its end is uncertain, it is everything.
    let found = found.unwrap_or(hidden_from..rest.len());
    Some(start + found.start..start + found.end)
}

fn is_json(text: &str) -> bool {
    text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}')
        .starts_with(['{', '['])
}

/// The content of a string whose quotation marks have `escapes` backslashes before them.
fn quoted(rest: &str, escapes: usize, quote: u8, separator: char) -> Option<Range<usize>> {
    let start = escapes + 1;
    let mut run = 0;
    for (at, byte) in rest.bytes().enumerate().skip(start) {
        if byte == b'\\' {
            run += 1;
            continue;
        }
        let ends = if escapes == 0 { run % 2 == 0 } else { run <= escapes };
        if byte == quote && ends {
            return is_followed_well(&rest[at + 1..], separator)
                .then(|| start..at - if escapes == 0 { 0 } else { run });
        }
        run = 0;
    }
    None
}

/// The end of an array or an object.
fn brackets(rest: &str, separator: char) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(&rest[at..]).map(|length| at + length)?;
                continue;
            }
            b'[' => open.push(b']'),
            b'{' => open.push(b'}'),
            b']' | b'}' if open.pop() != Some(*byte) => return None,
            b']' | b'}' if open.is_empty() => {
                return is_followed_well(&rest[at + 1..], separator).then_some(at + 1);
            }
            b'\\' => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a string with its quotation marks; `None` if it does not end.
fn string_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !is_escaped => return Some(at + 1),
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    None
}

/// Whether `after` can follow the end of a value, rather than its middle.
fn is_followed_well(after: &str, separator: char) -> bool {
    let next = after.trim_start();
    match next.bytes().next() {
        None => true,
        Some(b'}' | b']' | b'"' | b'\\' | b'`') => true,
        Some(b',') if separator == ':' => is_member(&next[1..]),
        Some(b',' | b'&') => true,
        Some(_) => separator == '=' && next.len() < after.len() && is_pair(next),
    }
}

/// Whether a text begins like a member of an object, as far as the text goes.
fn is_member(text: &str) -> bool {
    let trimmed = text.trim_start();
    let text = trimmed.trim_start_matches('\\');
    if !text.starts_with('"') {
        return text.is_empty();
    }
    // Within a string, backslashes stand before the quotation marks.
    let end =
        if text.len() < trimmed.len() { text[1..].find('"').map(|at| at + 2) } else { string_end(text) };
    end.is_none_or(|end| {
        let after = text[end..].trim_start();
        after.is_empty() || after.starts_with(':')
    })
}

/// Whether a text begins with a name, an equals sign and a value. The padding of Base64 has no value.
fn is_pair(text: &str) -> bool {
    let mut is_escaped = false;
    let equals = text.bytes().position(|byte| {
        let is_end = !is_escaped && matches!(byte, b' ' | b',' | b'=' | b'&' | b'"' | b'\n');
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    let Some(equals) = equals.filter(|at| *at > 0 && text.as_bytes()[*at] == b'=') else { return false };
    text.as_bytes().get(equals + 1).is_some_and(|byte| !matches!(byte, b' ' | b',' | b'=' | b'&' | b'\n'))
}

/// The end of a value without quotation marks; `None` if it is uncertain.
fn bare(rest: &str, separator: char, is_json: bool) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        let next = || &rest[at + 1..];
        let closes = || matches!(next().trim_start().bytes().next(), None | Some(b',' | b'}' | b']' | b':'));
        let is_end = !is_escaped
            && match (byte, separator) {
                (b'<', '>') => true,
                (b'"', _) => is_json && closes(),
                (b'}' | b']', ':') => is_json && closes(),
                (b',', ':') => is_json && next().trim_start().starts_with('"') && is_member(next()),
                (b'\n', ':') => !is_json && !next().starts_with([' ', '\t']),
                (b'\n', '=') => true,
                (b',' | b' ' | b'&', '=') => is_pair(next()),
                (b'`', '=') => matches!(next().bytes().next(), None | Some(b',' | b';' | b' ')),
                _ => false,
            };
        if is_end {
            return Some(at);
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    None
}

/// The end of a word, in which quotation marks must be escaped.
pub(super) fn run_end(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().find(|(_, letter)| {
        let is_end = !is_escaped && (letter.is_whitespace() || matches!(letter, '"' | '`' | '<' | '>'));
        is_escaped = *letter == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// How many bytes behind `://` must be hidden.
pub(super) fn userinfo(text: &str) -> Option<usize> {
    let run = &text[..run_end(&text[..text.floor_char_boundary(ADDRESS_BYTES_MAX)])];
    if run.len() + 4 > ADDRESS_BYTES_MAX {
        return Some(text.len());
    }
    if let Some(at) = run.rfind('@') {
        return Some(at);
    }
    let authority = &run[..run.find(['/', '?', '#']).unwrap_or(run.len())];
    let host = if authority.starts_with('[') { authority.find(']').unwrap_or(0) } else { 0 };
    let (_, port) = authority[host..].split_once(':')?;
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    // The password may be cut, or contain a character that a URL does not allow.
    (!is_port || authority.len() == text.len()).then_some(text.len())
}
