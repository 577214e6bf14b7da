//! Scans of text, eight bytes at a time.
//!
//! The bit tricks on whole words are from Sean Anderson's *Bit Twiddling Hacks* ("determine if a word has a byte less
//! than n", "… equal to n").

mod escaping;

pub use escaping::EscapingWriter;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Length of the prefix of `text` before the first byte that JSON must escape: a quotation mark, a backslash or a byte
/// below 0x20 (RFC 8259, section 7).
pub fn plain_length(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(word) = text.get(length..length + 8) {
        let special = special(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length + text[length..].iter().take_while(|byte| !is_special(**byte)).count()
}

/// Whether a terminal obeys a character instead of showing it, or shows misleading text because of it: the controls C0,
/// DEL and C1, the controls of the writing direction, the separators of lines and paragraphs, and invisible characters
/// (joiners, soft hyphens, marks, tags, invisible signs).
///
/// This is the one rule for all text from outside that people may see. The writer of an output decides whether it escapes
/// ([`escape`]) or replaces such characters.
pub fn is_obeyed(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns || hides(letter)
}

/// Whether a character is invisible.
fn hides(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Appends a text with every [obeyed](is_obeyed) character, except those that `passes` accepts, as `\uXXXX`, which means
/// the same character in a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub fn escape(text: &[u8], passes: impl Fn(char) -> bool, out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        let mut plain = chunk.valid();
        while let Some((at, letter)) = plain.char_indices().find(|(_, c)| is_obeyed(*c) && !passes(*c)) {
            out.extend_from_slice(&plain.as_bytes()[..at]);
            // A character beyond U+FFFF has two escapes in JSON.
            for unit in letter.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
            plain = &plain[at + letter.len_utf8()..];
        }
        out.extend_from_slice(plain.as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// A text with known or computable properties.
pub trait Text<'a>: Copy {
    /// The text itself.
    fn as_str(self) -> &'a str;

    /// Whether JSON needs to escape nothing in it.
    fn is_plain(self) -> bool;

    /// Whether it is ASCII without control characters, and JSON needs to escape nothing in it.
    fn is_plain_ascii(self) -> bool;
}

/// Without known properties: each question scans the text.
impl<'a> Text<'a> for &'a str {
    fn as_str(self) -> &'a str {
        self
    }

    fn is_plain(self) -> bool {
        is_plain(self.as_bytes())
    }

    fn is_plain_ascii(self) -> bool {
        is_plain_ascii(self.as_bytes())
    }
}

/// A text in which JSON needs to escape nothing.
///
/// **Invariant**: its properties are those that a scan would find (`a_plain_text_has_the_properties_that_a_scan_finds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainText<'a> {
    text: &'a str,
    is_ascii: bool,
}

impl<'a> PlainText<'a> {
    /// The part of `text` from the byte `start` to the first byte that JSON must escape, or to the end. `None` if no
    /// character begins at `start`.
    #[inline]
    pub fn starting_at(text: &'a str, start: usize) -> Option<PlainText<'a>> {
        let bytes = text.as_bytes();
        let (mut end, mut odd) = (start, 0);
        loop {
            let Some(word) = bytes.get(end..)?.first_chunk() else {
                return PlainText::near_the_end(text, start);
            };
            let word = u64::from_le_bytes(*word);
            let special = special(word);
            if special != 0 {
                let before = special.trailing_zeros() / 8;
                // Only bytes before the special one count.
                odd |= odd_ascii(word) & ((1 << (8 * before)) - 1);
                let text = text.get(start..end + before as usize)?;
                return Some(PlainText { text, is_ascii: odd == 0 });
            }
            odd |= odd_ascii(word);
            end += 8;
        }
    }

    /// [`PlainText::starting_at`] where less than a word is left.
    #[cold]
    fn near_the_end(text: &'a str, start: usize) -> Option<PlainText<'a>> {
        let rest = text.get(start..)?;
        let text = rest.get(..plain_length(rest.as_bytes()))?;
        Some(PlainText { text, is_ascii: is_plain_ascii(text.as_bytes()) })
    }
}

impl<'a> Text<'a> for PlainText<'a> {
    fn as_str(self) -> &'a str {
        self.text
    }

    fn is_plain(self) -> bool {
        true
    }

    fn is_plain_ascii(self) -> bool {
        self.is_ascii
    }
}

/// Whether JSON needs to escape nothing in `text`.
pub fn is_plain(text: &[u8]) -> bool {
    plain_length(text) == text.len()
}

/// Whether `text` is ASCII without control characters, and JSON needs to escape nothing in it.
pub fn is_plain_ascii(text: &[u8]) -> bool {
    let is_good = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        special(word) | odd_ascii(word) == 0
    };
    let Some(last) = text.last_chunk::<8>() else {
        let mut word = [b' '; 8];
        word[..text.len()].copy_from_slice(text);
        return is_good(word);
    };
    // The last word overlaps the one before it, so that no bytes remain.
    let (words, _) = text.as_chunks::<8>();
    words.iter().all(|word| is_good(*word)) && is_good(*last)
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Marks the first byte of a word, from the low end, that [`is_special`], and perhaps some above it.
fn special(word: u64) -> u64 {
    // Flipping the second bit moves the quotation mark (0x22) to 0x20, right above the controls.
    let to_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (to_quote | backslash) & !word & HIGHS
}

/// Marks the first byte of a word, from the low end, that is DEL (0x7f) or not ASCII, and perhaps some above it.
fn odd_ascii(word: u64) -> u64 {
    (word | word.wrapping_add(ONES)) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped_and_all_others_stay() {
        let check = |text: &[u8], expected: &str| {
            let mut escaped = Vec::new();
            escape(text, |letter| letter == '\n', &mut escaped);
            assert_eq!(String::from_utf8_lossy(&escaped), expected);
        };
        check("plain, ä, 温度, 🌡\n".as_bytes(), "plain, ä, 温度, 🌡\n");
        check("a\u{1b}[2J\u{7f}\u{9b}31m\u{85}".as_bytes(), r"a\u001b[2J\u007f\u009b31m\u0085");
        check(
            "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}".as_bytes(),
            r"\u202a\u202e\u2066\u2069\u200e\u200f\u061c",
        );
        check("a\u{ad}\u{180e}\u{feff}\u{fffb}\u{2064}".as_bytes(), r"a\u00ad\u180e\ufeff\ufffb\u2064");
        check("\u{e0041}\u{1d173}".as_bytes(), r"\udb40\udc41\ud834\udd73");
        check("\u{2028}\u{2029}\r\0".as_bytes(), r"\u2028\u2029\u000d\u0000");
        check(b"a\x9b2Jb\xff", "a\u{fffd}2Jb\u{fffd}");
        for letter in (0..=0x10_ffff).filter_map(char::from_u32) {
            let mut escaped = Vec::new();
            escape(format!("\"{letter}\"").as_bytes(), |_| false, &mut escaped);
            let escaped = String::from_utf8(escaped).expect("UTF-8");
            assert!(!escaped.chars().any(is_obeyed), "{letter:?}");
            if !matches!(letter, '"' | '\\') {
                assert_eq!(serde_json::from_str::<String>(&escaped).ok(), Some(letter.to_string()));
            }
        }
    }

    proptest! {
        #[test]
        fn scans_by_words_agree_with_scans_by_bytes(text in prop::collection::vec(any::<u8>(), 0..40), place: prop::sample::Index, byte: u8) {
            let check = |text: &[u8]| {
                let length = text.iter().take_while(|byte| !is_special(**byte)).count();
                assert_eq!(plain_length(text), length);
                assert_eq!(is_plain(text), length == text.len());
                let ascii = text.iter().all(|byte| !is_special(*byte) && *byte < 0x7f);
                assert_eq!(is_plain_ascii(text), ascii);
            };
            check(&text);
            // Nearly plain text, with one byte of any value.
            let mut plain: Vec<u8> = text.iter().map(|byte| b'a' + byte % 26).collect();
            check(&plain);
            if !plain.is_empty() {
                let place = place.index(plain.len());
                plain[place] = byte;
                check(&plain);
            }
        }

        #[test]
        fn a_plain_text_has_the_properties_that_a_scan_finds(text in "[a-z]{0,9}([a-z]|[\"\\\\\u{1}\u{7f} é€]){0,20}[a-z]{0,9}") {
            for start in 0..=text.len() {
                let Some(plain) = PlainText::starting_at(&text, start) else {
                    prop_assert!(!text.is_char_boundary(start));
                    continue;
                };
                let length = plain_length(&text.as_bytes()[start..]);
                prop_assert_eq!(plain.as_str(), &text[start..start + length]);
                prop_assert_eq!(plain.is_plain_ascii(), is_plain_ascii(plain.as_str().as_bytes()));
            }
            prop_assert_eq!(PlainText::starting_at(&text, text.len() + 1), None);
        }
    }
}
