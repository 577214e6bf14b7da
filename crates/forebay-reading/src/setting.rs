//! A value of a setting: its type, its bounds, and its text for people.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::quantity::{format_duration, parse_duration};

/// Most edits between an unknown key and the known one that was probably meant.
const MISSPELLING_EDITS_MAX: usize = 3;

/// A value of a setting, as a layer of the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// A string of a file.
    Text(String),
    /// A variable of the environment: text, which may stand for any type.
    Variable(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// True or false.
    Truth(bool),
    /// A list.
    List(Vec<SettingValue>),
    /// A table.
    Table(BTreeMap<String, SettingValue>),
    /// A value of a type that no setting has, by its noun: "a date".
    Other(&'static str),
}

/// A value of another type than is wanted.
#[derive(Clone, Copy, Debug)]
pub struct TypeMismatch<'a> {
    /// The wanted type, with its article: "a string".
    pub wanted: &'static str,
    /// The value.
    pub value: &'a SettingValue,
}

impl SettingValue {
    /// The value as text.
    ///
    /// # Errors
    ///
    /// The value has another type.
    pub fn text(&self) -> Result<&str, TypeMismatch<'_>> {
        match self {
            SettingValue::Text(text) | SettingValue::Variable(text) => Ok(text),
            _ => self.mismatch("a string"),
        }
    }

    /// The value as a whole number.
    ///
    /// # Errors
    ///
    /// The value has another type.
    pub fn integer(&self) -> Result<i64, TypeMismatch<'_>> {
        let wanted = "a whole number";
        match self {
            SettingValue::Integer(number) => Ok(*number),
            SettingValue::Variable(text) => text.trim().parse().or_else(|_| self.mismatch(wanted)),
            _ => self.mismatch(wanted),
        }
    }

    /// The value as a number, with or without a fraction.
    ///
    /// # Errors
    ///
    /// The value has another type.
    pub fn number(&self) -> Result<f64, TypeMismatch<'_>> {
        let wanted = "a number";
        match self {
            SettingValue::Number(number) => Ok(*number),
            #[expect(clippy::cast_precision_loss, reason = "numbers that are set are small")]
            SettingValue::Integer(number) => Ok(*number as f64),
            SettingValue::Variable(text) => text.trim().parse().or_else(|_| self.mismatch(wanted)),
            _ => self.mismatch(wanted),
        }
    }

    /// The value as true or false.
    ///
    /// # Errors
    ///
    /// The value has another type.
    pub fn truth(&self) -> Result<bool, TypeMismatch<'_>> {
        let wanted = "true or false";
        match self {
            SettingValue::Truth(truth) => Ok(*truth),
            SettingValue::Variable(text) => text.trim().parse().or_else(|_| self.mismatch(wanted)),
            _ => self.mismatch(wanted),
        }
    }

    /// The value for messages ("got …"): the noun of its type, or the text of a variable.
    pub fn noun(&self) -> String {
        let noun = match self {
            SettingValue::Text(_) => "a string",
            SettingValue::Variable(text) => return format!("`{text}`"),
            SettingValue::Integer(_) => "a whole number",
            SettingValue::Number(_) => "a number with a fraction",
            SettingValue::Truth(_) => "a boolean",
            SettingValue::List(_) => "a list",
            SettingValue::Table(_) => "a table",
            SettingValue::Other(noun) => noun,
        };
        noun.to_owned()
    }

    fn mismatch<T>(&self, wanted: &'static str) -> Result<T, TypeMismatch<'_>> {
        Err(TypeMismatch { wanted, value: self })
    }
}

impl From<TypeMismatch<'_>> for String {
    fn from(mismatch: TypeMismatch<'_>) -> String {
        format!("must be {}, got {}", mismatch.wanted, mismatch.value.noun())
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |texts: Vec<String>| texts.join(", ");
        match self {
            SettingValue::Text(text) | SettingValue::Variable(text) => formatter.write_str(text),
            SettingValue::Integer(number) => write!(formatter, "{number}"),
            // `1.0`, not `1`: the fraction shows that the setting may have one.
            SettingValue::Number(number) => write!(formatter, "{number:?}"),
            SettingValue::Truth(truth) => write!(formatter, "{truth}"),
            SettingValue::List(items) => {
                formatter.write_str(&join(items.iter().map(SettingValue::to_string).collect()))
            }
            SettingValue::Table(members) => {
                let members = members.iter().map(|(key, value)| format!("{key} = {value}"));
                formatter.write_str(&join(members.collect()))
            }
            SettingValue::Other(noun) => formatter.write_str(noun),
        }
    }
}

/// The value, if it lies within bounds.
///
/// # Errors
///
/// It does not; the message names the bounds.
pub fn within<T: PartialOrd>(
    value: T,
    allowed: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(format!("must be from {} to {}, got {}", show(allowed.start()), show(allowed.end()), show(&value)))
}

/// The duration that `text` names, if it lies within bounds.
///
/// # Errors
///
/// `text` is not a duration, or out of bounds.
pub fn duration_within(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    within(duration, allowed, |duration| format_duration(*duration))
}

/// The fault of a key that no setting has: with the known key that was probably meant, or else with `hint`.
pub fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str>, hint: &str) -> String {
    let nearest = known.map(|known| (strsim::osa_distance(key, known), known)).min();
    match nearest {
        Some((edits, known)) if edits <= MISSPELLING_EDITS_MAX => {
            format!("unknown key, did you mean `{known}`?")
        }
        _ => format!("unknown key{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_read_as_any_type_and_quoted_where_it_does_not_fit() {
        let variable = |text: &str| SettingValue::Variable(text.to_owned());
        assert_eq!((variable(" 7 ").integer().ok(), variable("0.5").number().ok()), (Some(7), Some(0.5)));
        assert_eq!((variable("true").truth().ok(), variable("x").text().ok()), (Some(true), Some("x")));
        let fault = |mismatch: TypeMismatch<'_>| String::from(mismatch);
        let many = variable("many");
        assert_eq!(many.integer().map_err(fault), Err("must be a whole number, got `many`".to_owned()));
        let text = SettingValue::Text("7".to_owned());
        assert_eq!(text.integer().map_err(fault), Err("must be a whole number, got a string".to_owned()));
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest_known_one() {
        let check = |key: &str, expected: &str| {
            let fault = unknown_key(key, ["every", "lateness"].into_iter(), "; see the manual");
            assert_eq!(fault, format!("unknown key{expected}"));
        };
        check("evry", ", did you mean `every`?");
        check("latenes", ", did you mean `lateness`?");
        check("window", "; see the manual");
    }
}
