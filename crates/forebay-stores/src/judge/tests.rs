use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::{STORES, StoreConfig};

const PAGE: &str = "<!DOCTYPE html><html><head><title>Sign in</title>";

fn judged(format: &str, status: u16, content_type: &str, body: &str) -> Option<Blame> {
    let store = STORES.find(format).expect("a format")(&StoreConfig::default());
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a header"));
    }
    judge(&*store, &NodeAnswer { status, headers: &headers, body }).map(|judgement| judgement.blame)
}

/// The formats whose answers have no items.
fn formats() -> impl Iterator<Item = &'static str> {
    STORES.names().filter(|format| *format != "elasticsearch")
}

#[test]
fn a_web_page_is_not_a_delivery_in_any_format_under_any_content_type() {
    let pages = [
        PAGE,
        "<html>Welcome</html>",
        "<HTML lang=de>",
        "<!doctype HTML PUBLIC",
        "\r\n\t <!DocType html>",
        "\u{feff}<html>",
        " \u{feff}\u{a0}\n<hTmL",
    ];
    for format in STORES.names() {
        for page in pages {
            for (status, content_type) in
                [(200, "text/html"), (202, "application/json"), (204, ""), (299, "text/plain; charset=utf-8")]
            {
                assert_eq!(judged(format, status, content_type, page), Some(Blame::Node), "{format} {page}");
            }
        }
    }
}

#[test]
fn any_other_body_of_a_success_is_a_delivery_even_as_html_and_an_empty_one_always() {
    let bodies = [
        "",
        "ok",
        "OK\n",
        "{}",
        "[]",
        "null",
        "{\"accepted\":3}",
        "{\"error\":null}",
        "{\"status\":\"success\"}",
        "html>",
        "see <html>",
        "<htm",
    ];
    for format in formats() {
        for body in bodies {
            // No success of ClickHouse itself begins like this.
            let is_odd = format == "clickhouse" && body.starts_with('<');
            for (status, content_type) in [(200, "text/html"), (201, "application/json"), (204, "")] {
                let expected = is_odd.then_some(Blame::Node);
                assert_eq!(judged(format, status, content_type, body), expected, "{format} {status} {body}");
            }
        }
        assert_eq!(judged(format, 200, "application/problem+json", ""), None, "{format}");
    }
}

#[test]
fn a_success_that_reports_an_error_is_not_a_delivery() {
    for format in formats() {
        for body in [
            r#"{"error":"timeout"}"#,
            r#"{"error":{"type":"x","reason":"y"},"status":500}"#,
            r#"{"status":"error","errorType":"unavailable","error":"x"}"#,
            r#"{"errors":true}"#,
            r#"{"error":"it was cut in the midd"#,
            r#"{"results":[{"statement_id":0},{"error":"database not found"}]}"#,
        ] {
            assert_eq!(judged(format, 200, "application/json", body), Some(Blame::Node), "{format} {body}");
        }
        let problem = r#"{"type":"about:blank","title":"Bad Gateway","detail":"no"}"#;
        assert_eq!(judged(format, 200, "application/problem+json", problem), Some(Blame::Node), "{format}");
        assert_eq!(
            judged(format, 200, "Application/Problem+JSON; charset=utf-8", "{"),
            Some(Blame::Node),
            "{format}"
        );
    }
    let body = r#"{"code":"internal error","message":"x"}"#;
    assert_eq!(judged("influx", 200, "application/json", body), Some(Blame::Node), "{body}");
    assert_eq!(judged("ndjson", 200, "application/json", body), None, "that is InfluxDB's own way");
    assert_eq!(judged("clickhouse", 200, "", "Code: 241. DB::Exception: x"), Some(Blame::Node));
    assert_eq!(judged("clickhouse", 200, "", "Code: 27. DB::Exception: x"), Some(Blame::Readings));
}

#[test]
fn words_of_failed_answers_count_only_in_the_format_that_knows_them() {
    for format in STORES.names() {
        for status in [400, 500, 503] {
            assert_eq!(judged(format, status, "text/html", PAGE), None, "{format}: the status says it");
        }
        for tls in [
            "Client sent an HTTP request to an HTTPS server.\n",
            "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n",
            "<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n",
            "<html>\r\n<head><title>400 Request Header Or Cookie Too Large</title></head>\r\n",
        ] {
            assert_eq!(judged(format, 400, "", tls), Some(Blame::Setup), "{format} {tls}");
        }
        for repeated in [
            r#"{"error":"field type conflict on measurement \"The SSL certificate error\""}"#,
            r#"{"error":"no such index [<html><title>400 The SSL certificate error</title>]"}"#,
            "Client sent an HTTP request to an HTTPS server.: no such field\n",
        ] {
            assert_eq!(
                judged(format, 400, "", repeated),
                None,
                "{format}: a device may be called so: {repeated}"
            );
        }
    }
    let beyond = r#"{"error":"partial write: points beyond retention policy dropped=1"}"#;
    let older = "out of order sample";
    for (format, body, expected) in [
        ("influx", beyond, Some(Blame::Readings)),
        ("influx", older, None),
        ("remote-write", older, Some(Blame::Readings)),
        ("remote-write", beyond, None),
        ("ndjson", beyond, None),
        ("json", older, None),
    ] {
        assert_eq!(judged(format, 500, "", body), expected, "{format} {body}");
    }
}

#[test]
fn the_code_of_clickhouse_counts_even_with_an_empty_body() {
    let store = STORES.find("clickhouse").expect("a format")(&StoreConfig::default());
    let code = (HeaderName::from_static("x-clickhouse-exception-code"), HeaderValue::from_static("241"));
    let headers = HeaderMap::from_iter([code]);
    let judgement = judge(&*store, &NodeAnswer { status: 200, headers: &headers, body: "" });
    assert_eq!(judgement, Some(Judgement { blame: Blame::Node, why: Some("reports an error") }));
}
