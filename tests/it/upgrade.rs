//! The promises of an upgrade: a directory that an earlier version wrote is opened, with its readings, its
//! batches and its keys.
//!
//! `tests/data/README.md` says how the directory was made.

use std::io::Read as _;
use std::path::Path;

use crate::support::compression::{gzip, zlib};
use crate::support::{FakeNode, Reply, RunningGateway, TestGateway, eventually};

/// The directory, each file compressed.
const WRITTEN_BY_0_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/buffer-0.1");
/// The bodies of the requests with keys; the second was compressed with gzip.
const PLAIN: &str = r#"[{"device":"meter-1","sensor":"voltage","value":230,"time":"2026-11-28T10:00:00Z"},{"device":"meter-1","sensor":"voltage","value":231,"time":"2026-11-28T10:00:01Z"},{"device":"meter-2","sensor":"voltage","value":1.5,"time":"2026-11-28T10:00:02Z"},{"device":"meter-2","sensor":"on","value":true,"time":"2026-11-28T10:00:03Z"}]"#;
const PACKED: &str = r#"[{"device":"meter-3","sensor":"state","value":"gr\u00fcn","unit":"x","tags":{"site":"north"},"time":"2026-11-28T10:00:04.123456789Z"}]"#;
const PARTIAL: &str = r#"[{"device":"meter-4","sensor":"voltage","value":4,"time":"2026-11-28T10:00:05Z"},{"device":"meter-4"}]"#;
/// The readings that were not delivered: a noted batch, which may have been sent, and the readings after it.
const NOTED: &str = r#"{"device":"meter-3","sensor":"state","value":"grün","time":"2026-11-28T10:00:04.123456789Z","unit":"x","tags":{"site":"north"}}"#;
const NOTED_KEY: &str = "ddc49dcfecf4c0dcdb3fc34620e074cb-1";
const LAST: &str = r#"{"device":"meter-4","sensor":"voltage","value":4,"time":"2026-11-28T10:00:05Z"}"#;

/// Puts every file of `from` below `to`, decompressed.
fn unpack(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_stem().expect("a name"));
        if from.is_dir() {
            unpack(&from, &to);
            continue;
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&from).expect("a file");
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
        std::fs::write(to, bytes).expect("written");
    }
}

async fn post(gateway: &RunningGateway, key: &str, encoding: &str, body: impl Into<Vec<u8>>) -> Reply {
    let request = gateway.request("/v1/readings").header("idempotency-key", format!("\"{key}\""));
    gateway.send(request.header("content-encoding", encoding).body(body.into())).await
}

#[tokio::test]
async fn a_directory_of_0_1_is_opened_with_its_readings_its_batches_and_its_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    unpack(Path::new(WRITTEN_BY_0_1), &directory.path().join("buffer"));
    let node = FakeNode::start().await;
    let start = || {
        let gateway = TestGateway::new().on_disk(directory.path()).set("ingest.idempotency_window", "30d");
        gateway.node(&node).start()
    };
    let gateway = start().await;

    eventually("what was not delivered then is", || async { node.count() == 2 }).await;
    let received = node.received();
    let body = |key: &str| received.iter().find(|batch| batch.key() == key).map(|batch| batch.body.to_vec());
    assert_eq!(
        body(NOTED_KEY),
        Some(format!("{NOTED}\n").into_bytes()),
        "what was noted goes again as it was"
    );
    let all: Vec<u8> = received.iter().flat_map(|batch| batch.body.to_vec()).collect();
    assert!(String::from_utf8(all).expect("UTF-8").contains(LAST));
    eventually("the books say so", || async { gateway.account("delivered").await == 2 }).await;
    assert_eq!(gateway.account("recovered").await, 2);

    check_keys(&gateway).await;
    assert_eq!(gateway.stop().await.undelivered, 0);
    // This version has written the directory since, and keeps the keys on.
    let gateway = start().await;
    check_keys(&gateway).await;
    assert_eq!((gateway.account("recovered").await, node.count()), (0, 2));
}

/// Bodies are compared where they can be; a compressed one cannot, and counts as the same request.
async fn check_keys(gateway: &RunningGateway) {
    for (key, encoding, body, status) in [
        ("plain", "identity", PLAIN.as_bytes().to_vec(), 202),
        ("plain", "identity", b"[]".to_vec(), 422),
        ("plain", "gzip", gzip(PLAIN.as_bytes()), 202),
        ("packed", "gzip", gzip(PACKED.as_bytes()), 202),
        ("packed", "deflate", zlib(PACKED.as_bytes()), 202),
        ("partial", "identity", PARTIAL.as_bytes().to_vec(), 202),
        ("partial", "identity", PLAIN.as_bytes().to_vec(), 422),
    ] {
        let reply = post(gateway, key, encoding, body).await.expect_status(status);
        let replayed = if status == 202 { "true" } else { "" };
        assert_eq!(reply.header("idempotency-replayed"), replayed, "{key} {encoding}");
    }
    let partial = post(gateway, "partial", "identity", PARTIAL).await.json();
    assert_eq!((&partial["accepted"], &partial["rejected"]), (&1.into(), &1.into()), "{partial}");
    assert_eq!(partial["errors"][0]["pointer"], "/1/sensor", "{partial}");
    assert_eq!(gateway.account("accepted").await, 0);
}
