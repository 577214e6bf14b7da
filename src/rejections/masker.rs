//! The masker: hides secrets in all text from clients before a person sees it.
//!
//! The format of the text is unknown, because it was rejected, and it may be cut. So the masker searches for names of
//! secrets anywhere and hides the values behind them. It understands JSON, line protocol, forms, headers, XML and the
//! error messages of this program. It also hides credentials behind the name of a scheme (`Bearer …`) and the user and
//! password of a URL. If the end of a value is uncertain, it hides the rest of the text. It reads a text a fixed number
//! of times.

mod names;
mod values;

use std::borrow::Cow;
use std::ops::Range;

use forebay_reading::text::is_obeyed;

/// The replacement for a secret.
pub(super) const HIDDEN: &str = "***";
/// Names of authentication schemes, which stand before credentials, in lower case.
const SCHEMES: &[&str] = &["basic", "bearer", "token", "apikey", "digest", "negotiate"];
/// Words after which such a name is an ordinary word and not a scheme, in lower case.
const NO_CREDENTIALS: &[&str] = &[
    "and",
    "at",
    "auth",
    "authentication",
    "authorization",
    "bucket",
    "expected",
    "for",
    "found",
    "from",
    "has",
    "in",
    "is",
    "mode",
    "of",
    "on",
    "or",
    "plan",
    "rate",
    "sensor",
    "sensors",
    "the",
    "to",
    "token",
    "was",
    "with",
];
/// Longest number behind such a name that is a count and not a PIN: a PIN has at least four digits.
const COUNT_DIGITS_MAX: usize = 3;
/// Texts behind a name in this program's messages that are about the name and not its value.
const NO_VALUES: &[&str] = &["there twice", "missing", "no JSON", "no number of JSON", "too many seconds"];
/// Text behind a name and a colon in a message of this program that has no value.
const LIMIT_OF_A_VALUE: &str = " `value` must be ";

/// The beginning of a key in PEM (RFC 7468), which has many lines and can stand under any name.
const PEM: &str = "-----BEGIN";

/// Hides everything that looks like a secret.
pub(super) fn without_secrets(text: &str) -> Cow<'_, str> {
    let Some(at) = text.find(PEM) else { return without_values(text) };
    let mut shown = without_values(&text[..at]).into_owned();
    if !shown.ends_with(HIDDEN) {
        shown.push_str(HIDDEN);
    }
    Cow::Owned(shown)
}

/// Hides the values behind names of secrets, and credentials.
fn without_values(text: &str) -> Cow<'_, str> {
    let hidden = Masker::new(text).hidden();
    if hidden.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for range in hidden {
        out.push_str(&text[copied..range.start]);
        out.push_str(HIDDEN);
        copied = range.end;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// A decoded character and its place: escapes of JSON, line protocol and URLs are undone.
#[derive(Clone, Copy, Debug)]
struct Unit {
    start: usize,
    end: usize,
    letter: char,
}

impl Unit {
    /// The unit that begins at `start`.
    fn at(text: &str, start: usize) -> Option<Unit> {
        let rest = &text[start..];
        let first = rest.chars().next()?;
        let unit = |length: usize, letter| Some(Unit { start, end: start + length, letter });
        let hexadecimal = |from: usize, to: usize| {
            let digits = rest.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u32::from_str_radix(digits, 16).ok()
        };
        match first {
            '\\' => {
                let run = rest.len() - rest.trim_start_matches('\\').len();
                match rest.as_bytes().get(run) {
                    Some(b'u') if let Some(code) = hexadecimal(run + 1, run + 5) => {
                        unit(run + 5, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
                    }
                    Some(b'/') => unit(run + 1, '/'),
                    // Line protocol escapes the characters that would end a name.
                    Some(b' ' | b',' | b'=') if run == 1 => unit(2, '_'),
                    _ => unit(run, '\\'),
                }
            }
            '%' => match hexadecimal(1, 3).and_then(char::from_u32).filter(char::is_ascii) {
                Some(letter) => unit(3, letter),
                None => unit(1, '%'),
            },
            letter => unit(letter.len_utf8(), letter),
        }
    }

    fn is_of_word(self) -> bool {
        self.letter.is_alphanumeric() || matches!(self.letter, '_' | '-' | '.')
    }

    fn is_quote(self) -> bool {
        matches!(self.letter, '"' | '\'' | '`')
    }
}

/// The search for secrets in one text.
struct Masker<'a> {
    text: &'a str,
    units: Vec<Unit>,
}

impl<'a> Masker<'a> {
    fn new(text: &'a str) -> Masker<'a> {
        let mut units = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(unit) = Unit::at(text, at) {
            at = unit.end;
            // Invisible characters do not split a name.
            if unit.letter.is_whitespace() || !is_obeyed(unit.letter) {
                units.push(unit);
            }
        }
        Masker { text, units }
    }

    /// The ranges to hide, in order.
    fn hidden(&self) -> Vec<Range<usize>> {
        let mut hidden = Vec::new();
        let (mut at, mut phrase) = (0, 0);
        while let Some(unit) = self.units.get(at) {
            let end = if unit.is_of_word() { self.word_end(at) } else { at + 1 };
            let found = match unit.letter {
                ':' => self.userinfo(at),
                _ if unit.is_of_word() => self.after_word(phrase, at..end),
                _ => None,
            };
            at = end;
            if let Some(range) = found {
                at += self.units[at..].partition_point(|unit| unit.start < range.end);
                hidden.extend((!range.is_empty()).then_some(range));
                phrase = at;
            } else if !unit.is_of_word() && unit.letter != ' ' {
                phrase = at;
            }
        }
        hidden
    }

    fn letter(&self, at: usize) -> Option<char> {
        self.units.get(at).map(|unit| unit.letter)
    }

    fn letters(&self, units: Range<usize>) -> String {
        self.units[units].iter().map(|unit| unit.letter).collect()
    }

    fn word_end(&self, at: usize) -> usize {
        let length = self.units[at..].iter().take_while(|unit| unit.is_of_word()).count();
        at + length
    }

    /// The range to hide because of a word; `phrase` is the beginning of the phrase that the word ends.
    fn after_word(&self, phrase: usize, word: Range<usize>) -> Option<Range<usize>> {
        let gap = self.gap_end(word.end);
        match self.letter(gap) {
            Some(':') if self.is_of_a_limit(phrase, gap) => None,
            Some(separator @ (':' | '=' | '>')) if self.is_secret(phrase, &word) => {
                let start = self.value_start(gap);
                let plain = values::plain(self.text, start, separator);
                match plain.is_some_and(|plain| names::is_plain(&self.name(phrase, &word), plain)) {
                    true => None,
                    false => values::after(self.text, start, separator),
                }
            }
            _ => self.in_a_sentence(phrase, &word).or_else(|| self.after_scheme(&word)),
        }
    }

    /// The end of the quotation marks and blanks between a name and its separator.
    fn gap_end(&self, mut at: usize) -> usize {
        while let Some(unit) = self.units.get(at) {
            match unit.letter {
                '\\' if matches!(self.letter(at + 1), Some('n' | 'r' | 't')) => at += 2,
                '\\' | ']' | ')' => at += 1,
                letter if unit.is_quote() || letter.is_whitespace() => at += 1,
                _ => break,
            }
        }
        at
    }

    /// The start of the value in the text, behind its separator.
    fn value_start(&self, separator: usize) -> usize {
        let is_between = |unit: &&Unit| unit.letter.is_whitespace() || matches!(unit.letter, ':' | '=' | '>');
        let length = self.units[separator..].iter().take_while(is_between).count();
        self.units.get(separator + length).map_or(self.text.len(), |unit| unit.start)
    }

    /// Whether the `:` at `colon` belongs to this program's message about the longest value of a field.
    fn is_of_a_limit(&self, phrase: usize, colon: usize) -> bool {
        let [name, colon] = [phrase, colon].map(|at| self.units[at].start);
        self.text[..name].ends_with("the field `") && self.text[colon + 1..].starts_with(LIMIT_OF_A_VALUE)
    }

    /// The name: the word if it is a name of a secret by itself, or else the whole phrase.
    fn name(&self, phrase: usize, word: &Range<usize>) -> String {
        let name = self.letters(word.clone());
        if names::is_secret(&name) { name } else { self.letters(phrase..word.end) }
    }

    fn is_secret(&self, phrase: usize, word: &Range<usize>) -> bool {
        let name = self.letters(word.clone());
        let before = word.start.checked_sub(1).and_then(|at| self.letter(at));
        let is_quoted = self.units.get(word.end).is_some_and(|unit| unit.is_quote() || unit.letter == '\\');
        // The `n` of an escaped line feed does not belong to the name.
        let is_escape = before == Some('\\') && name.starts_with(['n', 'r', 't', 'b', 'f']);
        names::is_secret(&name)
            || (is_escape && names::is_secret(&name[1..]))
            || (is_quoted && names::is_secret(&self.letters(phrase..word.end)))
            || (matches!(before, None | Some('?' | '&')) && names::is_secret_in_query(&name))
    }

    /// The value in ``the field `password` is `…` ``: up to its closing quotation mark, or to the end of the text.
    fn in_a_sentence(&self, phrase: usize, word: &Range<usize>) -> Option<Range<usize>> {
        const IS: &str = "` is ";
        let after = self.units.get(word.end)?.start;
        if !self.text[after..].starts_with(IS) {
            return None;
        }
        let name = self.letters(phrase..word.end);
        let is_parameter = self.text[..self.units[phrase].start].ends_with("parameter `");
        if !(names::is_secret(&name) || is_parameter && names::is_secret_in_query(&name)) {
            return None;
        }
        let start = after + IS.len();
        let value = &self.text[start..];
        if NO_VALUES.iter().any(|words| value.starts_with(words)) {
            return None;
        }
        let start = start + usize::from(value.starts_with('`'));
        let rest = &self.text[start..];
        let end = ["`; ", "`, "].iter().filter_map(|end| rest.find(end)).min();
        let end = end.or_else(|| rest.ends_with('`').then(|| rest.len() - 1));
        Some(start..start + end.unwrap_or(rest.len()))
    }

    /// The credentials behind the name of their scheme.
    fn after_scheme(&self, word: &Range<usize>) -> Option<Range<usize>> {
        let scheme = self.letters(word.clone()).to_ascii_lowercase();
        let is_gap = |unit: &&Unit| unit.letter.is_whitespace() || unit.letter == '+';
        let gap = self.units[word.end..].iter().take_while(is_gap).count();
        if gap == 0 || !SCHEMES.contains(&scheme.as_str()) {
            return None;
        }
        let start = self.units.get(word.end + gap)?.start;
        let end = start + values::run_end(&self.text[start..]);
        (!is_no_credential(&self.text[start..end])).then_some(start..end)
    }

    /// The user and password in a URL whose `:` is at `colon`.
    fn userinfo(&self, colon: usize) -> Option<Range<usize>> {
        if (self.letter(colon + 1), self.letter(colon + 2)) != (Some('/'), Some('/')) {
            return None;
        }
        let start = self.units[colon + 2].end;
        values::userinfo(&self.text[start..]).map(|end| start..start + end)
    }
}

/// Whether the text behind a scheme's name is an ordinary word or a count.
fn is_no_credential(run: &str) -> bool {
    let word = run.trim_end_matches(['.', ',', ';', ':', '?', '!']);
    let is_count = word.len() <= COUNT_DIGITS_MAX && word.bytes().all(|byte| byte.is_ascii_digit());
    (is_count && !word.is_empty()) || NO_CREDENTIALS.contains(&word)
}

#[cfg(test)]
mod tests;
