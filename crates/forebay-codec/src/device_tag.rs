//! Names of tags in formats that use the tag `device` themselves.

use std::borrow::Cow;

/// Name of the tag that has the device.
pub(super) const DEVICE: &str = "device";

/// Prefix of a tag whose name the format uses itself, as in Prometheus.
pub(super) const EXPORTED: &str = "exported_";

/// The name that a tag of a reading has beside the tag `device`: `device` becomes `exported_device`.
///
/// `exported_device` becomes `exported_exported_device`, and so on, so that two names never become one. All other names
/// stay.
pub(super) fn beside_device(name: Cow<'_, str>) -> Cow<'_, str> {
    match name.trim_start_matches(EXPORTED) == DEVICE {
        true => Cow::Owned(format!("{EXPORTED}{name}")),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_called_device_gets_the_prefix_exported() {
        let check = |name: &str, expected: &str| assert_eq!(beside_device(name.into()), expected);
        check("device", "exported_device");
        check("exported_device", "exported_exported_device");
        check("exported_exported_device", "exported_exported_exported_device");
        for other in ["", "site", "devices", "exported_", "exported_site", "exported_devices", "my_device"] {
            check(other, other);
        }
    }
}
