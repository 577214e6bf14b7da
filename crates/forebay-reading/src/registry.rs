//! A registry of a family of implementations by name: the table that configuration, errors and contract tests read.

use thiserror::Error;

/// The members of a family by their configuration names, in the order of documents and messages.
#[derive(Debug)]
pub struct Registry<T: 'static> {
    /// The noun for a member in messages: `route`, `format`.
    pub what: &'static str,
    /// One row a member: its name and its value.
    pub members: &'static [(&'static str, T)],
}

/// The error for a name without a member.
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
    /// [`UnknownName`], which lists the known names.
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
    fn the_error_for_an_unknown_name_lists_the_known_names() {
        assert_eq!(FRUIT.find("pear"), Ok(&2));
        let error = FRUIT.find("plum").expect_err("no plum");
        assert_eq!(error.to_string(), "`plum` is no fruit; known: apple, pear");
    }
}
