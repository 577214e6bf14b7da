//! The settings of TLS: on the gateway's own listener, and for calls to nodes.

use forebay_reading::registry::Registry;

use super::auth::path;
use super::layers::Layers;
use super::optional;
use crate::tls::client::ClientTlsConfig;
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
    let client_certificates = optional(layers, "server.tls.client_certificates", |text| {
        CLIENT_CERTIFICATES.find(text).copied().map_err(|error| error.to_string())
    });
    let (has_certificate, has_key, has_ca) = (certificate.is_some(), key.is_some(), client_ca.is_some());
    for (setting, lacks, other) in [
        ("crl", crl.is_some() && !has_ca, "client_ca"),
        ("client_certificates", client_certificates.is_some() && !has_ca, "client_ca"),
        ("certificate", has_certificate && !has_key, "key"),
        ("key", has_key && !has_certificate, "certificate"),
        ("client_ca", has_ca && !has_certificate && !has_key, "certificate"),
    ] {
        if lacks {
            let problem = format!("needs server.tls.{other}, which is not set");
            layers.fault(&format!("server.tls.{setting}"), problem);
        }
    }
    Some(ServerTlsConfig {
        certificate: certificate?,
        key: key?,
        client_ca,
        crl,
        client_certificates: client_certificates.unwrap_or(ClientCertificates::Optional),
    })
}

/// Reads `cluster.tls`, the files for calls to nodes over TLS.
pub(super) fn cluster(layers: &mut Layers) -> ClientTlsConfig {
    let tls = ClientTlsConfig {
        ca: path(layers, "cluster.tls.ca"),
        certificate: path(layers, "cluster.tls.certificate"),
        key: path(layers, "cluster.tls.key"),
    };
    for (setting, lacks, other) in [
        ("certificate", tls.certificate.is_some() && tls.key.is_none(), "key"),
        ("key", tls.key.is_some() && tls.certificate.is_none(), "certificate"),
    ] {
        if lacks {
            let problem = format!("needs cluster.tls.{other}, which is not set");
            layers.fault(&format!("cluster.tls.{setting}"), problem);
        }
    }
    tls
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
