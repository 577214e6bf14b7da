//! Looking through text eight bytes at a time.
//!
//! The tests on whole words are those of Sean Anderson's *Bit Twiddling Hacks* ("determine if a word has a byte less
//! than n", "… equal to n").

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Length of the beginning of `text` that JSON needs not escape: up to the first quotation mark, backslash or byte
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
    // The last word overlaps the one before it, so that no bytes are left over.
    let (words, _) = text.as_chunks::<8>();
    words.iter().all(|word| is_good(*word)) && is_good(*last)
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Marks the first byte of a word, from the low end, that [`is_special`], and perhaps some above it.
fn special(word: u64) -> u64 {
    // With its second bit turned, the quotation mark (0x22) comes to lie right above what is below 0x20.
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

    proptest! {
        #[test]
        fn words_agree_with_bytes(text in prop::collection::vec(any::<u8>(), 0..40), place: prop::sample::Index, byte: u8) {
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
    }
}
