//! The common form of a reading, read without a general parser.
//!
//! Almost every request has the same shape: flat objects of known fields, strings without escapes, plain numbers. A
//! [`Scanner`] reads that shape and nothing else, about three times as fast as serde_json. On anything else (an
//! escape, an unknown or repeated field, another type, broken JSON) it gives up without a word, and the caller reads
//! the body again with serde_json, which knows all of JSON and says what is wrong. So the scanner decides nothing:
//! whatever it accepts, serde_json accepts with the same result (`codec::json::tests::the_scanner_agrees_with_serde_json`).

use std::borrow::Cow;

use super::Rules;
use super::object::{Draft, Json};
use crate::reading::Field;
use crate::text::plain_length;

/// Most digits whose number is exact as a double, whatever they are.
const EXACT_DIGITS_MAX: usize = 15;

/// Powers of ten, all exact as doubles.
const POWERS_OF_TEN: [f64; EXACT_DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The text was not of the common form.
#[derive(Debug)]
pub(super) struct Uncommon;

/// Digits as a whole number, which means something up to [`EXACT_DIGITS_MAX`] of them.
#[derive(Debug, Default)]
struct Digits {
    number: i64,
}

/// Reads the common form from a text.
#[derive(Debug)]
pub(super) struct Scanner<'de> {
    text: &'de str,
    at: usize,
}

impl<'de> Scanner<'de> {
    pub(super) fn new(text: &'de str) -> Scanner<'de> {
        Scanner { text, at: 0 }
    }

    /// Whether only white space is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Whether `byte` comes next, after white space. It is passed if so.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.take_next(byte)
    }

    /// Reads one object into a cleared draft.
    pub(super) fn object(&mut self, draft: &mut Draft<'de>, rules: &Rules) -> Result<(), Uncommon> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let field = self.field()?;
            self.expect(b':')?;
            draft.see(field).then_some(()).ok_or(Uncommon)?;
            match field {
                Field::Tags => self.members(|name, json| draft.add_tag(name, json))?,
                Field::Values => self.members(|name, json| draft.add_value(name, json))?,
                Field::Value => draft.set_value(self.scalar()?),
                Field::Time => draft.set_time(self.scalar()?, rules),
                Field::Device | Field::Sensor | Field::Unit => draft.set_text(field, self.scalar()?),
            }
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// The name of a field, by comparing it with the few that there are.
    fn field(&mut self) -> Result<Field, Uncommon> {
        self.skip_space();
        let rest = self.bytes().get(self.at..).unwrap_or_default();
        let (field, name): (Field, &[u8]) = match rest {
            [b'"', b'd', ..] => (Field::Device, b"\"device\""),
            [b'"', b's', ..] => (Field::Sensor, b"\"sensor\""),
            [b'"', b'v', _, _, _, _, b'"', ..] => (Field::Value, b"\"value\""),
            [b'"', b'v', ..] => (Field::Values, b"\"values\""),
            [b'"', b't', b'i', ..] => (Field::Time, b"\"time\""),
            [b'"', b't', ..] => (Field::Tags, b"\"tags\""),
            [b'"', b'u', ..] => (Field::Unit, b"\"unit\""),
            _ => return Err(Uncommon),
        };
        self.at += name.len();
        if rest.starts_with(name) { Ok(field) } else { Err(Uncommon) }
    }

    fn members(&mut self, mut add: impl FnMut(Cow<'de, str>, Json<'de>)) -> Result<(), Uncommon> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            add(Cow::Borrowed(name), self.scalar()?);
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn scalar(&mut self) -> Result<Json<'de>, Uncommon> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => Ok(Json::Text(Cow::Borrowed(self.string()?))),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Boolean(true)),
            Some(b'f') => self.word("false", Json::Boolean(false)),
            _ => Err(Uncommon),
        }
    }

    fn word(&mut self, word: &str, json: Json<'de>) -> Result<Json<'de>, Uncommon> {
        let found = self.bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        if found { Ok(json) } else { Err(Uncommon) }
    }

    /// A string without escapes.
    fn string(&mut self) -> Result<&'de str, Uncommon> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += plain_length(&self.bytes()[start..]);
        let string = self.text.get(start..self.at).ok_or(Uncommon)?;
        if self.take_next(b'"') { Ok(string) } else { Err(Uncommon) }
    }

    /// A number by the grammar of RFC 8259, section 6.
    fn number(&mut self) -> Result<Json<'de>, Uncommon> {
        let start = self.at;
        let negative = self.take_next(b'-');
        let leading_zero = self.peek() == Some(b'0');
        let mut digits = Digits::default();
        let whole = self.digits(&mut digits)?;
        if leading_zero && whole > 1 {
            return Err(Uncommon);
        }
        let fraction = if self.take_next(b'.') { self.digits(&mut digits)? } else { 0 };
        let has_exponent = self.take_next(b'e') || self.take_next(b'E');
        if has_exponent {
            let _signed = self.take_next(b'-') || self.take_next(b'+');
            self.digits(&mut Digits::default())?;
        }
        // Minus zero is a double: no integer tells it from zero.
        let is_integer = fraction == 0 && !has_exponent && !(negative && leading_zero);
        if whole + fraction > EXACT_DIGITS_MAX || has_exponent || (fraction == 0 && !is_integer) {
            return self.long_number(start, is_integer);
        }
        let sign = if negative { -1 } else { 1 };
        if is_integer {
            return Ok(Json::Integer(sign * digits.number));
        }
        // Both are exact as doubles, so that the quotient is rounded once, to the nearest (Clinger, *How to Read
        // Floating Point Numbers Accurately*, 1990).
        #[expect(clippy::cast_precision_loss, reason = "at most 15 digits")]
        let magnitude = digits.number as f64 / POWERS_OF_TEN[fraction];
        Ok(Json::Double(if negative { -magnitude } else { magnitude }))
    }

    fn long_number(&self, start: usize, is_integer: bool) -> Result<Json<'de>, Uncommon> {
        let text = self.text.get(start..self.at).ok_or(Uncommon)?;
        if is_integer && let Ok(number) = text.parse() {
            return Ok(Json::Integer(number));
        }
        let number: f64 = text.parse().map_err(|_| Uncommon)?;
        if number.is_finite() { Ok(Json::Double(number)) } else { Err(Uncommon) }
    }

    /// Passes digits, at least one, and adds them to `digits`. Returns how many there were.
    fn digits(&mut self, digits: &mut Digits) -> Result<usize, Uncommon> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            digits.number = digits.number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at > start { Ok(self.at - start) } else { Err(Uncommon) }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Uncommon> {
        if self.take(byte) { Ok(()) } else { Err(Uncommon) }
    }

    fn take_next(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn bytes(&self) -> &'de [u8] {
        self.text.as_bytes()
    }
}
