//! One record as it stands in the pack: the text of its fields, and what is wrong with their JSON.

use std::borrow::Cow;

use super::label::{Kind, LABELS, Label, Labels};
use crate::Reason;
use crate::names::Names;
use crate::quote::{pointer_token, shorten};
use crate::value::{BOOLEAN, NUMBER, STRING, noun, unquote};

/// Why a record is no reading.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Index of the record that has what is wrong: the one at fault, or an earlier one with a base field.
    pub(super) record: usize,
    /// The label, as a token of a JSON pointer; empty for the record as a whole.
    token: String,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(record: usize, label: Label, reason: Reason, detail: String) -> Fault {
        Fault { record, token: label.name().to_owned(), reason, detail }
    }

    pub(super) fn pointer(&self) -> String {
        let separator = if self.token.is_empty() { "" } else { "/" };
        format!("/{}{separator}{}", self.record, self.token)
    }
}

/// The fields of a record. Used again for the next one, to keep its memory.
#[derive(Debug, Default)]
pub(super) struct Record<'de> {
    pub(super) index: usize,
    /// The labels that are there, at fault or not.
    pub(super) seen: Labels,
    /// Those of them that are at fault.
    faulty: Labels,
    /// The first fault of each faulty label, in the order in which they came.
    faults: Vec<(Label, Fault)>,
    /// The texts of those that are good: strings without quotes, numbers and booleans as they stand. What is there of
    /// other labels is from records before.
    texts: [Cow<'de, str>; LABELS],
    /// The labels that are not known.
    unknown: Vec<Cow<'de, str>>,
    unknown_names: Names,
}

impl<'de> Record<'de> {
    /// Begins with the record at `index`.
    pub(super) fn begin(&mut self, index: usize) {
        self.index = index;
        self.seen = Labels::default();
        self.faulty = Labels::default();
        self.faults.clear();
        self.unknown.clear();
    }

    /// Takes a field that has the type it must have. Returns whether it was not there before.
    pub(super) fn set(&mut self, label: Label, text: Cow<'de, str>) -> bool {
        self.texts[label as usize] = text;
        self.seen.insert(label)
    }

    /// Takes a field of any type; `json` is its value.
    ///
    /// # Errors
    ///
    /// A string that is none in spite of its form: half of a surrogate pair.
    pub(super) fn take(&mut self, name: Cow<'de, str>, json: &'de str) -> serde_json::Result<()> {
        let label = Label::named(&name);
        let Some(kind) = label.kind() else {
            self.take_unknown(label, name);
            return Ok(());
        };
        if self.seen.has(label) {
            self.fault(label, Reason::Field, twice(label.name()));
            return Ok(());
        }
        match (kind, noun(json)) {
            (Kind::Text, STRING) => {
                self.set(label, unquote(json)?);
            }
            (Kind::Number, NUMBER) | (Kind::Boolean, BOOLEAN) => {
                self.set(label, Cow::Borrowed(json));
            }
            (kind, found) => {
                self.seen.insert(label);
                let detail = format!("`{}` must be {}, got {found}", label.name(), kind.noun());
                self.fault(label, Reason::Type, detail);
            }
        }
        Ok(())
    }

    fn take_unknown(&mut self, label: Label, name: Cow<'de, str>) {
        self.seen.insert(label);
        if !self.unknown_names.is_new(&name, self.unknown.iter().map(|known| &**known)) {
            self.fault_at(label, &name, Reason::Field, twice(&name));
        } else if name.ends_with('_') {
            let detail = format!(
                "the label `{}` ends in `_`: the record must not be read by who does not know it, and it is not known here",
                shorten(&name)
            );
            self.fault_at(label, &name, Reason::Unknown, detail);
        }
        self.unknown.push(name);
    }

    /// Notes a field whose value says nothing: a string with an escape that stands for none.
    pub(super) fn take_broken(&mut self, name: &str, detail: String) {
        let label = Label::named(name);
        self.seen.insert(label);
        self.fault_at(label, name, Reason::Type, detail);
    }

    /// Notes a label whose name says nothing. If what can be read of it is the name of a base field, it would hold for the
    /// records to come; else it is the fault of this record alone.
    pub(super) fn take_broken_name(&mut self, name: &str, detail: String) {
        let label = Label::named(name);
        self.seen.insert(label);
        self.fault_at(label, "", Reason::Type, detail);
    }

    /// Notes that something is wrong with a record of which no label can be read. It may have had base fields, which would
    /// hold for the records to come.
    pub(super) fn fault_of_whole(&mut self, detail: String) {
        if self.faults.is_empty() {
            self.seen.insert(Label::UnknownBase);
            self.fault_at(Label::UnknownBase, "", Reason::Type, detail);
        }
    }

    fn fault_at(&mut self, label: Label, name: &str, reason: Reason, detail: String) {
        if self.faulty.insert(label) {
            let fault = Fault { record: self.index, token: pointer_token(name), reason, detail };
            self.faults.push((label, fault));
        }
    }

    /// Notes what is wrong with a field, unless something is already.
    pub(super) fn fault(&mut self, label: Label, reason: Reason, detail: String) {
        if self.faulty.insert(label) {
            self.faults.push((label, Fault::new(self.index, label, reason, detail)));
        }
    }

    /// The first fault of the record.
    pub(super) fn first_fault(&self) -> Option<&Fault> {
        self.faults.first().map(|(_, fault)| fault)
    }

    /// The fault of a field.
    pub(super) fn fault_of(&self, label: Label) -> Option<&Fault> {
        let is_of = |(faulty, _): &&(Label, Fault)| *faulty == label;
        self.faults.iter().find(is_of).map(|(_, fault)| fault)
    }

    /// The text of a field that is there and good.
    pub(super) fn get(&self, label: Label) -> Option<&str> {
        (self.seen.has(label) && !self.faulty.has(label)).then(|| &*self.texts[label as usize])
    }

    /// Takes the text of a field out of the record.
    pub(super) fn text(&mut self, label: Label) -> Cow<'de, str> {
        std::mem::take(&mut self.texts[label as usize])
    }
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::Text => STRING,
            Kind::Number => NUMBER,
            Kind::Boolean => BOOLEAN,
        }
    }
}

fn twice(name: &str) -> String {
    format!("`{}` is there twice", shorten(name))
}
