//! Globs over names: `*` stands for any number of characters, `?` for one, every other character for itself. A glob matches a
//! name as a whole.

use wildmatch::WildMatch;

/// Most globs in one list.
pub const GLOBS_MAX: usize = 256;

/// A list of globs, of which a name has to match one.
#[derive(Clone, Debug, Default)]
pub struct Globs {
    /// `None`: every name matches.
    list: Option<Vec<Glob>>,
}

/// A glob, in the form that is quickest to compare.
#[derive(Clone, Debug)]
enum Glob {
    /// A name.
    Exact(String),
    /// The beginning of names: `plant-7/*`.
    Prefix(String),
    /// Any other.
    Pattern(WildMatch),
}

impl Globs {
    /// Reads a list; without one, every name matches.
    ///
    /// # Errors
    ///
    /// The list is empty or has more than [`GLOBS_MAX`] globs; the message names the limits.
    pub fn new<T: AsRef<str>>(list: Option<&[T]>) -> Result<Globs, String> {
        let Some(list) = list else { return Ok(Globs::default()) };
        if list.is_empty() || list.len() > GLOBS_MAX {
            let got = list.len();
            return Err(format!("must have 1 to {GLOBS_MAX} globs, got {got}; leave it out for all"));
        }
        Ok(Globs { list: Some(list.iter().map(|glob| Glob::new(glob.as_ref())).collect()) })
    }

    /// Whether every name matches because there is no list.
    pub fn is_any(&self) -> bool {
        self.list.is_none()
    }

    /// Whether a name matches.
    #[inline]
    pub fn matches(&self, name: &str) -> bool {
        self.list.as_ref().is_none_or(|list| list.iter().any(|glob| glob.matches(name)))
    }
}

impl Glob {
    fn new(glob: &str) -> Glob {
        let is_plain = |text: &str| !text.contains(['*', '?']);
        match glob.strip_suffix('*') {
            Some(prefix) if is_plain(prefix) => Glob::Prefix(prefix.to_owned()),
            _ if is_plain(glob) => Glob::Exact(glob.to_owned()),
            _ => Glob::Pattern(WildMatch::new(glob)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Glob::Exact(exact) => exact == name,
            Glob::Prefix(prefix) => name.starts_with(prefix),
            Glob::Pattern(pattern) => pattern.matches(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(glob: &str, name: &str, expected: bool) {
        let globs = Globs::new(Some(&[glob])).expect("one glob");
        assert_eq!(globs.matches(name), expected, "{glob} {name}");
    }

    #[test]
    fn a_glob_matches_names_as_a_whole() {
        check("temperature*", "temperature", true);
        check("temperature*", "temperature/attic", true);
        check("temperature*", "water_temperature", false);
        check("*_power", "active_power", true);
        check("meter-?", "meter-7", true);
        check("meter-?", "meter-17", false);
        check("meter-7", "meter-7", true);
        check("meter-7", "meter-77", false);
        check("*", "", true);
        check("", "", true);
        check("tür*", "türe", true);
        check("[ab]", "a", false);
        check("", "a", false);
        check("", "x", false);
    }

    #[test]
    fn without_a_list_every_name_matches_and_an_empty_list_is_refused() {
        assert!(Globs::new::<&str>(None).expect("no list").matches("anything"));
        assert!(Globs::new::<&str>(Some(&[])).is_err());
        assert!(Globs::new(Some(&vec!["a"; GLOBS_MAX + 1])).is_err());
        let two = Globs::new(Some(&["a", "b*"])).expect("two globs");
        assert!(two.matches("a") && two.matches("bc") && !two.matches("c"));
    }

    proptest! {
        #[test]
        fn the_quick_forms_match_what_the_pattern_matches(glob in "[ab*?]{0,5}", name in "[ab]{0,5}") {
            check(&glob, &name, WildMatch::new(&glob).matches(&name));
        }
    }
}
