//! Tags of readings beside a tag of the format's own, `device`.

use std::borrow::Cow;

/// Name of the tag that has the device.
pub(super) const DEVICE: &str = "device";

/// What stands before the name of a tag that the format has another use for, as in Prometheus.
pub(super) const EXPORTED: &str = "exported_";

/// The name that a tag of a reading has beside the tag `device`: `device` becomes `exported_device`.
///
/// So that no two names become one, `exported_device` becomes `exported_exported_device`, and so on; all others stay.
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
    fn a_tag_that_is_named_as_the_device_is_gets_out_of_its_way() {
        let check = |name: &str, expected: &str| assert_eq!(beside_device(name.into()), expected);
        check("device", "exported_device");
        check("exported_device", "exported_exported_device");
        check("exported_exported_device", "exported_exported_exported_device");
        for other in ["", "site", "devices", "exported_", "exported_site", "exported_devices", "my_device"] {
            check(other, other);
        }
    }
}
