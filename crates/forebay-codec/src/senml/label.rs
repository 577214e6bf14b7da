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
    /// Any label that is not known and begins with `b`: a base field of some extension (section 12.2).
    UnknownBase,
    /// Any other label that is not known.
    Unknown,
}

/// What JSON a label must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Boolean,
}

/// A set of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(u32);

/// How many labels there are.
pub(super) const LABELS: usize = Label::Unknown as usize + 1;

impl Label {
    /// Every known label with its name and type, base fields first.
    pub(super) const NAMES: &[(&str, Label, Kind)] = &[
        ("bn", Label::BaseName, Kind::Text),
        ("bt", Label::BaseTime, Kind::Number),
        ("bu", Label::BaseUnit, Kind::Text),
        ("bv", Label::BaseValue, Kind::Number),
        ("bs", Label::BaseSum, Kind::Number),
        ("bver", Label::Version, Kind::Number),
        ("n", Label::Name, Kind::Text),
        ("u", Label::Unit, Kind::Text),
        ("v", Label::Value, Kind::Number),
        ("vs", Label::StringValue, Kind::Text),
        ("vb", Label::BooleanValue, Kind::Boolean),
        ("vd", Label::DataValue, Kind::Text),
        ("s", Label::Sum, Kind::Number),
        ("t", Label::Time, Kind::Number),
        ("ut", Label::UpdateTime, Kind::Number),
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

    /// The label's name in JSON; empty for those that are not known.
    pub(super) fn name(self) -> &'static str {
        Label::NAMES.get(self as usize).map_or("", |(name, ..)| name)
    }

    /// What JSON it must have; `None` if that is not known.
    pub(super) fn kind(self) -> Option<Kind> {
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
    /// Those of which a record has one, unless it has a sum.
    pub(super) const VALUES: Labels =
        Labels::of(&[Label::Value, Label::StringValue, Label::BooleanValue, Label::DataValue]);
    /// Those that make a record more than base fields for the ones after it.
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

    /// Adds a label. Returns whether it was not there before.
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

    /// Whether there is a base field among these, known or not.
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
