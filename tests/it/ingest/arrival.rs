//! The readings as they are sent on.

use super::*;

#[tokio::test]
async fn every_kind_of_value_and_time_arrives_in_canonical_form() {
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    // The members of a reading as they are sent, value and time as they arrive.
    let cases = [
        (r#""value":0,"time":0"#, "0", "1970-01-01T00:00:00Z"),
        (r#""value":9223372036854775807,"time":1"#, "9223372036854775807", "1970-01-01T00:00:00.001Z"),
        (r#""value":-9223372036854775808,"time":1.5"#, "-9223372036854775808", "1970-01-01T00:00:00.001500Z"),
        (r#""value":230.10,"time":1170288000123"#, "230.1", "2007-02-01T00:00:00.123Z"),
        (r#""value":0.1,"time":"2007-02-01T01:00:00+01:00""#, "0.1", "2007-02-01T00:00:00Z"),
        (r#""value":true,"time":"2007-01-31T23:59:60Z""#, "true", "2007-02-01T00:00:00Z"),
        (r#""value":false,"time":"2007-02-01t00:00:00.5z""#, "false", "2007-02-01T00:00:00.500Z"),
        (r#""value":"on","time":"2007-02-01T00:00:00.000001Z""#, "\"on\"", "2007-02-01T00:00:00.000001Z"),
        (r#""value":"","time":"2007-02-01T00:00:00.000000001Z""#, "\"\"", "2007-02-01T00:00:00.000000001Z"),
        (
            r#""value":"\u00e9\"\\\n\u0001\ud83d\ude00","time":"2007-02-01T00:00:00.120Z""#,
            r#""é\"\\\n\u0001😀""#,
            "2007-02-01T00:00:00.120Z",
        ),
    ];
    for (members, ..) in &cases {
        expect_accepted(setup.post(JSON, format!(r#"{{{members},"sensor":"s","device":"d"}}"#)).await, 1);
    }
    let expected = cases
        .map(|(_, value, time)| format!(r#"{{"device":"d","sensor":"s","value":{value},"time":"{time}"}}"#));
    assert_eq!(setup.lines(cases.len()).await, expected);
}

#[tokio::test]
async fn fields_arrive_in_canonical_order_whatever_order_they_had() {
    let setup = Setup::start().await;
    let body = r#"{"tags":{"z":"1","a":"\/é"},"unit":"°C","time":"2007-02-01T00:00:00Z","value":1e3,"sensor":"t","device":"d"}"#;
    expect_accepted(setup.post(JSON, body).await, 1);
    let reading: Value = serde_json::from_str(&setup.lines(1).await[0]).expect("JSON");
    assert_eq!(reading["value"], 1000.0);
    assert_eq!(reading["tags"], json!({"z":"1","a":"/é"}));
    let line = &setup.lines(1).await[0];
    let places: Vec<_> = ["device", "sensor", "value", "time", "unit", "tags"]
        .iter()
        .map(|field| line.find(&format!("\"{field}\":")).expect("the field"))
        .collect();
    assert!(places.is_sorted(), "{line}");
}

#[tokio::test]
async fn a_reading_without_time_gets_the_time_of_receipt() {
    let setup = Setup::start().await;
    let before = milliseconds_now();
    expect_accepted(setup.post(JSON, ONE).await, 1);
    let after = milliseconds_now();
    let line = setup.lines(1).await.remove(0);
    let reading: Value = serde_json::from_str(&line).expect("JSON");
    let time: jiff::Timestamp = reading["time"].as_str().expect("a time").parse().expect("RFC 3339");
    let time = u64::try_from(time.as_millisecond()).expect("after 1970");
    assert!((before..=after).contains(&time), "{before} {time} {after}");
}

#[tokio::test]
async fn precision_is_the_unit_of_times_that_are_numbers() {
    let setup = Setup::start().await;
    let cases = [
        ("", "1170288000123", "2007-02-01T00:00:00.123Z"),
        ("?precision=s", "1170288000", "2007-02-01T00:00:00Z"),
        ("?precision=s", "1170288000.25", "2007-02-01T00:00:00.250Z"),
        ("?precision=s", "1170288000.123456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=s", "1.170288000123456789e9", "2007-02-01T00:00:00.123456789Z"),
        ("", "1170288000123.456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=us", "1170288000123456.7899", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=ms", "1170288000123", "2007-02-01T00:00:00.123Z"),
        ("?precision=us", "1170288000123456", "2007-02-01T00:00:00.123456Z"),
        ("?precision=ns", "1170288000123456789", "2007-02-01T00:00:00.123456789Z"),
        ("?precision=ns&strict=false", "\"2007-02-01T00:00:00Z\"", "2007-02-01T00:00:00Z"),
    ];
    for (query, time, _) in &cases {
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        expect_accepted(setup.post_to(&format!("/v1/readings{query}"), body).await, 1);
    }
    for (line, (query, time, expected)) in setup.lines(cases.len()).await.iter().zip(&cases) {
        assert!(line.contains(&format!(r#""time":"{expected}""#)), "{query} {time}: {line}");
    }
    // Seconds taken for milliseconds of the wrong unit are far in the future.
    let body = r#"{"device":"d","sensor":"s","value":1,"time":1170288000123}"#;
    setup.post_to("/v1/readings?precision=s", body).await.expect_problem(422);
}

#[tokio::test]
async fn a_senml_pack_arrives_as_canonical_readings() {
    let setup = Setup::start().await;
    let pack = include_str!("../../../crates/forebay-codec/tests/data/senml/rfc8428-5.1.2b.json");
    expect_accepted(setup.post(SENML, pack).await, 7);
    let lines = setup.lines(7).await;
    let line = |sensor: &str, value: &str, second: u32, unit: &str| {
        format!(
            r#"{{"device":"urn:dev:ow:10e2073a0108006","sensor":"{sensor}","value":{value},"time":"2010-06-08T18:01:{second}.001Z","unit":"{unit}"}}"#
        )
    };
    assert_eq!(lines[0], line("voltage", "120.1", 16, "V"));
    assert_eq!(lines[1], line("current", "1.2", 11, "A"));
    assert_eq!(lines[6], line("current", "1.7", 16, "A"));
    let accepted = setup.gateway.metric(r#"forebay_readings_accepted_total{format="senml"}"#).await;
    assert_eq!(accepted, Some(7.0));
}

#[tokio::test]
async fn a_senml_time_counts_seconds_whatever_the_precision_and_small_ones_from_the_receipt() {
    let setup = Setup::start().await;
    let before = milliseconds_now();
    for precision in ["s", "ms", "us", "ns"] {
        let request = setup.gateway.request(&format!("/v1/readings?precision={precision}"));
        let pack = r#"[{"n":"d/s","v":1,"t":1170288000.25},{"n":"d/s","v":1,"t":-3600}]"#;
        expect_accepted(setup.gateway.send(request.header("content-type", SENML).body(pack)).await, 2);
    }
    let after = milliseconds_now();
    for lines in setup.lines(8).await.chunks(2) {
        assert!(lines[0].contains(r#""time":"2007-02-01T00:00:00.250Z""#), "{}", lines[0]);
        let reading: Value = serde_json::from_str(&lines[1]).expect("JSON");
        let time: jiff::Timestamp = reading["time"].as_str().expect("a time").parse().expect("RFC 3339");
        let time = u64::try_from(time.as_millisecond()).expect("after 1970") + 3_600_000;
        assert!((before..=after).contains(&time), "{before} {time} {after}");
    }
}

#[tokio::test]
async fn bad_records_of_a_senml_pack_are_turned_away_with_their_pointers() {
    let setup = Setup::start().await;
    let pack = r#"[{"bn":"d/"},{"n":"s","v":1},{"n":"s","vd":"aGk"},{"n":"s","v":1,"x_":1},{"n":"s","v":2}]"#;
    let reply = setup.post(SENML, pack).await.expect_status(202).json();
    assert_eq!((&reply["accepted"], &reply["rejected"]), (&json!(2), &json!(2)), "{reply}");
    let pointers: Vec<_> = (0..2).map(|index| reply["errors"][index]["pointer"].clone()).collect();
    assert_eq!(pointers, ["/2/vd", "/3/x_"], "{reply}");
    setup.lines(2).await;
}

#[tokio::test]
async fn a_senml_pack_with_a_newer_version_or_a_bad_record_of_a_strict_one_is_422_and_nothing_is_taken() {
    let setup = Setup::start().await;
    for pack in [
        r#"[{"bver":11,"n":"d/s","v":1},{"n":"d/s","v":2}]"#,
        r#"[{"n":"d/s","v":1},{"bver":11,"n":"d/s","v":2}]"#,
    ] {
        let problem = setup.post(SENML, pack).await.expect_problem(422).json();
        let pointer = problem["errors"][0]["pointer"].as_str().expect("a pointer");
        assert!(pointer.ends_with("/bver"), "{problem}");
    }
    let request = setup.gateway.request("/v1/readings?strict=true").header("content-type", SENML);
    let reply = setup.gateway.send(request.body(r#"[{"n":"d/s","v":1},{"n":"d/s"}]"#)).await;
    assert_eq!(reply.expect_problem(422).json()["errors"][0]["pointer"], "/1/v");
    setup.post(SENML, r#"[{"n":"d/s","v":1}"#).await.expect_problem(400);
    setup.expect_nothing_taken().await;
}

#[tokio::test]
async fn a_body_may_be_compressed_in_every_encoding_of_the_contract() {
    let setup = Setup::start().await;
    let body = to_json(&readings(50));
    let cases = [
        ("identity", body.clone()),
        ("gzip", gzip(&body)),
        ("GZIP", gzip(&body)),
        ("deflate", zlib(&body)),
        ("deflate", raw_deflate(&body)),
        ("zstd", zstd(&body)),
    ];
    for (encoding, compressed) in &cases {
        expect_accepted(setup.post_encoded(encoding, compressed.clone()).await, 50);
    }
    eventually("all arrive", || async { setup.node.count() == 50 * cases.len() }).await;
    assert_eq!(setup.node.readings()[..50], readings(50));
}

#[tokio::test]
async fn a_large_request_is_taken_whole_and_arrives_in_order() {
    let setup = Setup::with(|gateway| gateway.set("cluster.max_in_flight", 1)).await;
    let many = readings(20_000);
    expect_accepted(setup.post(NDJSON, to_ndjson(&many)).await, many.len());
    eventually("all arrive", || async { setup.gateway.account("delivered").await == 20_000 }).await;
    assert_eq!(setup.node.readings(), many);
}

#[tokio::test]
async fn an_empty_unit_is_at_most_64_bytes_long() {
    let setup = Setup::with(|gateway| gateway.set("ingest.earliest", EPOCH)).await;
    let body = r#"{"device":"d","sensor":"s","value":1,"time":0,"unit":""}"#;
    expect_accepted(setup.post(JSON, body).await, 1);
}
