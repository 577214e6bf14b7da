use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const STORED: &str = r#"{"create":{"_index":"readings","_id":"k-0","_version":1,"result":"created","_shards":{"total":2,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}}"#;

fn failed(status: u16, error: &Value) -> String {
    json!({"create": {"_index": "readings", "_id": "k-1", "status": status, "error": error}}).to_string()
}

fn bulk(errors: bool, items: &[&str]) -> String {
    format!(r#"{{"took":30,"ingest_took":1,"errors":{errors},"items":[{}]}}"#, items.join(","))
}

fn read(body: &str, readings: usize) -> Result<Vec<(usize, u16, String)>, String> {
    let items = failed_items(body.as_bytes(), readings)?;
    Ok(items.into_iter().map(|item| (item.index, item.status, item.detail)).collect())
}

#[test]
fn items_that_are_not_stored_are_returned_with_their_places_statuses_and_reasons() {
    let conflict = failed(
        409,
        &json!({"type": CONFLICT, "reason": "[k-1]: version conflict, document already exists (current version [1])"}),
    );
    let parsing = failed(
        400,
        &json!({
            "type": "document_parsing_exception",
            "reason": "[1:36] failed to parse field [value] of type [long] in document with id 'k-1'.",
            "caused_by": {"type": "illegal_argument_exception", "reason": "For input string: \"on\""},
        }),
    );
    let full = failed(429, &json!({"type": "es_rejected_execution_exception", "reason": "rejected"}));
    let words = |text: &str| text.to_owned();
    assert_eq!(read(&bulk(false, &[STORED, STORED]), 2), Ok(vec![]));
    assert_eq!(read(&bulk(true, &[STORED, &conflict, STORED]), 3), Ok(vec![]), "it is there already");
    assert_eq!(
        read(&bulk(true, &[&parsing, STORED, &conflict, &full, &failed(404, &json!("no such index"))]), 5),
        Ok(vec![
            (
                0,
                400,
                words(
                    "document_parsing_exception: [1:36] failed to parse field [value] of type [long] in document with id 'k-1'.; caused by illegal_argument_exception: For input string: \"on\""
                )
            ),
            (3, 429, words("es_rejected_execution_exception: rejected")),
            (4, 404, words("\"no such index\"")),
        ])
    );
    let other = failed(409, &json!({"type": "resource_already_exists_exception", "reason": "x"}));
    assert_eq!(read(&bulk(true, &[&other]), 1).map(|items| items.len()), Ok(1), "no conflict of versions");
    assert_eq!(read(&bulk(true, &[r#"{"index":{"status":409}}"#]), 1), Ok(vec![]));
}

#[test]
fn a_filtered_answer_is_understood_if_it_says_enough() {
    assert_eq!(read(r#"{"errors":false}"#, 3), Ok(vec![]));
    assert_eq!(read(r#"{"errors":false,"items":null}"#, 3), Ok(vec![]));
    let only_statuses = r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":400}}]}"#;
    assert_eq!(read(only_statuses, 2), Ok(vec![(1, 400, "no reason given".to_owned())]));
}

#[test]
fn an_answer_that_does_not_fit_the_bulk_request_is_an_error() {
    let check = |body: &str, readings: usize, expected: &str| {
        let error = read(body, readings).expect_err(body);
        assert!(error.contains(expected), "{error}");
    };
    check("", 1, "it is no answer to a bulk request: EOF");
    check("<html>", 1, "it is no answer to a bulk request: expected value");
    check("{}", 1, "missing field `errors`");
    check("[]", 1, "no answer to a bulk request");
    check(r#"{"acknowledged":true}"#, 1, "missing field `errors`");
    check(r#"{"errors":"no","items":[]}"#, 1, "invalid type");
    check(r#"{"errors":true}"#, 1, "it tells of errors, and not of which");
    check(r#"{"errors":true,"items":[]}"#, 1, "it speaks of 0 documents, and 1 were sent");
    check(r#"{"errors":false,"items":[]}"#, 3, "it speaks of 0 documents, and 3 were sent");
    check(&bulk(false, &[STORED]), 2, "it speaks of 1 documents, and 2 were sent");
    check(&bulk(false, &[STORED; 3]), 2, "it speaks of 3 documents, and 2 were sent");
    check(&bulk(true, &["{}"]), 1, "an item must have one action");
    check(&bulk(true, &[r#"{"create":{"status":201},"index":{"status":201}}"#]), 1, "must have one action");
    check(&bulk(true, &["1"]), 1, "expected an item with one action");
    check(&bulk(true, &[r#"{"create":{}}"#]), 1, "item 0 has no status");
    check(&bulk(true, &[r#"{"create":{"status":7}}"#]), 1, "item 0 has no status");
    check(&bulk(true, &[r#"{"create":{"status":70000}}"#]), 1, "no answer to a bulk request");
    check(&bulk(true, &[r#"{"create":{"status":-1}}"#]), 1, "no answer to a bulk request");
    check(&format!("{} x", bulk(false, &[STORED])), 1, "trailing characters");
    check(&bulk(false, &[STORED])[..100], 1, "EOF");
}

#[test]
fn the_words_about_an_item_are_kept_in_part() {
    let long = failed(400, &json!({"type": "t", "reason": "é".repeat(10_000)}));
    let items = read(&bulk(true, &[&long]), 1).expect("an answer");
    assert!((1023..=1024).contains(&items[0].2.len()), "{}", items[0].2.len());
    let raw = failed(400, &json!("x".repeat(10_000)));
    assert_eq!(read(&bulk(true, &[&raw]), 1).expect("an answer")[0].2.len(), 1024);
    let depth = 100_000;
    let deep = format!("{}1{}", r#"{"caused_by":"#.repeat(depth), "}".repeat(depth));
    let item = format!(r#"{{"create":{{"status":400,"error":{deep}}}}}"#);
    assert_eq!(read(&bulk(true, &[&item]), 1).expect("an answer")[0].2, deep[..1024]);
    // A chain of 100 errors is read, and its words are cut.
    let nested = (0..100).fold(json!({"type": "t"}), |inner, _| json!({"reason": "r", "caused_by": inner}));
    let items = read(&bulk(true, &[&failed(400, &nested)]), 1).expect("an answer");
    assert_eq!(items[0].2.len(), 1024);
}

#[test]
fn an_error_for_every_document_blames_the_setup_and_no_document_can_feign_one() {
    let check = |error: Value, expected: Option<Blame>| {
        let items = failed_items(bulk(true, &[&failed(400, &error)]).as_bytes(), 1).expect("an answer");
        assert_eq!(items[0].blame, expected, "{error}");
    };
    let missing = "data stream timestamp field [@timestamp] is missing";
    let argument = "illegal_argument_exception";
    check(
        json!({"type": "document_parsing_exception", "reason": format!("[1:2] failed to parse: {missing}"),
            "caused_by": {"type": argument, "reason": missing}}),
        Some(Blame::Setup),
    );
    check(json!({"type": "index_closed_exception", "reason": "closed"}), Some(Blame::Setup));
    check(json!({"type": argument, "reason": "pipeline with id [p] does not exist"}), Some(Blame::Setup));
    check(
        json!({"type": argument, "reason": "no write index is defined for alias [a]."}),
        Some(Blame::Setup),
    );
    for said in [missing, "pipeline with id [p] does not exist", "index_closed_exception"] {
        let input = format!("For input string: \"{said}\"");
        check(
            json!({"type": "document_parsing_exception", "reason": format!("Preview of field's value: '{said}'"),
                "caused_by": {"type": argument, "reason": input}}),
            None,
        );
    }
    check(json!({"type": argument, "reason": "Limit of total fields [1000] has been exceeded"}), None);
    check(
        json!({"type": argument, "reason": "Number of documents in the index can't exceed [2147483519]"}),
        Some(Blame::Setup),
    );
    let shards = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000]";
    check(json!({"type": "validation_exception", "reason": shards}), Some(Blame::Setup));
}

#[test]
fn a_document_that_does_not_fit_is_blamed_under_any_status_of_its_item() {
    let check = |status: u16, error: Value, expected: Option<Blame>| {
        let items = failed_items(bulk(true, &[&failed(status, &error)]).as_bytes(), 1).expect("an answer");
        assert_eq!(items[0].blame, expected, "{status} {error}");
    };
    for kind in ["mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"]
    {
        let outer = json!({"type": "exception", "reason": "java.lang.IllegalArgumentException", "caused_by": {"type": kind, "reason": "r"}});
        for error in [json!({"type": kind, "reason": "r"}), outer] {
            check(500, error.clone(), Some(Blame::Readings));
            check(404, error.clone(), Some(Blame::Readings));
            for status in [400, 429, 503] {
                check(status, error.clone(), None);
            }
        }
    }
    for kind in [
        "es_rejected_execution_exception",
        "unavailable_shards_exception",
        "exception",
        "illegal_argument_exception",
    ] {
        check(500, json!({"type": kind, "reason": "mapper_parsing_exception"}), None);
    }
}

#[test]
fn whole_requests_are_judged_by_their_status_except_for_errors_that_no_reading_causes() {
    let headers = HeaderMap::new();
    let blame = |status, body: &str| blame(&NodeAnswer { status, headers: &headers, body });
    let explicit = r#"{"error":{"root_cause":[{"type":"illegal_argument_exception","reason":"explicit index in bulk is not allowed"}]},"status":400}"#;
    assert_eq!(blame(400, explicit), Some(Blame::Setup));
    assert_eq!(
        blame(
            400,
            r#"{"error":{"root_cause":[{"type":"x","reason":"Malformed action/metadata line [1]"}]}}"#
        ),
        Some(Blame::Setup)
    );
    assert_eq!(blame(400, r#"{"error":"else"}"#), None);
    assert_eq!(blame(500, explicit), None);
    let mapping = r#"{"error":{"type":"mapper_parsing_exception","reason":"r"},"status":500}"#;
    assert_eq!((blame(500, mapping), blame(400, mapping)), (Some(Blame::Readings), None));
    assert_eq!(blame(500, &mapping[..50]), None, "of what was cut only the status is known");
}

#[test]
fn the_limit_of_an_answer_allows_the_longest_answers() {
    assert!(bytes_max(0) <= 64 << 10);
    assert!(bytes_max(1) > 4 * 4096, "an error may repeat a text more than once");
    let most = failed(400, &json!({"type": "t", "reason": "\u{1}".repeat(4096 / 6)})).len();
    assert!(bytes_max(1000) > 1000 * most && bytes_max(1000) < 32 << 20);
    assert!(bytes_max(1_000_000) > 1_000_000 * STORED.len());
    assert_eq!(bytes_max(usize::MAX), usize::MAX);
}

proptest! {
    #[test]
    fn no_answer_can_cause_a_panic(
        mut body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            Just(bulk(true, &[STORED, &failed(400, &json!({"type": "t", "reason": "r"}))]).into_bytes()),
        ],
        at in any::<prop::sample::Index>(),
        byte: u8,
        readings in 0..4usize,
    ) {
        if let Some(place) = (!body.is_empty()).then(|| at.index(body.len())) {
            body[place] = byte;
        }
        if let Ok(items) = failed_items(&body, readings) {
            prop_assert!(items.iter().all(|item| item.index < readings && item.detail.len() <= DETAIL_BYTES_MAX));
        }
    }
}
