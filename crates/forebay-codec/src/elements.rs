//! Arrays with elements that are not JSON, while brackets, braces, commas and quotes still show where each element ends.
//!
//! The body is walked once, token by token, without recursion. A copy of the same length is made in which every fault
//! within an element is replaced by harmless bytes, and a parser finds each element at its place:
//!
//! | fault | in the copy |
//! |---|---|
//! | an invalid escape, a raw control character in a string | a question mark |
//! | a word or number that is not JSON (`NaN`, `01`) | ones |
//! | an array or object that is nested too deeply | a one and spaces |
//! | an element with broken syntax (`{"a":}`, `{a:1}`) | an empty one |
//!
//! There is no copy where the structure itself is in doubt: a bracket is missing or of the wrong kind, a string is not closed
//! or follows another value without a comma, or elements have no comma between them.

use serde::de::IgnoredAny;

use crate::escape;
use crate::parse::DEPTH_BEYOND;
use crate::tokens::is_of_word;

/// Replaces a byte of a string in the copy.
pub(super) const OF_STRING: u8 = b'?';
/// Replaces a byte of a word in the copy, and the first byte of a value that is nested too deeply.
pub(super) const OF_VALUE: u8 = b'1';
/// Replaces a byte of an element with broken syntax in the copy.
pub(super) const OF_ELEMENT: u8 = b' ';

/// The copy of an array with the faults within its elements replaced; `None` if the structure is broken, or if no element is
/// JSON.
pub(super) fn mended(body: &str) -> Option<Vec<u8>> {
    ArrayWalk::begin(body)?.run()
}

/// The token before the current place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Open,
    Comma,
    Colon,
    /// The name of a member.
    Name,
    /// A word or number.
    Word,
    /// A string, array or object as a value.
    Value,
}

struct ArrayWalk<'b> {
    body: &'b str,
    copy: Vec<u8>,
    at: usize,
    /// The brackets and braces that are open.
    open: Vec<u8>,
    last: Last,
    /// Start of the array or object that is nested too deeply.
    deep_from: usize,
    /// Start of the element, if it is an array or an object.
    element_from: usize,
    /// Whether the element has a fault.
    is_faulty: bool,
    /// Whether its syntax is broken.
    is_misshapen: bool,
    /// Whether there was an element without a fault.
    has_json: bool,
}

impl<'b> ArrayWalk<'b> {
    fn begin(body: &'b str) -> Option<ArrayWalk<'b>> {
        let at = body.len() - body.trim_ascii_start().len();
        (body.as_bytes().get(at) == Some(&b'[')).then(|| ArrayWalk {
            body,
            copy: body.as_bytes().to_vec(),
            at: at + 1,
            open: vec![b'['],
            last: Last::Open,
            deep_from: 0,
            element_from: 0,
            is_faulty: false,
            is_misshapen: false,
            has_json: false,
        })
    }

    /// Walks to the end. `None` on the way means that the structure is broken.
    fn run(mut self) -> Option<Vec<u8>> {
        while !self.open.is_empty() {
            match *self.body.as_bytes().get(self.at)? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'"' => self.string()?,
                byte @ (b'[' | b'{') => self.begin_container(byte)?,
                byte @ (b']' | b'}') => self.end_container(byte)?,
                b',' => self.comma()?,
                b':' => self.colon()?,
                _ => self.word()?,
            }
        }
        let is_at_end = !self.body.as_bytes()[self.at..].iter().any(|byte| !b" \t\r\n".contains(byte));
        (is_at_end && self.has_json).then_some(self.copy)
    }

    fn is_in_object(&self) -> bool {
        self.open.last() == Some(&b'{')
    }

    /// Whether the name of a member comes next.
    fn wants_name(&self) -> bool {
        self.is_in_object() && matches!(self.last, Last::Open | Last::Comma)
    }

    /// Notes broken syntax: of the element, or, between elements, of the whole structure.
    fn misshape(&mut self) -> Option<()> {
        self.is_misshapen = true;
        self.is_faulty = true;
        (self.open.len() > 1).then_some(())
    }

    fn string(&mut self) -> Option<()> {
        self.last = match self.last {
            Last::Name | Last::Word | Last::Value => return None,
            _ if self.wants_name() => Last::Name,
            _ => Last::Value,
        };
        self.at += 1;
        loop {
            let rest = &self.body.as_bytes()[self.at..];
            let step = match *rest.first()? {
                b'"' => break,
                b'\\' => escape::length(rest),
                byte => (byte >= b' ').then_some(1),
            };
            if step.is_none() {
                self.copy[self.at] = OF_STRING;
                self.is_faulty = true;
            }
            self.at += step.unwrap_or(1);
        }
        self.at += 1;
        Some(())
    }

    fn word(&mut self) -> Option<()> {
        let start = self.at;
        let rest = &self.body[start..];
        let word = &rest[..rest.bytes().position(|byte| !is_of_word(byte)).unwrap_or(rest.len())];
        self.at += word.len();
        match self.last {
            Last::Name | Last::Value => return None,
            Last::Word => return self.misshape(),
            _ if self.wants_name() => {
                self.last = Last::Name;
                return self.misshape();
            }
            _ => self.last = Last::Word,
        }
        if serde_json::from_str::<IgnoredAny>(word).is_err() {
            self.copy[start..self.at].fill(OF_VALUE);
            self.is_faulty = true;
        }
        Some(())
    }

    fn begin_container(&mut self, byte: u8) -> Option<()> {
        if matches!(self.last, Last::Name | Last::Word | Last::Value) || self.wants_name() {
            return None;
        }
        if self.open.len() == 1 {
            self.element_from = self.at;
        }
        self.open.push(byte);
        if self.open.len() == DEPTH_BEYOND {
            self.deep_from = self.at;
            self.is_faulty = true;
        }
        self.last = Last::Open;
        self.at += 1;
        Some(())
    }

    fn end_container(&mut self, byte: u8) -> Option<()> {
        if self.is_in_object() != (byte == b'}') {
            return None;
        }
        if matches!(self.last, Last::Comma | Last::Colon | Last::Name) {
            self.misshape()?;
        }
        if self.open.len() == DEPTH_BEYOND {
            self.copy[self.deep_from] = OF_VALUE;
            self.blank(self.deep_from + 1, self.at + 1);
        }
        self.open.pop();
        match self.open.len() {
            0 => self.end_element(),
            1 if self.is_misshapen => self.blank(self.element_from + 1, self.at),
            _ => {}
        }
        self.last = Last::Value;
        self.at += 1;
        Some(())
    }

    fn comma(&mut self) -> Option<()> {
        if !matches!(self.last, Last::Word | Last::Value) {
            self.misshape()?;
        }
        if self.open.len() == 1 {
            self.end_element();
        }
        self.last = Last::Comma;
        self.at += 1;
        Some(())
    }

    fn colon(&mut self) -> Option<()> {
        if !(self.is_in_object() && self.last == Last::Name) {
            self.misshape()?;
        }
        self.last = Last::Colon;
        self.at += 1;
        Some(())
    }

    fn end_element(&mut self) {
        self.has_json |= !self.is_faulty;
        self.is_faulty = false;
        self.is_misshapen = false;
    }

    /// Replaces a range by white space and keeps its line feeds.
    fn blank(&mut self, from: usize, to: usize) {
        self.copy[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = OF_ELEMENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::fragment;
    use proptest::prelude::*;

    fn mend(body: &str) -> Option<String> {
        mended(body).map(|copy| String::from_utf8(copy).expect("UTF-8"))
    }

    #[test]
    fn a_fault_within_an_element_is_replaced_by_as_many_bytes() {
        for (element, copy) in [
            ("NaN", "111"),
            (r#"{"v":-Infinity,"w":01}"#, r#"{"v":111111111,"w":11}"#),
            ("[True,None,undefined,é]", "[1111,1111,111111111,11]"),
            ("[.5,+1,0x10,1.,1e,-]", "[11,11,1111,11,11,1]"),
            ("[\"a\tb\",\"\u{1}\\q\"]", "[\"a?b\",\"??q\"]"),
            (r#"{"a":}"#, "{    }"),
            (r#"{"a":1,}"#, "{      }"),
            ("{a:\n1}", "{  \n }"),
            ("[1 2,[,]]", "[       ]"),
            (r#"{"a"}"#, "{   }"),
        ] {
            assert_eq!(mend(&format!(" [1, {element} ,2] ")), Some(format!(" [1, {copy} ,2] ")), "{element}");
            // A body without one element of JSON is not JSON.
            assert_eq!(mend(&format!("[{element}]")), None, "{element}");
        }
        let deep = |depth: usize| format!("[1,{}{}]", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(mend(&deep(126)), Some(deep(126)));
        let copy = format!("[1,{}1     {}]", "[".repeat(126), "]".repeat(126));
        assert_eq!(mend(&deep(129)), Some(copy));
    }

    #[test]
    fn a_structure_that_leaves_the_end_of_an_element_in_doubt_is_broken() {
        for body in [
            "",
            "{}",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1,,2]",
            "[1 2]",
            "[1 NaN]",
            "[1:2]",
            "[1] 2",
            "[1]]",
            "[1,{]",
            "[1,[}]",
            "[1,{} {}]",
            "[1,{}NaN]",
            r#"[1,{"a":"x},{"a":"y"}]"#,
            r#"[1,{"a":"x},{"a":"y"},{"b":"z}]"#,
            r#"[1,{"a":1 "b":2}]"#,
            r#"[1,{"a":"b" c}]"#,
            r#"[1,{"a":1,{"b":2}}]"#,
            r#"[1,"a"#,
            "[1,\"\\\"]",
        ] {
            assert_eq!(mend(body), None, "{body}");
        }
        assert_eq!(mend(&"[".repeat(100_000)), None);
        assert_eq!(mend(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_copy_is_json_of_the_same_length_with_the_same_elements(
            elements in prop::collection::vec(
                prop_oneof![fragment(), r#"([\[\]{}",:\\ 01\nmé.-]|"a":|NaN|null){0,10}"#, Just("{}".to_owned())],
                1..5,
            )
        ) {
            let body = format!("[{}]", elements.join(","));
            if let Some(copy) = mend(&body) {
                let parts: Vec<&serde_json::value::RawValue> = serde_json::from_str(&copy).expect("JSON");
                prop_assert_eq!(copy.len(), body.len());
                // An element that is JSON stays unchanged.
                for part in parts {
                    let start = part.get().as_ptr().addr() - copy.as_ptr().addr();
                    let sent = &body[start..start + part.get().len()];
                    let is_json = serde_json::from_str::<serde_json::Value>(sent).is_ok();
                    prop_assert!(!is_json || sent == part.get(), "{} {}", body, copy);
                }
            }
        }
    }
}
