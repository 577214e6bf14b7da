//! One record of a pack: the texts of its fields, and the faults of their JSON.

use std::borrow::Cow;

use super::label::{LABELS, Label, LabelKind, Labels};
use crate::Reason;
use crate::names::UniqueNames;
use crate::quote::{pointer_token, shorten};
use crate::value::{BOOLEAN, NUMBER, STRING, noun, unquote};

/// Why a record is not a reading.
#[derive(Clone, Debug)]
pub(super) struct RecordFault {
    /// Index of the faulty record: this one, or an earlier one with a base field.
    pub(super) record: usize,
    /// The label, as a token of a JSON pointer; empty for the record as a whole.
    token: String,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl RecordFault {
    pub(super) fn new(record: usize, label: Label, reason: Reason, detail: String) -> RecordFault {
        RecordFault { record, token: label.name().to_owned(), reason, detail }
    }

    pub(super) fn pointer(&self) -> String {
        let separator = if self.token.is_empty() { "" } else { "/" };
        format!("/{}{separator}{}", self.record, self.token)
    }
}

/// The fields of a record. The next record uses its memory again.
#[derive(Debug, Default)]
pub(super) struct RecordFields<'de> {
    pub(super) index: usize,
    /// The labels that the record has, faulty or not.
    pub(super) seen: Labels,
    /// The faulty labels.
    faulty: Labels,
    /// The first fault of each faulty label, in their order.
    faults: Vec<(Label, RecordFault)>,
    /// The texts of the good labels: strings without quotes, numbers and booleans as in the body. Texts of other labels are
    /// left from earlier records.
    texts: [Cow<'de, str>; LABELS],
    /// The unknown labels.
    unknown: Vec<Cow<'de, str>>,
    unknown_names: UniqueNames,
}

impl<'de> RecordFields<'de> {
    /// Begins with the record at `index`.
    pub(super) fn begin(&mut self, index: usize) {
        self.index = index;
        self.seen = Labels::default();
        self.faulty = Labels::default();
        self.faults.clear();
        self.unknown.clear();
    }

    /// Takes a field of the right type. Returns whether it is new.
    pub(super) fn set(&mut self, label: Label, text: Cow<'de, str>) -> bool {
        self.texts[label as usize] = text;
        self.seen.insert(label)
    }

    /// Takes a field of any type; `json` is its value.
    ///
    /// # Errors
    ///
    /// A string has half of a surrogate pair in it.
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
            (LabelKind::Text, STRING) => {
                self.set(label, unquote(json)?);
            }
            (LabelKind::Number, NUMBER) | (LabelKind::Boolean, BOOLEAN) => {
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

    /// Notes a field with an unreadable value.
    pub(super) fn take_broken(&mut self, name: &str, detail: String) {
        let label = Label::named(name);
        self.seen.insert(label);
        self.fault_at(label, name, Reason::Type, detail);
    }

    /// Notes a label with an unreadable name. If its readable part looks like a base field, the fault holds for later records
    /// too; else it costs this record alone.
    pub(super) fn take_broken_name(&mut self, name: &str, detail: String) {
        let label = Label::named(name);
        self.seen.insert(label);
        self.fault_at(label, "", Reason::Type, detail);
    }

    /// Notes a fault of a record without one readable label. It may have had base fields, so the fault holds for later records
    /// too.
    pub(super) fn fault_of_whole(&mut self, detail: String) {
        if self.faults.is_empty() {
            self.seen.insert(Label::UnknownBase);
            self.fault_at(Label::UnknownBase, "", Reason::Type, detail);
        }
    }

    fn fault_at(&mut self, label: Label, name: &str, reason: Reason, detail: String) {
        if self.faulty.insert(label) {
            let fault = RecordFault { record: self.index, token: pointer_token(name), reason, detail };
            self.faults.push((label, fault));
        }
    }

    /// Notes the fault of a field, unless it has one already.
    pub(super) fn fault(&mut self, label: Label, reason: Reason, detail: String) {
        if self.faulty.insert(label) {
            self.faults.push((label, RecordFault::new(self.index, label, reason, detail)));
        }
    }

    /// The first fault of the record.
    pub(super) fn first_fault(&self) -> Option<&RecordFault> {
        self.faults.first().map(|(_, fault)| fault)
    }

    /// The fault of a field.
    pub(super) fn fault_of(&self, label: Label) -> Option<&RecordFault> {
        let is_of = |(faulty, _): &&(Label, RecordFault)| *faulty == label;
        self.faults.iter().find(is_of).map(|(_, fault)| fault)
    }

    /// The text of a good field.
    pub(super) fn get(&self, label: Label) -> Option<&str> {
        (self.seen.has(label) && !self.faulty.has(label)).then(|| &*self.texts[label as usize])
    }

    /// Takes the text of a field out of the record.
    pub(super) fn text(&mut self, label: Label) -> Cow<'de, str> {
        std::mem::take(&mut self.texts[label as usize])
    }
}

impl LabelKind {
    fn noun(self) -> &'static str {
        match self {
            LabelKind::Text => STRING,
            LabelKind::Number => NUMBER,
            LabelKind::Boolean => BOOLEAN,
        }
    }
}

fn twice(name: &str) -> String {
    format!("`{}` is there twice", shorten(name))
}
