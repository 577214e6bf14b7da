//! The meaning of a node's answers.

#![expect(clippy::cast_precision_loss, reason = "numbers of a test are small")]

use super::*;

#[tokio::test]
async fn every_2xx_is_a_delivery() {
    let node = FakeNode::answering([200, 201, 202, 204, 299].map(Answer::status)).await;
    let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
    gateway.post(&readings(5)).await.expect_status(202);
    eventually("they are settled", || async { gateway.account("delivered").await == 5 }).await;
    assert_eq!(node.requests(), 5);
}

#[tokio::test]
async fn a_batch_that_fails_is_sent_again_with_the_same_key_and_readings() {
    let statuses = [408, 409, 425, 429, 500, 502, 503, 504, 507, 599];
    let node = FakeNode::answering(statuses.map(Answer::status)).await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("the readings arrive", || async { node.readings() == readings(3) }).await;

    assert_eq!(node.requests(), statuses.len() + 1);
    assert!(node.received().iter().all(|batch| batch.key() == node.received()[0].key()));
    assert_keys_carry_the_same(&node.received());
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    let metric = async |labels: &str| gateway.metric(&labels.replace("NODE", &node.id())).await;
    assert_eq!(metric("forebay_batches_total{node=\"NODE\",outcome=\"unavailable\"}").await, Some(10.0));
    assert_eq!(metric("forebay_batches_total{node=\"NODE\",outcome=\"delivered\"}").await, Some(1.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"busy\"}").await, Some(5.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"server_error\"}").await, Some(5.0));
    assert_eq!(metric("forebay_delivery_seconds_count{node=\"NODE\"}").await, Some(11.0));
    assert_eq!(metric("forebay_readings_delivered_total{node=\"NODE\"}").await, Some(3.0));
    assert_eq!(metric("forebay_batch_readings_count").await, Some(1.0));
    assert_eq!(metric("forebay_batch_readings_sum").await, Some(3.0));
}

#[tokio::test]
async fn a_connection_that_breaks_and_an_answer_that_does_not_come_are_tried_again() {
    let node = FakeNode::answering([Answer::hang_up(), Answer::never(), Answer::hang_up()]).await;
    let gateway = TestGateway::new().node(&node).set("cluster.timeout", "100ms").start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    assert_eq!(node.requests(), 4);
    assert_keys_carry_the_same(&node.received());
    let metric = async |labels: &str| gateway.metric(&labels.replace("NODE", &node.id())).await;
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"broken\"}").await, Some(2.0));
    assert_eq!(metric("forebay_retries_total{node=\"NODE\",reason=\"timeout\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_node_that_was_away_gets_the_readings_when_it_comes_back() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
    let id = node.id();
    let address = node.stop().await;
    gateway.post(&[reading(3)]).await.expect_status(202);
    eventually("the node is down", || async { node_status(&gateway, &id).await["up"] == false }).await;
    let reason = node_status(&gateway, &id).await["reason"].as_str().expect("a reason").to_lowercase();
    assert!(reason.contains("refused"), "{reason}");
    assert_eq!(gateway.account("buffered").await, 1);

    let node = FakeNode::start_at(address).await;
    eventually("it arrives", || async { node.readings() == [reading(3)] }).await;
    eventually("the node is up", || async { node_status(&gateway, &id).await["up"] == true }).await;
    assert!(node_status(&gateway, &id).await["reason"].is_null());
    let retries = format!("forebay_retries_total{{node=\"{id}\",reason=\"connect\"}}");
    assert!(gateway.metric(&retries).await.is_some_and(|count| count >= 5.0));
}

#[tokio::test]
async fn a_node_that_fails_is_not_asked_without_a_pause() {
    let node = FakeNode::answering((0..5).map(|_| Answer::status(503))).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("cluster.retry.initial", "200ms")
        .set("cluster.retry.max", "200ms")
        .start()
        .await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it arrives", || async { node.count() == 1 }).await;
    let received = node.received();
    let took = received[5].at - received[0].at;
    // Five delays, each drawn evenly from 0 to 200 ms: less than this in one run of a hundred thousand.
    assert!(took >= millis(50), "{took:?}");
    assert!(took < millis(5 * 200) + LIMIT / 2, "{took:?}");
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    for is_date in [false, true] {
        let (start, clock) = (Instant::now(), wall_time());
        let date = httpdate::fmt_http_date(clock + Duration::from_secs(2));
        let text = if is_date { date.clone() } else { "1".to_owned() };
        let node = FakeNode::answering([Answer::status(429).header("retry-after", &text)]).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(1)).await.expect_status(202);
        eventually("it arrives", || async { node.count() == 1 }).await;
        let received = node.received();
        let earliest = match httpdate::parse_http_date(&text) {
            // A date has whole seconds: it is one to two seconds away.
            Ok(date) => start + date.duration_since(clock).expect("later"),
            Err(_) => received[0].at + Duration::from_secs(1),
        };
        // The two clocks are not read at the same instant.
        assert!(received[1].at + millis(10) >= earliest, "{text}: {:?} too early", earliest - received[1].at);
        assert!(received[1].at < earliest + LIMIT / 2, "{text}: {:?} late", received[1].at - earliest);
    }
}

#[tokio::test]
async fn retry_after_holds_whatever_else_the_node_answers_meanwhile() {
    for late in [503, 200] {
        let node = FakeNode::answering([
            Answer::status(503).header("retry-after", 1),
            Answer::status(late).after(millis(50)),
        ])
        .await;
        let gateway = TestGateway::new().node(&node).set("batch.max_readings", 1).start().await;
        gateway.post(&readings(2)).await.expect_status(202);
        eventually("all arrive", || async { node.count() == 2 }).await;
        let received = node.received();
        let waited = received[2].at - received[0].at;
        assert!(waited >= millis(990), "{late}: {waited:?}");
    }
}

#[tokio::test]
async fn while_one_node_wants_to_be_left_alone_another_gets_its_batch() {
    let busy = FakeNode::always(Answer::status(503).header("retry-after", 60)).await;
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&busy).node(&node).set("batch.max_readings", 1).start().await;
    gateway.post(&readings(100)).await.expect_status(202);
    within(LIMIT, "all arrive", eventually("all", || async { node.count() == 100 })).await;
    // Batches on their way beside the first one were sent before its answer came.
    assert!((1..=16).contains(&busy.requests()), "{}", busy.requests());
}

#[tokio::test]
async fn a_batch_that_a_node_refuses_is_halved_until_a_reading_stands_alone_and_the_rest_is_delivered() {
    for status in [400, 413, 422] {
        let refusal = Answer::status(status).body("no such sensor");
        // All three, the first one alone, the other two together.
        let node = FakeNode::answering([refusal.clone(), refusal.clone(), refusal]).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(3)).await.expect_status(202);
        eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
        assert_eq!(node.readings(), readings(3)[1..], "{status}");
        assert_eq!((gateway.account("delivered").await, gateway.account("dead_lettered").await), (2, 1));
        let sizes: Vec<_> = node.received().iter().map(|batch| batch.readings().len()).collect();
        assert_eq!(sizes, [3, 1, 2, 1, 1], "{status}");
        // A node that refuses readings is not ill.
        assert_eq!(node_status(&gateway, &node.id()).await["up"], true, "{status}");
    }
}

#[tokio::test]
async fn a_node_that_is_set_up_wrongly_is_down_with_the_reason_and_nothing_is_given_up() {
    let elsewhere = FakeNode::start().await;
    for status in [401, 403, 404, 405, 501, 301, 302, 303, 307, 308] {
        let answer = Answer::status(status).body("ask the operator").header("location", elsewhere.url());
        let node = FakeNode::always(answer).await;
        let gateway = TestGateway::new().node(&node).start().await;
        gateway.post(&readings(3)).await.expect_status(202);
        let id = node.id();
        eventually("it is down", || async { node_status(&gateway, &id).await["up"] == false }).await;
        let reason = node_status(&gateway, &id).await["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.contains(&status.to_string()) && reason.contains("ask the operator"), "{reason}");
        assert_eq!(gateway.metric(&format!("forebay_node_up{{node=\"{id}\"}}")).await, Some(0.0));
        eventually("it is tried again", || async { node.requests() >= 3 }).await;
        assert_eq!(gateway.account("buffered").await, 3, "{status}");

        node.answer_otherwise(Answer::status(200));
        eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
        assert_eq!(node.readings(), readings(3));
        assert_eq!(node_status(&gateway, &id).await["up"], true);
        assert_keys_carry_the_same(&node.received());
    }
    assert_eq!(elsewhere.requests(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_request_that_has_come_through_this_gateway_before_is_508_on_every_path_and_nothing_is_taken() {
    let node = FakeNode::start().await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it arrives", || async { node.count() == 1 }).await;
    let id = node.received()[0].header("forebay-via");
    assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    for via in [id.clone(), format!("other, {id}"), format!("{id},other")] {
        let request =
            |path: &str, body: &[u8]| gateway.request(path).header("forebay-via", &via).body(body.to_vec());
        let json = to_json(&readings(1));
        let looped = gateway.send(request("/v1/readings", &json)).await.expect_problem(508);
        assert!(looped.detail().contains("loop"), "{}", looped.detail());
        for path in ["/write?db=x", "/api/v2/write"] {
            let looped = gateway.send(request(path, b"m,device=d value=1")).await.expect_status(508);
            assert!(looped.text().contains("loop"), "{}", looped.text());
        }
    }
    assert_eq!(gateway.account("accepted").await, 1);
    // Those of others are taken, and named to the nodes.
    let other =
        gateway.request("/v1/readings").header("forebay-via", "other-gateway").body(to_json(&readings(1)));
    gateway.send(other).await.expect_status(202);
    eventually("it arrives", || async { node.requests() == 2 }).await;
    assert_eq!(node.received()[1].header("forebay-via"), format!("other-gateway, {id}"));
}

#[tokio::test]
async fn gateways_that_send_to_each_other_find_it_out_and_give_nothing_up() {
    // The second one sends to where the first will be.
    let place = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let back = TestGateway::new().node_at(format!("http://{place}/v1/readings")).start().await;
    let first =
        TestGateway::new().set("server.listen", place).node_at(back.url("/v1/readings")).start().await;
    first.post(&readings(3)).await.expect_status(202);
    let id = place.to_string();
    eventually("the loop is found", || async { node_status(&back, &id).await["state"] == "down" }).await;
    let reason = node_status(&back, &id).await["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("508") && reason.contains("come back to this gateway"), "{reason}");
    eventually("the first has its answer", || async { first.account("delivered").await == 3 }).await;
    assert_eq!(back.account("buffered").await, 3);
    assert_eq!(first.account("accepted").await, 3, "nothing came in again");
}

#[tokio::test]
async fn a_node_that_answers_508_is_down_with_that_reason_and_nothing_is_given_up() {
    let node = FakeNode::always(Answer::status(508).body("a loop")).await;
    let gateway = TestGateway::new().node(&node).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("it is down", || async { node_status(&gateway, &node.id()).await["state"] == "down" }).await;
    let reason = node_status(&gateway, &node.id()).await["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("come back to this gateway: a loop"), "{reason}");
    assert_eq!(gateway.account("buffered").await, 3);
    node.answer_otherwise(Answer::status(200));
    eventually("it is settled", || async { gateway.account("delivered").await == 3 }).await;
}

#[tokio::test]
async fn retries_to_a_node_that_fails_do_not_storm_and_a_stop_does_not_wait_for_them() {
    const BATCHES: usize = 100;
    let node = FakeNode::always(Answer::status(500)).await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("batch.max_readings", 1)
        .set("cluster.retry.initial", "1ms")
        .set("cluster.retry.max", "1ms")
        .start()
        .await;
    let start = Instant::now();
    gateway.post(&readings(BATCHES)).await.expect_status(202);
    // The saved retries are soon spent; from then on ten a second are sent, and not a thousand.
    eventually("it is spent", || async { node.requests() >= BATCHES + 100 }).await;
    tokio::time::sleep(millis(500)).await;
    let retries = node.requests() - BATCHES;
    let most = 100.0 + 10.0 * start.elapsed().as_secs_f64();
    assert!(retries as f64 <= most + 2.0, "{retries} retries, at most {most}");
    node.answer_otherwise(Answer::status(200));
    let stop = Instant::now();
    assert_eq!(gateway.stop().await.undelivered, 0);
    // As retries they would take ten seconds.
    assert!(stop.elapsed() < millis(5000), "{:?}", stop.elapsed());
}

#[tokio::test]
async fn a_node_that_fails_half_of_its_batches_is_down_now_and_then_and_all_arrive() {
    let mut count = 0;
    let half = FakeNode::choosing(move || {
        count += 1;
        Answer::status(if count % 2 == 0 { 500 } else { 200 })
    })
    .await;
    let good = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&half)
        .node(&good)
        .set("batch.max_readings", 1)
        .set("cluster.timeout", "20ms")
        .set("cluster.health.failures", 1000)
        .set("cluster.health.probe", "300ms")
        .start()
        .await;
    eventually("it is down although it never failed often in a row", || async {
        gateway.post(&readings(20)).await.expect_status(202);
        node_status(&gateway, &half.id()).await["ejected"] == true
    })
    .await;
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}
