//! The scope of a transform: the devices and sensors whose names match a glob.

use forebay_reading::ReadingRef;
use wildmatch::WildMatch;

use crate::settings::Settings;

/// Most globs in one list.
const GLOBS_MAX: usize = 256;

/// The readings that a transform applies to. In a glob `*` stands for any number of characters, `?` for one; every other
/// character stands for itself.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    devices: Globs,
    sensors: Globs,
}

#[derive(Clone, Debug, Default)]
enum Globs {
    /// Every name matches.
    #[default]
    Any,
    /// A name must match one of these.
    OneOf(Vec<WildMatch>),
}

impl Globs {
    fn read(settings: &mut Settings, key: &'static str) -> Globs {
        let Some(globs) = settings.list(key) else { return Globs::Any };
        if globs.is_empty() || globs.len() > GLOBS_MAX {
            let got = globs.len();
            settings.fault(key, format!("must have 1 to {GLOBS_MAX} globs, got {got}; leave it out for all"));
            return Globs::Any;
        }
        Globs::OneOf(globs.iter().map(|glob| WildMatch::new(glob)).collect())
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Globs::Any => true,
            Globs::OneOf(globs) => globs.iter().any(|glob| glob.matches(name)),
        }
    }
}

impl Scope {
    /// Reads `devices` and `sensors`.
    pub fn read(settings: &mut Settings) -> Scope {
        Scope { devices: Globs::read(settings, "devices"), sensors: Globs::read(settings, "sensors") }
    }

    /// Whether the scope contains a reading.
    pub fn contains(&self, reading: ReadingRef<'_>) -> bool {
        let has_name = |globs: &Globs, name: fn(ReadingRef<'_>) -> &str| match globs {
            Globs::Any => true,
            Globs::OneOf(_) => globs.matches(name(reading)),
        };
        has_name(&self.sensors, |reading| reading.sensor())
            && has_name(&self.devices, |reading| reading.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingValue;

    #[test]
    fn names_match_a_glob_as_a_whole() {
        let check = |glob: &str, name: &str, expected: bool| {
            let globs = Globs::OneOf(vec![WildMatch::new(glob)]);
            assert_eq!(globs.matches(name), expected, "{glob} {name}");
        };
        check("temperature*", "temperature", true);
        check("temperature*", "temperature/attic", true);
        check("temperature*", "water_temperature", false);
        check("*_power", "active_power", true);
        check("meter-?", "meter-7", true);
        check("meter-?", "meter-17", false);
        check("tür*", "türe", true);
        check("[ab]", "a", false);
        check("", "a", false);
    }

    #[test]
    fn an_empty_list_of_globs_is_a_fault() {
        let mut settings = Settings::new([("sensors".to_owned(), SettingValue::List(Vec::new()))].into());
        Scope::read(&mut settings);
        let faults = settings.finish();
        assert_eq!(faults[0].problem, "must have 1 to 256 globs, got 0; leave it out for all");
    }
}
