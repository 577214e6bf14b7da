//! The labels of a record (RFC 8428, section 4.3).

/// A label by its name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    BaseName,
    BaseTime,
    BaseUnit,
    BaseValue,
    BaseSum,
    Version,
    Name,
    Unit,
    Value,
    StringValue,
    BooleanValue,
    DataValue,
    Sum,
    Time,
    UpdateTime,
    /// Any unknown label that begins with `b`: a base field of some extension (section 12.2).
    UnknownBase,
    /// Any other unknown label.
    Unknown,
}

/// The JSON type of a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelKind {
    Text,
    Number,
    Boolean,
}

/// A set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(u32);

/// The number of labels.
pub(super) const LABELS: usize = Label::Unknown as usize + 1;

impl Label {
    /// Every known label with its name and type, base fields first.
    pub(super) const NAMES: &[(&str, Label, LabelKind)] = &[
        ("bn", Label::BaseName, LabelKind::Text),
        ("bt", Label::BaseTime, LabelKind::Number),
        ("bu", Label::BaseUnit, LabelKind::Text),
        ("bv", Label::BaseValue, LabelKind::Number),
        ("bs", Label::BaseSum, LabelKind::Number),
        ("bver", Label::Version, LabelKind::Number),
        ("n", Label::Name, LabelKind::Text),
        ("u", Label::Unit, LabelKind::Text),
        ("v", Label::Value, LabelKind::Number),
        ("vs", Label::StringValue, LabelKind::Text),
        ("vb", Label::BooleanValue, LabelKind::Boolean),
        ("vd", Label::DataValue, LabelKind::Text),
        ("s", Label::Sum, LabelKind::Number),
        ("t", Label::Time, LabelKind::Number),
        ("ut", Label::UpdateTime, LabelKind::Number),
    ];

    /// The label of this name. Names are compared byte by byte (section 3).
    pub(super) fn named(name: &str) -> Label {
        let known = Label::NAMES.iter().find(|(known, ..)| *known == name);
        match known {
            Some((_, label, _)) => *label,
            None if name.starts_with('b') => Label::UnknownBase,
            None => Label::Unknown,
        }
    }

    /// The label's name in JSON; empty for an unknown label.
    pub(super) fn name(self) -> &'static str {
        Label::NAMES.get(self as usize).map_or("", |(name, ..)| name)
    }

    /// The JSON type of its value; `None` for an unknown label.
    pub(super) fn kind(self) -> Option<LabelKind> {
        Label::NAMES.get(self as usize).map(|(.., kind)| *kind)
    }
}

impl Labels {
    /// The known base fields.
    pub(super) const BASE: Labels = Labels::of(&[
        Label::BaseName,
        Label::BaseTime,
        Label::BaseUnit,
        Label::BaseValue,
        Label::BaseSum,
        Label::Version,
    ]);
    /// The values; a record has one of them, unless it has a sum.
    pub(super) const VALUES: Labels =
        Labels::of(&[Label::Value, Label::StringValue, Label::BooleanValue, Label::DataValue]);
    /// The labels that make a record a reading, and not only base fields for later records.
    pub(super) const REGULAR: Labels = Labels(
        Labels::VALUES.0
            | Labels::of(&[Label::Name, Label::Unit, Label::Sum, Label::Time, Label::UpdateTime]).0,
    );

    const fn of(labels: &[Label]) -> Labels {
        let (mut bits, mut index) = (0, 0);
        while index < labels.len() {
            bits |= 1 << labels[index] as u32;
            index += 1;
        }
        Labels(bits)
    }

    /// Adds a label. Returns whether it is new.
    pub(super) fn insert(&mut self, label: Label) -> bool {
        let before = self.0;
        self.0 |= 1 << label as u32;
        self.0 != before
    }

    pub(super) fn remove(&mut self, label: Label) {
        self.0 &= !(1 << label as u32);
    }

    pub(super) fn has(self, label: Label) -> bool {
        self.0 & 1 << label as u32 != 0
    }

    pub(super) fn and(self, others: Labels) -> Labels {
        Labels(self.0 & others.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a base field is among these, known or not.
    pub(super) fn has_base(self) -> bool {
        self.has(Label::UnknownBase) || !self.and(Labels::BASE).is_empty()
    }

    /// The known labels among these, in the order of [`Label::NAMES`].
    pub(super) fn known(self) -> impl Iterator<Item = Label> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let (_, label, _) = Label::NAMES.get(bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(*label)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_its_row() {
        for (index, (name, label, kind)) in Label::NAMES.iter().enumerate() {
            assert_eq!((*label as usize, Label::named(name), label.name()), (index, *label, *name));
            assert_eq!(label.kind(), Some(*kind));
            assert_eq!(Labels::BASE.has(*label), name.starts_with('b'));
            assert_eq!(Labels::REGULAR.has(*label), !name.starts_with('b'));
        }
        let labels = Labels::of(&[Label::Unknown, Label::UpdateTime, Label::BaseName, Label::Value]);
        let known: Vec<_> = labels.known().collect();
        assert_eq!(known, [Label::BaseName, Label::Value, Label::UpdateTime]);
        for (name, label) in [("V", Label::Unknown), ("", Label::Unknown), ("bx", Label::UnknownBase)] {
            assert_eq!((Label::named(name), label.name(), label.kind()), (label, "", None));
        }
    }
}
