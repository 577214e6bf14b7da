//! The keys of a file as a table for people.

use std::time::SystemTime;

use forebay_reading::timestamp::Timestamp;
use toml_edit::{Array, Item, Table};

use super::edit::{Document, hash_of};
use crate::auth::secret::KeyHash;

/// The heads of the columns.
const HEAD: [&str; 6] = ["NAME", "ROLE", "DEVICES", "SENSORS", "HASHES", "CERTIFICATE"];

/// The lines of the table, the head first.
pub(super) fn lines(document: &Document, now: SystemTime) -> Vec<String> {
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned))
        .chain(document.keys().map(|table| row(table, now)))
        .collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |row: &[String; HEAD.len()]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(table: &Table, now: SystemTime) -> [String; HEAD.len()] {
    let text = |field: &str| table.get(field).and_then(Item::as_str).map(str::to_owned);
    let globs = |field: &str| {
        let list = table.get(field).and_then(Item::as_array);
        let globs =
            list.map(|list| list.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(" "));
        globs.unwrap_or_else(|| "any".to_owned())
    };
    let hashes = table.get("hashes").and_then(Item::as_array);
    let hashes: Vec<_> =
        hashes.into_iter().flat_map(Array::iter).map(|item| hash(hash_of(item), now)).collect();
    [
        text("name").unwrap_or_default(),
        text("role").unwrap_or_else(|| "write".to_owned()),
        globs("devices"),
        globs("sensors"),
        if hashes.is_empty() { "-".to_owned() } else { hashes.join(", ") },
        text("certificate").unwrap_or_else(|| "-".to_owned()),
    ]
}

/// A hash by its beginning, and when it ends.
fn hash((hash, until): (String, Option<Timestamp>), now: SystemTime) -> String {
    // What stands there and is no hash may be a key.
    let beginning = hash.parse().map_or_else(|_| "(no hash)".to_owned(), |hash: KeyHash| hash.beginning());
    match until {
        None => beginning,
        Some(until) if until < Timestamp::from_system(now) => format!("{beginning} (ended)"),
        Some(until) => format!("{beginning} (until {until})"),
    }
}
