//! The settings of one transform, as its kind reads them: typed, and with every fault recorded.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use forebay_reading::setting::SettingValue;
use forebay_reading::setting::{TypeMismatch, duration_within, unknown_key, within};

/// A fault of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingFault {
    /// The key within the transform's table: `every`, `set.value`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// The settings of one transform.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, SettingValue>,
    /// The keys that were read, each once, in the order of their first reads.
    known: Vec<&'static str>,
    faults: Vec<SettingFault>,
}

impl Settings {
    /// Takes the transform's table.
    pub fn new(values: BTreeMap<String, SettingValue>) -> Settings {
        Settings { values, ..Settings::default() }
    }

    /// Records a fault.
    pub fn fault(&mut self, key: &str, problem: String) {
        self.faults.push(SettingFault { key: key.to_owned(), problem });
    }

    /// Reads a string.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.get(key, |value| Ok(value.text().map_err(mismatch_text)?.to_owned()))
    }

    /// Reads a duration within bounds.
    pub fn duration(&mut self, key: &'static str, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        self.get(key, |value| duration_within(value.text().map_err(mismatch_text)?, &allowed))
    }

    /// Reads a number within bounds, whole or not.
    pub fn number(&mut self, key: &'static str, allowed: RangeInclusive<f64>) -> Option<f64> {
        self.get(key, |value| within(value.number().map_err(mismatch_text)?, &allowed, f64::to_string))
    }

    /// Reads a count within bounds.
    pub fn count(&mut self, key: &'static str, allowed: RangeInclusive<i64>) -> Option<usize> {
        let number =
            self.get(key, |value| within(value.integer().map_err(mismatch_text)?, &allowed, i64::to_string))?;
        usize::try_from(number).ok()
    }

    /// Reads true or false.
    pub fn truth(&mut self, key: &'static str) -> Option<bool> {
        self.get(key, |value| value.truth().map_err(mismatch_text))
    }

    /// Reads a list of strings.
    pub fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let wanted = "must be a list of strings";
        let text = |item: &SettingValue| match item {
            SettingValue::Text(text) => Ok(text.clone()),
            other => Err(format!("{wanted}, got {} in it", noun(other))),
        };
        self.get(key, |value| match value {
            SettingValue::List(items) => items.iter().map(text).collect(),
            _ => Err(wanted.to_owned()),
        })
    }

    /// Reads a table of strings. A string of a table within it, `b` in `a`, has the key `a.b`.
    pub fn table(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let members = self.get(key, |value| match value {
            SettingValue::Table(members) => Ok(members.clone()),
            _ => Err(mismatch_text(TypeMismatch { wanted: "a table of strings", value })),
        })?;
        let mut texts = BTreeMap::new();
        self.flatten(key, "", members, &mut texts);
        Some(texts)
    }

    fn flatten(
        &mut self,
        key: &str,
        before: &str,
        members: BTreeMap<String, SettingValue>,
        texts: &mut BTreeMap<String, String>,
    ) {
        for (member, value) in members {
            let member = format!("{before}{member}");
            match value {
                SettingValue::Text(text) => {
                    if texts.insert(member.clone(), text).is_some() {
                        self.fault(&format!("{key}.{member}"), "is set twice".to_owned());
                    }
                }
                SettingValue::Table(members) => self.flatten(key, &format!("{member}."), members, texts),
                other => {
                    let problem = format!("must be a string, got {}", noun(&other));
                    self.fault(&format!("{key}.{member}"), problem);
                }
            }
        }
    }

    /// Whether a key is set, to any value.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Records that a key is missing, unless it has a fault already.
    pub fn require(&mut self, key: &str, what: &str) {
        if !self.faults.iter().any(|fault| fault.key == key) {
            self.fault(key, format!("is missing: {what}"));
        }
    }

    /// The keys that were read, in that order.
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Records a fault for every key that was not read, and gives all faults.
    pub fn finish(mut self) -> Vec<SettingFault> {
        let hint = format!(", known here: {}", self.known.join(", "));
        let unknown = self.values.keys().filter(|key| !self.known.contains(&key.as_str()));
        for key in unknown.cloned().collect::<Vec<_>>() {
            self.fault(&key, unknown_key(&key, self.known.iter().copied(), &hint));
        }
        self.faults
    }

    /// Reads one setting, if it is set. A fault is recorded.
    fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&SettingValue) -> Result<T, String>,
    ) -> Option<T> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let read = parse(self.values.get(key)?);
        read.map_err(|problem| self.fault(key, problem)).ok()
    }
}

fn mismatch_text(mismatch: TypeMismatch<'_>) -> String {
    format!("must be {}, got {}", mismatch.wanted, noun(mismatch.value))
}

/// The type of a value, by the noun that faults of transforms use.
fn noun(value: &SettingValue) -> String {
    match value {
        SettingValue::Number(_) => "a number".to_owned(),
        SettingValue::Truth(_) => "true or false".to_owned(),
        other => other.noun(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::settings;

    #[test]
    fn a_table_within_a_table_gives_its_keys_a_prefix() {
        let text = |text: &str| SettingValue::Text(text.to_owned());
        let tags = SettingValue::Table(
            [("site".to_owned(), text("'north'")), ("n".to_owned(), SettingValue::Integer(1))].into(),
        );
        let set = [
            ("tags".to_owned(), tags),
            ("tags.room".to_owned(), text("'attic'")),
            ("tags.site".to_owned(), text("'south'")),
        ];
        let mut settings = settings(&[("set", SettingValue::Table(set.into()))]);
        let table = settings.table("set").expect("a table");
        assert_eq!(table.keys().collect::<Vec<_>>(), ["tags.room", "tags.site"]);
        let faults = settings.finish().into_iter().map(|fault| format!("{}: {}", fault.key, fault.problem));
        assert_eq!(
            faults.collect::<Vec<_>>(),
            ["set.tags.n: must be a string, got a whole number", "set.tags.site: is set twice"]
        );
    }

    #[test]
    fn settings_are_read_by_their_types_and_every_fault_is_recorded() {
        let text = |text: &str| SettingValue::Text(text.to_owned());
        let mut good = settings(&[
            ("a", text("10s")),
            ("b", SettingValue::Integer(3)),
            ("c", SettingValue::Number(0.5)),
            ("d", SettingValue::Truth(true)),
            ("e", SettingValue::List(vec![text("x")])),
            ("f", SettingValue::Table([("value".to_owned(), text("1"))].into())),
        ]);
        let minute = Duration::from_secs(60);
        assert_eq!(good.duration("a", Duration::ZERO..=minute), Some(Duration::from_secs(10)));
        assert_eq!((good.count("b", 1..=5), good.number("b", 0.0..=5.0)), (Some(3), Some(3.0)));
        assert_eq!((good.number("c", 0.0..=1.0), good.truth("d")), (Some(0.5), Some(true)));
        assert_eq!(good.list("e"), Some(vec!["x".to_owned()]));
        assert_eq!(good.table("f").and_then(|table| table.get("value").cloned()), Some("1".to_owned()));
        assert_eq!((good.text("g"), good.finish()), (None, Vec::new()));

        let mut bad = settings(&[
            ("a", SettingValue::Integer(10)),
            ("b", SettingValue::Integer(9)),
            ("e", SettingValue::List(vec![SettingValue::Truth(true)])),
            ("f", SettingValue::Table([("value".to_owned(), SettingValue::Integer(1))].into())),
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
