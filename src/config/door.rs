//! The settings of the door: the origins and hosts that are let in.

use super::layers::{Layers, list};
use crate::door::{DoorConfig, Host, WebOrigin};

/// Reads `server.origins` and `server.hosts`.
pub(super) fn read(layers: &mut Layers) -> DoorConfig {
    let origin = |text: &String| {
        WebOrigin::parse(text).filter(|_| is_no_pattern(text)).ok_or_else(|| {
            format!("must be origins as browsers send them, such as https://dashboard.example or http://10.0.0.7:3000, each in full, got `{text}`")
        })
    };
    let host = |text: &String| {
        Host::parse(text).filter(|_| is_no_pattern(text)).map(Host::into_owned).ok_or_else(|| {
            format!(
                "must be names or IP addresses, with a port or without, such as gateway.example, each in full, got `{text}`"
            )
        })
    };
    DoorConfig {
        origins: layers.get("server.origins", |value| list(value)?.iter().map(origin).collect()),
        hosts: layers.get("server.hosts", |value| list(value)?.iter().map(host).collect()),
    }
}

/// Whether the text is a single name. RFC 3986 allows an asterisk in a name, but here it is surely meant as a pattern,
/// and would match no name.
fn is_no_pattern(text: &str) -> bool {
    !text.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<DoorConfig, String> {
        let variable = format!("FOREBAY__{}", key.to_uppercase().replace('.', "__"));
        let mut layers = Layers::read(None, &[(variable, value.to_owned())]);
        let config = super::read(&mut layers);
        layers.faults.first().map_or(Ok(config), |fault| Err(format!("{}: {}", fault.key, fault.problem)))
    }

    #[test]
    fn origins_and_hosts_are_checked_at_the_start() {
        let config = read("server.origins", "https://Dashboard.example, http://[::1]:3000").expect("good");
        assert_eq!((config.origins.len(), config.hosts.len()), (2, 0));
        let config = read("server.hosts", "gw.example, gw:8443,192.0.2.7").expect("good");
        assert_eq!((config.origins.len(), config.hosts.len()), (0, 3));
        for (key, bad, allowed) in [
            ("server.origins", "*", "must be origins as browsers send them"),
            ("server.origins", "null", "must be origins as browsers send them"),
            ("server.origins", "dashboard.example", "must be origins as browsers send them"),
            ("server.origins", "https://dashboard.example/", "must be origins as browsers send them"),
            ("server.hosts", "http://gw.example", "must be names or IP addresses"),
            ("server.hosts", "gw example", "must be names or IP addresses"),
            ("server.origins", "https://*.example", "must be origins as browsers send them"),
            ("server.origins", "http://*", "must be origins as browsers send them"),
            ("server.hosts", "*", "must be names or IP addresses"),
            ("server.hosts", "*.example", "must be names or IP addresses"),
            ("server.hosts", "gw-*:8443", "must be names or IP addresses"),
            ("server.hosts", "gw.example/x", "must be names or IP addresses"),
        ] {
            let fault = read(key, bad).expect_err("a fault");
            assert!(fault.starts_with(&format!("{key}: {allowed}")), "{fault}");
            assert!(fault.ends_with(&format!("got `{bad}`")), "{fault}");
        }
    }
}
