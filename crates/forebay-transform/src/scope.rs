//! The scope of a transform: the devices and sensors whose names match a glob.

use forebay_reading::ReadingRef;
use forebay_reading::globs::Globs;

use crate::settings::Settings;

/// The readings that a transform applies to. In a glob `*` stands for any number of characters, `?` for one; every other
/// character stands for itself.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    devices: Globs,
    sensors: Globs,
}

/// Reads a list of globs.
fn globs(settings: &mut Settings, key: &'static str) -> Globs {
    let list = settings.list(key);
    Globs::new(list.as_deref()).unwrap_or_else(|problem| {
        settings.fault(key, problem);
        Globs::default()
    })
}

impl Scope {
    /// Reads `devices` and `sensors`.
    pub fn read(settings: &mut Settings) -> Scope {
        Scope { devices: globs(settings, "devices"), sensors: globs(settings, "sensors") }
    }

    /// Whether the scope contains a reading.
    pub fn contains(&self, reading: ReadingRef<'_>) -> bool {
        let matches =
            |globs: &Globs, name: fn(ReadingRef<'_>) -> &str| globs.is_any() || globs.matches(name(reading));
        matches(&self.sensors, |reading| reading.sensor())
            && matches(&self.devices, |reading| reading.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingValue;

    #[test]
    fn an_empty_list_of_globs_is_a_fault() {
        let mut settings = Settings::new([("sensors".to_owned(), SettingValue::List(Vec::new()))].into());
        Scope::read(&mut settings);
        let faults = settings.finish();
        assert_eq!(faults[0].problem, "must have 1 to 256 globs, got 0; leave it out for all");
    }
}
