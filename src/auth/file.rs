//! The file of keys, from TOML to a [`Keyring`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_codec::grant::Grant;
use forebay_reading::timestamp::Timestamp;
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::key::{HoldPeriod, Key, Rate, Role};
use super::keyring::{Keyring, Twice};
use super::secret::KeyHash;
use super::usage::{KEYS_COUNTED_MAX, OTHER_KEYS};
use super::{HASHES_MAX, KEYS_MAX, NAME_BYTES_MAX};

/// The last whole year that a [`Timestamp`] can be in.
const LAST_YEAR: &str = "2261";

/// Something that is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileFault {
    /// The line, from 1.
    pub line: usize,
    /// The name of the key in which it is, if it is in one that has a name.
    pub key: Option<String>,
    /// The fault, and the values that are allowed.
    pub problem: String,
}

impl fmt::Display for KeyFileFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: ", self.line)?;
        if let Some(key) = &self.key {
            write!(formatter, "key `{key}`: ")?;
        }
        formatter.write_str(&self.problem)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    #[serde(default)]
    key: Vec<Spanned<KeyTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    name: String,
    #[serde(default)]
    hashes: Vec<HashItem>,
    role: Option<String>,
    devices: Option<Vec<String>>,
    sensors: Option<Vec<String>>,
    default_device: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    certificate: Option<String>,
    rate: Option<String>,
    burst: Option<i64>,
    catch_up: Option<String>,
    #[serde(default, rename = "first")]
    _first: bool,
    not_before: Option<WrittenMoment>,
    not_after: Option<WrittenMoment>,
}

/// A key as the table of the file describes it.
struct KeyEntry {
    key: Key,
    hashes: Vec<(KeyHash, HoldPeriod)>,
    certificate: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a hash must be `\"sha256:…\"`, or a table with `hash` and `until`")]
enum HashItem {
    Plain(String),
    Ending(EndingHash),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndingHash {
    hash: String,
    until: WrittenMoment,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time must be RFC 3339 with an offset, such as \"2027-01-01T00:00:00Z\"")]
enum WrittenMoment {
    Text(String),
    Date(Datetime),
}

/// Reads the content of a file of keys.
///
/// # Errors
///
/// Every fault that was found; of a file that is not TOML, or has a field of another type, the first.
pub fn parse(content: &[u8]) -> Result<Keyring, Vec<KeyFileFault>> {
    let whole = |line, problem: String| vec![KeyFileFault { line, key: None, problem }];
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = line_of(content, error.valid_up_to());
        whole(line, "the file is not UTF-8".to_owned())
    })?;
    let file: FileTable = toml::from_str(text).map_err(|error| {
        let line = line_of(content, error.span().map_or(0, |span| span.start));
        whole(line, without_keys(error.message().trim()))
    })?;
    if file.key.len() > KEYS_MAX {
        let problem = format!("the file has {} keys; allowed: at most {KEYS_MAX}", file.key.len());
        return Err(whole(1, problem));
    }
    let mut keyring = Keyring::default();
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for table in file.key {
        let start = table.span().start;
        let table = table.into_inner();
        let key = Some(table.name.chars().take(NAME_BYTES_MAX).collect());
        let mut fault = |problem: String| {
            let (line, problem) = (line_of(content, start), without_keys(&problem));
            faults.push(KeyFileFault { line, key: key.clone(), problem });
        };
        if !names.insert(table.name.clone()) {
            fault("there is another key of this name; each name may be there once".to_owned());
            continue;
        }
        match table.read() {
            Ok(KeyEntry { key, hashes, certificate }) => {
                if let Err(twice) = keyring.add(key, &hashes, certificate) {
                    fault(twice.to_string());
                }
            }
            Err(problems) => problems.into_iter().for_each(fault),
        }
    }
    if faults.is_empty() { Ok(keyring) } else { Err(faults) }
}

/// The faults of a file of keys, a line each, with its path.
pub fn describe(path: &Path, faults: &[KeyFileFault]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    lines.join("\n")
}

impl fmt::Display for Twice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Twice::Hash(other) => {
                write!(
                    formatter,
                    "one of its hashes is there before, at the key `{other}`; each key needs its own"
                )
            }
            Twice::Certificate(other) => {
                write!(
                    formatter,
                    "its `certificate` is that of the key `{other}`, too; each key needs its own"
                )
            }
        }
    }
}

impl KeyTable {
    /// Checks the whole table, and says everything that is wrong with it.
    fn read(self) -> Result<KeyEntry, Vec<String>> {
        let mut problems = Vec::new();
        let mut check = |outcome: Result<(), String>| problems.extend(outcome.err());
        check(check_name(&self.name));
        let role = match self.role.as_deref().map(|role| Role::NAMES.find(role)) {
            None => Role::Write,
            Some(Ok(role)) => *role,
            Some(Err(error)) => {
                check(Err(format!("`role`: {error}")));
                Role::Write
            }
        };
        let mut moment = |name: &str, moment: Option<Result<Option<Timestamp>, String>>| match moment {
            None => None,
            Some(Ok(time)) => time,
            Some(Err(problem)) => {
                check(Err(format!("`{name}`: {problem}")));
                None
            }
        };
        let start = self.not_before.as_ref().map(|start| start.read().map(Some));
        let validity = HoldPeriod {
            not_before: moment("not_before", start),
            not_after: moment("not_after", self.not_after.as_ref().map(WrittenMoment::read_end)),
        };
        if let (Some(start), Some(end)) = (validity.not_before, validity.not_after)
            && end < start
        {
            check(Err("`not_after` must not be before `not_before`".to_owned()));
        }
        let hashes = read_hashes(&self.hashes, &mut check);
        if self.hashes.is_empty() && self.certificate.is_none() {
            check(Err("it has neither `hashes` nor `certificate`, so that nobody could use it".to_owned()));
        }
        if self.certificate.as_deref().is_some_and(|name| name.trim().is_empty()) {
            check(Err("`certificate` must not be empty".to_owned()));
        }
        check(self.check_quota());
        let grant = self.grant().unwrap_or_else(|problem| {
            check(Err(problem));
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let key = Key { name: self.name.into(), role, grant: grant.map(Arc::new), validity };
        Ok(KeyEntry { key, hashes, certificate: self.certificate })
    }

    /// The rights of the key; `None` if it may write every reading, and readings stay as they are.
    fn grant(&self) -> Result<Option<Grant>, String> {
        let is_free = self.devices.is_none()
            && self.sensors.is_none()
            && self.default_device.is_none()
            && self.tags.is_empty();
        if is_free {
            return Ok(None);
        }
        let tags = self.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Grant::new(
            &self.name,
            self.devices.as_deref(),
            self.sensors.as_deref(),
            self.default_device.clone(),
            tags,
        )
        .map(Some)
    }

    /// Checks the settings of the quota, which have no effect in this version.
    fn check_quota(&self) -> Result<(), String> {
        for (name, rate) in [("rate", &self.rate), ("catch_up", &self.catch_up)] {
            if let Some(rate) = rate {
                parse_rate(rate).map_err(|problem| format!("`{name}`: {problem}"))?;
            }
        }
        match self.burst {
            Some(burst) if burst < 1 => Err(format!("`burst` must be at least 1, got {burst}")),
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(|letter| !letter.is_control() && !letter.is_whitespace());
    if !is_good {
        return Err(format!(
            "a name must have 1 to {NAME_BYTES_MAX} bytes without blanks and control characters"
        ));
    }
    if name == OTHER_KEYS {
        return Err(format!(
            "a name must not be `{OTHER_KEYS}`, as which metrics count all keys beyond the first {KEYS_COUNTED_MAX}"
        ));
    }
    Ok(())
}

fn read_hashes(items: &[HashItem], check: &mut impl FnMut(Result<(), String>)) -> Vec<(KeyHash, HoldPeriod)> {
    if items.len() > HASHES_MAX {
        check(Err(format!("`hashes` must have at most {HASHES_MAX} entries, got {}", items.len())));
    }
    let mut hashes = Vec::new();
    for item in items {
        let (text, until) = match item {
            HashItem::Plain(text) => (text, Ok(None)),
            HashItem::Ending(EndingHash { hash, until }) => (hash, until.read_end()),
        };
        match (text.parse(), until) {
            (Ok(hash), Ok(not_after)) => hashes.push((hash, HoldPeriod { not_before: None, not_after })),
            (hash, until) => {
                check(
                    hash.map(|_: KeyHash| ())
                        .map_err(|problem| format!("`hashes`: `{}` {problem}", quoted(text))),
                );
                check(until.map(|_| ()).map_err(|problem| format!("`until`: {problem}")));
            }
        }
    }
    hashes
}

/// A message in which a word that may be a key is cut to its beginning.
fn without_keys(message: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_+/=:".contains(letter);
    let words = message.split_inclusive(|letter| !is_part(letter));
    let shorten = |word: &str| {
        let text = word.trim_end_matches(|letter| !is_part(letter));
        if text.starts_with("fb_") || text.len() > 40 {
            word.replacen(text, &quoted(text), 1)
        } else {
            word.to_owned()
        }
    };
    words.map(shorten).collect()
}

/// The beginning of a text that was to be a hash: enough to find it, too little if it is a key.
fn quoted(text: &str) -> String {
    let beginning: String = text.chars().take(8).collect();
    if beginning.len() < text.len() { beginning + "…" } else { beginning }
}

impl WrittenMoment {
    fn read(&self) -> Result<Timestamp, String> {
        Timestamp::parse(&self.text()).map_err(|error| error.to_string())
    }

    /// Reads a moment at which something ends. A year beyond those of readings means that it never does.
    fn read_end(&self) -> Result<Option<Timestamp>, String> {
        let text = self.text();
        match text.split_once('-') {
            Some((year, rest)) if is_year(year) && year > LAST_YEAR => {
                let in_last_year = format!("{LAST_YEAR}-{rest}");
                Timestamp::parse(&in_last_year).map(|_| None).map_err(|error| error.to_string())
            }
            _ => self.read().map(Some),
        }
    }

    fn text(&self) -> String {
        match self {
            WrittenMoment::Text(text) => text.clone(),
            WrittenMoment::Date(date) => date.to_string(),
        }
    }
}

fn is_year(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a rate such as `200/s`: a number in a second, minute, hour or day.
///
/// # Errors
///
/// The text is not a rate; the message shows one.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    let allowed =
        || format!("must be a whole number from 1 on and a unit (s, m, h, d), such as 200/s, got `{text}`");
    let (number, unit) = text.split_once('/').ok_or_else(allowed)?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(allowed()),
    };
    let count = number.trim().parse().ok().filter(|number| *number > 0).ok_or_else(allowed)?;
    Ok(Rate { count, per: Duration::from_secs(seconds) })
}

fn line_of(content: &[u8], byte: usize) -> usize {
    1 + content[..byte.min(content.len())].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests;
