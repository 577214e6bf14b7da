//! Settings that say which readings are turned away.

use super::*;

#[tokio::test]
async fn readings_too_far_from_the_clock_are_turned_away() {
    let setup =
        Setup::with(|gateway| gateway.set("ingest.max_future", "1m").set("ingest.max_past", "2m")).await;
    let now = i64::try_from(milliseconds_now()).expect("this age");
    for (offset_seconds, status) in [(0, 202), (50, 202), (70, 422), (-110, 202), (-130, 422)] {
        let time = now + offset_seconds * 1000;
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        let reply = setup.post(JSON, body).await.expect_status(status);
        if status == 422 {
            assert_eq!(reply.json()["errors"][0]["pointer"], "/time", "{offset_seconds}");
        }
    }
    assert_eq!(setup.gateway.account("accepted").await, 3);
    assert_eq!(setup.gateway.metric(r#"forebay_readings_rejected_total{reason="time"}"#).await, Some(2.0));
}

#[tokio::test]
async fn by_default_an_hour_ahead_is_too_far_and_no_past_since_2001_is() {
    let setup = Setup::start().await;
    let now = i64::try_from(milliseconds_now()).expect("this age");
    let earliest = 978_307_200_000;
    for (time, status) in
        [(0, 422), (earliest - 1, 422), (earliest, 202), (now + 3_590_000, 202), (now + 3_610_000, 422)]
    {
        let body = format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
        setup.post(JSON, body).await.expect_status(status);
    }
}

#[tokio::test]
async fn a_reading_before_ingest_earliest_is_turned_away_and_the_unit_that_fits_is_named() {
    let setup = Setup::start().await;
    let post = async |content_type: &str, path: &str, body: String| {
        let request = setup.gateway.request(path).header("content-type", content_type).body(body);
        setup.gateway.send(request).await
    };
    let reading = |time: &str| format!(r#"{{"device":"d","sensor":"s","value":1,"time":{time}}}"#);
    for (path, time, unit) in [
        ("/v1/readings", "1170288000", "s"),
        ("/v1/readings", "1.170288e9", "s"),
        ("/v1/readings", "1170288000000000", "us"),
        ("/v1/readings", "1170288000000000000", "ns"),
        ("/v1/readings?precision=s", "1170288000000", "ms"),
        ("/v1/readings?precision=us", "1170288000", "s"),
        ("/v1/readings?precision=ns", "1170288000000", "ms"),
    ] {
        for (content_type, body) in
            [(JSON, reading(time)), (JSON, format!("[{}]", reading(time))), (NDJSON, reading(time))]
        {
            let detail = post(content_type, path, body).await.expect_problem(422).detail();
            assert!(detail.contains(&format!("did you mean `precision={unit}`?")), "{time}: {detail}");
        }
    }
    for time in ["0", "\"2000-12-31T23:59:59.999999999Z\"", "\"1970-01-01T00:00:00Z\""] {
        let detail = post(JSON, "/v1/readings", reading(time)).await.expect_problem(422).detail();
        assert!(detail.contains("is earlier than 2001-01-01T00:00:00Z"), "{time}: {detail}");
        assert!(!detail.contains("did you mean"), "{detail}");
    }
    let pack = r#"[{"n":"d/s","v":1,"t":1170288000000}]"#;
    let detail = post(SENML, "/v1/readings", pack.to_owned()).await.expect_problem(422).detail();
    assert!(detail.contains("it would fit as milliseconds, but SenML counts seconds"), "{detail}");
    let pack = r#"[{"n":"d/s","v":1,"t":978307199}]"#;
    post(SENML, "/v1/readings", pack.to_owned()).await.expect_problem(422);
    setup.expect_nothing_taken().await;
    assert_eq!(setup.gateway.metric(r#"forebay_readings_rejected_total{reason="time"}"#).await, Some(26.0));
}

#[tokio::test]
async fn unknown_fields_are_passed_over_where_the_settings_say_so() {
    let setup =
        Setup::with(|gateway| gateway.set("ingest.unknown_fields", "ignore").set("ingest.earliest", EPOCH))
            .await;
    let extra = r#"{"device":"d","x":{"y":[1,{"z":1e999}]},"sensor":"s","value":1,"time":0,"X":2,"":null}"#;
    expect_accepted(setup.post(JSON, extra).await, 1);
    expect_accepted(setup.post(NDJSON, extra).await, 1);
    let expected = r#"{"device":"d","sensor":"s","value":1,"time":"1970-01-01T00:00:00Z"}"#;
    assert_eq!(setup.lines(2).await, [expected, expected]);
}
