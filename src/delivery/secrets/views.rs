//! Views of a text in which secrets are searched: the text itself, and the text with escapes decoded.
//!
//! A view knows the position in the text of each of its bytes, so that a secret found in it can be hidden in the text.

use std::borrow::Cow;
use std::ops::Range;

/// The characters of Base64. The last two of the URL-safe alphabet are treated as the last two here.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Longest name or number of an HTML entity, between `&` and `;`, in bytes.
const ENTITY_BYTES_MAX: usize = 8;
/// Longest text that is decoded as Base64, in characters.
const BASE64_CHARS_MAX: usize = 16 * 1024;

/// A text with some of its escapes decoded.
#[derive(Clone, Debug)]
pub(super) struct TextView<'a> {
    bytes: Cow<'a, [u8]>,
    /// The position in the text of each byte and of the end; `None`: the same position.
    from: Option<Vec<usize>>,
}

/// The kinds of escapes that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escapes {
    All,
    Percent,
    Backslash,
    Entity,
}

impl Escapes {
    fn have(self, kind: Escapes) -> bool {
        self == Escapes::All || self == kind
    }

    /// Whether a text is an escape that was cut.
    fn are_cut(self, text: &[u8]) -> bool {
        let are_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        match text {
            [b'%', digits @ ..] => self.have(Escapes::Percent) && digits.len() < 2 && are_hex(digits),
            [b'\\'] => self.have(Escapes::Backslash),
            [b'\\', b'x', digits @ ..] => {
                self.have(Escapes::Backslash) && digits.len() < 2 && are_hex(digits)
            }
            [b'\\', b'u', digits @ ..] => {
                self.have(Escapes::Backslash) && digits.len() < 4 && are_hex(digits)
            }
            [b'&', name @ ..] => {
                let is_name = || name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#');
                self.have(Escapes::Entity) && name.len() <= ENTITY_BYTES_MAX && is_name()
            }
            _ => false,
        }
    }
}

/// The views of a text: itself; with each kind of escape decoded alone; with all kinds decoded once, and twice.
pub(super) fn of(text: &str) -> Vec<TextView<'_>> {
    let plain = TextView { bytes: Cow::Borrowed(text.as_bytes()), from: None };
    let mut views: Vec<TextView<'_>> = [Escapes::Percent, Escapes::Backslash, Escapes::Entity]
        .into_iter()
        .filter_map(|escapes| plain.decoded(escapes))
        .collect();
    let once = if views.len() > 1 { plain.decoded(Escapes::All) } else { views.first().cloned() };
    let twice = once.as_ref().and_then(|once| once.decoded(Escapes::All));
    if views.len() > 1 {
        views.extend(once);
    }
    views.extend(twice);
    views.push(plain);
    views
}

impl TextView<'_> {
    /// The range of the text that a range of the view comes from.
    pub(super) fn place(&self, place: Range<usize>) -> Range<usize> {
        match &self.from {
            None => place,
            Some(from) => from[place.start]..from[place.end],
        }
    }

    /// The view for comparison: in lower case, with spaces for plus signs.
    pub(super) fn folded(&self) -> Vec<u8> {
        folded(&self.bytes)
    }

    /// The view for comparison as Base64: in one alphabet.
    pub(super) fn base64(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| base64_char(*byte)).collect()
    }

    /// The view with escapes decoded; `None` if there are none.
    fn decoded(&self, escapes: Escapes) -> Option<TextView<'static>> {
        let first = match escapes {
            Escapes::All => memchr::memchr3(b'%', b'\\', b'&', &self.bytes),
            Escapes::Percent => memchr::memchr(b'%', &self.bytes),
            Escapes::Backslash => memchr::memchr(b'\\', &self.bytes),
            Escapes::Entity => memchr::memchr(b'&', &self.bytes),
        };
        first?;
        let (mut bytes, mut from) =
            (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.bytes.len() + 1));
        let origin = |at: usize| self.from.as_ref().map_or(at, |from| from[at]);
        let mut at = 0;
        while at < self.bytes.len() {
            let rest = &self.bytes[at..];
            if escapes.are_cut(rest) {
                // A cut escape belongs to the secret before it.
                break;
            }
            let (length, value) = match rest[0] {
                b'%' if escapes.have(Escapes::Percent) => percent(rest),
                b'\\' if escapes.have(Escapes::Backslash) => backslash(rest),
                b'&' if escapes.have(Escapes::Entity) => entity(rest),
                _ => None,
            }
            .unwrap_or((1, EscapeValue::Byte(rest[0])));
            let mut buffer = [0; 4];
            let written: &[u8] = match value {
                EscapeValue::Byte(byte) => &[byte],
                EscapeValue::Char(character) => character.encode_utf8(&mut buffer).as_bytes(),
            };
            bytes.extend_from_slice(written);
            from.extend(written.iter().map(|_| origin(at)));
            at += length;
        }
        from.push(origin(self.bytes.len()));
        Some(TextView { bytes: Cow::Owned(bytes), from: Some(from) })
    }
}

/// The value of an escape.
enum EscapeValue {
    Byte(u8),
    Char(char),
}

/// `%2F`.
fn percent(text: &[u8]) -> Option<(usize, EscapeValue)> {
    let byte = hex(text.get(1..3)?)?;
    Some((3, EscapeValue::Byte(u8::try_from(byte).ok()?)))
}

/// `\n`, `\"`, `\x2f`, `\u002f`, `\ud83d\ude00`.
fn backslash(text: &[u8]) -> Option<(usize, EscapeValue)> {
    let byte = |byte| Some((2, EscapeValue::Byte(byte)));
    match *text.get(1)? {
        b'n' => byte(b'\n'),
        b'r' => byte(b'\r'),
        b't' => byte(b'\t'),
        other @ (b'"' | b'\'' | b'\\' | b'/') => byte(other),
        b'x' => Some((4, EscapeValue::Byte(u8::try_from(hex(text.get(2..4)?)?).ok()?))),
        b'u' => {
            let unit = hex(text.get(2..6)?)?;
            if let Some(character) = char::from_u32(unit) {
                return Some((6, EscapeValue::Char(character)));
            }
            let low = hex(text.get(6..12)?.strip_prefix(b"\\u")?)?;
            let code = 0x10000 + (unit.checked_sub(0xd800)? << 10) + low.checked_sub(0xdc00)?;
            Some((12, EscapeValue::Char(char::from_u32(code)?)))
        }
        _ => None,
    }
}

/// `&amp;`, `&#38;`, `&#x26;`.
fn entity(text: &[u8]) -> Option<(usize, EscapeValue)> {
    let end = 1 + text.iter().skip(1).take(ENTITY_BYTES_MAX + 1).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[1..end]).ok()?;
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "sol" => '/',
        "plus" => '+',
        "equals" => '=',
        "colon" => ':',
        _ => match name.strip_prefix('#')?.strip_prefix(['x', 'X']) {
            Some(digits) => number(digits, 16)?,
            None => number(&name[1..], 10)?,
        },
    };
    Some((end + 1, EscapeValue::Char(character)))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// A text for comparison: in lower case, with spaces for plus signs.
pub(super) fn folded(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if *byte == b'+' { b' ' } else { byte.to_ascii_lowercase() }).collect()
}

fn base64_char(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

/// The part of a text's Base64 that does not depend on the text around it, for each of the three offsets in a group.
pub(super) fn base64_parts(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = [0, 1, 2].map(|before| {
        let bits: Vec<u8> =
            text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
        // The bits before the first character that belongs to the text alone.
        let skipped = (6 - before * 8 % 6) % 6;
        let sextet = |bits: &[u8]| bits.iter().fold(0_usize, |sextet, bit| sextet << 1 | usize::from(*bit));
        let chars =
            bits.get(skipped..).unwrap_or_default().chunks_exact(6).map(|bits| ALPHABET[sextet(bits)]);
        chars.collect::<Vec<u8>>()
    });
    parts.into_iter()
}

/// The whole run of Base64 characters around a place in it.
pub(super) fn base64_run(text: &[u8], place: Range<usize>) -> Range<usize> {
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let before = text[..place.start].iter().rev().take_while(|byte| is_inside(byte)).count();
    let after = text[place.end..].iter().take_while(|byte| is_inside(byte) || **byte == b'=').count();
    place.start - before..place.end + after
}

/// Decodes Base64; `None` if the result is not printable text.
pub(super) fn base64_decoded(text: &str) -> Option<String> {
    let chars = text.trim_end_matches('=').as_bytes();
    if chars.len() > BASE64_CHARS_MAX {
        return None;
    }
    let value = |byte: &u8| ALPHABET.iter().position(|known| *known == base64_char(*byte));
    let sextets: Vec<usize> = chars.iter().map(value).collect::<Option<_>>()?;
    let bits: Vec<usize> =
        sextets.iter().flat_map(|sextet| (0..6).rev().map(move |bit| sextet >> bit & 1)).collect();
    let byte = |bits: &[usize]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit == 1));
    let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
    let decoded = String::from_utf8(bytes).ok()?;
    (!decoded.chars().any(char::is_control)).then_some(decoded)
}
