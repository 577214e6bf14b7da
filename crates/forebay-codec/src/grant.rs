//! The rights of a sender: the devices and sensors that it may write, and the tags that its readings get.

use std::sync::Arc;

use forebay_reading::globs::Globs;
use forebay_reading::text::Text;
use forebay_reading::{Field, NAME_BYTES_MAX, Parts, ReadingError, Readings, TAG_BYTES_MAX, TAGS_MAX, Tag};
use thiserror::Error;

use crate::{Reason, Rules};

/// The rights of a key's owner.
///
/// A reading is covered if its device matches one of the globs for devices and its sensor one of those for sensors.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name of the key, for messages.
    name: Arc<str>,
    devices: Globs,
    sensors: Globs,
    default_device: Option<String>,
    /// Tags that every reading gets, in place of its own of the same name.
    tags: Vec<Tag<'static>>,
}

/// Why a reading cannot be taken.
#[derive(Clone, Debug, PartialEq, Error)]
pub(crate) enum GrantError {
    #[error(transparent)]
    Reading(#[from] ReadingError),
    #[error("the key `{key}` may not write readings of the {} `{name}`", field.name())]
    NotCovered { key: Arc<str>, field: Field, name: String },
}

impl GrantError {
    /// The field that is at fault.
    pub(crate) fn field(&self) -> Field {
        match self {
            GrantError::Reading(error) => error.field(),
            GrantError::NotCovered { field, .. } => *field,
        }
    }
}

impl From<&GrantError> for Reason {
    fn from(error: &GrantError) -> Reason {
        match error {
            GrantError::Reading(error) => Reason::from(error),
            GrantError::NotCovered { .. } => Reason::Key,
        }
    }
}

impl Grant {
    /// The grant of the key of this name. Without globs every name is covered.
    ///
    /// # Errors
    ///
    /// The fault, with the limit that it breaks. A list has 1 to 256 globs; the default device is a valid device name that the
    /// globs cover; there are at most 32 tags, whose names and values have at most 256 bytes.
    pub fn new(
        name: &str,
        devices: Option<&[String]>,
        sensors: Option<&[String]>,
        default_device: Option<String>,
        tags: Vec<(String, String)>,
    ) -> Result<Grant, String> {
        let globs = |field, list| Globs::new(list).map_err(|problem| format!("`{field}`: {problem}"));
        let grant = Grant {
            name: name.into(),
            devices: globs("devices", devices)?,
            sensors: globs("sensors", sensors)?,
            default_device,
            tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        grant.check_default_device()?;
        grant.check_tags()?;
        Ok(grant)
    }

    fn check_default_device(&self) -> Result<(), String> {
        let Some(device) = &self.default_device else { return Ok(()) };
        let is_name = (1..=NAME_BYTES_MAX).contains(&device.len()) && !device.chars().any(char::is_control);
        if !is_name {
            return Err(format!(
                "`default_device` must have 1 to {NAME_BYTES_MAX} bytes without control characters"
            ));
        }
        if !self.devices.matches(device) {
            return Err(format!(
                "`default_device` is `{device}`, which none of the globs in `devices` matches"
            ));
        }
        Ok(())
    }

    fn check_tags(&self) -> Result<(), String> {
        let count = self.tags.len();
        if count > TAGS_MAX {
            return Err(format!("`tags` must have at most {TAGS_MAX} tags, got {count}"));
        }
        let is_long = |text: &str| text.len() > TAG_BYTES_MAX;
        match self.tags.iter().find(|(name, value)| name.is_empty() || is_long(name) || is_long(value)) {
            Some((name, _)) => {
                let name: String = name.chars().take(TAG_BYTES_MAX).collect();
                Err(format!(
                    "`tags`: the tag `{name}` must have a name of 1 to {TAG_BYTES_MAX} bytes and a value of at most {TAG_BYTES_MAX}"
                ))
            }
            None => Ok(()),
        }
    }

    /// Says which field of a reading is not covered, if one is not.
    fn refuse(&self, device: &str, sensor: &str) -> Result<(), GrantError> {
        let not_covered = |field, name: &str| {
            Err(GrantError::NotCovered { key: Arc::clone(&self.name), field, name: name.to_owned() })
        };
        if !self.devices.matches(device) {
            return not_covered(Field::Device, device);
        }
        if !self.sensors.matches(sensor) {
            return not_covered(Field::Sensor, sensor);
        }
        Ok(())
    }

    /// The tags of a reading with those of the grant in place of its own of the same names.
    fn stamped<'a>(&'a self, tags: &'a [Tag<'a>]) -> Vec<Tag<'a>> {
        let is_kept = |(name, _): &&Tag<'a>| !self.tags.iter().any(|(stamped, _)| stamped == name);
        let borrowed = |(name, value): &'a Tag<'a>| (name.as_ref().into(), value.as_ref().into());
        tags.iter().filter(is_kept).map(borrowed).chain(self.tags.iter().map(borrowed)).collect()
    }
}

impl Rules {
    /// The device of a reading that names none.
    pub(crate) fn default_device(&self) -> Option<&str> {
        self.grant.as_ref()?.default_device.as_deref()
    }

    /// Checks a reading and the rights of its sender, and appends the reading.
    ///
    /// # Errors
    ///
    /// The first rule that the reading breaks; nothing is appended then.
    #[inline]
    pub(crate) fn push<'a, T: Text<'a>>(
        &self,
        parts: &Parts<'a, T>,
        readings: &mut Readings,
    ) -> Result<(), GrantError> {
        match &self.grant {
            None => Ok(readings.push(parts)?),
            Some(grant) => grant.push(parts, readings),
        }
    }
}

impl Grant {
    fn push<'a, T: Text<'a>>(&self, parts: &Parts<'a, T>, readings: &mut Readings) -> Result<(), GrantError> {
        let (device, sensor) = (parts.device.as_str(), parts.sensor.as_str());
        // `Readings::push` refuses a name that is too long. Matching it here would take long, and the error would repeat it.
        let is_name = |name: &str| name.len() <= NAME_BYTES_MAX;
        if is_name(device) && is_name(sensor) {
            self.refuse(device, sensor)?;
        }
        if self.tags.is_empty() {
            return Ok(readings.push(parts)?);
        }
        let tags = self.stamped(parts.tags);
        let parts = Parts {
            device,
            sensor,
            value: parts.value,
            time: parts.time,
            unit: parts.unit.map(T::as_str),
            tags: &tags,
        };
        Ok(readings.push(&parts)?)
    }
}
