//! Changes of a file of keys that leave all else in it as it is: comments, order, blanks.

use std::fmt;
use std::time::SystemTime;

use forebay_reading::timestamp::Timestamp;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::auth::secret::KeyHash;
use crate::auth::{self, Role};

/// The list of tables that the keys are.
const KEY: &str = "key";

/// A key that is to be added.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewKey<'a> {
    pub(super) name: &'a str,
    pub(super) hash: KeyHash,
    pub(super) role: Role,
    pub(super) devices: &'a [String],
    pub(super) sensors: &'a [String],
    pub(super) rate: Option<&'a str>,
    pub(super) burst: Option<i64>,
}

impl NewKey<'_> {
    /// The entry for the file, without the fields that were not given.
    pub(super) fn entry(&self) -> String {
        let mut table = Table::new();
        table["name"] = value(self.name);
        table["hashes"] = value(Array::from_iter([self.hash.to_string()]));
        match self.role {
            Role::Write => {}
            Role::Read => table["role"] = value(self.role.name()),
        }
        for (field, globs) in [("devices", self.devices), ("sensors", self.sensors)] {
            if !globs.is_empty() {
                table[field] = value(Array::from_iter(globs));
            }
        }
        if let Some(rate) = self.rate {
            table["rate"] = value(rate);
        }
        if let Some(burst) = self.burst {
            table["burst"] = value(burst);
        }
        let mut tables = ArrayOfTables::new();
        tables.push(table);
        let mut document = DocumentMut::new();
        document[KEY] = Item::ArrayOfTables(tables);
        document.to_string()
    }
}

/// A file of keys.
#[derive(Debug)]
pub(super) struct Document(DocumentMut);

impl fmt::Display for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Document {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// Why it is no TOML.
    pub(super) fn read(text: &str) -> Result<Document, String> {
        text.parse().map(Document).map_err(|error: toml_edit::TomlError| error.message().to_owned())
    }

    /// The text of the file, checked: a command never writes a file that a gateway would refuse.
    ///
    /// # Errors
    ///
    /// The faults that the file would have.
    pub(super) fn checked(&self) -> Result<String, String> {
        let text = self.to_string();
        auth::parse(text.as_bytes()).map_err(|faults| {
            let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
            format!("the file would not be right after the change: {}", lines.join("; "))
        })?;
        Ok(text)
    }

    /// The tables of the keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Table> {
        self.0.get(KEY).and_then(Item::as_array_of_tables).into_iter().flat_map(ArrayOfTables::iter)
    }

    /// Whether there is a key of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.keys().any(|table| is_named(table, name))
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    ///
    /// The keys that are there do not stand as tables `[[key]]`, so that no other can follow.
    pub(super) fn append(&mut self, entry: &str) -> Result<(), String> {
        let mut text = self.0.to_string();
        if !text.is_empty() {
            text.truncate(text.trim_end().len());
            text.push_str("\n\n");
        }
        text.push_str(entry.trim_start());
        let problem =
            |_| "the keys in it must each have the head [[key]], so that another one can follow".to_owned();
        self.0 = text.parse().map_err(problem)?;
        Ok(())
    }

    /// Adds a hash to a key. The other hashes hold until `until` at most, and those that have ended are taken out.
    ///
    /// # Errors
    ///
    /// There is no such key.
    pub(super) fn rotate(
        &mut self,
        name: &str,
        hash: KeyHash,
        until: Timestamp,
        now: SystemTime,
    ) -> Result<(), String> {
        let table = self.key_mut(name)?;
        let mut hashes = Array::new();
        hashes.push(hash.to_string());
        let before = table.get("hashes").and_then(Item::as_array);
        for item in before.into_iter().flat_map(Array::iter) {
            let (text, end) = hash_of(item);
            let end = end.map_or(until, |end| end.min(until));
            if end > Timestamp::from_system(now) {
                let mut ending = InlineTable::new();
                ending.insert("hash", text.into());
                ending.insert("until", rfc3339(end).into());
                hashes.push(ending);
            }
        }
        table["hashes"] = value(hashes);
        Ok(())
    }

    /// Takes a key out, with the comment right above it; comments above a blank line stay.
    ///
    /// # Errors
    ///
    /// There is no such key.
    pub(super) fn revoke(&mut self, name: &str) -> Result<(), String> {
        let tables = self.0.get_mut(KEY).and_then(Item::as_array_of_tables_mut);
        let tables = tables.ok_or_else(|| no_such_key(name))?;
        let position = tables.iter().position(|table| is_named(table, name));
        let position = position.ok_or_else(|| no_such_key(name))?;
        let above = tables.get(position).map(above_of).unwrap_or_default();
        let kept =
            above.rfind("\n\n").map(|blank| above[..=blank].to_owned()).filter(|text| text.contains('#'));
        tables.remove(position);
        let Some(kept) = kept else { return Ok(()) };
        match tables.get_mut(position) {
            Some(next) => {
                let prefix = format!("{kept}{}", above_of(next));
                next.decor_mut().set_prefix(prefix);
            }
            None => {
                let trailing = format!("{kept}{}", self.0.trailing().as_str().unwrap_or_default());
                self.0.set_trailing(trailing);
            }
        }
        Ok(())
    }

    fn key_mut(&mut self, name: &str) -> Result<&mut Table, String> {
        let tables = self.0.get_mut(KEY).and_then(Item::as_array_of_tables_mut);
        let found = tables.into_iter().flat_map(ArrayOfTables::iter_mut).find(|table| is_named(table, name));
        found.ok_or_else(|| no_such_key(name))
    }
}

/// The blanks and comments above the head of a table.
fn above_of(table: &Table) -> String {
    table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned()
}

fn no_such_key(name: &str) -> String {
    format!("there is no key `{name}`; `forebay keys list` shows those that there are")
}

fn is_named(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

/// The text of a hash, and when it ends.
pub(super) fn hash_of(item: &Value) -> (String, Option<Timestamp>) {
    match item.as_inline_table() {
        None => (item.as_str().unwrap_or_default().to_owned(), None),
        Some(table) => {
            let hash = table.get("hash").and_then(Value::as_str).unwrap_or_default().to_owned();
            let until = table.get("until").map(|until| match until.as_str() {
                Some(text) => text.to_owned(),
                None => until.as_datetime().map(ToString::to_string).unwrap_or_default(),
            });
            (hash, until.and_then(|until| Timestamp::parse(&until).ok()))
        }
    }
}

/// A moment in whole seconds, as RFC 3339.
fn rfc3339(time: Timestamp) -> String {
    let seconds = time.nanos() / 1_000_000_000;
    Timestamp::from_nanos(seconds * 1_000_000_000).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests;
