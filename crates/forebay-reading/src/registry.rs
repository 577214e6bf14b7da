//! A family of things that go by name: the table that configuration, errors and contract tests read.

use thiserror::Error;

/// The members of a family by their configuration names, in the order in which people should see them.
#[derive(Debug)]
pub struct Registry<T: 'static> {
    /// What a member is, for messages: `route`, `format`.
    pub what: &'static str,
    /// Name and member, a row each.
    pub members: &'static [(&'static str, T)],
}

/// A name that no member of the family has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{name}` is no {what}; known: {known}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: String,
}

impl<T> Registry<T> {
    /// The member of this name.
    ///
    /// # Errors
    ///
    /// [`UnknownName`], which lists the known ones.
    pub fn find(&self, name: &str) -> Result<&'static T, UnknownName> {
        let row = self.members.iter().find(|(known, _)| *known == name);
        row.map(|(_, member)| member).ok_or_else(|| UnknownName {
            what: self.what,
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// The names, in the order of the table.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRUIT: Registry<u8> = Registry { what: "fruit", members: &[("apple", 1), ("pear", 2)] };

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(FRUIT.find("pear"), Ok(&2));
        let error = FRUIT.find("plum").expect_err("no plum");
        assert_eq!(error.to_string(), "`plum` is no fruit; known: apple, pear");
    }
}
