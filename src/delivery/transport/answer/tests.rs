use std::io::Write as _;

use forebay_stores::{STORES, StoreConfig};
use http::HeaderValue;

use super::*;

#[test]
fn a_batch_stored_in_part_is_recognised_even_if_the_setup_is_wrong() {
    let item = |index| FailedItem { index, status: 403, detail: String::new(), blame: None };
    let judged = |failed: Vec<FailedItem>| {
        judge_items(
            Answer { verdict: AnswerVerdict::Delivered, ..Answer::internal(String::new()) },
            Ok(failed),
            3,
        )
    };
    let in_part = judged(vec![item(0), item(2)]);
    assert_eq!((in_part.verdict, in_part.is_stored_in_part), (AnswerVerdict::Misconfigured, true));
    let not_at_all = judged((0..3).map(item).collect());
    assert_eq!((not_at_all.verdict, not_at_all.is_stored_in_part), (AnswerVerdict::Misconfigured, false));
}

#[test]
fn each_status_means_what_the_contract_says() {
    let check = |statuses: &[u16], expected: AnswerVerdict| {
        for status in statuses {
            let status = StatusCode::from_u16(*status).expect("a status");
            assert_eq!(classify(status), expected, "{status}");
        }
    };
    check(&[200, 201, 202, 204, 299], AnswerVerdict::Delivered);
    check(&[408, 409, 425, 429, 503], AnswerVerdict::Retry(RetryReason::Busy));
    check(&[500, 502, 504, 507, 599], AnswerVerdict::Retry(RetryReason::ServerError));
    check(&[413], AnswerVerdict::TooLarge);
    check(&[400, 422], AnswerVerdict::Refused);
    check(
        &[401, 403, 404, 405, 501, 508, 301, 302, 307, 308, 304, 402, 410, 415, 418],
        AnswerVerdict::Misconfigured,
    );
}

/// Reads an answer to a batch of one reading.
async fn read(format: &str, status: u16, headers: &[(&'static str, &'static str)], body: &[u8]) -> Answer {
    let store = STORES.find(format).expect("a format")(&StoreConfig::default());
    let url = "http://me:s3cret-pass@node/".parse().expect("a URL");
    let secrets = Arc::new(Secrets::of([url].iter(), &HeaderMap::new()));
    let chunks: Vec<_> = body.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let mut answer = WireAnswer::new(futures_util::stream::iter(chunks).boxed());
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    AnswerReader { store: &*store, secrets: &secrets, readings: 1, deadline }.read(answer).await
}

const FAILED: AnswerVerdict = AnswerVerdict::Retry(RetryReason::ServerError);

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_body_that_was_compressed_or_cut_on_the_way_is_judged_by_its_content() {
    let page = format!("<!doctype html>{}", "<p>sign in</p>".repeat(20_000));
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(page.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let zstd = zstd::bulk::compress(page.as_bytes(), 1).expect("memory");
    for format in STORES.names() {
        for (encoding, body) in [
            ("gzip", gzip(page.as_bytes())),
            ("X-GZIP", gzip(page.as_bytes())),
            ("deflate", zlib.clone()),
            ("zstd", zstd.clone()),
        ] {
            let whole = read(format, 200, &[("content-encoding", encoding)], &body).await;
            assert_eq!(whole.verdict, FAILED, "{format} {encoding}");
            assert!(
                whole.detail.contains("is a web page") && whole.detail.contains("sign in"),
                "{}",
                whole.detail
            );
            let cut = read(format, 200, &[("content-encoding", encoding)], &body[..body.len() / 2]).await;
            // Zstandard decodes nothing of an incomplete block.
            assert!(cut.verdict == FAILED || encoding == "zstd", "{format} {encoding}: {}", cut.detail);
        }
        assert_eq!(read(format, 200, &[], page.as_bytes()).await.verdict, FAILED, "{format}");
        assert_eq!(read(format, 204, &[], b"").await.verdict, AnswerVerdict::Delivered, "{format}");
        assert_eq!(
            read(format, 200, &[("content-encoding", "gzip")], b"").await.verdict,
            AnswerVerdict::Delivered,
            "{format}"
        );
    }
    let other = read("ndjson", 200, &[("content-encoding", "gzip")], b"not compressed").await;
    assert_eq!((other.verdict, other.body.as_str()), (AnswerVerdict::Delivered, "not compressed"));
    let bulk = br#"{"errors":false,"items":[{"create":{"status":201}}]}"#;
    let bulk = read("elasticsearch", 200, &[("content-encoding", "gzip")], &gzip(bulk)).await;
    assert_eq!(bulk.verdict, AnswerVerdict::Delivered, "{}", bulk.detail);
    // Decompression stops at the limit for bodies.
    let bomb = read("ndjson", 500, &[("content-encoding", "gzip")], &gzip(&vec![b'x'; 5 << 20])).await;
    assert_eq!((bomb.verdict, bomb.body.len()), (FAILED, EXCERPT_BYTES_MAX));
}

#[tokio::test]
async fn secrets_are_hidden_anywhere_in_a_text_before_it_is_cut() {
    for before in (0..EXCERPT_BYTES_MAX + 40).step_by(7) {
        for secret in ["s3cret-pass", "%733cret-pass", "bWU6czNjcmV0LXBhc3M="] {
            let body = format!("{} {secret} and more", "x".repeat(before));
            for (format, status) in [("ndjson", 400), ("influx", 500), ("clickhouse", 404)] {
                let answer = read(format, status, &[], body.as_bytes()).await;
                for text in [&answer.body, &answer.detail] {
                    // At most a part of the replacement `***` may be there.
                    let rest = text.replace('x', "");
                    assert!(!["s3cr", "733c", "bWU6"].iter().any(|part| rest.contains(part)), "{rest}");
                }
            }
        }
    }
    let long = "s3cret-pass ".repeat(3000);
    let answer = read("ndjson", 500, &[], long.as_bytes()).await;
    assert!(!answer.body.contains('s') && answer.body.len() <= EXCERPT_BYTES_MAX, "{}", answer.body);
}

#[tokio::test]
async fn secrets_are_hidden_in_texts_about_single_readings() {
    for before in [0, 1005, 1010, 1020] {
        let reason = format!("{}s3cret-pass is wrong", "x".repeat(before));
        let error = serde_json::json!({"type": "t", "reason": reason});
        let body =
            serde_json::json!({"errors": true, "items": [{"create": {"status": 400, "error": error}}]});
        let answer = read("elasticsearch", 200, &[], body.to_string().as_bytes()).await;
        let [item] = &answer.refused[..] else { panic!("one: {answer:?}") };
        let rest = item.detail.replace('x', "");
        assert!(!rest.contains("s3cr") && !answer.body.contains("s3cr"), "{before}: {rest}");
    }
}

#[tokio::test]
async fn a_loop_is_explained_in_words() {
    let answer = read("ndjson", 508, &[], b"see Forebay-Via").await;
    assert_eq!(answer.verdict, AnswerVerdict::Misconfigured);
    assert_eq!(
        answer.detail,
        "508 Loop Detected: batches that are sent there come back to this gateway: see Forebay-Via"
    );
}
