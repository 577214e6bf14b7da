//! Files of TLS that change while the gateway runs: which of them wait for which.

use super::*;

const REFUSED: &str = r#"forebay_tls_reloads_total{result="refused"}"#;
const TAKEN: &str = r#"forebay_tls_reloads_total{result="taken"}"#;

/// A gateway whose clients must show a certificate that is on no list of revoked ones.
async fn with_revocation_list() -> Setup {
    let settings = |gateway: TestGateway, files: &Path, authority: &Authority| {
        write(files, "crl.pem", &authority.revoking(&[]));
        requiring_certificates(gateway, files, authority)
            .set("server.tls.crl", files.join("crl.pem").display())
    };
    Setup::start(settings).await
}

/// Waits until so many changes were refused.
async fn until_refused(setup: &Setup, times: f64) {
    eventually("the file is refused", || async { setup.metric(REFUSED).await == Some(times) }).await;
}

#[tokio::test]
async fn a_revocation_waits_neither_for_a_certificate_nor_for_authorities_that_do_not_fit() {
    let setup = with_revocation_list().await;
    let (bad, worse) =
        (setup.authority.issue("bad.example", later()), setup.authority.issue("worse.example", later()));
    let (bad_client, worse_client) = (setup.client(Some(&bad)), setup.client(Some(&worse)));
    assert_eq!(bad_client.post().await, Some((202, false)));
    // The key of this certificate never comes.
    setup.write("chain.pem", &setup.authority.issue("localhost", later()).certificate);
    until_refused(&setup, 1.0).await;
    setup.write("crl.pem", &setup.authority.revoking(&[&bad]));
    eventually("the first is out", || async { bad_client.post().await.is_none() }).await;
    assert_eq!(worse_client.post().await.map(|(status, _)| status), Some(202));
    std::fs::remove_file(setup.directory.path().join("key.pem")).expect("removed");
    until_refused(&setup, 2.0).await;
    setup.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    until_refused(&setup, 3.0).await;
    setup.write("crl.pem", &setup.authority.revoking(&[&bad, &worse]));
    eventually("the second is out", || async { worse_client.post().await.is_none() }).await;
    let good = setup.authority.issue("good.example", later());
    assert_eq!(setup.client(Some(&good)).post().await, Some((202, false)));
    assert_eq!(setup.metric(TAKEN).await, Some(2.0));
}

#[tokio::test]
async fn an_authority_with_a_new_key_and_its_list_are_taken_in_whichever_order_they_come() {
    for first in ["ca.pem", "crl.pem"] {
        let setup = with_revocation_list().await;
        let new = Authority::new("ours");
        let (good, bad) = (new.issue("good.example", later()), new.issue("bad.example", later()));
        let client = |pair| Client::new(setup.gateway.address(), &setup.authority, Some(pair));
        let content = |name| match name {
            "ca.pem" => new.0.pem(),
            _ => new.revoking(&[&bad]),
        };
        // Alone it does not fit: the list is signed by another key than that of the authority of its name.
        setup.write(first, &content(first));
        until_refused(&setup, 1.0).await;
        assert_eq!(client(&good).post().await, None);
        let second = if first == "ca.pem" { "crl.pem" } else { "ca.pem" };
        setup.write(second, &content(second));
        eventually("both are in force", || async { client(&good).post().await.is_some() }).await;
        assert_eq!(client(&bad).post().await, None, "{first} came first");
    }
}
