//! The settings of one transform, as its kind reads them: typed, each key once, every fault noted.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use forebay_reading::quantity::{format_duration, parse_duration};

/// A value as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
    /// True or false.
    Truth(bool),
    /// A list.
    List(Vec<Value>),
    /// A table.
    Table(BTreeMap<String, Value>),
    /// Anything else, by its noun: "a date".
    Other(&'static str),
}

impl Value {
    fn noun(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Number(_) => "a number",
            Value::Truth(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(noun) => noun,
        }
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFault {
    /// The key, without the table it stands in: `every`, `set.value`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// The settings of one transform.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Value>,
    /// The keys that were asked for, each once, in the order in which they first were.
    known: Vec<&'static str>,
    faults: Vec<SettingFault>,
}

impl Settings {
    /// Takes a table.
    pub fn new(values: BTreeMap<String, Value>) -> Settings {
        Settings { values, ..Settings::default() }
    }

    /// Notes a fault.
    pub fn fault(&mut self, key: &str, problem: String) {
        self.faults.push(SettingFault { key: key.to_owned(), problem });
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            other => self.wrong(key, "a string", &other),
        }
    }

    /// A duration within bounds.
    pub fn duration(&mut self, key: &'static str, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.text(key)?;
        let duration = match parse_duration(&text) {
            Ok(duration) => duration,
            Err(error) => {
                self.fault(key, error.to_string());
                return None;
            }
        };
        self.within(key, duration, &allowed, |duration| format_duration(*duration))
    }

    /// A number within bounds, whole or not.
    pub fn number(&mut self, key: &'static str, allowed: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.get(key)? {
            Value::Number(number) => number,
            #[expect(clippy::cast_precision_loss, reason = "numbers that are set are small")]
            Value::Integer(number) => number as f64,
            other => return self.wrong(key, "a number", &other),
        };
        self.within(key, number, &allowed, f64::to_string)
    }

    /// A count within bounds.
    pub fn count(&mut self, key: &'static str, allowed: RangeInclusive<i64>) -> Option<usize> {
        let number = match self.get(key)? {
            Value::Integer(number) => number,
            other => return self.wrong(key, "a whole number", &other),
        };
        let number = self.within(key, number, &allowed, i64::to_string)?;
        usize::try_from(number).ok()
    }

    /// True or false.
    pub fn truth(&mut self, key: &'static str) -> Option<bool> {
        match self.get(key)? {
            Value::Truth(truth) => Some(truth),
            other => self.wrong(key, "true or false", &other),
        }
    }

    /// A list of strings.
    pub fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let Value::List(items) = self.get(key)? else {
            self.fault(key, "must be a list of strings".to_owned());
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::Text(text) => texts.push(text),
                other => {
                    self.fault(key, format!("must be a list of strings, got {} in it", other.noun()));
                    return None;
                }
            }
        }
        Some(texts)
    }

    /// A table of strings. A string of a table within it, `b` in `a`, has the key `a.b`.
    pub fn table(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let members = match self.get(key)? {
            Value::Table(members) => members,
            other => return self.wrong(key, "a table of strings", &other),
        };
        let mut texts = BTreeMap::new();
        self.flatten(key, "", members, &mut texts);
        Some(texts)
    }

    fn flatten(
        &mut self,
        key: &str,
        before: &str,
        members: BTreeMap<String, Value>,
        texts: &mut BTreeMap<String, String>,
    ) {
        for (member, value) in members {
            let member = format!("{before}{member}");
            match value {
                Value::Text(text) => {
                    if texts.insert(member.clone(), text).is_some() {
                        self.fault(&format!("{key}.{member}"), "is set twice".to_owned());
                    }
                }
                Value::Table(members) => self.flatten(key, &format!("{member}."), members, texts),
                other => {
                    let problem = format!("must be a string, got {}", other.noun());
                    self.fault(&format!("{key}.{member}"), problem);
                }
            }
        }
    }

    /// Whether a key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Notes that a key must be there, unless something is wrong with it already.
    pub fn require(&mut self, key: &str, what: &str) {
        if !self.faults.iter().any(|fault| fault.key == key) {
            self.fault(key, format!("is missing: {what}"));
        }
    }

    /// The keys that were asked for, in that order.
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Notes every key that nothing asked for, and gives all faults.
    pub fn finish(mut self) -> Vec<SettingFault> {
        let known = self.known.join(", ");
        let unknown = self.values.keys().filter(|key| !self.known.contains(&key.as_str()));
        for key in unknown.cloned().collect::<Vec<_>>() {
            let nearest = self.known.iter().map(|known| (strsim::osa_distance(&key, known), *known)).min();
            let hint = match nearest {
                Some((distance, known)) if distance <= 3 => format!("did you mean `{known}`?"),
                _ => format!("known here: {known}"),
            };
            self.fault(&key, format!("unknown key, {hint}"));
        }
        self.faults
    }

    fn get(&mut self, key: &'static str) -> Option<Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.values.get(key).cloned()
    }

    fn wrong<T>(&mut self, key: &str, what: &str, got: &Value) -> Option<T> {
        self.fault(key, format!("must be {what}, got {}", got.noun()));
        None
    }

    fn within<T: PartialOrd>(
        &mut self,
        key: &str,
        value: T,
        allowed: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if allowed.contains(&value) {
            return Some(value);
        }
        let (start, end) = (show(allowed.start()), show(allowed.end()));
        self.fault(key, format!("must be from {start} to {end}, got {}", show(&value)));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::settings;

    #[test]
    fn a_table_within_a_table_gives_its_keys_a_prefix() {
        let text = |text: &str| Value::Text(text.to_owned());
        let tags =
            Value::Table([("site".to_owned(), text("'north'")), ("n".to_owned(), Value::Integer(1))].into());
        let set = [
            ("tags".to_owned(), tags),
            ("tags.room".to_owned(), text("'attic'")),
            ("tags.site".to_owned(), text("'south'")),
        ];
        let mut settings = settings(&[("set", Value::Table(set.into()))]);
        let table = settings.table("set").expect("a table");
        assert_eq!(table.keys().collect::<Vec<_>>(), ["tags.room", "tags.site"]);
        let faults = settings.finish().into_iter().map(|fault| format!("{}: {}", fault.key, fault.problem));
        assert_eq!(
            faults.collect::<Vec<_>>(),
            ["set.tags.n: must be a string, got a whole number", "set.tags.site: is set twice"]
        );
    }

    #[test]
    fn settings_are_read_by_their_types_and_every_fault_is_told() {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut good = settings(&[
            ("a", text("10s")),
            ("b", Value::Integer(3)),
            ("c", Value::Number(0.5)),
            ("d", Value::Truth(true)),
            ("e", Value::List(vec![text("x")])),
            ("f", Value::Table([("value".to_owned(), text("1"))].into())),
        ]);
        let minute = Duration::from_secs(60);
        assert_eq!(good.duration("a", Duration::ZERO..=minute), Some(Duration::from_secs(10)));
        assert_eq!((good.count("b", 1..=5), good.number("b", 0.0..=5.0)), (Some(3), Some(3.0)));
        assert_eq!((good.number("c", 0.0..=1.0), good.truth("d")), (Some(0.5), Some(true)));
        assert_eq!(good.list("e"), Some(vec!["x".to_owned()]));
        assert_eq!(good.table("f").and_then(|table| table.get("value").cloned()), Some("1".to_owned()));
        assert_eq!((good.text("g"), good.finish()), (None, Vec::new()));

        let mut bad = settings(&[
            ("a", Value::Integer(10)),
            ("b", Value::Integer(9)),
            ("e", Value::List(vec![Value::Truth(true)])),
            ("f", Value::Table([("value".to_owned(), Value::Integer(1))].into())),
            ("evry", text("10s")),
        ]);
        assert_eq!((bad.duration("a", Duration::ZERO..=minute), bad.count("b", 1..=5)), (None, None));
        assert_eq!((bad.list("e"), bad.text("every")), (None, None));
        assert!(bad.table("f").is_some_and(|table| table.is_empty()));
        bad.require("a", "the length");
        bad.require("every", "the length of a window, such as 10s");
        let faults: Vec<_> =
            bad.finish().into_iter().map(|fault| format!("{}: {}", fault.key, fault.problem)).collect();
        assert_eq!(
            faults,
            [
                "a: must be a string, got a whole number",
                "b: must be from 1 to 5, got 9",
                "e: must be a list of strings, got true or false in it",
                "f.value: must be a string, got a whole number",
                "every: is missing: the length of a window, such as 10s",
                "evry: unknown key, did you mean `every`?",
            ]
        );
    }
}
