//! The settings of TLS on the gateway's own listener.

use std::path::PathBuf;

use forebay_reading::registry::Registry;

use super::auth::path;
use super::layers::Layers;
use crate::tls::server::ServerTlsConfig;
use crate::tls::trust::ClientCertificates;

const CLIENT_CERTIFICATES: Registry<ClientCertificates> = Registry {
    what: "way with client certificates",
    members: &[("optional", ClientCertificates::Optional), ("required", ClientCertificates::Required)],
};

/// Reads `server.tls`; without a certificate and a key the listener speaks plain HTTP.
pub(super) fn server(layers: &mut Layers) -> Option<ServerTlsConfig> {
    let certificate = path(layers, "server.tls.certificate");
    let key = path(layers, "server.tls.key");
    let client_ca = path(layers, "server.tls.client_ca");
    let crl = path(layers, "server.tls.crl");
    let client_certificates = layers.get("server.tls.client_certificates", |value| {
        let text = value.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        CLIENT_CERTIFICATES.find(text).map(|found| Some(*found)).map_err(|error| error.to_string())
    });
    let needs = |layers: &mut Layers, key: &str, other: &str| {
        layers.fault(key, format!("needs {other}, which is not set"));
    };
    for (key, value) in
        [("server.tls.crl", crl.is_some()), ("server.tls.client_certificates", client_certificates.is_some())]
    {
        if value && client_ca.is_none() {
            needs(layers, key, "server.tls.client_ca");
        }
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ServerTlsConfig {
            certificate,
            key,
            client_ca,
            crl,
            client_certificates: client_certificates.unwrap_or(ClientCertificates::Optional),
        }),
        (certificate, key) => {
            check_pair(layers, certificate.as_ref(), key.as_ref(), client_ca.as_ref());
            None
        }
    }
}

fn check_pair(
    layers: &mut Layers,
    certificate: Option<&PathBuf>,
    key: Option<&PathBuf>,
    client_ca: Option<&PathBuf>,
) {
    let mut needs = |setting: &str, other: &str| {
        layers.fault(setting, format!("needs {other}, which is not set"));
    };
    match (certificate, key, client_ca) {
        (Some(_), _, _) => needs("server.tls.certificate", "server.tls.key"),
        (None, Some(_), _) => needs("server.tls.key", "server.tls.certificate"),
        (None, None, Some(_)) => needs("server.tls.client_ca", "server.tls.certificate"),
        (None, None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_faults, read};
    use super::*;

    #[test]
    fn a_certificate_and_its_key_turn_tls_on() {
        let file = "[server.tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\nclient_ca = \"ca.pem\"\n";
        let tls = |file: &str| read(file, &[]).expect("good settings").server.tls;
        assert_eq!(tls(""), None);
        let expected = ServerTlsConfig {
            certificate: "chain.pem".into(),
            key: "key.pem".into(),
            client_ca: Some("ca.pem".into()),
            crl: None,
            client_certificates: ClientCertificates::Optional,
        };
        assert_eq!(tls(file), Some(expected.clone()));
        let required = format!("{file}client_certificates = \"required\"\ncrl = \"crl.pem\"\n");
        let crl = Some("crl.pem".into());
        let client_certificates = ClientCertificates::Required;
        assert_eq!(tls(&required), Some(ServerTlsConfig { crl, client_certificates, ..expected }));
    }

    #[test]
    fn settings_that_need_another_are_refused_without_it() {
        check_faults(
            "[server.tls]\ncertificate = \"chain.pem\"\ncrl = \"crl.pem\"\nclient_certificates = \"sometimes\"\n",
            &[],
            &[
                "FILE:4: server.tls.client_certificates: `sometimes` is no way with client certificates; known: optional, required",
                "FILE:3: server.tls.crl: needs server.tls.client_ca, which is not set",
                "FILE:2: server.tls.certificate: needs server.tls.key, which is not set",
            ],
        );
        check_faults(
            "[server.tls]\nclient_ca = \"ca.pem\"\n",
            &[],
            &["FILE:2: server.tls.client_ca: needs server.tls.certificate, which is not set"],
        );
    }
}
